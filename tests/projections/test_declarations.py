"""Wrong declarations of a projection are refused where it is added, with what to write."""

from __future__ import annotations

from typing import Any

import pytest

from symphony_es.errors import ConfigurationError, ProjectionFailedError
from symphony_es.log.log import EventLog
from symphony_es.projections import Projection, SQLiteProjection
from tests.projections.conftest import RunnerMaker, fill


class InMemory(Projection):
    """Keeps the positions it was fed."""

    name = "declared"

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def apply(self, event: Any) -> None:
        self.seen.append(event.position)


class Durable(SQLiteProjection):
    """The same, durably."""

    name = "declared"
    schema = ("CREATE TABLE seen (position INTEGER)",)

    def apply(self, db: Any, events: Any) -> None:
        db.executemany("INSERT INTO seen VALUES (?)", [(event.position,) for event in events])


BOTH = (InMemory, Durable)
EVENT_NAMES = {
    "a text": ("Changed", r"event_names = \('Changed',\)"),
    "an empty text": ("", r'event_names = \("Paid",\)'),
    "a part of a name": ("ChangedOften", r"event_names = \('ChangedOften',\)"),
    "bytes": (b"Changed", "a tuple of texts"),
    "None": (None, "a tuple of texts"),
    "a number": (5, "a tuple of texts"),
    "an iterator": (iter(["Changed"]), "a tuple of texts"),
    "a mapping": ({"Changed": 1}, "a tuple of texts"),
    "a class": (InMemory, "a tuple of texts"),
    "a class in it": ((InMemory,), "not a text"),
    "None in it": (("Changed", None), "not a text"),
    "bytes in it": ((b"Changed",), "not a text"),
    "a tuple in it": ((("Changed",),), "not a text"),
    "no name of an event": (("Changed often",), "no event has such a name"),
    "a blank behind it": (("Changed ",), "no event has such a name"),
    "an empty name": (("",), "no event has such a name"),
    "a lone surrogate": (("\ud800",), "no event has such a name"),
}
SCHEMAS = {
    "a text": ("CREATE TABLE seen (position INTEGER)", r"schema = \('CREATE TABLE seen \(position INTEGER\)',\)"),
    "an empty text": ("", r'schema = \("CREATE TABLE ...",\)'),
    "bytes": (b"CREATE TABLE seen (position INTEGER)", "a tuple of texts"),
    "None": (None, "a tuple of texts"),
    "a set": ({"CREATE TABLE seen (position INTEGER)"}, "a tuple of texts"),
    "None in it": ((None,), "not a text"),
    "bytes in it": ((b"CREATE TABLE seen (position INTEGER)",), "not a text"),
    "an empty statement": (("CREATE TABLE seen (position INTEGER)", " "), "empty statement"),
}
RESERVED = (
    "CREATE TABLE projection_x (n)",
    'CREATE TABLE "projection_x" (n)',
    "CREATE TABLE [Projection_X] (n)",
    "create table if not exists `PROJECTION_x` (n)",
    "CREATE /* mine */ TABLE main.projection_progress (n)",
    "CREATE TABLE IF NOT EXISTS projection_parked (n)",
    "CREATE TEMP TABLE projection_x (n)",
    "CREATE TABLE projection_x AS SELECT * FROM seen",
    "CREATE VIEW projection_x AS SELECT * FROM seen",
    "CREATE TEMP VIEW projection_x AS SELECT * FROM seen",
    "CREATE UNIQUE INDEX projection_x ON seen (position)",
    "CREATE TRIGGER projection_x AFTER INSERT ON seen BEGIN DELETE FROM seen; END",
    "CREATE TEMP TRIGGER projection_x AFTER INSERT ON seen BEGIN DELETE FROM seen; END",
    "CREATE VIRTUAL TABLE projection_x USING fts5 (n)",
    "ALTER TABLE seen RENAME TO projection_x",
)
OTHERS: dict[str, tuple[str, Any, str]] = {
    "a version of text": ("version", "1", "version = 1"),
    "a version of a truth": ("version", True, "version = 1"),
    "version 0": ("version", 0, "version = 1"),
    "a version too large": ("version", 2**63, "version = 1"),
    "a name of bytes": ("name", b"declared", "cannot name a projection"),
    "an empty name": ("name", "", "cannot name a projection"),
    "no name of a file": ("name", "Declared!", "cannot name a projection"),
}


async def coroutine(*arguments: Any) -> None:
    """Never awaited."""


def generator(*arguments: Any) -> Any:
    """Never iterated."""
    yield


@pytest.mark.parametrize("case", EVENT_NAMES)
@pytest.mark.parametrize("kind", BOTH)
async def test_event_names_that_are_no_tuple_of_names(log: EventLog, run: RunnerMaker, kind: Any, case: str) -> None:
    """Refused at `add`; the runner is as it was."""
    declared, said = EVENT_NAMES[case]
    runner = run(log)
    with pytest.raises(ConfigurationError, match=said):
        runner.add(type(kind.__name__, (kind,), {"event_names": declared})())
    assert runner.status() == []


@pytest.mark.parametrize("case", SCHEMAS)
async def test_a_schema_that_is_no_tuple_of_statements(log: EventLog, run: RunnerMaker, case: str) -> None:
    """Refused at `add`."""
    declared, said = SCHEMAS[case]
    with pytest.raises(ConfigurationError, match=said):
        run(log).add(type("Durable", (Durable,), {"schema": declared})())


