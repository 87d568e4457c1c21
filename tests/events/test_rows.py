"""Rows of the log: an event goes in and comes out, and nothing of a damaged or forged row is handed out."""

from __future__ import annotations

import datetime as dt
import struct
import zlib
from contextlib import suppress
from hashlib import sha256
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony_es.errors import ChangeError, DamagedEventError, LimitExceededError, SymphonyError, UnstorableValueError
from symphony_es.events.changes import ADD, APPEND, DISCARD, INSERT, REMOVE, SET, SPLICE, apply_changes
from symphony_es.events.codec import FORMAT_BYTE, decode_value, encode_value
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.fold import Damage, Fold
from symphony_es.events.references import EntityReference
from symphony_es.events.rows import (
    Row,
    check_row,
    check_rows,
    commitment,
    decode_changes,
    decode_row,
    encode_body,
    event_id_of,
    seal_state,
    time_of,
)  # fmt: skip
from symphony_es.events.values import Limits, plain_equal
from tests.events.plain_data import keys, members, row_of, row_with_body, texts, values

paths = st.lists(keys, min_size=1, max_size=3).map(tuple)
indexes = st.integers(0, 5)
changes = st.one_of(
    st.tuples(st.just(SET), st.one_of(paths, st.just(())), values),
    st.tuples(st.just(INSERT), paths, indexes, values),
    st.tuples(st.just(SPLICE), paths, indexes, indexes, st.lists(values, max_size=2)),
    st.tuples(st.just(APPEND), paths, values),
    st.tuples(st.just(REMOVE), paths),
    st.tuples(st.just(ADD), paths, members),
    st.tuples(st.just(DISCARD), paths, values),
)
ids = st.binary(min_size=16, max_size=16)
numbers = st.one_of(st.none(), st.integers(1, 2**40))
metadata = st.builds(
    EventMetadata,
    run_id=st.none() | texts, step=st.none() | texts, attempt=numbers, cause=st.none() | ids, actor=st.none() | texts,
    reason=st.none() | texts, correlation_id=st.none() | texts, trace_id=st.none() | texts, state_version=numbers, generation=numbers,
    user=st.none() | st.dictionaries(texts, values, max_size=2),
)  # fmt: skip
events = st.builds(
    NewEvent,
    entity_key=st.sampled_from(["Task:1", "a.b:../../x", "T:\u202eabc", "T:" + "ž" * 256]),
    version=st.integers(1, 2**63 - 1),
    name=st.sampled_from(["TaskChanged", "x", "A" * 100]),
    changes=st.lists(changes, max_size=3),
    metadata=metadata,
    data=st.none() | values,
    event_id=ids,
    transaction_id=st.none() | ids,
)


@given(events, ids, st.integers(1, 2**63 - 1), st.integers(0, 2**63))
def test_an_event_comes_back_as_it_was(event: NewEvent, salt: bytes, position: int, time_ns: int) -> None:
    """Every field of any event survives, and the fast path of the fold sees the same changes."""
    body = encode_body(event, salt)
    state = seal_state(position, event.entity_key, event.version, event.name, event.event_id, time_ns, body)
    row = (position, event.entity_key, event.version, event.name, state)
    back = decode_row(row)
    assert (back.position, back.entity_key, back.version, back.name, back.event_id, back.time_ns) == (
        position, event.entity_key, event.version, event.name, event.event_id, time_ns,
    )  # fmt: skip
    assert back.transaction_id == (event.transaction_id or event.event_id)
    assert plain_equal(list(back.changes), list(event.changes))
    assert plain_equal(back.data, event.data)
    for name in EventMetadata.__slots__:
        assert plain_equal(getattr(back.metadata, name), getattr(event.metadata, name))
    fast, state_version, generation = decode_changes(row)
    assert plain_equal([(change[0], tuple(change[1]), *change[2:]) for change in fast], list(event.changes))
    assert (state_version, generation) == (event.metadata.state_version, event.metadata.generation)
    assert (time_of(state), event_id_of(state)) == (time_ns, event.event_id)
    assert commitment(state) == sha256(body).digest()
    assert body[:16] == salt


def test_an_event_names_its_entity_and_time() -> None:
    """What can be told from the fields has names of its own."""
    event = decode_row(row_of(key="Task:a:b"))
    assert (event.entity_type, event.entity_id, event.reference) == ("Task", "a:b", EntityReference("Task", "a:b"))
    assert event.id == "00000000000000000000000007"
    assert event.recorded_at == dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=dt.UTC)


