"""The list of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from symphony_es.events.changes import REMOVE, Change
from symphony_es.events.event import Event
from symphony_es.events.values import copy_plain
from symphony_es.late_dataclasses import dataclass
from symphony_es_projections.projection import Projection

__all__ = ["CHECKPOINT_TYPE", "CheckpointEntry", "CheckpointList", "entry_of"]

CHECKPOINT_TYPE = "symphony.Checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointEntry:
    """One checkpoint.

    Attributes:
        position: the position it names; its own event comes after it.
        entity_count: how many of the application's entities were alive there.
        event_id: id (16 bytes) of the event that created it.
    """

    id: str
    name: str
    position: int
    entity_count: int
    metadata: dict[str, Any]
    created_at: datetime
    event_id: bytes

    def as_dict(self) -> dict[str, Any]:
        """Return it as `list_checkpoints` hands it out."""
        return {
            "id": self.id,
            "name": self.name,
            "created_at": self.created_at.isoformat(),
            "entity_count": self.entity_count,
            "position": self.position,
            "metadata": copy_plain(self.metadata),
        }


def entry_of(checkpoint_id: str, state: Mapping[str, Any], event_id: bytes, time_ns: int) -> CheckpointEntry:
    """Return the checkpoint whose state an event has made at a time, nanoseconds since 1970."""
    return CheckpointEntry(
        id=checkpoint_id,
        name=state["name"],
        position=state["position"],
        entity_count=state["entity_count"],
        metadata=state["metadata"],
        created_at=datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).replace(microsecond=time_ns % 1_000_000_000 // 1000),
        event_id=event_id,
    )


class CheckpointList(Projection):
    """All checkpoints that have not been deleted."""

    name = "checkpoints"
    event_names = ("CheckpointCreated", "CheckpointDeleted")

    def __init__(self) -> None:
        super().__init__()
        self._entries: dict[str, CheckpointEntry] = {}
        self._by_name: dict[str, list[str]] = {}

    def apply(self, event: Event) -> None:
        """Take one event in; one of the same name that an application has given to an entity of its own is none of these."""
        if event.entity_type == CHECKPOINT_TYPE:
            self.record(event.entity_id, event.changes[0], event.event_id, event.position, event.time_ns)

    def record(self, checkpoint_id: str, change: Change, event_id: bytes, position: int, time_ns: int) -> None:
        """Take in what an event at a position says of a checkpoint."""
        if change[0] == REMOVE:
            removed = self._entries.pop(checkpoint_id, None)
            if removed is not None:
                self._by_name[removed.name].remove(checkpoint_id)
        else:
            self._add(checkpoint_id, change, event_id, time_ns)
        self.position = max(self.position, position)  # last: what has failed can be tried again

    def _add(self, checkpoint_id: str, change: Change, event_id: bytes, time_ns: int) -> None:
        entry = entry_of(checkpoint_id, change[2], event_id, time_ns)
        self._entries[checkpoint_id] = entry
        self._by_name.setdefault(entry.name, []).append(checkpoint_id)

    def newest_first(self) -> list[CheckpointEntry]:
        """Return all checkpoints, newest first."""
        return list(reversed(self._entries.values()))

    def find(self, checkpoint: str) -> CheckpointEntry | None:
        """Return the one with an id, or else the newest one with a name."""
        found = self._entries.get(checkpoint)
        if found is None:
            named = self._by_name.get(checkpoint)
            return self._entries[named[-1]] if named else None
        return found
