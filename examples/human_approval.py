"""A person decides: a workflow asks, its process is killed, and the answer comes to another process.

Run it with `python examples/human_approval.py [STATE_DIR]`. Without a directory it works in a temporary one.

A signal is durable when the call that sends it returns, whether anybody waits for it or not. So the question needs no process that
stays alive: the answer goes to the run, and whoever recovers the run finds it there.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile

from symphony_es import Symphony
from symphony_es.workflow import RunContext, WorkflowDefinition

ASKED = "asked for approval"


def estimate(context: RunContext) -> int:
    """What the expense comes to."""
    return int(context["people"]) * 40


def pay(context: RunContext) -> str:
    """Only where it was approved."""
    return f"paid {context.outputs['estimate']}, approved by {context.outputs['approval']['by']}"


def decline(context: RunContext) -> str:
    """Where it was not."""
    return f"declined by {context.outputs['approval']['by']}"


def expense(symphony: Symphony) -> WorkflowDefinition:
    """Estimates, waits for a person, and does what the person said."""
    for function in (estimate, pay, decline):
        symphony.functions.register(function.__name__, function)
    steps = symphony.workflows.build_steps
    return (
        symphony.build_workflow()
        .create("expense")
        .add_function("estimate", estimate)
        .add_wait("approval")
        .add_conditional(
            "decision",
            "step.approval.result.approved",
            then=steps().add_function("pay", pay),
            otherwise=steps().add_function("decline", decline),
        )
        .build()
    )


async def ask(state_dir: str) -> None:
    """The first process: starts the run, and is killed while the run waits."""
    async with Symphony({"state_dir": state_dir}, persistence_enabled=True) as symphony:
        handle = await symphony.workflows.start(expense(symphony), {"people": 3})
        async for event in handle.events():
            if event.name == "WorkflowStepStarted" and event.metadata.step == "approval":
                print(f"{ASKED} of {handle.run.outputs['estimate']}", flush=True)


async def answer(state_dir: str) -> None:
    """The second process: finds the run that waits, sends the answer, and goes on with the run."""
    async with Symphony({"state_dir": state_dir, "resume": "latest"}, persistence_enabled=True) as symphony:
        expense(symphony)  # what the definition names, every process has to provide
        for summary in await symphony.workflows.list_runs(name="expense", status="running"):
            run = await summary.load()
            print(f"found a run that waits: {run.name} for {run.context['people']} people, {run.step_status('approval')} at approval")
            await symphony.workflows.signal(run, "approval", {"approved": True, "by": "Ada"})
        (run,) = await symphony.workflows.recover()
        print(f"{run.status}: {run.result}")
        print(f"attempts: {dict(run.attempts)}")
        assert run.result == "paid 120, approved by Ada"
        assert set(run.attempts.values()) == {1}, "waiting across a crash is no new attempt, and no completed step ran again"


def main(state_dir: str) -> None:
    """Both processes, one after the other, over one directory."""
    with subprocess.Popen([sys.executable, __file__, state_dir, "--act-as", "ask"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"first process: {line}", end="")
            if line.startswith(ASKED):
                process.kill()
                break
    print(f"the first process died of signal {-process.returncode}")
    asyncio.run(answer(state_dir))
    print("done")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("state_dir", nargs="?")
    parser.add_argument("--act-as", choices=["ask"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.act_as == "ask":
        asyncio.run(ask(options.state_dir))
    elif options.state_dir:
        main(options.state_dir)
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(directory)
