"""Which entities a resume leaves in the log: those that nobody works on until they are asked for.

These are entities of some types, runs that have ended, and the tasks of such runs. What a living entity refers to comes to life with it,
whatever it is: a child run that goes on brings the run that started it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from symphony_es.events.fold import EntityState
from symphony_es.events.identifiers import DEFINITION_PREFIX, FOREIGN_PREFIX, SYSTEM_PREFIX
from symphony_es.events.references import find_references
from symphony_es.events.values import Tagged

__all__ = ["AT_REST", "RUN", "TASK", "Woken", "definition_key", "has_ended", "may_rest", "run_of_task", "waking"]

AT_REST = (FOREIGN_PREFIX, "langgraph.", "pydantic_ai.", "openai_agents.", "google_adk.", "at_rest.")
"""Beginnings of the names of types whose entities a resume leaves at rest: those of adapters, and one for applications."""

RUN, TASK = "Workflow:", "Task:"
_ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
_NEVER_ALONE = (SYSTEM_PREFIX, *AT_REST)
_MAY_STAY = (RUN, TASK, *AT_REST)  # beginnings of the keys of all that a resume can leave at rest
_MAY_REST = (SYSTEM_PREFIX, *_MAY_STAY)  # and of all that `may_rest` says yes to
_DONE = frozenset({"COMPLETED", "FAILED"})


def has_ended(state: EntityState) -> bool:
    """Return whether an entity is a run that has ended, and nobody is still to be told of it."""
    data = state.data
    if data is None or not state.key.startswith(RUN) or state.damage is not None:
        return False
    return _stands_at(data.get("status"), _ENDED) and not data.get("untold")


def _stands_at(status: object, names: frozenset[str]) -> bool:
    """Return whether a status is one of some members; another value, which an application may have put there, is none of them."""
    return isinstance(status, Tagged) and isinstance(status.data, str) and status.data in names


def run_of_task(state: EntityState) -> str | None:
    """Return key of the run whose step has made a task; None of other tasks and other entities."""
    if not state.key.startswith(TASK) or state.data is None or state.damage is not None:
        return None
    run_id = state.data.get("workflow_id")
    return f"{RUN}{run_id}" if isinstance(run_id, str) and state.key.startswith(f"{TASK}{run_id}/") else None


def definition_key(state: EntityState) -> str | None:
    """Return the key of the constant entity that the state of a run names; None of other states."""
    named = state.data.get("definition_hash") if state.data is not None and state.key.startswith(RUN) else None
    return f"{DEFINITION_PREFIX}{named}" if isinstance(named, str) and named else None


def may_rest(state: EntityState) -> bool:
    """Return whether a snapshot has a state among those at rest: of a run that has ended, of a task of a run that is done, and of what no
    resume makes live by itself.

    A resume looks there for what living entities refer to, and for the tasks of runs that go on.
    """
    if not state.key.startswith(_MAY_REST) or state.damage is not None or state.data is None:
        return False
    if state.key.startswith(_NEVER_ALONE) or has_ended(state):
        return True
    if run_of_task(state) is None:
        return False
    return _stands_at(state.data.get("status"), _DONE)


class Woken(NamedTuple):
    """What a resume makes live.

    Attributes:
        states: in their order.
        in_part: whether others are left that may be at work.
        leaves_runs: whether runs that have ended are left.
        missing: keys that these states refer to and that were not among those given; looked for where there may be others or some are left.
        runs: keys of the runs among them.
        undecided: whether tasks are left because nobody knows yet what became of their runs.
    """

    states: dict[str, EntityState]
    in_part: bool
    leaves_runs: bool
    missing: set[str]
    runs: list[str]
    undecided: bool = False


def waking(states: Mapping[str, EntityState], types: frozenset[str] | None = None, *, partly: bool = False) -> Woken:
    """Return the states, in their order, of which a resume makes live objects.

    Args:
        states: of all entities that are alive.
        types: only entities of these types are asked for; None for all but those at rest.
        partly: there may be further entities at rest.
    """
    undecided = False
    tasks: dict[str, list[str]] = {}
    missing: set[str] = set()
    if types is not None:
        chosen = {key for key in states if key.partition(":")[0] in types}
        _with_referred(states, chosen, chosen, missing)
    else:
        chosen = set(states)
        for key in [key for key in states if key.startswith(_MAY_STAY)]:
            state = states[key]
            if key.startswith(AT_REST) or has_ended(state):
                chosen.discard(key)
                continue
            run = run_of_task(state)
            if run is None:
                continue
            if run in states or may_rest(state):
                tasks.setdefault(run, []).append(key)
                chosen.discard(key)
            elif partly:
                missing.add(run)
                chosen.discard(key)
                undecided = True
        # Where all are chosen and there are no others, following what they refer to finds nothing.
        new = set(chosen) if partly or len(chosen) < len(states) else set[str]()
        while new:
            brought = _with_referred(states, chosen, new, missing)
            new = {key for run in (*new, *brought) for key in tasks.pop(run, ())} - chosen
            chosen |= new
    runs = [key for key in chosen if key.startswith(RUN)]
    if len(chosen) == len(states):
        return Woken(dict(states), False, False, missing, runs, undecided)
    left = [key for key in states if key not in chosen]
    in_part = types is not None or any(key.startswith(AT_REST) for key in left)
    leaves_runs = any(key.startswith(RUN) for key in left)
    return Woken({key: state for key, state in states.items() if key in chosen}, in_part, leaves_runs, missing, runs, undecided)


def _with_referred(states: Mapping[str, EntityState], chosen: set[str], start: Iterable[str], missing: set[str]) -> set[str]:
    """Choose what the chosen ones refer to, directly or through others; returns what came to be chosen."""
    waiting, brought = list(start), set[str]()
    while waiting:
        for _, reference in find_references(states[waiting.pop()].data):
            key = reference.key
            if key in chosen:
                continue
            if key in states:
                chosen.add(key)
                brought.add(key)
                waiting.append(key)
            else:
                missing.add(key)
    return brought
