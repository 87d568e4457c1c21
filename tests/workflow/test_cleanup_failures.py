"""An undo or a clean-up step that fails for good is said wherever a run's error is, however the run has ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.workflow import RunContext, Workflow, WorkflowDefinition, gather, step, step_context, step_with, wait_for_signal

WAIT: dict[str, Any] = {"kind": "wait", "name": "wait", "signal": "go"}
OWN = {"failure": "no such address", "deadline": "did not end before its deadline", "cancel": None}


CASES = [
    ("declared", ["undo/a"]),
    ("declared", ["undo/b", "undo/a"]),
    ("declared", ["cleanup/tidy"]),
    ("declared", ["undo/a", "cleanup/tidy"]),
    ("by_code", ["undo/a"]),
    ("by_code", ["undo/b", "undo/a"]),
]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


class Bank:
    """Steps `a` and `b` with an undo each, and what comes last; refunds fail where their step is in `away`."""

    def __init__(self, symphony: Symphony) -> None:
        self.symphony = symphony
        self.away: set[str] = set()
        self.back: list[str] = []
        for name in ("charge", "refund", "deliver"):
            symphony.functions.register(name, getattr(self, name))

    async def charge(self, context: RunContext) -> None:
        return None

    async def refund(self, context: RunContext) -> None:
        self._refund(context.step)

    async def deliver(self, context: RunContext) -> None:
        raise ValueError("no such address")

    def _refund(self, address: str) -> None:
        if address in self.away:
            raise ConnectionError(f"the bank of {address} is away")
        self.back.append(address)

    def declared(self, ends: str) -> WorkflowDefinition:
        charges = [{"kind": "function", "name": name, "function": "charge", "undo": "refund"} for name in "ab"]
        last = {"kind": "function", "name": "deliver", "function": "deliver"} if ends == "failure" else WAIT
        tidy = {"kind": "function", "name": "tidy", "function": "refund"}
        return WorkflowDefinition(name="w", steps=[*charges, last], cleanup=[tidy], cleanup_on=["failure", "deadline"])

    def by_code(self, ends: str) -> Any:
        async def charge() -> None:
            return None

        async def refund() -> None:
            self._refund(step_context().step)

        async def deliver() -> None:
            raise ValueError("no such address")

        @self.symphony.workflow(name="w", cleanup_on=["failure", "deadline"])
        async def order() -> None:
            await step(charge, name="a", undo=refund)
            await step(charge, name="b", undo=refund)
            if ends == "failure":
                await step(deliver)
            await wait_for_signal("go", name="wait")

        return order

    async def ended(self, definition: Any, ends: str) -> Workflow:
        more = {"deadline_s": 0.3} if ends == "deadline" else {}
        handle = await self.symphony.workflows.start(definition, run_id="r", auto_checkpoint=False, **more)
        run: Workflow = handle.run
        if ends == "cancel":
            await until(lambda: "wait" in run.attempts)
            await handle.cancel()
        await handle.wait()
        assert run.status == ("cancelled" if ends == "cancel" else "failed")
        return run


@pytest.mark.parametrize("ends", OWN)
@pytest.mark.parametrize(("what", "away"), CASES, ids=[f"{what} {'+'.join(away)}" for what, away in CASES])
async def test_it_is_said_wherever_the_error_is(
    symphony: Symphony, caplog: pytest.LogCaptureFixture, away: list[str], what: str, ends: str
) -> None:
    """The run's own error stays the first thing said; each failure is found by step and by message, and is in the log."""
    bank = Bank(symphony)
    bank.away = set(away)
    with caplog.at_level(logging.WARNING):
        run = await bank.ended(getattr(bank, what)(ends), ends)
    error: Any = run.error
    assert OWN[ends] is None or OWN[ends] in error["message"].partition(";")[0]
    (listed,) = await symphony.workflows.list_runs()
    lines = [record.getMessage() for record in caplog.records if "workflow_cleanup_failed" in record.getMessage()]
    for address in away:
        said = f"the bank of {address} is away"
        assert said in error["message"]
        assert said in (listed.error_message or "")
        assert [found.id for found in await symphony.workflows.list_runs(error=said)] == ["r"]
        assert [found.id for found in await symphony.workflows.list_runs(step=address)] == ["r"]
        assert [found.id for found in await symphony.workflows.list_runs(step=address.rpartition("/")[2])] == ["r"]
        assert any(f"run_id=r workflow=w step={address} " in line and said in line for line in lines), lines
    assert await symphony.workflows.list_runs(step="undo/c") == []
    assert len(lines) == len(away)


