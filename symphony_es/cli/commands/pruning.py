"""`prune-runs`: runs that ended long ago leave the lists and the snapshots. What it does is appended, nothing is deleted."""

from __future__ import annotations

import argparse

from symphony_es.cli import output
from symphony_es.cli.commands.registry import PAST_TIME, Parsers, past_time, reading, writing

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
    command.add_argument("--dry-run", action="store_true", help="say what would be pruned, and append nothing")


async def prune_runs(given: argparse.Namespace) -> None:
    """`symphony-es prune-runs`."""
    from symphony_es.facades.pruning import prune_filter
    from symphony_es.workflow.runs.filters import RunFilter, read_time
    from symphony_es.workflow.runs.listing import RunListing
    from symphony_es.workflow.runs.pruning import Pruning

    wanted = prune_filter(RunFilter(status=given.status, name=given.name))
    async with reading(given) if given.dry_run else writing(given) as opened:
        assert opened.directory is not None
        listing = RunListing(opened.log, opened.history, opened.directory / "projections")
        try:
            before = read_time("--older-than", given.older_than)
            assert before is not None, "it is required"
            report = await Pruning(opened.log, opened.history, listing).run(wanted, before, dry_run=given.dry_run)
        finally:
            await listing.close()
    if given.json:
        output.json_line(report.to_dict())
        return
    for run_id in report.ids[:SHOWN]:
        print(output.safe(run_id))
    if len(report.ids) > SHOWN:
        print("…")
    print(output.safe(str(report)))
