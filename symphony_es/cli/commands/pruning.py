"""`prune-runs`: runs that ended long ago leave the lists and the snapshots. What it does is appended, nothing is deleted.

Where a process has the log open, that is asked to do it.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from symphony_es.cli import output
from symphony_es.cli.commands.registry import PAST_TIME, Parsers, past_time, reading, state_dir, writing
from symphony_es.cli.commands.requests import DONE, NOT_THERE, REFUSED, add_request_options
from symphony_es.cli.commands.runs import pair
from symphony_es.errors import RequestPendingError

if TYPE_CHECKING:
    from symphony_es.workflow.runs.filters import RunFilter
    from symphony_es.workflow.runs.pruning import PruneReport

__all__ = ["register"]

SHOWN = 20


def register(parsers: Parsers) -> None:
    """Add the command of this module."""
    about = "take runs that ended long ago out of lists and snapshots, with child runs and tasks; the log keeps their events"
    command = parsers.add("prune-runs", prune_runs, about, writes=True)
    command.add_argument("--older-than", type=past_time, required=True, metavar="TIME", help=f"they ended before {PAST_TIME}")
    command.add_argument(
        "--status", action="append", metavar="STATUS", help="completed, failed or cancelled; may be repeated (completed and cancelled ones)"
    )
    command.add_argument("--name", action="append", metavar="NAME", help="only those of this workflow; may be repeated")
    command.add_argument(
        "--metadata", action="append", type=pair, metavar="KEY=VALUE", help="only those with this in their metadata; may be repeated"
    )
    command.add_argument("--dry-run", action="store_true", help="say what would be pruned, and append nothing")
    add_request_options(command)


async def prune_runs(given: argparse.Namespace) -> int:
    """Carry out `symphony-es prune-runs`."""
    from symphony_es.log.directory import last_writer
    from symphony_es.workflow.runs.filters import RunFilter, moment_of_age, prune_filter, read_time
    from symphony_es.workflow.runs.listing import RunListing
    from symphony_es.workflow.runs.pruning import Pruning

    wanted = prune_filter(RunFilter(status=given.status, name=given.name, metadata=dict(given.metadata) if given.metadata else None))
    if not given.dry_run and (given.request_id is not None or last_writer(state_dir(given)) == "writing"):
        return await _ask_owner(given, wanted)
    async with reading(given) if given.dry_run else writing(given) as opened:
        assert opened.directory is not None
        listing = RunListing(opened.log, opened.history, opened.directory / "projections")
        try:
            before = read_time("--older-than", moment_of_age(given.older_than, datetime.now(UTC)))
            assert before is not None, "it is required"
            report = await Pruning(opened.log, opened.history, listing).run(wanted, before, dry_run=given.dry_run)
        finally:
            await listing.close()
    _print(given, report)
    return DONE


async def _ask_owner(given: argparse.Namespace, wanted: RunFilter) -> int:
    """Leave it to the process that has the log open, which knows what is in use, and wait for what it says."""
    from symphony_es.core.world.inbox import PRUNE, Request
    from symphony_es.core.world.requesting import send_request
    from symphony_es.workflow.runs.filters import age_arguments
    from symphony_es.workflow.runs.pruning import PruneReport

    arguments: dict[str, Any] = age_arguments(given.older_than)
    if given.status:
        arguments["status"] = given.status
    if given.name:
        arguments["name"] = wanted.names
    if given.metadata:
        arguments["metadata"] = dict(given.metadata)
    chosen = {} if given.request_id is None else {"id": given.request_id}
    request = Request(verb=PRUNE, run="", arguments=arguments, actor=given.actor, reason=given.reason, **chosen)
    async with reading(given) as opened:
        assert opened.directory is not None
        try:
            answer = await send_request(opened.log, opened.directory, request, timeout_s=given.timeout_s)
        except RequestPendingError as error:
            output.complain(f"prune-runs: {error}")
            return NOT_THERE
    if not answer.done or answer.pruned is None:
        output.complain(f"prune-runs: refused: {answer.message}")
        return REFUSED
    _print(given, PruneReport.from_dict(answer.pruned))
    return DONE


def _print(given: argparse.Namespace, report: PruneReport) -> None:
    if given.json:
        output.json_line(report.to_dict())
        return
    for run_id in report.ids[:SHOWN]:
        output.say(output.safe(run_id))
    if len(report.ids) > SHOWN:
        output.say("…")
    output.say(output.safe(str(report)))
