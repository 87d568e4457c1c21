"""One foreign object in blocks beside each other: nothing that ended well is lost, and nobody is booked for another's change."""

from __future__ import annotations

import asyncio
import contextvars
import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import EntityBusyError
from symphony_es.workflow import step
from tests.core.test_foreign import PlainDeed, PydanticDeed

FORMS = ["block", "inner", "inner fails", "recorded", "step", "atomic step", "mixed forms"]
KINDS = [PlainDeed, PydanticDeed]


class Failed(Exception):
    pass


@dataclass
class Tally:
    """An account of its own of what was added: by the number of the block, what counts and what was taken back."""

    added: dict[int, list[str]] = field(default_factory=dict)
    stands: set[str] = field(default_factory=set)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def failed(self, tokens: list[str], error: BaseException) -> None:
        for token in tokens:
            self.notes[token] = list(getattr(error, "__notes__", ()))


async def pause(rng: random.Random) -> None:
    for _ in range(rng.randrange(6)):
        await asyncio.sleep(0)


async def block(symphony: Symphony, key: str, number: int, form: str, rng: random.Random, tally: Tally, claim: list[Any]) -> None:
    """One transaction that adds tokens of its own, with blocks inside it as its form says, and ends well or fails."""
    tokens: list[str] = []
    inner: list[str] = []
    fails = rng.random() < 0.4

    def add(where: list[str]) -> None:
        where.append(f"{number}.{len(tokens) + len(inner)}")
        symphony.entities.get(key).lines.append(where[-1])

    await pause(rng)
    try:
        async with symphony.transaction(f"Block{number}", actor=f"u{number}", claim=claim):
            add(tokens)
            await pause(rng)
            if form == "recorded":
                symphony.entities.record(symphony.entities.get(key), f"Said{number}", {"said": number})
                await pause(rng)
            if form.startswith("inner"):
                try:
                    async with symphony.transaction(f"Inner{number}"):
                        await pause(rng)
                        add(inner)
                        await pause(rng)
                        if form == "inner fails":
                            raise Failed
                    tokens += inner
                except Failed as error:
                    tally.failed(inner, error)
            await pause(rng)
            add(tokens)
            await pause(rng)
            if fails:
                raise Failed
        tally.stands.update(tokens)
    except (Failed, EntityBusyError) as error:  # a second one that says something about what another has said something about
        tally.failed(tokens, error)
    tally.added[number] = tokens + inner


async def in_step(symphony: Symphony, key: str, number: int, atomic: bool, rng: random.Random, tally: Tally) -> None:
    """One run whose step adds tokens; a plain one's stay when it fails, an atomic one's may go."""
    tokens = [f"{number}.0", f"{number}.1"]
    fails = rng.random() < 0.4
    tally.added[number] = tokens

    async def work() -> None:
        for token in tokens:
            symphony.entities.get(key).lines.append(token)
            await pause(rng)
        if fails:
            raise Failed

    @symphony.workflow(name=f"flow{number}")
    async def flow() -> None:
        await step(work, atomic=atomic)

    with symphony.acting_as(f"u{number}"):
        handle = await symphony.workflows.start(flow)
    await handle.wait()
    if not (fails and atomic):
        tally.stands.update(tokens)


async def programme(symphony: Symphony, kind: Any, form: str, claim: str, seed: int) -> tuple[Any, Tally]:
    rng = random.Random(seed)
    deed = symphony.entities.add(kind(id="a"))
    key = f"{kind.__name__}:a"
    await symphony.flush()
    tally = Tally()
    forms = [form if form != "mixed forms" else rng.choice(FORMS[:-1]) for _ in range(rng.randrange(2, 7))]

    async def reader() -> None:
        for _ in range(5):
            async with symphony.transaction("Read", actor="reader"):
                symphony.entities.get(key)
                await pause(rng)

    jobs = []
    for number, each in enumerate(forms):
        if "step" in each:
            jobs.append(in_step(symphony, key, number, each == "atomic step", random.Random(seed * 100 + number), tally))
        elif claim != "one" or number == 0:
            claimed = [deed] if claim != "none" else []
            jobs.append(block(symphony, key, number, each, random.Random(seed * 100 + number), tally, claimed))
        else:
            jobs.append(reader())
    await asyncio.gather(*jobs)
    return deed, tally


