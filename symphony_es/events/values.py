"""Plain data: what a state may consist of, and what it means for two of them to be equal.

A value is None, bool, int, float, str, bytes, list, dict (keys: str or int), tuple, set, datetime, date, time, timedelta, Decimal,
UUID, an `EntityReference`, or one of the classes below. Exact types only: a subclass would come back as its base.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import cache, lru_cache
from math import copysign
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from uuid import UUID

from symphony_es.errors import UnstorableValueError
from symphony_es.events.bounds import MOST_ALIKE, TOO_ALIKE, is_crowded
from symphony_es.events.references import EntityReference
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import quoted, type_shown
from symphony_es.system import present

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

__all__ = [
    "Encrypted", "Limits", "Redacted", "Tagged", "UnknownZone", "check_member", "check_plain",
    "check_types", "copy_plain", "plain_equal",
]  # fmt: skip

_MICROSECOND = timedelta(microseconds=1)
_ZONE_NAME = re.compile(r"(?=.{1,64}\Z)[A-Za-z0-9_+-][A-Za-z0-9_+.-]*(?:/[A-Za-z0-9_+-][A-Za-z0-9_+.-]*){0,4}", re.ASCII)

TaggedKind = Literal["enum", "value", "part"]


class Tagged:
    """A value of a declared class, by the class's stored name: an enum member, a frozen value, or a part that changes in place.

    Attributes:
        kind: `enum`, `value` or `part`.
        name: the stored name of the class: `module:qualname`, or one that the application gave it.
        data: of an enum the member's name (of flags the number); else the fields, plain data by name.
        value: of an enum the member's value where it is plain data; `...` where it is not, of flags, and of anything else.
        state_version: of a value or part the version of the class's shape, from 1.
    """

    __slots__ = ("data", "kind", "name", "state_version", "value")

    def __init__(self, kind: TaggedKind, name: str, data: Any, *, value: Any = ..., state_version: int = 1) -> None:
        self.kind: TaggedKind = kind
        self.name = name
        self.data = data
        self.value = value
        self.state_version = state_version

    def __eq__(self, other: object) -> bool:
        return plain_equal(self, other) if isinstance(other, Tagged) else NotImplemented

    def __hash__(self) -> int:
        if self.kind == "part":
            raise TypeError("a part changes in place and cannot be hashed")
        if self.kind == "enum" and type(self.data) is str:
            return hash((self.kind, self.name, self.data))
        from symphony_es.events.codec import encode_canonical  # late: it stands on this module, and few sets hold values

        return hash(encode_canonical(self))  # of its fields' values, too: members of a set are compared where their hashes are equal

    def __repr__(self) -> str:
        value = "" if self.value is ... else f", value={self.value!r}"
        version = "" if self.state_version == 1 else f", state_version={self.state_version}"
        return f"Tagged({self.kind!r}, {self.name!r}, {self.data!r}{value}{version})"


@dataclass(frozen=True, slots=True)
class Redacted:
    """Stands where a value was taken out by law; the event's header keeps the commitment to the original."""

    reason: str


@dataclass(frozen=True, slots=True)
class Encrypted:
    """Stands where a value is stored encrypted.

    Attributes:
        key_id: which key decrypts it.
        data: the ciphertext.
    """

    key_id: str
    data: bytes


class Limits(NamedTuple):
    """Bounds of what one event may hold.

    Attributes:
        max_depth: how deep containers may be nested; 64 at most, as readers of the format refuse more.
        max_body_bytes: size of one event's encoded body, in bytes.
    """

    max_depth: int = 64
    max_body_bytes: int = 16 * 1024 * 1024


DEFAULT_LIMITS = Limits()

_SIMPLE = frozenset({type(None), bool, int, float, bytes, date, timedelta, Decimal, UUID, EntityReference})
_LEAVES = _SIMPLE | {str}
_KEYS = frozenset({str, int})
_CONTAINERS = frozenset({dict, list, tuple, set, Tagged})


