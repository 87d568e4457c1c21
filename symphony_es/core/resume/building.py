"""Building a world from states: creation, connection, and the comparison of what came out with what went in.

What the library's own restorer of an `@entity` class makes equals its state by construction, so it is compared with nothing; what a
restorer of the application makes is captured and compared.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.connect import UnhashableTargetError, connect
from symphony_es.core.objects.declared_restorer import FLAT, DeclaredEntityRestorer
from symphony_es.core.objects.making import Making, Passed, lost_fields
from symphony_es.core.objects.plain import kind_of
from symphony_es.core.objects.restorers import RestorationContext, UnrestoredEntity
from symphony_es.core.past.resting import RUN, TASK, waking
from symphony_es.core.past.states import live_states
from symphony_es.core.report import Difference, ResumeReport, UnresolvedReference
from symphony_es.core.world.live_entity import EntityRecord
from symphony_es.core.world.waking import call_hooks, watched
from symphony_es.core.world.world import World
from symphony_es.diagnostics import error_text
from symphony_es.errors import RestorationError, UnresolvedReferenceError, format_path, repair_call
from symphony_es.events.diff import diff
from symphony_es.events.identifiers import MAX_ID_BYTES, check_entity_id, check_entity_type
from symphony_es.events.references import EntityReference, Path, find_references
from symphony_es.failures import has_failed
from symphony_es.gc_pause import kept_objects
from symphony_es.shown import so_many
from symphony_es_projections.references import References

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.core.past.states import More
    from symphony_es.events.fold import Damage, EntityState, Fold

__all__ = ["build_world", "note_difference", "uncaptured"]

SLICE_S = 0.005
"""How long the event loop is held at a time, in seconds, while entities are restored: others have their turn in between."""

MOST_NAMED = 3
LOOK = 32  # entities between two looks at the clock


async def build_world(
    shell: Host,
    world: World,
    fold: Fold,
    report: ResumeReport,
    *,
    strict: bool,
    everything: bool = True,
    types: frozenset[str] | None = None,
    more: More | None = None,
) -> None:
    """Fill a world under construction from the states of a fold.

    Args:
        shell: the Symphony that restorers see: its facades create into `world`.
        world: the new world; it stays under construction.
        fold: the states to restore.
        report: filled in.
        strict: raise when an object cannot be made, or a reference has no target.
        everything: also what a resume leaves at rest.
        types: without `everything`, only entities of these types, and what they refer to.
        more: where what is at rest can be found, if the fold has it not.

    Raises:
        RestorationError: `strict`, and an object could not be made. The new world must be thrown away.
        UnresolvedReferenceError: `strict`, and a target is missing.
    """
    alive, report.damaged = await asyncio.to_thread(_alive_and_damaged, fold)
    world.damaged.update(report.damaged)
    states = alive
    if not everything:
        woken = await asyncio.to_thread(waking, alive, types, partly=more is not None)
        while more is not None and (found := await more.find(woken.missing, woken.runs)):
            alive = dict(sorted({**alive, **found}.items()))
            woken = await asyncio.to_thread(waking, alive, types, partly=True)
        if woken.undecided:  # their runs are not there any more
            woken = await asyncio.to_thread(waking, alive, types)
        states, world.in_part, world.has_at_rest = woken.states, woken.in_part, woken.leaves_runs or more is not None
    builder = WorldBuilder(shell, world, report, keep_failed=not strict)
    await builder.create(list(states.values()))

    async def find(keys: Collection[str]) -> Mapping[str, EntityState]:
        if more is not None:
            await more.find(keys, ())
        return {key: fold.states[key] for key in keys if key in fold.states}

    new: list[EntityState] = []
    asked = set[str]()
    while wanted := (await builder.upcast_targets() | _referred(new)) - builder.context.entities.keys() - asked:
        asked |= wanted
        new = [state for state in (await find(wanted)).values() if state.data is not None]
        await builder.create(new)
    await world.constants.give(world.records, states.values(), find)
    await builder.connect(strict=strict)
    await builder.compare()
    if strict:
        _check_all_made(report)
    if more is None:
        world.entity_count = len(alive)
    else:
        world.uncounted_until = fold.position


def _referred(states: Sequence[EntityState]) -> set[str]:
    return {reference.key for state in states for _, reference in find_references(state.data)}


def _check_all_made(report: ResumeReport) -> None:
    """Refuse a world in which an entity stands as its state, be it for a restorer that fails or is missing, a class, a hook or damage."""
    if not report.unrestored:
        return
    named = [f"{key}: {reason}" for key, reason in list(report.unrestored.items())[:MOST_NAMED]]
    more = len(report.unrestored) - len(named)
    count = so_many(len(report.unrestored), "entity", "entities")
    raise RestorationError(f"{count} cannot be made: {'; '.join(named)}" + (f"; and {more:,} more" if more else ""))


def _alive_and_damaged(fold: Fold) -> tuple[dict[str, EntityState], dict[str, Damage]]:
    damaged = {key: state.damage for key, state in fold.states.items() if state.damage is not None}
    return live_states(fold), dict(sorted(damaged.items()))


class WorldBuilder:
    """Makes the objects of a world under construction from states, connects them, and compares those that need it.

    Args:
        shell: the Symphony that restorers see.
        world: what is built.
        report: filled in.
        keep_failed: keep an entity as an `UnrestoredEntity` where the application's code fails to make its object.

    Attributes:
        context: what restorers see.
    """

    def __init__(self, shell: Host, world: World, report: ResumeReport, *, keep_failed: bool) -> None:
        self.context = RestorationContext(shell)
        self._keep_failed = keep_failed
        self.world = world
        self.report = report
        self._states: list[EntityState] = []
        self._holders: dict[str, EntityState] = {}  # states that may refer to others
        self._doubtful: dict[str, EntityState] = {}  # states that their objects do not equal by construction
        self._upcast: dict[str, EntityState] = {}  # states that upcasts have made something of
        self._found: dict[str, list[tuple[Path, EntityReference]]] = {}  # what the objects of these refer to
        self._prefix = ":"  # of the keys of the type at hand; no key begins with this one
        self._maker: DeclaredEntityRestorer | None = None  # of that type, where it is the library's own
        self._until = 0.0
        self._making = Making(world.types, self.context.passed)
        self._references: References | None = None
        self._incoming: dict[str, list[tuple[str, Path]]] | None = None  # what refers to each entity, once one has to be replaced
        world.types.look_again()

    async def create(self, states: Sequence[EntityState]) -> None:
        """Make an object of each state, in their order.

        Raises:
            RestorationError: not `keep_failed`, and a restorer failed.
        """
        self._states += states
        at = 0
        while at < len(states):
            with kept_objects():
                made = self._make_some(states, at)
            self.report.restored += made
            at += made
            if at < len(states) and not await self._breathe():
                await self._restore(states[at])
                at += 1

    async def _breathe(self) -> bool:
        """Let others have their turn when it is time; whether it was."""
        if time.perf_counter() < self._until:
            return False
        await asyncio.sleep(0)
        self._until = time.perf_counter() + SLICE_S
        return True

    def _make_some(self, states: Sequence[EntityState], at: int) -> int:
        """Make objects until it is time to breathe, or one needs more than the library's own restorer; how many were made."""
        start, entities, records, world, clock = at, self.context.entities, self.world.records, self.world, time.perf_counter
        making, holders = self._making, self._holders
        passed, upcasts = self.context.passed, len(self.context.passed)
        while clock() < self._until:
            for state in states[at : at + LOOK]:
                key = state.key
                if not key.startswith(self._prefix):
                    self._turn_to(state)
                maker, data = self._maker, state.data or {}
                if maker is None or state.state_version != maker.state_version or state.damage is not None:
                    return at - start
                entity_id = key[len(self._prefix) :]
                if "\0" in entity_id or not 0 < len(entity_id) <= _SURELY_AN_ID:
                    check_entity_id(entity_id)
                flat = FLAT.issuperset(map(type, data.values()))
                if not flat:
                    making.begin()
                made = maker.make(entity_id, data, making, flat=flat)
                if made is None or (not flat and making.unmade):
                    return at - start
                if entities.setdefault(key, made) is not made:
                    self.context.register_entity(state.entity_type, entity_id, made)  # says that it is taken
                records[key] = record = EntityRecord(
                    world, key, made, maker, version=state.version, generation=state.generation, shadow=state.data
                )
                made.__dict__["_symphony_record"] = record
                if not flat:
                    holders[key] = state
                    if making.changed:
                        self._doubtful[key] = state
                    if len(passed) > upcasts:
                        self._upcast[key], upcasts = state, len(passed)
                    if making.hooked:
                        self.context.hooked += making.hooked
                if maker.spec.hook is not None:
                    self.context.hooked.append(made)
                at += 1
            if at == len(states):
                break
        return at - start

    def _turn_to(self, state: EntityState) -> None:
        """Take up the type of a state: find its restorer, once for all entities of the type."""
        entity_type = check_entity_type(state.entity_type)
        restorer = self.world.restorers.restorer_for(entity_type)
        self._prefix = f"{entity_type}:"
        self._maker = None
        if isinstance(restorer, DeclaredEntityRestorer) and restorer.is_exact:
            self._maker = restorer
            self._making.rebuild = restorer.rebuild

    async def _restore(self, state: EntityState) -> None:
        """Have an object made by the restorer of its type, whatever that does; a damaged entity is kept as its last good state."""
        world, reference = self.world, state.reference
        if state.damage is not None:
            self.report.damaged[state.key] = world.damaged[state.key] = state.damage
            made = world.restorers.keep(reference, state.data or {}, f"{state.damage}; {repair_call(state.key)}", self.context)
        else:
            world.under_restoration, upcasts = reference, len(self.context.passed)
            made = await world.restorers.restore_entity(
                reference, state.data or {}, state.state_version, self.context, keep_failed=self._keep_failed
            )
            world.under_restoration = None
            if len(self.context.passed) > upcasts and not isinstance(made, UnrestoredEntity):
                self._upcast[state.key] = state
            half_made = world.records.get(state.key)
            if half_made is not None and half_made.obj is not made:
                half_made.closed = "its restorer failed after it had made it"
        restorer = world.restorers.restorer_for(state.entity_type)
        record = EntityRecord(world, state.key, made, restorer, version=state.version, generation=state.generation, shadow=state.data or {})
        world.install(record)
        self._holders[state.key] = state
        if isinstance(made, UnrestoredEntity):
            self._note_unrestored(record, made)
        else:
            self.report.restored += 1
            self._doubtful[state.key] = state

    def _note_unrestored(self, record: EntityRecord, kept: UnrestoredEntity) -> None:
        record.shadow, record.manual = None, True  # it cannot change
        self.report.unrestored[record.key] = kept.reason
        if kept.missing:
            self.report.unknown_values[record.key] = sorted(kept.missing)

    async def upcast_targets(self) -> set[str]:
        """Return the keys of what the upcast objects refer to: an upcast may refer to others than the state does."""
        for key in [key for key in self._upcast if key not in self._found]:
            await self._breathe()
            state, record = self._upcast[key], self.world.records[key]
            try:
                found = list(find_references(self.world.capture(record.obj, record.reference)))
            except BaseException as error:
                if not has_failed(error):
                    raise
                continue  # `compare` says so
            if kind_of(record.obj) != "entity":  # what its restorer has left out is put where the state has it
                found += [one for one in find_references(state.data) if one not in found]
            self._found[key] = found
        return {reference.key for found in self._found.values() for _, reference in found}

    def _referring(self) -> Iterator[tuple[str, Path, EntityReference]]:
        """Yield what refers to what, as the objects have it: (key of the holder, path, target)."""
        if self._references is not None:
            yield from (one for one in self._references.all() if one[0] not in self._found)
        for key, found in self._found.items():
            yield from ((key, path, reference) for path, reference in found)

    async def connect(self, *, strict: bool, wake: bool = True) -> None:
        """Set every reference on the object that holds it, and call the hooks.

        Args:
            strict: raise where a target is missing.
            wake: without it the caller calls the hooks, `context.hooked`, when all that they may look at is as it is to be.

        Raises:
            UnresolvedReferenceError: `strict`, and a target is missing.
        """
        context, report = self.context, self.report
        asked = {(id(target), attribute) for target, attribute, _ in context.pending_references}
        await context.resolve_references()
        self._references = await asyncio.to_thread(References, self._holders)
        for count, (key, path, reference) in enumerate(self._referring()):
            if count % LOOK == 0:
                await self._breathe()
            target = context.entities.get(reference.key)
            if target is None:
                report.unresolved.append(UnresolvedReference(key, path, reference))
                continue
            if reference.key.startswith((RUN, TASK)) and not key.startswith((RUN, TASK)):
                self.world.referred[reference.key] = None
                if kind_of(context.entities[key]) != "entity":  # what a class of the application keeps of its state is its own affair
                    self.world.keepers.setdefault(reference.key, set()).add(key)
            holder = context.entities[key]
            if not isinstance(holder, UnrestoredEntity) and (id(holder), path[0]) not in asked:
                try:
                    connect(holder, path, reference, target)
                except UnhashableTargetError:
                    report.unresolved.append(UnresolvedReference(key, path, reference))
                except BaseException as error:  # its class refuses it: see `_refused`
                    if not has_failed(error):
                        raise
                    reason = f"its object takes no {reference.key} at {format_path(path)}: {error_text(error)}"
                    await self._refused(key, reason, error)
        if strict and report.unresolved:
            raise UnresolvedReferenceError([(item.entity, item.path, item.target.key) for item in report.unresolved])
        if wake:
            await self._wake()

    async def _wake(self) -> None:
        """Call the hooks of what was restored; an entity whose hook raises is kept as it is stored."""
        hooked = self.context.hooked
        if not hooked:
            return
        stored = {state.key: state.data or {} for state in self._states}
        for at in range(0, len(hooked), LOOK):
            with watched(self.world, stored):
                failed = call_hooks(hooked[at : at + LOOK])
            for key, reason in failed.items():
                await self._give_up(key, reason, stored[key])
            await self._breathe()

    async def _give_up(self, key: str, reason: str, data: dict[str, Any]) -> None:
        """Put the state of an entity in the place of the object that has been made of it, also where others refer to it.

        What refuses to hold the state is given up with it.

        Raises:
            RestorationError: not `keep_failed`, and an object refuses it.
        """
        waiting = [(key, reason, data)]
        while waiting:
            key, reason, data = waiting.pop()
            old = self.world.records[key]
            if isinstance(old.obj, UnrestoredEntity):
                continue
            kept = self._stand_in(old, reason, data)
            for holder_key, path in await self._holders_of(key):
                holder = self.context.entities.get(holder_key)
                if holder is None or isinstance(holder, UnrestoredEntity):
                    continue
                try:
                    connect(holder, path, old.obj, kept)
                except BaseException as error:  # its class refuses it: see `_refused`
                    if not has_failed(error):
                        raise
                    refusal = f"its object takes no state of {key} at {format_path(path)}: {error_text(error)}"
                    if not self._keep_failed:
                        raise RestorationError(f"{holder_key} cannot be made: {refusal}") from error
                    waiting.append((holder_key, refusal, self._stored(holder_key)))

    def _stand_in(self, old: EntityRecord, reason: str, data: dict[str, Any]) -> UnrestoredEntity:
        key, old.closed = old.key, reason
        kept = self.context.entities[key] = UnrestoredEntity(old.reference, data, reason)
        record = EntityRecord(self.world, key, kept, old.restorer, version=old.version, generation=old.generation)
        self.world.install(record)
        self._note_unrestored(record, kept)
        self._doubtful.pop(key, None)
        self.report.restored -= 1
        return kept

    async def _holders_of(self, key: str) -> Sequence[tuple[str, Path]]:
        """Tell where others refer to an entity: (key, path); what refers to what is looked through once, however many are given up."""
        if self._incoming is None:
            self._incoming = await asyncio.to_thread(self._by_target)
        return self._incoming.get(key, ())

    def _by_target(self) -> dict[str, list[tuple[str, Path]]]:
        incoming: dict[str, list[tuple[str, Path]]] = {}
        for holder, path, reference in self._referring():
            incoming.setdefault(reference.key, []).append((holder, path))
        return incoming

    async def compare(self) -> None:
        """Note where objects differ from their states; what the library's own restorer made, and no other has touched, does not.

        Raises:
            RestorationError: not `keep_failed`, and an object cannot be captured.
        """
        touched = self.world.touched
        if touched:
            self._doubtful.update((state.key, state) for state in self._states if state.key in touched)
        for key, state in list(self._doubtful.items()):
            await self._breathe()
            record = self.world.records[key]
            try:
                note_difference(self.world, record, state, self.report, self.context.passed)
            except BaseException as error:  # what an object is made of, and its capture, are the application's
                if not has_failed(error):
                    raise
                await self._refused(key, uncaptured(self.world, record, error), error)

    async def _refused(self, key: str, reason: str, error: BaseException) -> None:
        """Give up an object that has been made and cannot stand for its entity: that concerns this entity alone.

        Raises:
            RestorationError: not `keep_failed`.
        """
        if not self._keep_failed:
            raise RestorationError(f"{key} cannot be made: {reason}") from error
        await self._give_up(key, reason, self._stored(key))

    def _stored(self, key: str) -> dict[str, Any]:
        """Return the state of what may refer to others, or may differ from its state."""
        return next((found[key].data or {} for found in (self._holders, self._upcast, self._doubtful) if key in found), {})


