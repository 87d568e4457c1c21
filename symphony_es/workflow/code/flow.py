"""Runs the function of a code-first workflow, and gives its calls what is on record of them.

The function runs again from its beginning whenever its run goes on; each of its calls finds its own record by place (`strands.py`). That
the calls of a strand come in the same order each time is all the determinism that is asked of the code. Replaying costs a call a few
look-ups, and gives the event loop back every few milliseconds.

A run that is being cancelled runs its function once more, so that its `except` and `finally` can clean up: each strand is cut off, by
`asyncio.CancelledError`, at the first call that has no outcome on record, and what it calls after that is run. The same happens after a
crash in the middle: the call where a strand was cut off never gets an outcome, and what came after it stands on record as clean-up.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from symphony_es.annotated import signature, signature_shown
from symphony_es.contexts import reset_variable
from symphony_es.diagnostics import error_text, get_logger
from symphony_es.errors import (
    CallNotAwaitedError,
    ConfigurationError,
    EntityOutOfStepError,
    HistoryMismatchError,
    NotRegisteredError,
    StepFailedError,
)
from symphony_es.failures import is_failure
from symphony_es.shown import quoted
from symphony_es.workflow.code.cutting import CutOff, cut_off_in, note_cuts
from symphony_es.workflow.code.forgiving import take_back_calls
from symphony_es.workflow.code.strands import (
    INSIDE_A_STEP,
    Call,
    Group,
    Made,
    Strand,
    calls_on_record,
    current_strand,
    has_arguments,
    strand_around,
)
from symphony_es.workflow.engine.bodies import StepFailure, StepsTask, is_interrupted, run_body, unclosed
from symphony_es.workflow.engine.branches import wait_for_end
from symphony_es.workflow.engine.control import RunStopped
from symphony_es.workflow.engine.histories import generations_of
from symphony_es.workflow.runs.cleanup import ON_CALLS, has_own_undo, is_of_cleanup
from symphony_es.workflow.runs.failures import describe_error
from symphony_es.workflow.runs.outputs import Frame
from symphony_es.workflow.runs.parts import output_at
from symphony_es.workflow.runs.thawing import thaw
from symphony_es.workflow.runs.unmade import Lacking, handed

if TYPE_CHECKING:
    from symphony_es.events.changes import Change
    from symphony_es.registry import NamedCallables
    from symphony_es.workflow.definitions.steps import Step
    from symphony_es.workflow.engine.runner import Runner
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["Flow", "clean_up_flow", "note_beside", "refused_inside", "run_flow", "steps_behind"]

_log = get_logger(__name__)

REPLAYED_AT_ONCE = 32
"""So many calls are replayed before the loop is asked whether others wait for it; at about 10 µs each."""

LOOKED_AT_A_CALL = 64
"""So many values of arguments are looked at in the time that a call takes."""

IDLE_S = 1.0
"""A function that is to be cut off and comes to no call for so long waits for something of its own: that is cut off."""


class Flow:
    """One execution of the function in this process.

    Attributes:
        runner: runs its steps.
        run: the run.
        strands: by name.
        unmade: names of the strands on record that it has not made yet, by the strand around them.
        cleans_up: whether it runs once more because its run is being cancelled.
        stopped: the request, or what this process lacks, that has taken the run out of a call; every later call is given the same.
        error: what the function of a run that is being cancelled has raised.
        cut_off_at: addresses of the calls at which strands were cut off, or names of strands.
        undos: what undoes the calls, by their addresses, and whether these are atomic; None while nothing is to be undone.
        only_replays: whether it runs for what it says of its calls alone, which the code may contradict in part: none is run.
        on_record: the calls on record by address, where it only replays.
        called: addresses of the calls that were awaited, where it only replays, without those the undo of which is not that of the record.
        unawaited: the coroutines of what has been made, and has not begun.
        forgotten: what was made to clean up by a function that has ended by an exception, and never awaited.
        cuts: where strands were cut off by a `gather` that has failed, until the next call puts it on record.
    """

    def __init__(
        self, runner: Runner, *, cleans_up: bool = False, undos: dict[str, tuple[Step, bool]] | None = None, only_replays: bool = False
    ) -> None:
        self.runner = runner
        self.only_replays = only_replays
        self.called: set[str] = set()
        self.run = runner.run
        self.on_record = calls_on_record(self.run) if only_replays else {}
        self.cleans_up = cleans_up
        self.undos = undos
        self.stopped: RunStopped | Lacking | None = None
        self.strands: dict[str, Strand] = {}
        self.unmade: dict[str, set[str]] = {}
        for name in filter(None, self.run.calls):
            self.unmade.setdefault(strand_around(name), set()).add(name)
        self.cut_off_at: list[str] = []
        self.error: BaseException | None = None
        self.obsolete: list[tuple[str, int]] = []
        self.unawaited: dict[Made, Coroutine[Any, Any, Any]] = {}
        self.forgotten: list[Made] = []
        self.cuts: list[CutOff] = []
        self.calls = 0
        self._since_turn = 0
        self._ended = False
        self._order: dict[str, int] | None = None
        self._frame = Frame(runner.run)
        self._under_way: dict[str, asyncio.Task[Any] | None] = {}

    async def run_call(self, call: Call, make: Callable[[], Step]) -> Any:
        """Run the step of a call, or give what is on record of it.

        Args:
            call: which.
            make: makes its step, where it has to run.

        Raises:
            StepFailedError: it has failed for good.
            ConfigurationError: it is awaited inside a step, or inside a transaction.
            asyncio.CancelledError: the run is being cancelled, and this is where the strand is cut off.
        """
        around = current_strand.get()
        self.unawaited.pop(call, None)
        if self.only_replays and (not call.undoable or self.is_known(call)):
            self.called.add(call.address)
        if around is INSIDE_A_STEP:
            raise refused_inside(call.address)
        call.strand.check_no_block(call.address)
        self.calls += 1
        self._since_turn += 1 if call.given is None else 1 + call.given.size // LOOKED_AT_A_CALL
        if self._since_turn >= REPLAYED_AT_ONCE:
            self._since_turn = 0
            await self.runner.take_turn()
        if self.obsolete and not self.only_replays:
            await self._take_back()
        outputs = self.run.recorded_outputs
        if call.address in outputs:
            return self._hand(outputs[call.address])
        token = current_strand.set(INSIDE_A_STEP)
        try:
            return await self._run_call(call, make, around)
        finally:
            reset_variable(token)

    async def _run_call(self, call: Call, make: Callable[[], Step], waits: Strand | None) -> Any:
        run, address = self.run, call.address
        if self._ended:
            raise ConfigurationError(f"{address} is awaited after its workflow has ended: await each call inside the function")
        if self.stopped is not None:
            raise self.stopped
        failure = run.failures.get(address)
        if failure is not None and "retry_at" not in failure and run.step_status(address) == "failed":
            raise StepFailedError(address, failure["type"], failure["message"])
        strand = waits or call.strand
        strand.called_off = strand.called_off or call.strand.mark_of(call.place)
        if strand.called_off is not None:  # after it no other step begins, as after a cancellation
            raise asyncio.CancelledError(f"{address} was cut off when another coroutine of its gather had failed")
        if self.only_replays or (self.cleans_up and not call.cleans_up):
            # The strand that waits is cut off: a call that was handed to `gather` as it is was made by the one around.
            (waits or call.strand).cut_off = True
            self.cut_off_at.append(address)
            raise asyncio.CancelledError(f"run {run.id} is being cancelled")
        strand.check_not_empty(address, call.what)
        strand.check_none_left_out(address, call.what)
        self._under_way[address] = asyncio.current_task()
        try:
            await self.runner.run_step(make(), address, self._frame, on_start=call.noted)
        except StepFailure as error:
            description = error.description
            raise StepFailedError(description["step"] or address, description["type"], description["message"]) from error.error
        except (RunStopped, Lacking) as stopped:
            self.stopped = stopped
            raise
        except asyncio.CancelledError:
            strand.cancelled_at(call)
            raise
        finally:
            del self._under_way[address]
        return self._hand(output_at(run, address))

    def _hand(self, output: Any) -> Any:
        try:
            return handed(thaw(output), self.runner.symphony.world)
        except Lacking as stopped:
            self.stopped = stopped
            raise

    def is_known(self, call: Call) -> bool:
        """Return whether a call is the one on record at its address: where it only replays, the code may make others by now."""
        if not self.only_replays:
            return True
        recorded = self.on_record.get(call.address)
        return recorded is not None and recorded[1] == call.what and has_arguments(recorded, call.given)

    async def _take_back(self) -> None:
        """Take what the code does not call any more off the record, before its next call has an outcome."""
        symphony = self.runner.symphony
        while self.obsolete:
            await take_back_calls(symphony, self.run, *self.obsolete.pop())
        self.runner.generations = await generations_of(symphony, self.run)

    def order(self) -> dict[str, int]:
        """Return in which order the steps of the run had begun for the first time when this was asked first."""
        if self._order is None:
            self._order = {address: number for number, address in enumerate(self.run.attempts)}
        return self._order

    def has_failed(self, group: Group, around: Strand) -> None:
        """Keep where the strands of a `gather` were cut off, for the code may go on after its failure."""
        if self.stopped is None and not self.cleans_up:
            self.cuts += cut_off_in(group, around.name)

    def take_cuts(self, call: Call) -> list[Change]:
        """Return what puts on record where strands were cut off before a call."""
        taken = [cut for cut in self.cuts if cut.is_before(call)]
        if not taken or self.cleans_up:
            return []
        self.cuts = [cut for cut in self.cuts if not cut.is_before(call)]
        return note_cuts(self.run, taken, call)

    @property
    def is_idle(self) -> bool:
        """Whether none of its calls is under way."""
        return not self._under_way

    def take_unawaited(self, *, by_exception: bool = False) -> list[Made]:
        """Return what the code has made and never awaited, in order; it can begin no more.

        An exception that has ended a strand counts, and not what the strand has left behind. What the code has cancelled itself, or
        closed, it knows of.

        Args:
            by_exception: the function has ended by one, or has been stopped.
        """
        left = []
        for made, coroutine in self.unawaited.items():
            is_passed_by = not by_exception and made.strand.raised
            if not is_passed_by and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                left.append(made)
        if left:
            tasks = {task.get_coro(): task for task in _tasks()}
            for coroutine in map(self.unawaited.__getitem__, left):
                (tasks[coroutine].cancel if coroutine in tasks else coroutine.close)()
        self.unawaited.clear()
        return left

    def not_awaited(self, unawaited: list[Made], under_way: Sequence[str] = ()) -> CallNotAwaitedError:
        """Return the error that says so."""
        return CallNotAwaitedError(self.run.id, [(made.strand.name, str(made)) for made in unawaited], under_way)

    async def end(self) -> list[str]:
        """Stop the calls that the function has left under way when it ended, and return their addresses."""
        self._ended = True
        left = {address: task for address, task in self._under_way.items() if task is not None and task is not asyncio.current_task()}
        for task in left.values():
            task.cancel()
        await wait_for_end(left.values())
        for task in left.values():
            if not task.cancelled():
                task.exception()
        return list(left)

    def check_all_made(self) -> None:
        """Compare the calls on record with those that were made, at the function's end.

        Raises:
            HistoryMismatchError: calls on record were not made.
        """
        cut_off = {cut.strand for cut in self.cuts}
        for name in self.run.calls:
            if name in cut_off:
                continue
            (self.strands.get(name) or Strand(self, name)).check_all_made()


async def run_flow(runner: Runner, functions: NamedCallables) -> Any:
    """Run the function of a run's definition with what the run began with as its arguments; give what it returns.

    Raises:
        Lacking: nobody has registered the function in this process.
        StepFailure: it raised something.
        HistoryMismatchError: the code contradicts what is on record; so do arguments that no longer fit the function.
        CallNotAwaitedError: the function has ended without awaiting a call that it made.
        ConfigurationError: it has left a call under way.
    """
    flow = Flow(runner)
    value = await _call(flow, functions)
    flow.check_all_made()
    return value


def _function_of(run: Workflow, functions: NamedCallables) -> Callable[..., Any]:
    try:
        return functions.get(run.definition.code or "")
    except NotRegisteredError as error:
        raise Lacking(error) from error


def _arguments(run: Workflow, function: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments on record as the function takes them; they fitted when the run was made, so one that does not contradicts the
    code.

    Raises:
        HistoryMismatchError: they do not fit.
    """
    recorded = thaw(run.context if run.arguments is None else run.arguments)
    try:
        from symphony_es.core.objects.arguments import fit_arguments  # late: runs of definitions have none

        arguments = fit_arguments(function, recorded)
        signature(function).bind(**arguments)
    except (ConfigurationError, TypeError) as error:
        shown = [f"argument {name}" for name in recorded]
        raise HistoryMismatchError(run.id, "", shown, [f"{function.__name__}{signature_shown(function)}"], str(error)) from error
    return arguments


