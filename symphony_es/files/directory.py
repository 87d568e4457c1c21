"""Blocking steps on the files of a state directory; the callers run them in a worker thread.

The rules kept here: what the operating system says is a `StorageUnavailableError`, and a directory is durable in its parent before
anything is put into it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from symphony_es import system
from symphony_es.errors import StorageUnavailableError

__all__ = ["discard", "make_directory", "remove_files", "remove_leftovers", "sync_directory", "unavailable"]

TEMPORARY_NAME = re.compile(r"\.[a-z0-9_.-]+\.[0-9a-f]{16}\.tmp")
"""Names of files that are being written. Whoever finds one that nobody writes may remove it."""


@contextlib.contextmanager
def unavailable(what: str, outcome: str = "what was there before is untouched") -> Iterator[None]:
    """Say what could not be done when the operating system refuses it, and what has happened by then."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageUnavailableError):
            raise
        reason = error.strerror or str(error)
        raise StorageUnavailableError(error.errno, f"{what}: {reason}; {outcome}") from error


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    with unavailable(f"{directory} cannot be made durable", "the last changes of it may be lost with the power"):
        system.sync_directory(directory)


def make_directory(directory: Path) -> None:
    """Make a directory and those above it, each durable in its parent."""
    with unavailable(f"{directory} cannot be looked at"):
        if system.is_directory(directory):
            return
    make_directory(directory.parent)
    with unavailable(f"{directory} cannot be made"):
        directory.mkdir(mode=0o700, exist_ok=True)
    sync_directory(directory.parent)


def remove_files(paths: Sequence[Path]) -> list[Path]:
    """Remove files of one directory for good, and return those that were there. Blocking.

    Raises:
        StorageUnavailableError: one cannot be removed; those before it are gone.
    """
    removed = []
    for path in paths:
        with unavailable(f"{path.name} cannot be removed"), contextlib.suppress(FileNotFoundError):
            path.unlink()
            removed.append(path)
    for directory in {path.parent for path in removed}:
        sync_directory(directory)
    return removed


def remove_leftovers(directory: Path) -> None:
    """Remove temporary files that a crash has left. Blocking; nobody may be writing there.

    Raises:
        FileNotFoundError: there is no such directory.
    """
    for path in directory.iterdir():
        if TEMPORARY_NAME.fullmatch(path.name):
            discard(path)


def discard(temporary: Path) -> None:
    """Remove a temporary file on the way out of a failure."""
    with contextlib.suppress(OSError):  # the failure that led here is the one to report; the next start removes leftovers
        temporary.unlink()
