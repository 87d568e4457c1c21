"""Text and bytes that grow at their end are stored by their new end, wherever they stand and however they grow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from symphony_es import Symphony, entity, part
from symphony_es.errors import ConfigurationError, EntityNotFoundError, UnstorableValueError
from symphony_es.events.changes import EXTEND, SET


@part
class Piece:
    text: Any = ""


@entity
class Growing:
    id: str = ""
    text: Any = ""
    pieces: list[Any] | None = None
    named: dict[str, Any] | None = None


@dataclass
class GrowingForeign:
    id: str
    text: Any = ""


LONG_TEXT, LONG_BYTES = "a" * 1024, b"a" * 1024
PLACES: dict[str, tuple[str, Callable[[Growing], Any], Callable[[Growing, Any], Any]]] = {
    "field": ("text", lambda g: g.text, lambda g, new: setattr(g, "text", new)),
    "item": ("pieces[0]", lambda g: g.pieces[0], lambda g, new: g.pieces.__setitem__(0, new)),  # type: ignore[index, union-attr]
    "part": ("pieces[1].text", lambda g: g.pieces[1].text, lambda g, new: setattr(g.pieces[1], "text", new)),  # type: ignore[index]
    "entry": ("named.a", lambda g: g.named["a"], lambda g, new: g.named.__setitem__("a", new)),  # type: ignore[index, union-attr]
}


def growing(value: Any) -> Growing:
    """An entity with a value at every place."""
    return Growing(id="g", text=value, pieces=[value, Piece(value)], named={"a": value})


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("start", [LONG_TEXT, LONG_BYTES], ids=["text", "bytes"])
@pytest.mark.parametrize("way", ["plain", "transaction", "rolled back", "extend"])
async def test_a_long_value_that_grows_is_stored_by_its_end(
    reopen: Callable[[], Awaitable[Symphony]], place: str, start: Any, way: str
) -> None:
    """Live, folded and resumed values agree; a rollback takes it back; blame and history know it."""
    path, read, write = PLACES[place]
    symphony = await reopen()
    grown = symphony.entities.add(growing(start))
    await symphony.flush()
    tail = start[:3]
    if way == "plain":
        write(grown, read(grown) + tail)
    elif way == "extend":
        symphony.entities.extend(grown, path, tail)
    elif way == "transaction":
        async with symphony.transaction("Grown"):
            write(grown, read(grown) + tail)
    else:
        with pytest.raises(KeyError):
            async with symphony.transaction("Grown"):
                write(grown, read(grown) + tail)
                symphony.entities.extend(grown, path, tail)
                raise KeyError
    await symphony.flush()
    events = await symphony.log.read_entity("Growing:g")
    expected = start if way == "rolled back" else start + tail
    assert read(grown) == expected
    if way != "rolled back":
        assert [(change[0], change[2]) for change in events[-1].changes] == [(EXTEND, tail)]
        entries = await symphony.blame(grown, path)
        assert (entries[0].before, entries[0].after) == (start, expected)
        (version,) = (await symphony.history(grown))[1:]
        assert [(change.kind, change.after, change.path[-1]) for change in version.changes] == [("added", tail, 1024)]
        (difference,) = (await symphony.diff(1)).entities
        assert [(change.before, change.after) for change in difference.changes] == [(start, expected)]
        assert [version.data async for version in symphony.walk(grown, newest_first=True)][-1] == (await symphony.at(1)).get(grown)
    symphony = await reopen()
    assert (await symphony.resume()).complete
    assert read(symphony.entities.get(Growing, "g")) == expected


@pytest.mark.parametrize(
    ("old", "new", "operation"),
    [
        ("a" * 1023, "a" * 1030, SET), (LONG_TEXT, "b" + LONG_TEXT, SET), (LONG_TEXT, LONG_TEXT, EXTEND), (LONG_TEXT, "a" * 1020, SET),
        (LONG_TEXT, LONG_BYTES + b"a", SET), ("ž" * 1024, "ž" * 1025, EXTEND), (LONG_TEXT, 5, SET),
    ],
)  # fmt: skip
async def test_what_is_no_growth_of_a_long_value_is_set(symphony: Symphony, old: Any, new: Any, operation: int) -> None:
    """Short ones, ones that begin otherwise, shrink or change their kind."""
    grown = symphony.entities.add(growing(old))
    await symphony.flush()
    grown.text = new
    await symphony.flush()
    (event,) = (await symphony.log.read_entity("Growing:g"))[1:]
    assert event.changes[0][0] == operation
    assert (await symphony.past.state_of(grown)).data["text"] == new  # type: ignore[index]


async def test_an_object_of_a_foreign_class_is_extended_as_well(symphony: Symphony) -> None:
    """Where it is compared, and by the call."""
    foreign = symphony.entities.add(GrowingForeign("f", LONG_TEXT))
    await symphony.flush()
    foreign.text += "b"
    await symphony.flush()
    symphony.entities.extend("GrowingForeign:f", "text", "c")
    await symphony.flush()
    events = await symphony.log.read_entity("GrowingForeign:f")
    assert [event.changes[0][2] for event in events[1:]] == ["b", "c"]
    assert foreign.text == LONG_TEXT + "bc"


@pytest.mark.parametrize(("path", "tail"), [("text", b"x"), ("nothing", "x"), ("pieces", "x"), ("pieces[9]", "x"), ("", "x"), ("text", 5)])
async def test_what_cannot_be_extended_is_refused(symphony: Symphony, path: str, tail: Any) -> None:
    """And nothing has changed."""
    grown = symphony.entities.add(growing("a"))
    await symphony.flush()
    with pytest.raises(ConfigurationError):
        symphony.entities.extend(grown, path, tail)
    with pytest.raises(EntityNotFoundError):
        symphony.entities.extend("Growing:other", "text", "x")
    await symphony.flush()
    assert symphony.log.head == 1


async def test_growing_costs_what_is_added(symphony: Symphony) -> None:
    """Not what has grown: a thousand ends of a value of half a megabyte take some kilobytes."""
    grown = symphony.entities.add(growing("a" * 500_000))
    await symphony.flush()
    before = await symphony.log.weight(0)
    for _ in range(1000):
        grown.text += "b"
        await symphony.flush()
    assert await symphony.log.weight(0) - before < 200_000


@pytest.mark.parametrize("which", ["declared", "foreign"])
@pytest.mark.parametrize(
    ("path", "tail"),
    [
        ("text", "\ud800"), ("text", "a\udfffb"), ("id", "x"), (("id",), "x"), (5, "x"), (None, "x"), ("nowhere", "x"), ("text.more", "x"),
        ("text[0]", "x"), ("pieces[7]", "x"), ("named.nothing", "x"), ("", "x"), ("text", None), ("text", 5), ("text", bytearray(b"x")),
    ],
)  # fmt: skip
async def test_what_could_never_be_appended_is_refused_at_the_call(symphony: Symphony, which: str, path: Any, tail: Any) -> None:
    """A typed error, nothing has changed, and the entity is in step."""
    obj: Any = growing("a") if which == "declared" else GrowingForeign("g", "a")
    symphony.entities.add(obj)
    await symphony.flush()
    with pytest.raises((ConfigurationError, UnstorableValueError)):
        symphony.entities.extend(obj, path, tail)
    await symphony.flush()
    assert (obj.id, obj.text, len(await symphony.history(obj))) == ("g", "a", 1)
