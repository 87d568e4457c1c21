"""Being woken when a file is put into a directory: the kernel does it on Linux, so that waiting for one costs nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["watch_directory"]

_MOVED_TO = 0x80
"""`IN_MOVED_TO` of <sys/inotify.h>: a file is there whole when it has been renamed."""


def watch_directory(directory: Path) -> int | None:
    """Return a descriptor that is readable when a file has been renamed into a directory; the caller reads it empty, and closes it.

    Returns:
        None where the kernel has no such thing, or no room for another one: then the directory has to be looked at now and then.
    """
    if not sys.platform.startswith("linux"):
        return None
    import ctypes  # late: who only reads logs needs none of it

    library = ctypes.CDLL(None, use_errno=True)
    try:
        begin, add = library.inotify_init1, library.inotify_add_watch
    except AttributeError:  # a C library without it
        return None
    descriptor = int(begin(os.O_NONBLOCK | os.O_CLOEXEC))
    if descriptor < 0:
        return None
    add.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
    if add(descriptor, os.fsencode(directory), _MOVED_TO) < 0:
        os.close(descriptor)
        return None
    return descriptor
