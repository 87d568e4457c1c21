"""Every change is held against the state it is meant for; what is dirty stays dirty until the log has taken it; one order."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import symphony_es.log.log as log_module
from symphony_es import Symphony
from symphony_es.attribution import NOBODY
from symphony_es.core.world.live_entity import EntityRecord, Segment
from symphony_es.core.world.shadow import advance, put_plain
from symphony_es.errors import (
    EntityBusyError,
    EntityError,
    EntityOutOfStepError,
    LimitExceededError,
    NotReadyError,
    UnstorableValueError,
)
from symphony_es.events.changes import ADD, APPEND, DISCARD, INSERT, REMOVE, SET, SPLICE, apply_changes
from symphony_es.events.splitting import split_change
from symphony_es.events.values import Limits, Tagged, copy_plain, plain_equal
from tests.core.shadowing import Crate, Parcel, states_agree

CAUSES = [
    ValueError("no"), TypeError("no"), KeyError("no"), RecursionError("no"), MemoryError("no"), OSError("no"), RuntimeError("no"),
    AssertionError("no"), UnstorableValueError((), "no"), LimitExceededError("no"), UnicodeEncodeError("utf-8", "x", 0, 1, "no"),
]  # fmt: skip
UNAVAILABLE = [NotReadyError("closed"), MemoryError(), OSError("full"), RuntimeError("odd")]


async def pair(symphony: Symphony) -> tuple[Crate, Crate]:
    """Two entities that are in the log."""
    bad, good = symphony.entities.add(Crate(id="bad")), symphony.entities.add(Crate(id="good"))
    await symphony.flush()
    return bad, good


def refuse(symphony: Symphony, monkeypatch: pytest.MonkeyPatch, cause: Exception) -> None:
    """Have every event of the entity `bad` fail to be encoded."""
    real = symphony.log.prepare

    def prepare(event: Any) -> Any:
        if event.entity_key == "Crate:bad":
            raise cause
        return real(event)

    monkeypatch.setattr(symphony.log, "prepare", prepare)


def state_of(symphony: Symphony, crate: Crate) -> dict[str, Any]:
    """The plain state of an object."""
    return symphony.world.capture(crate, symphony.world.record_for(crate).reference)


# -- dirty stays dirty ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: type(cause).__name__)
@pytest.mark.parametrize("first", ["bad", "good"])
@pytest.mark.parametrize("way", ["turn", "flush", "transaction", "recording"])
async def test_no_error_in_one_entity_loses_a_change_of_another(
    symphony: Symphony, monkeypatch: pytest.MonkeyPatch, cause: Exception, first: str, way: str
) -> None:
    """Whatever goes wrong with the events of one entity, it alone is out of step, `refresh` tells its changes; all others are stored."""
    bad, good = await pair(symphony)
    third = symphony.entities.add(Crate(id="third"))
    refuse(symphony, monkeypatch, cause)
    for crate in (bad, good) if first == "bad" else (good, bad):
        crate.number = 7
    if way == "turn":
        await asyncio.sleep(0)
    elif way == "transaction":
        async with symphony.transaction("Counted"):
            third.number = 3
    elif way == "recording":
        with symphony.world.recording("Counted"):
            third.number = 3
    with pytest.raises(EntityOutOfStepError, match="Crate:bad") as caught:
        await symphony.flush()
    assert type(caught.value.__cause__) is type(cause)
    assert [record.key for record in symphony.world.outbox.broken] == ["Crate:bad"]
    assert [event.changes for event in await symphony.log.read_entity("Crate:good")][1:] == [((SET, ("number",), 7),)]
    monkeypatch.undo()
    assert [change[2] for change in await symphony.refresh(bad)] == [7]
    assert bad.number == 0
    await states_agree(symphony)


@pytest.mark.parametrize("cause", UNAVAILABLE, ids=lambda cause: type(cause).__name__)
@pytest.mark.parametrize("call", ["flush", "recording", "transaction"])
async def test_what_the_log_does_not_take_stays_dirty(
    symphony: Symphony, monkeypatch: pytest.MonkeyPatch, cause: Exception, call: str
) -> None:
    """While the log takes nothing, every call says so again, nothing is out of step, and all of it is stored as soon as it does."""
    crate = symphony.entities.add(Crate(id="a"))
    await symphony.flush()

    def submit(events: Any, unplaced: Any = frozenset(), *, apart: bool = False) -> Any:
        raise cause

    with monkeypatch.context() as broken:
        broken.setattr(symphony.log, "submit", submit)
        crate.number = 5
        for _ in range(3):
            with pytest.raises(type(cause)):
                await symphony.flush()
        if call == "recording":
            with pytest.raises(type(cause)), symphony.world.recording("Tried"):
                crate.number = 6
        elif call == "transaction":
            with pytest.raises(type(cause)):
                async with symphony.transaction("Tried"):
                    crate.labels.add("x")
        assert crate.number == 5
        assert not crate.labels
        assert not symphony.world.outbox.broken
    await states_agree(symphony)
    assert crate.number == 5


async def test_close_says_that_changes_could_not_be_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """`close` raises what keeps the log from taking changes: they are lost, and not in silence."""
    symphony = await Symphony().setup()
    symphony.entities.add(Crate(id="a"))

    def submit(events: Any, unplaced: Any = frozenset(), *, apart: bool = False) -> Any:
        raise NotReadyError("no")

    monkeypatch.setattr(symphony.log, "submit", submit)
    with pytest.raises(NotReadyError):
        await symphony.close()


async def test_an_error_of_those_who_are_told_of_a_submission_undoes_nothing(symphony: Symphony) -> None:
    """What is submitted is submitted: an error after it neither puts objects back nor leaves claims."""
    crate = symphony.entities.add(Crate(id="a"))
    await symphony.flush()

    def told(size_bytes: int) -> None:
        raise RuntimeError("told")

    symphony.world.outbox.on_submitted = told
    async with symphony.transaction("Counted"):
        crate.number = 1
    with symphony.world.recording("Counted"):
        crate.number += 1
    crate.number += 1
    await states_agree(symphony)
    assert crate.number == 3


# -- a change that does not fit ---------------------------------------------------------------------------------------

PAST_METHODS: dict[str, Callable[[Crate], Any]] = {
    "heappush": lambda crate: heapq.heappush(crate.parcels, 5),
    "list.append": lambda crate: list.append(crate.parcels, 5),
    "list.insert": lambda crate: list.insert(crate.parcels, 0, 5),
    "dict.update": lambda crate: dict.update(crate.named, {"sly": {"x": 1}}),
    "dict.__setitem__": lambda crate: dict.__setitem__(crate.named, "sly", {"x": 1}),
    "dict.setdefault": lambda crate: dict.setdefault(crate.named, "sly", {"x": 1}),
}
THEN: dict[str, Callable[[Crate], Any]] = {
    "heappush": lambda crate: crate.parcels.pop(),
    "list.append": lambda crate: crate.parcels.__setitem__(len(crate.parcels) - 1, 6),
    "list.insert": lambda crate: crate.parcels.__delitem__(len(crate.parcels) - 1),
    "dict.update": lambda crate: crate.named.pop("sly"),
    "dict.__setitem__": lambda crate: crate.named.popitem(),
    "dict.setdefault": lambda crate: crate.named.__delitem__("sly"),
}


@pytest.mark.usefixtures("no_check_at_each_flush")
@pytest.mark.parametrize("sly", PAST_METHODS)
@pytest.mark.parametrize("way", ["outside", "transaction", "recording"])
async def test_a_change_that_does_not_fit_is_refused_and_never_appended(symphony: Symphony, sly: str, way: str) -> None:
    """A container changed past its methods: its next change that does not fit is an error there; log and other entities are unharmed."""
    bad, good = await pair(symphony)
    bad.parcels, bad.named, bad.number = [], {}, 4
    PAST_METHODS[sly](bad)
    good.number = 1
    if way == "outside":
        with pytest.raises(EntityError, match="Crate:bad"):
            THEN[sly](bad)
    elif way == "transaction":
        with pytest.raises(EntityError, match="Crate:bad"):
            async with symphony.transaction("Tried"):
                good.number = 2
                THEN[sly](bad)
    else:
        with pytest.raises(EntityError, match="Crate:bad"), symphony.world.recording("Tried"):
            good.number = 2
            THEN[sly](bad)
    if symphony.world.outbox.broken:
        with pytest.raises(EntityOutOfStepError):
            await symphony.flush()
    await symphony.refresh(bad)
    assert (bad.number, bad.parcels, bad.named, good.number) == (4, [], {}, 1)
    await states_agree(symphony)


KEYS = [True, 1.0, None, b"x", (1,), float("nan")]


@pytest.mark.parametrize("key", KEYS, ids=repr)
@pytest.mark.parametrize("way", ["outside", "transaction"])
@pytest.mark.parametrize("act", ["delete", "pop", "set"])
async def test_a_key_that_cannot_be_stored_harms_nobody(symphony: Symphony, key: Any, way: str, act: str) -> None:
    """A key that equals a stored one and is another, or is none: refused or done at the stored key; never at the cost of others."""
    bad, good = await pair(symphony)
    bad.named = {1: "one", 2: "two"}
    await symphony.flush()

    def act_on() -> None:
        if act == "delete":
            del bad.named[key]
        elif act == "pop":
            bad.named.pop(key)
        else:
            bad.named[key] = 0

    good.number = 9
    try:
        if way == "transaction":
            async with symphony.transaction("Tried"):
                act_on()
        else:
            act_on()
    except (UnstorableValueError, KeyError):
        assert bad.named == {1: "one", 2: "two"}
    assert all(type(stored) is int for stored in bad.named)
    await states_agree(symphony)
    assert good.number == 9


def nested(levels: int) -> Any:
    """A list in a list in a list."""
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


DEEP: dict[str, Callable[[Crate, Any], Any]] = {
    "attribute": lambda crate, value: setattr(crate, "top", value),
    "append": lambda crate, value: crate.parcels.append(value),
    "key": lambda crate, value: crate.named.__setitem__("k", value),
    "part": lambda crate, value: setattr(crate, "top", Parcel(notes=value)),
}


@pytest.mark.parametrize("act", DEEP)
@pytest.mark.parametrize("levels", [60, 61, 62, 63, 64, 65])
async def test_what_is_nested_too_deep_is_refused_at_the_call(symphony: Symphony, act: str, levels: int) -> None:
    """Whether a value is too deep for the log is found where it is put in: it is stored, or refused and nothing has changed."""
    crate = symphony.entities.add(Crate(id="a"))
    await symphony.flush()
    try:
        DEEP[act](crate, nested(levels))
    except UnstorableValueError:
        assert (crate.top, crate.parcels, crate.named) == (None, [], {})
    await states_agree(symphony)
    await symphony.resume()
    await states_agree(symphony)


@pytest.mark.parametrize("levels", [61, 62, 63, 64])
async def test_an_entity_that_is_nested_too_deep_is_not_added(symphony: Symphony, levels: int) -> None:
    """An addition is stored, or refused and the object belongs to nothing."""
    try:
        symphony.entities.add(Crate(id="deep", top=nested(levels)))
    except UnstorableValueError:
        assert not symphony.entities.all("Crate")
    await states_agree(symphony)


# -- fast and plain ---------------------------------------------------------------------------------------------------

SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(max_size=3)


PLACES = [(SET, ("number",)), (SET, ("new",)), (SET, ("dict", "a")), (SET, ("dict", 4)), (SET, ("list", 0)), (SET, ("part", "a"))]
PLACES += [(APPEND, ("list",)), (APPEND, ("dict", "list")), (ADD, ("set",))]
PLACE = st.sampled_from(PLACES)


@given(st.lists(st.tuples(PLACE, SCALAR), max_size=8))
def test_the_fast_paths_of_keeping_do_what_the_plain_one_does(made: list[tuple[Any, Any]]) -> None:
    """`Segment.keep` writes out what `advance` does for a value that is put at a simple place: the shadows are the same."""
    state = {**STATE, "dict": {"a": 1, "list": []}, "number": 0}
    fast, plain = (EntityRecord(None, f"Crate:{name}", None, None, shadow=copy_plain(state)) for name in "ab")  # type: ignore[arg-type]
    segment = Segment(record=fast, name="X", attribution=NOBODY)

    class World:
        def check_references(self, *arguments: Any) -> None:
            """Nothing refers to anything."""

    fast.world = plain.world = World()  # type: ignore[assignment]
    for (operation, path), value in made:
        if operation == ADD and type(value) is float and value != value:
            continue  # no member of a set
        segment.keep((operation, path, value), ())
        advance(plain, (operation, path, value), ())
        back = apply_changes(copy_plain(plain.shadow), [])
        inverse = put_plain(copied := copy_plain(plain.shadow), (operation, path, value))
        if inverse is not None:
            inverse[0](*inverse[1:])
            assert plain_equal(copied, back)
    assert plain_equal(fast.shadow, plain.shadow)


# -- one order --------------------------------------------------------------------------------------------------------

HOLD: dict[str, Callable[[Symphony, Crate, Any], Any]] = {
    "attribute": lambda symphony, crate, target: setattr(crate, "top", target),
    "append": lambda symphony, crate, target: crate.parcels.append(target),
    "insert": lambda symphony, crate, target: crate.parcels.insert(0, [target]),
    "key": lambda symphony, crate, target: crate.named.__setitem__("k", {"deep": target}),
    "part": lambda symphony, crate, target: setattr(crate, "top", Parcel(notes=[target])),
    "tuple": lambda symphony, crate, target: setattr(crate, "top", (target, 1)),
    "set": lambda symphony, crate, target: crate.labels.add(target),
    "new entity": lambda symphony, crate, target: symphony.entities.add(Crate(id="holder", top=target)),
}


@pytest.mark.parametrize("hold", HOLD)
@pytest.mark.parametrize("block", ["transaction", "recording"])
@pytest.mark.parametrize("target", ["added before", "added meanwhile", "brought along"])
async def test_what_was_changed_before_stands_before_in_the_log(symphony: Symphony, hold: str, block: str, target: str) -> None:
    """At no position of the log does an entity refer to one that is not there, and changes made before a block come before its own."""
    crate, other = symphony.entities.add(Crate(id="a")), symphony.entities.add(Crate(id="b"))
    await symphony.flush()
    other.number = 1
    wanted = symphony.entities.add(Crate(id="wanted")) if target == "added before" else Crate(id="wanted")

    def add() -> None:
        if target == "added meanwhile":
            symphony.entities.add(wanted)

    if block == "transaction":
        entered = contextvars.copy_context()
        async with symphony.transaction("Held"):
            entered.run(add)
            HOLD[hold](symphony, crate, wanted)
    else:
        contextvars.copy_context().run(add)
        with symphony.world.recording("Held"):
            HOLD[hold](symphony, crate, wanted)
    other.number = 2
    await states_agree(symphony)
    places = [(row[0], row[1]) for row in await symphony.log.read_rows()]
    holder = "Crate:holder" if hold == "new entity" else "Crate:a"
    last = max(position for position, key in places if key == holder)
    assert min(position for position, key in places if key == "Crate:wanted") < last or target == "brought along"
    events = [event.changes for event in await symphony.log.read_entity("Crate:b")]
    assert [changes[0][2] for changes in events[1:]] == [1, 2]
    positions = [event.position for event in await symphony.log.read_entity("Crate:b")]
    assert positions[1] < last < positions[2]


@pytest.mark.parametrize("hold", HOLD)
@pytest.mark.parametrize("where", ["outside", "other transaction", "outer block", "sibling"])
async def test_an_entity_that_an_open_block_creates_can_only_be_referred_to_inside(symphony: Symphony, hold: str, where: str) -> None:
    """It may be rolled back, and comes into the log later: a reference from elsewhere is refused, and nothing has changed."""
    crate = symphony.entities.add(Crate(id="a"))
    await symphony.flush()
    before, wanted, ready, done = state_of(symphony, crate), Crate(id="wanted"), asyncio.Event(), asyncio.Event()

    async def create() -> None:
        async with symphony.transaction("Created"):
            symphony.entities.add(wanted)
            ready.set()
            await done.wait()

    async def refer() -> None:
        await ready.wait()
        with pytest.raises(EntityBusyError, match="Crate:wanted"):
            HOLD[hold](symphony, crate, wanted)
        done.set()

    if where == "outside":
        await asyncio.gather(create(), refer())
    elif where == "other transaction":

        async def inside() -> None:
            async with symphony.transaction("Other"):
                await refer()

        await asyncio.gather(create(), inside())
    else:
        async with symphony.transaction("Outer"):
            creating = asyncio.create_task(create())
            if where == "outer block":
                await refer()
            else:

                async def beside() -> None:
                    async with symphony.transaction("Sibling"):
                        await refer()

                await asyncio.create_task(beside())
            await creating
            assert plain_equal(state_of(symphony, crate), before)
    assert plain_equal(state_of(symphony, crate), before)
    assert symphony.entities.find("Crate:holder") is None
    HOLD[hold](symphony, crate, wanted)
    await states_agree(symphony)


# -- too large for one event ------------------------------------------------------------------------------------------

LARGE: dict[str, Callable[[], Any]] = {
    "list": lambda: [f"item {number:06}" for number in range(400)],
    "dict": lambda: {f"key {number:06}": number for number in range(400)},
    "set": lambda: {f"member {number:06}" for number in range(400)},
    "parts": lambda: [Parcel(weight=number, notes=["x"] * 3) for number in range(150)],
    "nested": lambda: {"a": {"b": [["y" * 50] * 10 for _ in range(10)]}, "c": Parcel(notes=["z" * 40] * 60)},
}


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("way", ["outside", "transaction", "recording"])
@pytest.mark.parametrize("act", ["add", "set", "append", "sort"])
async def test_a_state_larger_than_an_event_takes_several(kind: str, way: str, act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large for one event is several of one transaction, wherever it is made; the data stand in the first of them."""
    async with Symphony() as symphony:
        monkeypatch.setattr(symphony.log, "_limits", Limits(max_body_bytes=2000))
        crate = symphony.entities.add(Crate(id="a"))
        await symphony.flush()

        def do() -> None:
            if act == "add":
                symphony.entities.add(Crate(id="large", top=LARGE[kind]()))
            elif act == "set":
                crate.top = LARGE[kind]()
            elif act == "append":
                crate.parcels.insert(0, LARGE[kind]())
            else:
                crate.parcels = [f"{number * 7919 % 1000:06}" * 3 for number in range(300)]
                crate.parcels.sort()

        if way == "outside":
            do()
        elif way == "transaction":
            async with symphony.transaction("Stored"):
                do()
        else:
            with symphony.world.recording("Stored", {"why": "x"}):
                do()
        await states_agree(symphony)
        events = await symphony.log.read_entity("Crate:large" if act == "add" else "Crate:a")
        made = events[0 if act == "add" else 1 :]
        assert len(made) > 1
        assert way == "outside" or len({event.transaction_id for event in made}) == 1
        assert [event.data for event in made if event.data is not None] == ([{"why": "x"}] if way == "recording" else [])


