"""Writes `format_3.snap`: a snapshot in format 3. Run by hand, once per format (`python -m tests.compatibility.generate_snapshot_3`); the
files of a released format never change.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from symphony_es.core.past.snapshots.writing import snapshot_chunks
from symphony_es.events.fold import Damage, EntityState
from symphony_es.events.references import EntityReference
from symphony_es.events.values import Tagged

SNAPSHOT = Path(__file__).with_name("format_3.snap")

POSITION = 1234
ANCHOR = (bytes(range(16)), bytes(range(32)), 1_700_000_000_123_456_789)
STATES = [
    EntityState("Invoice:1", {"total": Decimal("1.00"), "customer": EntityReference("Customer", "7")}, 3, 1200, 2, 1),
    EntityState("Invoice:2", {"total": 1}, 5, 1234, 1, 0, Damage(4, 1210, "change 0 (remove at lines[0]) does not fit the state: ä")),
    EntityState("Invoice:3", None, 1, 1000, 1, 0, Damage(1, 1000, "change 0 (set at total) does not fit the state")),
    EntityState("Invoice:ä/:", {"due": datetime(2026, 1, 2, tzinfo=UTC), "lines": [{"n": 1}, (2, b"3")], "tags": {"x", 1}}, 1, 900),
    EntityState("Zoo:1", {"animals": 3}, 1, 800),
    EntityState("Task:r/t", {"workflow_id": "r", "status": Tagged("enum", "symphony.TaskStatus", "COMPLETED", value="completed")}, 2, 700),
    EntityState("Workflow:r", {"status": Tagged("enum", "symphony.WorkflowStatus", "FAILED", value="failed"), "untold": {}}, 9, 710),
    EntityState("symphony.Checkpoint:c", {"name": "not counted"}, 1, 1000),
]


def snapshot_bytes() -> bytes:
    """The whole snapshot."""
    deleted = EntityState("Invoice:0", None, 5, 1234)  # of which a snapshot says nothing
    return b"".join(snapshot_chunks(POSITION, ANCHOR, sorted([deleted, *STATES], key=lambda state: state.key)))


if __name__ == "__main__":
    content = snapshot_bytes()
    if SNAPSHOT.exists() and SNAPSHOT.read_bytes() != content:
        raise SystemExit(f"{SNAPSHOT} exists: what is stored does not change; a new shape is a new format with a file of its own")
    SNAPSHOT.write_bytes(content)
