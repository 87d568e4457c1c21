"""Pruning runs, part of `symphony.workflows`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from symphony_es.core.world.transaction import open_scope_of
from symphony_es.errors import ConfigurationError, ReadOnlyError, WorkflowError
from symphony_es.shown import shown

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.engine.engine import WorkflowEngine
    from symphony_es.workflow.runs.filters import Named, StatusLike
    from symphony_es.workflow.runs.pruning import PruneReport

__all__ = ["Age", "RunPruning"]

Age: TypeAlias = timedelta | float | datetime | str
"""How long ago, as a timedelta, in seconds, or as text (`"7d"`); or a moment: a datetime, or its ISO text (UTC where no zone is named)."""


class RunPruning:
    """Taking runs out of lists and snapshots."""

    def __init__(self, symphony: Host) -> None:
        self._symphony = symphony

    @property
    def _engine(self) -> WorkflowEngine:
        engine: WorkflowEngine = self._symphony.service("workflow_engine")
        return engine

    async def prune_runs(
        self,
        *,
        older_than: Age,
        status: StatusLike = None,
        name: Named = None,
        metadata: Mapping[str, Any] | None = None,
        dry_run: bool = False,
    ) -> PruneReport:
        """Take runs that ended long ago out of all lists and later snapshots, with their child runs and tasks; return what was pruned.

        The log keeps their events, and the room that these take: history, blame, audits and `at(...)` still answer for them, and a rewind
        brings them back. `get_run` and its like raise `RunPrunedError`, and so does a start or fork under their ids: what was done under an
        id is not done twice. Checkpoints, definitions, and what runs have changed in other entities stay.

        A run stays, with all that belongs to it, where one of its child runs has not ended by then, where it is live in this process or a
        living entity refers to it, and where a fork of it stays. A run at rest that has a pruned one among its values keeps the reference.

        A run and what belongs to it go together. Several transactions take what is much: after a crash, or a call that is cancelled, ask
        again. It costs what is pruned, what is alive, and a look at the list of runs; the event loop is not held up.

        Args:
            older_than: they ended so long ago: a timedelta, seconds; or before a moment: a datetime or its ISO text.
            status: one, or several, of those that runs end with. Left out: completed and cancelled ones. A failed one may be tried again,
                and goes only where it is asked for.
            name: the definition's name, the definition, or several.
            metadata: what the run was given is equal in all of these.
            dry_run: append nothing, and return what would be pruned.

        Raises:
            ConfigurationError: `older_than` is no age and no moment, or a filter means nothing. Nothing is pruned.
            WorkflowError: inside a transaction. Nothing is pruned.
            ReadOnlyError: this Symphony only reads, and it is no dry run. Nothing is pruned.
            LogUnavailableError: the commit failed; what was pruned before is pruned.
        """
        from symphony_es.workflow.engine.leaving import prune  # late: few programs prune
        from symphony_es.workflow.runs.filters import RunFilter, moment_of_age, prune_filter, read_time
        from symphony_es.workflow.runs.pruning import Pruning

        symphony, engine = self._symphony, self._engine
        before = read_time("older_than", moment_of_age(older_than, engine.clock.now()))
        assert before is not None, "an age or a moment was given"
        wanted = prune_filter(RunFilter(status=status, name=name, metadata=metadata))
        if type(dry_run) is not bool:
            raise ConfigurationError(f"dry_run={shown(dry_run)}: it is True or False")
        if symphony.log.read_only and not dry_run:
            raise ReadOnlyError(
                "prune_runs would write the log, and this Symphony is open for reading only: symphony.requests.prune_runs() asks who "
                "writes it"
            )
        if symphony.log.read_only:
            return await Pruning(symphony.log, symphony.state_history, symphony.run_listing).run(wanted, before, dry_run=True)
        if open_scope_of(symphony.world) is not None:
            raise WorkflowError("runs cannot be pruned inside a transaction, whose changes are not in the log yet: end it first")
        return await prune(symphony, engine.resting, wanted, before, dry_run=dry_run)
