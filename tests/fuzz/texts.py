"""JSON, texts of commands and of callers, definitions, requests and exports."""

from __future__ import annotations

import argparse
import io
import json
import random
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from symphony_es.cli.commands.registry import entity_key, event_name, moment, past_time, run_id, seconds, whole_number
from symphony_es.core.past.moment_texts import read_age_or_time, read_checkpoint, read_moment, read_time
from symphony_es.core.world.inbox import Request
from symphony_es.errors import SymphonyError, format_path
from symphony_es.events import codec
from symphony_es.events.identifiers import check_class_name, id_of_text
from symphony_es.events.paths import parse_path
from symphony_es.events.references import EntityReference
from symphony_es.events.rows import decode_row
from symphony_es.shown import MOST_MESSAGE
from symphony_es.transfer.jsonl import FORMAT, VERSION, _Lines
from symphony_es.transfer.text import event_as_json
from symphony_es.workflow.definitions.definition import WorkflowDefinition
from symphony_es.workflow.language.expressions import check_expression
from symphony_es.workflow.language.templates import check_template, render
from tests.fuzz.hostile import damaged, json_value, number, text
from tests.fuzz.values import body, sealed

__all__ = ["check_definition", "check_export", "check_message", "check_request", "check_template_text", "check_texts"]

REQUEST_NAMES = (
    "verb",
    "run",
    "arguments",
    "actor",
    "reason",
    "format",
    "name",
    "payload",
    "step",
    "grace_s",
    "cleanup",
    "before",
    "status",
)
DEFINITION_NAMES = (
    "id", "name", "kind", "steps", "template", "inputs", "function", "condition", "then", "else", "over", "as", "step", "until", "seconds",
    "signal", "retry", "timeout_s", "undo", "workflow_id", "max_attempts", "delay_s", "factor", "on", "never_on", "metadata", "branches",
    "while", "max_iterations", "max_concurrency", "default", "output", "output_key", "model", "description", "context", "cleanup",
    "cleanup_on", "on_error", "on_limit", "atomic", "within_s", "definition", "record_inputs", "agent_type",
)  # fmt: skip


def check_message(error: Exception) -> None:
    """A message is no longer than messages are, and can be seen whole."""
    told = str(error)
    assert len(told) <= MOST_MESSAGE, f"a message of {len(told)} characters"
    assert told.replace("\n", "").isprintable(), f"a message with control characters: {told[:200]!r}"


def _json(rng: random.Random, value: Any) -> bytes:
    written = json.dumps(value).encode()
    return damaged(rng, written) if rng.random() < 0.1 else written


def check_request(rng: random.Random) -> None:
    """A request that can be taken is asked again as it is."""
    verb = rng.choice(("signal", "cancel", "pause", "resume", "retry", "prune"))
    told: Any = {"verb": verb, "run": rng.choice(("r", "", text(rng)))}
    told["arguments"] = {
        "signal": lambda: {"name": text(rng), "payload": json_value(rng)},
        "cancel": lambda: {"grace_s": rng.choice((1, 2.5, number(rng))), "cleanup": rng.choice((True, False, None))},
        "retry": lambda: {"step": rng.choice((text(rng), [text(rng)], json_value(rng)))},
        "prune": lambda: {rng.choice(("before", "older_than_s")): rng.choice((text(rng), 5, number(rng))), "status": [text(rng)]},
    }.get(verb, dict)()
    if rng.random() < 0.5:
        told[rng.choice(REQUEST_NAMES)] = json_value(rng, 2, REQUEST_NAMES)
    try:
        content = _json(rng, told)
    except ValueError:
        return  # Python itself writes no such number
    request = Request.decode("r1", content)
    again = Request.decode("r1", request.encode())
    assert again == request, "another request"
    assert again.digest == request.digest
    assert request.key


def _step(rng: random.Random, depth: int) -> Any:
    """A step as it may stand in a definition, or nearly."""
    inner = [_step(rng, depth - 1)] if depth else []
    calls = {"kind": "function", "function": "shop:send", "inputs": {"a": text(rng)}}
    kinds: tuple[dict[str, Any], ...] = (
        calls, calls, {"kind": "task", "template": "{{ context }}"}, {"kind": "sleep", "seconds": 5}, {"kind": "wait", "signal": "go"},
        {"kind": "conditional", "condition": "a > 1", "then": inner, "else": []}, {"kind": "sequence", "steps": inner},
        {"kind": "loop", "while": "a", "max_iterations": 3, "steps": inner}, {"kind": "parallel", "branches": [inner]},
        {"kind": "map", "over": "{{ a }}", "as": "item", "step": {**calls, "name": "s"}}, {"kind": "sub_workflow", "workflow_id": "w"},
    )  # fmt: skip
    step: dict[str, Any] = {"name": rng.choice("abcdefgh"), **rng.choice(kinds)}
    if rng.random() < 0.3:
        step["retry"] = {"max_attempts": rng.choice((1, 3, number(rng))), "delay_s": 1, "factor": rng.choice((2, 1e308)), "on": [text(rng)]}
    if rng.random() < 0.3:
        step[rng.choice((*step, *DEFINITION_NAMES))] = json_value(rng, 2, DEFINITION_NAMES)
    return step


