"""Messages: whatever names and values they are made of, they are short, and each sign of them can be seen."""

from __future__ import annotations

import ast
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydantic
import pytest

import symphony_es
import symphony_es_projections
from symphony_es import errors
from symphony_es.cli.main import main
from symphony_es.diagnostics import get_logger
from symphony_es.errors import SymphonyError
from symphony_es.shown import LONGEST, MOST_MESSAGE, message, quoted, shown

ROOTS = [Path(package.__file__ or "").parent for package in (symphony_es, symphony_es_projections)]
HOSTILE = "id\x1b[2J\r\u202e\x00\ud800\u2028" + "x" * 100_000
"""A name that clears a terminal, forges lines and fills a screen."""
HOSTILE_LINES = f"one\ntwo {HOSTILE}\n{'y ' * 50_000}"


def _classes(root: type[SymphonyError] = SymphonyError) -> Iterator[type[SymphonyError]]:
    yield root
    for cls in root.__subclasses__():
        yield from _classes(cls)


CLASSES = sorted({cls for cls in _classes() if cls.__module__ == errors.__name__}, key=lambda cls: cls.__name__)
GIVEN: dict[tuple[str, str], Any] = {
    ("DefinitionChangedError", "changes"): SimpleNamespace(report=lambda: HOSTILE_LINES),
    ("EntityDamagedError", "damage"): HOSTILE,
    ("BackupDamagedError", "report"): SimpleNamespace(problems=[SimpleNamespace(what=HOSTILE)]),
    ("HookFailedError", "error"): {"type": HOSTILE, "message": HOSTILE_LINES},
    ("UnresolvedReferenceError", "references"): [(HOSTILE, (HOSTILE,), HOSTILE)] * 50,
    ("CallNotAwaitedError", "made"): [(HOSTILE, HOSTILE)] * 50,
    ("DetachedEntityError", "why"): errors.REMOVED,
    ("StepTimeoutError", "timeout_s"): 1e300,
    ("ResultTimeoutError", "timeout_s"): 1e300,
}
"""What a constructor is given where its annotation does not say it."""


def _hostile(cls: type[SymphonyError], parameter: inspect.Parameter) -> Any:
    """Something of a parameter's type that does as much harm as it can."""
    said = str(parameter.annotation)
    if (cls.__name__, parameter.name) in GIVEN:
        return GIVEN[cls.__name__, parameter.name]
    if "Mapping" in said:
        return {HOSTILE: HOSTILE, "type": HOSTILE, "message": HOSTILE_LINES, "step": HOSTILE}
    if "Sequence" in said or "Collection" in said:
        return [HOSTILE] * 50
    if "int" in said.split(" | "):
        return 10**4000
    if "float" in said:
        return 1e300
    if "bool" in said:
        return True
    return HOSTILE


def _made(cls: type[SymphonyError]) -> SymphonyError:
    signature = inspect.signature(cls.__init__)
    positional, named = [], {}
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional.append(HOSTILE)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = _hostile(cls, parameter)
        elif parameter.kind is not parameter.VAR_KEYWORD:
            positional.append(_hostile(cls, parameter))
    return cls(*positional, **named)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_error_of_hostile_names(cls: type[SymphonyError]) -> None:
    """Its message is short and visible, whatever it was made of; its attributes hold what it was given."""
    error = _made(cls)
    for text in (str(error), *(argument for argument in error.args if isinstance(argument, str))):
        assert len(text) <= MOST_MESSAGE
        assert text.replace("\n", "").isprintable()
        assert "\n" not in text or cls._lines
    assert text


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_no_error_class_makes_its_own_text(cls: type[SymphonyError]) -> None:
    """What is shown goes through the root, which cuts it; a text of one's own is made of `message`."""
    own = cls.__dict__.get("__str__")
    assert own is None or "message(" in inspect.getsource(own)


@cache
def _modules() -> list[tuple[str, ast.Module]]:
    paths = [(root, path) for root in ROOTS for path in sorted(root.rglob("*.py"))]
    return [(f"{root.name}/{path.relative_to(root)}", ast.parse(path.read_text())) for root, path in paths]


@cache
def _calls() -> list[tuple[str, ast.Call, str]]:
    """All calls, with what is called as it is written."""
    return [
        (name, node, ast.unparse(node.func))
        for name, tree in _modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
    ]


def _outside_reprs(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those of `__repr__`, which shows what an object is and is no message."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.FunctionDef) and node.name in ("__repr__", "declared_repr")):
            yield node
            yield from _outside_reprs(node)


def test_no_message_writes_a_value_out() -> None:
    """`!r` and `%r` cost what the value is, fail for whole numbers of many digits, and show all of it: messages say `quoted` or `shown`."""
    found = [
        f"{name}:{node.lineno}"
        for name, tree in _modules()
        for node in _outside_reprs(tree)
        if isinstance(node, ast.FormattedValue) and node.conversion == ord("r") and not _is_a_path(name, node)
    ]
    assert found == []


def _is_a_path(name: str, node: ast.FormattedValue) -> bool:
    """What writes keys so that they can be read back, the paths of messages and of data; and what says the same as Python's dataclasses."""
    if name == "symphony_es/late_dataclasses.py":
        return True
    return name == "symphony_es/errors.py" and isinstance(node.value, ast.Name) and node.value.id == "element"


def test_each_error_of_the_library_is_of_its_tree() -> None:
    """Where a name or value may be in the message: an error of Python's own says what it says without the cut."""
    found = []
    for name, tree in _modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func).startswith(BARE_ERRORS):
                for argument in node.exc.args:
                    cut = isinstance(argument, ast.Call) and ast.unparse(argument.func) in CUT
                    if not cut and any(map(_is_bare, ast.walk(argument))):
                        found.append(f"{name}:{node.lineno}: {ast.unparse(node.exc)[:100]}")
    assert found == []


