"""Values that cross the boundary of a step: outputs, arguments, signals and the context of a run.

What the fields of an entity hold is tracked, so an object that changes in place unseen is refused there. What a step returns does not
change any more: an object of a class with declared fields (dataclass, pydantic, attrs, named tuple) is stored as a tagged value, and the
run holds one that was made of what is stored. Each reader gets a copy of its own. It is the same in the process that ran the step and in
the one that goes on after a crash.
"""

from __future__ import annotations

import dataclasses
import inspect
import types as python_types
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.tracking.capture import field_names, plain_value
from symphony_es.core.state.tracking.live import kind_of
from symphony_es.core.state.tracking.mapped import is_mapped
from symphony_es.core.state.tracking.rebuilding import revive
from symphony_es.errors import ConfigurationError, UnstorableValueError
from symphony_es.events.references import find_references

if TYPE_CHECKING:
    from symphony_es.core.state.membership import Membership

__all__ = ["Boundary", "fit_arguments", "is_object"]


def is_object(value: Any) -> bool:
    """Whether a value is an object of a foreign class with declared fields."""
    cls = type(value)
    return field_names(cls) is not None and kind_of(value) is None and not is_mapped(cls)


class Boundary:
    """A world as the values of a run see it: they may be objects of foreign classes."""

    takes_objects = True

    def __init__(self, world: Membership) -> None:
        self._world = world
        self.types = world.types

    def __getattr__(self, name: str) -> Any:
        """Everything else is the world's."""
        return getattr(self._world, name)

    def keep(self, value: Any) -> Any | None:
        """An object of a foreign class as a run holds it: one of its own, made of what is stored; None for anything else.

        Raises:
            UnstorableValueError: it holds what cannot be stored, or a live entity.
        """
        return revive(self.plain(value), self.types) if is_object(value) else None

    def plain(self, value: Any) -> Any:
        """What is stored of it.

        Raises:
            UnstorableValueError: it cannot be stored; or it holds a live entity.
        """
        plain = plain_value(value, self._world)
        for path, reference in find_references(plain):
            raise UnstorableValueError(path, f"a {type(value).__qualname__} cannot hold the entity {reference.key} here: hand on its id")
        return plain


def fit_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a function, with objects made of dicts where its annotations ask for a dataclass, a pydantic or an attrs class.

    Raises:
        ConfigurationError: a dict does not fit the class; the parameter is named.
    """
    try:
        annotations = typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        annotations = {name: item for name, item in inspect.get_annotations(function).items() if not isinstance(item, str)}
    fitted = {}
    for name, value in given.items():
        try:
            fitted[name] = _fitted(value, annotations.get(name))
        except Exception as error:  # the class's own code says what does not fit
            what = getattr(annotations[name], "__name__", annotations[name])
            raise ConfigurationError(f"the argument {name!r} is not a {what}: {error}") from error
    return fitted


def _fitted(value: Any, annotation: Any) -> Any:
    if annotation is None or not isinstance(value, (dict, list)):
        return value
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _fitted(value, arguments[0])
    if origin in (typing.Union, python_types.UnionType):
        return _fitted_to_one(value, [choice for choice in arguments if choice is not type(None)])
    if isinstance(value, list):
        return [_fitted(item, arguments[0]) for item in value] if origin is list and arguments else value
    if origin is dict and len(arguments) == 2:
        return {key: _fitted(item, arguments[1]) for key, item in value.items()}
    return _made(value, annotation) if isinstance(annotation, type) and field_names(annotation) is not None else value


def _fitted_to_one(value: Any, choices: list[Any]) -> Any:
    """Of several choices the only one that is not plain data: which of two classes is meant, their names do not tell."""
    shaped = [choice for choice in choices if typing.get_origin(choice) is not None or (isinstance(choice, type) and field_names(choice))]
    return _fitted(value, shaped[0]) if len(shaped) == 1 and dict not in choices else value


def _made(value: dict[str, Any], cls: Any) -> Any:
    if hasattr(cls, "model_validate"):
        return cls.model_validate(value)
    try:
        annotations = typing.get_type_hints(cls)
    except (NameError, TypeError, AttributeError):
        annotations = {}
    names = {field.name for field in dataclasses.fields(cls) if field.init} if hasattr(cls, "__dataclass_fields__") else value.keys()
    return cls(**{name: _fitted(item, annotations.get(name)) if name in names else item for name, item in value.items()})
