"""Runs that leave the log's present while a Symphony is open: what is live stays, and whoever has an object in hand is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING

from symphony_es.errors import SymphonyError
from symphony_es.workflow.runs.pruning import Pruning
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import ENDED

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.log.writer import Ticket
    from symphony_es.workflow.engine.resting import Resting
    from symphony_es.workflow.runs.filters import RunFilter
    from symphony_es.workflow.runs.pruning import PruneReport

__all__ = ["LivingRuns", "prune"]


async def prune(symphony: Host, resting: Resting, wanted: RunFilter, before: int, *, dry_run: bool = False) -> PruneReport:
    """Prune the runs of a Symphony that writes, see `Workflows.prune_runs`.

    Args:
        symphony: whose. resting: brings runs to rest.
        wanted: which; of a status that runs end with.
        before: they ended then or earlier, microseconds since 1970.
        dry_run: append nothing.
    """
    await symphony.world.outbox.flush([])
    living = LivingRuns(symphony, resting)
    pruning = Pruning(symphony.log, symphony.state_history, symphony.run_listing, living)
    with living.noting_references():
        return await pruning.run(wanted, before, dry_run=dry_run)


class LivingRuns:
    """The live objects of a Symphony that prunes.

    Args:
        symphony: whose. resting: brings runs to rest.
    """

    def __init__(self, symphony: Host, resting: Resting) -> None:
        self._symphony = symphony
        self._resting = resting
        self._came_to_refer: set[str] = set()

    @contextmanager
    def noting_references(self) -> Iterator[None]:
        """Count all references to runs that come up in the block, also those of entities that are not live any more when that is asked."""
        world, told = self._symphony.world, self._came_to_refer.add
        world.reference_watches = (*world.reference_watches, told)
        try:
            yield
        finally:
            world.reference_watches = tuple(each for each in world.reference_watches if each is not told)

    def while_nothing_loads(self) -> AbstractAsyncContextManager[None]:
        """Return a block while which nothing at rest becomes live."""
        return self._symphony.while_nothing_loads("a prune")

    def keeps(self, key: str) -> bool:
        """Return whether a run or task is live, a living entity has come to refer to it, or a request under way reads what the run was.

        A run that may rest is brought to rest first.
        """
        world = self._symphony.world
        record = world.records.get(key)
        if record is not None and isinstance(record.obj, Workflow) and record.obj.status in ENDED:
            self._resting.rest(record.obj)
        if key in world.records or key in self._came_to_refer or world.is_referred(key):
            return True
        return self._resting.uses(key.partition(":")[2])

    def leave(self, keys: Iterable[str], ticket: Ticket) -> None:
        """Take note of what is being pruned: its objects are detached, unless the log does not take it."""
        world, count = self._symphony.world, len(ticket.events)
        parted = world.part_from(keys)

        def settled(ticket: Ticket) -> None:
            try:
                ticket.result()
            except SymphonyError:  # told to whoever waits for it
                world.take_back(parted)
            else:
                with world.lock:
                    world.count(-count)

        ticket.add_done_callback(settled)
        world.outbox.on_submitted(ticket.size_bytes)