async def test_equal_failures_are_one_group_whatever_was_not_cleaned_up(symphony: Symphony) -> None:
    """Also one of which all was cleaned up."""
    bank = Bank(symphony)
    for number, bank.away in enumerate([set[str](), {"undo/a"}, {"undo/b", "cleanup/tidy"}]):
        handle = await symphony.workflows.start(bank.declared("failure"), run_id=f"g{number}", auto_checkpoint=False)
        await handle.wait()
    ((group, count),) = (await symphony.workflows.count_runs("error")).items()
    assert (count, "away" in group) == (3, False)
    assert len(await symphony.workflows.list_runs(error=group)) == 3


@pytest.mark.parametrize("ends", OWN)
async def test_what_is_made_up_for_is_not_said_any_more(symphony: Symphony, ends: str) -> None:
    """A resume that leaves less behind says less, and one that leaves nothing, the run's own error alone."""
    bank = Bank(symphony)
    bank.away = {"undo/a", "cleanup/tidy"}
    run = await bank.ended(bank.declared(ends), ends)
    whole: Any = run.error
    bank.away = {"undo/a"}
    await symphony.workflows.resume(run, auto_checkpoint=False)
    part: Any = run.error
    assert "undo/a" in part["message"]
    assert "tidy" not in part["message"]
    assert await symphony.workflows.list_runs(step="cleanup/tidy") == []
    bank.away = set()
    await symphony.workflows.resume(run, auto_checkpoint=False)
    assert bank.back == ["undo/b", "cleanup/tidy", "undo/a"]
    if ends == "cancel":
        assert run.error is None
    else:
        own: Any = run.error
        assert (own["type"], own["message"], own["step"]) == (whole["type"], whole["message"].partition("; not")[0], whole["step"])
        assert "cleanup" not in own


async def test_another_process_reads_it(symphony: Symphony, reopen: Any) -> None:
    """The list that is made of what is on record says the same as the one that was brought on by the events."""
    bank = Bank(symphony)
    bank.away = {"undo/a", "undo/b"}
    await bank.ended(bank.declared("failure"), "failure")
    (before,) = await symphony.workflows.list_runs()
    there = await reopen(resume="latest")
    (after,) = await there.workflows.list_runs(step="undo/a")
    assert (after.error_message, after.step, after.error_group) == (before.error_message, before.step, before.error_group)
    assert before.step == "deliver"


@pytest.mark.parametrize("cleans_up", [False, True])
async def test_the_failure_that_is_cleaned_up_after_is_none_of_the_cleanup(cleans_up: bool) -> None:
    """Also where another branch was cut off by it, so that the function runs once more and raises the same."""
    undone: list[str] = []

    async def first() -> str:
        return "first"

    async def back() -> None:
        undone.append("first")

    async def fails() -> None:
        raise ValueError("no")

    async def waits() -> None:
        await asyncio.Event().wait()

    async def tidies() -> str:
        return "tidy"

    async with Symphony() as symphony:

        @symphony.workflow(name="w", cleanup_on=["failure"])
        async def work() -> None:
            await step_with(undo=back)(first)
            try:
                await gather(step(fails), step(waits))
            finally:
                if cleans_up:
                    await step(tidies)

        run = await (await symphony.workflows.start(work, {})).wait()
        assert (run.status, undone) == ("failed", ["first"])
        assert run.error is not None
        assert (run.error["message"], run.error.get("cleanup")) == ("no", None)
