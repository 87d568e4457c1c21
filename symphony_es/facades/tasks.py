"""Tasks: `symphony.tasks`. What is awaited here is durable when it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from symphony_es.core.resume.bringing import is_in_log, load_entity
from symphony_es.entities.agent import Agent
from symphony_es.entities.performing import echo, perform_task
from symphony_es.entities.task import Task, TaskPriority, TaskStatus
from symphony_es.errors import IllegalTransitionError, NotRegisteredError
from symphony_es.events.references import EntityReference
from symphony_es.facades.lookup import entity_to_hold, find_entity, flush_added, get_entity, given_mapping, given_texts, key_of

if TYPE_CHECKING:
    from symphony_es.core.host import Host

__all__ = ["Tasks"]


class Tasks:
    """Creating, finding and performing tasks.

    Threads: the calls that are awaited belong to the event loop of the `Symphony`, others may be made in any thread; see there.
    """

    def __init__(self, symphony: Host) -> None:
        self._symphony = symphony
        self._performing: set[str] = set()
        self._by_run: tuple[Any, dict[str, dict[str, Task]]] = (
            None,
            {},
        )  # of the world at hand: the tasks that steps of live runs have made
        if "echo" not in symphony.models:
            symphony.models.register("echo", echo)

    async def create_task(
        self,
        name: str,
        description: str = "",
        input_data: Mapping[str, Any] | None = None,
        agent_id: str | None = None,
        priority: TaskPriority | str = TaskPriority.MEDIUM,
        deadline: datetime | None = None,
        parent_task_id: str | None = None,
        workflow_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        id: str = "",  # noqa: A002  the entity's field has this name
        agent: Agent | EntityReference | str | None = None,
        tags: Sequence[str] = (),
    ) -> Task:
        """Create a task and save it: one `TaskCreated` event.

        Args:
            name: what people call it.
            description: what is to be done.
            input_data: plain data; `query` is the prompt, else the description.
            agent_id: id of the agent that is to perform it.
            priority: low, medium, high or critical.
            deadline: UTC; the library does not enforce it.
            parent_task_id: id of the task this is a part of.
            workflow_id: id of the run it belongs to.
            metadata: the application's own.
            id: made when left empty.
            agent: the same as `agent_id`, as an object or reference.
            tags: the application's own words.

        Raises:
            EntityExistsError: the id is taken.
            EntityNotFoundError: the agent is not there.
            UnstorableValueError: a value cannot be stored. In all cases nothing has been appended.
        """
        chosen = agent if agent is not None else agent_id
        task = Task(
            id=id,
            name=name,
            description=description,
            input_data=dict(given_mapping("input_data", input_data)),
            agent=None if chosen is None else entity_to_hold(self._symphony.world, Agent, "Agent", chosen),
            priority=TaskPriority(priority),
            deadline=deadline,
            parent_task_id=parent_task_id,
            workflow_id=workflow_id,
            metadata=dict(given_mapping("metadata", metadata)),
            tags=given_texts("tags", tags, "words of the application's own"),
        )
        await self.save_task(task)
        return task

    async def save_task(self, task: Task) -> str:
        """Save a task, also one that is saved already, and return its id.

        Raises:
            EntityExistsError: another task has the id.
            EntityOutOfStepError: its changes cannot be appended.
        """
        world = self._symphony.world
        world.add(task)
        await flush_added(self._symphony, task)
        return task.id

    async def get_task(self, task: Task | EntityReference | str) -> Task:
        """Return a task by its id, reference or `"Task:id"`.

        Raises:
            EntityNotFoundError: there is none.
        """
        found = await self._found(task)
        return found if isinstance(task, Task) else self.rest_again(found)

    async def execute_task(
        self, task: Task | EntityReference | str, agent: Agent | EntityReference | str | None = None, *, model: str | None = None
    ) -> Task:
        """Have a task performed by its agent, through the agent's model client, and wait for the outcome.

        Args:
            task: object, reference or id; one that is not saved yet is saved.
            agent: who performs it, in place of the task's own agent. Without any, the model client alone does.
            model: name of the model client, in place of the agent's own.

        Returns:
            The task, `completed` with its `result`, or `failed` with its `error`: what a client raises does not leave this call.

        Raises:
            IllegalTransitionError: the task is completed, or is being performed already.
            NotRegisteredError: the model client is missing; agent and model are named. In both cases nothing has been appended.
        """
        found = await self._found(task)
        self._symphony.world.add(found)
        performer = self._performer(found, agent)
        await self._perform(found, performer, model)
        return found

    async def perform_for_step(
        self,
        *,
        task_id: str,
        run_id: str,
        name: str,
        description: str,
        input_data: Mapping[str, Any],
        agent_id: str | None,
        agent_type: str | None,
        model: str | None,
        again: bool = False,
    ) -> Any:
        """Perform the task of a task step and return its result.

        A task that an earlier attempt left is taken up; one that completed with the same input is not performed again.

        Raises:
            EntityNotFoundError: the agent is not there.
            NotRegisteredError: the model client is missing, or no agent has the type and no model is named.
            Exception: what the model client raised; the task has failed then, on record.
        """
        world = self._symphony.world
        agent = self._agent(agent_id) if agent_id is not None else self._agent_of_type(agent_type, model)
        chosen, round_ = task_id, 1
        while (task := await self._of_step(chosen, run_id, again=again)) is not None:
            if task.workflow_id == run_id:
                if task.status is not TaskStatus.COMPLETED:
                    break
                if task.input_data == input_data:
                    return task.result
            # It is somebody else's, or it answered another question: it stays as it is, and this question gets a task of its own.
            round_ += 1
            chosen = f"{task_id}#{round_}"
        if task is None:
            task = Task(id=chosen, name=name, description=description, agent=agent, workflow_id=run_id)
            task.input_data = dict(input_data)
            world.add(task)
            if not world.restoring:
                self.note(task)
        elif task.input_data != input_data:
            task.input_data = dict(input_data)
        error = await self._perform(task, agent, model)
        if error is not None:
            raise error
        return task.result

    async def _of_step(self, task_id: str, run_id: str, *, again: bool) -> Task | None:
        """Return the task of an id; one that is at rest is brought back where the step has been begun before."""
        found = find_entity(self._symphony.world, Task, "Task", task_id)
        if found is not None or not again or not is_in_log(self._symphony, key := key_of("Task", task_id)):
            return found
        await self._symphony.load_entities([key], strict=False)
        found = find_entity(self._symphony.world, Task, "Task", task_id)
        if found is not None and found.workflow_id == run_id:
            self.note(found)
        return found

    async def _found(self, task: Task | EntityReference | str) -> Task:
        if isinstance(task, Task):
            self._symphony.world.refuse_others(task)
            return task
        return await load_entity(self._symphony, Task, key_of("Task", task))

    def rest_again(self, task: Task) -> Task:
        """Return a task that was brought from the log, or changed there, rests as long as its run does; also for the engine."""
        world, run_id = self._symphony.world, task.workflow_id
        record = world.record_of(task)
        if record is None or not run_id or not world.has_at_rest or not task.id.startswith(f"{run_id}/"):
            return task
        if f"Workflow:{run_id}" in world.records:
            self.note(task)
        elif is_in_log(self._symphony, f"Workflow:{run_id}") and not world.is_kept(record.key):
            world.rest(record)
        return task

    def _tasks_by_run(self) -> dict[str, dict[str, Task]]:
        world = self._symphony.world
        if self._by_run[0] is not world:
            self._by_run = world, {}
            for task in self._all():
                self.note(task)
        return self._by_run[1]

    def note(self, task: object) -> None:
        """Take note of a task that has become live, if a step of a run has made it: for the engine."""
        if isinstance(task, Task) and task.workflow_id and task.id.startswith(f"{task.workflow_id}/"):
            self._tasks_by_run().setdefault(task.workflow_id, {})[task.id] = task

    def of_run(self, run_id: str) -> list[Task]:
        """Return the live tasks that steps of a run have made: for the engine."""
        return list(self._tasks_by_run().get(run_id, {}).values())

    def forget_run(self, run_id: str) -> None:
        """Forget the tasks of a run that is at rest: for the engine."""
        self._tasks_by_run().pop(run_id, None)

    async def get_tasks_by_status(self, status: TaskStatus | str) -> list[Task]:
        """Return live tasks that stand there, in the order of `entities.all`; those of runs that have ended come by
        `get_tasks_by_workflow`.

        Raises:
            ConfigurationError: `status` is none.
        """
        wanted = TaskStatus(status)
        return [task for task in self._all() if task.status is wanted]

    async def get_tasks_by_agent(self, agent: Agent | EntityReference | str) -> list[Task]:
        """Return live tasks of an agent, given as object, reference or id.

        Those of runs that have ended come by `get_tasks_by_workflow`.
        """
        wanted = key_of("Agent", agent)
        return [task for task in self._all() if task.agent_id is not None and key_of("Agent", task.agent_id) == wanted]

    async def get_tasks_by_workflow(self, run: Any) -> list[Task]:
        """Return tasks of a run, given as object, reference or id; those that are at rest with it are brought from the log."""
        wanted = key_of("Workflow", run)
        loaded = await self._load_those_of(wanted.partition(":")[2])
        found = [task for task in self._all() if task.workflow_id is not None and key_of("Workflow", task.workflow_id) == wanted]
        for task in loaded:  # those of its child runs as well
            self.rest_again(task)
        return sorted(found, key=lambda task: task.created_at) if loaded else found

    async def _load_those_of(self, run_id: str) -> list[Task]:
        world = self._symphony.world
        if not world.has_at_rest or world.restoring:
            return []
        keys = await self._symphony.log.alive_keys_below("Task", f"{run_id}/")
        absent = [key for key in keys if key not in world.records]
        if absent:
            await self._symphony.load_entities(absent, strict=False)
        return [task for key in absent if isinstance(task := world.find(key), Task)]

    async def update_task_status(
        self, task: Task | EntityReference | str, status: TaskStatus | str, result: Any = None, error: str | None = None
    ) -> Task:
        """Move a task to another status, for work that is done outside.

        The event is `TaskStarted`, `TaskCompleted`, `TaskFailed` or, back to pending, `TaskReset`.

        Raises:
            IllegalTransitionError: the table of transitions does not allow it. Nothing has been appended.
            ConfigurationError: `status` is none.
        """
        target = TaskStatus(status)
        found = await self.get_task(task)
        world = self._symphony.world
        await world.claim(found)
        with world.recording(_EVENT_NAMES[target]):
            found.move_to(target, result=result, error=error)
        await world.flush(found)
        return found

    async def _perform(self, task: Task, agent: Agent | None, model: str | None) -> BaseException | None:
        if task.id in self._performing:
            raise IllegalTransitionError(task.id, "being performed in this process", TaskStatus.RUNNING, kind="task")
        self._performing.add(task.id)
        try:
            return await perform_task(self._symphony, task, agent, model)
        finally:
            self._performing.discard(task.id)

    def _performer(self, task: Task, agent: Any) -> Agent | None:
        chosen = agent if agent is not None else task.agent
        return None if chosen is None else self._agent(chosen)

    def _agent(self, agent: Any) -> Agent:
        return get_entity(self._symphony.world, Agent, "Agent", agent)

    def _agent_of_type(self, agent_type: str | None, model: str | None) -> Agent | None:
        """Return the first agent of a type by id, so that the choice is the same after a resume; None when the model alone performs."""
        if agent_type is None:
            return None
        agents = [agent for agent in self._symphony.world.all("Agent") if isinstance(agent, Agent)]
        found = min((agent for agent in agents if agent.agent_type == agent_type), key=lambda agent: agent.id, default=None)
        if found is None and model is None:
            types = {agent.agent_type for agent in agents if agent.agent_type}
            how = "create an agent with this agent_type, or name a model for the step"
            raise NotRegisteredError("agent type", agent_type, sorted(types), how)
        return found

    def _all(self) -> list[Task]:
        return [task for task in self._symphony.world.all("Task") if isinstance(task, Task)]


_EVENT_NAMES = {
    TaskStatus.PENDING: "TaskReset",
    TaskStatus.RUNNING: "TaskStarted",
    TaskStatus.COMPLETED: "TaskCompleted",
    TaskStatus.FAILED: "TaskFailed",
}
