"""`prune` looks at the files before it removes one: what is damaged stands in for nothing, and nothing is loaded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from symphony_es.cli.main import main
from symphony_es.core.past.opening import open_on_disk, open_to_read
from symphony_es.core.past.states import StateHistory
from symphony_es.transfer import verify
from symphony_es.transfer.snapshot_pruning import plan_pruning
from tests.transfer.logs import make_log, rows_of, snapshot_at

ROWS = rows_of(60)
POSITIONS = (12, 24, 36, 48, 60)
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit at the beginning": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "a bit in the middle": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "a bit at the end": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "cut": lambda data: data[: len(data) * 2 // 3],
    "longer": lambda data: data + b"\0",
    "empty": lambda _: b"",
}


async def snapshots_of(directory: Path) -> dict[int, Path]:
    """A log with a snapshot at each of the positions; their files."""
    make_log(directory, ROWS)
    return {position: directory / "snapshots" / (await snapshot_at(directory, ROWS, position)).name for position in POSITIONS}


async def planned(directory: Path, *wanted: int) -> tuple[list[str], list[str], list[str]]:
    """What goes, what stays, and what is damaged."""
    opened = await open_to_read(directory)
    assert opened.history.snapshots is not None
    plan = await plan_pruning(opened.history.snapshots, opened.log, wanted)
    await opened.close()
    return [info.name for info in plan.going], [info.name for info in plan.kept], [name for name, _ in plan.damaged]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_snapshot_is_never_the_nearest_one(tmp_path: Path, damage: str) -> None:
    """The whole one before it stays in its place, whichever is damaged; the damaged one is told, and left."""
    files = await snapshots_of(tmp_path / "log")
    for bad, position in ((36, 40), (60, 60), (24, 24)):
        was = files[bad].read_bytes()
        files[bad].write_bytes(DAMAGES[damage](was))
        going, kept, damaged = await planned(tmp_path / "log", position)
        files[bad].write_bytes(was)
        newest = 48 if bad == 60 else 60
        nearest = max(each for each in POSITIONS if each <= position and each != bad)
        assert kept == [files[each].name for each in sorted({newest, nearest}, reverse=True)]
        assert damaged == [files[bad].name]
        assert len(going) + len(kept) + len(damaged) == len(POSITIONS)


async def test_a_snapshot_of_another_log_stands_in_for_nothing(tmp_path: Path) -> None:
    """It is whole, and what it was taken at is no event of this log."""
    files = await snapshots_of(tmp_path / "log")
    other = await snapshot_at(make_log(tmp_path / "other", rows_of(60, group=1)), rows_of(60, group=1), 36)
    files[36].write_bytes((tmp_path / "other" / "snapshots" / other.name).read_bytes())
    assert await planned(tmp_path / "log", 40) == (
        [files[48].name, files[12].name], [files[60].name, files[24].name], [files[36].name]
    )  # fmt: skip


async def test_nobody_asks_for_what_is_not_there(tmp_path: Path) -> None:
    """Without snapshots nothing goes; before the first one none is kept; each is kept once."""
    make_log(tmp_path / "bare", ROWS)
    assert await planned(tmp_path / "bare", 10) == ([], [], [])
    files = await snapshots_of(tmp_path / "log")
    assert (await planned(tmp_path / "log", 5, 11, 0))[1] == [files[60].name]
    assert (await planned(tmp_path / "log", 12, 13, 23))[1] == [files[60].name, files[12].name]


@pytest.mark.parametrize("damage", ["a bit at the beginning", "a bit in the middle", "cut"])
def test_the_command_says_before_what_it_does_then(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--dry-run` and `prune` name the same files, no state is loaded, and `verify` and `doctor` see the damage as well."""
    directory = tmp_path / "log"

    async def prepare() -> dict[int, Path]:
        files = await snapshots_of(directory)
        opened = await open_on_disk(directory, force_network_fs=False, ignore_anchor=False)
        assert opened.checkpoints is not None
        await opened.checkpoints.name_position(39, 5, "wanted", {})
        await opened.close()
        return files

    files = asyncio.run(prepare())
    files[36].write_bytes(DAMAGES[damage](files[36].read_bytes()))

    def told(*arguments: str) -> dict[str, object]:
        code = main([*arguments, "--json", "--state-dir", str(directory)])
        first = json.loads(capsys.readouterr().out.splitlines()[0])
        return {**first, "code": code}

    def refuse(*_: object) -> None:
        raise AssertionError("no state is needed")

    report = asyncio.run(verify(directory))
    assert (report.ok, report.snapshots, [name for name, _ in report.damaged_snapshots]) == (True, 4, [files[36].name])
    assert main(["verify", "--state-dir", str(directory)]) == 0
    assert "4 snapshots are good, 1 snapshot is damaged" in capsys.readouterr().out
    assert main(["doctor", "--state-dir", str(directory)]) == 1
    assert f"snapshot {files[36].name} cannot be trusted" in capsys.readouterr().out
    with monkeypatch.context() as patched:
        patched.setattr(StateHistory, "states_at", refuse)
        said, done = told("prune", "--dry-run"), told("prune")
    gone = [files[48].name, files[12].name]
    assert said == {"removed": gone, "bytes": said["bytes"], "damaged": [files[36].name], "dry_run": True, "code": 0}
    assert done == {**said, "dry_run": False}
    assert sorted(path.name for path in files.values() if path.exists()) == sorted(files[each].name for each in (24, 36, 60))