async def check(symphony: Symphony, deed: Any, tally: Tally) -> list[tuple[str | None, set[str]]]:
    """What holds for all of them; returns who is booked for which tokens, event by event."""
    await symphony.flush()
    key = symphony.world.record_for(deed).key
    stored = (await symphony.at("latest")).get(key)["lines"]
    assert list(deed.lines) == list(stored)
    assert len(set(stored)) == len(stored)
    assert tally.stands <= set(stored), f"lost: {sorted(tally.stands - set(stored))}"
    for token in set(stored) - tally.stands:
        if token in tally.notes:
            said = any(key in note and "claim=[obj]" in note for note in tally.notes[token])
            assert said, f"{token} was kept, and its failure does not say so"
    booked: list[tuple[str | None, set[str]]] = []
    for version in (await symphony.history(deed))[1:]:
        tokens = {str(change.after) for change in version.changes if change.where.startswith("lines[")}
        booked.append((version.event.metadata.actor, tokens))
    for actor, tokens in booked:
        others = {token for token in tokens if actor is not None and f"u{token.split('.')[0]}" != actor}
        assert not others, f"{actor} is booked for {sorted(others)}"
    return booked


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
async def test_blocks_beside_each_other_lose_nothing(symphony: Symphony, kind: Any, form: str, seed: int) -> None:
    """Without claims, what ended well is in the log and in the object, on its own block or none; what a failure left, its note says."""
    deed, tally = await programme(symphony, kind, form, "none", seed)
    await check(symphony, deed, tally)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("form", ["block", "inner", "inner fails", "recorded"])
@pytest.mark.parametrize("claim", ["one", "all"])
async def test_a_claim_keeps_blocks_apart(symphony: Symphony, claim: str, form: str, seed: int) -> None:
    """What is claimed is exact: only what ended well stands, each on its own block, whoever reads beside it."""
    deed, tally = await programme(symphony, PydanticDeed, form, claim, seed)
    booked = await check(symphony, deed, tally)
    assert set(deed.lines) == tally.stands
    assert all(actor is not None for actor, tokens in booked if tokens)


@pytest.mark.parametrize("order", ["reader first", "reader last", "reader first, after the change"])
@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_who_only_reads_and_ends_first_costs_nobody_the_booking(symphony: Symphony, order: str, ending: str) -> None:
    """An object that equals its last known state at the end of a reader is not mixed; one that differs there is, for all who have it."""
    deed = symphony.entities.add(PlainDeed("a"))
    await symphony.flush()
    read, changed, over, end = (asyncio.Event() for _ in range(4))

    async def reader() -> None:
        async with symphony.transaction("Read", actor="bob"):
            symphony.entities.get("PlainDeed:a")
            read.set()
            if order != "reader first":
                await changed.wait()
            if order == "reader last":
                await over.wait()
        end.set()

    task = asyncio.create_task(reader())
    await read.wait()
    error: BaseException | None = None
    try:
        async with symphony.transaction("Wrote", actor="ann"):
            obj = symphony.entities.get("PlainDeed:a")
            if order == "reader first":
                await end.wait()
            obj.status = "written"
            changed.set()
            if order == "reader first, after the change":
                await end.wait()
            if ending == "rollback":
                raise Failed
    except Failed as failed:
        error = failed
    over.set()
    await task
    last = (await symphony.history(deed))[-1].event
    if order == "reader first":
        assert deed.status == ("written" if ending == "commit" else "draft")
        assert (last.name, last.metadata.actor) == (("Wrote", "ann") if ending == "commit" else ("PlainDeedCreated", None))
        assert not getattr(error, "__notes__", ())
    else:
        assert (deed.status, last.name, last.metadata.actor) == ("written", "PlainDeedChanged", None)
        assert ending == "commit" or "PlainDeed:a was not put back" in error.__notes__[0]


