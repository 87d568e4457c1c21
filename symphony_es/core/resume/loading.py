"""Loading: some entities brought to life at the head of the log, with all that they refer to; the others stay in the log.

A world of these entities alone is built beside the live one, as a resume builds one of all, and moved into it in one step. What is live
already is neither read nor made again: the new objects are connected to it. Nothing is appended, and a failure leaves the live world
as it was; only what a restorer changes in a live object is a change like any other.

While an entity is not live nobody can change it, so its state at the head stays its state whatever else is appended meanwhile. What ceases
to be live meanwhile has been removed, or has come to rest, and then its object is still connected to: each read is of the head as it is
when the live world has been asked, and what was asked for is live when the load is over. Where the live objects follow the log, nothing
of this can be: they stand still at a position meanwhile, and each read is of that one.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from symphony_es.core.objects.restorers import UnrestoredEntity
from symphony_es.core.past.states import StateHistory, is_system
from symphony_es.core.report import ResumeReport
from symphony_es.core.resume.building import WorldBuilder
from symphony_es.diagnostics import get_logger
from symphony_es.errors import EntityDamagedError, EntityNotFoundError, RunPrunedError
from symphony_es.events.foreign import why_without_state
from symphony_es.events.references import find_references

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.core.world.world import World
    from symphony_es.events.fold import EntityState

__all__ = ["Loading"]

logger = get_logger(__name__)


class Loading:
    """One load, from the reading of states to the live objects.

    Args:
        history: past states of the log.
        live: the world that the objects become part of.
        beside: a world under construction.
        shell: the Symphony that restorers see: its facades create into `beside`.
        keep_failed: keep an entity as an `UnrestoredEntity` where no object can be made of it; else that ends the load.
        position: that of the live objects, where they follow the log; None for the head as it is at each read.

    Attributes:
        context: what restorers see.
    """

    def __init__(
        self, history: StateHistory, live: World, beside: World, shell: Host, *, keep_failed: bool = False, position: int | None = None
    ) -> None:
        self.history = history
        self.live = live
        self.beside = beside
        self._position = position
        self._apart: Mapping[str, EntityState] = {}
        self.report = ResumeReport(position=self._at)
        self._builder = WorldBuilder(shell, beside, self.report, keep_failed=keep_failed)
        self.context = self._builder.context
        self._met: set[str] = set()

    @property
    def _at(self) -> int:
        return self.history.log.head if self._position is None else self._position

    async def run(self, keys: Sequence[str], *, strict: bool) -> ResumeReport:
        """Make entities live, and what they refer to.

        Raises:
            EntityNotFoundError: one of them is not in the log, or is deleted.
            EntityDamagedError: one of them is damaged, and has no good state.
            RestorationError: not `keep_failed`, and a restorer failed.
            UnresolvedReferenceError: `strict`, and a target is missing. In all cases the live world is as it was.
        """
        started = time.monotonic()
        try:
            await self._build(keys, strict=strict)
            self.live.take_in(self.beside)
            self._wake(keys)
        except BaseException:
            self.beside.close("it was made by a load that failed")
            raise
        self.report.damaged_snapshots = list(self.history.damaged)
        self.report.duration_s = time.monotonic() - started
        logger.debug("entities_loaded", position=self.report.position, duration_ms=round(self.report.duration_s * 1000, 1))
        return self.report

    async def prepare(self, keys: Sequence[str], states: Mapping[str, EntityState]) -> None:
        """Make objects of entities beside the live world, and nothing else: the caller takes them in, and calls their hooks.

        Of an entity that is live and of which again no object can be made, the `UnrestoredEntity` stays that it has.

        Args:
            keys: whose: those that are not live, and those of which the live world has no object.
            states: at the position of the load, of all that is not to be connected to as it is live: of these, and of what is removed.
        """
        self._apart = states
        try:
            await self._build(keys, strict=False, alone=True)
        except BaseException:
            self.beside.close("it was made by a load that failed")
            raise

    async def _build(self, keys: Sequence[str], *, strict: bool, alone: bool = False) -> None:
        builder, context = self._builder, self.context
        states = await self._read(keys)
        for key in keys:
            if key not in states and key not in self.live.records and self.live.at_rest(key) is None:
                if key in self.report.damaged:
                    raise EntityDamagedError(key, self.report.damaged[key])
                pruned = self.history.log.pruned_at(key)
                if pruned is not None:
                    raise RunPrunedError(key, pruned)
                raise EntityNotFoundError(key, why_without_state(key) or "the log has none, or it was removed")
        made: list[EntityState] = []
        while states:
            made += states.values()
            await builder.create(sorted(states.values(), key=attrgetter("key")))
            # Restorers may ask for references that do not stand in the states, and upcasts may make some.
            made_up = await builder.upcast_targets()
            states = await self._read({reference.key for _, _, reference in context.pending_references} | made_up)
        for key in self._apart:
            record = self.live.records.get(key)
            if record is not None and isinstance(context.entities.get(key), UnrestoredEntity):
                context.entities[key] = record.obj
                self.beside.install(record)
        await self.live.constants.give(self.beside.records, made, self._find)
        await builder.connect(strict=strict, wake=not alone)
        await builder.compare()

    def _wake(self, keys: Sequence[str]) -> None:
        """Make those live again that came to rest while others were read."""
        for key in keys:
            if key not in self.live.records and (record := self.live.at_rest(key)) is not None:
                self.live.wake(record)

    async def _find(self, keys: Collection[str]) -> dict[str, EntityState]:
        return await self.history.entities_at(keys, self._at)

    async def _read(self, keys: Iterable[str]) -> dict[str, EntityState]:
        """Return the states of entities that are not live, and of all they refer to, reference by reference; each is read once."""
        found: dict[str, EntityState] = {}
        while keys := set(keys) - self._met:
            self._met |= keys
            states = {key: self._apart[key] for key in sorted(keys & self._apart.keys())}
            absent = sorted(key for key in keys if key not in states and not self._is_here(key))
            self.report.position = self._at
            states |= await self.history.entities_at(absent, self.report.position)
            for key, state in states.items():
                if state.damage is not None and state.data is None:
                    self.report.damaged[key] = state.damage
            alive = {key: state for key, state in states.items() if state.data is not None}
            found.update(alive)
            self.live.known_ids.update(alive)
            keys = {reference.key for state in alive.values() for _, reference in find_references(state.data)}
        return found

    def _is_here(self, key: str) -> bool:
        """Return whether an entity need not be read: it is live, and then the new world is told of it, or there is none.

        What an open transaction has removed is connected to as if it were live, as what is live holds it: the removal may be rolled back.
        """
        removed = self.live.removed.get(key)
        record = self.live.records.get(key, removed if removed is not None and removed.holder is not None else None)
        if record is None and removed is None and (record := self.live.at_rest(key)) is not None:
            self.live.wake(record)
        if record is not None:
            self._builder.context.entities[key] = record.obj
            self.beside.install(record)
        return record is not None or removed is not None or is_system(key)
