"""What every projection is: a read model that a log's events are fed to, in order, and that can be rebuilt at any time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from symphony_es.errors import ConfigurationError
from symphony_es.events.event import Event
from symphony_es.shown import quoted

__all__ = ["Projection"]


class Projection(ABC):
    """A read model in memory.

    Attributes:
        name: what it is called.
        version: raised when `apply` changes, so that what was built before is rebuilt.
        event_names: the events it wants; empty for all.
        position: the last position it was fed; events at or before it are passed over.
        rebuilding: whether a runner builds it anew at the moment, so that effects beyond it can be left out.
    """

    name: str
    version: int = 1
    event_names: tuple[str, ...] = ()
    rebuilding: bool = False

    def __init__(self) -> None:
        self.position = 0

    def feed(self, events: Sequence[Event]) -> None:
        """Apply events in the order of their positions; those seen already change nothing.

        Raises:
            ConfigurationError: `event_names` is a text instead of a tuple of them; nothing has been applied.
        """
        wanted = self.event_names
        if isinstance(wanted, str):  # each part of the text would be a name: "Pai" in "Paid"
            raise ConfigurationError(
                f"event_names of {type(self).__name__} is one text: write `event_names = ({quoted(wanted)},)`, with the comma"
            )
        for event in events:
            if event.position > self.position:
                if not wanted or event.name in wanted:
                    self.apply(event)
                self.position = event.position

    @abstractmethod
    def apply(self, event: Event) -> None:
        """Take one event in."""
