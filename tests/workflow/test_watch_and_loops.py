"""The watch of the inbox, in programs that use one event loop after another."""

import asyncio
from pathlib import Path

from symphony_es import Symphony


def test_a_loop_that_ends_while_the_watch_begins(tmp_path: Path) -> None:
    """Its pool of threads is closed already: nothing is raised into the loop, and the watch begins in the next one."""
    symphony = Symphony(tmp_path)
    told: list[object] = []

    async def first() -> None:
        await symphony.setup()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, what: told.append(what))
        await loop.shutdown_default_executor()  # as asyncio.run does at its end, where a timer may still be due
        assert symphony._inbox is not None
        assert await symphony._inbox.begun() is None

    async def second() -> None:
        assert symphony._inbox is not None
        assert await symphony._inbox.begun() is not None
        await symphony.close()

    asyncio.run(first())
    asyncio.run(second())
    assert not told
