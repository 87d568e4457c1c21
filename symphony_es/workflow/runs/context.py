"""The run's context as one attempt at a step sees it.

Reads come from the run; writes stay here until the step completes and are then recorded with its completion, so a failed or
killed attempt leaves nothing behind. What is written at the end is the difference: appending to a list of the context is one
small change, however long the list is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from operator import is_
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.tracking.live import admit, kind_of, plain_of
from symphony_es.errors import UnstorableValueError
from symphony_es.events.changes import ADD, APPEND, DISCARD, EXTEND, INSERT, REMOVE, SET, SPLICE, Change
from symphony_es.events.diff import diff
from symphony_es.events.values import check_plain, plain_equal
from symphony_es.workflow.runs.outputs import StepOutputs
from symphony_es.workflow.runs.thawing import thaw

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
    from symphony_es.core.state.membership import Membership
    from symphony_es.core.state.world import World
    from symphony_es.workflow.runs.outputs import Frame

__all__ = ["RunContext", "UndoneStep"]

_REMOVED = object()
_CONTAINERS = (list, dict, set)


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoneStep:
    """What an undo knows of the step that it undoes.

    Attributes:
        address: of that step.
        status: `completed`; `failed`; or `running`, where it was cut off. What has not completed may have done its work all the same.
        output: what it gave, a copy; None where it has not completed.
        idempotency_key: the one that it was called with.
    """

    address: str
    status: str
    output: Any
    idempotency_key: str


class RunContext(MutableMapping[str, Any]):
    """What a function step is called with: the run's context, as a mapping, and what the step needs to know of itself.

    Lists, dicts and sets that it hands out are copies; changing them, or assigning, is recorded when the step completes.
    `append` is the one write whose cost does not depend on what is there already. In a parallel branch or a mapped item, reads see
    the run's context too, and writes stay in the branch's own key space.

    Attributes:
        outputs: outputs of completed steps, by step name or id.
        inputs: the step's inputs, with their templates rendered.
        run_id: id of the run.
        step: address of the step.
        attempt: number of this attempt, from 1.
        idempotency_key: the same for every attempt after a crash: hand it to whatever has side effects.
        undoes: in an undo, the step that is undone; else None.
        symphony: the Symphony, for its agents, tasks and entities.
    """

    undoes: UndoneStep | None = None

    def __init__(
        self,
        symphony: Host,
        frame: Frame,
        step: str,
        attempt: int,
        idempotency_key: str,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self.symphony = symphony
        self.outputs = StepOutputs(frame)
        self.inputs: dict[str, Any] = {}
        self.run_id = frame.run.id
        self.step = step
        self.attempt = attempt
        self.idempotency_key = idempotency_key
        self._stop_requested = stop_requested
        self._frame = frame
        self._held: dict[str, Any] = {}
        self._appended: dict[str, list[Any]] = {}

    @property
    def stop_requested(self) -> bool:
        """Whether the run is to be cancelled, or is past its deadline: a long step should come to an end by itself then."""
        return self._stop_requested()

    def _read(self, key: object) -> Any:
        for layer in self._frame.layers():
            if key in layer:
                return layer[key]  # type: ignore[index]
        raise KeyError(key)

    def __getitem__(self, key: str) -> Any:
        if key in self._held:
            value = self._held[key]
            if value is _REMOVED:
                raise KeyError(key)
            return value
        value = self._read(key)
        if kind_of(value) not in ("container", "part") and type(value) not in _CONTAINERS:
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
        written = self._frame.written()
        if key not in self._held and (written is None or key not in written):
            raise KeyError(f"{key!r} belongs to what lies around this branch: a branch can only remove what it has written itself")
        self[key] = _REMOVED

    def __contains__(self, key: object) -> bool:
        if key in self._held:
            return self._held[str(key)] is not _REMOVED
        return any(key in layer for layer in self._frame.layers())

    def __iter__(self) -> Iterator[str]:
        keys = dict.fromkeys(key for layer in reversed(list(self._frame.layers())) for key in layer)
        yield from (key for key in keys if self._held.get(key) is not _REMOVED)
        yield from (key for key, value in self._held.items() if value is not _REMOVED and key not in keys)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def append(self, key: str, value: Any) -> None:
        """Appends to the list under `key`, which is made when it is missing; costs what `value` costs.

        Raises:
            TypeError: what stands under the key is no list.
        """
        written = self._frame.written()
        if key in self._held or written is None or not isinstance(written.get(key), list):
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
        if not self._appended and not self._held:
            return
        target = self._frame.written()
        for key, values in self._appended.items():
            self._frame.target()[key].extend(values)
        for key, value in self._held.items():
            if value is _REMOVED:
                if target is not None and key in target:
                    del self._frame.target()[key]
            elif target is not None and key in target:
                if not _write_difference(target, key, value, world.around(self._frame.run)):
                    self._frame.target()[key] = value
            elif not self._unchanged(key, value, world):
                self._frame.target()[key] = value
                target = self._frame.written()

    def _unchanged(self, key: str, value: Any, world: World) -> bool:
        """Whether a value that was only read, from around what this step writes to, is still what it was."""
        try:
            around = self._read(key)
        except KeyError:
            return False
        seen = world.around(self._frame.run)
        return plain_equal(plain_of(admit(around, seen), seen), plain_of(admit(value, seen), seen))


def _write_difference(target: Any, key: str, new: Any, world: Membership) -> bool:
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
    if operation in (SET, REMOVE, EXTEND):
        *parents, last = path
        holder = _walk(root, parents)
        if operation == REMOVE:
            del holder[last]
        elif operation == EXTEND:
            holder[last] += values[0]
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
