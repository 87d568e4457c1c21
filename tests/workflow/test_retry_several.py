"""`retry_from` with several steps: they are taken back together, each is done again once, and so is what came after them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError
from symphony_es.workflow import Workflow, WorkflowDefinition, gather, step
from symphony_es.workflow.engine.dropping import beside_in_code, dropped_with

Context = Any


class Shop:
    """Functions that fail for some items, and note what they were called for, with which idempotency key."""

    def __init__(self, symphony: Symphony, failing: set[Any]) -> None:
        self.failing = failing
        self.called: Counter[Any] = Counter()
        self.keys: dict[str, str] = {}
        for name in ("note", "work", "total"):
            symphony.functions.register(name, getattr(self, name))

    def note(self, context: Context) -> Any:
        """Writes to the key space of its branch."""
        self._called("note", context)
        context["noted"] = context["item"] + 100
        return context["item"]

    def work(self, context: Context) -> Any:
        """Fails for some items; otherwise gives what was noted, or the item."""
        item = context["item"]
        self._called("work", context)
        if item in self.failing:
            raise ValueError(f"bad {item}")
        return context.get("noted", item)

    def total(self, context: Context) -> Any:
        """Comes after the map."""
        self._called("total", context)
        return len(context.outputs["items"])

    def _called(self, what: str, context: Context) -> None:
        self.called[what if what == "total" else (what, context["item"])] += 1
        self.keys[context.step] = context.idempotency_key


SIMPLE = {"kind": "function", "name": "work", "function": "work"}
PAIR = {"kind": "sequence", "name": "pair", "steps": [{"kind": "function", "name": "note", "function": "note"}, SIMPLE]}
ITEMS = 7
FAILING = (1, 4, 5)


def mapping(branch: Any) -> WorkflowDefinition:
    """A map that collects, and a step after it."""
    steps: list[Any] = [
        {"kind": "map", "name": "items", "over": list(range(ITEMS)), "on_error": "collect", "step": branch},
        {"kind": "function", "name": "total", "function": "total"},
    ]
    return WorkflowDefinition(name="m", steps=steps)


async def failed_map(symphony: Symphony, branch: Any) -> tuple[Workflow, Shop]:
    """A run whose items 1, 4 and 5 have failed, and what it called; what fails is mended by then."""
    shop = Shop(symphony, set(FAILING))
    run = await symphony.workflows.execute_workflow(mapping(branch), run_id="r", auto_checkpoint=False)
    assert [place for place, out in enumerate(run.outputs["items"]) if isinstance(out, dict) and "error" in out] == list(FAILING)
    shop.failing.clear()
    shop.called.clear()
    shop.keys.clear()
    return run, shop


@pytest.mark.parametrize("order", ["as they failed", "the other way round", "twice each"])
@pytest.mark.parametrize("branch", ["simple", "whole pair", "end of pair"])
async def test_failed_items_are_done_again_together(symphony: Symphony, branch: str, order: str) -> None:
    """Each failed item runs once, the step after the map once; the others keep their outputs, what their branch noted is there."""
    run, shop = await failed_map(symphony, SIMPLE if branch == "simple" else PAIR)
    steps = [f"items/{place}/work" if branch == "end of pair" else f"items/{place}" for place in FAILING]
    asked = {"as they failed": steps, "the other way round": steps[::-1], "twice each": [*steps, *steps]}[order]
    run = await symphony.workflows.retry_from(run, asked, auto_checkpoint=False)
    again = {"work"} if branch != "whole pair" else {"note", "work"}
    assert shop.called == {"total": 1, **{(what, place): 1 for what in again for place in FAILING}}
    assert (run.status, run.result) == ("completed", ITEMS)
    assert run.outputs["items"] == [place if branch == "simple" else place + 100 for place in range(ITEMS)]
    assert all("@1" in key or ":1" in key for key in shop.keys.values())


async def test_they_are_one_event(symphony: Symphony) -> None:
    """The event says which were asked for, and all that was dropped; the context is what it was before the first of them."""
    run, _ = await failed_map(symphony, SIMPLE)
    await symphony.workflows.retry_from(run, ["items/5", "items/1"], auto_checkpoint=False)
    events = [event async for event in symphony.workflows.handle(run).events()]
    (said,) = [event.data for event in events if event.name == "WorkflowRetryRequested"]
    assert said["steps"] == ["items/1", "items/5"]
    assert set(said["dropped"]) == {"items/1", "items/5", "total"}


async def test_the_same_as_one_after_the_other(symphony: Symphony, reopen: Any) -> None:
    """What the run has in the end does not depend on how its items were taken back; another process reads the same."""
    run, _ = await failed_map(symphony, PAIR)
    other = await symphony.workflows.fork(run, at="total", run_id="other")
    await symphony.workflows.resume(other, auto_checkpoint=False)
    for place in FAILING:
        other = await symphony.workflows.retry_from(other, f"items/{place}", auto_checkpoint=False)
    run = await symphony.workflows.retry_from(run, [f"items/{place}" for place in FAILING], auto_checkpoint=False)
    assert run.outputs == other.outputs
    ended = dict(run.outputs)
    again = await reopen()
    await again.resume()
    assert (await again.workflows.get_run("r")).outputs == ended


async def test_a_step_that_goes_with_another_one_may_be_named(symphony: Symphony) -> None:
    """A step after one that is taken back is dropped with it anyhow."""
    run, shop = await failed_map(symphony, PAIR)
    run = await symphony.workflows.retry_from(run, ["total", "items/4/work", "items/4"], auto_checkpoint=False)
    assert shop.called == {"total": 1, ("note", 4): 1, ("work", 4): 1}
    assert run.status == "completed"


async def test_strands_are_done_again_together(symphony: Symphony) -> None:
    """In code, the failed strands of a `gather` are tried again by one call, and what came after the gather runs once."""
    failing = set(FAILING)
    called: Counter[Any] = Counter()

    async def work(item: int) -> int:
        called[item] += 1
        if item in failing:
            raise ValueError(f"bad {item}")
        return item

    async def branch(item: int) -> int:
        return await step(work, item)

    async def total(found: list[Any]) -> int:
        called["total"] += 1
        return sum(found)

    @symphony.workflow
    async def flow() -> int:
        found = await gather(*(branch(item) for item in range(ITEMS)), return_exceptions=True)
        return await step(total, [one if isinstance(one, int) else 0 for one in found])

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    assert run.result == sum(range(ITEMS)) - sum(FAILING)
    failing.clear()
    called.clear()
    run = await symphony.workflows.retry_from(run, [f"gather/{item}/work" for item in FAILING], auto_checkpoint=False)
    assert (run.status, run.result) == ("completed", sum(range(ITEMS)))
    assert called == {"total": 1, **dict.fromkeys(FAILING, 1)}


@pytest.mark.parametrize("wrong", [[], (), None, 7, [7], {"items/1"}, ["items/1", "items/70"], ["items/1", None]])
async def test_what_is_no_step_is_refused(symphony: Symphony, wrong: Any) -> None:
    """One step that has not begun, or no text, and nothing is appended."""
    run, _ = await failed_map(symphony, SIMPLE)
    await symphony.flush()
    head = symphony.log.head
    with pytest.raises(ConfigurationError, match=r"has not begun a step 'items/70'|the address of a step"):
        await symphony.workflows.retry_from(run, wrong, auto_checkpoint=False)
    assert symphony.log.head == head


async def test_steps_of_a_clean_up_are_done_again_together(symphony: Symphony) -> None:
    """Those of the clean-up go on with it, each once; beside steps of the main line they are refused."""
    shop = Shop(symphony, {"a"})
    called: Counter[str] = Counter()
    for name in ("one", "two", "three"):

        def undo(context: Context, name: str = name) -> None:
            called[name] += 1

        symphony.functions.register(name, undo)
    definition = WorkflowDefinition(
        name="c",
        context={"item": "a"},
        steps=[SIMPLE],
        cleanup=[{"kind": "function", "name": name, "function": name} for name in ("one", "two", "three")],
        cleanup_on=["failure"],
    )
    run = await symphony.workflows.execute_workflow(definition, auto_checkpoint=False)
    assert (run.status, called) == ("failed", {"one": 1, "two": 1, "three": 1})
    with pytest.raises(ConfigurationError, match="are of its clean-up, and work are not"):
        await symphony.workflows.retry_from(run, ["cleanup/one", "work"], auto_checkpoint=False)
    run = await symphony.workflows.retry_from(run, ["cleanup/one", "cleanup/three"], auto_checkpoint=False)
    assert called == {"one": 2, "two": 1, "three": 2}
    assert shop.called == {("work", "a"): 1}


PARTS = st.sampled_from(["a", "b", "0", "1"])
ADDRESSES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


def one_by_one(targets: dict[str, int | None], begun: dict[str, int], together: frozenset[str]) -> list[str]:
    """The rule, asked of each pair."""

    def is_beside(address: str, other: str) -> bool:
        ours, theirs = address.split("/"), other.split("/")
        common = 0
        while common < min(len(ours), len(theirs)) and ours[common] == theirs[common]:
            common += 1
        return 0 < common < min(len(ours), len(theirs)) and "/".join(ours[:common]) in together

    def is_dropped(other: str) -> bool:
        for address, from_ in targets.items():
            if other == address or (from_ is not None and from_ <= begun[other] and not is_beside(address, other)):
                return True
        return False

    return [other for other in begun if is_dropped(other)]


@given(
    addresses=st.lists(ADDRESSES, min_size=1, max_size=24, unique=True),
    chosen=st.sets(st.integers(0, 23), min_size=1),
    together=st.frozensets(ADDRESSES, max_size=8),
    longer=st.lists(st.one_of(st.none(), st.integers(0, 12)), min_size=24, max_size=24),
)
def test_what_is_dropped_is_what_each_pair_says(
    addresses: list[str], chosen: set[int], together: frozenset[str], longer: list[int | None]
) -> None:
    """Any addresses, any targets among them, with any ends: the way along the addresses gives what asking each pair gives."""
    begun = {address: place for place, address in enumerate(addresses)}
    targets: dict[str, int | None] = {}
    for place in sorted(number % len(addresses) for number in chosen):
        after = longer[place]
        targets[addresses[place]] = None if after is None else place + after
    assert dropped_with(targets, begun, lambda above: "/".join(above) in together) == one_by_one(targets, begun, together)


def test_many_of_many_are_looked_at_once() -> None:
    """Whether a composite runs its parts beside each other is asked once for each, however many of its parts are taken back."""
    asked: Counter[str] = Counter()

    def is_beside(above: Any) -> bool:
        asked["/".join(above)] += 1
        return beside_in_code(above)

    begun = {f"gather/{place}/{name}": place for place in range(500) for name in ("a", "b")}
    dropped = dropped_with({f"gather/{place}/a": place for place in range(0, 500, 2)}, begun, is_beside)
    assert dropped == [f"gather/{place}/{name}" for place in range(0, 500, 2) for name in ("a", "b")]
    assert max(asked.values()) == 1
