"""Building a world from states: creation, connection, and the comparison of what came out with what went in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from symphony_es.core.state.history import live_states
from symphony_es.core.state.records import EntityRecord
from symphony_es.core.state.report import Difference, ResumeReport, UnresolvedReference
from symphony_es.core.state.restore import RestorationContext, UnrestoredEntity
from symphony_es.core.state.tracking.connect import connect
from symphony_es.core.state.tracking.entity_restorer import DeclaredEntityRestorer, unknown_names
from symphony_es.core.state.tracking.live import kind_of
from symphony_es.core.state.world import World
from symphony_es.errors import UnresolvedReferenceError
from symphony_es.events.diff import diff
from symphony_es_projections.references import References

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
    from symphony_es.events.fold import EntityState, Fold

__all__ = ["build_world", "note_difference"]

BREATH = 200  # entities between two turns of the event loop


async def build_world(shell: Host, world: World, fold: Fold, report: ResumeReport, *, strict: bool) -> None:
    """Fill a world under construction from the states of a fold.

    Args:
        shell: the Symphony that restorers see: its facades create into `world`.
        world: the new world; it stays under construction.
        fold: the states to restore.
        report: filled in.
        strict: raise when a reference has no target.

    Raises:
        RestorationError: a restorer failed. The new world must be thrown away.
        UnresolvedReferenceError: `strict`, and a target is missing.
    """
    context = RestorationContext(shell)
    states = await asyncio.to_thread(live_states, fold)
    await _create(world, context, states, report)
    await _connect(world, context, states, report, strict=strict)
    for count, (key, state) in enumerate(states.items()):
        if count % BREATH == 0:
            await asyncio.sleep(0)
        note_difference(world, world.records[key], state, report)
    world.entity_count = len(states)


async def _create(world: World, context: RestorationContext, states: dict[str, EntityState], report: ResumeReport) -> None:
    manager = world.restorers
    for count, (key, state) in enumerate(states.items()):
        if count % BREATH == 0:
            await asyncio.sleep(0)
        world.under_restoration = state.reference
        made = await manager.restore_entity(state.reference, state.data or {}, state.state_version, context)
        restorer = manager.restorer_for(state.entity_type)
        record = EntityRecord(world, key, made, restorer, version=state.version, generation=state.generation)
        world.install(record, state.data or {})
        if isinstance(made, UnrestoredEntity):
            record.known, record.manual = None, True  # it cannot change
            report.unrestored[key] = made.reason
        else:
            report.restored += 1
    world.under_restoration = None


async def _connect(
    world: World, context: RestorationContext, states: dict[str, EntityState], report: ResumeReport, *, strict: bool
) -> None:
    asked = {(id(target), attribute) for target, attribute, _ in context.pending_references}
    await context.resolve_references()
    references = await asyncio.to_thread(References, states)
    for count, (key, path, reference) in enumerate(references.all()):
        if count % BREATH == 0:
            await asyncio.sleep(0)
        target = context.entities.get(reference.key)
        if target is None:
            report.unresolved.append(UnresolvedReference(key, path, reference))
            continue
        holder = context.entities[key]
        if not isinstance(holder, UnrestoredEntity) and (id(holder), path[0]) not in asked:
            connect(holder, path, reference, target)
    if strict and report.unresolved:
        raise UnresolvedReferenceError([(item.entity, item.path, item.target.key) for item in report.unresolved])


def note_difference(world: World, record: EntityRecord, state: EntityState, report: ResumeReport) -> None:
    """Note where an object differs from its state, so that log and object never drift apart."""
    obj, data = record.obj, state.data or {}
    if isinstance(obj, UnrestoredEntity):
        return
    restorer = world.restorer_of(record.entity_type)
    if isinstance(restorer, DeclaredEntityRestorer):
        names = set().union(*(unknown_names(obj.__dict__[name]) for name in restorer.spec.fields))
        if names:
            report.unknown_values[record.key] = sorted(names)
        if state.state_version == restorer.state_version and data.keys() == set(restorer.spec.fields):
            return
    captured = world.capture(obj, record.reference)
    if kind_of(obj) != "entity":
        record.known = captured
    changes = diff(data, captured)
    if changes or state.state_version != restorer.state_version:
        record.adoption = changes
        record.adoption_version = restorer.state_version
    if changes:
        report.different.append(Difference(record.key, tuple(dict.fromkeys(change[1] for change in changes))))
