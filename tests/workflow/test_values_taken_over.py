"""What a step can hand over, a new run can begin with: forks, changes, retried runs, contexts and results of child runs."""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from pydantic import BaseModel

from symphony_es import Symphony
from symphony_es.errors import UnstorableValueError
from symphony_es.workflow import WorkflowDefinition, run_workflow, step


class Model(BaseModel):
    number: int
    tags: set[str] = set()
    notes: list[Any] = []


@dataclass
class Record:
    number: int
    items: list[Any] = field(default_factory=list)
    pair: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Frozen:
    number: int
    pair: tuple[Any, ...] = ()


class Pair(NamedTuple):
    first: Any
    second: Any


class Colour(enum.Enum):
    RED = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


MAKERS: dict[str, Callable[[], Any]] = {
    "tuple with a set": lambda: (1, {2, 3}),
    "tuple with a list": lambda: (1, [2], {"a": [3]}),
    "nested": lambda: [({1}, (2, [3]))],
    "under a key": lambda: {"k": (1, {2}), 7: ([3],)},
    "tuple of objects": lambda: (Model(number=1, tags={"x"}), Record(1, [1, {2}], (1, {3}))),
    "model": lambda: Model(number=1, tags={"x"}, notes=[(1, {2})]),
    "dataclass": lambda: Record(1, [1, {2}], (1, {3})),
    "frozen dataclass": lambda: Frozen(1, (1, {2})),
    "named tuple": lambda: Pair(1, {2}),
    "list of named tuples": lambda: [Pair(1, [2])],
    "enums": lambda: (Colour.RED, Rights.READ | Rights.WRITE),
    "path": lambda: (PurePosixPath("/a/b"), [PurePosixPath("c")]),
    "scalars": lambda: ([datetime(2026, 1, 2, tzinfo=UTC)], Decimal("1.20"), UUID(int=7), b"x", 10**40, None),
    "collections": lambda: (deque([1, {2}]), OrderedDict(a={1}), Counter("aab"), bytearray(b"x")),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """Makes a value that a step can hand over."""
    return MAKERS[request.param]


def definition(symphony: Symphony, make: Callable[[], Any]) -> WorkflowDefinition:
    """A step that gives the value and writes it to the context, and one that reads both."""

    def give(context: Any) -> Any:
        context["kept"] = make()
        return make()

    def read(context: Any) -> Any:
        assert context["kept"] == context.get("given", make()) == make()
        return context.outputs["give"]

    symphony.functions.register("give", give)
    symphony.functions.register("read", read)
    steps: list[Any] = [{"kind": "function", "name": name, "function": name} for name in ("give", "read")]
    return WorkflowDefinition(name="declared", steps=steps)


async def test_a_declared_run(symphony: Symphony, make: Callable[[], Any]) -> None:
    """It begins with the value, is forked after it, with it as a change as well, and retried; the results are what the step gave."""
    run = await symphony.workflows.execute_workflow(definition(symphony, make), {"given": make()}, auto_checkpoint=False)
    assert run.error is None
    again = await symphony.workflows.retry_from(run, "read", auto_checkpoint=False)
    fork = await symphony.workflows.fork(run, "read")
    changed = await symphony.workflows.fork(run, "read", changes={"given": make(), "new": make()})
    for made in (again, await symphony.workflows.resume(fork), await symphony.workflows.resume(changed)):
        assert (made.status, made.result) == ("completed", make()), made.error
        assert type(made.result) is type(make())
        assert made.context["given"] == make()


async def test_a_coded_run(symphony: Symphony, make: Callable[[], Any], reopen: Any) -> None:
    """The same of a function's argument and of what its steps give; a fork reads the same in another process."""

    def define(where: Symphony) -> Any:
        @where.workflow
        async def flow(given: Any) -> Any:
            assert given == make()
            found = await step(make, name="give")
            return await step(lambda: found, name="read")

        return flow

    run = await symphony.workflows.execute_workflow(define(symphony), {"given": make()}, run_id="r", auto_checkpoint=False)
    assert (run.status, run.result) == ("completed", make()), run.error
    again = await symphony.workflows.retry_from(run, "read", auto_checkpoint=False)
    assert (again.status, again.result) == ("completed", make()), again.error
    await symphony.workflows.fork(run, "read", run_id="fork", changes={"given": make()})
    opened = await reopen()
    for cls in (Model, Record, Frozen, Pair, Colour, Rights):
        opened.types.register(cls)
    await opened.resume()
    define(opened)
    fork = await opened.workflows.resume("fork", auto_checkpoint=False)
    assert (fork.status, fork.result) == ("completed", make()), fork.error


async def test_a_child_run(symphony: Symphony, make: Callable[[], Any]) -> None:
    """It begins with the value that its parent hands on, and gives one back."""
    child = definition(symphony, make)

    @symphony.workflow
    async def flow() -> Any:
        return await run_workflow(child, {"given": await step(make, name="first")})

    run = await symphony.workflows.execute_workflow(flow, auto_checkpoint=False)
    assert (run.status, run.result) == ("completed", make()), run.error
    fork = await symphony.workflows.resume(await symphony.workflows.fork(run, "declared"), auto_checkpoint=False)
    assert (fork.status, fork.result) == ("completed", make()), fork.error


@pytest.mark.parametrize("name", ["model", "dataclass", "nested", "tuple of objects"])
async def test_what_a_run_began_with_is_its_own(symphony: Symphony, name: str) -> None:
    """A caller that changes an object which it has handed to a run, or to a fork, changes nothing of the run."""
    make = MAKERS[name]
    given, changes = make(), make()
    run = await symphony.workflows.execute_workflow(definition(symphony, make), {"given": given}, auto_checkpoint=False)
    fork = await symphony.workflows.fork(run, "read", changes={"given": changes})
    for handed in (given, changes):
        inner = handed[0] if isinstance(handed, (list, tuple)) else handed
        if isinstance(inner, tuple):
            inner[0].add(99)
        elif isinstance(inner, Model):
            inner.tags.add("z")
        else:
            inner.items.append(99)
    assert run.context["given"] == fork.context["given"] == make()
    await symphony.flush()


async def test_a_list_of_an_entity_stays_with_it(symphony: Symphony) -> None:
    """What belongs to a live entity is copied into the run, and stays where it is."""
    run = await symphony.workflows.execute_workflow(definition(symphony, list), {"given": []}, auto_checkpoint=False)
    other = await symphony.workflows.execute_workflow(definition_again(run), {"given": run.context["given"]}, auto_checkpoint=False)
    other_list = other.context["given"]
    other_list.append(1)
    assert (list(run.context["given"]), list(other_list)) == ([], [1])


def definition_again(run: Any) -> WorkflowDefinition:
    """The definition of a run."""
    found: WorkflowDefinition = run.definition
    return found


async def test_what_cannot_be_stored_is_said_with_its_place(symphony: Symphony) -> None:
    """Nothing is appended, for a new run as for a fork."""
    chosen = definition(symphony, list)
    run = await symphony.workflows.execute_workflow(chosen, auto_checkpoint=False)
    await symphony.flush()
    head = symphony.log.head
    with pytest.raises(UnstorableValueError, match=r"context\.given\[1\]"):
        await symphony.workflows.execute_workflow(chosen, {"given": (1, object())})
    with pytest.raises(UnstorableValueError, match=r"context\.given\.a"):
        await symphony.workflows.fork(run, "read", changes={"given": {"a": object()}})
    await symphony.flush()
    assert symphony.log.head == head
