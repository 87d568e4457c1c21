"""Compares the definition a run has with another one, in the light of what the run has done. Pure.

Steps are matched by their paths of ids (`walk`): names may change, ids say which step is which. A difference is a contradiction where
the run's history would not have come about with the new definition; all other differences are only reported.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from symphony_es.events.values import plain_equal
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.definitions.nesting import path_at, walk
from symphony_es.workflow.definitions.steps import Step

__all__ = ["DefinitionChanges", "compare_definitions"]

_COSMETIC = frozenset({"name", "description", "retry", "timeout_s"})
"""What may change of a step that has completed: none of it is part of what the step gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionChanges:
    """How two definitions differ; all paths are those of `walk`.

    Attributes:
        added: paths of steps that only the new one has.
        removed: paths of steps that only the old one has.
        changed: by path, the keys of the step that differ; nested steps count for themselves.
        contradictions: what the run's history contradicts, in words.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: dict[str, tuple[str, ...]]
    contradictions: tuple[str, ...]

    @property
    def compatible(self) -> bool:
        """Whether the run's history could have come about with the new definition."""
        return not self.contradictions

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": {path: list(keys) for path, keys in self.changed.items()},
            "contradictions": list(self.contradictions),
        }

    def report(self) -> str:
        """In lines, for people."""
        lines = [f"  contradiction: {text}" for text in self.contradictions]
        lines += [f"  added: {path}" for path in self.added]
        lines += [f"  removed: {path}" for path in self.removed]
        lines += [f"  changed: {path} ({', '.join(keys)})" for path, keys in self.changed.items()]
        return "\n".join(lines) or "  no differences"


def compare_definitions(
    old: WorkflowDefinition, new: WorkflowDefinition, *, begun: Collection[str], completed: Collection[str]
) -> DefinitionChanges:
    """Compares two definitions for a run that has begun and completed the steps at some addresses.

    Contradictions are: a step that has begun is removed, or is of another kind; a step that has completed does something else; the order
    of steps that have begun differs; a new step stands before one that has begun, so that the history has it skipped; another
    code-first function.
    """
    before, after = dict(walk(old.plan)), dict(walk(new.plan))
    begun_paths = _paths(old, begun)
    completed_paths = _paths(old, completed)
    changed: dict[str, tuple[str, ...]] = {}
    contradictions: list[str] = []
    if old.code != new.code:
        contradictions.append(f"the workflow's function is {new.code!r}, the run is one of {old.code!r}")
    for path, step in before.items():
        other = after.get(path)
        if other is None:
            if path in begun_paths:
                contradictions.append(f"{path} has begun, and is removed")
            continue
        keys = _differences(step, other)
        if keys:
            changed[path] = keys
        if path in begun_paths and step.kind != other.kind:
            contradictions.append(f"{path} has begun as a {step.kind} step, and is a {other.kind} step now")
        elif path in completed_paths and not _COSMETIC.issuperset(keys):
            meant = ", ".join(key for key in keys if key not in _COSMETIC)
            contradictions.append(f"{path} has completed, and does something else now ({meant})")
    _compare_order("", old.plan, new.plan, begun_paths, completed_paths, contradictions)
    return DefinitionChanges(
        added=tuple(path for path in after if path not in before),
        removed=tuple(path for path in before if path not in after),
        changed=changed,
        contradictions=tuple(contradictions),
    )


def _paths(definition: WorkflowDefinition, addresses: Collection[str]) -> set[str]:
    found = {path_at(definition.plan, address) for address in addresses}
    return {path for path in found if path is not None}


def _differences(step: Step, other: Step) -> tuple[str, ...]:
    """Keys of a step's dict that differ, nested steps left out."""
    ours, theirs = _own(step), _own(other)
    keys = [key for key in (*ours, *(key for key in theirs if key not in ours)) if not plain_equal(ours.get(key), theirs.get(key))]
    return tuple(keys)


def _own(step: Step) -> dict[str, Any]:
    return {key: value for key, value in step.to_dict().items() if key not in step.nested_keys}


def _compare_order(
    prefix: str, old: Sequence[Step], new: Sequence[Step], begun: set[str], completed: set[str], contradictions: list[str]
) -> None:
    """Looks through a sequence of siblings, and those inside of them, for what the history would have passed over."""
    had = [step.id for step in old if f"{prefix}{step.id}" in begun]
    has = [step.id for step in new if step.id in had]
    if [step_id for step_id in had if step_id in has] != has:
        contradictions.append(f"steps that have begun are in another order: {', '.join(prefix + step_id for step_id in has)}")
    known = {step.id: step for step in old}
    last = max((index for index, step in enumerate(new) if step.id in had), default=-1)
    for index, step in enumerate(new):
        path = f"{prefix}{step.id}"
        if index < last and step.id not in had:
            contradictions.append(f"{path} stands before steps that have begun, and has not")
        counterpart = known.get(step.id)
        if counterpart is None or path not in begun:
            continue
        beside = step.together and path not in completed
        parts = counterpart.children()
        for part, nested in step.children().items():
            inner = f"{path}/{part}/" if part else f"{path}/"
            if beside:
                for child in nested:  # branches beside each other have no order
                    same = [other for other in parts.get(part, ()) if other.id == child.id]
                    _compare_order(inner, same, [child], begun, completed, contradictions)
            else:
                _compare_order(inner, parts.get(part, ()), nested, begun, completed, contradictions)
