"""Which snapshots can go: the files are looked at first, and only one that is whole counts as the one that a checkpoint loads from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection

from symphony_es.core.past.snapshots.store import SnapshotInfo, SnapshotStore
from symphony_es.errors import DecodeError, LogDamagedError, PositionNotFoundError
from symphony_es.events.rows import commitment, event_id_of
from symphony_es.late_dataclasses import dataclass
from symphony_es.log.log import EventLog
from symphony_es.system import present
from symphony_es.transfer.progress import in_thread
from symphony_es.transfer.snapshot_files import distrust_damaged

__all__ = ["SnapshotPlan", "plan_pruning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPlan:
    """What to do with the snapshots of a log.

    Attributes:
        going: whole ones that nobody needs to load fast.
        kept: whole ones that stay: the newest, and of each position that is asked for the nearest at or before it.
        damaged: those that cannot be trusted, as (name, why). They stay as well: what is left of them may be all that is left.
    """

    going: tuple[SnapshotInfo, ...]
    kept: tuple[SnapshotInfo, ...]
    damaged: tuple[tuple[str, str], ...]


async def plan_pruning(store: SnapshotStore, log: EventLog, positions: Collection[int]) -> SnapshotPlan:
    """Say which snapshots can go, and remove nothing. Costs the bytes of the snapshots; no state is loaded.

    What cannot be trusted is taken off the store's list.

    Args:
        positions: what is to be loaded as fast as now.

    Raises:
        StorageUnavailableError: the snapshots cannot be read.
    """
    infos = await in_thread(lambda _: store.list())
    await in_thread(lambda stop: distrust_damaged(store, infos, stop))
    for info in infos:
        if (why := await _not_of(log, info)) is not None:
            store.distrust(info, why)
    whole = await in_thread(lambda _: [info for info in store.list() if present(store.directory / info.name)])
    needed = {info.name for info in whole[:1]}
    ascending = whole[::-1]
    for position in positions:
        before = bisect_right(ascending, position, key=lambda info: info.position)
        needed.update(info.name for info in ascending[max(before - 1, 0) : before])
    return SnapshotPlan(
        going=tuple(info for info in whole if info.name not in needed),
        kept=tuple(info for info in whole if info.name in needed),
        damaged=tuple(store.damaged),
    )


async def _not_of(log: EventLog, info: SnapshotInfo) -> str | None:
    """Return why a snapshot is not known to be of this log; None where it is."""
    try:
        state = (await log.row_at(info.position))[4]
        same = (event_id_of(state), commitment(state)) == (info.event_id, info.commitment)
    except (DecodeError, LogDamagedError, PositionNotFoundError) as error:
        return f"its event cannot be read: {error}"
    return None if same else f"the log has another event at position {info.position}"
