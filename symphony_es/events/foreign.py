"""Foreign events: those of another library that stand in the log, told apart by the types of their entities.

A foreign event has no changes, so its entity has no state. Its data hold a topic and the bytes that belong to it, both untouched. It has
the next version of its entity, as every event has; where the other library counts otherwise, from 0 or with gaps, its own number stands
in the data, too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from symphony_es.errors import DamagedEventError
from symphony_es.events.identifiers import FOREIGN_PREFIX, entity_key
from symphony_es.events.rows import Row, decode_data
from symphony_es.shown import quoted

__all__ = [
    "AGGREGATE", "FOREIGN_PREFIX", "SNAPSHOT", "TRACKING", "Foreign", "ForeignEvent", "event_name", "followed_by", "foreign_data",
    "foreign_event", "tracking_key", "why_without_state",
]  # fmt: skip

AGGREGATE, SNAPSHOT, TRACKING = f"{FOREIGN_PREFIX}Aggregate", f"{FOREIGN_PREFIX}Snapshot", f"{FOREIGN_PREFIX}Tracking"
"""Types of entities: sequences of an aggregate's events, of its snapshots, and of how far an application has come in following another."""
MAX_NAME = 127
_OTHER_DATA = "its data are not those of a foreign event"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.]+")


class Foreign(NamedTuple):
    """A foreign event that is to be appended.

    Attributes:
        key: the entity that its sequence is.
        number: its place in that sequence, as the other library counts; from 0.
        topic: what kind of event it is, in the other library's words.
        state: its bytes.
    """

    key: str
    number: int
    topic: str
    state: bytes


class ForeignEvent(NamedTuple):
    """A foreign event of the log.

    Attributes:
        position, version: as of every event.
        key, number, topic, state: see `Foreign`.
        application: name of the application that has recorded it; empty where it had none.
        highest: the highest number of its sequence up to it, where the numbers of that have not always gone up; else None.
    """

    position: int
    version: int
    key: str
    number: int
    topic: str
    state: bytes
    application: str
    highest: int | None


def event_name(topic: str) -> str:
    """Return the name that a foreign event has in the log, for people: of the topic `shop.domain:Order.Placed` it is `Order.Placed`."""
    name = _NOT_IN_NAMES.sub("_", topic.rpartition(":")[2].rpartition("<locals>.")[2])
    return name[:MAX_NAME] if name and not (name[0].isdigit() or name[0] == ".") else f"_{name[: MAX_NAME - 1]}"


def foreign_event(row: Row) -> ForeignEvent | None:
    """Decode the foreign event of a row that its store has checked; None of another event, such as the repair of an entity.

    Raises:
        DamagedEventError: the row says nothing, or what no foreign event does.
    """
    position, key, version, _, _ = row
    data = decode_data(row)
    if type(data) is not dict or "topic" not in data:
        return None
    topic, state, number = data["topic"], data.get("state"), data.get("number", version)
    application, highest = data.get("application", ""), data.get("highest")
    if type(topic) is not str or type(state) is not bytes or type(number) is not int or type(application) is not str:
        raise DamagedEventError(position, key, _OTHER_DATA)
    if highest is not None and type(highest) is not int:
        raise DamagedEventError(position, key, _OTHER_DATA)
    return ForeignEvent(position, version, key, number, topic, state, application, highest)


def foreign_data(
    topic: str, state: bytes, version: int, *, number: int, application: str = "", highest: int | None = None
) -> dict[str, str | bytes | int]:
    """Return the data of a foreign event that has a version; see `ForeignEvent`."""
    data: dict[str, str | bytes | int] = {"topic": topic, "state": state}
    if number != version:
        data["number"] = number
    if application:
        data["application"] = application
    if highest is not None:
        data["highest"] = highest
    return data


def why_without_state(key: str) -> str | None:
    """Say why a foreign entity is nowhere among the states, and what to do; None of other entities."""
    if not key.startswith(FOREIGN_PREFIX):
        return None
    return f"what an eventsourcing application has recorded has events and no state: await symphony.history({quoted(key)}) gives them"


def tracking_key(application: str, followed: str) -> str:
    """Return the key of how far an application has come in following another.

    Raises:
        InvalidIdentifierError: the names make no id.
    """
    return entity_key(TRACKING, f"{application.replace('%', '%25').replace('/', '%2F')}/{followed}")


def followed_by(key: str) -> str:
    """Return the name of the application that is followed, of such a key."""
    return key.partition(":")[2].partition("/")[2]
