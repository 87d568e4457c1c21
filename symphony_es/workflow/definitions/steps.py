"""Steps as data: what every kind of step has, and the kinds there are.

A step is immutable, with all that it holds, and can be written as a plain dict and read back (`to_dict`, `Step.from_dict`): that is how
definitions are stored, copied into runs and hashed. Each kind is a class in a module of its own; a class registers its `kind`, so that an
application can add kinds without touching this package. Keeps the rule that stored data names things and never holds code.
"""

from __future__ import annotations

import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias, TypeVar

from symphony_es.core.objects.frozen import CONTAINERS, copied, freeze
from symphony_es.errors import ConfigurationError, DefinitionError
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import quoted, shown
from symphony_es.workflow.definitions.nesting import Extent, extent_of
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.definitions.retry import RetryPolicy

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.engine.execution import StepExecution
    from symphony_es.workflow.record.inputs import StepInput

__all__ = [
    "MAX_STEP_ID_CHARS",
    "NO_DEFAULT",
    "Step",
    "StepLike",
    "as_step",
    "id_from_name",
    "is_of_kind",
    "nested_keys_of",
    "read_steps",
    "register_step_kind",
    "step_kinds",
    "written",
]

MAX_STEP_ID_CHARS = 100
"""Room for a name; a step's id is part of its address, and those end at `MAX_ADDRESS_BYTES`."""

NO_DEFAULT: Any = type("NoDefault", (), {"__repr__": lambda self: "NO_DEFAULT"})()
"""Marks a wait that fails when its time is up; None is a default like any other."""

_NOT_IN_AN_ID = re.compile(r"[/\x00-\x1f\x7f]|\A@(?=[0-9]+\Z)")

StepLike: TypeAlias = "Step | Mapping[str, Any]"
"""A step, or the dict of one."""