BARE_ERRORS = (
    "argparse.", "AttributeError", "KeyError", "TypeError", "ValueError", "IndexError", "LookupError", "RuntimeError", "TimeoutError",
    "OSError",
)  # fmt: skip
CUT = ("message", "one_message", "output.safe")
SAFE_CALLS = ("quoted", "shown", "type_shown", "output.safe", "len", "digits", "message", "_meant", "str", "', '.join", "_holds")
SAFE_NAMES = ("__name__", "__qualname__", "isoformat")


def _is_bare(part: ast.AST) -> bool:
    """Whether a part of a text is a name or value as it is."""
    if not isinstance(part, ast.FormattedValue) or part.format_spec is not None:
        return False
    written = ast.unparse(part.value)
    call = ast.unparse(part.value.func) if isinstance(part.value, ast.Call) else ""
    constant = isinstance(part.value, ast.Name) and part.value.id.isupper()
    return not (call in SAFE_CALLS or constant or any(name in written for name in SAFE_NAMES))


LOGGING = ("symphony_es/diagnostics.py", "symphony_es/cli/output.py")
"""What hands lines on, and what prints them."""


def test_log_lines_come_from_one_logger() -> None:
    """It cuts what stands in a line; nobody else asks for a logger of Python's or structlog's."""
    found = [
        f"{name}:{node.lineno}"
        for name, node, called in _calls()
        if called in ("logging.getLogger", "structlog.get_logger", "structlog.getLogger") and name not in LOGGING
    ]
    assert found == []


def test_warnings_are_messages() -> None:
    """What is given to `warnings.warn` has been cut."""
    found = [
        f"{name}:{node.lineno}"
        for name, node, called in _calls()
        if called == "warnings.warn"
        if not (isinstance(node.args[0], ast.Name) and "message(" in _assigned(dict(_modules())[name], node.args[0].id))
    ]
    assert found == []


def _assigned(tree: ast.Module, name: str) -> str:
    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name]
    return " ".join(map(ast.unparse, values))


def test_a_log_line_of_a_hostile_name(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the line nor the record's attribute has more of it than a message may have, and no control characters."""
    with caplog.at_level(logging.WARNING, logger="symphony_es.tests"):
        get_logger("symphony_es.tests").warning("something_happened", run_id=HOSTILE, n=1)
    (record,) = caplog.records
    for text in (record.getMessage(), record.__dict__["run_id"]):
        assert len(text) <= MOST_MESSAGE
        assert text.isprintable()


@pytest.mark.parametrize(
    "arguments", [[HOSTILE], ["log", f"--{HOSTILE}"], ["log", "--limit", HOSTILE], ["show", HOSTILE], ["at", f"2026-01-01{HOSTILE}"]]
)
def test_arguments_of_a_hostile_name(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The command line refuses them on lines that can be seen."""
    try:
        code = main(list(arguments))
    except SystemExit as ended:
        code = int(ended.code or 0)
    said = capsys.readouterr()
    assert code
    assert len(said.err) < 2 * MOST_MESSAGE
    assert said.err.replace("\n", "").isprintable()
    assert not said.out


class Loud:
    """An object whose text is long, or cannot be made."""

    def __repr__(self) -> str:
        raise ValueError("not now")


VALUES: Mapping[str, Any] = {
    "text": HOSTILE, "number": 10**100_000, "list": [[HOSTILE] * 1000] * 1000, "dict": {HOSTILE: {HOSTILE: 1}}, "set": {1, 2},
    "none": set(), "loud": Loud(), "deep": [[[[[[1]]]]]], "error": ValueError(HOSTILE, 10**9000), "tuple": (1,), "bytes": b"\x00" * 10**6,
}  # fmt: skip


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_in_a_message(value: Any) -> None:
    """It is cut, visible, and costs what is shown."""
    assert len(shown(value)) <= LONGEST
    assert shown(value).isprintable()
    assert shown(value)


@pytest.mark.parametrize("value", ["a", "it's", [1, "a"], {"a": 1}, (1, 2), (1,), set(), {7}, None, True, 1.5, b"x", [], {}, ()], ids=repr)
def test_a_short_value_is_shown_as_python_writes_it(value: Any) -> None:
    """So that what a message advises can be copied."""
    assert shown(value) == repr(value)
    assert quoted(value) == repr(value)


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    """The end says what to do; of a long name both ends are kept, too."""
    made = message(f"the entity {'i' * 5000} is damaged: {'word ' * 5000}; restore a backup")
    assert len(made) <= MOST_MESSAGE
    assert made.startswith("the entity iii")
    assert made.endswith("; restore a backup")
    assert message("short: what to do") == "short: what to do"
    assert message("a\nb") == "a\\nb"
    assert message("a\nb\r", lines=True) == "a\nb\\r"


def test_an_error_of_pydantic_says_where_and_shows_no_value() -> None:
    """It has no arguments: what it says of its places is told, and not what was given there."""

    class Row(pydantic.BaseModel):
        currency: str
        price: int

    with pytest.raises(pydantic.ValidationError) as one:
        Row.model_validate({"price": "4111-secret"})
    assert shown(one.value, 200) == "ValidationError(currency: missing, price: int_parsing)"
    with pytest.raises(pydantic.ValidationError) as whole:
        pydantic.TypeAdapter(int).validate_python("4111-secret")
    assert shown(whole.value) == "ValidationError(the whole: int_parsing)"
