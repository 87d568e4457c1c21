"""The one object an application holds: opening, closing, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import symphony_es
import symphony_es.errors
import symphony_es.workflow
from symphony_es import Symphony
from symphony_es.errors import (
    CheckpointNotFoundError,
    ConfigurationError,
    EntityNotFoundError,
    LogInUseError,
    NotReadyError,
    PersistenceDisabledError,
    PositionNotFoundError,
)
from tests.application import Customer
from tests.conftest import Opener


async def test_without_persistence_checkpoint_calls_say_what_to_set() -> None:
    """They raise PersistenceDisabledError, which is a RuntimeError; everything else works."""
    async with Symphony() as symphony:
        symphony.entities.add(Customer(id="c"))
        for call in (
            symphony.create_checkpoint(),
            symphony.list_checkpoints(),
            symphony.delete_checkpoint("x"),
            symphony.resume_from_checkpoint("x"),
            symphony.resume_latest_checkpoint(),
            symphony.at("x"),
        ):
            with pytest.raises(PersistenceDisabledError, match="persistence_enabled=True") as caught:
                await call
            assert isinstance(caught.value, RuntimeError)
        report = await symphony.resume()
        assert report.restored == 1


async def test_memory_is_bounded(reopen: Opener) -> None:
    """Older events become a base state; what is needed of them is still there, and the rest is said to be gone."""
    async with Symphony({"memory_events": 50}) as symphony:
        customer = symphony.entities.add(Customer(id="c"))
        await symphony.flush()
        for number in range(200):
            customer.name = str(number)
            await symphony.flush()
        assert (await symphony.at(symphony.log.head - 10)).get(customer)["name"] == "189"
        with pytest.raises(PositionNotFoundError, match="memory_events"):
            await symphony.at(10)
        await symphony.resume()
        assert symphony.entities.get("Customer:c").name == "199"


async def test_setup_can_be_repeated_and_refuses_another_directory(tmp_path: Path) -> None:
    """It returns the Symphony; a directory without persistence, another one, and unknown settings are errors."""
    symphony = Symphony(persistence_enabled=True)
    with pytest.raises(NotReadyError, match="setup"):
        symphony.entities.all()
    assert await symphony.setup(tmp_path / "a" / "b") is symphony
    assert await symphony.setup() is symphony
    with pytest.raises(ConfigurationError, match="is open on"):
        await symphony.setup(tmp_path / "other")
    with pytest.raises(LogInUseError):
        await Symphony(persistence_enabled=True).setup(tmp_path / "a" / "b")
    await symphony.close()
    await symphony.close()
    with pytest.raises(NotReadyError):
        await symphony.create_checkpoint()
    await symphony.setup(tmp_path / "other")
    await symphony.close()
    with pytest.raises(ConfigurationError, match="needs persistence"):
        await Symphony().setup(tmp_path)
    with pytest.raises(ConfigurationError, match="unknown settings in config: state_dri"):
        Symphony({"state_dri": "x"})


async def test_what_is_not_there_is_named(symphony: Symphony) -> None:
    """Checkpoints, entities and moments."""
    with pytest.raises(CheckpointNotFoundError, match="'nope'"):
        await symphony.resume_from_checkpoint("nope")
    with pytest.raises(EntityNotFoundError, match="did not exist at position 0"):
        (await symphony.at(0)).get("Customer:c")
    with pytest.raises(PositionNotFoundError):
        await symphony.at(99)
    with pytest.raises(CheckpointNotFoundError, match="'yesterday'"):
        await symphony.resume(replay_until="yesterday")


async def test_two_symphonies_share_nothing(tmp_path: Path) -> None:
    """Entities, services, models and restorers are each one's own."""
    async with Symphony({"state_dir": tmp_path / "1"}, True) as one, Symphony({"state_dir": tmp_path / "2"}, True) as two:
        one.entities.add(Customer(id="c", name="one"))
        two.entities.add(Customer(id="c", name="two"))
        one.functions.register("f", lambda context: 1)
        assert "f" not in two.functions.names()
        assert one.registry.get("workflow_engine") is not two.registry.get("workflow_engine")
        assert (one.entities.get("Customer:c").name, two.entities.get("Customer:c").name) == ("one", "two")


def test_the_public_surface() -> None:
    """What a program imports from the top: pinned, so that it changes only on purpose; each name is what its own module has."""
    workflow = {"AutoCheckpoint", "CodeWorkflow", "RetryPolicy", "RunContext", "RunHandle", "Workflow", "WorkflowDefinition"}
    workflow |= {"WorkflowHook", "step_with"}
    workflow |= {"WorkflowStatus", "gather", "patched", "run_workflow", "sleep", "sleep_until", "step", "step_context", "wait_for_signal"}
    others = {"EntityReference", "EntityRestorer", "Symphony", "entity", "part", "restore_manager", "value"}
    errors = set(symphony_es.__all__) - workflow - others
    assert workflow | others < set(symphony_es.__all__)
    assert len(errors) == 30
    assert all(getattr(symphony_es, name) is getattr(symphony_es.errors, name) for name in errors)
    assert all(getattr(symphony_es, name) is getattr(symphony_es.workflow, name) for name in workflow)
    assert all(getattr(symphony_es, name) is not None for name in others)


LATE = {  # by what asks for them
    "aiofiles": "a snapshot's file",
    "structlog": "the application, where it uses it",
    "zoneinfo": "a moment in a named time zone",
    "symphony_es.core.past.audit": "symphony.audit",
    "symphony_es.core.past.forking": "symphony.fork",
    "symphony_es.core.past.time_travel": "symphony.past",
    "symphony_es.core.past.versions": "symphony.history, symphony.blame",
    "symphony_es.transfer": "exports, imports, backups",
    "symphony_es.workflow.code.flow": "a code-first workflow",
    "symphony_es.workflow.definitions.comparison": "resume(run, definition=...)",
    "symphony_es.workflow.kinds.loop": "a loop",
    "symphony_es.workflow.kinds.map": "a map",
    "symphony_es_projections.audit_trail": "symphony.audit",
    "symphony_es_projections.runner": "symphony.projections",
}


def test_what_many_programs_never_use_is_imported_when_it_is_used(tmp_path: Path) -> None:
    """Neither the import of Symphony nor opening and closing one on disk brings it in."""
    program = (
        "import asyncio, sys\nfrom symphony_es import Symphony\n"
        "async def main():\n"
        "    async with Symphony({'state_dir': sys.argv[1]}, True) as symphony:\n"
        "        await symphony.agents.create_agent({'name': 'a'})\n"
        "        await symphony.resume()\n"
        "asyncio.run(main())\n"
        "print(*sorted(set(sys.argv[2:]) & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path / "state"), *LATE], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
