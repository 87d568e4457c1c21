"""Putting one object back to the log's state, after changes of it could not be appended.

The state is read without the world's lock, so others go on meanwhile. What was read counts only if nothing of the entity has been
submitted since: the version that was read is the one that the object stands for. Otherwise it is read again.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from symphony_es.core.objects.connect import UnhashableTargetError, connect
from symphony_es.core.objects.declared_restorer import DeclaredEntityRestorer
from symphony_es.core.objects.making import Making, Passed
from symphony_es.core.objects.restorers import UnrestoredEntity, upcast_state
from symphony_es.core.past.states import StateHistory
from symphony_es.core.report import ResumeReport
from symphony_es.core.resume.building import note_difference, uncaptured
from symphony_es.core.world.live_entity import EntityRecord
from symphony_es.core.world.shadow import unrecorded_changes
from symphony_es.core.world.waking import call_hooks, watched
from symphony_es.core.world.world import World
from symphony_es.diagnostics import error_text, get_logger
from symphony_es.errors import DetachedEntityError, EntityBusyError, EntityNotFoundError, LogError, RestorationError
from symphony_es.events.changes import Change
from symphony_es.events.fold import EntityState
from symphony_es.events.references import EntityReference, Path, find_references
from symphony_es.failures import has_failed

__all__ = ["put", "put_back", "refresh"]

_log = get_logger(__name__)

MOST_READS = 100
"""How often a state is read again because the entity was changed meanwhile; then its changes leave no room for a refresh."""


async def refresh(world: World, history: StateHistory, entity: Any, position: int | None = None) -> list[Change]:
    """Put an object back to the log's state; return the changes that were not appended and are dropped, also those past its methods.

    That is the state at the head, or at a position where one is given: that of the other objects, where they follow the log.

    An entity whose creation never reached the log is taken out of the world: its object belongs to nothing again. One whose removal
    never did is here again.

    Raises:
        EntityBusyError: a transaction claims it, or others change it all the time. Nothing is dropped.
        EntityNotFoundError: there is no such entity.
        DetachedEntityError: it was removed, or its world replaced, while its state was read. Nothing is dropped.
        RestorationError: it has been put back, but its hook failed, or it cannot be captured.
        EntityDamagedError: an event of the log does not fit it. Its changes are refused until it has been repaired.
    """
    record = world.record_for(entity)
    for _ in range(MOST_READS):
        _check_free(record)
        await world.outbox.flush([])
        with world.lock:
            broken, marked = record.broken, record.key in world.damaged  # what is damaged cannot be changed meanwhile
        at = history.log.head if position is None else position
        state = await history.entity_at(record.key, at)
        if state is not None and record.entity_type == "Workflow":
            await world.constants.give(world.records, [state], lambda keys: history.entities_at(keys, history.log.head))
        with world.lock:
            _check_free(record)
            if record.broken is not broken or (broken is None and not marked and not _is_newest(record, state)):
                continue
            if broken is None and not marked and not world.read_only:
                world.check_open(record)
            return _put_back(world, record, state)
    raise EntityBusyError(
        record.key, "others", "a refresh", f"{record.key} is changed faster than its state can be read: refresh it when it is left alone"
    )


async def put_back(world: World, history: StateHistory, record: EntityRecord) -> Exception | None:
    """Put an object back whose changes the log can never take: too large, or no plain data. It is nobody's trouble then but the caller's.

    Returns:
        why they were refused, for the caller to raise; None where it was not out of step, or is so because the log could not write: those
        changes may be appended yet, and the object is left as it is.
    """
    refused = record.broken
    if refused is None or isinstance(refused, LogError):
        return None
    with suppress(EntityBusyError, EntityNotFoundError, DetachedEntityError):
        dropped = await refresh(world, history, record.obj)
        _log.warning("changes_dropped", entity=record.key, changes=len(dropped), error=error_text(refused))
    return refused


def _is_newest(record: EntityRecord, state: EntityState | None) -> bool:
    """Return whether an entity that is in step has the version that was read, and nothing of it waits to be submitted.

    Where the log is only read, what was read is what another process has written since.
    """
    if record.world.read_only or (state is not None and state.damage is not None):
        return True  # of a damaged one, whatever has been submitted since cannot be applied
    return not record.pending and record.version == (0 if state is None else state.version)


def _put_back(world: World, record: EntityRecord, state: EntityState | None) -> list[Change]:
    dropped = record.lost_changes() + unrecorded_changes(record)
    record.dropped, record.pending, record.adoption = (), (), None
    world.outbox.forget(record)
    record.broken = None
    if state is not None and state.damage is not None:
        raise world.mark_damaged(record, state.damage)
    world.damaged.pop(record.key, None)
    if state is None or state.deleted:
        record.version = 0 if state is None else state.version
        world.forget(record)
        return dropped
    world.removed.pop(record.key, None)
    world.install(record)
    passed: Passed = {}
    try:
        hooked = put(world, record, state, passed)
    except BaseException as error:  # what the application's code raises: the object is as it was, and not in the state that is known of it
        if not has_failed(error):
            raise
        mend = "mend its class or restorer, and refresh again"
        failure = RestorationError(f"{record.key} could not be put back: {error_text(error)}; {mend}")
        world.outbox.mark_broken(record, failure)
        raise failure from error
    with watched(world, {record.key: state.data or {}}):
        failed = call_hooks(hooked)
    try:
        note_difference(world, record, state, ResumeReport(position=state.position), passed)
    except BaseException as error:
        if not has_failed(error):
            raise
        raise RestorationError(f"{record.key} has been put back, but {uncaptured(world, record, error)}") from error
    if failed:
        raise RestorationError(f"{record.key} has been put back, but {'; '.join(failed.values())}")
    return dropped


def _check_free(record: EntityRecord) -> None:
    if record.holder is not None:
        raise EntityBusyError.for_refresh(record.key, record.holder.name)


def put(world: World, record: EntityRecord, state: EntityState, passed: Passed) -> list[Any]:
    """Put an object into a state, with live objects where references stand; nothing is awaited.

    Args:
        passed: gets what upcasts have passed on, for `note_difference`.

    Returns:
        the objects in it whose hooks are to be called once all that they may look at is in its state; inner ones first.

    Raises:
        RestorationError, UnknownValueError: the state fits no object of this code. A declared object is as it was.
        BaseException: what the application's code raises: its restorer, or a class that refuses what it refers to.
    """
    data, restorer = state.data or {}, world.restorer_of(record.entity_type)
    record.version, record.generation, record.closed, record.shadow = state.version, state.generation, None, data
    if isinstance(record.obj, UnrestoredEntity):
        record.shadow, record.obj.state = None, data
        return []
    same = state.state_version == restorer.state_version
    making = Making(world.types, passed)
    current = data if same else upcast_state(restorer, data, state.state_version, making)
    if not isinstance(restorer, DeclaredEntityRestorer):
        world.reset(record, current)
        return []
    making.rebuild = restorer.rebuild
    upcasts, before = len(passed), dict(record.obj.__dict__)
    targets = [(path, reference, world.held(reference)) for path, reference in find_references(data)]  # some only this object has in hand
    restorer.fill(record.obj, current, making)
    if not same or len(passed) > upcasts:  # an upcast may have put other references, or put them elsewhere
        targets = [(path, reference, world.held(reference)) for path, reference in _found_in(world, record)]
    del before  # what only the object had in hand was there until now
    for path, reference, target in targets:
        if target is not None:
            with suppress(UnhashableTargetError):  # it stays the reference that a resume would report
                connect(record.obj, path, reference, target)
    return making.hooked if restorer.spec.hook is None else [*making.hooked, record.obj]


def _found_in(world: World, record: EntityRecord) -> list[tuple[Path, EntityReference]]:
    """Return what an object refers to that an upcast has made something of; where that cannot be stored, `note_difference` says so."""
    try:
        return list(find_references(world.capture(record.obj, record.reference)))
    except BaseException as error:
        if not has_failed(error):
            raise
        return []
