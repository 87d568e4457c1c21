"""Plain values and their bytes: what goes in comes out, by type and value; what is no value is refused on both sides."""

from __future__ import annotations

import datetime as dt
import enum
import itertools
import pickle
import struct
from collections import OrderedDict, namedtuple
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, localcontext
from types import SimpleNamespace
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from symphony_es.errors import DecodeError, UnstorableValueError
from symphony_es.events import codec
from symphony_es.events import values as values_module
from symphony_es.events.codec import decode_value, encode_canonical, encode_value
from symphony_es.events.references import EntityReference, find_references
from symphony_es.events.values import Encrypted, Redacted, Tagged, UnknownZone, check_plain, check_types, copy_plain, plain_equal
from tests.events.plain_data import datetimes, states, times, twin, values


@given(values)
def test_round_trip_keeps_type_and_value(value: Any) -> None:
    """What is encoded is decoded as the same value of the same type, and encodes to the same bytes again."""
    data = encode_value(value)
    back = decode_value(data)
    assert plain_equal(back, value)
    assert type(back) is type(value)
    assert encode_value(back) == data


@given(values)
def test_a_copy_and_a_reordered_twin_are_equal_and_share_the_canonical_bytes(value: Any) -> None:
    """Neither the order of a dict, nor copying, nor encoding changes what a value is."""
    for other in (copy_plain(value), twin(value), decode_value(encode_canonical(value))):
        assert plain_equal(value, other)
        assert encode_canonical(value) == encode_canonical(other)
    check_plain(value)
    check_types(value)


@given(values, values)
@example(1, True)
@example(1.0, 1)
@example(0.0, -0.0)
@example({1}, {True})
@example({(1,)}, {(1.0,)})
@example({0.0}, {-0.0})
@example([float("nan")], [float("nan")])
@example(Decimal("1.0"), Decimal("1.00"))
@example({1, 2}, {True, 3})
@example({dt.datetime(2025, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1)))}, {dt.datetime(2025, 1, 1, tzinfo=dt.UTC)})
@example(dt.time(1, tzinfo=ZoneInfo("UTC")), dt.time(1, tzinfo=dt.UTC))
@example(dt.datetime(2025, 1, 1, tzinfo=ZoneInfo("UTC")), dt.datetime(2025, 1, 1, tzinfo=dt.UTC))
@example(dt.datetime(2025, 1, 1, tzinfo=dt.timezone(dt.timedelta(0), "UTC")), dt.datetime(2025, 1, 1, tzinfo=dt.UTC))
def test_equal_values_have_equal_canonical_bytes_and_different_ones_different(one: Any, other: Any) -> None:
    """plain_equal and the canonical bytes draw the same line, in both directions."""
    assert plain_equal(one, other) == (encode_canonical(one) == encode_canonical(other))
    assert plain_equal(one, other) == plain_equal(other, one)


@pytest.mark.exhaustive
@given(states)
def test_copies_share_no_container(state: dict[Any, Any]) -> None:
    """Whatever is done to the containers of a copy, the original stays."""
    before = encode_canonical(state)
    _spoil(copy_plain(state))
    assert encode_canonical(state) == before


def _spoil(value: Any) -> None:
    if isinstance(value, dict):
        for item in value.values():
            _spoil(item)
        value.clear()
    elif isinstance(value, list | tuple):
        for item in value:
            _spoil(item)
        if isinstance(value, list):
            value.clear()
    elif isinstance(value, set):
        value.clear()
    elif isinstance(value, Tagged) and value.kind != "enum":
        _spoil(value.data)


@given(datetimes, times)
def test_moments_survive_a_reader_without_time_zone_data(moment: dt.datetime, time: dt.time) -> None:
    """Where no zone is known, offset and name are kept: fields are the same, and the bytes are the same again."""
    data = encode_value([moment, time])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values_module, "_known_zone", lambda name: None)
        back = decode_value(data)
        assert encode_value(back) == data
        assert [part.replace(tzinfo=None) for part in back] == [moment.replace(tzinfo=None), time.replace(tzinfo=None)]
        assert back[0].utcoffset() == moment.utcoffset()
        assert [part.fold for part in back] == [moment.fold, time.fold]
    assert plain_equal(decode_value(encode_value(back)), [moment, time])