def check_plain(value: Any, path: Sequence[str | int] = (), *, max_depth: int = DEFAULT_LIMITS.max_depth) -> None:
    """Check that a value is plain data.

    Raises:
        UnstorableValueError: it is not; the error names the path and the way out.
    """
    _check(value, tuple(path), max_depth, hashed=False)


def check_member(value: Any, path: Sequence[str | int] = (), *, max_depth: int = DEFAULT_LIMITS.max_depth) -> None:
    """Check what a set shall hold, like `check_plain`: it equals itself, and does not change in place."""
    _check(value, tuple(path), max_depth, hashed=True)


def check_types(value: Any, path: Sequence[str | int] = (), *, max_depth: int = DEFAULT_LIMITS.max_depth) -> None:
    """Check like `check_plain`, for those who encode the value next or have just decoded it: the characters of text are not looked at.

    It goes level by level, by the types alone, which takes a few nanoseconds per item; what types do not settle (sets, moments of other
    zones than UTC, enums whose values are containers) and what is wrong, `check_plain` looks at.
    """
    level = [value]
    for _ in range(max_depth):
        below: list[Any] = []
        for item in level:
            cls = type(item)
            if cls is Tagged:
                if item.kind == "enum" and _is_member(item):
                    continue
                if not _holds_fields(item):
                    break
                item, cls = item.data, dict  # its fields are nested no deeper than it is
            if cls is dict:
                if not _KEYS.issuperset(map(type, item)) or (len(item) > MOST_ALIKE and _has_crowded_keys(item)):
                    break
                items = item.values()
            elif cls is list or cls is tuple:
                items = item
            elif cls in _LEAVES or (cls is datetime and (item.tzinfo is UTC or item.tzinfo is None)):
                continue
            else:
                break
            if not _LEAVES.issuperset(map(type, items)):
                below += [part for part in items if type(part) not in _LEAVES]
        else:
            if not below:
                return
            level = below
            continue
        break
    check_plain(value, path, max_depth=max_depth)


def _is_member(value: Tagged) -> bool:
    """Tell whether an enum's member, or flags, can surely be stored; one with a container or other characters as its value may be, too."""
    if type(value.data) is int:
        return _is_ascii(value.name) and value.value is ...
    return _is_ascii(value.name) and _is_ascii(value.data) and (value.value is ... or type(value.value) is int or _is_ascii(value.value))


def _is_ascii(value: Any) -> bool:
    return type(value) is str and value.isascii()


def _holds_fields(value: Tagged) -> bool:
    """Tell whether a part or a value can be stored for sure, but for what its fields hold."""
    return (
        value.kind in ("value", "part")
        and value.value is ...
        and _is_ascii(value.name)
        and type(value.state_version) is int
        and 1 <= value.state_version < 2**63
        and type(value.data) is dict
        and all(type(name) is str for name in value.data)
    )


def _has_crowded_keys(value: dict[Any, Any]) -> bool:
    return len(value) > MOST_ALIKE and int in map(type, value) and is_crowded(value)


def _is_text(value: Any) -> bool:
    """Return whether text can be written as UTF-8; what is no text is none of this function's business."""
    if type(value) is str and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    return True


def _check(value: Any, path: tuple[Any, ...], depth: int, *, hashed: bool) -> None:
    cls = type(value)
    if cls in _SIMPLE:
        if hashed and ((cls is float and value != value) or (cls is Decimal and value.is_nan())):
            raise UnstorableValueError(path, "NaN cannot be a member of a set: it equals nothing, so it could never be removed")
        return
    checker = _CHECKERS.get(cls)
    if checker is None:
        raise UnstorableValueError(path, _way_out(value))
    if depth == 0 and cls in _CONTAINERS and not (cls is Tagged and value.kind == "enum"):
        raise UnstorableValueError(path, "it is nested too deep, or contains itself")
    checker(value, path, depth - 1, hashed)


def _check_str(value: str, path: tuple[Any, ...], depth: int, hashed: bool) -> None:
    if not _is_text(value):
        raise UnstorableValueError(path, "the text contains a lone surrogate; decode it properly, or store bytes")


def _check_list(value: list[Any], path: tuple[Any, ...], depth: int, hashed: bool) -> None:
    for index, item in enumerate(value):
        _check(item, (*path, index), depth, hashed=hashed)


