"""What callers may name entities, types, paths and moments by, and what a question answers that can have no answer."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from symphony_es import EntityReference, Symphony, entity, part
from symphony_es.core.objects.declared_restorer import DeclaredEntityRestorer
from symphony_es.core.past.renames import renames_in
from symphony_es.core.past.unrecorded import Unrecorded
from symphony_es.errors import (
    CheckpointNotFoundError,
    ConfigurationError,
    DetachedEntityError,
    EntityBusyError,
    EntityNotFoundError,
    EntityTypeError,
    SymphonyError,
    UnknownPathError,
    UnknownTypeError,
)
from symphony_es.events.changes import SET, Change
from symphony_es.events.comparison import ValueChange, compare_states
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.paths import ABSENT
from symphony_es.events.values import Tagged


@part
class AskedLine:
    amount: int = 0
    note: str = ""


@entity
class AskedInvoice:
    id: str = ""
    title: str = ""
    lines: list[AskedLine] | None = None
    extra: dict[str, int] | None = None


@dataclass
class AskedForeign:
    id: str
    title: str = ""


@dataclass
class AskedIterable:
    id: str
    title: str = ""

    def __iter__(self) -> Iterator[Any]:
        return iter([("id", self.id)])


async def filled(symphony: Symphony) -> AskedInvoice:
    """An invoice and an object of a foreign class, both in the log."""
    invoice = symphony.entities.add(AskedInvoice(id="1", title="a", lines=[AskedLine(1)], extra={"net": 1}))
    symphony.entities.add(AskedForeign("f", "x"))
    await symphony.flush()
    return invoice


FORMS: dict[str, Callable[[AskedInvoice], tuple[Any, ...]]] = {
    "key": lambda invoice: ("AskedInvoice:1",),
    "reference": lambda invoice: (EntityReference("AskedInvoice", "1"),),
    "object": lambda invoice: (invoice,),
    "type and id": lambda invoice: ("AskedInvoice", "1"),
    "class and id": lambda invoice: (AskedInvoice, "1"),
}
ONE_ARGUMENT = ("key", "reference", "object")


class TestNames:
    @pytest.mark.parametrize("form", FORMS)
    async def test_the_live_object_and_the_past_take_every_form(self, symphony: Symphony, form: str) -> None:
        """get, find, load, a view and its objects mean the same entity, however it is named."""
        invoice = await filled(symphony)
        given = FORMS[form](invoice)
        assert symphony.entities.get(*given) is symphony.entities.find(*given) is await symphony.entities.load(*given) is invoice
        assert symphony.entities[given if len(given) > 1 else given[0]] is invoice
        assert (given if len(given) > 1 else given[0]) in symphony.entities
        view = await symphony.at("latest")
        assert view.get(*given)["title"] == view.state(*given).data["title"] == "a"  # type: ignore[index]
        assert view.find(*given) == view.get(*given)
        assert view.references(*given) == []
        assert (await view.objects()).get(*given).title == "a"
        symphony.entities.delete(*given)
        assert symphony.entities.find(*given) is None

    @pytest.mark.parametrize("form", ONE_ARGUMENT)
    async def test_questions_about_the_past_take_every_form(self, symphony: Symphony, form: str) -> None:
        """history, blame, diff, audit and a view's brackets mean the same entity."""
        (given,) = FORMS[form](await filled(symphony))
        assert [version.version for version in await symphony.history(given)] == [1]
        assert [entry.after for entry in await symphony.blame(given, "title")] == ["a"]
        assert len(await symphony.diff(0, entity=given)) == 1
        assert [event.name for event in await symphony.audit.find(entity=given)] == ["AskedInvoiceCreated"]
        assert (await symphony.at("latest"))[given]["title"] == "a"

    async def test_a_type_is_a_class_or_its_name(self, symphony: Symphony) -> None:
        """Of declared and of foreign classes; what has a class and no entity gives an empty list."""
        invoice = await filled(symphony)
        foreign = symphony.entities.get(AskedForeign, "f")
        view = await symphony.at("latest")
        for asked in (AskedInvoice, "AskedInvoice"):
            assert symphony.entities.all(asked) == [invoice]  # type: ignore[call-overload]
            assert view.all(asked) == [EntityReference("AskedInvoice", "1")]
            assert await symphony.entities.ids(asked) == ["1"]
            assert len(await symphony.audit.find(entity_type=asked)) == 1
        assert symphony.entities.all(AskedForeign) == symphony.entities.all("AskedForeign") == [foreign]
        assert symphony.entities.all("Task") == []
        assert len(symphony.entities) == len(list(symphony.entities)) == 2

    async def test_a_type_is_known_by_what_the_log_has(self, reopen: Callable[[], Awaitable[Symphony]]) -> None:
        """A removed entity, or one that is not live, of a class that nobody has registered, makes its type known."""
        symphony = await reopen()
        symphony.entities.remove(symphony.entities.add(AskedForeign("gone"), "Bygone"))
        symphony.entities.add(AskedForeign("f"))
        symphony = await reopen()
        for asked in ("Bygone", "AskedForeign"):
            assert symphony.entities.all(asked) == []
        assert symphony.entities.find("Bygone:gone") is None
        assert await symphony.entities.ids("Bygone") == []
        assert await symphony.entities.ids("AskedForeign") == ["f"]
        with pytest.raises(EntityNotFoundError, match=r"waits in the log"):
            symphony.entities.get(AskedForeign, "f")

    async def test_ids_are_those_that_are_alive_live_or_not(self, reopen: Callable[[], Awaitable[Symphony]]) -> None:
        """What was added just now counts, what was removed does not; ids with colons and of types with a common beginning stay apart."""
        symphony = await reopen()
        for name in ("a:b", "b", "c"):
            symphony.entities.add(AskedInvoice(id=name))
        symphony.entities.add(AskedForeign("x"), "AskedInvoices")
        symphony = await reopen()
        symphony.entities.add(AskedInvoice(id="d"))
        symphony.entities.remove(await symphony.entities.load(AskedInvoice, "b"))
        assert await symphony.entities.ids(AskedInvoice) == ["a:b", "c", "d"]

    async def test_ids_in_memory_count_what_is_no_longer_kept(self) -> None:
        """Also entities whose events have become part of the base."""
        async with Symphony({"memory_events": 20}) as symphony:
            for number in range(100):
                symphony.entities.add(AskedInvoice(id=f"{number:03}"))
                await symphony.flush()
            symphony.entities.remove("AskedInvoice:000")
            assert await symphony.entities.ids("AskedInvoice") == [f"{number:03}" for number in range(1, 100)]