@pytest.mark.parametrize(
    "name",
    ["Mars/Base", "America", "../../etc/passwd", "/etc/passwd", "a\0b", "x" * 5000, "zone.tab", "", ".", "Europe/", "žluť", "CON", " "],
)
def test_any_zone_name_decodes(name: str) -> None:
    """A zone name that is unknown, a folder, a path, or no zone at all becomes a name with the offset on record, or without one."""
    moment = dt.datetime(2025, 7, 1, tzinfo=UnknownZone(name, dt.timedelta(hours=3)))
    time = dt.time(12, tzinfo=UnknownZone(name))
    data = encode_value([moment, time])
    back = decode_value(data)
    assert plain_equal(back, [moment, time])
    assert back[0].tzname() == name
    assert encode_value(back) == data


def test_a_known_zone_whose_rules_have_changed_keeps_the_stored_offset() -> None:
    """A stored offset that the installed zone data contradict is not silently replaced."""
    moment = dt.datetime(2025, 7, 1, 12, tzinfo=UnknownZone("Europe/Berlin", dt.timedelta(hours=5)))
    back = decode_value(encode_value(moment))
    assert back.utcoffset() == dt.timedelta(hours=5)
    assert back.tzname() == "Europe/Berlin"
    assert encode_value(back) == encode_value(moment)


_HOUR = dt.timedelta(hours=1)
_AS_GIVEN = [
    ZoneInfo("CET"),
    ZoneInfo("UTC"),
    ZoneInfo("Europe/Berlin"),
    dt.UTC,
    dt.timezone(_HOUR),
    *(dt.timezone(_HOUR, name) for name in ("CET", "MET", "Europe/Berlin", "UTC+01:00", "", "+01:00", "Mars/Base")),
    *(dt.timezone(dt.timedelta(0), name) for name in ("UTC", "GMT", "Etc/UTC", "")),
    dt.timezone(-_HOUR / 7, "odd"),
    UnknownZone("Mars/Base", _HOUR),
]


@pytest.mark.parametrize("zone", _AS_GIVEN, ids=repr)
@pytest.mark.parametrize("month", [1, 7])
def test_each_kind_of_time_zone_comes_back_as_it_was(zone: dt.tzinfo, month: int) -> None:
    """A fixed offset that is called like a zone is none: it has no summer time. So in lists, sets, dicts, values, and of times."""
    moment = dt.datetime(2025, month, 1, 12, tzinfo=zone)
    held = [moment, (moment,), {moment}, {"k": {"k": moment}}, Tagged("value", "shop:Order", {"at": moment}), moment.timetz()]
    for read in (decode_value(encode_value(held)), decode_value(encode_canonical(held)), copy_plain(held)):
        assert plain_equal(read, held)
        back = [read[0], read[1][0], *read[2], read[3]["k"]["k"], read[4].data["at"], read[5]]
        assert [(type(one.tzinfo), repr(one.tzinfo)) for one in back] == [(type(zone), repr(zone))] * 6
        assert all(one.tzinfo == zone for one in back)
        assert back[0] + dt.timedelta(days=180) == moment + dt.timedelta(days=180)


def test_moments_of_equal_offset_and_name_in_zones_of_two_kinds_differ() -> None:
    """`ZoneInfo("CET")`, an offset called "CET" and one without a name are three values, and have three encodings."""
    kinds = [ZoneInfo("CET"), dt.timezone(_HOUR, "CET"), dt.timezone(_HOUR)]
    moments = [dt.datetime(2025, 1, 1, tzinfo=zone) for zone in kinds]
    assert len({encode_value(moment) for moment in moments}) == len({encode_canonical(moment) for moment in moments}) == 3
    for one, other in itertools.combinations(moments, 2):
        assert not plain_equal(one, other)


