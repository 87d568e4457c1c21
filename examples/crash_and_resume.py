"""A workflow that is killed with SIGKILL in the middle, and goes on in another process: `make demo`.

Three processes work on one directory, one after the other:

1. a worker executes a workflow of eight steps and is killed while it is in the middle of the fifth;
2. another worker resumes the state and goes on with the run;
3. this process looks at what is on record: the checkpoints, the event trail, and the run before and after a step.

The last one checks everything it shows; the program's exit status is 0 only if all of it is as it should be.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from symphony_es import Symphony
from symphony_es.workflow import RunContext, WorkflowDefinition

STEPS = ["collect", "clean", "outline", "draft", "illustrate", "review", "layout", "publish"]
KILLED_IN = "illustrate"


class Worker:
    """The functions of the workflow. Each writes a line into a ledger, which stands for a side effect outside."""

    def __init__(self, directory: Path, *, hang: bool) -> None:
        self.ledger = directory / "ledger.txt"
        self.hang = hang

    def _note(self, context: RunContext) -> None:
        with self.ledger.open("a") as ledger:
            ledger.write(f"{context.step} {context.idempotency_key}\n")
        print(f"   step {context.step}, attempt {context.attempt}", flush=True)

    async def work(self, context: RunContext) -> str:
        """Most steps: uses what the step before came to."""
        self._note(context)
        context.append("trail", context.step)
        before = list(context.outputs.values())
        return f"{before[-1]} > {context.step}" if before else f"{context['topic']}: {context.step}"

    async def illustrate(self, context: RunContext) -> str:
        """The step that the first worker does not survive."""
        context["pictures"] = 3
        if self.hang:
            self._note(context)
            print("READY TO BE KILLED", flush=True)
            await asyncio.Event().wait()
        return await self.work(context)

    def register(self, symphony: Symphony) -> None:
        """What the definition names, every process has to provide."""
        symphony.functions.register("work", self.work)
        symphony.functions.register("illustrate", self.illustrate)


def report_workflow() -> WorkflowDefinition:
    """Eight function steps; the definition is plain data, so it could as well come from a JSON file."""
    return WorkflowDefinition(
        name="illustrated report",
        steps=[{"kind": "function", "name": name, "function": "illustrate" if name == KILLED_IN else "work"} for name in STEPS],
        context={"topic": "rain"},
    )


async def start(directory: Path) -> None:
    """The first worker: is killed before this ends."""
    symphony = await Symphony(persistence_enabled=True).setup(state_dir=directory / "state")
    Worker(directory, hang=True).register(symphony)
    await symphony.workflows.execute_workflow(report_workflow())


async def resume(directory: Path) -> None:
    """The second worker: restores the state and goes on with what was interrupted."""
    symphony = await Symphony(persistence_enabled=True).setup(state_dir=directory / "state")
    Worker(directory, hang=False).register(symphony)
    checkpoint = await symphony.resume_latest_checkpoint()
    print(f"   resumed from checkpoint {checkpoint} and everything after it", flush=True)
    for run in await symphony.workflows.recover():
        print(f"   run {run.id}: {run.status}", flush=True)
    await symphony.close()


async def inspect(directory: Path) -> None:
    """Shows what is on record, and checks it."""
    async with Symphony({"state_dir": str(directory / "state"), "resume": "latest"}, persistence_enabled=True) as symphony:
        (run,) = await symphony.workflows.get_all_runs()
        events = await symphony.log.read_entity(f"Workflow:{run.id}")

        print("\n4. The checkpoints, which were taken automatically, oldest first:\n")
        checkpoints = list(reversed(await symphony.list_checkpoints()))
        for checkpoint in checkpoints:
            name = checkpoint["name"].replace(run.id, "…")
            print(f"   position {checkpoint['position']:>3}  {name:<20} {checkpoint['metadata']['completed_steps']} steps completed")
        stages = [checkpoint["metadata"]["stage"] for checkpoint in checkpoints]
        check(stages == ["start", "step", "step", "complete"], f"checkpoints at {stages}")

        print("\n5. The run's event trail:\n")
        for event in events:
            again = " (again)" if event.metadata.attempt else ""
            print(f"   {event.position:>3}  {event.recorded_at:%H:%M:%S.%f}  {event.name:<22} {event.metadata.step or ''}{again}")

        print(f"\n6. The run before and after the step {KILLED_IN!r}:\n")
        completed = next(event for event in events if event.name == "WorkflowStepCompleted" and event.metadata.step == KILLED_IN)
        before = (await symphony.at(completed.position - 1)).get(f"Workflow:{run.id}")
        after = (await symphony.at(completed.position)).get(f"Workflow:{run.id}")
        for title, state in (("before", before), ("after", after)):
            print(f"   {title:<7} position {completed.position - (title == 'before')}, after {state['attempts'][KILLED_IN]} attempts")
            print(f"           context {state['context']}")
            print(f"           outputs of {', '.join(state['outputs'])}\n")
        check("pictures" not in before["context"] and after["context"]["pictures"] == 3, "the attempt that was killed left nothing behind")

        check(run.status == "completed" and list(run.outputs) == STEPS, "the run has completed all steps in order")
        check(run.context["trail"] == STEPS, "every step wrote the context exactly once")
        check(run.outputs["publish"] == "rain: " + " > ".join(STEPS), "every step had the output of the one before")
        notes = [line.split(" ", 1) for line in (directory / "ledger.txt").read_text().splitlines()]
        expected = [*STEPS[: STEPS.index(KILLED_IN) + 1], *STEPS[STEPS.index(KILLED_IN) :]]
        check([step for step, _ in notes] == expected, f"only {KILLED_IN!r}, which was under way, ran twice")
        check(len({key for _, key in notes}) == len(STEPS), "and its second attempt had the idempotency key of the first")


def check(condition: bool, what: str) -> None:
    """Says what was checked, and ends the program when it is not so."""
    print(f"   {'ok' if condition else 'WRONG'}: {what}")
    if not condition:
        sys.exit(1)


def main() -> None:
    """The three processes."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        command = [sys.executable, __file__, "--directory", name, "--act-as"]

        print("1. A worker executes a workflow of eight steps:\n", flush=True)
        with subprocess.Popen([*command, "start"], stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                if line.startswith("READY"):
                    print("\n2. It is killed with SIGKILL: no clean-up, no last words.\n", flush=True)
                    worker.kill()
                    break
                print(line, end="", flush=True)
        check(worker.returncode == -signal.SIGKILL, f"the worker died of signal {-worker.returncode}")

        print("\n3. Another process resumes and goes on:\n", flush=True)
        again = subprocess.run([*command, "resume"], check=False, timeout=60)
        check(again.returncode == 0, "the second worker ended normally")
        asyncio.run(inspect(directory))
    print("\nEverything is as it should be.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--act-as", choices=["start", "resume"], help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.act_as is None:
        main()
    else:
        asyncio.run({"start": start, "resume": resume}[options.act_as](options.directory))