def _check_dict(value: dict[Any, Any], path: tuple[Any, ...], depth: int, hashed: bool) -> None:
    if _has_crowded_keys(value):
        raise UnstorableValueError(path, TOO_ALIKE)
    for key, item in value.items():
        if type(key) is not str and type(key) is not int:
            raise UnstorableValueError(path, f"one of its dict keys is {type_shown(key)}; keys are str or int")
        if type(key) is str:
            _check_str(key, (*path, key), depth, hashed)
        _check(item, (*path, key), depth, hashed=hashed)


def _check_set(value: set[Any], path: tuple[Any, ...], depth: int, hashed: bool) -> None:
    for item in value:
        _check(item, path, depth, hashed=True)
    if is_crowded(value):
        raise UnstorableValueError(path, TOO_ALIKE)


def _check_moment(value: datetime | time, path: tuple[Any, ...], depth: int, hashed: bool) -> None:
    zone = value.tzinfo
    if zone is None:
        return
    known = type(zone) is timezone or type(zone) is UnknownZone
    if not known and not _is_zone_info(zone):
        if zone.utcoffset(None) is not None:
            return  # a fixed offset, as pydantic, dateutil and others have: it is stored as one
        raise UnstorableValueError(path, f"its time zone is a {type(zone).__name__}; use datetime.timezone or a named zoneinfo.ZoneInfo")
    offset, key, *name = zone_parts(value)
    for text in (*name, *(() if key is None else (key,))):
        _check_text(text, path, "the name of a time zone")
    if key is None and not known:
        raise UnstorableValueError(path, "its time zone has no name; use a named zoneinfo.ZoneInfo")
    if offset is None and type(value) is datetime:
        raise UnstorableValueError(path, f"the data of its time zone {quoted(key)} are not installed, so nobody knows its offset from UTC")


def _check_tagged(value: Tagged, path: tuple[Any, ...], depth: int, hashed: bool) -> None:
    _check_text(value.name, path, "the name of a tagged value")
    if value.kind == "enum":
        if type(value.data) is str:
            _check_str(value.data, path, depth, hashed)
        elif type(value.data) is not int:
            raise UnstorableValueError(path, "a tagged enum holds the member's name, or the number of flags")
        if value.value is not ...:
            if type(value.data) is int:
                raise UnstorableValueError(path, "the number of flags is their value: they hold no other")
            if depth < 0 and type(value.value) in _CONTAINERS:
                raise UnstorableValueError(path, "it is nested too deep: the value of the enum's member is a container")
            _check(value.value, path, depth, hashed=False)
        return
    if value.value is not ... or type(value.state_version) is not int or not 1 <= value.state_version < 2**63:
        raise UnstorableValueError(path, "a tagged value has fields and a version from 1; the value of a member is an enum's")
    if value.kind not in ("value", "part") or type(value.data) is not dict or any(type(name) is not str for name in value.data):
        raise UnstorableValueError(path, "a tagged value holds a dict of fields by name")
    if hashed and value.kind == "part":
        raise UnstorableValueError(path, "a part changes in place and cannot be a member of a set")
    _check_dict(value.data, path, depth, hashed)


def _check_redacted(value: Redacted, path: tuple[Any, ...], depth: int, hashed: bool) -> None:
    _check_text(value.reason, path, "the reason of a redaction")


def _check_encrypted(value: Encrypted, path: tuple[Any, ...], depth: int, hashed: bool) -> None:
    _check_text(value.key_id, path, "the key id of an encrypted value")
    if type(value.data) is not bytes:
        raise UnstorableValueError(path, f"the ciphertext of an encrypted value is bytes, not {type(value.data).__name__}")


def _check_text(value: Any, path: tuple[Any, ...], what: str) -> None:
    if type(value) is not str:
        raise UnstorableValueError(path, f"{what} is text, not {type(value).__name__}")
    _check_str(value, path, 0, False)


