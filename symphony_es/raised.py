"""What a function of the application raised in a thread of the pool, told apart from what is asked of the program.

A `KeyboardInterrupt` in the main thread is somebody who wants the program to end. One that a function raises in a thread of its own is an
error of that function. Both reach the event loop as the same class, so the second kind is marked where it leaves the thread.
"""

from __future__ import annotations

import threading

__all__ = ["asks_the_program_to_end", "raised_in_thread"]

_MARK = "_symphony_raised_in_thread"


def raised_in_thread(error: BaseException) -> None:
    """Mark an error as that of a function in a thread of the pool."""
    error.__dict__[_MARK] = True


def asks_the_program_to_end(error: BaseException) -> bool:
    """Return whether this is the main thread's `KeyboardInterrupt`."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread() and _MARK not in error.__dict__