def typos(name: str) -> list[str]:
    """Ways of writing a name wrong: a letter less, one twice, two exchanged, other case, an ending too much."""
    middle = len(name) // 2
    return [
        name[:middle] + name[middle + 1 :],
        name[:middle] + name[middle] + name[middle:],
        name[:middle] + name[middle + 1] + name[middle] + name[middle + 2 :],
        name.lower(),
        f"{name}s",
    ]


QUESTIONS: dict[str, Callable[[Symphony, str], Awaitable[Any]]] = {
    "all": lambda s, name: _now(s.entities.all, name),
    "get": lambda s, name: _now(s.entities.get, name, "1"),
    "find": lambda s, name: _now(s.entities.find, f"{name}:1"),
    "remove": lambda s, name: _now(s.entities.remove, f"{name}:1"),
    "load": lambda s, name: s.entities.load(f"{name}:1"),
    "ids": lambda s, name: s.entities.ids(name),
    "history": lambda s, name: s.history(f"{name}:1"),
    "blame": lambda s, name: s.blame(f"{name}:1", "title"),
    "diff": lambda s, name: s.diff(0, entity=f"{name}:1"),
    "audit of a type": lambda s, name: s.audit.find(entity_type=name),
    "audit of an entity": lambda s, name: s.audit.find(entity=f"{name}:1"),
    "state": lambda s, name: s.past.state_of(f"{name}:1"),
    "view": lambda s, name: _in_view(s, lambda view: view.get(f"{name}:1")),
    "view of a type": lambda s, name: _in_view(s, lambda view: view.all(name)),
}


async def _now(call: Callable[..., Any], *arguments: Any) -> Any:
    return call(*arguments)


async def _in_view(symphony: Symphony, ask: Callable[[Any], Any]) -> Any:
    return ask(await symphony.at("latest"))


