"""Which steps of a run are under way. Pure; asked of a run, and of its plain state.

A step is under way from its start to its outcome. One without an outcome is over all the same where a step around it has come to an end (a
branch that failed has cut it off), where the call that began it was cut off for good, where the run has ended, and where its clean-up has
begun, unless it is a step of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from symphony_es.workflow.runs.cleanup import in_cleanup, is_clean_up_call
from symphony_es.workflow.runs.transitions import ENDED, WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["CUT_OFF", "innermost", "is_cut_off", "steps_under_way", "under_way_in"]

CUT_OFF = "cut off"
"""How the mark begins of a call on record at which its strand was cut off for good; see `code/cutting.py`."""


def is_cut_off(call: Any) -> bool:
    """Return whether a strand was cut off for good at a call on record."""
    return len(call) > 2 and type(call[-1]) is str and call[-1].startswith(f"{CUT_OFF}\n")


def steps_under_way(run: Workflow) -> list[str]:
    """Return the addresses of the steps of a run that have begun and not come to an end, in the order in which they first began."""
    return _found(run.status, run.attempts, run.recorded_outputs, run.failures, run.calls, run.cleanup)


def under_way_in(state: Mapping[str, Any]) -> list[str]:
    """Return the same of a run's plain state."""
    status = WorkflowStatus(getattr(state["status"], "value", state["status"]))
    attempts, outputs, failures, calls = (state.get(name) or {} for name in ("attempts", "outputs", "failures", "calls"))
    return _found(status, attempts, outputs, failures, calls, state.get("cleanup"))


def innermost(addresses: list[str]) -> list[str]:
    """Return those of some addresses that stand around none of the others."""
    around = {around for address in addresses for around in _around(address)}
    return [address for address in addresses if address not in around]


def _found(
    status: WorkflowStatus,
    attempts: Mapping[str, int],
    outputs: Mapping[str, Any],
    failures: Mapping[str, Any],
    calls: Mapping[str, Mapping[str, Any]],
    cleanup: Any,
) -> list[str]:
    if status in ENDED:
        return []

    def has_outcome(address: str) -> bool:
        failure = failures.get(address)
        return address in outputs or (failure is not None and failure["attempt"] == attempts[address])

    found = [address for address in attempts if not has_outcome(address)]
    if not found:
        return []
    made = [call for strand in calls.values() for call in strand.values()]
    over = {call[0] for call in made if is_cut_off(call)}
    of_code = {call[0] for call in made if is_clean_up_call(call)} if cleanup is not None else set()
    return [
        address
        for address in found
        if address not in over
        and (cleanup is None or in_cleanup(address) or address in of_code)
        and not any(around in attempts and has_outcome(around) for around in _around(address))
    ]


def _around(address: str) -> list[str]:
    return [address[:end] for end in range(len(address)) if address[end] == "/"]
