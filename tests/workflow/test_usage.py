"""What steps have used of models: on record with each attempt, and added up by run."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from symphony_es import Symphony
from symphony_es.cli.main import main
from symphony_es.errors import ConfigurationError, EntityNotFoundError
from symphony_es.events.codec import pack
from symphony_es.events.rows import decode_row
from symphony_es.testing import ManualClock
from symphony_es.workflow import gather, run_workflow, step, step_context
from symphony_es.workflow.record.usage import RunUsage, Used, read_usage


async def test_failed_attempts_cost_as_well(symphony: Symphony) -> None:
    """Each attempt says what it has used, also one that fails; the run's sum has all of them, by model and currency."""

    async def ask(context: Any) -> str:
        context.used("gpt-x", input_tokens=1200, output_tokens=300, cache_read_tokens=900, cost=0.004)
        context.used("gpt-x", input_tokens=1, output_tokens=1, cost=Decimal("0.000000001"))
        context.used("other", output_tokens=5, cost="0.5", currency="EUR")
        context.used("local", input_tokens=3)
        if context.attempt < 3:
            raise ValueError("again")
        return "done"

    symphony.functions.register("ask", ask)
    definition = {"name": "w", "retry": 3, "steps": [{"kind": "function", "name": "ask", "function": "ask"}]}
    run = await symphony.workflows.execute_workflow(definition)
    attempts = await symphony.workflows.step_attempts(run)
    assert [(attempt.attempt, attempt.outcome) for attempt in attempts] == [(1, "failed"), (2, "failed"), (3, "completed")]
    assert len({attempt.usage for attempt in attempts}) == 1
    usage = await symphony.workflows.usage(run)
    assert usage.cost == {"USD": Decimal("0.012000003"), "EUR": Decimal("1.5")}
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.calls) == (3612, 918, 2700, 12)
    by_model = {used.model: used for used in usage.by_model}
    assert (by_model["gpt-x"].calls, by_model["local"].cost, by_model["local"].currency) == (6, None, None)
    assert usage.to_dict()["cost"] == {"USD": "0.012000003", "EUR": "1.5"}


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("plain", [False, True])
async def test_every_kind_of_step_says_what_it_used(symphony: Symphony, atomic: bool, plain: bool) -> None:
    """Coroutines and plain functions, atomic or not, in code beside each other: each says it once."""

    async def ask(n: int) -> int:
        step_context().used("m", input_tokens=n, cost=n)
        return n

    def ask_in_a_thread(n: int) -> int:
        step_context().used("m", input_tokens=n, cost=n)
        return n

    chosen = ask_in_a_thread if plain else ask

    @symphony.workflow
    async def flow() -> Any:
        return await gather(*(step(chosen, n, name="ask", atomic=atomic) for n in (1, 2, 3)))

    run = await symphony.workflows.execute_workflow(flow)
    assert run.status == "completed", run.error
    usage = await symphony.workflows.usage(run)
    assert (usage.cost, usage.input_tokens) == ({"USD": Decimal(6)}, 6)
    assert len(usage.by_step) == 3


async def test_child_runs_are_added_where_asked(symphony: Symphony) -> None:
    """A run's usage is its own; with `children` that of the runs below it too."""

    async def ask() -> None:
        step_context().used("m", cost=1)

    @symphony.workflow
    async def inner() -> None:
        await step(ask)

    @symphony.workflow
    async def outer() -> None:
        await step(ask)
        await run_workflow(inner)

    run = await symphony.workflows.execute_workflow(outer)
    assert (await symphony.workflows.usage(run)).cost == {"USD": 1}
    assert (await symphony.workflows.usage(run.id, children=True)).cost == {"USD": 2}
    with pytest.raises(EntityNotFoundError):
        await symphony.workflows.usage("nobody")


@pytest.mark.parametrize("gone", ["pruned", "removed"])
async def test_child_runs_that_are_gone_are_added(symphony: Symphony, gone: str) -> None:
    """What was used was paid: the sum of a family is the same when it was pruned, or some of it removed."""

    async def ask(context: Any) -> None:
        context.used("m", input_tokens=1)

    symphony.functions.register("ask", ask)
    one: dict[str, Any] = {"name": "inner", "steps": [{"kind": "function", "name": "a", "function": "ask"}]}
    for name in ("middle", "outer"):
        steps = [{"kind": "function", "name": "a", "function": "ask"}, {"kind": "workflow", "name": "w", "definition": one}]
        one = {"name": name, "steps": steps}
    await symphony.workflows.execute_workflow(one, run_id="r", auto_checkpoint=False)
    if gone == "pruned":
        await symphony.workflows.prune_runs(older_than=0)
    else:
        for run in await symphony.workflows.get_all_runs():
            if run.name == "middle":
                symphony.entities.remove(run)
    assert (await symphony.workflows.usage("r", children=True)).calls == 3
    assert (await symphony.workflows.usage("r")).calls == 1