class TestMisspelt:
    @pytest.mark.parametrize("question", QUESTIONS)
    @pytest.mark.parametrize("typo", typos("AskedInvoice"))
    async def test_a_type_that_never_was_is_an_error_that_names_near_misses(self, symphony: Symphony, question: str, typo: str) -> None:
        """Whatever is asked; it is a kind of the error that the question raises for an entity that is not there."""
        await filled(symphony)
        with pytest.raises(UnknownTypeError, match=r"did you mean .*AskedInvoice") as caught:
            await QUESTIONS[question](symphony, typo)
        assert caught.value.entity_type == typo
        assert "AskedInvoice" in caught.value.near
        assert isinstance(caught.value, EntityNotFoundError)

    async def test_looking_before_the_first_one_is_added_is_no_mistake(self, symphony: Symphony) -> None:
        """find() of a type that nothing is written like gives None."""
        assert symphony.entities.find("Quite:other") is None

    @pytest.mark.parametrize("typo", [name for name in typos("title") if name != "title"])
    async def test_a_path_that_never_was_is_an_error_that_names_near_misses(self, symphony: Symphony, typo: str) -> None:
        """Of blame and of history."""
        invoice = await filled(symphony)
        for question in (symphony.blame, symphony.history):
            with pytest.raises(UnknownPathError, match="did you mean title") as caught:
                await question(invoice, typo)
            assert caught.value.near == ["title"]

    @pytest.mark.parametrize(
        ("path", "near"),
        [("lines[0].amuont", "lines[0].amount"), ("extra.nett", "extra.net"), ("lines[7].amount", "lines[0]"), ("title.deep", "title")],
    )
    async def test_near_misses_stand_where_the_path_leads_no_further(self, symphony: Symphony, path: str, near: str) -> None:
        """In parts, dicts, lists, and in what has no inside."""
        invoice = await filled(symphony)
        with pytest.raises(UnknownPathError) as caught:
            await symphony.blame(invoice, path)
        assert near in str(caught.value)

    async def test_a_path_is_known_that_stood_in_any_version_or_is_declared(self, symphony: Symphony) -> None:
        """What came later than what is asked for, what is gone, and a field that no event has set."""
        invoice = await filled(symphony)
        assert invoice.extra is not None
        head = symphony.log.head
        invoice.extra["later"] = 1
        await symphony.flush()
        del invoice.extra["net"]
        await symphony.flush()
        assert await symphony.blame(invoice, "extra.later", until=head) == []
        assert [entry.after for entry in await symphony.blame(invoice, "extra.net")] == [ABSENT, 1]
        assert await symphony.blame(invoice, "extra.net", since="latest") == []
        assert symphony.names.declared_fields("AskedInvoice") == ("id", "title", "lines", "extra")

    @pytest.mark.parametrize("given", [5, None, 1.5, ["AskedInvoice:1"], {"id": "1"}, True])
    async def test_what_names_no_entity_is_a_typed_error(self, symphony: Symphony, given: Any) -> None:
        """Never an error of some inner call."""
        for question in (symphony.history, symphony.entities.load):
            with pytest.raises(EntityTypeError, match="names no entity"):
                await question(given)
        with pytest.raises(EntityTypeError):
            symphony.entities.all(given) if given is not None else symphony.entities.all(5)  # type: ignore[call-overload]

    async def test_a_type_without_an_id_is_a_wrong_call(self, symphony: Symphony) -> None:
        """And not an entity that was not found."""
        for call in (lambda: symphony.entities.get("AskedInvoice"), lambda: symphony.entities.get(AskedInvoice)):
            with pytest.raises(ConfigurationError, match="id"):
                call()
        with pytest.raises(EntityTypeError, match="stand inside of one"):
            symphony.entities.all(AskedLine)
        with pytest.raises(ConfigurationError, match="int object has no id"):
            symphony.entities.add(5)

    @pytest.mark.parametrize(
        "condition", ["actor", "run", "correlation", "event", "since", "until", "transaction", "after_position", "limit"]
    )
    @pytest.mark.parametrize("given", [["a", 5], 1.5, object()])
    async def test_conditions_of_wrong_types_are_typed_errors(self, symphony: Symphony, condition: str, given: Any) -> None:
        """Before a store is asked."""
        with pytest.raises(ConfigurationError):
            await symphony.audit.find(**{condition: given})

    @pytest.mark.parametrize(
        "call",
        [
            lambda s: s.audit.find(event="\ud800"),
            lambda s: s.audit.find(event=["a", "\ud800"]),
            lambda s: s.audit.find(actor="\ud800"),
            lambda s: s.audit.find(limit=10**30),
            lambda s: s.audit.find(after_position=10**30),
            lambda s: s.audit.find(before_position=-(10**30)),
            lambda s: s.history("AskedInvoice:1", after_version=None),
            lambda s: s.history("AskedInvoice:1", after_version=1.5),
            lambda s: s.history("AskedInvoice:1", "title", after_version="1"),
            lambda s: s.create_checkpoint("x", "text"),
            lambda s: s.create_checkpoint("x", -1),
            lambda s: s.create_checkpoint("x", [("a", 1)]),
            lambda s: s.delete_checkpoint([]),
            lambda s: s.delete_checkpoint({"id": "x"}),
            lambda s: s.delete_checkpoint(None),
            lambda s: s.resume_from_checkpoint([]),
            lambda s: s.resume_from_checkpoint(5),
            lambda s: s.resume(types=0),
            lambda s: s.resume(types=[None]),
            lambda s: s.entities.load_all(None),
            lambda s: s.entities.load_all([5]),
            lambda s: s.entities.load_all("AskedInvoice"),
            lambda s: s.transaction("X", claim=0).__aenter__(),
            lambda s: s.transaction("X", claim=[[1]]).__aenter__(),
        ],
    )
    async def test_arguments_of_wrong_types_are_typed_errors(
        self, reopen: Callable[[], Awaitable[Symphony]], call: Callable[[Symphony], Awaitable[Any]]
    ) -> None:
        """Told by an error of the library's, before anything is done."""
        symphony = await reopen()
        await filled(symphony)
        head = symphony.log.head
        with pytest.raises(SymphonyError):
            await call(symphony)
        assert await symphony.log.refresh_head() == head

    @pytest.mark.parametrize("which", ["declared", "foreign", "key", "reference", "iterable"])
    async def test_one_entity_may_be_given_where_several_may(self, reopen: Callable[[], Awaitable[Symphony]], which: str) -> None:
        """`claim=` and `load_all` take it as one of one, also an object that can be iterated itself."""
        symphony = await reopen()
        invoice = await filled(symphony)
        iterable = symphony.entities.add(AskedIterable("i"))
        given: Any = {
            "declared": invoice,
            "foreign": symphony.entities.get("AskedForeign:f"),
            "key": "AskedInvoice:1",
            "reference": EntityReference("AskedInvoice", "1"),
            "iterable": iterable,
        }[which]
        obj = symphony.entities.get(given)
        assert await symphony.entities.load_all(given) == [obj]
        async with symphony.transaction("Named", claim=given):
            obj.title = "b"
        assert [version.event.name for version in await symphony.history(obj, after_version=1)] == ["Named"]

    async def test_a_number_too_long_for_python_to_write_out_is_shown(self, symphony: Symphony) -> None:
        """In hexadecimal: in a line, in a table, in the lists of blame and differences."""
        invoice = await filled(symphony)
        invoice.extra["net"] = 10**5000  # type: ignore[index]
        await symphony.flush()
        found = await symphony.history(invoice)
        assert "net 1 → 0x" in repr(found)
        assert "0x" in found._repr_html_()  # type: ignore[attr-defined]
        assert "0x" in repr(await symphony.blame(invoice, "extra.net"))
        assert "0x" in repr(await symphony.diff(1, 3, invoice))


