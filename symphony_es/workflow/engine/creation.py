"""New runs from definitions, looked at before anything is appended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from inspect import Parameter
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

from symphony_es.annotated import signature
from symphony_es.core.objects.plain import plain_of
from symphony_es.core.objects.restorers import UnrestoredEntity
from symphony_es.core.resume.bringing import refuse_pruned
from symphony_es.core.world.boundary import taken_in
from symphony_es.errors import (
    ConfigurationError,
    EntityExistsError,
    InvalidIdentifierError,
    ReadOnlyError,
    RunExistsError,
    UnknownValueError,
    UnstorableValueError,
)
from symphony_es.events.changes import SET
from symphony_es.events.identifiers import entity_key
from symphony_es.events.rows import decode_row
from symphony_es.events.values import plain_equal
from symphony_es.log.placing import RUN_ID_TAKEN
from symphony_es.shown import quoted, shown
from symphony_es.workflow.code.workflow import CodeWorkflow, check_arguments
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.definitions.error_rules import check_error_names
from symphony_es.workflow.definitions.nesting import walk
from symphony_es.workflow.engine.clock import Clock
from symphony_es.workflow.engine.histories import creation
from symphony_es.workflow.engine.seconds import deadline_after
from symphony_es.workflow.engine.timeline import FORK_EVENT
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.thawing import thaw
from symphony_es.workflow.runs.unmade import check_made

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.events.event import Event
    from symphony_es.workflow.engine.active import ActiveRuns

__all__ = [
    "DefinitionLike",
    "IfExists",
    "as_definition",
    "check_error_classes",
    "check_input",
    "check_new_id",
    "existing_run",
    "new_run",
    "refuse_id",
]

IfExists: TypeAlias = Literal["fail", "return"]
"""What comes of an id that a run has."""

DefinitionLike: TypeAlias = WorkflowDefinition | CodeWorkflow | Mapping[str, Any]
"""A definition, the dict of one, or a function under `@symphony.workflow`."""


def new_run(
    symphony: Host,
    clock: Clock,
    definition: DefinitionLike,
    context: Mapping[str, Any] | None,
    *,
    run_id: str = "",
    deadline_s: float | None = None,
    metadata: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Workflow:
    """Return a run that has not been added yet; arguments and errors are those of `WorkflowEngine.execute_workflow`."""
    if symphony.log.read_only:
        raise ReadOnlyError(
            "a run cannot be started: this Symphony is open for reading only, and the process that writes the log does that"
        )
    if run_id and symphony.world.find(entity_key("Workflow", run_id)) is not None:
        refuse_id(run_id)
    check_new_id(run_id)
    chosen = as_definition(definition)
    chosen.check(symphony)
    check_error_classes(chosen)
    if chosen.code is not None:
        check_arguments(symphony.flows.get(chosen.code), chosen.code, {**chosen.context, **(context or {})})
    now = clock.now()
    limit_s = deadline_s if deadline_s is not None else chosen.deadline_s
    deadline = deadline_after(now, limit_s)
    given = {"id": run_id} if run_id else {}
    run = Workflow.of(chosen, context or {}, now, symphony.world, deadline=deadline, metadata=thaw(metadata or {}), **given, **fields)
    check_made(run, symphony.world)
    return run


def check_new_id(run_id: str) -> None:
    """Refuse an id that a new run may not have.

    Raises:
        InvalidIdentifierError: it is no text, or reads as the key of another run, which whoever asks for it by this id would be given.
    """
    if not isinstance(run_id, str):
        raise InvalidIdentifierError("id of a new run", run_id, f"it must be text, not {type(run_id).__name__}; left out, one is made")
    if run_id.startswith("Workflow:"):
        raise InvalidIdentifierError("id of a new run", run_id, "it reads as the key of another run: leave 'Workflow:' out")


def refuse_id(run_id: str) -> NoReturn:
    """Raise `EntityExistsError`: a run has the id."""
    raise EntityExistsError(entity_key("Workflow", run_id), RUN_ID_TAKEN)


async def existing_run(
    symphony: Host, active: ActiveRuns, bring: Callable[[str], Awaitable[Workflow]], run_id: str, definition: DefinitionLike
) -> Workflow | None:
    """Return the run of a definition that has an id: live, about to begin, or in the log, from where it is brought; None where there is
    none.

    Raises:
        EntityExistsError: the run is of another definition; `RunPrunedError` where it was pruned.
        UnknownValueError: it needs a class that is not known here.
        EntityNotFoundError: it could not be restored.
    """
    key = entity_key("Workflow", run_id)
    found = active.of_id(run_id) or symphony.world.find(key)
    if found is None:
        version, lives = symphony.log.entity_status_now(key)
        if lives:
            found = await bring(key)
        elif version:
            refuse_pruned(symphony, key)
    if isinstance(found, UnrestoredEntity):
        raise UnknownValueError(found.missing)
    if not isinstance(found, Workflow):
        return None
    name = as_definition(definition).name
    if found.name != name:
        raise EntityExistsError(key, f"that run is of the definition {quoted(found.name)}, and this start is of {quoted(name)}")
    return found


async def check_input(symphony: Host, run: Workflow, context: Mapping[str, Any] | None) -> None:
    """Look whether a start that is made again has the input that a run was started with; who asks for another one means another run.

    What the run's definition or its function gives by default need not be given. The type counts: 1 is neither True nor 1.0. The input of
    a fork is that of its original, with what the fork has changed.

    Raises:
        RunExistsError: the input is another one.
        UnstorableValueError: it could not be the input of a run.
    """
    began_with = await _input_on_record(symphony, run)
    if began_with is None:
        return
    world = symphony.world
    given = plain_of(taken_in(world, {"context": {**run.definition.context, **(context or {})}})["context"], world.around(run))
    left_out = given.keys() ^ began_with.keys()
    if left_out:
        defaults = _defaults_of(symphony, run, left_out)
        given, began_with = {**defaults, **given}, {**defaults, **began_with}
    differs = [key for key in given.keys() | began_with.keys() if not _is_same(key, given, began_with)]
    if differs:
        raise RunExistsError(entity_key("Workflow", run.id), sorted(differs, key=str))


def _is_same(key: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return key in one and key in other and plain_equal(one[key], other[key])


def _defaults_of(symphony: Host, run: Workflow, names: Iterable[str]) -> dict[str, Any]:
    """Return what the function of a code-first run gives by default for some parameters, as the context of a run has it."""
    code, defaults = run.definition.code, dict[str, Any]()
    if code is None or code not in symphony.flows:
        return defaults
    parameters = signature(symphony.flows.get(code)).parameters
    for name in names:
        if name in parameters and parameters[name].default is not Parameter.empty:
            try:
                taken = taken_in(symphony.world, {"context": {name: parameters[name].default}})["context"]
                defaults.update(plain_of(taken, symphony.world.around(run)))
            except UnstorableValueError:  # then no run has it on record
                continue
    return defaults


async def _input_on_record(symphony: Host, run: Workflow) -> dict[str, Any] | None:
    """Return the context that a run began with; None where the log does not have its beginning any more.

    One that begins with the transaction around this call is not in the log, and has not changed it yet. Of an id that several runs have
    had, that one's beginning counts which has it now.
    """
    record = symphony.world.record_of(run)
    key = entity_key("Workflow", run.id)
    if not symphony.log.entity_status_now(key)[1]:
        plain: dict[str, Any] = plain_of(run.context, symphony.world.around(run))
        return plain
    changed: dict[str, Any] = {}
    cut: int | None = None
    created = await creation(symphony, key, None, once=record is not None and not record.generation)
    while created is not None and created[3] == FORK_EVENT:
        fork = decode_row(created)
        if cut is None or fork.position <= cut:  # a fork of a fork can begin before that one did, with none of its changes
            began_with = _context_of(fork)
            changed = {**{name: began_with[name] for name in fork.data["changed"] if name in began_with}, **changed}
        cut = fork.data["position"] if cut is None else min(cut, fork.data["position"])
        created = await creation(symphony, entity_key("Workflow", fork.data["run_id"]), fork.position, once=False)
    return {**_context_of(decode_row(created)), **changed} if created is not None and created[3] == "WorkflowCreated" else None


def _context_of(event: Event) -> dict[str, Any]:
    """Return the context in a whole state that an event brings."""
    state: dict[str, Any] = next((change[2] for change in event.changes if change[0] == SET and not change[1]), {})
    held: dict[str, Any] = state.get("context", {})
    return held


def check_error_classes(definition: WorkflowDefinition) -> None:
    """Look whether the error classes that the retry policies of a definition name can be met in this process.

    It is asked where a run begins, and not where one goes on: another process may know the classes.

    Raises:
        DefinitionError: a name is misspelt, with its path; near misses are named.
    """
    policies = [("retry", definition.retry_policy)]
    for part, steps in (("steps", definition.plan), ("cleanup", definition.cleanup_plan)):
        policies += [(f"{part} {path}: retry", step.retry) for path, step in walk(steps)]
    policies += [(f"steps {path}: undo.retry", step.retry) for path, step in definition.undo_plan.items()]
    for path, policy in policies:
        if policy is not None:
            check_error_names(policy.on, f"{path}.on")
            check_error_names(policy.never_on, f"{path}.never_on")


def as_definition(given: DefinitionLike) -> WorkflowDefinition:
    """Return the definition that was given in one way or another.

    Raises:
        DefinitionError: it is faulty.
        ConfigurationError: it is no definition.
    """
    if isinstance(given, WorkflowDefinition):
        return given
    if isinstance(given, CodeWorkflow):
        return given.definition
    if isinstance(given, Mapping):
        return WorkflowDefinition.from_dict(given)
    what = (
        "put @symphony.workflow over the function" if callable(given) else "a saved one is what symphony.workflows.get_definition(id) gives"
    )
    raise ConfigurationError(
        f"{shown(given)} is no workflow: it is a WorkflowDefinition, the dict of one, or a function under @symphony.workflow; {what}"
    )