FULL = row_of(
    changes=((SET, ("a",), {"n": [1, 2.5, b"x"]}), (APPEND, ("l",), EntityReference("Task", "t2"))), data={"mail": "sent"}, run_id="r1",
    actor="alice", state_version=2, generation=1, user={"k": "v"},
)  # fmt: skip


GOOD = row_of(9, "Task:t9")


def _refused(row: Any) -> None:
    for read in (check_row, decode_row, lambda row: check_rows([GOOD, row, GOOD])):
        with pytest.raises(DamagedEventError):
            read(row)


def test_every_flipped_bit_of_a_row_is_noticed() -> None:
    """Any single bit of any column: position, key, version, name and state."""
    position, key, version, name, state = FULL
    for bit in range(63):
        _noticed((position ^ 1 << bit, key, version, name, state))
        _noticed((position, key, version ^ 1 << bit, name, state))
    for bit in range(len(key) * 8):
        _noticed((position, _flipped(key.encode(), bit).decode("utf-8", "surrogateescape"), version, name, state))
    for bit in range(len(name) * 8):
        _noticed((position, key, version, _flipped(name.encode(), bit).decode("utf-8", "surrogateescape"), state))
    for bit in range(len(state) * 8):
        _noticed((position, key, version, name, _flipped(state, bit)))


@pytest.mark.parametrize("size", [0, 10_000], ids=["small", "large"])
def test_damage_is_noticed_wherever_it_stands_in_a_page(size: int) -> None:
    """The first row, one in the middle, the last one, two of them: the first that is damaged is named, whatever stands beside it."""
    page = [row_of(position, f"Task:t{position}", changes=((SET, ("a",), "x" * size),)) for position in range(1, 6)]
    check_rows(page)
    check_rows([*page, GOOD])
    for damaged in ([0], [2], [4], [1, 3]):
        spoiled = list(page)
        for index in damaged:
            *columns, state = page[index]
            spoiled[index] = (*columns, _flipped(state, 400))  # type: ignore[assignment]
        with pytest.raises(DamagedEventError) as caught:
            check_rows(spoiled)
        assert caught.value.position == page[damaged[0]][0]