_CHECKERS: dict[type, Callable[[Any, tuple[Any, ...], int, bool], None]] = {
    str: _check_str,
    list: _check_list,
    tuple: _check_list,
    dict: _check_dict,
    set: _check_set,
    datetime: _check_moment,
    time: _check_moment,
    Tagged: _check_tagged,
    Redacted: _check_redacted,
    Encrypted: _check_encrypted,
}


def _way_out(value: Any) -> str:
    cls = type(value)
    for base in (*_CHECKERS, *_SIMPLE):
        if base not in (type(None), Tagged, object) and isinstance(value, base):
            return f"{cls.__qualname__} is a subclass of {base.__name__} and would come back as one; convert it with {base.__name__}(...)"
    if cls is frozenset:
        return "a frozenset is not stored; use a set"
    return f"{cls.__module__}.{cls.__qualname__} is no plain data; store plain data that describes it"


def copy_plain(value: Any) -> Any:
    """Return a copy whose containers are its own; what cannot change is shared."""
    cls = type(value)
    if cls is dict:
        return {key: copy_plain(item) for key, item in value.items()}
    if cls is list:
        return [copy_plain(item) for item in value]
    if cls is set:
        return set(value)
    if cls is tuple:
        return tuple(copy_plain(item) for item in value)
    if cls is Tagged and value.kind != "enum":
        return Tagged(value.kind, value.name, copy_plain(value.data), state_version=value.state_version)
    return value


class UnknownZone(tzinfo):
    """A named zone whose data are not installed here, or say another offset than what is on record.

    Attributes:
        key: the zone's name.
        offset: what is on record for the one moment that this stands in; None of a `time` whose offset depends on the day.
    """

    def __init__(self, key: str, offset: timedelta | None = None) -> None:
        self.key = key
        self.offset = offset

    def utcoffset(self, moment: datetime | None, /) -> timedelta | None:
        """Return the offset on record; None where nobody knows it."""
        return self.offset

    def fromutc(self, moment: datetime, /) -> datetime:
        """Return the moment with the offset on record."""
        return super().fromutc(moment) if self.offset is None else moment + self.offset

    def dst(self, moment: datetime | None, /) -> timedelta | None:
        """Return None: nobody knows."""
        return None

    def tzname(self, moment: datetime | None, /) -> str:
        """Return the zone's name."""
        return self.key

    def __eq__(self, other: object) -> bool:
        return type(other) is UnknownZone and (self.key, self.offset) == (other.key, other.offset)

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        return UnknownZone, (self.key, self.offset)

    def __repr__(self) -> str:
        return f"UnknownZone({self.key!r})" if self.offset is None else f"UnknownZone({self.key!r}, {self.offset!r})"


_given = methodcaller("__getinitargs__")  # of a timezone: its offset, and its name only if it was given one


def zone_parts(value: datetime | time) -> tuple[int | None, str | None] | tuple[int | None, None, str]:
    """Return a moment's offset in microseconds and its zone's name; (None, None) when it is naive.

    The name that a fixed offset was given is no zone's: it comes third, and is there only where there is one.
    """
    zone = value.tzinfo
    if zone is None:
        return None, None
    offset = value.utcoffset()
    microseconds = None if offset is None else offset // _MICROSECOND
    if type(zone) is timezone:
        arguments = _given(zone)
        return (microseconds, None, arguments[1]) if len(arguments) > 1 else (microseconds, None)
    named: Any = zone  # a ZoneInfo, an UnknownZone, or another library's fixed offset
    return microseconds, getattr(named, "key", None) if type(named) is UnknownZone or _is_zone_info(named) else None


