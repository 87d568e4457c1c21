"""The details that were decided because changing them later is dear: one test each, under the name it has in the documents."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from symphony_es import EntityReference, Symphony, entity
from symphony_es.core.objects.declared_restorer import DeclaredEntityRestorer
from symphony_es.errors import (
    CheckpointError,
    ConfigurationError,
    DetachedEntityError,
    InvalidIdentifierError,
    RestorationError,
    RestorerConflictError,
    RunInterruptedError,
    RunsInProgressError,
)
from tests.application import Customer, Invoice, Line
from tests.conftest import Opener


async def test_checkpoint_position(symphony: Symphony) -> None:
    """Pending changes are flushed, the position is the head right then; its own event comes after and is no part of it."""
    customer = symphony.entities.add(Customer(id="c"))
    customer.name = "pending"
    checkpoint = await symphony.create_checkpoint("here")
    (entry,) = await symphony.list_checkpoints()
    assert entry["position"] == symphony.log.head - 1
    assert (await symphony.at(checkpoint)).get(customer)["name"] == "pending"
    assert [reference.key for reference in await symphony.at(symphony.log.head)] == ["Customer:c"]
    async with symphony.transaction("Open"):
        with pytest.raises(CheckpointError, match="inside a transaction"):
            await symphony.create_checkpoint()


async def test_names(symphony: Symphony) -> None:
    """A type is a name of at most 100 characters; an id is any text without NUL of at most 512 bytes; stored as Type:id."""
    for hostile in ("../../x", "a:b:c", "\u202egnp", "x" * 512, "CON", " ", "'; DROP TABLE stored_events; --"):
        symphony.entities.add(Customer(id=hostile))
    await symphony.flush()
    for hostile in ("nul\0", "x" * 513, "x" * 10_000, "\ud800"):
        with pytest.raises(InvalidIdentifierError):
            symphony.entities.add(Customer(id=hostile))
    for wrong in ("", "1x", "a-b", "a" * 101, "a b"):
        with pytest.raises(InvalidIdentifierError):
            EntityReference(wrong, "1")
    assert (await symphony.log.read_entity("Customer:a:b:c"))[0].entity_id == "a:b:c"


async def test_deletion(symphony: Symphony) -> None:
    """A tombstone; history stays readable; the id may be used again and versions go on."""
    first = symphony.entities.add(Customer(id="c", name="1"))
    await symphony.flush()
    alive = symphony.log.head
    symphony.entities.remove(first)
    symphony.entities.add(Customer(id="c", name="2"))
    await symphony.flush()
    assert [event.version for event in await symphony.log.read_entity("Customer:c")] == [1, 2, 3]
    assert (await symphony.at(alive)).get("Customer:c")["name"] == "1"


async def test_time(symphony: Symphony) -> None:
    """at(datetime) is the position before the first event with a later time; a moment needs a time zone."""
    customer = symphony.entities.add(Customer(id="c", name="1"))
    await symphony.flush()
    customer.name = "2"
    await symphony.flush()
    first, second = await symphony.log.read_entity("Customer:c")
    assert first.time_ns <= second.time_ns
    assert len(await symphony.at(first.recorded_at - timedelta(seconds=1))) == 0
    assert (await symphony.at(datetime.now(UTC))).get(customer)["name"] == "2"
    with pytest.raises(ConfigurationError, match="time zone"):
        await symphony.at(datetime(2026, 1, 1))


async def test_idempotency_keys(symphony: Symphony) -> None:
    """Run id, step address and generation: a rewind raises the generation, and the step runs again under another key."""
    keys: list[str] = []
    symphony.functions.register("note", lambda context: keys.append(context.idempotency_key))
    definition = symphony.build_workflow().create("w").add_processing_step("one", "", "note").add_processing_step("two", "", "note").build()
    run = await symphony.workflows.execute_workflow(definition)
    start = next(entry for entry in await symphony.list_checkpoints() if entry["name"].endswith("_start"))
    await symphony.resume_from_checkpoint(start["id"])
    await symphony.workflows.recover()
    assert keys[2:] == [key.replace(":0", ":1") for key in keys[:2]]
    assert all(key.startswith(f"{run.id}:") for key in keys)
    assert (await symphony.workflows.get_run(run.id)).status == "completed"


async def test_containers_belong_to_one_place(symphony: Symphony) -> None:
    """Assigning a container stores a tracked copy; no two paths ever share one."""
    customer = symphony.entities.add(Customer(id="c"))
    customer.friends = customer.notes.setdefault("list", [1])
    customer.friends.append(2)
    assert customer.notes["list"] == [1]
    invoice = symphony.entities.add(Invoice(id="i", lines=[Line("a")]))
    invoice.lines.append(invoice.lines[0])
    invoice.lines[0].text = "b"
    assert [line.text for line in invoice.lines] == ["b", "a"]


async def test_equality_in_diffs(symphony: Symphony) -> None:
    """1, True and 1.0 differ; NaN equals NaN; -0.0 differs from 0.0; the order of a dict means nothing."""

    class Box:
        def __init__(self, content: Any) -> None:
            self.content = content

    box = symphony.entities.add(Box(1), "Box", "b")
    values = [True, 1.0, 1, 0.0, -0.0, {"a": 1, "b": 2}]
    for content in values:
        await symphony.flush()
        box.content = content
        symphony.entities.record(box)
    await symphony.flush()
    assert len(await symphony.log.read_entity("Box:b")) == 1 + len(values)
    box.content = {"b": 2, "a": 1}
    symphony.entities.record(box)
    box.content = float("nan")
    symphony.entities.record(box)
    await symphony.flush()
    box.content = float("nan")
    symphony.entities.record(box)
    await symphony.flush()
    assert len(await symphony.log.read_entity("Box:b")) == 2 + len(values)


async def test_references(reopen: Opener) -> None:
    """They may stand as attributes, in lists, dict values, tuples and sets; never in dict keys."""
    symphony = await reopen()
    target = symphony.entities.add(Customer(id="t"))
    symphony.entities.add(Customer(id="c", boss=target, friends=[target], notes={"d": target, "t": (target,), "s": {target}}))
    with pytest.raises(TypeError, match="keys are str or int"):
        target.notes[target] = 1
    symphony = await reopen(resume="latest")
    target, customer = symphony.entities.get("Customer:t"), symphony.entities.get("Customer:c")
    assert (customer.boss, customer.friends, dict(customer.notes)) == (target, [target], {"d": target, "t": (target,), "s": {target}})


async def test_upcasting(reopen: Opener) -> None:
    """At restore, on the folded state; StateAdopted with the new version comes before the first change; folding stays as it was."""

    @entity(type="Upcast")
    class First:
        id: str = ""
        full_name: str = ""

    symphony = await reopen()
    symphony.entities.add(First(id="u", full_name="Ada Lovelace"))
    await symphony.flush()
    restorers = symphony.restore_manager.parent
    assert restorers is not None

    @entity(type="Upcast2", state_version=2, upcast=lambda data, version: {"id": data["id"], "names": data["full_name"].split()})
    class Second:
        id: str = ""
        names: list[str] | None = None

    class Newer(DeclaredEntityRestorer):
        entity_type = "Upcast"  # type: ignore[assignment]

    symphony = await reopen()
    symphony.restore_manager.register_restorer(Newer(Second))
    report = await symphony.resume()
    upcast = symphony.entities.get("Upcast:u")
    assert upcast.names == ["Ada", "Lovelace"]
    assert [item.entity for item in report.different] == ["Upcast:u"]
    upcast.names.append("King")
    await symphony.flush()
    events = await symphony.log.read_entity("Upcast:u")
    assert [event.name for event in events] == ["UpcastCreated", "StateAdopted", "UpcastChanged"]
    assert events[1].metadata.state_version == 2
    symphony = await reopen()
    symphony.restore_manager.register_restorer(Newer(Second))
    assert (await symphony.resume()).complete
    assert symphony.entities.get("Upcast:u").names == ["Ada", "Lovelace", "King"]
    symphony = await reopen()
    with pytest.raises(RestorationError, match="version 2"):
        await symphony.resume(strict=True)


async def test_one_restorer_per_type(symphony: Symphony) -> None:
    """An explicit one wins over the default; registering two explicit ones is an error."""
    default = symphony.restore_manager.restorer_for("Customer")
    mine = DeclaredEntityRestorer(Customer)
    symphony.restore_manager.register_restorer(mine)
    assert symphony.restore_manager.restorer_for("Customer") is mine is not default
    with pytest.raises(RestorerConflictError):
        symphony.restore_manager.register_restorer(DeclaredEntityRestorer(Customer))


async def test_readers_take_no_lock(symphony: Symphony) -> None:
    """A second process may always read, while this one writes; only a second writer is refused."""
    symphony.entities.add(Customer(id="c"))
    await symphony.flush()
    program = (
        "import asyncio, sys, pathlib\n"
        "from symphony_es import Symphony\n"
        "from symphony_es.errors import LogInUseError\n"
        "from symphony_es.log.log import EventLog\n"
        "async def main(path):\n"
        "    log = await EventLog.open_read_only(pathlib.Path(path))\n"
        "    print(log.head, end=' ')\n"
        "    await log.close()\n"
        "    try:\n"
        "        await Symphony(persistence_enabled=True).setup(path)\n"
        "    except LogInUseError as error:\n"
        "        print('refused', 'process' in str(error))\n"
        "asyncio.run(main(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", program, str(symphony.state_dir)]
    child = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    assert child.stdout.split() == ["1", "refused", "True"], child.stderr


async def test_a_rewind_while_a_run_is_in_progress(symphony: Symphony) -> None:
    """It is refused with the run's id; stop_runs=True interrupts the run first, which can be resumed."""
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait(context: Any) -> str:
        reached.set()
        await go_on.wait()
        return "done"

    symphony.functions.register("wait", wait)
    definition = symphony.build_workflow().create("w").add_processing_step("only", "", "wait").build()
    execution = asyncio.create_task(symphony.workflows.execute_workflow(definition))
    await reached.wait()
    (run_id,) = symphony.registry.get("workflow_engine").active_runs
    checkpoint = (await symphony.list_checkpoints())[-1]["id"]
    held = symphony.entities.get(f"Workflow:{run_id}")
    with pytest.raises(RunsInProgressError) as caught:
        await symphony.resume_from_checkpoint(checkpoint)
    assert caught.value.run_ids == [run_id]
    await symphony.resume_from_checkpoint(checkpoint, stop_runs=True)
    with pytest.raises(RunInterruptedError):
        await execution
    with pytest.raises(DetachedEntityError):
        held.name = "x"
    go_on.set()
    (run,) = await symphony.workflows.recover()
    assert (run.id, run.status, run.outputs["only"]) == (run_id, "completed", "done")
