"""Each error in the situation that raises it: what its message says is true there, and the way out that it names leads out."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import field
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity, errors, part
from symphony_es.core.objects.restorers import EntityRestorer, RestoreManager
from symphony_es.errors import SymphonyError
from symphony_es.testing import ManualClock
from symphony_es.transfer import export_jsonl
from symphony_es.workflow import step

ROOT = Path(__file__).parent
Scenario = Callable[[Symphony], Awaitable[None]]
SCENARIOS: dict[type[SymphonyError], Scenario] = {}
WAIT = {"name": "waits", "steps": [{"kind": "wait", "name": "go", "signal": "go"}]}

ELSEWHERE: dict[str, str] = {
    "AmbiguousMomentError": "core/test_moments.py::test_each_reading_is_what_it_says",
    "AnchorMismatchError": "log/test_sqlite.py::test_the_anchor_must_match",
    "BackupDamagedError": "core/test_skipping.py::test_every_advice_leads_on",
    "CallNotAwaitedError": "workflow/test_not_awaited.py::test_a_resume_after_the_code_is_mended_runs_it",
    "ChangeError": "events/test_changes_diff_fold.py::test_what_does_not_fit_is_a_change_error",
    "CleanupUnfinishedError": "workflow/test_cleanup.py::test_a_cleanup_that_hangs_can_be_ended",
    "CloseTimeoutError": "core/test_life_cycle.py::test_closing_takes_no_longer_than_it_may",
    "ConcurrencyError": "log/test_contract.py::test_a_version_that_is_not_the_next_is_a_conflict",
    "DamagedEventError": "core/test_skipping.py::test_every_advice_leads_on",
    "DeadlineExceededError": "workflow/test_stopping.py::test_a_run_is_started_by_its_id_with_a_new_deadline",
    "DecodeError": "events/test_values_codec.py::test_bytes_that_are_no_value_are_refused",
    "DefinitionChangedError": "workflow/test_living_with_code_changes.py::test_going_on_with_another_definition",
    "DetachedEntityError": "core/test_asking.py::test_a_detached_object_is_told_what_to_do_and_it_works",
    "EntityDamagedError": "core/test_damage.py::test_a_repair_brings_it_back",
    "EntityOutOfStepError": "acceptance/test_bad_input.py::test_a_full_disk_is_told_and_nothing_acknowledged_is_lost",
    "ExportDamagedError": "transfer/test_jsonl.py::test_an_altered_file_is_refused",
    "ForkedProcessError": "core/test_forks.py::test_pools_of_forked_processes_hand_the_error_on",
    "HistoryMismatchError": "workflow/test_living_with_code_changes.py::test_patches",
    "LogDamagedError": "faults/test_damage.py::test_a_write_ahead_file_that_was_cut",
    "LogFormatError": "log/test_sqlite.py::test_a_log_of_another_format_is_not_called_damaged",
    "LogUnavailableError": "acceptance/test_bad_input.py::test_a_full_disk_is_told_and_nothing_acknowledged_is_lost",
    "NotTakenBackError": "workflow/test_atomic_foreign.py::test_who_comes_after_the_step_is_not_waited_for_and_loses_nothing",
    "ProjectionFailedError": "projections/test_durable.py::test_a_failed_projection_that_follows_tries_again",
    "ProjectionUnavailableError": "projections/test_durable.py::test_in_memory",
    "RequestPendingError": "workflow/test_inbox.py::test_no_answer_in_time",
    "RequestRefusedError": "workflow/test_inbox.py::test_a_reader_asks_as_the_command_line_does",
    "RunBlockedError": "workflow/test_recover.py::test_a_contradiction_blocks_the_run_and_is_not_met_again",
    "RunPrunedError": "workflow/test_pruning.py::test_calls_of_a_pruned_run_say_that_it_was_pruned",
    "RunsLeftAloneError": "workflow/test_recover.py::test_what_a_process_lacks_is_nobody_s_event",
    "SnapshotDamagedError": "core/test_snapshots_hostile.py::test_a_snapshot_that_lies_is_refused",
    "StorageUnavailableError": "core/test_edges.py::test_a_snapshot_that_cannot_be_written_is_told_and_tried_later",
    "ThreadsExhaustedError": "workflow/test_threads.py::test_beyond_the_bound_calls_are_refused_by_name",
    "UnknownValueError": "workflow/test_missing_classes.py::test_a_run_waits_until_its_classes_are_known",
}
"""Which test of another file raises an error in its situation, and goes on from there."""
ROOTS = {"SymphonyError", "LogError", "StorageError", "EntityError", "TransferError", "ProjectionError", "WorkflowError"}
"""Nobody raises these."""


@part
class AdviceLine:
    amount: int = 0


@entity
class AdviceNote:
    id: str = ""
    text: str = ""
    data: Any = None
    lines: list[Any] = field(default_factory=list)
    other: Any = None


def situation(cls: type[SymphonyError]) -> Callable[[Scenario], Scenario]:
    def take(scenario: Scenario) -> Scenario:
        assert cls not in SCENARIOS
        SCENARIOS[cls] = scenario
        return scenario

    return take


async def refused(cls: type[SymphonyError], advice: str, call: Callable[[], Any]) -> Any:
    """What a call raises, of this very class; its message gives the advice."""
    with pytest.raises(cls) as caught:
        made = call()
        if inspect.isawaitable(made):
            await made
    assert type(caught.value) is cls
    assert advice in str(caught.value)
    return caught.value


def directory_of(symphony: Symphony) -> Path:
    directory = symphony.state_dir
    assert directory is not None, "closed"
    return directory


def note(symphony: Symphony, **fields: Any) -> AdviceNote:
    return symphony.entities.add(AdviceNote(**{"id": "1", **fields}))


@situation(errors.ConfigurationError)
async def configuration(symphony: Symphony) -> None:
    await refused(errors.ConfigurationError, "known are", lambda: Symphony({"state_dri": "x"}))
    await refused(errors.ConfigurationError, "an id is missing", lambda: symphony.entities.get("AdviceNote"))


@situation(errors.GuessedNameError)
async def guessed_name(symphony: Symphony) -> None:
    error = await refused(errors.GuessedNameError, "use await symphony.create_checkpoint(name)", lambda: getattr(symphony, "checkpoint"))  # noqa: B009
    assert await eval(error.advice.removeprefix("await "), {"symphony": symphony, "name": "c"})


@situation(errors.PersistenceDisabledError)
async def persistence_disabled(symphony: Symphony) -> None:
    async with Symphony() as in_memory:
        await refused(
            errors.PersistenceDisabledError,
            "Symphony(persistence_enabled=True) and await setup(state_dir=...)",
            lambda: in_memory.create_checkpoint("c"),
        )
    another = Symphony(persistence_enabled=True)
    await another.setup(state_dir=directory_of(symphony).parent / "another")
    assert await another.create_checkpoint("c")
    await another.close()


@situation(errors.NotReadyError)
async def not_ready(symphony: Symphony) -> None:
    another = Symphony()
    await refused(errors.NotReadyError, "await symphony.setup() first, or use `async with`", lambda: another.entities.all())
    async with another:
        assert another.entities.all() == []


@situation(errors.ReadOnlyError)
async def read_only(symphony: Symphony) -> None:
    note(symphony)
    await symphony.flush()
    async with Symphony(directory_of(symphony), read_only=True) as reader:
        await refused(errors.ReadOnlyError, "reading only", lambda: reader.create_checkpoint("c"))
    assert await symphony.create_checkpoint("c")


@situation(errors.InvalidIdentifierError)
async def invalid_identifier(symphony: Symphony) -> None:
    error = await refused(errors.InvalidIdentifierError, "is not a valid", lambda: note(symphony, id="a\x00b"))
    assert note(symphony, id=error.identifier.replace("\x00", ""))


@situation(errors.UnstorableValueError)
async def unstorable_value(symphony: Symphony) -> None:
    one = note(symphony)

    class Price:
        amount = 3

    error = await refused(errors.UnstorableValueError, "AdviceNote:1: the value at data", lambda: setattr(one, "data", Price()))
    assert error.path == ("data",)
    assert one.data is None
    one.data = AdviceLine(amount=3)
    await symphony.flush()


@situation(errors.LimitExceededError)
async def limit_exceeded(symphony: Symphony) -> None:
    large = "x" * 6_000_000

    async def at_once() -> None:
        async with symphony.transaction("Large"):
            one.text = large * 3

    one = note(symphony)
    await refused(errors.LimitExceededError, "keep large data in a file and refer to it", at_once)
    assert one.text == ""
    beside = directory_of(symphony).parent / "large.txt"
    beside.write_text(large * 3)
    one.text = beside.name
    await symphony.flush()


@situation(errors.LogInUseError)
async def log_in_use(symphony: Symphony) -> None:
    await symphony.flush()
    directory = directory_of(symphony)
    await refused(errors.LogInUseError, "use that one, or close what has it", Symphony(directory).setup)
    await symphony.close()
    async with Symphony(directory) as after:
        assert after.state_dir == directory


@situation(errors.PositionNotFoundError)
async def position_not_found(symphony: Symphony) -> None:
    note(symphony)
    await symphony.flush()
    error = await refused(errors.PositionNotFoundError, "its head is", lambda: symphony.at(1000))
    head = int(str(error).rpartition("its head is ")[2])
    assert (await symphony.at(head)).get("AdviceNote:1")


@situation(errors.PositionInsideTransactionError)
async def position_inside_transaction(symphony: Symphony) -> None:
    async with symphony.transaction("Two"):
        note(symphony)
        note(symphony, id="2")
    inside = symphony.log.head - 1
    error = await refused(errors.PositionInsideTransactionError, "choose ", lambda: symphony.rewind(inside))
    assert f"choose {error.first - 1} or {error.last}" in str(error)
    await symphony.rewind(error.last)
    await symphony.rewind(error.first - 1)
    assert symphony.entities.find("AdviceNote:1") is None


@situation(errors.EntityTypeError)
async def entity_type(symphony: Symphony) -> None:
    def declare() -> None:
        @entity
        class Slotted:
            __slots__ = ("id",)

    await refused(errors.EntityTypeError, "__slots__", declare)

    @entity
    class AdviceSlotted:
        id: str = ""

    assert symphony.entities.add(AdviceSlotted(id="1"))


@situation(errors.EntityNotFoundError)
async def entity_not_found(symphony: Symphony) -> None:
    note(symphony)
    await refused(errors.EntityNotFoundError, "there is no entity AdviceNote:2", lambda: symphony.entities.get("AdviceNote:2"))
    assert symphony.entities.find("AdviceNote:2") is None


@situation(errors.UnknownTypeError)
async def unknown_type(symphony: Symphony) -> None:
    one = note(symphony)
    error = await refused(errors.UnknownTypeError, "did you mean AdviceNote?", lambda: symphony.entities.get("AdviceNoet:1"))
    assert symphony.entities.get(f"{error.near[0]}:1") is one


@situation(errors.UnknownPathError)
async def unknown_path(symphony: Symphony) -> None:
    one = note(symphony, text="a")
    await symphony.flush()
    error = await refused(errors.UnknownPathError, "did you mean text?", lambda: symphony.blame(one, "txt"))
    assert await symphony.blame(one, error.near[0])


@situation(errors.EntityExistsError)
async def entity_exists(symphony: Symphony) -> None:
    one = note(symphony)
    error = await refused(errors.EntityExistsError, "exists already", lambda: note(symphony))
    assert symphony.entities.get(error.entity) is one
    note(symphony, id="2")


@situation(errors.RunExistsError)
async def run_exists(symphony: Symphony) -> None:
    def start(run_id: str, **context: Any) -> Any:
        return symphony.workflows.start(WAIT, context, run_id=run_id, if_exists="return", auto_checkpoint=False)

    handle = await start("r", amount=1)
    error = await refused(errors.RunExistsError, "an id of its own, or the same input", lambda: start("r", amount=2))
    assert error.differs == ("amount",)
    assert (await start("r", amount=1)).run is handle.run
    assert (await start("s", amount=2)).id == "s"


@situation(errors.EntityOwnershipError)
async def entity_ownership(symphony: Symphony) -> None:
    one = AdviceNote(id="1")
    await refused(errors.EntityOwnershipError, "add it with symphony.entities.add(obj)", lambda: symphony.entities.remove(one))
    symphony.entities.add(one)
    symphony.entities.remove(one)


@situation(errors.EntityBusyError)
async def entity_busy(symphony: Symphony) -> None:
    one = note(symphony)
    claimed, done = asyncio.Event(), asyncio.Event()

    async def holder() -> None:
        async with symphony.transaction("Held", claim=[one]):
            claimed.set()
            await done.wait()

    task = asyncio.create_task(holder())
    await claimed.wait()
    error = await refused(errors.EntityBusyError, "claim=[entity]", lambda: setattr(one, "text", "mine"))
    assert error.holder == "Held"
    asyncio.get_running_loop().call_soon(done.set)
    async with symphony.transaction("Mine", claim=[one]):
        one.text = "mine"
    await task
    assert one.text == "mine"


async def test_an_entity_of_another_block_of_the_same_transaction(symphony: Symphony) -> None:
    """To claim it would not help: its transaction is this one. It is free when that block has ended."""
    one, go = note(symphony), asyncio.Event()

    async def beside() -> None:
        await go.wait()
        async with symphony.transaction("Beside"):
            one.text = "beside"

    async with symphony.transaction("Around"):
        early, late = asyncio.create_task(beside()), beside()
        async with symphony.transaction("Inside"):
            one.text = "inside"
            go.set()
            await refused(errors.EntityBusyError, "await the end of that block first", lambda: early)
        await late
    assert one.text == "beside"


async def test_transactions_that_wait_for_each_other(symphony: Symphony) -> None:
    """One is told; claiming all of it at the beginning has them go on one after the other."""
    one, other = note(symphony), note(symphony, id="2")
    claims: dict[str, list[AdviceNote]] = {"First": [one], "Second": [other]}
    met = asyncio.Barrier(2)

    async def both(name: str, late: AdviceNote | None) -> None:
        async with symphony.transaction(name, claim=claims[name]):
            if late is not None:
                await met.wait()
                await symphony.world.claim(late)
            one.text += name
            other.text += name

    ended = await asyncio.gather(both("First", other), both("Second", one), return_exceptions=True)
    (told,) = [error for error in ended if error is not None]
    assert "have each claim all its entities when it begins, `claim=[one, other]`" in str(told)
    claims = {"First": [one, other], "Second": [other, one]}
    one.text = other.text = ""
    await asyncio.gather(both("First", None), both("Second", None))
    assert one.text == other.text == "FirstSecond"


async def test_a_refresh_inside_a_transaction(symphony: Symphony) -> None:
    """Claiming the entity is what keeps it from being refreshed; after the block it can be."""
    one = note(symphony)
    await symphony.flush()
    async with symphony.transaction("Block", claim=[one]):
        await refused(errors.EntityBusyError, "refresh it after the block", lambda: symphony.refresh(one))
    await symphony.refresh(one)


@situation(errors.DetachedPartError)
async def detached_part(symphony: Symphony) -> None:
    one = note(symphony, lines=[AdviceLine(amount=1)])
    await symphony.flush()
    line = one.lines[0]
    await symphony.refresh(one)
    await refused(errors.DetachedPartError, "get what stands there from the entity", lambda: setattr(line, "amount", 2))
    one.lines[0].amount = 2
    await symphony.flush()


@situation(errors.UnrecordedChangeError)
async def unrecorded_change(symphony: Symphony) -> None:
    one = note(symphony, lines=[1])
    await symphony.flush()
    list.append(one.lines, 0)
    await refused(errors.UnrecordedChangeError, "x.items = heap", lambda: one.lines.append(2))
    heap = one.lines
    one.lines = heap
    list.append(one.lines, 3)
    await refused(errors.UnrecordedChangeError, "await symphony.refresh('AdviceNote:1')", lambda: one.lines.append(2))
    await symphony.refresh("AdviceNote:1")
    assert one.lines == [1, 0]


@situation(errors.TransactionEndedError)
async def transaction_ended(symphony: Symphony) -> None:
    one = note(symphony)
    go = asyncio.Event()

    async def late() -> None:
        await go.wait()
        one.text += "late "

    async with symphony.transaction("Ended"):
        stray = asyncio.create_task(late())
    go.set()
    await refused(errors.TransactionEndedError, "await it inside the block, or start it outside of the block", lambda: stray)
    async with symphony.transaction("Waited"):
        await asyncio.create_task(late())
    outside = asyncio.create_task(late())
    async with symphony.transaction("Beside"):
        note(symphony, id="2")
    await outside
    assert one.text == "late late "


@situation(errors.RestorationError)
async def restoration(symphony: Symphony) -> None:
    manager = symphony.restore_manager

    class Wrong(EntityRestorer):
        entity_type = "AdviceNote"  # type: ignore[assignment]
        made: Any = None

        async def restore(self, entity_id: str, data: dict[str, Any], context: Any) -> Any:
            return self.made

    note(symphony)
    restorer = Wrong()
    manager.register_restorer(restorer)
    await symphony.flush()
    error = await refused(errors.RestorationError, "it must return the object", lambda: symphony.resume(strict=True))
    assert "Wrong.restore returned None for AdviceNote:1" in str(error)
    restorer.made = AdviceNote(id="1")
    await symphony.resume(strict=True)


@situation(errors.RestorerConflictError)
async def restorer_conflict(symphony: Symphony) -> None:
    class One(EntityRestorer):
        entity_type = "AdviceOther"  # type: ignore[assignment]

        async def restore(self, entity_id: str, data: dict[str, Any], context: Any) -> Any:
            return None

    manager = RestoreManager()
    manager.register_restorer(One())
    await refused(errors.RestorerConflictError, "or pass replace=True", lambda: manager.register_restorer(One()))
    manager.register_restorer(One(), replace=True)


@situation(errors.UnresolvedReferenceError)
async def unresolved_reference(symphony: Symphony) -> None:
    one, other = note(symphony), note(symphony, id="2")
    one.other = other
    await symphony.flush()
    symphony.entities.remove(other)
    await symphony.flush()
    error = await refused(errors.UnresolvedReferenceError, "resume without strict=True", lambda: symphony.resume(strict=True))
    assert str(error).startswith("1 reference has no target: AdviceNote:1 at other -> AdviceNote:2")
    report = await symphony.resume()
    assert report.unresolved


@situation(errors.RunsInProgressError)
async def runs_in_progress(symphony: Symphony) -> None:
    checkpoint = await symphony.create_checkpoint("before")
    handle = await symphony.workflows.start(WAIT, auto_checkpoint=False)
    error = await refused(errors.RunsInProgressError, "pass stop_runs=True", lambda: symphony.resume_from_checkpoint(checkpoint))
    assert error.run_ids == [handle.id]
    await symphony.resume_from_checkpoint(checkpoint, stop_runs=True)


@situation(errors.CheckpointError)
async def checkpoint(symphony: Symphony) -> None:
    async with symphony.transaction("Block"):
        await refused(errors.CheckpointError, "make it after the block", lambda: symphony.create_checkpoint("c"))
    assert await symphony.create_checkpoint("c")


@situation(errors.CheckpointNotFoundError)
async def checkpoint_not_found(symphony: Symphony) -> None:
    note(symphony)
    await symphony.create_checkpoint("there")
    await refused(errors.CheckpointNotFoundError, "`await symphony.list_checkpoints()` lists", lambda: symphony.at("name:gone"))
    assert await symphony.at((await symphony.list_checkpoints())[0]["id"])


@situation(errors.TargetOccupiedError)
async def target_occupied(symphony: Symphony) -> None:
    note(symphony)
    target = directory_of(symphony).parent / "out.jsonl"
    target.write_text("mine")
    error = await refused(errors.TargetOccupiedError, "overwrite", lambda: export_jsonl(symphony.log, target))
    assert target.read_text() == "mine"
    await export_jsonl(symphony.log, Path(error.target).with_name("free.jsonl"))
    await export_jsonl(symphony.log, target, overwrite=True)
    assert target.read_text() != "mine"


@situation(errors.DefinitionError)
async def definition(symphony: Symphony) -> None:
    error = await refused(errors.DefinitionError, "steps", lambda: symphony.workflows.start({"name": "x", "steps": [{"kind": "nap"}]}))
    assert error.path.startswith("steps")


@situation(errors.ExpressionError)
async def expression(symphony: Symphony) -> None:
    from symphony_es.workflow.language.expressions import evaluate

    error = await refused(errors.ExpressionError, "(available: amount)", lambda: evaluate("amuont > 1", {"amount": 2}))
    assert evaluate(error.expression.replace("amuont", error.available[0]), {"amount": 2}) is True


@situation(errors.TemplateError)
async def template(symphony: Symphony) -> None:
    from symphony_es.workflow.language.templates import render

    error = await refused(errors.TemplateError, "(available: amount)", lambda: render("a {{ amuont }}", {"amount": 2}))
    assert "a {{ amuont }}"[error.offset :].startswith("amuont")
    assert render("{{ amount }}", {"amount": 2}) == 2


@situation(errors.StepFailedError)
async def step_failed(symphony: Symphony) -> None:
    async def fails() -> None:
        raise ValueError("no")

    told = []

    @symphony.workflow
    async def copes() -> str:
        try:
            await step(fails)
        except errors.StepFailedError as error:
            told.append(error)
        return "went on"

    run = await symphony.workflows.execute_workflow(copes)
    assert (run.status, run.result) == ("completed", "went on")
    assert (told[0].error_type, told[0].message, type(told[0])) == ("ValueError", "no", errors.StepFailedError)


@situation(errors.StepTimeoutError)
async def step_timeout(symphony: Symphony) -> None:
    waits = [True]

    async def slow(_: Any) -> str:
        if waits:
            await asyncio.Event().wait()
        return "done"

    symphony.functions.register("slow", slow)
    definition = {"name": "slow", "steps": [{"kind": "function", "name": "s", "function": "slow", "timeout_s": 0.01}]}
    run = await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)
    assert run.error is not None
    assert (run.error["type"], run.error["message"]) == ("StepTimeoutError", "step s took longer than its timeout of 0.01 s")
    waits.clear()
    assert (await symphony.workflows.resume(run)).status == "completed"


@situation(errors.ResultTimeoutError)
async def result_timeout(symphony: Symphony) -> None:
    handle = await symphony.workflows.start(WAIT, auto_checkpoint=False)
    error = await refused(errors.ResultTimeoutError, "was left alone", lambda: handle.result(timeout_s=0.01))
    assert error.status == "running"
    await handle.signal("go")
    await handle.result(timeout_s=10)


@situation(errors.SignalTimeoutError)
async def signal_timeout(symphony: Symphony) -> None:
    clock = symphony.registry.get("workflow_engine").clock = ManualClock()
    steps = [{"kind": "wait", "name": "go", "signal": "go", "within_s": 5}]
    handle = await symphony.workflows.start({"name": "x", "steps": steps}, auto_checkpoint=False)
    while not clock.sleepers:
        await asyncio.sleep(0)
    clock.advance(5)
    error = await refused(errors.RunFailedError, "give the step a default, or more time", handle.result)
    assert error.error["type"] == "SignalTimeoutError"
    steps[0]["default"] = 1
    handle = await symphony.workflows.start({"name": "y", "steps": steps}, auto_checkpoint=False)
    while not clock.sleepers:
        await asyncio.sleep(0)
    clock.advance(5)
    assert (await handle.wait()).outputs == {"go": 1}


@situation(errors.HookFailedError)
async def hook_failed(symphony: Symphony) -> None:
    class Guard:
        stops_run = True
        broken = True

        async def run_started(self, moment: Any) -> None:
            if self.broken:
                raise PermissionError("not allowed")

        run_resumed = run_started

    guard = Guard()
    symphony.functions.register("one", lambda _: 1)
    definition = {"name": "x", "steps": [{"kind": "function", "name": "s", "function": "one"}]}
    run = await symphony.workflows.execute_workflow(definition, hooks=[guard], auto_checkpoint=False)
    assert run.error is not None
    assert run.error["type"] == "HookFailedError"
    assert "Guard failed at run_started: PermissionError: not allowed" in run.error["message"]
    guard.broken = False
    assert (await symphony.workflows.resume(run, hooks=[guard])).status == "completed"


@situation(errors.RunFailedError)
async def run_failed(symphony: Symphony) -> None:
    broken = [True]

    async def pays(_: Any) -> str:
        if broken:
            raise ConnectionError("the bank does not answer")
        return "paid"

    symphony.functions.register("pays", pays)
    handle = await symphony.workflows.start(
        {"name": "x", "steps": [{"kind": "function", "name": "pay", "function": "pays", "retry": {"max_attempts": 1}}]},
        auto_checkpoint=False,
    )
    error = await refused(errors.RunFailedError, "at step pay: ConnectionError: the bank does not answer", handle.result)
    broken.clear()
    assert (await symphony.workflows.resume(error.run_id)).status == "completed"


@situation(errors.RunCancelledError)
async def run_cancelled(symphony: Symphony) -> None:
    handle = await symphony.workflows.start(WAIT, auto_checkpoint=False)
    await handle.cancel()
    error = await refused(errors.RunCancelledError, "what it completed is in the log", handle.result)
    assert await symphony.history(f"Workflow:{error.run_id}")


@situation(errors.IllegalTransitionError)
async def illegal_transition(symphony: Symphony) -> None:
    handle = await symphony.workflows.start(WAIT, auto_checkpoint=False)
    await handle.signal("go")
    await handle.wait()
    error = await refused(errors.IllegalTransitionError, "is completed and cannot become paused", handle.pause)
    assert (error.status, error.requested) == ("completed", "paused")


@situation(errors.NotRegisteredError)
async def not_registered(symphony: Symphony) -> None:
    definition = {"name": "x", "steps": [{"kind": "function", "name": "s", "function": "tally"}]}
    error = await refused(errors.NotRegisteredError, "symphony.functions.register(", lambda: symphony.workflows.start(definition))
    symphony.functions.register(error.name, lambda _: 1)
    assert (await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)).status == "completed"


@situation(errors.DrainingError)
async def draining(symphony: Symphony) -> None:
    directory = directory_of(symphony)
    await symphony.workflows.drain()
    await refused(errors.DrainingError, "start it in the one that takes over", lambda: symphony.workflows.start(WAIT))
    await symphony.close()
    async with Symphony(directory) as taking_over:
        assert await taking_over.workflows.start(WAIT, auto_checkpoint=False)


@situation(errors.DeadlockError)
async def deadlock(symphony: Symphony) -> None:
    told = []

    async def wait_for(run_id: str) -> None:
        try:
            await symphony.workflows.handle(await symphony.workflows.get_run(run_id)).result()
        except errors.DeadlockError as error:
            told.append(error)

    async def itself(context: Any) -> str:
        await wait_for(context.run_id)
        return (await symphony.workflows.start(WAIT, run_id="aside", auto_checkpoint=False)).id

    symphony.functions.register("itself", itself)
    definition = {"name": "x", "steps": [{"kind": "function", "name": "s", "function": "itself"}]}
    run = await symphony.workflows.execute_workflow(definition, run_id="r", auto_checkpoint=False)
    assert told[0].circle == ["r", "r"]
    assert "when this step, hook or code of it has returned: return, and wait for it from outside" in str(told[0])
    assert (run.status, run.outputs) == ("completed", {"s": "aside"})


@situation(errors.RunInterruptedError)
async def run_interrupted(symphony: Symphony) -> None:
    directory = directory_of(symphony)
    handle = await symphony.workflows.start(WAIT, auto_checkpoint=False)
    waiting = asyncio.create_task(handle.result())
    await symphony.workflows.drain()
    await refused(errors.RunInterruptedError, "recover() in the next one goes on with it", lambda: waiting)
    await symphony.close()
    async with Symphony(directory) as after:
        await after.resume()
        await after.workflows.signal(handle.id, "go")
        assert [run.status for run in await after.workflows.recover()] == ["completed"]


@pytest.mark.parametrize("cls", SCENARIOS, ids=lambda cls: cls.__name__)
async def test_the_advice_of_an_error(cls: type[SymphonyError], symphony: Symphony) -> None:
    """It is raised in its situation, says what is so, and what it advises works."""
    await SCENARIOS[cls](symphony)


def test_each_error_is_raised_somewhere_and_gone_on_from() -> None:
    """Here or in the test that is named; the roots of the tree are raised nowhere."""
    here = {cls.__name__ for cls in SCENARIOS}
    every = {name for name, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, SymphonyError)}
    assert every == here | set(ELSEWHERE) | ROOTS
    assert len(every) == len(here) + len(ELSEWHERE) + len(ROOTS)
    for name, where in ELSEWHERE.items():
        path, _, test = where.partition("::")
        body = (ROOT / path).read_text().partition(f"def {test}(")[2]
        assert name in re.split(r"\n(?:    )?(?:async )?def test_", body)[0], where