def zone_from(offset_us: int | None, key: str | None, name: str | None, moment: datetime | None) -> tzinfo | None:
    """Return the time zone of stored parts: the named zone where it is known and agrees, else what says its name and offset; or a fixed
    offset.

    Args:
        offset_us: the offset in microseconds.
        key: the zone's name, if it is a named one.
        name: what a fixed offset is called, if it was given a name.
        moment: the naive moment the offset is of; None for a `time`, whose offset depends on no day.

    Raises:
        ValueError: there is no such offset.
    """
    if key is None and offset_us is None:
        return None
    fixed = None if offset_us is None else timezone(timedelta(microseconds=offset_us))  # refuses what is none
    if key is not None:
        zone = _known_zone(key)
        if zone is not None:
            actual = zone.utcoffset(moment)
            if (None if actual is None else actual // _MICROSECOND) == offset_us:
                return zone
        return UnknownZone(key, None if fixed is None else fixed.utcoffset(None))
    return fixed if fixed is None or name is None else timezone(fixed.utcoffset(None), name)


def _is_zone_info(zone: tzinfo) -> bool:
    from zoneinfo import ZoneInfo  # late: most states have moments in UTC only

    return type(zone) is ZoneInfo


def _known_zone(name: str) -> ZoneInfo | None:
    try:
        return _zone(name)
    except (OSError, ValueError, LookupError, ImportError, EOFError):  # unknown (a KeyError), a folder, no path, no zone file
        return None


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    """Return the zone of a name; what is not found is not kept in mind. There are some six hundred zones.

    Looking for a zone that there is not takes the time of thousands of values, so whether there is a file of its name is looked at first.
    """
    from zoneinfo import TZPATH, ZoneInfo

    if _ZONE_NAME.fullmatch(name) is None:
        raise ValueError("no zone has such a name")
    package = _zones_package()
    if package is not None and not any(present(f"{folder}/{name}") for folder in (*TZPATH, package) if folder):
        raise LookupError("there is no file of its name")
    return ZoneInfo(name)


@cache
def _zones_package() -> str | None:
    """Return the directory of the package `tzdata`, "" where it is not installed; None where it is, and has no directory."""
    from importlib.util import find_spec

    found = find_spec("tzdata")
    if found is None:
        return ""
    return str(Path(found.origin).parent / "zoneinfo") if found.origin is not None and found.has_location else None


def plain_equal(one: Any, other: Any) -> bool:
    """Return whether two plain values are the same by type and value.

    1, True and 1.0 differ; NaN equals NaN; -0.0 differs from 0.0; the order of a dict means nothing; moments are compared by their
    fields, offset and zone; Decimals by their text.
    """
    cls = type(one)
    if cls is not type(other):
        return False
    comparer = _COMPARERS.get(cls)
    return bool(one == other) if comparer is None else comparer(one, other)


def _equal_floats(one: float, other: float) -> bool:
    return (one == other and (one != 0.0 or copysign(1.0, one) == copysign(1.0, other))) or (one != one and other != other)


def _equal_lists(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return len(one) == len(other) and all(map(plain_equal, one, other))


def _equal_dicts(one: dict[Any, Any], other: dict[Any, Any]) -> bool:
    return len(one) == len(other) and all(key in other and plain_equal(item, other[key]) for key, item in one.items())


def _equal_sets(one: set[Any], other: set[Any]) -> bool:
    if len(one) != len(other):
        return False
    mates = {item: item for item in other}
    left = [item for item in one if item not in mates or not plain_equal(item, mates.pop(item))]
    if not left:
        return True
    # Moments in a fold or gap of their zone may not even equal their own copies: such members are looked for one by one.
    rest = list(mates.values())
    return len(left) == len(rest) and all(any(plain_equal(item, mate) for mate in rest) for item in left)


def _equal_moments(one: Any, other: Any) -> bool:
    return bool(one.replace(tzinfo=None) == other.replace(tzinfo=None) and one.fold == other.fold and zone_parts(one) == zone_parts(other))


def _equal_tagged(one: Tagged, other: Tagged) -> bool:
    return (
        one.kind == other.kind
        and one.name == other.name
        and one.state_version == other.state_version
        and plain_equal(one.data, other.data)
        and plain_equal(one.value, other.value)
    )


def _equal_decimals(one: Decimal, other: Decimal) -> bool:
    return str(one) == str(other)


_COMPARERS: dict[type, Callable[[Any, Any], bool]] = {
    float: _equal_floats,
    list: _equal_lists,
    tuple: _equal_lists,
    dict: _equal_dicts,
    set: _equal_sets,
    datetime: _equal_moments,
    time: _equal_moments,
    Tagged: _equal_tagged,
    Decimal: _equal_decimals,
}
