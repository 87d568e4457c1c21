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
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import Mapper, StoredEvent

from symphony_es.shown import quoted

__all__ = ["LoadedTopicsMapper"]

TAggregateID = TypeVar("TAggregateID", bound=UUID | str)


class LoadedTopicsMapper(Mapper[TAggregateID]):
    """The library's own mapper, but that it imports nothing."""

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEventProtocol[TAggregateID]:
        """The domain event of a stored one.

        Raises:
            TopicError: its topic, or one that its state names, is not a class that this process has loaded.
            MapperDeserialisationError: its state cannot be read.
        """
        check_loaded(stored_event.topic)
        event = super().to_domain_event(stored_event)
        for name in _NAMING:  # what the library resolves later, to apply the event
            topic = vars(event).get(name)
            if isinstance(topic, str):
                check_loaded(topic)
        return event


_NAMING = ("originator_topic", "topic")
"""Attributes of the library's events that hold the topic of an aggregate's class."""


def check_loaded(topic: str) -> None:
    """Find that a topic was registered, or names a class of a module that was imported.

    Raises:
        TopicError: it does not.
    """
    registered: Mapping[str, object] = vars(utils)["_topic_cache"]
    if topic in registered:
        return
    module_name, _, path = topic.partition(":")
    parts = path.split(".")
    for end in range(len(parts) - 1, 0, -1):
        if (holder := registered.get(f"{module_name}:{'.'.join(parts[:end])}")) is not None:
            return _check_class(topic, holder, parts[end:])
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
    _check_class(topic, sys.modules[module_name], parts)


def _check_class(topic: str, holder: object, parts: Sequence[str]) -> None:
    for part in parts:
        holder = getattr_static(holder, part, None)  # a module's own __getattr__ may import
    if not isinstance(holder, type):
        raise utils.TopicError(
            f"the topic {quoted(topic)} names no class that there is: name the class that it is now with register_topic()"
        )
