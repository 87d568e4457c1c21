"""Building something beside its target, to be put in place in one step: what every export, import, backup, restore and fork begins with.

What is being built is in a directory `.NAME.HEX.part` beside the target, locked as long as its process lives. The next one to build
for the same target removes those whose process is gone; so a kill leaves nothing that could be taken for a result, and nothing for long.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from symphony_es.files.directory import make_directory, unavailable
from symphony_es.files.working import in_thread
from symphony_es.system import is_link, lock

__all__ = ["building"]


@contextlib.asynccontextmanager
async def building(target: Path) -> AsyncIterator[Path]:
    """Make an empty private directory beside the target, gone at the end of the block whatever is in it, unless it has become the target.

    Raises:
        StorageUnavailableError: it cannot be made.
    """
    place = _workplace(target)
    directory = place.__enter__()  # a few system calls: nothing to be left half-way by a cancellation
    try:
        yield directory
    finally:
        await in_thread(lambda _: place.__exit__(None, None, None))


@contextlib.contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    make_directory(target.parent)
    with unavailable(f"{target} cannot be built beside its place"):
        _remove_stale(target)
        place, descriptor = _make(target)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(descriptor)


def _make(target: Path) -> tuple[Path, int]:
    while True:
        place = target.with_name(f".{_shortened(target.name)}.{secrets.token_hex(8)}.part")
        place.mkdir(mode=0o700)
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # somebody took it for one that a kill has left: another one
            continue
        with contextlib.suppress(BlockingIOError, FileNotFoundError):  # the same, a moment later
            lock(descriptor)
            if place.stat().st_ino == os.fstat(descriptor).st_ino:
                return place, descriptor
        os.close(descriptor)


def _shortened(name: str) -> str:
    """Return a name that leaves room for what is put around it: file systems take 255 bytes, not characters."""
    return os.fsencode(name)[:200].decode(errors="ignore")


def _remove_stale(target: Path) -> None:
    pattern = re.compile(rf"\.{re.escape(_shortened(target.name))}\.[0-9a-f]{{16}}\.part")
    for path in list(target.parent.iterdir()):
        if pattern.fullmatch(path.name) is None or is_link(path):
            continue
        with contextlib.suppress(OSError):  # somebody else's, or gone already
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                lock(descriptor)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)
