"""Requests from other processes: the port `Inbox`, and the files behind it.

One process writes a log. Who wants something of its runs from outside, as the command line does, leaves a request in `STATE_DIR/inbox/`: a
file whose name is the request's id, put there whole (a temporary file, fsync, rename). The process that has the log open, its owner, takes
it, appends what it did, with the request's id as the correlation id of those events, and an answer of its own (`symphony.Request:ID`), and
then removes the file. So a request is carried out once, whoever is killed when: the answer on record says that it is done, also to who asks
again under the same id, and where only the answer is missing, the run's own events say so.

A file in the inbox is data of somebody else: it is bounded, read without following a link, and taken only where it belongs to this
process's user, or to root, and nobody else can write it. Where the kernel can tell, it wakes the owner,
so that watching costs nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Protocol

from symphony_es.errors import ConfigurationError, LimitExceededError, StorageUnavailableError, UnstorableValueError
from symphony_es.events.as_json import check_as_json
from symphony_es.events.identifiers import entity_key, text_id, uuid7
from symphony_es.files.directory import make_directory, unavailable
from symphony_es.files.watching import watch_directory
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import shown
from symphony_es.strict_json import read_strictly
from symphony_es.system import sync

__all__ = [
    "INBOX_NAME",
    "PRUNE",
    "REQUEST_TYPE",
    "VERBS",
    "FaultyRequest",
    "FileInbox",
    "Inbox",
    "Request",
    "leave_request",
    "waiting_request",
    "waiting_requests",
]

INBOX_NAME = "inbox"
REQUEST_TYPE = "symphony.Request"
VERBS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "signal": {"name": (str,), "payload": (object,)},
    "cancel": {"grace_s": (int, float), "cleanup": (bool,)},
    "pause": {},
    "resume": {},
    "retry": {"step": (str, list)},
    "prune": {"older_than_s": (int, float), "before": (str,), "status": (list,), "name": (list,), "metadata": (dict,)},
}
"""What can be asked from outside, of a run or, by `PRUNE`, of all of them: its arguments and their types."""
PRUNE = "prune"
_FREE = ("payload", "metadata")
"""The arguments in which anything of JSON may stand; all others are texts, numbers, true or false, which JSON leaves as they are."""
_KINDS: Mapping[type, str] = {
    str: "a text", bool: "true or false", list: "a list of at least one", dict: "an object", object: "what JSON has"
}  # fmt: skip
MAX_REQUEST_BYTES = 1024 * 1024
MAX_SECONDS = 1e300
"""More seconds than that are asked by mistake, and fit no float where they are an int."""
MAX_TEXT = 2000
"""Characters of an actor, a reason, a step or a signal's name: they stand on every event."""
MOST_AT_ONCE = 100
"""How many requests are taken in one go, and how many refused; the others wait in the directory."""
MOST_READ = 5_000
MOST_READ_BYTES = 64 * 1024 * 1024
"""So many files, and bytes of them, are read in one go while fewer requests are found."""
LEFTOVER_S = 600.0
"""After this long a temporary file is nobody's any more: putting one in place takes milliseconds."""

