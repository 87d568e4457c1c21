"""Which steps of a run are undone, in which order, and where their undo stands: all of it follows from what is on record.

Each step that this run has begun, and that has an undo, is undone: one that was cut off, or has failed, may have done its work. Those that
have not completed come first, the one that began last before the others; then those that have completed, the last one first. What
`retry_from` or a rewind has taken back was done all the same: it is undone among them, once, and sees the run as it was then.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from symphony_es.core.state.tracking.making import made_of
from symphony_es.errors import NotRegisteredError
from symphony_es.events.identifiers import DEFINITION_PREFIX, entity_key
from symphony_es.shown import quoted
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.definitions.nesting import Paths, step_at
from symphony_es.workflow.engine.control import RunControl
from symphony_es.workflow.engine.execution import idempotency_key
from symphony_es.workflow.engine.generations import Generations
from symphony_es.workflow.engine.histories import read_timeline, state_at
from symphony_es.workflow.engine.owing import TakenBack
from symphony_es.workflow.engine.past import aside
from symphony_es.workflow.engine.timeline import Timeline
from symphony_es.workflow.engine.unknown_undo import NOT_CALLED, UnknownUndo
from symphony_es.workflow.runs.cleanup import UNDO, in_cleanup, undo_address
from symphony_es.workflow.runs.context import UndoneStep
from symphony_es.workflow.runs.outputs import Frame
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.thawing import thaw

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
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
    generations, places = Generations(timeline.raised), _Places(symphony, run, timeline.completed, timeline)
    planned: list[tuple[tuple[bool, int], Undo]] = []
    for address, step in held.items():
        execution, at = timeline.execution(address), f"{UNDO}/{address}"
        is_undone = undos.is_undone(timeline, address, execution.undone_as)
        # What a fork shares with its original was done by that one, which it holds for.
        if not execution.is_of_run or (is_undone and at not in run.recorded_outputs):
            continue
        completed = address in run.recorded_outputs
        order = not completed, (timeline.completed if completed else timeline.begun).get(address, 0)
        frame = await places.frame_of(address)
        if generations.of(at) != execution.undone_as and not is_undone:  # a rewind has brought back what another one had taken back
            at = undo_address(address, execution.undone_as)
            frame = _seen_then(run, run, frame, address, execution.generation)
        planned.append((order, Undo(at, step, frame)))
    planned += [((False, ended), undo) for ended, undo in await _plan_removed(runner, timeline, undos)]
    taken_back = timeline.taken_back.values()
    for position in sorted({taken.position for taken in taken_back}):  # each goes on from the one before
        together = [taken for taken in taken_back if taken.position == position]
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
    removed = set(undos.removed(taken.address for taken in left))
    if not by_code:
        left = [taken for taken in left if taken.address in removed or undos.is_owed(timeline, taken)]
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
    planned = []
    before = await _removed_at(symphony, run, data, position) if removed else None
    for taken in left:
        address, execution, seen = taken.address, taken.execution, then
        if address in removed:
            if before is None or not before[1].is_owed(timeline, taken):
                continue
            seen, step = before[0], _known_undo(symphony, before[1].of([address])[address], address, execution.generation)
        elif undos.is_owed(timeline, taken):
            step = undos.of([address])[address]
        elif address in unknown and (address, execution.undone_as) not in timeline.undone:
            step = UnknownUndo(address=address, generation=execution.generation, why=NOT_CALLED)
        else:
            continue
        frame = await _Places(symphony, seen, taken.completed, timeline).frame_of(address)
        frame = _seen_then(run, seen, frame, address, execution.generation)
        planned.append((taken, Undo(undo_address(address, execution.undone_as), step, frame)))
    return planned


async def _plan_removed(runner: Runner, timeline: Timeline, undos: _Undos) -> list[tuple[int, Undo]]:
    """Return what undoes the steps that hold and that the run's definition has no more, as the one says by which they ran; each with its
    end.
    """
    symphony, run, planned = runner.symphony, runner.run, []
    for address in undos.removed(run.attempts):
        execution, ended = timeline.execution(address), timeline.ended_at(address) or timeline.begun.get(address)
        state = None if ended is None else await state_at(symphony, timeline.key_at(ended), ended)
        if ended is None or state is None or state.data is None or not execution.is_of_run:
            continue
        found = await _removed_at(symphony, run, state.data, ended)
        if found is None or not found[1].of([address]) or found[1].is_undone(timeline, address, execution.undone_as):
            continue
        step = _known_undo(symphony, found[1].of([address])[address], address, execution.generation)
        frame = await _Places(symphony, found[0], timeline.completed, timeline).frame_of(address)
        planned.append((ended, Undo(f"{UNDO}/{address}", step, _seen_then(run, found[0], frame, address, execution.generation))))
    return planned


async def _removed_at(symphony: Host, run: Workflow, state: Mapping[str, Any], position: int) -> tuple[Workflow, _Undos] | None:
    """Return a run as it was, with the definition that it had then, and what undoes its steps; None where the log does not have that any
    more.
    """
    stored = await symphony.state_history.entity_at(f"{DEFINITION_PREFIX}{state.get('definition_hash')}", position)
    if stored is None or stored.data is None:
        return None
    definition = WorkflowDefinition.from_dict({**stored.data, "id": state["definition_id"]})
    then = _as_it_was(symphony, run, state, definition)
    return then, _Undos(then, {})


def _known_undo(symphony: Host, step: Step, address: str, generation: int) -> Step:
    """Return the undo of a step that the definition has no more, or one that fails where this process lacks what it needs."""
    try:
        step.check(symphony)
    except NotRegisteredError as error:
        return UnknownUndo(address=address, generation=generation, why=f"the definition does not have the step any more, and {error}")
    return step


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
        """Return whether an execution that was taken back has an undo, and is still to be undone."""
        if not self.of([taken.address]) or (taken.by_rewind and self._is_atomic(taken.address)):
            return False
        return not self.is_undone(timeline, taken.address, taken.execution.undone_as)

    def _is_atomic(self, address: str) -> bool:
        if self._by_code is not None:
            return address in self._by_code and self._by_code[address][1]
        step = step_at(self._plan, address)
        return step is not None and step.atomic


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


async def owes_undo(symphony: Host, run: Workflow, generations: Generations) -> bool:
    """Return whether what a rewind has taken back of a run, its state with it, is still to be undone when the run is cleaned up."""
    if run.definition.code is None:
        paths, by_path = Paths(run.definition.plan), run.definition.undo_plan
        return any(paths.at(address) in by_path for address in generations.owed)
    key = entity_key("Workflow", run.id)
    for position in sorted(set(generations.owed.values()), reverse=True):
        state = await symphony.state_history.entity_at(key, position)
        if state is not None and state.data is not None and state.data.get("undoable"):
            return True
    return False


async def decided(symphony: Host, run: Workflow, composites: Iterable[str]) -> dict[str, Any]:
    """Return what composites that have completed had noted of their progress, by address: so that they are entered again as they were."""
    wanted = [address for address in dict.fromkeys(composites) if address in run.recorded_outputs]
    timeline = await read_timeline(symphony, run) if wanted else Timeline()
    completed = timeline.completed
    noted = {address: await _noted_before_completion(symphony, timeline, completed.get(address), address) for address in wanted}
    return {address: progress for address, progress in noted.items() if progress is not None}


async def _noted_before_completion(symphony: Host, timeline: Timeline, completed: int | None, address: str) -> Any:
    if completed is None:
        return None
    state = await symphony.state_history.entity_at(timeline.key_at(completed), completed - 1)
    progress = state.data.get("progress", {}).get(address) if state is not None and state.data is not None else None
    return thaw(made_of(symphony.world.revived(progress), symphony.world.types))


class _Places:
    """The frames of steps, made as they were when the steps ran."""

    def __init__(self, symphony: Host, run: Workflow, completed: Mapping[str, int], timeline: Timeline) -> None:
        self._symphony = symphony
        self._run = run
        self._completed = completed
        self._timeline = timeline
        self._main = Frame(run, steps=run.definition.plan)
        self._noted: dict[str, Any] = {}

    async def frame_of(self, address: str) -> Frame:
        """Return the frame in which the step at an address ran."""
        if self._run.definition.code is not None:
            return Frame(self._run)
        return await self._among(self._run.definition.plan, "", address.split("/"), self._main)

    async def _among(self, steps: Sequence[Step], prefix: str, parts: list[str], frame: Frame) -> Frame:
        step = next(step for step in steps if step.id == parts[0])
        return await self._inside(step, prefix + step.id, parts[1:], frame)

    async def _inside(self, step: Step, address: str, parts: list[str], frame: Frame) -> Frame:
        if not parts:
            return frame
        for part, nested in step.children().items():
            indexed = part == "*" and parts[0].isdecimal()
            names = step.names_inside(int(parts[0]), await self._notes_of(address)) if indexed else {}
            if step.together and (indexed or part == ""):
                branch = nested[0] if indexed else next(one for one in nested if one.id == parts[0])
                below = f"{address}/{parts[0]}"
                return await self._inside(branch, below, parts[1:], Frame(self._run, outer=frame, names=names, key_space=below))
            if indexed or part in ("", parts[0]):
                prefix = f"{address}/{parts[0]}/" if part else f"{address}/"
                rest = parts[1:] if part else parts
                return await self._among(nested, prefix, rest, Frame(self._run, prefix, nested, frame, names=names))
        raise LookupError(f"no step of {quoted(step.id)} executes at {quoted('/'.join((address, *parts)))}")

    async def _notes_of(self, address: str) -> Any:
        """Return what a composite had noted of its progress; that of one that has completed stands in the run's history."""
        if address not in self._noted:
            held = self._run.progress.get(address)
            if held is None:
                self._noted[address] = await _noted_before_completion(self._symphony, self._timeline, self._completed.get(address), address)
            else:
                self._noted[address] = thaw(held)
        return self._noted[address]
