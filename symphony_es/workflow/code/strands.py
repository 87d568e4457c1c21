"""Strands: the threads of control of a code-first function, and the calls that each of them makes, held against what is on record.

A strand is the function's body, or one coroutine that is given to `gather`. Within it calls come one after the other, whatever runs beside
it, so they are numbered, and the n-th must be what the n-th was before. What a call costs here does not depend on how many came before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from symphony_es.core.world.transaction import current_scope, open_scope_of
from symphony_es.errors import ConfigurationError, HistoryMismatchError
from symphony_es.events.changes import SET, Change
from symphony_es.shown import quoted, shown
from symphony_es.workflow.code.forgiving import is_after_failure, is_marked
from symphony_es.workflow.definitions.definition import CLEANUP, UNDO
from symphony_es.workflow.definitions.steps import id_from_name
from symphony_es.workflow.engine.bodies import StepFailure
from symphony_es.workflow.engine.retrying import PATCH
from symphony_es.workflow.record.shown import other_arguments
from symphony_es.workflow.runs.cleanup import CLEAN_UP_CALL, ON_CALLS, has_own_undo, is_clean_up_call
from symphony_es.workflow.runs.failures import describe_error
from symphony_es.workflow.runs.under_way import CUT_OFF, is_cut_off

if TYPE_CHECKING:
    from symphony_es.workflow.code.flow import Flow
    from symphony_es.workflow.record.inputs import StepInput
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["INSIDE_A_STEP", "Call", "Group", "Made", "Strand", "calls_on_record", "current_strand", "has_arguments", "strand_around"]

INSIDE_A_STEP: Any = object()
"""Stands where the strand would, for code that runs as part of a step: its body, its retries, the hooks that are told of it."""

current_strand: ContextVar[Strand | None] = ContextVar("symphony_es_strand", default=None)


class Made:
    """Something that a strand has made and has to await.

    Attributes:
        address: of its step, or the name of a `gather`.
        what: the kind of call.
        cleans_up: whether the strand had been cut off by a cancellation by then.
    """

    __slots__ = ("address", "cleans_up", "strand", "what")

    def __init__(self, strand: Strand, address: str, what: str, cleans_up: bool) -> None:
        self.strand = strand
        self.address = address
        self.what = what
        self.cleans_up = cleans_up

    def __str__(self) -> str:
        if self.what == "gather":
            return "gather" if self.address == "gather" else f"gather(name={quoted(self.address)})"
        return _shown(self.address, self.what)


class Call(Made):
    """One call of a strand: its place there, and the address of its step.

    Attributes:
        cleans_up: whether the strand had been cut off by a cancellation when it made the call.
        undoable: whether the call says how it is undone.
        given: what is known of its arguments, where they are compared with those on record.
    """

    __slots__ = ("given", "place", "undoable")

    def __init__(self, strand: Strand, place: int, address: str, what: str, cleans_up: bool, given: StepInput | None = None) -> None:
        super().__init__(strand, address, what, cleans_up)
        self.place = place
        self.given = given
        self.undoable = False

    def noted(self) -> list[Change]:
        """Return what puts the call on record, with the patches decided before it: part of the event of its step's start.

        At a later start it is on record, and only the undo may be new: code that has changed since may have given it one.
        """
        if self.address in self.strand.flow.run.attempts:
            return self._noted_undo() if self.undoable else []
        calls: dict[int, list[Any]] = {place: [change_id, PATCH] for place, change_id in self.strand.take_patches(self.place)}
        check = [] if self.given is None else [self.given.check]
        own_undo = [True] if self.undoable else []
        calls[self.place] = [self.address, self.what, *check, *own_undo, *([CLEAN_UP_CALL] if self.cleans_up else [])]
        changes = [*self.strand.flow.take_cuts(self), *self.strand.noted(calls)]
        if self.undoable and not self.strand.flow.run.undoable:
            changes.append((SET, ("undoable",), ON_CALLS))
        return changes

    def _noted_undo(self) -> list[Change]:
        recorded = self.strand.recorded_at(self.place)
        if recorded is None or has_own_undo(recorded):
            return []
        known = 3 if len(recorded) > 2 and type(recorded[2]) is int else 2
        changes = self.strand.noted({self.place: [*recorded[:known], True, *recorded[known:]]})
        return changes if self.strand.flow.run.undoable else [*changes, (SET, ("undoable",), ON_CALLS)]


class Group:
    """The strands of one `gather`.

    Attributes:
        address: what their names begin with.
        place: how many calls the strand around had made when it began.
        strands: those that have begun, in order.
        failed: the first of them that has failed.
        is_over: whether all have ended, by themselves or because one has failed.
        was_empty: whether the record goes on after it and never had a call of its strands: then they make none.
    """

    __slots__ = ("address", "failed", "is_over", "place", "strands", "was_empty")

    def __init__(self, address: str, place: int) -> None:
        self.address = address
        self.place = place
        self.strands: list[Strand] = []
        self.failed: Strand | None = None
        self.is_over = False
        self.was_empty = False

    def open_failures(self) -> list[str]:
        """Return addresses of the steps that have failed for good in these strands, and that no code has gone on after."""
        found = []
        for strand in self.strands:
            if strand.ended:
                continue
            if strand.last_group is not None and strand.last_group.place == strand.made:
                found += strand.last_group.open_failures()
            elif strand.last_step is not None and strand.flow.run.step_status(strand.last_step) == "failed":
                found.append(strand.last_step)
        return found


class Strand:
    """One thread of control of the function.

    Attributes:
        name: "" for the body, `gather/0` for the first coroutine of the first `gather`.
        around: the strand that has called its `gather`; None of the body.
        member_of: the strands of this `gather`; None of the body.
        made: how many calls it has made in this execution, decisions of `patched` included.
        found: how many of them are on record.
        last_step: address of the step that it called last.
        last_group: the `gather` that it began last.
        cut_off: whether it has been cancelled: what it calls now cleans up.
        ended: whether it has come to its end, by an exception that nobody raises again as well.
        raised: whether its coroutine has raised something.
        cut_at: the call that was under way when a `gather` around it failed.
        called_off: the mark of the call on record at which it was cut off for good, once it has come there; see `cutting.py`.
    """

    def __init__(self, flow: Flow, name: str, around: Strand | None = None, group: Group | None = None) -> None:
        self.flow = flow
        self.name = name
        self.around = around
        self.member_of = group
        self.made = 0
        self.found = 0
        self.last_step: str | None = None
        self.last_group: Group | None = None
        self.cut_off: bool = around is not None and around.cut_off
        self.ended = False
        self.raised = False
        self.cut_at: Call | None = None
        self.called_off: str | None = None
        self._task: asyncio.Task[Any] | None = None
        self._addresses = _Addresses(name)
        self._known: Mapping[str, Any] = {}
        self._after_last = max(map(int, self._recorded), default=-1) + 1
        self._unrecorded: dict[int, tuple[str, str]] = {}
        self._patches: list[tuple[int, str]] = []
        self._patched: dict[str, bool] = {}
        self._clean_up_from = float("inf")
        if flow.cleans_up:
            marked = (int(place) for place, call in self._recorded.items() if is_clean_up_call(call))
            self._clean_up_from = min(marked, default=self._clean_up_from)
        flow.strands[name] = self
        if name and (left := flow.unmade.get(strand_around(name))) is not None:
            left.discard(name)

    def enter(self) -> None:
        """Make the strand that of the running task from now on."""
        self._task = asyncio.current_task()

    @property
    def is_innermost(self) -> bool:
        """Whether it has not ended, and does not wait for a `gather` of its own."""
        within = self.last_group.strands if self.last_group is not None else ()
        return not self.ended and all(strand.ended for strand in within)

    @property
    def is_repeating(self) -> bool:
        """Whether it has not made all calls yet that are on record of it, or one of those that it waits for has not."""
        if self.ended or self.raised:
            return False
        within = self.last_group.strands if self.last_group is not None and not self.last_group.is_over else ()
        return self.made < self._after_last or any(strand.is_repeating for strand in within)

    def cancelled_at(self, call: Call) -> None:
        """Keep at which call it was cancelled, where that is because another strand has failed, and not a time limit of its own."""
        strand: Strand | None = self
        while self.cut_at is None and strand is not None:
            if strand.member_of is not None and strand.member_of.failed not in (None, strand):
                self.cut_at = call
            strand = strand.around

    @property
    def was_cut_off(self) -> bool:
        """Whether it was cut off for good, so that it ended in the middle of its code."""
        return any(map(is_cut_off, self._recorded.values()))

    def begins_cut_off(self) -> bool:
        """Return whether it was cut off for good before its first call; then its coroutine does not begin."""
        first = self._recorded.get("0")
        if first is None or first[1] != CUT_OFF:
            return False
        self.called_off, self.raised = first[-1], True
        return True

    def recorded_at(self, place: int) -> Sequence[Any] | None:
        """Return the call that is on record at a place, or None."""
        call: Sequence[Any] | None = self._recorded.get(str(place))
        return call

    def mark_of(self, place: int) -> str | None:
        """Return the mark of the call at a place where a strand was cut off for good, or None."""
        recorded = self._recorded.get(str(place)) if place < self._after_last else None
        return recorded[-1] if recorded is not None and is_cut_off(recorded) else None

    def cut_off_now(self) -> None:
        """Cancel what its task waits for, which is none of its calls; what it calls from now on cleans up, and is not cancelled."""
        self.cut_off = True
        if self._task is not None:
            self._task.cancel()
            self._task.uncancel()

    def call(self, name: str, what: str, given: StepInput | None = None) -> Call:
        """Return the strand's next call; decided when it is made, not when it is awaited, so that the order is the code's.

        Args:
            name: of the step.
            what: the kind of call.
            given: its arguments, where they are to be those on record.

        Raises:
            HistoryMismatchError: another call is on record in its place, or one with other arguments.
            ConfigurationError: it comes from a task that the workflow did not start with `gather`, or from inside a transaction.
        """
        self._check_task(name)
        self.check_no_block(name)
        address = self._addresses.next(id_from_name(name))
        place = self.made
        self.made = place + 1
        self.last_step = address
        cleans_up = self.cut_off or place >= self._clean_up_from
        if self.flow.only_replays:  # nothing runs: the flow asks of each call alone whether it is the one on record
            return Call(self, place, address, what, cleans_up, given)
        recorded = self._recorded.get(str(place)) if place < self._after_last else None
        if recorded is None:
            self._unrecorded[place] = (address, what)
        elif self.flow.stopped is None:
            is_other = (recorded[0] != address or recorded[1] != what) and recorded[1] != CUT_OFF
            if is_other or not has_arguments(recorded, given):
                if is_after_failure(recorded):
                    self._part_ways(place)
                    self._unrecorded[place] = (address, what)
                    return Call(self, place, address, what, cleans_up, given)
                if is_other or given is None:
                    raise self.mismatch(f"the function called {_shown(address, what)}", (address, what))
                raise self.mismatch(other_arguments(address, given, what), (address, what))
            self.found += 1
        return Call(self, place, address, what, cleans_up, given)

    def group(self, name: str) -> Group:
        """Return the strands of its next `gather`.

        Raises:
            ConfigurationError: it comes from a task that the workflow did not start with `gather`, or inside a transaction, or its
                name is taken.
        """
        self._check_task(name)
        self.check_no_block(name)
        if name in (CLEANUP, UNDO) and not self.name:
            raise ConfigurationError(
                f"gather(name={shown(name)}): that is what the addresses of clean-up steps begin with, take another name"
            )
        self.last_group = Group(self._addresses.next(id_from_name(name)), self.made)
        return self.last_group

    def check_place(self, group: Group) -> None:
        """Look whether the calls of a `gather` on record stand before what the code has called after it; before any of them is made again.

        Raises:
            HistoryMismatchError: they came after that.
        """
        if group.place >= self._after_last or self.flow.stopped is not None or self.flow.cleans_up:
            return  # nothing is on record after it, as where it runs for the first time
        order = self.flow.order()
        behind = (self._recorded.get(str(place)) for place in range(group.place, self._after_last))
        following = next((call for call in behind if call is not None and call[0] in order and not is_marked(call)), None)
        if following is None:
            return
        first = [call[0] for strand in group.strands if (call := strand._recorded.get("0")) is not None]
        group.was_empty = not any(strand.name in self.flow.run.calls for strand in group.strands)  # else its calls have been taken back
        times = self.flow.runner.generations.of  # what was taken back more often has begun again since, wherever it stood
        if any(order.get(address, -1) > order[following[0]] and times(address) <= times(following[0]) for address in first):
            raise self.mismatch(f"the function called {group.address} (gather)", None)

    def check_not_empty(self, address: str, what: str) -> None:
        """Look, before a call begins for the first time, whether its `gather` was to make none.

        Raises:
            HistoryMismatchError: the record goes on after the `gather`, which had made no call.
        """
        if self.member_of is not None and self.around is not None and self.member_of.was_empty and address not in self.flow.run.attempts:
            raise self.around.mismatch(f"the function called {_shown(address, what)}", None)

    def check_none_left_out(self, address: str, what: str) -> None:
        """Look, before a call begins for the first time, whether each `gather` on record has been made that stands before it.

        Raises:
            HistoryMismatchError: one has not, or has fewer coroutines than it had.
        """
        strand: Strand | None = self
        while strand is not None and not self.flow.cleans_up:
            left = self.flow.unmade.get(strand.name, ())
            # What was called after a failure that is forgiven, to clean up, or up to a failure beside it, need not be called again.
            names = [name for name in left if any(not is_marked(call) for call in self.flow.run.calls.get(name, {}).values())]
            if names:
                raise strand.mismatch(
                    f"the function called {_shown(address, what)}, and nothing of {min(names)}, which was before it", None
                )
            strand = strand.around

    def patched(self, change_id: str) -> bool:
        """See `symphony_es.workflow.patched`."""
        self._check_task(change_id)
        # Each strand answers by its own history: which of them comes first differs from one execution to the next.
        recorded = self._recorded.get(str(self.made)) if self.made < self._after_last else None
        if recorded is not None and recorded[0] == change_id and recorded[1] == PATCH:
            self.found += 1
            self.made += 1
            self._patched[change_id] = True
            return True
        known = self._patched.get(change_id)
        if known is not None:
            return known
        fresh = self.made >= self._after_last
        if fresh:
            self._unrecorded[self.made] = (change_id, PATCH)
            self._patches.append((self.made, change_id))
            self.made += 1
        self._patched[change_id] = fresh
        return fresh

    def take_patches(self, before: int) -> list[tuple[int, str]]:
        """Return the patches decided before a call and not on record yet."""
        if not self._patches:
            return []
        taken = [patch for patch in self._patches if patch[0] < before]
        self._patches = [patch for patch in self._patches if patch[0] >= before]
        return taken

    def noted(self, calls: dict[int, list[Any]]) -> list[Change]:
        """Return what puts calls on record, by place."""
        recorded = self.flow.run.calls.get(self.name)
        by_place = {str(place): call for place, call in calls.items()}
        self.found += len(by_place) if recorded is None else sum([place not in recorded for place in by_place])  # not of all calls
        self._after_last = max(self._after_last, *(place + 1 for place in calls))
        for place in calls:
            self._unrecorded.pop(place, None)
        if recorded is None:
            self._known = by_place
            return [(SET, ("calls", self.name), by_place)]
        return [(SET, ("calls", self.name, place), call) for place, call in by_place.items()]

    @property
    def _recorded(self) -> Mapping[str, Any]:
        """Its calls that are on record; the last ones known where they were taken off."""
        recorded = self.flow.run.calls.get(self.name)
        if recorded is not None:
            self._known = recorded
        return self._known

    def check_all_made(self) -> None:
        """Compare the calls on record with those that were made, at the function's end.

        Raises:
            HistoryMismatchError: calls on record were not made.
        """
        if self.found < len(self._recorded) and not self._has_left_only_obsolete() and not self.was_cut_off:
            raise self.mismatch("the function ended", None)

    def _has_left_only_obsolete(self) -> bool:
        """Return whether all calls that the code has not made again came after a failure that is forgiven by now."""
        left = [call for place, call in self._recorded.items() if int(place) >= self.made]
        return self.found + len(left) == len(self._recorded) and all(map(is_after_failure, left))

    def _part_ways(self, place: int) -> None:
        """Note that the code goes another way from here on than when the step had failed."""
        self._after_last = place
        self.flow.obsolete.append((self.name, place))

    def mismatch(self, why: str, called: tuple[str, str] | None) -> HistoryMismatchError:
        """Return the error for a history that the code contradicts; shows both, and fails the run whatever the code makes of it."""
        recorded = self._recorded
        history = [_shown(*recorded[place][:2]) for place in sorted(recorded, key=int) if recorded[place][1] != CUT_OFF]
        before = range(self.made if called is None else self.made - 1)
        made = [recorded.get(str(place)) or self._unrecorded.get(place) for place in before]
        code = [_shown(*call[:2]) for call in (*made, called) if call is not None]
        error = HistoryMismatchError(self.flow.run.id, self.name, history, code, why)
        self.flow.runner.control.fail(StepFailure(describe_error(error, None), error))
        return error

    def _check_task(self, what: str) -> None:
        if _running_task() is not self._task:
            raise ConfigurationError(
                f"{quoted(what)} is called from a task that is no part of the workflow: start coroutines that call steps with "
                "symphony_es.workflow.gather, whose order is the same whenever the function runs again"
            )

    def check_no_block(self, what: str) -> None:
        """Refuse a call inside a transaction that the function has begun: what it records would last and fall with that.

        Raises:
            ConfigurationError: one is open. Nothing has been recorded.
        """
        if current_scope.get() is None:
            return
        block = open_scope_of(self.flow.runner.symphony.world)
        if block is not None:
            raise ConfigurationError(
                f"{quoted(what)} is called inside the transaction {quoted(block.title)}, and its record would be part of it: undone with "
                "it, and lost in a crash. End the transaction before the call, or open it inside a step: in the function that step(fn) "
                "calls, or by step(fn, atomic=True)"
            )


def has_arguments(recorded: Sequence[Any], given: StepInput | None) -> bool:
    """Return whether a call has the arguments of the one on record, as far as these are compared."""
    return given is None or len(recorded) < 3 or type(recorded[2]) is not int or recorded[2] == given.check


def calls_on_record(run: Workflow) -> dict[str, Sequence[Any]]:
    """Return the calls of steps that are on record of a run, by address."""
    return {call[0]: call for calls in run.calls.values() for call in calls.values() if call[1] not in (PATCH, CUT_OFF)}


def strand_around(name: str) -> str:
    """Return the name of the strand that has called the `gather` of another one."""
    return name.rpartition("/")[0].rpartition("/")[0]


class _Addresses:
    """The addresses of a strand's calls: the name, and `#2` and so on from its second call; no address is given twice."""

    __slots__ = ("_before", "_counts", "_given")

    def __init__(self, strand: str) -> None:
        self._before = f"{strand}/" if strand else ""
        self._counts: dict[str, int] = {}
        self._given: set[str] = set()

    def next(self, step_id: str) -> str:
        count = self._counts.get(step_id, 0)
        address = f"{self._before}{step_id}"
        if count or "#" in step_id:
            address, count = self._numbered(step_id, address, count)
        self._counts[step_id] = count or 1
        return address

    def _numbered(self, step_id: str, base: str, count: int) -> tuple[str, int]:
        """Return the name and number of a call. A name may look like the second call of another one, so those with a `#` are kept."""
        if "#" in step_id:
            stem, _, number = step_id.rpartition("#")
            looks_given = (
                number.isascii() and number.isdigit() and number == str(int(number)) and 1 < int(number) <= self._counts.get(stem, 0)
            )
            if not count and not looks_given and base not in self._given:
                self._given.add(base)
                return base, 1
        count = max(count, 1) + 1
        while f"{base}#{count}" in self._given:
            count += 1
        if "#" in step_id:
            self._given.add(f"{base}#{count}")
        return f"{base}#{count}", count


def _running_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        return None


def _shown(address: str, what: str) -> str:
    return f"patched({quoted(address)})" if what == PATCH else address if what == "step" else f"{address} ({what})"
