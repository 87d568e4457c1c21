"""Making many objects that stay: without passes of the garbage collector over what cannot be garbage yet.

A pass of Python's collector looks at every object of a generation. While a resume makes hundreds of thousands of objects that all
stay, these passes take a third of its time and hold the event loop for 100 ms and more, and find nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["kept_objects"]

FEW = 1000  # objects that the collector may well look at; so many may be frozen by Python itself, as 3.12 does while it starts


@contextmanager
def kept_objects() -> Iterator[None]:
    """Hold off the collector in a block that makes objects which stay: what the block made counts as old afterwards.

    For synchronous stretches of some milliseconds, one after the other. Where the application has turned collection off, nothing
    changes; where it keeps frozen objects (`gc.freeze`), what the block made is looked at by the next pass, as always.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] > FEW and gc.get_freeze_count() < FEW:
            gc.freeze()  # both move whole lists of objects, whatever their length:
            gc.unfreeze()  # from all generations to the oldest one
        gc.enable()
