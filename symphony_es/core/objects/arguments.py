"""The arguments of a function held against its annotations: what is plain data becomes what the annotation asks for, the rest must be it.

Arguments of a workflow come from web requests, files and other programs: a dict stands for a dataclass, a text for an enum member or a
moment. What does not fit is refused before a run is created. Annotations that say nothing that can be looked at here are passed over.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import enum
import types as python_types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from decimal import Decimal, InvalidOperation
from pathlib import PurePath
from typing import Any
from uuid import UUID

from symphony_es.annotated import hints_of, signature
from symphony_es.core.objects.capture import field_names
from symphony_es.errors import ConfigurationError
from symphony_es.events.references import EntityReference
from symphony_es.shown import quoted, type_shown

__all__ = ["fit_arguments"]

_FROM_TEXT: Mapping[type, Callable[[str], Any]] = {
    dt.datetime: dt.datetime.fromisoformat,
    dt.date: dt.date.fromisoformat,
    dt.time: dt.time.fromisoformat,
    Decimal: Decimal,
    UUID: UUID,
}
_SEQUENCES = (list, Sequence, Iterable, Collection)


class _Misfit(Exception):  # noqa: N818  never leaves this module
    """Why a value does not fit, and where in it."""

    def __init__(self, why: str, place: str = "") -> None:
        super().__init__(f"{place.lstrip('.')}: {why}" if place else why)
        self.why = why
        self.place = place

    def inside(self, place: str) -> _Misfit:
        return _Misfit(self.why, place + self.place)


def fit_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a function as its annotations ask for them.

    A dict becomes an object of a dataclass, a pydantic or an attrs class; a text a path, moment, date, decimal number or UUID; a plain
    value the enum member of that value; a list a tuple or set. All else must be of the kind that the annotation names. An int is a float.

    Raises:
        ConfigurationError: one does not fit; the parameter is named, and the place in it.
    """
    annotations = hints_of(function)
    fitted = {}
    for name, value in given.items():
        annotation = annotations.get(name)
        try:
            fitted[name] = value if value is None and _is_none_by_default(function, name) else _fitted(value, annotation)
        except Exception as error:  # the class's own code says what does not fit
            raise ConfigurationError(f"the argument {quoted(name)} is not a {_shown(annotation)}: {error}") from error
    return fitted


def _is_none_by_default(function: Callable[..., Any], name: str) -> bool:
    parameter = signature(function).parameters.get(name)
    return parameter is not None and parameter.default is None


def _fitted(value: Any, annotation: Any) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _fitted(value, arguments[0])
    if origin in (typing.Union, python_types.UnionType):
        return _fitted_to_one(value, arguments)
    if origin is typing.Literal:
        if not any(type(value) is type(choice) and value == choice for choice in arguments):
            raise _Misfit(f"{type_shown(value)} that is none of {', '.join(map(repr, arguments))}")
        return value
    if isinstance(annotation, typing.NewType):
        return _fitted(value, annotation.__supertype__)
    if annotation is None or annotation is type(None):
        return value if annotation is None else _instance(value, type(None))
    if isinstance(value, EntityReference):
        return value
    if typing.is_typeddict(annotation):
        return _fitted_to_typed_dict(value, annotation)
    container = origin if origin is not None else annotation
    if isinstance(container, type) and arguments:
        return _fitted_to_container(value, container, arguments)
    return _fitted_to_class(value, annotation) if isinstance(annotation, type) else value


def _fitted_to_one(value: Any, choices: tuple[Any, ...]) -> Any:
    """Return, of several choices, the first that the value is already, then the first that it can become.

    Of two classes a dict tells none.
    """
    if isinstance(value, dict):
        shaped = [
            choice for choice in choices if typing.get_origin(choice) is not None or (isinstance(choice, type) and field_names(choice))
        ]
        if len(shaped) != 1 or dict in choices:
            if shaped or dict in choices or Any in choices or object in choices:
                return value
        else:
            return _fitted(value, shaped[0])
    became: list[Any] = []
    for choice in choices:
        with contextlib.suppress(Exception):  # another choice may fit, and the last word says where none does
            became.append(_fitted(value, choice))
    if not became:
        raise _Misfit(f"it is {type_shown(value)}")
    return next((fitted for fitted in became if type(fitted) is type(value)), became[0])


