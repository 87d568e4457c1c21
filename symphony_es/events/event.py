"""Events: what happened, its effect, and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from symphony_es.events.changes import Change, EventChange
from symphony_es.events.identifiers import check_event_name, split_key, text_id
from symphony_es.events.readable import readable
from symphony_es.events.references import EntityReference
from symphony_es.late_dataclasses import dataclass

__all__ = ["ADOPTION_EVENT", "Event", "EventMetadata", "NewEvent", "check_event_name"]


ADOPTION_EVENT = "StateAdopted"
"""What brings the log in line with an object as its restorer made it: an upcast, a field with a default. Nobody has changed anything."""


@dataclass(slots=True, kw_only=True)
class EventMetadata:
    """Why an event happened, and on whose behalf; every field may be absent.

    Attributes:
        run_id: the workflow run it belongs to. step: address of the step in it. attempt: number of the attempt, from 1.
        cause: id (16 bytes) of the event that led to this one.
        actor: who acted. reason: why, in their words.
        trace_id: OpenTelemetry's. correlation_id: the application's own thread of events.
        state_version: version of the state's shape; on creation and on `StateAdopted`; None means 1.
        generation: how often a rewind has taken the entity back, on the event that does.
        user: the application's own keys.
    """

    run_id: str | None = None
    step: str | None = None
    attempt: int | None = None
    cause: bytes | None = None
    actor: str | None = None
    reason: str | None = None
    correlation_id: str | None = None
    trace_id: str | None = None
    state_version: int | None = None
    generation: int | None = None
    user: dict[str, Any] | None = None


@dataclass(slots=True, kw_only=True)
class NewEvent:
    """An event that has not been appended.

    Attributes:
        version: the one it will have: the entity's previous version and one.
        data: what it says beyond its effect; plain data.
        event_id: a UUIDv7, 16 bytes.
        transaction_id: the id of its transaction's first event; None when it is that one.
    """

    entity_key: str
    version: int
    name: str
    changes: Sequence[Change]
    metadata: EventMetadata
    data: Any = None
    event_id: bytes
    transaction_id: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Event:
    """An event of the log.

    Attributes:
        position: its place in the log. version: its place in its entity's history.
        time_ns: when it was committed, nanoseconds since 1970, UTC.
        transaction_id: id of the first event of its transaction (its own when it is that one).
        changes: its effect, in order; may be empty.
        data: what it says beyond its effect.
        fault: why it cannot be read, though its check value holds: it damages its entity. It has no changes and no data then.
    """

    position: int
    entity_key: str
    version: int
    name: str
    event_id: bytes
    time_ns: int
    transaction_id: bytes
    changes: tuple[EventChange, ...]
    metadata: EventMetadata
    data: Any = None
    fault: str | None = None

    @property
    def reference(self) -> EntityReference:
        """The entity it changed."""
        return EntityReference(*split_key(self.entity_key))

    @property
    def entity_type(self) -> str:
        """The type of the entity it changed."""
        return self.entity_key.partition(":")[0]

    @property
    def entity_id(self) -> str:
        """The id of the entity it changed."""
        return self.entity_key.partition(":")[2]

    @property
    def id(self) -> str:
        """The event id as 26 characters of text."""
        return text_id(self.event_id)

    @property
    def recorded_at(self) -> datetime:
        """When it was committed, to the microsecond."""
        seconds, rest = divmod(self.time_ns, 1_000_000_000)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)

    def __repr__(self) -> str:
        who = f" by {self.metadata.actor}" if self.metadata.actor else ""
        return f"<Event {self.position}: {self.name} of {self.entity_key} v{self.version}{who}, {self.recorded_at:%Y-%m-%d %H:%M:%S} UTC>"

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take: what happened, to what, when, why, and what it says beyond its effect; ids as text, times as ISO
        8601.

        The changes themselves are told by `EntityVersion.to_dict`, which knows what was there before.
        """
        known = {name: getattr(self.metadata, name) for name in EventMetadata.__dataclass_fields__}
        metadata = {name: readable(value) for name, value in known.items() if value is not None and name != "cause"}
        if self.metadata.cause is not None:
            metadata["cause"] = text_id(self.metadata.cause)
        return {
            "position": self.position,
            "entity": self.entity_key,
            "version": self.version,
            "name": self.name,
            "recorded_at": self.recorded_at.isoformat(),
            "id": self.id,
            "transaction": text_id(self.transaction_id),
            "metadata": metadata,
            "data": readable(self.data),
        }
