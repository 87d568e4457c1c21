"""Those who wake up at once share the event loop in portions, first come, first served."""

from __future__ import annotations

import asyncio

import pytest

from symphony_es.workflow.engine import turns as module
from symphony_es.workflow.engine.turns import RELEASED, Turns


async def iterations_of(turns: Turns, order: list[int], count: int) -> list[int]:
    """In which iteration of the loop each of so many tasks got its turn."""
    iteration = 0
    got: list[int] = [0] * count

    async def one(number: int) -> None:
        await turns.take()
        order.append(number)
        got[number] = iteration

    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    while not all(task.done() for task in tasks):
        iteration += 1
        await asyncio.sleep(0)
    return got


async def test_without_a_rest_of_the_budget_few_begin_in_an_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    """All get their turn, in the order in which they came, never more at once than are let go on together."""
    budget = iter([True, *([False] * 3)] * 100)
    monkeypatch.setattr(Turns, "_has_room", lambda self: next(budget))
    order: list[int] = []
    got = await iterations_of(Turns(), order, 100)
    assert order == sorted(order)
    assert max(got.count(iteration) for iteration in set(got)) <= RELEASED


async def test_with_room_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn costs nothing then: all of them begin in the same iteration."""
    monkeypatch.setattr(module, "BUDGET_S", 60.0)
    got = await iterations_of(Turns(), [], 100)
    assert len(set(got)) == 1


async def test_a_cancelled_wait_leaves_its_turn_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it was cancelled after its turn had come."""
    monkeypatch.setattr(module, "BUDGET_S", 0.0)
    turns = Turns()
    asked = [asyncio.create_task(turns.take()) for _ in range(4)]
    await asyncio.sleep(0)
    assert [task.done() for task in asked] == [True, False, False, False], "the first one of an iteration always has room"
    asked[1].cancel()
    monkeypatch.setattr(module, "BUDGET_S", 60.0)
    await asyncio.gather(*asked, return_exceptions=True)
    assert [task.cancelled() for task in asked] == [False, True, False, False]


async def test_what_is_larger_takes_the_place_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of work of two portions, half as many begin in an iteration as of steps."""
    budget = iter([True, *([False] * 3)] * 100)
    monkeypatch.setattr(Turns, "_has_room", lambda self: next(budget))
    turns, iteration, got = Turns(), 0, list[int]()

    async def one() -> None:
        await turns.take(2)
        got.append(iteration)

    tasks = [asyncio.create_task(one()) for _ in range(40)]
    while not all(task.done() for task in tasks):
        iteration += 1
        await asyncio.sleep(0)
    assert max(got.count(iteration) for iteration in set(got)) == RELEASED // 2