class TestMoments:
    async def test_iso_texts_mean_what_datetimes_mean(self, symphony: Symphony) -> None:
        """In views, histories, blame, differences, audit and rewinds; without a zone UTC is meant, a date is its beginning."""
        invoice = await filled(symphony)
        now = datetime.now(UTC)
        tomorrow, today = f"{now + timedelta(days=1):%Y-%m-%d}", f"{now - timedelta(days=1):%Y-%m-%d}"
        shifted = (now + timedelta(hours=1)).astimezone(tz=datetime.now().astimezone().tzinfo).isoformat()
        assert (await symphony.at(tomorrow)).position == (await symphony.at(shifted)).position == symphony.log.head
        assert (await symphony.past.at(today)).position == 0
        assert len(await symphony.history(invoice, since=today, until=tomorrow)) == 1
        assert await symphony.history(invoice, since=tomorrow) == await symphony.blame(invoice, "title", since=tomorrow) == []
        assert len(await symphony.diff(today, tomorrow)) == 2
        assert len(await symphony.audit.find(since=today, until=tomorrow)) == 2
        assert await symphony.audit.find(until=today) == await symphony.audit.find(since=f"{tomorrow}T00:00:00+00:00") == []
        report = await symphony.rewind(tomorrow)
        assert report.position == 2
        assert (await symphony.resume(replay_until=today)).position == 0

    @pytest.mark.parametrize("text", ["2026-99-99", "2026-11-27T25:00", "2026-11-27 x"])
    async def test_a_text_that_looks_like_a_time_is_one_or_an_error(self, symphony: Symphony, text: str) -> None:
        """Never the name of a checkpoint that is not there."""
        with pytest.raises(ConfigurationError, match="is no time"):
            await symphony.at(text)
        with pytest.raises(ConfigurationError, match="is no time"):
            await symphony.audit.find(since=text)

    @pytest.mark.parametrize("name", ["latest", "checkpoint", "", "7", "0042", "2026-11-27", "2026-11-27T10:00", 5])
    async def test_a_name_that_could_never_be_meant_is_refused(self, reopen: Callable[[], Awaitable[Symphony]], name: Any) -> None:
        """Where the checkpoint is made; nothing is appended."""
        symphony = await reopen()
        head = symphony.log.head
        with pytest.raises(ConfigurationError, match="checkpoint"):
            await symphony.create_checkpoint(name)
        assert symphony.log.head == head
        assert await symphony.list_checkpoints() == []

    @pytest.mark.parametrize("given", [5, b"x", ["ann"], "\ud800"])
    async def test_an_actor_that_no_event_can_store_is_refused_at_the_call(self, symphony: Symphony, given: Any) -> None:
        """Not at the next flush, which would leave the entity out of step."""
        invoice = await filled(symphony)
        with pytest.raises(ConfigurationError, match="actor"), symphony.acting_as(given):
            invoice.title = "never"
        with pytest.raises(ConfigurationError, match="actor"):
            symphony.transaction("Changed", actor=given)
        with pytest.raises(ConfigurationError, match="reason"):
            symphony.transaction("Changed", reason=given)
        await symphony.flush()
        assert invoice.title == "a"


