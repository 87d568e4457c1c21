"""Takes a run back to a step: what came after it is done again, in a new generation. Nothing is deleted: the log has both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.tracking.making import made_of
from symphony_es.errors import IllegalTransitionError
from symphony_es.workflow.definitions.nesting import step_at
from symphony_es.workflow.engine.generations import prefixes
from symphony_es.workflow.engine.past import Past, address_of, aside, past_before_step
from symphony_es.workflow.engine.timeline import RETRY_EVENT
from symphony_es.workflow.engine.unsaid import again_with_children, forgive_all
from symphony_es.workflow.runs.cleanup import called_in_cleanup, undone
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.thawing import thaw
from symphony_es.workflow.runs.transitions import WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host
    from symphony_es.workflow.engine.children import ChildRuns

__all__ = ["PATCH", "go_back_to", "take_back"]

PATCH = "patch"
"""What a decision of `patched` is on record as, among the calls of code."""


async def take_back(symphony: Host, run: Workflow, step: str, now: datetime, children: ChildRuns) -> None:
    """Brings a run to where it was before a step; steps beside it, in other branches of a parallel, map or `gather`, keep their outputs.

    Child runs of dropped steps that have not ended are cancelled first: whatever is done again is done by one run only. Nobody else drives
    the run meanwhile.

    Raises:
        ConfigurationError: the run has not begun such a step. Nothing has been appended.
        IllegalTransitionError: it was paused or cancelled while a child run of it came to its end. Nothing more has been appended.
        RunsInProgressError: a step of a dropped child run did not stop. Nothing has been appended to this run.
    """
    status = run.status
    past = await past_before_step(symphony, run, step)
    address = address_of(run, step)
    size = len(past.begun_since)
    dropped, again = await aside(lambda: _dropped(run, address, past), size)
    beside = set(past.begun_since).difference(dropped)
    await children.end_dropped(run, dropped)
    around = [prefix for prefix in prefixes(address) if prefix in run.attempts]
    known = {*around, *dropped} if again else set()
    entered = [prefix for below in again for prefix in prefixes(below) if prefix in run.attempts and prefix not in known]
    decisions = await _decided(symphony, run, entered) if entered else {}
    world = symphony.world
    await world.claim(run)
    if run.status is not status:
        raise IllegalTransitionError(run.id, f"{run.status} since then", WorkflowStatus.RUNNING)

    def drop() -> None:
        with world.recording(RETRY_EVENT, {"step": address, "dropped": dropped, "position": past.position}, entity=run):
            world.raise_generation(run)
            for other in dropped:
                for held in (run.attempts, run.outputs, run.failures, run.progress, run.children, run.scopes):
                    held.pop(other, None)
            for other in (*around, *entered):
                run.outputs.pop(other, None)
                run.failures.pop(other, None)
            run.progress.update(decisions)
            _restore(run, past, around, symphony)
            go_back_to(run, again)
            _forget_calls(run, set(dropped))
            if run.definition.code is not None:
                _forgive(run, beside)
            else:
                forgive_all(run)
            run.returned = None
            run.move("retry", now)

    await aside(drop, size)
    await world.flush(run)


def _forgive(run: Workflow, beside: Iterable[str]) -> None:
    """What has ended the run is tried again, and what has failed beside the step, as in a parallel: it may have gone down with it."""
    from symphony_es.workflow.code.forgiving import forgive  # it stands above the engine, which only calls it

    step = run.error["step"] if run.error is not None else None
    ended = [address for address, failure in run.failures.items() if address == step or failure.get("open")]
    failed = [address for address in beside if address in run.failures and run.step_status(address) == "failed"]
    forgive(run, list(dict.fromkeys([*ended, *failed])))
    again_with_children(run)


def _dropped(run: Workflow, address: str, past: Past) -> tuple[list[str], list[str]]:
    """The steps that are dropped with one, and those among them that have been undone: they hold no longer, wherever they stand."""
    dropped = [other for other in past.begun_since if not _beside(run, address, other, past)]
    known = set(dropped)
    again = [other for other in undone(run) if other in run.attempts and other not in known]
    known.update(again)
    cleaned = [] if run.cleanup is None else [other for other in called_in_cleanup(run) if other in run.attempts and other not in known]
    return [*dropped, *again, *cleaned], again


def go_back_to(run: Workflow, addresses: Iterable[str]) -> None:
    """Have loops begin with the first iteration in which one of some steps is done again; called before or while the run is recorded."""
    for address in addresses:
        for composite in prefixes(address):
            noted = run.progress.get(composite)
            if isinstance(noted, Mapping) and "iteration" in noted:
                first = int(address[len(composite) + 1 :].partition("/")[0])
                if first < noted["iteration"]:
                    run.progress[composite] = {"iteration": first}


async def _decided(symphony: Host, run: Workflow, composites: Iterable[str]) -> dict[str, Any]:
    from symphony_es.workflow.engine.undoing import decided  # few runs have been undone

    return await decided(symphony, run, composites)


def _restore(run: Workflow, past: Past, around: Iterable[str], symphony: Host) -> None:
    """The values that the steps were to work with: the context, and what the composites around the step had decided."""
    world = symphony.world

    def then(plain: Any) -> Any:
        return thaw(made_of(world.revived(plain), world.types))

    context = then(past.state["context"])
    if thaw(run.context) != context:
        run.context = context
    for name in ("progress", "scopes"):
        held, before = getattr(run, name), past.state.get(name, {})
        for address in around:
            if address in before:
                held[address] = then(before[address])
            else:
                held.pop(address, None)


def _forget_calls(run: Workflow, dropped: set[str]) -> None:
    """Takes calls of code off the record, and the patches that were decided after the first of them: the code may go another way."""
    for strand, calls in list(run.calls.items()):
        made = {int(place): call for place, call in thaw(calls).items()}
        first = min((place for place, call in made.items() if call[0] in dropped), default=None)
        if first is not None:
            kept = {at: call for at, call in made.items() if call[0] not in dropped and (at < first or call[1] != PATCH)}
            run.calls[strand] = {str(place): call for place, call in kept.items()}


def _beside(run: Workflow, address: str, other: str, past: Past) -> bool:
    """Whether two steps are in different branches of something that runs its branches beside each other."""
    ours, theirs = address.split("/"), other.split("/")
    common = 0
    while common < min(len(ours), len(theirs)) and ours[common] == theirs[common]:
        common += 1
    if run.definition.code is not None:
        # The names of a `gather` and the numbers of its strands take turns: these are two strands of one. Within a strand, or around it,
        # what has begun before the step's end, as `gather(step(a), step(b))` does it, has not waited for the step.
        return (common % 2 == 1 and common < min(len(ours), len(theirs))) or other in past.begun_beside
    if common in (0, len(ours), len(theirs)):
        return False
    composite = step_at(run.definition.plan, "/".join(ours[:common]))
    return composite is not None and composite.together