@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("back", ["removed", "replaced"])
async def test_a_state_larger_than_an_event_can_be_gone_back_to_and_forked(
    kind: str, back: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entity that has grown by small events: rewinding to it and forking it take several events of one transaction."""
    monkeypatch.setattr(log_module, "Limits", lambda: Limits(max_body_bytes=2000))
    async with Symphony({"state_dir": str(tmp_path / "state")}, persistence_enabled=True) as symphony:
        crate = symphony.entities.add(Crate(id="a", top=LARGE[kind]()))
        small = symphony.entities.add(Crate(id="b"))
        checkpoint = await symphony.create_checkpoint("large")
        if back == "removed":
            symphony.entities.remove(crate)
        else:
            crate.top = None
        small.number = 1
        await symphony.flush()
        await symphony.resume_from_checkpoint(checkpoint)
        assert symphony.entities.get("Crate:a").top == LARGE[kind]()
        assert symphony.entities.get("Crate:b").number == 0
        symphony.entities.get("Crate:a").number = 5
        await states_agree(symphony)
        await symphony.fork(into=tmp_path / "fork")
    async with Symphony({"state_dir": str(tmp_path / "fork"), "resume": "latest"}, persistence_enabled=True) as forked:
        assert forked.entities.get("Crate:a").top == LARGE[kind]()
        forked.entities.get("Crate:a").number = 6
        await states_agree(forked)


async def test_one_value_too_large_is_that_entitys_alone(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text that no event can hold puts its entity out of step, names it and the place, and harms no other."""
    bad, good = await pair(symphony)
    monkeypatch.setattr(symphony.log, "_limits", Limits(max_body_bytes=2000))
    bad.top, good.number = "x" * 3000, 4
    with pytest.raises(EntityOutOfStepError, match=r"Crate:bad.*top"):
        await symphony.flush()
    await symphony.refresh(bad)
    await states_agree(symphony)
    assert good.number == 4


PLAIN = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=2), inner, max_size=4)
        | st.sets(st.integers(), max_size=4)
        | st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(lambda fields: Tagged("part", "P", fields))
    ),
    max_leaves=12,
)
STATE = {"list": [1, 2, 3], "dict": {"a": 1}, "set": {1, 2}, "part": Tagged("part", "P", {"a": [1]})}
CHANGE = st.one_of(
    st.tuples(st.just(SET), st.sampled_from([("list",), ("dict", "b"), ("part", "a"), ("list", 1)]), PLAIN),
    st.tuples(st.just(INSERT), st.just(("list",)), st.integers(0, 3), PLAIN),
    st.tuples(st.just(SPLICE), st.just(("list",)), st.integers(0, 1), st.integers(1, 3), st.lists(PLAIN, max_size=4)),
    st.tuples(st.just(APPEND), st.just(("list",)), PLAIN),
    st.tuples(st.just(ADD), st.just(("set",)), st.integers()),
    st.tuples(st.just(DISCARD), st.just(("set",)), st.integers()),
    st.tuples(st.just(REMOVE), st.sampled_from([("list", 0), ("dict", "a")])),
    st.tuples(st.just(SET), st.just(()), st.dictionaries(st.text(max_size=2), PLAIN, max_size=4)),
)


