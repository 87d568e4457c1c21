"""Code of a run may use another Symphony of the process: ids, waits and contexts of the one say nothing of the runs of the other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, EntityOwnershipError, RunsInProgressError, SymphonyError
from symphony_es.workflow import RunContext, run_workflow, step, step_context

DRAFT = {"name": "draft", "steps": [{"kind": "function", "name": "write", "function": "write"}]}
WAITING = {"name": "waiting", "steps": [{"kind": "wait", "name": "word", "signal": "word"}]}


async def write(context: RunContext) -> str:
    """A step that ends."""
    return "written"


@pytest.fixture
async def here() -> AsyncIterator[Symphony]:
    """The Symphony whose run uses the other one."""
    async with Symphony() as symphony:
        symphony.functions.register("write", write)
        yield symphony


@pytest.fixture
async def there() -> AsyncIterator[Symphony]:
    """The other one."""
    async with Symphony() as symphony:
        symphony.functions.register("write", write)
        yield symphony


async def in_a_step(here: Symphony, action: Callable[[], Awaitable[Any]]) -> Any:
    """What an action gives in a step of a run with the id `same`; a failure of the step is raised."""

    async def act(context: RunContext) -> Any:
        return await action()

    here.functions.register("act", act)
    definition = {"name": "outer", "steps": [{"kind": "function", "name": "act", "function": "act"}]}
    handle = await here.workflows.start(definition, run_id="same")
    return await handle.result(timeout_s=10)


async def execute(there: Symphony) -> str:
    """Executes a run."""
    return str((await there.workflows.execute_workflow(DRAFT, run_id="same")).status)


async def result(there: Symphony) -> str:
    """Starts a run and waits for it."""
    return await (await there.workflows.start(DRAFT, run_id="same")).result()


async def cancel(there: Symphony) -> str:
    """Cancels a run, which is cancelled then."""
    return str((await (await there.workflows.start(WAITING, run_id="same")).cancel()).status)


async def resume(there: Symphony) -> str:
    """Goes on with a run that is paused, and waits for its end."""
    handle = await there.workflows.start(WAITING, run_id="same")
    await handle.pause()
    await handle.wait("paused")
    await handle.signal("word", "go")
    return str((await handle.resume()).status)


async def retry(there: Symphony) -> str:
    """Takes a run back."""
    await there.workflows.execute_workflow(DRAFT, run_id="same")
    return str((await there.workflows.retry_from("same", "write")).status)


async def drain(there: Symphony) -> str:
    """Stops all runs."""
    await there.workflows.start(WAITING, run_id="same")
    return (await there.workflows.drain(timeout_s=5)).stopped[0].run_id


@pytest.mark.parametrize(
    ("action", "given"),
    [
        (execute, "completed"),
        (result, "written"),
        (cancel, "cancelled"),
        (resume, "completed"),
        (retry, "completed"),
        (drain, "same"),
    ],
)
async def test_a_step_asks_the_other_symphony_about_a_run_of_its_own_id(
    here: Symphony, there: Symphony, action: Callable[[Symphony], Awaitable[str]], given: str
) -> None:
    """A run of the other Symphony that has the id of the step's own run is another run."""
    assert await in_a_step(here, lambda: action(there)) == given


async def test_a_step_rewinds_the_other_symphony(here: Symphony, tmp_path: Path) -> None:
    """A run there that has the id of the step's own run is interrupted like any other."""
    async with Symphony(tmp_path / "there") as there:
        checkpoint = await there.create_checkpoint("before")
        await there.workflows.start(WAITING, run_id="same")
        await in_a_step(here, lambda: there.resume_from_checkpoint(checkpoint, stop_runs=True))
        assert list(await there.workflows.list_runs()) == []


