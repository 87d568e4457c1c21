"""Asking the owner of a log for something, from another process: a request is left, and the answer is read from the log.

The answer is an event of `symphony.Request:ID`. Nothing else is needed to know it, so that whoever asks again under the same id, in
whatever process and however much later, is told the same. It says what was asked: who asks something else under that id is refused, and
neither told the answer to another question nor put in the place of what waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from symphony_es.core.world.inbox import INBOX_NAME, Request, leave_request, waiting_request
from symphony_es.errors import ConfigurationError, RequestPendingError
from symphony_es.late_dataclasses import dataclass
from symphony_es.log.directory import last_writer
from symphony_es.system import present

if TYPE_CHECKING:
    from symphony_es.events.event import Event
    from symphony_es.log.log import EventLog

__all__ = ["ANSWERS", "DONE_EVENT", "REFUSED_EVENT", "TAKEN_EVENT", "Answer", "answer_on_record", "send_request", "send_requests"]

DONE_EVENT = "RequestDone"
REFUSED_EVENT = "RequestRefused"
ANSWERS = (DONE_EVENT, REFUSED_EVENT)
TAKEN_EVENT = "RequestTaken"
"""Comes before a request is carried out, and says which version its run has: whoever comes after a kill looks at what came after that."""
FIRST_LOOK_S, LONGEST_LOOK_S = 0.005, 0.1
"""How long the caller sleeps between two looks: an owner that is awake answers within milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the owner of the log says to a request.

    Attributes:
        request: id of the request. done: whether it was carried out.
        status: the run's, right after it; empty where there is no such run.
        error_type, message: of a refusal: the class of the error, and what it says.
        pruned: of a prune that was done, what came of it, as `PruneReport.as_dict` gives it, with fewer ids.
        position: of the answer in the log.
    """

    request: str
    done: bool
    status: str = ""
    error_type: str = ""
    message: str = ""
    position: int = 0
    pruned: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, event: Event) -> Answer:
        """Read the event that is the answer."""
        data: dict[str, Any] = event.data if isinstance(event.data, dict) else {}
        error = data.get("error") or {}
        return cls(
            request=event.entity_id,
            done=event.name == DONE_EVENT,
            status=str(data.get("status") or ""),
            error_type=str(error.get("type", "")),
            message=str(error.get("message", "")),
            position=event.position,
            pruned=data.get("pruned"),
        )


async def answer_on_record(log: EventLog, request: str | Request) -> Answer | None:
    """Return the answer to a request, None where there is none in the log as it is now; a refusal where its id is that of another one."""
    await log.refresh_head()
    asked = None if isinstance(request, str) else request
    events = await log.read_entity(f"symphony.Request:{asked.id if asked is not None else request}")
    event = next((event for event in events if event.name in ANSWERS), None)
    if event is None:
        return None
    told: dict[str, Any] = event.data if isinstance(event.data, dict) else {}
    if asked is not None and "verb" in told:
        differs = (told["verb"], told.get("run")) != (asked.verb, asked.run)
        if differs or told.get("asked", asked.digest) != asked.digest:
            return _refused(
                asked, f"was `{told['verb']} {told.get('run')}`, {_OTHERWISE[not differs]}answered at position {event.position}"
            )
    return Answer.of(event)


_OTHERWISE = ("", "with other arguments, ")


def _refused(request: Request, what: str) -> Answer:
    message = f"request {request.id} {what}; an id is that of one request: give this one its own"
    return Answer(request=request.id, done=False, error_type=ConfigurationError.__name__, message=message)


async def send_request(log: EventLog, state_dir: Path, request: Request, *, timeout_s: float, **clock: Any) -> Answer:
    """Leave a request, and wait for the answer; see `send_requests`.

    Raises:
        RequestPendingError: nobody owns the log, or the owner has not answered in time. The request stays for the one who does.
        StorageUnavailableError: it cannot be left. ConfigurationError, LimitExceededError: it cannot be written. Nothing has been left.
    """
    (found,) = await send_requests(log, state_dir, [request], timeout_s=timeout_s, **clock)
    if isinstance(found, RequestPendingError):
        raise found
    return found


async def send_requests(
    log: EventLog,
    state_dir: Path,
    requests: Sequence[Request],
    *,
    timeout_s: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    now: Callable[[], float] = time.monotonic,
) -> list[Answer | RequestPendingError]:
    """Leave requests, and wait for the answers.

    Args:
        log: the log, open for reading only.
        state_dir: its directory.
        requests: the requests. One whose id has an answer is not left again; one whose id is that of another request is refused.
        timeout_s: how long to wait for all of them, in seconds.
        sleep: waits between two looks. now: the clock that `timeout_s` goes by.

    Returns:
        in their order, the answer to each, or the error that says why there is none yet.

    Raises:
        StorageUnavailableError: one cannot be left. ConfigurationError, LimitExceededError: one cannot be written. Those before it stay.
    """
    found: dict[str, Answer | RequestPendingError] = {}
    waiting: dict[str, Path] = {}
    asked = {request.id: request for request in requests}
    for request in requests:
        known = await answer_on_record(log, request) or await asyncio.to_thread(_refuse_in_place_of, state_dir, request)
        if known is not None:
            found[request.id] = known
        else:
            waiting[request.id] = await asyncio.to_thread(leave_request, state_dir, request)
    until, pause_s = now() + timeout_s, FIRST_LOOK_S
    while True:
        owner = await asyncio.to_thread(last_writer, state_dir)
        gone = await asyncio.to_thread(lambda: [name for name, path in waiting.items() if not present(path)])
        for name in gone:
            path = waiting.pop(name)
            found[name] = await answer_on_record(log, asked[name]) or RequestPendingError(
                name, f"somebody has taken {path} away, and there is no answer to it in the log"
            )
        why = _why_none(owner, timeout_s, late=now() >= until)
        if why:
            found |= {name: RequestPendingError(name, f"{why}; rm {path} takes it back") for name, path in waiting.items()}
        if len(found) >= len({request.id for request in requests}):
            return [found[request.id] for request in requests]
        await sleep(pause_s)
        pause_s = min(pause_s * 1.5, LONGEST_LOOK_S)


def _refuse_in_place_of(state_dir: Path, request: Request) -> Answer | None:
    """Return a refusal where another request waits under the id. Blocks."""
    waits = waiting_request(state_dir, request.id)
    if waits is None or waits.digest == request.digest:
        return None
    other = _OTHERWISE[(waits.verb, waits.run) == (request.verb, request.run)]
    taken_back = f"rm {state_dir / INBOX_NAME / request.id} takes that back"
    return _refused(request, f"is `{waits.verb} {waits.run}`, {other}and waits ({taken_back})")


def _why_none(owner: str, timeout_s: float, *, late: bool) -> str:
    """Return why no answer is waited for any longer; empty while there may be one."""
    if owner != "writing":
        return "nobody has this log open: the request stays, and the next process that opens it carries it out"
    return f"no answer within {timeout_s:g} s: the request stays, and is carried out when its turn comes" if late else ""
