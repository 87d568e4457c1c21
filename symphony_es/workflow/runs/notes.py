"""Notes of runs that have ended in this process: their rows of the list of runs, whose events need not be read for it then.

They are taken as runs end, and the list that takes them in is made when somebody asks for it, or when many have gathered.
"""

from __future__ import annotations

from symphony_es.events.references import EntityReference
from symphony_es.workflow.runs.run import Workflow
from symphony_es_projections.run_rows import RunRow, row_of

__all__ = ["GATHERED", "row_of_run"]

GATHERED = 512
"""So many runs end before the list is brought up to date by itself."""


def row_of_run(run: Workflow, version: int) -> RunRow:
    """Return the row of a run as it is now."""
    parent = run.parent
    return row_of(
        run.id,
        version,
        {
            "name": run.name,
            "status": run.status,
            "definition_id": run.definition_id,
            "created_at": run.created_at,
            "started_at": run.started_at,
            "ended_at": run.ended_at,
            "attempts": run.attempts,
            "outputs": run.recorded_outputs,
            "error": run.error,
            "parent": EntityReference("Workflow", parent.id) if isinstance(parent, Workflow) else parent,
            "parent_step": run.parent_step,
            "metadata": run.metadata,
            "forked_from": run.forked_from,
        },
    )
