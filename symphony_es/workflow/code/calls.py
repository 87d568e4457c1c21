"""What the function of a code-first workflow calls: `step`, `sleep`, `wait_for_signal`, `run_workflow`, `gather`, `patched`.

Each but `patched` is one step of the run, with the same events as a step of a definition, and is skipped when the function runs again.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, ParamSpec, Self, TypeAlias, TypeVar, overload

from symphony_es.errors import ConfigurationError, StepFailedError
from symphony_es.registry import invoke
from symphony_es.workflow.code.flow import Call, Strand, current_strand
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.definitions.retry import RetryPolicy
from symphony_es.workflow.definitions.steps import Step
from symphony_es.workflow.engine.bodies import is_failure, run_body
from symphony_es.workflow.engine.branches import run_branches
from symphony_es.workflow.kinds.sleep import SleepStep
from symphony_es.workflow.kinds.sub_workflow import SubWorkflowStep
from symphony_es.workflow.kinds.wait import WaitStep
from symphony_es.workflow.runs.context import RunContext
from symphony_es.workflow.runs.failures import describe_error
from symphony_es.workflow.runs.run import ON_PARENT_END

if TYPE_CHECKING:
    from symphony_es.workflow.code.workflow import CodeWorkflow
    from symphony_es.workflow.definitions.reading import DataReader
    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["gather", "patched", "run_workflow", "sleep", "sleep_until", "step", "step_context", "wait_for_signal"]

P = ParamSpec("P")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
_Retry: TypeAlias = RetryPolicy | int | None
_MISSING: Any = object()
_context: ContextVar[RunContext | None] = ContextVar("symphony_es_step_context", default=None)


# Without options the arguments are checked. The language has no way to say the same of a call that has options of its own beside them,
# so each of the others is for a call with one option at least, and takes any arguments.
@overload
def step(
    fn: Callable[..., Coroutine[Any, Any, T]],
    *args: Any,
    name: str | None,
    retry: _Retry = ...,
    timeout_s: float | None = ...,
    atomic: bool = ...,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., T],
    *args: Any,
    name: str | None,
    retry: _Retry = ...,
    timeout_s: float | None = ...,
    atomic: bool = ...,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., Coroutine[Any, Any, T]],
    *args: Any,
    name: str | None = ...,
    retry: _Retry,
    timeout_s: float | None = ...,
    atomic: bool = ...,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., T],
    *args: Any,
    name: str | None = ...,
    retry: _Retry,
    timeout_s: float | None = ...,
    atomic: bool = ...,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., Coroutine[Any, Any, T]],
    *args: Any,
    name: str | None = ...,
    retry: _Retry = ...,
    timeout_s: float | None,
    atomic: bool = ...,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., T],
    *args: Any,
    name: str | None = ...,
    retry: _Retry = ...,
    timeout_s: float | None,
    atomic: bool = ...,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., Coroutine[Any, Any, T]],
    *args: Any,
    name: str | None = ...,
    retry: _Retry = ...,
    timeout_s: float | None = ...,
    atomic: bool,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(
    fn: Callable[..., T],
    *args: Any,
    name: str | None = ...,
    retry: _Retry = ...,
    timeout_s: float | None = ...,
    atomic: bool,
    **kwargs: Any,
) -> Coroutine[Any, Any, T]: ...
@overload
def step(fn: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...
@overload
def step(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...


def step(  # type: ignore[misc]  # arguments of `fn` with the names of options are options
    fn: Callable[..., Any],
    *args: Any,
    name: str | None = None,
    retry: RetryPolicy | int | None = None,
    timeout_s: float | None = None,
    atomic: bool = False,
    **kwargs: Any,
) -> Coroutine[Any, Any, Any]:
    """Calls `fn` as a recorded step, and gives what it returned: now, or when the function ran before.

    Args:
        fn: a coroutine function, or a plain one, which runs in a thread. Its code need not be findable by name.
        *args: for `fn`; no part of the record.
        name: the step's name, by which it is found again; the function's by default.
        retry: how failed attempts are repeated; a number of attempts, or a policy.
        timeout_s: how long an attempt may take, in seconds.
        atomic: what it changes in entities and its completion are one transaction.
        **kwargs: for `fn`.

    Raises:
        StepFailedError: it failed for good, now or when the function ran before: type and message are those of its error, and
            the error itself is chained in the process that saw it.
        HistoryMismatchError: another call is on record in this place.
    """
    chosen = name or getattr(fn, "__name__", None) or type(fn).__name__
    policy = RetryPolicy(max_attempts=retry) if isinstance(retry, int) else retry
    made = _strand(chosen).call(chosen, "step")
    return _run(made, _CallStep(name=chosen, call=lambda: invoke(fn, *args, **kwargs), retry=policy, timeout_s=timeout_s, atomic=atomic))


def sleep(seconds: float, *, name: str = "sleep") -> Coroutine[Any, Any, None]:
    """Waits so many seconds, across crashes and pauses: the moment is fixed when the wait begins."""
    return _run(_strand(name).call(name, "sleep"), SleepStep(name=name, seconds=seconds))


def sleep_until(moment: datetime, *, name: str = "sleep") -> Coroutine[Any, Any, None]:
    """Waits for a moment (with a time zone), across crashes and pauses."""
    return _run(_strand(name).call(name, "sleep"), SleepStep(name=name, until=moment))


def wait_for_signal(
    signal: str, *, timeout_s: float | None = None, within_s: float | None = None, default: Any = _MISSING, name: str | None = None
) -> Coroutine[Any, Any, Any]:
    """Takes the oldest signal of a name that nobody has taken, or waits for one, and gives its payload.

    Args:
        signal: which.
        timeout_s: how long, in seconds; for ever by default.
        within_s: the same, as wait steps of definitions call it.
        default: given when the time is up; without it that is a StepFailedError of type SignalTimeoutError.
        name: the step's name; `wait <signal>` by default.
    """
    chosen = name or f"wait {signal}"
    given: dict[str, Any] = {} if default is _MISSING else {"default": default}
    longest_s = timeout_s if within_s is None else within_s
    return _run(_strand(chosen).call(chosen, "signal"), WaitStep(name=chosen, signal=signal, within_s=longest_s, **given))


@overload
def run_workflow(
    definition: CodeWorkflow[..., T], context: Mapping[str, Any] | None = None, *, name: str | None = None, on_parent_end: str = ...
) -> Coroutine[Any, Any, T]: ...
@overload
def run_workflow(
    definition: WorkflowDefinition, context: Mapping[str, Any] | None = None, *, name: str | None = None, on_parent_end: str = ...
) -> Coroutine[Any, Any, Any]: ...


def run_workflow(
    definition: WorkflowDefinition | CodeWorkflow,
    context: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    on_parent_end: str = ON_PARENT_END[0],
) -> Coroutine[Any, Any, Any]:
    """Runs a definition, or a code-first workflow, as a run of its own, and gives its result.

    Args:
        definition: what to run.
        context: values for the child run's context.
        name: the step's name; the definition's by default.
        on_parent_end: what becomes of a child run that has not ended when this run ends: `cancel` (its clean-up runs), `terminate` (its
            clean-up is left out), or `abandon` (it goes on by itself).

    Raises:
        StepFailedError: it failed or was cancelled.
        ConfigurationError: `on_parent_end` is none of these. Nothing has been appended.
    """
    if on_parent_end not in ON_PARENT_END:
        raise ConfigurationError(f"on_parent_end is one of {', '.join(ON_PARENT_END)}, not {on_parent_end!r}")
    chosen = definition if isinstance(definition, WorkflowDefinition) else definition.definition
    called = name or chosen.name
    made = SubWorkflowStep(name=called, definition=chosen, context=dict(context or {}), on_parent_end=on_parent_end)
    return _run(_strand(called).call(called, "workflow"), made)


@overload
async def gather(a: Awaitable[A], b: Awaitable[B], /, *, name: str = ..., return_exceptions: Literal[False] = ...) -> list[A | B]: ...
@overload
async def gather(
    a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /, *, name: str = ..., return_exceptions: Literal[False] = ...
) -> list[A | B | C]: ...
@overload
async def gather(*coroutines: Awaitable[T], name: str = ..., return_exceptions: Literal[False] = ...) -> list[T]: ...
@overload
async def gather(*coroutines: Awaitable[T], name: str = ..., return_exceptions: bool) -> list[T | Exception]: ...


async def gather(*coroutines: Awaitable[Any], name: str = "gather", return_exceptions: bool = False) -> list[Any]:
    """Runs coroutines beside each other, each a strand of its own, and gives their results in order.

    Args:
        *coroutines: what `step` and its like give, or coroutines of your own that call them.
        name: what the addresses of steps begin with that these coroutines call: `gather/0/…`. A step that was called before, as an
            argument, belongs to the caller's own strand.
        return_exceptions: put exceptions among the results. Otherwise the first one cancels the others and is raised.
    """
    around = _strand(name)
    base = around.group(name)
    results: list[Any] = [None] * len(coroutines)

    async def run(place: int) -> None:
        strand = Strand(around.flow, f"{base}/{place}")
        strand.enter()
        current_strand.set(strand)
        task = asyncio.current_task()
        try:
            results[place] = await run_body(_awaited, coroutines[place])
        except Exception as error:
            if not return_exceptions:
                raise
            results[place] = error
        except BaseException as error:
            if not is_failure(error, task):
                raise
            # It must not leave the strand's task as it is: a SystemExit would end the event loop, a CancelledError be taken for a request.
            told = describe_error(error, None)
            results[place] = StepFailedError(strand.name, told["type"], told["message"])
            if not return_exceptions:
                raise results[place] from error
        strand.ended = True

    try:
        stopped = await run_branches({f"{base}/{place}": place for place in range(len(coroutines))}, run, None)
    finally:
        for coroutine in coroutines:
            if inspect.iscoroutine(coroutine):
                coroutine.close()  # one that was cancelled before it began has never been awaited
    if stopped.failure is not None:
        if isinstance(stopped.failure, StepFailedError):
            stopped.failure.beside = tuple(around.flow.open_failures(base))
        raise stopped.failure
    return results


def patched(change_id: str) -> bool:
    """Whether the code after a change may be used: True for runs that have not come to this place yet, False for those that have passed it.

    `if patched("ask-twice"): … new code … else: … old code …` keeps old runs on the old code. The answer is on record, and stays.
    """
    return _strand(change_id).patched(change_id)


def step_context() -> RunContext:
    """The context of the step that is running: `idempotency_key`, `attempt`, `symphony`, and the rest of `RunContext`.

    Raises:
        ConfigurationError: no step of a code-first workflow is running here.
    """
    context = _context.get()
    if context is None:
        raise ConfigurationError("step_context() is for functions that run as a step of a code-first workflow: await step(fn, …)")
    return context


@dataclass(frozen=True, kw_only=True)
class _CallStep(Step):
    """A call of a function by code; never part of a definition."""

    kind: ClassVar[str] = "call"
    can_be_atomic: ClassVar[bool] = True

    call: Callable[[], Awaitable[Any]] = field(repr=False)

    def data(self) -> dict[str, Any]:
        raise ConfigurationError("a call by code is no part of a definition")

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        raise ConfigurationError("a call by code is no part of a definition")

    async def perform(self, execution: StepExecution) -> Any:
        token = _context.set(execution.context)
        try:
            return await self.call()
        finally:
            _context.reset(token)


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


async def _run(call: Call, made: Step) -> Any:
    return await call.strand.flow.run_step(call, made)


def _strand(what: str) -> Strand:
    strand = current_strand.get()
    if strand is None:
        raise ConfigurationError(f"{what!r} is called outside of a code-first workflow: call it in a function under @symphony.workflow")
    return strand
