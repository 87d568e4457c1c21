"""Opening a log together with what stands on it: its past states, its snapshots, its checkpoints."""

from __future__ import annotations

import asyncio
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from symphony_es.core.past.checkpoints import CheckpointManager, CheckpointReader
from symphony_es.core.past.snapshots.snapshotter import Snapshotter
from symphony_es.core.past.snapshots.store import SnapshotStore
from symphony_es.core.past.states import StateHistory
from symphony_es.log.directory import unavailable
from symphony_es.log.log import Anchor, EventLog
from symphony_es.system import is_directory

if TYPE_CHECKING:
    from symphony_es.core.past.audit import TrailOnDisk
    from symphony_es.core.past.time_travel import TimeTravel

__all__ = ["OpenedLog", "newest_anchor", "open_in_memory", "open_on_disk", "open_to_read"]


class OpenedLog:
    """A log that is open.

    Attributes:
        directory: where it is; None in memory, and then there are no snapshots and no checkpoints.
        snapshotter, checkpoints: None in memory, and where the log is open for reading only.
    """

    def __init__(
        self,
        *,
        log: EventLog,
        history: StateHistory,
        directory: Path | None = None,
        snapshotter: Snapshotter | None = None,
        checkpoints: CheckpointManager | None = None,
    ) -> None:
        self.log = log
        self.history = history
        self.directory = directory
        self.snapshotter = snapshotter
        self.checkpoints = checkpoints

    @cached_property
    def past(self) -> TimeTravel:
        """Time travel."""
        from symphony_es.core.past.time_travel import TimeTravel  # late: many programs never look back

        return TimeTravel(self.log, self.history, self.checkpoint_list, self.directory)

    @cached_property
    def checkpoint_list(self) -> CheckpointReader | None:
        """The list of checkpoints; None in memory."""
        if self.checkpoints is None and self.directory is not None:
            return CheckpointReader(self.log, self.directory / "projections")
        return self.checkpoints

    @cached_property
    def audit_trail(self) -> TrailOnDisk:
        """The audit trail that the process which writes the log has built."""
        from symphony_es.core.past.audit import TrailOnDisk

        assert self.directory is not None, "a log in memory has none"
        return TrailOnDisk(self.directory / "projections")

    async def settle(self) -> None:
        """Wait for the snapshot being written, and let go of the list of checkpoints and of the audit trail."""
        if "audit_trail" in self.__dict__:
            self.audit_trail.close()
        if self.checkpoint_list is not None:
            await self.checkpoint_list.close()
        if self.snapshotter is not None:
            await self.snapshotter.pass_damage()
            await self.snapshotter.close()

    async def close(self) -> None:
        """Wait for the snapshot being written, and close the log."""
        try:
            await self.settle()
        finally:
            await self.log.close()


def open_in_memory(memory_events: int) -> OpenedLog:
    """Return a bounded log in memory."""
    log = EventLog.in_memory(max_events=memory_events)
    return OpenedLog(log=log, history=StateHistory(log, None))


async def open_to_read(directory: Path, *, skip_damaged: bool = False, allow_shared: bool = False) -> OpenedLog:
    """Return the log in a directory for reading only: nothing is written, another process may be writing it, or the directory be read-only.

    Raises:
        LogUnavailableError: there is none, it cannot be read, or others than its owner could change it (and `allow_shared` is not given).
    """
    log = await EventLog.open_read_only(directory, skip_damaged=skip_damaged, allow_shared=allow_shared)
    try:
        history = StateHistory(log, await SnapshotStore(directory / "snapshots", read_only=True).open())
    except BaseException:
        await log.close()
        raise
    return OpenedLog(log=log, history=history, directory=directory)


def newest_anchor(directory: Path) -> Anchor | None:
    """Read what the newest snapshot says of the log; None where there is none. Blocking."""
    try:
        there = is_directory(directory)
    except OSError as error:
        raise unavailable(directory, error) from error
    newest = next(iter(SnapshotStore(directory / "snapshots", read_only=True).list()), None) if there else None
    return Anchor(position=newest.position, event_id=newest.event_id, commitment=newest.commitment) if newest is not None else None


async def open_on_disk(
    directory: Path, *, force_network_fs: bool, ignore_anchor: bool, skip_damaged: bool = False, allow_shared: bool = False
) -> OpenedLog:
    """Return the log in a directory, created when it is missing. Errors are those of `EventLog.open`.

    The newest snapshot's anchor is read first, without touching anything: the log must match it. What a crash left in the snapshot
    directory is removed only when the log, and with it the directory, is this process's to write.
    """
    log = await EventLog.open(
        directory,
        anchor=await asyncio.to_thread(newest_anchor, directory),
        force_network_fs=force_network_fs,
        allow_shared=allow_shared,
        ignore_anchor=ignore_anchor,
        skip_damaged=skip_damaged,
    )
    try:
        store = await SnapshotStore(directory / "snapshots").open()
        history = StateHistory(log, store)
        snapshotter = Snapshotter(log, store, history)
        snapshotter.open()
        await snapshotter.pass_damage()
    except BaseException:
        await log.close()
        raise
    return OpenedLog(
        log=log,
        history=history,
        directory=directory,
        snapshotter=snapshotter,
        checkpoints=CheckpointManager(log, snapshotter, directory / "projections"),
    )
