"""Which steps of a run are undone, in which order, and where their undo stands: all of it follows from what is on record.

Each step that this run has begun, and that has an undo, is undone: one that was cut off, or has failed, may have done its work. Those that
have not completed come first, the one that began last before the others; then those that have completed, the last one first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from symphony_es.core.state.tracking.making import made_of
from symphony_es.events.identifiers import entity_key
from symphony_es.workflow.definitions.nesting import Paths
from symphony_es.workflow.engine.timeline import FORK_EVENT, STARTS, Timeline, read_timeline
from symphony_es.workflow.runs.cleanup import in_cleanup
from symphony_es.workflow.runs.outputs import Frame
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.thawing import thaw

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
    from symphony_es.workflow.definitions.steps import Step

__all__ = ["Undo", "decided", "plan_undos"]


class Undo(NamedTuple):
    """What undoes one step: the step that does, and what it sees.

    Attributes:
        address: of the step that is undone.
        step: what undoes it.
        frame: its place, which is that of the step that it undoes.
    """

    address: str
    step: Step
    frame: Frame


async def plan_undos(symphony: Host, run: Workflow, by_code: Mapping[str, Step]) -> list[Undo]:
    """Return what undoes the steps of a run, in the order in which it runs; the same however often it is asked in a clean-up.

    Args:
        symphony: the Symphony that the run belongs to.
        run: a run whose main line has ended.
        by_code: of a code-first run, what undoes its calls, by address.
    """
    if run.definition.code is not None:
        undos = {address: by_code[address] for address in run.attempts if address in by_code}
    else:
        by_path, paths = run.definition.undo_plan, Paths(run.definition.plan)
        at = {address: paths.at(address) for address in run.attempts if not in_cleanup(address)} if by_path else {}
        undos = {address: by_path[path] for address, path in at.items() if path in by_path}
    if not undos:
        return []
    timeline = await read_timeline(symphony, run)
    own = None if run.forked_from is None else await _begun_here(symphony, run)

    def order(address: str) -> tuple[bool, int]:
        completed = address in run.recorded_outputs
        return not completed, (timeline.completed if completed else timeline.begun).get(address, 0)

    places = _Places(symphony, run, timeline)
    # What a fork shares with its original was done by that one, which it holds for.
    wanted = sorted((address for address in undos if own is None or address in own), key=order, reverse=True)
    return [Undo(address, undos[address], await places.frame_of(address)) for address in wanted]


async def _begun_here(symphony: Host, run: Workflow) -> set[str]:
    events = await symphony.log.read_entity(entity_key("Workflow", run.id))
    created = max((number for number, event in enumerate(events) if event.name == FORK_EVENT), default=0)
    return {event.metadata.step for event in events[created:] if event.name in STARTS and event.metadata.step is not None}


async def decided(symphony: Host, run: Workflow, composites: Iterable[str]) -> dict[str, Any]:
    """Return what composites that have completed had noted of their progress, by address: so that they are entered again as they were."""
    wanted = [address for address in dict.fromkeys(composites) if address in run.recorded_outputs]
    timeline = await read_timeline(symphony, run) if wanted else Timeline()
    noted = {address: await _noted_before_completion(symphony, timeline, address) for address in wanted}
    return {address: progress for address, progress in noted.items() if progress is not None}


async def _noted_before_completion(symphony: Host, timeline: Timeline, address: str) -> Any:
    completed = timeline.completed.get(address)
    if completed is None:
        return None
    state = await symphony.state_history.entity_at(timeline.key_at(completed), completed - 1)
    progress = state.data.get("progress", {}).get(address) if state is not None and state.data is not None else None
    return thaw(made_of(symphony.world.revived(progress), symphony.world.types))


class _Places:
    """The frames of steps, made as they were when the steps ran."""

    def __init__(self, symphony: Host, run: Workflow, timeline: Timeline) -> None:
        self._symphony = symphony
        self._run = run
        self._timeline = timeline
        self._main = Frame(run, steps=run.definition.plan)
        self._noted: dict[str, Any] = {}

    async def frame_of(self, address: str) -> Frame:
        """The frame in which the step at an address ran."""
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
        raise LookupError(f"no step of {step.id!r} executes at {address}/{'/'.join(parts)}")

    async def _notes_of(self, address: str) -> Any:
        """What a composite had noted of its progress; that of one that has completed stands in the run's history."""
        if address not in self._noted:
            held = self._run.progress.get(address)
            if held is None:
                self._noted[address] = await _noted_before_completion(self._symphony, self._timeline, address)
            else:
                self._noted[address] = thaw(held)
        return self._noted[address]
