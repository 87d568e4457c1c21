"""What a caller gives may be anything; a call that refuses it says so by a typed error, whatever the value's text is, or is not."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.core.world.inbox import VERBS, Request
from symphony_es.errors import SymphonyError
from symphony_es.shown import shown
from symphony_es.workflow import AutoCheckpoint, RunHandle, WorkflowDefinition

HUGE = 10**5000
"""Python has no text of it: `repr` raises."""


class Silent:
    """An object of the application's that cannot be shown."""

    def __repr__(self) -> str:
        """Fail."""
        raise RuntimeError("no text")


VALUES: dict[str, Any] = {"huge": HUGE, "negative": -HUGE, "silent": Silent(), "list": [HUGE]}
WAITS: dict[str, Any] = {"name": "waits", "steps": [{"kind": "wait", "name": "w", "signal": "x"}]}


def waiting(**fields: Any) -> Callable[[], Any]:
    """Makes a definition of one step with fields of its own."""
    return lambda: WorkflowDefinition.from_dict({"name": "d", "steps": [{"kind": "wait", "name": "w", **fields}]})


CALLS: dict[str, Callable[[RunHandle, Symphony, Any], Any]] = {
    "cancel": lambda run, _, given: run.cancel(grace_s=given),
    "wait": lambda run, _, given: run.wait(given),
    "signal": lambda run, _, given: run.signal(given),
    "signal-id": lambda run, _, given: run.signal("x", signal_id=given),
    "retry": lambda run, symphony, given: symphony.workflows.retry_from(run.run, given),
    "fork": lambda run, symphony, given: symphony.workflows.fork(run.run, given),
    "start-deadline": lambda _, symphony, given: symphony.workflows.start(WAITS, deadline_s=given),
    "resume-deadline": lambda run, symphony, given: symphony.workflows.resume(run.run, deadline_s=given),
    "retry-deadline": lambda run, symphony, given: symphony.workflows.retry_from(run.run, "w", deadline_s=given),
    "start-id": lambda _, symphony, given: symphony.workflows.start(WAITS, run_id=given),
    "start-again": lambda _, symphony, given: symphony.workflows.start(WAITS, run_id="r", if_exists=given),
    "start-checkpoints": lambda _, symphony, given: symphony.workflows.start(WAITS, auto_checkpoint=given),
    "start": lambda _, symphony, given: symphony.workflows.start(given),
    "list-order": lambda _, symphony, given: symphony.workflows.list_runs(newest_first=given),
    "list-status": lambda _, symphony, given: symphony.workflows.list_runs(status=given),
    "list-name": lambda _, symphony, given: symphony.workflows.list_runs(name=given),
    "get": lambda _, symphony, given: symphony.workflows.get_run(given),
    "load": lambda _, symphony, given: symphony.entities.load("Workflow", given),
    "checkpoint": lambda _, symphony, given: symphony.create_checkpoint(given),
    "moment": lambda _, symphony, given: symphony.at(given),
    "step-kind": lambda _, __, given: waiting(kind=given)(),
    "step-timeout": lambda _, __, given: waiting(timeout_s=given)(),
    "step-retry": lambda _, __, given: waiting(retry=given)(),
    "loop-limit": lambda _, __, given: waiting(kind="loop", max_iterations=given, steps=WAITS["steps"])(),
    "request-verb": lambda _, __, given: Request(verb=given, run="r"),
    "request-run": lambda _, __, given: Request(verb="pause", run=given),
    "request-id": lambda _, __, given: Request(verb="pause", run="r", id=given),
    "request-actor": lambda _, __, given: Request(verb="pause", run="r", actor=given),
    "request-arguments": lambda _, __, given: Request(verb="retry", run="r", arguments=given),
    "request-grace": lambda _, __, given: Request(verb="cancel", run="r", arguments={"grace_s": given}),
    "request-step": lambda _, __, given: Request(verb="retry", run="r", arguments={"step": given}),
}
FEWEST: dict[str, Callable[[Any], Any]] = {
    "every": lambda given: AutoCheckpoint(every=given),
    "keep": lambda given: AutoCheckpoint(keep_last=given),
    "interval": lambda given: AutoCheckpoint(min_interval_s=given),
}