@entity(type="Renamed")
class RenamedFirst:
    id: str = ""
    name: str = ""
    text: str = ""


def second(data: dict[str, Any], version: int) -> dict[str, Any]:
    """Version 2 calls the name a title."""
    return {"id": data["id"], "title": data["name"], "text": data["text"]} if version == 1 else data


def third(data: dict[str, Any], version: int) -> dict[str, Any]:
    """Version 3 calls both otherwise, and adds a field."""
    data = second(data, version)
    return {"id": data["id"], "heading": data["title"], "body": data["text"], "pages": 1}


def an_old_invoice() -> NewEvent:
    """The creation of an invoice by a class that had fewer fields."""
    changes: list[Change] = [(SET, (), {"id": "old", "title": "t"})]
    return NewEvent(
        entity_key="AskedInvoice:old", version=1, name="Made", changes=changes, metadata=EventMetadata(), event_id=bytes(15) + b"1"
    )


class TestUpcasts:
    async def reopened(self, reopen: Callable[[], Awaitable[Symphony]], number: int) -> Symphony:
        """The log with the class of a version."""
        if number == 2:

            @entity(type="Renamed2", state_version=2, upcast=second)
            class Newer:
                id: str = ""
                title: str = ""
                text: str = ""
        else:

            @entity(type="Renamed3", state_version=3, upcast=third)
            class Newer:  # type: ignore[no-redef]
                id: str = ""
                heading: str = ""
                body: str = ""
                pages: int = 0
                fresh: int = 9

        class Restorer(DeclaredEntityRestorer):
            entity_type = "Renamed"  # type: ignore[assignment]

        symphony = await reopen()
        symphony.restore_manager.register_restorer(Restorer(Newer))
        await symphony.resume()
        return symphony

    @pytest.mark.parametrize("value", ["Ada", "", "x" * 2000, "text"])
    async def test_blame_and_history_follow_a_renamed_field(self, reopen: Callable[[], Awaitable[Symphony]], value: str) -> None:
        """Through an upcast that no event says yet, through one that was adopted, and through two of them; equal values do not confuse."""
        symphony = await reopen()
        doc = symphony.entities.add(RenamedFirst(id="r", name="first", text=value))
        await symphony.flush()
        with symphony.acting_as("alice"):
            doc.name = value
            await symphony.flush()
        symphony = await self.reopened(reopen, 2)
        actors = [entry.event.metadata.actor for entry in await symphony.blame("Renamed:r", "title")]
        assert actors == ["alice", None]
        with symphony.acting_as("bob"):
            symphony.entities.get("Renamed:r").text += "!"
            await symphony.flush()
        told = [(entry.event.metadata.actor, entry.after) for entry in await symphony.blame("Renamed:r", "title")]
        assert told == [("symphony", value), ("alice", value), (None, "first")]
        assert (await symphony.blame("Renamed:r", "title"))[1].path == ("name",)
        symphony = await self.reopened(reopen, 3)
        symphony.entities.get("Renamed:r").pages = 7
        await symphony.flush()
        told = [(entry.event.metadata.actor, entry.after) for entry in await symphony.blame("Renamed:r", "heading")]
        assert told == [("symphony", value), ("symphony", value), ("alice", value), (None, "first")]
        versions = await symphony.history("Renamed:r", "heading")
        assert [version.event.metadata.actor for version in versions] == [None, "alice", "symphony", "symphony"]
        assert [entry.event.metadata.actor for entry in await symphony.blame("Renamed:r", "body")] == ["symphony", "bob", None]

    async def test_what_only_an_upcast_gives_is_said(self, reopen: Callable[[], Awaitable[Symphony]]) -> None:
        """No event has set it before the entity's next change, and the answer is not just empty; what was renamed is on record."""
        symphony = await reopen()
        symphony.entities.add(RenamedFirst(id="r", name="n"))
        await symphony.flush()
        symphony = await self.reopened(reopen, 3)
        for answer in (await symphony.blame("Renamed:r", "pages"), await symphony.history("Renamed:r", "pages")):
            assert answer == []
            assert answer.unrecorded == Unrecorded(path=("pages",), source="upcast 1 to 3", value=1)
            assert "the upcast 1 to 3 gives pages its value" in repr(answer)
            assert "the upcast 1 to 3" in answer._repr_html_()
        assert (await symphony.blame("Renamed:r", "fresh")).unrecorded == Unrecorded(path=("fresh",), source="default")
        renamed = await symphony.blame("Renamed:r", "heading")
        assert (len(renamed), renamed.unrecorded) == (1, None)
        with pytest.raises(UnknownPathError):
            await symphony.blame("Renamed:r", "pagez")
        symphony.entities.get("Renamed:r").body = "new"
        await symphony.flush()
        told = await symphony.blame("Renamed:r", "pages")
        assert ([entry.event.name for entry in told], told.unrecorded) == (["StateAdopted"], None)

    async def test_what_only_a_default_gives_is_said(self, symphony: Symphony) -> None:
        """A field that the class has got since, without another version of the state."""
        await symphony.log.append([an_old_invoice()])
        told = await symphony.blame("AskedInvoice:old", "extra")
        assert (told, told.unrecorded) == ([], Unrecorded(path=("extra",), source="default"))
        assert "has its default" in repr(told)
        assert (await symphony.blame("AskedInvoice:old", "title")).unrecorded is None
        assert (await symphony.blame("AskedInvoice:old", "extra", until=1)).unrecorded is None

    @pytest.mark.parametrize("way", ["change", "transaction", "recording", "removal"])
    async def test_an_upcast_is_nobodys_change(self, reopen: Callable[[], Awaitable[Symphony]], way: str) -> None:
        """Whoever changes the entity next has not made it: neither actor nor reason, run or step is theirs."""
        symphony = await reopen()
        symphony.entities.add(RenamedFirst(id="r", name="n"))
        await symphony.flush()
        symphony = await self.reopened(reopen, 2)
        doc = symphony.entities.get("Renamed:r")
        with symphony.acting_as("bob", reason="a letter", ticket="5"):
            if way == "change":
                doc.text = "new"
            elif way == "transaction":
                async with symphony.transaction("Said", actor="carol"):
                    doc.text = "new"
            elif way == "recording":
                symphony.entities.record(doc, "Said", {"what": "hello"})
            else:
                symphony.entities.remove(doc)
            await symphony.flush()
        adopted = [event for event in await symphony.log.read_entity("Renamed:r") if event.name == "StateAdopted"]
        assert [(event.metadata.actor, event.metadata.reason) for event in adopted] == [("symphony", "upcast 1 to 2")]
        assert adopted[0].metadata.user is adopted[0].metadata.run_id is None
        assert [event.entity_key for event in await symphony.audit.find(actor="symphony")] == ["Renamed:r"]

    def test_the_names_that_are_most_alike_belong_together(self) -> None:
        """Where several values are the same."""
        changes = [
            ValueChange(("first_name",), "", ABSENT), ValueChange(("city",), "", ABSENT), ValueChange(("gone",), 1, ABSENT),
            ValueChange(("town_city",), ABSENT, ""), ValueChange(("given_name",), ABSENT, ""), ValueChange(("new",), ABSENT, 2),
        ]  # fmt: skip
        assert renames_in(changes) == {("given_name",): ("first_name",), ("town_city",): ("city",)}

    @pytest.mark.parametrize(
        ("before", "after", "paths"),
        [
            ({"who": {"name": "Ada"}}, {"buyer": {"name": "Ada", "vip": False}}, {("buyer",): ("who",)}),
            (
                {"who": {"name": "Ada", "mail": ""}},
                {"buyer": {"name": "Ada", "email": ""}},
                {("buyer",): ("who",), ("buyer", "email"): ("who", "mail")},
            ),
            (
                {"lines": [{"sku": "nut", "n": 1}]},
                {"lines": [{"article": "nut", "n": 1, "off": 0}]},
                {("lines", 0, "article"): ("lines", 0, "sku")},
            ),
            (
                {"lines": [Tagged("part", "m:Line", {"sku": "nut", "n": 1})]},
                {"items": [Tagged("part", "n:Item", {"article": "nut", "n": 1, "off": 0})]},
                {("items",): ("lines",), ("items", 0, "article"): ("lines", 0, "sku")},
            ),
            ({"at": {"x": {"y": 1}}}, {"at": {"x": {"z": 1}, "w": 2}}, {("at", "x", "z"): ("at", "x", "y")}),
            ({"a": {}}, {"b": {"c": 1}}, {}),
            ({"a": []}, {"b": [1]}, {}),
            ({"a": {"c": 1}}, {"b": {"c": 2, "d": 1}}, {}),
            ({"a": [1, 2]}, {"b": [1, 3]}, {}),
            ({"a": 1}, {"b": True}, {}),
        ],
    )  # fmt: skip
    def test_a_field_is_followed_though_more_than_its_name_was_changed(self, before: Any, after: Any, paths: dict[Any, Any]) -> None:
        """One upcast renames a field, gives its parts new fields and renames theirs; nothing that is empty is taken for something else."""
        assert renames_in(compare_states(before, after)) == paths

    async def test_blame_follows_the_parts_of_a_renamed_field(self, reopen: Callable[[], Awaitable[Symphony]]) -> None:
        """Who has set a value is told though the field, its part and the field of the part have got other names in one release."""

        @entity(type="Ordered")
        class First:
            id: str = ""
            lines: list[Any] = dataclasses.field(default_factory=list)

        symphony = await reopen()
        order = symphony.entities.add(First(id="o", lines=[{"sku": "nut", "n": 1}]))
        await symphony.flush()
        with symphony.acting_as("alice"):
            order.lines[0]["sku"] = "bolt"
            await symphony.flush()

        def upcast(data: dict[str, Any], version: int) -> dict[str, Any]:
            return {"id": data["id"], "items": [{"article": line["sku"], "n": line["n"], "off": 0} for line in data["lines"]]}

        @entity(type="Ordered2", state_version=2, upcast=upcast)
        class Second:
            id: str = ""
            items: list[Any] = dataclasses.field(default_factory=list)

        class Restorer(DeclaredEntityRestorer):
            entity_type = "Ordered"  # type: ignore[assignment]

        symphony = await reopen()
        symphony.restore_manager.register_restorer(Restorer(Second))
        await symphony.resume()
        for _ in ("before an event says so", "after"):
            blamed = await symphony.blame("Ordered:o", "items[0].article")
            assert [entry.event.metadata.actor for entry in blamed] == ["alice", None]
            assert blamed[-1].path == ("lines", 0, "sku")
            symphony.entities.get("Ordered:o").items[0]["n"] += 1
            await symphony.flush()


