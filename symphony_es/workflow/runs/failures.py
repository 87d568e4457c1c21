"""What is put on record of an error: bounded, whatever the error holds, so that to record a failure cannot fail.

An error is the application's code: its message may be a whole HTTP body, its `__str__` may raise, its chain may have a thousand links, and
a group may hold as many errors again. What is left out is said, with the lengths.
"""

from __future__ import annotations

import linecache
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from symphony_es.diagnostics import message_of, shortened, writable
from symphony_es.raised import asks_the_program_to_end
from symphony_es.workflow.record.redaction import Redaction, current_redaction

__all__ = ["describe_error", "error_on_record", "errors_inside", "message_on_record", "shortened", "with_cleanup"]

MAX_MESSAGE_CHARS = 4_000
MAX_LOOKED_AT_CHARS = 40_000
"""So much of a message is searched for secrets."""

MAX_TRACEBACK_CHARS = 8_000
"""A traceback is kept to be read; of a deep recursion the innermost calls say enough."""

MAX_NAME_CHARS = 200
MAX_FRAMES = 40
MAX_CHAIN = 10
MAX_SAID_CHARS = 1_000
"""What a traceback and a group say of each of their errors."""

MAX_INSIDE = 1_000
MAX_SAID = 10
"""So many errors of a group are looked at, and so many are named."""


def describe_error(error: BaseException, step: str | None) -> dict[str, Any]:
    """Return an error as a state can hold it: bounded, without secrets (see `Redaction`), and made without raising.

    Args:
        error: any error; of a group the message says what is in it.
        step: address of the step that it came from, or None.

    Returns:
        `{"type", "message", "traceback", "step"}`, all text; of a group also `types`, the names of the classes of the errors in it.
        Message and traceback are empty where the rules say so (`error_details`).
    """
    rules = current_redaction.get()
    described: dict[str, Any] = {
        "type": _type_of(error),
        "message": message_on_record(_made(_message, error, "message"), rules),
        "traceback": _end(writable(rules.text(_made(_traceback, error, "traceback")))) if rules.error_details == "traceback" else "",
        "step": step,
    }
    if isinstance(error, BaseExceptionGroup):
        described["types"] = _made(_types_inside, error, "group").split(", ")
    return described


