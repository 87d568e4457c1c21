"""Where the library's own log lines go: to structlog as the application configured it, else to the standard library's logging.

structlog that nobody configured prints to standard output; a library must not. So until the application configures structlog, lines
go to loggers named like the modules, which print nothing below a warning by default. Lines are named by constant past-tense events.

structlog is looked up among the modules and never imported here: who has not imported it has not configured it either, and need not wait
for it.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

__all__ = ["get_logger"]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _Logger:
    """Chooses at each line, so that an application may import and configure structlog after this library."""

    __slots__ = ("_name", "_standard", "_structured")

    def __init__(self, name: str) -> None:
        self._name = name
        self._standard = logging.getLogger(name)
        self._structured: Any = None

    def _log(self, level: str, event: str, values: dict[str, Any]) -> None:
        structlog: Any = sys.modules.get("structlog")
        is_configured = getattr(structlog, "is_configured", None)  # another thread may be about to import it
        if is_configured is not None and is_configured():
            if self._structured is None:
                self._structured = structlog.get_logger(self._name)
            getattr(self._structured, level)(event, **values)
        elif self._standard.isEnabledFor(_LEVELS[level]):
            bound = structlog.contextvars.get_contextvars() if is_configured is not None else {}
            self._standard.log(_LEVELS[level], event, extra={**bound, **values}, stacklevel=3)

    def debug(self, event: str, **values: Any) -> None:
        """Something of interest to those who look closely."""
        self._log("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        """Something that happened."""
        self._log("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        """Something that somebody should look at."""
        self._log("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        """Something that failed."""
        self._log("error", event, values)


def get_logger(name: str) -> _Logger:
    """The logger of a module."""
    return _Logger(name)
