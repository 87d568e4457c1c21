"""The shipped read models: fed by events, and equal to what a look at the log says."""

from __future__ import annotations

from typing import Any

from symphony_es import EntityReference, Symphony
from symphony_es.projections import CheckpointList, EntityStates, Projection, References, Runs
from tests.application import Customer


async def fed(symphony: Symphony, projection: Any) -> Any:
    await symphony.flush()
    async for events in symphony.log.read():
        projection.feed(events)
        projection.feed(events)  # what was seen changes nothing
    return projection


async def test_entity_states_are_the_fold(symphony: Symphony) -> None:
    """By key and by type; deleted ones are tombstones."""
    customer = symphony.entities.add(Customer(id="c", name="n"))
    symphony.entities.remove(symphony.entities.add(Customer(id="gone")))
    states = await fed(symphony, EntityStates())
    assert states.get("Customer:c").data["name"] == "n"
    assert states.get("Customer:gone").deleted
    assert states.get("Customer:never") is None
    assert [state.key for state in states.of_type("Customer")] == [f"Customer:{customer.id}"]


async def test_references_follow_every_change_both_ways(symphony: Symphony) -> None:
    """What no longer refers is forgotten."""
    a, b = symphony.entities.add(Customer(id="a")), symphony.entities.add(Customer(id="b"))
    a.friends = [b, [b]]
    a.boss = a
    references = await fed(symphony, References())
    target = EntityReference("Customer", "b")
    assert references.outgoing("Customer:a") == [
        (("friends", 0), target),
        (("friends", 1, 0), target),
        (("boss",), EntityReference("Customer", "a")),
    ]
    assert references.incoming("Customer:b") == ["Customer:a"]
    del a.friends[0]
    a.boss = None
    references = await fed(symphony, references)
    assert list(references.all()) == [("Customer:a", ("friends", 0, 0), target)]
    symphony.entities.remove(a)
    assert (await fed(symphony, references)).incoming("Customer:b") == []


async def test_the_checkpoint_list_is_what_the_symphony_lists(symphony: Symphony) -> None:
    """Created and deleted ones, newest first; the newest of a name is found."""
    first = await symphony.create_checkpoint("name")
    second = await symphony.create_checkpoint("name")
    third = await symphony.create_checkpoint("other")
    assert await symphony.delete_checkpoint(third)
    assert not await symphony.delete_checkpoint("never")
    checkpoints = await fed(symphony, CheckpointList())
    assert [entry.as_dict() for entry in checkpoints.newest_first()] == await symphony.list_checkpoints()
    assert checkpoints.find("name").id == second
    assert await symphony.delete_checkpoint("name")
    assert [entry["id"] for entry in await symphony.list_checkpoints()] == [first]


async def test_a_projection_of_ones_own(symphony: Symphony) -> None:
    """It sees the events it wants, once each, in order."""

    class Names(Projection):
        name = "names"
        event_names = ("CustomerChanged",)

        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Any] = []

        def apply(self, event: Any) -> None:
            self.seen.append(event.changes[0][2])

    customer = symphony.entities.add(Customer(id="c"))
    for name in "xyz":
        await symphony.flush()
        customer.name = name
    names = await fed(symphony, Names())
    assert names.seen == ["x", "y", "z"]
    assert names.position == symphony.log.head


async def test_runs_and_how_far_they_are(symphony: Symphony) -> None:
    """Status and completed steps follow the run's events."""

    def fail(context: Any) -> None:
        raise ValueError("no")

    symphony.functions.register("one", lambda context: 1)
    symphony.functions.register("fail", fail)
    good = symphony.build_workflow().create("good").add_processing_step("a", "", "one").add_processing_step("b", "", "one").build()
    bad = symphony.build_workflow().create("bad").add_processing_step("a", "", "one").add_processing_step("b", "", "fail").build()
    first = await symphony.workflows.execute_workflow(good)
    second = await symphony.workflows.execute_workflow(bad)
    runs = await fed(symphony, Runs())
    assert [(run.id, run.status, run.completed_steps) for run in runs.latest_first()] == [
        (second.id, "failed", 1),
        (first.id, "completed", 2),
    ]
    assert [run.name for run in runs.latest_first("failed")] == ["bad"]
    assert runs.get(first.id).changed_at >= runs.get(first.id).started_at
    symphony.entities.remove(second)
    assert (await fed(symphony, runs)).get(second.id) is None


async def test_an_event_that_is_only_called_like_a_checkpoints(symphony: Symphony) -> None:
    """An application may name its events as it likes: they are no checkpoints, and hide none."""
    customer = symphony.entities.add(Customer(id="c"))
    await symphony.flush()
    async with symphony.transaction("CheckpointCreated"):
        customer.name = "other"
    await symphony.create_checkpoint("real")
    checkpoints = await fed(symphony, CheckpointList())
    assert [entry.name for entry in checkpoints.newest_first()] == ["real"]