@pytest.mark.parametrize(
    "parts", [[0, 0, None, None, "n"], [0, 0, 0, "UTC", "n"], [0, 0, 0, None, None], [0, 0, 0, None, b"n"], [0] * 6, []]
)
@pytest.mark.parametrize("code", [codec.DATETIME, codec.TIME])
def test_a_name_without_a_fixed_offset_is_refused(code: int, parts: list[Any]) -> None:
    """The name of an offset stands beside an offset, never beside a zone; each other shape is a `DecodeError`."""
    with pytest.raises(DecodeError):
        decode_value(codec.pack(msgpack.ExtType(code, codec.pack(parts))))


def test_a_moment_in_a_zone_of_unknown_offset_is_refused() -> None:
    """A time may have such a zone; a moment that had it could not be read again."""
    with pytest.raises(UnstorableValueError, match="nobody knows its offset"):
        encode_value(dt.datetime.combine(dt.date(2025, 1, 1), dt.time(12, tzinfo=UnknownZone("Mars/Base"))))


def test_unknown_zones_are_values() -> None:
    """They compare and hash by name and offset, can be pickled, and know nothing else."""
    zone = UnknownZone("Mars/Base")
    assert zone == pickle.loads(pickle.dumps(zone))
    assert zone != UnknownZone("Mars/Camp")
    assert zone != "Mars/Base"
    assert {zone: 1}[UnknownZone("Mars/Base")] == 1
    assert (zone.utcoffset(None), zone.dst(None), zone.tzname(None)) == (None, None, "Mars/Base")
    assert repr(zone) == "UnknownZone('Mars/Base')"
    moment = dt.datetime(2025, 1, 1, 12, tzinfo=UnknownZone("Mars/Base", _HOUR))
    assert pickle.loads(pickle.dumps(moment)) == moment == moment.astimezone(dt.UTC).astimezone(moment.tzinfo)
    assert repr(moment.tzinfo) == "UnknownZone('Mars/Base', datetime.timedelta(seconds=3600))"
    with pytest.raises(ValueError, match="utcoffset"):
        moment.astimezone(zone)


def test_a_set_with_a_moment_that_never_was_equals_its_decoded_self() -> None:
    """A moment in a gap of its zone does not equal a copy in another zone object; as plain data it does."""
    moment = dt.datetime(2025, 3, 30, 2, 30, tzinfo=ZoneInfo.no_cache("Europe/Berlin"))
    assert decode_value(encode_value({moment})) != {moment}
    assert plain_equal(decode_value(encode_value({moment, 1})), {moment, 1})
    assert not plain_equal({moment, 1}, {moment.replace(fold=1), 2})


def test_decimals_do_not_depend_on_the_context() -> None:
    """A context with small letters or traps switched off changes neither bytes nor what is refused."""
    data = encode_value(Decimal("1E+30"))
    with localcontext() as context:
        context.capitals = 0
        context.prec = 1
        context.clear_traps()
        assert encode_value(Decimal("1E+30")) == data
        assert str(decode_value(encode_value(Decimal("123.456000")))) == "123.456000"
        with pytest.raises(DecodeError):
            decode_value(ext(7, b"abc"))


class _Colour(enum.IntEnum):
    RED = 1


class _Name(str):
    __slots__ = ()


class _Loose(dt.tzinfo):
    def utcoffset(self, moment: dt.datetime | None, /) -> None:
        return None

    dst = utcoffset

    def tzname(self, moment: dt.datetime | None, /) -> None:
        return None


_Pair = namedtuple("_Pair", "a b")
_circle: list[Any] = []
_circle.append(_circle)


def deep(depth: int, inner: Any = None) -> Any:
    """A value with this many lists around it."""
    for _ in range(depth):
        inner = [inner]
    return inner