@pytest.mark.parametrize("statement", RESERVED)
async def test_a_schema_with_a_name_of_the_runners(log: EventLog, run: RunnerMaker, statement: str) -> None:
    """Refused at `add`, however it is written; a statement that drops it again hides nothing."""
    runner = run(log)
    schema = (*Durable.schema, statement, "DROP TABLE IF EXISTS projection_x")
    with pytest.raises(ConfigurationError, match=r"statement 2 of the schema of Durable makes .*another name"):
        runner.add(type("Durable", (Durable,), {"schema": schema})())
    assert runner.status() == []


async def test_names_that_are_like_the_runners(log: EventLog, run: RunnerMaker, tmp_path: Any) -> None:
    """Taken; and no other file is touched while a schema is looked at."""
    elsewhere = tmp_path / "elsewhere.db"
    schema = (
        *Durable.schema,
        "CREATE TABLE projections (projection_x)",
        "CREATE TABLE my_projection_x (n)",
        "INSERT INTO projections VALUES (1)",
    )
    runner = run(log)
    runner.add(type("Durable", (Durable,), {"schema": schema})())
    await runner.catch_up()
    runner.add(type("Attached", (Durable,), {"name": "attached", "schema": (f"ATTACH '{elsewhere}' AS other", *Durable.schema)})())
    assert not elsewhere.exists()


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("kind", BOTH)
async def test_other_declarations(log: EventLog, run: RunnerMaker, kind: Any, case: str) -> None:
    """A version is a whole number, a name one that files can have."""
    attribute, declared, said = OTHERS[case]
    with pytest.raises(ConfigurationError, match=said):
        run(log).add(type(kind.__name__, (kind,), {attribute: declared})())


@pytest.mark.parametrize("function", [coroutine, generator])
@pytest.mark.parametrize(("kind", "method"), [(InMemory, "apply"), (Durable, "apply"), (Durable, "after_commit"), (Durable, "for_rebuild")])
async def test_what_would_never_run(log: EventLog, run: RunnerMaker, kind: Any, method: str, function: Any) -> None:
    """A coroutine that nobody awaits, or a generator that nobody iterates, takes nothing in."""
    with pytest.raises(ConfigurationError, match=f"{method} of .* would never run"):
        run(log).add(type(kind.__name__, (kind,), {method: function})())


async def test_what_is_not_an_object_of_a_projection(log: EventLog, run: RunnerMaker) -> None:
    """A class, something else, one without a name, one whose own start is left out, a `make` that makes nothing."""

    class Nameless(SQLiteProjection):
        def apply(self, db: Any, events: Any) -> None: ...

    class NotBegun(Projection):
        name = "not_begun"

        def __init__(self) -> None:
            self.seen: list[int] = []

        def apply(self, event: Any) -> None: ...

    runner = run(log)
    for wrong, said in (
        (InMemory, r"add\(InMemory\(\)\)"),
        (Durable, r"add\(Durable\(\)\)"),
        ("declared", "derive its class"),
        (None, "derive its class"),
        (Nameless(), "write `name"),
        (NotBegun(), r"super\(\).__init__\(\)"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            runner.add(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="make is"):
        runner.add(InMemory(), make="InMemory")  # type: ignore[arg-type]
    assert runner.status() == []


@pytest.mark.parametrize("names", [("Wanted",), ["Wanted"], {"Wanted"}, frozenset({"Wanted", "Never"}), ("Wanted", "Wanted")])
@pytest.mark.parametrize("kind", BOTH)
async def test_what_is_right_is_taken(log: EventLog, run: RunnerMaker, kind: Any, names: Any) -> None:
    """A tuple, list or set of names; exactly these events come."""
    await fill(log, 3)
    await fill(log, 2, "Thing:2", "Wanted")
    await fill(log, 1, "Thing:3", "WantedMore")
    projection = type(kind.__name__, (kind,), {"event_names": names})()
    runner = run(log, projection)
    await runner.catch_up()
    seen = projection.seen if kind is InMemory else [row[0] for row in await projection.read("SELECT position FROM seen")]
    assert seen == [4, 5]
    assert runner.status()[0].position == 6


async def test_a_text_is_refused_where_events_are_fed_by_hand(log: EventLog) -> None:
    """Not every letter in a row that stands in it is a name."""
    await fill(log, 1, name="Chan")
    projection = type("InMemory", (InMemory,), {"event_names": "Changed"})()
    async for events in log.read():
        with pytest.raises(ConfigurationError, match="with the comma"):
            projection.feed(events)
    assert (projection.seen, projection.position) == ([], 0)


@pytest.mark.parametrize(
    "schema",
    [("CREATE TABLE seen (position INTEGER)", "CREAT INDEX wrong"), ("CREATE TABLE a (b)", "CREATE TABLE c (d)CREATE TABLE e (f)")],
)
async def test_a_statement_that_cannot_be_run_is_named(log: EventLog, run: RunnerMaker, schema: Any) -> None:
    """Which of them, and how it begins."""
    await fill(log, 1)
    with pytest.raises(ProjectionFailedError, match=rf"statement 2 of its schema, '{schema[1][:5]}.*with a comma behind it"):
        await run(log, type("Durable", (Durable,), {"schema": schema})()).catch_up()


@pytest.mark.parametrize("make", [lambda: None, lambda: Durable(), lambda: EMPTY])
async def test_a_make_that_does_not_make_an_empty_one(log: EventLog, run: RunnerMaker, make: Any) -> None:
    """The rebuild says so; the one there goes on."""
    EMPTY.__init__()  # type: ignore[misc]
    await fill(log, 2)
    runner = run(log)
    runner.add(EMPTY, make=make)
    await runner.catch_up()
    with pytest.raises(ProjectionFailedError, match="an empty InMemory each time"):
        await runner.rebuild("declared")
    assert (EMPTY.seen, runner.status()[0].state) == ([1, 2], "idle")


EMPTY = InMemory()