_Mark = tuple[int, int, int, int]
"""What tells that a file is the one that was read: its inode, the times of its last changes, its size."""
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Something that is asked of one run, or of all that fit.

    Attributes:
        verb: one of `VERBS`. run: id of the run; empty for `PRUNE`. arguments: those of the verb.
        actor: who asks. reason: why.
        id: made when left empty; asking again under the same id changes nothing.
    """

    verb: str
    run: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    actor: str | None = None
    reason: str | None = None
    id: str = field(default_factory=lambda: text_id(uuid7(time.time_ns(), os.urandom(16))))

    def __post_init__(self) -> None:
        """Refuse what no owner could carry out.

        Raises:
            ConfigurationError: an unknown verb or argument, or one of a wrong type; an id that no file can have; a text that is too long.
            InvalidIdentifierError: no run can have that id.
            UnstorableValueError: JSON, as which it travels, would change the payload or the metadata; the error names the path.
        """
        if self.verb not in list(VERBS):  # it may be anything, also what has no hash
            raise ConfigurationError(f"{shown(self.verb)} is not a request: one of {', '.join(VERBS)} is")
        texts: Mapping[str, Any] = {"id": self.id, "run": self.run}
        told: Any = self.arguments
        if not isinstance(texts["id"], str) or _ID.match(self.id) is None:
            raise ConfigurationError(f"{shown(self.id)} is not an id of a request: up to 100 letters, digits, '.', '_' and '-'")
        if not isinstance(texts["run"], str):
            raise ConfigurationError(f"a request names a run by its id, not by {shown(self.run)}")
        if self.verb != PRUNE:
            entity_key("Workflow", self.run)
        elif self.run:
            raise ConfigurationError(f"{PRUNE} is asked of all runs that fit, and not of one: run is empty, not {shown(self.run)}")
        if not isinstance(told, Mapping):
            raise ConfigurationError(f"arguments of a request are an object, not {shown(told)}")
        for name, value in told.items():
            _check_argument(self.verb, name, value)
        if self.verb == "signal" and not self.arguments.get("name"):
            raise ConfigurationError("a signal has a name that is not empty")
        if self.verb == PRUNE and ("before" in told) is ("older_than_s" in told):
            raise ConfigurationError(f"{PRUNE} takes older_than_s or before: how long ago the runs ended, or before which moment")
        _check_text("actor", self.actor)
        _check_text("reason", self.reason)

    @property
    def key(self) -> str:
        """Key of the entity that the answer is an event of."""
        return entity_key(REQUEST_TYPE, self.id)

    @property
    def digest(self) -> str:
        """What is asked of which run, whoever asks and why; what is left out counts as the default."""
        told = {name: value for name, value in self.arguments.items() if value is not None and (name, value) != ("cleanup", True)}
        if "grace_s" in told:
            told["grace_s"] = float(told["grace_s"])
        if isinstance(told.get("step"), str):
            told["step"] = [told["step"]]
        asked = json.dumps([self.verb, self.run, told], sort_keys=True)
        return hashlib.blake2b(asked.encode(), digest_size=8).hexdigest()

    def encode(self) -> bytes:
        """Return the content of its file.

        Raises:
            LimitExceededError: it is too large.
        """
        told = {"verb": self.verb, "run": self.run, "arguments": dict(self.arguments), "actor": self.actor, "reason": self.reason}
        content = json.dumps({"format": 1, **told}, allow_nan=False).encode()
        if len(content) > MAX_REQUEST_BYTES:
            raise LimitExceededError(f"the request has {len(content):,} bytes; at most {MAX_REQUEST_BYTES:,} can be asked at once")
        return content

    @classmethod
    def decode(cls, request_id: str, content: bytes) -> Request:
        """Read the content of a file.

        Raises:
            ConfigurationError, InvalidIdentifierError, UnstorableValueError: it is not a request.
        """
        try:
            told = read_strictly(content.decode())
        except ValueError as error:
            raise ConfigurationError(f"it is not JSON: {error!s:.200}") from error
        fields = {"format", "verb", "run", "arguments", "actor", "reason"}
        if not isinstance(told, dict) or told.keys() - fields or not {"verb", "run"} <= told.keys():
            raise ConfigurationError(f"it is not an object of {', '.join(sorted(fields))}")
        number = told.pop("format", 1)
        if type(number) is not int or number != 1:  # true is 1, and so is 1.0
            raise ConfigurationError(f"it is of a format that this version does not know: {shown(number)}")
        return cls(id=request_id, **told)


def _check_argument(verb: str, name: str, value: Any) -> None:
    allowed = VERBS[verb]
    if name not in allowed:
        raise ConfigurationError(f"{verb} takes {', '.join(allowed) or 'no arguments'}, not {shown(name)}")
    wanted = allowed[name]
    fits = isinstance(value, wanted) and not (isinstance(value, bool) and float in wanted)
    if not fits or (float in wanted and not 0 <= value <= MAX_SECONDS):
        kinds = "a number of seconds, 0 or more" if float in wanted else " or ".join(_KINDS[kind] for kind in wanted)
        raise ConfigurationError(f"{name} of {verb} is {kinds}, not {shown(value)}")
    if name in _FREE:
        check_as_json(value, (name,), "a request")
        return
    texts = value if isinstance(value, list) else [value] if isinstance(value, str) else []
    if isinstance(value, list) and not (texts and all(isinstance(text, str) for text in texts)):
        raise ConfigurationError(f"{name} of {verb} is a text or a list of at least one, not {shown(value)}")
    for text in texts:
        _check_text(name, text)


def _check_text(name: str, text: Any) -> None:
    if text is not None and not (isinstance(text, str) and len(text) <= MAX_TEXT and _is_storable(text)):
        raise ConfigurationError(f"{name} of a request is a text of up to {MAX_TEXT:,} characters, not {shown(text)}")


def _is_storable(text: str) -> bool:
    """Return whether it is without the halves of characters that JSON can write and UTF-8 cannot."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultyRequest:
    """What lies in the inbox under a request's name and cannot be taken; `why` says what is wrong with it."""

    id: str
    why: str


