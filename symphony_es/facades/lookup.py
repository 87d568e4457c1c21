"""Turns what a caller names an entity by into the live object: the object, an EntityReference, `"Type:id"` or the id alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from symphony_es.core.state.restore import UnrestoredEntity
from symphony_es.core.state.world import World
from symphony_es.errors import EntityNotFoundError, EntityOutOfStepError, EntityTypeError, UnknownValueError
from symphony_es.events.identifiers import entity_key
from symphony_es.events.references import EntityReference

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host

__all__ = ["entity_to_hold", "find_entity", "flush_added", "get_entity", "is_in_log", "key_of", "load_entity"]

_T = TypeVar("_T")


def key_of(entity_type: str, given: Any) -> str:
    """The key `Type:id` that a reference, key, id or object stands for.

    Raises:
        EntityTypeError: it stands for an entity of another type, or for none.
        InvalidIdentifierError: a text that is no id.
    """
    if isinstance(given, EntityReference):
        if given.entity_type != entity_type:
            raise EntityTypeError(f"{given.key} is no {entity_type}")
        return given.key
    if isinstance(given, str):
        return entity_key(entity_type, given.removeprefix(f"{entity_type}:"))
    identity = getattr(given, "id", None)
    if not isinstance(identity, str):
        raise EntityTypeError(f"expected a {entity_type}, its reference or its id, not {type(given).__name__}")
    return entity_key(entity_type, identity)


async def flush_added(symphony: Host, entity: Any) -> None:
    """Wait until an entity that has just been added is durable; one that the log cannot take is taken out again, and nobody else is told.

    Raises:
        LimitExceededError, UnstorableValueError: the log can never take it. Nothing has been appended.
        EntityOutOfStepError: the log could not append.
    """
    world = symphony.world
    try:
        await world.flush(entity)
    except EntityOutOfStepError:
        from symphony_es.core.state.refresh import put_back  # late: few calls need it

        record = world.record_of(entity)
        refused = await put_back(world, symphony.state_history, record) if record is not None else None
        if refused is None:
            raise
        raise refused from None


def find_entity(world: World, cls: type[_T], entity_type: str, given: Any) -> _T | None:
    """The live object, or None when there is none.

    Raises:
        EntityTypeError: what was given, or what is found, is no `cls`.
    """
    if isinstance(given, cls):
        return given
    key = key_of(entity_type, given)
    found = world.find(key)
    return None if found is None else _checked(cls, key, found)


def entity_to_hold(world: World, cls: type[_T], entity_type: str, given: Any) -> _T | EntityReference:
    """The live object that another entity is to hold; in a world under construction, where it may come later, its reference.

    Raises:
        EntityNotFoundError: there is none.
        EntityTypeError: what was given, or what is found, is no `cls`.
    """
    if world.restoring and not isinstance(given, cls):
        return EntityReference.parse(key_of(entity_type, given))
    return get_entity(world, cls, entity_type, given)


def get_entity(world: World, cls: type[_T], entity_type: str, given: Any) -> _T:
    """The live object.

    Raises:
        EntityNotFoundError: there is none.
        EntityTypeError: what was given, or what is found, is no `cls`.
        UnknownValueError: a class that its values need is not known here; the message says what to do.
    """
    if isinstance(given, cls):
        return given
    key = key_of(entity_type, given)
    return _checked(cls, key, world.get(key))


async def load_entity(symphony: Host, cls: type[_T], entity_type: str, given: Any) -> _T:
    """The object, also of what is at rest in the log: that is brought from there with all that it refers to.

    Errors are those of `get_entity`.
    """
    world = symphony.world
    if isinstance(given, cls) or world.restoring:
        return get_entity(world, cls, entity_type, given)
    key = key_of(entity_type, given)
    if key not in world.records:
        held = world.at_rest(key)
        if held is not None:
            return _checked(cls, key, held.obj)
        if await is_in_log(symphony, key):
            await symphony.load_entities([key], strict=False, keep_failed=True)
    return _checked(cls, key, symphony.world.get(key))


async def is_in_log(symphony: Host, key: str) -> bool:
    """Whether the log has an entity alive that is not live here."""
    world = symphony.world
    if key in world.records or key in world.removed or not (world.has_at_rest or world.in_part):
        return False
    return bool(symphony.log.entity_status_now(key)[1])


def _checked(cls: type[_T], key: str, found: Any) -> _T:
    if isinstance(found, UnrestoredEntity) and found.missing:
        raise UnknownValueError(found.missing)
    if isinstance(found, UnrestoredEntity):
        raise EntityNotFoundError(key, f"it is in the log, but could not be restored: {found.reason}")
    if not isinstance(found, cls):
        raise EntityTypeError(f"{key} is a {type(found).__name__}, not a {cls.__name__}")
    return found
