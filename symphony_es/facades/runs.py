"""What can be asked of runs, part of `symphony.workflows`. A run is named by object, reference, `"Workflow:id"` or id alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from symphony_es.core.resume.bringing import is_in_log, refuse_pruned
from symphony_es.diagnostics import get_logger
from symphony_es.errors import ConfigurationError, EntityNotFoundError
from symphony_es.events.identifiers import entity_key
from symphony_es.events.references import EntityReference
from symphony_es.facades.lookup import get_entity, key_of
from symphony_es.facades.pruning import RunPruning
from symphony_es.shown import shown
from symphony_es.workflow.engine.auto_checkpoint import AutoCheckpoint
from symphony_es.workflow.engine.children import GRACE_S
from symphony_es.workflow.engine.creation import DefinitionLike
from symphony_es.workflow.engine.engine import created
from symphony_es.workflow.engine.handle import RunHandle
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.summary import RunSummary

if TYPE_CHECKING:
    from symphony_es.workflow.engine.draining import DrainReport
    from symphony_es.workflow.engine.recovery import RecoverReport
    from symphony_es.workflow.record.attempts import StepAttempt
    from symphony_es.workflow.record.usage import RunUsage
    from symphony_es.workflow.runs.filters import Named, RunFilter, StatusLike, TimeLike
    from symphony_es.workflow.runs.summary import RunPage

__all__ = ["RunLike", "RunRequests", "id_of_run"]

RunLike: TypeAlias = Workflow | RunHandle | RunSummary | EntityReference | str
"""A run, its handle, its summary, its reference, its key or its id."""


MOST_RUNS = 1 << 40
_log = get_logger(__name__)


class RunRequests(RunPruning):
    """Finding runs, and making requests to them. Awaited calls are durable."""

    async def get_run(self, run: RunLike) -> Workflow:
        """Return a run by its id, reference or `"Workflow:id"`, brought from the log where it is at rest.

        Raises:
            EntityNotFoundError: there is none; `RunPrunedError` where it was pruned.
        """
        return await self._found(run)

    async def get_all_runs(self) -> list[Workflow]:
        """Return all runs, by the time of their creation, those at rest as well: it costs all that the runs have ever done; see
        `list_runs`.
        """
        from symphony_es.workflow.runs.filters import RunFilter  # late: few programs ask

        await self._settled()
        page = await self._symphony.run_listing.page(RunFilter(), newest_first=False, limit=MOST_RUNS)
        return sorted([await self._found(summary) for summary in page], key=created)

    async def list_runs(
        self,
        *,
        status: StatusLike = None,
        name: Named = None,
        definition_id: str | None = None,
        parent: RunLike | None = None,
        metadata: Mapping[str, Any] | None = None,
        error: bool | str | type[BaseException] | None = None,
        step: str | None = None,
        since: TimeLike = None,
        until: TimeLike = None,
        created_after: TimeLike = None,
        created_before: TimeLike = None,
        newest_first: bool = True,
        after: RunLike | None = None,
        limit: int = 100,
    ) -> RunPage:
        """Return summaries of the runs that fit all filters, a page at a time; those that have ended and are at rest are among them.

        What has happened so far is part of the answer. A page costs the same however many runs are at rest in the log, and brings none of
        them to life: `await summary.load()` is the run.

        Args:
            status: one, or several.
            name: the definition's name, the definition, or several.
            definition_id: the definition's id.
            parent: the run that started them; without it, child runs are among the others.
            metadata: `{"customer": "acme"}`: what the run was given is equal in all of these.
            error: True for runs that have one, False for those without; a class of errors or its name, a part of the message, or an
                `error_group` as a summary has it.
            step: address or name of the step where they failed, or that began last of those that have not completed. Where no run has such
                a name or step, `near` of the page, and a line in the log, name those that are written like it.
            since: created then or later: a datetime, ISO text, or a timedelta: so long ago.
            until: created then or earlier.
            created_after: as `since`, exclusive.
            created_before: as `until`, exclusive.
            newest_first: the run created last comes first.
            after: the last run of the page before, or that page's `next`, with the filters of that page; exclusive.
            limit: runs of a page, from 1 on.

        Raises:
            ConfigurationError: a limit below 1, a status that does not exist (near misses are named), a filter that means nothing, or the
                `next` of a page with other filters.
            EntityNotFoundError: `after` or `parent` is no run.
        """
        from symphony_es.workflow.runs.filters import RunFilter  # late: few programs ask

        wanted = RunFilter(
            status=status, name=name, definition_id=definition_id, parent_id=None if parent is None else id_of_run(parent),
            metadata=metadata, error=error, step=step, since=since, until=until, created_after=created_after, created_before=created_before,
        )  # fmt: skip
        wanted.query()  # what is wrong with it is told before anything is waited for
        await self._settled()
        last = None if after is None else id_of_run(after)
        page: RunPage = await self._symphony.run_listing.page(wanted, after=last, newest_first=newest_first, limit=limit)
        self._tell_near(page.near, wanted)
        return page

    async def count_runs(
        self,
        by: Literal["status", "name", "error", "step"] = "status",
        *,
        status: StatusLike = None,
        name: Named = None,
        definition_id: str | None = None,
        parent: RunLike | None = None,
        metadata: Mapping[str, Any] | None = None,
        error: bool | str | type[BaseException] | None = None,
        step: str | None = None,
        since: TimeLike = None,
        until: TimeLike = None,
    ) -> dict[str, int]:
        """Return how many runs fit all filters, which are those of `list_runs`, the largest number first.

        Args:
            by: what is counted: runs of each status, name, error group, or step where they failed or stand.

        Raises:
            ConfigurationError: `by` or a filter means nothing.
        """
        from symphony_es.workflow.runs.filters import RunFilter  # late: few programs ask

        wanted = RunFilter(
            status=status, name=name, definition_id=definition_id, parent_id=None if parent is None else id_of_run(parent),
            metadata=metadata, error=error, step=step, since=since, until=until,
        )  # fmt: skip
        wanted.query()
        await self._settled()
        counted: dict[str, int] = await self._symphony.run_listing.count(wanted, by)
        if not counted and (wanted.name is not None or wanted.step is not None):
            self._tell_near(await self._symphony.run_listing.near(wanted), wanted)
        return counted

    def _tell_near(self, near: Sequence[str], wanted: RunFilter) -> None:
        registered = {*self._symphony.workflows.by_name} if near else set()
        if near and registered.isdisjoint(wanted.names):
            _log.warning("no_run_is_called_so", name=wanted.name, step=wanted.step, did_you_mean=list(near))

    async def _settled(self) -> None:
        """Make what has been changed so far part of the list."""
        if not self._symphony.log.read_only:
            await self._symphony.world.outbox.flush([])

    def handle(self, run: RunLike) -> RunHandle:
        """Return a handle of a run: its status, its end, its events as they happen, and the requests to it.

        Of a run at rest that nobody has in hand, the handle is of its id: each awaited call brings the run from the log, and what is not
        awaited (`run`, `status`, `progress`) is there after the first one, `await handle.load()` for example.

        Raises:
            EntityNotFoundError: there is none.
        """
        if isinstance(run, RunHandle):
            return run
        if isinstance(run, (str, EntityReference, RunSummary)):
            key, world = key_of("Workflow", run.id if isinstance(run, RunSummary) else run), self._symphony.world
            if key not in world.records:
                held = world.at_rest(key)
                if held is not None:
                    return self._engine.handle(held.obj)
                if is_in_log(self._symphony, key):
                    return self._engine.handle(key.partition(":")[2])
                refuse_pruned(self._symphony, key)
        return self._engine.handle(self._run(run))

    @property
    def max_concurrent_runs(self) -> int | None:
        """How many runs execute at once in this process; see `WorkflowEngine.max_concurrent_runs`. It may be assigned at any time."""
        return self._engine.max_concurrent_runs

    @max_concurrent_runs.setter
    def max_concurrent_runs(self, limit: int | None) -> None:
        self._engine.max_concurrent_runs = limit

    def queue(self) -> list[RunHandle]:
        """Return handles of the runs that wait until fewer than `max_concurrent_runs` execute, the next one first.

        Raises:
            ReadOnlyError: this process only reads; `list_runs(status="queued")` says which ones wait.
        """
        return self._engine.queue()

    async def drain(self, timeout_s: float = 30.0) -> DrainReport:
        """Stop all runs at their next boundary between steps, for a graceful stop, and start none; see `WorkflowEngine.drain`."""
        return await self._engine.drain(timeout_s)

    async def resume(
        self,
        run: RunLike,
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        definition: DefinitionLike | None = None,
        force: bool = False,
        hooks: Sequence[Any] = (),
        deadline_s: float | None = None,
    ) -> Workflow:
        """Go on with a run that was interrupted, is paused or pending, or has failed; see `WorkflowEngine.resume`."""
        return await self._engine.resume(
            await self._found(run), auto_checkpoint, definition=definition, force=force, hooks=hooks, deadline_s=deadline_s
        )

    async def pause(self, run: RunLike) -> Workflow:
        """Pause a run, and return it; see `WorkflowEngine.pause`."""
        found = await self._found(run)
        await self._engine.pause(found)
        return found

    async def cancel(self, run: RunLike, *, grace_s: float | None = None, cleanup: bool = True) -> Workflow:
        """Cancel a run and its child runs, and return the run; `cleanup=False` ends a clean-up that hangs; see `WorkflowEngine.cancel`."""
        found = await self._found(run)
        await self._engine.cancel(found, grace_s=GRACE_S if grace_s is None else grace_s, cleanup=cleanup)
        return found

    async def signal(self, run: RunLike, name: str, payload: Any = None, *, signal_id: str | None = None) -> None:
        """Send a signal to a run; see `WorkflowEngine.signal`."""
        await self._engine.signal(await self._found(run), name, payload, signal_id=signal_id)

    async def retry_from(
        self,
        run: RunLike,
        step: str | Sequence[str],
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        hooks: Sequence[Any] = (),
        deadline_s: float | None = None,
    ) -> Workflow:
        """Do a step of a run, or several of them, and what came after, again; see `WorkflowEngine.retry_from`."""
        return await self._engine.retry_from(await self._found(run), step, auto_checkpoint, hooks=hooks, deadline_s=deadline_s)

    async def fork(
        self,
        run: RunLike,
        at: str | int,
        changes: Mapping[str, Any] | None = None,
        *,
        run_id: str = "",
        metadata: Mapping[str, Any] | None = None,
        signals: bool | Collection[str] = False,
    ) -> Workflow:
        """Return a new run that shares a run's history up to a step or position; see `WorkflowEngine.fork`."""
        return await self._engine.fork(await self._found(run), at, changes, run_id=run_id, metadata=metadata, signals=signals)

    @overload
    async def recover(
        self,
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        wait: Literal[True] = True,
        strict: bool = False,
        hooks: Sequence[Any] = (),
    ) -> list[Workflow]: ...
    @overload
    async def recover(
        self, auto_checkpoint: bool | AutoCheckpoint | None = None, *, wait: Literal[False], strict: bool = False, hooks: Sequence[Any] = ()
    ) -> RecoverReport: ...
    async def recover(
        self, auto_checkpoint: bool | AutoCheckpoint | None = None, *, wait: bool = True, strict: bool = False, hooks: Sequence[Any] = ()
    ) -> list[Workflow] | RecoverReport:
        """Go on with every run that a crash or an interruption left unfinished; see `WorkflowEngine.recover`.

        Args:
            auto_checkpoint: True, False, or a policy for these runs.
            wait: wait for their ends and return the runs; with `wait=False` return a `RecoverReport` at once.
            strict: raise `RunsLeftAloneError` where this process cannot go on with a run.
            hooks: called after the engine's own.
        """
        if wait:
            return await self._engine.recover(auto_checkpoint, strict=strict, hooks=hooks)
        return await self._engine.recover(auto_checkpoint, wait=False, strict=strict, hooks=hooks)

    async def _found(self, given: RunLike) -> Workflow:
        """Return a run, brought from the log where it is at rest; it goes on resting, as an object that the caller has."""
        if isinstance(given, RunHandle):
            given = await given.load()
        if not isinstance(given, (str, EntityReference, RunSummary)):
            return self._run(given)
        return await self._engine.resting.bring(key_of("Workflow", given.id if isinstance(given, RunSummary) else given))

    async def usage(self, run: RunLike, *, children: bool = False) -> RunUsage:
        """Return what a run has used of models, as its steps have said by `context.used`: tokens, calls, and costs by currency.

        All attempts count, failed ones too, and so do steps that were taken back: what was used was paid.

        Args:
            run: which.
            children: with what its child runs have used, and theirs, also of those that are pruned or removed.

        Raises:
            EntityNotFoundError: there is no such run.
            PositionNotFoundError: a part of its history is not kept.
            DamagedEventError: an event of it is damaged.
        """
        ids = [await self._known_id(run)]
        waiting = list(ids) if children else []
        while waiting:
            for child in await self._children_of(waiting.pop()):
                if child not in ids:
                    ids.append(child)
                    waiting.append(child)
        from symphony_es.workflow.record.attempts import read_run_usage  # late: few programs ask

        return await read_run_usage(self._symphony, ids)

    async def _children_of(self, run_id: str) -> list[str]:
        """Return ids of the child runs of a run; of one that is there no more, as its history has them."""
        try:
            found = (await self.get_run(run_id)).children
        except EntityNotFoundError:
            log, key = self._symphony.log, entity_key("Workflow", run_id)
            last = await log.read_entity_rows(key, log.entity_status_now(key)[0] - 1, None, 1)
            state = await self._symphony.state_history.entity_at(key, last[0][0] - 1)
            found = (state.data or {}).get("children", {}) if state is not None else {}
        return [child.id if isinstance(child, Workflow) else child.entity_id for child in found.values()]

    async def step_attempts(self, run: RunLike) -> list[StepAttempt]:
        """Return the attempts at a run's steps in the order of their starts: digests of input and code, what was read, used, and came of
        them.

        Raises:
            EntityNotFoundError: there is no such run.
            PositionNotFoundError: a part of its history is not kept.
            DamagedEventError: an event of it is damaged.
        """
        from symphony_es.workflow.record.attempts import read_attempts  # late: few programs ask

        return await read_attempts(self._symphony, await self._known_id(run))

    async def _known_id(self, given: RunLike) -> str:
        """Return the id of a run that the log has, whether it is in memory or not; all of it is in the log when this returns."""
        if isinstance(given, RunHandle):
            given = await given.load()
        if isinstance(given, Workflow):
            self._symphony.world.refuse_others(given)
        run_id = id_of_run(given)
        await self._symphony.world.flush()
        if not await self._symphony.log.read_entity_rows(entity_key("Workflow", run_id), 0, None, 1):
            await self.get_run(given)  # says that there is none
        return run_id

    def _run(self, given: RunLike) -> Workflow:
        if isinstance(given, RunSummary):
            given = given.id
        if isinstance(given, str) and not given.startswith("Workflow:"):
            given = key_of("Workflow", given)
        return get_entity(self._symphony.world, Workflow, "Workflow", given)


def id_of_run(given: RunLike) -> str:
    """Return the id of a run that is named in one way or another; whether there is one, the list tells."""
    if isinstance(given, str):
        return given.removeprefix("Workflow:")
    if isinstance(given, EntityReference):
        return given.entity_id
    if not isinstance(given, (Workflow, RunHandle, RunSummary)):
        raise ConfigurationError(f"a run is named by itself, its handle, summary, reference or id, not by {shown(given)}")
    return given.id
