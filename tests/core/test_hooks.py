"""What is called on a restored object, so that attributes which are not stored come back."""

from __future__ import annotations

from dataclasses import InitVar, field
from typing import Any

import pytest

from symphony_es import Symphony, entity, part, value
from symphony_es.core.state import UnrestoredEntity
from tests.conftest import Opener


@value
class Rate:
    """A value with a cache of its own."""

    percent: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "_factor", self.percent / 100)


@part
class Tool:
    """A part with a client, that also counts and normalises."""

    name: str = ""
    uses: int = 0

    def __post_init__(self) -> None:
        self._client = object()
        self.uses = 0
        self.name = self.name.strip()


@entity(type="HookBase")
class Base:
    """Called as an inherited hook."""

    id: str = ""
    title: str = ""

    def __post_init__(self) -> None:
        self._base = True


@entity(type="HookBot")
class Bot(Base):
    """A hook that does everything a hook should better not do."""

    tools: list[Tool] = field(default_factory=list)
    rates: tuple[Rate, ...] = ()
    friend: Any = None
    log: list[str] = field(default_factory=list)
    count: int = field(init=False, default=0)
    tags: set[str] = field(default_factory=set)
    index: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._by_name = {tool.name: tool for tool in self.tools}
        self._greeting = f"friend of {self.friend.title}" if self.friend is not None else "alone"
        self.count = 0
        self.title = self.title.upper()
        self.log.append("made")
        self.tags.add("new")
        self.index.clear()
        if self.tools:
            self.tools.pop(0)


@entity(type="HookArguments")
class Arguments:
    """Its `__post_init__` cannot be called again."""

    id: str = ""
    secret: InitVar[str] = field(kw_only=True)
    length: int = 0

    def __post_init__(self, secret: str) -> None:
        self.length = len(secret)
        self._opened = True


@entity(type="HookDefaults")
class Defaults:
    """Its arguments have defaults."""

    id: str = ""
    unit: InitVar[str] = "m"

    def __post_init__(self, unit: str) -> None:
        self._unit = unit


@entity(type="HookRestored")
class Restored:
    """It says itself what comes back."""

    id: str = ""
    secret: InitVar[str] = field(kw_only=True)

    def __post_init__(self, secret: str) -> None:
        self._how = "made"

    def __restored__(self) -> None:
        self._how = "restored"


FAILS = False


@entity(type="HookFails")
class Fails:
    """Its hook raises, in the second process."""

    id: str = ""
    other: Any = None

    def __post_init__(self) -> None:
        if FAILS:
            raise ConnectionError("nobody answers")


def stored_bot(symphony: Symphony) -> Bot:
    """A bot in a state that its constructor would not make."""
    friend = symphony.entities.add(Base(id="f", title="Frida"))
    bot = symphony.entities.add(Bot(id="b", rates=(Rate(25),), friend=friend))
    bot.tools = [Tool("a"), Tool("b")]
    for tool in bot.tools:
        tool.uses, tool.name = 7, f" {tool.name} "
    bot.count, bot.title, bot.index = 9, "Bob", {"x": 1}
    bot.log.clear()
    bot.tags.clear()
    return bot


async def in_resume(symphony: Symphony) -> Any:
    """After a resume."""
    assert (await symphony.resume()).complete
    return symphony.entities.get("HookBot:b")


async def in_load(symphony: Symphony) -> Any:
    """After a load of it alone."""
    bot = await symphony.entities.load("HookBot:b")
    assert symphony.last_load is not None
    assert symphony.last_load.complete
    return bot


async def in_refresh(symphony: Symphony) -> Any:
    """After it was put back to the log's state."""
    bot = await in_resume(symphony)
    del bot._by_name, bot._greeting
    await symphony.refresh(bot)
    return bot


async def in_a_view(symphony: Symphony) -> Any:
    """In a view of the past."""
    return (await (await symphony.at(symphony.log.head)).objects()).get("HookBot:b")


