"""Opening a log together with what stands on it: its past states, its snapshots, its checkpoints."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from symphony_es.core.state.checkpoint import CheckpointManager, CheckpointReader
from symphony_es.core.state.history import StateHistory
from symphony_es.core.state.past.time_travel import TimeTravel
from symphony_es.core.state.snapshots.snapshotter import Snapshotter
from symphony_es.core.state.snapshots.store import SnapshotStore
from symphony_es.log.log import Anchor, EventLog

__all__ = ["OpenedLog", "open_in_memory", "open_on_disk", "open_to_read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedLog:
    """A log that is open.

    Attributes:
        past: time travel.
        directory: where it is; None in memory, and then there are no snapshots and no checkpoints.
        snapshotter, checkpoints: None in memory, and where the log is open for reading only.
    """

    log: EventLog
    history: StateHistory
    past: TimeTravel
    directory: Path | None = None
    snapshotter: Snapshotter | None = None
    checkpoints: CheckpointManager | None = None

    async def close(self) -> None:
        """Wait for the snapshot being written, and close the log."""
        try:
            if self.snapshotter is not None:
                await self.snapshotter.close()
        finally:
            await self.log.close()


def open_in_memory(memory_events: int) -> OpenedLog:
    """A bounded log in memory."""
    log = EventLog.in_memory(max_events=memory_events)
    history = StateHistory(log, None)
    return OpenedLog(log=log, history=history, past=TimeTravel(log, history, None))


async def open_to_read(directory: Path) -> OpenedLog:
    """The log in a directory for reading only: nothing is written, another process may be writing it, or the directory be read-only.

    Raises:
        LogUnavailableError: there is none, or it cannot be read.
    """
    log = await EventLog.open_read_only(directory)
    try:
        history = StateHistory(log, await SnapshotStore(directory / "snapshots", read_only=True).open())
    except BaseException:
        await log.close()
        raise
    return OpenedLog(log=log, history=history, past=TimeTravel(log, history, CheckpointReader(log), directory), directory=directory)


async def open_on_disk(directory: Path, *, force_network_fs: bool, ignore_anchor: bool) -> OpenedLog:
    """The log in a directory, created when it is missing. Errors are those of `EventLog.open`.

    The newest snapshot's anchor is read first, without touching anything: the log must match it. What a crash left in the snapshot
    directory is removed only when the log, and with it the directory, is this process's to write.
    """
    newest = None
    if await asyncio.to_thread(directory.is_dir):
        looked_at = await SnapshotStore(directory / "snapshots", read_only=True).open()
        newest = next(iter(looked_at.list()), None)
    anchor = Anchor(position=newest.position, event_id=newest.event_id, commitment=newest.commitment) if newest is not None else None
    log = await EventLog.open(directory, anchor=anchor, force_network_fs=force_network_fs, ignore_anchor=ignore_anchor)
    try:
        store = await SnapshotStore(directory / "snapshots").open()
        history = StateHistory(log, store)
        snapshotter = Snapshotter(log, store, history)
        snapshotter.open()
    except BaseException:
        await log.close()
        raise
    checkpoints = CheckpointManager(log, snapshotter)
    past = TimeTravel(log, history, checkpoints, directory)
    return OpenedLog(log=log, history=history, past=past, directory=directory, snapshotter=snapshotter, checkpoints=checkpoints)
