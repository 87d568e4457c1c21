"""Calls of a code-first workflow with something else than they take: the error says what to write, and nothing has begun."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError
from symphony_es.workflow import (
    gather,
    patched,
    run_workflow,
    sleep,
    sleep_until,
    step,
    step_with,
    wait_for_signal,
)


async def work(number: int = 1) -> int:
    return number


class Worker:
    async def work(self, number: int = 1) -> int:
        return number


CHILD: dict[str, Any] = {"name": "child", "steps": [{"kind": "sleep", "name": "s", "seconds": 0}]}
a_step, a_step_with, a_run, a_sleep, an_end, a_signal, a_gather, a_patch = (
    *(step, step_with, run_workflow, sleep, sleep_until, wait_for_signal, gather, patched),
)  # type: tuple[Any, ...]

MISUSES: list[tuple[Callable[[], Any], str]] = [
    *((lambda given=given: a_run(given), "is no workflow") for given in (None, "child", 7, work, Worker, [CHILD])),
    (lambda: a_run(work), "put @symphony.workflow over the function"),
    (lambda: a_run(CHILD, check_arguments="no"), "True or False"),
    (lambda: a_run({"nme": 1}), "nme: is no key"),
    *((lambda given=given: a_run(CHILD, given), "the context is a dict") for given in ([1], "x", 7, {1})),
    (lambda: a_run(CHILD, name=7), "the name of a step is a text"),
    (lambda: a_run(CHILD, contxt={}), "did you mean the keyword context"),
    (lambda: a_run(CHILD, retry=3), "known: definition, context, name, on_parent_end"),
    (lambda: a_run(CHILD, on_parent_end=["cancel"]), "one of cancel, terminate, abandon"),
    *((lambda given=given: a_step(given), "the first argument is a function") for given in (None, 7, "work", {}, CHILD)),
    (lambda: a_step(work()), r"write|step\(work, …\)"),
    (lambda: a_step(None, name="x"), "the first argument is a function"),
    (lambda: a_step(work, retries=3), "the option is called retry"),
    (lambda: a_step(work, timeout=3), "the option is called timeout_s"),
    (lambda: a_step(work, nme="x"), "did you mean the option name"),
    (lambda: a_step(work, atomc=True, name="x"), "did you mean the option atomic"),
    (lambda: a_step(Worker().work, retrys=3), "did you mean the option retry"),
    (lambda: a_step(work, colour=3), "work takes no 'colour'$"),
    (lambda: a_step_with(retries=3)(work), "the keyword is called retry"),
    (lambda: a_step_with(work), "takes nothing by position"),
    (lambda: a_step_with()(None), "the first argument is a function"),
    *((lambda given=given: a_sleep(given), "a number of seconds") for given in ("1", -1, float("nan"), True, None, [1])),
    (lambda: a_sleep(timedelta(minutes=1)), "write seconds=60"),
    (lambda: a_sleep(secs=1), "takes no 'secs'"),
    *((lambda given=given: an_end(given), "a datetime with a time zone") for given in (5, None, date(2026, 1, 1), timedelta(1))),
    (lambda: an_end(datetime(2026, 1, 1)), "has no time zone"),
    *((lambda given=given: a_signal(given), "a text that is not empty") for given in (None, 7, "", b"go", ["go"])),
    *((lambda key=key: a_signal("go", **{key: 1}), "that is called within_s") for key in ("timeout", "timeout_seconds")),
    (lambda: a_signal("go", within=1), "did you mean the keyword within_s"),
    (lambda: a_signal("go", within_s=timedelta(1)), "write within_s=86400"),
    (lambda: a_signal("go", 5), "takes signal by position, and 2 were given"),
    *((lambda given=given: a_gather(given), "cannot be awaited") for given in (7, None, [1], "x", (each for each in ()))),
    (lambda: a_gather(work), r"call it, gather\(work\(…\)\)"),
    (lambda: a_gather(step(work), 7), "its argument 1 is an int"),
    (lambda: (lambda made: a_gather(made, made))(step(work)), "stands there twice"),
    (lambda: (lambda made: a_gather(made, made))(work()), "stands there twice"),
    (lambda: a_gather(nme="x"), "did you mean the keyword name"),
    (lambda: a_gather(name=7), "the name of a step is a text"),
    (lambda: a_gather(return_exceptions="yes"), "True or False"),
    *((lambda given=given: a_patch(given), "a text of 1 to") for given in (7, "", None)),
]


@pytest.mark.parametrize(("call", "said"), MISUSES, ids=range(len(MISUSES)))
async def test_what_a_call_does_not_take_is_refused_with_advice(symphony: Symphony, call: Callable[[], Any], said: str) -> None:
    """The run fails by a typed error of the library, before any step of it has begun."""

    @symphony.workflow
    async def flow() -> Any:
        made = call()
        return await made if inspect.isawaitable(made) else made

    run = await asyncio.wait_for(symphony.workflows.execute_workflow(flow, auto_checkpoint=False), 60)
    assert run.error is not None
    assert run.error["type"] in ("ConfigurationError", "DefinitionError")
    with pytest.raises(ValueError, match=said):
        raise ValueError(run.error["message"])
    assert not run.attempts


@pytest.mark.parametrize(
    ("context", "said"),
    [
        (None, "missing a required argument: 'number'"),
        ({"number": "7"}, "the argument 'number' is not a int"),
        ({"number": 7, "nmber": 8}, "'nmber', which is none of its parameters"),
    ],
)
async def test_a_context_that_does_not_become_the_arguments_of_a_child_run_is_refused(
    symphony: Symphony, context: dict[str, Any] | None, said: str
) -> None:
    """As by `start`: the error is the one of there, and nothing has begun."""

    @symphony.workflow
    async def inner(number: int) -> int:
        return number

    @symphony.workflow
    async def flow() -> int:
        return await run_workflow(inner, context)

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    with pytest.raises(ConfigurationError, match=said) as refused:
        await symphony.workflows.start(inner, context)
    assert run.error is not None
    assert (run.error["type"], run.error["message"]) == ("ConfigurationError", str(refused.value))
    assert not run.attempts


async def test_the_dict_of_a_definition_is_one(symphony: Symphony) -> None:
    """As for `start` and `execute_workflow`; the child run completes, and is found again when the function runs again."""

    @symphony.workflow
    async def flow() -> Any:
        await run_workflow(CHILD)
        return await step(work, number=3)

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    assert (run.status, run.result) == ("completed", 3), run.error
    assert run.children["child"].status == "completed"
    run = await symphony.workflows.retry_from(run, "work", auto_checkpoint=False)
    assert dict(run.attempts) == {"child": 1, "work": 1}


async def test_names_of_options_that_are_the_functions_own(symphony: Symphony) -> None:
    """A keyword that the function has is the function's, whatever it looks like."""

    def takes(timeout: float, retries: int, *, nme: str) -> list[Any]:
        return [timeout, retries, nme]

    def takes_any(**keywords: Any) -> dict[str, Any]:
        return keywords

    @symphony.workflow
    async def flow() -> Any:
        return [await step(takes, timeout=1, retries=2, nme="x"), await step(takes_any, timeout=1), await sleep_until(datetime.now(UTC))]

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    assert run.result == [[1, 2, "x"], {"timeout": 1}, None]


@pytest.mark.parametrize("call", [sleep, sleep_until, wait_for_signal, run_workflow, step_with])
def test_hover_shows_what_there_is(call: Any) -> None:
    """The signature and the text are those of the call itself."""
    assert not any(one.kind is one.VAR_KEYWORD for one in inspect.signature(call).parameters.values())
    assert call.__doc__
