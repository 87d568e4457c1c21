"""What the documents and docstrings of workflows show works as it stands."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import importlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.workflow import RetryPolicy, RunContext, Step, WorkflowDefinition

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = ("workflows", "step-kinds", "expressions", "runs", "code-first", "step-kinds-of-your-own")


def text_of(page: str) -> str:
    """The text of a document."""
    return (DOCS / f"{page}.md").read_text()


def blocks_of(page: str) -> list[tuple[str, str | None]]:
    """The programs of a document, each with what it prints where the document shows that."""
    found = re.findall(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", text_of(page), re.DOTALL)
    return [(code, shown or None) for code, shown in found]


@pytest.mark.parametrize(
    "module",
    [
        "registry",
        "entities.memory",
        "workflow.language.templates",
        "workflow.definitions.reading",
        "workflow.definitions.builder",
        "workflow.definitions.step_list",
        "workflow.language.expressions",
        "testing",
    ],
)
def test_examples_in_docstrings_work(module: str) -> None:
    """Every example gives what it says."""
    result = doctest.testmod(importlib.import_module(f"symphony_es.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_first_program_of_the_overview_runs(tmp_path: Path) -> None:
    """As a script of its own, twice over the same directory."""
    program, shown = blocks_of("workflows")[0]
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout == shown


@entity
class Account:
    """What the documents leave to the reader."""

    id: str = ""
    balance: int = 0


def prepare(page: str, symphony: Symphony) -> dict[str, Any]:
    """The names and functions that a document leaves to the reader."""
    register = symphony.functions.register
    names: dict[str, Any] = {"symphony": symphony, "__name__": f"{__name__}.{page}"}
    if page == "workflows":
        register("shout", lambda context: context.outputs["greet"].upper())
    elif page == "step-kinds":
        register("book", lambda context: 7)
        register("cancel_booking", lambda context: f"cancelled booking {context.inputs['booking']}")
        names["Account"] = Account
    elif page == "runs":
        steps = [{"kind": "function", "name": name, "function": name} for name in ("draft", "shout")]
        register("draft", lambda context: context["topic"].title())
        register("shout", lambda context: context.outputs["draft"].upper() + context["mark"])
        register("bad", lambda context: 1 / 0)
        names["definition"] = WorkflowDefinition(name="report", steps=steps, context={"mark": "!"})
        names["failing"] = WorkflowDefinition(name="failing", steps=[{"kind": "function", "name": "bad", "function": "bad"}])
        names["told"] = told = []

        async def tell_somebody(run_id: str, message: str) -> None:
            told.append(message)

        names["tell_somebody"] = tell_somebody
    elif page == "step-kinds-of-your-own":

        async def fetch(url: str, headers: dict[str, str], key: str) -> str:
            return f"page {url} for {key}"

        names |= {"fetch": fetch, "RetryPolicy": RetryPolicy}
        register("cache", lambda context: None)
        register("archive", lambda context: f"{context['query']} in the archive")
        register("web", lambda context: 1 / 0)
    return names


async def execute(block: str, names: dict[str, Any]) -> str:
    """Runs a program with `await` at its top level; gives what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        outcome = eval(compile(block, "a document", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True), names)
        if asyncio.iscoroutine(outcome):
            await outcome
    return printed.getvalue()


@pytest.mark.parametrize("page", PAGES)
async def test_the_programs_of_a_document_run(page: str, symphony: Symphony) -> None:
    """In order, in one namespace; each prints what is shown below it, and where two forms of a step are shown, they are one step."""
    names = prepare(page, symphony)
    for block, shown in blocks_of(page):
        if "asyncio.run(" in block:
            continue
        assert await execute(block, names) == (shown or ""), block
        if "written" in names:
            written = names.pop("written")
            expected = [Step.from_dict(step) for step in (written if isinstance(written, list) else [written])]
            assert [Step.from_dict(step) for step in names.pop("built").to_dicts()] == expected
    if page == "runs":
        division, audit = ["division by zero"], ["the hook Audit failed at step_completed: OSError: the audit file is full"]
        assert names["told"] == division * 2 + audit, "a hook of the engine's and one of the call's, then the engine's alone"
        await check_recovery(names)


async def check_recovery(names: dict[str, Any]) -> None:
    """The program that recovers, on the log of a process that ended while a run waited, and of one that sent the answer."""
    symphony = names["symphony"]
    directory = symphony.state_dir
    waiting = await symphony.workflows.start(names["asking"])
    await symphony.close()
    async with Symphony({"state_dir": str(directory), "resume": "latest"}, persistence_enabled=True) as other:
        await other.workflows.signal(waiting.id, "answer")

    class SameDirectory(Symphony):
        """Opens the test's directory, whatever the program calls it."""

        async def setup(self, **options: Any) -> Any:  # type: ignore[override]
            """As it is, elsewhere."""
            return await super().setup(**{**options, "state_dir": directory})

    reported: list[tuple[str, str]] = []
    names |= {"Symphony": SameDirectory, "register_functions": lambda _: None, "report": lambda *told: reported.append(told)}
    await names["main"]()
    assert reported == [("question", "completed")]


OUTPUTS: dict[str, Any] = {
    "count": 2,
    "draft": "Write about rain",
    "prepare": "clean",
    "gate": "revise",
    "checks": {"spelling": "spelling", "facts": {"error": {"type": "ValueError", "message": "wrong"}}},
    "shorten": ["spel", "erro"],
    "review": [0.3, 0.6, 0.9],
    "approval": {"approved": False},
    "pause": None,
    "invoice": "invoice for Ada",
}


async def test_the_steps_of_the_document_give_what_it_says(symphony: Symphony) -> None:
    """Every step that is shown in both forms runs, and its output is what the text says of its kind."""

    def fail(context: RunContext) -> None:
        raise ValueError("wrong")

    found = {
        "count": lambda context: len(context.inputs["words"].split()),
        "facts": fail,
        "cut": lambda context: (context["text"] if isinstance(context["text"], str) else next(iter(context["text"])))[:4],
        "rate": lambda context: round(0.3 * (context["iteration"] + 1), 1),
    }
    for name in ("load", "clean", "publish", "revise", "spelling"):
        found[name] = lambda context: context.step.rpartition("/")[2]
    for name, function in found.items():
        symphony.functions.register(name, function)
    child = {"kind": "task", "name": "write", "template": "invoice for {{ order }}"}
    await symphony.workflows.save_workflow({"id": "invoice", "name": "invoice", "steps": [child]})
    names: dict[str, Any] = {"symphony": symphony}
    context = {"topic": "rain", "rounds": 1, "editor": "Ada", "delay_s": 0.01, "item": "Ada"}
    for block, _ in blocks_of("step-kinds")[:11]:
        await execute(block, names)
        for step in names.pop("built").to_dicts() if "built" in names else []:
            if step["name"] == "new year":
                continue
            before = [{"kind": "task", "name": "draft", "template": "two words"}] if step["name"] == "count" else []
            if step["name"] == "gate":
                before = [{"kind": "map", "name": "draft", "over": [], "step": child}]
                step = {**step, "condition": "len(step.draft.result) > 0"}
            if step["name"] == "approval":
                step = {**step, "within_s": 0.01}
            if step["name"] == "shorten":
                step = {**step, "over": ["spelling", {"error": {}}]}
            run = await symphony.workflows.execute_workflow({"name": "x", "steps": [*before, step]}, context)
            assert run.status == "completed", run.error
            assert run.result == OUTPUTS.pop(step["name"]), step["name"]
    assert OUTPUTS == {}
