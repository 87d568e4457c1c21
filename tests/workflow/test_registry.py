"""Services and callables are found by name, and a missing one says what to do."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from symphony_es.errors import ConfigurationError, NotRegisteredError
from symphony_es.registry import NamedCallables, ServiceRegistry, invoke


def test_services_are_found_by_name() -> None:
    """What was registered is returned; replacing takes a word of its own."""
    registry = ServiceRegistry()
    registry.register("workflow_engine", "one")
    registry.register("workflow_engine", "one")
    assert registry.get("workflow_engine") == "one"
    assert registry.names() == ["workflow_engine"]
    assert "workflow_engine" in registry
    with pytest.raises(ConfigurationError, match="replace=True"):
        registry.register("workflow_engine", "two")
    registry.register("workflow_engine", "two", replace=True)
    assert registry.get("workflow_engine") == "two"
    with pytest.raises(NotRegisteredError, match=r"'engine'.*workflow_engine.*setup"):
        registry.get("engine")
    with pytest.raises(ConfigurationError, match="non-empty name"):
        registry.register("", "x")


def test_callables_can_be_registered_as_a_call_and_as_a_decorator() -> None:
    """Both return the callable, so that a module's functions stay what they are; the name can be looked up again."""
    functions = NamedCallables("function", "register one")

    def one() -> int:
        return 1

    assert functions.register("one", one) is one
    assert functions.register("one", one) is one

    @functions.register("two")
    def two() -> int:
        return 2

    assert functions.get("two") is two
    assert functions.name_of(two) == "two"
    assert functions.name_of(print) is None
    assert functions.names() == ["one", "two"]
    assert "one" in functions


def test_a_missing_callable_names_itself_the_others_and_the_way_out() -> None:
    """The error is also a LookupError, carries kind and name, and says how to register."""
    functions = NamedCallables("function", "functions.register(name, fn) adds one")
    functions.register("known", print)
    with pytest.raises(LookupError, match=r"no function is registered under 'unknown' \(registered: known\); functions.register") as raised:
        functions.get("unknown")
    assert isinstance(raised.value, NotRegisteredError)
    assert (raised.value.kind, raised.value.name) == ("function", "unknown")


def test_a_taken_name_and_what_cannot_be_called_are_refused() -> None:
    """Nothing is replaced by accident."""
    functions = NamedCallables("function", "")
    functions.register("name", print)
    with pytest.raises(ConfigurationError, match="replace=True"):
        functions.register("name", len)
    assert functions.register("name", len, replace=True) is len
    with pytest.raises(ConfigurationError, match="not callable"):
        functions.register("other", "text")  # type: ignore[type-var]


async def test_plain_functions_run_in_a_thread_and_coroutine_functions_on_the_loop() -> None:
    """A blocking function never holds up the event loop; callable objects and partials count as what they are."""
    main = threading.get_ident()

    class AsyncCallable:
        async def __call__(self, value: int) -> tuple[int, int]:
            return value, threading.get_ident()

    async def coroutine(value: int) -> tuple[int, int]:
        return value, threading.get_ident()

    def plain(value: int) -> tuple[int, int]:
        return value, threading.get_ident()

    for on_the_loop in (coroutine, AsyncCallable(), partial(coroutine, 7)):
        arguments = () if isinstance(on_the_loop, partial) else (7,)
        assert await invoke(on_the_loop, *arguments) == (7, main)
    value, thread = await invoke(plain, 7)
    assert value == 7
    assert thread != main
    assert await invoke(lambda: asyncio.sleep(0, "awaited")) == "awaited"


async def test_a_stop_iteration_of_a_plain_function_is_an_error_not_a_hang() -> None:
    """A future refuses StopIteration, so it arrives as a RuntimeError that names its cause."""

    def exhausted() -> None:
        next(iter(()))

    with pytest.raises(RuntimeError, match="exhausted raised StopIteration"):
        await asyncio.wait_for(invoke(exhausted), 5)


def test_a_service_that_is_made_late_is_made_once() -> None:
    """It is there by name before it is made; all threads that ask at once get the same one."""
    registry, made, start = ServiceRegistry(), list[object](), threading.Barrier(8)

    def make() -> object:
        made.append(object())
        return made[-1]

    registry.register_late("late", make)
    assert ("late" in registry, registry.names(), registry.made("late"), made) == (True, ["late"], None, [])

    def ask(_: int) -> object:
        start.wait()
        return registry.get("late")

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(ask, range(8)))
    assert len(made) == 1
    assert all(one is made[0] for one in got)
    assert registry.made("late") is made[0]


def test_a_service_that_cannot_be_made_is_tried_again() -> None:
    """What was raised reaches whoever asked; the next one asks anew."""
    registry, answers = ServiceRegistry(), [1, 0]
    registry.register_late("late", lambda: 1 / answers.pop())
    with pytest.raises(ZeroDivisionError):
        registry.get("late")
    assert registry.get("late") == 1


def test_a_service_takes_the_place_of_a_late_one_only_when_told_to() -> None:
    """As that of one which is there; the late one is never made then."""
    registry = ServiceRegistry()
    registry.register_late("late", lambda: pytest.fail("nobody asked for it"))
    with pytest.raises(ConfigurationError, match="replace=True"):
        registry.register("late", 1)
    registry.register("late", 1, replace=True)
    assert registry.get("late") == 1


@pytest.mark.parametrize("late", [False, True])
def test_what_is_registered_while_a_service_is_made_holds(late: bool) -> None:
    """The last registration counts, in whatever thread the other one is being made; whoever has asked gets it."""
    registry = ServiceRegistry()

    def make() -> str:
        if late:
            registry.register_late("late", lambda: "mine")
        else:
            registry.register("late", "mine", replace=True)
        return "its own"

    registry.register_late("late", make)
    assert (registry.get("late"), registry.get("late"), registry.made("late")) == ("mine", "mine", "mine")
