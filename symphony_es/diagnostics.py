"""Where the library's own log lines go: to structlog as the application configured it, else to the standard library's logging.

structlog that nobody configured prints to standard output; a library must not. So until the application configures structlog, lines
go to loggers named like the modules, which print nothing below a warning by default. Lines are named by constant past-tense events;
logging gets the values behind the name, as `key=value`, and as attributes of the record.

structlog is imported with the first line that somebody wants: it takes 50 ms, and most programs never see a line.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

from symphony_es.raised import asks_the_program_to_end
from symphony_es.shown import message

__all__ = ["error_text", "get_logger", "message_of", "shortened", "writable"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _Logger:
    """Chooses at each line, so that an application may import and configure structlog after this library."""

    __slots__ = ("_name", "_plain", "_standard", "_structured")

    def __init__(self, name: str) -> None:
        self._name = name
        self._plain = logging.getLogger(name)
        self._structured: Any = None
        self._standard: Any = None

    def _log(self, level: str, event: str, values: dict[str, Any]) -> None:
        if "structlog" not in sys.modules and not self._plain.isEnabledFor(_LEVELS[level]):
            return  # who has not imported it has not configured it either
        import structlog

        if self._standard is None:
            self._structured = structlog.get_logger(self._name)
            self._standard = structlog.wrap_logger(
                self._plain,
                wrapper_class=structlog.stdlib.BoundLogger,
                processors=[
                    structlog.contextvars.merge_contextvars,
                    structlog.stdlib.filter_by_level,
                    _as_line,
                ],
            )
        told = {key: message(value, lines=True, names=False) if isinstance(value, str) else value for key, value in values.items()}
        getattr(self._structured if structlog.is_configured() else self._standard, level)(event, **told)

    def debug(self, event: str, **values: Any) -> None:
        """Log something of interest to those who look closely."""
        self._log("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        """Log something that happened."""
        self._log("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        """Log something that somebody should look at."""
        self._log("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        """Log something that failed."""
        self._log("error", event, values)


MAX_SHOWN = 500
"""How many characters of a value a line shows; the record's attribute has as much as any message (`shown.message`)."""


def _as_line(_: Any, __: str, values: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Return what logging is called with: one line that says everything, since no formatter shows attributes that it does not know."""
    event = values.pop("event")
    how = {key: values.pop(key) for key in ("exc_info", "stack_info", "stacklevel") if key in values}
    line = " ".join([str(event), *(f"{key}={_shown(value)}" for key, value in values.items())])
    return {"msg": line, "extra": {f"{key}_" if key in _TAKEN else key: value for key, value in values.items()}, **how}


_TAKEN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})
"""Attributes that a record of logging has already, and refuses to be given: a value of such a name gets an underscore behind it."""


def _shown(value: Any) -> str:
    """Return a value on one line: as it is where it is one word, else in quotation marks."""
    text = str(value)
    if len(text) > MAX_SHOWN:
        text = f"{text[:MAX_SHOWN]}..."
    import json  # with the first line, as structlog

    if text.isprintable() and text and not any(mark in text for mark in " =\"'"):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted if quoted.isprintable() else "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in quoted)


def get_logger(name: str) -> _Logger:
    """Return the logger of a module."""
    return _Logger(name)


def writable(text: str) -> str:
    """Return a text with its lone surrogates as escapes: of an undecodable file name, say; neither a state nor a log line can hold them."""
    return str.encode(text, "utf-8", "backslashreplace").decode("utf-8")  # also of a subclass with an `encode` of its own


def shortened(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters and a note: its beginning and its end, and how much there was."""
    if len(text) <= limit:
        return text
    end = limit // 4
    return f"{text[: limit - end]} … [{len(text) - limit:,} of {len(text):,} characters left out] … {text[len(text) - end :]}"


def message_of(error: BaseException) -> str:
    """Return the message of an error of the application, whose `__str__` may fail itself, as text that can be written."""
    try:
        return writable(str(error))
    except BaseException as second:  # the error's own __str__ is the application's code
        if asks_the_program_to_end(second):
            raise
        return f"(its message could not be made: {type(second).__name__})"


def error_text(error: BaseException) -> str:
    """Return the type and message of an error, for a line of the log."""
    return f"{type(error).__name__}: {message_of(error)}"
