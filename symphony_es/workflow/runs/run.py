"""A run: one execution of a definition, and everything it did so far.

The run's state is what a new process needs to go on: a copy of the definition, the context, and by step address the attempts
that began, the outputs of those that completed and the error of the one that failed last. Each fact stands in one place, so a
step is two small events whatever the run holds already. The engine changes the state through the methods here. The legal changes
of status are one table.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import field
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from symphony_es.core.state.restore import restore_manager
from symphony_es.core.state.tracking.entity import entity
from symphony_es.errors import IllegalTransitionError
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.runs.context import thaw

__all__ = ["TRANSITIONS", "UNFINISHED", "Workflow", "WorkflowStatus", "describe_error"]

MAX_TRACEBACK_CHARS = 8_000
"""A traceback is kept to be read; of a deep recursion the innermost calls say enough."""


class WorkflowStatus(StrEnum):
    """Where a run stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


# Registered before the entity that names it: an application may well have a WorkflowStatus of its own.
restore_manager.types.register(WorkflowStatus, "symphony.WorkflowStatus")

TRANSITIONS: Mapping[WorkflowStatus, frozenset[WorkflowStatus]] = MappingProxyType(
    {
        WorkflowStatus.PENDING: frozenset({WorkflowStatus.RUNNING}),
        # Running again is what happens to a run that a crash or an interruption left running.
        WorkflowStatus.RUNNING: frozenset({WorkflowStatus.RUNNING, WorkflowStatus.COMPLETED, WorkflowStatus.FAILED}),
        WorkflowStatus.FAILED: frozenset({WorkflowStatus.RUNNING}),
        WorkflowStatus.COMPLETED: frozenset(),
    }
)
"""Which status may follow which."""

UNFINISHED = frozenset({WorkflowStatus.PENDING, WorkflowStatus.RUNNING})
"""What `recover` goes on with: a failed run waits for someone who knows why."""


@entity(type="Workflow")
class Workflow:
    """One run.

    Attributes:
        id: made when left empty.
        name: the definition's name.
        status: see `TRANSITIONS`; compares equal to its text, `run.status == "completed"`.
        definition_data: the definition it was started with, as plain data.
        context: values by key, which steps read and write.
        attempts: how often the step at an address has begun.
        outputs: outputs of completed steps by address; a step has completed when it is in here.
        failures: `{"type", "message"}` of a step's last attempt, by address, until the next attempt begins.
        error: of a failed run `{"type", "message", "traceback", "step"}`, all text, else None.
        created_at: UTC.
        started_at: when it first began to run, UTC; None before.
        ended_at: when it completed or failed, UTC; None while it can go on by itself.
        metadata: the application's own.
    """

    id: str = ""
    name: str = ""
    status: WorkflowStatus = WorkflowStatus.PENDING
    definition_data: dict[str, Any] = field(default_factory=dict)
    context: dict[str, Any] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_at: datetime | None = None
    ended_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, definition: WorkflowDefinition, context: Mapping[str, Any]) -> Workflow:
        """A new run of a definition, not added to a Symphony yet."""
        run = cls(name=definition.name, definition_data=definition.to_dict(), context=dict(context))
        run._definition = definition
        return run

    @property
    def definition(self) -> WorkflowDefinition:
        """The definition it was started with, whatever has been saved under that id since."""
        cached: WorkflowDefinition | None = self.__dict__.get("_definition")
        if cached is None:
            cached = self._definition = WorkflowDefinition.from_dict(thaw(self.definition_data))
        return cached

    @property
    def definition_id(self) -> str:
        """Id of that definition."""
        return str(self.definition_data["id"])

    @property
    def completed_steps(self) -> int:
        """How many steps have completed."""
        return len(self.outputs)

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        """`{"status", "attempts"}` of each step that has begun, by address: a copy made of `attempts`, `outputs` and `failures`."""
        return {address: {"status": self.step_status(address), "attempts": count} for address, count in self.attempts.items()}

    def step_status(self, address: str) -> str:
        """`pending`, `running`, `failed` or `completed`; one that a crash left under way counts as running."""
        if address in self.outputs:
            return "completed"
        if address in self.failures:
            return "failed"
        return "running" if address in self.attempts else "pending"

    def is_completed(self, address: str) -> bool:
        """Whether the step at this address has completed: then it never runs again."""
        return address in self.outputs

    def check_transition(self, status: WorkflowStatus) -> None:
        """Does nothing when the run may become `status`.

        Raises:
            IllegalTransitionError: it may not.
        """
        if status not in TRANSITIONS[self.status]:
            raise IllegalTransitionError(self.id, self.status, status)

    def begin(self) -> None:
        """The run begins, or goes on."""
        self.check_transition(WorkflowStatus.RUNNING)
        if self.started_at is None:
            self.started_at = datetime.now(UTC)
        if self.error is not None:
            self.error = None
        if self.ended_at is not None:
            self.ended_at = None
        if self.status is not WorkflowStatus.RUNNING:
            self.status = WorkflowStatus.RUNNING

    def begin_step(self, address: str) -> int:
        """A step begins; returns the number of the attempt, from 1."""
        attempt = self.attempts.get(address, 0) + 1
        self.attempts[address] = attempt
        self.failures.pop(address, None)
        return attempt

    def complete_step(self, address: str, output: Any) -> None:
        """A step has completed."""
        self.outputs[address] = output

    def fail_step(self, address: str, error: Mapping[str, Any]) -> None:
        """An attempt at a step has failed."""
        self.failures[address] = {"type": error["type"], "message": error["message"]}

    def complete(self) -> None:
        """All steps have completed."""
        self._end(WorkflowStatus.COMPLETED)

    def fail(self, error: Mapping[str, Any]) -> None:
        """The run ends with an error; it can be resumed."""
        self.error = dict(error)
        self._end(WorkflowStatus.FAILED)

    def _end(self, status: WorkflowStatus) -> None:
        self.check_transition(status)
        self.ended_at = datetime.now(UTC)
        self.status = status


def describe_error(error: BaseException, step: str | None) -> dict[str, Any]:
    """An error as a state can hold it: type, message and traceback as text, and the address of the step it came from."""
    try:
        message = str(error)
    except Exception as second:  # noqa: BLE001  the error's own __str__ is the application's code
        message = f"(its message could not be made: {type(second).__name__})"
    lines = "".join(traceback.format_exception(error))
    shown = lines if len(lines) <= MAX_TRACEBACK_CHARS else f"…{lines[-MAX_TRACEBACK_CHARS:]}"
    return {"type": type(error).__name__, "message": _storable(message), "traceback": _storable(shown), "step": step}


def _storable(text: str) -> str:
    # Lone surrogates, for example of an undecodable file name, are the one thing in a text that a state cannot hold.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
