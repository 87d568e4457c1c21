"""Comparing an object with what was recorded takes a short way where both hold the same values; it finds what the whole way finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.core.world import shadow as module
from symphony_es.core.world.shadow import compare_with_shadow

WHEN = datetime(2026, 1, 2, tzinfo=UTC)


@entity
class SharedFlat:
    """Values that cannot change, each of another type."""

    id: str = ""
    text: str = "some text"
    number: float = 1000.5
    flag: bool = True
    when: datetime = WHEN
    nothing: Any = None


@entity
class SharedNested:
    """Values that can, too."""

    id: str = ""
    text: str = "some text"
    flag: bool = True
    nothing: Any = None
    items: list[int] = field(default_factory=lambda: [1])


def past_methods(name: str, value: Any) -> Callable[[Any], None]:
    return lambda obj: obj.__dict__.__setitem__(name, value)


CHANGES: dict[str, Callable[[Any], None]] = {
    "none": lambda obj: None,
    "recorded": lambda obj: setattr(obj, "text", "other"),
    "other text": past_methods("text", "other"),
    "equal text": past_methods("text", "".join(["some", " text"])),
    "equal number of another type": past_methods("flag", 1),
    "what cannot be stored": past_methods("text", "\ud800"),
    "a subclass": past_methods("text", type("Text", (str,), {})("some text")),
    "a container": past_methods("nothing", [1]),
    "taken out": lambda obj: obj.__dict__.pop("text"),
    "put beside": past_methods("beside", 1),
}


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("cls", [SharedFlat, SharedNested])
@pytest.mark.parametrize("what", CHANGES)
async def test_the_short_way_finds_what_the_whole_comparison_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cls: type, what: str, resumed: bool
) -> None:
    """Whatever was changed past the methods, and of objects that a resume has made as well."""
    async with Symphony(tmp_path) as symphony:
        symphony.entities.add(cls(id="a"))
        if not resumed:
            await _compared(symphony, monkeypatch, cls, what)
    if resumed:
        async with Symphony(tmp_path) as symphony:
            await symphony.resume()
            await _compared(symphony, monkeypatch, cls, what)


async def _compared(symphony: Symphony, monkeypatch: pytest.MonkeyPatch, cls: type, what: str) -> None:
    obj: Any = symphony.entities.get(cls, "a")
    await symphony.flush()
    before = dict(obj.__dict__)
    CHANGES[what](obj)
    record = symphony.world.record_of(obj)
    found = _found(record)
    with monkeypatch.context() as patch:
        patch.setattr(module, "shares_all", lambda record: False)
        assert found == _found(record)
    assert bool(found) == (what not in ("none", "recorded", "equal text", "put beside"))
    if what != "recorded":
        obj.__dict__.clear()
        obj.__dict__.update(before)


def _found(record: Any) -> list[Any] | str:
    try:
        return compare_with_shadow(record)
    except Exception as error:
        return type(error).__name__


async def test_an_object_whose_values_are_shared_is_not_read_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a checkpoint after many changes costs a look at each field."""
    async with Symphony(tmp_path) as symphony:
        for number in range(20):
            symphony.entities.add(SharedFlat(id=str(number), text=str(number) * 10))
        await symphony.flush()
        for found in symphony.entities.all(SharedFlat):
            found.text, found.number = f"changed {found.id}", float(found.id)
        monkeypatch.setattr(module, "_compare_all", lambda record, but: pytest.fail("it was read off"))
        await symphony.create_checkpoint()
