"""Calls of the application's code: what a projection raises is its own error, whatever its class.

A `SystemExit`, `KeyboardInterrupt` or `CancelledError` that `apply` raises asks nothing of the task that feeds it. It is handed on as an
`Exception` that names it, and so is tried again and parked like any other. Only the main thread's `KeyboardInterrupt` ends the program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from symphony_es.diagnostics import message_of, writable
from symphony_es.raised import asks_the_program_to_end
from symphony_es.shown import type_shown

__all__ = ["RaisedError", "Redact", "called", "message", "type_of", "why_of"]

T = TypeVar("T")
Redact: TypeAlias = Callable[[str], str]
"""Takes out of a message what is not to be put on record."""


class RaisedError(Exception):
    """What the application's code raised that is no `Exception`; it is chained.

    Attributes:
        raised: the error itself.
    """

    def __init__(self, raised: BaseException) -> None:
        super().__init__(why_of(raised))
        self.raised = raised


def called(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function of the application's, in any thread.

    Raises:
        RaisedError: it raised something that would end the caller's task or program.
        Exception: it raised that.
    """
    try:
        return function(*arguments)
    except Exception:
        raise
    except BaseException as error:
        if asks_the_program_to_end(error):
            raise
        raise RaisedError(error) from error


def type_of(error: BaseException) -> str:
    """Return the name of an error's class, for a record."""
    return writable(type(error.raised if isinstance(error, RaisedError) else error).__name__)


def message(error: BaseException, redact: Redact | None = None) -> str:
    """Return an error's message, as text that can be written; nothing of it where `redact` fails."""
    said = message_of(error.raised if isinstance(error, RaisedError) else error)
    if redact is None or not said:
        return said
    try:
        redacted: object = called(redact, said)
    except Exception as failed:  # noqa: BLE001  it is code of the application, and the message may be what it fails at
        return f"[left out: redact raised {type_of(failed)}]"
    return writable(redacted) if type(redacted) is str else f"[left out: redact returned {type_shown(redacted)}]"


def why_of(error: BaseException, redact: Redact | None = None) -> str:
    """Return an error's class and message, or its class alone where it says nothing."""
    said = message(error, redact)
    return f"{type_of(error)}: {said}" if said else type_of(error)
