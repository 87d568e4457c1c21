"""A run's own past: where a step of it began, and what its state was there. `fork` and `retry_from` stand on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from symphony_es.errors import ConfigurationError, PositionInsideTransactionError, PositionNotFoundError
from symphony_es.events.event import Event
from symphony_es.workflow.runs.run import Workflow

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host

__all__ = ["FORK_EVENT", "RETRY_EVENT", "Past", "address_of", "past_at", "past_before_step"]

FORK_EVENT = "WorkflowForked"
RETRY_EVENT = "WorkflowRetryRequested"
STARTS = ("WorkflowStepStarted", "WorkflowStepRetried")


class Past:
    """A run as it was.

    Attributes:
        position: right after which event.
        state: its state then, as live values of the present world.
        begun_since: addresses of steps that began first after it, in order.
    """

    def __init__(self, position: int, state: dict[str, Any], begun_since: list[str]) -> None:
        self.position = position
        self.state = state
        self.begun_since = begun_since


def address_of(run: Workflow, step: str) -> str:
    """The address that a step's name, id or address stands for."""
    return next((known.id for known in run.definition.plan if step in (known.name, known.id)), step)


async def past_before_step(symphony: Host, run: Workflow, step: str) -> Past:
    """A run as it was before a step began; before its first attempt, or the first one since it was taken back last.

    Args:
        symphony: the Symphony that the run belongs to.
        run: the run.
        step: address of the step, or name or id of one of the definition's first level.

    Raises:
        ConfigurationError: the run has not begun such a step; those that it has begun are named.
        PositionNotFoundError: that part of the history is not kept.
    """
    address = address_of(run, step)
    await symphony.world.flush(run)
    first: Event | None = None
    begun: list[str] = []
    for event in await _history(symphony, f"Workflow:{run.id}", None):
        if event.name == RETRY_EVENT:
            dropped = set(event.data["dropped"])
            begun = [other for other in begun if other not in dropped]
            first = None if address in dropped else first
        elif event.name in STARTS and event.metadata.step is not None:
            if event.metadata.step == address and first is None:
                first, begun = event, []
            if event.metadata.step not in begun:
                begun.append(event.metadata.step)
    if first is None:
        known = ", ".join(list(run.attempts)[:50]) or "none"
        raise ConfigurationError(f"run {run.id} has not begun a step {step!r} (begun: {known})")
    position = first.position - 1
    return Past(position, await _state(symphony, first.entity_key, position), begun)


async def _history(symphony: Host, key: str, until: int | None) -> list[Event]:
    """The events of a run; those of a fork begin with what it shares with the run that it was forked from."""
    events = await symphony.log.read_entity(key)
    if events and events[0].name == FORK_EVENT:
        events = [*await _history(symphony, f"Workflow:{events[0].data['run_id']}", events[0].data["position"]), *events]
    # A fork of a fork can begin before the fork that it was made of: what that one shares counts too.
    return [event for event in events if until is None or event.position <= until]


async def past_at(symphony: Host, run: Workflow, position: int) -> Past:
    """A run as it was right after an event.

    Raises:
        PositionNotFoundError: the log has no such position, or the run did not exist there.
        PositionInsideTransactionError: it is in the middle of a transaction.
    """
    await symphony.world.flush(run)
    state = await _state(symphony, f"Workflow:{run.id}", position)
    first, last = await symphony.log.transaction_bounds(position)
    if position != last:
        raise PositionInsideTransactionError(position, first, last)
    return Past(position, state, [])


async def _state(symphony: Host, key: str, position: int) -> dict[str, Any]:
    state = await symphony.state_history.entity_at(key, position)
    if state is None or state.data is None:
        raise PositionNotFoundError(f"{key} did not exist at position {position}")
    made: dict[str, Any] = symphony.world.revived(state.data)
    return made
