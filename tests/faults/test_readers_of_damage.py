"""Whoever reads a log whose writer has died sees what a writer would see: all that was acknowledged, or an error; never a shorter log."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from symphony_es import Symphony
from symphony_es.cli.main import DAMAGED, FOUND_WRONG, build_parser, main
from symphony_es.core.past.opening import open_to_read
from symphony_es.errors import LogDamagedError
from symphony_es.log.log import EventLog
from symphony_es.transfer import backup, verify
from tests.faults.damage import make

READING: dict[str, list[str]] = {
    "at": ["latest"],
    "audit": ["--limit", "1"],
    "backup": ["TARGET"],
    "blame": ["DamageProbe:1", "n"],
    "checkpoints": ["list"],
    "diff": ["1", "latest"],
    "doctor": [],
    "entities": [],
    "export": ["TARGET"],
    "fork": ["TARGET"],
    "history": ["DamageProbe:1"],
    "log": ["--limit", "1"],
    "prune": ["--dry-run"],
    "prune-runs": ["--older-than", "1d", "--dry-run"],
    "retry": ["r", "--dry-run"],
    "rewind": ["1", "--dry-run"],
    "run": ["r"],
    "runs": [],
    "show": ["DamageProbe:1"],
    "stats": [],
    "tail": ["-n", "1"],
    "types": [],
    "verify": [],
}
"""Each command that reads a log, with arguments that make it do so."""
OTHERS = {"cancel", "import", "pause", "restore", "resume", "signal"}
"""What leaves requests, or reads no log."""


def _flip(share: float) -> Callable[[bytes], bytes]:
    """Flip a bit in the content of a frame."""

    def change(content: bytes) -> bytes:
        frames = (len(content) - 32) // 4120
        changed = bytearray(content)
        changed[32 + int(frames * share) * 4120 + 2000] ^= 4
        return bytes(changed)

    return change


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    **{f"a bit at {share:g}": _flip(share) for share in (0.0, 0.05, 0.2, 0.33, 0.5, 0.66, 0.8, 0.95)},
    "a bit of the header": lambda content: bytes((content[0], content[1] ^ 1)) + content[2:],
    "cut in the middle": lambda content: content[: 32 + (len(content) - 32) // 4120 // 2 * 4120],
    "emptied": lambda _: b"",
}


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log whose writer has ended without closing it."""
    path = tmp_path_factory.mktemp("crashed") / "log"
    asyncio.run(make(path, crashed=True))
    return path


def _damaged(tmp_path: Path, crashed: Path, damage: str, lock: bytes | None = None) -> Path:
    directory = shutil.copytree(crashed, tmp_path / "log")
    wal = directory / "events.db-wal"
    wal.write_bytes(DAMAGES[damage](wal.read_bytes()))
    if lock is not None:
        (directory / "LOCK").write_bytes(lock)
    return directory


async def _question(directory: Path) -> None:
    symphony = Symphony({"state_dir": str(directory)}, persistence_enabled=True, read_only=True)
    await symphony.setup()
    await symphony.close()


async def _command_line(directory: Path) -> None:
    await (await open_to_read(directory)).close()


async def _log(directory: Path) -> None:
    await (await EventLog.open_read_only(directory)).close()


async def _backup(directory: Path) -> None:
    await backup(directory, directory.with_name("backup"))


WAYS: dict[str, Callable[[Path], Awaitable[None]]] = {
    "a Symphony that reads": _question,
    "the command line's": _command_line,
    "a log": _log,
    "a backup": _backup,
}


@pytest.mark.parametrize(("damage", "lock"), [*((name, None) for name in DAMAGES), *((name, b"clean\n") for name in list(DAMAGES)[3::3])])
@pytest.mark.parametrize("way", WAYS)
async def test_each_way_of_reading(tmp_path: Path, crashed: Path, way: str, damage: str, lock: bytes | None) -> None:
    """It is an error wherever the damage is, also beside an orderly close: nobody takes the log for a shorter one."""
    directory = _damaged(tmp_path, crashed, damage, lock)
    with pytest.raises(LogDamagedError):
        await WAYS[way](directory)
    assert not (await verify(directory)).ok


def test_the_list_of_commands_is_whole() -> None:
    """Each command reads a log here, or is named as one that does not."""
    assert set(build_parser().commands) == READING.keys() | OTHERS


@pytest.mark.parametrize("damage", ["a bit at 0.33", "cut in the middle"])
def test_each_command(tmp_path: Path, crashed: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each that reads a log ends with the code of damage, says so, and has written nothing."""
    directory, target = _damaged(tmp_path, crashed, damage), tmp_path / "target"
    for command, arguments in READING.items():
        given = [str(target) if argument == "TARGET" else argument for argument in arguments]
        code = main([command, "--state-dir", str(directory), *given])
        said = capsys.readouterr()
        assert code == (FOUND_WRONG if command == "verify" else DAMAGED), f"{command}: {said}"
        assert "restore a backup" in (said.out if command == "doctor" else said.err) or command == "verify", f"{command}: {said}"
        assert not target.exists(), command


def test_the_last_commit_alone_may_be_missing(tmp_path: Path, crashed: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It looks like one that was being written: readers go on without it, and say which positions are gone."""
    directory = shutil.copytree(crashed, tmp_path / "log")
    wal = directory / "events.db-wal"
    wal.write_bytes(wal.read_bytes()[:-2000])
    assert main(["log", "--state-dir", str(directory), "--limit", "1"]) == 0
    assert "last_commit_missing" in caplog.text
    opened = asyncio.run(open_to_read(directory))
    assert opened.log.lost_at_the_end == (opened.log.head + 1, opened.log.head + 1)
    asyncio.run(opened.close())


def test_a_copy_of_the_file_alone_is_looked_at_too(tmp_path: Path, crashed: Path) -> None:
    """Nobody knows how its last writer has ended: damaged commits are an error there as well."""
    directory = _damaged(tmp_path, crashed, "a bit at 0.33")
    for path in directory.iterdir():
        if path.name not in ("events.db", "events.db-wal"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(LogDamagedError):
        asyncio.run(_log(directory))
