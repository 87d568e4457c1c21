"""Forks: new runs that share another run's history up to a step or a position, and say so."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.making import made_of
from symphony_es.core.world.boundary import taken_in
from symphony_es.errors import ConfigurationError, NotRegisteredError
from symphony_es.events.identifiers import entity_key
from symphony_es.shown import shown
from symphony_es.workflow.code.workflow import check_changes
from symphony_es.workflow.engine.creation import check_new_id
from symphony_es.workflow.engine.generations import prefixes
from symphony_es.workflow.engine.past import aside, past_at, past_before_step
from symphony_es.workflow.engine.retrying import go_back_to
from symphony_es.workflow.engine.timeline import FORK_EVENT
from symphony_es.workflow.engine.unsaid import forgive_all
from symphony_es.workflow.runs.cleanup import called_in_cleanup, in_cleanup, is_clean_up_call, is_of_cleanup, undone
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.thawing import thaw
from symphony_es.workflow.runs.transitions import WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.definitions.definition import WorkflowDefinition

__all__ = ["fork_run"]

_SHARED = ("attempts", "outputs", "failures", "progress", "scopes", "appended", "calls", "arguments")
"""What a fork takes over as it was. Its status, moments and links are its own."""


async def fork_run(
    symphony: Host,
    run: Workflow,
    at: str | int,
    changes: Mapping[str, Any],
    run_id: str,
    metadata: Mapping[str, Any],
    now: datetime,
    signals: bool | Collection[str] = False,
) -> Workflow:
    """See `WorkflowEngine.fork`."""
    _check_place(run, at, signals)
    past = await (past_at(symphony, run, at) if isinstance(at, int) else past_before_step(symphony, run, at))
    step = None if isinstance(at, int) else at
    if changes:
        _check_changes(symphony, run.definition, past.state, changes)
    limit_s = run.definition.deadline_s
    again = [address for address in undone(run) if address in past.state["attempts"]]
    entered = [prefix for below in again for prefix in prefixes(below) if prefix in past.state["outputs"]]
    decisions: dict[str, Any] = {}
    if entered:
        from symphony_es.workflow.engine.undoing import decided  # few runs have been undone

        decisions = await decided(symphony, run, entered)
    said = {"run_id": run.id, "position": past.position, "step": step, "changed": sorted(changes)}

    along = [name for name in past.state.get("signals", {}) if signals is True or (signals and name in signals)]
    if along:
        said["signals"] = along

    # A removed run, or one that a rewind has taken away, had this id: what was done under its keys is not the fork's.
    is_used = bool(run_id and await symphony.log.read_entity_rows(entity_key("Workflow", run_id), 0, None, 1))
    check_new_id(run_id)

    def add() -> Workflow:
        state = made_of(symphony.world.revived(past.state), symphony.world.types)
        completed = state["outputs"]
        values = {name: thaw(state[name]) for name in _SHARED if name in state}
        values["context"] = {**thaw(state["context"]), **changes}
        values["progress"] = {**values.get("progress", {}), **decisions}
        values["signals"] = {name: thaw(state["signals"][name]) for name in along}
        if values.get("arguments") is not None:  # a step has written to the context: `changes` may be of what the function is called with
            values["arguments"].update(_of_arguments(values["arguments"], changes))
        made = Workflow(
            id=run_id,
            children={address: child for address, child in state.get("children", {}).items() if address in completed},
            forked_from={"run": run, "position": past.position, "step": step},
            created_at=now,
            deadline=None if limit_s is None else now + timedelta(seconds=limit_s),
            metadata=thaw(metadata),
            **taken_in(symphony.world, values),
        )
        made.follow(run.definition)
        _forget(made, [*again, *filter(in_cleanup, made.attempts), *called_in_cleanup(made)], entered)
        for calls in made.calls.values():
            for place in [place for place, call in calls.items() if is_clean_up_call(call)]:
                del calls[place]
        if changes:
            _forget_checks(made)
        if state["status"] is WorkflowStatus.FAILED and made.definition.code is None:
            forgive_all(made)  # what it had failed of is tried again, as by a resume
        go_back_to(made, again)
        with symphony.world.recording(FORK_EVENT):
            symphony.world.add(made, event_name=FORK_EVENT, data=said)
            if is_used:
                symphony.world.raise_generation(made)
        return made

    made = await aside(add, len(past.state["attempts"]))
    await symphony.world.flush(made)
    return made


def _of_arguments(arguments: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return those changes that are of what the function is called with; the others are of its context alone."""
    return {key: value for key, value in changes.items() if key in arguments}


def _check_place(run: Workflow, at: Any, signals: Any) -> None:
    """Look whether a fork can begin there, and whether the names of signals are names."""
    if isinstance(at, str) and is_of_cleanup(run, at):
        raise ConfigurationError(
            f"{shown(at)} is a clean-up step of run {run.id}, and a fork goes on with the main line: fork at one of its steps, "
            "or do the clean-up again with retry_from"
        )
    if not isinstance(at, (str, int)) or isinstance(at, bool):
        raise ConfigurationError(f"a fork begins at the address of a step, or right after a position of the log, not at {shown(at)}")
    if isinstance(signals, str) or not isinstance(signals, (bool, Collection)):
        given = f"signals=[{shown(signals)}]" if isinstance(signals, str) else f"not {shown(signals)}"
        raise ConfigurationError(f"signals is True, False, or the names of those that are to come along: {given}")


def _check_changes(symphony: Host, definition: WorkflowDefinition, state: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Refuse, as for a new run, what the function could not be called with, where this process has the function.

    What is not changed was looked at when the run began, and the fork keeps it.

    Raises:
        ConfigurationError: a key is no parameter, or a value does not fit its annotation.
    """
    if definition.code is None:
        return
    try:
        function = symphony.flows.get(definition.code)
    except NotRegisteredError:
        return  # whoever goes on with the fork has it
    arguments = state.get("arguments")
    check_changes(function, definition.code, changes if arguments is None else _of_arguments(arguments, changes))


def _forget_checks(made: Workflow) -> None:
    """Forget what steps were called with: the function is called with other arguments, and may hand them to its steps."""
    for calls in made.calls.values():
        for place, call in calls.items():
            if len(call) > 2 and type(call[2]) is int:
                calls[place] = [*call[:2], *call[3:]]


def _forget(made: Workflow, addresses: Iterable[str], entered: Iterable[str]) -> None:
    """Take out of a fork what belongs to a clean-up of its original, and what that has undone: it holds no longer, and is done anew."""
    for address in addresses:
        for held in (made.attempts, made.recorded_outputs, made.failures, made.progress, made.children, made.scopes, made.appended):
            held.pop(address, None)
    for address in entered:
        made.recorded_outputs.pop(address, None)