async def clean_up_flow(runner: Runner, functions: NamedCallables, undos: dict[str, tuple[Step, bool]]) -> None:
    """Run the function of a cancelled run once more, so that it can clean up; return when it has.

    Args:
        runner: one that no request stops.
        functions: where the function is found.
        undos: takes up what undoes the calls that the function makes, by their addresses, and whether these are atomic.

    Raises:
        Lacking: nobody has registered the function in this process.
        StepFailure: a step of its clean-up has failed for good, or its clean-up raised something; what it did is on record.
        HistoryMismatchError: the code contradicts what is on record.
    """
    _function_of(runner.run, functions)
    flow = Flow(runner, cleans_up=True, undos=undos)
    task = await _cleaned_up(flow, functions)
    if runner.control.failure is not None:
        raise runner.control.failure
    if not task.cancelled():
        task.result()
    if flow.forgotten:
        told_of = flow.not_awaited(flow.forgotten)
        raise StepFailure(describe_error(told_of, None), told_of)
    error = flow.error
    if error is None or not flow.cut_off_at:
        return  # what a function raises that was not cut off has ended its run before
    failed = steps_behind(error)
    if failed and runner.run.cleanup == {"ends": "failed"} and not any(is_of_cleanup(runner.run, one) for one in failed):
        return  # that is why it cleans up
    if failed:
        known = runner.run.failures.get(failed[0])  # an error that the code has made itself may name any step
        told = {} if known is None else {"type": known["type"], "message": known["message"]}
        raise StepFailure({**describe_error(error, failed[0]), **told}, error)
    raised = list(takewhile(lambda other: not isinstance(other, asyncio.CancelledError), _chain(error)))
    was_refused = any(isinstance(other, ConfigurationError) for other in raised)  # a call that would have cleaned up
    if was_refused or not any(isinstance(other, asyncio.CancelledError) for other in _chain(error)):
        raise StepFailure(describe_error(error, None), error) from error