class Inbox(Protocol):
    """Where requests from other processes wait for the owner of a log."""

    def waiting(self, known: Collection[str] = ()) -> list[Request | FaultyRequest]:
        """Return the requests that wait, in the order in which they came, and behind them what cannot be taken; some at a time. Blocks.

        Args:
            known: ids of those that are left out: whoever asks has them in hand, or cannot take them.
        """
        ...

    def remove(self, request_id: str) -> None:
        """Let go of a request that has been answered; one that is not there any more is no fault. Blocks."""
        ...

    def fileno(self) -> int | None:
        """Return a descriptor that is readable when a request has come; None where the inbox has to be looked at now and then."""
        ...

    def heard(self) -> None:
        """Make the descriptor unreadable until the next request comes."""
        ...

    def close(self) -> None:
        """Let go of the descriptor; idempotent. The requests stay."""
        ...


class FileInbox:
    """The inbox of a log on disk, for its owner. Opening it blocks.

    Args:
        state_dir: the log's directory.
        allow_shared: take requests that other users could write, as who opened the log takes a log that they could.

    Raises:
        StorageUnavailableError: the directory cannot be used, or others can write to it.
    """

    def __init__(self, state_dir: Path, *, allow_shared: bool = False) -> None:
        self.directory = state_dir / INBOX_NAME
        self._allow_shared = allow_shared
        self._faulty: dict[str, tuple[_Mark, FaultyRequest]] = {}
        _prepare(self.directory, allow_shared=allow_shared)
        self._watch = watch_directory(self.directory)
        self._remove_leftovers()

    def waiting(self, known: Collection[str] = ()) -> list[Request | FaultyRequest]:
        """See `Inbox`. What cannot be taken is read once, until it changes: however much of it lies here, it holds no request up.

        Raises:
            StorageUnavailableError: the directory cannot be read.
        """
        files = sorted(self._files(), key=lambda file: (file[1].st_mtime_ns, file[0]))
        marks = {name: _mark(found) for name, found in files}
        self._faulty = {name: seen for name, seen in self._faulty.items() if seen[0] == marks.get(name)}
        requests: list[Request | FaultyRequest] = []
        left, room = MOST_READ, MOST_READ_BYTES
        for name, found in files:
            if name in known or name in self._faulty:
                continue
            if not left or room <= 0 or len(requests) == MOST_AT_ONCE:
                break
            left, room = left - 1, room - min(found.st_size, MAX_REQUEST_BYTES)
            with contextlib.suppress(FileNotFoundError):  # it was taken back
                read = _read(self.directory / name, allow_shared=self._allow_shared)
                if isinstance(read, Request):
                    requests.append(read)
                else:
                    self._faulty[name] = marks[name], read
        faulty = [self._faulty[name][1] for name, _ in files if name in self._faulty and name not in known]
        return requests + faulty[:MOST_AT_ONCE]

    def newest_ns(self) -> int:
        """Return when the newest of what waits was put here, in nanoseconds since 1970, by the file system's clock; 0 where nothing does.
        Blocks.

        Raises:
            StorageUnavailableError: the directory cannot be read.
        """
        return max((found.st_ctime_ns for _, found in self._files()), default=0)

    def _files(self) -> list[tuple[str, os.stat_result]]:
        found = []
        with unavailable(f"{self.directory} cannot be read"), os.scandir(self.directory) as entries:
            for entry in entries:
                if _ID.match(entry.name):
                    with contextlib.suppress(FileNotFoundError):  # it was taken back
                        found.append((entry.name, entry.stat(follow_symlinks=False)))
        return found

    def remove(self, request_id: str) -> None:
        """See `Inbox`.

        Raises:
            StorageUnavailableError: what lies there cannot be removed, as a directory.
        """
        with unavailable(f"{self.directory / request_id} cannot be removed"), contextlib.suppress(FileNotFoundError):
            (self.directory / request_id).unlink()

    def fileno(self) -> int | None:
        """See `Inbox`."""
        return self._watch

    def heard(self) -> None:
        """See `Inbox`."""
        if self._watch is not None:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._watch, 4096):
                    pass

    def close(self) -> None:
        """See `Inbox`."""
        watch, self._watch = self._watch, None
        if watch is not None:
            os.close(watch)

    def __del__(self) -> None:
        if getattr(self, "_watch", None) is not None:
            self.close()

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of callers that were killed."""
        with unavailable(f"{self.directory} cannot be read"), os.scandir(self.directory) as entries:
            for entry in entries:
                if entry.name.startswith(".") and entry.name.endswith(".tmp"):
                    with contextlib.suppress(OSError):
                        if entry.stat(follow_symlinks=False).st_mtime < time.time() - LEFTOVER_S:
                            Path(entry.path).unlink()


def _mark(found: os.stat_result) -> _Mark:
    return found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size


def _prepare(directory: Path, *, allow_shared: bool) -> None:
    """Make the directory, or look whether the one that is there is this user's alone."""
    make_directory(directory)
    with unavailable(f"{directory} cannot be looked at"):
        found = directory.lstat()
    others = not allow_shared and (found.st_uid != os.geteuid() or found.st_mode & 0o022)
    if not stat.S_ISDIR(found.st_mode) or others:
        raise StorageUnavailableError(
            errno.EPERM, f"{directory} is not a directory that this user alone writes to: no request is taken from it (chmod 700)"
        )


