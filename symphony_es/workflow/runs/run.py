"""A run: one execution of a definition, and everything it did so far.

The run's state is what a new process needs to go on: the hash of its definition, the context, and by step address the attempts
that began, what a step under way has noted of its progress, the outputs of those that completed and the error of the attempt that
failed last. Each fact stands in one place, so a step is two small events whatever the run holds already. The engine changes the
state by `record`. The legal changes of status are the table of `transitions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.entity import entity
from symphony_es.core.world.boundary import taken_in
from symphony_es.core.world.direct import record_changes
from symphony_es.errors import UNDONE, DefinitionError, DetachedEntityError, IllegalTransitionError
from symphony_es.events.changes import REMOVE, SCALARS, SET, Change
from symphony_es.events.identifiers import DEFINITION_PREFIX, entity_key
from symphony_es.events.readable import readable
from symphony_es.events.values import plain_equal
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.runs.assigning import assign
from symphony_es.workflow.runs.cleanup import is_open, reopened
from symphony_es.workflow.runs.failures import describe_error
from symphony_es.workflow.runs.parts import RunOutputs, output_at
from symphony_es.workflow.runs.thawing import thaw
from symphony_es.workflow.runs.transitions import ENDED, Request, WorkflowStatus, next_status

if TYPE_CHECKING:
    from symphony_es.core.world.constants import Constant
    from symphony_es.core.world.live_entity import EntityRecord
    from symphony_es.core.world.members import Members

__all__ = ["Workflow", "WorkflowStatus", "describe_error"]


CLEANED_UP = "its clean-up has run: retry_from(run, step) goes on from a step, and does those again that were undone"


ABANDONED = "abandoned"
"""What `with_parent` says of a child run that has outlived the run that waited for it."""

ON_PARENT_END = ("cancel", "terminate", "abandon")
"""What becomes of a child run that has not ended when its parent ends; the first one by default."""


@entity(type="Workflow")
class Workflow:
    """One run.

    Attributes:
        id: made when left empty.
        name: the definition's name.
        status: see `TRANSITIONS`; compares equal to its text, `run.status == "completed"`.
        definition_hash: names the definition it was started with: the log keeps that once, as `symphony.Definition:<hash>`.
        definition_id: id of that definition.
        context: values by key, which steps read and write.
        arguments: of a code-first run whose steps have written to the context, what its function is called with: the context that the run
            began with. None while both are the same.
        attempts: how often the step at an address has begun.
        outputs: outputs of completed steps by address; a step has completed when it is in here.
        failures: by address `{"type", "message", "attempt", "count"}` of a step that has not completed: the error and number of its last
            failed attempt, how many have failed since it was taken up, and `retry_at` (UTC) where another one will follow, or `open`
            where the code of the run has not dealt with it.
        progress: by address, what a step under way has decided and must not decide again: a branch, an iteration, a moment.
        scopes: by address, the values that a parallel branch or a mapped item has written as a whole: each has a key space of its own.
        appended: by address of such a key space and key, what it has appended to a list around it: `{"after", "values"}`, see `spaces.py`.
        signals: by name, the payloads that nobody has taken yet, in order.
        untold: by key, the moments that hooks which must not miss them may not have been told: `{"stage", "completed", "after"}`, with
            `step`, `error` and `retry_at` where there are any.
        options: of the call that began it, what holds in later processes too: `auto_checkpoint` (False, or a policy's numbers), and
            `hooks`, the names of those that must not miss anything.
        signal_ids: names of the signals that have come with an id, by id.
        calls: of a code-first workflow, the calls made so far by strand; see `workflow/code/`.
        children: by step address, the runs that it started.
        undoable: whether a step that has an undo was taken back; of a code-first run, whether it has begun one at all: `calls`, where each
            call on record says whether it has one.
        cleanup: of a run whose clean-up has begun `{"ends": the status it ends with}`, and `"skipped": True` where the rest is left for
            later; else None.
        parent: the run that started it, or None; `parent_step` is the address there.
        on_parent_end: of a child run, one of `ON_PARENT_END`; else None.
        with_parent: what has happened to a child run because it happened to its parent: `paused`, `cancelled`, or `abandoned` when the
            parent ended; None where nothing has, or it was asked for by itself.
        forked_from: of a fork `{"run", "position", "step"}`, else None.
        deadline: when it fails by itself, UTC, or None.
        returned: what its definition's `output`, or its function, gave at its end; see `result`.
        error: of a failed run `{"type", "message", "traceback", "step"}`, all text, else None.
        created_at: UTC.
        started_at: when it first began to run, UTC; None before.
        ended_at: when it completed, failed or was cancelled, UTC; None while it can go on by itself.
        metadata: the application's own.
    """

    _symphony_at_boundary = True  # what steps hand over may be objects of foreign classes

    id: str = ""
    name: str = ""
    status: WorkflowStatus = WorkflowStatus.PENDING
    definition_hash: str = ""
    definition_id: str = ""
    context: dict[str, Any] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    scopes: dict[str, dict[str, Any]] = field(default_factory=dict)
    appended: dict[str, dict[str, Any]] = field(default_factory=dict)
    signals: dict[str, list[Any]] = field(default_factory=dict)
    untold: dict[str, dict[str, Any]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    signal_ids: dict[str, str] = field(default_factory=dict)
    calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    arguments: dict[str, Any] | None = None
    children: dict[str, Any] = field(default_factory=dict)
    undoable: bool | str = False
    cleanup: dict[str, Any] | None = None
    parent: Any = None
    parent_step: str | None = None
    on_parent_end: str | None = None
    with_parent: str | None = None
    forked_from: dict[str, Any] | None = None
    deadline: datetime | None = None
    returned: Any = None
    error: dict[str, Any] | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, definition: WorkflowDefinition, context: Mapping[str, Any], now: datetime, world: Members | None = None, **fields: Any
    ) -> Workflow:
        """Return a new run of a definition, not added to a Symphony yet.

        Args:
            definition: which.
            context: values that it begins with; where `world` is given, all that a step can hand over.
            now: when it was created.
            world: that it will be added to.
            **fields: others.

        Raises:
            UnstorableValueError: the context holds what cannot be stored.
        """
        values = {**definition.context, **context}
        run = cls(context=values if world is None else taken_in(world, {"context": values})["context"], created_at=now, **fields)
        run.follow(definition)
        return run

    def follow(self, definition: WorkflowDefinition) -> None:
        """Make a definition the one that this run goes by."""
        self.name = definition.name
        self.definition_hash = definition.content_hash
        self.definition_id = definition.id
        self._definition = (self.definition_hash, self.definition_id, definition)
        self._symphony_constant = definition.stored

    @property
    def definition(self) -> WorkflowDefinition:
        """The definition it was started with, whatever has been saved under that id since.

        Raises:
            DefinitionError: it has a kind of step that this process does not know, or the log has lost it.
        """
        read: tuple[str, str, WorkflowDefinition] | None = self.__dict__.get("_definition")
        if read is None or read[0] != self.definition_hash or read[1] != self.definition_id:
            read = self._definition = (self.definition_hash, self.definition_id, self._read_definition())
        return read[2]

    def _read_definition(self) -> WorkflowDefinition:
        key = f"{DEFINITION_PREFIX}{self.definition_hash}"
        constant: Constant | None = self.__dict__.get("_symphony_constant")
        if constant is None or constant.key != key:
            record: EntityRecord | None = self.__dict__.get("_symphony_record")
            constant = None if record is None else record.world.constants.get(key)
            if constant is None:
                why = (
                    f"run {self.id} names its definition by {key}, which the log does not have or has damaged: start a run of the same "
                    "definition, which brings it again, or restore a backup of the log"
                )
                raise DefinitionError("", why)
            self._symphony_constant = constant
        made: WorkflowDefinition | None = constant.made
        if made is None or made.id != self.definition_id:
            made = constant.made = WorkflowDefinition.from_dict({**constant.state, "id": self.definition_id})
        return made

    @property
    def result(self) -> Any:
        """What a completed run gave: its definition's `output` or its function's value, else the output of its last step; a copy."""
        if self.status is not WorkflowStatus.COMPLETED:
            return None
        plan = self.definition.plan
        own = self.definition.output is not None or self.definition.code is not None or not plan
        return thaw(self.returned if own else output_at(self, plan[-1].id) if plan[-1].id in self.recorded_outputs else None)

    def __repr__(self) -> str:
        """Return a short text: a run may hold thousands of outputs, and values that no log line should show."""
        return f"<Workflow {self.id!r} of {self.name!r}: {self.status}, steps completed: {self.completed_steps}>"

    @property
    def recorded_outputs(self) -> dict[str, Any]:
        """The outputs as the run holds them: that of a map, a loop or a parallel says where its parts are; see `runs/parts.py`."""
        held: dict[str, Any] = self.__dict__["outputs"]
        return held

    @property
    def completed_steps(self) -> int:
        """How many steps have completed, nested ones included."""
        return len(self.recorded_outputs)

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        """`{"status", "attempts"}` of each step that has begun, by address: a copy made of `attempts`, `outputs` and `failures`."""
        return {address: {"status": self.step_status(address), "attempts": count} for address, count in self.attempts.items()}

    @property
    def run_id(self) -> str:
        """Its id, under the name that other engines give it."""
        return self.id

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take: id, name, status, result, error, context, outputs and steps by address, and the moments of its
        life.
        """
        told: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "status": self.status.value,
            "result": self.result,
            "error": self.error,
            "context": self.context,
            "outputs": self.outputs,
            "steps": self.steps,
            "metadata": self.metadata,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
        }
        plain: dict[str, Any] = readable(told)
        return plain

    def step_status(self, address: str) -> str:
        """Return `pending`, `running`, `failed` or `completed`; one that a crash left under way counts as running."""
        if address in self.recorded_outputs:
            return "completed"
        attempts = self.attempts.get(address)
        if attempts is None:
            return "pending"
        failure = self.failures.get(address)
        return "failed" if failure is not None and failure["attempt"] == attempts else "running"

    def is_completed(self, address: str) -> bool:
        """Return whether the step at this address has completed: then it never runs again."""
        return address in self.__dict__["outputs"]

    def check(self, request: Request) -> WorkflowStatus:
        """Return the status that a request leads to; nothing is changed.

        Raises:
            IllegalTransitionError: it may not be made now.
        """
        if request == "resume" and self.cleanup is not None and self.status in ENDED:
            if is_open(self):
                return self.check("clean_up")
            raise IllegalTransitionError(self.id, self.status, WorkflowStatus.RUNNING, why=CLEANED_UP)
        return next_status(self.id, self.status, request)

    def move(self, request: Request, now: datetime) -> None:
        """Change the status as a request asks, with the moments that belong to it.

        Raises:
            IllegalTransitionError: it may not be made now. Nothing has been changed.
        """
        assign(self, self.moved(request, now))

    def moved(self, request: Request, now: datetime) -> list[Change]:
        """Return what a request changes: the status, and the moments that belong to it.

        Raises:
            IllegalTransitionError: it may not be made now.
        """
        status = self.check(request)
        changes: list[Change] = []
        if request in ("resume", "retry"):
            changes = self._gone_on(status, now)
        ends = request in ("complete", "fail", "end_cancelled")
        if ends or self.ended_at is not None:
            changes.append((SET, ("ended_at",), now if ends else None))
        if self.status is not status:
            changes.append((SET, ("status",), status))
        return changes

    def _gone_on(self, status: WorkflowStatus, now: datetime) -> list[Change]:
        if self.cleanup is not None and status is WorkflowStatus.CANCELLING:
            return self.cleanup_reopened()
        changes: list[Change] = [] if self.started_at is not None else [(SET, ("started_at",), now)]
        given_up = [name for name in ("error", "cleanup", "with_parent") if getattr(self, name) is not None]
        if self.with_parent == ABANDONED:  # what has outlived its parent's hold on it goes on without it
            given_up.remove("with_parent")
        return changes + [(SET, (name,), None) for name in given_up]

    def cleanup_reopened(self) -> list[Change]:
        """Return what it changes that what failed in the clean-up, or was left out of it, is tried again; asked before its status changes.

        The error of a run that has ended is that of its clean-up. While that is under way, it is what the main line failed of: it stays.
        """
        changes = reopened(self)
        of_cleanup = self.status in ENDED and self.cleanup is not None and self.cleanup["ends"] != WorkflowStatus.FAILED
        if self.error is not None and of_cleanup:
            changes.append((SET, ("error",), None))
        return changes

    def record(
        self, name: str, changes: Sequence[Change], *, step: str | None = None, attempt: int | None = None, data: Any = None
    ) -> bytes | None:
        """Put on record that something happened to the run, with what it changes; the engine calls it, and it owns the run.

        Encoded first, then submitted, then changed: see `symphony_es.core.world.direct`, which says for which changes that does not hold.
        Those are made as assignments, in a block that is submitted at its end or taken back. The effect is the same.

        Args:
            name: what happened, in the past tense.
            changes: of the run's fields, as tuples of `events.changes`; values as the application has given them.
            step: address of the step that it happened to.
            attempt: number of the attempt at it, from 1.
            data: what the event says beyond its effect; plain data.

        Returns:
            The event's id; None inside of a transaction, which is submitted later.

        Raises:
            UnstorableValueError, LimitExceededError: it cannot be stored. The run is as it was before.
            EntityBusyError: a transaction that this is no part of claims the run, which is as it was before.
            EntityOutOfStepError: earlier changes of the run could not be appended.
            DetachedEntityError: it is no part of a Symphony.
        """
        record: EntityRecord | None = self.__dict__.get("_symphony_record")
        if record is None:
            raise DetachedEntityError(entity_key("Workflow", self.id), UNDONE)
        world: Any = record.world
        with world.lock:
            event_id = record_changes(world, record, name, changes, step=step, attempt=attempt, data=data)
            if event_id is not None:
                return event_id
            with world.recording(name, data, entity=self, step=step, attempt=attempt) as recording:
                assign(self, changes)
        found: bytes | None = recording.event_ids.get(record.key)
        return found

    def completion(self, address: str, output: Any) -> list[Change]:
        """Return what the completion of a step changes."""
        changes: list[Change] = [(SET, ("outputs", address), output)]
        if address in self.failures:
            changes.append((REMOVE, ("failures", address)))
        if address in self.progress:
            changes.append((REMOVE, ("progress", address)))
        return changes

    def failure(self, address: str, error: Mapping[str, Any], count: int, retry_at: datetime | None) -> list[Change]:
        """Return what the failure of an attempt at a step changes."""
        failure = {"type": error["type"], "message": error["message"], "attempt": self.attempts.get(address, 1), "count": count}
        return [(SET, ("failures", address), failure if retry_at is None else {**failure, "retry_at": retry_at})]

    def noted(self, address: str, progress: Any) -> list[Change]:
        """Return what a step's note of its progress changes."""
        before = self.progress.get(address)
        if isinstance(before, dict) and type(progress) is dict and before.keys() == progress.keys():
            alike = all(type(before[key]) in SCALARS and type(item) in SCALARS for key, item in progress.items())
            if alike:
                return [(SET, ("progress", address, key), item) for key, item in progress.items() if not plain_equal(before[key], item)]
        return [(SET, ("progress", address), progress)]


def _outputs(run: Workflow) -> RunOutputs:
    return RunOutputs(run.recorded_outputs, run.failures)


Workflow.outputs = property(_outputs)  # type: ignore[assignment]  # stored under this name, and read through a view
