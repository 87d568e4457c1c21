"""What the documents and docstrings of workflows show works as it stands."""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.workflow import RunMoment, WorkflowDefinition

DOCUMENT = Path(__file__).parents[2] / "docs" / "workflows.md"
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)


@pytest.mark.parametrize(
    "module",
    ["registry", "entities.memory", "workflow.language.templates", "workflow.definitions.reading", "workflow.definitions.builder", "workflow.definitions.step_list", "workflow.language.expressions", "testing"],
)
def test_examples_in_docstrings_work(module: str) -> None:
    """Every example gives what it says."""
    result = doctest.testmod(importlib.import_module(f"symphony_es.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_first_program_of_the_document_runs(tmp_path: Path) -> None:
    """As a script of its own, twice over the same directory."""
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", BLOCKS[0]], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 0, ended.stderr
        shown = "{'gather': ['rain fact 1', 'rain fact 2', 'rain fact 3'], 'write': 'Write about rain: rain fact 1', 'count': 3}"
        assert ended.stdout.splitlines()[-1] == f"completed {shown}"


async def test_the_other_programs_of_the_document_run(symphony: Symphony) -> None:
    """Policies, hooks and a step kind of one's own, with the names that the document leaves to the reader."""
    told: list[str] = []

    async def tell_somebody(run_id: str, message: str) -> None:
        told.append(message)

    async def fetch(url: str, key: str) -> str:
        return f"{url} for {key}"

    symphony.functions.register("bad", lambda context: 1 / 0)
    names: dict[str, Any] = {
        "symphony": symphony,
        "definition": WorkflowDefinition(name="x", steps=[{"kind": "function", "name": "bad", "function": "bad"}]),
        "tell_somebody": tell_somebody,
        "fetch": fetch,
        "RunMoment": RunMoment,
        "__name__": __name__,
    }
    for block in BLOCKS[1:]:
        code = compile(block, str(DOCUMENT), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        outcome = eval(code, names)
        if asyncio.iscoroutine(outcome):
            await outcome
    assert told == ["division by zero", "division by zero"], "one hook of the engine's, one of the call's"
    steps = json.loads('[{"kind": "fetch", "name": "get", "url": "https://{{ host }}"}]')
    run = await symphony.workflows.execute_workflow({"name": "y", "steps": steps}, {"host": "example.org"}, auto_checkpoint=False)
    assert run.outputs == {"get": f"https://example.org for {run.id}:get:0"}
