"""Runs that this process cannot go on with: what they need is missing here, or what is on record of them contradicts the code.

What is missing (a function, a class, a model client, a saved definition) is nobody's event: the run keeps its status, is neither driven nor
failed, and goes on in a process that has it. A contradiction is on record: the run is `blocked`, with a digest of the code that it
contradicts, and is tried again where the code is another. Whoever asks for such a run by name gets the error that says what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from symphony_es.core.objects.restorers import UnrestoredEntity
from symphony_es.errors import DefinitionError, NotRegisteredError, RunBlockedError, SymphonyError
from symphony_es.events.identifiers import entity_key
from symphony_es.events.values import Tagged
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import shown
from symphony_es.workflow.definitions.nesting import Paths, walk
from symphony_es.workflow.definitions.steps import is_of_kind
from symphony_es.workflow.runs.cleanup import CLEANUP, UNDO, main_line
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import TAKEN_UP, WorkflowStatus
from symphony_es.workflow.runs.unmade import unmade_error, unmade_of

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.definitions.retry import RetryPolicy
    from symphony_es.workflow.kinds.sub_workflow import SubWorkflowStep
    from symphony_es.workflow.kinds.task import TaskStep

__all__ = ["RunLeft", "check_can_go_on", "digest_here", "is_waiting_for_classes", "left_alone", "unrestored_runs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLeft:
    """A run that is left alone.

    Attributes:
        run_id: which run.
        name: the name of its definition.
        reason: why, and what to do.
        missing: of a run that lacks something, what: `"function 'pay'"`, `"class shop:Order"`, `"workflow 'report'"`; else empty.
    """

    run_id: str
    name: str
    reason: str
    missing: tuple[str, ...] = ()


def is_waiting_for_classes(entity: object) -> bool:
    """Return whether this is an unfinished run whose values could not be made."""
    if not isinstance(entity, UnrestoredEntity) or not entity.missing:
        return False
    status = entity.state.get("status")
    return isinstance(status, Tagged) and status.data in {each.name for each in TAKEN_UP}


def unrestored_runs(symphony: Host) -> tuple[list[RunLeft], list[RunLeft]]:
    """Return the unfinished runs whose values could not be made: those that need a class that is not known here, and all others."""
    missing: list[RunLeft] = []
    blocked: list[RunLeft] = []
    for kept in symphony.world.all("Workflow"):
        if not is_waiting_for_classes(kept):
            continue
        left = RunLeft(
            run_id=kept.reference.entity_id,
            name=str(kept.state.get("name", "")),
            reason=kept.reason,
            missing=_classes(sorted(name for name in kept.missing if symphony.world.types.class_of(name) is None)),
        )
        (missing if left.missing else blocked).append(left)
    return missing, blocked


def check_can_go_on(run: Workflow, symphony: Host) -> None:
    """Refuse a run that needs what this process has not; its child runs are looked at too, at any depth.

    Raises:
        UnknownValueError: the values of a child run could not be made, or those of an entity that the values of one of them refer to.
        NotRegisteredError: a function or the like. In both cases the message says what is missing and the call that mends it, and nothing
            has been appended.
    """
    for looked_at in _with_children(run, symphony):
        if isinstance(looked_at, UnrestoredEntity):
            raise unmade_error(looked_at)
        for error in _lacks(looked_at, symphony):
            raise error


def left_alone(run: Workflow, symphony: Host) -> tuple[RunLeft | None, RunLeft | None]:
    """Return why this process does not go on with a run by itself: what is missing, and what is blocked; None, None where it does."""
    missing: list[str] = []
    reasons: list[str] = []
    for looked_at in _with_children(run, symphony):
        if isinstance(looked_at, UnrestoredEntity):
            missing.extend(_classes(sorted(looked_at.missing)) or (f"entity {looked_at.reference.key}",))
            reasons.append(looked_at.reason)
        else:
            for error in _lacks(looked_at, symphony):
                missing.append(f"{error.kind} {shown(error.name, 200)}" if isinstance(error, NotRegisteredError) else "definition")
                reasons.append(str(error))
    if missing:
        named = tuple(dict.fromkeys(missing))
        return RunLeft(run_id=run.id, name=run.name, reason="; ".join(dict.fromkeys(reasons)), missing=named), None
    for looked_at in _with_children(run, symphony):
        if isinstance(looked_at, Workflow) and _is_still_blocked(looked_at, symphony):
            return None, RunLeft(run_id=run.id, name=run.name, reason=str(RunBlockedError(looked_at.id, looked_at.error or {})))
    return None, None


def digest_here(run: Workflow, symphony: Host) -> str:
    """Return the digest of the code that this process has for a run; the same for all runs of definitions without code."""
    from symphony_es.workflow.code.digest import code_digest  # it stands above the engine

    code = run.definition.code
    return code_digest(symphony.flows.get(code)) if code is not None and code in symphony.flows else ""


def _is_still_blocked(run: Workflow, symphony: Host) -> bool:
    return run.status is WorkflowStatus.BLOCKED and (run.error or {}).get("digest") == digest_here(run, symphony)


def _with_children(run: Workflow, symphony: Host) -> Iterator[Workflow | UnrestoredEntity]:
    """Yield a run, the child runs at any depth that it waits for, and what no object was made of that one of them would hand to code."""
    waiting: list[Workflow] = [run]
    while waiting:
        looked_at = waiting.pop()
        yield looked_at
        yield from unmade_of(looked_at, symphony.world)
        for address, child in looked_at.children.items():
            if address in looked_at.recorded_outputs:
                continue
            if isinstance(child, UnrestoredEntity) and child.missing:
                yield child
            elif isinstance(child, Workflow) and child.status in TAKEN_UP:
                waiting.append(child)


def _lacks(run: Workflow, symphony: Host) -> Iterator[SymphonyError]:
    """Yield what a run needs and this process has not: of a definition, what the steps need that have not completed."""
    try:
        definition = run.definition
    except DefinitionError as error:  # a kind of step that this process does not know
        yield error
        return
    if definition.code is not None and definition.code not in symphony.flows:
        try:
            symphony.flows.get(definition.code)
        except NotRegisteredError as error:
            yield error
    try:
        _check_policy(definition.retry_policy, symphony)
    except NotRegisteredError as error:
        yield error
    cancelling = run.status is WorkflowStatus.CANCELLING
    begun = Paths(definition.plan).of(main_line(run)) if cancelling and definition.undo_plan else set()
    undos = [(f"{UNDO}/{path}", step) for path, step in definition.undo_plan.items() if path in begun]
    for path, step in (*walk(() if cancelling else definition.plan), *undos, *walk(definition.cleanup_plan, f"{CLEANUP}/")):
        parts = path.split("/")
        if "/".join(parts[: {CLEANUP: 2, UNDO: len(parts)}.get(parts[0], 1)]) in run.recorded_outputs:
            continue
        for check in (partial(step.check, symphony), partial(_check_policy, step.retry, symphony)):
            try:
                check()
            except SymphonyError as error:
                yield error
        if is_of_kind(step, "task"):
            yield from _lacks_model(cast("TaskStep", step), symphony)
        if is_of_kind(step, "workflow") and (named := cast("SubWorkflowStep", step).workflow_id) is not None:
            yield from _lacks_definition(named, symphony)


def _check_policy(policy: RetryPolicy | None, symphony: Host) -> None:
    if policy is not None:
        policy.check(symphony.functions)


def _lacks_model(step: TaskStep, symphony: Host) -> Iterator[SymphonyError]:
    """Yield the model client that a step or its agent names.

    A step of a new run that finds none has failed, as it may be made meanwhile.
    """
    agent = symphony.world.find(entity_key("Agent", step.agent_id)) if step.agent_id and "{" not in step.agent_id else None
    name = step.model or getattr(agent, "model", None)
    if isinstance(name, str) and name not in symphony.models:
        try:
            symphony.models.get(name)
        except NotRegisteredError as error:
            yield error


def _lacks_definition(workflow_id: str, symphony: Host) -> Iterator[SymphonyError]:
    world = symphony.world
    if "{" in workflow_id or ":" in workflow_id or workflow_id in symphony.flows:
        return
    if world.find(entity_key("WorkflowDefinition", workflow_id)) is None:
        named = [stored for stored in world.all("WorkflowDefinition") if getattr(stored, "name", None) == workflow_id]
        if not named:
            known = sorted(str(getattr(stored, "id", "")) for stored in world.all("WorkflowDefinition"))
            yield NotRegisteredError("saved definition", workflow_id, known, "symphony.workflows.save_workflow(definition) saves it")


def _classes(names: list[str]) -> tuple[str, ...]:
    return tuple(f"class {name}" for name in names)
