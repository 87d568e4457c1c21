"""Requests from other processes: carried out once, whoever is killed when, and whatever lies in the inbox."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import stat
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.cli.main import main
from symphony_es.core.world.inbox import MAX_REQUEST_BYTES, MAX_TEXT, FileInbox, Request, leave_request, waiting_request
from symphony_es.core.world.requesting import DONE_EVENT, REFUSED_EVENT, TAKEN_EVENT, Answer, answer_on_record, send_request
from symphony_es.errors import (
    ConfigurationError,
    EntityNotFoundError,
    InvalidIdentifierError,
    LimitExceededError,
    ReadOnlyError,
    RequestPendingError,
    RequestRefusedError,
    UnstorableValueError,
    format_path,
)
from symphony_es.log.log import EventLog
from symphony_es.workflow import RunContext
from symphony_es.workflow.engine.inbox import RequestTaker
from tests.application import Customer


def define(symphony: Symphony, *, fails: bool = False) -> Any:
    """A run that fails at its first step while there is no carrier, waits, and cleans up."""
    symphony.registry.register("carrier", {"answers": not fails})

    async def check(context: RunContext) -> str:
        if not symphony.registry.get("carrier")["answers"]:
            raise ConnectionError("the carrier does not answer")
        return "checked"

    async def clean(context: RunContext) -> None:
        return None

    symphony.functions.register("check", check)
    symphony.functions.register("clean", clean)
    steps = [{"kind": "function", "name": "check", "function": "check"}, {"kind": "wait", "name": "approval", "signal": "approved"}]
    cleanup = [{"kind": "function", "name": "clean", "function": "clean"}]
    return {"id": "order", "name": "order", "steps": steps, "cleanup": cleanup}


async def begin(symphony: Symphony, run_id: str = "r", *, fails: bool = False) -> Any:
    """A run that waits for a signal, or has failed."""
    handle = await symphony.workflows.start(define(symphony, fails=fails), auto_checkpoint=False, run_id=run_id)
    if fails:
        await handle.wait()
        symphony.registry.get("carrier")["answers"] = True
    else:
        async for event in handle.events():
            if event.name == "WorkflowStepStarted" and event.metadata.step == "approval":
                break
    return handle


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[tuple[Symphony, EventLog]]:
    """The owner of a log, and a reader as another process has it."""
    async with Symphony(tmp_path / "state") as symphony:
        log = await EventLog.open_read_only(tmp_path / "state")
        try:
            yield symphony, log
        finally:
            await log.close()


async def taker_of(symphony: Symphony) -> RequestTaker:
    """Who takes the owner's requests; it begins to now, if it has not."""
    assert symphony._inbox is not None
    taker = await symphony._inbox.begun()
    assert taker is not None
    return taker


async def send(opened: tuple[Symphony, EventLog], verb: str, run: str = "r", **arguments: Any) -> Answer:
    """Ask the owner, as another process does."""
    symphony, log = opened
    assert symphony.state_dir is not None
    request = Request(verb=verb, run=run, arguments=arguments, actor="ann", reason="on call")
    return await send_request(log, symphony.state_dir, request, timeout_s=60)


async def answers(symphony: Symphony, *ids: str) -> dict[str, str]:
    """Waits until requests have been answered; the names of the answers by id."""
    found: dict[str, str] = {}
    async for events in symphony.log.follow(0, [DONE_EVENT, REFUSED_EVENT]):
        found |= {event.entity_id: event.name for event in events}
        if found.keys() >= set(ids):
            break
    return found


async def names_of(symphony: Symphony, request_id: str, run: str = "r") -> list[str]:
    """The events of a run that a request has made, but for what follows from its going on."""
    events = await symphony.log.read_entity(f"Workflow:{run}")
    follows = ("WorkflowStep", "WorkflowHooksTold", "WorkflowCompleted", "WorkflowCancelled")
    return [event.name for event in events if event.metadata.correlation_id == request_id and not event.name.startswith(follows)]


@pytest.mark.parametrize(
    ("verbs", "status", "name"),
    [
        (("pause",), "paused", "WorkflowPaused"),
        (("pause", "resume"), "running", "WorkflowResumed"),
        (("signal",), "running", "WorkflowSignalReceived"),
        (("cancel",), "cancelling", "WorkflowCancelRequested"),
    ],
)
async def test_what_is_asked_is_done_and_on_record(
    opened: tuple[Symphony, EventLog], verbs: tuple[str, ...], status: str, name: str
) -> None:
    """By a live owner, at once: with who asked, why, and the request's id; the inbox is empty afterwards."""
    symphony, _ = opened
    await begin(symphony)
    for verb in verbs:
        answer = await send(opened, verb, **({"name": "other", "payload": {"by": "ann"}} if verb == "signal" else {}))
    assert (answer.done, answer.status) == (True, status)
    (event,) = [event for event in await symphony.log.read_entity("Workflow:r") if event.name == name]
    assert (event.metadata.actor, event.metadata.reason, event.metadata.correlation_id) == ("ann", "on call", answer.request)
    assert os.listdir(symphony.state_dir / "inbox") == []