def check_definition(rng: random.Random) -> None:
    """A definition that can be read is read back from its JSON as an equal one."""
    told: Any = {"name": "w", "steps": [_step(rng, 2) for _ in range(rng.choice((1, 1, 2)))]}
    if rng.random() < 0.2:
        told[rng.choice(DEFINITION_NAMES)] = json_value(rng, 3, DEFINITION_NAMES)
    try:
        content = _json(rng, told)
    except ValueError:
        return
    found = WorkflowDefinition.from_json(content)
    again = WorkflowDefinition.from_json(found.to_json())
    assert again == found, "another definition"
    assert again.id == found.id, "another id"


PARTS = (
    "a",
    "[0]",
    ".b",
    " + ",
    " * ",
    "9" * 30,
    "(",
    ")",
    "'x'",
    "{{",
    "}}",
    " in ",
    "not ",
    "==",
    "len(",
    "max(",
    ",",
    "[",
    "]",
    "1e999",
    "\u00e9",
)


def check_template_text(rng: random.Random) -> None:
    """Conditions and templates are refused, or give plain values."""
    written = "".join(rng.choice(PARTS) if rng.random() < 0.9 else text(rng) for _ in range(rng.randrange(1, 10)))
    scope = {"a": [1, "x", {"b": number(rng)}], "b": text(rng)}
    for read in (
        lambda: check_expression(written),
        lambda: check_template({"t": f"{{{{ {written} }}}}"}),
        lambda: render(f"{{{{{written}}}}}", scope),
    ):
        _typed(read)
    check_expression(written)


def _typed(call: Callable[[], object]) -> None:
    """Have a call say something, or refuse it."""
    with suppress(argparse.ArgumentTypeError):
        try:
            call()
        except SymphonyError as error:
            check_message(error)


READERS: tuple[Callable[[str], object], ...] = (
    parse_path, read_moment, read_time, read_age_or_time, read_checkpoint, moment, past_time, seconds, whole_number, entity_key,
    event_name, run_id, id_of_text,
    EntityReference.parse, check_class_name,
)  # fmt: skip


def check_texts(rng: random.Random) -> None:
    """What stands on a command line, and what callers name: paths, moments, numbers, keys, ids."""
    written = text(rng) if rng.random() < 0.7 else "".join(text(rng) for _ in range(3))
    if rng.random() < 0.3:
        written = f"{rng.choice(('2026-11-28', '2026-11-28T10:', '9', '[', 'a.b[0]', 'W:', '@', '#', '7d'))}{written}"
    for reader in READERS:
        _typed(lambda reader=reader: reader(written))  # type: ignore[misc]
    path = tuple(number(rng) if rng.random() < 0.3 else text(rng) for _ in range(rng.randrange(4)))
    shown = format_path(path)
    if all(type(key) is str or 0 <= key < 10**18 for key in path) and all(type(key) is not str or len(key) < 40 for key in path):
        _typed(lambda: _same_path(shown, path))


def _same_path(shown: str, path: tuple[str | int, ...]) -> None:
    assert parse_path(shown) == path, f"another path: {shown!r}"


def check_export(rng: random.Random) -> None:
    """An export with a right footer: its rows are what its lines say, or it is refused."""
    lines: list[Any] = [{"format": FORMAT, "version": VERSION, "first": 1, "last": 2}]
    for position in (1, 2):
        content = body(rng) if rng.random() < 0.5 else bytes(16) + codec.pack([None, [], [], None])
        row = sealed(position, "Type:id", position, "Changed", content)
        try:
            lines.append(event_as_json(decode_row(row), row))
        except SymphonyError:
            lines.append(
                {
                    "position": position,
                    "state": b64encode(row[4]).decode(),
                    "entity": {"type": "Type", "id": "id"},
                    "version": position,
                    "name": "Changed",
                }
            )
    changed = rng.choice(lines)
    if rng.random() < 0.7:
        name = rng.choice((*changed, "log_id", "end"))
        changed[name] = json_value(rng, 2) if rng.random() < 0.9 else {"type": json_value(rng), "id": json_value(rng)}
    try:
        written = b"".join(_json(rng, line) + b"\n" for line in lines)
    except ValueError:
        return
    footer = {"end": FORMAT, "count": 2, "sha256": sha256(written).hexdigest()}
    read = _Lines(Path("export.jsonl"), io.BytesIO(written + json.dumps(footer).encode() + b"\n"))  # type: ignore[arg-type]
    read.header()
    for page in read.pages():
        for row in page:
            decode_row(row)
