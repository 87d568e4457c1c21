"""`Symphony`: the one object an application holds.

It owns a log, the live world of entities, and the services that work on them. Everything it does is done by the layers below;
this module opens and closes them in the right order and hands out their calls.
"""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from symphony_es.core.state.attribution import ActingAs, acting, check_texts
from symphony_es.core.state.blocks import TransactionBlock
from symphony_es.core.state.builder import build_world
from symphony_es.core.state.checkpoint import CheckpointManager
from symphony_es.core.state.foreign import raise_first
from symphony_es.core.state.history import StateHistory
from symphony_es.core.state.loading import Loading
from symphony_es.core.state.names import Names
from symphony_es.core.state.one_at_a_time import OneAtATime
from symphony_es.core.state.opening import OpenedLog, open_in_memory, open_on_disk
from symphony_es.core.state.past.moments import Moment, read_moment
from symphony_es.core.state.past.view import PastObjects, StateView
from symphony_es.core.state.refresh import refresh
from symphony_es.core.state.report import ResumeReport
from symphony_es.core.state.restore import RestoreManager, restore_manager
from symphony_es.core.state.resume import ReplayUntil, Resumption, target_position
from symphony_es.core.state.tracking.types import TypeTable
from symphony_es.core.state.world import EntityLike, World
from symphony_es.errors import ConfigurationError, NotReadyError, PersistenceDisabledError, RunsInProgressError
from symphony_es.events.changes import Change
from symphony_es.events.fold import Fold
from symphony_es.facades.agents import Agents
from symphony_es.facades.entities import Entities
from symphony_es.facades.tasks import Tasks
from symphony_es.facades.workflows import Workflows
from symphony_es.guesses import pointing_out
from symphony_es.log.log import EventLog
from symphony_es.registry import NamedCallables, ServiceRegistry
from symphony_es.workflow.code.workflow import CodeWorkflow
from symphony_es.workflow.engine.engine import WorkflowEngine

if TYPE_CHECKING:  # what many programs never ask for is imported where it is handed out
    from symphony_es.core.state.past.audit import Audit
    from symphony_es.core.state.past.differences import StateDifference
    from symphony_es.core.state.past.forking import ForkReport
    from symphony_es.core.state.past.time_travel import TimeTravel
    from symphony_es.core.state.past.versions import Blame, EntityVersion
    from symphony_es.core.state.past.walking import VersionState
    from symphony_es.facades.builders import AgentBuilder, TaskBuilder
    from symphony_es.workflow.definitions.builder import WorkflowBuilder
    from symphony_es_projections.audit_trail import AuditTrail
    from symphony_es_projections.runner import ProjectionRunner

__all__ = ["Symphony"]

DEFAULT_STATE_DIR = ".symphony"
T = TypeVar("T")


