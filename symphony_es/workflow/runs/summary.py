"""What `list_runs` gives of a run: a frozen summary, which costs the same whatever the run has done."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import field, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from symphony_es.errors import NotReadyError
from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.runs.transitions import WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.workflow.runs.run import Workflow
    from symphony_es_projections.run_list import ListedRun

__all__ = ["RunPage", "RunSummary", "summary_of"]

Load = Callable[[str], Awaitable["Workflow"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One run as of the moment it was listed.

    Attributes:
        id: of the run.
        name: of its definition. definition_id: the definition's id.
        status: where it stands; compares equal to its text.
        created_at, started_at, ended_at: UTC; None where it has not come to that.
        begun_steps, completed_steps: how many steps have begun, and have completed, nested ones included.
        errors: how many attempts at steps have failed.
        error_type, error_message: of a failed run; the message is cut after 80 characters, and 240 of what has failed of
            its clean-up stand behind it. None else.
        error_group: type, step and message without what differs from run to run, numbers and ids; None without an error.
        step: where it failed, or the step that began last of a run that has not completed.
        parent_id: id of the run that started it, or None. parent_step: the address there.
        metadata: the application's own, as JSON has them.
    """

    id: str
    name: str
    definition_id: str
    status: WorkflowStatus
    created_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    begun_steps: int
    completed_steps: int
    errors: int
    error_type: str | None
    error_message: str | None
    error_group: str | None
    step: str | None
    parent_id: str | None
    parent_step: str | None
    metadata: dict[str, Any]
    _load: Load | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> list[Any]:
        return [None if each.name == "_load" else getattr(self, each.name) for each in fields(self)]  # other processes list for themselves

    @property
    def run_id(self) -> str:
        """Its id, under the name that other engines give it."""
        return self.id

    @property
    def duration_s(self) -> float | None:
        """Seconds from its start to its end; None of a run that has not ended."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()

    async def load(self) -> Workflow:
        """Return the run itself, brought from the log where it is at rest.

        Raises:
            EntityNotFoundError: it is not there any more.
            NotReadyError: the list was read without a Symphony.
        """
        if self._load is None:
            raise NotReadyError(f"run {self.id} was listed without a Symphony: nothing can bring it to life here")
        return await self._load(self.id)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take; moments are ISO text."""
        return {
            "id": self.id,
            "name": self.name,
            "definition_id": self.definition_id,
            "status": self.status.value,
            "created_at": _iso(self.created_at),
            "started_at": _iso(self.started_at),
            "ended_at": _iso(self.ended_at),
            "duration_s": self.duration_s,
            "begun_steps": self.begun_steps,
            "completed_steps": self.completed_steps,
            "errors": self.errors,
            "error_type": self.error_type,
            "error_message": self.error_message,
            "error_group": self.error_group,
            "step": self.step,
            "parent_id": self.parent_id,
            "parent_step": self.parent_step,
            "metadata": self.metadata,
        }


class RunPage(list[RunSummary]):
    """The runs of a page.

    Attributes:
        next: what `after=` takes for the page behind this one, with the same filters; None where this is the last one.
        near: of a list without any run, names and steps there are that are written like those asked for; empty where these exist.
    """

    def __init__(self, runs: Iterable[RunSummary] = (), following: str | None = None, near: Iterable[str] = ()) -> None:
        super().__init__(runs)
        self.next = following
        self.near = list(near)


def summary_of(listed: ListedRun, load: Load | None) -> RunSummary:
    """Return the summary of a row of the list."""
    row = listed.row
    return RunSummary(
        id=row.id,
        name=row.name,
        definition_id=row.definition_id,
        status=WorkflowStatus(row.status),
        created_at=_moment(row.created),
        started_at=_moment(row.started),
        ended_at=_moment(row.ended),
        begun_steps=row.begun,
        completed_steps=row.completed,
        errors=listed.errors,
        error_type=row.error_type,
        error_message=row.error_message,
        error_group=listed.error_group,
        step=row.step,
        parent_id=row.parent,
        parent_step=row.parent_step,
        metadata={} if row.metadata is None else json.loads(row.metadata),
        _load=load,
    )


def _moment(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
