"""The places of a run's steps, made once more as they were when the steps ran: for what undoes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.making import made_of
from symphony_es.shown import quoted
from symphony_es.workflow.runs.outputs import Frame
from symphony_es.workflow.runs.thawing import thaw

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.definitions.steps import Step
    from symphony_es.workflow.engine.timeline import Timeline
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["Places", "noted_before_completion"]


async def noted_before_completion(symphony: Host, timeline: Timeline, completed: int | None, address: str) -> Any:
    """Return what a composite had noted of its progress when it completed; None where it has not, or had noted nothing."""
    if completed is None:
        return None
    state = await symphony.state_history.entity_at(timeline.key_at(completed), completed - 1)
    progress = state.data.get("progress", {}).get(address) if state is not None and state.data is not None else None
    return thaw(made_of(symphony.world.revived(progress), symphony.world.types))


class Places:
    """The frames of steps. What a composite had noted is looked up once for all that is inside of it.

    Args:
        symphony: the Symphony that the run belongs to.
        run: the run, as it is or as it was.
        timeline: of its history.
    """

    def __init__(self, symphony: Host, run: Workflow, timeline: Timeline) -> None:
        self._symphony = symphony
        self._run = run
        self._timeline = timeline
        self._main = Frame(run, steps=run.definition.plan)
        self._noted: dict[tuple[str, int | None], Any] = {}
        self._by_id: dict[int, dict[str, Step]] = {}

    async def frame_of(self, address: str, completed: Mapping[str, int]) -> Frame:
        """Return the frame in which the step at an address ran.

        Args:
            address: of the step.
            completed: where the steps around it had completed by then.
        """
        if self._run.definition.code is not None:
            return Frame(self._run)
        return await self._among(self._run.definition.plan, "", address.split("/"), self._main, completed)

    def _named(self, steps: Sequence[Step], step_id: str) -> Step:
        known = self._by_id.get(id(steps))
        if known is None:
            known = self._by_id[id(steps)] = {step.id: step for step in steps}
        return known[step_id]

    async def _among(self, steps: Sequence[Step], prefix: str, parts: list[str], frame: Frame, completed: Mapping[str, int]) -> Frame:
        step = self._named(steps, parts[0])
        return await self._inside(step, prefix + step.id, parts[1:], frame, completed)

    async def _inside(self, step: Step, address: str, parts: list[str], frame: Frame, completed: Mapping[str, int]) -> Frame:
        if not parts:
            return frame
        for part, nested in step.children().items():
            indexed = part == "*" and parts[0].isdecimal()
            names = step.names_inside(int(parts[0]), await self._notes_of(address, completed.get(address))) if indexed else {}
            if step.together and (indexed or part == ""):
                branch = nested[0] if indexed else next(one for one in nested if one.id == parts[0])
                below = f"{address}/{parts[0]}"
                inner = Frame(self._run, outer=frame, names=names, key_space=below)
                return await self._inside(branch, below, parts[1:], inner, completed)
            if indexed or part in ("", parts[0]):
                prefix = f"{address}/{parts[0]}/" if part else f"{address}/"
                rest = parts[1:] if part else parts
                return await self._among(nested, prefix, rest, Frame(self._run, prefix, nested, frame, names=names), completed)
        raise LookupError(f"no step of {quoted(step.id)} executes at {quoted('/'.join((address, *parts)))}")

    async def _notes_of(self, address: str, completed: int | None) -> Any:
        """Return what a composite had noted of its progress; that of one that has completed stands in the run's history."""
        if (address, completed) not in self._noted:
            held = self._run.progress.get(address)
            if held is None:
                self._noted[address, completed] = await noted_before_completion(self._symphony, self._timeline, completed, address)
            else:
                self._noted[address, completed] = thaw(held)
        return self._noted[address, completed]
