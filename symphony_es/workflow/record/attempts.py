"""What is on record of the attempts at a run's steps, read from its events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import field, fields, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from symphony_es.core.past.resting import definition_key
from symphony_es.events.event import Event
from symphony_es.events.identifiers import entity_key
from symphony_es.events.readable import readable
from symphony_es.events.rows import decode_row
from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.record.canonical import INPUT_DIGEST_BYTES
from symphony_es.workflow.record.inputs import CUT_OFF
from symphony_es.workflow.record.reads import Read, read_edges, short_name
from symphony_es.workflow.record.usage import ModelUsage, RunUsage, read_usage
from symphony_es.workflow.runs.run import Workflow

if TYPE_CHECKING:
    from symphony_es.core.host import Host

__all__ = ["StepAttempt", "read_attempts", "read_run_usage", "said_of_step"]

STARTS = ("WorkflowStepStarted", "WorkflowStepRetried")
ENDS: Mapping[str, Literal["completed", "failed"]] = {"WorkflowStepCompleted": "completed", "WorkflowStepFailed": "failed"}
_TOLD = frozenset({*STARTS, *ENDS, CUT_OFF})
PAGE = 200
"""Rows between two turns of the event loop."""


@dataclass(frozen=True, kw_only=True)
class StepAttempt:
    """One attempt at one step.

    Attributes:
        step: the step's address.
        attempt: its number, from 1.
        position: of the event of its start.
        started_at: when that was committed, UTC.
        outcome: `completed` or `failed`; None while it runs, or where it was cut off.
        ended_at: when its end was committed, UTC.
        input_digest: 16 bytes that another input changes; None where the log is older than digests.
        code_digest: 8 bytes that another code of its function changes; None where it calls none.
        input_complete: whether all of the input could be looked at; an object of an ordinary class counts by its class.
        reads: what its input was made of.
        body_reads: what its body has read of the run beside that.
        input: the input itself, where it was to be recorded; `{"cut": text, "bytes": size}` of a large one.
        usage: what it has used, by model and currency.
    """

    step: str
    attempt: int
    position: int
    started_at: datetime
    outcome: Literal["completed", "failed"] | None = None
    ended_at: datetime | None = None
    input_digest: bytes | None = None
    code_digest: bytes | None = None
    input_complete: bool = True
    reads: tuple[Read, ...] = ()
    body_reads: tuple[Read, ...] = ()
    input: Any = field(default=None, repr=False)
    usage: tuple[ModelUsage, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take, by the names of the attributes; digests as hexadecimal digits, reads as text."""
        told: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        told["input_digest"], told["code_digest"] = (None if one is None else one.hex() for one in (self.input_digest, self.code_digest))
        told["reads"], told["body_reads"] = [str(read) for read in self.reads], [str(read) for read in self.body_reads]
        told["usage"] = [used.to_dict() for used in self.usage]
        plain: dict[str, Any] = readable(told)
        return plain


def said_of_step(name: str, data: Any, name_of: Callable[[bytes], str | None] | None = None) -> dict[str, Any]:
    """Return what the data of a step's event say, by the names of `StepAttempt`; nothing of other events.

    Args:
        name: of the event.
        data: of the event.
        name_of: gives the name that a digest stands for, where it is known.
    """
    if name in STARTS:
        return _said_at_start(data, name_of)
    if (name in ENDS or name == CUT_OFF) and isinstance(data, Mapping):
        return {"usage": read_usage(data), "body_reads": read_edges(data.get("read") or (), name_of)}
    return {}


def _said_at_start(data: Any, name_of: Callable[[bytes], str | None] | None) -> dict[str, Any]:
    if not isinstance(data, (list, tuple)) or not data or type(data[0]) is not bytes:
        return {}
    digests, *rest = data
    said: dict[str, Any] = {
        "input_digest": digests[:INPUT_DIGEST_BYTES],
        "code_digest": digests[INPUT_DIGEST_BYTES:] or None,
        "input_complete": None not in rest,
        "reads": read_edges([item for item in rest if isinstance(item, (str, bytes, int))], name_of),
    }
    recorded = rest[-1] if rest and isinstance(rest[-1], dict) else None
    return said if recorded is None else {**said, "input": recorded.get("input")}


async def read_attempts(symphony: Host, run_id: str) -> list[StepAttempt]:
    """Return the attempts at a run's steps, in the order of their starts.

    Raises:
        PositionNotFoundError: a part of the history is not kept.
        DamagedEventError: an event of it is damaged.
    """
    events = [event async for event in _events(symphony, run_id)]
    if not any(_has_digests(event.data) for event in events):
        return _attempts(events, None)
    names = _Names(await _holders(symphony, run_id), {event.metadata.step or "" for event in events}, symphony.world.records)
    made = _attempts(events, names)
    if any(read.kind == "entity" and read.name is None for attempt in made for read in (*attempt.reads, *attempt.body_reads)):
        for entity_type in ("Workflow", "Task"):  # one that is at rest by now
            names.add(await symphony.log.alive_keys(entity_type))
        made = _attempts(events, names)
    return made


