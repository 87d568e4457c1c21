"""Everyday classes of the standard library that have no declared fields: what is stored of them, and how they are made of it.

They stand where objects of foreign classes may stand: in what a step returns, in arguments, signals and the context of a run, and in the
state of objects that do not track themselves. They are stored as tagged values under `module:qualname`, with fields of their own.
"""

from __future__ import annotations

import ipaddress
import pathlib
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Everyday", "everyday_class", "everyday_named", "everyday_of"]


class Everyday(NamedTuple):
    """How one class is stored.

    Attributes:
        name: the name it is stored under.
        read: its fields, by name; raises a ValueError where an object cannot be stored.
        make: an object, of the fields.
    """

    name: str
    read: Callable[[Any], dict[str, Any]]
    make: Callable[[dict[str, Any]], Any]


_FACTORIES = {cls.__name__: cls for cls in (list, dict, set, tuple, int, float, str, bool)}
_FRACTION = "fractions:Fraction"
_URLS = ("pydantic.networks", "pydantic_core._pydantic_core")


def _by_text(cls: Callable[[str], Any], name: str) -> Everyday:
    return Everyday(name, lambda value: {"text": str(value)}, lambda fields: cls(fields["text"]))


def _pairs(value: Any) -> dict[str, Any]:
    return {"items": [(key, item) for key, item in value.items()]}


def _default_dict(value: defaultdict[Any, Any]) -> dict[str, Any]:
    factory = value.default_factory
    name = getattr(factory, "__name__", "") if factory is not None else None
    if name is not None and _FACTORIES.get(name) is not factory:
        raise ValueError(f"a defaultdict is stored where its factory is one of {', '.join(_FACTORIES)}; convert it with dict(...)")
    return {"factory": name, **_pairs(value)}


def _make_default_dict(fields: dict[str, Any]) -> defaultdict[Any, Any]:
    name = fields["factory"]
    return defaultdict(_FACTORIES[name] if name is not None else None, fields["items"])


_PATHS = (pathlib.Path, pathlib.PosixPath, pathlib.WindowsPath)
_BY_CLASS: dict[type, Everyday] = {
    # A path of this system comes back as one of the system that reads it.
    **dict.fromkeys(_PATHS, _by_text(pathlib.Path, "pathlib:Path")),
    pathlib.PurePosixPath: _by_text(pathlib.PurePosixPath, "pathlib:PurePosixPath"),
    pathlib.PureWindowsPath: _by_text(pathlib.PureWindowsPath, "pathlib:PureWindowsPath"),
    **{
        cls: _by_text(cls, f"ipaddress:{cls.__name__}")
        for cls in (
            ipaddress.IPv4Address, ipaddress.IPv4Interface, ipaddress.IPv4Network,
            ipaddress.IPv6Address, ipaddress.IPv6Interface, ipaddress.IPv6Network,
        )
    },
    frozenset: Everyday("builtins:frozenset", lambda value: {"items": set(value)}, lambda fields: frozenset(fields["items"])),
    bytearray: Everyday("builtins:bytearray", lambda value: {"bytes": bytes(value)}, lambda fields: bytearray(fields["bytes"])),
    range: Everyday(
        "builtins:range",
        lambda value: {"start": value.start, "stop": value.stop, "step": value.step},
        lambda fields: range(fields["start"], fields["stop"], fields["step"]),
    ),
    complex: Everyday(
        "builtins:complex", lambda value: {"real": value.real, "imag": value.imag}, lambda fields: complex(fields["real"], fields["imag"])
    ),
    deque: Everyday(
        "collections:deque",
        lambda value: {"items": list(value), "maxlen": value.maxlen},
        lambda fields: deque(fields["items"], fields["maxlen"]),
    ),
    OrderedDict: Everyday("collections:OrderedDict", _pairs, lambda fields: OrderedDict(fields["items"])),
    Counter: Everyday("collections:Counter", _pairs, lambda fields: Counter(dict(fields["items"]))),
    defaultdict: Everyday("collections:defaultdict", _default_dict, _make_default_dict),
}  # fmt: skip
_BY_NAME = {how.name: (cls, how) for cls, how in _BY_CLASS.items()}


def _is_url(name: str) -> bool:
    return name.isidentifier() and name.endswith(("Url", "Dsn"))


def everyday_of(cls: type) -> Everyday | None:
    """Return how a class is stored, or None: only the class itself, not what derives from it."""
    found = _BY_CLASS.get(cls)
    if found is None and cls.__module__ == "fractions" and cls.__name__ == "Fraction":
        return _by_text(cls, _FRACTION)
    if found is None and cls.__module__ in _URLS and _is_url(cls.__name__):
        return _by_text(cls, f"{cls.__module__}:{cls.__qualname__}")
    return found


def everyday_class(name: str) -> type | None:
    """Return the class that is stored under a name, or None; nothing but Python's own is imported."""
    if name in _BY_NAME:
        return _BY_NAME[name][0]
    if name == _FRACTION:
        from fractions import Fraction  # late: few have one

        return Fraction
    module, _, qualname = name.partition(":")
    if module not in _URLS or not _is_url(qualname) or module not in sys.modules:
        return None
    found = vars(sys.modules[module]).get(qualname)
    return found if isinstance(found, type) and (found.__module__, found.__qualname__) == (module, qualname) else None


def everyday_named(name: str) -> Everyday | None:
    """Return how what is stored under a name is made, or None."""
    if name in _BY_NAME:
        return _BY_NAME[name][1]
    cls = everyday_class(name)
    return everyday_of(cls) if cls is not None else None
