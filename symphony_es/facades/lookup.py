"""Turns what a caller names an entity by into the live object: the object, an EntityReference, `"Type:id"` or the id alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from symphony_es.core.resume.bringing import checked
from symphony_es.core.world.world import World
from symphony_es.errors import ConfigurationError, EntityOutOfStepError, EntityTypeError
from symphony_es.events.identifiers import entity_key
from symphony_es.events.references import EntityReference
from symphony_es.shown import shown

if TYPE_CHECKING:
    from symphony_es.core.host import Host

__all__ = ["entity_to_hold", "find_entity", "flush_added", "get_entity", "given_mapping", "given_texts", "key_of"]

_T = TypeVar("_T")


def given_mapping(name: str, given: object) -> Mapping[str, Any]:
    """Return what an argument holds; nothing, where it was left out.

    Raises:
        ConfigurationError: it is not a mapping, or one with a key that is no text.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise ConfigurationError(f"{name} is a dict whose keys are texts, not {shown(given)}")
    return given


def given_texts(name: str, given: object, what: str) -> list[str]:
    """Return the texts that an argument holds.

    Raises:
        ConfigurationError: it is one text, which would be taken apart, or holds something else.
    """
    texts: list[Any] = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise ConfigurationError(f"{name} are {what}, in a list, not {shown(given)}")
    return texts


def key_of(entity_type: str, given: Any) -> str:
    """Return the key `Type:id` that a reference, key, id or object stands for.

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
        from symphony_es.core.resume.refreshing import put_back  # late: few calls need it

        record = world.record_of(entity)
        refused = await put_back(world, symphony.state_history, record) if record is not None else None
        if refused is None:
            raise
        raise refused from None


def find_entity(world: World, cls: type[_T], entity_type: str, given: Any) -> _T | None:
    """Return the live object, or None when there is none.

    Raises:
        EntityTypeError: what was given, or what is found, is no `cls`.
    """
    if isinstance(given, cls):
        return given
    key = key_of(entity_type, given)
    found = world.find(key)
    return None if found is None else checked(cls, key, found)


def entity_to_hold(world: World, cls: type[_T], entity_type: str, given: Any) -> _T | EntityReference:
    """Return the live object that another entity is to hold; in a world under construction, where it may come later, its reference.

    Raises:
        EntityNotFoundError: there is none.
        EntityTypeError: what was given, or what is found, is no `cls`.
    """
    if world.restoring and not isinstance(given, cls):
        return EntityReference.parse(key_of(entity_type, given))
    return get_entity(world, cls, entity_type, given)


def get_entity(world: World, cls: type[_T], entity_type: str, given: Any) -> _T:
    """Return the live object.

    Raises:
        EntityNotFoundError: there is none.
        EntityOwnershipError: the object that was given belongs to another Symphony.
        EntityTypeError: what was given, or what is found, is no `cls`.
        UnknownValueError: a class that its values need is not known here; the message says what to do.
    """
    if isinstance(given, cls):
        world.refuse_others(given)
        return given
    key = key_of(entity_type, given)
    return checked(cls, key, world.get(key))