async def undos_made(
    runner: Runner, functions: NamedCallables, now: Workflow, known: Mapping[str, tuple[Step, bool]]
) -> tuple[dict[str, tuple[Step, bool]], set[str]]:
    """Return what undoes the calls of a run as it was, as in a clean-up, and the addresses of those of which the code does not say it any
    more.

    Its function runs once more with what is on record, and nothing else runs. Code that contradicts the record of then says how those
    calls are undone that it makes as they were made, and no other. What stands behind a call that it made otherwise may be known by now.

    Args:
        runner: of the run as it was, which is not changed.
        functions: where the function is found.
        now: the run as it is.
        known: what undoes its calls, by their addresses.

    Raises:
        Lacking: nobody has registered the function in this process.
    """
    _function_of(runner.run, functions)
    undos: dict[str, tuple[Step, bool]] = {}
    flow = Flow(runner, cleans_up=True, undos=undos, only_replays=True)
    task = await _cleaned_up(flow, functions)
    if not task.cancelled():
        task.result()
    says_so = runner.run.undoable == ON_CALLS
    steps = {address for address, call in flow.on_record.items() if call[1] == "step" and (not says_so or has_own_undo(call))}
    unknown = steps - flow.called - undos.keys()
    calls = calls_on_record(now) if unknown else {}
    for address in unknown & known.keys() & calls.keys():
        if _is_same(calls[address], flow.on_record[address]):
            undos[address] = known[address]
    return undos, unknown - undos.keys()


