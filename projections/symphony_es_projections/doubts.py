"""Which read models beside a log cannot be believed: what `verify` and `doctor` tell. Nobody believes them anyway; each is built anew."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from symphony_es.errors import DamagedEventError, PositionNotFoundError, ProjectionUnavailableError
from symphony_es.log.log import EventLog
from symphony_es.system import database_uri
from symphony_es_projections.agreement import PROGRESS, Progress, disagreement, read_progress
from symphony_es_projections.files import BUSY_TIMEOUT_S, ProjectionReader, is_build, pointed_at
from symphony_es_projections.image import Image
from symphony_es_projections.sums import check_kinds
from symphony_es_projections.written import checked

__all__ = ["read_models"]

_SQL = f"SELECT {PROGRESS} FROM progress"  # noqa: S608  constant text


async def read_models(directory: Path, log: EventLog | None, *, whole: bool = False) -> dict[str, str | None]:
    """Return, of each read model in a directory, by its name: why it cannot be believed, or None.

    Args:
        directory: where they are; nothing is found where there is none.
        log: that they have to belong to; None where that cannot be read: then only their files are looked at.
        whole: look at every page, whether anything has touched the file since it was written or not.
    """
    found = {name: await _doubt_of_build(directory, name, log, whole) for name in await asyncio.to_thread(pointed_at, directory)}
    for path in await asyncio.to_thread(lambda: sorted(directory.glob("*.db"))):
        if not is_build(path.name):
            found[path.stem] = await _doubt_of_list(path, log, whole)
    return found


async def _doubt_of_build(directory: Path, name: str, log: EventLog | None, whole: bool) -> str | None:
    with ProjectionReader(directory, name) as reader:
        try:
            await asyncio.to_thread(reader.read_now, "SELECT 1", whole=whole)
            return None if log is None else (await read_progress(reader, name, None, log))[1]
        except ProjectionUnavailableError as error:
            return error.why


async def _doubt_of_list(path: Path, log: EventLog | None, whole: bool) -> str | None:
    try:
        progress = await asyncio.to_thread(_progress_of, path, whole)
        if progress is None:
            return "it does not say how far it is"
        return None if log is None else await disagreement(log, progress)
    except (sqlite3.Error, OSError, DamagedEventError, PositionNotFoundError) as error:
        return str(error)


def _progress_of(path: Path, whole: bool) -> Progress | None:
    check_kinds(path)
    with closing(sqlite3.connect(database_uri(path), uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as db:
        db.execute("PRAGMA schema_version").fetchone()
        image = Image(path)
        try:
            return Progress.of(checked(db, image, "progress", lambda: db.execute(_SQL).fetchone(), whole=whole) or ())
        finally:
            db.close()
            image.release()
