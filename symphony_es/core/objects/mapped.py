"""Objects of a mapper that keeps their values elsewhere: they are read through their mapped columns.

What happens to be loaded says nothing: an attribute that is expired or has not been loaded is read by asking the object for it, as its
application would, and the mapper then loads it. Relationships are no part of the state. The mappers themselves (SQLAlchemy, Django, peewee)
are never imported.
"""

from __future__ import annotations

from typing import Any

from symphony_es.errors import UnstorableValueError

__all__ = ["is_mapped", "mapped_names", "read_mapped"]


def is_mapped(cls: type) -> bool:
    """Return whether a mapper keeps the values of a class's objects."""
    return mapped_names(cls) is not None


def mapped_names(cls: Any) -> tuple[str, ...] | None:
    """Return the names under which a class's mapper gives its columns, or None for a class that has none."""
    mapper = getattr(cls, "__mapper__", None)
    if mapper is not None and hasattr(mapper, "column_attrs"):  # SQLAlchemy, SQLModel
        return tuple(column.key for column in mapper.column_attrs if hasattr(column.columns[0], "table"))
    meta: Any = getattr(cls, "_meta", None)
    columns = getattr(meta, "concrete_fields", None)
    if columns is not None:  # Django
        return tuple(column.attname for column in columns)
    names = getattr(meta, "sorted_field_names", None)
    if names is not None:  # peewee: a foreign key is read as its number, by the name of its column
        return tuple(getattr(meta.fields[name], "object_id_name", None) or name for name in names)
    return None


def read_mapped(obj: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of the columns; what is not loaded is loaded by the mapper.

    Raises:
        UnstorableValueError: a column cannot be loaded: the object is detached from its session, or its row is gone.
    """
    state = {}
    for name in names:
        try:
            state[name] = getattr(obj, name)
        except Exception as error:  # each mapper raises errors of its own
            said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]:.200}"
            raise UnstorableValueError(
                (name,),
                f"the mapper of {type(obj).__module__}.{type(obj).__qualname__} cannot load it ({said}): "
                "attach the object to a session or refresh it first, keep what is loaded (with SQLAlchemy: expire_on_commit=False), "
                'add it with capture="on_record", or write a restorer whose capture(obj) returns its state',
            ) from error
    return state