async def test_a_circle_of_waits_through_two_symphonies_is_told(here: Symphony, there: Symphony) -> None:
    """Runs of two Symphonys that wait for each other are told at once, and do not wait for ever."""

    async def back(context: RunContext) -> Any:
        return await here.workflows.handle("same").result()

    there.functions.register("back", back)
    definition = {"name": "inner", "steps": [{"kind": "function", "name": "back", "function": "back"}]}

    async def act() -> Any:
        run = await there.workflows.execute_workflow(definition, run_id="inner")
        assert run.error is not None
        return run.error["type"], run.error["message"].partition(":")[0]

    assert await in_a_step(here, act) == ("DeadlockError", "inner waits for same waits for inner")


async def test_a_step_is_told_that_the_other_symphony_is_drained(here: Symphony, there: Symphony) -> None:
    """A step that waits for a run of a Symphony that is drained alone is told so; it does not wait for ever."""

    async def act() -> str:
        waits = asyncio.ensure_future(there.workflows.execute_workflow(WAITING, run_id="other"))
        while not there.registry.get("workflow_engine").active.ids:
            await asyncio.sleep(0)
        await there.workflows.drain(timeout_s=5)
        outcome = await asyncio.gather(waits, there.workflows.start(DRAFT), return_exceptions=True)
        return ", ".join(type(each).__name__ for each in outcome)

    assert await in_a_step(here, act) == "RunInterruptedError, DrainingError"


@pytest.mark.parametrize(
    "call",
    [
        lambda workflows, run: workflows.get_run(run),
        lambda workflows, run: workflows.get_workflow_results(run),
        lambda workflows, run: workflows.usage(run),
        lambda workflows, run: workflows.step_attempts(run),
        lambda workflows, run: workflows.resume(run),
        lambda workflows, run: workflows.pause(run),
        lambda workflows, run: workflows.cancel(run),
        lambda workflows, run: workflows.signal(run, "word"),
        lambda workflows, run: workflows.retry_from(run, "write"),
        lambda workflows, run: workflows.fork(run, at="write"),
    ],
)
@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("by", ["object", "handle"])
async def test_a_run_of_another_symphony_is_refused(
    here: Symphony, there: Symphony, call: Callable[[Any, Any], Awaitable[Any]], ended: bool, by: str
) -> None:
    """What is asked with the object or handle of another Symphony's run is never answered of the run that has its id here."""
    for symphony in (here, there):
        await symphony.workflows.execute_workflow(DRAFT, run_id="same")
    run = await here.workflows.get_run("same") if ended else (await here.workflows.start(WAITING)).run
    with pytest.raises(EntityOwnershipError, match="belongs to another Symphony"):
        await call(there.workflows, run if by == "object" else here.workflows.handle(run))


@pytest.mark.parametrize("begin", ["start", "execute_workflow"])
async def test_a_run_that_a_step_begins_does_not_have_the_context_of_that_step(here: Symphony, begin: str) -> None:
    """`step_context()` between the calls of a workflow is an error, also where a step of another run has begun it."""
    found: list[str] = []

    @here.workflow
    async def inner() -> None:
        try:
            found.append(step_context().step)
        except SymphonyError as error:
            found.append(type(error).__name__)

    @here.workflow
    async def outer() -> None:
        async def begins() -> None:
            await getattr(here.workflows, begin)(inner, run_id="inner")

        await step(begins)
        await run_workflow(inner)

    await here.workflows.execute_workflow(outer)
    await here.workflows.handle("inner").wait()
    assert found == [ConfigurationError.__name__] * 2


@pytest.mark.parametrize("call", ["drain", "rewind"])
async def test_what_would_stop_the_run_it_is_called_in_says_what_to_do(tmp_path: Path, call: str) -> None:
    """A call that would wait for its own end is refused with an advice that can be followed: it does not ask for what was given."""
    async with Symphony(tmp_path / "here") as here:
        checkpoint = await here.create_checkpoint("before")

        async def act() -> str:
            with pytest.raises(RunsInProgressError) as refused:
                await (here.workflows.drain() if call == "drain" else here.resume_from_checkpoint(checkpoint, stop_runs=True))
            return str(refused.value)

        said = await in_a_step(here, act)
        assert "stop_runs" not in said
        assert "make it from outside" in said
