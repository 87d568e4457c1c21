"""What a run's whole history says of its steps: which have begun and completed as things stand, and in which generation each is.

A run's state is taken back by rewinds, and its history is not: it has every rewind and every `retry_from`. So it is the history that says
how often a step has been taken back, where the step began that holds now, and which executions of a step are still to be undone. Pure:
`histories` reads it.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from symphony_es.events.changes import SET
from symphony_es.events.event import Event
from symphony_es.events.fold import REPAIR_EVENT, REWIND_EVENT
from symphony_es.events.rows import Row, decode_row
from symphony_es.workflow.engine.generations import Generations, prefixes
from symphony_es.workflow.engine.owing import Execution, Owing, RunsOfId, TakenBack
from symphony_es.workflow.runs.cleanup import UNDO, in_cleanup, undoes_taken_back

__all__ = ["COMPLETION", "CREATIONS", "FORK_EVENT", "RETRY_EVENT", "STARTS", "Timeline"]

FORK_EVENT = "WorkflowForked"
RETRY_EVENT = "WorkflowRetryRequested"
STARTS = ("WorkflowStepStarted", "WorkflowStepRetried")
COMPLETION = "WorkflowStepCompleted"
FAILURE = "WorkflowStepFailed"
DEFINITION_CHANGE = "WorkflowDefinitionChanged"
CREATIONS = ("WorkflowCreated", FORK_EVENT, "Forked")  # the last one in a log that was made of another log's states
TOLD_BY_NAME = frozenset({*STARTS, COMPLETION, FAILURE, DEFINITION_CHANGE, RETRY_EVENT, REWIND_EVENT, REPAIR_EVENT, *CREATIONS})
_BEGUN, _COMPLETED, _FAILED, _EXECUTIONS = range(4)
_UNDO_OF = f"{UNDO}/"


_FIRST = Execution(0, 0)


class Timeline:
    """The steps of a run after the events that it has been fed.

    Args:
        shared: of a fork, what it was forked from, from the first run on: entity key, and the last position that it shares.
        key: the run's own entity key.

    Attributes:
        begun: by address of a step that has begun, the position of its first start since it was taken back last.
        completed: by address of a step that has completed, the position of its completion.
        failed: by address of a step an attempt at which has failed, the position of the last failure.
        raised: by address that was taken back, its generation; what is under an address is of that generation, too.
    """

    def __init__(self, shared: Sequence[tuple[str, int]] = (), key: str = "") -> None:
        self._shared = shared
        self._key = key
        self.begun: dict[str, int] = {}
        self.completed: dict[str, int] = {}
        self.failed: dict[str, int] = {}
        self.raised: dict[str, int] = {}
        self._runs = RunsOfId()
        self._forks: dict[int, Event] = {}
        self._last = 0
        self._defined: list[int] = []  # where it has gone on with another definition
        self._executions: dict[str, Execution] = {}  # of steps that have begun; the first one of its own where there is none
        # At a position: in which of the four, the address, and what stood there before.
        self._replaced: list[tuple[int, int, str, Any]] = []
        # What was shared with the run that was created at a position, and that goes on with it.
        self._taken_over: tuple[dict[str, Any], ...] = ({}, {}, {}, {})
        self._created: int | None = None

    def copy(self) -> Timeline:
        """Return a copy that stays as it is, whatever this one is fed with; it cannot go on itself."""
        made = copy.copy(self)
        for name in ("begun", "completed", "failed", "raised", "_executions"):
            setattr(made, name, dict(getattr(self, name)))
        made._runs, made._replaced, made._defined = self._runs.now(), [], list(self._defined)
        return made

    def of_fork(self, key: str, created: Event) -> Timeline | None:
        """Return the timeline that a fork of this run begins with, before its creation; None where it shares less than all that came before
        it.

        Args:
            key: the fork's entity key.
            created: its creation.
        """
        forked_at: int = created.data["position"]
        if self.created is None or self._runs.held_at(created.position) != self.created or forked_at < self.created:
            return None
        made = Timeline([*self._shared, (self._key, forked_at)], key)
        made.begun, made.completed, made.failed = dict(self.begun), dict(self.completed), dict(self.failed)
        for which, was in enumerate(self._since(forked_at)[:_EXECUTIONS]):
            for address, at in was.items():
                if at is None:
                    made._kept[which].pop(address, None)
                else:
                    made._kept[which][address] = at
        made.begin_history(created.position)
        return made

    def _since(self, position: int) -> list[dict[str, Any]]:
        """Return, of all that has changed since a position, what it was then."""
        then: list[dict[str, Any]] = [{}, {}, {}, {}]
        for at, which, address, before in reversed(self._replaced):
            if at <= position:
                break
            then[which][address] = before
        return then

    @property
    def created(self) -> int | None:
        """Where the run was created that has the id now; None where its creation was not among the events."""
        return self._runs.created

    @property
    def fork(self) -> Event | None:
        """The creation of the run that has the id now, where it is a fork."""
        return None if self.created is None else self._forks.get(self.created)

    @property
    def taken_back(self) -> dict[tuple[str, int], TakenBack]:
        """Executions that the run has begun and that hold no longer, by address and generation of their undo."""
        return self._runs.owing.taken_back

    @property
    def undone(self) -> dict[tuple[str, int], bool]:
        """Executions whose undo has completed, in the same way; True where a rewind has taken that back since."""
        return self._runs.owing.undone

    def read(self, rows: Iterable[Row]) -> None:
        """Go on with the next rows of the run."""
        for row in rows:
            if row[3] in TOLD_BY_NAME:
                self.apply(decode_row(row))
            self._last = row[0]

    def apply(self, event: Event) -> None:
        """Go on with the next event of the run."""
        name, position = event.name, event.position
        if name in STARTS:
            if event.metadata.step is not None:
                self._begin(position, event.metadata.step)
        elif name in (COMPLETION, FAILURE):
            if event.metadata.step is not None:
                self._go_on(position, event.metadata.step)
                self._put(position, _COMPLETED if name == COMPLETION else _FAILED, event.metadata.step, position)
                if name == COMPLETION and event.metadata.step.startswith(_UNDO_OF):
                    self._undo(position, event.metadata.step)
        elif name == RETRY_EVENT:
            self._retry(position, event.data)
        elif name == DEFINITION_CHANGE:
            self._defined.append(position)
        elif name in (REWIND_EVENT, REPAIR_EVENT) and isinstance(event.data, dict) and "to" in event.data:
            left = self._runs.owing
            self._runs.rewind(position, event.data["to"])
            self._rewind(event, event.data["to"], left)
        elif name in CREATIONS or name == REPAIR_EVENT:
            left = self._runs.owing
            if name in CREATIONS:
                self._runs.create(position)
                if name == FORK_EVENT:
                    self._forks[position] = event
            self._begin_with(event, left)

    def begin_history(self, created: int | None) -> None:
        """Begin another history: its keys are its own, and none of them has been used.

        Args:
            created: where the run was created that goes on with the steps so far. Others that have had its id share nothing of them.
        """
        self._taken_over = (self.begun, self.completed, self.failed, {})
        self._created = created
        self.begun, self.completed, self.failed, self._executions = {}, {}, {}, {}
        self.raised, self._replaced, self._runs, self._last, self._defined = {}, [], RunsOfId(), 0, []

    def execution(self, address: str) -> Execution:
        """Return the execution of a step that holds now."""
        return self._executions.get(address, _FIRST)

    def _next_execution(self, address: str) -> Execution:
        if not self.raised:
            return _FIRST
        generations = Generations(self.raised)
        return Execution(generations.of(address), generations.of(_UNDO_OF + address))

    def _begin(self, position: int, address: str) -> None:
        if address not in self.begun:
            self._put(position, _BEGUN, address, position)
            execution = self._next_execution(address)
            if execution != self.execution(address):
                self._put(position, _EXECUTIONS, address, execution)
        else:
            self._go_on(position, address)

    def _go_on(self, position: int, address: str) -> None:
        """Go on with a step that the original had begun, or that a rewind has brought back while it was under way."""
        if address in self._executions and not self._executions[address].is_of_run:
            self._put(position, _EXECUTIONS, address, self._next_execution(address))

    def _undo(self, position: int, address: str) -> None:
        """Note that an undo has completed; a rewind does not take that back, but for what it has changed in entities."""
        undone = address[len(_UNDO_OF) :]
        known = undoes_taken_back(address) or (undone, self.execution(undone).undone_as)
        self._runs.owing.note_undone(position, known)

    def since(self, address: str) -> list[str]:
        """Return addresses of the steps that began with a step or after it, in that order."""
        first = self.begun[address]
        return sorted((other for other, position in self.begun.items() if position >= first), key=self.begun.__getitem__)

    def key_at(self, position: int) -> str:
        """Return key of the entity whose event stands at a position: the run, or one that it shares the history of."""
        return next((key for key, last in self._shared if position <= last), self._key)

    @property
    def _kept(self) -> tuple[dict[str, Any], ...]:
        return self.begun, self.completed, self.failed, self._executions

    def _put(self, position: int, which: int, address: str, value: Any) -> None:
        of = self._kept[which]
        self._replaced.append((position, which, address, of.get(address)))
        if value is None:
            of.pop(address, None)
        else:
            of[address] = value

    def ended_at(self, address: str) -> int | None:
        """Return position at which a step has completed, or failed last; None while neither."""
        return self.completed.get(address, self.failed.get(address))

    def last_under_definition(self, position: int, until: int | None = None) -> int:
        """Return the last position, `until` at most, at which the run went by the definition it had at one; that one while it does."""
        after = bisect_right(self._defined, position)
        if after == len(self._defined):
            return position if until is None else until
        last = self._defined[after] - 1
        return last if until is None else min(last, until)

    def _raise(self, addresses: Iterable[str]) -> None:
        """Raise generations all at once: an address whose container is taken back with it is raised by one, not by two."""
        before = Generations(self.raised)
        raised = dict.fromkeys(addresses)
        raised.update(dict.fromkeys(undo for address in raised if (undo := _UNDO_OF + address) in self.raised))
        self.raised.update({address: before.of(address) + 1 for address in raised})

    def _retry(self, position: int, said: Any) -> None:
        dropped: list[str] = said["dropped"]
        asked = {said["step"], *said.get("steps", ())}
        self._note_taken_back(position, dropped, self._runs.owing)
        self._raise(address for address in dropped if address in asked or undoes_taken_back(address) is None)
        for address in dropped:
            for which in range(len(self._kept)):
                self._put(position, which, address, None)
            for around in prefixes(address):
                if around in self.completed:
                    self._put(position, _COMPLETED, around, None)
        for address in asked:
            if address.startswith(_UNDO_OF):
                self._undo_again(position, address)

    def _undo_again(self, position: int, address: str) -> None:
        """Undo once more where somebody asks for it: under a key of its own."""
        undone, of_taken_back = address[len(_UNDO_OF) :], undoes_taken_back(address)
        if of_taken_back is not None:
            self.undone.pop(of_taken_back, None)
        elif undone in self.begun:
            again = self.execution(undone)._replace(undone_as=Generations(self.raised).of(address))
            self._put(position, _EXECUTIONS, undone, again)

    def _note_taken_back(self, position: int, addresses: Iterable[str], left: Owing, *, by_rewind: bool = False) -> None:
        """Note, before they are taken back, that these executions of a run hold no longer, from a position on."""
        for address in addresses:
            execution = self.execution(address)
            if address not in self.begun or not execution.is_of_run or in_cleanup(address):
                continue
            ended = self.completed.get(address, self.begun[address])
            around = {above: self.completed[above] for above in prefixes(address) if above in self.completed}
            known = address, execution.undone_as
            left.taken_back[known] = TakenBack(address, execution, position - 1, ended, around, by_rewind)

    def _rewind(self, event: Event, to: int, left: Owing) -> None:
        """Put the steps back to what they were at a position, whatever came in between; rewinds of before count as what they did."""
        self._take_back(event, self._since(to), left)

    def _begin_with(self, event: Event, left: Owing) -> None:
        """Begin with a state as a whole: of a new run, also under an id that was used before, of a fork, a repair, or another log's."""
        state = _whole_state(event)
        if not isinstance(state, dict):
            return
        then: list[dict[str, Any]] = []
        for of, known, field in zip(self._kept, self._held_before(event), ("attempts", "outputs", "failures"), strict=False):
            held = state.get(field) or {}
            gone: dict[str, Any] = {address: None for address in of if address not in held}
            then.append({**gone, **{address: known.get(address, event.position) for address in held}})
        begun = [address for address, at in then[_BEGUN].items() if at is not None]
        executions: dict[str, Any] = {}
        if event.name in CREATIONS:
            executions = dict.fromkeys(self._executions)
            if event.name == FORK_EVENT or event.metadata.generation:
                of_all = event.metadata.generation or 0
                executions.update(dict.fromkeys(begun, Execution(of_all, of_all, event.name != FORK_EVENT)))
        self._take_back(event, [*then, executions], left)
        if event.metadata.generation:
            self.raised[""] = event.metadata.generation  # as often as the run was taken back in the other log, so no address more often

    def _held_before(self, event: Event) -> tuple[dict[str, Any], ...]:
        """Return where the steps that a whole state has were begun, completed and failed."""
        if event.name not in CREATIONS:
            return self._kept
        return self._taken_over if event.position == self._created else ({}, {}, {}, {})

    def _take_back(self, event: Event, then: Sequence[Mapping[str, Any]], left: Owing) -> None:
        """Put what is given in place; the steps that have begun or completed since are of another generation from now on.

        What is shared with another run is not: none of the run's keys was used for it. A composite that had begun before is not, though it
        has completed since: what was under way in it then keeps its generation. An
        undo keeps its key, since it is done once for an execution, whatever a rewind takes back; a step that goes on and whose undo has
        begun is another execution. What is lost is owed by the run that had the id before the event, which `left` belongs to.
        """
        position = event.position
        # A state as a whole follows the removal of the one before, up to which what is lost has held.
        gone = position if _whole_state(event) is None else self._last or position
        composites = {around for address in self.begun for around in prefixes(address)}
        begun_since = {address for address, at in then[_BEGUN].items() if self.begun.get(address, at) != at}
        lost = {address for address in begun_since if self.execution(address).is_own} | {
            address
            for address, at in then[_COMPLETED].items()
            if self.completed.get(address, at) != at and address not in composites and address not in begun_since
        }
        lost = {address for address in lost if not address.startswith(_UNDO_OF)}
        for undone in (address[len(_UNDO_OF) :] for address in begun_since if address.startswith(_UNDO_OF)):
            goes_on = then[_BEGUN].get(undone, self.begun.get(undone)) is not None
            if goes_on and then[_COMPLETED].get(undone, self.completed.get(undone)) is None:
                lost.add(undone)
        self._note_taken_back(gone, lost, left, by_rewind=True)
        self._raise(lost)
        for which, of in enumerate(self._kept):
            for address, at in then[which].items():
                if of.get(address) != at:
                    self._put(position, which, address, at)
        for address in {*lost, *then[_BEGUN]}:
            held = self.execution(address)
            if address in self.begun and address not in self.completed and held.is_own:
                following = self._next_execution(address)
                if following.generation != held.generation:  # it goes on under another key
                    self._put(position, _EXECUTIONS, address, following._replace(has_begun=False))
        for address in {*lost, *then[_BEGUN], *then[_EXECUTIONS]}:
            if address in self.begun:
                self.taken_back.pop((address, self.execution(address).undone_as), None)


def _whole_state(event: Event) -> Any:
    """Return the state that an event brings as a whole, or None."""
    return next((change[2] for change in event.changes if change[0] == SET and not change[1]), None)
