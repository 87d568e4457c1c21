"""Workflow definitions: what is to be done, as immutable data.

A run names the definition it starts with by its content, so a definition that is saved anew never changes a run. Its version is a hash of
its content: equal content, equal version, in every process. Making and reading definitions is pure; `stored.py` keeps them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.entity import new_id
from symphony_es.core.objects.frozen import copied, freeze
from symphony_es.core.world.constants import Constant
from symphony_es.errors import DefinitionError
from symphony_es.events.codec import encode_canonical
from symphony_es.events.identifiers import DEFINITION_PREFIX
from symphony_es.guesses import pointing_out
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import quoted, shown
from symphony_es.workflow.definitions.json_text import check_json, read_json
from symphony_es.workflow.definitions.nesting import check_depth, check_extent, walk
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.definitions.retry import RetryPolicy
from symphony_es.workflow.definitions.steps import Step, read_steps

if TYPE_CHECKING:
    from symphony_es.core.host import Host

__all__ = ["CLEANUP", "UNDO", "WorkflowDefinition"]

CLEANUP = "cleanup"
"""What the addresses of clean-up steps begin with."""

UNDO = "undo"
"""What the addresses of steps begin with that undo other steps; the address of the other one follows."""

REASONS = ("failure", "deadline")
"""Of what a run may clean up beside a cancellation."""


@dataclass(frozen=True, kw_only=True)
class WorkflowDefinition:
    """An immutable definition; methods that change something return a new one with the same id.

    What it is made of is copied, and its lists, dicts and sets refuse to be changed, those of its steps as well. Two definitions are equal
    when their content is, whatever their ids.

    Attributes:
        id: made when left empty.
        name: what people call it.
        description: for readers.
        steps: in order; ids and names are unique among them. Dicts are accepted and read.
        context: what a run's context holds at its start, unless the caller gives another value; plain data.
        metadata: the application's own; plain data, no part of the version.
        retry: how failed attempts are repeated, of steps that say nothing of their own (composites and waits left out).
        timeout_s: how long an attempt at such a step may take, in seconds.
        deadline_s: how long a run may take, in seconds; then it fails by itself.
        cleanup: steps that run when a run is cancelled, after its steps have been undone; their addresses begin with `cleanup/`.
        cleanup_on: when else a run undoes its steps and runs the `cleanup`: `failure`, `deadline`, or both; it has failed then.
        output: a template: the result of a run; without it, that is the output of its last step.
        code: name of the function of a code-first workflow, in place of steps.
        record_inputs: whether the inputs of its steps themselves are put on record; as the engine says, when None.

    Raises:
        DefinitionError: with the path of the fault.
    """

    name: str
    id: str = ""
    description: str = ""
    steps: Sequence[Step | Mapping[str, Any]] = ()
    context: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    retry: RetryPolicy | Mapping[str, Any] | int | None = None
    timeout_s: float | None = None
    deadline_s: float | None = None
    cleanup: Sequence[Step | Mapping[str, Any]] = ()
    cleanup_on: Sequence[str] | str = ()
    output: Any = None
    code: str | None = None
    record_inputs: bool | None = None

    def __post_init__(self) -> None:
        check_depth(self.steps, "steps")
        check_depth(self.cleanup, "cleanup")
        given = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("steps", "cleanup", "retry")}
        reader = DataReader({key: dict(value) if isinstance(value, Mapping) else value for key, value in given.items()})
        checked = {
            "name": reader.text("name"),
            "id": reader.text("id", default="") or new_id(),
            "description": reader.text("description", default=""),
            "context": reader.mapping("context"),
            "metadata": reader.mapping("metadata"),
            "steps": read_steps(DataReader({"steps": self.steps}).sequence("steps"), "steps"),
            "retry": RetryPolicy.read(self.retry, "retry"),
            "timeout_s": reader.seconds("timeout_s"),
            "deadline_s": reader.seconds("deadline_s"),
            "cleanup": read_steps(DataReader({"cleanup": self.cleanup}).sequence("cleanup"), "cleanup"),
            "cleanup_on": _read_reasons(self.cleanup_on),
            "output": reader.template("output"),
            "code": reader.optional_text("code"),
            "record_inputs": None if self.record_inputs is None else reader.flag("record_inputs"),
        }
        undone = any(step.undo is not None for _, step in walk(checked["steps"]))
        check_extent(checked["steps"], "steps", address_bytes=len(f"{UNDO}/") if undone else 0)
        check_extent(checked["cleanup"], "cleanup", address_bytes=len("cleanup/"))
        for index, step in enumerate(checked["steps"]):
            if checked["code"] is not None:
                raise DefinitionError("steps", "a definition has steps or code, not both")
            for prefix, taken in ((CLEANUP, checked["cleanup"]), (UNDO, undone)):
                if taken and prefix in (step.id, step.name):
                    raise DefinitionError(f"steps[{index}].id", f"{quoted(prefix)} is what the addresses of clean-up steps begin with")
        for path, step in walk(checked["cleanup"]):
            if step.undo is not None:
                raise DefinitionError(f"cleanup ({path}).undo", "a clean-up step is not undone itself")
        object.__setattr__(self, "_id_is_made", not self.id)
        for name, value in checked.items():
            object.__setattr__(self, name, freeze(value))

    @cached_property
    def version(self) -> str:
        """SHA-256 (hexadecimal) of the canonical encoding of all but id and metadata."""
        content = {key: value for key, value in self.to_dict().items() if key not in ("id", "metadata")}
        return hashlib.sha256(encode_canonical(content)).hexdigest()

    @cached_property
    def content_hash(self) -> str:
        """What runs name it by: SHA-256 (hexadecimal) of all but the id; that is its `version` where it has no metadata."""
        if not self.metadata:
            return self.version
        return hashlib.sha256(encode_canonical(self._content())).hexdigest()

    @cached_property
    def stored(self) -> Constant:
        """The constant entity that a log keeps it as."""
        return Constant(f"{DEFINITION_PREFIX}{self.content_hash}", self._content)

    def _content(self) -> dict[str, Any]:
        return {key: value for key, value in self.to_dict().items() if key != "id"}

    @cached_property
    def plan(self) -> tuple[Step, ...]:
        """The steps, typed: `steps` accepts dicts, what it holds afterwards are steps."""
        return tuple(step for step in self.steps if isinstance(step, Step))

    @cached_property
    def cleanup_plan(self) -> tuple[Step, ...]:
        """The clean-up steps, typed."""
        return tuple(step for step in self.cleanup if isinstance(step, Step))

    @cached_property
    def undo_plan(self) -> dict[str, Step]:
        """What undoes the steps, by the path of the step, as `walk` gives it."""
        return {path: step.undo for path, step in walk(self.plan) if step.undo is not None}

    @property
    def retry_policy(self) -> RetryPolicy | None:
        """`retry`, typed."""
        return self.retry if isinstance(self.retry, RetryPolicy) else None

    def to_dict(self) -> dict[str, Any]:
        """Return the definition as plain data of its own; `from_dict` reads it back to an equal one with the same id."""
        written: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "steps": [step.to_dict() for step in self.plan],
            "context": copied(self.context),
            "metadata": copied(self.metadata),
        }
        if self.retry_policy is not None:
            written["retry"] = self.retry_policy.to_dict()
        if self.cleanup_plan:
            written["cleanup"] = [step.to_dict() for step in self.cleanup_plan]
        if self.cleanup_on:
            written["cleanup_on"] = list(self.cleanup_on)
        for name in ("timeout_s", "deadline_s", "output", "code", "record_inputs"):
            if getattr(self, name) is not None:
                written[name] = copied(getattr(self, name))
        return written

    def to_nested_dict(self) -> dict[str, Any]:
        """Return `to_dict`, as a part of another definition: a made id gives way to the name.

        A made id is another one each time the definition is made, and the same content would be another version in every process.
        """
        return {**self.to_dict(), "id": self.name} if self.__dict__["_id_is_made"] else self.to_dict()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], path: str = "") -> WorkflowDefinition:
        """Read what `to_dict` wrote, or what a person wrote: only `name` must be there.

        Args:
            data: the dict.
            path: where it stands, for messages; "" where it stands alone.

        Raises:
            DefinitionError: with the path of the fault, for example `steps[2].template`.
        """
        reader = DataReader(data, path)
        given: dict[str, Any] = {item.name: reader.value(item.name) for item in fields(cls) if reader.value(item.name) is not None}
        reader.finish()
        reader.text("name")
        try:
            return cls(**given)
        except DefinitionError as error:
            raise reader.fault(error.path, error.why) from error.__cause__

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the definition as JSON text; `from_json` reads it back to an equal one with the same id.

        Raises:
            DefinitionError: a value that JSON has no form for, with its path.
        """
        data = self.to_dict()
        check_json(data, "")
        return json.dumps(data, indent=indent, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> WorkflowDefinition:
        """Read a definition from JSON text.

        Raises:
            DefinitionError: it is no JSON, has a key twice, or the path of the fault in the definition.
        """
        return cls.from_dict(read_json(text))

    def add_step(self, step: Step | Mapping[str, Any]) -> WorkflowDefinition:
        """Return a definition with one more step at its end.

        Raises:
            DefinitionError: the step is faulty, or its name or id is taken.
        """
        longer = replace(self, steps=[*self.steps, step])
        object.__setattr__(longer, "_id_is_made", self.__dict__["_id_is_made"])
        return longer

    def get_steps(self) -> list[dict[str, Any]]:
        """Return the steps as plain dicts."""
        return [step.to_dict() for step in self.plan]

    def step(self, name_or_id: str) -> Step:
        """Return one step by its name or id.

        Raises:
            DefinitionError: there is none.
        """
        for step in self.plan:
            if name_or_id in (step.id, step.name):
                return step
        raise DefinitionError("steps", f"there is no step {shown(name_or_id)} (there are: {', '.join(step.name for step in self.plan)})")

    def check(self, symphony: Host) -> None:
        """Look, before a run is created, whether this process has what the steps need.

        Raises:
            NotRegisteredError: it has not.
        """
        if self.code is not None:
            symphony.flows.get(self.code)
        policies = [self.retry_policy]
        for step in (*(step for _, step in walk((*self.plan, *self.cleanup_plan))), *self.undo_plan.values()):
            step.check(symphony)
            policies.append(step.retry)
        for policy in policies:
            if policy is not None:
                policy.check(symphony.functions)

    def __deepcopy__(self, memo: Any) -> WorkflowDefinition:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        kinds = {type(step) for _, step in walk((*self.plan, *self.cleanup_plan))}
        return _read_again, (self.to_dict(), self.__dict__["_id_is_made"], kinds)  # to find the classes is to have the kinds registered

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkflowDefinition) and self.version == other.version

    def __hash__(self) -> int:
        return hash(self.version)

    if not TYPE_CHECKING:  # a checker would take any misspelt name for one of them
        __getattr__ = pointing_out(
            {
                "save": "await symphony.workflows.save_workflow(definition), or definition.to_json() for a file",
                "load": "WorkflowDefinition.from_json(text), or await symphony.workflows.get_workflow(id)",
                "run": "await symphony.workflows.execute_workflow(definition, context)",
                "start": "await symphony.workflows.start(definition, context)",
                "to_mermaid": "definition.to_dict(), whose steps a drawing is made of; the library draws none",
                "draw": "definition.to_dict(), whose steps a drawing is made of; the library draws none",
            }
        )


def _read_again(data: dict[str, Any], id_is_made: bool, kinds: object) -> WorkflowDefinition:
    definition = WorkflowDefinition.from_dict(data)
    object.__setattr__(definition, "_id_is_made", id_is_made)
    return definition


def _read_reasons(given: Any) -> tuple[str, ...]:
    several = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, (list, tuple, set, frozenset)) else None
    if several is None or not all(isinstance(reason, str) and reason in REASONS for reason in several):
        raise DefinitionError("cleanup_on", f"must be one or both of {', '.join(map(repr, REASONS))}, not {shown(given)}")
    return tuple(reason for reason in REASONS if reason in several)
