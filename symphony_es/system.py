"""What the library asks of the operating system, where Python's own shortcuts would hide an error or promise too little.

* `Path.exists()` and its kin answer False where the system refuses to look (from Python 3.14 on for every error). What is decided by a
  file's absence may then be thrown away, so this library asks `present` and its kin: absent is only what the system says is absent.
* `os.fsync` does not reach the disk's own medium on macOS. `sync` does, wherever the system offers it.
* `Path.as_uri()` takes absolute paths only, and a state directory may be named by a relative one: `database_uri` takes both.
* To ask the system for random bytes lets go of the interpreter lock: `RandomBytes` asks for many at once.
* Advisory locks are a matter of POSIX. On a system without them a state in memory works, and one on disk is refused by name.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from struct import iter_unpack
from typing import Any

from symphony_es.errors import ConfigurationError, LogUnavailableError
from symphony_es.shown import shown

try:
    import fcntl as _locks
except ModuleNotFoundError:  # Windows
    _posix: Any = None
else:
    _posix = _locks

__all__ = [
    "RandomBytes",
    "absolute",
    "database_uri",
    "file_system_of",
    "given_path",
    "is_directory",
    "is_link",
    "is_mount_point",
    "is_network_file_system",
    "is_plain_file",
    "lock",
    "present",
    "refuse_shared",
    "require_posix",
    "sync",
    "sync_directory",
    "unlock",
]

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
_NO_FULL_SYNC = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY})
_NETWORK = frozenset(
    """9p acfs afpfs afs beegfs ceph cifs coda gfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs panfs prl_fs pvfs2 smb smb2
    smb3 smbfs sshfs vboxsf virtiofs vmhgfs webdav""".split()  # noqa: SIM905  words, read as words
)
_LOCAL_BY_FUSE = frozenset(
    f"fuse.{kind}"
    for kind in """bcachefs bindfs encfs ext2 ext3 ext4 exfat fuse-overlayfs gocryptfs mergerfs ntfs ntfs-3g overlayfs unionfs vfat
    zfs""".split()  # noqa: SIM905
)
"""File systems of this machine's own disks that a process serves; any other of that kind is taken for one on the network."""

_OCTAL = re.compile(r"\\([0-7]{3})")
_MOUNT_LINE = re.compile(r".+? on (?P<mount>/.*) \((?P<kind>[\w.-]+)(,.*)?\)")
_MOUNT_S = 5.0


# -- what is there --------------------------------------------------------------------------------------------------------


def _mode(path: Path | str, *, follow: bool = True) -> int | None:
    """Return the mode of what is under a path; None where nothing is.

    Raises:
        OSError: the system does not tell, as where a directory above may not be searched.
    """
    try:
        return os.stat(path, follow_symlinks=follow).st_mode  # noqa: PTH116  what Path.stat calls, and a text may be given
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    except ValueError:  # a null character: no file has such a name
        return None


def present(path: Path | str) -> bool:
    """Return whether there is something under a path; a link counts as what it points to. Raises OSError where nobody can tell."""
    return _mode(path) is not None


def is_directory(path: Path | str) -> bool:
    """Return whether a directory is under a path, or a link to one. Raises OSError where nobody can tell."""
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_plain_file(path: Path | str) -> bool:
    """Return whether a plain file is under a path, or a link to one. Raises OSError where nobody can tell."""
    mode = _mode(path)
    return mode is not None and stat.S_ISREG(mode)


def is_link(path: Path | str) -> bool:
    """Return whether a symbolic link is under a path. Raises OSError where nobody can tell."""
    mode = _mode(path, follow=False)
    return mode is not None and stat.S_ISLNK(mode)


# -- who may write it -----------------------------------------------------------------------------------------------------


def refuse_shared(found: os.stat_result, path: Path, owner: int, root: Path, *, written: bool = True) -> None:
    """Refuse a file or directory of a log that somebody else could change, as ssh does with its own.

    Args:
        found: what the system says of it, without following a link.
        path: its path, for the message.
        owner: the user to whom it is to belong.
        root: the directory in which all is to be so, which the message says how to make so.
        written: whether it will be written; what is only read may have a second name, as unchanged files of backups have.

    Raises:
        LogUnavailableError: it is a link, or neither a plain file nor a directory; it belongs to another user, others can write it, or it
            has a second name.
    """
    directory = stat.S_ISDIR(found.st_mode)
    if not directory and not stat.S_ISREG(found.st_mode):
        raise LogUnavailableError(f"{path} is not a regular file: a log never follows links")
    if found.st_uid != owner:
        what = f"belongs to user {found.st_uid}, and the log to user {owner}"
        way_out = f"run this as that user (sudo -u '#{found.st_uid}')" if owner == 0 else f"chown -R {owner} {root}"
    elif found.st_mode & 0o022:
        what = f"can be written by other users (mode {stat.S_IMODE(found.st_mode):03o}), who could change what the log says"
        way_out = f"chmod -R go-w {root}"
    elif written and not directory and found.st_nlink > 1:
        what = f"has {found.st_nlink} names (hard links), and changes under each of them"
        way_out = f"copy it to a file of its own in place of {path}"
    else:
        return
    raise LogUnavailableError(f"{path} {what}: {way_out}, or take it as it is with allow_shared_directory=True")


def database_uri(path: Path, *, immutable: bool = False) -> str:
    """Return how SQLite is told to open a file for reading only, or as one that nobody changes."""
    return f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if immutable else ''}"


# -- what is durable ------------------------------------------------------------------------------------------------------


def sync(descriptor: int) -> None:
    """Make an open file durable: on the medium, not only in a cache of the disk, wherever the system can do that (F_FULLFSYNC)."""
    full = getattr(_posix, "F_FULLFSYNC", None)
    if full is not None:
        try:
            _posix.fcntl(descriptor, full)
        except OSError as error:
            if error.errno not in _NO_FULL_SYNC:
                raise
        else:
            return
    os.fsync(descriptor)


