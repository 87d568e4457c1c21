"""Where calls may be made is said once for each class that applications call, and holds."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.core.past.audit import Audit
from symphony_es.facades.agents import Agents
from symphony_es.facades.entities import Entities
from symphony_es.facades.tasks import Tasks
from symphony_es.facades.workflows import Workflows


@entity
class Threaded:
    x: int = 0
    items: list[int] | None = None


@pytest.mark.parametrize("cls", [Symphony, Entities, Agents, Tasks, Workflows, Audit])
def test_each_class_says_which_threads_may_call_it(cls: type) -> None:
    """One paragraph that begins with "Threads:", and every public call has a docstring of its own."""
    assert "\nThreads: " in (inspect.getdoc(cls) or "")
    public = [call for name, call in inspect.getmembers(cls) if not name.startswith("_") and callable(call)]
    assert public
    assert [call.__qualname__ for call in public if not inspect.getdoc(call)] == []


def in_threads(*calls: Any) -> list[BaseException]:
    """Make calls in threads of their own, all at once; returns what they raised."""
    raised: list[BaseException] = []

    def run(call: Any) -> None:
        try:
            call()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


async def test_calls_that_are_not_awaited_may_be_made_in_any_thread(symphony: Symphony) -> None:
    """Adding, finding, changing and removing beside each other: each is whole, and the log has what the objects have."""
    shared = symphony.entities.add(Threaded(id="shared", items=[]))

    def work(number: int) -> Any:
        def run() -> None:
            own = symphony.entities.add(Threaded(id=f"t{number}"))
            for value in range(20):
                own.x = value
                shared.items.append(value)
                assert symphony.entities.get(Threaded, f"t{number}") is own
            if number % 2:
                symphony.entities.remove(own)

        return run

    assert in_threads(*[work(number) for number in range(8)]) == []
    await symphony.flush()
    state = await symphony.at("latest")
    assert state.get("Threaded:shared")["items"] == shared.items
    assert sorted(shared.items) == sorted(8 * list(range(20)))
    assert sorted(await symphony.entities.ids(Threaded)) == ["shared", "t0", "t2", "t4", "t6"]
