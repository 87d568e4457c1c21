"""What the library asks of the operating system: no error is taken for an absence, and what is to be durable is on the medium."""

from __future__ import annotations

import ast
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from symphony_es import system
from symphony_es.errors import LogUnavailableError
from symphony_es.system import (
    RandomBytes,
    absolute,
    file_system_of,
    is_directory,
    is_link,
    is_network_file_system,
    is_plain_file,
    present,
    sync,
)

SOURCES = [Path(system.__file__).parent, Path(system.__file__).parents[1] / "projections" / "symphony_es_projections"]
HIDING = {"exists", "is_dir", "is_file", "is_symlink", "isdir", "isfile", "islink", "lexists", "is_mount"}
"""Calls that answer False where the system refuses to look, from Python 3.14 on."""


class TestWhatIsThere:
    @pytest.mark.parametrize("ask", [present, is_directory, is_plain_file, is_link])
    @pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENAMETOOLONG, errno.ELOOP, errno.ESTALE])
    def test_an_error_is_no_absence(
        self, ask: Callable[[Path], bool], number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever the system says is raised, on every version of Python."""

        def refuse(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "stat", refuse)
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            ask(Path("somewhere"))
        assert caught.value.errno == number

    def test_what_there_is(self, tmp_path: Path) -> None:
        """Files, directories, links that lead somewhere and nowhere, names that cannot be."""
        (tmp_path / "file").write_text("x")
        (tmp_path / "there").symlink_to(tmp_path / "file")
        (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
        told = {
            name: (present(tmp_path / name), is_directory(tmp_path / name), is_plain_file(tmp_path / name), is_link(tmp_path / name))
            for name in ("file", ".", "there", "nowhere", "missing", "file/below", "a\0b")
        }
        assert told == {
            "file": (True, False, True, False),
            ".": (True, True, False, False),
            "there": (True, False, True, True),
            "nowhere": (False, False, False, True),
            "missing": (False, False, False, False),
            "file/below": (False, False, False, False),
            "a\0b": (False, False, False, False),
        }

    def test_nobody_asks_otherwise(self) -> None:
        """No module of the library calls what hides errors."""
        found = [
            f"{path}:{node.lineno}: {node.func.attr}"
            for folder in SOURCES
            for path in sorted(folder.rglob("*.py"))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in HIDING
        ]
        assert not found

    def test_the_working_directory_is_asked_for_in_one_place(self) -> None:
        """It may have been removed, which is an error of this library there."""
        askers = {".absolute()", ".cwd()", ".getcwd()", ".abspath("}
        found = [
            path.name
            for folder in SOURCES
            for path in sorted(folder.rglob("*.py"))
            if any(asker in path.read_text(encoding="utf-8") for asker in askers)
        ]
        assert found == ["system.py"]

    def test_a_working_directory_that_has_been_removed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A path from there is refused with a way out; a whole one is what it is."""
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        with pytest.raises(LogUnavailableError, match="the working directory has been removed, and state is a path from there"):
            absolute("state")
        assert absolute(tmp_path) == tmp_path

    def test_databases_are_named_in_one_place(self) -> None:
        """No module makes the address of a database itself: a path that is relative has none, until it is made absolute."""
        makers = [path.name for folder in SOURCES for path in sorted(folder.rglob("*.py")) if "as_uri(" in path.read_text(encoding="utf-8")]
        assert makers == ["system.py"]


class TestWhatIsDurable:
    @pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EINVAL, errno.ENOTTY])
    def test_the_medium_is_asked_first(self, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where the system has F_FULLFSYNC it is used; a file system without it gets an fsync."""
        asked: list[object] = []
        refuses = False

        def control(_: int, command: object) -> None:
            asked.append(command)
            if refuses:
                raise OSError(number, "simulated")

        monkeypatch.setattr(system, "_posix", SimpleNamespace(F_FULLFSYNC="full", fcntl=control))
        monkeypatch.setattr(os, "fsync", lambda descriptor: asked.append("fsync"))
        sync(0)
        assert asked == ["full"]
        refuses = True
        sync(0)
        assert asked == ["full", "full", "fsync"]

    def test_what_the_disk_says_is_raised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An fsync that might succeed after a failed one proves nothing."""

        def control(_: int, command: object) -> None:
            raise OSError(errno.EIO, "simulated")

        monkeypatch.setattr(system, "_posix", SimpleNamespace(F_FULLFSYNC="full", fcntl=control))
        with pytest.raises(OSError, match="simulated"):
            sync(0)

    def test_nobody_syncs_otherwise(self) -> None:
        """Every file of the library is made durable by the one function."""
        found = [
            f"{path}: {text}"
            for folder in SOURCES
            for path in sorted(folder.rglob("*.py"))
            for text in ("os.fsync(", "os.fdatasync(", "fcntl.")
            if path.name != "system.py" and text in path.read_text(encoding="utf-8")
        ]
        assert not found


class TestWhereItIs:
    @pytest.mark.parametrize(
        "kind",
        ["nfs", "nfs4", "cifs", "smb3", "fuse", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "beegfs", "virtiofs", "smbfs"],
    )
    def test_network_file_systems_are_known(self, kind: str) -> None:
        """By kind, not by a list of every name: what a process serves may be anywhere."""
        assert is_network_file_system(kind)

    @pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "apfs", "zfs", "fuse.ntfs-3g", "fuse.fuse-overlayfs"])
    def test_local_ones_too(self, kind: str) -> None:
        """Also those that a process serves from this machine's disks."""
        assert not is_network_file_system(kind)

    def test_mount_points_of_any_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Spaces, tabs, line ends and backslashes stand in the kernel's list as octal numbers."""
        place = tmp_path / "a b\tc\\d"
        place.mkdir()
        shown = str(place).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
        lines = f"1 0 8:1 / / rw shared:1 - ext4 /dev/sda rw\n2 1 0:50 / {shown} rw - fuse.sshfs host:/ rw\n"
        monkeypatch.setattr(Path, "read_text", lambda self, **_: lines)
        assert file_system_of(place / "log") == "fuse.sshfs"
        assert file_system_of(tmp_path) == "ext4"

    def test_where_the_kernel_has_no_list_the_command_tells(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on macOS."""
        told = f"/dev/disk3s1s1 on / (apfs, sealed, local, read-only)\n//me@host/share (x) on {tmp_path}/my share (smbfs, nodev, nosuid)\n"

        def refuse(*_: object, **__: object) -> str:
            raise FileNotFoundError(errno.ENOENT, "no /proc")

        monkeypatch.setattr(Path, "read_text", refuse)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=told.encode()))
        assert file_system_of(tmp_path / "my share" / "log") == "smbfs"
        assert file_system_of(tmp_path / "log") == "apfs"


WITHOUT_POSIX = """
import sys, os, asyncio, tempfile
class Block:
    def find_spec(self, name, path=None, target=None):
        if name == "fcntl":
            raise ModuleNotFoundError("No module named 'fcntl'", name="fcntl")
sys.meta_path.insert(0, Block())
sys.modules.pop("fcntl", None)
flags = ["O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK"]
for name in [*flags, "geteuid", "getuid", "pread", "pwrite", "statvfs", "fork", "register_at_fork"]:
    if hasattr(os, name):
        delattr(os, name)
from symphony_es import Symphony
from symphony_es.errors import LogUnavailableError
import symphony_es_projections
from symphony_es.cli.main import main

async def run():
    async with Symphony() as symphony:
        agent = await symphony.agents.create_agent(name="a", role="r")
        agent.config["role"] = "other"
        await symphony.flush()
    try:
        await Symphony(persistence_enabled=True).setup(tempfile.mkdtemp())
    except LogUnavailableError as error:
        print(error)
asyncio.run(run())
try:
    main(["--help"])
except SystemExit as ended:
    print("help", ended.code)
"""


def test_without_posix_a_state_in_memory_works() -> None:
    """And one on disk is refused with a sentence, where the system has no locks that go with their process (Windows)."""
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX], capture_output=True, text=True, check=False, env={**os.environ, "USERNAME": "u"}
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("a state on disk needs a POSIX system (Linux, macOS)")
    assert ended.stdout.rstrip().endswith("help 0")
    assert issubclass(LogUnavailableError, OSError)


class TestRandomBytes:
    """Portions of random bytes."""

    def test_nobody_is_given_what_another_has(self) -> None:
        """Whichever thread asks, in the middle of whatever another one does; and all have their size."""
        source = RandomBytes(8, portion=3)
        taken: list[list[bytes]] = [[] for _ in range(8)]
        switching = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            threads = [threading.Thread(target=lambda own=own: own.extend(source.take() for _ in range(2_000))) for own in taken]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(switching)
        together = [each for own in taken for each in own]
        assert len(set(together)) == len(together) == 16_000
        assert {len(each) for each in together} == {8}
