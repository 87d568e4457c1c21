"""Forks: new runs that share another run's history up to a step or a position, and say so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from symphony_es.core.state.tracking.making import made_of
from symphony_es.errors import ConfigurationError
from symphony_es.workflow.engine.generations import prefixes
from symphony_es.workflow.engine.past import past_at, past_before_step
from symphony_es.workflow.engine.retrying import go_back_to
from symphony_es.workflow.engine.timeline import FORK_EVENT
from symphony_es.workflow.runs.cleanup import in_cleanup, undone
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.thawing import thaw

if TYPE_CHECKING:
    from symphony_es.core.state.host import Host

__all__ = ["fork_run"]

_SHARED = ("definition_data", "attempts", "outputs", "failures", "progress", "scopes", "signals", "calls")
"""What a fork takes over as it was. Its status, moments and links are its own."""


async def fork_run(
    symphony: Host, run: Workflow, at: str | int, changes: Mapping[str, Any], run_id: str, metadata: Mapping[str, Any], now: datetime
) -> Workflow:
    """See `WorkflowEngine.fork`."""
    if isinstance(at, str) and in_cleanup(at):
        raise ConfigurationError(
            f"{at!r} is a clean-up step of run {run.id}, and a fork goes on with the main line: fork at one of its steps, "
            "or do the clean-up again with retry_from"
        )
    past = await (past_at(symphony, run, at) if isinstance(at, int) else past_before_step(symphony, run, at))
    state = made_of(symphony.world.revived(past.state), symphony.world.types)
    step = None if isinstance(at, int) else at
    completed = state["outputs"]
    limit_s = run.definition.deadline_s
    made = Workflow(
        id=run_id,
        name=state["name"],
        context={**thaw(state["context"]), **changes},
        children={address: child for address, child in state.get("children", {}).items() if address in completed},
        forked_from={"run": run, "position": past.position, "step": step},
        created_at=now,
        deadline=None if limit_s is None else now + timedelta(seconds=limit_s),
        metadata=dict(metadata),
        **{name: thaw(state[name]) for name in _SHARED if name in state},
    )
    await _forget_undone(symphony, run, made)
    said = {"run_id": run.id, "position": past.position, "step": step, "changed": sorted(changes)}
    with symphony.world.recording(FORK_EVENT):
        symphony.world.add(made, event_name=FORK_EVENT, data=said)
    await symphony.world.flush(made)
    return made


async def _forget_undone(symphony: Host, run: Workflow, made: Workflow) -> None:
    """Take out of a fork what belongs to a clean-up of its original, and what that has undone: it holds no longer, and is done anew."""
    again = [address for address in undone(run) if address in made.attempts]
    entered = [prefix for below in again for prefix in prefixes(below) if prefix in made.outputs]
    if entered:
        from symphony_es.workflow.engine.undoing import decided  # few runs have been undone

        made.progress.update(await decided(symphony, run, entered))
    for address in [*again, *filter(in_cleanup, made.attempts)]:
        for held in (made.attempts, made.outputs, made.failures, made.progress, made.children, made.scopes):
            held.pop(address, None)
    for address in entered:
        made.outputs.pop(address, None)
    go_back_to(made, again)