UNSTORABLE = {
    "a subclass of int": (_Colour.RED, "convert it with int"),
    "a subclass of str": (_Name("x"), "convert it with str"),
    "a subclass of dict": (OrderedDict(a=1), "convert it with dict"),
    "a named tuple": (_Pair(1, 2), "convert it with tuple"),
    "a frozenset": (frozenset({1}), "use a set"),
    "a bytearray": (bytearray(b"x"), "no plain data"),
    "a memoryview": (memoryview(b"x"), "no plain data"),
    "a msgpack timestamp": (msgpack.Timestamp(1), "no plain data"),
    "a msgpack extension": (msgpack.ExtType(1, b"\x90"), "subclass of tuple"),
    "a complex number": (1j, "no plain data"),
    "a function": (deep, "no plain data"),
    "a lone surrogate": ("\ud800", "lone surrogate"),
    "a lone surrogate in a tag": (Tagged("enum", "E", "\udfff"), "lone surrogate"),
    "a lone surrogate in a name": (Tagged("enum", "\udfff", "A"), "lone surrogate"),
    "a tag without a name": (Tagged("enum", None, "A"), "is text, not NoneType"),  # type: ignore[arg-type]
    "an enum of a float": (Tagged("enum", "E", 1.0), "member's name"),
    "an enum of a bool": (Tagged("enum", "E", True), "member's name"),
    "a tag of an unknown kind": (Tagged("thing", "T", {}), "dict of fields"),  # type: ignore[arg-type]
    "a value without fields": (Tagged("value", "V", []), "dict of fields"),
    "a part with a numbered field": (Tagged("part", "V", {1: 2}), "dict of fields"),
    "a redaction without text": (Redacted(5), "is text, not int"),  # type: ignore[arg-type]
    "a redaction with a surrogate": (Redacted("\ud800"), "lone surrogate"),
    "ciphertext that is a bytearray": (Encrypted("k", bytearray(b"x")), "is bytes, not bytearray"),  # type: ignore[arg-type]
    "a key id that is a number": (Encrypted(5, b""), "is text, not int"),  # type: ignore[arg-type]
    "a foreign time zone": (dt.datetime(2025, 1, 1, tzinfo=_Loose()), "time zone is a _Loose"),
    "a time in a foreign zone": (dt.time(1, tzinfo=_Loose()), "time zone is a _Loose"),
    "a zone named by a surrogate": (dt.datetime(2025, 1, 1, tzinfo=dt.timezone(dt.timedelta(0), "\ud800")), "lone surrogate"),
    "too many lists": (deep(65), "nested too deep"),
    "too many tuples": (deep(64, (1,)), "nested too deep"),
    "a container in itself": (_circle, "contains itself"),
    "NaN in a set": ({float("nan")}, "NaN cannot be a member"),
    "NaN in a tuple in a set": ({(float("nan"),)}, "NaN cannot be a member"),
    "a decimal NaN in a set": ({Decimal("NaN")}, "NaN cannot be a member"),
}  # fmt: skip


@pytest.mark.parametrize("value", [pair[0] for pair in UNSTORABLE.values()], ids=UNSTORABLE)
@pytest.mark.parametrize("place", ["alone", "in a list", "in a dict", "in a part", "in a tuple"])
def test_what_is_no_plain_data_is_refused_with_its_path(value: Any, place: str) -> None:
    """Nothing is encoded that would be decoded as something else or not at all; the error says where and what to do."""
    why = next(pair[1] for pair in UNSTORABLE.values() if pair[0] is value)
    places: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "alone": (value, ()),
        "in a list": ([0, value], (1,)),
        "in a dict": ({"a": 1, "k": value}, ("k",)),
        "in a part": (Tagged("part", "P", {"f": value}), ("f",)),
        "in a tuple": ((value, "ž"), (0,)),
    }
    whole: Any = places[place][0]
    path = places[place][1]
    for refuse in (check_plain, check_types, encode_value, encode_canonical):
        if refuse is check_types and "surrogate" in why and not isinstance(value, Tagged | Redacted | dt.datetime):
            continue  # it does not look at text
        with pytest.raises(UnstorableValueError, match=why.replace("(", r"\(")) as caught:
            refuse(whole)
        assert caught.value.path[: len(path)] == path


@pytest.mark.parametrize("key", [True, 1.0, None, b"a", (1,), Decimal(1)], ids=repr)
def test_keys_that_are_no_text_and_no_whole_number_are_refused(key: Any) -> None:
    """msgpack would write them, and no reader would take them back."""
    wholes: list[Any] = [{key: 1}, [{"a": {key: 1}}], ({key: {}},)]
    for whole in wholes:
        for refuse in (check_plain, check_types, encode_value, encode_canonical):
            with pytest.raises(UnstorableValueError, match="keys are str or int"):
                refuse(whole)


