"""What must hold of a log and of a ledger of effects beside it, whatever was asked of the runs and whoever died.

A ledger line says how far the log had come when a body was called, and under which idempotency key. A service outside does once what it
is asked under one key: so a step that has completed never asks again, and what asks anew under another key was taken back before.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from symphony_es.workflow.engine.generations import prefixes

__all__ = ["Broken", "Call", "check_calls", "check_history", "check_undone"]

BEGINS_AGAIN = ("WorkflowResumed", "WorkflowRetryRequested", "WorkflowCleanupBegun", "WorkflowReopened", "WorkflowCancelRequested")
ENDS = ("WorkflowCompleted", "WorkflowCancelled")
BEGINS = ("WorkflowStepStarted", "WorkflowStepRetried")
COMPLETES = "WorkflowStepCompleted"
TAKES_BACK = "WorkflowRetryRequested"
UNDO = "undo/"


class Broken(AssertionError):
    """Something does not hold."""


class Call(NamedTuple):
    """A body was called when the log ended at `head`."""

    head: int
    run_id: str
    address: str
    generation: int

    @classmethod
    def read(cls, head: int, note: str) -> Call:
        """What a note, which begins with the key, is about."""
        run_id, address, generation = note.partition(" ")[0].rsplit(":", 2)
        return cls(head, run_id, address, int(generation))


def _took_back(event: Any, address: str) -> bool:
    dropped = event.data["dropped"] if event.name == TAKES_BACK else ()
    return any(address == at or at in prefixes(address) for at in dropped)


def check_history(run_id: str, events: list[Any]) -> None:
    """Steps are recorded while their run goes on, and none begins again that has completed, unless it was taken back.

    Raises:
        Broken: one is, or does.
    """
    ended, completed = False, set[str]()
    for event in events:
        name, at = event.name, event.metadata.step
        if name in ENDS:
            ended = True
        elif name in BEGINS_AGAIN:
            ended = False
        if name == TAKES_BACK:
            for dropped in event.data["dropped"]:
                completed.difference_update((dropped, *prefixes(dropped)))
        if "Step" in name and ended:
            raise Broken(f"{run_id}: {name} of {at} after the end, at position {event.position}")
        if name in (*BEGINS, COMPLETES) and at in completed:
            raise Broken(f"{run_id}: {name} of {at}, which has completed, at position {event.position}")
        if name == COMPLETES:
            completed.add(at)


def check_calls(calls: Sequence[Call], events: Mapping[str, Sequence[Any]]) -> None:
    """No body was called for a step that the log said had completed, and none under another key unless its step was taken back.

    Args:
        calls: in their order.
        events: of each run.

    Raises:
        Broken: one was.
    """
    by_step: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in calls:
        by_step[call.run_id, call.address].append(call)
    own: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for run_id, of_run in events.items():
        for event in of_run:
            own[run_id, event.metadata.step or ""].append(event)
    taken_back = {run_id: [event for event in own[run_id, ""] if event.name == TAKES_BACK] for run_id in events}
    for (run_id, address), of_step in by_step.items():
        where = f"{run_id}: {address}"
        generations = [call.generation for call in of_step]
        undoes = _undoes(address)
        took_back = [event for event in taken_back[run_id] if _took_back(event, address) or _took_back(event, undoes)]
        if len(set(generations)) > 1 + len(took_back):
            raise Broken(f"{where} was called under {len(set(generations))} keys: generations {generations}")
        if undoes != address:
            continue  # what was taken back is undone under the key of then, after others perhaps: see `check_undone`
        if generations != sorted(generations):
            raise Broken(f"{where} was called under an older key again: generations {generations}")
        for event in own[run_id, address]:
            if event.name != COMPLETES:
                continue
            until = next((later.position for later in took_back if later.position > event.position), None)
            before = {call.generation for call in of_step if call.head < event.position}
            for call in of_step:
                if event.position <= call.head and (until is None or call.head < until) and call.generation in before:
                    raise Broken(f"{where} was called when the log had come to {call.head}; it has completed at position {event.position}")


def check_undone(run_id: str, events: Iterable[Any], undoable: frozenset[str]) -> None:
    """Each execution of a step of a cancelled run was undone, once, whether it was taken back or not; nothing else was.

    Args:
        run_id: the run.
        events: its own.
        undoable: the names of the steps that have an undo.

    Raises:
        Broken: one was not, or twice, or another one was.
    """
    executions, undone, again = Counter[str](), Counter[str](), Counter[str]()
    under_way = set[str]()
    for event in events:
        at = event.metadata.step or ""
        if event.name == TAKES_BACK:
            under_way = {address for address in under_way if not _took_back(event, address)}
            again.update({_undoes(address) for address in event.data["dropped"] if address.startswith(UNDO)})
        elif at.startswith(UNDO):
            undone[_undoes(at)] += event.name == COMPLETES
        elif event.name in BEGINS and at.rpartition("/")[2] in undoable and not at.startswith("cleanup/") and at not in under_way:
            under_way.add(at)
            executions[at] += 1
    for address in executions.keys() | undone.keys():
        least, found = executions[address], undone[address]
        if not least <= found <= least + again[address]:
            raise Broken(
                f"{run_id} was cancelled: {address} has begun {least} times, was undone {found} times, {again[address]} of them again"
            )


def _undoes(address: str) -> str:
    """What the undo at an address undoes, an execution of now or of one that was taken back."""
    return re.sub(r"^undo/(@\d+/)?", "", address)
