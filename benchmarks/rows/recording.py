"""What is on record of each step beyond its effect: its bytes, and what they cost of a step's time."""

from __future__ import annotations

import time
from typing import Any
from unittest.mock import patch

import symphony_es.facades.workflows  # noqa: F401  what runs need is imported before any clock starts; Symphony brings it late
import symphony_es.workflow.engine.runner as runner
from benchmarks.measuring import Contender, Goal, Place, Row, Sample
from benchmarks.rows.appending import OURS
from benchmarks.workload import opened
from symphony_es.events.codec import encode_value
from symphony_es.events.rows import decode_row
from symphony_es.workflow.record.attempts import read_attempts

__all__ = ["ROWS"]

DIGESTS, EDGE, USED = 32, 12, 60
"""Bytes that each of these may take: both digests, one thing that was read, the usage of one model."""

TURNS = 5
"""With and without, so often each; the least counts."""


async def ask(context: Any) -> str:
    """A step that reads its input and one key, and has called a model."""
    context.used("claude-sonnet-4-5-20250929", input_tokens=1200, output_tokens=300, cache_read_tokens=900, cost=0.004)
    return f"{context.inputs['question']}{context['topic']}"


async def _run(place: Place, name: str, steps: int) -> tuple[float, float, float, float]:
    """CPU microseconds of the event loop a step, microseconds a step, bytes said a step, and the most that these may be."""
    async with opened(place.own / name) as symphony:
        symphony.functions.register("ask", ask)
        step = {"kind": "function", "name": "ask", "function": "ask", "inputs": {"question": "{{ question }} {{ iteration }}"}}
        loop = {"kind": "loop", "name": "loop", "max_iterations": steps, "steps": [step]}
        context = {"question": "What is the weather like?", "topic": "rain"}
        begun, began = time.thread_time(), time.perf_counter()
        run = await symphony.workflows.execute_workflow({"name": "w", "steps": [loop]}, context, auto_checkpoint=False)
        spent, took = (time.thread_time() - begun) / steps * 1e6, (time.perf_counter() - began) / steps * 1e6
        assert run.status == "completed", run.error
        rows = await symphony.log.read_entity_rows(f"Workflow:{run.id}")
        said = [decode_row(row).data for row in rows if row[3] in ("WorkflowStepStarted", "WorkflowStepCompleted")]
        attempts = await read_attempts(symphony, run.id)
    edges = sum(len(attempt.reads) + len(attempt.body_reads) for attempt in attempts)
    used = sum(len(attempt.usage) for attempt in attempts)
    most = DIGESTS * len(attempts) + EDGE * edges + USED * used
    return spent, took, sum(len(encode_value(data)) - 1 for data in said if data is not None) / steps, most / steps


async def record_ours(place: Place) -> Sample:
    """The same run with what steps say, and without."""
    steps, with_it, without, whole = place.sizes["steps"], [], [], []
    for turn in range(TURNS):
        spent, took, size, most = await _run(place, f"with{turn}", steps)
        with_it.append(spent)
        whole.append(took)
        with patch.object(runner, "describe_start", lambda *_: None), patch.object(runner, "describe_end", lambda *_: None):
            without.append((await _run(place, f"without{turn}", steps))[0])
    extra = max(0.0, min(with_it) - min(without))
    figures = {"bytes_per_step": size, "of_allowed": size / most, "us_per_step": extra, "share": extra / min(whole)}
    return Sample(figures=figures, settings=OURS)


RECORD = Row(
    name="step_record",
    title="engine: what is on record of each step beyond its effect",
    unit="bytes/step",
    contenders=(Contender(name="ours", target="benchmarks.rows.recording:record_ours", what="two templates, a key, one call of a model"),),
    goals=(
        Goal(text="bytes, of 32 + 12 an edge + 60 for usage", of="ours.of_allowed", at_most=1.0),
        Goal(text="CPU time that it takes, of a step's time", of="ours.share", at_most=0.03),
        Goal(text="CPU microseconds a step", of="ours.us_per_step"),
    ),
    sizes={"default": {"steps": 2000}, "quick": {"steps": 100}},
    rounds=1,
)
ROWS = (RECORD,)
