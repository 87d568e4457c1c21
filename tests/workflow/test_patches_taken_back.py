"""What `patched` has decided is taken back with the call that it was decided for, wherever that call stands."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import StepFailedError
from symphony_es.workflow import gather, patched, step


class Shop:
    """Code whose steps fail where they are told to, and go another way where it is told to."""

    def __init__(self) -> None:
        self.failing = {"late"}
        self.goes_on = True

    async def do(self, what: str) -> str:
        if what in self.failing:
            raise ValueError(what)
        return what

    async def call(self, what: str) -> str:
        return await step(self.do, what, name=what)

    async def asks(self) -> None:
        if self.goes_on and patched("asks"):
            await self.call("asked")

    async def behind_a_step(self) -> None:
        await self.call("first")
        await gather(self.asks(), self.call("beside"))
        await self.call("late")

    async def deep(self) -> None:
        async def inner() -> None:
            await self.call("first")
            await gather(self.asks())

        await gather(inner(), self.call("beside"))
        await self.call("late")

    async def behind_a_gather(self) -> None:
        await gather(self.call("first"))
        await self.asks()
        await self.call("late")


CODES: dict[str, Callable[[Shop], Callable[[], Awaitable[None]]]] = {
    "a step": lambda shop: shop.behind_a_step,
    "deep in another": lambda shop: shop.deep,
    "a gather": lambda shop: shop.behind_a_gather,
}


@pytest.mark.parametrize("goes_on", [True, False])
@pytest.mark.parametrize("where", CODES)
async def test_a_patch_behind_what_is_taken_back(where: str, *, goes_on: bool) -> None:
    """The code may ask again, or go another way: nothing on record contradicts it."""
    shop = Shop()
    async with Symphony() as symphony:
        workflow = symphony.workflow(CODES[where](shop), name="shop")
        run: Any = await symphony.workflows.execute_workflow(workflow)
        assert (run.status, run.error["step"]) == ("failed", "late")
        shop.failing, shop.goes_on = set(), goes_on
        first = next(address for address in run.attempts if address.rpartition("/")[2] == "first")
        run = await symphony.workflows.retry_from(run, first)
        assert run.status == "completed", run.error
        asked = [address for address in run.attempts if address.rpartition("/")[2] == "asked"]
        assert len(asked) == goes_on


@pytest.mark.parametrize("again", [True, False])
async def test_a_patch_in_what_made_up_for_a_failure(*, again: bool) -> None:
    """A resume forgives the failure; the code need not make what it had called after it, and the patch there is part of that."""
    shop = Shop()

    async def shopping() -> None:
        try:
            await shop.call("late")
        except StepFailedError:
            await gather(shop.asks(), shop.call("beside"))
            raise
        if again:
            await gather(shop.asks(), shop.call("beside"))
        await shop.call("end")

    async with Symphony() as symphony:
        run: Any = await symphony.workflows.execute_workflow(symphony.workflow(shopping))
        assert (run.status, run.error["step"]) == ("failed", "late")
        assert "gather/0/asked" in run.attempts
        shop.failing = set()
        run = await asyncio.wait_for(symphony.workflows.resume(run), 30)
        assert run.status == "completed", run.error


async def test_a_patch_called_as_a_step_that_is_taken_back() -> None:
    """The ids of patches and the names of steps are two things: what stands before the step stays."""

    async def program() -> list[bool]:
        before = patched("named")
        await step(asyncio.sleep, 0, name="between")
        await step(asyncio.sleep, 0, name="named")
        return [before]

    async with Symphony() as symphony:
        run: Any = await symphony.workflows.execute_workflow(symphony.workflow(program))
        calls = {place: list(call) for place, call in run.calls[""].items()}
        run = await symphony.workflows.retry_from(run, "named")
        assert (run.status, run.result) == ("completed", [True])
        assert {place: list(call) for place, call in run.calls[""].items()} == calls