BREAKS: dict[str, tuple[tuple[str, ...], Callable[[Path], Any]]] = {
    "database emptied": ((".db",), lambda path: path.write_bytes(b"")),
    "database cut": ((".db",), lambda path: path.write_bytes(path.read_bytes()[:3000])),
    "database overwritten": ((".db",), lambda path: path.write_bytes(b"x" * path.stat().st_size)),
    "database replaced": ((".db",), lambda path: (path.unlink(), path.write_bytes(b"x" * 5000))),
    "pages zeroed": ((".db",), lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(path.stat().st_size - 4096))),
    "pointer emptied": ((".current",), lambda path: path.write_bytes(b"")),
    "pointer elsewhere": ((".current",), lambda path: path.write_text("audit.000000000000.db\n")),
}


class TestMeanwhile:
    @pytest.mark.parametrize("way", ["change", "transaction", "another refresh", "removal"])
    @pytest.mark.parametrize("turns", range(6))
    async def test_a_refresh_beside_a_change_leaves_the_object_as_the_log(
        self, reopen: Callable[[], Awaitable[Symphony]], way: str, turns: int
    ) -> None:
        """Whatever happens between its reading and its putting back, and however many turns of the loop lie between."""
        symphony = await reopen()
        invoice = await filled(symphony)

        async def meanwhile() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            if way == "change":
                invoice.title += "b"
                invoice.extra["net"] += 1  # type: ignore[index]
            elif way == "transaction":
                async with symphony.transaction("Changed", claim=[invoice]):
                    invoice.title += "b"
            elif way == "another refresh":
                invoice.title += "b"
                await symphony.refresh(invoice)
            else:
                symphony.entities.remove(invoice)

        results = await asyncio.gather(symphony.refresh(invoice), meanwhile(), return_exceptions=True)
        assert all(result is None or result == [] or isinstance(result, (DetachedEntityError, EntityBusyError)) for result in results)
        await symphony.flush()
        if way == "removal":
            assert symphony.entities.find("AskedInvoice:1") is None
            return
        state = (await symphony.past.state_of(invoice)).data
        assert state is not None
        assert (invoice.title, invoice.extra) == (state["title"], state["extra"])
        invoice.title = "end"
        await symphony.flush()
        assert (await symphony.past.state_of(invoice)).data["title"] == "end"  # type: ignore[index]

    @pytest.mark.parametrize("turns", range(8))
    async def test_a_cancelled_checkpoint_call_leaves_list_and_log_agreeing(
        self, reopen: Callable[[], Awaitable[Symphony]], turns: int
    ) -> None:
        """Whenever it is cancelled, of making and of deleting one; and the next call goes on with that."""
        symphony = await reopen()
        await filled(symphony)
        await symphony.create_checkpoint("zero")

        async def cancelled(call: Any) -> None:
            task = asyncio.ensure_future(call)
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        await cancelled(symphony.create_checkpoint("one"))
        await cancelled(symphony.delete_checkpoint("zero"))
        await symphony.log.append([])
        here = [entry["name"] for entry in await symphony.list_checkpoints()]
        again = await symphony.delete_checkpoint("zero")
        assert again == ("zero" in here)
        symphony = await reopen()
        there = [entry["name"] for entry in await symphony.list_checkpoints()]
        assert there == [name for name in here if name != "zero"]

    async def test_a_checkpoint_keeps_what_it_was_given(self, reopen: Callable[[], Awaitable[Symphony]]) -> None:
        """Metadata, and what an event says, are copies: what the caller does with them afterwards is its own."""
        symphony = await reopen()
        invoice = await filled(symphony)
        metadata: dict[str, Any] = {"a": [1]}
        await symphony.create_checkpoint("x", metadata)
        metadata["a"].append(2)
        (await symphony.list_checkpoints())[0]["metadata"]["a"].append(3)
        assert (await symphony.list_checkpoints())[0]["metadata"] == {"a": [1]}
        async with symphony.transaction("Said"):
            data = {"k": [1]}
            symphony.entities.record(invoice, "Said", data)
            data["k"].append(2)
        assert (await symphony.log.read_entity("AskedInvoice:1"))[-1].data == {"k": [1]}

    @pytest.mark.parametrize("what", [*BREAKS, "all", "database", "pointer", "directory emptied"])
    async def test_a_projection_that_is_deleted_meanwhile_is_built_anew(self, reopen: Callable[[], Awaitable[Symphony]], what: str) -> None:
        """By the next question, twice in a row."""
        symphony = await reopen()
        invoice = await filled(symphony)
        for count in (2, 3):
            assert len(await symphony.audit.find()) == count
            directory = symphony.state_dir / "projections"  # type: ignore[operator]
            _delete(directory, what)
            assert len(await symphony.audit.find()) == count
            _delete(directory, what)
            invoice.title += "x"
            await symphony.flush()
            assert len(await symphony.audit.find(entity=invoice)) == count
        assert [status.lag_events for status in symphony.projections.status()] == [1]


