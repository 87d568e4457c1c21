"""Which entities a resume leaves in the log: those that nobody works on until they are asked for.

What a living entity refers to comes to life with it, whatever its type.
"""

from __future__ import annotations

from collections.abc import Mapping

from symphony_es.events.fold import EntityState
from symphony_es.events.references import find_references

__all__ = ["AT_REST", "waking"]

AT_REST = ("eventsourcing.", "langgraph.", "pydantic_ai.", "openai_agents.", "google_adk.", "at_rest.")
"""Beginnings of the names of types whose entities a resume leaves at rest: those of adapters, and one for applications."""


def waking(states: Mapping[str, EntityState], types: frozenset[str] | None = None) -> dict[str, EntityState] | None:
    """The states, in their order, of which a resume makes live objects; None for all of them.

    Args:
        states: of all entities that are alive.
        types: only entities of these types are asked for; None for all but those at rest.
    """
    if types is not None:
        chosen = {key for key in states if key.partition(":")[0] in types}
    else:
        chosen = {key for key in states if not key.startswith(AT_REST)}
    if len(chosen) == len(states):
        return None
    waiting = list(chosen)
    while waiting:
        for _, reference in find_references(states[waiting.pop()].data):
            if reference.key in states and reference.key not in chosen:
                chosen.add(reference.key)
                waiting.append(reference.key)
    return {key: state for key, state in states.items() if key in chosen}