@pytest.mark.parametrize("way", [in_resume, in_load, in_refresh, in_a_view])
async def test_attributes_come_back_and_stored_fields_stay(way: Any, reopen: Opener) -> None:
    """Whatever the hook does to stored fields is undone in place; what it keeps are the entity's own objects."""
    symphony = await reopen()
    stored_bot(symphony)
    await symphony.flush()
    symphony = await reopen()
    head = symphony.log.head
    bot = await way(symphony)
    assert (bot.count, bot.title, bot.log, bot.tags, bot.index) == (9, "Bob", [], set(), {"x": 1})
    assert [(tool.name, tool.uses) for tool in bot.tools] == [(" a ", 7), (" b ", 7)]
    assert bot._base
    assert bot._greeting == "friend of Frida"
    assert all(tool._client is not None for tool in bot.tools)
    assert bot._by_name.keys() == {"a", "b"}, "parts are called before what holds them"
    assert [bot._by_name["a"], bot._by_name["b"]] == bot.tools
    assert bot._by_name["a"] is bot.tools[0]
    assert bot.rates[0]._factor == 0.25
    await symphony.flush()
    assert symphony.log.head == head, "a hook changes nothing"


async def test_what_is_restored_can_be_changed(reopen: Opener) -> None:
    """The parts that a hook took out and that were put back are the entity's parts."""
    symphony = await reopen()
    stored_bot(symphony)
    await symphony.flush()
    symphony = await reopen()
    bot = await in_resume(symphony)
    bot.tools[0].uses = 8
    bot.log.append("now")
    await symphony.flush()
    state = (await symphony.at(symphony.log.head)).get("HookBot:b")
    assert state["tools"][0].data["uses"] == 8
    assert state["log"] == ["now"]
    assert len((await symphony.log.read_entity("HookBot:b"))[-1].changes) == 2


async def test_which_hook_is_called(reopen: Opener) -> None:
    """`__restored__` before `__post_init__`; one with arguments only where they have defaults."""
    symphony = await reopen()
    symphony.entities.add(Arguments(id="1", secret="abc"))
    symphony.entities.add(Defaults(id="1", unit="km"))
    symphony.entities.add(Restored(id="1", secret="abc"))
    await symphony.flush()
    symphony = await reopen()
    assert (await symphony.resume()).complete
    arguments = symphony.entities.get("HookArguments:1")
    assert arguments.length == 3
    assert not hasattr(arguments, "_opened")
    assert symphony.entities.get("HookDefaults:1")._unit == "m"
    assert symphony.entities.get("HookRestored:1")._how == "restored"


async def test_a_hook_that_raises_costs_its_own_entity(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is kept whole, also where others refer to it, and the report says why; the resume brings everything else."""
    symphony = await reopen()
    failing = symphony.entities.add(Fails(id="1"))
    symphony.entities.add(Bot(id="b", friend=None, log=["x"]))
    holder = symphony.entities.add(Base(id="h", title="t"))
    symphony.entities.add(Fails(id="2", other=[failing, holder]))
    await symphony.flush()
    symphony = await reopen()
    monkeypatch.setattr("tests.core.test_hooks.FAILS", True)
    report = await symphony.resume()
    assert set(report.unrestored) == {"HookFails:1", "HookFails:2"}
    assert "ConnectionError('nobody answers')" in report.unrestored["HookFails:1"]
    kept = symphony.entities.get("HookFails:1")
    assert isinstance(kept, UnrestoredEntity)
    assert kept.state == {"id": "1", "other": None}
    assert symphony.entities.get("HookBase:h").title == "t"
    monkeypatch.setattr("tests.core.test_hooks.FAILS", False)
    assert (await symphony.resume()).complete
    assert symphony.entities.get("HookFails:2").other[0] is symphony.entities.get("HookFails:1")


async def test_who_refers_to_an_entity_whose_hook_raises(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds the kept state, in lists, tuples and fields alike."""
    symphony = await reopen()
    failing = symphony.entities.add(Fails(id="1"))
    symphony.entities.add(Bot(id="b", friend=Base(id="f"), index={}))
    symphony.entities.get("HookBot:b").friend = failing
    await symphony.flush()
    symphony = await reopen()
    monkeypatch.setattr("tests.core.test_hooks.FAILS", True)
    monkeypatch.setattr(Fails, "title", "x", raising=False)
    await symphony.resume()
    bot = symphony.entities.get("HookBot:b")
    assert bot.friend is symphony.entities.get("HookFails:1")
    assert isinstance(bot.friend, UnrestoredEntity)
