"""A signal that is on record is taken by a wait for it, whatever becomes of the sender; it wakes that one wait, however many there are."""

import asyncio
import contextlib
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.workflow.engine.control import RunControl

RUN = {"name": "waiting", "steps": [{"kind": "wait", "name": "word", "signal": "word"}]}
COUNT = 40


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each time that a wait looks whether there is a signal for it."""
    made: list[str] = []
    listen = RunControl.listen

    def counted(control: RunControl, signal: str, called: asyncio.Event) -> None:
        made.append(signal)
        listen(control, signal, called)

    monkeypatch.setattr(RunControl, "listen", counted)
    return made


def waits(signal: str, count: int) -> dict[str, Any]:
    """A definition of so many waits beside each other."""
    each = {"kind": "map", "name": "each", "over": list(range(count)), "step": {"kind": "wait", "name": "one", "signal": signal}}
    return {"name": "many", "steps": [each]}


async def begun(symphony: Symphony, definition: dict[str, Any], listening: int, looks: list[str]) -> Any:
    """A run whose waits all listen."""
    handle = await symphony.workflows.start(definition)
    while len(looks) < listening:
        await asyncio.sleep(0)
    return handle


@pytest.mark.parametrize("signal_id", [None, "once"])
@pytest.mark.parametrize("turns", range(1, 8))
async def test_a_sender_that_is_cancelled(turns: int, signal_id: str | None, looks: list[str], tmp_path: Any) -> None:
    """Where the sender is cancelled while the signal becomes durable, the run takes it and goes on."""
    async with Symphony(tmp_path) as symphony:
        handle = await begun(symphony, RUN, 1, looks)
        sending = asyncio.ensure_future(handle.signal("word", "go", signal_id=signal_id))
        for _ in range(turns):
            await asyncio.sleep(0)
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        await symphony.flush()
        if "WorkflowSignalReceived" not in [event.name for event in await symphony.log.read_entity(f"Workflow:{handle.id}")]:
            await handle.signal("word", "go", signal_id=signal_id)
        assert await handle.result(timeout_s=10) == "go"


@pytest.mark.parametrize("names", ["word {{ item }}", "word"])
async def test_a_signal_wakes_one_wait(names: str, looks: list[str]) -> None:
    """As many waits look as there are signals, also where all wait for the same name; each signal is taken once."""
    async with Symphony() as symphony:
        handle = await begun(symphony, waits(names, COUNT), COUNT, looks)
        for number in range(COUNT):
            await handle.signal(names.replace("{{ item }}", str(number)), number)
        assert sorted(await handle.result(timeout_s=10)) == list(range(COUNT))
    assert len(looks) <= 3 * COUNT


@pytest.mark.parametrize("rolled_back", [True, False])
async def test_signals_that_come_together(rolled_back: bool, looks: list[str]) -> None:
    """Signals of a transaction wake one wait each; where it is rolled back, those wait on, and later ones are taken."""
    async with Symphony() as symphony:
        handle = await begun(symphony, waits("word", COUNT), COUNT, looks)
        with contextlib.suppress(ValueError):
            async with symphony.transaction("Answered"):
                for number in range(COUNT):
                    await handle.signal("word", number)
                if rolled_back:
                    raise ValueError("no")
        if rolled_back:
            for number in range(COUNT):
                await handle.signal("word", number)
        assert sorted(await handle.result(timeout_s=10)) == list(range(COUNT))


async def test_a_wait_that_ends_otherwise_passes_the_call_on(looks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that was called, and is cut off before it has looked, does not keep the signal from another one."""
    wait = RunControl.wait_for_call
    cut_off: list[str] = []

    async def first_is_cut_off(control: RunControl, called: asyncio.Event, until: Any) -> None:
        await wait(control, called, until)
        if not cut_off:
            cut_off.append("the first")
            raise ValueError("cut off")

    monkeypatch.setattr(RunControl, "wait_for_call", first_is_cut_off)
    async with Symphony() as symphony:
        definition = waits("word", 2)
        definition["steps"][0]["on_error"] = "collect"
        handle = await begun(symphony, definition, 2, looks)
        await handle.signal("word", "go")
        assert await handle.result(timeout_s=10) == [{"error": {"type": "ValueError", "message": "cut off"}}, "go"]
