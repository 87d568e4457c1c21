"""Takes a run back to a step: what came after it is done again, in a new generation. Nothing is deleted: the log has both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.making import made_of
from symphony_es.errors import ConfigurationError, IllegalTransitionError
from symphony_es.events.values import plain_equal
from symphony_es.shown import shown
from symphony_es.workflow.definitions.nesting import Paths
from symphony_es.workflow.engine.dropping import beside_in_code, beside_in_plan, dropped_with
from symphony_es.workflow.engine.generations import Generations, prefixes
from symphony_es.workflow.engine.past import Past, aside, past_before_steps, state_before
from symphony_es.workflow.engine.timeline import RETRY_EVENT, Timeline
from symphony_es.workflow.engine.unsaid import again_with_children, forgive_all
from symphony_es.workflow.runs.cleanup import (
    ON_CALLS,
    UNDO,
    called_in_cleanup,
    has_cleanup,
    has_undo,
    is_of_cleanup,
    own_children,
    undo_address,
    undoes_taken_back,
    undone,
)
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.thawing import thaw
from symphony_es.workflow.runs.transitions import WorkflowStatus
from symphony_es.workflow.runs.under_way import CUT_OFF, is_cut_off

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.engine.children import ChildRuns

__all__ = ["PATCH", "go_back_to", "steps_asked_for", "take_back"]

PATCH = "patch"
"""What a decision of `patched` is on record as, among the calls of code."""


def steps_asked_for(run: Workflow, step: str | Sequence[str]) -> list[str]:
    """Return the steps that a caller has named, one or several.

    Raises:
        ConfigurationError: these are no names; or some are of the run's clean-up, which goes on by itself, and others are not.
    """
    steps = [step] if isinstance(step, str) else list(dict.fromkeys(step)) if isinstance(step, (list, tuple)) else []
    if not steps or not all(isinstance(one, str) for one in steps):
        raise ConfigurationError(f"step={shown(step)}: the address of a step, as in run.attempts, or a list of addresses")
    of_cleanup = [one for one in steps if is_of_cleanup(run, one)]
    if of_cleanup and len(of_cleanup) < len(steps):
        others = [one for one in steps if one not in of_cleanup]
        raise ConfigurationError(
            f"run {run.id}: {', '.join(of_cleanup)} are of its clean-up, and {', '.join(others)} are not: the clean-up goes on by itself, "
            "take back either, by a call of its own"
        )
    return steps


async def take_back(
    symphony: Host, run: Workflow, steps: Sequence[str], now: datetime, children: ChildRuns, deadline: datetime | None = None
) -> None:
    """Bring a run to where it was before some steps; what is beside all of them, in other branches, keeps its outputs.

    Child runs of dropped steps that have not ended are cancelled first: whatever is done again is done by one run only. Nobody else drives
    the run meanwhile. A new deadline is part of the same event: whoever pauses the run before it goes on does not lose it.

    Raises:
        ConfigurationError: the run has not begun one of the steps. Nothing has been appended.
        IllegalTransitionError: it was paused or cancelled while a child run of it came to its end. Nothing more has been appended.
        RunsInProgressError: a step of a dropped child run did not stop. Nothing has been appended to this run.
    """
    status = run.status
    past, timeline = await past_before_steps(symphony, run, steps)
    _refuse_cut_off(run, past)
    size = len(past.begun)
    dropped, again = await aside(lambda: _dropped(run, past), size)
    beside = past.begun.keys() - set(dropped)
    await children.end_dropped(run, dropped)
    states = await _states_around(symphony, run, past, timeline, dropped)
    around = list(states)
    known = {*around, *dropped} if again else set()
    entered = [prefix for below in again for prefix in prefixes(below) if prefix in run.attempts and prefix not in known]
    decisions = await _decided(symphony, run, entered) if entered else {}
    owes, begun_undos = _owes_undo(run, dropped), _begun_undos(run, dropped, Generations(timeline.raised))
    world = symphony.world
    await world.claim(run)
    if run.status is not status:
        raise IllegalTransitionError(run.id, f"{run.status} since then", WorkflowStatus.RUNNING)

    def drop() -> None:
        with world.recording(RETRY_EVENT, {**_said(past), "dropped": dropped, "position": past.position}, entity=run):
            world.raise_generation(run)
            for undo, moved in begun_undos.items():
                for part in (run.attempts, run.progress, run.children):
                    if undo in part:
                        part[moved] = thaw(part[undo]) if part is run.progress else part[undo]
            for other in dropped:
                for held in (run.attempts, run.recorded_outputs, run.failures, run.progress, run.children, run.scopes, run.appended):
                    held.pop(other, None)
            for other in (*around, *entered):
                run.recorded_outputs.pop(other, None)
                run.failures.pop(other, None)
            run.progress.update(decisions)
            _restore(run, past, states, symphony)
            go_back_to(run, again)
            _forget_calls(run, set(dropped))
            if run.definition.code is not None:
                _forgive(run, beside)
            else:
                forgive_all(run)
            run.returned = None
            run.undoable = run.undoable or (owes and (run.definition.code is None or ON_CALLS))
            for undo in [address for address in run.failures if undoes_taken_back(address) is not None]:
                del run.failures[undo]  # a later clean-up tries it again
            if deadline is not None:
                run.deadline = deadline
            run.move("retry", now)

    await aside(drop, size)
    await world.flush(run)


def _forgive(run: Workflow, beside: Iterable[str]) -> None:
    """Try again what has ended the run, and what has failed beside the step, as in a parallel: it may have gone down with it."""
    from symphony_es.workflow.code.forgiving import forgive  # it stands above the engine, which only calls it

    step = run.error["step"] if run.error is not None else None
    ended = [address for address, failure in run.failures.items() if address == step or failure.get("open")]
    failed = [address for address in beside if address in run.failures and run.step_status(address) == "failed"]
    forgive(run, list(dict.fromkeys([*ended, *failed])))
    again_with_children(run)


def _refuse_cut_off(run: Workflow, past: Past) -> None:
    """Refuse a step that a failure beside it has cut off for good, where that failure would stay on record: it would cut it off again."""
    if run.definition.code is None:
        return
    for address in past.ended:
        mark = next((call[-1] for calls in run.calls.values() for call in calls.values() if call[0] == address and is_cut_off(call)), None)
        if mark is None:
            continue
        group = mark.split("\n")[1]
        beside = {
            call[0] for call in run.calls.get(group.rpartition("/")[0], {}).values()
        }  # `gather(step(…))` is a call of the code around
        failed = [
            other for other in run.failures if (other.startswith(f"{group}/") or other in beside) and run.step_status(other) == "failed"
        ]
        if failed and not any(other in past.begun for other in failed):
            cause = " or ".join(map(shown, failed))
            raise ConfigurationError(
                f"run {run.id}: {shown(address)} was cut off when {cause} failed, and would be again: retry from {cause}, which does both"
            )


def _said(past: Past) -> dict[str, Any]:
    """Return what the event says of the steps that were asked for, in the order in which they began."""
    asked = sorted(past.ended, key=past.begun.__getitem__)
    return {"step": asked[0], **({"steps": asked} if len(asked) > 1 else {})}


async def _states_around(
    symphony: Host, run: Workflow, past: Past, timeline: Timeline, dropped: Iterable[str]
) -> dict[str, Mapping[str, Any]]:
    """Return the composites around the steps that are taken back and not dropped themselves, each with the state before the first step in
    it.
    """
    gone, found = set(dropped), dict[str, Mapping[str, Any]]()
    for address in sorted(past.ended, key=past.begun.__getitem__):
        new = [above for above in prefixes(address) if above in run.attempts and above not in gone and above not in found]
        if new:
            state = await state_before(symphony, timeline, address) if found else past.state
            found.update(dict.fromkeys(new, state))
    return found


def _dropped(run: Workflow, past: Past) -> tuple[list[str], list[str]]:
    """Return the steps that are dropped, and those among them that have been undone: they hold no longer, wherever they stand."""
    if run.definition.code is None:
        dropped = dropped_with({step: past.begun[step] for step in past.ended}, past.begun, beside_in_plan(run.definition.plan))
    else:  # within a strand, or around it, what has begun before a step's end, as `gather(step(a), step(b))` does it, has not waited for it
        dropped = dropped_with(past.ended, past.begun, beside_in_code)
    known = set(dropped)
    again = [other for other in undone(run) if other in run.attempts and other not in known]
    known.update(again)
    cleaned = [] if run.cleanup is None else [other for other in called_in_cleanup(run) if other in run.attempts and other not in known]
    # What undoes an execution that was taken back before is still to be done where it has not completed.
    kept = {other for other in dropped if undoes_taken_back(other) is not None and other not in run.recorded_outputs}
    return [*(other for other in dropped if other not in kept), *again, *cleaned], again


def _owes_undo(run: Workflow, dropped: Iterable[str]) -> bool:
    """Return whether a step that is taken back, or a child run of one, has an undo that has not completed."""
    gone = set(dropped)
    open_ = {WorkflowStatus.COMPLETED: has_undo, WorkflowStatus.FAILED: has_cleanup}
    children = {id(child) for child in own_children(run) if child.status in open_ and open_[child.status](child)}
    if any(id(child) in children for address, child in run.children.items() if address in gone):
        return True
    undos = run.definition.undo_plan if run.definition.code is None else {}
    return bool(undos) and not undos.keys().isdisjoint(
        Paths(run.definition.plan).of({a for a in gone if f"{UNDO}/{a}" not in run.recorded_outputs})
    )


def _begun_undos(run: Workflow, dropped: Iterable[str], generations: Generations) -> dict[str, str]:
    """Return the undos that have begun and not completed among those steps, and where each goes on: it is done once, for what is taken
    back.
    """
    undos = (address for address in dropped if address.startswith(f"{UNDO}/") and undoes_taken_back(address) is None)
    left = (address for address in undos if address in run.attempts and address not in run.recorded_outputs)
    return {address: undo_address(address[len(UNDO) + 1 :], generations.of(address)) for address in left}


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


def _restore(run: Workflow, past: Past, around: Mapping[str, Mapping[str, Any]], symphony: Host) -> None:
    """Restore the values that the steps were to work with: the context, and what the composites around the step had decided."""
    world = symphony.world

    def then(plain: Any) -> Any:
        return thaw(made_of(world.revived(plain), world.types))

    context = then(past.state["context"])
    if thaw(run.context) != context:
        run.context = context
    for name in ("progress", "scopes", "appended"):
        held = getattr(run, name)
        recorded = (world.record_for(run).shadow or {}).get(name, {})
        for address, state in around.items():
            before = state.get(name, {})
            if address in before and address in recorded and plain_equal(recorded[address], before[address]):
                continue  # as a rule: the items of a map stay what they were
            if address in before:
                held[address] = then(before[address])
            else:
                held.pop(address, None)


def _forget_calls(run: Workflow, dropped: set[str]) -> None:
    """Take calls of code off the record, and the patches that were decided for them or after the first: the code may go another way.

    A patch came on record with the call behind it. Where that one goes, nothing stands behind the patch, so asked again it is decided anew.
    """
    if not run.calls:
        return
    from symphony_es.workflow.code.forgiving import forget_cuts  # it stands above the engine, which only calls it

    for strand, calls in list(run.calls.items()):
        made = {int(place): call for place, call in thaw(calls).items()}
        gone = [place for place, call in made.items() if call[1] != PATCH and call[0] in dropped]
        if gone:
            last = max((place for place, call in made.items() if call[1] not in (PATCH, CUT_OFF) and place not in gone), default=-1)
            ends = {PATCH: min(*gone, last), CUT_OFF: min(gone)}  # of other kinds all stay that are not gone
            kept = {place: call for place, call in made.items() if place not in gone and place < ends.get(call[1], place + 1)}
            run.calls[strand] = {str(place): call for place, call in kept.items()}
    forget_cuts(run)
