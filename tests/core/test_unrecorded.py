"""What C functions write into a container past its methods: found at its next change, at checkpoints and the end; recorded if assigned."""

from __future__ import annotations

import gc
import heapq
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity, part
from symphony_es.errors import UnrecordedChangeError, UnstorableValueError
from symphony_es.events.paths import ABSENT
from symphony_es.events.values import plain_equal
from tests.core.shadowing import states_agree

pytestmark = pytest.mark.usefixtures("no_check_at_each_flush")


@part
class UnrecordedNote:
    text: str = ""
    tags: list[str] | None = None


@part
class UnrecordedBox:
    heap: list[int] | None = None
    named: dict[str, Any] | None = None


@entity
class UnrecordedShelf:
    id: str = ""
    number: int = 0
    heap: list[int] | None = None
    named: dict[str, Any] | None = None
    marks: set[int] | None = None
    box: UnrecordedBox | None = None
    notes: list[UnrecordedNote] | None = None


class UnrecordedCrate:
    """Tracks nothing."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.number = 0


KEY = "UnrecordedShelf:a"

SLY: dict[str, Callable[[Any], Any]] = {
    "heappush": lambda x: heapq.heappush(x.heap, 0),
    "heappop": lambda x: heapq.heappop(x.heap),
    "heapify": lambda x: heapq.heapify(x.heap),
    "heapreplace": lambda x: heapq.heapreplace(x.heap, 9),
    "list.append": lambda x: list.append(x.heap, 7),
    "list.insert": lambda x: list.insert(x.heap, 1, 7),
    "list.sort": lambda x: list.sort(x.heap),
    "list.reverse": lambda x: list.reverse(x.heap),
    "list.clear": lambda x: list.clear(x.heap),
    "dict.update": lambda x: dict.update(x.named, sly=1),
    "dict.pop": lambda x: dict.pop(x.named, "a"),
    "dict.clear": lambda x: dict.clear(x.named),
    "set.add": lambda x: set.add(x.marks, 9),
    "set.discard": lambda x: set.discard(x.marks, 1),
    "in a part": lambda x: heapq.heappush(x.box.heap, 0),
    "dict in a part": lambda x: dict.update(x.box.named, sly=1),
    "list in a dict": lambda x: list.append(x.named["list"], 7),
    "list in a part in a list": lambda x: list.append(x.notes[0].tags, "sly"),
}
ELSEWHERE: dict[str, Callable[[Any], Any]] = {
    "__dict__": lambda x: x.__dict__.__setitem__("number", 7),
    "__dict__ of a part": lambda x: x.notes[1].__dict__.__setitem__("text", "sly"),
    "list.__setitem__": lambda x: list.__setitem__(x.heap, 1, 70),
    "dict.__setitem__": lambda x: dict.__setitem__(x.named, "b", 70),
}
NEXT: dict[str, Callable[[Any], list[Any]]] = {
    "put in": lambda x: [
        lambda: x.heap.append(5), lambda: x.named.update(z=1), lambda: x.marks.add(77), lambda: x.box.heap.insert(0, 5),
        lambda: x.box.named.setdefault("z", 1), lambda: x.named["list"].extend([5]), lambda: x.notes[0].tags.append("z"),
    ],
    "take out": lambda x: [
        lambda: x.heap.pop(), lambda: x.named.popitem(), lambda: x.marks.pop(), lambda: x.box.heap.__delitem__(0),
        lambda: x.box.named.clear(), lambda: x.named["list"].pop(), lambda: x.notes[0].tags.pop(),
    ],
}  # fmt: skip


def shelf() -> UnrecordedShelf:
    """One that holds containers everywhere."""
    return UnrecordedShelf(
        id="a", heap=[3, 1, 2], named={"list": [1], "a": 1, "b": 2}, marks={1, 2}, box=UnrecordedBox([3, 1, 2], {"a": 1}),
        notes=[UnrecordedNote("one", ["x"]), UnrecordedNote("two", ["y"])],
    )  # fmt: skip


async def opened(directory: Path, held: str) -> tuple[Symphony, Any]:
    """A Symphony on disk, and the shelf that the program holds: added, held over a checkpoint, or brought by a resume."""
    symphony = await Symphony(str(directory)).setup()
    kept = symphony.entities.add(shelf())
    await symphony.flush()
    if held == "over a checkpoint":
        await symphony.create_checkpoint("before")
    elif held == "resumed":
        await symphony.close()
        symphony = await Symphony(str(directory)).setup()
        await symphony.resume()
        kept = symphony.entities.get(KEY)
    return symphony, kept


def captured(symphony: Symphony, kept: Any) -> Any:
    """Its state, read off now."""
    record = symphony.world.record_for(kept)
    return symphony.world.capture(kept, record.reference)


@pytest.mark.parametrize("sly", [*SLY, *ELSEWHERE])
@pytest.mark.parametrize("held", ["added", "over a checkpoint", "resumed"])
async def test_closing_finds_what_was_written_past_the_methods(tmp_path: Path, sly: str, held: str) -> None:
    """Closing compares all that was ever changed or handed out, and names entity and path; the log is closed."""
    symphony, kept = await opened(tmp_path, held)
    {**SLY, **ELSEWHERE}[sly](kept)
    with pytest.raises(UnrecordedChangeError, match=r"UnrecordedShelf:a: (heap|named|marks|box|notes|number)"):
        await symphony.close()
    assert symphony.state_dir is None


@pytest.mark.parametrize("sly", [*SLY, *ELSEWHERE])
@pytest.mark.parametrize("met", ["added", "got", "found", "listed", "changed"])
async def test_a_checkpoint_finds_what_was_written_past_the_methods(tmp_path: Path, sly: str, met: str) -> None:
    """A checkpoint compares what was changed or handed out since the last one; nothing is named while an object differs."""
    symphony, kept = await opened(tmp_path, "added" if met == "added" else "over a checkpoint")
    meet: dict[str, Callable[[], Any]] = {
        "added": lambda: None,
        "got": lambda: symphony.entities.get(KEY),
        "found": lambda: symphony.entities.find(KEY),
        "listed": lambda: symphony.entities.all(UnrecordedShelf),
        "changed": lambda: setattr(kept, "number", 5),
    }
    meet[met]()
    await symphony.flush()
    {**SLY, **ELSEWHERE}[sly](kept)
    for _ in range(2):  # it is told until it is mended
        with pytest.raises(UnrecordedChangeError, match="UnrecordedShelf:a"):
            await symphony.create_checkpoint("after")
    await symphony.refresh(kept)
    await symphony.create_checkpoint("mended")
    await symphony.close()


def refused_whole(symphony: Symphony, kept: Any, change: Callable[[], Any], before: Any) -> bool:
    """Whether a change is refused; it has not been made then."""
    try:
        change()
    except UnrecordedChangeError:
        return plain_equal(captured(symphony, kept), before)
    return False


@pytest.mark.parametrize("sly", SLY)
@pytest.mark.parametrize("then", NEXT)
@pytest.mark.parametrize("way", ["outside", "transaction", "rolled back"])
async def test_the_next_change_finds_it(tmp_path: Path, sly: str, then: str, way: str) -> None:
    """The next change in that container is refused, before it is made; others go on, and the log has nothing of it."""
    symphony, kept = await opened(tmp_path, "added")
    other = symphony.entities.add(UnrecordedShelf(id="b"))
    SLY[sly](kept)
    refused = False

    def change() -> bool:
        found = False
        for one in NEXT[then](kept):
            before = captured(symphony, kept)
            with suppress(IndexError, KeyError):  # it may be empty by now
                found = refused_whole(symphony, kept, one, before) or found
        return found

    other.number = 1
    if way == "outside":
        refused = change()
    elif way == "transaction":
        async with symphony.transaction("Tried"):
            refused = change()
    else:
        with suppress(ZeroDivisionError):
            async with symphony.transaction("Tried"):
                refused = change()
                raise ZeroDivisionError
    assert refused
    await symphony.refresh(kept)
    await states_agree(symphony)
    assert (await symphony.at("latest")).get("UnrecordedShelf:b")["number"] == 1
    await symphony.close()


def assign_all(kept: Any) -> None:
    """Assign each container to the place where it stands."""
    kept.heap, kept.named, kept.marks = kept.heap, kept.named, kept.marks
    kept.box.heap, kept.box.named = kept.box.heap, kept.box.named
    kept.named["list"] = kept.named.get("list")
    kept.notes[0].tags = kept.notes[0].tags


@pytest.mark.parametrize("sly", SLY)
@pytest.mark.parametrize("way", ["outside", "transaction", "rolled back"])
async def test_a_container_that_is_assigned_to_its_place_is_recorded_as_it_is(tmp_path: Path, sly: str, way: str) -> None:
    """`x.heap = x.heap` after `heapq.heappush(x.heap, 1)` stores what it holds; it stays that object; a rollback puts back what was."""
    symphony, kept = await opened(tmp_path, "added")
    recorded, heap, tags = captured(symphony, kept), kept.heap, kept.notes[0].tags
    SLY[sly](kept)
    written = captured(symphony, kept) | {}
    if way == "outside":
        assign_all(kept)
    else:
        with suppress(ZeroDivisionError):
            async with symphony.transaction("Mended"):
                assign_all(kept)
                if way == "rolled back":
                    raise ZeroDivisionError
    wanted = recorded if way == "rolled back" else written
    if sly == "dict.clear" and way != "rolled back":
        wanted = wanted | {"named": {"list": None}}
    assert plain_equal(captured(symphony, kept), wanted)
    assert kept.heap is heap
    assert kept.notes[0].tags is tags
    await states_agree(symphony)
    kept.heap.append(4)
    kept.notes[0].tags.append("later")
    await states_agree(symphony)
    await symphony.close()


def replace_all(kept: Any) -> None:
    """Assign another container to each place: arranged anew, and with one more member."""
    kept.heap = [*sorted(kept.heap), 50]
    kept.marks = kept.marks | {50}
    kept.box.heap, kept.box.named = sorted(kept.box.heap, reverse=True), dict(sorted(kept.box.named.items()))
    kept.named = {key: list(item) if isinstance(item, list) else item for key, item in kept.named.items()} | {"more": 1}
    kept.notes = kept.notes[::-1]


@pytest.mark.parametrize("sly", SLY)
@pytest.mark.parametrize("way", ["outside", "transaction", "rolled back"])
async def test_another_container_in_its_place_is_recorded_whole(tmp_path: Path, sly: str, way: str) -> None:
    """`x.heap = sorted(x.heap)` after `heapq.heapify(x.heap)`: what is stored is what was assigned, not a mixture of both."""
    symphony, kept = await opened(tmp_path, "added")
    SLY[sly](kept)
    if way == "outside":
        replace_all(kept)
        wanted = captured(symphony, kept)
    else:
        with suppress(ZeroDivisionError):
            async with symphony.transaction("Mended"):
                replace_all(kept)
                wanted = captured(symphony, kept)
                if way == "rolled back":
                    raise ZeroDivisionError
    if way == "rolled back":  # it stands there again, as it was written, and is found
        with suppress(UnrecordedChangeError):
            await symphony.create_checkpoint("checked")
            await states_agree(symphony)
        assert plain_equal((await symphony.at("latest")).get(KEY), (await symphony.at(1)).get(KEY))
        with suppress(UnrecordedChangeError):
            await symphony.close()
        return
    assert plain_equal((await symphony.at("latest")).get(KEY), wanted)
    await states_agree(symphony)
    kept.heap.append(4)
    kept.notes[0].tags.append("later")
    await states_agree(symphony)
    await symphony.close()


@pytest.mark.parametrize("write", ["push", "sort", "pop", "replace", "swap"])
@pytest.mark.parametrize("way", ["outside", "rolled back"])
async def test_parts_that_were_written_into_a_list_are_the_entitys_once_it_is_assigned(tmp_path: Path, write: str, way: str) -> None:
    """They stay the objects they are, and what is changed in them from then on is recorded."""
    symphony, kept = await opened(tmp_path, "added")
    one, two = kept.notes
    new = UnrecordedNote("new", ["z"])
    writes: dict[str, Callable[[], Any]] = {
        "push": lambda: list.append(kept.notes, new),
        "sort": lambda: list.sort(kept.notes, key=lambda note: note.text, reverse=True),
        "pop": lambda: list.pop(kept.notes, 0),
        "replace": lambda: list.__setitem__(kept.notes, 0, new),
        "swap": lambda: list.__setitem__(kept.notes, slice(None), [two, one, new]),
    }
    writes[write]()
    held = list(kept.notes)
    if way == "rolled back":
        with suppress(ZeroDivisionError):
            async with symphony.transaction("Mended"):
                kept.notes = kept.notes
                raise ZeroDivisionError
        assert [note.text for note in kept.notes] == ["one", "two"]
    else:
        kept.notes = kept.notes
        assert all(now is then for now, then in zip(kept.notes, held, strict=True))
    await states_agree(symphony)
    for note in kept.notes:
        note.text += "!"
        note.tags.append("later")
    await states_agree(symphony)
    await symphony.close()


async def test_what_cannot_be_stored_is_refused_where_the_container_is_assigned(tmp_path: Path) -> None:
    """Nothing is recorded then; the container holds what was written, and `refresh` puts it back."""
    symphony, kept = await opened(tmp_path, "added")
    list.append(kept.heap, object())
    with pytest.raises(UnstorableValueError, match="heap"):
        kept.heap = kept.heap
    await symphony.refresh(kept)
    assert kept.heap == [3, 1, 2]
    await states_agree(symphony)
    await symphony.close()


async def test_what_was_removed_is_not_kept_for_comparisons() -> None:
    """Entities that come and go leave nothing behind."""
    async with Symphony() as symphony:
        for number in range(50):
            kept = symphony.entities.add(UnrecordedShelf(id=str(number)))
            if number % 2:
                await symphony.flush()
            symphony.entities.remove(kept)
        await symphony.flush()
        suspects = symphony.world.outbox.suspects
        assert not suspects.recent
        assert await symphony.world.compare_objects(everything=True) == []


class Odd:
    """No plain data."""


TROUBLES: dict[str, Callable[[Any], Any]] = {
    "no plain data": lambda x: list.append(x.heap, Odd()),
    "in itself": lambda x: list.append(x.heap, x.heap),
    "in itself, deeper": lambda x: list.append(x.named["list"], x.named),
    "a part in itself": lambda x: list.append(x.notes[0].tags, x.notes[0]),
    "a field taken out": lambda x: x.__dict__.pop("number"),
    "a field of a part taken out": lambda x: x.notes[0].__dict__.pop("text"),
    "a key of no plain data": lambda x: dict.__setitem__(x.named, (1, 2), 3),
}


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_an_object_that_cannot_even_be_read_hides_no_other(tmp_path: Path, trouble: str) -> None:
    """Checkpoints and `close()` name it, each time, and what differs in others; a new value at its place mends it."""
    symphony, kept = await opened(tmp_path, "added")
    other = symphony.entities.add(UnrecordedShelf(id="other", heap=[1]))
    await symphony.flush()
    TROUBLES[trouble](kept)
    list.append(other.heap, 2)
    for _ in range(2):
        with pytest.raises(UnrecordedChangeError) as caught:
            await symphony.create_checkpoint("after")
        told = " ".join([str(caught.value), *caught.value.__notes__])
        assert "UnrecordedShelf:a" in told
        assert "UnrecordedShelf:other: heap" in told
    other.heap = other.heap
    fresh = shelf()
    for name in ("heap", "named", "notes", "number"):
        setattr(kept, name, getattr(fresh, name))
    await symphony.create_checkpoint("mended")
    assert captured(symphony, kept) == (await symphony.at("latest")).get(KEY)
    await symphony.close()


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Nothing left by other tests is collected meanwhile: its finalizers would run where no call is left to make."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("how", ["assigned to its place", "put elsewhere"])
@pytest.mark.parametrize("trouble", ["in itself", "in itself, deeper"])
async def test_a_container_that_was_put_into_itself_is_refused(tmp_path: Path, trouble: str, how: str) -> None:
    """The assignment ends, with the error of a value that cannot be stored; nothing is recorded."""
    symphony, kept = await opened(tmp_path, "added")
    TROUBLES[trouble](kept)
    node, place = (kept.heap, "heap") if trouble == "in itself" else (kept.named, "named")
    target, name = (kept, place) if how == "assigned to its place" else (kept.box, "named" if place == "named" else "heap")
    with pytest.raises(UnstorableValueError):
        setattr(target, name, node)
    await symphony.flush()
    assert (await symphony.at("latest")).get(KEY)[place] == {"heap": [3, 1, 2], "named": {"list": [1], "a": 1, "b": 2}}[place]
    await symphony.refresh(kept)
    await symphony.close()


GIVEN_UP: dict[str, Callable[[Symphony], Any]] = {
    "resume": lambda symphony: symphony.resume(),
    "strict": lambda symphony: symphony.resume(strict=True),
    "of some types": lambda symphony: symphony.resume(types=["UnrecordedShelf"]),
    "from a checkpoint": lambda symphony: symphony.resume_from_checkpoint("one"),
    "rewind": lambda symphony: symphony.rewind("one"),
    "refresh": lambda symphony: symphony.refresh(KEY),
}


async def shelved(symphony: Symphony) -> Any:
    """A shelf, and a checkpoint; it is compared there, and changed afterwards."""
    kept = symphony.entities.add(shelf())
    await symphony.create_checkpoint("one")
    kept.number += 1
    await symphony.flush()
    return kept


@pytest.mark.parametrize("call", GIVEN_UP)
@pytest.mark.parametrize("sly", [*SLY, *ELSEWHERE])
async def test_who_gives_up_what_was_written_past_the_methods_is_told(tmp_path: Path, sly: str, call: str) -> None:
    """A resume, a rewind and a refresh are there to have objects as the log has them; what that costs is named, entity and path."""
    async with Symphony(tmp_path) as symphony:
        kept = await shelved(symphony)
        before = (await symphony.at("latest")).get(KEY)
        {**SLY, **ELSEWHERE}[sly](kept)
        done = await GIVEN_UP[call](symphony)
        dropped = done if call == "refresh" else symphony.last_resume.dropped[KEY]  # type: ignore[union-attr]
        assert {change[1][0] for change in dropped} & {"heap", "named", "marks", "box", "notes", "number"}
        kept = symphony.entities.get(KEY)
        kept.number = before["number"]
        await symphony.flush()
        assert plain_equal((await symphony.at("latest")).get(KEY), before)


@pytest.mark.parametrize("sly", SLY)
async def test_what_was_written_past_the_methods_is_not_unloaded(tmp_path: Path, sly: str) -> None:
    """Unloading makes durable what was changed first: what nobody has recorded keeps the object live, and it may be assigned then."""
    async with Symphony(tmp_path) as symphony:
        kept = await shelved(symphony)
        SLY[sly](kept)
        now = captured(symphony, kept)
        with pytest.raises(UnrecordedChangeError) as caught:
            await symphony.entities.unload(kept)
        assert caught.value.entity == KEY
        assert symphony.entities.get(KEY) is kept
        for holder in (kept, kept.box, *kept.notes):
            for name in holder.__dataclass_fields__.keys() & {"heap", "named", "marks", "tags"}:
                setattr(holder, name, getattr(holder, name))
        await symphony.entities.unload(kept)
        assert plain_equal((await symphony.at("latest")).get(KEY), now)


@pytest.mark.parametrize("where", ["outside", "block"])
@pytest.mark.parametrize("sly", ["heappush", "list.append", "dict.update", "set.add", "list in a part in a list"])
async def test_a_removal_loses_nothing_in_silence(sly: str, where: str) -> None:
    """What its history would not have is an error, as for an unloading: assigned it is recorded, and then the entity can go."""
    async with Symphony() as symphony:
        kept = symphony.entities.add(shelf())
        await symphony.flush()
        SLY[sly](kept)
        with pytest.raises(UnrecordedChangeError, match=KEY):
            if where == "outside":
                symphony.entities.remove(kept)
            else:
                async with symphony.transaction("Removed"):
                    symphony.entities.remove(kept)
        assert symphony.entities.get(KEY) is kept
        await symphony.refresh(kept)
        symphony.entities.remove(kept)
        await symphony.flush()


@pytest.mark.parametrize("where", ["outside", "block"])
async def test_what_an_adopted_object_has_changed_is_on_record_before_its_removal(where: str) -> None:
    """Its history ends with what it was."""
    async with Symphony() as symphony:
        crate = symphony.entities.add(UnrecordedCrate("a"))
        await symphony.flush()
        crate.number = 7
        if where == "outside":
            symphony.entities.remove(crate)
        else:
            async with symphony.transaction("Removed"):
                symphony.entities.remove("UnrecordedCrate:a")
        await symphony.flush()
        assert [entry.after for entry in await symphony.blame("UnrecordedCrate:a", "number")] == [ABSENT, 7, 0]
        locked = symphony.entities.add(UnrecordedCrate("b"))
        await symphony.flush()
        locked.number = Odd()  # type: ignore[assignment]
        symphony.entities.remove(locked)
        await symphony.flush()


async def test_a_removal_that_is_taken_back_forgets_no_comparison(tmp_path: Path) -> None:
    """An entity that is here again after a rollback is compared as before."""
    symphony = Symphony(tmp_path)
    await symphony.setup()
    kept = await shelved(symphony)
    with suppress(KeyError):
        async with symphony.transaction("Removed"):
            symphony.entities.remove(kept)
            heapq.heappush(kept.heap, 0)
            raise KeyError
    with pytest.raises(UnrecordedChangeError):
        await symphony.close()
