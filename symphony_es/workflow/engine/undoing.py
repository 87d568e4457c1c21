"""Which steps of a run are undone, in which order, and where their undo stands: all of it follows from what is on record.

Each step that this run has begun, and that has an undo, is undone: one that was cut off, or has failed, may have done its work. Those that
have not completed come first, the one that began last before the others; then those that have completed, the last one first. What
`retry_from` or a rewind has taken back was done all the same: it is undone among them, once, and sees the run as it was then.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from symphony_es.core.objects.making import made_of
from symphony_es.errors import NotRegisteredError
from symphony_es.events.identifiers import entity_key
from symphony_es.workflow.definitions.nesting import Paths, walk
from symphony_es.workflow.definitions.unread import UnreadStep
from symphony_es.workflow.engine.control import RunControl
from symphony_es.workflow.engine.execution import idempotency_key
from symphony_es.workflow.engine.frames import Places, noted_before_completion
from symphony_es.workflow.engine.generations import Generations, prefixes
from symphony_es.workflow.engine.histories import definition_at, read_timeline, state_at
from symphony_es.workflow.engine.owing import Execution, TakenBack
from symphony_es.workflow.engine.past import aside
from symphony_es.workflow.engine.timeline import Timeline
from symphony_es.workflow.engine.unknown_undo import NOT_CALLED, UnknownUndo
from symphony_es.workflow.runs.cleanup import UNDO, in_cleanup, undo_address
from symphony_es.workflow.runs.context import UndoneStep
from symphony_es.workflow.runs.outputs import Frame
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.thawing import thaw

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.definitions.definition import WorkflowDefinition
    from symphony_es.workflow.definitions.steps import Step
    from symphony_es.workflow.engine.runner import Runner

__all__ = ["Undo", "decided", "owes_undo", "plan_undos"]

_SEEN = ("context", "arguments", "attempts", "outputs", "failures", "progress", "scopes", "appended", "calls", "undoable")
"""What an undo sees of the run as it was, and what its function runs by once more."""


class Undo(NamedTuple):
    """What undoes one step: the step that does, and what it sees.

    Attributes:
        address: its own.
        step: what undoes it.
        frame: its place, which is that of the step that it undoes.
    """

    address: str
    step: Step
    frame: Frame


async def plan_undos(runner: Runner, by_code: Mapping[str, tuple[Step, bool]]) -> list[Undo]:
    """Return what undoes the steps of a run, in the order in which it runs; the same however often it is asked in a clean-up.

    Args:
        runner: of a run whose main line has ended.
        by_code: of a code-first run, what undoes its calls, by address, and whether these are atomic.

    Returns:
        What undoes them; of calls that were taken back, and that the code does not make any more as they were made, a step that fails: the
        code alone says how they are undone.
    """
    symphony, run = runner.symphony, runner.run
    undos = _Undos(run, by_code)
    held = undos.of(run.attempts)
    if not held and not runner.generations.owed and not undos.removed(run.attempts):
        return []
    timeline = await read_timeline(symphony, run)
    generations, places = Generations(timeline.raised), Places(symphony, run, timeline)
    planned: list[tuple[tuple[bool, int], Undo]] = []
    for address, step in held.items():
        execution, at = timeline.execution(address), f"{UNDO}/{address}"
        is_undone = undos.is_undone(timeline, address, execution.undone_as)
        # What a fork shares with its original was done by that one, which it holds for.
        if not execution.is_of_run or (is_undone and at not in run.recorded_outputs):
            continue
        completed = address in run.recorded_outputs
        order = not completed, (timeline.completed if completed else timeline.begun).get(address, 0)
        frame = await places.frame_of(address, timeline.completed)
        if generations.of(at) != execution.undone_as and not is_undone:  # a rewind has brought back what another one had taken back
            at = undo_address(address, execution.undone_as)
            frame = _seen_then(run, run, frame, address, execution.generation)
        planned.append((order, Undo(at, step, frame)))
    planned += [((False, ended), undo) for ended, undo in await _plan_removed(runner, timeline, undos)]
    taken_back: dict[int, list[TakenBack]] = {}
    for taken in timeline.taken_back.values():
        taken_back.setdefault(taken.position, []).append(taken)
    for _, together in sorted(taken_back.items()):  # each goes on from the one before
        then = await _plan_taken_back(runner, timeline, undos, together, by_code)
        planned += [((False, taken.ended), undo) for taken, undo in then]
    return [undo for _, undo in sorted(planned, key=lambda each: each[0], reverse=True)]


async def _plan_taken_back(
    runner: Runner, timeline: Timeline, undos: _Undos, together: Sequence[TakenBack], known: Mapping[str, tuple[Step, bool]]
) -> list[tuple[TakenBack, Undo]]:
    """Return what undoes the executions that were taken back at one moment, in the places which they had, with what they saw."""
    symphony, run, position = runner.symphony, runner.run, together[0].position
    by_code = run.definition.code is not None
    left = [taken for taken in together if timeline.undone.get((taken.address, taken.execution.undone_as)) is not False]
    if not by_code:
        left = [taken for taken in left if undos.is_owed(timeline, taken)]
    state = await state_at(symphony, timeline.key_at(position), position) if left else None
    if state is None or state.data is None or (by_code and not state.data.get("undoable")):
        return []
    data = state.data
    then = await aside(lambda: _as_it_was(symphony, run, data, run.definition), len(data.get("attempts", ())))
    unknown: set[str] = set()
    if by_code:
        from symphony_es.workflow.code.flow import undos_made  # it stands above the engine, which only calls it

        past = copy.copy(runner)
        past.run, past.control = then, RunControl(runner.clock)  # what stops or fails this replay stops nothing of the run as it is
        made, unknown = await undos_made(past, symphony.flows, run, known)
        undos = _Undos(then, made)
    planned, places = [], Places(symphony, then, timeline)
    for taken in left:
        address, execution = taken.address, taken.execution
        at = undo_address(address, execution.undone_as)
        if undos.is_owed(timeline, taken):
            frame = await places.frame_of(address, taken.completed)
            frame = _seen_then(run, then, frame, address, execution.generation)
            planned.append((taken, Undo(at, undos.of([address])[address], frame)))
        elif address in unknown and (address, execution.undone_as) not in timeline.undone:
            unsaid = UnknownUndo(address=address, generation=execution.generation, why=NOT_CALLED)
            planned.append((taken, Undo(at, unsaid, Frame(run))))
    return planned


async def _plan_removed(runner: Runner, timeline: Timeline, undos: _Undos) -> list[tuple[int, Undo]]:
    """Plan what undoes steps that the run's definition has no more, held or taken back, as the one says by which they ran, with their ends.

    They see the run as it was when it took the next definition, or when they were taken back before that: those that have ended under one
    definition see the same.
    """
    symphony, run, planned = runner.symphony, runner.run, []
    groups: dict[int, list[_Removed]] = {}
    for address in undos.removed(run.attempts):
        execution, ended = timeline.execution(address), timeline.ended_at(address) or timeline.begun.get(address)
        if ended is not None and execution.is_of_run:
            position = timeline.last_under_definition(ended)
            groups.setdefault(position, []).append(_Removed(address, f"{UNDO}/{address}", execution, ended, timeline.completed))
    gone = set(undos.removed({address: None for address, _ in timeline.taken_back}))
    for taken in timeline.taken_back.values():
        if taken.address in gone:
            at, position = (
                undo_address(taken.address, taken.execution.undone_as),
                timeline.last_under_definition(taken.ended, taken.position),
            )
            groups.setdefault(position, []).append(_Removed(taken.address, at, taken.execution, taken.ended, taken.completed, taken))
    for position, together in sorted(groups.items()):
        state = await state_at(symphony, timeline.key_at(position), position)
        before = None if state is None or state.data is None else await _removed_at(symphony, run, state.data, timeline, position)
        for each in together:
            undo = None if before is None else await before.undo_of(symphony, each, timeline)
            if undo is not None:
                planned.append((each.ended, Undo(each.undone_at, *undo)))
    return planned


class _Removed(NamedTuple):
    """An execution of a step that the definition has no more.

    Attributes:
        address: of the step. undone_at: address of its undo. execution: which one.
        ended: where it had completed, or begun. completed: where the steps around it had. taken: how it was taken back, if it was.
    """

    address: str
    undone_at: str
    execution: Execution
    ended: int
    completed: Mapping[str, int]
    taken: TakenBack | None = None


class _Before(NamedTuple):
    """A run as it was, under the definition that it had then.

    Attributes:
        run: as it is. then: as it was. undos: what undoes its steps. places: where these ran.
    """

    run: Workflow
    then: Workflow
    undos: _Undos
    places: Places

    async def undo_of(self, symphony: Host, removed: _Removed, timeline: Timeline) -> tuple[Step, Frame] | None:
        """Find what undoes an execution of a step, and its place; None where it has no undo, or has been undone.

        Where this process lacks what the undo needs, or cannot read the step, that is a step that fails.
        """
        address, execution = removed.address, removed.execution
        step = self.undos.of([address]).get(address) or self.undos.unread_around(address)
        if step is None or not self.undos.is_left(timeline, address, execution, removed.taken):
            return None
        why = step.why if isinstance(step, UnreadStep) else _lacked(symphony, step)
        if why is None:
            frame = await self.places.frame_of(address, removed.completed)
            return step, _seen_then(self.run, self.then, frame, address, execution.generation)
        why = f"the definition does not have the step any more, and {why}"
        return UnknownUndo(address=address, generation=execution.generation, why=why), Frame(self.run)


def _lacked(symphony: Host, step: Step) -> str | None:
    """Say what this process lacks of what a step needs; None where it lacks nothing."""
    try:
        step.check(symphony)
    except NotRegisteredError as error:
        return str(error)
    return None


async def _removed_at(symphony: Host, run: Workflow, state: Mapping[str, Any], timeline: Timeline, position: int) -> _Before | None:
    """Return a run as it was, with the definition that it had then; None where the log does not have that any more."""
    definition = await definition_at(symphony, state, position)
    if definition is None:
        return None
    then = _as_it_was(symphony, run, state, definition)
    return _Before(run, then, _Undos(then, {}), Places(symphony, then, timeline))


class _Undos:
    """What undoes the steps of a run.

    Args:
        run: the run.
        by_code: of a code-first run, what undoes its calls, by address, and whether these are atomic.
    """

    def __init__(self, run: Workflow, by_code: Mapping[str, tuple[Step, bool]]) -> None:
        self._plan = run.definition.plan
        self._by_code = by_code if run.definition.code is not None else None
        self._by_path = run.definition.undo_plan
        self._paths = Paths(run.definition.plan)

    @cached_property
    def _steps(self) -> dict[str, Step]:
        return dict(walk(self._plan))

    def of(self, addresses: Iterable[str]) -> dict[str, Step]:
        """Return what undoes those of some steps that have an undo, by address."""
        if self._by_code is not None:
            return {address: self._by_code[address][0] for address in addresses if address in self._by_code}
        if not self._by_path:
            return {}
        at = {address: self._paths.at(address) for address in addresses if not in_cleanup(address)}
        return {address: self._by_path[path] for address, path in at.items() if path in self._by_path}

    def removed(self, addresses: Iterable[str]) -> list[str]:
        """Return those of some steps that the definition does not have, since the run goes on with another one.

        None of a code-first run.
        """
        if self._by_code is not None:
            return []
        return [address for address in addresses if not in_cleanup(address) and self._paths.at(address) is None]

    def is_undone(self, timeline: Timeline, address: str, undone_as: int) -> bool:
        """Return whether an execution has been undone; a rewind takes back what an atomic step has done, and what has undone that."""
        by_rewind = timeline.undone.get((address, undone_as))
        return by_rewind is False or (by_rewind is True and not self._is_atomic(address))

    def is_owed(self, timeline: Timeline, taken: TakenBack) -> bool:
        """Tell whether an execution that was taken back has an undo, and is still to be undone."""
        return bool(self.of([taken.address])) and self.is_left(timeline, taken.address, taken.execution, taken)

    def is_left(self, timeline: Timeline, address: str, execution: Execution, taken: TakenBack | None) -> bool:
        """Tell whether an execution, which may have been taken back, is still to be undone, if it has an undo."""
        if taken is not None and taken.by_rewind and self._is_atomic(address):
            return False
        return not self.is_undone(timeline, address, execution.undone_as)

    def _is_atomic(self, address: str) -> bool:
        if self._by_code is not None:
            return address in self._by_code and self._by_code[address][1]
        path = self._paths.at(address)
        return path is not None and self._steps[path].atomic

    def unread_around(self, address: str) -> UnreadStep | None:
        """Find the step around one that cannot be read any more and may say how that one is undone, or None."""
        for above in prefixes(address):
            path = self._paths.at(above)
            step = None if path is None else self._steps[path]
            if isinstance(step, UnreadStep):
                return step if step.may_undo(address) else None
        return None


def _as_it_was(symphony: Host, run: Workflow, state: Mapping[str, Any], definition: WorkflowDefinition) -> Workflow:
    """Return a run as it was, under a definition; it belongs to no Symphony."""
    made = made_of(symphony.world.revived(state), symphony.world.types)
    then = Workflow(id=run.id, **{name: thaw(made[name]) for name in _SEEN if name in made})
    then.follow(definition)
    return then


def _seen_then(run: Workflow, then: Workflow, place: Frame, address: str, generation: int) -> Frame:
    """Return the place of a step for what undoes it now: it sees the run as it was, and writes to the run as it is."""
    names: dict[str, Any] = {}
    for layer in reversed(list(place.layers())):
        names.update(layer)
    undoes = UndoneStep(
        address=address,
        status=then.step_status(address),
        output=thaw(then.outputs.get(address)),
        idempotency_key=idempotency_key(run.id, address, generation),
    )
    return Frame(run, place.prefix, place.steps, place.outer, names=names, key_space=place.key_space, then=then, undoes=undoes)


async def owes_undo(symphony: Host, run: Workflow, generations: Generations) -> bool | str:
    """Return whether what a rewind has taken back of a run, its state with it, is still to be undone: as `Workflow.undoable` says it."""
    if run.definition.code is None:
        paths, by_path = Paths(run.definition.plan), run.definition.undo_plan
        return any(paths.at(address) in by_path for address in generations.owed)
    key = entity_key("Workflow", run.id)
    for position in sorted(set(generations.owed.values()), reverse=True):
        state = await symphony.state_history.entity_at(key, position)
        owed: bool | str = False if state is None or state.data is None else state.data.get("undoable", False)
        if owed:
            return owed
    return False


async def decided(symphony: Host, run: Workflow, composites: Iterable[str]) -> dict[str, Any]:
    """Return what composites that have completed had noted of their progress, by address: so that they are entered again as they were."""
    wanted = [address for address in dict.fromkeys(composites) if address in run.recorded_outputs]
    timeline = await read_timeline(symphony, run) if wanted else Timeline()
    completed = timeline.completed
    noted = {address: await noted_before_completion(symphony, timeline, completed.get(address), address) for address in wanted}
    return {address: progress for address, progress in noted.items() if progress is not None}
