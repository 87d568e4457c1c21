"""The tree of steps in a definition: walking through it, and finding the step that an address of a run belongs to. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from symphony_es.errors import DefinitionError

if TYPE_CHECKING:
    from symphony_es.workflow.definitions.steps import Step

__all__ = ["MAX_DEPTH", "MAX_STEPS", "check_size", "path_at", "step_at", "walk"]

MAX_DEPTH = 16
"""How deep steps may be nested: addresses join the ids on the way, and end up in ids of tasks and child runs."""

MAX_STEPS = 10_000
"""How many steps a definition may have; a run copies its definition."""


def walk(steps: Sequence[Step], prefix: str = "") -> Iterator[tuple[str, Step]]:
    """Every step with its path: ids and parts joined by "/", where "*" stands for the index of an iteration or item."""
    for step in steps:
        path = f"{prefix}{step.id}"
        yield path, step
        for part, nested in step.children().items():
            yield from walk(nested, f"{path}/{part}/" if part else f"{path}/")


def step_at(steps: Sequence[Step], address: str) -> Step | None:
    """The step that executes at an address of a run, or None."""
    return _find(steps, address.split("/"))[0]


def path_at(steps: Sequence[Step], address: str) -> str | None:
    """The path, as `walk` gives it, of the step that executes at an address of a run; None when there is none."""
    step, path = _find(steps, address.split("/"))
    return None if step is None else path


def _find(steps: Sequence[Step], parts: list[str]) -> tuple[Step | None, str]:
    step = next((step for step in steps if step.id == parts[0]), None)
    if step is None:
        return None, ""
    return _descend(step, parts[1:], step.id)


def _descend(step: Step, parts: list[str], path: str) -> tuple[Step | None, str]:
    if not parts:
        return step, path
    for part, nested in step.children().items():
        if part == "*" and parts[0].isdecimal() and step.together:  # the index of an item stands for the id of the one step
            return _descend(nested[0], parts[1:], f"{path}/*/{nested[0].id}")
        if part and part != parts[0] and not (part == "*" and parts[0].isdecimal()):
            continue
        rest = parts[1:] if part else parts
        if not rest:
            continue
        found, inner = _find(nested, rest)
        if found is not None:
            return found, f"{path}/{part}/{inner}" if part else f"{path}/{inner}"
    return None, ""


def check_size(steps: Sequence[Step], path: str) -> None:
    """Looks whether a tree of steps keeps the limits.

    Raises:
        DefinitionError: it is deeper or larger.
    """
    count = 0
    level: list[Step] = list(steps)
    for depth in range(1, MAX_DEPTH + 2):
        count += len(level)
        if not level:
            break
        if depth > MAX_DEPTH:
            raise DefinitionError(path, f"steps are nested deeper than {MAX_DEPTH} levels: make the inner part a workflow of its own")
        level = [nested for step in level for part in step.children().values() for nested in part]
    if count > MAX_STEPS:
        raise DefinitionError(path, f"{count:,} steps are more than {MAX_STEPS:,}: use a loop, a map or workflows of their own")
