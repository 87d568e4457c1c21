"""Workflows: `symphony.workflows`. Definitions are saved here, runs are executed by the engine. Awaited calls are durable."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

from symphony_es.annotated import signature
from symphony_es.core.resume.bringing import is_in_log, refuse_pruned
from symphony_es.errors import ConfigurationError, EntityNotFoundError, near_misses
from symphony_es.events.references import EntityReference
from symphony_es.facades.lookup import find_entity, flush_added, get_entity, key_of
from symphony_es.facades.runs import RunRequests
from symphony_es.guesses import pointing_out
from symphony_es.shown import quoted, shown
from symphony_es.workflow.code.workflow import CodeWorkflow
from symphony_es.workflow.definitions.builder import WorkflowBuilder
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.definitions.nesting import step_at
from symphony_es.workflow.definitions.step_list import StepList
from symphony_es.workflow.definitions.steps import Step
from symphony_es.workflow.definitions.stored import StoredDefinition
from symphony_es.workflow.engine.auto_checkpoint import AutoCheckpoint
from symphony_es.workflow.engine.creation import IfExists, as_definition
from symphony_es.workflow.engine.handle import RunHandle
from symphony_es.workflow.guessed import ON_WORKFLOWS
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.thawing import thaw

T = TypeVar("T")

if TYPE_CHECKING:
    from typing import Generic

    from symphony_es.core.host import Host

    class RunOf(Workflow, Generic[T]):
        """A run of a function that gives T. For type checkers alone: what there is, is a `Workflow`."""

        @property
        def result(self) -> T | None:
            """What the function gave; None while the run has not completed."""


__all__ = ["Workflows"]

_OPTIONS = ("auto_checkpoint", "hooks", "run_id", "deadline_s", "metadata")

_TYPE = "WorkflowDefinition"
DefinitionLike: TypeAlias = WorkflowDefinition | CodeWorkflow | StoredDefinition | EntityReference | Mapping[str, Any] | str
"""A definition, its dict, or a saved one by reference, key or id."""


class Workflows(RunRequests):
    """Saving definitions, executing them, and looking at runs.

    Threads: the calls that are awaited belong to the event loop of the `Symphony`, others may be made in any thread; see there.

    Attributes:
        by_name: the functions under `@symphony.workflow`, by the name that runs find them by.
    """

    def __init__(self, symphony: Host, by_name: dict[str, CodeWorkflow]) -> None:
        super().__init__(symphony)
        self.by_name = by_name

    def build(self, name: str = "", description: str = "") -> WorkflowBuilder:
        """Return a fluent builder of a definition; with a name it has been created: `build("report")` is `build().create("report")`."""
        builder = WorkflowBuilder(self._symphony)
        return builder.create(name, description) if name else builder

    def build_steps(self) -> StepList:
        """Return a fluent list of steps, for what is nested inside of a step."""
        return StepList(self._symphony)

    async def create_workflow(
        self,
        name: str,
        description: str = "",
        steps: Sequence[Step | Mapping[str, Any]] = (),
        metadata: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> WorkflowDefinition:
        """Make a definition and save it.

        `definition.add_step(...)` makes another one with the same id, which `save_workflow` saves in its place.

        Raises:
            DefinitionError: with the path of the fault. Nothing has been appended.
        """
        definition = WorkflowDefinition(name=name, description=description, steps=steps, metadata=metadata or {}, context=context or {})
        await self.save_workflow(definition)
        return definition

    async def save_workflow(self, definition: WorkflowDefinition | Mapping[str, Any]) -> str:
        """Save a definition under its id, in place of what was saved there, and return the id.

        Runs that have started keep the definition they started with.

        Raises:
            DefinitionError: with the path of the fault. Nothing has been appended.
            LimitExceededError: it is too large for the log. Nothing has been appended.
        """
        chosen = definition if isinstance(definition, WorkflowDefinition) else WorkflowDefinition.from_dict(definition)
        world = self._symphony.world
        stored = self._stored(chosen.id)
        if stored is None:
            stored = StoredDefinition.of(chosen)
            world.add(stored)
        else:
            await world.claim(stored)
            with world.recording("WorkflowDefinitionSaved"):
                stored.replace_by(chosen)
        await flush_added(self._symphony, stored)
        return chosen.id

    async def get_workflow(self, workflow: DefinitionLike | Workflow) -> WorkflowDefinition | Workflow:
        """Return a saved definition by its id, reference or key; or the run that has this id.

        Raises:
            EntityNotFoundError: there is neither.
        """
        if isinstance(workflow, Workflow):
            return workflow
        run = None if isinstance(workflow, (WorkflowDefinition, CodeWorkflow, StoredDefinition, Mapping)) else await self._run_of(workflow)
        return run if run is not None else self._definition_not_pruned(workflow)

    async def get_definition(self, workflow: DefinitionLike) -> WorkflowDefinition:
        """Return a saved definition by its id, reference or key.

        Raises:
            EntityNotFoundError: there is none.
        """
        return self._definition(workflow)

    async def get_all_workflows(self) -> list[WorkflowDefinition]:
        """Return all saved definitions, in the order of `entities.all`."""
        return [stored.definition for stored in self._symphony.world.all(_TYPE) if isinstance(stored, StoredDefinition)]

    @overload
    async def execute_workflow(
        self,
        definition: CodeWorkflow[..., T],
        context: Any = None,
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        hooks: Sequence[Any] = (),
        run_id: str = "",
        deadline_s: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> RunOf[T]: ...
    @overload
    async def execute_workflow(
        self,
        definition: DefinitionLike,
        context: Any = None,
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        hooks: Sequence[Any] = (),
        run_id: str = "",
        deadline_s: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> Workflow: ...
    async def execute_workflow(
        self,
        definition: DefinitionLike,
        context: Mapping[str, Any] | Any = None,
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        hooks: Sequence[Any] = (),
        run_id: str = "",
        deadline_s: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> Workflow:
        """Start a run and wait until it completes, fails, is paused or is cancelled; see `WorkflowEngine.execute_workflow`.

        Args:
            definition: a definition, its dict, a function under `@symphony.workflow`, or a saved one by id, name, reference or key.
            context: values for the run's context; of a function, the value of its first parameter will do.
            auto_checkpoint: True (or left out), False, or a policy for this run; it holds in later processes.
            hooks: called after the engine's own, in this order.
            run_id: the run's id; made when left empty.
            deadline_s: seconds from now after which the run fails by itself; the definition's `deadline_s` when left out.
            metadata: the application's own; plain data.
            **arguments: of a function under `@symphony.workflow`: its arguments, beside or instead of `context`.

        Returns:
            The run; one that failed is returned with `status == "failed"` and its `error`.
        """
        chosen = self._definition_not_pruned(definition)
        values = self._context_of(chosen, definition, context, arguments)
        return await self._engine.execute_workflow(
            chosen, values, auto_checkpoint, hooks=hooks, run_id=run_id, deadline_s=deadline_s, metadata=metadata
        )

    @overload
    async def start(
        self,
        definition: CodeWorkflow[..., T],
        context: Any = None,
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        hooks: Sequence[Any] = (),
        run_id: str = "",
        deadline_s: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        if_exists: IfExists = "fail",
        **arguments: Any,
    ) -> RunHandle[T]: ...
    @overload
    async def start(
        self,
        definition: DefinitionLike | Workflow,
        context: Any = None,
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        hooks: Sequence[Any] = (),
        run_id: str = "",
        deadline_s: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        if_exists: IfExists = "fail",
        **arguments: Any,
    ) -> RunHandle: ...
    async def start(
        self,
        definition: DefinitionLike | Workflow,
        context: Mapping[str, Any] | Any = None,
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        hooks: Sequence[Any] = (),
        run_id: str = "",
        deadline_s: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        if_exists: IfExists = "fail",
        **arguments: Any,
    ) -> RunHandle:
        """Start a run, or go on with one, in the background, and return a handle of it; see `WorkflowEngine.start`.

        A reference, key or id names a run, or else a saved definition, or a function under `@symphony.workflow` by its name. The other
        arguments are those of `execute_workflow`: `start(research, topic="rain")`, `start(research, "rain")` and
        `start(research, {"topic": "rain"})` are the same.
        """
        run = await self._run_of(definition) if isinstance(definition, (EntityReference, str)) else None
        chosen = run or (definition if isinstance(definition, Workflow) else self._definition_not_pruned(definition))
        values = context if isinstance(chosen, Workflow) else self._context_of(chosen, definition, context, arguments)
        if isinstance(chosen, Workflow) and arguments:
            raise ConfigurationError(f"run {chosen.id} goes on with what it has: {', '.join(sorted(arguments))} are for a new run")
        return await self._engine.start(
            chosen, values, auto_checkpoint, hooks=hooks, run_id=run_id, deadline_s=deadline_s, metadata=metadata, if_exists=if_exists
        )

    async def execute_workflow_by_id(
        self,
        workflow_id: EntityReference | str,
        context: Mapping[str, Any] | None = None,
        auto_checkpoint: bool | AutoCheckpoint | None = None,
        *,
        hooks: Sequence[Any] = (),
    ) -> Workflow:
        """Execute a saved definition as a new run; or go on with the run that has this id.

        Args:
            workflow_id: id of a saved definition, or of a run that was interrupted or has failed.
            context: values for the context of a new run.
            auto_checkpoint: True (or left out), False, or a policy for this run; it holds in later processes.
            hooks: called after the engine's own.

        Raises:
            EntityNotFoundError: there is neither.
            IllegalTransitionError: the run has completed, or executes already.
            ConfigurationError: a context for a run that has one. In all cases nothing has been appended.
        """
        run = await self._run_of(workflow_id)
        if run is None:
            return await self.execute_workflow(workflow_id, context, auto_checkpoint, hooks=hooks)
        if context:
            raise ConfigurationError(f"run {run.id} goes on with the context it has; a context is for a new run")
        return await self._engine.resume(run, auto_checkpoint, hooks=hooks)

    async def get_workflow_results(self, run: Workflow | EntityReference | str) -> dict[str, Any]:
        """Return what came of a run, as plain data of the caller's own.

        Returns:
            `{"id", "name", "status", "result", "error", "context", "outputs", "steps"}`; `outputs` has outputs by step address, `steps`
            has `{"name", "status", "attempts", "output"}` by address: for every step of the definition's first level (`pending` until
            it begins), and for every other one that has begun.
        """
        found = await self.get_run(run)
        plan = found.definition.plan
        steps = {}
        for address in dict.fromkeys([*(step.id for step in plan), *found.attempts]):
            step = step_at(plan, address)
            steps[address] = {
                "name": step.name if step is not None else address,
                "status": found.step_status(address),
                "attempts": found.attempts.get(address, 0),
                "output": thaw(found.outputs.get(address)),
            }
        return {
            "id": found.id,
            "name": found.name,
            "status": found.status.value,
            "result": found.result,
            "error": thaw(found.error),
            "context": thaw(found.context),
            "outputs": thaw(found.outputs),
            "steps": steps,
        }

    def _context_of(
        self, definition: WorkflowDefinition, given: Any, context: Any, arguments: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Return the values of a new run's context: of a function, its arguments, however they are given.

        Raises:
            ConfigurationError: no mapping and no function, arguments of no function, one given twice, or one with the name of an option.
        """
        function = given.function if isinstance(given, CodeWorkflow) else None
        if function is None and definition.code is not None and definition.code in self._symphony.flows:
            function = self._symphony.flows.get(definition.code)
        if function is None:
            if arguments:
                raise ConfigurationError(
                    f"{', '.join(sorted(arguments))}: a definition's values are given as context={{...}}; options are {', '.join(_OPTIONS)}"
                )
            if context is not None and not isinstance(context, Mapping):
                raise ConfigurationError(f"context is a mapping of names to values, not {type(context).__name__}")
            return context
        known = signature(function).parameters
        parameters = list(known)
        others = [] if _takes_any(known) else [name for name in arguments if name not in known]
        if others:
            near = near_misses(others[0], [*known, *_OPTIONS])
            meant = f" (did you mean {' or '.join(near)}?)" if near else ""
            raise ConfigurationError(
                f"{', '.join(others)}: no parameter of the workflow {quoted(definition.name)} and no option{meant}; it takes "
                f"{', '.join(known) or 'no arguments'}, and options are {', '.join(_OPTIONS)}"
            )
        if isinstance(context, Mapping) or context is None:
            values = dict(context or {})
        elif parameters:
            values = {parameters[0]: context}
        else:
            raise ConfigurationError(f"the workflow {quoted(definition.name)} takes no arguments, and {shown(context)} is one")
        twice = sorted(values.keys() & arguments.keys())
        if twice:
            raise ConfigurationError(f"{', '.join(twice)} of the workflow {quoted(definition.name)}: given in the context and by name")
        return {**values, **arguments}

    def _definition(self, given: Any) -> WorkflowDefinition:
        if isinstance(given, StoredDefinition):
            return given.definition
        if isinstance(given, (WorkflowDefinition, CodeWorkflow, Mapping)):
            return as_definition(given)
        if inspect.isroutine(given):
            name = getattr(given, "__qualname__", repr(given))
            raise ConfigurationError(f"{name} is a plain function: put @symphony.workflow before it, and start what that gives")
        named = self._named(given) if isinstance(given, str) else None
        return named if named is not None else get_entity(self._symphony.world, StoredDefinition, _TYPE, given).definition

    def _definition_not_pruned(self, given: Any) -> WorkflowDefinition:
        """Return the definition that is named, where a run could have been meant as well."""
        try:
            return self._definition(given)
        except EntityNotFoundError:
            named = given.key if isinstance(given, EntityReference) else given
            if isinstance(named, str):
                refuse_pruned(self._symphony, named if ":" in named else f"Workflow:{named}")
            raise

    def _named(self, name: str) -> WorkflowDefinition | None:
        """Return the definition of a name: a function under `@symphony.workflow`, or else the only saved one that is called so; ids come
        first.
        """
        if ":" in name or self._stored(name) is not None:
            return None
        if name in self.by_name:
            return self.by_name[name].definition
        found = [stored.definition for stored in self._symphony.world.all(_TYPE) if isinstance(stored, StoredDefinition)]
        called = [definition for definition in found if definition.name == name]
        if len(called) > 1:
            raise ConfigurationError(
                f"{len(called)} saved definitions are called {shown(name)}: give the id of one, as {quoted(called[0].id)}"
            )
        return called[0] if called else None

    def _stored(self, definition_id: str) -> StoredDefinition | None:
        return find_entity(self._symphony.world, StoredDefinition, _TYPE, definition_id)

    async def _run_of(self, given: EntityReference | str) -> Workflow | None:
        """Return the run that a reference, key or id names, also one at rest; None where it names a definition, or nothing."""
        named_type = given.entity_type if isinstance(given, EntityReference) else None
        if named_type == _TYPE or (isinstance(given, str) and given.startswith(f"{_TYPE}:")):
            return None
        if named_type == "Workflow" or (isinstance(given, str) and given.startswith("Workflow:")):
            return await self._found(given)
        key = key_of("Workflow", given)
        world = self._symphony.world
        if key in world.records or world.at_rest(key) is not None or is_in_log(self._symphony, key):
            return await self._found(given)
        return None

    if not TYPE_CHECKING:  # a checker would take any misspelt name for one of them
        __getattr__ = pointing_out(ON_WORKFLOWS)


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Tell whether a function takes keywords of any name."""
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
