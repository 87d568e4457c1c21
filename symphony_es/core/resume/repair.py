"""Repairing an entity that an event of the log does not fit: its whole state is said anew, and it is live again.

Nothing of the log is edited. What is appended is an event named `EntityRepaired`, whose first change sets the whole state: every fold
goes on from it, and those that look at positions before it find the damage as it was.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from symphony_es.attribution import current_attribution
from symphony_es.core.objects.connect import connect
from symphony_es.core.objects.restorers import UnrestoredEntity
from symphony_es.core.past.dividing import append_divided
from symphony_es.core.past.moment_texts import Moment, read_moment
from symphony_es.core.resume.refreshing import refresh
from symphony_es.core.world.foreign import raise_first
from symphony_es.core.world.transaction import open_scope_of
from symphony_es.diagnostics import error_text
from symphony_es.errors import (
    AmbiguousMomentError,
    ConfigurationError,
    EntityDamagedError,
    EntityNotFoundError,
    RestorationError,
    SymphonyError,
    format_path,
)
from symphony_es.events.changes import SET
from symphony_es.events.event import NewEvent
from symphony_es.events.fold import REPAIR_EVENT, EntityState, repair_data
from symphony_es.events.foreign import why_without_state
from symphony_es.events.identifiers import uuid7
from symphony_es.events.references import find_references
from symphony_es.events.values import copy_plain
from symphony_es.failures import has_failed
from symphony_es.shown import quoted

if TYPE_CHECKING:
    from collections.abc import Collection

    from symphony_es.core.host import Host
    from symphony_es.core.world.live_entity import EntityRecord
    from symphony_es.core.world.world import World
    from symphony_es.events.references import Path

__all__ = ["holders_of", "refusal_of", "repair"]


async def repair(host: Host, key: str, state: dict[str, Any] | None, to: Moment | None) -> Any:
    """Append the repair of an entity and make it live; see `Entities.repair`."""
    world = host.world
    if state is not None and to is not None:
        raise ConfigurationError("give state= or to=, not both: each says the state that the entity is to have")
    if open_scope_of(world) is not None:
        raise RestorationError("a repair cannot happen inside a transaction: end it first")
    await world.outbox.flush([])
    now = await host.state_history.entity_at(key, host.log.head)
    if (why := why_without_state(key)) is not None:
        raise EntityDamagedError(key, now.damage) if now is not None and now.damage is not None else EntityNotFoundError(key, why)
    if now is None:
        raise EntityNotFoundError(key, "the log has no event of it")
    if now.damage is None:
        raise ConfigurationError(f"{key} is not damaged: change it, or rewind")
    data, state_version = await _chosen(host, now, state, to)
    record = world.records.get(key)
    if record is not None:
        with world.lock:
            world.mark_damaged(record, now.damage)  # nobody changes it while it is repaired
    await append_divided(host.log, [_repaired(now, data, state_version)])
    await host.pass_damage()
    if record is not None and not isinstance(record.obj, UnrestoredEntity):
        await refresh(world, host.state_history, record.obj)
        return record.obj
    if now.deleted:
        world.count(1)
    holders = holders_of(world, [record]) if record is not None else []
    with world.lock:
        world.damaged.pop(key, None)
        if record is not None:
            world.forget(record)
    await host.load_entities([key], strict=False)
    made = world.get(key)
    refused: list[SymphonyError] = []
    for holder, path, held in holders:
        try:
            connect(holder.obj, path, held.obj, made)
        except BaseException as error:  # its class refuses it, which concerns no other
            if not has_failed(error):
                raise
            failure = RestorationError(f"{key} has been repaired, but {refusal_of(holder, path, key, error)}")
            failure.__cause__ = error
            refused.append(failure)
    raise_first(refused)
    return made


async def _chosen(host: Host, now: EntityState, state: dict[str, Any] | None, to: Moment | None) -> tuple[dict[str, Any], int]:
    """Return the state that an entity is to have, and the version of its shape."""
    if state is not None:
        restorer = host.restore_manager.restorer_for(now.entity_type)
        return copy_plain(dict(state)), restorer.state_version if restorer is not None else now.state_version
    chosen: EntityState | None = now
    if to is not None:
        chosen = await host.state_history.entity_at(now.key, await _position(host, now.key, to))
    if chosen is None or chosen.data is None:
        when = "there is no good state of it" if to is None else f"it had no state at {quoted(to)}"
        raise EntityNotFoundError(now.key, f"{when}: give one, with state=")
    return chosen.data, chosen.state_version


async def _position(host: Host, key: str, to: Moment) -> int:
    if isinstance(to, str):
        read = read_moment(to)
        if isinstance(read.place, int) and read.checkpoint_name is not None:  # a number is a version here, and a position elsewhere
            raise AmbiguousMomentError(to, {str(read.place): f"version {to} of {key}", f"#{to}": f"position {to}"})
    if type(to) is not int:
        return await host.past.position(to)
    rows = await host.log.read_entity_rows(key, to - 1, None, 1) if to > 0 else []
    if not rows or rows[0][2] != to:
        raise EntityNotFoundError(key, f"it has no version {to}")
    return rows[0][0]


def _repaired(now: EntityState, data: dict[str, Any], state_version: int) -> NewEvent:
    return NewEvent(
        entity_key=now.key,
        version=now.version + 1,
        name=REPAIR_EVENT,
        changes=[(SET, (), data)],
        metadata=current_attribution.get().metadata(state_version=state_version if state_version != 1 else None),
        data=repair_data(now),
        event_id=uuid7(time.time_ns(), os.urandom(16)),
    )


def refusal_of(holder: EntityRecord, path: Path, key: str, error: BaseException) -> str:
    """Say that the class of a holder has refused the object that stands for an entity now."""
    return f"{holder.key} takes no {key} at {format_path(path)}: {error_text(error)}"


def holders_of(world: World, records: Collection[EntityRecord]) -> list[tuple[EntityRecord, Path, EntityRecord]]:
    """Return where other live objects hold those of some entities, which are to go: the holder, the path in it, and what it holds."""
    wanted = {record.reference: record for record in records}
    held: list[tuple[EntityRecord, Path, EntityRecord]] = []
    for other in world.records.values() if wanted else ():
        if isinstance(other.obj, UnrestoredEntity) or other.reference in wanted:
            continue
        try:
            state = world.capture(other.obj, other.reference)
        except BaseException as error:  # what its owner has put into it is no state, or cannot be read: it keeps what it holds
            if not has_failed(error):
                raise
            continue
        held += [(other, path, wanted[reference]) for path, reference in find_references(state) if reference in wanted]
    return held