def _fitted_to_typed_dict(value: Any, annotation: Any) -> Any:
    _instance(value, dict)
    absent = sorted(annotation.__required_keys__ - value.keys())
    if absent:
        raise _Misfit(f"{', '.join(absent)} is missing")
    hints = hints_of(annotation)
    return {key: _within(f".{key}", item, hints.get(key)) for key, item in value.items()}


def _fitted_to_container(value: Any, container: type, arguments: tuple[Any, ...]) -> Any:
    if issubclass(container, tuple):
        return _fitted_to_tuple(value, arguments)
    if container in _SEQUENCES:
        _instance(value, list if container is list else (list, tuple, set, dict, str))
        if isinstance(value, (list, tuple)):
            items = (_within(f"[{index}]", item, arguments[0]) for index, item in enumerate(value))
            return tuple(items) if isinstance(value, tuple) else list(items)
        return value
    if issubclass(container, Set):
        _instance(value, (set, frozenset, list))
        made = {_within("{}", item, arguments[0]) for item in value}
        return frozenset(made) if issubclass(container, frozenset) else made
    if issubclass(container, Mapping) and len(arguments) == 2:
        _instance(value, dict)
        return {_within(" key", key, arguments[0]): _within(f"[{quoted(key)}]", item, arguments[1]) for key, item in value.items()}
    return _fitted_to_class(value, container)


def _fitted_to_tuple(value: Any, arguments: tuple[Any, ...]) -> Any:
    _instance(value, (tuple, list))
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        kinds: Sequence[Any] = [arguments[0]] * len(value)
    else:
        kinds = () if arguments == ((),) else arguments
        if len(value) != len(kinds):
            raise _Misfit(f"{len(value)} items, and {len(kinds)} are expected")
    return tuple(_within(f"[{index}]", item, kind) for index, (item, kind) in enumerate(zip(value, kinds, strict=True)))


def _fitted_to_class(value: Any, cls: type) -> Any:
    if cls is object or _is_instance(value, cls):
        return value
    if cls is float and isinstance(value, int) and not isinstance(value, bool):
        return value
    if issubclass(cls, enum.Enum):
        return cls(value)
    if isinstance(value, dict) and field_names(cls) is not None:
        return _made(value, cls)
    if isinstance(value, str):
        if issubclass(cls, PurePath):
            return cls(value)
        for base, made in _FROM_TEXT.items():
            if cls is base:
                try:
                    return made(value)
                except InvalidOperation:
                    raise _Misfit(f"{type_shown(value)} that is not a number") from None
    if isinstance(value, list) and cls in (tuple, set, frozenset):
        return cls(value)
    raise _Misfit(f"it is {type_shown(value)}")


def _is_instance(value: Any, cls: type) -> bool:
    try:
        return isinstance(value, cls)
    except TypeError:  # a protocol that cannot be asked
        return True


def _instance(value: Any, kinds: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kinds):
        raise _Misfit(f"it is {type_shown(value)}")
    return value


def _within(place: str, value: Any, annotation: Any) -> Any:
    try:
        return _fitted(value, annotation)
    except _Misfit as error:
        raise error.inside(place) from None
    except Exception as error:
        raise _Misfit(str(error), place) from error


def _made(value: dict[str, Any], cls: Any) -> Any:
    if hasattr(cls, "model_validate"):
        return cls.model_validate(value)
    annotations = hints_of(cls)
    names = {field.name for field in dataclasses.fields(cls) if field.init} if hasattr(cls, "__dataclass_fields__") else value.keys()
    return cls(**{name: _within(f".{name}", item, annotations.get(name)) if name in names else item for name, item in value.items()})


def _shown(annotation: Any) -> str:
    return str(
        getattr(annotation, "__name__", annotation) if isinstance(annotation, type) and not typing.get_args(annotation) else annotation
    )
