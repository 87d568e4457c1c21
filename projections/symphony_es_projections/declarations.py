"""What the class of a projection says of it, looked at when it is added: a wrong word there would be an empty read model for ever."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from symphony_es.errors import ConfigurationError, InvalidIdentifierError
from symphony_es.events.identifiers import check_event_name
from symphony_es.shown import quoted, shown
from symphony_es_projections.durable import SQLiteProjection, check_projection_name
from symphony_es_projections.projection import Projection

__all__ = ["check_declarations", "declaration_of"]

_LARGEST = 2**63 - 1  # what SQLite takes as a number
_RUNNERS = "projection_"
_CALLED = ("apply", "after_commit", "for_rebuild", "feed")


def check_declarations(projection: Projection | SQLiteProjection, make: Callable[[], Projection] | None = None) -> tuple[str, ...]:
    """Look at what a projection says of itself.

    Args:
        projection: an object, to be added to a runner.
        make: what `add` was given with it.

    Returns:
        the names of the events it wants; none for all.

    Raises:
        ConfigurationError: something is not what is due; the message says what to write.
    """
    if isinstance(projection, type):
        raise ConfigurationError(f"{shown(projection)} is a class: add an object of it, `add({projection.__name__}())`")
    if not isinstance(projection, Projection | SQLiteProjection):
        raise ConfigurationError(f"{shown(projection)} is not a projection: derive its class from Projection or SQLiteProjection")
    where = type(projection).__name__
    if not hasattr(projection, "name"):
        raise ConfigurationError(
            f"{where} has no name: write `name = \"...\"` in the class, a small letter and then letters, digits and '_'"
        )
    check_projection_name(projection.name)
    version = projection.version
    if type(version) is not int or not 1 <= version <= _LARGEST:
        raise ConfigurationError(f"version of {where} is a whole number from 1 on, not {shown(version)}: write `version = 1`")
    for name in _CALLED:
        _check_plain_function(where, name, getattr(projection, name, None))
    names = _texts(where, "event_names", projection.event_names, "Paid", (tuple, list, set, frozenset))
    for name in names:
        try:
            check_event_name(name)
        except InvalidIdentifierError as error:
            raise ConfigurationError(f"event_names of {where}: no event has such a name: {error}") from None
    if isinstance(projection, SQLiteProjection):
        for statement in _texts(where, "schema", projection.schema, "CREATE TABLE ...", (tuple, list)):
            if not statement.strip():
                raise ConfigurationError(f"schema of {where} has an empty statement: leave it out")
        _check_names(where, projection.schema)
    elif type(getattr(projection, "position", None)) is not int or projection.position < 0:
        raise ConfigurationError(f"{where} does not say how far it is: call `super().__init__()` in its `__init__`")
    if make is not None and not callable(make):
        raise ConfigurationError(f"make is what makes an empty {where}, not {shown(make)}: a class or function without arguments")
    return names


def declaration_of(projection: SQLiteProjection) -> bytes:
    """Return a digest (BLAKE2b, 16 bytes) of what a build stands on beside its version: the statements of its schema, and the events it
    wants.
    """
    said = json.dumps([list(projection.schema), sorted(set(projection.event_names))])
    return hashlib.blake2b(said.encode(), digest_size=16).digest()


def _texts(where: str, name: str, given: Any, example: str, kinds: tuple[type[Any], ...]) -> tuple[str, ...]:
    """Return a declaration that is a sequence of texts, as a tuple."""
    if isinstance(given, str):
        inside = shown(given) if given else f'"{example}"'
        raise ConfigurationError(f"{name} of {where} is one text, {shown(given)}: write `{name} = ({inside},)`, with the comma")
    if not isinstance(given, kinds):
        raise ConfigurationError(f'{name} of {where} is a tuple of texts, not {shown(given)}: write `{name} = ("{example}",)`')
    for each in given:
        if type(each) is not str:
            raise ConfigurationError(f'{name} of {where} has {shown(each)} in it, which is not a text: write `{name} = ("{example}",)`')
    return tuple(given)


def _check_names(where: str, schema: Sequence[str]) -> None:
    """Refuse names that are the runner's, found by SQLite itself, in a database in memory: quotes, comments and renaming hide none from it.

    A statement that cannot be run is told by the build.
    """
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        for number, statement in enumerate(schema, 1):
            db.set_authorizer(_no_other_file)
            with contextlib.suppress(sqlite3.Error, sqlite3.Warning, ValueError):
                db.execute(statement).fetchall()
            db.set_authorizer(None)
            for (name,) in db.execute("SELECT name FROM main.sqlite_master UNION ALL SELECT name FROM temp.sqlite_master").fetchall():
                if name.lower().startswith(_RUNNERS):
                    raise ConfigurationError(
                        f"statement {number} of the schema of {where} makes {quoted(name)}: names that begin with {quoted(_RUNNERS)} are "
                        "the runner's; give it another name"
                    )


def _no_other_file(action: int, *_: object) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK


def _check_plain_function(where: str, name: str, function: Any) -> None:
    """Refuse a coroutine function or generator: it is called, not awaited or iterated, and would do nothing."""
    kinds = {
        "async def": inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function),
        "a generator (it has a `yield`)": inspect.isgeneratorfunction(function),
    }
    for kind, it_is in kinds.items():
        if it_is:
            raise ConfigurationError(
                f"{name} of {where} is {kind}: it would never run; write it as a plain `def` that does its work and returns"
            )
