"""What was changed is in the log, or on standard error, however the process ends; `close()` is not needed for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.programs import run, stored

OPEN = """
s = symphony()
asyncio.run(s.setup())
note = s.entities.add(Note(id="a"))
asyncio.run(s.flush())
"""
CHANGES = {
    "assigned": ("note.n = 5", {"Note:a": ("n", 5)}),
    "several at once": ("for n in range(6): note.n = n", {"Note:a": ("n", 5)}),
    "added": ("s.entities.add(Note(id='b', n=7))", {"Note:b": ("n", 7)}),
    "more than one turn takes": ("for i in range(1500): s.entities.add(Note(id=f'm{i}', n=i))", {"Note:m1499": ("n", 1499)}),
    "of a foreign class": ("p = s.entities.add(Plain('p', 1))\np.n = 9", {"Plain:p": ("n", 9)}),
    "large": ("note.text = 'x' * 3_000_000", {"Note:a": ("text", "x" * 3_000_000)}),
}
WAYS = {
    "runs to its end": "{change}",
    "sys.exit": "{change}\nsys.exit(0)",
    "sys.exit in a coroutine": "async def main():\n    global p\n{indented}\n    sys.exit(0)\nasyncio.run(main())",
    "an exception nobody catches": "{change}\nraise SystemExit",
    "in a thread": "def work():\n    global p\n{indented}\nt = threading.Thread(target=work)\nt.start()\nt.join()",
    "in a loop that is closed": (
        "async def main():\n    global p\n{indented}\nloop = asyncio.new_event_loop()\nloop.run_until_complete(main())\nloop.close()"
    ),
    "in a loop that is left open": (
        "async def main():\n    global p\n{indented}\nloop = asyncio.new_event_loop()\nloop.run_until_complete(main())"
    ),
    "the Symphony is collected": "{change}\ndel s, note\ngc.collect()",
    "the Symphony is a cycle's": "{change}\nholder = [s]\nholder.append(holder)\ndel s, holder",
    "in a handler of its end": "import atexit\n@atexit.register\ndef last():\n    global p\n{indented}\n",
}


def told(way: str, change: str) -> str:
    """The program."""
    return OPEN + WAYS[way].format(change=change, indented="\n".join(f"    {line}" for line in change.split("\n")))


@pytest.mark.parametrize("way", WAYS)
async def test_a_change_is_durable_however_the_process_ends(tmp_path: Path, way: str) -> None:
    """The change that nobody flushed is in the log, and the log counts as closed."""
    result = await run(told(way, "note.n = 5"), tmp_path / "log", options=("-W", "error"))
    assert result.stderr == ""
    assert (await stored(tmp_path / "log"))["Note:a"]["n"] == 5
    assert (tmp_path / "log" / "LOCK").read_text() == "clean\n"


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("way", ["runs to its end", "the Symphony is collected"])
async def test_every_kind_of_change_is(tmp_path: Path, way: str, what: str) -> None:
    """Assignments, additions, changes of foreign objects, many, and large ones."""
    change, expected = CHANGES[what]
    result = await run(told(way, change), tmp_path / "log", options=("-W", "error"))
    assert result.stderr == ""
    states = await stored(tmp_path / "log")
    for key, (field, value) in expected.items():
        assert states[key][field] == value


async def test_an_exception_that_nobody_catches_keeps_its_status(tmp_path: Path) -> None:
    """The change is stored; the traceback and the exit status are the exception's."""
    result = await run(f"{OPEN}\nnote.n = 5\nraise ValueError('mine')", tmp_path / "log")
    assert result.returncode == 1
    assert result.stderr.rstrip().endswith("ValueError: mine")
    assert (await stored(tmp_path / "log"))["Note:a"]["n"] == 5


async def test_an_interactive_session(tmp_path: Path) -> None:
    """`python -i`: what was typed before `exit()` is stored."""
    result = await run(OPEN, tmp_path / "log", options=("-i", "-q"), typed="note.n = 5\nexit()\n")
    assert result.returncode == 0
    assert (await stored(tmp_path / "log"))["Note:a"]["n"] == 5


