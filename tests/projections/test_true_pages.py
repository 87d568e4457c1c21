"""A read model's file is believed where its pages are what its writer has written, and only there; a crash at any moment is no damage."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from symphony_es_projections.files import is_damage
from symphony_es_projections.image import Image
from symphony_es_projections.sums import FILES, SUMS, HeldFile, Sums, UntrueFileError
from symphony_es_projections.written import WrittenFile, checked

PAGE = 4096
TABLE = "progress"
SCHEMA = (
    "CREATE TABLE progress (commits INTEGER)",
    "CREATE TABLE told (number INTEGER PRIMARY KEY, who TEXT, what TEXT)",
    "CREATE INDEX told_who ON told (who, number)",
    "INSERT INTO progress VALUES (1)",
)
QUESTION = "SELECT count(*), coalesce(sum(number), 0), (SELECT count(*) FROM told WHERE who = 'w1') FROM told"
Row = tuple[Any, ...]


OPENED: list[sqlite3.Connection] = []


@pytest.fixture(autouse=True)
def close_databases() -> Iterator[None]:
    """Newer Pythons warn of a database that nobody has closed."""
    yield
    while OPENED:
        OPENED.pop().close()


class Writer:
    """A file that is written, and how what was asked has been answered after each commit."""

    def __init__(self, path: Path, *, pages: int = 12) -> None:
        self.path = path
        self.db = sqlite3.connect(path, isolation_level=None)
        OPENED.append(self.db)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA wal_autocheckpoint = 0")
        if not self.db.execute("SELECT 1 FROM sqlite_master").fetchone():
            self.db.execute("BEGIN")
            for statement in SCHEMA:
                self.db.execute(statement)
            self.db.execute("COMMIT")
        self.file = WrittenFile(path, self.db, self, table=TABLE, pages=pages, durable=False)
        self.file.check()
        self.answers = [answer(self.db)]

    def commit(self, chance: random.Random) -> None:
        """Add some rows, and change or delete others."""
        self.file.begin()
        (last,) = self.db.execute("SELECT coalesce(max(number), 0) FROM told").fetchone()
        for number in range(last + 1, last + chance.randrange(2, 40)):
            self.db.execute("INSERT INTO told VALUES (?, ?, ?)", (number, f"w{number % 3}", "x" * chance.randrange(200)))
        self.db.execute("UPDATE told SET who = 'w1' WHERE number % 11 = ?", (chance.randrange(11),))
        self.db.execute("DELETE FROM told WHERE number % 7 = ? AND number > ?", (chance.randrange(7), last // 2))
        self.db.execute("COMMIT")
        self.answers.append(answer(self.db))
        self.file.committed()


def answer(db: sqlite3.Connection) -> Row:
    """What a file says, by a table and by an index."""
    return tuple(db.execute(QUESTION).fetchone())


def read(path: Path, *, whole: bool = False) -> Row:
    """What a reader of another process gets.

    Raises:
        UntrueFileError: nothing.
    """
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
        db.execute("PRAGMA schema_version").fetchone()
        image = Image(path)
        try:
            return checked(db, image, TABLE, lambda: answer(db), whole=whole)
        finally:
            db.close()
            image.release()


def copied(path: Path, directory: Path) -> Path:
    """A copy of all files, as a crash leaves them."""
    directory.mkdir()
    for ending in FILES:
        if path.with_name(path.name + ending).is_file():
            shutil.copyfile(path.with_name(path.name + ending), directory / (path.name + ending))
    return directory / path.name


def written(path: Path, commits: int, seed: int = 1, *, pages: int = 12) -> list[Row]:
    """Write a file and close it; its answers."""
    writer, chance = Writer(path, pages=pages), random.Random(seed)
    for _ in range(commits):
        writer.commit(chance)
    writer.file.close()
    return writer.answers


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Nothing that a test opens stays open."""
    yield
    assert HeldFile._open == {}