async def test_usage_is_in_history_and_survives_another_world(symphony: Symphony, reopen: Any) -> None:
    """It stands on the event of the end, and is read from the log by who opens it next."""

    async def ask() -> None:
        step_context().used("m", input_tokens=7)

    @symphony.workflow
    async def flow() -> None:
        await step(ask)

    run = await symphony.workflows.execute_workflow(flow)
    rows = await symphony.log.read_entity_rows(f"Workflow:{run.id}")
    (data,) = [decode_row(row).data for row in rows if row[3] == "WorkflowStepCompleted"]
    assert data == {"used": [["m", 7]]}
    again = await reopen()
    assert (await again.workflows.usage(run.id)).input_tokens == 7


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": ""},
        {"model": 3},
        {"model": "m" * 201},
        {"input_tokens": -1},
        {"output_tokens": 1.5},
        {"cache_read_tokens": "3"},
        {"input_tokens": True},
        {"input_tokens": 2**63},
        {"cost": -0.1},
        {"cost": float("nan")},
        {"cost": float("inf")},
        {"cost": "much"},
        {"cost": True},
        {"cost": 1e30},
        {"currency": "usd"},
        {"currency": "EURO"},
        {"currency": None},
    ],
    ids=repr,
)
def test_what_is_no_usage_is_refused_where_it_is_said(wrong: dict[str, Any]) -> None:
    """A typed error that names the argument; nothing of the call is noted."""
    used = Used()
    given_ = {"model": "m", "input_tokens": 1, "output_tokens": 1, "cache_read_tokens": 1, "cost": 1, "currency": "USD", **wrong}
    with pytest.raises(ConfigurationError, match="used") as refused:
        used.add(**given_)
    if wrong == {"input_tokens": 2**63}:
        assert f"to {2**63 - 1:,}" in str(refused.value)
    assert used.data() is None


COSTS = st.decimals(min_value=0, max_value=1000, places=9)
CALLS = st.tuples(st.sampled_from("ab"), st.integers(0, 10**6), st.integers(0, 10**6), st.none() | COSTS, st.sampled_from(["USD", "EUR"]))


@given(st.lists(CALLS, max_size=8))
def test_sums_are_exact_and_currencies_are_kept_apart(calls: list[tuple[str, int, int, Decimal | None, str]]) -> None:
    """What is read back adds up to what was said, to the last 10^-9, for each currency by itself."""
    used = Used()
    for model, inputs, outputs, cost, currency in calls:
        used.add(model, inputs, outputs, 0, cost, currency)
    usage = RunUsage.of(("s", entry) for entry in read_usage({"used": used.data()} if calls else {}))
    costs: dict[str, Decimal] = {}
    for _, _, _, cost, currency in calls:
        if cost is not None:
            costs[currency] = costs.get(currency, Decimal(0)) + cost
    assert usage.cost == costs
    assert (usage.input_tokens, usage.output_tokens, usage.calls) == (sum(c[1] for c in calls), sum(c[2] for c in calls), len(calls))


def test_usage_takes_no_more_than_sixty_bytes() -> None:
    """One call of a model with a long name, with all there is to say."""
    used = Used()
    used.add("claude-sonnet-4-5-20250929", 120_000, 30_000, 90_000, 0.4, "USD")
    assert len(pack({"used": used.data()})) - 1 <= 60


