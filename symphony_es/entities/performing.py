"""Performing a task: the agent's model client is asked, and what it answered is put on record.

Model clients are external resources: any callable registered with `symphony.models`, by name. Three events tell the story,
`TaskStarted`, then `TaskCompleted` with the agent's `InteractionRecorded` in one transaction, or `TaskFailed`; the later ones
name the first as their cause. The order of these durable steps is that of docs/architecture.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from symphony_es.annotated import signature
from symphony_es.attribution import attributed
from symphony_es.diagnostics import get_logger, shortened
from symphony_es.entities.agent import Agent
from symphony_es.entities.task import Task, TaskStatus
from symphony_es.errors import NotRegisteredError
from symphony_es.raised import asks_the_program_to_end
from symphony_es.registry import invoke
from symphony_es.shown import quoted

if TYPE_CHECKING:
    from symphony_es.core.host import Host

__all__ = ["MODELS_HOW", "echo", "perform_task"]

MODELS_HOW = (
    "symphony.models.register(name, client) adds one, before the task is performed; a client is `async def client(prompt)`, "
    "and it is no part of the state, so register it again after a resume (on_restore callbacks are the place)"
)

MAX_ERROR_CHARS = 4_000
"""How much is kept of what a client says of its error, which may be a whole HTTP body."""

_log = get_logger(__name__)


async def echo(prompt: str) -> str:
    """Return the built-in model client: answers with the prompt. Deterministic, offline, free."""
    return prompt


async def perform_task(host: Host, task: Task, agent: Agent | None, model: str | None) -> BaseException | None:
    """Have `task` performed and wait until its outcome is durable.

    Args:
        host: the Symphony that the task belongs to.
        task: pending, failed, or left running by a crash; it ends as completed or failed.
        agent: who performs it, or None for the model client alone.
        model: name of the model client; the agent's own when None, `echo` when there is no agent either.

    Returns:
        None when the task has completed; what the client raised when it has failed, which is on record then.

    Raises:
        IllegalTransitionError: the task is completed. Nothing has been appended.
        NotRegisteredError: the model client is missing; agent and model are named. Nothing has been appended.
        asyncio.CancelledError: the task stays running in the log and can be performed again.
    """
    name = model or (agent.model if agent is not None else "echo")
    client = _client(host, name, agent)
    world = host.world
    await host.log.room()
    await world.claim(task)
    with world.recording("TaskStarted") as started:
        task.move_to(TaskStatus.RUNNING)
        if agent is not None and task.agent is not agent:
            task.agent = agent
    cause = started.event_ids.get(f"Task:{task.id}")
    prompt = task.prompt
    with attributed(cause=cause):
        try:
            response = await _ask(client, prompt, agent, task, name)
            await _claim(world, task, agent)
            with world.recording("TaskCompleted"):
                if agent is not None:
                    with world.recording("InteractionRecorded"):
                        agent.interaction_history.append({"task_id": task.id, "model": name, "prompt": prompt, "response": response})
                task.move_to(TaskStatus.COMPLETED, result=response)
        except BaseException as error:  # a client is the application's code: whatever it raises is put on record
            if isinstance(error, (asyncio.CancelledError, GeneratorExit)) or asks_the_program_to_end(error):
                raise
            told = shortened(host.error_on_record(error), MAX_ERROR_CHARS)
            await _claim(world, task, None)
            with world.recording("TaskFailed"):
                task.move_to(TaskStatus.FAILED, error=told)
            await world.flush(task)
            _log.warning("task_failed", task_id=task.id, agent=getattr(agent, "id", None), model=name, error=told)
            return error
    await (world.flush(task) if agent is None else world.flush(task, agent))
    return None


def _client(host: Host, name: str, agent: Agent | None) -> Callable[..., Any]:
    try:
        return host.models.get(name)
    except NotRegisteredError as error:
        who = f"agent {quoted(agent.name or agent.id)} performs tasks through it; " if agent is not None else ""
        raise NotRegisteredError("model client", name, host.models.names(), who + MODELS_HOW) from error


async def _ask(client: Callable[..., Any], prompt: str, agent: Agent | None, task: Task, model: str) -> Any:
    offered = {
        "system": agent.system_prompt() if agent is not None else "",
        "model": model,
        "agent": agent,
        "task": task,
    }
    return await invoke(client, prompt, **_accepted(client, offered))


def _accepted(client: Callable[..., Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the offered keywords that the client declares, so that `async def client(prompt)` is a client."""
    try:
        parameters = list(signature(client).parameters.values())
    except (TypeError, ValueError):  # a callable of C that does not tell
        return {}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(offered)
    # The first parameter is the prompt's, whatever its name is.
    named = {parameter.name for parameter in parameters[1:] if parameter.kind is not parameter.POSITIONAL_ONLY}
    named |= {parameter.name for parameter in parameters[:1] if parameter.kind is parameter.KEYWORD_ONLY}
    return {key: value for key, value in offered.items() if key in named}


async def _claim(world: Any, task: Task, agent: Agent | None) -> None:
    await world.claim(task)
    if agent is not None:
        await world.claim(agent)