@pytest.mark.parametrize("seed", range(6))
def test_a_crash_at_any_moment_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Before a copy, between its steps, after it: who opens what is left reads the last commit, and writes on."""
    left: list[tuple[Path, int]] = []
    writer = Writer(tmp_path / "x.db")
    real_write, real_note = Sums.write, Image.note

    def crash() -> None:
        left.append((copied(writer.path, tmp_path / f"left{len(left)}"), len(writer.answers) - 1))

    def write(self: Sums, path: Path, *, durable: bool) -> None:
        crash()
        real_write(self, path, durable=durable)
        crash()

    def note(self: Image, *arguments: Any, **named: Any) -> bool:
        crash()
        noted = real_note(self, *arguments, **named)
        crash()
        return noted

    monkeypatch.setattr(Sums, "write", write)
    monkeypatch.setattr(Image, "note", note)
    chance = random.Random(seed)
    with closing(sqlite3.connect(writer.path, isolation_level=None)) as reader:
        for number in range(9):
            if number % 4 == seed % 4:  # a reader that holds up what is copied
                reader.execute("BEGIN" if not reader.in_transaction else "COMMIT")
                reader.execute(QUESTION).fetchone()
            writer.commit(chance)
            crash()
    writer.file.close()
    crash()
    monkeypatch.undo()
    assert len(left) > 15
    for path, commits in left:
        assert read(path) == writer.answers[commits]
        again = Writer(path)
        assert again.answers == [writer.answers[commits]]
        again.commit(chance)
        again.file.close()
        assert read(path, whole=True) == again.answers[-1]


def test_an_end_without_close_is_no_damage(tmp_path: Path) -> None:
    """Where the object goes, what SQLite copies when its connection goes is noted; so it is at the end of the program."""
    path = tmp_path / "x.db"
    writer = Writer(path, pages=1000)
    writer.commit(random.Random(1))
    expected = writer.answers[-1]
    del writer
    assert not path.with_name("x.db-wal").exists()
    assert read(path) == expected


def test_a_reader_at_the_close_is_no_damage(tmp_path: Path) -> None:
    """What a reader holds up stays in the write-ahead file: SQLite does not copy it when the last connection goes."""
    path = tmp_path / "x.db"
    writer = Writer(path, pages=1000)
    writer.commit(random.Random(1))
    reader = sqlite3.connect(path.as_uri() + "?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute(QUESTION).fetchone()
    writer.commit(random.Random(2))
    writer.file.close()
    reader.close()
    assert read(path) == writer.answers[-1]


def test_a_full_disk_while_noting_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is committed before what has been copied is noted: SQLite would begin the write-ahead file anew."""
    path = tmp_path / "x.db"
    writer, chance = Writer(path), random.Random(1)
    real = Sums.write

    def full(self: Sums, path: Path, *, durable: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Sums, "write", full)
    while len(writer.answers) < 4:
        writer.commit(chance)
        if writer.file._owed:
            break
    with pytest.raises(sqlite3.OperationalError, match="No space left") as caught:
        writer.commit(chance)
    assert not is_damage(caught.value)
    assert read(copied(path, tmp_path / "left")) == writer.answers[-1]
    monkeypatch.setattr(Sums, "write", real)
    writer.commit(chance)
    writer.file.close()
    assert read(path) == writer.answers[-1]


# -- damages ----------------------------------------------------------------------------------------------------------------


