"""Basic state management: checkpoints, going back, and recovering in a new process.

Run it with `python examples/state_management_example.py`. It works offline and cleans up after itself.
"""

import asyncio
import tempfile

from symphony_es import Symphony


async def first_process(state_dir: str) -> str:
    """Works, takes a checkpoint, changes its mind, goes back, and works on."""
    symphony = Symphony(persistence_enabled=True)
    await symphony.setup(state_dir=state_dir)

    memory = await symphony.agents.create_memory("long_term", {"customer": "Ada"})
    planner = await symphony.agents.create_agent(
        name="Planner",
        role="Plans reports",
        instruction_template="You are {name}. Be brief.",
        capabilities={"expertise": ["planning"]},
        model="echo",
        memory=memory,
    )
    task = await symphony.tasks.create_task("plan", "Plan a report on rain", agent=planner)
    await symphony.tasks.execute_task(task)
    print(f"task {task.status}: {task.result}")

    checkpoint_id = await symphony.create_checkpoint("after_planning_phase")
    print(f"created checkpoint: {checkpoint_id}")

    memory.store("customer", "somebody else")
    await symphony.agents.update_agent(planner, role="Confused")
    await symphony.flush()

    await symphony.resume_from_checkpoint(checkpoint_id)
    planner = await symphony.agents.get_agent(planner.id)
    assert planner.memory is not None
    print(f"back at the checkpoint: {planner.role}, {planner.memory.retrieve('customer')}")
    assert planner.role == "Plans reports"
    assert planner.memory.retrieve("customer") == "Ada"

    planner.memory.store("after the checkpoint", "kept")
    await symphony.close()
    return planner.id


async def second_process(state_dir: str, planner_id: str) -> None:
    """A crash or a deployment later: everything is there, also what came after the checkpoint."""
    symphony = Symphony(persistence_enabled=True)
    await symphony.setup(state_dir=state_dir)
    latest = await symphony.resume_latest_checkpoint()
    print(f"resumed from checkpoint: {latest}" if latest else "no checkpoints available")

    planner = await symphony.agents.get_agent(planner_id)
    assert planner.memory is not None
    print(f"{planner.name} remembers: {dict(planner.memory.items)}, and answered {len(planner.interaction_history)} time(s)")
    assert dict(planner.memory.items) == {"customer": "Ada", "after the checkpoint": "kept"}
    assert len(planner.interaction_history) == 1

    for checkpoint in await symphony.list_checkpoints():
        print(f"{checkpoint['id']} ({checkpoint['name']}): created at {checkpoint['created_at']}")
    assert latest is not None
    assert await symphony.delete_checkpoint(latest)
    assert await symphony.list_checkpoints() == []
    await symphony.close()


async def main() -> None:
    """Both processes, one after the other, over one directory."""
    with tempfile.TemporaryDirectory() as state_dir:
        planner_id = await first_process(state_dir)
        await second_process(state_dir, planner_id)
    print("done")


if __name__ == "__main__":
    asyncio.run(main())
