"""`Symphony`: the one object an application holds.

It owns a log, the live world of entities, and the services that work on them. Everything it does is done by the layers below;
this module opens and closes them in the right order and hands out their calls.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Self, TypeVar, overload

from symphony_es.attribution import ActingAs, acting, check_texts, user_data
from symphony_es.core.objects.restorers import RestoreManager, restore_manager
from symphony_es.core.objects.types import TypeTable
from symphony_es.core.past.checkpoint_pages import CheckpointFilter
from symphony_es.core.past.checkpoints import CheckpointManager, CheckpointReader
from symphony_es.core.past.moment_texts import Moment, is_head, read_moment
from symphony_es.core.past.names import Names
from symphony_es.core.past.opening import OpenedLog, open_in_memory, open_on_disk, open_to_read
from symphony_es.core.past.states import StateHistory
from symphony_es.core.report import ResumeReport
from symphony_es.core.resume.building import build_world
from symphony_es.core.resume.loading import Loading
from symphony_es.core.resume.one_at_a_time import OneAtATime
from symphony_es.core.world.blocks import TransactionBlock
from symphony_es.core.world.foreign import raise_first
from symphony_es.core.world.known_types import KnownTypes
from symphony_es.core.world.lifetime import Lifetime, counted, find_open, make_way
from symphony_es.core.world.world import EntityLike, World
from symphony_es.errors import (
    CloseTimeoutError,
    ConfigurationError,
    LogInUseError,
    NotReadyError,
    PersistenceDisabledError,
    ReadOnlyError,
    RunsInProgressError,
    SymphonyError,
)
from symphony_es.events.changes import Change
from symphony_es.events.fold import Fold
from symphony_es.facades.agents import Agents
from symphony_es.facades.composed import composed_state
from symphony_es.facades.entities import Entities
from symphony_es.facades.tasks import Tasks
from symphony_es.guesses import Guess, pointing_out
from symphony_es.log.log import EventLog
from symphony_es.registry import NamedCallables, ServiceRegistry
from symphony_es.shown import quoted, shown
from symphony_es.system import absolute
from symphony_es.threads import ThreadPool
from symphony_es.workflow.engine.watching import InboxWatch
from symphony_es_projections.checkpoints import CheckpointEntry

if TYPE_CHECKING:  # what many programs never ask for is imported where it is handed out
    from symphony_es.core.past.audit import Audit
    from symphony_es.core.past.differences import StateDifference
    from symphony_es.core.past.forking import ForkReport
    from symphony_es.core.past.lines import VersionLines
    from symphony_es.core.past.time_travel import TimeTravel
    from symphony_es.core.past.versions import Blame, EntityVersion
    from symphony_es.core.past.view import PastObjects, StateView
    from symphony_es.core.past.walking import VersionState
    from symphony_es.core.resume.following import Following
    from symphony_es.core.resume.resuming import ReplayUntil
    from symphony_es.core.world.portal import Portal
    from symphony_es.facades.requests import Requests
    from symphony_es.facades.runs import RunLike
    from symphony_es.facades.workflows import Workflows
    from symphony_es.workflow.code.workflow import CodeWorkflow
    from symphony_es.workflow.definitions.builder import WorkflowBuilder
    from symphony_es.workflow.definitions.retry import RetryPolicy
    from symphony_es.workflow.definitions.steps import Step
    from symphony_es.workflow.engine.engine import WorkflowEngine
    from symphony_es.workflow.engine.recovery import RecoverReport
    from symphony_es.workflow.record.redaction import ErrorDetails, Redaction
    from symphony_es.workflow.runs.listing import RunListing
    from symphony_es_projections.audit_trail import AuditTrail
    from symphony_es_projections.run_rows import RunRow
    from symphony_es_projections.runner import ProjectionRunner

__all__ = ["Symphony"]

DEFAULT_STATE_DIR = ".symphony"
READ_ONLY = "this Symphony is open for reading only"
CLOSE_TIMEOUT_S = 60.0
KNOWN_IDS_BYTES = 4 * 1024 * 1024
"""Up to this size, some milliseconds, the newest snapshot is asked at the first addition which ids are taken."""
LAST_WAIT_S = 0.1
"""What is left of the time for the log itself, where what comes before has used all of it up."""
ENGINE = "workflow_engine"
P = ParamSpec("P")
T = TypeVar("T")
Fn = TypeVar("Fn", bound=Callable[..., Any])

for _module, _class, _entities, _values in (
    ("symphony_es.workflow.runs.run", "Workflow", ["Workflow"], []),
    ("symphony_es.workflow.definitions.stored", "StoredDefinition", ["WorkflowDefinition"], []),
    ("symphony_es.workflow.runs.transitions", "WorkflowStatus", [], ["symphony.WorkflowStatus"]),
):
    restore_manager.declare_late(_module, entities=_entities, values=[*_values, f"{_module}:{_class}"])


class Symphony:
    """An event-sourced world of agents, tasks, memories, workflow runs and types of your own.

    ```python
    async with Symphony("directory") as symphony: ...
    ```

    Without persistence (`Symphony()`) the same calls work on a log in memory, and those that need a log on disk raise
    `PersistenceDisabledError`.

    Threads: objects may be changed in any thread, and a change outside an event loop is submitted with the next one in it, or by the next
    awaited call. Await its coroutines in one event loop at a time; other threads call them through `portal()`. After `fork()` the child
    gets `ForkedProcessError` from every call, and opens a Symphony of its own.

    Args:
        config: the directory of the log; or settings by name, those of `setup()`, which takes them from here when it is not given them.
        persistence_enabled: keep the log on disk: in the directory that is given, else in `.symphony` in the working directory. A directory
            given by itself, and `read_only`, imply it.
        state_dir: the directory of the log, by name.
        read_only: read a log that another process may be writing. Objects are as of the last `resume()` or `refresh()`; changing one raises
            `ReadOnlyError`.
        follow: with `read_only`: keep the objects at the head of the log, from `setup()` on.
        error_details, redact: what is put on record of errors; see `setup()`.

    Raises:
        ConfigurationError: the arguments contradict each other, or a setting is unknown.

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
        last_recover: the report of `setup(recover=True)`, or None.
    """

    _SETTINGS = (
        "state_dir",
        "memory_events",
        "force_network_fs",
        "allow_shared_directory",
        "ignore_anchor",
        "skip_damaged",
        "resume",
        "threads",
        "recover",
        "max_concurrent_runs",
        "error_details",
        "redact",
    )

    def __init__(
        self,
        config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        persistence_enabled: bool | None = None,
        *,
        state_dir: str | os.PathLike[str] | None = None,
        read_only: bool = False,
        follow: bool = False,
        error_details: ErrorDetails | None = None,
        redact: Callable[[str], str] | None = None,
    ) -> None:
        self.config, implied = self._settings(config, state_dir)
        said = {"error_details": error_details, "redact": redact}
        self.config |= {name: value for name, value in said.items() if value is not None}
        if (implied or read_only) and persistence_enabled is False:
            raise ConfigurationError("a log in memory has no directory and no other reader: leave out persistence_enabled=False")
        if follow and not read_only:
            raise ConfigurationError("follow=True is for read_only=True: objects that this Symphony changes are at the head of its log")
        self.persistence_enabled = bool(persistence_enabled) or implied or read_only
        self.read_only = read_only
        self._follows = follow
        self._following: Following | None = None
        self._inbox: InboxWatch | None = None
        self.registry = ServiceRegistry()
        self.models = NamedCallables("model client", "register one with symphony.models.register(name, async_callable)")
        self.functions = NamedCallables("function", "register it with symphony.functions.register(name, function)")
        self.flows = NamedCallables("workflow function", "decorate it with @symphony.workflow")
        self.tools = NamedCallables("tool", "register it with symphony.tools.register(name, function)")
        self.restore_manager = RestoreManager(parent=restore_manager, allowed=self.functions.allowed)
        self.types.learn_from(self.functions.callables)
        self.types.learn_from(self.flows.callables)
        self.last_resume: ResumeReport | None = None
        self.last_load: ResumeReport | None = None
        self.last_recover: RecoverReport | None = None
        self._opened: OpenedLog | None = None
        self._ending: EventLog | None = None  # is being closed, by a call that may have been cancelled
        self._lifetime: Lifetime | None = None
        self._checks = False  # the debugging switch: objects are compared with what was recorded at each flush
        self._world: World | None = None
        self._setting_up = OneAtATime()
        self._restore_callbacks: list[Callable[[Symphony], Any]] = []
        self._changing_world = OneAtATime()
        self._projections: ProjectionRunner | None = None
        self._flows_by_name: dict[str, CodeWorkflow] = {}
        self._names: Names | None = None
        self._run_listing: RunListing | None = None
        self._run_notes: dict[str, RunRow] = {}
        self._rules: Redaction | None = None
        self._attach_facades()

    @classmethod
    def _settings(cls, config: Any, state_dir: Any) -> tuple[dict[str, Any], bool]:
        """Return the settings by name, and whether a directory was given by itself."""
        if isinstance(config, str | bytes | os.PathLike):
            if state_dir is not None:
                raise ConfigurationError(f"two directories are given: {shown(config)} and state_dir={shown(state_dir)}")
            config, state_dir = None, config
        if config is not None and not isinstance(config, Mapping):
            raise ConfigurationError(f"Symphony is given a directory, or settings by name, not {shown(config)}")
        settings = dict(config or {})
        unknown = sorted(str(name) for name in set(settings) - set(cls._SETTINGS))
        if unknown:
            raise ConfigurationError(f"unknown settings in config: {', '.join(unknown)}; known are {', '.join(cls._SETTINGS)}")
        if state_dir is None:
            return settings, False
        if "state_dir" in settings and settings["state_dir"] != state_dir:
            raise ConfigurationError(
                f"two directories are given: {quoted(settings['state_dir'])} in config and state_dir={shown(state_dir)}"
            )
        _absolute(state_dir)
        return settings | {"state_dir": state_dir}, True

    @property
    def types(self) -> TypeTable:
        """The classes of stored values by name: `register(cls, name)`, `alias(old, new)`, `allow(module)`, `names()`."""
        return self.restore_manager.types

    def _attach_facades(self) -> None:
        self.agents = Agents(self)
        self.tasks = Tasks(self)
        self.entities = Entities(self)
        vars(self).pop("workflows", None)

    @cached_property
    def workflows(self) -> Workflows:
        """Definitions, runs and their execution."""
        from symphony_es.facades.workflows import Workflows  # late: a program without runs waits for nothing of it

        return Workflows(self, self._flows_by_name)

    # -- opening and closing ------------------------------------------------------------------------------------------

    async def setup(
        self,
        state_dir: str | Path | None = None,
        *,
        resume: Literal["latest"] | None = None,
        memory_events: int | None = None,
        force_network_fs: bool | None = None,
        allow_shared_directory: bool | None = None,
        ignore_anchor: bool | None = None,
        skip_damaged: bool | None = None,
        threads: int | None = None,
        recover: bool | None = None,
        max_concurrent_runs: int | None = None,
        error_details: ErrorDetails | None = None,
        redact: Callable[[str], str] | None = None,
    ) -> Self:
        """Open the log, creating what is missing; a log that has entities is opened, and nothing is restored yet.

        Args:
            state_dir: where the log lives; `.symphony` in the working directory by default.
            resume: `"latest"` brings all entities back at once, to the head of the log.
            memory_events: without persistence: how many events are kept, 100,000 by default; older ones become a base state.
            force_network_fs: open a log on a network file system, whose locks cannot be trusted.
            allow_shared_directory: open a log that other users could change: its directory or a file of it belongs to another user, can be
                written by others, or has a second name. Who can write a log can do what the application does.
            ignore_anchor: open a log that is shorter than its snapshots, or differs from them.
            skip_damaged: open a log of which events are damaged or missing: each marks its entity as damaged from that version on
                (`last_resume.damaged`), for all that this Symphony reads, and nobody else; where nobody can tell whose it was, the key is
                `symphony.Damaged:POSITION`. The file stays as it is. The whole log is read once.
            threads: how many plain functions of steps run at once, each in a thread; 64 by default.
            recover: go on with the runs that a crash left unfinished, as `workflows.recover(wait=False)` does, whose report is
                `last_recover` then; what they need is registered before. With `resume` or without.
            max_concurrent_runs: how many runs execute at once, without limit by default; see `workflows.max_concurrent_runs`.
            error_details, redact: what is put on record of errors of steps, tasks and hooks; those of `Redaction`, which the engine uses.

        Returns:
            this Symphony. Repeating the call with the same directory changes nothing.

        Raises:
            ConfigurationError: a directory without persistence, or another one than before; `recover` of what is open for reading.
            LogInUseError: another process writes this log.
            LogDamagedError, AnchorMismatchError: acknowledged events are missing or damaged; nothing was changed.
            LogUnavailableError: the directory cannot be written, is on a network file system, or others could change what is in it.
        """
        if self._lifetime is not None:
            self._lifetime.check()
        chosen = state_dir if state_dir is not None else self.config.get("state_dir")
        recovers = self._setting("recover", recover, False)
        rules = self._read_rules(self._setting("error_details", error_details, None), self._setting("redact", redact, None))
        self._checks = os.environ.get("SYMPHONY_CHECK") == "1"
        async with self._setting_up("setup", restoring=False):
            if self._opened is not None:
                self._check_same_directory(chosen)
                return self
            if self._ending is not None:
                await self._discard()
            if recovers and self.read_only:
                raise ConfigurationError("recover=True goes on with runs: open the Symphony for writing")
            if chosen is not None and not self.persistence_enabled:
                raise ConfigurationError("state_dir needs persistence: create the Symphony with persistence_enabled=True")
            opened = await self._open(chosen, memory_events, force_network_fs, allow_shared_directory, ignore_anchor, skip_damaged)
            self._opened, self._lifetime = opened, Lifetime(opened, self)
            self._rules = rules
            try:
                await self._populate(
                    self._setting("resume", resume, None),
                    self._setting("threads", threads, None),
                    self._setting("max_concurrent_runs", max_concurrent_runs, None),
                )
            except BaseException:
                await self._discard()
                raise
        self._watch_inbox()
        if recovers:
            self.last_recover = await self.workflows.recover(wait=False)
        return self

    def _watch_inbox(self) -> None:
        """Begin, soon, to carry out what other processes ask of the runs of this log."""
        if self.state_dir is not None and not self.read_only:
            self._inbox = InboxWatch(self, self.state_dir)
            engine = self._made_engine()
            if engine is not None:
                engine.on_recovered = self._look_again

    def _look_again(self) -> None:
        """Look at the requests that lie in the inbox: there is something now that they may be for."""
        if self._inbox is not None:
            self._inbox.look(all_again=True)

    def _made_engine(self) -> WorkflowEngine | None:
        """Return the engine, where anything has asked for it."""
        engine: WorkflowEngine | None = self.registry.made(ENGINE)
        return engine

    def _make_engine(self, threads: ThreadPool) -> WorkflowEngine:
        from symphony_es.workflow.engine.clock import SystemClock  # late: a program without runs waits for nothing of it
        from symphony_es.workflow.engine.engine import WorkflowEngine

        engine = WorkflowEngine(self, clock=SystemClock(self.log.last_time_ns), threads=threads)
        engine.on_recovered = self._look_again
        if self._rules is not None:
            engine.redaction = self._rules
        return engine

    @staticmethod
    def _read_rules(error_details: Any, redact: Any) -> Redaction | None:
        """Return the rules for what is put on record, where a setting says something of them."""
        if error_details is None and redact is None:
            return None
        from symphony_es.workflow.record.redaction import Redaction  # late: few programs say it

        return Redaction(error_details=error_details if error_details is not None else "traceback", redact=redact)

    def error_on_record(self, error: BaseException) -> str:
        """Return the class and message of an error as they are put on record, by the rules of the engine."""
        from symphony_es.workflow.runs.failures import error_on_record  # late: most programs have no error

        return error_on_record(error, self._rules_that_hold())

    def _message_on_record(self, text: str) -> str:
        from symphony_es.workflow.runs.failures import message_on_record

        return message_on_record(text, self._rules_that_hold())

    def _rules_that_hold(self) -> Redaction:
        from symphony_es.workflow.record.redaction import current_redaction

        engine = self._made_engine()
        return engine.redaction if engine is not None else self._rules or current_redaction.get()

    async def _open(
        self,
        chosen: str | Path | None,
        memory_events: int | None,
        force_network_fs: bool | None,
        allow_shared_directory: bool | None,
        ignore_anchor: bool | None,
        skip_damaged: bool | None,
    ) -> OpenedLog:
        if not self.persistence_enabled:
            return open_in_memory(self._setting("memory_events", memory_events, 100_000))
        directory = _absolute(chosen if chosen is not None else DEFAULT_STATE_DIR)
        skips = self._setting("skip_damaged", skip_damaged, False)
        shared = self._setting("allow_shared_directory", allow_shared_directory, False)
        if self.read_only:
            return await open_to_read(directory, skip_damaged=skips, allow_shared=shared)
        opening = partial(
            open_on_disk,
            directory,
            force_network_fs=self._setting("force_network_fs", force_network_fs, False),
            ignore_anchor=self._setting("ignore_anchor", ignore_anchor, False),
            skip_damaged=skips,
            allow_shared=shared,
        )
        try:
            return await opening()
        except LogInUseError as error:
            if error.process != os.getpid() or not await make_way(directory):
                raise
        return await opening()

    async def _populate(self, resume: str | None, threads: int | None, max_concurrent_runs: int | None) -> None:
        world = self._new_world(empty_log=self.log.head == 0)
        self._install(world)
        world.in_part, world.uncounted_until = self.log.head > 0, self.log.head
        engine = self._made_engine()
        if engine is not None:
            engine.active.stopped_for = None
            engine.redaction = self._rules or engine.redaction
        else:
            pool = ThreadPool() if threads is None else ThreadPool(threads)
            self.registry.register_late(ENGINE, partial(self._make_engine, pool))
        if max_concurrent_runs is not None:
            self.registry.get(ENGINE).max_concurrent_runs = max_concurrent_runs
        if resume is None and not self.read_only:
            world.earlier_ids = partial(self.state_history.live_ids, KNOWN_IDS_BYTES)
        if resume == "latest" or (resume is None and self._follows):
            await self.resume()
        elif resume is not None:
            raise ConfigurationError(f"setup(resume=...) is 'latest' or left out, not {shown(resume)}")
        if self._follows and self.last_resume is not None:
            from symphony_es.core.resume.following import Following

            self._following = Following(self, self.last_resume.position, self._rest_again, READ_ONLY)

    @property
    def following_failure(self) -> SymphonyError | None:
        """Why the objects of a `follow=True` do not go along with the log, for now or for good; None while they do.

        What may pass is tried again. Damage, or a log that is gone, is not: then `refresh`, `load` or `resume` sets it going again.
        """
        return None if self._following is None else self._following.failure

    def _rest_again(self, keys: Iterable[str]) -> None:
        self.registry.get(ENGINE).resting.rest_again(keys)

    async def _discard(self, timeout_s: float | None = None) -> None:
        opened, self._opened, self._world, self._names = self._opened, None, None, None
        if opened is not None:
            self._ending = opened.log
        projections, self._projections = self._projections, None
        following, self._following = self._following, None
        inbox, self._inbox = self._inbox, None
        run_listing, self._run_listing, self._run_notes = self._run_listing, None, {}
        if self._lifetime is not None:
            self._lifetime.over = True
        try:
            async with asyncio.timeout(timeout_s):
                if following is not None:
                    await following.stop()
                if inbox is not None:
                    await inbox.stop()
                if projections is not None:
                    await projections.close()
                if run_listing is not None:
                    await run_listing.close()
                if opened is not None:
                    await opened.settle()
        finally:
            await self._end(timeout_s)

    async def _end(self, timeout_s: float | None) -> None:
        """Close the log. Where the call is cancelled, the log's thread goes on, and the next call waits for it."""
        ending = self._ending
        if ending is None:
            return
        try:
            await ending.close(timeout_s)
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._ending = None
            raise
        self._ending = None

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
        world.outbox.checks = self._checks
        return world

    async def close(self, *, timeout_s: float | None = CLOSE_TIMEOUT_S) -> None:
        """Stop what runs, flush, wait for the snapshot being written, and close the log; closing twice changes nothing.

        Works in any event loop, also in a later one than that of `setup()`. Call it in one loop at a time.

        Args:
            timeout_s: how long to wait at most, in seconds, before it gives up; None waits for ever.

        Raises:
            EntityOutOfStepError: changes of an entity could not be appended; the log is closed all the same.
            UnrecordedChangeError: an object that was changed or handed out differs from what was recorded, since something has written
                past the methods of its list, dict or set (`heapq`); the log is closed all the same.
            CloseTimeoutError: it took longer; which changes are not known to be durable. The objects are detached; the thread that writes
                the log goes on with what was submitted and lets go of the directory when that is written.
            ForkedProcessError: a parent process opened it, which goes on with it.
            RunsInProgressError: called in a step, a hook or the code of a run, which cannot wait for its own end: nothing is closed.
        """
        if self._lifetime is not None:
            self._lifetime.check()
        opened, world, engine = self._opened, self._world, self._made_engine()
        if engine is not None:
            engine.active.refuse_own()
        if opened is None or world is None:
            if self._ending is not None:
                await self._discard(timeout_s)
            return
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        waiting = asyncio.timeout(timeout_s)
        try:
            try:
                async with waiting:
                    await self._wind_up(world)
            finally:
                world.close("its Symphony has been closed")
                await self._discard(None if ends is None else max(LAST_WAIT_S, ends - time.monotonic()))
        except (TimeoutError, CloseTimeoutError) as error:
            if not waiting.expired() and not isinstance(error, CloseTimeoutError):
                raise
            with world.lock:
                world.outbox.settle()
                undone = world.outbox.undone()
            what = f"not known to be durable: {counted(undone)}" if undone else "everything is durable; only the end is not known"
            raise CloseTimeoutError(f"close() has waited for {timeout_s:g} s; {what}", undone) from error

    async def pass_damage(self) -> None:
        """Have a snapshot made behind the damaged events that are passed over; an opening without the setting begins with it."""
        snapshotter = self._ready(self._opened).snapshotter
        if snapshotter is not None:
            await snapshotter.pass_damage()

    async def _wind_up(self, world: World) -> None:
        if self._inbox is not None:
            await self._inbox.stop()
        engine = self._made_engine()
        if engine is not None:
            await engine.stop_all("closing the Symphony", for_good=True)
            engine.active.close()
            await engine.resting.close()
        failures = world.foreign.record_others()
        world.sealed = "closing the Symphony"
        await world.flush()
        raise_first([*failures, *await world.compare_objects(everything=True)])

    async def __aenter__(self) -> Self:
        return await self.setup()

    async def __aexit__(self, *exception: object) -> None:
        if self._lifetime is None or self._lifetime.here:  # in a child process it is not this one's to close
            await self.close()

    def portal(self) -> Portal:
        """Make a way in for threads that have no event loop: `with symphony.portal() as portal: portal.call(symphony.flush)`.

        The block has an event loop in a thread of its own; `call` runs a coroutine function there and returns its result, from any thread.
        `portal.call(symphony.setup)` opens a Symphony that is not open, and `portal.call(symphony.close)` closes it; leaving the block
        closes nothing, and interrupts the runs that were begun in it.

        Raises:
            ForkedProcessError: a parent process opened this Symphony.
        """
        if self._lifetime is not None:
            self._lifetime.check()
        from symphony_es.core.world.portal import Portal

        return Portal()

    @classmethod
    def opened(cls, state_dir: str | Path = DEFAULT_STATE_DIR) -> Symphony:
        """Return the Symphony of this process that has a directory open for writing. Safe from every thread.

        Raises:
            NotReadyError: there is none.
        """
        found: Symphony = find_open(_absolute(state_dir))
        return found

    # -- what the layers below stand on -------------------------------------------------------------------------------

    def service(self, name: str) -> Any:
        """Return a service of this Symphony, once it is open.

        Raises:
            NotReadyError: `setup` has not been awaited yet. NotRegisteredError: there is none of this name.
        """
        self._ready(self._opened)
        return self.registry.get(name)

    def _ready(self, what: T | None) -> T:
        if self._lifetime is not None and self._lifetime.forked_from is not None:
            self._lifetime.check()
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

    def _checkpoints(self, operation: str) -> CheckpointReader:
        if self.read_only:
            return self._ready(self._ready(self._opened).checkpoint_list)
        return self._on_disk(operation)

    def _check_writable(self, operation: str, instead: str = "the process that writes it does") -> None:
        if self.read_only:
            raise ReadOnlyError(f"{operation} would write the log, and {READ_ONLY}: {instead}")

    def _on_disk(self, operation: str) -> CheckpointManager:
        if not self.persistence_enabled:
            raise PersistenceDisabledError(operation)
        self._check_writable(operation)
        return self._ready(self._ready(self._opened).checkpoints)

    # -- changing and recording ---------------------------------------------------------------------------------------

    def transaction(
        self,
        name: str | None = None,
        *,
        data: Any = None,
        actor: str | None = None,
        reason: str | None = None,
        claim: Iterable[EntityLike] | None = (),
        user: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> TransactionBlock:
        """Name what happens in a block and append it at once: `async with symphony.transaction("InvoicePaid", actor="alice"):`.

        When the block ends, all its events are appended together and are durable. An exception in it appends nothing and puts
        the objects back as they were, and so does a failure to append.

        Args:
            name: the events' name, in the past tense; each is named by its type when left out.
            data: what the first event says beyond its effect; plain data. `async with ... as t:` has, after the block, `t.position`, the
                position of its last event, and `t.versions`, the version of each entity by key.
            actor: who acts.
            reason: why.
            claim: entities to claim at the beginning, waiting for other transactions to release them.
            user: further metadata of the application's own, plain data, which the events have as `metadata.user`.
            **more: the same, as keywords; all but those that are written like one of this call's own.

        Raises:
            ConfigurationError: a keyword that this call does not have is written like one that it has.
            EntityBusyError: at the beginning, when waiting for `claim` would close a circle; in the block, from a change of an
                entity that another transaction claims.
            ConcurrencyError, LogUnavailableError: at the end: nothing was appended, the objects are as they were before.
        """
        self._check_writable("a transaction")
        check_texts({"actor": actor, "reason": reason})
        own = user_data("transaction", ("name", "data", "actor", "reason", "claim", "user"), user, more)
        return self.world.transaction(name, claim=claim, actor=actor, reason=reason, user=own, data=data)

    def acting_as(self, actor: str, *, reason: str | None = None, user: Mapping[str, Any] | None = None, **more: Any) -> ActingAs:
        """Name the actor of every change made in a block: `with symphony.acting_as("alice"):`.

        Args:
            actor: who acts.
            reason: why.
            user: further metadata of the application's own, plain data, which the events have as `metadata.user`.
            **more: the same, as keywords; all but those that are written like one of this call's own.

        Raises:
            ConfigurationError: a keyword that this call does not have is written like one that it has.
        """
        fields: dict[str, Any] = {"actor": actor, "user": user_data("acting_as", ("actor", "reason", "user"), user, more)}
        return ActingAs(acting(**fields) if reason is None else acting(reason=reason, **fields))

    async def flush(self) -> None:
        """Wait until everything changed so far is durable, also in objects of foreign classes, which it compares.

        What it finds there is booked on whom `acting_as` names, else on nobody. An object that an open block or a running step was
        handed is left to that one.

        Raises:
            EntityOutOfStepError: changes of an entity could not be appended; the cause is chained.
            UnstorableValueError: an object of a foreign class holds what cannot be stored. Everything else is durable.
        """
        if self.read_only:
            self._ready(self._opened)
            return  # nothing can have been changed
        world = self.world
        failures = world.foreign.record_others()
        await world.flush()
        raise_first(failures)

    async def refresh(self, entity: EntityLike) -> list[Change]:
        """Put an object that is out of step back to the log's state; return the changes that are dropped.

        With `read_only`, bring an object to the head of the log as it is now; where it follows the log, with all others.

        Raises:
            EntityNotFoundError: there is no such entity.
        """
        from symphony_es.core.resume.refreshing import refresh

        if not self.read_only:
            return await refresh(self.world, self.state_history, entity)
        try:
            if self._following is None:
                await self.log.refresh_head()
                return await refresh(self.world, self.state_history, entity)
            async with self.while_nothing_loads("a refresh"):
                await self._following.advance()
                return await refresh(self.world, self.state_history, entity, self._following.position)
        finally:
            self.world.close(READ_ONLY)

    # -- checkpoints --------------------------------------------------------------------------------------------------

    async def create_checkpoint(self, name: str | None = None, metadata: Mapping[str, Any] | None = None) -> str:
        """Name the present position of the log; return the checkpoint's id. It is durable when this returns.

        Raises:
            PersistenceDisabledError: there is no log on disk.
            CheckpointError: inside a transaction.
            EntityOutOfStepError: changes of an entity could not be appended, so there is no such position.
            DamagedEventError: the first call after opening counts the entities of the events since the nearest snapshot; one is damaged.
        """
        return await self._on_disk("create_checkpoint").create(self.world, name, metadata, compare=True)

    async def take_checkpoint(self, name: str, metadata: Mapping[str, Any]) -> str:
        """Name the present position for the engine.

        A run's steps' objects have been compared, and other objects are none of its business.
        """
        return await self._on_disk("create_checkpoint").create(self.world, name, metadata)

    async def list_checkpoints(
        self, *, limit: int | None = None, before: Moment | None = None, run: RunLike | None = None, name: str | None = None
    ) -> list[dict[str, Any]]:
        """Return all checkpoints, newest first: dicts with `id`, `name`, `created_at` (ISO 8601), `entity_count`, `position`, `metadata`.

        Args:
            limit: at most so many; None for all. `before=page[-1]["id"]` gives the next page, also where that one is deleted meanwhile.
            before: a moment, as for `at`: only older ones than this checkpoint (its id, or the newest of its name); those made before
                this time; or those that name a position below this one.
            run: only those of a run: what a policy has taken, and those whose metadata have its id as `run_id`.
            name: only those of this name.

        Raises:
            ConfigurationError: a limit below 1, or a filter that means nothing.
            CheckpointNotFoundError: `before` names no checkpoint.
        """
        wanted = CheckpointFilter(limit=limit, before=before, run_id=None if run is None else _id_of_run(run), name=name)
        return [entry.as_dict() for entry in await self._checkpoints("list_checkpoints").entries(wanted)]

    async def delete_checkpoint(self, checkpoint: str) -> bool:
        """Remove a checkpoint, by id or name (`id:` and `name:` say which); the events stay. False when there is none.

        Raises:
            AmbiguousMomentError: one has this id, and another one this name.
            ConfigurationError: what is given is a position or a time.
        """
        return await self._on_disk("delete_checkpoint").delete(checkpoint)

    # -- resuming -----------------------------------------------------------------------------------------------------

    async def resume_from_checkpoint(
        self, checkpoint: str, *, replay_until: ReplayUntil = "checkpoint", stop_runs: bool = False, strict: bool = False
    ) -> str:
        """Go back: the state exactly as at a checkpoint. What happened since is undone by events, and stays on record.

        Args:
            checkpoint: its id, or its name (the newest of that name); `id:` and `name:` say which.
            replay_until: where to stop instead: a moment, as for `at`.
            stop_runs: interrupt runs that execute in this process; without it they refuse the call. Where nothing comes of it, they go on.
            strict: raise when an object cannot be made, or a reference has no target.

        Returns:
            the checkpoint's id; `last_resume` is the report.

        Raises:
            CheckpointNotFoundError: there is none.
            RunsInProgressError: runs execute in this process.
            RestorationError: `strict`, and an object could not be made; the old world is in place and nothing was appended.
        """
        entry = await self._on_disk("resume_from_checkpoint").find(checkpoint)
        await self._resume(replay_until, entry, stop_runs=stop_runs, strict=strict)
        return entry.id

    async def resume_latest_checkpoint(
        self, *, replay_until: ReplayUntil | None = None, stop_runs: bool = False, strict: bool = False
    ) -> str | None:
        """Recover: the newest checkpoint, and every event after it, so that nothing acknowledged is lost.

        Returns:
            the checkpoint's id; None when there is none, and then nothing is restored (`resume()` needs no checkpoint).

        Raises:
            RunsInProgressError: runs execute in this process.
            RestorationError: `strict`, and an object could not be made; the old world is in place and nothing was appended.
        """
        entries = await self._checkpoints("resume_latest_checkpoint").entries(CheckpointFilter(limit=1))
        if not entries:
            return None
        await self._resume(replay_until, entries[0], stop_runs=stop_runs, strict=strict)
        return entries[0].id

    async def resume(
        self,
        *,
        replay_until: ReplayUntil | None = None,
        stop_runs: bool = False,
        strict: bool = False,
        types: Iterable[str | type] | None = None,
    ) -> ResumeReport:
        """Bring every entity to the head of the log, or to another position; checkpoints are not needed for it.

        Runs that have ended stay in the log with their tasks and child runs, and so do entities of types whose names begin with one of
        `symphony_es.core.past.resting.AT_REST`, which adapters of other libraries use, until they are asked for: by `entities.load`, or
        by a call of `workflows` that takes a run's id. What a living entity refers to comes to life with it.

        Args:
            replay_until: where to stop: a moment, as for `at`; at the head when left out.
            stop_runs: interrupt runs that execute in this process; without it they refuse the call. Where nothing comes of it, they go on.
            strict: raise when an object cannot be made, or a reference has no target.
            types: classes or names of types: only their entities come to life, and what these refer to; the others stay in the log.

        Raises:
            UnknownTypeError: nothing has one of the types.
            RunsInProgressError: runs execute in this process.
            RestorationError: `strict`, and an object could not be made; the old world is in place and nothing was appended.
        """
        chosen = None if types is None else frozenset(map(self.names.type_of, _several(types)))
        return await self._resume(replay_until, None, stop_runs=stop_runs, strict=strict, types=chosen)

    async def _resume(
        self, until: ReplayUntil | None, entry: Any, *, stop_runs: bool, strict: bool, types: frozenset[str] | None = None
    ) -> ResumeReport:
        from symphony_es.core.resume.resuming import Resumption, target_position  # late: a new log has nothing to restore
        from symphony_es.core.world.transaction import wait_for_commits

        async with self._changing_world("a resume", restoring=self.world.restoring):
            old, engine = self.world, self._made_engine()
            await wait_for_commits(old)  # a run may begin with one
            executing = [] if engine is None else engine.active.all()
            try:
                if engine is not None and executing:
                    engine.active.refuse_own()
                    if not stop_runs:
                        raise RunsInProgressError(engine.active_runs)
                    await engine.stop_all("a resume")
                    await wait_for_commits(old)  # of steps that were stopped meanwhile
                await self.log.refresh_head()
                resumption = Resumption(self, self.state_history, self.shell, self._install)
                self.last_resume = await resumption.run(
                    lambda: target_position(self._ready(self._opened), until, entry),
                    checkpoint=entry,
                    strict=strict,
                    new_world=self.world_under_construction,
                    types=types,
                )
            except BaseException:
                if engine is not None and self._world is old:
                    engine.go_on_with(executing)
                raise
            if self._following is not None:
                self._following.go_on_from(self.last_resume.position)
        for callback in self._restore_callbacks:
            result = callback(self)
            if inspect.isawaitable(result):
                await result
        self._look_again()
        return self.last_resume

    async def load_entities(self, keys: Sequence[str], *, strict: bool, keep_failed: bool = False) -> None:
        """Make entities live that wait in the log: for the facades; applications call `entities.load` or `entities.load_all`."""
        async with self._changing_world("a load", restoring=self.world.restoring):
            following, at = self._following, None
            if following is None:
                await self.log.refresh_head()
            else:  # what is loaded is as of the position of all others, which is the head as it is now, or a later one
                await following.advance()
                at = following.position
            loading, taken_in = self.new_load(keep_failed=keep_failed, position=at)
            self.last_load = await loading.run(keys, strict=strict)
            taken_in()
            if self.read_only:
                self.world.close(READ_ONLY)

    def new_load(self, *, keep_failed: bool, position: int | None) -> tuple[Loading, Callable[[], None]]:
        """Return a load of some entities, and what is to be called when they are live: who keeps the shell goes on with what is live."""
        beside = self.world_under_construction()
        shell = self.shell(beside)
        loading = Loading(self.state_history, self.world, beside, shell, keep_failed=keep_failed, position=position)
        return loading, partial(setattr, shell, "_world", self.world)

    def while_nothing_loads(self, what: str) -> AbstractAsyncContextManager[None]:
        """Return a block while which no resume and no load makes entities live: for what takes entities out of the log's present."""
        return self._changing_world(what, restoring=self.world.restoring)

    def world_under_construction(self) -> World:
        """Return an empty world for restorers to fill: nothing done in it is appended."""
        return self._new_world(restoring=True)

    def shell(self, world: World) -> Symphony:
        """Return the Symphony that restorers see: the same services, facades that create into the world under construction."""
        shell = copy.copy(self)
        shell._world, shell._names = world, None
        shell._attach_facades()
        return shell

    def _install(self, world: World) -> None:
        self._world = world
        self.log.bound_versions(world.least_version)
        if self.read_only:
            world.read_only = True
            world.close(READ_ONLY)
        if self._lifetime is not None:
            self._lifetime.world = world

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
        past.composed = composed_state
        return past

    @property
    def run_notes(self) -> dict[str, RunRow]:
        """The rows of runs that have ended here, by key, which the list of runs has not taken in yet."""
        return self._run_notes

    @property
    def run_listing(self) -> RunListing:
        """The list of runs that `workflows.list_runs` asks."""
        opened = self._ready(self._opened)
        if self._run_listing is None:
            from symphony_es.workflow.runs.listing import RunListing

            directory = None if opened.directory is None else opened.directory / "projections"
            self._run_listing = RunListing(
                opened.log,
                opened.history,
                directory,
                writes=directory is not None and not self.read_only,
                notes=self._run_notes,
                world=lambda: self._world,
                load=self.workflows.get_run,
            )
        return self._run_listing

    @property
    def names(self) -> Names:
        """What arguments that name entities and types mean here."""
        log = self.log
        if self._names is None:
            self._names = Names(log, KnownTypes(self.restore_manager, lambda: self._world))
        return self._names

    @property
    def projections(self) -> ProjectionRunner:
        """Read models fed by the log's events: add your own, and `start()` it or have it `catch_up()`.

        On disk, the audit trail is among them.
        """
        self._ready(self._opened)
        if self._projections is None or self._projections.closed:  # who leaves `async with` of it has closed his own
            from symphony_es_projections.runner import ProjectionRunner

            writes = self.state_dir is not None and not self.read_only
            directory = self.state_dir / "projections" if writes and self.state_dir else None
            self._projections = ProjectionRunner(self.log, directory, redact=self._message_on_record)
            if self.persistence_enabled and not self.read_only:
                self._projections.gives_way = True
                self._projections.add(self._audit_trail)
        return self._projections

    @property
    def audit(self) -> Audit:
        """Who did what, to which entity, when and why: `await symphony.audit.find(actor="alice", since=...)`.

        The first question builds the audit trail, a durable projection with an index for each condition; later ones bring it up to date.
        An application that never asks pays nothing; one that asks often keeps it up to date with `projections.start()`. A log in memory
        needs none: the events that are kept are looked through.
        """
        from symphony_es.core.past.audit import Audit

        if self.read_only and self.state_dir is not None:  # as far as the writing process has built it; the rest is looked through
            return Audit(self.log, self._ready(self._opened).audit_trail, self.flush, self.names)
        return Audit(self.log, self._audited, self.flush, self.names)

    @cached_property
    def _audit_trail(self) -> AuditTrail:
        from symphony_es_projections.audit_trail import AuditTrail

        return AuditTrail()

    async def _audited(self) -> tuple[AuditTrail, int] | None:
        if not self.persistence_enabled:
            return None  # a log in memory is bounded, and is looked through; it forgets what a trail would have to begin with
        head = self.log.head
        from symphony_es_projections.audit_trail import AuditTrail
        from symphony_es_projections.runner import RUNNERS
        from symphony_es_projections.sharing import current_trail

        trail = await current_trail(lambda: self.projections, RUNNERS, AuditTrail, head)
        return (trail, head) if trail is not None else None

    @property
    def requests(self) -> Requests:
        """What a Symphony that is open for reading asks of the process that writes: `await reader.requests.cancel(run_id)`.

        Raises:
            ConfigurationError: it writes the log itself: `workflows` has these calls.
        """
        from symphony_es.facades.requests import requests_of

        return requests_of(self.log, self.state_dir, read_only=self.read_only)

    async def at(self, moment: Moment) -> StateView:
        """Return all states as they were; nothing is changed. Costs the size of the state, however long the log.

        Args:
            moment: a position, a datetime, or a text: `"#42"` a position, `"@2026-11-27"` and `"@2h"` times (the beginning of that day, in
                UTC; two hours ago), `"id:…"` and `"name:…"` checkpoints, `"latest"` the head. Without a prefix, digits, dates and ages
                mean the same, and any other text the id or name of a checkpoint.

        Raises:
            PositionNotFoundError: the log does not have that position.
            CheckpointNotFoundError: there is no such checkpoint.
            AmbiguousMomentError: a text without a prefix means two things in this log.
            ConfigurationError: it means nothing, or is a datetime without a time zone.
            EntityOutOfStepError: changes of an entity could not be appended, so there is no latest state.
        """
        read_moment(moment)  # what means nothing is refused before anything is flushed
        await self._settle(moment)
        return await self.past.at(moment, self._restore_past)

    async def _settle(self, moment: Moment | None) -> None:
        """Make what has been changed so far part of the latest state."""
        if is_head(moment):
            await self.world.flush()

    async def _restore_past(self, fold: Fold) -> PastObjects:
        world, report = self.world_under_construction(), ResumeReport(position=fold.position)
        await build_world(self.shell(world), world, fold, report, strict=False)
        world.restoring = False
        world.close(f"it is a look at position {fold.position}: the past is read-only")
        from symphony_es.core.past.view import PastObjects

        return PastObjects(world, report, self.names)

    async def diff(self, before: Moment, after: Moment | None = None, entity: EntityLike | None = None) -> StateDifference:
        """Return what is different between two moments: entities added, removed and changed, value by value, and the events that did it.

        Costs the size of the state twice, or with `entity`, that entity's own events. Errors are those of `at`, and
        `EntityNotFoundError` where there never was such an entity.
        """
        read_moment(before)
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
        until: Moment | None = None,
        limit: int | None = None,
    ) -> VersionLines[EntityVersion]:
        """Return every version of an entity, oldest first: its event, metadata, and each value it set with what was there before.

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
        self, entity: EntityLike, path: str | Sequence[str | int] = (), *, since: Moment | None = None, until: Moment | None = None
    ) -> VersionLines[Blame]:
        """Tell which events set a value, the last one first, each with what it found and left. Costs that entity's own events.

        Where an upcast has renamed the field, what happened under its old name is part of the answer. Where an upcast or a default gives a
        value that no event has set yet, the list's `unrecorded` says which, and printing the list does.

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
        self, entity: EntityLike, *, newest_first: bool = False, since: Moment | None = None, until: Moment | None = None
    ) -> AsyncIterator[VersionState]:
        """Yield every version of an entity with its whole state, in one pass: `async for version in symphony.walk(entity):`.

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

    async def fork(
        self, *, into: str | Path, at: Moment | None = None, on_progress: Callable[[int, int], None] | None = None
    ) -> ForkReport:
        """Return a new log that begins with the states at a moment, and names where they come from. This log does not change.

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
            to: a moment, as for `at`.
            stop_runs: interrupt runs that execute in this process; without it they refuse the call. Where nothing comes of it, they go on.
            strict: raise when an object cannot be made, or a reference has no target.

        Raises:
            PositionInsideTransactionError: the position is in the middle of a transaction.
            RunsInProgressError: runs execute in this process.
            RestorationError: `strict`, and an object could not be made; the old world is in place and nothing was appended.
        """
        self._check_writable("rewind", "at() looks at the past, and resume(replay_until=...) has objects as they were")
        meant = await self.past.resolve(to)
        if isinstance(meant, CheckpointEntry):
            return await self._resume("checkpoint", meant, stop_runs=stop_runs, strict=strict)
        return await self._resume(to, None, stop_runs=stop_runs, strict=strict)

    # -- building -----------------------------------------------------------------------------------------------------

    @overload
    def function(self, function: Fn, *, name: str | None = None, replace: bool = False) -> Fn: ...
    @overload
    def function(self, function: None = None, *, name: str | None = None, replace: bool = False) -> Callable[[Fn], Fn]: ...

    def function(self, function: Any = None, *, name: str | None = None, replace: bool = False) -> Any:
        """Register a function for definitions, as a decorator: `@symphony.function`, or `@symphony.function(name="pay")`.

        Args:
            function: the function, which stays as it is.
            name: what definitions call it by; the function's name by default. It is found by its `module:qualname` as well.
            replace: take the place of another function of that name. One that was defined anew, as in a notebook, does so by itself.

        Raises:
            ConfigurationError: the name is taken, or what is decorated is no function; nothing has been changed.
        """

        def register(decorated: Any) -> Any:
            if name is None:
                return self.functions.register(decorated, replace=replace)
            return self.functions.register(name, decorated, replace=replace)

        return register if function is None else register(function)

    @overload
    def workflow(
        self,
        function: Callable[P, Coroutine[Any, Any, T]],
        *,
        name: str | None = None,
        replace: bool = False,
        retry: RetryPolicy | Mapping[str, Any] | int | None = None,
        timeout_s: float | None = None,
        deadline_s: float | None = None,
        context: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        cleanup: Sequence[Step | Mapping[str, Any]] = (),
        cleanup_on: Sequence[str] | str = (),
        record_inputs: bool | None = None,
    ) -> CodeWorkflow[P, T]: ...
    @overload
    def workflow(
        self,
        function: None = None,
        *,
        name: str | None = None,
        replace: bool = False,
        retry: RetryPolicy | Mapping[str, Any] | int | None = None,
        timeout_s: float | None = None,
        deadline_s: float | None = None,
        context: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        cleanup: Sequence[Step | Mapping[str, Any]] = (),
        cleanup_on: Sequence[str] | str = (),
        record_inputs: bool | None = None,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], CodeWorkflow[P, T]]: ...

    def workflow(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        replace: bool = False,
        retry: RetryPolicy | Mapping[str, Any] | int | None = None,
        timeout_s: float | None = None,
        deadline_s: float | None = None,
        context: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        cleanup: Sequence[Step | Mapping[str, Any]] = (),
        cleanup_on: Sequence[str] | str = (),
        record_inputs: bool | None = None,
    ) -> Any:
        """Make an async function a code-first workflow, as a decorator: `@symphony.workflow`, or `@symphony.workflow(name="research")`.

        Args:
            function: the function; its parameters are the run's context.
            name: what runs find it by in another process; the function's name by default.
            replace: take the place of another function of that name. One that was defined anew, as in a notebook, does so by itself.
            retry: the policy of steps that have none of their own: a policy, its dict, or a number of attempts.
            timeout_s: how long an attempt at a step may take.
            deadline_s: after how many seconds a run fails by itself.
            context: values for each run's context.
            metadata: the application's own; plain data.
            cleanup: steps that run when a run is cancelled.
            cleanup_on: when else they run, and steps are undone: `failure`, `deadline`.
            record_inputs: keep what steps are given on record; the engine's choice when left out.

        Raises:
            ConfigurationError: it is no async function, or the name is taken.
        """
        given: dict[str, Any] = {"retry": retry, "timeout_s": timeout_s, "deadline_s": deadline_s, "context": context, "metadata": metadata}
        given |= {"cleanup": cleanup or None, "cleanup_on": cleanup_on or None, "record_inputs": record_inputs}
        options = {key: value for key, value in given.items() if value is not None}
        if function is None:
            return lambda decorated: self._workflow(decorated, name, options, replace=replace)
        return self._workflow(function, name, options, replace=replace)

    def _workflow(self, function: Callable[..., Any], name: str | None, options: Mapping[str, Any], *, replace: bool) -> CodeWorkflow:
        from symphony_es.workflow.code.workflow import CodeWorkflow  # late: a program without runs waits for nothing of it

        made = CodeWorkflow(function, name, **options)
        self.flows.register(made.definition.name, made.function, replace=replace)
        self._flows_by_name[made.definition.name] = made
        return made

    def build_workflow(self, name: str = "", description: str = "") -> WorkflowBuilder:
        """Return a fluent builder of a workflow definition; with a name it has been created."""
        return self.workflows.build(name, description)

    if not TYPE_CHECKING:  # a checker would take any misspelt name for one of them
        open = Guess("async with Symphony(state_dir) as symphony, or Symphony(state_dir) and await symphony.setup()")
        __enter__ = Guess("async with Symphony(...) as symphony; without an event loop, with symphony.portal() as portal")
        __exit__ = Guess("async with Symphony(...) as symphony; without an event loop, with symphony.portal() as portal")
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
                "execute": "await symphony.workflows.execute_workflow(workflow, context)",
                "stop": "await symphony.close(), or await symphony.workflows.drain() before it",
                "shutdown": "await symphony.close(), or await symphony.workflows.drain() before it",
                "connect": "async with Symphony(state_dir) as symphony, or await symphony.setup() of this one",
                "export": "await symphony_es.transfer.export_jsonl(symphony.log, target), or symphony-es export",
                "events": "await symphony.history(entity), await symphony.audit.find(...), or symphony.log.follow() for those to come",
                "load": "await symphony.entities.load(cls, id), or await symphony.resume() for all that there is",
                "restore": "await symphony.resume_from_checkpoint(checkpoint), or await symphony.rewind(moment)",
                "head": "symphony.log.head",
                "snapshot": "await symphony.create_checkpoint(name); snapshots are made by themselves",
                "open": "async with Symphony(state_dir) as symphony, or await symphony.setup() of this one",
                "build_agent": "await symphony.agents.create_agent({'name': ..., 'role': ...})",
                "build_task": "await symphony.tasks.create_task(name, description)",
                "step": "await symphony_es.workflow.step(function, ...) inside of a function under @symphony.workflow",
            }
        )


def _id_of_run(run: RunLike) -> str:
    from symphony_es.facades.runs import id_of_run  # late: a program without runs waits for nothing of it

    return id_of_run(run)


def _path(given: str | Sequence[str | int]) -> str | tuple[str | int, ...]:
    return tuple(given) if isinstance(given, list) else given  # type: ignore[return-value]  # what else it is, the past refuses


def _several(types: Iterable[str | type] | str | type) -> Iterable[str | type]:
    return types if isinstance(types, Iterable) and not isinstance(types, str | type) else [types]


def _absolute(path: object) -> Path:
    return absolute(path, "state_dir")
