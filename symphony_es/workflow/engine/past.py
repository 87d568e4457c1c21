"""A run's own past: where a step of it began, and what its state was there. `fork` and `retry_from` stand on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from symphony_es.errors import SHOWN, ConfigurationError, PositionInsideTransactionError, PositionNotFoundError, near_misses
from symphony_es.files.working import in_thread
from symphony_es.shown import shown
from symphony_es.workflow.engine.histories import read_timeline, state_at
from symphony_es.workflow.engine.timeline import Timeline
from symphony_es.workflow.runs.run import Workflow

if TYPE_CHECKING:
    from symphony_es.core.host import Host

__all__ = ["CLEANUP_STEP", "Past", "address_of", "aside", "not_begun", "past_at", "past_before_step", "past_before_steps", "state_before"]

T = TypeVar("T")
CLEANUP_STEP = "clean-up step"
AT_ONCE = 500
"""What is done for so many steps holds the event loop for some milliseconds; for more, it is done in a thread."""


async def aside(work: Callable[[], T], steps: int) -> T:
    """Do something that costs what so many steps cost, without holding the event loop for long; a cancellation takes effect afterwards."""
    if steps <= AT_ONCE:
        return work()
    return await in_thread(lambda _: work())


class Past:
    """A run as it was.

    Attributes:
        position: right after which event.
        state: its state then, as the log has it; `World.revived` makes live values of any part of it.
        begun: addresses of steps that began first after it, in order, and where.
        ended: of the steps before which this is, where they have completed, or failed last.
    """

    def __init__(
        self, position: int, state: dict[str, Any], begun: Mapping[str, int] | None = None, ended: Mapping[str, int | None] | None = None
    ) -> None:
        self.position = position
        self.state = state
        self.begun = begun or {}
        self.ended = ended or {}


def address_of(run: Workflow, step: str) -> str:
    """Return the address that a step's name, id or address stands for."""
    return next((known.id for known in run.definition.plan if step in (known.name, known.id)), step)


def _said_of(step: str, begun: list[str]) -> str:
    """Return what a message says of the steps that have begun: those that are written alike or are called so somewhere.

    Else the last ones.
    """
    called = [address for address in begun if step in address.split("/")]
    alike = list(dict.fromkeys([*called[:SHOWN], *near_misses(step, begun)]))
    if alike:
        return f"; did you mean {' or '.join(alike)}?"
    if not begun:
        return ": it has begun none"
    before = len(begun) - SHOWN
    return f" (begun: {f'{before:,} others, ' if before > 0 else ''}{', '.join(begun[-SHOWN:])})"


def not_begun(run_id: str, step: str, begun: list[str], what: str = "step") -> ConfigurationError:
    """Return the error that says so, and names those that were begun."""
    return ConfigurationError(f"run {run_id} has not begun a {what} {shown(step)}{_said_of(step, begun)}")


async def past_before_step(symphony: Host, run: Workflow, step: str) -> Past:
    """Return a run as it was before a step began: before the first attempt that holds now, whatever was taken back before.

    Args:
        symphony: the Symphony that the run belongs to.
        run: the run.
        step: address of the step, or name or id of one of the definition's first level.

    Raises:
        ConfigurationError: the run has not begun such a step; those that it has begun are named.
        PositionNotFoundError: that part of the history is not kept.
    """
    past, _ = await past_before_steps(symphony, run, [step])
    return past


async def past_before_steps(symphony: Host, run: Workflow, steps: Iterable[str]) -> tuple[Past, Timeline]:
    """Return a run as it was before the first of some steps began; see `past_before_step`."""
    addresses = {address_of(run, step): step for step in steps}
    await symphony.world.flush(run)
    timeline = await read_timeline(symphony, run)
    for address, step in addresses.items():
        if address not in timeline.begun:
            raise not_begun(run.id, step, list(run.attempts))
    first = min(addresses, key=timeline.begun.__getitem__)
    begun = {other: timeline.begun[other] for other in timeline.since(first)}
    ended = {address: timeline.ended_at(address) for address in addresses}
    return Past(timeline.begun[first] - 1, await state_before(symphony, timeline, first), begun, ended), timeline


async def state_before(symphony: Host, timeline: Timeline, address: str) -> dict[str, Any]:
    """Return the state that a run had before a step began, as the log has it.

    Raises:
        PositionNotFoundError: that part of the history is not kept.
    """
    position = timeline.begun[address] - 1
    return await _state(symphony, timeline.key_at(position + 1), position)


async def past_at(symphony: Host, run: Workflow, position: int) -> Past:
    """Return a run as it was right after an event.

    Raises:
        PositionNotFoundError: the log has no such position, or the run did not exist there.
        PositionInsideTransactionError: it is in the middle of a transaction.
    """
    await symphony.world.flush(run)
    state = await _state(symphony, f"Workflow:{run.id}", position)
    first, last = await symphony.log.transaction_bounds(position)
    if position != last:
        raise PositionInsideTransactionError(position, first, last)
    return Past(position, state)


async def _state(symphony: Host, key: str, position: int) -> dict[str, Any]:
    state = await state_at(symphony, key, position)
    if state is None or state.data is None:
        raise PositionNotFoundError(f"{key} did not exist at position {position}")
    return state.data
