"""Runs the function of a code-first workflow, and holds what it does against what is on record.

The function runs again from its beginning whenever its run goes on; each of its calls finds its own record by place. A *strand* is one
thread of control of the function: its body is one, and each coroutine given to `gather` is one. Within a strand calls come one after the
other, whatever runs beside it, so the calls of a strand are numbered, and the n-th must be what the n-th was before. That is
all the determinism that is asked of the code.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.arguments import fit_arguments
from symphony_es.errors import ConfigurationError, HistoryMismatchError, NotRegisteredError, StepFailedError
from symphony_es.workflow.definitions.steps import id_from_name
from symphony_es.workflow.engine.bodies import Lacking
from symphony_es.workflow.engine.retrying import PATCH
from symphony_es.workflow.engine.runner import StepFailure
from symphony_es.workflow.runs.outputs import Frame
from symphony_es.workflow.runs.run import describe_error
from symphony_es.workflow.runs.thawing import thaw

if TYPE_CHECKING:
    from symphony_es.registry import NamedCallables
    from symphony_es.workflow.definitions.steps import Step
    from symphony_es.workflow.engine.runner import Runner
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["Flow", "Strand", "current_strand", "run_flow"]


class Flow:
    """One execution of the function in this process.

    Attributes:
        runner: runs its steps.
    """

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.run = runner.run
        self.strands: dict[str, Strand] = {}
        self._frame = Frame(runner.run)

    async def run_step(self, call: Call, step: Step) -> Any:
        """Runs the step of a call, or gives what is on record of it.

        Raises:
            StepFailedError: it has failed for good.
        """
        run, address = self.run, call.address
        failure = run.failures.get(address)
        if failure is not None and "retry_at" not in failure and run.step_status(address) == "failed":
            raise StepFailedError(address, failure["type"], failure["message"])
        try:
            await self.runner.run_step(step, address, self._frame, on_first_start=call.record)
        except StepFailure as error:
            description = error.description
            raise StepFailedError(description["step"] or address, description["type"], description["message"]) from error.error
        return thaw(run.outputs[address])

    def open_failures(self, group: str) -> list[str]:
        """Addresses of the steps that have failed for good in the strands of a `gather`, and that no code has gone on after."""
        run = self.run
        found = []
        for name, strand in self.strands.items():
            last = strand.last_step
            if name.startswith(f"{group}/") and last is not None and run.step_status(last) == "failed":
                around = [other for other in self.strands.values() if other.name.startswith(f"{group}/") and other.holds(name)]
                if not strand.ended and not any(other.has_gone_on_after(name) for other in around):
                    found.append(last)
        return found

    def check_all_made(self) -> None:
        """Compares the calls on record with those that were made, at the function's end.

        Raises:
            HistoryMismatchError: calls on record were not made.
        """
        for name, recorded in self.run.calls.items():
            strand = self.strands.get(name)
            if strand is None or any(int(place) >= strand.made for place in recorded):
                raise (strand or Strand(self, name)).mismatch("the function ended")


class Call:
    """One call of a strand: its place there, and the address of its step."""

    __slots__ = ("address", "place", "strand", "what")

    def __init__(self, strand: Strand, place: int, address: str, what: str) -> None:
        self.strand = strand
        self.place = place
        self.address = address
        self.what = what

    def record(self) -> None:
        """Puts the call on record, with the patches decided before it; called with the start of its step."""
        for place, change_id in self.strand.take_patches(self.place):
            self.strand.note(place, change_id, PATCH)
        self.strand.note(self.place, self.address, self.what)


class Strand:
    """One thread of control of the function.

    Attributes:
        name: "" for the body, `gather/0` for the first coroutine of the first `gather`.
        made: how many calls it has made in this execution.
        ended: whether its coroutine has returned.
    """

    def __init__(self, flow: Flow, name: str) -> None:
        self.flow = flow
        self.name = name
        self.made = 0
        self.ended = False
        self._groups: dict[str, int] = {}
        self._task: asyncio.Task[Any] | None = None
        self._taken: set[str] = set()
        self._calls: list[tuple[str, str]] = []
        self._patches: list[tuple[int, str]] = []
        self._patched: dict[str, bool] = {}
        flow.strands[name] = self

    def enter(self) -> None:
        """The strand belongs to the running task from now on."""
        self._task = asyncio.current_task()

    def call(self, name: str, what: str) -> Call:
        """The strand's next call; decided when it is made, not when it is awaited, so that the order is the code's.

        Raises:
            HistoryMismatchError: another call is on record in its place.
            ConfigurationError: it comes from a task that the workflow did not start with `gather`.
        """
        if asyncio.current_task() is not self._task:
            raise ConfigurationError(
                f"{name!r} is called from a task that is no part of the workflow: start coroutines that call steps with "
                "symphony_es.workflow.gather, whose order is the same whenever the function runs again"
            )
        address = self._address(name)
        place = self.made
        self.made += 1
        self._calls.append((address, what))
        recorded = self._recorded().get(str(place))
        if recorded is not None and tuple(recorded) != (address, what):
            raise self.mismatch(f"the function called {_shown(address, what)}")
        return Call(self, place, address, what)

    def group(self, name: str) -> str:
        """What the strands of the next `gather` are named by."""
        address = self._address(name)
        self._groups[address] = self.made
        return address

    @property
    def last_step(self) -> str | None:
        """Address of the step that it called last."""
        return next((address for address, what in reversed(self._calls) if what != PATCH), None)

    def holds(self, name: str) -> bool:
        """Whether a strand belongs to a `gather` of this one, directly or not."""
        return any(name.startswith(f"{group}/") for group in self._groups)

    def has_gone_on_after(self, name: str) -> bool:
        """Whether this strand has ended, called something, or begun another `gather`, after the one that a strand belongs to."""
        groups = list(self._groups)
        own = next(group for group in groups if name.startswith(f"{group}/"))
        return self.ended or self.made > self._groups[own] or groups[-1] != own

    def patched(self, change_id: str) -> bool:
        """See `symphony_es.workflow.patched`."""
        recorded = self._recorded().get(str(self.made))
        if recorded is not None and tuple(recorded) == (change_id, PATCH):
            self._calls.append((change_id, PATCH))
            self.made += 1
            self._patched[change_id] = True
            return True
        # Each strand answers by its own history: which of them comes first differs from one execution to the next.
        known = self._patched.get(change_id)
        if known is not None:
            return known
        fresh = not any(int(place) >= self.made for place in self._recorded())
        if fresh:
            self._calls.append((change_id, PATCH))
            self._patches.append((self.made, change_id))
            self.made += 1
        self._patched[change_id] = fresh
        return fresh

    def take_patches(self, before: int) -> list[tuple[int, str]]:
        """The patches decided before a call and not on record yet."""
        taken = [patch for patch in self._patches if patch[0] < before]
        self._patches = [patch for patch in self._patches if patch[0] >= before]
        return taken

    def note(self, place: int, address: str, what: str) -> None:
        """Puts one call on record; called while the run is being recorded."""
        calls = self.flow.run.calls
        if self.name not in calls:
            calls[self.name] = {}
        calls[self.name][str(place)] = [address, what]

    def mismatch(self, why: str) -> HistoryMismatchError:
        """The error for a history that the code contradicts; shows both, and fails the run whatever the code makes of it."""
        recorded = self._recorded()
        history = [_shown(*recorded[place]) for place in sorted(recorded, key=int)]
        code = [_shown(*call) for call in self._calls]
        error = HistoryMismatchError(self.flow.run.id, self.name, history, code, why)
        self.flow.runner.control.fail(StepFailure(describe_error(error, None), error))
        return error

    def _recorded(self) -> Mapping[str, Any]:
        return self.flow.run.calls.get(self.name, {})

    def _address(self, name: str) -> str:
        base = found = f"{self.name}/{id_from_name(name)}".lstrip("/")
        count = 1
        while found in self._taken:  # a name may look like the second call of another one
            count += 1
            found = f"{base}#{count}"
        self._taken.add(found)
        return found


current_strand: ContextVar[Strand | None] = ContextVar("symphony_es_strand", default=None)


async def run_flow(runner: Runner, functions: NamedCallables) -> Any:
    """Runs the function of a run's definition with the run's context as its arguments; gives what it returns.

    Raises:
        Lacking: nobody has registered the function in this process.
        StepFailure: it raised something.
        HistoryMismatchError: the code contradicts what is on record; so do arguments that no longer fit the function.
    """
    definition = runner.run.definition
    try:
        function = functions.get(definition.code or "")
    except NotRegisteredError as error:
        raise Lacking(error) from error
    flow = Flow(runner)
    strand = Strand(flow, "")
    strand.enter()
    token = current_strand.set(strand)
    try:
        value = await function(**_arguments(runner.run, function))
    finally:
        current_strand.reset(token)
    flow.check_all_made()
    return value


def _arguments(run: Workflow, function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments on record as the function takes them; they fitted when the run was made, so one that does not contradicts the code.

    Raises:
        HistoryMismatchError: they do not fit.
    """
    recorded = thaw(run.context)
    try:
        arguments = fit_arguments(function, recorded)
        inspect.signature(function).bind(**arguments)
    except (ConfigurationError, TypeError) as error:
        shown = [f"argument {name}" for name in recorded]
        raise HistoryMismatchError(run.id, "", shown, [f"{function.__name__}{inspect.signature(function)}"], str(error)) from error
    return arguments


def _shown(address: str, what: str) -> str:
    return f"patched({address!r})" if what == PATCH else address if what == "step" else f"{address} ({what})"
