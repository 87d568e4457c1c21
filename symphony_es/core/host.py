"""What facades, the engine and restorers need of the Symphony they belong to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Protocol

from symphony_es.core.objects.restorers import Restoring

if TYPE_CHECKING:
    from symphony_es.core.past.names import Names
    from symphony_es.core.past.states import StateHistory
    from symphony_es.core.past.time_travel import TimeTravel
    from symphony_es.core.world.world import World
    from symphony_es.log.log import EventLog
    from symphony_es.registry import NamedCallables

__all__ = ["Host"]


class Host(Restoring, Protocol):
    """The part of a Symphony that lower layers may rely on."""

    @property
    def world(self) -> World:
        """The live objects, or the ones under construction while restoring."""
        ...

    @property
    def log(self) -> EventLog:
        """The log."""
        ...

    def service(self, name: str) -> Any:
        """Return a service of an open Symphony."""
        ...

    @property
    def flows(self) -> NamedCallables:
        """Functions of code-first workflows by name."""
        ...

    @property
    def state_history(self) -> StateHistory:
        """Past states."""
        ...

    async def pass_damage(self) -> None:
        """Have a snapshot made behind the damaged events that are passed over."""
        ...

    @property
    def run_notes(self) -> dict[str, Any]:
        """Rows of runs that have ended, by key, which the list of runs has not taken in yet."""
        ...

    @property
    def run_listing(self) -> Any:
        """The list of runs."""
        ...

    @property
    def names(self) -> Names:
        """What arguments that name entities and types mean here."""
        ...

    def error_on_record(self, error: BaseException) -> str:
        """Return class and message of an error, as the rules for redaction let them be put on record."""
        ...

    @property
    def persistence_enabled(self) -> bool:
        """Whether there is a log on disk."""
        ...

    async def load_entities(self, keys: Sequence[str], *, strict: bool, keep_failed: bool = False) -> None:
        """Make entities live that wait in the log: for the facade of entities."""
        ...

    def while_nothing_loads(self, what: str) -> AbstractAsyncContextManager[None]:
        """Return a block while which no resume and no load makes entities live."""
        ...

    @property
    def past(self) -> TimeTravel:
        """Every question about the past of the log."""
        ...

    async def create_checkpoint(self, name: str | None = None, metadata: Mapping[str, Any] | None = None) -> str:
        """Name the present position; return the checkpoint's id."""
        ...

    async def take_checkpoint(self, name: str, metadata: Mapping[str, Any]) -> str:
        """Name the present position without a look at objects of foreign classes: for the engine."""
        ...

    async def list_checkpoints(self, *, limit: int | None = None, run: Any = None, name: str | None = None) -> list[dict[str, Any]]:
        """Return at most so many checkpoints, of a run or of a name, newest first."""
        ...

    async def delete_checkpoint(self, checkpoint: str) -> bool:
        """Remove a checkpoint by id or name; whether there was one."""
        ...

    def on_restore(self, callback: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Have a callback called after every resume."""
        ...