def with_cleanup(error: Mapping[str, Any], failures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the error of a run with what has failed of its clean-up behind it: the run's own message stays the first thing said.

    Args:
        error: of the run, as it is on record; what stands behind it of a clean-up before is taken off.
        failures: what has failed of the clean-up, each described as an error is.

    Returns:
        The error, its message longer by what is said; `cleanup` has that alone (`said`), and the addresses of the steps (`steps`).
    """
    own = {key: value for key, value in error.items() if key != "cleanup"}
    message = own["message"].removesuffix(error.get("cleanup", {}).get("said", ""))
    if not failures:
        return {**own, "message": message}
    said = [_said_of(failure) for failure in failures[:MAX_SAID]]
    more = [f"and {len(failures) - MAX_SAID:,} more"] if len(failures) > MAX_SAID else []
    behind = f"; not cleaned up: {'; '.join([*said, *more])}"
    steps = [failure["step"] for failure in failures if failure["step"] is not None]
    return {**own, "message": message + behind, "cleanup": {"said": behind, "steps": steps[:MAX_INSIDE]}}


def _said_of(failure: Mapping[str, Any]) -> str:
    where = "" if failure["step"] is None else f"{failure['step']}: "
    message = f": {shortened(failure['message'], MAX_SAID_CHARS)}" if failure["message"] else ""
    return f"{where}{failure['type']}{message}"


def message_on_record(message: str, rules: Redaction | None = None) -> str:
    """Return a message as it is put on record: none where the rules want the class alone, else without secrets, and cut.

    The rules are those of the run's task, if none are given. It is searched before it is cut where that is affordable, since a half of a
    secret is not known for one.
    """
    rules = rules or current_redaction.get()
    if rules.error_details == "type":
        return ""
    is_long = len(message) > MAX_LOOKED_AT_CHARS
    text = writable(rules.text(shortened(message, MAX_MESSAGE_CHARS) if is_long else message))
    return text if is_long and len(text) <= 2 * MAX_MESSAGE_CHARS else shortened(text, MAX_MESSAGE_CHARS)


def error_on_record(error: BaseException, rules: Redaction | None = None) -> str:
    """Return an error in one text, as it is put on record: its class, and its message where the rules let it; those of the run's task."""
    message = message_on_record(_made(_message, error, "message"), rules)
    return f"{_type_of(error)}: {message}" if message else _type_of(error)


def _made(make: Callable[[BaseException], str], error: BaseException, what: str) -> str:
    """Return a text made by code that asks the error, which may raise anything."""
    try:
        return make(error)
    except BaseException as second:
        if asks_the_program_to_end(second):
            raise
        return f"(its {what} could not be made: {_type_of(second)})"


def errors_inside(error: BaseException) -> list[BaseException]:
    """Return the errors of a group at any depth, groups left out, in their order, up to 1,000; of any other error the error itself."""
    found: list[BaseException] = []
    waiting = [error]
    for _ in range(MAX_INSIDE):
        if not waiting:
            break
        looked_at = waiting.pop()
        if isinstance(looked_at, BaseExceptionGroup):
            waiting.extend(reversed(looked_at.exceptions[:MAX_INSIDE]))
        else:
            found.append(looked_at)
    return found


def _message(error: BaseException) -> str:
    message = message_of(error)
    if not isinstance(error, BaseExceptionGroup):
        return message
    inside = errors_inside(error)
    said = [f"{_type_of(inner)}: {shortened(message_of(inner), MAX_SAID_CHARS // 4)}" for inner in inside[:MAX_SAID]]
    more = [f"and {len(inside) - MAX_SAID:,} more"] if len(inside) > MAX_SAID else []
    return f"{shortened(message, MAX_SAID_CHARS)}: {'; '.join([*said, *more])}"


def _types_inside(error: BaseException) -> str:
    return ", ".join(sorted({_type_of(inner) for inner in errors_inside(error)})[:MAX_SAID])


def _type_of(error: BaseException) -> str:
    return shortened(writable(type(error).__name__), MAX_NAME_CHARS)


def _traceback(error: BaseException) -> str:
    """Return the errors of a chain with their frames, the oldest first, as Python shows them; the newest end is kept where there is too
    much.
    """
    return _end(writable("".join(_parts(error))))


def _end(text: str) -> str:
    if len(text) <= MAX_TRACEBACK_CHARS:
        return text
    return f"[{len(text) - MAX_TRACEBACK_CHARS:,} of {len(text):,} characters left out] …{text[-MAX_TRACEBACK_CHARS:]}"


def _parts(error: BaseException) -> Iterator[str]:
    chain: list[tuple[str, BaseException]] = []
    link: tuple[str, BaseException] | None = ("", error)
    seen: set[int] = set()
    while link is not None and id(link[1]) not in seen and len(chain) < MAX_CHAIN:
        seen.add(id(link[1]))
        chain.append(link)
        link = _before(link[1])
    if link is not None and id(link[1]) not in seen:
        yield "(earlier errors of the chain are left out)\n\n"
    for how, linked in reversed(chain):
        yield from _one(linked)
        if isinstance(linked, BaseExceptionGroup):
            for number, inner in enumerate(errors_inside(linked)[:MAX_SAID], 1):
                yield f"  +---------------- {number} ----------------\n"
                yield "".join(f"  | {line}\n" for line in "".join(_one(inner)).splitlines())
        if how:
            yield f"\n{how}\n\n"


def _before(error: BaseException) -> tuple[str, BaseException] | None:
    if error.__cause__ is not None:
        return "The above exception was the direct cause of the following exception:", error.__cause__
    if error.__context__ is not None and not error.__suppress_context__:
        return "During handling of the above exception, another exception occurred:", error.__context__
    return None


def _summary(frame: FrameType, line: int) -> traceback.FrameSummary:
    """Return a frame without the marks below its line.

    For those, Python parses the line each time, which is most of what a failure costs.
    """
    code = frame.f_code
    linecache.lazycache(code.co_filename, frame.f_globals)
    return traceback.FrameSummary(code.co_filename, line, code.co_name, lookup_line=False)


def _one(error: BaseException) -> Iterator[str]:
    frames = deque(traceback.walk_tb(error.__traceback__), maxlen=MAX_FRAMES)
    if frames:
        yield "Traceback (most recent call last):\n"
        left_out = sum(1 for _ in traceback.walk_tb(error.__traceback__)) - len(frames)
        if left_out:
            yield f"  [{left_out:,} frames left out]\n"
        yield from traceback.StackSummary.from_list([_summary(frame, line) for frame, line in frames]).format()
    module = str(type(error).__module__)
    name = _type_of(error) if module in ("builtins", "__main__") else f"{module}.{type(error).__qualname__}"
    said = shortened(message_of(error), MAX_SAID_CHARS)
    yield f"{shortened(name, MAX_NAME_CHARS)}: {said}\n" if said else f"{shortened(name, MAX_NAME_CHARS)}\n"
    notes = getattr(error, "__notes__", None)
    for note in notes[:MAX_SAID] if isinstance(notes, (list, tuple)) else ():
        yield f"{shortened(str(note), MAX_SAID_CHARS)}\n"
