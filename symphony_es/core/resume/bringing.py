"""Entities by their keys, wherever they are: live, at rest in somebody's hand, or in the log, from where they are brought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from symphony_es.core.objects.restorers import UnrestoredEntity
from symphony_es.errors import EntityNotFoundError, EntityTypeError, RunPrunedError, UnknownValueError

if TYPE_CHECKING:
    from symphony_es.core.host import Host

__all__ = ["checked", "is_in_log", "load_entity", "refuse_pruned"]

_T = TypeVar("_T")


async def load_entity(symphony: Host, cls: type[_T], key: str) -> _T:
    """Return the object of an entity; what is not live is brought from the log with all that it refers to.

    Raises:
        EntityNotFoundError: there is none; `RunPrunedError` of a run that was pruned.
        EntityTypeError: what is found is no `cls`.
        UnknownValueError: a class that its values need is not known here; the message says what to do.
    """
    world = symphony.world
    if key not in world.records and not world.restoring:
        held = world.at_rest(key)
        if held is not None:
            return checked(cls, key, held.obj)
        if is_in_log(symphony, key):
            await symphony.load_entities([key], strict=False, keep_failed=True)
        else:
            refuse_pruned(symphony, key)
    return checked(cls, key, symphony.world.get(key))


def refuse_pruned(symphony: Host, key: str) -> None:
    """Say of a run, or a task of one, that is not there any more that it was pruned.

    Raises:
        RunPrunedError: it was.
    """
    position = symphony.log.pruned_at(key)
    if position is not None:
        raise RunPrunedError(key, position)


def is_in_log(symphony: Host, key: str) -> bool:
    """Return whether the log has an entity alive that is not live here."""
    world = symphony.world
    if key in world.records or key in world.removed or not (world.has_at_rest or world.in_part):
        return False
    return bool(symphony.log.entity_status_now(key)[1])


def checked(cls: type[_T], key: str, found: Any) -> _T:
    """Return what was found under a key.

    Errors are those of `load_entity`.
    """
    if isinstance(found, UnrestoredEntity) and found.missing:
        raise UnknownValueError(found.missing)
    if isinstance(found, UnrestoredEntity):
        raise EntityNotFoundError(key, f"it is in the log, but could not be restored: {found.reason}")
    if not isinstance(found, cls):
        raise EntityTypeError(f"{key} is a {type(found).__name__}, not a {cls.__name__}")
    return found