@settings(max_examples=300)
@given(CHANGE)
def test_the_pieces_of_a_change_do_what_it_does(change: Any) -> None:
    """Divided as often as it can be, a change comes to the same; and no division goes on for ever."""
    whole = apply_changes(copy_plain(STATE), [change])
    pieces = [change]
    for _ in range(60):
        divided = [piece for one in pieces for piece in split_change(one)]
        if len(divided) == len(pieces):
            break
        pieces = divided
    else:
        pytest.fail("it is divided for ever")
    assert plain_equal(apply_changes(copy_plain(STATE), pieces), whole)


# -- the debugging switch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sly", PAST_METHODS)
@pytest.mark.parametrize("met", ["changed", "got", "found", "listed"])
@pytest.mark.parametrize("switch", ["1", "0"])
async def test_the_switch_compares_objects_with_what_was_recorded(sly: str, met: str, switch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`SYMPHONY_CHECK=1`: a container changed past its methods is an error at the next flush, with entity and path."""
    monkeypatch.setenv("SYMPHONY_CHECK", switch)
    symphony = await Symphony().setup()
    crate = symphony.entities.add(Crate(id="a", parcels=[], named={}))
    await symphony.flush()
    await symphony.flush()
    if met == "changed":
        crate.number = 1
    elif met == "got":
        symphony.entities.get("Crate:a")
    elif met == "found":
        symphony.entities.find("Crate:a")
    else:
        symphony.entities.all("Crate")
    PAST_METHODS[sly](crate)
    if switch == "1":
        with pytest.raises(EntityError, match=r"Crate:a.*(parcels|named)"):
            await symphony.flush()
    else:
        await symphony.flush()
    await symphony.refresh(crate)
    await symphony.close()


# -- the log in memory forgets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [1, 20, 100])
@pytest.mark.parametrize("rounds", [1, 3])
async def test_an_id_that_the_log_in_memory_has_forgotten_can_be_used_again(kept: int, rounds: int) -> None:
    """Removed, dropped from memory, and used again before anybody has flushed: a new history, and other entities are unharmed."""
    symphony = await Symphony().setup(memory_events=kept)
    others = [symphony.entities.add(Crate(id=f"o{number}")) for number in range(kept + 10)]
    for turn in range(rounds):
        symphony.entities.add(Crate(id="a", number=turn))
        await symphony.flush()
        symphony.entities.remove("Crate:a")
        for other in others:
            other.number = turn + 1
        await asyncio.sleep(0)
        while symphony.log.head < (turn + 1) * (len(others) + 1) + len(others) + 1:
            await asyncio.sleep(0)
        symphony.entities.add(Crate(id="a", number=100 + turn))
        others[0].number = 50
        await symphony.flush()
        assert symphony.entities.get("Crate:a").number == 100 + turn
        symphony.entities.remove("Crate:a")
    await symphony.flush()
    states = {state.key: state for state in (await symphony.state_history.states_at(symphony.log.head)).states.values()}
    assert states["Crate:o0"].data == symphony.world.records["Crate:o0"].shadow
    await symphony.close()