_SURELY_AN_ID = MAX_ID_BYTES // 4  # characters: none takes more than four bytes


def uncaptured(world: World, record: EntityRecord, error: BaseException) -> str:
    """Say of an object that it could not be captured, and what to do."""
    restorer = world.restorer_of(record.entity_type)
    if isinstance(restorer, DeclaredEntityRestorer):
        mend = f"mend what {type(record.obj).__qualname__} gets from its upcast or hook"
    else:
        mend = f"give {type(restorer).__name__} a capture(entity) that returns what is to be stored, and a restore that makes the rest"
    return f"the object made of it cannot be stored: {error_text(error)}; {mend}, and resume again"


def note_difference(world: World, record: EntityRecord, state: EntityState, report: ResumeReport, passed: Passed) -> None:
    """Note where an object differs from its state, so that log and object never drift apart; `passed` is what upcasts passed on."""
    obj, data = record.obj, state.data or {}
    if isinstance(obj, UnrestoredEntity):
        return
    restorer = world.restorer_of(record.entity_type)
    if isinstance(restorer, DeclaredEntityRestorer):
        gone: list[Path] = list(lost_fields(data, restorer.spec.field_set, world.types, passed))
        if gone:
            report.removed_fields[record.key] = gone
    captured = world.capture(obj, record.reference)
    record.shadow = captured  # what the adoption makes of the log's state
    changes = diff(data, captured)
    if changes or state.state_version != restorer.state_version:
        record.adoption = changes
        record.adoption_version = restorer.state_version
        if state.state_version != restorer.state_version:
            record.adoption_reason = f"upcast {state.state_version} to {restorer.state_version}"
    if changes:
        report.different.append(Difference(record.key, tuple(dict.fromkeys(change[1] for change in changes))))