def test_a_key_with_a_lone_surrogate_is_refused() -> None:
    """Keys are text as well."""
    for refuse in (check_plain, encode_value, encode_canonical):
        with pytest.raises(UnstorableValueError, match="lone surrogate"):
            refuse({"a": {"\ud800": 1}})


def test_a_zone_from_a_file_has_no_name_and_is_refused() -> None:
    """A zone that cannot be named could not be found again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zoneinfo.ZoneInfo", _Unnamed)
        with pytest.raises(UnstorableValueError, match="has no name"):
            check_plain(dt.datetime(2025, 1, 1, tzinfo=_Unnamed()))


class _Unnamed(_Loose):
    key = None

    made_from_a_file = True


def test_parts_are_refused_in_sets_and_values_are_not() -> None:
    """A part changes in place, so it has no hash; a value has one that agrees with its equality."""
    part, value, same = Tagged("part", "P", {}), Tagged("value", "V", {"a": [1]}), Tagged("value", "V", {"a": [1]})
    with pytest.raises(TypeError, match="cannot be hashed"):
        hash(part)
    assert {value, same} == {same}
    assert len({value, Tagged("value", "V", {"a": [1.0]}), Tagged("enum", "V", "A"), Tagged("enum", "V", 1)}) == 4
    assert value != "V"
    assert repr(value) == "Tagged('value', 'V', {'a': [1]})"
    with pytest.raises(UnstorableValueError, match="a part changes in place"):
        check_plain(_set_of(part))  # no set can hold it: what a subclass of hash made possible is refused all the same


def _set_of(part: Tagged) -> set[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tagged, "__hash__", lambda self: 1)
        return {part}


@pytest.mark.parametrize("depth", [1, 63, 64])
def test_depth_up_to_the_limit_is_stored(depth: int) -> None:
    """64 containers inside one another are stored and read, whatever stands in the innermost, and however tuples are mixed in."""
    for inner in (None, "text", "ž", 2**70, dt.date(2025, 1, 1), Redacted("r"), Tagged("enum", "E", "A"), dt.time(1)):
        assert plain_equal(decode_value(encode_value(deep(depth, inner))), deep(depth, inner))
    mixed: Any = {1}
    for index in range(depth - 1):
        mixed = (mixed,) if index % 3 == 0 else Tagged("part", "P", {"x": mixed}) if index % 3 == 1 else {index: mixed}
    assert plain_equal(decode_value(encode_value(mixed)), mixed)
    assert plain_equal(decode_value(encode_canonical(mixed)), mixed)


def test_find_references_looks_through_every_container() -> None:
    """Each reference comes with its path; one in a set with the set's path; fields of parts and values count as keys."""
    a, b, c, d = (EntityReference("Task", name) for name in "abcd")
    state = {
        "owner": a, "list": [1, b, {"k": c}], "tuple": ("x", (d,)), "set": {a, (b, 1)}, 5: {"part": Tagged("part", "P", {"to": c, "n": 1})},
        "value": Tagged("value", "V", {"to": [d]}), "enum": Tagged("enum", "E", "A"), "in a set": {Tagged("value", "V", {"to": b})},
        "none": None, "text": "Task:a", "when": dt.date(2025, 1, 1), "gone": Redacted("law"), "secret": Encrypted("k", b""),
    }  # fmt: skip
    found = sorted(find_references(state), key=repr)
    assert found == sorted(
        [
            (("owner",), a), (("list", 1), b), (("list", 2, "k"), c), (("tuple", 1, 0), d), (("set",), a), (("set",), b),
            ((5, "part", "to"), c), (("value", "to", 0), d), (("in a set",), b),
        ],
        key=repr,
    )  # fmt: skip
    assert list(find_references(a)) == [((), a)]
    assert list(find_references("x", ("p",))) == []