async def test_two_symphonies_both_keep_theirs(tmp_path: Path) -> None:
    """Each one's changes go to its own log."""
    program = """
other = Symphony({"state_dir": directory + "2"}, persistence_enabled=True)
never_opened = Symphony({"state_dir": directory + "3"}, persistence_enabled=True)
asyncio.run(other.setup())
other.entities.add(Note(id="o", n=2))
note.n = 5
"""
    result = await run(OPEN + program, tmp_path / "log", options=("-W", "error"))
    assert result.stderr == ""
    assert (await stored(tmp_path / "log"))["Note:a"]["n"] == 5
    assert (await stored(tmp_path / "log2"))["Note:o"]["n"] == 2
    assert not (tmp_path / "log3").exists()


FAILS = """
from symphony_es.log.sqlite import SQLiteLogRecorder
from symphony_es.core.world import lifetime
gate = threading.Event()
lifetime.EXIT_TIMEOUT_S = {seconds}
def refuse(self, groups, time_ns):
    raise LogUnavailableError("the disk is full")
def hang(self, groups, time_ns):
    gate.wait()
SQLiteLogRecorder.append_groups = {how}
"""


@pytest.mark.parametrize("how", ["refuse", "hang"])
async def test_what_cannot_be_written_is_told(tmp_path: Path, how: str) -> None:
    """One line says which entities and how many changes, and a ResourceWarning does where they are shown; the status is the program's."""
    change = "note.text = 'x'\nnote.n = 5\ns.entities.add(Note(id='b'))"
    program = OPEN + FAILS.format(how=how, seconds=60 if how == "refuse" else 0.3) + change
    result = await run(program, tmp_path / "log", options=("-W", "default::ResourceWarning"))
    assert result.returncode == 0
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("symphony_es: ")]
    assert str(tmp_path / "log") in line
    assert "never written: 2 changes of Note:a, 1 change of Note:b" in line
    assert "ResourceWarning" in result.stderr
    quiet = await run(program, tmp_path / "log2")
    assert "ResourceWarning" not in quiet.stderr
    assert "never written: 2 changes of Note:a, 1 change of Note:b" in quiet.stderr


@pytest.mark.parametrize(("how", "seconds", "cause"), [("refuse", 60, " (the disk is full)"), ("hang", 0.3, "")])
async def test_a_collected_symphony_tells_what_cannot_be_written(tmp_path: Path, how: str, seconds: float, cause: str) -> None:
    """The same line, when nobody can reach the Symphony any more."""
    program = f"{OPEN}{FAILS.format(how=how, seconds=seconds)}note.n = 5\ndel s, note\ngc.collect()\n"
    result = await run(program, tmp_path / "log")
    assert f"never written: 1 change of Note:a{cause}\n" in result.stderr


async def test_a_block_that_has_not_ended_is_not_appended(tmp_path: Path) -> None:
    """A transaction under way when the process ends is as one that failed."""
    program = """
async def main():
    async with s.transaction("Half"):
        note.n = 5
        sys.exit(0)
asyncio.run(main())
"""
    await run(OPEN + program, tmp_path / "log")
    assert (await stored(tmp_path / "log"))["Note:a"]["n"] == 0


async def test_memory_is_left_without_a_word(tmp_path: Path) -> None:
    """A log in memory ends with its process."""
    result = await run("s = Symphony()\nasyncio.run(s.setup())\ns.entities.add(Note(id='a'))", tmp_path, options=("-W", "error"))
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("way", ["runs to its end", "in a thread", "the Symphony is collected"])
async def test_what_was_written_past_the_methods_is_told(tmp_path: Path, way: str) -> None:
    """As `close()` would raise it: entity and path are named, and all else is written."""
    result = await run(told(way, "note.__dict__['text'] = 'sly'\nnote.n = 5"), tmp_path / "log")
    assert result.returncode == 0
    assert "never written: Note:a: text differs" in result.stderr
    assert (await stored(tmp_path / "log"))["Note:a"] == {"id": "a", "text": "", "n": 5}
