"""The run's context as one attempt at a step sees it.

Reads come from the run; writes stay here until the step completes and are then recorded with its completion, so a failed or
killed attempt leaves nothing behind. What is written at the end is the difference: appending to a list of the context is one
small change, however long the list is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from operator import is_
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.tracking.live import admit, kind_of, plain_of
from symphony_es.errors import UnstorableValueError
from symphony_es.events.changes import ADD, APPEND, DISCARD, INSERT, REMOVE, SET, SPLICE, Change
from symphony_es.events.diff import diff
from symphony_es.events.values import check_plain, plain_equal

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
    from symphony_es.core.state.world import World
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["RunContext", "StepOutputs", "TemplateScope", "thaw"]

_REMOVED = object()
_CONTAINERS = (list, dict, set)


class RunContext(MutableMapping[str, Any]):
    """What a function step is called with: the run's context, as a mapping, and what the step needs to know of itself.

    Lists, dicts and sets that it hands out are copies; changing them, or assigning, is recorded when the step completes.
    `append` is the one write whose cost does not depend on what is there already.

    Attributes:
        outputs: outputs of completed steps, by step name or id.
        inputs: the step's inputs, with their templates rendered.
        run_id: id of the run.
        step: address of the step.
        attempt: number of this attempt, from 1.
        idempotency_key: the same for every attempt after a crash: hand it to whatever has side effects.
        symphony: the Symphony, for its agents, tasks and entities.
    """

    def __init__(self, symphony: Host, run: Workflow, step: str, attempt: int, idempotency_key: str) -> None:
        self.symphony = symphony
        self.outputs = StepOutputs(run)
        self.inputs: dict[str, Any] = {}
        self.run_id = run.id
        self.step = step
        self.attempt = attempt
        self.idempotency_key = idempotency_key
        self._run = run
        self._held: dict[str, Any] = {}
        self._appended: dict[str, list[Any]] = {}

    def __getitem__(self, key: str) -> Any:
        if key in self._held:
            value = self._held[key]
            if value is _REMOVED:
                raise KeyError(key)
            return value
        value = self._run.context[key]
        if kind_of(value) not in ("container", "part"):
            return value
        held = self._held[key] = thaw(value)
        if key in self._appended:
            held.extend(self._appended.pop(key))
        return held

    def __setitem__(self, key: str, value: Any) -> None:
        self._appended.pop(key, None)
        self._held[key] = value

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self[key] = _REMOVED

    def __contains__(self, key: object) -> bool:
        if key in self._held:
            return self._held[str(key)] is not _REMOVED
        return key in self._run.context

    def __iter__(self) -> Iterator[str]:
        yield from (key for key in self._run.context if self._held.get(key) is not _REMOVED)
        yield from (key for key, value in self._held.items() if value is not _REMOVED and key not in self._run.context)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def append(self, key: str, value: Any) -> None:
        """Appends to the list under `key`, which is made when it is missing; costs what `value` costs.

        Raises:
            TypeError: what stands under the key is no list.
        """
        if key in self._held or not isinstance(self._run.context.get(key), list):
            held = self.setdefault(key, [])
            if not isinstance(held, list):
                raise TypeError(f"context[{key!r}] is {type(held).__name__}, not a list: nothing can be appended to it")
            held.append(value)
        else:
            self._appended.setdefault(key, []).append(value)

    def write(self, world: World) -> None:
        """Brings the run's context to what this attempt made of it; called inside the recording of the step's completion.

        Raises:
            UnstorableValueError: a value is no plain data; the recording puts the run back.
        """
        target = self._run.context
        for key, values in self._appended.items():
            target[key].extend(values)
        for key, value in self._held.items():
            if value is _REMOVED:
                target.pop(key, None)
            elif key not in target or not _write_difference(target, key, value, world):
                target[key] = value


class StepOutputs(Mapping[str, Any]):
    """Outputs of a run's completed steps by address; a step of the definition's first level also by its name."""

    def __init__(self, run: Workflow, *, copies: bool = True) -> None:
        self._run = run
        self._copies = copies

    def __getitem__(self, name: str) -> Any:
        address = self.address(name)
        if address not in self._run.outputs:
            done = ", ".join(self._run.outputs) or "none"
            known = any(name in (step.id, step.name) for step in self._run.definition.plan)
            raise KeyError(f"step {name!r} has not completed yet" if known else f"there is no step {name!r} (completed: {done})")
        output = self._run.outputs[address]
        return thaw(output) if self._copies else output

    def __iter__(self) -> Iterator[str]:
        return iter(self._run.outputs)

    def __len__(self) -> int:
        return len(self._run.outputs)

    def address(self, name: str) -> str:
        """The address that a name stands for; an address stands for itself."""
        if name in self._run.outputs:
            return name
        return next((step.id for step in self._run.definition.plan if step.name == name), name)


class TemplateScope(Mapping[str, Any]):
    """The names that templates read: the context's keys, and `step.<name or id>.result`.

    A context key `step` is hidden by the latter and can be reached as `context.step`.
    """

    def __init__(self, run: Workflow) -> None:
        self._run = run

    def __getitem__(self, name: str) -> Any:
        if name == "step":
            return _StepResults(self._run)
        if name == "context" and name not in self._run.context:
            return self._run.context
        return self._run.context[name]

    def __iter__(self) -> Iterator[str]:
        yield from (key for key in self._run.context if key != "step")
        yield "step"

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _StepResults(Mapping[str, Any]):
    def __init__(self, run: Workflow) -> None:
        self._outputs = StepOutputs(run, copies=False)

    def __getitem__(self, name: str) -> Any:
        return {"result": self._outputs[name]}

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)


def thaw(value: Any) -> Any:
    """A copy of a value of a state that can be changed freely: tracked containers become plain ones, the rest is shared."""
    if isinstance(value, list):
        return [thaw(item) for item in value]
    if isinstance(value, dict):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, set):
        return set(value)
    if kind_of(value) == "part":
        return type(value)._symphony_copy(value, None, 0)
    return value


def _write_difference(target: Any, key: str, new: Any, world: World) -> bool:
    """Changes target[key] in place to what `new` is; False when it has to be assigned as a whole."""
    old = target[key]
    if isinstance(old, list) and type(new) is list and len(new) >= len(old) and all(map(is_, old, new)):
        if len(new) > len(old):
            old.extend(new[len(old) :])
        return True
    was = plain_of(old, world)
    try:
        check_plain(new)
    except UnstorableValueError:  # declared classes or entities inside, or a refusal that the assignment will raise
        return plain_equal(was, plain_of(admit(new, world), world))
    if not isinstance(new, _CONTAINERS) or type(new) is not type(was):
        return plain_equal(was, new)
    for change in diff({key: was}, {key: new}):
        _apply(target, change)
    return True


def _apply(root: Any, change: Change) -> None:
    """Makes one change of a diff through the containers that record it."""
    operation, path, *values = change
    if operation in (SET, REMOVE):
        *parents, last = path
        holder = _walk(root, parents)
        if operation == REMOVE:
            del holder[last]
        else:
            holder[last] = values[0]
        return
    holder = _walk(root, path)
    if operation == APPEND:
        holder.append(values[0])
    elif operation == INSERT:
        holder.insert(values[0], values[1])
    elif operation == SPLICE:
        start, stop, inserted = values
        holder[start:stop] = inserted
    elif operation == ADD:
        holder.add(values[0])
    elif operation == DISCARD:
        holder.discard(values[0])


def _walk(root: Any, path: Any) -> Any:
    for element in path:
        root = root[element]
    return root
