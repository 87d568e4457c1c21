"""Automatic checkpoints of a workflow, and a failed run that is repaired and resumed.

Run it with `python examples/workflow_state_management_example.py`. It works offline and cleans up after itself.
"""

import asyncio
import tempfile

from symphony_es import Symphony
from symphony_es.workflow import AutoCheckpoint, RunContext

SERVICE = {"up": False}


async def gather(context: RunContext) -> list[str]:
    """A coroutine function runs on the event loop; what it returns is the step's output."""
    return [f"{context['topic']} fact {number}" for number in range(1, 4)]


def publish(context: RunContext) -> str:
    """Any other function runs in a thread. It fails while the service is down."""
    if not SERVICE["up"]:
        raise ConnectionError("the publishing service is down")
    context["published"] = True
    return f"published: {context.outputs['write']}"


async def main() -> None:
    """A run fails, is looked at, and goes on where it stopped."""
    with tempfile.TemporaryDirectory() as state_dir:
        symphony = Symphony(persistence_enabled=True)
        await symphony.setup(state_dir=state_dir)
        symphony.functions.register("gather", gather)
        symphony.functions.register("publish", publish)

        writer = await symphony.agents.create_agent(name="Writer", role="Writes reports", agent_type="writer")
        definition = await (
            symphony.build_workflow()
            .create("weather report", "Gather, write, publish")
            .add_function("gather", gather)
            .add_task("write", "Write the report", "Report on {{ topic }}: {{ step.gather.result[0] }}", agent_id=writer.id)
            .add_function("publish", publish)
            .with_context({"topic": "rain"})
            .save()
        )

        run = await symphony.workflows.execute_workflow_by_id(definition.id)
        print(f"run {run.id}: {run.status}")
        assert run.error is not None
        print(f"  {run.error['type']} in step {run.error['step']}: {run.error['message']}")
        assert run.status == "failed"

        SERVICE["up"] = True
        run = await symphony.workflows.execute_workflow_by_id(run.id)
        print(f"run {run.id}: {run.status}")
        results = await symphony.workflows.get_workflow_results(run.id)
        for address, step in results["steps"].items():
            print(f"  {address}: {step['status']} after {step['attempts']} attempt(s): {step['output']}")
        assert results["steps"]["gather"]["attempts"] == 1, "a completed step never runs again"
        assert results["steps"]["publish"]["attempts"] == 2

        print("automatic checkpoints, newest first:")
        for checkpoint in await symphony.list_checkpoints():
            print(f"  {checkpoint['name']} at position {checkpoint['position']}")
        stages = [checkpoint["metadata"]["stage"] for checkpoint in await symphony.list_checkpoints()]
        assert stages == ["complete", "step", "error", "start"]

        # No automatic checkpoints, or another policy: the run is durable either way.
        workflow_engine = symphony.registry.get("workflow_engine")
        await workflow_engine.execute_workflow(definition, auto_checkpoint=False)
        await workflow_engine.execute_workflow(definition, auto_checkpoint=AutoCheckpoint(every=1, at_start=False))
        assert len(await symphony.list_checkpoints()) == 4 + 0 + 4
        await symphony.close()
    print("done")


if __name__ == "__main__":
    asyncio.run(main())