async def test_mixed_lasts_until_nobody_has_the_object(symphony: Symphony) -> None:
    """A block that comes later while another is open is not booked either; once all have ended, the next one is exact again."""
    deed = symphony.entities.add(PlainDeed("a"))
    await symphony.flush()
    first, last = asyncio.Event(), asyncio.Event()

    async def open_until(done: asyncio.Event) -> None:
        async with symphony.transaction("Long", actor="ann"):
            symphony.entities.get("PlainDeed:a").lines.append("long")
            await done.wait()

    tasks = [asyncio.create_task(open_until(done)) for done in (first, last)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.set()
    await tasks[0]
    with pytest.raises(Failed):
        async with symphony.transaction("Late", actor="bob"):
            symphony.entities.get("PlainDeed:a").lines.append("late")
            raise Failed
    await symphony.flush()
    assert (await symphony.at("latest")).get(deed)["lines"] == ["long", "long", "late"]
    last.set()
    await tasks[1]
    with suppress(Failed):
        async with symphony.transaction("After", actor="bob"):
            symphony.entities.get("PlainDeed:a").lines.append("after")
            raise Failed
    assert deed.lines == ["long", "long", "late"]
    assert {version.event.metadata.actor for version in await symphony.history(deed)} == {None}


async def test_a_claim_that_is_not_given_is_none(symphony: Symphony) -> None:
    """`claim=None` says what `claim=()` says."""
    deed = symphony.entities.add(PlainDeed("a"))
    async with symphony.transaction("Named", claim=None):
        symphony.entities.get("PlainDeed:a").status = "named"
    assert (await symphony.history(deed))[-1].event.name == "Named"


@pytest.mark.parametrize("ending", ["both end well", "first fails", "second fails"])
async def test_blocks_beside_each_other_inside_one(symphony: Symphony, ending: str) -> None:
    """They are of one transaction: what one of them added stays when the other fails, and its failure says that it put nothing back."""
    deed = symphony.entities.add(PlainDeed("a"))
    await symphony.flush()

    async def inner(number: int, turns: int) -> None:
        async with symphony.transaction(f"Inner{number}"):
            symphony.entities.get("PlainDeed:a").lines.append(number)
            for _ in range(turns):
                await asyncio.sleep(0)
            if ending.startswith(("first", "second")[number]):
                raise Failed

    async with symphony.transaction("Outer"):
        results = await asyncio.gather(inner(0, 2), inner(1, 6), return_exceptions=True)
    await symphony.flush()
    assert (await symphony.at("latest")).get(deed)["lines"] == deed.lines
    well = {number for number, result in enumerate(results) if result is None}
    assert well <= set(deed.lines)


@pytest.mark.parametrize("step_does", ["reads", "changes", "fails after it has changed it"])
@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_who_was_handed_it_beside_an_atomic_step(symphony: Symphony, step_does: str, ending: str) -> None:
    """Where nothing of the object has changed by the step's end, what another block does from then on is that block's alone."""
    deed = symphony.entities.add(PlainDeed("a"))
    await symphony.flush()

    async def change() -> None:
        async with symphony.transaction("Wrote", actor="ann"):
            symphony.entities.get("PlainDeed:a")
            left.set()
            await stepping
            deed.status = "written"
            if ending == "rollback":
                raise Failed

    async def step() -> None:
        with suppress(Failed):
            async with symphony.world.transaction("Step", alone=True, actor="bob"):
                mine = symphony.entities.get("PlainDeed:a")
                has.set()
                await left.wait()
                if step_does != "reads":
                    mine.lines.append("step")
                if step_does.startswith("fails"):
                    raise Failed

    has, left = asyncio.Event(), asyncio.Event()
    stepping = asyncio.create_task(step())
    await has.wait()
    error: BaseException | None = None
    try:
        await change()
    except Failed as failed:
        error = failed
    await symphony.flush()
    last = (await symphony.history(deed))[-1].event
    assert (await symphony.at("latest")).get(deed)["lines"] == deed.lines == ([] if step_does == "reads" else ["step"])
    if step_does == "reads":
        assert deed.status == ("written" if ending == "commit" else "draft")
        assert (last.name, last.metadata.actor) == (("Wrote", "ann") if ending == "commit" else ("PlainDeedCreated", None))
        assert not getattr(error, "__notes__", ())
    else:
        assert (deed.status, last.name, last.metadata.actor) == ("written", "PlainDeedChanged", None)
        assert ending == "commit" or "PlainDeed:a was not put back" in getattr(error, "__notes__", ())[0]
    assert not symphony.world.foreign._mixed
    assert not symphony.world.foreign._beside


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_who_changes_it_and_ends_while_an_atomic_step_has_it(symphony: Symphony, ending: str) -> None:
    """Whose change it is cannot be told: a rollback leaves it and says so, and the step that claims the object puts it on record."""
    deed = symphony.entities.add(PlainDeed("a"))
    await symphony.flush()
    outside = contextvars.copy_context()
    async with symphony.world.transaction("Step", alone=True, actor="bob"):
        symphony.entities.get("PlainDeed:a")

        async def change() -> None:
            async with symphony.transaction("Wrote", actor="ann"):
                symphony.entities.get("PlainDeed:a").status = "written"
                if ending == "rollback":
                    raise Failed

        (error,) = await asyncio.gather(asyncio.create_task(change(), context=outside), return_exceptions=True)
    assert (await symphony.at("latest")).get(deed)["status"] == "written"
    assert ending == "commit" or "PlainDeed:a was not put back" in getattr(error, "__notes__", ())[0]
    assert not symphony.world.foreign._mixed


async def test_the_end_of_a_block_looks_at_none_but_its_own_objects(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many objects are mixed elsewhere: each is compared by those that have it."""
    deeds = [symphony.entities.add(PlainDeed(f"d{number}")) for number in range(20)]
    await symphony.flush()
    begun = [asyncio.Event() for _ in range(2)]
    close = asyncio.Event()

    async def hold(number: int) -> None:
        async with symphony.transaction("Held"):
            for deed in deeds:
                symphony.entities.get(f"PlainDeed:{deed.id}").lines.append(f"{number}")
            begun[number].set()
            await close.wait()

    async def mix() -> None:
        async with symphony.transaction("Mixed"):
            for deed in deeds:
                symphony.entities.get(f"PlainDeed:{deed.id}")

    holding = [asyncio.create_task(hold(number)) for number in range(2)]
    for event in begun:
        await event.wait()
    await mix()
    assert len(symphony.world.foreign._mixed) == len(deeds)
    looked: list[str] = []
    capture = symphony.world.capture

    def noting(obj: Any, reference: Any) -> Any:
        looked.append(reference.key)
        return capture(obj, reference)

    monkeypatch.setattr(symphony.world, "capture", noting)
    async with symphony.transaction("Other"):
        symphony.entities.add(PlainDeed("other"))
    assert set(looked) == {"PlainDeed:other"}
    close.set()
    await asyncio.gather(*holding)
    assert not symphony.world.foreign._mixed