@pytest.mark.exhaustive
@given(states)
def test_found_references_stand_where_they_are_said_to(state: dict[Any, Any]) -> None:
    """Following a path leads to the reference, or to the set that holds it; none is left out."""
    found = list(find_references(state))
    for path, reference in found:
        at: Any = state
        for key in path:
            at = at.data[key] if isinstance(at, Tagged) else at[key]
        assert at == reference if isinstance(at, EntityReference) else isinstance(at, set)
    assert len(found) == _count(state)


def _count(value: Any) -> int:
    if isinstance(value, EntityReference):
        return 1
    if isinstance(value, Tagged):
        return _count(value.data)
    if isinstance(value, dict):
        return sum(map(_count, value.values()))
    return sum(map(_count, value)) if isinstance(value, list | tuple | set) else 0


# -- bytes that are no value ------------------------------------------------------------------------------------------


def ext(code: int, payload: bytes) -> bytes:
    """An extension value of msgpack, by hand."""
    return b"\xc9" + struct.pack(">Ib", len(payload), code) + payload


def pack(value: Any) -> bytes:
    """msgpack without any of the codec's types."""
    packed: bytes = msgpack.packb(value)
    return packed


def nested_ext(depth: int) -> bytes:
    """Tuples of one, inside one another."""
    data = pack(None)
    for _ in range(depth):
        data = ext(1, b"\x91" + data)
    return data


