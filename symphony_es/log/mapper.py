"""Between `eventsourcing`'s stored events and this library's: a closed mapper, for which a topic is a name and nothing else.

The library's own mapper resolves the topic of a stored row as a Python object, which imports whatever a row names. This one never
does: any event of format 1 decodes without the application's classes.
"""

from __future__ import annotations

from typing import Any

from eventsourcing.persistence import Mapper, Notification, StoredEvent

from symphony_es.errors import DamagedEventError
from symphony_es.events.event import Event
from symphony_es.events.rows import decode_row, seal_state
from symphony_es.log.recorder import PreparedEvent

__all__ = ["LogMapper"]


class LogMapper(Mapper[Any]):
    """Maps events of this library to the stored events of `eventsourcing`, and back."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take, without need of it, what the infrastructure factory hands to a mapper."""

    def to_stored_event(self, domain_event: Any) -> StoredEvent:
        """Return a prepared event, sealed without a position: for a store that assigns positions itself."""
        event: PreparedEvent = domain_event
        state = seal_state(0, event.entity_key, event.version, event.name, event.event_id, 0, event.body)
        return StoredEvent(
            originator_id=event.entity_key,
            originator_version=event.version,
            topic=event.name,
            state=state,
        )

    def to_domain_event(self, stored_event: StoredEvent) -> Event:  # type: ignore[override]
        """Return the event of a notification, checked.

        Raises:
            DamagedEventError: it is damaged, or has no position because it was not read as a notification.
        """
        if not isinstance(stored_event, Notification):
            raise DamagedEventError("unknown", stored_event.originator_id, "only notifications know their position")
        row = (stored_event.id, str(stored_event.originator_id), stored_event.originator_version, stored_event.topic, stored_event.state)
        return decode_row(row)
