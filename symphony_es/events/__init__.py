"""The pure layer: values, changes, events, their encoding and their fold. No I/O."""

from symphony_es.events.event import Event, EventMetadata, NewEvent
from symphony_es.events.fold import EntityState, Fold
from symphony_es.events.identifiers import Position, Version
from symphony_es.events.references import EntityReference, Path, find_references
from symphony_es.events.values import Encrypted, Limits, Redacted, Tagged

__all__ = [
    "Encrypted",
    "EntityReference",
    "EntityState",
    "Event",
    "EventMetadata",
    "Fold",
    "Limits",
    "NewEvent",
    "Path",
    "Position",
    "Redacted",
    "Tagged",
    "Version",
    "find_references",
]
