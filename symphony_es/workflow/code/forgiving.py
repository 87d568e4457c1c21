"""What code has called because a step had failed, once that step is tried again.

A failure that has ended a run is forgiven by a resume. Code may have called steps after it (an `except` that makes up for it, a
`finally`), and those stand on record behind the step. Where the code, now that the step succeeds, calls them too, they keep their place and
their outputs. Where it goes another way, they are taken back as by `retry_from`: another execution of them has a key of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from symphony_es.workflow.engine.retrying import PATCH
from symphony_es.workflow.engine.timeline import RETRY_EVENT
from symphony_es.workflow.runs.under_way import CUT_OFF, is_cut_off

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["AFTER_FAILURE", "forget_cuts", "forgive", "is_after_failure", "is_marked", "take_back_calls"]

AFTER_FAILURE = "after failure"
"""What a call on record ends with that was made after a failure which is forgiven by now: the code need not make it again."""


def is_after_failure(call: Any) -> bool:
    """Return whether a call on record was made after a failure that is forgiven by now."""
    return len(call) > 2 and call[-1] == AFTER_FAILURE


def is_marked(call: Any) -> bool:
    """Return whether a call on record ends with what kind of call it is, and not with its name or the check of its arguments."""
    return len(call) > 2 and type(call[-1]) is str


def forgive(run: Workflow, failed: Iterable[str]) -> None:
    """Have steps tried again whose failure has ended a run, and mark what the code has called after them; called while it is recorded."""
    order = {address: place for place, address in enumerate(run.attempts)}
    for address in failed:
        del run.failures[address]
        strand, began = address.rpartition("/")[0], order.get(address, len(order))
        for name, calls in run.calls.items():
            if not _is_beside(strand, name):
                _mark(calls, order, began)
    forget_cuts(run)


def _mark(calls: Any, order: dict[str, int], began: int) -> None:
    later = [int(place) for place, call in calls.items() if call[1] != PATCH and order.get(call[0], -1) > began]
    if later:
        first = min(later)
        while (before := calls.get(str(first - 1))) is not None and before[1] == PATCH:
            first -= 1  # it came on record with the call
        behind = [place for place, call in calls.items() if int(place) >= first and (not is_marked(call) or is_cut_off(call))]
        for place in behind:
            if calls[place][1] == CUT_OFF:
                del calls[place]
            else:
                calls[place] = [*(calls[place][:-1] if is_cut_off(calls[place]) else calls[place]), AFTER_FAILURE]


def forget_cuts(run: Workflow) -> None:
    """Take marks off calls where a strand was cut off, whose `gather` is open again; called while the run is recorded.

    That is so where the call which the code has made after it is not on record any more, or need not be made again.
    """
    cut = [(name, at) for name, calls in run.calls.items() for at, call in calls.items() if is_cut_off(call)]
    for name, at in sorted(cut, key=lambda one: int(one[1])):
        calls = run.calls[name]
        _, _, strand, place = calls[at][-1].split("\n")
        carrier = run.calls.get(strand, {}).get(place)
        if carrier is not None and not is_after_failure(carrier):
            continue
        if calls[at][1] == CUT_OFF:
            del calls[at]
        else:
            calls[at] = calls[at][:-1]
        for later in [later for later, call in calls.items() if int(later) > int(at) and not is_marked(call)]:
            calls[later] = [*calls[later], AFTER_FAILURE]


def _is_beside(strand: str, other: str) -> bool:
    """Return whether two strands belong to different coroutines of one `gather`: neither came after the other."""
    ours, theirs = strand.split("/"), other.split("/")
    for place, (one, two) in enumerate(zip(ours, theirs, strict=False)):
        if one != two:
            return place % 2 == 1
    return False


async def take_back_calls(symphony: Host, run: Workflow, strand: str, place: int) -> None:
    """Take the calls of a strand from a place on off the record, which the code does not make any more; durable when this returns."""
    world = symphony.world
    await world.claim(run)
    calls = run.calls.get(strand, {})
    obsolete = [at for at, call in calls.items() if int(at) >= place and is_after_failure(call)]
    dropped = [calls[at][0] for at in obsolete if calls[at][1] != PATCH]
    under = tuple(f"{address}/" for address in dropped)
    dropped += [address for address in run.attempts if address.startswith(under)] if under else []
    with world.recording(RETRY_EVENT, {"step": dropped[0] if dropped else "", "dropped": dropped}, entity=run):
        world.raise_generation(run)
        for at in obsolete:
            del calls[at]
        for address in dropped:
            for held in (run.attempts, run.recorded_outputs, run.failures, run.progress, run.children, run.scopes, run.appended):
                held.pop(address, None)
        forget_cuts(run)
    await world.flush(run)
