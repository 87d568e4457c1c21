"""What the tables of the documents on workflows say is what the code says."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

import symphony_es.workflow.kinds as kinds_package
from symphony_es.errors import DefinitionError, ExpressionError
from symphony_es.facades.workflows import Workflows
from symphony_es.workflow import AutoCheckpoint, RetryPolicy, Step, Workflow, WorkflowBuilder, WorkflowDefinition, WorkflowStatus
from symphony_es.workflow.definitions.nesting import MAX_DEPTH, MAX_STEPS
from symphony_es.workflow.definitions.steps import MAX_STEP_ID_CHARS
from symphony_es.workflow.engine.handle import RunHandle
from symphony_es.workflow.engine.hooks import Stage
from symphony_es.workflow.kinds.loop import MAX_ITERATIONS
from symphony_es.workflow.language.expressions import MAX_CHARS, MAX_NODES, check_expression, evaluate
from symphony_es.workflow.runs.outputs import Frame, TemplateScope
from symphony_es.workflow.runs.transitions import TRANSITIONS

ROOT = Path(__file__).parents[2]


def text_of(page: str) -> str:
    """The text of a document."""
    return (ROOT / "docs" / f"{page}.md").read_text()


def rows_of(page: str, header: str) -> list[list[str]]:
    """The cells of the table that begins with a header."""
    _, _, rest = text_of(page).partition(f"\n| {header} |")
    assert rest, header
    lines = rest.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def words_of(page: str, header: str, column: int = 0) -> set[str]:
    """What stands in backquotes in a column of a table, without arguments."""
    return {word for row in rows_of(page, header) for word in re.findall(r"`(\w+)", row[column])}


def test_the_table_of_requests_is_the_table_of_the_code() -> None:
    """Every cell of docs/runs.md is TRANSITIONS, and nothing is missing."""
    columns = "request | pending | queued | running | paused | cancelling | blocked | failed | completed | cancelled"
    statuses = [WorkflowStatus(name) for name in columns.split(" | ")[1:]]
    documented = {
        row[0].strip("`"): {status: WorkflowStatus(cell) for status, cell in zip(statuses, row[1:], strict=True) if cell}
        for row in rows_of("runs", columns)
    }
    assert documented == {request: dict(table) for request, table in TRANSITIONS.items()}
    assert list(documented) == list(TRANSITIONS)
    assert words_of("runs", "status | meaning") == set(WorkflowStatus)


def test_the_table_of_events_names_those_that_there_are() -> None:
    """Each name of an event of a run in the code, and no other."""
    names: set[str] = set()
    for path in (ROOT / "symphony_es" / "workflow").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"Workflow[A-Z][A-Za-z]+", node.value):
                names.add(node.value)
    others = {"WorkflowDefinition", "WorkflowStatus", "WorkflowBuilder", "WorkflowEngine", "WorkflowHook"}
    assert words_of("runs", "event | what happened") == names - others


def test_the_tables_of_hooks_and_checkpoints_are_complete() -> None:
    """Every moment, and every parameter of the policy with its default."""
    assert words_of("runs", "method | when") == set(get_args(Stage))
    parameters = {
        name: str(parameter.default) for name, parameter in inspect.signature(AutoCheckpoint).parameters.items() if name != "monotonic"
    }
    assert {row[0].strip("`"): row[1] for row in rows_of("runs", "parameter | default | effect")} == parameters


def test_the_tables_of_definitions_and_steps_are_complete() -> None:
    """Every key of a definition, every key of a retry policy with its default, every kind with a section, every limit."""
    fields = set(inspect.signature(WorkflowDefinition).parameters)
    assert words_of("workflows", "key | meaning") == fields
    policy = {name: parameter.default for name, parameter in inspect.signature(RetryPolicy).parameters.items()}
    documented = {
        row[0].strip("`"): ast.literal_eval(row[1].strip("`")) for row in rows_of("step-kinds", "key of `retry` | default | meaning")
    }
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in documented.items()} == policy
    for module in pkgutil.iter_modules(kinds_package.__path__, f"{kinds_package.__name__}."):
        importlib.import_module(module.name)
    kinds = {cls.kind for cls in Step.__subclasses__() if cls.__module__.startswith("symphony_es.workflow.kinds")}
    assert set(re.findall(r"^## (\w+)$", text_of("step-kinds"), re.MULTILINE)) == kinds
    limits = " ".join(row[1] for row in rows_of("workflows", "what | at most"))
    for limit in (MAX_STEPS, MAX_DEPTH, MAX_STEP_ID_CHARS, MAX_ITERATIONS):
        assert f"{limit:,}" in limits


def test_every_method_is_documented() -> None:
    """Of the builder and of `symphony.workflows`."""

    def public(cls: type) -> set[str]:
        return {name for name, member in inspect.getmembers(cls, callable) if not name.startswith("_")}

    assert public(WorkflowBuilder) - {"to_dicts"} == words_of("workflows", "method | effect")
    assert words_of("workflows", "call | effect") == public(Workflows)
    handle = {name for name in vars(RunHandle) if not name.startswith("_")} | {"run"}
    assert words_of("runs", "of a handle |") == handle


def test_the_errors_of_the_table_read_as_they_do() -> None:
    """Each expression of docs/expressions.md, evaluated where the text says, gives the message shown."""
    plan = {"kind": "task", "name": "plan", "template": "x"}
    run, definition = (
        Workflow(context={"topic": "rain", "score": 0.7}, outputs={"plan": {"score": 0.7}}),
        WorkflowDefinition(name="x", steps=[plan]),
    )
    run.follow(definition)
    scope = TemplateScope(Frame(run, steps=definition.plan))
    rows = rows_of("expressions", "expression | error")
    assert len(rows) == 10
    for expression, message in rows:
        with pytest.raises(ExpressionError) as caught:
            evaluate(expression.strip("`"), scope)
        assert str(caught.value) == f"{expression.strip('`')}: {message[1:-1]}"


def test_the_language_is_what_the_document_shows() -> None:
    """Every piece of the block can be written, and what the text says is refused cannot."""
    block = re.search(r"```text\n(1  2.5.*?)```", text_of("expressions"), re.DOTALL)
    assert block is not None
    for piece in re.split(r"\s{2,}|\n", block[1].strip()):
        assert any(is_expression(text) for text in (piece, f"a {piece} b", f"a {piece}")), piece
    for refused in ("a ** 2", "a & b", "f'a'", "[x for x in a]", "lambda: a", "a := 1", "a = 1", "a # b", "a is b", "a[::2]", "print(a)"):
        assert not is_expression(refused), refused
    assert f"{MAX_CHARS:,} characters; {MAX_NODES} names" in text_of("expressions")


def is_expression(text: str) -> bool:
    """Whether a text is one of the language."""
    try:
        check_expression(text)
    except ExpressionError:
        return False
    return True


def test_the_yaml_reads_as_a_definition() -> None:
    """What a YAML reader makes of the block; and a reader of YAML 1.1 that took the key for true would be refused."""
    fetch: Callable[[Any], dict[str, Any]] = lambda key: {  # noqa: E731
        "name": "greeting",
        "steps": [
            {"kind": "task", "name": "greet", "template": "{{ greeting }}, {{ name }}"},
            {"kind": "function", "name": "shout", "function": "shout", "retry": {"max_attempts": 3, key: ["OSError"]}},
        ],
    }
    assert WorkflowDefinition.from_dict(fetch("on")).step("shout").retry == RetryPolicy(max_attempts=3, on=("OSError",))
    with pytest.raises(DefinitionError, match=r"steps\[1\]\.retry\.True: is no key"):
        WorkflowDefinition.from_dict(fetch(True))


@pytest.mark.parametrize("page", sorted(path.stem for path in (ROOT / "docs").glob("*.md")))
def test_links_lead_to_sections(page: str) -> None:
    """Every link to a part of a document leads to a heading that is there."""
    for target, anchor in re.findall(r"\]\(([\w-]*)(?:\.md)?#([\w-]+)\)", text_of(page)):
        headings = re.findall(r"^#+ (.*)$", text_of(target or page), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, f"{target}#{anchor}"
