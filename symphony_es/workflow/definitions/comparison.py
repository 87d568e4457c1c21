"""Compares the definition a run has with another one, in the light of what the run has done. Pure.

Steps are matched by their paths of ids (`walk`): names may change, ids say which step is which. A difference is a contradiction where
the run's history would not have come about with the new definition, or where the run would pass over what is new; all other
differences are only reported. What repeats is one place: a step in the body of a loop has begun when it has in any iteration.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import field
from typing import Any

from symphony_es.events.values import plain_equal
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import quoted
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.definitions.nesting import Paths, inner_prefix, walk
from symphony_es.workflow.definitions.steps import Step

__all__ = ["DefinitionChanges", "compare_definitions"]

_COSMETIC = frozenset({"name", "description", "retry", "timeout_s", "undo"})
"""What may change of a step that has completed: none of it is part of what the step gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefinitionChanges:
    """How two definitions differ; all paths are those of `walk`.

    Attributes:
        added: paths of steps that only the new one has.
        removed: paths of steps that only the old one has.
        changed: by path, the keys of the step that differ; nested steps count for themselves.
        moved: paths of steps that stand at another place among their siblings; as few as tell the difference.
        settings: keys of the definition itself that differ, for example `retry`.
        contradictions: what the run's history contradicts, in words.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: dict[str, tuple[str, ...]]
    moved: tuple[str, ...]
    settings: tuple[str, ...]
    contradictions: tuple[str, ...]

    @property
    def compatible(self) -> bool:
        """Whether the run's history could have come about with the new definition."""
        return not self.contradictions

    def to_dict(self) -> dict[str, Any]:
        """Return them as plain data."""
        return {
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": {path: list(keys) for path, keys in self.changed.items()},
            "moved": list(self.moved),
            "settings": list(self.settings),
            "contradictions": list(self.contradictions),
        }

    def report(self) -> str:
        """Return them in lines, for people."""
        lines = [f"  contradiction: {text}" for text in self.contradictions]
        lines += [f"  added: {path}" for path in self.added]
        lines += [f"  removed: {path}" for path in self.removed]
        lines += [f"  moved: {path}" for path in self.moved]
        lines += [f"  changed: {path} ({', '.join(keys)})" for path, keys in self.changed.items()]
        lines += [f"  changed of the definition itself: {', '.join(self.settings)}"] if self.settings else []
        return "\n".join(lines) or "  no differences"


def compare_definitions(
    old: WorkflowDefinition, new: WorkflowDefinition, *, begun: Collection[str], completed: Collection[str]
) -> DefinitionChanges:
    """Compare two definitions for a run that has begun and completed the steps at some addresses.

    Contradictions are:

    - a step that has begun is removed, or is of another kind;
    - a step that has completed does something else;
    - steps that have begun stand in another order, or behind one that has not begun;
    - a step is added inside a step that has completed, or at the end of a loop's body of which an iteration has ended;
    - the run has begun, and the code-first function is another one.

    Branches beside each other have no order. Takes time in proportion to the definitions and the addresses.

    Args:
        old: the definition that the run has.
        new: the one that it is to go on with.
        begun: addresses of all steps that have begun, completed ones included.
        completed: addresses of those that have completed.
    """
    paths = Paths(old.plan)
    found = _Comparison(paths.of(begun), paths.of(completed))
    if begun and old.code != new.code:
        found.contradictions.append(f"the run was begun by {_doer(old)}, and the definition has {_doer(new)} now")
    found.compare_siblings("", old.plan, new.plan, ordered=True, closed=False)
    return DefinitionChanges(
        added=tuple(found.added),
        removed=tuple(found.removed),
        changed=found.changed,
        moved=tuple(found.moved),
        settings=_differences(_settings(old), _settings(new)),
        contradictions=tuple(found.contradictions),
    )


