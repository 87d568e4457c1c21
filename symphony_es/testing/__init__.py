"""For the tests of applications: does everything I add come back, and does every way lead to the same state?

```python
async def test_my_types_survive_a_restart() -> None:
    async with Symphony() as symphony:
        symphony.entities.add(Order(...))
        await check_restores(symphony)
```
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

from symphony_es.app import Symphony
from symphony_es.core.objects.restorers import UnrestoredEntity
from symphony_es.core.past.forking import FORK_TYPE
from symphony_es.core.past.resting import waking
from symphony_es.core.past.states import live_states
from symphony_es.core.report import ResumeReport
from symphony_es.core.resume.building import build_world
from symphony_es.events.codec import encode_canonical
from symphony_es.testing.restarting import restart

__all__ = ["ManualClock", "check_restores", "restorable_report", "states_of"]


class ManualClock:
    """A clock for workflows that stands still until it is moved: `engine.clock = ManualClock()`.

    Example:
        >>> clock = ManualClock(datetime(2030, 1, 1, tzinfo=UTC))
        >>> clock.advance(90)
        >>> clock.now().isoformat()
        '2030-01-01T00:01:30+00:00'
    """

    def __init__(self, now: datetime | None = None) -> None:
        self._now = now or datetime(2030, 1, 1, tzinfo=UTC)
        self._sleepers: list[tuple[datetime, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """Return the moment it shows, UTC."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move it on; whoever waits for a moment that has come by then goes on."""
        self._now += timedelta(seconds=seconds)
        for moment, sleeper in self._sleepers:
            if moment <= self._now and not sleeper.done():
                sleeper.set_result(None)

    @property
    def sleepers(self) -> list[datetime]:
        """The moments that are waited for right now, in order."""
        return sorted(moment for moment, sleeper in self._sleepers if not sleeper.done())

    async def sleep_until(self, moment: datetime) -> None:
        """Return when the clock has been moved to the moment; at once when it is past."""
        if moment <= self._now:
            return
        sleeper: tuple[datetime, asyncio.Future[None]] = (moment, asyncio.get_running_loop().create_future())
        self._sleepers.append(sleeper)
        try:
            await sleeper[1]
        finally:
            self._sleepers.remove(sleeper)


async def restorable_report(symphony: Symphony) -> ResumeReport:
    """Return what a resume at the head would report; the live world is left alone, and nothing is appended."""
    report, _, _ = await _rebuild(symphony)
    return report


async def check_restores(
    symphony: Symphony,
    *,
    modules: Iterable[str | ModuleType] = (),
    prepare: Callable[[Symphony], object] | None = None,
    in_process: bool = False,
    timeout_s: float = 60,
) -> None:
    """Check that a restart would bring every entity back equal to what it is, with all its references.

    The log is restored in a process of its own, which has imported the modules of the live classes and of their restorers, and
    nothing else: what the application registers elsewhere has to be named. Nothing is appended. A log in memory is copied to a
    temporary directory for it.

    Args:
        modules: further modules that the application imports when it starts.
        prepare: called there with the new Symphony before it is opened, and awaited if need be: what registers restorers and types
            that belong to the Symphony. It is a function at the top level of a module.
        in_process: restore in this process instead, which is for classes that no other process can import. What only this
            process knows, such as a class that has been met before, helps it to succeed.
        timeout_s: how long that process may take, in seconds.

    Raises:
        AssertionError: something would not come back, or a class cannot be imported by another process; the message says what.
    """
    await symphony.flush()
    live = {key: (encode_canonical(state).hex(), repr(state)) for key, state in states_of(symphony).items()}
    resting: Collection[str] = ()
    if in_process:
        report, states, resting = await _rebuild(symphony)
        complete, told = report.complete, report.as_dict()
        rebuilt = {key: (encode_canonical(state).hex(), repr(state)) for key, state in states.items()}
    else:
        found = await restart(symphony, modules, prepare, timeout_s, list(live))
        complete, told = found["complete"], found["report"]
        rebuilt = {key: tuple(state) for key, state in found["states"].items() if key in live or not key.startswith(f"{FORK_TYPE}:")}
    if not complete:
        raise AssertionError(f"not everything would be restored: {told}{_hint(in_process)}")
    # What nobody has made live here, of what a resume leaves in the log or this process has not read, is not missing.
    left = rebuilt.keys() if symphony.world.in_part else resting
    for key in sorted(live.keys() | (rebuilt.keys() - left)):
        is_now, would_be = live.get(key, ("", "missing")), rebuilt.get(key, ("", "missing"))
        if is_now[0] != would_be[0]:
            raise AssertionError(f"{key} is {is_now[1]} and would come back as {would_be[1]}")


def _hint(in_process: bool) -> str:
    if in_process:
        return ""
    return (
        "; a new process knows what importing the modules of the live classes and their restorers does: name others with modules=, "
        "and give a function that registers the Symphony's own restorers and types with prepare="
    )


def states_of(symphony: Symphony) -> dict[str, dict[str, Any]]:
    """Return the plain states of all live objects, read off them now, by key."""
    return _states(symphony.world)


def _states(world: Any) -> dict[str, dict[str, Any]]:
    return {
        key: record.obj.state if isinstance(record.obj, UnrestoredEntity) else world.capture(record.obj, record.reference)
        for key, record in world.records.items()
    }


async def _rebuild(symphony: Symphony) -> tuple[ResumeReport, dict[str, dict[str, Any]], set[str]]:
    """Restore all entities, also those that a resume leaves at rest; gives the keys of these as well."""
    await symphony.flush()
    fold = await symphony.state_history.states_at(symphony.log.head)
    report = ResumeReport(position=fold.position)
    world = symphony.world_under_construction()
    await build_world(symphony.shell(world), world, fold, report, strict=False)
    alive = live_states(fold)
    if len(world.records) != len(alive):
        raise AssertionError("some entities were lost while the world was built")
    return report, _states(world), alive.keys() - waking(alive).states.keys()