@pytest.mark.parametrize("step", [None, "check"])
async def test_a_failed_run_is_tried_again(opened: tuple[Symphony, EventLog], step: str | None) -> None:
    """At the step that failed, or from a step that is named; without one, a run of which no step has failed is refused."""
    symphony, _ = opened
    handle = await begin(symphony, fails=True)
    answer = await send(opened, "retry", **({"step": step} if step else {}))
    assert (answer.done, answer.status) == (True, "running")
    refused = await send(opened, "retry")
    assert (refused.done, refused.error_type) == (False, "ConfigurationError")
    await send(opened, "signal", name="approved")
    await handle.result()


@pytest.mark.parametrize("by", ["request", "list", "tuple", "terminal"])
async def test_several_steps_are_tried_again_together(
    opened: tuple[Symphony, EventLog], by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A map's failed items by one request, from a program or a terminal: each of them once, what came after the map once, nothing else."""
    symphony, _ = opened
    done, failing = list[Any](), {0, 2}

    async def item(context: RunContext) -> int:
        done.append(context["item"])
        if context["item"] in failing:
            raise ValueError("not yet")
        return int(context["item"])

    symphony.functions.register("item", item)
    symphony.functions.register("after", lambda context: done.append("after"))
    each = {
        "kind": "map",
        "name": "m",
        "over": [0, 1, 2],
        "on_error": "collect",
        "step": {"kind": "function", "name": "i", "function": "item"},
    }
    definition = {"name": "batch", "steps": [each, {"kind": "function", "name": "after", "function": "after"}]}
    await symphony.workflows.execute_workflow(definition, run_id="r", auto_checkpoint=False)
    done.clear()
    failing.clear()
    assert symphony._inbox is not None
    assert symphony.state_dir is not None
    await symphony._inbox.begun()
    steps = ["m/0", "m/2"]
    if by == "request":
        assert (await send(opened, "retry", step=steps)).done
    elif by == "terminal":
        arguments = ["retry", "r", "--step", "m/0", "--step", "m/2", "--state-dir", str(symphony.state_dir), "--timeout-s", "60"]
        assert await asyncio.to_thread(main, arguments) == 0, capsys.readouterr()
    else:
        async with Symphony(symphony.state_dir, read_only=True) as reader:
            assert (await reader.requests.retry("r", steps if by == "list" else tuple(steps), timeout_s=60)).done
    run = await symphony.workflows.handle("r").wait()
    assert (sorted(done[:-1]), done[-1], run.outputs["m"]) == ([0, 2], "after", [0, 1, 2])


@pytest.mark.parametrize("step", [[], [1], ["a", None], {"a": 1}, 1, ["a", ["b"]], ["x" * 3000]])
def test_steps_of_a_request_are_texts(step: Any) -> None:
    """Anything else is refused where the request is made, and in a file of the inbox."""
    with pytest.raises(ConfigurationError, match="step of"):
        Request(verb="retry", run="r", arguments={"step": step})


@pytest.mark.parametrize(
    ("verb", "run", "arguments", "error"),
    [
        ("pause", "nobody", {}, "EntityNotFoundError"),
        ("resume", "r", {}, "IllegalTransitionError"),
        ("retry", "r", {"step": "check"}, "IllegalTransitionError"),
    ],
)
async def test_what_cannot_be_done_is_answered(
    opened: tuple[Symphony, EventLog], verb: str, run: str, arguments: dict[str, Any], error: str
) -> None:
    """With the error that the call in the owner's process has; the owner goes on."""
    symphony, _ = opened
    await begin(symphony)
    answer = await send(opened, verb, run, **arguments)
    assert (answer.done, answer.error_type) == (False, error)
    assert answer.message
    assert (await send(opened, "pause")).done


async def test_asking_again_under_one_id_changes_nothing(opened: tuple[Symphony, EventLog]) -> None:
    """The first answer is given again, from the log, without the owner."""
    symphony, log = opened
    await begin(symphony)
    assert symphony.state_dir is not None
    request = Request(verb="signal", run="r", arguments={"name": "other"}, id="once")
    first = await send_request(log, symphony.state_dir, request, timeout_s=60)
    assert await send_request(log, symphony.state_dir, request, timeout_s=60) == first
    leave_request(symphony.state_dir, request)  # as a caller does that has not looked
    (await taker_of(symphony)).look()
    await send(opened, "pause")
    assert await names_of(symphony, "once") == ["WorkflowSignalReceived"]


ASKED = Request(verb="signal", run="r", arguments={"name": "other", "payload": {"a": 1}}, id="once", actor="ann")
OTHERS: list[dict[str, Any]] = [
    {"verb": "pause"}, {"verb": "resume"}, {"verb": "cancel"}, {"verb": "retry", "arguments": {"step": "check"}}, {"run": "s"},
    {"arguments": {"name": "another", "payload": {"a": 1}}}, {"arguments": {"name": "other"}},
    {"arguments": {"name": "other", "payload": {"a": 2}}},
]  # fmt: skip


@pytest.mark.parametrize("waits", [False, True])
async def test_another_request_under_a_used_id_is_refused(opened: tuple[Symphony, EventLog], waits: bool) -> None:
    """It is not given the answer to something else, and does not take the place of what waits; nothing is changed."""
    symphony, log = opened
    await begin(symphony)
    assert symphony.state_dir is not None
    if waits:
        await (await taker_of(symphony)).stop()
        leave_request(symphony.state_dir, ASKED)
    else:
        await send_request(log, symphony.state_dir, ASKED, timeout_s=60)
    before = symphony.log.head
    for change in OTHERS:
        given = {"verb": "signal", "run": "r", "arguments": ASKED.arguments, **({"arguments": {}} if "verb" in change else {}), **change}
        answer = await send_request(log, symphony.state_dir, Request(id="once", **given), timeout_s=60)
        assert (answer.done, answer.error_type) == (False, "ConfigurationError")
        assert "`signal r`" in answer.message
    assert symphony.log.head == before
    assert waiting_request(symphony.state_dir, "once") == (ASKED if waits else None)


@pytest.mark.parametrize(
    ("verb", "one", "other"),
    [
        ("cancel", {"cleanup": True}, {}), ("cancel", {"grace_s": 5}, {"grace_s": 5.0, "cleanup": True}),
        ("retry", {"step": "a"}, {"step": ["a"]}), ("signal", {"name": "n", "payload": None}, {"name": "n"}),
        ("signal", {"name": "n", "payload": {"b": 1, "a": 2}}, {"payload": {"a": 2, "b": 1}, "name": "n"}),
    ],
)  # fmt: skip
def test_what_means_the_same_is_the_same_request(verb: str, one: dict[str, Any], other: dict[str, Any]) -> None:
    """From the command line or a program, by whomever: what is left out is the default."""
    assert Request(verb=verb, run="r", arguments=one, actor="ann").digest == Request(verb=verb, run="r", arguments=other, reason="x").digest
    assert Request(verb=verb, run="r", arguments=one).digest != Request(verb=verb, run="s", arguments=one).digest
    assert (
        Request.decode("i", Request(verb=verb, run="r", arguments=one).encode()).digest == Request(verb=verb, run="r", arguments=one).digest
    )


@pytest.mark.parametrize("verb", ["signal", "pause", "resume", "cancel", "retry"])
async def test_the_owner_may_be_killed_at_any_point(tmp_path: Path, verb: str) -> None:
    """The next owner takes up what the log and the inbox say: it is done once, and answered once."""
    request = Request(verb=verb, run="r", arguments={"name": "other"} if verb == "signal" else {})
    copies: list[Path] = []
    removed = asyncio.Event()

    def copy(point: str) -> None:
        copies.append(tmp_path / point)
        shutil.copytree(tmp_path / "state", copies[-1])
        if point == "removed":
            removed.set()

    async with Symphony(tmp_path / "state") as symphony:
        await begin(symphony, fails=verb == "retry")
        if verb == "resume":
            await symphony.workflows.pause("r")
        (await taker_of(symphony))._crash = copy
        leave_request(tmp_path / "state", request)
        await removed.wait()
        expected = await names_of(symphony, request.id)
        assert expected
    assert [path.name for path in copies] == ["found", "taken", "carried out", "answered", "removed"]
    for path in copies:
        async with Symphony(path) as symphony:
            define(symphony)
            await symphony.workflows.recover(wait=False)
            assert await answers(symphony, request.id) == {request.id: DONE_EVENT}, path.name
            again = [event for event in await names_of(symphony, request.id) if event not in ("WorkflowStarted",)]
            assert again == expected, path.name
            said = [event.name for event in await symphony.log.read_entity(f"symphony.Request:{request.id}")]
            assert said == [*([] if verb == "signal" else [TAKEN_EVENT]), DONE_EVENT]


@pytest.mark.parametrize("verb", ["pause", "cancel"])
async def test_a_request_costs_the_same_however_long_its_run_is(tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read of the run's history does not grow with it, neither by its owner nor by the one that comes after a kill."""
    read: dict[int, list[int]] = {}
    for steps in (5, 50):
        request, copy = Request(verb=verb, run="r"), tmp_path / f"copy{steps}"
        removed = asyncio.Event()

        def reached(point: str, steps: int = steps, copy: Path = copy, removed: asyncio.Event = removed) -> None:
            if point == "carried out":
                shutil.copytree(tmp_path / f"state{steps}", copy)
            elif point == "removed":
                removed.set()

        async with Symphony(tmp_path / f"state{steps}") as symphony:
            made = symphony.build_workflow("w")
            for number in range(steps):
                made.add_sleep(f"s{number}", 0)
            await symphony.workflows.start(made.add_wait("answer").build(), run_id="r", auto_checkpoint=False)
            while "answer" not in (await symphony.workflows.get_run("r")).attempts:
                await asyncio.sleep(0)
            taker = await taker_of(symphony)
            taker._crash = reached
            counted = count_rows(symphony, monkeypatch)
            leave_request(symphony.state_dir, request)
            await removed.wait()
            read[steps] = [counted()]
        async with Symphony(copy) as symphony:
            await symphony.resume()
            counted = count_rows(symphony, monkeypatch)
            (await taker_of(symphony)).look(all_again=True)
            assert await answers(symphony, request.id) == {request.id: DONE_EVENT}
            read[steps].append(counted())
    assert max(read[50]) <= max(*read[5], 8)


def count_rows(symphony: Symphony, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts the events of the run that are read from its log."""
    rows, pages = [0], symphony.log.entity_pages

    async def counting(key: str, *args: Any, **options: Any) -> Any:
        async for page in pages(key, *args, **options):
            rows[0] += len(page) if key == "Workflow:r" else 0
            yield page

    monkeypatch.setattr(symphony.log, "entity_pages", counting)
    return lambda: rows[0]


@pytest.mark.parametrize("point", ["made", "written", "synced", "renamed"])
async def test_the_caller_may_be_killed_at_any_point(opened: tuple[Symphony, EventLog], point: str) -> None:
    """The request is there whole, or not at all; what is left of it is in nobody's way, and is removed when it is old."""
    symphony, _ = opened
    await begin(symphony)
    assert symphony.state_dir is not None

    class Killed(BaseException):
        pass

    def crash(reached: str) -> None:
        if reached == point:
            for path in (symphony.state_dir / "inbox").iterdir():
                shutil.copy(path, tmp / path.name)
            raise Killed

    tmp = symphony.state_dir / "copies"
    tmp.mkdir()
    with pytest.raises(Killed):
        leave_request(symphony.state_dir, Request(verb="pause", run="r", id="asked"), crash)
    for path in tmp.iterdir():  # what a kill leaves, where an exception removes it
        shutil.copy(path, symphony.state_dir / "inbox" / path.name)
        os.utime(symphony.state_dir / "inbox" / path.name, (0, 0))
    assert (await send(opened, "signal", name="other")).done
    assert (await names_of(symphony, "asked") == ["WorkflowPaused"]) == (point == "renamed")
    FileInbox(symphony.state_dir).close()
    assert [path.name for path in (symphony.state_dir / "inbox").iterdir()] == []


def _linked(path: Path) -> None:
    target = path.parent.parent / "elsewhere"
    target.write_text('{"verb": "pause", "run": "r"}')
    path.symlink_to(target)


def _foreign(path: Path) -> None:
    path.write_text('{"verb": "pause", "run": "r"}')
    path.chmod(0o666)


GOOD = {"verb": "pause", "run": "r"}
HOSTILE: dict[str, Any] = {
    "empty": b"",
    "half": json.dumps(GOOD).encode()[:-3],
    "not-utf8": b"\xff\xfe{}",
    "deep": b"[" * 200_000,
    "huge": b" " * (MAX_REQUEST_BYTES + 1),
    "long-number": b'{"verb": "signal", "run": "r", "arguments": {"name": "x", "payload": ' + b"9" * 5000 + b"}}",
    "nan": b'{"verb": "signal", "run": "r", "arguments": {"name": "x", "payload": NaN}}',
    "infinite": b'{"verb": "signal", "run": "r", "arguments": {"name": "x", "payload": 1e999}}',
    "verb-twice": b'{"verb": "signal", "verb": "pause", "run": "r"}',
    "key-twice": b'{"verb": "signal", "run": "r", "arguments": {"name": "x", "payload": {"a": 1, "a": 2}}}',
    "grace-huge": b'{"verb": "cancel", "run": "r", "arguments": {"grace_s": 1' + b"0" * 400 + b"}}",
    "list": b"[]",
    "null": b"null",
    "no-verb": {"run": "r"},
    "unknown-verb": {**GOOD, "verb": "delete"},
    "unknown-field": {**GOOD, "wait": True},
    "unknown-argument": {**GOOD, "arguments": {"x": 1}},
    "arguments-list": {**GOOD, "arguments": [1]},
    "verb-list": {**GOOD, "verb": ["pause"]},
    "run-number": {**GOOD, "run": 5},
    "run-empty": {**GOOD, "run": ""},
    "run-nul": {**GOOD, "run": "a\0b"},
    "run-long": {**GOOD, "run": "x" * 600},
    "actor-long": {**GOOD, "actor": "x" * (MAX_TEXT + 1)},
    "actor-surrogate": b'{"verb": "pause", "run": "r", "actor": "\\ud800"}',
    "run-surrogate": b'{"verb": "pause", "run": "\\ud800"}',
    "reason-number": {**GOOD, "reason": 7},
    "format": {**GOOD, "format": 2},
    "signal-without-name": {**GOOD, "verb": "signal"},
    "grace-negative": {**GOOD, "verb": "cancel", "arguments": {"grace_s": -1}},
    "grace-true": {**GOOD, "verb": "cancel", "arguments": {"grace_s": True}},
    "cleanup-text": {**GOOD, "verb": "cancel", "arguments": {"cleanup": "no"}},
    "payload-surrogate": b'{"verb": "signal", "run": "r", "arguments": {"name": "x", "payload": "\\ud800"}}',
    "link": _linked,
    "dangling": lambda path: path.symlink_to("/nowhere"),
    "pipe": lambda path: os.mkfifo(path),
    "writable": _foreign,
    "directory": lambda path: path.mkdir(),
}


async def test_what_cannot_be_taken_is_answered_and_harms_nobody(opened: tuple[Symphony, EventLog]) -> None:
    """Whatever lies there under a name that a request may have: it is refused on record and removed; the next request is carried out."""
    symphony, log = opened
    await begin(symphony)
    assert symphony.state_dir is not None
    taker = await taker_of(symphony)
    for what, made in HOSTILE.items():
        path = symphony.state_dir / "inbox" / what
        if callable(made):
            made(path)
        else:
            path.write_bytes(made if isinstance(made, bytes) else json.dumps(made).encode())
    taker.look()
    assert await answers(symphony, *HOSTILE) == dict.fromkeys(HOSTILE, REFUSED_EVENT)
    for what in HOSTILE:
        (event,) = await log.read_entity(f"symphony.Request:{what}")
        assert event.data["error"]["message"], what
    assert (await send(opened, "pause")).done
    assert os.listdir(symphony.state_dir / "inbox") == ["directory"], "that is nobody's request, and is left where it is"
    assert [event.name for event in await log.read_entity("Workflow:r")][-1] == "WorkflowPaused"


async def test_what_cannot_be_taken_is_read_once_and_stands_behind_what_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much older junk lies there: the request is among what is found first, and no second look opens what did not change."""
    inbox = FileInbox(tmp_path)
    for number in range(300):
        (inbox.directory / f"junk{number}").write_bytes(b"junk")
    leave_request(tmp_path, Request(verb="pause", run="r", id="mine"))
    monkeypatch.setattr("symphony_es.core.world.inbox.MOST_AT_ONCE", 10)
    opened: list[str] = []
    really = os.open
    monkeypatch.setattr("os.open", lambda path, *rest, **how: opened.append(Path(path).name) or really(path, *rest, **how))
    assert [found.id for found in inbox.waiting()] == ["mine", *(f"junk{number}" for number in range(10))]
    assert len(opened) == 301
    (inbox.directory / "junk7").write_bytes(b"other junk")
    leave_request(tmp_path, Request(verb="pause", run="r", id="second"))
    opened.clear()
    assert [found.id for found in inbox.waiting({"mine", *(f"junk{number}" for number in range(9))})][:2] == ["second", "junk9"]
    assert opened == ["second"]
    assert {found.id for found in inbox.waiting(["mine", *(f"junk{number}" for number in range(8, 300))])} == {
        "second", *(f"junk{number}" for number in range(8))
    }  # fmt: skip
    assert opened == ["second", "junk7", "second"]
    inbox.close()


@pytest.mark.parametrize("verb", ["pause", "prune"])
async def test_what_stays_in_the_inbox_holds_nobody_up(
    opened: tuple[Symphony, EventLog], verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directories, which nobody can remove as files: what comes later is taken all the same, however many they are."""
    symphony, _ = opened
    await begin(symphony)
    assert symphony.state_dir is not None
    taker = await taker_of(symphony)
    monkeypatch.setattr("symphony_es.core.world.inbox.MOST_AT_ONCE", 5)
    for number in range(12):
        (symphony.state_dir / "inbox" / f"directory{number}").mkdir()
    async with asyncio.timeout(20):
        assert (await (send(opened, verb) if verb == "pause" else send(opened, verb, "", older_than_s=0.0))).done
        while len(taker.left) < 12:
            await asyncio.sleep(0.01)


async def test_files_of_other_users_are_not_taken(opened: tuple[Symphony, EventLog], monkeypatch: pytest.MonkeyPatch) -> None:
    """But for those of root, who may do anything: an owner that runs as another user takes these."""
    symphony, _ = opened
    assert symphony.state_dir is not None
    request = Request(verb="pause", run="r", id="foreign")
    path = leave_request(symphony.state_dir, request)
    inbox = FileInbox(symphony.state_dir)
    real = os.fstat

    def owned_by(user: int) -> None:
        def look(descriptor: int) -> os.stat_result:
            found = list(real(descriptor))
            found[stat.ST_UID] = user
            return os.stat_result(found)

        monkeypatch.setattr(os, "fstat", look)

    try:
        for user, taken in ((os.geteuid() + 1, False), (0, True)):
            path.write_bytes(request.encode())
            owned_by(user)
            assert [type(found) is Request for found in inbox.waiting()] in ([taken], [])
            monkeypatch.undo()
    finally:
        inbox.close()
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("made", ["link", "file", "open to all"])
async def test_an_inbox_that_cannot_be_trusted_is_not_looked_into(tmp_path: Path, made: str) -> None:
    """The log is opened all the same, and takes no requests."""
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    state.mkdir(mode=0o700)
    elsewhere.mkdir()
    if made == "link":
        (state / "inbox").symlink_to(elsewhere)
    elif made == "file":
        (state / "inbox").write_text("")
    else:
        (state / "inbox").mkdir()
        (state / "inbox").chmod(0o777)
    async with Symphony(state) as symphony:
        assert symphony._inbox is not None
        assert await symphony._inbox.begun() is None
        await begin(symphony)
        await symphony.workflows.cancel("r")


async def test_requests_wait_for_an_owner_and_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has the log open: the caller is told so at once, and the next owner does everything, in order, when it has recovered."""
    state = tmp_path / "state"
    async with Symphony(state) as symphony:
        await begin(symphony)
    log = await EventLog.open_read_only(state)
    monkeypatch.setattr("symphony_es.core.world.inbox.MOST_AT_ONCE", 3)
    sent = [Request(verb="signal", run="r", arguments={"name": "other", "payload": number}) for number in range(8)]
    for request in sent[:-1]:
        leave_request(state, request)
    with pytest.raises(RequestPendingError, match="nobody has this log open") as pending:
        await send_request(log, state, sent[-1], timeout_s=60)
    assert pending.value.request == sent[-1].id
    await log.close()
    async with Symphony(state) as symphony:
        define(symphony)
        await symphony.workflows.recover(wait=False)
        await answers(symphony, *(request.id for request in sent))
        assert (await symphony.workflows.get_run("r")).signals["other"] == list(range(8))


async def test_no_answer_in_time(opened: tuple[Symphony, EventLog]) -> None:
    """The owner is busy or hangs: the request stays, and the message says how to take it back."""
    symphony, log = opened
    await begin(symphony)
    await (await taker_of(symphony)).stop()
    assert symphony.state_dir is not None
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    request = Request(verb="pause", run="r")
    with pytest.raises(RequestPendingError, match="no answer within 1 s") as pending:
        await send_request(log, symphony.state_dir, request, timeout_s=1, sleep=sleep, now=lambda: sum(slept))
    path = Path(str(pending.value).rpartition("rm ")[2].partition(" takes")[0])
    assert path.is_file()
    assert len(slept) < 20, "the caller does not spin"

    async def take_away(seconds: float) -> None:
        path.unlink(missing_ok=True)

    with pytest.raises(RequestPendingError, match="taken"):
        await send_request(log, symphony.state_dir, request, timeout_s=1, sleep=take_away)


async def test_a_request_waits_for_what_this_process_lacks(tmp_path: Path) -> None:
    """A process without the functions of a run leaves the request alone, as it leaves the run; it is done when they are registered."""
    state = tmp_path / "state"
    async with Symphony(state) as symphony:
        await begin(symphony)
        await symphony.workflows.pause("r")
        await symphony.workflows.handle("r").wait("paused")
    request = Request(verb="resume", run="r")
    leave_request(state, request)
    async with Symphony(state) as symphony:
        await symphony.resume()
        taker = await taker_of(symphony)
        while not taker.left:
            await asyncio.sleep(0)
        assert "function" in taker.left[request.id]
        define(symphony)
        assert await answer_on_record(symphony.log, request.id) is None
        await symphony.workflows.recover(wait=False)
        assert await answers(symphony, request.id) == {request.id: DONE_EVENT}


@pytest.mark.parametrize(("verb", "arguments"), [("retry", {}), ("retry", {"step": "check"}), ("resume", {})])
async def test_a_process_that_is_drained_leaves_what_begins_runs(tmp_path: Path, verb: str, arguments: dict[str, Any]) -> None:
    """The next owner carries it out, once."""
    request = Request(verb=verb, run="r", arguments=arguments)
    async with Symphony(tmp_path / "state") as symphony:
        await begin(symphony, fails=True)
        await symphony.workflows.drain(0)
        leave_request(tmp_path / "state", request)
        taker = await taker_of(symphony)
        while not taker.left:
            await asyncio.sleep(0)
        assert await answer_on_record(symphony.log, request.id) is None
    async with Symphony(tmp_path / "state") as symphony:
        define(symphony)
        await symphony.workflows.recover(wait=False)
        assert await answers(symphony, request.id) == {request.id: DONE_EVENT}
        await symphony.workflows.signal("r", "approved")
        await symphony.workflows.handle("r").result()


async def test_a_run_that_finds_no_place_is_answered_as_queued(tmp_path: Path) -> None:
    """Nobody waits for its turn: that it is asked for is on record."""
    async with Symphony({"state_dir": tmp_path / "state", "max_concurrent_runs": 1}, persistence_enabled=True) as symphony:
        await begin(symphony, "failed", fails=True)
        waits = {"id": "w", "name": "w", "steps": [{"kind": "wait", "name": "approval", "signal": "approved"}]}
        await symphony.workflows.start(waits, auto_checkpoint=False)
        request = Request(verb="retry", run="failed")
        leave_request(tmp_path / "state", request)
        assert await answers(symphony, request.id) == {request.id: DONE_EVENT}
        (*_, answer) = await symphony.log.read_entity(request.key)
        assert answer.data["status"] in ("queued", "running")
        assert (await symphony.workflows.cancel("failed")).status == "cancelled"


async def test_what_an_application_raises_is_answered(opened: tuple[Symphony, EventLog], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody foresaw is the request's, not the owner's."""
    symphony, _ = opened
    await begin(symphony)

    async def signal(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("\ud800")

    monkeypatch.setattr(symphony.registry.get("workflow_engine"), "signal", signal)
    answer = await send(opened, "signal", name="other")
    assert (answer.done, answer.error_type) == (False, "ZeroDivisionError")
    assert (await send(opened, "pause")).done


async def test_a_kernel_that_does_not_tell_is_asked_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor to wait for, the inbox is looked at by a timer."""
    monkeypatch.setattr("symphony_es.core.world.inbox.watch_directory", lambda directory: None)
    monkeypatch.setattr("symphony_es.workflow.engine.inbox.LOOK_EVERY_S", 0)
    async with Symphony(tmp_path / "state") as symphony:
        await begin(symphony)
        request = Request(verb="pause", run="r")
        leave_request(tmp_path / "state", request)
        assert await answers(symphony, request.id) == {request.id: DONE_EVENT}


def test_requests_are_taken_in_a_later_event_loop(tmp_path: Path) -> None:
    """What watches belongs to a loop: a resume in the next one listens there."""
    symphony = Symphony(tmp_path / "state")

    async def first() -> None:
        await symphony.setup()
        await begin(symphony)

    async def second() -> dict[str, str]:
        await symphony.resume()
        leave_request(tmp_path / "state", Request(verb="cancel", run="r", id="later"))
        found = await answers(symphony, "later")
        await symphony.close()
        return found

    asyncio.run(first())
    assert asyncio.run(second()) == {"later": DONE_EVENT}


async def test_nothing_happens_where_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose inbox is empty is not woken: no timer, no task, one look when it begins to watch."""
    looks: list[int] = []
    real = FileInbox._files
    monkeypatch.setattr(FileInbox, "_files", lambda self: looks.append(1) or real(self))
    async with Symphony(tmp_path / "state") as symphony:
        await begin(symphony)
        taker = await taker_of(symphony)
        assert (taker._timer, taker._looking, looks) == (None, None, [1])


async def test_a_short_program_pays_nothing_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is opened and closed at once has looked for no requests; nor has what is closed while it begins to."""
    looks: list[FileInbox] = []
    monkeypatch.setattr(FileInbox, "newest_ns", lambda self: looks.append(self) or 0)
    async with Symphony(tmp_path / "state") as symphony:
        await symphony.flush()
    assert not (tmp_path / "state" / "inbox").exists()
    async with Symphony(tmp_path / "state") as symphony:
        beginning = asyncio.create_task(symphony._inbox.begun())
        await asyncio.sleep(0)
    await asyncio.wait({beginning})
    assert len(looks) <= 1


async def test_nothing_is_made_in_the_directory_after_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing waits for the thread that is about to look into the inbox: the directory may be removed then."""
    begun, ended = threading.Event(), threading.Event()

    def looks_slowly(self: FileInbox) -> int:
        begun.set()
        ended.wait(0.1)
        ended.set()
        return 0

    monkeypatch.setattr(FileInbox, "newest_ns", looks_slowly)
    async with Symphony(tmp_path / "state") as symphony:
        beginning = asyncio.create_task(symphony._inbox.begun())
        while not begun.is_set():
            await asyncio.sleep(0)
    assert ended.is_set()
    await beginning


@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_comes_before_the_watch_begins_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """At once what was left since the opening; what lay there before it, after a second, or when the application has recovered."""
    monkeypatch.setattr("symphony_es.workflow.engine.watching.BEGIN_S", 3600)
    if when == "before":
        monkeypatch.setattr("symphony_es.workflow.engine.inbox.FIRST_LOOK_S", 3600)
    state = tmp_path / "state"
    async with Symphony(state) as symphony:
        await begin(symphony)
    request = Request(verb="signal", run="r", arguments={"name": "other"})
    if when == "before":
        leave_request(state, request)
        monkeypatch.setattr("symphony_es.workflow.engine.inbox.COARSE_NS", 0)
    async with Symphony(state) as symphony:
        define(symphony)
        if when == "after":
            leave_request(state, request)
            await taker_of(symphony)
        else:
            assert (await taker_of(symphony))._looking is None
            await symphony.workflows.recover(wait=False)
        assert await answers(symphony, request.id) == {request.id: DONE_EVENT}


async def test_a_reader_asks_as_the_command_line_does(tmp_path: Path) -> None:
    """`reader.requests` in another process: who asks is who acts; what is refused is raised; a writer asks nobody."""
    async with Symphony(tmp_path / "state") as symphony, Symphony(tmp_path / "state", read_only=True) as reader:
        handle = await begin(symphony)
        with reader.acting_as("ann", reason="on call"):
            assert (await reader.requests.pause("r", timeout_s=60)).status == "paused"
        assert (await reader.requests.resume(handle.run, timeout_s=60)).status == "running"
        first = await reader.requests.signal("r", "other", 1, request_id="once", timeout_s=60)
        assert await reader.requests.signal("r", "other", 1, request_id="once", timeout_s=60) == first
        with pytest.raises(RequestRefusedError, match="IllegalTransitionError") as refused:
            await reader.requests.retry("Workflow:r", "check", timeout_s=60)
        assert refused.value.error_type == "IllegalTransitionError"
        with pytest.raises(EntityNotFoundError):
            await reader.requests.cancel("nobody", timeout_s=60)
        await reader.resume()
        with pytest.raises(ReadOnlyError, match=r"nothing was changed; symphony\.requests asks the process that writes"):
            await reader.workflows.signal("r", "other", 2)
        assert (await reader.requests.cancel("r", grace_s=0, timeout_s=60)).status == "cancelling"
        assert handle.run.signals["other"] == [1]
        (paused,) = [event for event in await symphony.log.read_entity("Workflow:r") if event.name == "WorkflowPaused"]
        assert (paused.metadata.actor, paused.metadata.reason) == ("ann", "on call")
        with pytest.raises(ConfigurationError, match="workflows here"):
            _ = symphony.requests
        await handle.wait()
    async with Symphony(tmp_path / "state", read_only=True) as reader:
        with pytest.raises(RequestPendingError):
            await reader.requests.resume("r")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"verb": "stop"}, ConfigurationError),
        ({"verb": "pause", "id": "../x"}, ConfigurationError),
        ({"verb": "pause", "id": ".hidden"}, ConfigurationError),
        ({"verb": "pause", "id": "x" * 101}, ConfigurationError),
        ({"verb": "pause", "run": ""}, InvalidIdentifierError),
        ({"verb": "signal"}, ConfigurationError),
        ({"verb": "signal", "arguments": {"name": "x", "payload": {1, 2}}}, UnstorableValueError),
        ({"verb": "signal", "arguments": {"name": "x", "payload": "y" * MAX_REQUEST_BYTES}}, LimitExceededError),
    ],
)
def test_what_no_owner_would_take_is_not_sent(tmp_path: Path, given: dict[str, Any], error: type[Exception]) -> None:
    """The caller is told, and nothing lies in the inbox."""
    with pytest.raises(error):
        leave_request(tmp_path, Request(**{"run": "r", **given}))
    assert not (tmp_path / "inbox").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_gives_away_what_it_has_made_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of a log may put a link in the place of its inbox at any moment: where it leads belongs to whom it did."""
    state, victim = tmp_path / "state", tmp_path / "victim"
    for directory in (state, state / "inbox", victim):
        directory.mkdir(mode=0o700)
    os.chown(state, 12345, 12345)

    def swapped(real: Callable[..., None]) -> Callable[..., None]:
        def call(*given: Any, **named: Any) -> None:
            if not (state / "inbox").is_symlink():
                (state / "inbox").rename(state / "moved")
                (state / "inbox").symlink_to(victim)
            real(*given, **named)

        return call

    for name in ("chown", "fchown"):
        monkeypatch.setattr(os, name, swapped(getattr(os, name)))
    leave_request(state, Request(verb="pause", run="r"))
    assert victim.stat().st_uid == 0
    assert list(victim.iterdir()) == []
    assert (state / "moved").stat().st_uid == 12345
    assert [path.stat().st_uid for path in (state / "moved").iterdir()] == [12345]


@pytest.mark.parametrize(
    ("sent", "path", "why"),
    [
        ({1: "a", 2: "b"}, "", "the key 1 would become a text"),
        ({"x": [{3: 4}]}, ".x[0]", "the key 3 would become a text"),
        ({True: 1}, "", "dict keys"),
        ({None: 1}, "", "dict keys"),
        ({1.5: 2}, "", "dict keys"),
        ((1, 2), "", "a tuple would become a list"),
        ({"x": ["y", ()]}, ".x[1]", "a tuple would become a list"),
        (float("nan"), "", "does not have the number nan"),
        ([1.0, float("-inf")], "[1]", "does not have the number -inf"),
        (10**5000, "", "does not have the number"),
        (b"x", "", "no place for a bytes"),
        ({"x": {1, 2}}, ".x", "no place for a set"),
        (datetime(2030, 1, 1, tzinfo=UTC), "", "no place for a datetime"),
        ("\ud800", "", "lone surrogate"),
        ({"\ud83d\ude00": 1}, "", "lone surrogate"),
        (OrderedDict(a=1), "", "OrderedDict is a subclass of dict"),
        (HTTPStatus.OK, "", "HTTPStatus"),
        (object(), "", "no plain data"),
    ],
    ids=range(18),
)
async def test_what_json_would_change_is_not_asked(tmp_path: Path, sent: Any, path: str, why: str) -> None:
    """The payload and the metadata of a request, which are what may hold anything: the place is named, and nothing is left."""
    async with Symphony(tmp_path / "state"), Symphony(tmp_path / "state", read_only=True) as reader:
        with pytest.raises(UnstorableValueError, match=re.escape(why)) as refused:
            await reader.requests.signal("r", "go", sent)
        assert format_path(refused.value.path).startswith(f"payload{path}")
        with pytest.raises(UnstorableValueError, match=re.escape(why)) as refused:
            leave_request(tmp_path / "state", Request(verb="prune", run="", arguments={"older_than_s": 1, "metadata": {"k": sent}}))
        assert format_path(refused.value.path).startswith(f"metadata.k{path}")
        with pytest.raises((UnstorableValueError, ConfigurationError)):
            await reader.requests.prune_runs(older_than=1, metadata={"k": sent})
        assert not list((tmp_path / "state").glob("inbox/*"))


@pytest.mark.parametrize("sent", [None, True, 7, -0.0, 1e300, 10**30, "é😀", [], {}, {"1": [1.5, {"x": None}]}, [[1], [2]]])
async def test_what_json_keeps_arrives_as_it_was_sent(tmp_path: Path, sent: Any) -> None:
    async with Symphony(tmp_path / "state") as symphony, Symphony(tmp_path / "state", read_only=True) as reader:
        handle = await symphony.workflows.start(symphony.build_workflow("w").add_wait("go").build())
        await reader.requests.signal(handle.run_id, "go", sent, timeout_s=60)
        assert repr(await handle.result()) == repr(sent)


async def test_a_container_of_a_live_object_arrives_as_a_plain_one(tmp_path: Path) -> None:
    async with Symphony(tmp_path / "state") as symphony, Symphony(tmp_path / "state", read_only=True) as reader:
        customer = symphony.entities.add(Customer(id="sent", notes={"a": [1, 2]}))
        handle = await symphony.workflows.start(symphony.build_workflow("w").add_wait("go").build())
        await reader.requests.signal(handle.run_id, "go", customer.notes, timeout_s=60)
        assert await handle.result() == {"a": [1, 2]}