def swapped(content: bytearray, old: bytes, chance: random.Random) -> None:
    """Two pages in each other's place."""
    one, other = chance.sample(range(1, len(content) // PAGE), 2)
    one, other = one * PAGE, other * PAGE
    content[one : one + PAGE], content[other : other + PAGE] = content[other : other + PAGE], content[one : one + PAGE]


def flipped(content: bytearray, old: bytes, chance: random.Random) -> None:
    """One bit."""
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def older(content: bytearray, old: bytes, chance: random.Random) -> None:
    """One page as it was before."""
    differ = [at for at in range(0, min(len(old), len(content)), PAGE) if old[at : at + PAGE] != content[at : at + PAGE]]
    at = chance.choice(differ)
    content[at : at + PAGE] = old[at : at + PAGE]


def cut(content: bytearray, old: bytes, chance: random.Random) -> None:
    """Without its end."""
    del content[chance.randrange(len(content)) :]


def longer(content: bytearray, old: bytes, chance: random.Random) -> None:
    """A page more."""
    content += bytes(PAGE)


def whole_older(content: bytearray, old: bytes, chance: random.Random) -> None:
    """All of it as it was before."""
    content[:] = old


DAMAGES = {one.__name__: one for one in (swapped, flipped, older, cut, longer, whole_older)}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_what_was_written_is_not_believed(tmp_path: Path, damage: str) -> None:
    """Any page, by who reads and by who writes; also where its times have been set back."""
    path = tmp_path / "x.db"
    written(path, 4)
    old = path.read_bytes()
    answers = written(path, 8, 2)
    kept = path.read_bytes()
    for seed in range(12):
        content, chance = bytearray(kept), random.Random(f"{damage} {seed}")
        DAMAGES[damage](content, old, chance)
        path.write_bytes(content)
        with pytest.raises(sqlite3.DatabaseError):
            read(path)
        with pytest.raises(sqlite3.DatabaseError):
            Writer(path)
    path.write_bytes(kept)
    assert read(path) == answers[-1]


def test_check_values_that_are_missing_damaged_or_older_are_not_believed(tmp_path: Path) -> None:
    """Without them nobody knows; those of another time do not fit."""
    path = tmp_path / "x.db"
    sums = path.with_name(path.name + SUMS)
    written(path, 4)
    old = sums.read_bytes()
    written(path, 4, 2)
    kept = sums.read_bytes()
    for content in (old, b"", kept[:-1], kept[: len(kept) // 2], kept[:30] + bytes([kept[30] ^ 4]) + kept[31:], kept + b"x"):
        sums.write_bytes(content)
        with pytest.raises(UntrueFileError):
            read(path)
    sums.unlink()
    with pytest.raises(UntrueFileError):
        read(path)


@pytest.mark.parametrize("how", ["removed", "emptied", "header", "older", "middle"])
def test_a_write_ahead_file_that_is_another_one(tmp_path: Path, how: str) -> None:
    """What SQLite leaves out of it is missed: an answer is that of an earlier commit, whole, or there is none."""
    path = tmp_path / "x.db"
    writer, chance = Writer(path, pages=60), random.Random(3)
    older_wal = b""
    refused = right = 0
    for number in range(30):
        writer.commit(chance)
        left = copied(path, tmp_path / f"left{number}")
        wal = left.with_name("x.db-wal")
        content = bytearray(wal.read_bytes())
        if how == "removed":
            wal.unlink()
        elif how == "older":
            wal.write_bytes(older_wal)
        elif content:
            content[:] = b"" if how == "emptied" else content
            if how in ("header", "middle"):
                content[16 if how == "header" else len(content) // 2] ^= 1
            wal.write_bytes(content)
        older_wal = bytes(content) if number % 5 == 0 else older_wal
        left.with_name("x.db-shm").unlink(missing_ok=True)
        try:
            found = read(left)
        except sqlite3.DatabaseError:
            refused += 1
        else:
            assert found in writer.answers
            right += 1
    writer.file.close()
    assert refused
    assert right or how == "header"


STATEMENTS = (
    "DELETE FROM told WHERE number % 5 = 1",
    "UPDATE told SET who = 'w1' WHERE number % 5 = 2",
    "CREATE TABLE more (a)",
    "DROP INDEX told_who",
)


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("when", ["closed", "crashed", "open"])
def test_rows_that_somebody_else_has_changed_are_not_believed(tmp_path: Path, statement: str, when: str) -> None:
    """Through SQLite itself, whatever is changed: in a file that nobody has open, after a crash, and beside who writes it."""
    path = tmp_path / "x.db"
    writer = Writer(path, pages=1000)
    writer.commit(random.Random(1))
    if when == "closed":
        writer.file.close()
    target = copied(path, tmp_path / "left") if when == "crashed" else path
    with closing(sqlite3.connect(target, isolation_level=None)) as other:
        other.execute(statement)
        if when == "crashed":
            other.execute("PRAGMA wal_checkpoint")
    for _ in range(2):
        with pytest.raises(UntrueFileError):
            read(target)
    with pytest.raises(UntrueFileError):
        Writer(target) if when != "open" else writer.commit(random.Random(2))
    writer.file.close()