def _attempts(events: Iterable[Event], names: _Names | None) -> list[StepAttempt]:
    made: list[StepAttempt] = []
    open_at: dict[str, int] = {}
    for event in events:
        step = event.metadata.step or ""
        said = said_of_step(event.name, event.data, None if names is None else partial(names.find, step))
        if event.name in STARTS:
            open_at[step] = len(made)
            attempt = event.metadata.attempt or 1
            made.append(StepAttempt(step=step, attempt=attempt, position=event.position, started_at=event.recorded_at, **said))
        elif step in open_at:
            begun = made[open_at[step]]
            outcome = ENDS.get(event.name)
            made[open_at.pop(step)] = replace(begun, **said, outcome=outcome, ended_at=event.recorded_at)
    return made


def _has_digests(data: Any) -> bool:
    said = data.get("read") if isinstance(data, Mapping) else data[1:] if isinstance(data, (list, tuple)) else None
    return any(type(item) is bytes for item in said or ())


class _Names:
    """What a digest of a name in the events of a run may stand for: looked up in tables, so that an event costs what it says itself.

    Args:
        holders: of the keys of the run's context and scopes.
        everywhere: names that do not depend on the step, in groups.
    """

    def __init__(self, holders: Iterable[Iterable[Any]], *everywhere: Iterable[str]) -> None:
        self._keys = {"item", "index", "iteration", "results", *(str(key) for holder in holders for key in holder)}
        self._everywhere: dict[bytes, str] = {}
        for names in everywhere:
            self.add(names)

    def add(self, names: Iterable[str]) -> None:
        """Take further names that do not depend on the step."""
        self._everywhere |= {digest: name for name in names if type(digest := short_name(name)) is bytes}

    def find(self, step: str, digest: bytes) -> str | None:
        """Return an address, the key of an entity, or a key of the context at a place that the step sees."""
        if digest in self._everywhere:
            return self._everywhere[digest]
        parts = step.split("/")
        for depth in range(len(parts) + 1):
            place = "/".join(parts[:depth])
            for key in self._keys:
                if short_name(f"{place}//{key}") == digest:
                    return f"{place}//{key}"
        return None


async def _holders(symphony: Host, run_id: str) -> list[Iterable[Any]]:
    """Return the context and the scopes of a run, and the names that its maps give items; of one that is at rest, as the log has them."""
    key = entity_key("Workflow", run_id)
    record = symphony.world.records.get(key)
    run = None if record is None else record.obj
    if isinstance(run, Workflow):
        return [run.context, *run.scopes.values(), *run.appended.values(), _item_names(run.definition.to_dict())]
    state = (await symphony.state_history.entities_at([key], symphony.log.head)).get(key)
    if state is None or state.data is None:
        return []
    held, definition = state.data, definition_key(state)
    spaces = [found for name in ("scopes", "appended") if isinstance(found := held.get(name), dict)]
    holders = [
        holder for holder in (held.get("context"), *(each for space in spaces for each in space.values())) if isinstance(holder, dict)
    ]
    if definition is None:
        return [*holders]
    constant = (await symphony.state_history.entities_at([definition], symphony.log.head)).get(definition)
    return [*holders, _item_names(None if constant is None else constant.data)]


def _item_names(definition: Any) -> set[str]:
    """Return the names under which maps of a definition, as plain data, give their items."""
    found, left = set[str](), [definition]
    while left:
        part = left.pop()
        if isinstance(part, Mapping):
            name = part.get("as")
            found |= {name} if isinstance(name, str) else set()
            left += part.values()
        elif isinstance(part, (list, tuple)):
            left += part
    return found


async def read_run_usage(symphony: Host, run_ids: Iterable[str]) -> RunUsage:
    """Return what runs have used, added up by model and currency, and by step."""
    said: list[tuple[str, ModelUsage]] = []
    for run_id in run_ids:
        async for event in _events(symphony, run_id):
            said += [(event.metadata.step or "", used) for used in read_usage(event.data)]
    return RunUsage.of(said)


async def _events(symphony: Host, run_id: str) -> AsyncIterator[Event]:
    async for page in symphony.log.entity_pages(entity_key("Workflow", run_id), page=PAGE):
        for row in page:
            if row[3] in _TOLD:
                yield decode_row(row)
        await asyncio.sleep(0)
