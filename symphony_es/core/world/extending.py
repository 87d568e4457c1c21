"""Extending a text or bytes inside of an object: finding where it stands, and putting the new end to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.plain import attributes_of, kind_of
from symphony_es.errors import ConfigurationError, UnstorableValueError, format_path
from symphony_es.events.changes import TEXTS
from symphony_es.events.references import Path
from symphony_es.events.values import check_plain

if TYPE_CHECKING:
    from symphony_es.core.world.live_entity import EntityRecord

__all__ = ["check_extension", "extend_object", "place_of", "set_raw"]


def check_extension(record: EntityRecord, path: Path, tail: Any) -> None:
    """Refuse what can extend nothing, before anything is changed.

    Raises:
        UnstorableValueError: `tail` cannot be stored.
        ConfigurationError: it is neither text nor bytes, or the place is the id, which cannot change.
    """
    if type(tail) not in TEXTS:
        raise ConfigurationError(f"what extends a value is text or bytes, not {type(tail).__name__}")
    try:
        check_plain(tail, path)
    except UnstorableValueError as error:
        raise error.within(record.key) from None
    if path == ("id",):
        raise ConfigurationError(f"the id of {record.key} cannot change: remove the entity and add a new one")


def place_of(record: EntityRecord, path: Path, tail: str | bytes) -> tuple[Any, str | int, Any]:
    """Return what holds the value at a path of a live object, under which key, and the value.

    Raises:
        ConfigurationError: there is nothing that `tail` could extend.
    """
    holder, where = record.obj, f"{format_path(path) or 'the whole state'} of {record.key}"
    for key in path[:-1]:
        holder = _held(holder, key)
    old = _held(holder, path[-1]) if path else None
    if type(old) not in TEXTS or type(old) is not type(tail):
        kind = "nothing" if old is None else f"a {type(old).__name__}"
        raise ConfigurationError(f"there is {kind} at {where}, and {type(tail).__name__} cannot extend that: text extends text")
    if isinstance(holder, tuple) or kind_of(holder) == "value":
        raise ConfigurationError(f"what stands at {where} cannot change: assign what holds it anew")
    return holder, path[-1], old


def _held(holder: Any, key: str | int) -> Any:
    if isinstance(holder, dict):
        return holder.get(key)
    if isinstance(holder, (list, tuple)):
        return holder[key] if isinstance(key, int) and 0 <= key < len(holder) else None
    spec = getattr(type(holder), "_symphony_spec", None)
    return getattr(holder, str(key), None) if spec is not None and key in spec.fields else None


def set_raw(holder: Any, key: Any, value: Any) -> None:
    """Set a value past the recording, which is done beside it."""
    if isinstance(holder, list):
        list.__setitem__(holder, key, value)
    elif isinstance(holder, dict):
        dict.__setitem__(holder, key, value)
    else:
        attributes_of(holder)[key] = value


def extend_object(obj: Any, path: Path, tail: Any) -> None:
    """Extend a value of an object that does not track itself, through its own attributes and items."""
    if not path:
        raise ConfigurationError("a whole object cannot be extended: name the place of a text or bytes in it")
    holder: Any = obj
    try:
        for key in path[:-1]:
            items: Any = holder
            holder = items[key] if isinstance(holder, (list, dict)) else getattr(holder, str(key))
        inside = isinstance(holder, (list, dict))
        items = holder
        old: Any = items[path[-1]] if inside else getattr(holder, str(path[-1]))
    except (LookupError, TypeError, AttributeError):
        raise ConfigurationError(f"there is nothing at {format_path(path)} that {type(tail).__name__} could extend") from None
    if type(old) not in TEXTS or type(old) is not type(tail):
        raise ConfigurationError(f"there is a {type(old).__name__} at {format_path(path)}, which a {type(tail).__name__} cannot extend")
    if inside:
        items[path[-1]] = old + tail
    else:
        setattr(holder, str(path[-1]), old + tail)
