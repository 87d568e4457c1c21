"""The mapper of an `eventsourcing` application on this log: a topic means a class that the application has loaded.

That library imports whatever module the topic of a stored event names. A log is data, and data choose no code: here a topic whose module
nobody has imported is an error that says what to import.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from inspect import getattr_static
from typing import TypeVar
from uuid import UUID

from eventsourcing import utils
from eventsourcing.domain import BaseAggregate, CanInitAggregate, CanSnapshotAggregate, DomainEventProtocol
from eventsourcing.persistence import Mapper, StoredEvent

from symphony_es.shown import quoted

__all__ = ["LoadedTopicsMapper"]

TAggregateID = TypeVar("TAggregateID", bound=UUID | str)


class LoadedTopicsMapper(Mapper[TAggregateID]):
    """The library's own mapper, but that it imports nothing."""

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEventProtocol[TAggregateID]:
        """Make the domain event of a stored one.

        Raises:
            TopicError: its topic, or one that its state names, is not a class that this process has loaded.
            MapperDeserialisationError: its state cannot be read.
        """
        check_loaded(stored_event.topic)
        event = super().to_domain_event(stored_event)
        for kind, name in ((CanInitAggregate, "originator_topic"), (CanSnapshotAggregate, "topic")):
            if isinstance(
                event, kind
            ):  # their `mutate` makes an object of a class that the state names; an application's own may do otherwise
                check_loaded(str(vars(event).get(name)), BaseAggregate if type(event).mutate is kind.mutate else object)
        return event


def check_loaded(topic: str, base: type = object) -> None:
    """Find that a topic was registered, or names a class of a module that was imported.

    Args:
        topic: the topic.
        base: what the class must be, or inherit from.

    Raises:
        TopicError: it does not.
    """
    registered: Mapping[str, object] = vars(utils)["_topic_cache"]
    if topic in registered:
        return _check_class(topic, registered[topic], (), base)
    module_name, _, path = topic.partition(":")
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        if (holder := registered.get(f"{module_name}:{'.'.join(parts[:end])}")) is not None:
            return _check_class(topic, holder, parts[end:], base)
    packages = module_name.split(".")
    for end in range(len(packages), 0, -1):
        if (holder := registered.get(".".join(packages[:end]))) is not None:
            module_name = ".".join([getattr(holder, "__name__", ""), *packages[end:]])
            break
    if module_name not in sys.modules:
        raise utils.TopicError(
            f"the topic {quoted(topic)} is of a module that this process has not imported, and nothing is imported because a log names it: "
            f"import {quoted(module_name)} where the application is defined, or name the class that it is now with register_topic()"
        )
    _check_class(topic, sys.modules[module_name], parts, base)


def _check_class(topic: str, holder: object, parts: Sequence[str], base: type) -> None:
    for part in parts:
        holder = getattr_static(holder, part, None)  # a module's own __getattr__ may import
    if not isinstance(holder, type) or not issubclass(holder, base):
        wanted = "class that there is" if base is object else "class of aggregates"
        raise utils.TopicError(f"the topic {quoted(topic)} names no {wanted}: name the class that it is now with register_topic()")