def _read(path: Path, *, allow_shared: bool) -> Request | FaultyRequest:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        why = "it is a symbolic link" if error.errno == errno.ELOOP else f"it cannot be read: {error.strerror}"
        return FaultyRequest(id=path.name, why=why)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return FaultyRequest(id=path.name, why="it is not a plain file")
        if not allow_shared and (found.st_uid not in (os.geteuid(), 0) or found.st_mode & 0o022):
            return FaultyRequest(id=path.name, why=f"others can write it: user {found.st_uid}, mode {found.st_mode & 0o777:o}")
        if found.st_size > MAX_REQUEST_BYTES:
            return FaultyRequest(id=path.name, why=f"it has {found.st_size:,} bytes; at most {MAX_REQUEST_BYTES:,} are read")
        return Request.decode(path.name, os.read(descriptor, MAX_REQUEST_BYTES))
    except (ValueError, UnstorableValueError, OSError) as error:  # what is wrong with its content
        return FaultyRequest(id=path.name, why=f"{error!s:.500}")
    finally:
        os.close(descriptor)


def waiting_request(state_dir: Path, request_id: str) -> Request | None:
    """Return the request that waits under an id; None where none does that can be taken. Blocks."""
    try:
        found = _read(state_dir / INBOX_NAME / request_id, allow_shared=True)  # it would be replaced, whoever left it
    except OSError:
        return None
    return found if isinstance(found, Request) else None


def waiting_requests(state_dir: Path) -> int:
    """Return how many requests wait for the owner of a log; 0 where there is no inbox, or it cannot be read. Blocks."""
    try:
        return sum(_ID.match(path.name) is not None for path in (state_dir / INBOX_NAME).iterdir())
    except OSError:
        return 0


# -- for who asks ---------------------------------------------------------------------------------------------------------


def leave_request(state_dir: Path, request: Request, crash: Callable[[str], None] = lambda _: None) -> Path:
    """Put a request into the inbox, durably; return its file. Blocks.

    Args:
        state_dir: the log's directory.
        request: the request; one that waits under the same id is replaced.
        crash: called at each point where this process may be killed; for tests.

    Raises:
        LimitExceededError: it is too large. ConfigurationError: it cannot be written as JSON.
        StorageUnavailableError: it cannot be written. Nothing is left of it.
    """
    content = request.encode()
    directory = state_dir / INBOX_NAME
    make_directory(directory)
    target = directory / request.id
    with _held(directory) as inbox:
        owner = state_dir.stat()
        hands_over = os.geteuid() == 0 != owner.st_uid  # root asks, and the owner of the log is to read it
        if hands_over:
            os.fchown(inbox, owner.st_uid, owner.st_gid)
        temporary = f".{secrets.token_hex(8)}.tmp"
        with unavailable(f"{target} cannot be written"):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=inbox)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    crash("made")
                    file.write(content)
                    file.flush()
                    crash("written")
                    sync(file.fileno())
                    if hands_over:
                        os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                crash("synced")
                os.replace(temporary, request.id, src_dir_fd=inbox, dst_dir_fd=inbox)
            except BaseException:
                with contextlib.suppress(OSError):  # the failure that led here is the one to report
                    os.unlink(temporary, dir_fd=inbox)
                raise
        crash("renamed")
        with unavailable(f"{directory} cannot be made durable", "the request may be lost with the power"):
            sync(inbox)
    return target


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[int]:
    """Hold an inbox open. All that is done in it goes by its descriptor: its owner may put a link in its place meanwhile.

    Raises:
        StorageUnavailableError: it is no directory, or cannot be opened.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StorageUnavailableError(
            error.errno, f"{directory} is not a directory that requests can be left in: {error.strerror}"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
