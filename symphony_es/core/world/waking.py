"""Calling the hooks of restored objects (see `objects.hooks`), without letting them change what the log says.

While hooks run, what they change in stored fields is noted and undone afterwards, in place: objects that a hook keeps for itself stay the
ones that the entity holds. A hook that raises costs its own entity only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.making import hook_failed
from symphony_es.core.objects.plain import record_above
from symphony_es.events.changes import Change
from symphony_es.events.references import Path
from symphony_es.events.values import Tagged
from symphony_es.failures import has_failed

if TYPE_CHECKING:
    from symphony_es.core.world.live_entity import EntityRecord
    from symphony_es.core.world.world import World

__all__ = ["Watch", "call_hooks", "watched"]


class Watch:
    """What hooks have changed, in order, with what undoes it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Path, tuple[Any, ...]]] = []

    def sink_of(self, record: EntityRecord) -> WatchedEntity:
        """Return where changes of one entity are noted."""
        return WatchedEntity(self, record.key)

    def undo(self, states: Mapping[str, dict[str, Any]]) -> None:
        """Take back what was changed in stored fields; where a state has nothing at that place, what a hook put there stays."""
        for key, path, undo in reversed(self.seen):
            if stands_in(states.get(key), path):
                undo[0](*undo[1:])


class WatchedEntity:
    """The sink of one entity while hooks run."""

    __slots__ = ("_key", "_watch")

    def __init__(self, watch: Watch, key: str) -> None:
        self._watch, self._key = watch, key

    def keep(self, change: Change, undo: tuple[Any, ...]) -> None:
        """Note a change."""
        self._watch.seen.append((self._key, change[1], undo))

    def note(self, undo: tuple[Any, ...]) -> None:
        """Do nothing: what stands there is equal to what stood there."""


def stands_in(state: Any, path: Path) -> bool:
    """Return whether a plain state has something at a path."""
    for key in path:
        holder = state.data if type(state) is Tagged else state
        if isinstance(holder, dict):
            if key not in holder:
                return False
        elif not isinstance(holder, (list, tuple)) or not isinstance(key, int) or key >= len(holder):
            return False
        items: Any = holder
        state = items[key]
    return state is not None or bool(path)


@contextmanager
def watched(world: World, states: Mapping[str, dict[str, Any]]) -> Iterator[None]:
    """Note what is changed in a world's objects meanwhile, record nothing of it, and undo it at the end; `states` are what the log says."""
    watch = Watch()
    before = world.restoring
    world.restoring, world.watch = True, watch
    try:
        yield
    finally:
        watch.undo(states)
        world.restoring, world.watch = before, None


def call_hooks(objects: Iterable[Any]) -> dict[str, str]:
    """Call the hook of each object; return why it failed, by the key of the entity that holds the object.

    An object that its entity no longer holds, as after an upcast that leaves it out, is nobody's: that its hook failed concerns nobody.
    """
    failed: dict[str, str] = {}
    for made in objects:
        try:
            type(made)._symphony_spec.hook(made)
        except BaseException as error:  # it is code of the application: its entity is kept as it is stored, and says why
            if not has_failed(error):
                raise
            record = record_above(made)
            if record is not None:
                failed[record.key] = hook_failed(made, error)
    return failed
