"""Which snapshots are worth their room: docs/decisions/0002-snapshot-retention.md. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from symphony_es.core.past.snapshots.format import SnapshotInfo

__all__ = ["spares_little", "superfluous_snapshots"]

WORTH = 1.5
"""How much heavier the way to a position must be without a snapshot than with it: reading half as much again is no great loss."""


def spares_little(info: SnapshotInfo, older: SnapshotInfo | None, events_bytes: int) -> bool:
    """Return whether a replay reads hardly less with a snapshot than without it.

    Without it there are an older one, or nothing, and the events from there on. What was only created and not changed since, say a run
    with a large definition, weighs the same either way.

    Args:
        events_bytes: what the events after the older one (the log's beginning) up to this one weigh.
    """
    return (older.size_bytes if older is not None else 0) + events_bytes < WORTH * info.size_bytes


def superfluous_snapshots(newest_first: Sequence[SnapshotInfo], log_bytes: int, fraction: float) -> list[SnapshotInfo]:
    """Return those to remove, so that all but the newest weigh at most `fraction` of the log.

    The one whose removal leaves the smallest gap between its neighbours goes first (of equals, the oldest), so that the gaps that
    a replay has to bridge stay even. The beginning of the log is a neighbour, too: it needs no snapshot.
    """
    kept = list(newest_first)
    removed = []
    weight = sum(info.size_bytes for info in kept[1:])
    while len(kept) > 1 and weight > log_bytes * fraction:
        at = min(range(1, len(kept)), key=lambda number: (_gap(kept, number), -number))
        removed.append(kept.pop(at))
        weight -= removed[-1].size_bytes
    return removed


def _gap(kept: list[SnapshotInfo], number: int) -> int:
    older = kept[number + 1].position if number + 1 < len(kept) else 0
    return kept[number - 1].position - older
