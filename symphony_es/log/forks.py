"""What a forked child leaves to its parent: everything that was open at the fork.

A fork copies objects, file descriptors and SQLite's connections, and none of the threads that work on them. So in the child nothing that
the parent has open is used, closed or freed again: each holder of such a thing registers here and is told in the child, before any other
code runs there. Locks of files are given up there, so that they are the parent's alone.

A connection that the child frees would let SQLite tidy up files that the parent writes; so the child keeps a reference for ever.
SQLite takes a file that is opened anew for one that it has locked already, so the child closes inherited connections of a
file before it opens that file itself; they are idle, since the fork waits for what uses them (at most `QUIET_TIMEOUT_S`).
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

from symphony_es.system import present

__all__ = ["Inherited", "close_inherited", "keep_for_ever", "leave_connections", "left_at_fork", "open_ones"]

QUIET_TIMEOUT_S = 2.0
T = TypeVar("T")


class Inherited:
    """Something open that a child process inherits and must not use."""

    def quiet_for_fork(self, deadline: float) -> None:
        """Wait, in the parent before a fork, until nobody uses it, up to a moment of the monotonic clock."""

    def go_on_after_fork(self) -> None:
        """Go on, in the parent after a fork."""

    def leave_to_parent(self, parent: int) -> None:
        """Leave it, in the child, to the parent, which is the process of that number."""
        raise NotImplementedError


_open: WeakSet[Inherited] = WeakSet()
_one_fork_at_a_time = threading.Lock()
_pid = os.getpid()
_idle: dict[tuple[int, int], list[Any]] = {}


def left_at_fork(holder: Inherited) -> None:
    """Have something told of forks, for as long as it lives."""
    _open.add(holder)


def open_ones(kind: type[T]) -> list[T]:
    """Return what is alive of a kind, and was opened by this process."""
    return [holder for holder in list(_open) if isinstance(holder, kind)]


def keep_for_ever(*inherited: object) -> None:
    """See to it that objects are never freed, not even when the process ends."""
    import ctypes  # the parent has imported it before the fork

    for one in inherited:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


def leave_connections(file: tuple[int, int], connections: list[Any], *, idle: bool) -> None:
    """Keep, in the child, the parent's connections to a file, given by device and inode; idle ones can be closed when it is opened anew."""
    keep_for_ever(*connections)
    if idle:
        _idle.setdefault(file, []).extend(connections)


def close_inherited(path: Path) -> None:
    """Close connections to a file that a parent process has left, before it is opened."""
    if _idle and present(path):
        info = path.stat()
        for connection in _idle.pop((info.st_dev, info.st_ino), ()):
            connection.close()


def _before() -> None:
    _one_fork_at_a_time.acquire()
    if _open:
        import ctypes  # noqa: F401  in the child another thread's half-made import might never end

    deadline = time.monotonic() + QUIET_TIMEOUT_S
    for holder in list(_open):
        holder.quiet_for_fork(deadline)


def _in_parent() -> None:
    for holder in list(_open):
        holder.go_on_after_fork()
    _one_fork_at_a_time.release()


def _in_child() -> None:
    global _one_fork_at_a_time, _pid
    _one_fork_at_a_time = threading.Lock()
    parent, _pid = _pid, os.getpid()
    holders = list(_open)
    _open.clear()
    for holder in holders:
        holder.leave_to_parent(parent)


if hasattr(os, "register_at_fork"):  # where processes can be copied
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