_StepClass = TypeVar("_StepClass", bound="type[Step]")
_kinds: dict[str, type[Step]] = {}
_OWN_KINDS = {
    "conditional": "conditional",
    "function": "function",
    "loop": "loop",
    "map": "map",
    "parallel": "parallel",
    "sequence": "sequence",
    "sleep": "sleep",
    "task": "task",
    "wait": "wait",
    "workflow": "sub_workflow",
}
"""The library's own kinds by the modules that have them, which are imported when the kind is first met: few programs use all of them."""


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """One step of a definition.

    Attributes:
        name: what people call it; unique among its siblings.
        id: what its address is made of; made from the name once and kept when the step is renamed.
        description: for readers.
        output_key: key of the run's context that the output is written to as well, or None.
        retry: how failed attempts are repeated; the definition's policy, if any, when None (composites have no such default).
        timeout_s: how long an attempt may take, in seconds; the definition's when None.
        atomic: what the step changes in entities and its completion are one transaction.
        undo: what undoes the step once it has begun: a step without steps inside, at the address `undo/<address of this one>`. In dicts
            also the name of a function, which then has the `retry` and `timeout_s` of this step, and is atomic where this one is.
        record_inputs: whether the step's input itself is put on record; as the definition says, when None.
    """

    kind: ClassVar[str]
    keeps_progress: ClassVar[bool] = True
    """Whether another attempt, after one that failed, knows what the failed one had decided. So with composites, which go on inside."""
    reentrant: ClassVar[bool] = False
    """Whether entering it again after a crash is no new attempt: all that it did is in the run. So with composites and waits."""
    together: ClassVar[bool] = False
    """Whether its nested steps run beside each other."""
    nested_keys: ClassVar[tuple[str, ...]] = ()
    """Keys of its dict that hold the nested steps."""
    can_be_atomic: ClassVar[bool] = False
    """Whether `atomic` is allowed."""

    name: str
    id: str = ""
    description: str = ""
    output_key: str | None = None
    retry: RetryPolicy | None = None
    timeout_s: float | None = None
    atomic: bool = False
    undo: Step | None = None
    record_inputs: bool | None = None

    def __post_init__(self) -> None:
        if not self.id and isinstance(self.name, str):
            object.__setattr__(self, "id", id_from_name(self.name))

    def children(self) -> dict[str, tuple[Step, ...]]:
        """Return nested steps by part of the address, for example `{"then": (…), "else": (…)}`; none by default.

        The part is "" where the address has none, and "*" where it is an index: of an iteration, whose steps' ids follow it, or of an
        item, where it stands for the id of the one step.
        """
        return {}

    def names_inside(self, index: int, progress: Any) -> Mapping[str, Any]:
        """Return what the steps at an index of this one can read beside what it can: the names that `perform` gives them.

        Args:
            index: of an iteration or item.
            progress: what this step had noted, or None.
        """
        return {}

    def inlined(self) -> dict[str, tuple[Step, ...]]:
        """Return steps of a definition inside of it, by part of the address.

        They run in a run of their own and count for the limits alone.
        """
        return {}

    @property
    def extent(self) -> Extent:
        """How large it is with all that is inside of it; measured once, when it is read."""
        held: Extent | None = self.__dict__.get("_extent")
        return extent_of(self) if held is None else held

    @abstractmethod
    def data(self) -> dict[str, Any]:
        """Return what this kind has beyond the attributes above, as plain data; keys that are at their default may be left out."""

    @classmethod
    @abstractmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        """Make a step from the keys of its dict; `common` holds the attributes that every step has.

        Raises:
            DefinitionError: a key is missing or has the wrong shape.
        """

    @abstractmethod
    async def perform(self, execution: StepExecution) -> Any:
        """Do what the step is there for and return its output, which must be plain data.

        Called again with the same idempotency key when a crash came between the call and the record of its completion.

        Raises:
            Exception: whatever is raised fails the step.
        """

    def works_with(self, execution: StepExecution) -> Mapping[str, Any]:
        """Return what the step's input is, by name, made by `execution.prepare`; called before the start of an attempt is on record, which
        has a digest of it. Nothing by default: what is rendered later is on record at the end.
        """
        return {}

    def input_of(self, execution: StepExecution) -> StepInput | None:
        """Return what is known of the input already; None where that is made of `works_with`."""
        return None

    def function_of(self, symphony: Host) -> Callable[..., Any] | None:
        """Return the function that the step calls, of whose code its start has a digest; None for the kinds that call none."""
        return None

    def arguments(self) -> Iterable[Any]:
        """Return the live values that the function is called with, besides the context."""
        return ()

    def check(self, symphony: Host) -> None:  # noqa: B027  most kinds need nothing
        """Look, before a run is created, whether this process has what the step needs.

        Raises:
            NotRegisteredError: it has not.
        """

    def to_dict(self) -> dict[str, Any]:
        """Return the step as plain data; `Step.from_dict` reads it back."""
        common: dict[str, Any] = {"kind": self.kind, "id": self.id, "name": self.name}
        if self.description:
            common["description"] = self.description
        if self.output_key is not None:
            common["output_key"] = self.output_key
        retry: Any = self.retry  # of a step made by hand it may still be the short form
        if retry is not None:
            common["retry"] = retry.to_dict() if isinstance(retry, RetryPolicy) else retry
        if self.timeout_s is not None:
            common["timeout_s"] = self.timeout_s
        if self.atomic:
            common["atomic"] = True
        if self.undo is not None:
            common["undo"] = self.undo.to_dict()
        if self.record_inputs is not None:
            common["record_inputs"] = self.record_inputs
        return {**common, **copied(self.data())}

    @staticmethod
    def from_dict(data: Mapping[str, Any], path: str = "step") -> Step:
        """Read a step of any registered kind.

        Args:
            data: what `to_dict` wrote; `id` may be missing.
            path: where it stands in the definition, for messages.

        Raises:
            DefinitionError: with the path of the fault.
        """
        reader = DataReader(data, path)
        kind = reader.text("kind")
        step_class = _kind_named(kind)
        if step_class is None:
            raise reader.fault("kind", f"{shown(kind)} is no kind of step (known: {', '.join(step_kinds())})")
        name = reader.text("name")
        step_id = reader.text("id", default="") or id_from_name(name)
        why = _fault_of_id(step_id)
        if why:
            raise reader.fault("id" if reader.value("id") else "name", why)
        atomic = reader.flag("atomic")
        if atomic and not step_class.can_be_atomic:
            raise reader.fault("atomic", f"a step of kind {shown(kind)} cannot be atomic: only what runs as one function call can")
        retry, timeout_s = RetryPolicy.read(reader.value("retry"), reader.at("retry")), reader.seconds("timeout_s")
        settings = {"retry": retry, "timeout_s": timeout_s, "atomic": atomic or None}
        step = step_class.read(
            reader,
            name=name,
            id=step_id,
            description=reader.text("description", default=""),
            output_key=reader.optional_text("output_key"),
            retry=retry,
            timeout_s=timeout_s,
            atomic=atomic,
            undo=None if reader.value("undo") is None else _read_undo(reader, name, settings),
            record_inputs=None if reader.value("record_inputs") is None else reader.flag("record_inputs"),
        )
        reader.finish()
        for name, value in list(vars(step).items()):
            if isinstance(value, CONTAINERS):
                object.__setattr__(step, name, freeze(value))
        object.__setattr__(step, "_extent", extent_of(step))
        return step

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies are made of: they have not been checked, and their containers may be plain ones."""
        return {key: value for key, value in self.__dict__.items() if key != "_extent"}

    def renamed(self, name: str) -> Self:
        """Return the same step under another name; its id, and so its address, stays."""
        return replace(self, name=name)


def register_step_kind(cls: _StepClass) -> _StepClass:
    """Make a kind of step known to `Step.from_dict`, as a decorator of its class.

    Raises:
        ConfigurationError: another class has the kind. A class that was defined anew replaces the old one.
    """
    other = _kind_named(cls.kind)
    if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ConfigurationError(f"{cls.__qualname__} and {other.__qualname__} both claim the step kind {quoted(cls.kind)}")
    _kinds[cls.kind] = cls
    return cls


def step_kinds() -> list[str]:
    """Return the kinds that can be read, sorted."""
    return sorted({*_kinds, *_OWN_KINDS})


def nested_keys_of(kind: object) -> tuple[str, ...]:
    """Return keys under which the dict of a step of some kind holds nested steps; none of a kind that nobody knows."""
    step_class = _kind_named(kind) if isinstance(kind, str) else None
    return step_class.nested_keys if step_class is not None else ()


def is_of_kind(step: Step, kind: str) -> bool:
    """Return whether a step is of a kind, or of one that derives from it; a kind that nobody has met yet is not imported for it."""
    known = _kinds.get(kind)
    return known is not None and isinstance(step, known)


def _kind_named(kind: str) -> type[Step] | None:
    if kind not in _kinds and kind in _OWN_KINDS:
        importlib.import_module(f"symphony_es.workflow.kinds.{_OWN_KINDS[kind]}")  # registers it
    return _kinds.get(kind)


@lru_cache(maxsize=256)
def id_from_name(name: str) -> str:
    """Return the id of a step that was given none: its name, with `_` for what an address has no room for."""
    return _NOT_IN_AN_ID.sub("_", name)


def as_step(step: StepLike, path: str) -> Step:
    """Return a step, or the dict of one, checked: every step of a definition passes here once.

    Raises:
        DefinitionError: it cannot be written and read back.
    """
    if isinstance(step, Step):
        # What was read has been checked, and a step does not change: a definition of n steps is not read n times as it grows.
        return step if "_extent" in step.__dict__ else Step.from_dict(step.to_dict(), path)
    if isinstance(step, Mapping):
        return Step.from_dict(step, path)
    raise DefinitionError(path, f"expected a step or the dict of one, not {type(step).__name__}{_how_it_is_written(step)}")


def _how_it_is_written(given: Any) -> str:
    """Return what a message says to who has given something else than a step in the place of one."""
    if isinstance(given, (str, bytes)):
        return ""
    if callable(given):
        return ": a function is a step by add_function('name', function), or {'kind': 'function', 'name': …, 'function': …}"
    if isinstance(given, Iterable) or hasattr(given, "to_dicts"):
        return ": several steps are one by add_sequence('name', steps), or {'kind': 'sequence', 'name': …, 'steps': […]}"
    return ""


def _read_undo(reader: DataReader, name: str, settings: Mapping[str, Any]) -> Step:
    """Return the undo of a step: a step, the dict of one, or a function or its name, which has the settings of the step that it undoes."""
    given, path = reader.value("undo"), reader.at("undo")
    if isinstance(given, str) or (callable(given) and not isinstance(given, Step)):
        given = {"kind": "function", "function": given, **{key: value for key, value in settings.items() if value is not None}}
    if isinstance(given, Mapping):
        given = {"name": f"undo {name}", "id": "undo", **given}
    undo = as_step(given, path)
    if undo.nested_keys or undo.children():
        raise DefinitionError(path, f"a {undo.kind} step has steps inside, and an undo has none: give a workflow step for several")
    if undo.undo is not None:
        raise DefinitionError(f"{path}.undo", "an undo is not undone itself")
    return undo


def _fault_of_id(step_id: str) -> str | None:
    if _NOT_IN_AN_ID.search(step_id):
        return f"{quoted(step_id)} cannot be an id: it has '/' or a control character, or is '@' and a number; addresses join ids with '/'"
    if len(step_id) > MAX_STEP_ID_CHARS:
        return f"an id has at most {MAX_STEP_ID_CHARS} characters, this one {len(step_id)}: give the step a shorter id"
    return None


def written(steps: Any) -> Any:
    """Return steps as plain dicts; whatever is no step stays as it is, for those who read it to refuse with its path."""
    if not isinstance(steps, (list, tuple)):
        return steps
    return [step.to_dict() if isinstance(step, Step) else dict(step) if isinstance(step, Mapping) else step for step in steps]


def read_steps(steps: Sequence[StepLike], path: str, *, least: int = 0) -> tuple[Step, ...]:
    """Read siblings: each is checked, and ids and names are unique among them, so that either finds one step.

    Args:
        steps: steps or the dicts of steps.
        path: where they stand in the definition, for messages.
        least: how many there must be.

    Raises:
        DefinitionError: with the path of the fault.
    """
    if len(steps) < least:
        raise DefinitionError(path, "needs at least one step")
    made: list[Step] = []
    owners: dict[str, int] = {}
    for index, given in enumerate(steps):
        step = as_step(given, f"{path}[{index}]")
        for what, text in (("id", step.id), ("name", step.name)):
            other = owners.get(text, index)
            if other != index:
                raise DefinitionError(f"{path}[{index}].{what}", f"{quoted(text)} is taken by {path}[{other}]: ids and names are unique")
        owners[step.id] = owners[step.name] = index
        made.append(step)
    return tuple(made)
