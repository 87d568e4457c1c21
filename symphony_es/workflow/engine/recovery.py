"""Which runs a process goes on with after a crash, and which it leaves alone: what `recover` looks at before it drives anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, field
from typing import TYPE_CHECKING, Any

from symphony_es.core.past.states import live_states
from symphony_es.diagnostics import get_logger
from symphony_es.errors import RunsLeftAloneError
from symphony_es.events.identifiers import entity_key
from symphony_es.events.readable import readable
from symphony_es.events.values import Tagged
from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.definitions.nesting import walk
from symphony_es.workflow.engine.missing import RunLeft, left_alone, unrestored_runs
from symphony_es.workflow.kinds.function import FunctionStep
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import TAKEN_UP

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.engine.handle import RunHandle

__all__ = ["RecoverReport", "Recovery"]

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverReport:
    """What became of the unfinished runs of a log when a process took them up.

    Attributes:
        handles: of the runs that go on, by the time of their creation.
        missing: runs that need what this process has not (a function, a class, a model client, a definition); nothing is appended about
            them, and they go on in a process that has it.
        blocked: runs whose record contradicts the code of this process; tried again where the code is another.
    """

    handles: list[RunHandle] = field(default_factory=list)
    missing: list[RunLeft] = field(default_factory=list)
    blocked: list[RunLeft] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take: ids of the runs that go on; of the others their attributes."""
        told: dict[str, Any] = readable(
            {
                "handles": [handle.id for handle in self.handles],
                "missing": [asdict(left) for left in self.missing],
                "blocked": [asdict(left) for left in self.blocked],
            }
        )
        return told


class Recovery:
    """One look at the unfinished runs.

    Attributes:
        goes_on: runs that can go on, in the order given.
        missing, blocked: see `RecoverReport`.
    """

    def __init__(self, symphony: Host) -> None:
        self._symphony = symphony
        self.goes_on: list[Workflow] = []
        self.missing: list[RunLeft] = []
        self.blocked: list[RunLeft] = []

    async def load(self) -> None:
        """Make live what is unfinished in the log, with what its definitions name, where not all of the log is live."""
        world = self._symphony.world
        if not world.in_part:
            return
        fold, _ = await self._symphony.state_history.living_at(self._symphony.log.head)
        states = live_states(fold)
        wanted = {each.name for each in TAKEN_UP}
        unfinished = [
            key
            for key, state in states.items()
            if key.startswith("Workflow:")
            and isinstance(status := (state.data or {}).get("status"), Tagged)
            and (status.data in wanted or (state.data or {}).get("untold"))
        ]
        await self._load([key for key in unfinished if key not in world.records])
        named = {key for run in map(self._symphony.world.find, unfinished) if isinstance(run, Workflow) for key in _named_by(run)}
        await self._load([key for key in sorted(named) if key in states and key not in self._symphony.world.records])

    async def _load(self, keys: list[str]) -> None:
        if keys:
            await self._symphony.load_entities(keys, strict=False, keep_failed=True)

    def look_at(self, runs: list[Workflow], has_driver: Callable[[Workflow], bool]) -> None:
        """Decide over the runs that nothing drives.

        Args:
            runs: unfinished, and not executing.
            has_driver: whether a run is taken up by the run that started it.
        """
        self.missing, self.blocked = unrestored_runs(self._symphony)
        for run in runs:
            if has_driver(run):
                continue
            missing, blocked = left_alone(run, self._symphony)
            if missing is not None:
                self.missing.append(missing)
            elif blocked is not None:
                self.blocked.append(blocked)
            else:
                self.goes_on.append(run)

    def report(self, *, strict: bool) -> None:
        """Warn of each run that is left alone.

        Raises:
            RunsLeftAloneError: `strict`, and there is one.
        """
        if strict and (self.missing or self.blocked):
            raise RunsLeftAloneError({left.run_id: left.reason for left in (*self.missing, *self.blocked)})
        for left in self.missing:
            _log.warning("run_needs_what_is_missing", run_id=left.run_id, missing=list(left.missing), reason=left.reason)
        for left in self.blocked:
            _log.warning("run_is_blocked", run_id=left.run_id, reason=left.reason)


def _named_by(run: Workflow) -> list[str]:
    """Return keys of the agents and saved definitions that the steps of a run name; the texts of templates name nothing."""
    try:
        definition = run.definition
    except ValueError:  # it cannot be read here: the run is left alone, and said to be
        return []
    keys: list[str] = []
    steps = [step for _, step in walk((*definition.plan, *definition.cleanup_plan)) if type(step) is not FunctionStep]
    if not steps:
        return keys
    from symphony_es.workflow.kinds.sub_workflow import SubWorkflowStep  # late: where a definition has none, nothing else needs it
    from symphony_es.workflow.kinds.task import TaskStep

    for step in steps:
        named = step.workflow_id if isinstance(step, SubWorkflowStep) else step.agent_id if isinstance(step, TaskStep) else None
        if named and "{" not in named and ":" not in named:
            keys.append(entity_key("WorkflowDefinition" if isinstance(step, SubWorkflowStep) else "Agent", named))
    return keys
