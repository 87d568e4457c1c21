"""What reaches a terminal, and what is JSON: everything that is printed goes through `cli.output`."""

from __future__ import annotations

import ast
import json
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
from symphony_es.transfer.text import plain_as_json

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
