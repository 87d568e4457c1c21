"""`capture` is the user's code: it may ask the event loop, or another thread that changes an entity, for something."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.core.state import EntityRestorer

WAIT_S = 20


@entity
class ReadingDesk:
    id: str = ""
    number: int = 0


class ReadAloud:
    """An object of a class of the application's own."""

    def __init__(self, name: str, other: Any = None) -> None:
        self.id = name
        self.other = other


@pytest.mark.parametrize("way", ["add", "add with an id", "add on record", "record"])
async def test_capture_may_wait_for_what_the_loop_changes(way: str) -> None:
    """It runs without a lock of the library's, so the loop goes on, changes an entity, and answers."""
    symphony = await Symphony().setup()
    loop = asyncio.get_running_loop()
    desk = symphony.entities.add(ReadingDesk(id="a"))
    asked = 0

    async def count() -> int:
        desk.number += 1
        return desk.number

    class Restorer(EntityRestorer):
        entity_type = "ReadAloud"

        def capture(self, obj: Any) -> dict[str, Any]:
            nonlocal asked
            asked += 1
            if listening:
                asyncio.run_coroutine_threadsafe(count(), loop).result(WAIT_S)
            return {"id": obj.id, "other": obj.other}

        async def restore(self, entity_id: str, data: Any, context: Any) -> Any:
            return ReadAloud(**data)

    listening = way.startswith("add")
    symphony.restore_manager.register_restorer(Restorer())
    aloud = ReadAloud("x", desk)

    def work() -> None:
        if way == "add with an id":
            symphony.entities.add(aloud, entity_type="ReadAloud", entity_id="y")
        elif way == "add on record":
            symphony.entities.add(aloud, capture="on_record")
        else:
            symphony.entities.add(aloud)

    await asyncio.wait_for(asyncio.to_thread(work), WAIT_S)
    listening = True
    if way == "record":
        await asyncio.wait_for(asyncio.to_thread(symphony.entities.record, aloud), WAIT_S)
    listening = False
    assert asked
    assert desk.number >= 1
    await symphony.flush()
    await symphony.close()