def _flipped(data: bytes, bit: int) -> bytes:
    spoiled = bytearray(data)
    spoiled[bit // 8] ^= 1 << bit % 8
    return bytes(spoiled)


def _noticed(row: Row) -> None:
    for check in (check_row, lambda row: check_rows([GOOD, row, GOOD])):
        with pytest.raises(DamagedEventError) as caught:
            check(row)
        assert caught.value.position == row[0]


def test_cut_lengthened_and_exchanged_columns_are_noticed() -> None:
    """A state that is shorter, longer, or belongs to another row; key and name that run into each other."""
    position, key, version, name, state = FULL
    for length in range(len(state)):
        _refused((position, key, version, name, state[:length]))
    _refused((position, key, version, name, state + b"\0"))
    _refused((position, key, version, name, row_of(8)[4]))
    _refused((position, key + name[:1], version, name[1:], state))
    _refused((position, key[:-1], version, key[-1] + name, state))
    _refused((version, key, position, name, state))


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("wrong", [None, 1.5, "7", b"7", 7, True, bytearray(b"x" * 90), ["x"]], ids=repr)
def test_columns_of_other_types_are_noticed(column: int, wrong: Any) -> None:
    """SQLite hands out any type in any column: an integer where bytes should be is damage, not a TypeError."""
    row: list[Any] = list(FULL)
    row[column] = wrong if type(wrong) is not type(row[column]) else [wrong]
    _refused(tuple(row))


@pytest.mark.parametrize(
    "row",
    [
        (0, *FULL[1:]), (-7, *FULL[1:]), (2**64, *FULL[1:]), (7, "T:\ud800", *FULL[2:]), (7, "T:" + "x" * 70_000, *FULL[2:]),
        (7, "Task:t1", 0, *FULL[3:]), (7, "Task:t1", 2**70, *FULL[3:]), (7, "Task:t1", 3, "\udfff", FULL[4]), FULL[:4], (*FULL, 1),
        (), None, 5,
    ],
    ids=lambda row: repr(row)[:30],
)  # fmt: skip
def test_columns_out_of_range_are_noticed(row: Any) -> None:
    """Positions that are none, keys that no database would have stored, rows with a column too few or too many."""
    _refused(row)


@pytest.mark.parametrize(("offset", "value"), [(0, 0), (0, 2), (0, 255), (1, 0), (1, 3), (1, 5), (1, 9), (1, 0x81)])
def test_other_formats_and_flags_are_refused_by_name(offset: int, value: int) -> None:
    """A format or flag of a later version is not read as if it were this one, even with a right check value."""
    state = bytearray(FULL[4])
    state[offset] = value
    _refused((*FULL[:4], bytes(state)))
    if (offset, value) != (1, 0):
        with pytest.raises(DamagedEventError, match="is unknown here"):
            check_row((*FULL[:4], bytes(state)))


def test_a_position_that_is_not_covered_may_be_any() -> None:
    """Without the flag, the check value leaves the position out, and nothing else."""
    _, key, version, name, state = row_of(5)
    checked = bytes([FORMAT_BYTE, 0]) + state[2:-4]
    columns = struct.pack(">QQHI", 0, version, len(name), len(checked) + 4) + name.encode() + key.encode()
    sealed = checked + struct.pack("<I", zlib.crc32(columns + checked))
    assert sealed == seal_state(0, key, version, name, state[2:18], time_of(state), state[26:-4])
    assert decode_row((5, key, version, name, sealed)).changes == decode_row((6, key, version, name, sealed)).changes
    _refused((5, key, version + 1, name, sealed))


# -- forged bodies: the check value is right, the body is not ---------------------------------------------------------

EVENT = [None, [[SET, ["n"], 1]], [], None]


def body(**parts: Any) -> bytes:
    """A body of four parts, some of which are replaced."""
    whole = dict(zip(("transaction", "changes", "metadata", "data"), EVENT, strict=True)) | parts
    packed: bytes = msgpack.packb(list(whole.values()))
    return packed


def deep(depth: int) -> Any:
    """Lists inside one another."""
    made: Any = None
    for _ in range(depth):
        made = [made]
    return made


TIMESTAMP = msgpack.Timestamp(1, 2)
BEFORE = row_of(6, "Task:t1", 1, changes=((SET, (), {"l": []}),))
FORGED_EFFECTS = {
    "nothing": b"",
    "not a list": msgpack.packb({}),
    "three parts": msgpack.packb(EVENT[:3]),
    "five parts": msgpack.packb([*EVENT, None]),
    "trailing bytes": body() + b"\0",
    "cut": body()[:-1],
    "changes that are a map": body(changes={}),
    "metadata that are a map": body(metadata={}),
    "a change that is a number": body(changes=[5]),
    "a change that is a map": body(changes=[{0: SET, 1: ["n"], 2: 1}]),
    "an empty change": body(changes=[[]]),
    "a change without a path": body(changes=[[SET]]),
    "a set without a value": body(changes=[[SET, ["n"]]]),
    "a set of too much": body(changes=[[SET, ["n"], 1, 2]]),
    "an unknown operation": body(changes=[[7, ["n"], 1]]),
    "a negative operation": body(changes=[[-1, ["n"], 1]]),
    "an operation that is False": body(changes=[[False, ["n"], 1]]),
    "an operation that is 0.0": body(changes=[[0.0, ["n"], 1]]),
    "an operation that is a list": body(changes=[[[], ["n"], 1]]),
    "a path that is text": body(changes=[[SET, "n", 1]]),
    "a path of a float": body(changes=[[SET, [1.0], 1]]),
    "a path of True": body(changes=[[SET, [True], 1]]),
    "a path of None": body(changes=[[SET, [None], 1]]),
    "a path of a list": body(changes=[[SET, [[]], 1]]),
    "a path of a timestamp": body(changes=[[SET, [TIMESTAMP], 1]]),
    "a path that is too long": body(changes=[[SET, ["a"] * 65, 1]]),
    "a splice of text": body(changes=[[SPLICE, ["l"], 0, 0, "ab"]]),
    "a timestamp as value": body(changes=[[SET, ["n"], TIMESTAMP]]),
    "a timestamp inside a value": body(changes=[[SET, ["n"], [{"a": TIMESTAMP}]]]),
    "a value that is too deep": body(changes=[[SET, ["n"], deep(64)]]),
    "a value that is far too deep": body(changes=[[SET, ["n"], deep(500)]]),
    "a value too deep for its path": body(changes=[[APPEND, ["a"] * 60, deep(4)]]),
    "a state version of 0": body(metadata=[None] * 8 + [0]),
    "a state version that is text": body(metadata=[None] * 8 + ["2"]),
    "a state version that is True": body(metadata=[None] * 8 + [True]),
    "a huge state version": body(metadata=[None] * 8 + [2**63]),
    "a negative generation": body(metadata=[None] * 9 + [-1]),
    "a generation that is a float": body(metadata=[None] * 9 + [1.0]),
    "a generation that is a map": body(metadata=[None] * 9 + [{}]),
    "twelve metadata": body(metadata=[None] * 12),
}
FORGED_CONTEXTS = {
    "a transaction id that is a number": body(transaction=5),
    "a transaction id of nothing": body(transaction=b""),
    "a transaction id of 15 bytes": body(transaction=bytes(15)),
    "a run id that is a number": body(metadata=[5]),
    "a step that is bytes": body(metadata=[None, b"x"]),
    "an attempt that is text": body(metadata=[None, None, "1"]),
    "attempt 0": body(metadata=[None, None, 0]),
    "a cause of 3 bytes": body(metadata=[None] * 3 + [b"abc"]),
    "a cause that is text": body(metadata=[None] * 3 + ["a" * 16]),
    "an actor that is a list": body(metadata=[None] * 4 + [["alice"]]),
    "a reason that is True": body(metadata=[None] * 5 + [True]),
    "a correlation id that is a float": body(metadata=[None] * 6 + [1.5]),
    "a trace id that is bytes": body(metadata=[None] * 7 + [b"x"]),
    "user keys that are a list": body(metadata=[None] * 10 + [[]]),
    "a user key that is a number": body(metadata=[None] * 10 + [{1: 2}]),
    "a timestamp among the user keys": body(metadata=[None] * 10 + [{"a": TIMESTAMP}]),
    "user keys that are too deep": body(metadata=[None] * 10 + [{"a": deep(64)}]),
    "data that are a timestamp": body(data=TIMESTAMP),
    "data that are too deep": body(data=deep(65)),
}


@pytest.mark.parametrize("forged", FORGED_EFFECTS.values(), ids=FORGED_EFFECTS)
def test_forged_effects_are_damage_to_every_reader(forged: bytes) -> None:
    """A body that has the right check value and says nonsense damages its entity, for the same reason whoever reads it."""
    row = row_with_body(forged, version=2)
    check_rows([row])
    check_row(row)
    with pytest.raises(DamagedEventError) as caught:
        decode_changes(row)
    assert (caught.value.position, caught.value.entity) == (7, "Task:t1")
    event = decode_row(row)
    assert (event.fault, event.changes, event.data) == (caught.value.why, (), None)
    before, by_page, by_row, by_event = Fold(), Fold(), Fold(), Fold()
    before.apply_row(BEFORE)
    by_page.apply_rows([BEFORE, row, GOOD])
    for each in (BEFORE, row, GOOD):
        by_row.apply_row(each)
        by_event.apply_event(decode_row(each))
    for fold in (by_page, by_row, by_event):
        damaged = fold.states["Task:t1"]
        assert damaged.damage == Damage(2, 7, caught.value.why)
        assert (fold.position, damaged.version, damaged.position) == (GOOD[0], 2, 7)
        assert plain_equal(damaged.data, before.states["Task:t1"].data)


SOUND = (
    body(), body(changes=[[SET, ["l"], [1]]]), body(changes=[[SET, ["a"], 1], [APPEND, ["l"], 2], [SET, ["a"], 3]]), body(changes=[]),
    body(metadata=[None] * 8 + [2]), body(transaction=bytes(16)), body(changes=[[REMOVE, []]]), body(changes=[[SET, [], {"l": []}]]),
)  # fmt: skip
ENDINGS = (b"", b"\xc0", b"\xc0\xc0", b"\0", body())


@given(st.lists(st.sampled_from(SOUND), max_size=3), st.sampled_from((*SOUND, *FORGED_EFFECTS.values())), st.sampled_from(ENDINGS))
def test_a_page_is_folded_as_its_rows_one_by_one(before: list[bytes], one: bytes, ending: bytes) -> None:
    """Bodies that end early or late, say nothing or nonsense: the states, and what is damaged since when, are the same."""
    bodies = [*before, one + ending, *SOUND[:3]]
    rows = [BEFORE] + [row_with_body(one, position=position, version=position - 5) for position, one in enumerate(bodies, 7)]
    by_page, one_by_one = Fold(), Fold()
    outcomes: list[Any] = []
    for fold, feed in ((by_page, by_page.apply_rows), (one_by_one, lambda rows: [one_by_one.apply_row(row) for row in rows])):
        feed(rows)
        states = {key: (encode_value(state.data), state.version, state.position, state.damage) for key, state in fold.states.items()}
        outcomes += [fold.position, states]
    assert outcomes[:2] == outcomes[2:]


@pytest.mark.parametrize("forged", FORGED_CONTEXTS.values(), ids=FORGED_CONTEXTS)
def test_forged_contexts_are_damage_to_whoever_reads_them(forged: bytes) -> None:
    """Metadata, data and transaction ids of other types are not handed out; the fold, which does not look at them, is not harmed."""
    row = row_with_body(forged)
    with suppress(DamagedEventError):
        assert decode_row(row).fault is not None
    try:
        found: list[Any] = decode_changes(row)[0]
    except DamagedEventError:
        return
    assert found == [[SET, ["n"], 1]]


@pytest.mark.parametrize(("key", "name"), [("no key", "X"), ("Task:", "X"), ("9:1", "X"), ("Task:1", "no name"), ("Task:1", "")])
def test_forged_keys_and_names_are_damage(key: str, name: str) -> None:
    """An event whose name could not have been written is not handed out; one whose entity could not be, says so and damages that one."""
    row = row_with_body(body(), key=key, name=name)
    if key == "Task:1":
        with pytest.raises(DamagedEventError):
            decode_row(row)
        return
    fold = Fold()
    fold.apply_row(row)
    damage = fold.states[key].damage
    assert damage is not None
    assert decode_row(row).fault == damage.reason


@given(st.binary(max_size=80))
def test_random_bodies_are_events_or_damage(packed: bytes) -> None:
    """Whatever stands in a body, nothing but DamagedEventError is raised."""
    for read in (decode_row, decode_changes):
        try:
            read(row_with_body(packed))
        except DamagedEventError:
            continue


@given(events, st.data())
def test_bodies_with_a_changed_byte_are_events_or_damage(event: NewEvent, data: st.DataObject) -> None:
    """The same for bodies that are almost right; what the fold takes does not harm it."""
    packed = bytearray(encode_body(event, bytes(16))[16:])
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    row = row_with_body(bytes(packed))
    for read in (decode_row, decode_changes, Fold().apply_row):
        try:
            read(row)
        except DamagedEventError:
            continue


# -- what is refused before it is written -----------------------------------------------------------------------------


def new_event(**fields: Any) -> NewEvent:
    """An event that can be written, with some fields replaced."""
    given_fields: dict[str, Any] = {
        "entity_key": "Task:t1", "version": 1, "name": "TaskChanged", "changes": [], "metadata": EventMetadata(), "event_id": bytes(16),
    }  # fmt: skip
    return NewEvent(**{**given_fields, **fields})


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"changes": [(SET, ("a",), {"b": [bytearray()]})]}, ("a", "b", 0)),
        ({"changes": [(SET, ("a",), {True: 1})]}, ("a",)),
        ({"changes": [(SET, ("a",), "\ud800")]}, ("a",)),
        ({"changes": [(SET, ("a", "\ud800"), 1)]}, ("a", "\ud800")),
        ({"changes": [(SET, ("a",), deep(64))]}, ("a",)),
        ({"changes": [(APPEND, ("a",), deep(63))]}, ("a",)),
        ({"data": object()}, ("data",)),
        ({"data": {"a": "\ud800"}}, ("data", "a")),
        ({"metadata": EventMetadata(actor=5)}, ("metadata",)),  # type: ignore[arg-type]
        ({"metadata": EventMetadata(actor="\ud800")}, ("metadata", "actor")),
        ({"metadata": EventMetadata(cause=b"abc")}, ("metadata",)),
        ({"metadata": EventMetadata(cause=bytearray(16))}, ("metadata",)),  # type: ignore[arg-type]
        ({"metadata": EventMetadata(attempt=0)}, ("metadata",)),
        ({"metadata": EventMetadata(attempt=True)}, ("metadata",)),
        ({"metadata": EventMetadata(generation=-1)}, ("metadata",)),
        ({"metadata": EventMetadata(user={"a": {1.0: 1}})}, ("metadata", "user", "a")),
        ({"metadata": EventMetadata(user={1: 1})}, ("metadata",)),  # type: ignore[dict-item]
        ({"metadata": EventMetadata(user={"a": "\ud800"})}, ("metadata", "user", "a")),
    ],
    ids=lambda item: repr(item).split(" at 0x")[0][:60],
)
def test_what_cannot_be_read_back_is_not_written(fields: dict[str, Any], path: tuple[Any, ...]) -> None:
    """Values, paths and metadata are refused with entity and path before anything is appended."""
    with pytest.raises(UnstorableValueError) as caught:
        encode_body(new_event(**fields), bytes(16))
    assert caught.value.entity == "Task:t1"
    assert caught.value.path[: len(path)] == path


