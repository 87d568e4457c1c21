"""Documents and code say the same: errors, links, settings, limits of size."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from symphony_es import errors
from symphony_es.log import sqlite

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "symphony_es").rglob("*.py"), *(ROOT / "projections").rglob("*.py")])


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    """Every error stands in the drawing under its base, with the builtin it derives from."""
    drawn: list[tuple[str, str, str]] = []
    above: list[str] = []
    for line in (errors.__doc__ or "").split("```")[1].splitlines():
        match = re.match(r"([│ ]*)(?:[├└]── )?([A-Z]\w+)(?: \((\w+)\))?", line)
        if match is None:
            continue
        depth = 0 if "──" not in line else len(match[1]) // 4 + 1
        above[depth:] = [match[2]]
        drawn.append((match[2], above[depth - 1] if depth else "Exception", match[3] or ""))
    actual = []
    for name, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, errors.SymphonyError):
            builtin = [base.__name__ for base in cls.__bases__[1:]]
            actual.append((name, cls.__bases__[0].__name__, builtin[0] if builtin else ""))
    assert sorted(drawn) == sorted(actual)


def test_each_error_has_its_place_on_the_page_of_errors() -> None:
    """What happened, what has been stored by then, what to do: of every class, and of none that is not there."""
    sections = re.split(r"^### ", (ROOT / "docs" / "errors.md").read_text(), flags=re.MULTILINE)[1:]
    told = {name: text for name, _, text in (section.partition("\n") for section in sections)}
    classes = [name for name, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.SymphonyError)]
    assert sorted(told) == sorted(classes)
    assert len(sections) == len(told)
    for name, text in told.items():
        assert re.fullmatch(r"\s+\S.*\.\s\*\*Stored:\*\*\s\S.*\.\s\*\*Do:\*\*\s\S.*", text, re.DOTALL), name
        for attribute in re.findall(r"\*\*Do:\*\* look at `(\w+)`", text):
            assert attribute in inspect.getsource(getattr(errors, name)), (name, attribute)


@pytest.mark.parametrize(
    "document",
    ["README.md", "CONTRIBUTING.md", *(f"docs/{path.relative_to(ROOT / 'docs')}" for path in sorted((ROOT / "docs").rglob("*.md")))],
)
def test_links_lead_somewhere(document: str) -> None:
    """Every relative link of a document points to a file that is there."""
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_schema_in_the_format_is_the_one_in_the_code() -> None:
    """Word for word, but for the white space."""
    text = re.sub(r"\s+", " ", (ROOT / "docs" / "format.md").read_text())
    for statement in sqlite.SCHEMA:
        assert f"{statement};" in text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_house_rules(path: Path) -> None:
    """A module says what it is; no print but in the command line, no eval or pickle; functions stay readable; nothing is left for later."""
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module opens with what it is"
    assert not re.search(r"TODO|FIXME|NotImplementedError\(\)|\bpickle\b|\beval\(", text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno <= 75, node.name
        forbidden = ("eval", "exec") if "cli" in path.parts else ("print", "eval", "exec")
        assert not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in forbidden)
