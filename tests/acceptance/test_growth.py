"""What a run costs: bytes on disk in proportion to what happened, the same for every step."""

from __future__ import annotations

from pathlib import Path

from symphony_es import Symphony


async def size_of_run(directory: Path, steps: int) -> tuple[int, list[int]]:
    """Bytes on disk after close, and the size of each step's two events."""
    symphony = Symphony(persistence_enabled=True)
    await symphony.setup(directory)
    symphony.functions.register("answer", lambda context: "x" * 200)
    builder = symphony.build_workflow().create("long")
    for number in range(steps):
        builder.add_processing_step(f"s{number}", "", "answer")
    run = await symphony.workflows.execute_workflow(builder.build(), auto_checkpoint=False)
    assert run.status == "completed"
    await symphony.create_checkpoint("end")
    rows = [row for page in [await symphony.log.read_entity_rows(f"Workflow:{run.id}", limit=10**6)] for row in page]
    sizes = [len(row[4]) for row in rows if row[3].startswith("WorkflowStep")]
    await symphony.close()
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()), sizes


async def test_a_thousand_steps_take_at_most_a_megabyte(tmp_path: Path) -> None:
    """Two events a step, each of 200 bytes of result, snapshots included; the last step's events are as small as the first's."""
    total, sizes = await size_of_run(tmp_path / "state", 1000)
    assert total <= 1_000_000
    assert len(sizes) == 2000
    assert max(sizes[-20:]) <= max(sizes[:20]) + 8


async def test_three_times_the_steps_take_three_times_the_room(tmp_path: Path) -> None:
    """Growth is linear: peers that store the whole state at each step need nine times the room."""
    small, _ = await size_of_run(tmp_path / "small", 500)
    large, _ = await size_of_run(tmp_path / "large", 1500)
    assert large <= 3.3 * small