@pytest.mark.parametrize("change", [(SET, ("a",)), (9, ("a",), 1), (SET, (1.5,), 1), (SET, ("a",) * 65, 1), "set"], ids=repr)
def test_what_is_no_change_is_not_written(change: Any) -> None:
    """A malformed change is refused at once."""
    with pytest.raises(ChangeError):
        encode_body(new_event(changes=[change]), bytes(16))


@pytest.mark.parametrize(
    ("fields", "salt"),
    [({}, bytes(15)), ({"event_id": b""}, bytes(16)), ({"event_id": bytes(17)}, bytes(16)), ({"transaction_id": bytes(8)}, bytes(16))],
)
def test_ids_and_salts_of_another_length_are_not_written(fields: dict[str, Any], salt: bytes) -> None:
    """The header has 16 bytes for an id; a shorter one would be filled up in silence."""
    with pytest.raises(ValueError, match="16 bytes"):
        encode_body(new_event(**fields), salt)


def test_the_deepest_event_is_written_and_read() -> None:
    """Path and value together may be 64 deep."""
    deepest: list[Any] = [(SET, ("a",), deep(63)), (APPEND, ("a",), deep(62)), (SPLICE, ("a",), 0, 0, deep(63)), (SET, ("a",) * 64, 1)]
    for change in deepest:
        assert decode_row(row_of(changes=(change,), data=deep(64), user={"a": deep(63)})).changes == (change,)


