"""A resume with `strict=True` gives a whole world or none: what keeps an object from being made is an error, and the old world stays."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.core.state import EntityRestorer, RestorationContext
from symphony_es.errors import RestorationError
from tests.core.test_skipping import change


class StrictShade(enum.Enum):
    """A value of the application."""

    DARK = 1


@entity
class StrictLamp:
    """A declared entity with a value."""

    id: str = ""
    shade: StrictShade | None = None
    lit: int = 0

    def __restored__(self) -> None:
        """Code of the application."""
        if FAILING:
            raise ValueError("the hook says no")


class StrictPlain:
    """A class that knows nothing of the library."""

    def __init__(self, id: str, level: int = 0) -> None:
        self.id, self.level = id, level


class StrictPlainRestorer(EntityRestorer):
    """Its restorer, which refuses when it is told to."""

    entity_type = "StrictPlain"
    restored_class = StrictPlain

    async def can_restore(self, data: dict[str, Any]) -> bool:
        """Not today."""
        return not FAILING

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        """Make one."""
        return StrictPlain(**data)


FAILING: list[str] = []


def fail(symphony: Symphony) -> None:
    """The hook raises, and the restorer says no."""
    FAILING.append("now")


def unregister(symphony: Symphony) -> None:
    """Another release has no restorer of a class."""
    symphony.restore_manager.unregister_restorer("StrictPlain")


CAUSES: dict[str, tuple[Callable[[Symphony], None], str]] = {
    "its hook raises": (fail, "StrictLamp:a: the hook of StrictLamp raised"),
    "its restorer says no": (fail, "StrictPlain:p: StrictPlainRestorer.can_restore said no"),
    "it has no restorer": (unregister, "StrictPlain:p: no restorer is registered for StrictPlain"),
}
CALLS: dict[str, Callable[[Symphony], Awaitable[object]]] = {
    "resume": lambda symphony: symphony.resume(strict=True),
    "from a checkpoint": lambda symphony: symphony.resume_from_checkpoint("one", strict=True),
    "from the latest": lambda symphony: symphony.resume_latest_checkpoint(strict=True),
    "rewind": lambda symphony: symphony.rewind("one", strict=True),
}


@pytest.fixture(autouse=True)
def nothing_fails() -> Any:
    """Each test begins with code that works, and ends so."""
    FAILING.clear()
    yield
    FAILING.clear()


async def begun(symphony: Symphony) -> None:
    """Two entities and a checkpoint."""
    symphony.restore_manager.register_restorer(StrictPlainRestorer(), replace=True)
    symphony.entities.add(StrictLamp(id="a", shade=StrictShade.DARK))
    symphony.entities.add(StrictPlain("p", 1))
    await symphony.create_checkpoint("one")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("cause", CAUSES)
async def test_an_object_that_cannot_be_made_is_an_error(tmp_path: Path, cause: str, call: str) -> None:
    """The error names the entity and the reason; the objects in hand stay the live ones; without `strict` all is as reported."""
    spoil, words = CAUSES[cause]
    async with Symphony(tmp_path / "state") as symphony:
        await begun(symphony)
        lamp, head = symphony.entities.get("StrictLamp:a"), symphony.log.head
        spoil(symphony)
        with pytest.raises(RestorationError, match="cannot be made") as caught:
            await CALLS[call](symphony)
        assert words in str(caught.value)
        assert symphony.entities.get("StrictLamp:a") is lamp
        assert symphony.log.head == head
        lamp.lit = 5
        await symphony.flush()
        report = await symphony.resume()
        assert any(words.partition(": ")[2] in reason for reason in report.unrestored.values())
        FAILING.clear()
        symphony.restore_manager.register_restorer(StrictPlainRestorer(), replace=True)
        assert (await symphony.resume(strict=True)).complete


async def test_a_damaged_entity_is_an_error(tmp_path: Path) -> None:
    """It stands as its last good state, which is no object of the application's."""
    state = tmp_path / "state"
    async with Symphony(state) as symphony:
        await begun(symphony)
        symphony.entities.get("StrictLamp:a").lit = 9
        await symphony.flush()
        position = symphony.log.head
    change(state / "events.db", f"UPDATE stored_events SET state = zeroblob(length(state)) WHERE position = {position}")
    async with Symphony({"state_dir": str(state), "skip_damaged": True}, persistence_enabled=True) as symphony:
        symphony.restore_manager.register_restorer(StrictPlainRestorer(), replace=True)
        with pytest.raises(RestorationError, match=r"StrictLamp:a: .*repair"):
            await symphony.resume(strict=True)
        assert list((await symphony.resume()).unrestored) == ["StrictLamp:a"]
        await symphony.entities.repair("StrictLamp:a")
        assert (await symphony.resume(strict=True)).unrestored == {}
