"""The tree of steps in a definition: its limits, walking through it, and finding the step that an address of a run belongs to. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from symphony_es.errors import DefinitionError
from symphony_es.events.values import DEFAULT_LIMITS

if TYPE_CHECKING:
    from symphony_es.workflow.definitions.steps import Step

__all__ = [
    "MAX_ADDRESS_BYTES",
    "MAX_DEPTH",
    "MAX_STEPS",
    "Extent",
    "Paths",
    "check_depth",
    "check_extent",
    "extent_of",
    "inner_prefix",
    "path_at",
    "step_at",
    "walk",
]

MAX_DEPTH = 16
"""How deep steps may be nested, those of definitions inside the definition included: each level is two or three containers more, and
the log holds 64."""

MAX_STEPS = 10_000
"""How many steps a definition may have; a run copies its definition."""

MAX_ADDRESS_BYTES = 400
"""How long an address may become, in UTF-8. Ids of tasks and child runs are a run's id and an address, and end at 512 bytes."""

_INDEX_BYTES = len("/99999")


class Extent(NamedTuple):
    """How large a step is with all that is inside of it.

    Attributes:
        depth: levels of steps, its own included.
        steps: how many, itself included.
        address_bytes: length of the longest address in it, from its own id on.
    """

    depth: int
    steps: int
    address_bytes: int


def walk(steps: Sequence[Step], prefix: str = "") -> Iterator[tuple[str, Step]]:
    """Yield every step with its path: ids and parts joined by "/", where "*" stands for the index of an iteration or item."""
    for step in steps:
        path = f"{prefix}{step.id}"
        yield path, step
        for part, nested in step.children().items():
            yield from walk(nested, f"{path}/{part}/" if part else f"{path}/")


def step_at(steps: Sequence[Step], address: str) -> Step | None:
    """Return the step that executes at an address of a run, or None."""
    return _find(steps, address.split("/"))[0]


def path_at(steps: Sequence[Step], address: str) -> str | None:
    """Return the path, as `walk` gives it, of the step that executes at an address of a run; None when there is none."""
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


class Paths:
    """Turns addresses of a run into paths, as `path_at` does, for as many as a run has: siblings are looked up, not searched."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._levels = {"": {step.id: step for step in steps}}
        self._children: dict[str, dict[str, tuple[Step, ...]]] = {}

    def at(self, address: str) -> str | None:
        """Return the path of the step that executes at an address, or None."""
        return self._find("", (), address.split("/"))

    def of(self, addresses: Collection[str]) -> set[str]:
        """Return the paths of the steps that execute there; addresses that belong to no step are left out."""
        found = (self.at(address) for address in addresses)
        return {path for path in found if path is not None}

    def _find(self, prefix: str, steps: Sequence[Step], parts: list[str]) -> str | None:
        level = self._levels.get(prefix)
        if level is None:
            level = self._levels[prefix] = {step.id: step for step in steps}
        step = level.get(parts[0])
        return None if step is None else self._descend(step, prefix + step.id, parts[1:])

    def _descend(self, step: Step, path: str, parts: list[str]) -> str | None:
        if not parts:
            return path
        children = self._children.get(path)
        if children is None:
            children = self._children[path] = step.children()
        for part, nested in children.items():
            indexed = part == "*" and parts[0].isdecimal()
            if indexed and step.together:  # the index of an item stands for the id of the one step
                return self._descend(nested[0], f"{path}/*/{nested[0].id}", parts[1:])
            rest = parts[1:] if part else parts
            if rest and (not part or part == parts[0] or indexed):
                found = self._find(inner_prefix(path, part), nested, rest)
                if found is not None:
                    return found
        return None


def inner_prefix(path: str, part: str) -> str:
    """Return what the paths of the steps in a part of a composite begin with."""
    return f"{path}/{part}/" if part else f"{path}/"


def extent_of(step: Step) -> Extent:
    """Measure a step whose nested steps have been measured."""
    depth, count, own = 0, 1, len(step.id.encode())
    if step.undo is not None:
        depth, count = step.undo.extent.depth - 1, 1 + step.undo.extent.steps  # it stands beside the step
    longest = own
    for nested_in in (step.children(), step.inlined()):
        for part, nested in nested_in.items():
            before = own + (_INDEX_BYTES if part == "*" else len(part) + 1 if part else 0)
            for inner in nested:
                extent = inner.extent
                depth, count = max(depth, extent.depth), count + extent.steps
                # The index of an item stands for the id of the one step.
                replaced = len(inner.id.encode()) if part == "*" and step.together else -1
                longest = max(longest, before + extent.address_bytes - replaced)
    return Extent(depth + 1, count, longest)


def check_extent(steps: Sequence[Step], path: str, *, address_bytes: int = 0) -> None:
    """Check whether a tree of steps keeps the limits.

    Args:
        steps: of the first level.
        path: where they stand in the definition, for messages.
        address_bytes: length of what their addresses begin with.

    Raises:
        DefinitionError: it is deeper or larger, or an address would be too long.
    """
    count = 0
    for index, step in enumerate(steps):
        extent = step.extent
        count += extent.steps
        if extent.depth > MAX_DEPTH:
            why = f"steps are nested deeper than {MAX_DEPTH} levels: save the inner part as a workflow of its own, and give its workflow_id"
            raise DefinitionError(f"{path}[{index}]", why)
        needed = address_bytes + extent.address_bytes
        if needed > MAX_ADDRESS_BYTES:
            why = f"an address in it would take {needed} bytes, and {MAX_ADDRESS_BYTES} are allowed: give the steps shorter ids"
            raise DefinitionError(f"{path}[{index}]", why)
    if count > MAX_STEPS:
        raise DefinitionError(path, f"{count:,} steps are more than {MAX_STEPS:,}: use a loop, a map or saved workflows")


def check_depth(steps: object, path: str) -> None:
    """Look, before anything is read, whether data is nested deeper than the log holds: reading goes down into it.

    Goes level by level, whatever is given; a container that is in itself is deeper than any limit.

    Raises:
        DefinitionError: it is deeper.
    """
    limit = DEFAULT_LIMITS.max_depth
    level: dict[int, Any] = {id(steps): steps}
    for _ in range(limit):
        level = {id(inner): inner for item in level.values() for inner in _inside(item) if not isinstance(inner, (str, bytes))}
        if not level:
            return
    raise DefinitionError(path, f"the data is nested deeper than the {limit} containers that a log holds")


def _inside(item: Any) -> Iterable[Any]:
    if isinstance(item, Mapping):
        return item.values()
    if isinstance(item, (list, tuple)):
        return item
    held = getattr(item, "__dict__", {}) if hasattr(type(item), "__dataclass_fields__") else {}
    return () if "_extent" in held else held.values()