@pytest.mark.parametrize("given", VALUES.values(), ids=VALUES)
async def test_a_call_refuses_what_has_no_text(symphony: Symphony, given: Any) -> None:
    """Each call raises one of the library's errors, whose message is short and says something; nothing is appended."""
    run = await symphony.workflows.start(WAITS, run_id="r", auto_checkpoint=False)
    while "w" not in run.run.attempts:
        await asyncio.sleep(0)
    await symphony.flush()
    head = symphony.log.head
    for name, call in CALLS.items():
        with pytest.raises(SymphonyError) as refused:
            asked = call(run, symphony, given)
            if inspect.isawaitable(asked):
                await asked
        assert 10 < len(str(refused.value)) < 700, name
    await symphony.flush()
    assert (run.status.value, symphony.log.head) == ("running", head)


@pytest.mark.parametrize("name", FEWEST)
@pytest.mark.parametrize("given", [-HUGE, Silent(), [HUGE], "3", True], ids=["negative", "silent", "list", "text", "true"])
def test_numbers_of_a_policy(name: str, given: Any) -> None:
    """A policy of checkpoints refuses what is not a number of its kind."""
    with pytest.raises(SymphonyError, match=r"AutoCheckpoint\("):
        FEWEST[name](given)


def test_what_is_shown() -> None:
    """A value as Python writes it, cut; an int without a text by its size, an object that fails by its class."""
    assert (shown("a"), shown("a" * 100), shown(HUGE)) == ("'a'", f"'{'a' * 58}…", f"an int of {HUGE.bit_length():,} bits")
    assert (shown(Silent()), shown([HUGE])) == ("a Silent (RuntimeError)", f"[an int of {HUGE.bit_length():,} bits]")


# -- files of requests --------------------------------------------------------------------------------------------------

OF_JSON: dict[str, Any] = {
    "null": None, "true": True, "false": False, "zero": 0, "one": 1, "two": 2, "fraction": 1.0,
    "text": "t", "empty": "", "list": [], "dict": {},
}  # fmt: skip
"""What a field of JSON can be."""
FIELDS: dict[str, set[str]] = {
    "format": {"one"},
    "verb": set(),
    "run": {"text"},
    "arguments": {"dict"},
    "actor": {"null", "text", "empty"},
    "reason": {"null", "text", "empty"},
}
"""By field of a request to pause a run, what it may be."""
ARGUMENTS: dict[str, set[str]] = {
    "signal.name": {"text"},
    "signal.payload": set(OF_JSON),
    "cancel.grace_s": {"zero", "one", "two", "fraction"},
    "cancel.cleanup": {"true", "false"},
    "retry.step": {"text", "empty"},
    "prune.older_than_s": {"zero", "one", "two", "fraction"},
    "prune.before": {"text", "empty"},  # whether it is a time, the one who prunes says
    "prune.status": set(),
    "prune.name": set(),
    "prune.metadata": {"dict"},
}


def taken(told: dict[str, Any]) -> bool:
    """Whether a file of this content is a request."""
    try:
        Request.decode("q", json.dumps(told).encode())
    except SymphonyError:
        return False
    return True


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_of_a_request_file(field: str) -> None:
    """A field of another type than its own makes the file no request; `true` is not 1."""
    told = {"format": 1, "verb": "pause", "run": "r", "arguments": {}, "actor": None, "reason": None}
    assert {name for name, value in OF_JSON.items() if taken({**told, field: value})} == FIELDS[field]


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_each_argument_of_a_request_file(argument: str) -> None:
    """The same of each argument that a verb takes; the table knows all of them."""
    assert set(ARGUMENTS) == {f"{verb}.{name}" for verb, names in VERBS.items() for name in names}
    verb, name = argument.split(".")
    age = {} if name in ("older_than_s", "before") else {"older_than_s": 1}
    given = {"name": "x"} if verb == "signal" else age if verb == "prune" else {}
    told = {"verb": verb, "run": "" if verb == "prune" else "r"}
    assert {kind for kind, value in OF_JSON.items() if taken({**told, "arguments": {**given, name: value}})} == ARGUMENTS[argument]
