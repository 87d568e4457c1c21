"""Walking through the versions of one entity, letting go of live objects, and leaving entities at rest."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.core.past.resting import AT_REST
from symphony_es.errors import (
    DetachedEntityError,
    EntityBusyError,
    EntityExistsError,
    EntityNotFoundError,
    EntityOutOfStepError,
    UnknownTypeError,
)


@entity
class Walked:
    id: str = ""
    n: int = 0
    items: list[Any] | None = None
    other: Any = None


@entity(type="at_rest.Thread")
class Thread:
    id: str = ""
    n: int = 0


class TestWalk:
    @pytest.mark.parametrize("count", [1, 2, 3, 10, 50])
    @pytest.mark.parametrize("newest_first", [False, True])
    async def test_every_version_has_the_state_of_then(self, symphony: Symphony, count: int, newest_first: bool) -> None:
        """As state_of has it, in either direction, deletions and a new beginning included."""
        walked = symphony.entities.add(Walked(id="w", items=[]))
        await symphony.flush()
        for number in range(count - 1):
            if number == 5:
                symphony.entities.remove(walked)
                await symphony.flush()
                walked = symphony.entities.add(Walked(id="w", items=[]))
            else:
                walked.n += 1
                walked.items.append(number)  # type: ignore[union-attr]
            await symphony.flush()
        found = [(version.version, version.position, version.data) async for version in symphony.walk(walked, newest_first=newest_first)]
        expected = []
        for version in await symphony.history("Walked:w"):
            state = await symphony.state_history.entity_at("Walked:w", version.event.position)
            expected.append((version.version, version.event.position, state.data if state is not None else None))
        assert found == (expected[::-1] if newest_first else expected)

    @pytest.mark.parametrize("newest_first", [False, True])
    async def test_states_are_the_callers_own_and_ends_can_be_chosen(self, symphony: Symphony, newest_first: bool) -> None:
        """What is done with one changes no other; since and until are those of history."""
        walked = symphony.entities.add(Walked(id="w", items=[]))
        for number in range(20):
            walked.items.append(number)  # type: ignore[union-attr]
            await symphony.flush()
        lengths = []
        async for version in symphony.walk(walked, newest_first=newest_first, since=5, until=15):
            assert version.data is not None
            lengths.append(len(version.data["items"]))
            version.data["items"].clear()
            assert json.loads(json.dumps(version.to_dict()))["state"]["items"] == []
        assert lengths == (list(range(15, 5, -1)) if newest_first else list(range(6, 16)))

    async def test_what_never_was_is_an_error(self, symphony: Symphony) -> None:
        """Of an entity and of a type."""
        symphony.entities.add(Walked(id="w"))
        await symphony.flush()
        with pytest.raises(EntityNotFoundError):
            _ = [version async for version in symphony.walk("Walked:x")]
        with pytest.raises(UnknownTypeError, match="Walked"):
            _ = [version async for version in symphony.walk("Walkd:w", newest_first=True)]

    @pytest.mark.parametrize("newest_first", [False, True])
    async def test_a_bounded_log_in_memory_walks_what_is_kept(self, newest_first: bool) -> None:
        """From the state that forgotten events have led to."""
        async with Symphony({"memory_events": 20}) as symphony:
            walked = symphony.entities.add(Walked(id="w"))
            for number in range(100):
                walked.n = number
                await symphony.flush()
            found = [version.data["n"] async for version in symphony.walk(walked, newest_first=newest_first)]  # type: ignore[index]
            assert (found if newest_first else found[::-1])[:20] == list(range(99, 79, -1))


class TestUnload:
    async def test_an_unloaded_entity_waits_in_the_log(self, reopen: Callable[[], Awaitable[Symphony]]) -> None:
        """What was changed is durable, the object says what to do, its id is taken, and load makes a new object of it."""
        symphony = await reopen()
        walked = symphony.entities.add(Walked(id="w"))
        walked.n = 7
        await symphony.entities.unload(walked)
        assert symphony.entities.find(Walked, "w") is None
        assert symphony.entities.all(Walked) == []
        assert await symphony.entities.ids(Walked) == ["w"]
        with pytest.raises(DetachedEntityError, match=r"entities\.load"):
            walked.n = 8
        with pytest.raises(EntityExistsError, match=r"entities\.load"):
            symphony.entities.add(Walked(id="w"))
        with pytest.raises(EntityNotFoundError, match="waits in the log"):
            symphony.entities.get(Walked, "w")
        again = await symphony.entities.load(Walked, "w")
        assert (again.n, again is walked) == (7, False)
        again.n = 9
        await symphony.flush()
        assert [version.data["n"] async for version in symphony.walk(again)] == [7, 9]  # type: ignore[index]

    async def test_what_is_claimed_or_out_of_step_stays_live(self, reopen: Callable[[], Awaitable[Symphony]]) -> None:
        """Nothing that is under way is lost."""
        symphony = await reopen()
        walked = symphony.entities.add(Walked(id="w"))
        await symphony.flush()
        async with symphony.transaction("Changed"):
            walked.n = 1
            with pytest.raises(EntityBusyError):
                await symphony.entities.unload(walked)
        walked.items = [b"x" * (17 * 2**20)]
        with pytest.raises(EntityOutOfStepError):
            await symphony.entities.unload(walked)
        assert symphony.entities.get(Walked, "w") is walked
        await symphony.refresh(walked)
        await symphony.entities.unload("Walked:w")

    async def test_a_change_while_it_is_unloaded_is_not_lost(self, reopen: Callable[[], Awaitable[Symphony]]) -> None:
        """It is made durable first."""
        import asyncio

        symphony = await reopen()
        for turns in range(6):
            walked = symphony.entities.add(Walked(id=f"w{turns}"))
            await symphony.flush()

            async def change(walked: Walked = walked, turns: int = turns) -> bool:
                for _ in range(turns):
                    await asyncio.sleep(0)
                try:
                    walked.n = 1
                except DetachedEntityError:
                    return False
                return True

            walked.n = 5
            _, changed = await asyncio.gather(symphony.entities.unload(walked), change())
            assert (await symphony.entities.load(Walked, f"w{turns}")).n == (1 if changed else 5)


class TestRest:
    async def filled(self, reopen: Callable[[], Awaitable[Symphony]]) -> Symphony:
        """A log with entities of three types, some of which refer to others."""
        symphony = await reopen()
        threads = [symphony.entities.add(Thread(id=name)) for name in "ab"]
        symphony.entities.add(Walked(id="plain", other=Walked(id="referred")))
        symphony.entities.add(Walked(id="holder", other=threads[0]))
        await symphony.tasks.create_task("say", "hello")
        return await reopen()

    async def test_reserved_types_stay_in_the_log_until_they_are_asked_for(self, reopen: Callable[[], Awaitable[Symphony]]) -> None:
        """But for what something alive refers to; then a load brings them."""
        symphony = await self.filled(reopen)
        report = await symphony.resume()
        assert report.complete
        assert [thread.id for thread in symphony.entities.all(Thread)] == ["a"]
        assert symphony.entities.get(Walked, "holder").other is symphony.entities.get(Thread, "a")
        with pytest.raises(EntityNotFoundError, match="waits in the log"):
            symphony.entities.get(Thread, "b")
        symphony.entities.add(Thread(id="b"))
        with pytest.raises(EntityExistsError):
            await symphony.flush()  # whether an id that is not here stands in the log, the writer thread finds out
        assert await symphony.entities.ids(Thread) == ["a", "b"]
        assert (await symphony.entities.load(Thread, "b")).id == "b"
        assert len((await symphony.at("latest")).all(Thread)) == 2
        assert "at_rest.Thread".startswith(AT_REST)
        await symphony.create_checkpoint("all")
        assert (await symphony.list_checkpoints())[0]["entity_count"] == 6

    @pytest.mark.parametrize("given", [[Thread], ["at_rest.Thread"], Thread, "at_rest.Thread"])
    async def test_a_resume_of_some_types_brings_those_and_what_they_refer_to(
        self, reopen: Callable[[], Awaitable[Symphony]], given: Any
    ) -> None:
        """Reserved ones where they are named; the others stay in the log."""
        symphony = await self.filled(reopen)
        await symphony.resume(types=given)
        assert sorted(key for key in symphony.world.records) == ["at_rest.Thread:a", "at_rest.Thread:b"]
        await symphony.resume(types=[Walked])
        assert sorted(symphony.world.records) == ["Walked:holder", "Walked:plain", "Walked:referred", "at_rest.Thread:a"]
        with pytest.raises(UnknownTypeError, match="Walked"):
            await symphony.resume(types=["Walkd"])
        await symphony.resume(types=[])
        assert len(symphony.entities) == 0
        assert len(await symphony.entities.ids(Walked)) == 3
