"""What reaches a terminal, and what is JSON: everything that is printed goes through `cli.output`."""

from __future__ import annotations

import ast
import io
import json
import logging
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import symphony_es.cli
from symphony_es.cli import output
from symphony_es.cli.main import main
from symphony_es.diagnostics import get_logger
from symphony_es.transfer.text import plain_as_json
from tests.transfer.logs import make_log, rows_of, tamper

MODULES = [path for path in Path(symphony_es.cli.__file__).parent.rglob("*.py") if path.name != "output.py"]
HOSTILE = (
    "\x1b[2J\x1b[31mevil\r",
    "\x9b2J",
    "\x07\x08\x7f",
    "a\nb\u2028c\u2029d\x85e",
    "\u202egnp.exe",
    "\x1b]0;title\x07",
    "\udc9b2J\ud800",
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_nobody_prints_but_the_module_for_it(path: Path) -> None:
    """No `print` of a text, and no writing to a standard stream: what is printed is made safe in one place."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "print" or not node.args, f"{path.name}:{node.lineno}"
            assert not called.startswith(("sys.stdout.write", "sys.stderr.write")), f"{path.name}:{node.lineno}"


def _print_all(text: str) -> None:
    output.say(text)
    output.line(text)
    output.pairs({text: text, "plain": text})
    output.table((text, "error"), [(text, output.status("failed")), (output.Bad(text), text)])
    output.table(("a",), [], text)
    output.change(text, text, {text: [text]})
    output.say(output.brief({text: text}))
    output.json_line({text: text, "in": [{text: (text,)}]})
    output.Screen().write(f"{text}\r\n".encode("utf-8", "surrogatepass"))
    output.complain(text)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("full", [True, False])
def test_no_text_moves_the_cursor(text: str, full: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As a name, a value, a cell, a heading, a complaint, in JSON or in an export on the screen: what is printed can be seen."""
    monkeypatch.setenv("COLUMNS", "200")
    with output.fitted(full=full):
        _print_all(text)
    told = capsys.readouterr()
    assert [character for character in told.out + told.err if not (character.isprintable() or character == "\n")] == []


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=12))
def test_a_text_stands_on_one_line(text: str) -> None:
    """However it is made: safe is printable, and safe again it is the same."""
    assert output.safe(text).isprintable()
    assert output.safe(output.safe(text)) == output.safe(text)
    assert json.loads(output.json_text({text: text})) == {text: text}
    assert output.json_text({text: text}).isprintable()


VALUES: list[Any] = [
    float("nan"), float("inf"), -float("inf"), b"\0\xff", {1, 2}, Decimal("1.50"), Decimal("NaN"), UUID(int=7), timedelta(days=1),
    datetime(2026, 1, 31, tzinfo=UTC), date(2026, 1, 31), time(1, 2), {1: "one"}, 1 << 3000,
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_json_has_not_is_written_as_everywhere(value: Any) -> None:
    """Also deep inside, and what a command has converted already is not converted once more."""

    def refuse(text: str) -> None:
        raise AssertionError(text)

    told = output.json_text({"bare": value, "in": [{"deep": (value,)}], "done": plain_as_json({"value": value})})
    expected = plain_as_json(value)
    assert json.loads(told, parse_constant=refuse) == {"bare": expected, "in": [{"deep": [expected]}], "done": {"value": expected}}


ARGUMENTS = (
    "EVIL", "log EVIL", "log --EVIL", "export - --format EVIL", "log --limit EVIL", "show EVIL:", "show Task:EVIL", "at EVIL",
    "history Task:x --limit EVIL", "prune --EVIL=1", "checkpoints EVIL", "diff EVIL", "diff EVIL EVIL", "--state-dir EVIL log",
    "audit --since EVIL", "runs --status EVIL", "blame Task:x EVIL", "import EVIL x", "backup --state-dir EVIL x", "rewind EVIL",
    "fork x --at EVIL", "prune-runs --older-than EVIL", "verify --EVIL", "types EVIL", "run EVIL",
)  # fmt: skip


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_no_argument_reaches_the_terminal_as_it_is(
    arguments: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with it: what the parser says, and what a command says, can be seen, and is on the lines that it has anyway."""
    monkeypatch.chdir(tmp_path)
    lines = set()
    for text in (*HOSTILE, "plain"):
        try:
            code = main([part.replace("EVIL", text) for part in arguments.split()])
        except SystemExit as ended:
            code = ended.code
        assert code not in (0, None)
        told = capsys.readouterr()
        assert [character for character in told.out + told.err if not (character.isprintable() or character == "\n")] == []
        lines.add(told.err.count("\n"))
    assert len(lines) <= 2, "a command that makes no sense of a text may say something else of it, and no more"


@pytest.mark.parametrize("text", HOSTILE)
def test_log_lines_can_be_seen(text: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """A value of a log line is escaped by whoever makes the line, and what others log by the handler of the command line."""
    get_logger("symphony_es.tests").warning("thing_seen", name=text)
    told = caplog.records[-1].getMessage()
    assert told.isprintable() or "\ud800" in told, told
    handlers, root = logging.getLogger().handlers[:], logging.getLogger()
    try:
        root.handlers[:] = []
        with output.logged():
            logging.getLogger("other").warning("seen %s", text)
        assert root.handlers == []
    finally:
        root.handlers[:] = handlers
    assert [character for character in capsys.readouterr().err if not (character.isprintable() or character == "\n")] == []


class Unread(io.StringIO):
    """Standard output whose reader has ended after so many flushes that had something to write."""

    def __init__(self, flushes: int) -> None:
        super().__init__()
        self.left = flushes

    def flush(self) -> None:
        if self.tell():
            self.left -= 1
        if self.left < 0:
            raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize(
    ("command", "code"),
    [("log", 0), ("stats", 0), ("--help", 0), ("verify", 0), ("verify --json", 4), ("doctor --json", 4), ("prune --json", 4)],
)
def test_a_reader_that_ends(
    command: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who looks may have seen enough; a check whose answer nobody has read to its end is not a good one, and a change not a done one."""
    directory = make_log(tmp_path / "log", rows_of(20))
    monkeypatch.setattr("symphony_es.cli.main._end_output", lambda: None)
    monkeypatch.setattr("sys.stdout", Unread(0))
    first, *others = command.split()
    given = [first] if first.startswith("-") else ["--state-dir", str(directory), first, *others]
    assert main(given) == code
    assert ("was not read" in capsys.readouterr().err) == (code != 0)


def test_what_a_check_has_found_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a log is damaged and the reader ends at the last moment, the shell is told what was found."""
    directory = make_log(tmp_path / "log", rows_of(20))
    tamper(directory, ("UPDATE stored_events SET state = x'00' WHERE position = 7", ()))
    monkeypatch.setattr("symphony_es.cli.main._end_output", lambda: None)
    monkeypatch.setattr("sys.stdout", Unread(0))
    assert main(["--state-dir", str(directory), "verify"]) == 1
