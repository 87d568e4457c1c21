"""Where the library's own log lines go: to structlog as the application configured it, else to the standard library's logging.

structlog that nobody configured prints to standard output; a library must not. So until the application configures structlog, lines
go to loggers named like the modules, which print nothing below a warning by default. Lines are named by constant past-tense events.

structlog is imported with the first line that somebody wants: it takes 50 ms, and most programs never see a line.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

__all__ = ["get_logger"]

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
                    structlog.stdlib.render_to_log_kwargs,
                ],
            )
        getattr(self._structured if structlog.is_configured() else self._standard, level)(event, **values)

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