@dataclass(slots=True)
class _Comparison:
    """What has been found so far."""

    begun: set[str]
    completed: set[str]
    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    moved: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)

    def compare_siblings(self, prefix: str, old: Sequence[Step], new: Sequence[Step], *, ordered: bool, closed: bool) -> None:
        """Compare the steps of one place.

        Args:
            prefix: what their paths begin with.
            old: the steps that were there.
            new: those that are to be there.
            ordered: they run one after the other.
            closed: the run will not come there any more.
        """
        had, has = {step.id: step for step in old}, {step.id: step for step in new}
        for step in old:
            if step.id not in has:
                self.removed += (path for path, _ in walk([step], prefix))
                if prefix + step.id in self.begun:
                    self.contradictions.append(f"{prefix}{step.id} has begun, and is removed")
        if ordered:
            self._compare_order(prefix, [step.id for step in old], [step.id for step in new])
        for step in new:
            path, counterpart = prefix + step.id, had.get(step.id)
            if counterpart is not None:
                self._compare_steps(path, counterpart, step, closed=closed)
                continue
            self.added += (inner for inner, _ in walk([step], prefix))
            if closed:
                self.contradictions.append(f"{path} is added where the run has been: it would never begin")

    def _compare_order(self, prefix: str, old: list[str], new: list[str]) -> None:
        known, kept = set(old), set(new)
        before, after = [step_id for step_id in old if step_id in kept], [step_id for step_id in new if step_id in known]
        self.moved += (prefix + step_id for step_id in _out_of_order(before, after))
        begun = {step_id for step_id in before if prefix + step_id in self.begun}
        order = [step_id for step_id in after if step_id in begun]
        if [step_id for step_id in before if step_id in begun] != order:
            self.contradictions.append(f"steps that have begun are in another order: {', '.join(prefix + step_id for step_id in order)}")
        self._find_passed_over(prefix, {step_id: index for index, step_id in enumerate(old)}, new, begun)

    def _find_passed_over(self, prefix: str, place: dict[str, int], new: list[str], begun: set[str]) -> None:
        """Find steps that have not begun and stand before some that have; those that the old definition has there too are not a change."""
        found: list[str] = []
        first: str | None = None  # of the steps that have begun and come later, the one that came first in the old definition
        for step_id in reversed(new):
            if step_id in begun:
                first = step_id if first is None or place[step_id] < place[first] else first
            elif first is not None and (step_id not in place or place[first] < place[step_id]):
                what = "is moved" if step_id in place else "is added"
                found.append(f"{prefix}{step_id} {what} before {prefix}{first}, which has begun")
        self.contradictions += reversed(found)

    def _compare_steps(self, path: str, old: Step, new: Step, *, closed: bool) -> None:
        keys = _differences(_own(old), _own(new))
        if keys:
            self.changed[path] = keys
        inside, inside_now = old.children(), new.children()
        if old.kind != new.kind:
            # A step of another kind is another step, and so is what is inside.
            if path in self.begun:
                self.contradictions.append(f"{path} has begun as a {old.kind} step, and is a {new.kind} step now")
            self.removed += _nested(path, inside)
            self.added += _nested(path, inside_now)
            return
        if path in self.completed and not _COSMETIC.issuperset(keys):
            meant = ", ".join(key for key in keys if key not in _COSMETIC)
            self.contradictions.append(f"{path} has completed, and does something else now ({meant})")
        closed = closed or path in self.completed
        entered = {part for part, steps in inside.items() if any(inner_prefix(path, part) + step.id in self.begun for step in steps)}
        for part in dict.fromkeys((*inside, *inside_now)):
            before, after = inside.get(part, ()), inside_now.get(part, ())
            # The branch that a condition did not choose, and the body of a loop that never turned, are no part of the history.
            passed = part in entered or not (before or entered)
            prefix = inner_prefix(path, part)
            self.compare_siblings(prefix, before, after, ordered=not new.together, closed=closed and passed)
            ended = before and prefix + before[-1].id in self.completed
            if part == "*" and not (new.together or closed) and ended and after and prefix + after[-1].id not in self.begun:
                self.contradictions.append(
                    f"{prefix}{after[-1].id} is added at the end of a loop's body, and iterations have ended without it"
                )


def _out_of_order(before: list[str], after: list[str]) -> Iterator[str]:
    """Yield the fewest ids whose move makes one order of the other (all but a longest increasing subsequence)."""
    if before == after:
        return
    place = {step_id: index for index, step_id in enumerate(before)}
    ends: list[int] = []  # for each length, the least place that a subsequence of that length can end with
    lengths: list[int] = []
    for step_id in after:
        length = bisect_left(ends, place[step_id])
        ends[length : length + 1] = [place[step_id]]
        lengths.append(length)
    wanted = len(ends) - 1
    moved: list[str] = []
    for step_id, length in zip(reversed(after), reversed(lengths), strict=True):
        if length == wanted:
            wanted -= 1
        else:
            moved.append(step_id)
    yield from reversed(moved)


def _nested(path: str, children: dict[str, tuple[Step, ...]]) -> Iterator[str]:
    for part, steps in children.items():
        yield from (inner for inner, _ in walk(steps, inner_prefix(path, part)))


def _doer(definition: WorkflowDefinition) -> str:
    return "steps" if definition.code is None else f"the function {quoted(definition.code)}"


def _settings(definition: WorkflowDefinition) -> dict[str, Any]:
    return {key: value for key, value in definition.to_dict().items() if key not in ("id", "steps")}


def _own(step: Step) -> dict[str, Any]:
    return {key: value for key, value in step.to_dict().items() if key not in step.nested_keys}


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[str, ...]:
    """Return keys whose values differ, in the order of the dicts."""
    keys = dict.fromkeys((*ours, *theirs))
    return tuple(key for key in keys if not plain_equal(ours.get(key), theirs.get(key)))
