"""What waits to be printed goes to a temporary file where it is much, and comes back as it was."""

from __future__ import annotations

from typing import Any

import pytest

from symphony_es.cli import output

KEPT: dict[str, list[Any]] = {
    "rows": [["1", "ä…", ["failed"]], ["", "\\n", "x" * 50], ["3", "y", "z"]],
    "texts": ['{"a": "\\n"}', "ž " * 20, "", "[1]"],
    "nothing": [],
}


@pytest.mark.parametrize("room", [0, 60, 10_000])
@pytest.mark.parametrize("what", KEPT)
@pytest.mark.parametrize("newest_first", [False, True])
def test_what_is_kept_comes_back(what: str, room: int, newest_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In either order, with and without a file; rows as rows, texts as texts."""
    monkeypatch.setattr(output, "KEPT_IN_MEMORY", room)
    kept = output.Kept()
    for value in KEPT[what]:
        kept.add(value, 20)
    assert len(kept) == len(KEPT[what])
    assert list(kept.each(newest_first=newest_first)) == (KEPT[what][::-1] if newest_first else KEPT[what])


def test_a_table_of_any_length_is_the_same_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether its rows wait in memory or in a file."""
    printed = []
    for room in (0, 10_000_000):
        monkeypatch.setattr(output, "KEPT_IN_MEMORY", room)
        output.table(("n", "status", "empty"), [(number, output.status("failed"), "") for number in range(30)])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert printed[0].count("\n") == 31
