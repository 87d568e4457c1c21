"""What the function of a code-first workflow calls: `step`, `sleep`, `wait_for_signal`, `run_workflow`, `gather`, `patched`.

Each but `patched` is one step of the run, with the same events as a step of a definition, and is skipped when the function runs again.
They belong to the function of the workflow: a step, or a hook, cannot call them.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, ParamSpec, Self, TypeAlias, TypeVar, overload

from symphony_es.contexts import reset_variable
from symphony_es.errors import ConfigurationError, HistoryMismatchError, StepFailedError
from symphony_es.failures import is_failure
from symphony_es.late_dataclasses import dataclass
from symphony_es.registry import invoke
from symphony_es.shown import quoted, shown, type_shown
from symphony_es.workflow.code.cutting import catch_up, cut_off_outside
from symphony_es.workflow.code.flow import note_beside, refused_inside
from symphony_es.workflow.code.options import (
    NO_OPTIONS,
    UNSET,
    StepOptions,
    advising,
    check_function,
    check_moment,
    check_name,
    check_seconds,
    check_signal,
    told_apart,
)
from symphony_es.workflow.code.strands import INSIDE_A_STEP, Call, Made, Strand, current_strand
from symphony_es.workflow.code.workflow import check_arguments as check_context
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.definitions.retry import RetryPolicy
from symphony_es.workflow.definitions.steps import MAX_STEP_ID_CHARS, Step
from symphony_es.workflow.engine.bodies import is_interrupted, run_body
from symphony_es.workflow.engine.branches import run_branches
from symphony_es.workflow.engine.creation import as_definition
from symphony_es.workflow.kinds.sleep import SleepStep
from symphony_es.workflow.kinds.sub_workflow import SubWorkflowStep
from symphony_es.workflow.kinds.wait import WaitStep
from symphony_es.workflow.record.inputs import input_of_call, input_of_values
from symphony_es.workflow.runs.context import RunContext, current_context
from symphony_es.workflow.runs.failures import describe_error
from symphony_es.workflow.runs.run import ON_PARENT_END

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.code.workflow import CodeWorkflow
    from symphony_es.workflow.definitions.reading import DataReader
    from symphony_es.workflow.engine.execution import StepExecution
    from symphony_es.workflow.record.inputs import StepInput

__all__ = ["gather", "patched", "run_workflow", "sleep", "sleep_until", "step", "step_context", "step_with", "wait_for_signal"]

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
_Retry: TypeAlias = RetryPolicy | int | None
_Undo: TypeAlias = Callable[..., Any] | None
_MISSING: Any = object()


# Without options the arguments are checked. The language has no way to say the same of a call that has options of its own beside them,
# so each of the others is for a call with one option at least, and takes any arguments.
@overload
def step(
    fn: Callable[..., Coroutine[Any, Any, T]],
    /,
    *args: Any,
    name: str | None,
    retry: _Retry = ...,
    timeout_s: float | None = ...,
    atomic: bool = ...,
    undo: _Undo = ...,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., T],
    /,
    *args: Any,
    name: str | None,
    retry: _Retry = ...,
    timeout_s: float | None = ...,
    atomic: bool = ...,
    undo: _Undo = ...,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., Coroutine[Any, Any, T]],
    /,
    *args: Any,
    name: str | None = ...,
    retry: _Retry,
    timeout_s: float | None = ...,
    atomic: bool = ...,
    undo: _Undo = ...,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., T],
    /,
    *args: Any,
    name: str | None = ...,
    retry: _Retry,
    timeout_s: float | None = ...,
    atomic: bool = ...,
    undo: _Undo = ...,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., Coroutine[Any, Any, T]],
    /,
    *args: Any,
    name: str | None = ...,
    retry: _Retry = ...,
    timeout_s: float | None,
    atomic: bool = ...,
    undo: _Undo = ...,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., T],
    /,
    *args: Any,
    name: str | None = ...,
    retry: _Retry = ...,
    timeout_s: float | None,
    atomic: bool = ...,
    undo: _Undo = ...,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., Coroutine[Any, Any, T]],
    /,
    *args: Any,
    name: str | None = ...,
    retry: _Retry = ...,
    timeout_s: float | None = ...,
    atomic: bool,
    undo: _Undo = ...,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., T],
    /,
    *args: Any,
    name: str | None = ...,
    retry: _Retry = ...,
    timeout_s: float | None = ...,
    atomic: bool,
    undo: _Undo = ...,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., Coroutine[Any, Any, T]],
    /,
    *args: Any,
    name: str | None = ...,
    retry: _Retry = ...,
    timeout_s: float | None = ...,
    atomic: bool = ...,
    undo: _Undo,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., T],
    /,
    *args: Any,
    name: str | None = ...,
    retry: _Retry = ...,
    timeout_s: float | None = ...,
    atomic: bool = ...,
    undo: _Undo,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...
@overload
def step(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...


def step(
    fn: Callable[..., Any],
    /,
    *args: Any,
    name: Any = UNSET,
    retry: Any = UNSET,
    timeout_s: Any = UNSET,
    atomic: Any = UNSET,
    undo: Any = UNSET,
    **kwargs: Any,
) -> Coroutine[Any, Any, Any]:
    """Call `fn` as a recorded step, and give what it returned: now, or when the function ran before.

    Where `fn` has a parameter with the name of an option, and no positional argument fills it, the keyword is `fn`'s; `step_with` gives
    options to a call of such a function.

    Args:
        fn: a coroutine function, or a plain one, which runs in a thread. Its code need not be findable by name.
        *args: for `fn`. A digest of them is on record; when the function runs again they must be the same.
        name: the step's name, by which it is found again; the function's by default. 1 to 100 characters.
        retry: how failed attempts are repeated; a number of attempts, or a policy.
        timeout_s: how long an attempt may take, in seconds; more than 0.
        atomic: what it changes in entities and its completion are one transaction.
        undo: a function that undoes what `fn` did, called with the arguments of `fn` when the run is cleaned up; `step_context().undoes`
            tells it of the step. It has the `retry` and `timeout_s` of the step, and is atomic where that is.
        **kwargs: for `fn`.

    Raises:
        StepFailedError: it failed for good, now or when the function ran before: type and message are those of its error, and
            the error itself is chained in the process that saw it.
        HistoryMismatchError: another call is on record in this place, or the same with other arguments.
        ConfigurationError: it is not called by the function of a workflow, but by a step of it, a hook, or a task that the workflow does
            not know; an option makes no sense; or `fn` takes any keywords, so that nobody can tell whose an option is. Nothing is recorded.
    """
    options = NO_OPTIONS
    if not callable(fn):
        check_function(fn, kwargs)
    if not (name is retry is timeout_s is atomic is undo is UNSET):
        every = {"name": name, "retry": retry, "timeout_s": timeout_s, "atomic": atomic, "undo": undo}
        options, kwargs = told_apart(fn, args, kwargs, {key: value for key, value in every.items() if value is not UNSET})
    return _call(fn, args, kwargs, options)


class _StepCaller:
    """What `step_with` gives."""

    __slots__ = ("_options",)

    def __init__(self, options: StepOptions) -> None:
        self._options = options

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...
    @overload
    def __call__(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...

    def __call__(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        return _call(fn, args, kwargs, self._options)


@advising
def step_with(
    *,
    name: str | None = None,
    retry: RetryPolicy | int | None = None,
    timeout_s: float | None = None,
    atomic: bool = False,
    undo: Callable[..., Any] | None = None,
    record_inputs: bool | None = None,
    check_arguments: bool = True,
) -> _StepCaller:
    """Give a `step` with options, all of whose further arguments are the function's: `await step_with(retry=3)(send, name="anna")`.

    Options and errors are those of `step`. What it gives may be kept, and called any number of times.

    Args:
        record_inputs: put the arguments themselves on record, in a form that can be read; as the workflow says, when None.
        check_arguments: False for a call whose arguments may be others when the function runs again: a replay does not compare them.
    """
    given: dict[str, Any] = {"name": name, "retry": retry, "timeout_s": timeout_s, "atomic": atomic, "undo": undo}
    return _StepCaller(StepOptions.read({**given, "record_inputs": record_inputs, "check_arguments": check_arguments}))


@advising
def sleep(seconds: float, *, name: str = "sleep") -> Coroutine[Any, Any, None]:
    """Wait so many seconds (0 or more), across crashes and pauses: the moment is fixed when the wait begins."""
    if seconds is None:
        raise ConfigurationError("sleep(None): a number of seconds")
    check_seconds("seconds", seconds, least="0 or more")
    return _run(_strand(name).call(name, "sleep"), lambda: SleepStep(name=name, seconds=seconds))


@advising
def sleep_until(moment: datetime, *, name: str = "sleep") -> Coroutine[Any, Any, None]:
    """Wait for a moment (with a time zone), across crashes and pauses."""
    check_moment(moment)
    return _run(_strand(name).call(name, "sleep"), lambda: SleepStep(name=name, until=moment))


@advising
def wait_for_signal(
    signal: str, *, timeout_s: float | None = None, within_s: float | None = None, default: Any = _MISSING, name: str | None = None
) -> Coroutine[Any, Any, Any]:
    """Take the oldest signal of a name that nobody has taken, or wait for one, and give its payload.

    Args:
        signal: which.
        within_s: how long, in seconds, from the moment that the wait begins, which is on record: pauses and crashes do not prolong it. For
            ever by default.
        timeout_s: another name of `within_s` here, where a wait has no attempts of its own; one of the two is given.
        default: given when the time is up; without it that is a StepFailedError of type SignalTimeoutError.
        name: the step's name; `wait <signal>` by default.

    Raises:
        ConfigurationError: both names of the time are given, or what is no number of seconds. Nothing has been recorded.
    """
    check_signal(signal)
    if timeout_s is not None and within_s is not None:
        raise ConfigurationError(
            f"wait_for_signal({shown(signal)}, within_s={shown(within_s)}, timeout_s={shown(timeout_s)}): both say how long to wait; "
            "leave timeout_s out"
        )
    chosen = name or f"wait {signal}"
    given: dict[str, Any] = {} if default is _MISSING else {"default": default}
    longest_s = timeout_s if within_s is None else within_s
    check_seconds("timeout_s" if within_s is None else "within_s", longest_s, least="0 or more")
    return _run(_strand(chosen).call(chosen, "signal"), lambda: WaitStep(name=chosen, signal=signal, within_s=longest_s, **given))


@overload
def run_workflow(
    definition: CodeWorkflow[..., T],
    context: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    on_parent_end: str = ...,
    check_arguments: bool = ...,
) -> Coroutine[Any, Any, T]: ...
@overload
def run_workflow(
    definition: WorkflowDefinition | Mapping[str, Any],
    context: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    on_parent_end: str = ...,
    check_arguments: bool = ...,
) -> Coroutine[Any, Any, Any]: ...


@advising
def run_workflow(
    definition: WorkflowDefinition | CodeWorkflow | Mapping[str, Any],
    context: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    on_parent_end: str = ON_PARENT_END[0],
    check_arguments: bool = True,
) -> Coroutine[Any, Any, Any]:
    """Run a definition, or a code-first workflow, as a run of its own, and give its result.

    Args:
        definition: what to run; the dict of a definition as well.
        context: values for the child run's context.
        name: the step's name; the definition's by default.
        on_parent_end: what becomes of a child run that has not ended when this run ends: `cancel` (its clean-up runs), `terminate` (its
            clean-up is left out), or `abandon` (it goes on by itself).
        check_arguments: False for a context that may be another when the function runs again: a replay does not compare it.

    Raises:
        StepFailedError: it failed or was cancelled.
        ConfigurationError: an option is none of these; what is given is no definition or no context; or the context does not become the
            arguments of the code-first workflow. Nothing has been appended.
        HistoryMismatchError: another call is on record in this place, or the same with another context.
        DefinitionError: the dict is no definition. Nothing has been appended.
    """
    if on_parent_end not in ON_PARENT_END:
        raise ConfigurationError(f"on_parent_end is one of {', '.join(ON_PARENT_END)}, not {shown(on_parent_end)}")
    if not isinstance(check_arguments, bool):
        raise ConfigurationError(f"check_arguments={shown(check_arguments)}: it is True or False")
    chosen = as_definition(definition)
    called = name or chosen.name
    if context is not None and not isinstance(context, Mapping):
        raise ConfigurationError(f"run_workflow({shown(called)}, {type_shown(context)}): the context is a dict of values by their names")
    given = dict(context or {})
    strand = _strand(called)
    symphony = strand.flow.runner.symphony
    call = strand.call(called, "workflow", input_of_values({"context": given}, symphony.world) if given and check_arguments else None)

    def make() -> SubWorkflowStep:
        if chosen.code is not None and chosen.code in symphony.flows and call.address not in strand.flow.run.attempts:
            check_context(symphony.flows.get(chosen.code), chosen.code, {**chosen.context, **given})
        return SubWorkflowStep(name=called, definition=chosen, context=given, on_parent_end=on_parent_end)

    return _run(call, make)


@overload
def gather(
    a: Awaitable[A], b: Awaitable[B], /, *, name: str = ..., return_exceptions: Literal[False] = ...
) -> Coroutine[Any, Any, list[A | B]]: ...
@overload
def gather(
    a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /, *, name: str = ..., return_exceptions: Literal[False] = ...
) -> Coroutine[Any, Any, list[A | B | C]]: ...
@overload  # none for any number: mypy knows nothing of a call that fits two of these
def gather(a: Awaitable[T], /, *, name: str = ..., return_exceptions: Literal[False] = ...) -> Coroutine[Any, Any, list[T]]: ...
@overload
def gather(
    a: Awaitable[T], b: Awaitable[T], c: Awaitable[T], d: Awaitable[T], /, *more: Awaitable[T],
    name: str = ..., return_exceptions: Literal[False] = ...,
) -> Coroutine[Any, Any, list[T]]: ...  # fmt: skip
@overload
def gather(*, name: str = ..., return_exceptions: Literal[False] = ...) -> Coroutine[Any, Any, list[Any]]: ...
@overload
def gather(*coroutines: Awaitable[T], name: str = ..., return_exceptions: bool) -> Coroutine[Any, Any, list[T | Exception]]: ...


@advising
def gather(*coroutines: Awaitable[Any], name: str = "gather", return_exceptions: bool = False) -> Coroutine[Any, Any, list[Any]]:
    """Run coroutines beside each other, each a strand of its own, and give their results in order.

    Args:
        *coroutines: what `step` and its like give, or coroutines of your own that call them.
        name: what the addresses of steps begin with that these coroutines call: `gather/0/…`. A step that was called before, as an
            argument, belongs to the caller's own strand.
        return_exceptions: put exceptions among the results. Otherwise the first one cancels the others and is raised.
    """
    try:
        _check_awaitables(coroutines)
    except ConfigurationError:
        _close(coroutines)
        raise
    if not isinstance(return_exceptions, bool):
        raise ConfigurationError(f"return_exceptions={shown(return_exceptions)}: it is True or False")
    strand = current_strand.get()
    if type(strand) is not Strand:
        return _gather_once(coroutines, name, return_exceptions, None)
    made = Made(strand, name, "gather", strand.cut_off)
    return _noted(made, _gather_once(coroutines, name, return_exceptions, made))


def _close(given: Sequence[Any]) -> None:
    for one in given:
        if inspect.iscoroutine(one):
            one.close()


def _check_awaitables(given: Sequence[Any]) -> None:
    seen: set[int] = set()
    for place, one in enumerate(given):
        if not inspect.isawaitable(one):
            if callable(one):
                advice = f"call it, gather({getattr(one, '__name__', 'fn')}(…)), or gather(step({getattr(one, '__name__', 'fn')}, …))"
            else:
                advice = "hand over coroutines one by one, gather(*coroutines)"
            raise ConfigurationError(f"gather: its argument {place} is {type_shown(one)}, which cannot be awaited: {advice}")
        if id(one) in seen:
            raise ConfigurationError(f"gather: its argument {place} stands there twice, and a coroutine runs once: make the call twice")
        seen.add(id(one))


async def _gather_once(coroutines: Sequence[Awaitable[Any]], name: str, return_exceptions: bool, made: Made | None) -> list[Any]:
    if made is not None:
        made.strand.flow.unawaited.pop(made, None)
    try:
        return await _gather(coroutines, name, return_exceptions)
    finally:
        _close(coroutines)  # one that was refused, or cancelled before it began, has never been awaited


async def _gather(coroutines: Sequence[Awaitable[Any]], name: str, return_exceptions: bool) -> list[Any]:
    if is_interrupted():
        raise asyncio.CancelledError  # as for a step: code that has caught it begins nothing any more
    around = _strand(name)
    group = around.group(name)
    group.strands = strands = [Strand(around.flow, f"{group.address}/{place}", around, group) for place in range(len(coroutines))]
    around.check_place(group)
    results: list[Any] = [None] * len(coroutines)
    failed: list[Exception] = []
    cut_off: list[Strand] = []
    cuts_off = around.flow.cleans_up and not around.cut_off

    async def run(place: int) -> None:
        strand = strands[place]
        if strand.begins_cut_off():
            return
        strand.enter()
        current_strand.set(strand)
        task = asyncio.current_task()
        try:
            results[place] = await run_body(_awaited, coroutines[place])
        except Exception as error:
            strand.raised = True
            if strand.was_cut_off and around.flow.stopped is None:
                return  # it came after that, and what it was cut off by is the failure
            if not return_exceptions and not cuts_off:
                await fail(strand)
                raise
            results[place] = error
            if not return_exceptions:
                failed.append(error)
                return  # the others clean up as well
        except BaseException as error:
            strand.raised = True
            if cuts_off and strand.cut_off and isinstance(error, asyncio.CancelledError) and is_failure(error, task):
                cut_off.append(strand)
                return
            if not is_failure(error, task):
                raise
            if strand.called_off is not None and isinstance(error, asyncio.CancelledError):
                return
            # It must not leave the strand's task as it is: a SystemExit would end the event loop, a CancelledError be taken for a request.
            told = describe_error(error, None)
            results[place] = StepFailedError(strand.name, told["type"], told["message"])
            if not return_exceptions:
                await fail(strand)
                raise results[place] from error
        strand.ended = True

    async def fail(strand: Strand) -> None:
        if group.failed is None:
            group.failed = strand
            await catch_up(group, strand)

    stopped = await run_branches({strand.name: place for place, strand in enumerate(strands)}, run, None)
    group.is_over = True
    failure = stopped.failure or next(iter(failed), None)
    if failure is not None:
        note_beside(failure, group)
        if isinstance(failure, Exception) and not isinstance(failure, HistoryMismatchError):
            around.flow.has_failed(group, around)
        raise failure
    if cut_off:
        around.cut_off = True
        raise asyncio.CancelledError(f"run {around.flow.run.id} is being cancelled")
    from_outside = cut_off_outside(group)
    if from_outside is not None:
        if not from_outside:
            raise around.mismatch(f"{group.address} did not fail, and the code went on after its failure", None)
        around.called_off = next(strand.called_off for strand in strands if strand.called_off is not None)
        raise asyncio.CancelledError(f"{group.address} was cut off when another coroutine of the gather around it had failed")
    return results


def patched(change_id: str) -> bool:
    """Return whether the code after a change may be used: True for runs that have not come to this place yet, False for those that have
    passed it.

    `if patched("ask-twice"): … new code … else: … old code …` keeps old runs on the old code. The answer is on record, and stays.
    """
    return _strand(change_id).patched(change_id)


def step_context() -> RunContext:
    """Return the context of the step that is running: `idempotency_key`, `attempt`, `symphony`, and the rest of `RunContext`.

    Raises:
        ConfigurationError: no step of a code-first workflow is running here.
    """
    context = current_context.get()
    if context is None:
        raise ConfigurationError("step_context() is for functions that run as a step of a code-first workflow: await step(fn, …)")
    return context


@dataclass(frozen=True, kw_only=True)
class _CallStep(Step):
    """A call of a function by code; never part of a definition."""

    kind: ClassVar[str] = "call"
    can_be_atomic: ClassVar[bool] = True

    call: Callable[[], Awaitable[Any]] = field(repr=False)
    fn: Callable[..., Any] = field(repr=False)
    given: StepInput = field(repr=False)
    handed: tuple[Any, ...] = field(default=(), repr=False)

    def arguments(self) -> Iterable[Any]:
        """Return what the code has handed to the call."""
        return self.handed

    def input_of(self, execution: StepExecution) -> StepInput:
        """Return the arguments, as they were when the call was made."""
        return self.given

    def function_of(self, symphony: Host) -> Callable[..., Any]:
        """Return the function."""
        return self.fn

    def data(self) -> dict[str, Any]:
        raise ConfigurationError("a call by code is no part of a definition")

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        raise ConfigurationError("a call by code is no part of a definition")

    async def perform(self, execution: StepExecution) -> Any:
        token = current_context.set(execution.context)
        try:
            return await self.call()
        finally:
            reset_variable(token)


def _call(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: StepOptions) -> Coroutine[Any, Any, Any]:
    chosen = options.name or getattr(fn, "__name__", None) or type(fn).__name__
    strand = _strand(chosen)
    if kwargs or not callable(fn):
        check_function(fn, kwargs)
    given = input_of_call(fn, args, kwargs, strand.flow.runner.symphony.world)

    def make() -> _CallStep:
        return _CallStep(
            name=chosen,
            call=lambda: invoke(fn, *args, **kwargs),
            fn=fn,
            given=given,
            handed=(*args, *kwargs.values()),
            retry=options.retry,
            timeout_s=options.timeout_s,
            atomic=options.atomic,
            record_inputs=options.record_inputs,
        )

    call = strand.call(chosen, "step", given if options.check_arguments else None)
    undo = options.undo
    if undo is not None:
        call.undoable = True
        if call.strand.flow.undos is not None and call.strand.flow.is_known(call):
            undoing = _CallStep(
                name=f"undo {chosen}",
                call=lambda: invoke(undo, *args, **kwargs),
                fn=undo,
                given=given,
                handed=(*args, *kwargs.values()),
                retry=options.retry,
                timeout_s=options.timeout_s,
                atomic=options.atomic,
            )
            call.strand.flow.undos[call.address] = undoing, options.atomic
    return _run(call, make)


def _run(call: Call, make: Callable[[], Step]) -> Coroutine[Any, Any, Any]:
    return _noted(call, call.strand.flow.run_call(call, make))


def _noted(made: Made, coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
    """Return the coroutine, which the flow keeps until it is awaited."""
    made.strand.flow.unawaited[made] = coroutine
    return coroutine


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _strand(what: str) -> Strand:
    strand = current_strand.get()
    if type(strand) is Strand:
        if type(what) is not str or not 0 < len(what) <= MAX_STEP_ID_CHARS:
            check_name(what)
        return strand
    if strand is INSIDE_A_STEP:
        raise refused_inside(what)
    raise ConfigurationError(f"{quoted(what)} is called outside of a code-first workflow: call it in a function under @symphony.workflow")
