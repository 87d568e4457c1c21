"""Context variables that are set for the time of a block."""

from __future__ import annotations

from contextvars import Token
from typing import Any

__all__ = ["reset_variable"]


def reset_variable(token: Token[Any]) -> bool:
    """Give a context variable the value that it had before; return False where the block ends in another context, which has its own.

    A coroutine that nobody goes on with is closed by the garbage collector, in the context of whatever runs at that moment.
    """
    try:
        token.var.reset(token)
    except ValueError:
        return False
    return True
