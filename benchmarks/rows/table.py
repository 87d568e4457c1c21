"""All rows, in the order of the report."""

from __future__ import annotations

from benchmarks.measuring import Row
from benchmarks.rows import appending, finished, folding, growth, objects, recording, recovering, replaying, states, stepping

__all__ = ["ROWS"]

ORDER = (
    "one_writer", "many_writers", "folding", "engine_steps", "concurrent_runs", "after_kill", "disk_per_step", "late_steps",
    "checkpointing", "resuming", "entity_in_the_past", "write_amplification", "fold_memory", "append_growth", "assigning", "list_appending",
    "entity_memory", "one_foreign_object", "importing", "many_runs", "step_record",
    "finished_runs", "code_replay", "many_items",
)  # fmt: skip
_BY_NAME = {
    row.name: row
    for module in (appending, finished, folding, growth, objects, recording, recovering, replaying, states, stepping)
    for row in module.ROWS
}
ROWS: tuple[Row, ...] = tuple(_BY_NAME[name] for name in ORDER)