def test_a_state_that_events_have_built_is_never_too_deep_to_be_stored() -> None:
    """Changes that go deeper step by step end where a snapshot of the state would be refused."""
    built: list[tuple[Any, ...]] = [(SET, (), {})]
    refused = 0
    for depth in range(1, 70):
        steps: list[Any] = [(SET, ("a",) * depth, {}), (SET, ("a",) * depth, [[]]), (APPEND, ("l",) * depth, {})]
        for change in steps:
            try:
                encode_body(new_event(changes=[change]), bytes(16))
            except (UnstorableValueError, ChangeError):
                refused += 1
            else:
                built += [change] if change[2] == {} and change[0] == SET else []
    state = apply_changes(None, built)
    assert plain_equal(decode_value(encode_value(state)), state)
    assert len(built) == 64
    assert refused > 15


def test_limits_of_an_event() -> None:
    """A body beyond the limit is refused, one at it is written; a lower depth is kept, a higher one is not."""
    event = new_event(changes=[(SET, ("a",), b"x" * 1000)])
    size = len(encode_body(event, bytes(16)))
    assert len(encode_body(event, bytes(16), Limits(max_body_bytes=size))) == size
    with pytest.raises(LimitExceededError, match="takes"):
        encode_body(event, bytes(16), Limits(max_body_bytes=size - 1))
    with pytest.raises(LimitExceededError):
        encode_body(new_event(data=b"x" * 16 * 1024 * 1024), bytes(16))
    nested = new_event(changes=[(SET, ("a",), [[1]])])
    encode_body(nested, bytes(16), Limits(max_depth=3))
    with pytest.raises(UnstorableValueError, match="nested too deep"):
        encode_body(nested, bytes(16), Limits(max_depth=2))
    with pytest.raises(UnstorableValueError, match="nested too deep"):
        encode_body(new_event(data=deep(65)), bytes(16), Limits(max_depth=1000))


def test_every_fault_is_an_error_of_the_library() -> None:
    """Callers catch one root."""
    assert issubclass(DamagedEventError, SymphonyError)
    assert issubclass(UnstorableValueError, TypeError)
