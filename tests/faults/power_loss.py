"""A power-loss simulator: every state of the disk that a power cut may legally leave, from a record of system calls.

A program is run under strace. Its file operations inside one directory become a list: writes, truncations, new names, renames,
removals, syncs. At each point of the list what was synced is durable; of the rest any part may have reached the disk: none, all, all
but one, only one, torn and garbled writes, or a random choice. Each such state is built as real files, to be opened and checked.

Source: the method of ALICE (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014).
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

CALLS = (
    "openat,creat,pwrite64,write,writev,pwritev,ftruncate,truncate,fallocate,fsync,fdatasync,lseek,"
    "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,link,linkat"
)
UNSUPPORTED = frozenset({"writev", "pwritev", "fallocate", "link", "linkat", "truncate"})
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"(\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>")
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)(.*)$", re.S)


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of the disk. `target` is the file or directory whose sync makes it durable."""

    number: int
    kind: str  # write, truncate, link, rename, unlink, sync
    target: int
    name: bytes = b""
    source: bytes = b""
    node: int = -1
    offset: int = 0
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something the program has acknowledged: after `number` operations it printed `text`."""

    number: int
    text: str


def record(command: Sequence[str], root: Path) -> Recording:
    """Run a program under strace and turn its calls inside `root` into operations; what it writes to descriptor 1 are marks."""
    trace = root.with_suffix(".trace")
    strace = ["strace", "-f", "-qq", "-y", "-xx", "-s", "99999999", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(trace)]
    subprocess.run([*strace, *command], check=True, stdout=subprocess.DEVNULL)
    recording = Recording(root)
    unfinished: dict[str, str] = {}
    for line in trace.read_text().splitlines():
        process, rest = line.split(None, 1)
        if rest.endswith("<unfinished ...>"):
            unfinished[process] = rest.removesuffix("<unfinished ...>")
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", rest, re.S)
        recording.take(unfinished.pop(process, "") + resumed[1] if resumed else rest)
    trace.unlink()
    return recording


class Recording:
    """The operations of one run."""

    def __init__(self, root: Path) -> None:
        self.root = os.fsencode(root)
        self.operations: list[Operation] = []
        self.marks: list[Mark] = []
        self.directories = {0}
        self._names = {self.root: 0}
        self._offsets: dict[tuple[bytes, str], int] = {}

    def take(self, line: str) -> None:
        """Take in one line of strace."""
        match = _CALL.match(line)
        if match is None or match[3].startswith("-"):
            return
        call, arguments, result = match[1], match[2], int(match[3])
        held = _DESCRIPTOR.match(arguments)
        path = _decode(held[2]) if held and held[1] != "AT_FDCWD" else None
        texts = [_decode(text) for text in _TEXT.findall(arguments)]
        if call == "write" and held and held[1] == "1":
            self.marks.append(Mark(len(self.operations), texts[0].decode().strip()))
        elif call in ("openat", "creat"):
            base = _decode(held[2]) if held and held[1] == "AT_FDCWD" else path or b""
            self._open(os.path.join(base, texts[0]), arguments, result)
        elif call in ("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat"):
            self._name([os.path.join(os.getcwdb(), text) for text in texts], call)
        elif path is not None and self._inside(path):
            self._write(call, path, held[1] if held else "", texts, arguments, result)

    def _inside(self, path: bytes) -> bool:
        return (path == self.root or path.startswith(self.root + b"/")) and not path.endswith(b"-shm")

    def _add(self, kind: str, target: int, **fields: object) -> None:
        self.operations.append(Operation(len(self.operations), kind, target, **fields))  # type: ignore[arg-type]

    def _new(self, path: bytes) -> int:
        node = max(self._names.values(), default=0) + len(self.operations) + 1
        self._names[path] = node
        self._add("link", self._names[os.path.dirname(path)], name=os.path.basename(path), node=node)
        return node

    def _open(self, path: bytes, arguments: str, descriptor: int) -> None:
        if not self._inside(path):
            return
        if path not in self._names:
            if "O_CREAT" not in arguments:
                return
            self._new(path)
        elif "O_TRUNC" in arguments:
            self._add("truncate", self._names[path], offset=0)
        self._offsets[path, str(descriptor)] = 0

    def _name(self, paths: list[bytes], call: str) -> None:
        if not all(self._inside(path) for path in paths):
            return
        directory = self._names[os.path.dirname(paths[-1])]
        if call.startswith("rename"):
            node = self._names[paths[1]] = self._names.pop(paths[0])
            self._add("rename", directory, name=os.path.basename(paths[1]), source=os.path.basename(paths[0]), node=node)
        elif call.startswith("unlink"):
            if self._names.pop(paths[0], None) is not None:
                self._add("unlink", directory, name=os.path.basename(paths[0]))
        elif paths[0] != self.root:
            self.directories.add(self._new(paths[0]))

    def _write(self, call: str, path: bytes, descriptor: str, texts: list[bytes], arguments: str, result: int) -> None:
        node, place = self._names[path], (path, descriptor)
        if call in UNSUPPORTED:
            raise AssertionError(f"the simulator does not know {call}")
        if call == "pwrite64":
            self._add("write", node, offset=int(arguments.rsplit(",", 1)[1]), data=texts[0][:result])
        elif call == "write":
            offset = self._offsets.get(place, 0)
            self._add("write", node, offset=offset, data=texts[0][:result])
            self._offsets[place] = offset + result
        elif call == "lseek":
            self._offsets[place] = result
        elif call == "ftruncate":
            self._add("truncate", node, offset=int(arguments.rsplit(",", 1)[1]))
        elif call in ("fsync", "fdatasync"):
            self._add("sync", node)

    def split(self, end: int, ignored_sync: int | None = None) -> tuple[list[Operation], list[Operation]]:
        """What is durable after the first `end` operations, and what may or may not be."""
        synced: dict[int, int] = {}
        for operation in self.operations[:end]:
            if operation.kind == "sync" and operation.number != ignored_sync:
                synced[operation.target] = operation.number
        durable, pending = [], []
        for operation in self.operations[:end]:
            if operation.kind != "sync":
                (durable if synced.get(operation.target, -1) > operation.number else pending).append(operation)
        return durable, pending

    def build(self, kept: list[Operation], where: Path) -> None:
        """Make the files that these operations leave."""
        files: dict[int, bytearray] = {}
        names: dict[int, dict[bytes, int]] = {}
        for operation in sorted(kept, key=lambda each: each.number):
            _apply(operation, files, names)
        shutil.rmtree(where, ignore_errors=True)
        where.mkdir(mode=0o700)
        self._lay_out(0, os.fsencode(where), files, names)

    def _lay_out(self, node: int, path: bytes, files: dict[int, bytearray], names: dict[int, dict[bytes, int]]) -> None:
        for name, child in names.get(node, {}).items():
            place = os.path.join(path, name)
            if child in self.directories:
                os.mkdir(place, 0o700)
                self._lay_out(child, place, files, names)
            else:
                with open(os.open(place, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                    file.write(files.get(child, b""))


def _apply(operation: Operation, files: dict[int, bytearray], names: dict[int, dict[bytes, int]]) -> None:
    listing = names.setdefault(operation.target, {})
    content = files.setdefault(operation.target, bytearray())
    match operation.kind:
        case "write":
            end = operation.offset + len(operation.data)
            content.extend(bytes(max(0, end - len(content))))
            content[operation.offset : end] = operation.data
        case "truncate":
            del content[operation.offset :]
            content.extend(bytes(operation.offset - len(content)))
        case "rename":
            listing.pop(operation.source, None)
            listing[operation.name] = operation.node
        case "link":
            listing[operation.name] = operation.node
        case "unlink":
            listing.pop(operation.name, None)


def variants(pending: list[Operation], rng: random.Random, random_states: int) -> Iterator[list[Operation]]:
    """Which of the operations that are not durable have reached the disk, and how."""
    yield []
    yield pending
    for index, operation in enumerate(pending):
        yield pending[:index]
        yield pending[:index] + pending[index + 1 :]
        yield [operation]
        if operation.kind == "write":
            yield [*pending[:index], _torn(operation, rng)]
            yield [*pending[:index], _torn(operation, rng), *pending[index + 1 :]]
    for _ in range(random_states if len(pending) > 1 else 0):
        yield [_torn(each, rng) if each.kind == "write" and rng.random() < 0.2 else each for each in pending if rng.random() < 0.6]


def _torn(operation: Operation, rng: random.Random) -> Operation:
    size = len(operation.data)
    how = rng.choice(("half", "zero", "garbage"))
    if how == "half":
        return replace(operation, data=operation.data[: max(1, size // 2)])
    return replace(operation, data=bytes(size) if how == "zero" else rng.randbytes(size))


def _decode(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))