class Symphony:
    """An event-sourced world of agents, tasks, memories, workflow runs and types of your own.

    ```python
    async with Symphony(persistence_enabled=True) as symphony: ...
    ```

    Without persistence the same calls work on a log in memory, and those that need a log on disk raise
    `PersistenceDisabledError`.

    Args:
        config: settings by name; those of `setup()` are taken from here when `setup()` is not given them.
        persistence_enabled: keep the log on disk.

    Attributes:
        agents: agents and their memories.
        tasks: tasks and their execution.
        workflows: definitions, runs and their execution.
        entities: objects of any type.
        registry: services by name; `registry.get("workflow_engine")` is the engine.
        models: model clients by name. functions: functions of function steps by name. tools: tools by name.
        flows: functions of code-first workflows by name.
        restore_manager: this Symphony's restorers; the module-level one is asked second.
        last_resume: the report of the last resume, or None.
        last_load: the report of the last `entities.load` or `load_all` that read the log, or None.
    """

    _SETTINGS = ("state_dir", "memory_events", "force_network_fs", "ignore_anchor", "resume")

    def __init__(self, config: Mapping[str, Any] | None = None, persistence_enabled: bool = False) -> None:
        self.config = dict(config or {})
        unknown = sorted(set(self.config) - set(self._SETTINGS))
        if unknown:
            raise ConfigurationError(f"unknown settings in config: {', '.join(unknown)}; known are {', '.join(self._SETTINGS)}")
        self.persistence_enabled = persistence_enabled
        self.registry = ServiceRegistry()
        self.models = NamedCallables("model client", "register one with symphony.models.register(name, async_callable)")
        self.functions = NamedCallables("function", "register it with symphony.functions.register(name, function)")
        self.flows = NamedCallables("workflow function", "decorate it with @symphony.workflow")
        self.tools = NamedCallables("tool", "register it with symphony.tools.register(name, function)")
        self.restore_manager = RestoreManager(parent=restore_manager)
        self.types.learn_from(self.functions.callables)
        self.types.learn_from(self.flows.callables)
        self.last_resume: ResumeReport | None = None
        self.last_load: ResumeReport | None = None
        self._opened: OpenedLog | None = None
        self._checks = False  # the debugging switch: objects are compared with what was recorded at each flush
        self._world: World | None = None
        self._restore_callbacks: list[Callable[[Symphony], Any]] = []
        self._changing_world = OneAtATime()
        self._projections: ProjectionRunner | None = None
        self._attach_facades()

    @property
    def types(self) -> TypeTable:
        """The classes of stored values by name: `register(cls, name)`, `alias(old, new)`, `allow(module)`, `names()`."""
        return self.restore_manager.types

    def _attach_facades(self) -> None:
        self.agents = Agents(self)
        self.tasks = Tasks(self)
        self.workflows = Workflows(self)
        self.entities = Entities(self)

    # -- opening and closing ------------------------------------------------------------------------------------------

    async def setup(
        self,
        state_dir: str | Path | None = None,
        *,
        resume: Literal["latest"] | None = None,
        memory_events: int | None = None,
        force_network_fs: bool | None = None,
        ignore_anchor: bool | None = None,
    ) -> Self:
        """Open the log, creating what is missing; a log that has entities is opened, and nothing is restored yet.

        Args:
            state_dir: where the log lives; `.symphony` in the working directory by default.
            resume: `"latest"` brings all entities back at once, to the head of the log.
            memory_events: without persistence: how many events are kept, 100,000 by default; older ones become a base state.
            force_network_fs: open a log on a network file system, whose locks cannot be trusted.
            ignore_anchor: open a log that is shorter than its snapshots, or differs from them.

        Returns:
            this Symphony. Repeating the call with the same directory changes nothing.

        Raises:
            ConfigurationError: a directory without persistence, or another one than before.
            LogInUseError: another process writes this log.
            LogDamagedError, AnchorMismatchError: acknowledged events are missing or damaged; nothing was changed.
            LogUnavailableError: the directory cannot be written, or is on a network file system.
        """
        chosen = state_dir if state_dir is not None else self.config.get("state_dir")
        self._checks = os.environ.get("SYMPHONY_CHECK") == "1"
        if self._opened is not None:
            self._check_same_directory(chosen)
            return self
        if chosen is not None and not self.persistence_enabled:
            raise ConfigurationError("state_dir needs persistence: create the Symphony with persistence_enabled=True")
        if self.persistence_enabled:
            self._opened = await open_on_disk(
                _absolute(chosen or DEFAULT_STATE_DIR),
                force_network_fs=self._setting("force_network_fs", force_network_fs, False),
                ignore_anchor=self._setting("ignore_anchor", ignore_anchor, False),
            )
        else:
            self._opened = open_in_memory(self._setting("memory_events", memory_events, 100_000))
        try:
            await self._populate(self._setting("resume", resume, None))
        except BaseException:
            await self._discard()
            raise
        return self

    async def _populate(self, resume: str | None) -> None:
        world = self._world = self._new_world(empty_log=self.log.head == 0)
        world.in_part, world.uncounted_until = self.log.head > 0, self.log.head
        if "workflow_engine" not in self.registry:
            self.registry.register("workflow_engine", WorkflowEngine(self))
        if resume == "latest":
            await self.resume()
        elif resume is not None:
            raise ConfigurationError(f"setup(resume=...) is 'latest' or left out, not {resume!r}")

    async def _discard(self) -> None:
        opened, self._opened, self._world = self._opened, None, None
        projections, self._projections = self._projections, None
        try:
            if projections is not None:
                await projections.close()
        finally:
            if opened is not None:
                await opened.close()

    def _setting(self, name: str, given: Any, default: Any) -> Any:
        return given if given is not None else self.config.get(name, default)

    def _check_same_directory(self, chosen: str | Path | None) -> None:
        if chosen is not None and _absolute(chosen) != self.state_dir:
            raise ConfigurationError(f"this Symphony is open on {self.state_dir or 'a log in memory'}: close() it, or make another one")

    def _new_world(self, *, restoring: bool = False, empty_log: bool = False) -> World:
        world = World(self.log, self.restore_manager, restoring=restoring, empty_log=empty_log)
        snapshotter = self._ready(self._opened).snapshotter
        if snapshotter is not None:
            world.outbox.on_submitted = snapshotter.weigh
        if self._checks:
            world.outbox.unchecked = {}
        return world

    async def close(self) -> None:
        """Stop what runs, flush, wait for the snapshot being written, and close the log; closing twice changes nothing.

        Raises:
            EntityOutOfStepError: changes of an entity could not be appended; the log is closed all the same.
        """
        if self._opened is None:
            return
        try:
            engine = self.registry.get("workflow_engine")
            if engine.active_runs:
                await engine.interrupt(engine.active_runs)
            engine.active.close()
            failures = self.world.foreign.record_others()
            self.world.sealed = "closing the Symphony"
            await self.world.flush()
            raise_first(failures)
        finally:
            self.world.close("its Symphony has been closed")
            await self._discard()

    async def __aenter__(self) -> Self:
        return await self.setup()

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    # -- what the layers below stand on -------------------------------------------------------------------------------

    def _ready(self, what: T | None) -> T:
        if what is None:
            raise NotReadyError("this Symphony is not open: await symphony.setup() first, or use `async with`")
        return what

    @property
    def state_dir(self) -> Path | None:
        """Where the log is; None in memory and while closed."""
        return self._opened.directory if self._opened is not None else None

    @property
    def log(self) -> EventLog:
        """The log."""
        return self._ready(self._opened).log

    @property
    def world(self) -> World:
        """The live objects."""
        return self._ready(self._world)

    @property
    def state_history(self) -> StateHistory:
        """Past states."""
        return self._ready(self._opened).history

    def _on_disk(self, operation: str) -> CheckpointManager:
        if not self.persistence_enabled:
            raise PersistenceDisabledError(operation)
        return self._ready(self._ready(self._opened).checkpoints)

    # -- changing and recording ---------------------------------------------------------------------------------------

    def transaction(
        self,
        name: str | None = None,
        *,
        data: Any = None,
        actor: str | None = None,
        reason: str | None = None,
        claim: Iterable[EntityLike] = (),
        **user: Any,
    ) -> TransactionBlock:
        """`async with symphony.transaction("InvoicePaid", actor="alice"):` names what happens in the block and appends it at once.

        When the block ends, all its events are appended together and are durable. An exception in it appends nothing and puts
        the objects back as they were, and so does a failure to append.

        Args:
            name: the events' name, in the past tense; each is named by its type when left out.
            data: what the first event says beyond its effect; plain data. `async with ... as t:` has, after the block, `t.position`, the
                position of its last event, and `t.versions`, the version of each entity by key.
            actor: who acts.
            reason: why.
            claim: entities to claim at the beginning, waiting for other transactions to release them.
            **user: further metadata of the application's own; plain data.

        Raises:
            EntityBusyError: at the beginning, when waiting for `claim` would close a circle; in the block, from a change of an
                entity that another transaction claims.
            ConcurrencyError, LogUnavailableError: at the end: nothing was appended, the objects are as they were before.
        """
        check_texts({"actor": actor, "reason": reason})
        return self.world.transaction(name, claim=claim, actor=actor, reason=reason, user=user or None, data=data)

    def acting_as(self, actor: str, *, reason: str | None = None, **user: Any) -> ActingAs:
        """`with symphony.acting_as("alice"):` names the actor of every change made in the block."""
        fields: dict[str, Any] = {"actor": actor, "user": user or None}
        return ActingAs(acting(**fields) if reason is None else acting(reason=reason, **fields))

    async def flush(self) -> None:
        """Wait until everything changed so far is durable, also in objects of foreign classes, which it compares.

        What it finds there is booked on whom `acting_as` names, else on nobody. An object that an open block or a running step was
        handed is left to that one.

        Raises:
            EntityOutOfStepError: changes of an entity could not be appended; the cause is chained.
            UnstorableValueError: an object of a foreign class holds what cannot be stored. Everything else is durable.
        """
        failures = self.world.foreign.record_others()
        await self.world.flush()
        raise_first(failures)

    async def refresh(self, entity: EntityLike) -> list[Change]:
        """Put an object that is out of step back to the log's state; returns the changes that are dropped.

        Raises:
            EntityNotFoundError: there is no such entity.
        """
        return await refresh(self.world, self.state_history, entity)

    # -- checkpoints --------------------------------------------------------------------------------------------------

    async def create_checkpoint(self, name: str | None = None, metadata: Mapping[str, Any] | None = None) -> str:
        """Name the present position of the log; returns the checkpoint's id. It is durable when this returns.

        Raises:
            PersistenceDisabledError: there is no log on disk.
            CheckpointError: inside a transaction.
            EntityOutOfStepError: changes of an entity could not be appended, so there is no such position.
            DamagedEventError: the first call after opening counts the entities of the events since the nearest snapshot; one is damaged.
        """
        return await self._on_disk("create_checkpoint").create(self.world, name, metadata, compare=True)

    async def take_checkpoint(self, name: str, metadata: Mapping[str, Any]) -> str:
        """The same for the engine: what a run's steps were handed has been compared, and other objects are none of its business."""
        return await self._on_disk("create_checkpoint").create(self.world, name, metadata)

    async def list_checkpoints(self) -> list[dict[str, Any]]:
        """All checkpoints, newest first: dicts with `id`, `name`, `created_at` (ISO 8601), `entity_count`, `position`, `metadata`."""
        return [entry.as_dict() for entry in await self._on_disk("list_checkpoints").entries()]

    async def delete_checkpoint(self, checkpoint: str) -> bool:
        """Remove a checkpoint, by id or name; the events stay. False when there is none."""
        return await self._on_disk("delete_checkpoint").delete(checkpoint)

    # -- resuming -----------------------------------------------------------------------------------------------------

    async def resume_from_checkpoint(
        self, checkpoint: str, *, replay_until: ReplayUntil = "checkpoint", stop_runs: bool = False, strict: bool = False
    ) -> str:
        """Go back: the state exactly as at a checkpoint. What happened since is undone by events, and stays on record.

        Args:
            checkpoint: its id, or its name (the newest of that name).
            replay_until: where to stop instead: "latest", a position, or a moment.
            stop_runs: interrupt runs that execute in this process; without it they refuse the call.
            strict: raise when a reference has no target.

        Returns:
            the checkpoint's id; `last_resume` is the report.

        Raises:
            CheckpointNotFoundError: there is none.
            RunsInProgressError: runs execute in this process.
            RestorationError: a restorer failed; the old world is in place and nothing was appended.
        """
        entry = await self._on_disk("resume_from_checkpoint").find(checkpoint)
        await self._resume(replay_until, entry, stop_runs=stop_runs, strict=strict)
        return entry.id

    async def resume_latest_checkpoint(
        self, *, replay_until: ReplayUntil = "latest", stop_runs: bool = False, strict: bool = False
    ) -> str | None:
        """Recover: the newest checkpoint, and every event after it, so that nothing acknowledged is lost.

        Returns:
            the checkpoint's id; None when there is none, and then nothing is restored (`resume()` needs no checkpoint).

        Raises:
            RunsInProgressError: runs execute in this process.
            RestorationError: a restorer failed; the old world is in place and nothing was appended.
        """
        entries = await self._on_disk("resume_latest_checkpoint").entries()
        if not entries:
            return None
        await self._resume(replay_until, entries[0], stop_runs=stop_runs, strict=strict)
        return entries[0].id

    async def resume(
        self,
        *,
        replay_until: ReplayUntil = "latest",
        stop_runs: bool = False,
        strict: bool = False,
        types: Iterable[str | type] | None = None,
    ) -> ResumeReport:
        """Bring every entity to the head of the log, or to another position; checkpoints are not needed for it.

        Entities of types whose names begin with one of `symphony_es.core.state.resting.AT_REST`, which adapters of other libraries
        use, stay in the log until `entities.load` asks for them.

        Args:
            replay_until: where to stop: "latest", a position, or a time.
            stop_runs: interrupt runs that execute in this process; without it they refuse the call.
            strict: raise when a reference has no target.
            types: classes or names of types: only their entities come to life, and what these refer to; the others stay in the log.

        Raises:
            UnknownTypeError: nothing has one of the types.
            RunsInProgressError: runs execute in this process.
            RestorationError: a restorer failed; the old world is in place and nothing was appended.
        """
        chosen = None if types is None else frozenset(map(self.names.type_of, _several(types)))
        return await self._resume(replay_until, None, stop_runs=stop_runs, strict=strict, types=chosen)

    async def _resume(
        self, until: ReplayUntil, entry: Any, *, stop_runs: bool, strict: bool, types: frozenset[str] | None = None
    ) -> ResumeReport:
        async with self._changing_world("a resume", restoring=self.world.restoring):
            engine = self.registry.get("workflow_engine")
            if engine.active_runs:
                if not stop_runs:
                    raise RunsInProgressError(engine.active_runs)
                await engine.interrupt(engine.active_runs)
            resumption = Resumption(self, self.state_history, self.shell, self._install)
            self.last_resume = await resumption.run(
                lambda: target_position(self.log, until, entry),
                checkpoint=entry,
                strict=strict,
                new_world=self.world_under_construction,
                types=types,
            )
        for callback in self._restore_callbacks:
            result = callback(self)
            if inspect.isawaitable(result):
                await result
        return self.last_resume

    async def load_entities(self, keys: Sequence[str], *, strict: bool) -> None:
        """Make entities live that wait in the log: for the facades; applications call `entities.load` or `entities.load_all`."""
        async with self._changing_world("a load", restoring=self.world.restoring):
            beside = self.world_under_construction()
            shell = self.shell(beside)
            self.last_load = await Loading(self.state_history, self.world, beside, shell).run(keys, strict=strict)
            shell._world = self.world  # an object that keeps it goes on with what is live

    def world_under_construction(self) -> World:
        """An empty world for restorers to fill: nothing done in it is appended."""
        return self._new_world(restoring=True)

    def shell(self, world: World) -> Symphony:
        """The Symphony that restorers see: the same services, facades that create into the world under construction."""
        shell = copy.copy(self)
        shell._world = world
        shell._attach_facades()
        shell.workflows.by_name = self.workflows.by_name
        return shell

    def _install(self, world: World) -> None:
        self._world = world

    def on_restore(self, callback: Callable[[Symphony], Awaitable[None] | None]) -> Callable[[Symphony], Awaitable[None] | None]:
        """Have a callback called after every resume, to reconnect clients and other resources; usable as a decorator."""
        self._restore_callbacks.append(callback)
        return callback

    # -- looking back -------------------------------------------------------------------------------------------------

    @property
    def past(self) -> TimeTravel:
        """Every question about the past of the log; the methods below are the most common ones."""
        past = self._ready(self._opened).past
        past.names = self.names
        return past

    @property
    def names(self) -> Names:
        """What arguments that name entities and types mean here."""
        return Names(self.log, self.restore_manager, lambda: self._world)

    @property
    def projections(self) -> ProjectionRunner:
        """Read models fed by the log's events: add your own, and `start()` it or have it `catch_up()`.

        On disk, the audit trail is among them.
        """
        if self._projections is None:
            from symphony_es_projections.runner import ProjectionRunner

            self._projections = ProjectionRunner(self.log, self.state_dir / "projections" if self.state_dir is not None else None)
            if self.persistence_enabled:
                self._projections.add(self._audit_trail)
        return self._projections

    @property
    def audit(self) -> Audit:
        """Who did what, to which entity, when and why: `await symphony.audit.find(actor="alice", since=...)`.

        The first question builds the audit trail, a durable projection with an index for each condition; later ones bring it up to date.
        An application that never asks pays nothing; one that asks often keeps it up to date with `projections.start()`. A log in memory
        needs none: the events that are kept are looked through.
        """
        from symphony_es.core.state.past.audit import Audit

        return Audit(self.log, self._audited, self.flush, self.names)

    @cached_property
    def _audit_trail(self) -> AuditTrail:
        from symphony_es_projections.audit_trail import AuditTrail

        return AuditTrail()

    async def _audited(self) -> tuple[AuditTrail, int] | None:
        if not self.persistence_enabled:
            return None  # a log in memory is bounded, and is looked through; it forgets what a trail would have to begin with
        head = self.log.head
        await self.projections.catch_up(self._audit_trail.name, head)
        return self._audit_trail, head

    async def at(self, moment: Moment) -> StateView:
        """All states as they were; nothing is changed. Costs the size of the state, however long the log.

        Args:
            moment: a position, a datetime, its ISO text (`"2026-11-27"`: the beginning of that day, in UTC), the id or name of a
                checkpoint, or `"latest"`.

        Raises:
            PositionNotFoundError: the log does not have that position.
            CheckpointNotFoundError: there is no such checkpoint.
            ConfigurationError: it means nothing, or is a datetime without a time zone.
            EntityOutOfStepError: changes of an entity could not be appended, so there is no latest state.
        """
        await self._settle(moment)
        return await self.past.at(moment, self._restore_past)

    async def _settle(self, moment: Moment) -> None:
        """What has been changed so far is part of the latest state."""
        if isinstance(moment, str) and moment == "latest":
            await self.world.flush()

    async def _restore_past(self, fold: Fold) -> PastObjects:
        world, report = self.world_under_construction(), ResumeReport(position=fold.position)
        await build_world(self.shell(world), world, fold, report, strict=False)
        world.restoring = False
        world.close(f"it is a look at position {fold.position}: the past is read-only")
        return PastObjects(world, report, self.names)

    async def diff(self, before: Moment, after: Moment = "latest", entity: EntityLike | None = None) -> StateDifference:
        """What is different between two moments: entities added, removed and changed, value by value, and the events that did it.

        Costs the size of the state twice, or with `entity`, that entity's own events. Errors are those of `at`, and
        `EntityNotFoundError` where there never was such an entity.
        """
        for moment in (before, after):
            await self._settle(moment)
        return await self.past.diff(before, after, entity)

    async def history(
        self,
        entity: EntityLike,
        path: str | Sequence[str | int] = (),
        *,
        after_version: int = 0,
        since: Moment | None = None,
        until: Moment = "latest",
        limit: int | None = None,
    ) -> list[EntityVersion]:
        """Every version of an entity, oldest first: its event, metadata, and each value it set with what was there before.

        Costs that entity's own events.

        Args:
            entity: an object, an `EntityReference` or `"Type:id"`.
            path: only versions that set the value there, as for `blame`, each with what it did there.
            after_version: only later versions, to go on where a page ended.
            since: only versions after a position or checkpoint, or from a time on.
            until: only versions up to a moment.
            limit: at most so many, 1 or more.

        Raises:
            EntityNotFoundError: there never was such an entity; UnknownTypeError where nothing has such a type.
            UnknownPathError: nothing has ever stood at the path; near misses are named.
            ConfigurationError: a limit below 1.
        """
        await self._settle(until)
        return await self.past.history(entity, _path(path), after_version=after_version, since=since, until=until, limit=limit)

    async def blame(
        self, entity: EntityLike, path: str | Sequence[str | int] = (), *, since: Moment | None = None, until: Moment = "latest"
    ) -> list[Blame]:
        """Which events set a value, the last one first. Costs that entity's own events.

        Where an upcast has renamed the field, what happened under its old name is part of the answer.

        Args:
            entity: an object, an `EntityReference` or `"Type:id"`.
            path: where the value stands in its state: `"lines[0].amount"`, or `("lines", 0, "amount")`; the whole entity when left out.
            since: only events after a position or checkpoint, or from a time on.
            until: only events up to a moment.

        Raises:
            EntityNotFoundError: there never was such an entity; UnknownTypeError where nothing has such a type.
            UnknownPathError: nothing has ever stood at the path; near misses are named.
            ConfigurationError: the text is no path.
        """
        await self._settle(until)
        return await self.past.blame(entity, _path(path), since=since, until=until)

    async def walk(
        self, entity: EntityLike, *, newest_first: bool = False, since: Moment | None = None, until: Moment = "latest"
    ) -> AsyncIterator[VersionState]:
        """`async for version in symphony.walk(entity):` every version of an entity with its whole state, in one pass.

        Costs that entity's own events once (newest first twice), and a copy of the state of each version that is taken.

        Args:
            entity: an object, an `EntityReference` or `"Type:id"`.
            newest_first: begin with the last one.
            since: only versions after a position or checkpoint, or from a time on.
            until: only versions up to a moment.

        Raises:
            EntityNotFoundError: there never was such an entity; UnknownTypeError where nothing has such a type.
        """
        await self._settle(until)
        async for version in self.past.walk(entity, newest_first=newest_first, since=since, until=until):
            yield version

    async def fork(self, *, into: str | Path, at: Moment = "latest", on_progress: Callable[[int, int], None] | None = None) -> ForkReport:
        """A new log that begins with the states at a moment, and names where they come from. This log does not change.

        Args:
            into: the new log's directory; it must not exist, or be empty.
            at: when.
            on_progress: called with how many entities are done, and how many there are.

        Raises:
            TargetOccupiedError: there is something in that directory.
            PositionInsideTransactionError: the position is in the middle of a transaction. Further errors are those of `at`.
        """
        await self._settle(at)
        return await self.past.fork(into, at, on_progress)

    async def rewind(self, to: Moment, *, stop_runs: bool = False, strict: bool = False) -> ResumeReport:
        """Go back: every entity as it was then. What happened since is undone by events named `Rewound`, and stays on record.

        Args:
            to: a position, a datetime, its ISO text, or the id or name of a checkpoint.
            stop_runs: interrupt runs that execute in this process; without it they refuse the call.
            strict: raise when a reference has no target.

        Raises:
            PositionInsideTransactionError: the position is in the middle of a transaction.
            RunsInProgressError: runs execute in this process.
            RestorationError: a restorer failed; the old world is in place and nothing was appended.
        """
        if isinstance(to, str) and to != "latest" and (read := read_moment(to)) is not None:
            to = read
        if isinstance(to, str) and to != "latest":
            return await self._resume("checkpoint", await self._on_disk("rewind").find(to), stop_runs=stop_runs, strict=strict)
        return await self._resume(to, None, stop_runs=stop_runs, strict=strict)

    # -- building -----------------------------------------------------------------------------------------------------

    def build_agent(self) -> AgentBuilder:
        """Return a fluent builder of an agent."""
        return self.agents.build()

    def build_task(self) -> TaskBuilder:
        """Return a fluent builder of a task."""
        return self.tasks.build()

    @overload
    def workflow(self, function: Callable[..., Coroutine[Any, Any, Any]], *, name: str | None = None, **options: Any) -> CodeWorkflow: ...
    @overload
    def workflow(
        self, function: None = None, *, name: str | None = None, replace: bool = False, **options: Any
    ) -> Callable[[Callable[..., Coroutine[Any, Any, Any]]], CodeWorkflow]: ...

    def workflow(
        self, function: Callable[..., Any] | None = None, *, name: str | None = None, replace: bool = False, **options: Any
    ) -> Any:
        """Decorator that makes an async function a code-first workflow: `@symphony.workflow`, or `@symphony.workflow(name="research")`.

        Args:
            function: the function; its parameters are the run's context.
            name: what runs find it by in another process; the function's name by default.
            replace: take the place of another function of that name. One that was defined anew, as in a notebook, does so by itself.
            **options: `retry`, `timeout_s`, `deadline_s`, `context` and `metadata` of the definition.

        Raises:
            ConfigurationError: it is no async function, or the name is taken.
        """
        if function is None:
            return lambda decorated: self._workflow(decorated, name, options, replace=replace)
        return self._workflow(function, name, options, replace=replace)

    def _workflow(self, function: Callable[..., Any], name: str | None, options: Mapping[str, Any], *, replace: bool) -> CodeWorkflow:
        made = CodeWorkflow(function, name, **options)
        self.flows.register(made.definition.name, made.function, replace=replace)
        self.workflows.by_name[made.definition.name] = made
        return made

    def build_workflow(self, name: str = "", description: str = "") -> WorkflowBuilder:
        """Return a fluent builder of a workflow definition; with a name it has been created."""
        return self.workflows.build(name, description)

    if not TYPE_CHECKING:  # a checker would take any misspelt name for one of them
        __getattr__ = pointing_out(
            {
                "checkpoint": "await symphony.create_checkpoint(name)",
                "checkpoints": "await symphony.list_checkpoints()",
                "undo": "await symphony.rewind(moment), which appends events that take everything back",
                "rollback": "async with symphony.transaction(name): an exception in it puts everything back",
                "commit": "await symphony.flush(), or the end of async with symphony.transaction(name)",
                "save": "await symphony.flush(), which waits until every change is durable",
                "add": "symphony.entities.add(obj)",
                "get": "symphony.entities.get(cls, id)",
                "query": "symphony.entities.all(cls), or await symphony.audit.find(...) for events",
                "run": "await symphony.workflows.execute_workflow(workflow, context)",
                "start": "await symphony.setup(), or await symphony.workflows.start(workflow, context)",
                "open": "await symphony.setup(), or async with Symphony(...) as symphony",
                "step": "await symphony_es.workflow.step(function, ...) inside of a function under @symphony.workflow",
            }
        )


def _path(given: str | Sequence[str | int]) -> str | tuple[str | int, ...]:
    return tuple(given) if isinstance(given, list) else given  # type: ignore[return-value]  # what else it is, the past refuses


def _several(types: Iterable[str | type] | str | type) -> Iterable[str | type]:
    return [types] if isinstance(types, str | type) else types


def _absolute(path: str | Path) -> Path:
    return Path(path).absolute()
