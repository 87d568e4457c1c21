"""What a large entity holds is compared with what was recorded in slices, with the event loop's turns in between; all of it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.core.world import shadow
from symphony_es.core.world.shadow import compare_in_slices, compare_with_shadow
from symphony_es.errors import UnrecordedChangeError

Opener = Callable[..., Awaitable[Symphony]]


@entity(type="SlicedBox")
class Box:
    id: str = ""
    name: str = ""
    items: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)


def written(box: Box, where: str, size: int) -> None:
    """Writes past the methods of what is tracked."""
    items: Any = box.items
    if where == "another value":
        dict.__setitem__(items, f"k{size - 1}", "else")
    elif where == "a member more":
        dict.__setitem__(items, "more", 1)
    elif where == "a member less":
        dict.__delitem__(items, f"k{size // 2}")
    elif where == "inside of a member":
        list.append(items["k0"], "more")
    elif where == "what cannot be stored":
        dict.__setitem__(items, "k1", object())
    elif where == "a member that holds itself":
        list.append(items["k0"], items["k0"])
    elif where == "a small field":
        box.__dict__["name"] = "else"
    elif where == "the field":
        box.__dict__["items"] = {}


@pytest.mark.parametrize("size", [3, 10, 11, 40])
@pytest.mark.parametrize(
    "where",
    [
        "nowhere", "another value", "a member more", "a member less", "inside of a member", "what cannot be stored",
        "a member that holds itself", "a small field", "the field",
    ],
)  # fmt: skip
async def test_slices_find_what_the_whole_comparison_finds(
    reopen: Opener, where: str, size: int, monkeypatch: pytest.MonkeyPatch, no_check_at_each_flush: None
) -> None:
    """Whatever was written past the methods, a comparison in slices finds it where there is something to find, and nothing else."""
    monkeypatch.setattr(shadow, "SLICE", 10)
    symphony = await reopen()
    box = Box(id="b", items={f"k{number}": [number] for number in range(size)}, others={"x": 1})
    symphony.entities.add(box)
    await symphony.flush()
    record = symphony.world.record_for(box)
    written(box, where, size)
    whole = {path[0] for path in compare_with_shadow(record)}
    found = [path for differing in compare_in_slices(record) for path in differing]
    assert {path[0] for path in found} == whole
    assert bool(found) is (where != "nowhere")
    box.__dict__.update(Box(id="b", items={f"k{number}": [number] for number in range(size)}, others={"x": 1}, name="").__dict__)
    with contextlib.suppress(UnrecordedChangeError):
        await symphony.close()


async def test_a_checkpoint_compares_a_large_entity_in_slices(
    reopen: Opener, monkeypatch: pytest.MonkeyPatch, no_check_at_each_flush: None
) -> None:
    """Between two turns of the loop so many members are compared, and others run meanwhile; a change in between is no difference."""
    monkeypatch.setattr(shadow, "SLICE", 10)
    monkeypatch.setattr("symphony_es.core.world.suspects.SLICE_S", -1.0)
    symphony = await reopen()
    box = Box(id="b", items={f"k{number}": number for number in range(200)})
    symphony.entities.add(box)
    await symphony.flush()
    looked_at, most, turns, done = 0, 0, 0, False
    original = shadow.plain_at

    def counted(*arguments: Any) -> Any:
        nonlocal looked_at, most
        looked_at += 1
        most = max(most, looked_at)
        return original(*arguments)

    async def others() -> None:
        nonlocal looked_at, turns
        while not done:
            turns, looked_at = turns + (looked_at > 0), 0
            box.items["k3"], box.items["k150"], box.items[f"new{turns}"] = turns, turns, turns
            await asyncio.sleep(0)

    monkeypatch.setattr(shadow, "plain_at", counted)
    beside = asyncio.create_task(others())
    assert await symphony.world.compare_objects() == []
    done = True
    await beside
    assert most <= 10
    assert turns >= 10


@pytest.mark.parametrize("past", [False, True])
async def test_a_large_run_comes_to_rest_in_slices(
    reopen: Opener, past: bool, monkeypatch: pytest.MonkeyPatch, no_check_at_each_flush: None
) -> None:
    """A run of many steps is compared in slices when it comes to rest; one that was written past its methods stays live."""
    monkeypatch.setattr(shadow, "SLICE", 10)
    monkeypatch.setattr("symphony_es.workflow.engine.resting.LARGE", 10)
    symphony = await reopen()

    async def work(context: Any) -> int:
        return 1

    symphony.functions.register("work", work)
    step = {"kind": "function", "name": "s", "function": "work"}
    looked_at = 0
    original = shadow.plain_at

    def counted(*arguments: Any) -> Any:
        nonlocal looked_at
        looked_at += 1
        return original(*arguments)

    monkeypatch.setattr(shadow, "plain_at", counted)

    async def spoil(context: Any) -> None:
        run = symphony.world.records["Workflow:r"].obj
        if past:
            dict.__setitem__(run.recorded_outputs, "m/50", "else")

    symphony.functions.register("spoil", spoil)
    steps = [{"kind": "map", "name": "m", "over": [0] * 60, "step": step}, {"kind": "function", "name": "last", "function": "spoil"}]
    await symphony.workflows.execute_workflow({"name": "w", "steps": steps}, auto_checkpoint=False, run_id="r")
    if past:
        while looked_at < 60:
            await asyncio.sleep(0.001)
        with pytest.raises(UnrecordedChangeError, match="m/50"):
            await symphony.close()
        return
    while "Workflow:r" in symphony.world.records:
        await asyncio.sleep(0.001)
    assert looked_at >= 120


@pytest.mark.parametrize("turns", [1, 2, 5, 30])
async def test_a_comparison_that_is_cancelled_is_made_up_for(
    reopen: Opener, turns: int, monkeypatch: pytest.MonkeyPatch, no_check_at_each_flush: None
) -> None:
    """Whoever has cancelled a checkpoint in the middle gets the next one only where nothing was changed past the methods."""
    monkeypatch.setattr(shadow, "SLICE", 10)
    monkeypatch.setattr("symphony_es.core.world.suspects.SLICE_S", -1.0)
    symphony = await reopen()
    boxes = [Box(id=f"b{number}", items={f"k{member}": member for member in range(100)}) for number in range(3)]
    for box in boxes:
        symphony.entities.add(box)
    await symphony.create_checkpoint("before")
    for box in boxes:
        box.name = "changed"
    await symphony.flush()
    dict.__setitem__(boxes[2].items, "hidden", 1)
    comparing = asyncio.create_task(symphony.world.compare_objects())
    for _ in range(turns):
        await asyncio.sleep(0)
    comparing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await comparing
    for _ in range(2):
        with pytest.raises(UnrecordedChangeError, match=r"b2: items\.hidden"):
            await symphony.create_checkpoint("after")
    dict.__delitem__(boxes[2].items, "hidden")
    await symphony.create_checkpoint("after")
