"""What is put into logs: entities, events, workflows. Text differs from step to step, so that nothing compresses by accident."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from symphony_es import Symphony, entity
from symphony_es.events.changes import SET
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.identifiers import uuid7

__all__ = ["STEP_BYTES", "Item", "event", "opened", "sequence_of", "size_of", "step_text"]

STEP_BYTES = 200
POOL = os.urandom(1 << 16).hex()


@entity(type="BenchmarkItem")
class Item:
    """An entity of the benchmarks."""

    id: str = ""
    text: str = ""
    number: int = 0


def text_of(number: int, size: int) -> str:
    """A text of a size that is another one for another number."""
    start = number * 101 % (len(POOL) - size)
    return POOL[start : start + size]


def step_text(number: int) -> str:
    """What a step appends."""
    return text_of(number, STEP_BYTES)


def event(key: str, version: int, size: int = 100) -> NewEvent:
    """An event that sets one text, of an entity that the first one creates."""
    text = text_of(version, size)
    change: Any = (SET, (), {"text": text}) if version == 1 else (SET, ("text",), text)
    event_id = uuid7(time.time_ns(), os.urandom(16))
    return NewEvent(entity_key=key, version=version, name="Changed", changes=[change], metadata=EventMetadata(), event_id=event_id)


@asynccontextmanager
async def opened(directory: Path, **settings: Any) -> Any:
    """A Symphony on disk."""
    async with Symphony({"state_dir": directory, **settings}, persistence_enabled=True) as symphony:
        yield symphony


def sequence_of(symphony: Symphony, steps: int, function: Callable[..., Any]) -> Any:
    """A definition of so many steps, one after the other, all of one function."""
    symphony.functions.register("work", function)
    builder = symphony.build_workflow().create("benchmark")
    for number in range(steps):
        builder.add_function(f"s{number}", "work")
    return builder.build()


def size_of(directory: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
