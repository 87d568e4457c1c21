"""Tells the hooks of one run of its moments, and remembers which of them have not been told yet.

A moment that a hook must not miss (`durable`, `stops_run`) is put on record with its own event, in `run.untold`. It is taken off the record
with the next event of the run after the hooks have returned, so a step costs no event more. What a crash leaves there is told again, to
those hooks alone, before the run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from symphony_es.errors import HookFailedError
from symphony_es.events.changes import REMOVE, SET, Change
from symphony_es.system import RandomBytes
from symphony_es.workflow.engine.hooks import HookChain, RunMoment, Stage
from symphony_es.workflow.runs.assigning import assign
from symphony_es.workflow.runs.thawing import thaw

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["TOLD_EVENT", "Telling"]

TOLD_EVENT = "WorkflowHooksTold"
"""What takes moments off the record where no other event of the run follows."""

KEY_BYTES = 6
"""Of a moment's id, beside that of its run."""
KEYS_AT_ONCE = 32


class Telling:
    """The moments of one run in this process.

    Args:
        symphony: the Symphony that the run belongs to.
        run: the run.
        hooks: whom they are told.
    """

    def __init__(self, symphony: Host, run: Workflow, hooks: HookChain) -> None:
        self._symphony = symphony
        self._run = run
        self._hooks = hooks
        self._told: set[str] = set()
        self._keys = RandomBytes(KEY_BYTES, KEYS_AT_ONCE)

    def note(
        self,
        changes: list[Change],
        stage: Stage,
        step: str | None = None,
        error: Mapping[str, Any] | None = None,
        retry_at: datetime | None = None,
    ) -> RunMoment | None:
        """Describe a moment, and have it kept on record where a hook must not miss it.

        Args:
            changes: those of its event, which this becomes one of.
            stage: of the run.
            step: address of the step that it is a moment of.
            error: what has failed, described.
            retry_at: when the step is tried again.

        Returns:
            The moment, or None where no hook of the run has a method for it.
        """
        if not self._hooks.hears(stage):
            return None
        key = self._keys.take().hex()
        moment = RunMoment(
            id=f"{self._run.id}:{key}",
            stage=stage,
            symphony=self._symphony,  # type: ignore[arg-type]  # a hook is handed what the application has made
            run=self._run,
            step=step,
            completed_steps=self._run.completed_steps + (stage == "step_completed"),
            error=error,
            retry_at=retry_at,
            after_position=self._symphony.log.head,
        )
        if self._hooks.keeps(moment):
            said = None if error is None else {"type": error["type"], "message": error["message"], "step": error["step"]}
            held: dict[str, Any] = {"stage": stage, "step": step, "error": said, "retry_at": retry_at, "completed": moment.completed_steps}
            held["after"] = moment.after_position
            changes.append((SET, ("untold", key), {name: value for name, value in held.items() if value is not None}))
        return moment

    def note_assigned(self, stage: Stage, error: Mapping[str, Any] | None = None) -> RunMoment | None:
        """Return the same inside of a recording, which this becomes part of."""
        changes: list[Change] = []
        moment = self.note(changes, stage, None, error)
        assign(self._run, changes)
        return moment

    def wants(self, moment: RunMoment | None) -> bool:
        """Return whether a hook is to be called, so that the run has to wait for it."""
        return moment is not None and self._hooks.wants(moment)

    async def tell(self, moment: RunMoment | None, *, at_end: bool = False) -> None:
        """Call the hooks, after what has been recorded is durable.

        Args:
            moment: which; None where nobody is to be told.
            at_end: the run has ended, and is not held up by a hook that may be missing.

        Raises:
            HookFailedError: a hook failed that declares to stop the run.
        """
        await self._symphony.world.flush(self._run)
        if moment is None:
            return
        key = moment.id.rpartition(":")[2]
        try:
            await self._hooks.call(moment, at_end=at_end)
        except HookFailedError:
            self._told.add(key)
            raise
        self._told.add(key)

    async def tell_again(self, but: RunMoment | None = None) -> None:
        """Tell the hooks that must not miss them of the moments that an earlier process has left untold, in order.

        Raises:
            HookFailedError: one failed that declares to stop the run; the others have been told by then.
        """
        failure: HookFailedError | None = None
        for key, held in thaw(self._run.untold).items():
            if key in self._told or (but is not None and but.id.endswith(f":{key}")):
                continue
            error = held.get("error")
            moment = RunMoment(
                id=f"{self._run.id}:{key}",
                stage=held["stage"],
                symphony=self._symphony,  # type: ignore[arg-type]  # a hook is handed what the application has made
                run=self._run,
                step=held.get("step"),
                completed_steps=held["completed"],
                error=None if error is None else {**error, "traceback": ""},
                retry_at=held.get("retry_at"),
                after_position=held["after"],
                again=True,
            )
            if not self._hooks.keeps(moment):
                continue  # whoever must not miss it is not here: it stays on record
            try:
                await self.tell(moment, at_end=False)
            except HookFailedError as stopping:
                failure = failure or stopping
        if failure is not None:
            raise failure

    def forgotten(self) -> list[Change]:
        """Return what takes what has been told off the record, for the run's next event. What is rolled back is forgotten later."""
        if not self._told:
            return []
        self._told &= self._run.untold.keys()
        return [(REMOVE, ("untold", key)) for key in self._told]

    def record_told(self) -> None:
        """Do so with an event of its own, where no other follows."""
        changes = self.forgotten()
        if changes:
            self._run.record(TOLD_EVENT, changes)
