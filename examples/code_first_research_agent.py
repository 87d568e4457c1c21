"""A workflow written as code: an agent researches a topic, an editor approves, and a later version of the code checks the facts.

Run it with `python examples/code_first_research_agent.py [STATE_DIR]`. Without a directory it works in a temporary one.

The run begins under version 1 of the code and is interrupted while it waits for the editor. Version 2 goes on with it: what has completed
is not done again, and `patched` keeps the old run on the old way. A new run takes the new one. The agent's model is the built-in `echo`.
"""

import asyncio
import sys
import tempfile
from typing import Any

from symphony_es import Symphony
from symphony_es.workflow import RetryPolicy, gather, patched, step, step_context, wait_for_signal

CALLS: list[str] = []


async def plan(topic: str) -> list[str]:
    """The questions that the report is to answer."""
    CALLS.append("plan")
    return [f"What is {topic}?", f"Why does {topic} matter?"]


async def look_up(question: str) -> str:
    """A source that fails at the first attempt."""
    CALLS.append(f"look up {question}")
    if step_context().attempt == 1 and question.startswith("Why"):
        raise ConnectionError("the archive is busy")
    return f"{question} 42 sources agree."


async def ask_agent(prompt: str) -> str:
    """A task that the agent performs; its id is the same for each attempt, so the task is made once."""
    CALLS.append("ask agent")
    context = step_context()
    symphony, task_id = context.symphony, f"{context.run_id}/{context.step}"
    task = symphony.entities.find(f"Task:{task_id}")
    if task is None:
        task = await symphony.tasks.create_task(context.step, prompt, id=task_id, agent_id="researcher", workflow_id=context.run_id)
    if task.status != "completed":
        await symphony.tasks.execute_task(task)
    return str(task.result)


def check(finding: str) -> str:
    """What version 2 adds; a plain function runs in a thread."""
    CALLS.append("check")
    return f"{finding} (checked)"


async def investigate(question: str) -> str:
    """Two steps, one after the other; several investigations run beside each other."""
    found = await step(look_up, question, retry=RetryPolicy(max_attempts=3, delay_s=0.02))
    return await step(ask_agent, f"Say it briefly: {found}")


async def publish(topic: str, *, checks: bool) -> dict[str, Any]:
    """Both versions of the workflow."""
    findings = await gather(*(investigate(question) for question in await step(plan, topic)))
    if checks and patched("check-facts"):
        findings = [await step(check, finding) for finding in findings]
    verdict = await wait_for_signal("verdict")
    return {"findings": findings, "approved by": verdict["by"]}


def deploy(symphony: Symphony, version: int) -> Any:
    """Gives a process the workflow `research`, in version 1 or 2."""

    @symphony.workflow
    async def research(topic: str) -> dict[str, Any]:
        return await publish(topic, checks=version == 2)

    return research


async def version_1(state_dir: str) -> None:
    """Begins a run, and ends while it waits."""
    async with Symphony({"state_dir": state_dir, "resume": "latest"}, persistence_enabled=True) as symphony:
        if symphony.entities.find("Agent:researcher") is None:
            await symphony.agents.create_agent(id="researcher", name="Researcher", role="Answers questions", model="echo")
        handle = await symphony.workflows.start(deploy(symphony, 1), {"topic": "rain"})
        async for event in handle.events():
            if event.name == "WorkflowStepFailed":
                print(f"version 1: {event.metadata.step} failed, and is tried again: {event.data['message']}")
            if event.name == "WorkflowStepStarted" and event.metadata.step == "wait verdict":
                break
        print(f"version 1: {handle.status}, {len(CALLS)} calls; the process ends")


async def version_2(state_dir: str) -> None:
    """Goes on with that run, and executes another one."""
    CALLS.clear()
    async with Symphony({"state_dir": state_dir, "resume": "latest"}, persistence_enabled=True) as symphony:
        research = deploy(symphony, 2)
        (waiting,) = await symphony.workflows.list_runs(name="research", status="running")
        old = await waiting.load()
        await symphony.workflows.signal(old, "verdict", {"by": "Ada"})
        await symphony.workflows.recover()
        print(f"version 2: old run {old.status}, {len(CALLS)} calls: {old.result}")
        assert CALLS == [], "what has completed is not done again"

        new = await symphony.workflows.start(research, {"topic": "snow"})
        await new.signal("verdict", {"by": "Grace"})  # before the run waits for it
        print(f"version 2: new run: {await new.result()}")
        print(f"its steps: {', '.join(sorted(new.run.outputs))}")
        assert old.attempts["gather/1/look_up"] == 2
        assert "checked" not in str(old.result)
        assert str(new.run.result).count("checked") == 2


async def main(state_dir: str) -> None:
    """Both versions, one after the other, over one directory."""
    await version_1(state_dir)
    await version_2(state_dir)
    print("done")


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(main(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(main(directory))
