"""Live objects that are read only: they follow the log that another process writes, together, from the end of one commit to a later one's.

What has changed up to there is read, and what needs a restorer is made, beside the live objects, which stand still meanwhile. Then all of
it is put in place at once, with nothing awaited in between: whoever looks sees every object at one position, and each transaction whole or
not at all. An object keeps its identity; a new entity becomes live, a removed one leaves.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from contextvars import copy_context
from dataclasses import field
from typing import TYPE_CHECKING, Any, Protocol

from symphony_es.core.objects.connect import UnhashableTargetError, connect
from symphony_es.core.objects.making import Passed
from symphony_es.core.objects.restorers import UnrestoredEntity
from symphony_es.core.past.states import is_system
from symphony_es.core.report import ResumeReport
from symphony_es.core.resume.building import note_difference
from symphony_es.core.resume.refreshing import put
from symphony_es.core.resume.repair import holders_of, refusal_of
from symphony_es.core.world.live_entity import EntityRecord
from symphony_es.core.world.waking import call_hooks, watched
from symphony_es.diagnostics import error_text, get_logger
from symphony_es.errors import (
    EntityBusyError,
    LogFormatError,
    LogUnavailableError,
    NotReadyError,
    RestorationError,
    StorageUnavailableError,
    SymphonyError,
    UnknownValueError,
)
from symphony_es.failures import has_failed
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from symphony_es.core.past.states import StateHistory
    from symphony_es.core.resume.loading import Loading
    from symphony_es.core.world.constants import Constant
    from symphony_es.core.world.world import World
    from symphony_es.events.fold import EntityState
    from symphony_es.events.references import Path
    from symphony_es.log.log import EventLog

    Held = tuple[EntityRecord, Path, EntityRecord]

__all__ = ["Following"]

logger = get_logger(__name__)

POLL_S = 0.1
"""How often, in seconds, the log is asked whether there is more."""

FIRST_PAUSE_S = 0.1
"""How long, in seconds, it waits after an error that may pass; after each further one twice as long."""

LONGEST_PAUSE_S = 5.0
"""The longest such pause, in seconds."""

WARN_EACH_S = 60.0
"""How often, in seconds, a log line says that it does not go on."""

EVENTS_AT_ONCE = 500
"""After so many events, a turn ends with the transaction at hand: putting it in place holds up the event loop."""

_NO_THREAD = "can't start new thread"
"""What a `RuntimeError` of Python says where the system gives no thread."""


class Reading(Protocol):
    """The part of a Symphony that following needs."""

    @property
    def world(self) -> World:
        """The live objects."""
        ...

    @property
    def log(self) -> EventLog:
        """The log."""
        ...

    @property
    def state_history(self) -> StateHistory:
        """Past states."""
        ...

    def while_nothing_loads(self, what: str) -> AbstractAsyncContextManager[None]:
        """Return a block while which nothing else makes entities live."""
        ...

    def new_load(self, *, keep_failed: bool, position: int | None) -> tuple[Loading, Callable[[], None]]:
        """Return a load of some entities, and what is to be called once they are live."""
        ...


@dataclass(slots=True)
class _Turn:
    """What is put in place at once.

    Attributes:
        states: of all that has changed, by key; of what is not there any more, a tombstone.
        made: keys of the entities that have been made beside the live ones.
        loading: where these are. taken_in: called when they are live.
        constants: what runs name.
        held: where live objects hold what is replaced.
        stood: what stood for those that had no object until now, by key.
    """

    states: Mapping[str, EntityState]
    made: Collection[str]
    loading: Loading
    taken_in: Callable[[], None]
    constants: dict[str, Constant]
    held: Sequence[Held] = ()
    stood: Mapping[str, UnrestoredEntity] = field(default_factory=dict)


class Following:
    """Keeps a Symphony's objects at the log, from a position on, in a task of the running event loop.

    What may pass by itself, an error of the system above all, is tried again for ever, with growing pauses. What cannot pass ends it, until
    a resume, a refresh or a load has brought the objects to a position again.

    Args:
        reading: the Symphony.
        position: where its objects are.
        on_turn: called with the keys of the entities that have been taken in, when all of them have been.
        closed: why none of the objects can be changed.

    Attributes:
        position: up to where the objects are: the end of a commit.
        failure: why it does not go on, for now or for good; None while it does.
    """

    def __init__(self, reading: Reading, position: int, on_turn: Callable[[Sequence[str]], None], closed: str) -> None:
        self._reading = reading
        self._on_turn = on_turn
        self._closed = closed
        self.position = position
        self.failure: SymphonyError | None = None
        self._context = copy_context()  # of the block that begins it anew, the task is no part
        self._begin()

    def _begin(self) -> None:
        self.failure = None
        self._ended = False
        self._pause_s = 0.0
        self._again_at = self._warn_at = time.monotonic()
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(self._follow(), name="symphony-es-following", context=self._context)

    async def _follow(self) -> None:
        task = asyncio.current_task()
        try:
            while True:
                try:
                    moved = await self._look()
                    self._works()
                except (Exception, asyncio.CancelledError) as error:
                    if task is not None and task.cancelling():
                        raise
                    if not self._passes(error):
                        break
                    moved = False
                while not moved:
                    await asyncio.sleep(POLL_S)
                    moved = time.monotonic() >= self._again_at
        finally:
            self._ended = True
            self._tell()  # before anything else: whoever waits for a position would wait for ever
        _warn("following_failed", position=self.position, error=str(self.failure))

    async def _look(self) -> bool:
        """Go on by one turn; return whether there was anything."""
        reading = self._reading
        if await reading.log.refresh_head() == self.position:
            return False
        async with reading.while_nothing_loads("following the log"):
            await self._go_on(await reading.log.refresh_head())
        return True

    def _works(self) -> None:
        self.failure = None
        self._pause_s = 0.0
        self._again_at = self._warn_at = time.monotonic()

    def _passes(self, error: BaseException) -> bool:
        """Take note of why a turn was not possible; return whether it is to be tried again, and says so at first and once a minute."""
        failure = error if isinstance(error, SymphonyError) else RestorationError(f"following the log failed: {quoted(error)}")
        if failure is not error:
            failure.__cause__ = error
        self.failure = failure
        if not _may_pass(error):
            return False
        now = time.monotonic()
        self._pause_s = min(max(FIRST_PAUSE_S, 2 * self._pause_s), LONGEST_PAUSE_S)
        self._again_at = now + self._pause_s
        if now >= self._warn_at:
            self._warn_at = now + WARN_EACH_S
            _warn("following_interrupted", position=self.position, error=str(failure))
        return True

    def go_on_from(self, position: int) -> None:
        """Have it go on, at once, from where the objects have been brought to, also where it has ended."""
        self.position = position
        if self._task.done():
            self._begin()
        else:
            self._works()
        self._tell()

    async def advance(self) -> None:
        """Bring the objects to the head of the log as it is now; called while nothing else makes entities live.

        Raises:
            SymphonyError: that cannot be done; the objects are at the end of an earlier commit.
        """
        head = await self._reading.log.refresh_head()
        while self.position < head:
            await self._go_on(head)
        self.go_on_from(self.position)

    async def _go_on(self, head: int) -> None:
        """Bring the objects to the head, or to the end of an earlier transaction where there is much in between."""
        log, until = self._reading.log, self.position + EVENTS_AT_ONCE
        until = head if until >= head else (await log.transaction_bounds(until))[1]
        if until <= self.position:
            return  # a load was here first
        changed = await self._reading.state_history.changed_keys(self.position, until)
        keys = sorted(key for key in changed if not is_system(key))
        turn = await self._prepare(keys, until)
        failed = self._put_in_place(turn)
        self._on_turn(keys)
        self.position = until
        self._tell()
        if failed:  # an object that could not be put into its state may yet be made anew
            self._put_in_place(await self._prepare(failed, until))
            self._on_turn(failed)

    async def _prepare(self, keys: Collection[str], position: int) -> _Turn:
        """Read the states of entities, and make the objects of those that have none; what is live stays as it is."""
        world, history = self._reading.world, self._reading.state_history
        states = await history.entities_at(keys, position)
        made = [key for key, state in states.items() if not state.deleted and not self._has_object(key, state)]
        loading, taken_in = self._reading.new_load(keep_failed=True, position=position)
        if made:
            await loading.prepare(made, {key: state for key, state in states.items() if state.deleted or key in made})
        try:
            found = await world.constants.look_up(states.values(), lambda keys: history.entities_at(keys, position))
        except BaseException:
            loading.beside.close("it was made by a turn that failed")
            raise
        return _Turn(states, made, loading, taken_in, found)

    def _has_object(self, key: str, state: EntityState) -> bool:
        """Return whether there is an object to put into a state, or one that stands for what no object can be made of."""
        world = self._reading.world
        record = world.records.get(key) or world.at_rest(key)
        if record is None:
            return False
        return not isinstance(record.obj, UnrestoredEntity) or state.damage is not None

    def _put_in_place(self, turn: _Turn) -> list[str]:
        """Bring the live objects to the position of a turn, all of them, with nothing awaited in between.

        Returns:
            keys of the entities whose restorer failed: an `UnrestoredEntity` with the state stands for each.
        """
        world = self._reading.world
        with world.lock:
            new = _take_in(world, turn)
            states = [state for state in turn.states.values() if not state.deleted and state.key not in new]
            passed: Passed = {}
            failed, hooked = _put_all(world, states, passed)
            refused = _connect(turn.held, {key: world.get(key) for key in turn.made})
            world.constants.hand(world.records, turn.constants)
            told = {key: record.shadow or {} for key, record in new.items()} | {state.key: state.data or {} for state in states}
            with watched(world, told):
                unhooked = call_hooks([*turn.loading.context.hooked, *hooked])
            given_up = {  # until a later event changes them
                key: _stands_for(world.records[key], told[key], reason, turn.stood.get(key))
                for key, reason in unhooked.items()
                if key in told and key not in failed
            }
            given_up |= {key: kept for key, kept in refused.items() if key not in failed}
            compared = [state for state in states if state.key not in failed and state.key not in given_up]
            failed |= _differences(world, compared, passed)
            given_up |= _replace(world, {**failed, **given_up})
            for key in {*turn.states, *new} & world.records.keys():
                world.records[key].closed = self._closed
        if failed or given_up:
            _warn("entities_not_restored", position=self.position, entities=sorted({*failed, *given_up})[:100])
        return list(failed)

    def _tell(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    async def wait_for(self, position: int) -> None:
        """Wait until the objects are at a position, or after it.

        Raises:
            SymphonyError: it has ended; the error says why. While it tries again, this waits.
        """
        while self.position < position:
            if self._ended:
                raise self.failure or NotReadyError("following the log has ended with the Symphony, or its event loop")
            await self._moved.wait()

    async def stop(self) -> None:
        """End it; idempotent, also in a later event loop."""
        if not self._task.done() and self._task.get_loop() is asyncio.get_running_loop():
            self._task.cancel()
            await asyncio.wait([self._task])


def _may_pass(error: BaseException) -> bool:
    """Tell whether what was not possible may be so later, by itself: the system's doing, or another call's.

    Not damage, a lost log, or a fault of a program: that stays as it is until somebody mends it.
    """
    if isinstance(error, LogUnavailableError):
        return not (error.lasting or isinstance(error, LogFormatError))
    if isinstance(error, SymphonyError):
        return isinstance(error, (StorageUnavailableError, EntityBusyError))
    return isinstance(error, (OSError, MemoryError, asyncio.CancelledError)) or _NO_THREAD in str(error)


def _warn(event: str, **values: Any) -> None:
    with suppress(Exception):  # a log line that cannot be written ends nothing
        logger.warning(event, **values)


def _take_in(world: World, turn: _Turn) -> dict[str, EntityRecord]:
    """Let what has been removed leave, and make live what was made beside; return the records of that."""
    for key, state in turn.states.items():
        world.damaged.pop(key, None)
        if state.damage is not None:
            world.damaged[key] = state.damage
        if state.deleted and (record := world.records.get(key) or world.at_rest(key)) is not None:
            world.forget(record)
    beside = turn.loading.beside
    new = {key: record for key, record in beside.records.items() if record.world is beside}
    replaced = [record for key in new if (record := world.records.get(key)) is not None]  # of what had no object until now
    turn.held = holders_of(world, replaced)
    turn.stood = {record.key: record.obj for record in replaced}
    for record in replaced:
        world.forget(record)
    world.take_in(beside)
    turn.taken_in()
    return new


def _put_all(world: World, states: Sequence[EntityState], passed: Passed) -> tuple[dict[str, UnrestoredEntity], list[Any]]:
    """Put live objects into their states; return what is to stand for those that refuse it, and whose hooks are to be called."""
    failed: dict[str, UnrestoredEntity] = {}
    hooked: list[Any] = []
    for state in states:
        record = world.records.get(state.key)
        if record is None:
            record = world.at_rest(state.key)
            if record is None:
                continue  # nobody has its object in hand any more
            world.wake(record)
        try:
            hooked += put(world, record, state, passed)
        except BaseException as error:  # what code of the application raises costs its own entity only
            if not has_failed(error):
                raise
            failed[state.key] = _kept(state, error)
    return failed, hooked


def _differences(world: World, states: Sequence[EntityState], passed: Passed) -> dict[str, UnrestoredEntity]:
    """Take note of where objects differ from their states; return what is to stand for those that cannot be compared."""
    failed: dict[str, UnrestoredEntity] = {}
    for state in states:
        record = world.records.get(state.key)
        if record is not None:
            try:
                note_difference(world, record, state, ResumeReport(position=state.position), passed)
            except BaseException as error:  # see above
                if not has_failed(error):
                    raise
                failed[state.key] = _kept(state, error)
    return failed


def _kept(state: EntityState, error: BaseException) -> UnrestoredEntity:
    missing = error.classes if isinstance(error, UnknownValueError) else None
    return UnrestoredEntity(state.reference, state.data or {}, error_text(error), missing)


def _stands_for(record: EntityRecord, data: dict[str, Any], reason: str, stood: UnrestoredEntity | None) -> UnrestoredEntity:
    """Return what stands for an entity whose hook has failed: the one that did until now, where there was one."""
    if stood is None:
        return UnrestoredEntity(record.reference, data, reason)
    stood.state, stood.reason, stood.missing = data, reason, {}
    return stood


def _replace(world: World, kept: Mapping[str, UnrestoredEntity]) -> Mapping[str, UnrestoredEntity]:
    """Put states in the place of the objects that cannot be in them, also where others refer to these; returns all there are then.

    What refuses to hold such a state is replaced as well.
    """
    replaced: dict[str, UnrestoredEntity] = {}
    while kept:
        replaced |= kept
        records = [world.records[key] for key in kept]
        held = holders_of(world, records)
        for record in records:
            world.forget(record)
            stands = EntityRecord(
                world, record.key, kept[record.key], record.restorer, version=record.version, generation=record.generation
            )
            stands.manual = True  # it cannot change
            world.install(stands)
        kept = _connect(held, kept)
    return replaced


def _connect(held: Sequence[Held], targets: Mapping[str, Any]) -> dict[str, UnrestoredEntity]:
    """Set what has been made on the objects that hold what it replaces; returns what is to stand for those whose class refuses it."""
    refused: dict[str, UnrestoredEntity] = {}
    for holder, path, record in held:
        if holder.key in refused:
            continue
        try:
            try:
                connect(holder.obj, path, record.obj, targets[record.key])
            except UnhashableTargetError:  # it holds the reference, as after a resume
                connect(holder.obj, path, record.obj, record.reference)
        except BaseException as error:
            if not has_failed(error):
                raise
            reason = refusal_of(holder, path, record.key, error)
            refused[holder.key] = UnrestoredEntity(holder.reference, holder.shadow or {}, reason)
    return refused
