"""Workflow runs: which there are, and how far each is."""

from __future__ import annotations

from datetime import datetime

from symphony_es.events.event import Event
from symphony_es.events.fold import Fold
from symphony_es.late_dataclasses import dataclass
from symphony_es_projections.projection import Projection

__all__ = ["RunEntry", "Runs"]

RUN_TYPE = "Workflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEntry:
    """One run, as of its last event.

    Attributes:
        status: `pending`, `running`, `completed`, `failed`, …
        completed_steps: how many steps have an output.
        started_at: when its first event was committed. changed_at: its last one.
        position: position of its last event.
    """

    id: str
    name: str
    status: str
    completed_steps: int
    started_at: datetime
    changed_at: datetime
    position: int


class Runs(Projection):
    """All runs that have not been deleted."""

    name = "runs"

    def __init__(self) -> None:
        super().__init__()
        self._fold = Fold()
        self._entries: dict[str, RunEntry] = {}

    def apply(self, event: Event) -> None:
        """Take one event in."""
        if event.entity_type != RUN_TYPE:
            return
        self._fold.apply_event(event)
        state = self._fold.states[event.entity_key].data
        before = self._entries.pop(event.entity_id, None)
        if state is None:
            return
        status = state.get("status")
        self._entries[event.entity_id] = RunEntry(
            id=event.entity_id,
            name=str(state.get("name", "")),
            status=str(getattr(status, "data", status)).lower(),
            completed_steps=len(state.get("outputs") or ()),
            started_at=before.started_at if before is not None else event.recorded_at,
            changed_at=event.recorded_at,
            position=event.position,
        )

    def get(self, run_id: str) -> RunEntry | None:
        """Return one run, or None."""
        return self._entries.get(run_id)

    def latest_first(self, status: str | None = None) -> list[RunEntry]:
        """Return all runs, or those with a status; the one changed last comes first."""
        return [entry for entry in reversed(self._entries.values()) if status in (None, entry.status)]