FAULTS = {
    "nothing": b"",
    "trailing bytes": pack(1) + b"\0",
    "two values": pack(1) + pack(2),
    "a reserved byte": b"\xc1",
    "text that is no UTF-8": b"\xa1\xff",
    "an encoded surrogate": b"\xa3\xed\xa0\x80",
    "a cut array": b"\x92\x01",
    "a cut text": b"\xa5abc",
    "a huge array": b"\xdd\xff\xff\xff\xff",
    "a huge map": b"\xdf\xff\xff\xff\xff",
    "huge bytes": b"\xc6\xff\xff\xff\xff",
    "a huge text": b"\xdb\xff\xff\xff\xff",
    "a huge extension": b"\xc9\xff\xff\xff\xff\x01",
    "a key twice": b"\x82\xa1a\x01\xa1a\x02",
    "a key twice, as 1 and True": b"\x82\x01\x01\xc3\x02",
    "a bool as key": b"\x81\xc3\x01",
    "a float as key": b"\x81" + pack(1.0) + b"\x01",
    "None as key": b"\x81\xc0\x01",
    "bytes as key": b"\x81" + pack(b"a") + b"\x01",
    "a list as key": b"\x81\x90\x01",
    "a tuple as key": b"\x81" + ext(1, b"\x90") + b"\x01",
    "an unknown extension": ext(16, b""),
    "extension 0": ext(0, b""),
    "a private extension": ext(-2, b""),
    "a timestamp of 4 bytes": b"\xd6\xff\0\0\0\1",
    "a timestamp of 8 bytes": b"\xd7\xff" + bytes(8),
    "a timestamp of 12 bytes": b"\xc7\x0c\xff" + bytes(12),
    "a bad timestamp": b"\xc7\x05\xff" + bytes(5),
    "a timestamp in a list": b"\x91\xd6\xff\0\0\0\1",
    "a timestamp in a tuple": ext(1, b"\x91\xd6\xff\0\0\0\1"),
    "a timestamp in a set": ext(2, b"\x91\xd6\xff\0\0\0\1"),
    "a timestamp in a part": ext(13, pack(["P", {}])[:-1] + b"\x81\xa1x\xd6\xff\0\0\0\1"),
    "a timestamp as key": b"\x81\xd6\xff\0\0\0\1\x01",
    "lists too deep": b"\x91" * 65 + b"\xc0",
    "lists far too deep": b"\x91" * 1020 + b"\xc0",
    "lists deeper than msgpack reads": b"\x91" * 5000 + b"\xc0",
    "maps too deep": b"\x81\x01" * 65 + b"\xc0",
    "tuples too deep": nested_ext(65),
    "tuples far too deep": nested_ext(2000),
    "tuples and lists far too deep": ext(1, b"\x91" * 1000 + nested_ext(30)),
    "a tuple that is a map": ext(1, b"\x80"),
    "a tuple that is nothing": ext(1, b""),
    "a tuple with trailing bytes": ext(1, b"\x90\x90"),
    "a set of lists": ext(2, b"\x91\x90"),
    "a set with a member twice": ext(2, b"\x92\x01\x01"),
    "a set with 1 and True": ext(2, b"\x92\x01\xc3"),
    "a set with NaN": ext(2, b"\x91" + pack(float("nan"))),
    "a set with a part": ext(2, b"\x91" + ext(13, pack(["P", {}]))),
    "a datetime of three parts": ext(3, pack([0, 0, None])),
    "a datetime with a float": ext(3, pack([0.5, 0, None, None])),
    "a datetime with a bool": ext(3, pack([True, 0, None, None])),
    "a datetime with a bool as fold": ext(3, pack([0, True, None, None])),
    "a datetime with fold 2": ext(3, pack([0, 2, None, None])),
    "a datetime before year 1": ext(3, pack([-1, 0, None, None])),
    "a datetime after year 9999": ext(3, pack([2**62, 0, None, None])),
    "a datetime with a text as offset": ext(3, pack([0, 0, "1", None])),
    "a datetime with an offset of a day": ext(3, pack([0, 0, 86_400_000_000, None])),
    "a datetime with a huge offset": ext(3, pack([0, 0, 2**63, "x"])),
    "a datetime with a number as zone": ext(3, pack([0, 0, 0, 5])),
    "a datetime with a zone without offset": ext(3, pack([0, 0, None, "Europe/Berlin"])),
    "a date that is a text": ext(4, pack("2025-01-01")),
    "a date that is a bool": ext(4, pack(True)),
    "day 0": ext(4, pack(0)),
    "a day after year 9999": ext(4, pack(2**40)),
    "a time after its day": ext(5, pack([86_400_000_000, 0, None, None])),
    "a time with a map": ext(5, pack([{}, 0, None, None])),
    "a timedelta that is a float": ext(6, pack(1.0)),
    "a timedelta beyond its range": ext(6, ext(9, (10**30).to_bytes(13, "big", signed=True))),
    "a decimal that is none": ext(7, b"abc"),
    "a decimal that is no ASCII": ext(7, "١".encode()),
    "a decimal with a blank": ext(7, b" 1"),
    "a decimal with an underscore": ext(7, b"1_0"),
    "a decimal with a small e": ext(7, b"1e+5"),
    "a decimal with a huge exponent": ext(7, b"1E+99999999999999999999"),
    "a UUID of 15 bytes": ext(8, bytes(15)),
    "a small integer as a large one": ext(9, b"\x01"),
    "a large integer with a leading zero": ext(9, b"\0\0" + b"\xff" * 8),
    "a large integer of nothing": ext(9, b""),
    "a reference without a colon": ext(10, b"Task"),
    "a reference without an id": ext(10, b"Task:"),
    "a reference with NUL": ext(10, b"Task:a\0"),
    "a reference that is no UTF-8": ext(10, b"Task:\xff"),
    "a reference to a bad type": ext(10, b"../x:1"),
    "an enum of a float": ext(11, pack(["E", 1.0])),
    "an enum of a bool": ext(11, pack(["E", True])),
    "an enum without a name": ext(11, pack([None, "A"])),
    "a value that is a list": ext(12, pack(["V", []])),
    "a value with a numbered field": ext(12, pack(["V", {1: 2}])),
    "a part of three": ext(13, pack(["P", {}, 1])),
    "a redaction that is no UTF-8": ext(14, b"\xff"),
    "ciphertext that is text": ext(15, pack(["k", "x"])),
    "an encrypted value without a key": ext(15, pack([None, b"x"])),
}


@pytest.mark.parametrize("data", FAULTS.values(), ids=FAULTS)
def test_bytes_that_are_no_value_are_refused(data: bytes) -> None:
    """Each fault is a DecodeError, alone and inside a list, a map, a tuple and a part."""
    tucked = [data, b"\x91" + data, b"\x81\xa1k" + data, ext(1, b"\x91" + data), ext(13, b"\x92\xa1P\x81\xa1k" + data)]
    for whole in tucked:
        with pytest.raises(DecodeError):
            decode_value(whole)