def _delete(directory: Path, what: str) -> None:
    import shutil

    if what in BREAKS:
        for path in [path for path in directory.iterdir() if path.name.endswith(BREAKS[what][0])]:
            BREAKS[what][1](path)
        return

    if what == "all":
        shutil.rmtree(directory)
        return
    for path in directory.iterdir():
        if what == "directory emptied" or path.name.endswith({"database": ".db", "pointer": ".current"}[what]):
            path.unlink()


class TestAdvice:
    async def test_a_detached_object_is_told_what_to_do_and_it_works(self, reopen: Callable[[], Awaitable[Symphony]]) -> None:
        """By what has detached it: a removal, a resume, the past, a close."""
        symphony = await reopen()
        invoice = await filled(symphony)
        past = (await (await symphony.at("latest")).objects()).get(invoice)
        with pytest.raises(DetachedEntityError, match="change the present one"):
            past.title = "x"
        await symphony.resume()
        with pytest.raises(DetachedEntityError, match="get the current one"):
            invoice.title = "x"
        current = symphony.entities.get(invoice)
        assert current is not invoice
        symphony.entities.remove(current)
        with pytest.raises(DetachedEntityError, match="add a new object"):
            current.title = "x"
        anew = symphony.entities.add(AskedInvoice(id="1"))
        await symphony.close()
        with pytest.raises(DetachedEntityError, match="open the Symphony again"):
            anew.title = "x"

    async def test_a_change_during_a_resume_is_not_told_of_a_transaction(self, reopen: Callable[[], Awaitable[Symphony]]) -> None:
        """There is none to wait for, and claiming would not help."""
        symphony = await reopen()
        invoice = await filled(symphony)
        symphony.world.sealed = "a resume"
        for attempt in (lambda: setattr(invoice, "title", "x"), lambda: symphony.entities.add(AskedInvoice(id="2"))):
            with pytest.raises(EntityBusyError, match="a resume is under way") as caught:
                attempt()
            assert "transaction" not in str(caught.value)
        symphony.world.sealed = None

    async def test_a_checkpoint_that_is_not_there(self, reopen: Callable[[], Awaitable[Symphony]]) -> None:
        """Is no time and no number."""
        symphony = await reopen()
        with pytest.raises(CheckpointNotFoundError, match="tomorrow"):
            await symphony.at("tomorrow")