def sync_directory(path: Path | str) -> None:
    """Make names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


# -- one writer -----------------------------------------------------------------------------------------------------------


def require_posix() -> None:
    """Refuse a state on disk where the system has no such locks.

    Raises:
        LogUnavailableError: it has none. Nothing was made.
    """
    if _posix is None:
        raise LogUnavailableError(
            "a state on disk needs a POSIX system (Linux, macOS): there are no file locks here that go with their process. "
            "A state in memory works: leave persistence_enabled out"
        )


def lock(descriptor: int, *, shared: bool = False) -> None:
    """Take the lock of an open file without waiting; the kernel gives it up with the process.

    Raises:
        BlockingIOError: somebody else has it.
    """
    require_posix()
    _posix.flock(descriptor, (_posix.LOCK_SH if shared else _posix.LOCK_EX) | _posix.LOCK_NB)


def unlock(descriptor: int) -> None:
    """Give the lock of an open file up."""
    _posix.flock(descriptor, _posix.LOCK_UN)


# -- where it is ----------------------------------------------------------------------------------------------------------


def file_system_of(path: Path) -> str | None:
    """Return type of the file system that holds a path, as the system names it; None where it does not tell. Blocks.

    Linux tells it in `/proc/self/mountinfo`, the BSDs and macOS by the command `mount`.
    """
    told = _mountinfo()
    return _innermost(path, _by_command() if told is None else [_of_mountinfo(line) for line in told])


def _mountinfo() -> list[str] | None:
    try:
        told = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return [line for line in told.split("\n") if line]  # what ends a line elsewhere may stand in a name


def is_mount_point(real: Path) -> bool:
    """Return whether a file system, or a file or directory of one, is mounted at a path without links: nothing can be put in its place.
    Blocks.
    """
    told = _mountinfo()
    return os.path.ismount(real) if told is None else any(mount == str(real) for mount, _ in map(_of_mountinfo, told))


def given_path(path: object, what: str = "this") -> Path:
    """Return a path that a caller has given, once it is one that the system can be asked for.

    Args:
        path: what was given.
        what: the argument's name, for the message.

    Raises:
        ConfigurationError: it is empty or neither a text nor a path, or a character in it can stand in no path.
    """
    told: Any = None
    try:
        told = os.fspath(path)  # type: ignore[call-overload]  # anything else is refused below
        sound = isinstance(told, str) and b"\0" not in os.fsencode(told) and told != ""
    except (TypeError, UnicodeError):
        sound = False
    if not sound:
        raise ConfigurationError(f"{what} is the path of a file or directory, not {shown(path)}")
    return Path(told)


def absolute(path: object, what: str = "this") -> Path:
    """Return a path that goes on meaning the same when the working directory changes.

    Args:
        path: what was given.
        what: the argument's name, for the message.

    Raises:
        ConfigurationError: see `given_path`.
        LogUnavailableError: it is a relative one, and the working directory has been removed.
    """
    given = given_path(path, what)
    try:
        return given.absolute()
    except FileNotFoundError as error:
        raise LogUnavailableError(f"the working directory has been removed, and {given} is a path from there: give a whole path") from error


class RandomBytes:
    """Random bytes for ids and salts, asked of the system in portions; may be called in any thread.

    To ask for some lets go of the interpreter lock. The writer thread, which waits for it, would begin a commit with half of what is being
    submitted, and whoever has asked would wait until it has the lock again: a third of a millisecond beside a busy thread.
    """

    __slots__ = ("_left", "_portion", "_size")

    def __init__(self, size: int, portion: int = 256) -> None:
        """Begin with nothing asked for.

        Args:
            size: bytes of each.
            portion: so many are asked for at once.
        """
        self._size = size
        self._portion = portion
        self._left: Iterator[tuple[Any, ...]] = iter(())

    def take(self) -> bytes:
        """Return as many bytes as one has, which nobody has been given before."""
        # One step of an iterator that is written in C is one step for all threads; two that find it empty make a portion each.
        for (taken,) in self._left:
            return bytes(taken)
        left = iter_unpack(f"{self._size}s", os.urandom(self._size * self._portion))
        (taken,) = next(left)  # before another thread sees it
        self._left = left
        return bytes(taken)


def is_network_file_system(kind: str) -> bool:
    """Return whether locks and durability of a file system of this type are another machine's, as far as its name tells."""
    if kind == "fuse" or kind.startswith("fuse."):
        return kind not in _LOCAL_BY_FUSE
    return kind in _NETWORK


def _innermost(path: Path, mounts: Iterable[tuple[str, str]]) -> str | None:
    real, best, kind = str(path.resolve()), "", None
    for mount, its_kind in mounts:
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):  # a later mount of the same place hides the one before
            best, kind = mount, its_kind
    return kind


def _of_mountinfo(line: str) -> tuple[str, str]:
    before, _, after = line.partition(" - ")
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), before.split(" ")[4]), after.split(" ")[0]


def _by_command() -> list[tuple[str, str]]:
    command = next((place for place in ("/sbin/mount", "/bin/mount") if present(place)), None)
    if command is None:
        return []
    import subprocess  # late: only where the kernel has no list of its own

    try:
        told = subprocess.run([command], capture_output=True, timeout=_MOUNT_S, check=True).stdout.decode(errors="surrogateescape")  # noqa: S603  a fixed path
    except (OSError, subprocess.SubprocessError):
        return []
    return [(found["mount"], found["kind"]) for found in map(_MOUNT_LINE.fullmatch, told.splitlines()) if found is not None]