@given(st.binary(max_size=60))
def test_random_bytes_are_a_value_or_a_decode_error(data: bytes) -> None:
    """No other error comes out of decoding, and what comes out is plain data."""
    _decode_or_refuse(data)


@given(st.integers(-128, 127), st.binary(max_size=30))
def test_random_extensions_are_a_value_or_a_decode_error(code: int, payload: bytes) -> None:
    """The same for each extension type."""
    _decode_or_refuse(ext(code, payload))
    _decode_or_refuse(ext(code % 16, payload))


@given(values, st.data())
def test_damaged_encodings_are_a_value_or_a_decode_error(value: Any, data: st.DataObject) -> None:
    """Encodings that are cut, or have a byte changed, never lead to another error; cut ones are always refused."""
    good = encode_value(value)
    cut = data.draw(st.integers(0, len(good) - 1))
    with pytest.raises(DecodeError):
        decode_value(good[:cut])
    with pytest.raises(DecodeError):
        decode_value(good + b"\x01")
    spoiled = bytearray(good)
    spoiled[cut] ^= data.draw(st.integers(1, 255))
    _decode_or_refuse(bytes(spoiled))


def _decode_or_refuse(data: bytes) -> None:
    try:
        value = decode_value(data)
    except DecodeError:
        return
    check_plain(value)
    assert plain_equal(decode_value(encode_value(value)), value)


def test_nested_arrays_that_claim_much_are_refused_quickly() -> None:
    """Arrays inside one another that each claim to fill the rest of a megabyte reserve no memory for it."""
    with pytest.raises(DecodeError):
        decode_value((b"\xdd" + struct.pack(">I", 1_000_000)) * 900 + bytes(1_000_000))


def test_integers_dates_and_ids_have_the_types_they_had() -> None:
    """Examples that a person can read: borders of integers, special floats, the smallest and largest moments."""
    examples: tuple[Any, ...] = (
        0, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, True, -0.0, dt.datetime.min, dt.datetime.max, dt.date.min, dt.date.max, dt.time.max,
        dt.timedelta.min, dt.timedelta.max, UUID(int=5), (), set(), {}, [], b"", "", {2**80: 1, -(2**80): 2, "a": 3}, (1, (2, [3])),
        dt.datetime.max.replace(tzinfo=ZoneInfo("America/New_York")), dt.datetime.min.replace(tzinfo=ZoneInfo("Asia/Tokyo")),
    )  # fmt: skip
    for value in examples:
        back = decode_value(encode_value(value))
        assert plain_equal(back, value)
    assert struct.pack(">d", decode_value(encode_value(-0.0))) == struct.pack(">d", -0.0)


def test_other_objects_are_named_in_the_error() -> None:
    """The way out names the class that cannot be stored."""
    with pytest.raises(UnstorableValueError, match=r"types\.SimpleNamespace is no plain data") as caught:
        encode_value({"a": [SimpleNamespace()]})
    assert caught.value.path == ("a", 0)


def test_a_packer_that_is_used_again_knows_nothing_of_what_it_packed_before() -> None:
    """Small, nested, failing and large values in turn, from several threads: the bytes are those of a packer made for each alone."""
    samples: list[Any] = [
        {"a": [1, (2, ({3}, Decimal("4.5"))), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)]},
        "x" * 200_000,
        [Tagged("value", "shop:Money", {"amount": (1, (2, (3,)))})],
        5,
    ]
    expected = []
    for value in samples:
        codec._idle_packers.clear()
        expected.append(codec.pack(value))

    def pack_all() -> bool:
        for _ in range(30):
            with pytest.raises(UnstorableValueError):
                codec.pack([("fine", [object()])])
            if [codec.pack(value) for value in samples] != expected:
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        packed = [pool.submit(pack_all) for _ in range(4)]
        assert all(future.result() for future in packed)
    codec._idle_packers.clear()
    codec.pack("x" * 200_000)
    assert codec._idle_packers == []
