"""The run's context as one attempt at a step sees it.

Reads come from the run; writes stay here until the step completes and are then recorded with its completion, so a failed or
killed attempt leaves nothing behind. What is written at the end is what this attempt has changed since it read it, by change: a value
that was only read is not written, and what others wrote meanwhile stays. Appending to a list of the context is one small change,
however long the list is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from decimal import Decimal
from operator import is_
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.plain import UNOWNED, admit, kind_of, plain_of
from symphony_es.core.world.boundary import is_object
from symphony_es.diagnostics import get_logger
from symphony_es.errors import UnstorableValueError
from symphony_es.events.changes import ADD, APPEND, DISCARD, REMOVE, SET, SPLICE, Change
from symphony_es.events.diff import diff
from symphony_es.events.references import Path
from symphony_es.events.values import check_plain, plain_equal
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import quoted
from symphony_es.workflow.record.reads import MOST_OF_A_BODY, Reads
from symphony_es.workflow.runs.outputs import StepOutputs
from symphony_es.workflow.runs.spaces import Space, list_around, space_at
from symphony_es.workflow.runs.thawing import thaw
from symphony_es.workflow.runs.unmade import handed

if TYPE_CHECKING:
    from symphony_es import Symphony
    from symphony_es.core.host import Host
    from symphony_es.core.world.members import Members
    from symphony_es.core.world.world import World
    from symphony_es.workflow.record.usage import Used
    from symphony_es.workflow.runs.outputs import Frame
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["RunContext", "UndoneStep", "current_context", "kept_arguments"]

_log = get_logger(__name__)

_REMOVED = object()
_UNREAD = object()
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
        reads: takes up what the step reads.
        usage: what the step has used of models so far; None for nothing.
        ended: the attempt is over: its end has been described, or it was cut off; what is noted after that is on no event.
    """

    undoes: UndoneStep | None = None
    usage: Used | None = None
    ended: bool = False

    def __init__(
        self,
        symphony: Host,
        frame: Frame,
        step: str,
        attempt: int,
        idempotency_key: str,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        self.symphony: Symphony = symphony  # type: ignore[assignment]  # a function is handed what the application has made
        self.reads = Reads(frame.run, MOST_OF_A_BODY)
        # The outputs are not noted by way of this object: what nobody holds is freed at once.
        self.outputs = StepOutputs(frame, noted=self.reads.output, world=symphony.world)
        self.inputs: dict[str, Any] = {}
        self.run_id = frame.run.id
        self.step = step
        self.attempt = attempt
        self.idempotency_key = idempotency_key
        self._stop_requested = stop_requested
        self._frame = frame
        self._held: dict[str, Any] = {}
        self._seen: dict[str, Any] = {}  # what the values in `_held` were when they were read
        self._appended: dict[str, list[Any]] = {}

    @property
    def stop_requested(self) -> bool:
        """Whether a long step should come to an end by itself.

        So it is where the run is to be cancelled or is past its deadline, and where the attempt is over: its time is up, or it was cut
        off, and a function in a thread runs on all the same. What that one gives is dropped then.
        """
        return self.ended or self._stop_requested()

    def take_reads(self) -> Reads:
        """Give what has been read so far; what is read from now on is taken up apart."""
        taken, self.reads = self.reads, Reads(self._frame.run, MOST_OF_A_BODY)
        self.outputs.noted = self.reads.output
        return taken

    def used(
        self,
        model: str,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cache_read_tokens: int = 0,
        cost: float | Decimal | None = None,
        currency: str = "USD",
    ) -> None:
        """Note what one call of a model has used; it is on record with the end of this attempt, whether that completes or fails.

        May be called any number of times, from any thread, for any number of models. An attempt that is cut off (by a cancellation, a
        deadline, a branch that fails, the end of its process) keeps what it has used so far; what a crash cuts off is lost with the
        attempt. So is what comes after its end, from a task or thread that the step has left behind: the log of the
        program says so (`usage_came_too_late`), and the caller goes on.

        Args:
            model: its name, 1 to 200 characters.
            input_tokens: how many it has read, those from a cache included.
            output_tokens: how many it has written.
            cache_read_tokens: how many of those it has read came from a cache.
            cost: in units of the currency; stored to 10^-9 of it.
            currency: ISO 4217 code of three capital letters. Currencies are never added up.

        Raises:
            ConfigurationError: a number is none, or negative, or the currency is no code. Nothing of the call has been noted.
        """
        from symphony_es.workflow.record.usage import Used  # late: few steps tell of models

        usage: Used = self.__dict__.setdefault("usage", Used())  # in one step: threads may call this at once
        usage.add(model, input_tokens, output_tokens, cache_read_tokens, cost, currency)
        if self.ended:
            _log.warning("usage_came_too_late", run_id=self.run_id, step=self.step, attempt=self.attempt)

    def _read(self, key: object) -> Any:
        for place, layer in self._layers(key):
            if key in layer:
                self.reads.key(place, key)
                value = layer[key]  # type: ignore[index]
                if type(value) not in UNOWNED:
                    handed(value, self.symphony.world)
                    record = self.symphony.world.record_of(value)
                    self.reads.entity(record)
                    if record is not None and record.is_compared:
                        self.symphony.world.foreign.hand([value])
                return value
        self.reads.key(None, key)  # that it is missing is an answer as well
        raise KeyError(key)

    def _layers(self, key: object) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
        """Return where a key is looked up; not in what this branch has written, where this step removes it: then what lies around it
        counts.
        """
        frame = self._frame
        if self._held.get(key) is not _REMOVED:  # type: ignore[call-overload]
            return frame.placed_layers()
        written = frame.written()
        others = ((place, layer) for place, layer in frame.placed_layers() if layer is not written)
        return (found for found in others if not (isinstance(found[1], Space) and found[0] == frame.key_space))

    def _own(self) -> Mapping[str, Any] | None:
        """Return what this branch has written, or the run's context; None while it has written nothing."""
        space = self._frame.key_space
        return self._frame.run.context if space is None else space_at(self._frame.run, space)

    def __getitem__(self, key: str) -> Any:
        held = self._held.get(key, _REMOVED)
        if held is not _REMOVED:
            return held
        value = self._read(key)
        if not _can_change(value):
            return thaw(value)
        if key in self._held:  # this step has removed what its branch had: what lies around it becomes its own where it is changed
            held = self._held[key] = thaw(value)
            return held
        held = self._held[key] = thaw(value)
        self._seen[key] = thaw(value)
        if key in self._appended:
            held.extend(self._appended.pop(key))
        return held

    def __setitem__(self, key: str, value: Any) -> None:
        self._appended.pop(key, None)
        self._held[key] = value

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        own = self._own()
        mine = key in self._appended or (own is not None and key in own and key not in self._held)
        if self._held.get(key, _REMOVED) is _REMOVED and not mine:
            raise KeyError(f"{quoted(key)} belongs to what lies around this branch: a branch can only remove what it has written itself")
        self[key] = _REMOVED

    def __contains__(self, key: object) -> bool:
        if self._held.get(key, _REMOVED) is not _REMOVED:  # type: ignore[call-overload]
            return True
        self.reads.key(None, key)
        return any(key in layer for _, layer in self._layers(key))

    def __iter__(self) -> Iterator[str]:
        self.reads.context()
        keys = dict.fromkeys(key for layer in reversed(list(self._frame.layers())) for key in layer)
        yield from (key for key in keys if self._held.get(key) is not _REMOVED or key in self)
        yield from (key for key, value in self._held.items() if value is not _REMOVED and key not in keys)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def append(self, key: str, value: Any) -> None:
        """Append to the list under `key`, which is made when it is missing; costs what `value` costs.

        Raises:
            TypeError: what stands under the key is no list.
        """
        if key in self._held or not (self._has_list(key) or self._size_around(key) is not None):
            held = self.setdefault(key, [])
            if not isinstance(held, list):
                raise TypeError(f"context[{quoted(key)}] is {type(held).__name__}, not a list: nothing can be appended to it")
            held.append(value)
        else:
            self._appended.setdefault(key, []).append(value)

    def changes(self, world: World, *outputs: tuple[str, Any]) -> list[Change]:
        """Return what brings the run's context to what this attempt made of it, for the event of the step's completion.

        Args:
            world: the run's.
            *outputs: keys and values that are put there in any case, after all others.

        Raises:
            UnstorableValueError: a value is no plain data.
        """
        if not (self._appended or self._held or outputs):
            return []
        membership = world.around(self._frame.run)
        changed = {key: value for key, value in self._held.items() if self._is_changed(key, value, membership)}
        if not (self._appended or changed or outputs):
            return []
        root, written = self._frame.root, self._frame.written()
        changes = kept_arguments(self._frame.run) if self._appended or changed else []
        behind = {key: values for key, values in self._appended.items() if not self._has_list(key)}
        for key in list(changed):
            values = self._put_behind(key, changed[key])
            if values is not None:
                behind[key] = values
                del changed[key]
        changes += self._behind(behind, [*changed, *dict(outputs)])
        if written is None:
            there = {key: value for key, value in changed.items() if value is not _REMOVED} | dict(outputs)
            return [*changes, (SET, root, there)] if there else changes
        for key, values in self._appended.items():
            if key not in behind:
                changes += _appended((*root, key), len(written[key]), values)
        for key, value in changed.items():
            path = (*root, key)
            if key not in written:
                changes += [(SET, path, value)] if value is not _REMOVED else []
            elif value is _REMOVED:
                changes.append((REMOVE, path))
            else:
                difference = _difference(path, written[key], self._seen.get(key, _UNREAD), value, membership)
                changes += [(SET, path, value)] if difference is None else difference
        return changes + [(SET, (*root, key), value) for key, value in outputs]

    def _has_list(self, key: str) -> bool:
        """Return whether there is a list where this step's writes go."""
        written = self._frame.written()
        return written is not None and isinstance(written.get(key), list)

    def _size_around(self, key: str) -> int | None:
        """Return how long the list around this branch is that a key means here; None where it means something else."""
        frame = self._frame
        if frame.key_space is None:
            return None
        written = frame.written()
        if (written is not None and key in written) or any(key in inside.names for inside in frame.around()):
            return None
        around = list_around(frame.run, frame.key_space, key)
        return None if around is None else len(around)

    def _put_behind(self, key: str, value: Any) -> list[Any] | None:
        """Return what a step has put at the end of a list around its branch; None where it has written something else."""
        seen = self._seen.get(key)
        if type(seen) is not list or type(value) is not list or self._size_around(key) is None:
            return None
        if len(seen) > len(value) or self._read_again(key) != len(seen):
            return None
        try:
            check_plain(value)
            begins_alike = plain_equal(value[: len(seen)], seen)
        except UnstorableValueError:  # entities inside, or a refusal that the append raises
            begins_alike = all(map(is_, seen, value))
        return value[len(seen) :] if begins_alike else None

    def _read_again(self, key: str) -> int:
        """Return how long the list is now that a step has read."""
        own = self._own()
        return len(own[key]) if own is not None and key in own else self._size_around(key) or 0

    def _behind(self, behind: Mapping[str, list[Any]], whole: Iterable[str]) -> list[Change]:
        """Return what notes values behind lists around this branch, and forgets them where a key gets another value as a whole."""
        frame = self._frame
        if frame.key_space is None:
            return []
        root = ("appended", frame.key_space)
        there = frame.run.appended.get(frame.key_space)
        if there is None:
            made = {key: {"after": self._size_around(key) or 0, "values": values} for key, values in behind.items() if values}
            return [(SET, root, made)] if made else []
        changes: list[Change] = [(REMOVE, (*root, key)) for key in dict.fromkeys(whole) if key in there]
        for key, values in behind.items():
            if key in there:
                changes += _appended((*root, key, "values"), len(there[key]["values"]), values)
            elif values:
                changes.append((SET, (*root, key), {"after": self._size_around(key) or 0, "values": values}))
        return changes

    def _is_changed(self, key: str, value: Any, world: Members) -> bool:
        """Return whether this attempt has made another value of what it read; what it has not read is a write in any case."""
        seen = self._seen.get(key, _UNREAD)
        if seen is _UNREAD or value is _REMOVED or type(seen) is not type(value):
            return True
        try:
            check_plain(value)
        except UnstorableValueError:  # declared classes or entities inside, or a refusal that `admit` raises
            return not plain_equal(plain_of(admit(seen, world), world), plain_of(admit(value, world), world))
        return not plain_equal(seen, value)


def kept_arguments(run: Workflow) -> list[Change]:
    """Return what sets aside what a code-first run began with, before its context changes.

    That is what its function is called with again.
    """
    if run.arguments is None and run.definition.code is not None:
        return [(SET, ("arguments",), thaw(run.context))]
    return []


def _can_change(value: Any) -> bool:
    return type(value) in _CONTAINERS or type(value) is tuple or kind_of(value) in ("container", "part") or is_object(value)


def _appended(path: Path, size: int, values: list[Any]) -> list[Change]:
    """Return what puts values at the end of a list of so many."""
    if len(values) == 1:
        return [(APPEND, path, values[0])]
    return [(SPLICE, path, size, size, values)] if values else []


def _difference(path: Path, current: Any, seen: Any, new: Any, world: Members) -> list[Change] | None:
    """Return what makes of `current`, at a path, what differs between `seen` and `new`; None when it has to be assigned as a whole."""
    are_lists = isinstance(current, list) and type(seen) is type(new) is list
    if are_lists and len(current) == len(seen) <= len(new) and all(map(is_, seen, new)) and all(map(is_, seen, current)):
        return _appended(path, len(current), new[len(seen) :])
    now = plain_of(current, world)
    try:
        check_plain(new)
    except UnstorableValueError:  # declared classes or entities inside, or a refusal that the assignment will raise
        return [] if plain_equal(now, plain_of(admit(new, world), world)) else None
    if type(new) not in _CONTAINERS or type(new) is not type(now):
        return [] if plain_equal(now, new) else None
    if seen is _UNREAD or type(seen) is not type(new) or plain_equal(now, seen):
        key = path[-1]
        return [(operation, (*path[:-1], *below), *values) for operation, below, *values in diff({key: now}, {key: new})]
    return _merged(path, now, seen, new)


def _merged(path: Path, now: Any, seen: Any, new: Any) -> list[Change]:
    """Return what makes of the value at a path, which others have changed since it was read, what the changes from `seen` to `new` make of
    it.

    Keys of dicts and members of sets each stand for themselves, and what was put at the end of a list comes after what others put there.
    Where both have changed the same value otherwise, this one, which completes last, stands.
    """
    if plain_equal(seen, new) or plain_equal(now, new):
        return []
    changes: list[Change] = []
    if type(now) is type(seen) is type(new) is dict:
        changes += [(REMOVE, (*path, name)) for name in seen if name not in new and name in now]
        for name, item in new.items():
            if name in seen and name in now:
                changes += _merged((*path, name), now[name], seen[name], item)
            elif name not in seen or not plain_equal(seen[name], item):
                changes.append((SET, (*path, name), item))
        return changes
    if type(now) is type(seen) is type(new) is set:
        gone = [(DISCARD, path, member) for member in seen - new]
        return gone + [(ADD, path, member) for member in new - seen]
    if type(now) is type(seen) is type(new) is list and plain_equal(new[: len(seen)], seen):
        return _appended(path, len(now), new[len(seen) :])
    return [(SET, path, new)]


current_context: ContextVar[RunContext | None] = ContextVar("symphony_es_step_context", default=None)
"""That of the step of a code-first workflow that the running code is part of; runs that it begins are no part of it."""