def test_calls_from_many_threads_are_all_there() -> None:
    """Threads of a plain function may note usage at once."""
    used = Used()
    threads = [threading.Thread(target=lambda: [used.add("m", 1, 0, 0, None, "USD") for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert used.data() == [["m", 2000, 0, 0, None, None, 2000]]


async def test_the_command_line_shows_what_attempts_have_used(
    symphony: Symphony, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`symphony-es run` says it beside the output or the error of each attempt."""

    async def ask(context: Any) -> str:
        context.used("gpt-x", input_tokens=1200, output_tokens=300, cost=0.004)
        if context.attempt == 1:
            raise ValueError("again")
        return "done"

    symphony.functions.register("ask", ask)
    definition = {"name": "w", "retry": 2, "steps": [{"kind": "function", "name": "ask", "function": "ask"}]}
    run = await symphony.workflows.execute_workflow(definition)
    await symphony.close()
    assert await asyncio.to_thread(main, ["--state-dir", str(tmp_path / "state"), "run", run.id, "--full"]) == 0
    assert capsys.readouterr().out.count("[gpt-x 1,200+300 0.004 USD]") == 2


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("used_before", [False, True])
async def test_what_comes_after_the_end_of_an_attempt_is_said_to_be_lost(symphony: Symphony, fails: bool, used_before: bool) -> None:
    """It stands on no event, so the log of the program names run, step and attempt; what came in time is on record and says nothing."""
    left: list[Any] = []

    async def ask(context: Any) -> None:
        if used_before:
            context.used("m", input_tokens=1)
        left.append(context)
        if fails:
            raise ValueError("no")

    symphony.functions.register("ask", ask)
    with capture_logs() as logs:
        run = await symphony.workflows.execute_workflow({"name": "w", "steps": [{"kind": "function", "name": "ask", "function": "ask"}]})
        early = [entry for entry in logs if entry["event"] == "usage_came_too_late"]
        left[0].used("m", input_tokens=5)
    assert not early
    assert [(entry["run_id"], entry["step"], entry["attempt"]) for entry in logs if entry["event"] == "usage_came_too_late"] == [
        (run.id, "ask", 1)
    ]
    assert (await symphony.workflows.usage(run)).input_tokens == int(used_before)


STEPS: dict[str, dict[str, Any]] = {
    "alone": {"kind": "function", "name": "ask", "function": "ask"},
    "branch": {"kind": "parallel", "name": "fan", "branches": [{"kind": "function", "name": "ask", "function": "ask"}]},
    "again": {"kind": "function", "name": "ask", "function": "ask", "retry": {"max_attempts": 2, "delay_s": 0}},
}


@pytest.mark.parametrize("shape", STEPS)
@pytest.mark.parametrize("cut", ["cancel", "deadline", "timeout", "drain", "branch", "rewind"])
async def test_an_attempt_that_is_cut_off_keeps_what_it_has_used(symphony: Symphony, cut: str, shape: str) -> None:
    """Whatever cuts it off: the sum of the run has it, once, and the attempt says it; an attempt before it that failed counts as well."""
    entered = asyncio.Event()

    async def ask(context: Any) -> None:
        context.used("m", input_tokens=7, cost=0.5)
        if shape == "again" and context.attempt == 1:
            raise ValueError("again")
        entered.set()
        await asyncio.Event().wait()

    async def fail(context: Any) -> None:
        await entered.wait()
        raise ValueError("no")

    symphony.functions.register("ask", ask)
    symphony.functions.register("fail", fail)
    steps = STEPS[shape]
    if cut == "branch":
        steps = {"kind": "parallel", "name": "both", "branches": [steps, {"kind": "function", "name": "fail", "function": "fail"}]}
    definition = {"name": "w", "steps": [steps], **({"timeout_s": 0.05} if cut == "timeout" else {})}
    clock = symphony.registry.get("workflow_engine").clock = ManualClock()
    handle = await symphony.workflows.start(definition, auto_checkpoint=False, **({"deadline_s": 60} if cut == "deadline" else {}))
    await entered.wait()
    if cut == "cancel":
        await handle.cancel(grace_s=0)
    elif cut == "drain":
        await symphony.workflows.drain(0)
    elif cut == "rewind":
        await symphony.flush()
        await symphony.rewind(symphony.log.head, stop_runs=True)
    else:
        if cut == "deadline":
            clock.advance(61)
        await handle.wait()
    await symphony.flush()
    attempts = [attempt for attempt in await symphony.workflows.step_attempts(handle.id) if attempt.step.endswith("ask")]
    expected = 2 if shape == "again" else 1
    assert [[(used.model, used.input_tokens) for used in attempt.usage] for attempt in attempts] == [[("m", 7)]] * expected
    usage = await symphony.workflows.usage(handle.id)
    assert (usage.input_tokens, usage.cost, usage.calls) == (7 * expected, {"USD": Decimal(expected) / 2}, expected)
    names = [event.name for event in await symphony.log.read_entity(f"Workflow:{handle.id}")]
    assert names.count("WorkflowStepCutOff") == (cut != "timeout")


async def test_an_attempt_that_is_cut_off_and_has_used_nothing_has_no_event_more(symphony: Symphony) -> None:
    """A step stays two events, and one that is cut off one."""
    entered = asyncio.Event()

    async def ask(context: Any) -> None:
        entered.set()
        await asyncio.Event().wait()

    symphony.functions.register("ask", ask)
    handle = await symphony.workflows.start({"name": "w", "steps": [STEPS["alone"]]}, auto_checkpoint=False)
    await entered.wait()
    await handle.cancel(grace_s=0)
    names = [event.name for event in await symphony.log.read_entity(f"Workflow:{handle.id}")]
    assert [name for name in names if name.startswith("WorkflowStep")] == ["WorkflowStepStarted"]
