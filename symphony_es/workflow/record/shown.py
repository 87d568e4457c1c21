"""Inputs as people read them: bounded, without secrets, and made without failing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from symphony_es.diagnostics import shortened, writable
from symphony_es.events.codec import encode_value
from symphony_es.events.values import Tagged
from symphony_es.raised import asks_the_program_to_end
from symphony_es.workflow.record.canonical import SECRET, Canonical, TooLargeError
from symphony_es.workflow.record.redaction import REDACTED, Redaction, current_redaction

if TYPE_CHECKING:
    from symphony_es.core.world.members import Members
    from symphony_es.workflow.record.inputs import StepInput

__all__ = ["MAX_INPUT_BYTES", "other_arguments", "shown_input"]

MAX_INPUT_BYTES = 16 * 1024
"""Of one input; of a larger one its beginning is on record, and how much there was."""

MAX_SHOWN_CHARS = 60
MAX_SHOWN = 5
MAX_NAME_CHARS = 100
_NOT_COMPARED = {
    "step": "step_with(check_arguments=False)(…)",
    "workflow": "run_workflow(…, check_arguments=False)",
}
"""How each kind of call says that its arguments are not compared."""

_SAYS_A_NAME = ("name", "key")


def other_arguments(address: str, given: StepInput, what: str) -> str:
    """Say, for a history mismatch, that arguments are not those on record."""
    names = list(given.values)
    shown = [f"{name}={_short(name, given.values[name])}" for name in names[:MAX_SHOWN]]
    more = [f"and {len(names) - MAX_SHOWN} more"] if len(names) > MAX_SHOWN else []
    called = f"with {', '.join([*shown, *more])}" if shown else "without arguments"
    return (
        f"{address} is on record with other arguments than it is called with now ({called}). Arguments that are others each time the "
        "function runs (of the clock, of chance, in the order of a set) come from a step of their own, or are not compared: "
        f"{_NOT_COMPARED[what]}"
    )


def _short(name: str, value: Any) -> str:
    redaction = current_redaction.get()
    if redaction.is_secret(name):
        return REDACTED
    try:
        text = repr(value)
    except BaseException as error:  # of a class of the application
        if asks_the_program_to_end(error):
            raise
        return f"({type(value).__name__})"
    return shortened(redaction.text(writable(text[: MAX_SHOWN_CHARS * 4])), MAX_SHOWN_CHARS)


def shown_input(values: Mapping[str, Any], world: Members | None) -> Any:
    """Return an input as plain data that an event can hold; where it is too large, `{"cut": its beginning as text, "bytes": its size}`."""
    try:
        redaction = current_redaction.get()
        made = Canonical(world, redaction).fields(dict(values))
        encoded = encode_value(made)
    except (TooLargeError, ValueError):
        return {"cut": shortened(", ".join(f"{name}={_short(name, value)}" for name, value in values.items()), MAX_INPUT_BYTES // 4)}
    if len(encoded) <= MAX_INPUT_BYTES:
        return _without_secrets(made, redaction)
    text = ", ".join(f"{name}={_short(name, value)}" for name, value in values.items())
    return {"cut": shortened(text, MAX_INPUT_BYTES // 4), "bytes": len(encoded)}


def _without_secrets(made: Any, redaction: Redaction) -> Any:
    """Take out of plain data what stands in its texts, and behind the name of a secret: in pairs, in commands, as `name` and `value`."""
    if not redaction.enabled:
        return made
    if type(made) is str:
        return redaction.text(made)
    if type(made) in (list, tuple):
        return type(made)(_items_without_secrets(made, redaction))
    if type(made) is dict:
        cleaned = {key: _without_secrets(item, redaction) for key, item in made.items()}
        for key in _SAYS_A_NAME:
            if type(made.get(key)) is str and type(made.get("value")) in (str, bytes) and redaction.is_secret(made[key]):
                cleaned["value"] = SECRET
        return cleaned
    if type(made) is Tagged and made.kind != "enum":
        return Tagged(made.kind, made.name, _without_secrets(made.data, redaction), value=made.value, state_version=made.state_version)
    return made


def _items_without_secrets(items: Sequence[Any], redaction: Redaction) -> Iterator[Any]:
    behind = False  # the name of a secret
    for item in items:
        yield SECRET if behind and type(item) in (str, bytes) else _without_secrets(item, redaction)
        name = item.decode("latin-1") if type(item) is bytes else item
        is_name = type(name) is str and len(name) <= MAX_NAME_CHARS and (len(items) == 2 or name.startswith("-")) and " " not in name
        behind = is_name and "=" not in name and redaction.is_secret(name)
