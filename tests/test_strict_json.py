"""Every JSON text that is not this process's own is read by one reader, which lets nothing pass in silence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from symphony_es.strict_json import DoubledKeyError, read_strictly

ROOT = Path(__file__).parents[1]
OWN = {
    "symphony_es/strict_json.py": "the reader itself",
    "symphony_es/cli/output.py": "what it has just written",
    "symphony_es/workflow/runs/summary.py": "a table that this library writes",
    "symphony_es/testing/restarting.py": "two processes of one test",
    "symphony_es/testing/restarted.py": "two processes of one test",
}
"""Where a text of this library's own is read, and whose it is."""


def test_nothing_else_reads_json() -> None:
    """A text of somebody else's is read by `read_strictly`: Python's reader would take the last of two values under one key."""
    plain = re.compile(r"\bjson\.loads?\(|JSONDecoder|from json import")
    found = {
        str(path.relative_to(ROOT))
        for package in ("symphony_es", "projections")
        for path in (ROOT / package).rglob("*.py")
        if plain.search(path.read_text())
    }
    assert found == set(OWN)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "a": 2}}]', '{"\\u0061": 1, "a": 2}', b'{"a": null, "a": null}'])
def test_a_key_that_is_there_twice(text: str | bytes) -> None:
    """However deep, however it is written, and though both say the same."""
    with pytest.raises(DoubledKeyError, match="the key 'a' is there twice"):
        read_strictly(text)


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", '{"a": Infinity}', "1e999", '{"a": [-1e999]}', "[" * 200_000, "", "{,}", b"\xff"])
def test_what_is_not_json(text: str | bytes) -> None:
    """Is a ValueError, whatever it is; so is what is nested too deeply."""
    with pytest.raises(ValueError):
        read_strictly(text)


def test_what_is_json() -> None:
    """Is what Python's own reader makes of it."""
    assert read_strictly('{"a": [1, 2.5, true, null, "\\u00e9", 1e308], "b": {}}') == {"a": [1, 2.5, True, None, "é", 1e308], "b": {}}