def _is_same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Return whether two calls on record are known to have the same arguments."""
    return list(one[:3]) == list(other[:3]) and len(one) > 2 and type(one[2]) is int


async def _cleaned_up(flow: Flow, functions: NamedCallables) -> StepsTask:
    """Return the task of a clean-up that has ended; it ends with this call where that is cancelled."""
    task = StepsTask(unclosed(partial(_clean_up, flow, functions), None))
    try:
        await _end_cut_off(flow, task)
    except asyncio.CancelledError:
        task.cancel()
        await wait_for_end([task])
        raise
    return task


async def _clean_up(flow: Flow, functions: NamedCallables) -> None:
    task = asyncio.current_task()
    try:
        await run_body(_call, flow, functions)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        if not is_failure(error, task):
            raise
        flow.error = error


async def _end_cut_off(flow: Flow, task: asyncio.Future[None]) -> None:
    """Return when the function has ended; a strand that waits for something that is no call of it is cut off there."""
    timeout_s: float | None = IDLE_S
    while not task.done():
        calls = flow.calls
        await asyncio.wait({task}, timeout=timeout_s)
        if flow.is_idle and flow.calls == calls and not task.done():
            waiting = [strand for strand in flow.strands.values() if strand.is_innermost and not strand.cut_off]
            for strand in waiting:
                flow.cut_off_at.append(strand.name)
                strand.cut_off_now()
            if not waiting:
                timeout_s = None  # its clean-up waits for something


async def _call(flow: Flow, functions: NamedCallables) -> Any:
    run = flow.run
    function = _function_of(run, functions)
    strand = Strand(flow, "")
    strand.enter()
    token = current_strand.set(strand)
    try:
        value = await function(**_arguments(run, function))
    except BaseException as error:
        await flow.end()
        flow.forgotten = [made for made in flow.take_unawaited(by_exception=True) if made.cleans_up]
        if flow.stopped is not None:
            raise flow.stopped from None  # whatever the code has made of it
        if is_interrupted() and is_failure(error, asyncio.current_task()) and not isinstance(error, EntityOutOfStepError):
            _log.warning("workflow_cut_off", run_id=run.id, workflow=run.name, error=error_text(error))
            raise asyncio.CancelledError from error  # what the code makes of it is no failure: it runs once more
        raise
    finally:
        reset_variable(token)
    left = await flow.end()
    if flow.stopped is not None:
        raise flow.stopped
    if is_interrupted():
        flow.take_unawaited(by_exception=True)
        raise asyncio.CancelledError  # the code has caught it: what it returned after that is not the run's result
    unawaited = flow.take_unawaited()
    if unawaited:
        raise flow.not_awaited(unawaited, left)
    if left:
        raise ConfigurationError(f"the function has ended while {', '.join(left)} was under way: await each call inside the function")
    return value


def _tasks() -> set[asyncio.Task[Any]]:
    try:
        return asyncio.all_tasks()
    except RuntimeError:  # the coroutine is closed after its loop has ended
        return set()


def refused_inside(name: str) -> ConfigurationError:
    """Return the error for a call that is made where a step runs already."""
    return ConfigurationError(
        f"{quoted(name)} is called inside a step, or in a hook: a step is one unit, which is on record as a whole. "
        "Call the function itself there (await fn(…)), or call the step in the workflow's function"
    )


def steps_behind(error: BaseException | None) -> list[str]:
    """Return addresses of the steps whose failure has ended a function: in the error, what it was raised from or during, and its groups.

    What the code did about a failure before the one that is found here is not looked at: it has gone on after that.
    """
    found: dict[str, None] = {}
    for other in _chain(error):
        if isinstance(other, StepFailedError):
            found.update(dict.fromkeys((other.step, *other.beside)))
    return list(found)


def note_beside(failure: BaseException, group: Group) -> None:
    """Note with a failure that `gather` raises what has failed in its other coroutines; they are tried again together."""
    behind = next((other for other in _chain(failure) if isinstance(other, StepFailedError)), None)
    if behind is not None:
        behind.beside = tuple(group.open_failures())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what stands behind it, but for what stands behind the failure of a step."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            waiting += reversed(one.exceptions)
        if not isinstance(one, StepFailedError):
            waiting += (one.__context__, one.__cause__)
