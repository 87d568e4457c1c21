"""Workflow runs: `runs`, and `run` for one of them. They are read from states and events; no definition has to be importable."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from symphony_es.cli import output
from symphony_es.cli.commands.events import event_row
from symphony_es.cli.commands.registry import MOMENT, PAST_TIME, Parsers, moment, past_time, reading, run_id, whole_number
from symphony_es.cli.near import hint_of
from symphony_es.errors import ConfigurationError
from symphony_es.events.values import plain_equal
from symphony_es.shown import quoted
from symphony_es.strict_json import read_strictly

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from symphony_es.core.past.opening import OpenedLog
    from symphony_es.events.event import Event
    from symphony_es.events.fold import EntityState
    from symphony_es.workflow.runs.filters import RunFilter
    from symphony_es.workflow.runs.summary import RunSummary

__all__ = ["add_filters", "filtered", "find_run", "find_runs", "pair", "print_runs", "register", "why_none"]

LIMIT = 50
MOST = 10**9
_LONG_AGO = datetime.min.replace(tzinfo=UTC)  # when a run was created that does not say it


def register(parsers: Parsers) -> None:
    """Add the commands of this module."""
    command = parsers.add("runs", runs, "workflow runs, the newest first, and how far each is", skips=True)
    add_filters(command)
    command.add_argument("--step", metavar="STEP", help="only those that failed at this step, or have it as the last one that began")
    command.add_argument("--after", metavar="TOKEN", help="the page behind the one that ended with this token, with the same filters")
    command.add_argument("--blocked", action="store_true", help="only those that contradict the code, and wait for other code")
    command.add_argument("--at", type=moment, metavar="MOMENT", help=f"as it was then: {MOMENT}")
    command = parsers.add("run", run, "what one run did, in order", skips=True)
    command.add_argument("run_id", type=run_id, metavar="RUN")
    command.add_argument("--at", type=moment, metavar="MOMENT", help=f"as it was then: {MOMENT}")


def add_filters(command: Any, only: str | None = None) -> None:
    """Add the options that say which runs are meant; `filtered` tells whether one was given.

    Args:
        command: the command's parser.
        only: which status is meant where none is given.
    """
    which = f"only those that are pending, running, paused, completed, failed, …; may be repeated{f' ({only})' if only else ''}"
    command.add_argument("--status", action="append", metavar="STATUS", help=which)
    command.add_argument("--name", action="append", metavar="NAME", help="only those of this workflow; may be repeated")
    command.add_argument("--since", type=past_time, metavar="TIME", help=f"only those created then or later: {PAST_TIME}")
    command.add_argument("--until", type=past_time, metavar="TIME", help="only those created then or earlier")
    command.add_argument("--error", metavar="TEXT", help="only those whose error is of this class, or has this text in its message")
    command.add_argument(
        "--metadata",
        action="append",
        type=pair,
        metavar="KEY=VALUE",
        help="only those with this in their metadata (the value is JSON, or else a text); may be repeated",
    )
    command.add_argument("--parent", type=run_id, metavar="RUN", help="only the child runs of this one")
    default, told = (0, "all") if only else (LIMIT, f"{LIMIT}; 0 for all")
    command.add_argument("--limit", type=whole_number, default=default, metavar="N", help=f"at most so many, the newest ones ({told})")
    command.set_defaults(only=only, blocked=False)


def filtered(given: argparse.Namespace) -> bool:
    """Return whether a filter was given."""
    return any((given.status, given.name, given.since, given.until, given.error, given.metadata, given.parent))


def pair(text: str) -> tuple[str, Any]:
    """Return a key of the metadata and its value: a number, true, false or null, or else a text.

    Of a number as a text, its JSON (`"7"`).
    """
    key, sign, written = text.partition("=")
    if not sign or not key:
        raise argparse.ArgumentTypeError(f"{quoted(text)} is no KEY=VALUE")
    try:
        value = read_strictly(written)
    except ValueError:
        return key, written
    return key, written if isinstance(value, (dict, list)) else value


def _filter(given: argparse.Namespace) -> RunFilter:
    """Return the filter that the options say.

    Raises:
        ConfigurationError: one means nothing.
    """
    from symphony_es.workflow.runs.filters import RunFilter, read_statuses

    statuses = read_statuses([*(given.status or ()), *(["blocked"] if given.blocked else ())] or given.only)
    return RunFilter(
        status=statuses, name=given.name, error=given.error, since=given.since, until=given.until, parent_id=given.parent,
        metadata=dict(given.metadata) if given.metadata else None, step=given.step if given.command == "runs" else None,
    )  # fmt: skip


class FoundRuns(NamedTuple):
    """The runs that fit all filters, or a page of them.

    Attributes:
        runs: the newest first.
        left: how many come behind them.
        next: what `--after` takes for those; None where there are none, or they are of a moment of the past.
    """

    runs: list[dict[str, Any]]
    left: int
    next: str | None = None


async def find_runs(opened: OpenedLog, given: argparse.Namespace, limit: int = 0) -> FoundRuns:
    """Return the runs that fit all filters, the newest first, at most so many (0 for all).

    Today's come from the list that the application keeps, and cost what has happened since; those of a moment, the size of the state then.
    """
    from symphony_es.core.past.moment_texts import check_order, read_time
    from symphony_es.workflow.runs.listing import RunListing

    assert opened.directory is not None
    at, after = getattr(given, "at", None), getattr(given, "after", None)
    wanted = _filter(given)
    if at is not None:
        unknown = [f"--{name}" for name in ("step", "after") if getattr(given, name)]
        if unknown:
            raise ConfigurationError(f"--at shows all runs of then: {' and '.join(unknown)} are for those of now")
        view = await opened.past.at(at)
        states = [view.state(reference) for reference in view.all("Workflow")]
        times = [None if text is None else read_time(text) for text in (given.since, given.until)]
        check_order(given.since, given.until)
        check_order(*times)
        found = [
            one
            for state in states
            if _fits(one := _then(state, given.error), given, wanted.status, (state.data or {}).get("metadata") or {})
            and _is_between(one, *times)
        ]
        found.sort(key=lambda one: (one["created_at"] or _LONG_AGO, one["run"]), reverse=True)
        for one in found:
            del one["has_error"]
        shown = found[:limit] if limit else found
        return FoundRuns(shown, len(found) - len(shown))
    listing = RunListing(opened.log, opened.history, opened.directory / "projections")
    try:
        page = await listing.page(wanted, after=after, limit=limit or MOST)
        left = len(await listing.page(wanted, after=page.next, limit=MOST)) if page.next is not None else 0
    finally:
        await listing.close()
    return FoundRuns([_listed(summary) for summary in page], left, page.next)


def _listed(summary: RunSummary) -> dict[str, Any]:
    return {
        "run": summary.id,
        "name": summary.name,
        "status": summary.status.value,
        "steps": summary.completed_steps,
        "created_at": summary.created_at,
        "started_at": summary.started_at,
        "ended_at": summary.ended_at,
        "step": summary.step,
        "parent": summary.parent_id,
        "error": f"{summary.error_type}: {summary.error_message}" if summary.error_type else None,
    }


def _then(state: EntityState, error: str | None) -> dict[str, Any]:
    """Return what is listed of a run of then, and whether it has an error that is looked for: as the list has it of those of now."""
    from symphony_es_projections.run_rows import row_of

    row = row_of(state.entity_id, state.version, state.data or {})
    said = f"{row.error_type}: {row.error_message}" if row.error_type else None
    return {**_summary(state), "error": said, "has_error": error is not None and row.has_error(error)}


def _fits(one: dict[str, Any], given: argparse.Namespace, statuses: Any, metadata: Mapping[str, Any]) -> bool:
    return (
        (statuses is None or one["status"] in statuses)
        and (not given.name or one["name"] in given.name)
        and (given.parent is None or one["parent"] == given.parent)
        and all(key in metadata and plain_equal(metadata[key], value) for key, value in given.metadata or ())
        and (given.error is None or one["has_error"])
    )


def _is_between(one: dict[str, Any], since: datetime | None, until: datetime | None) -> bool:
    created = one["created_at"] or _LONG_AGO
    return (since is None or created >= since) and (until is None or created <= until)


async def runs(given: argparse.Namespace) -> None:
    """Carry out `symphony-es runs`."""
    async with reading(given) as opened:
        found = await find_runs(opened, given, given.limit)
        hint = "" if found.runs else await why_none(opened, given)
    print_runs(found.runs, as_json=given.json, hint=hint)
    if not found.left:
        return
    further = f"--after {found.next} the next ones, " if found.next is not None else ""
    output.cut(f"{found.left:,} more: --limit 0 shows all, {further}--since and --status fewer", as_json=given.json)


async def why_none(opened: OpenedLog, given: argparse.Namespace) -> str:
    """Return the end of a message that no run fits: names and steps there are that are written like those that no run has."""
    from symphony_es.workflow.runs.listing import RunListing

    wanted = _filter(given)
    if not wanted.name and wanted.step is None:
        return ""
    assert opened.directory is not None
    listing = RunListing(opened.log, opened.history, opened.directory / "projections")
    try:
        await listing.catch_up()
        return hint_of(await listing.near(wanted))
    finally:
        await listing.close()


async def find_run(opened: OpenedLog, wanted: str) -> dict[str, Any]:
    """Return one run as it is now.

    Raises:
        EntityNotFoundError: there is no such run.
    """
    return _summary(await opened.past.state_of(f"Workflow:{wanted}"))


def print_runs(found: list[dict[str, Any]], *, as_json: bool, hint: str = "") -> None:
    """Print runs as a table, or as JSON lines; the hint where there are none."""
    if as_json:
        for one in found:
            output.json_line(_exact(one))
        return
    names = ("run", "name", "status", "steps", "started_at", "ended_at", "step", "error")
    rows = [[_shown(name, one[name]) for name in names] for one in found]
    output.table([name.removesuffix("_at") for name in names], rows, f"no runs{hint}")


def _exact(one: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in one.items()}


def _shown(name: str, value: Any) -> object:
    if value is None:
        return ""
    return output.time(value) if isinstance(value, datetime) else output.status(value) if name == "status" else value


def _summary(state: EntityState) -> dict[str, Any]:
    data = state.data or {}
    error = data.get("error")
    return {
        "run": state.entity_id,
        "name": data.get("name", ""),
        "status": _status(data),
        "steps": len(data.get("outputs") or ()),
        "created_at": data.get("created_at"),
        "started_at": data.get("started_at"),
        "ended_at": data.get("ended_at"),
        "step": error.get("step") if error else None,
        "parent": data["parent"].entity_id if data.get("parent") is not None else None,
        "error": f"{error['type']}: {error['message']}" if error else None,
    }


def _status(data: dict[str, Any]) -> str:
    """Return the status as text: it is an enum member, whose class need not be importable."""
    return str(getattr(data.get("status"), "data", data.get("status"))).lower()


async def run(given: argparse.Namespace) -> None:
    """Carry out `symphony-es run`."""
    from symphony_es.transfer.text import event_as_json

    async with reading(given) as opened:
        position = await opened.past.position(given.at)
        state = await opened.past.state_of(f"Workflow:{given.run_id}", position)
        data = state.data or {}
        summary = _summary(state)
        links = {"forked from": (data.get("forked_from") or {}).get("run")}
        if given.json:
            _print_exactly(data, summary, links)
            async for event in _events(opened, state.key, position):
                output.json_line(event_as_json(event))
            return
        rows = output.Table(("position", "time", "event", "step", "attempt", "actor", "reason", "output or error"))
        began: dict[str | None, datetime] = {}
        async for event in _events(opened, state.key, position):
            at, time, _, name, actor, why, step, _ = event_row(event)
            rows.add((at, time, name, step, event.metadata.attempt or "", actor, why, _result(event)))
            if event.name in ("WorkflowStepStarted", "WorkflowStepRetried"):
                began[event.metadata.step] = event.recorded_at
    shown = {name.removesuffix("_at"): _shown(name, value) for name, value in {**summary, **links}.items() if value is not None}
    under_way = _under_way(data, began) if data else {}
    if under_way:
        shown["under way"] = ", ".join(f"{step} since {output.time(since)}" for step, since in under_way.items())
    output.pairs({**shown, "context": output.brief(data.get("context"), 200)})
    output.say()
    rows.print()


async def _events(opened: OpenedLog, key: str, until: int) -> AsyncIterator[Event]:
    from symphony_es.events.rows import decode_row

    async for rows in opened.log.entity_pages(key, until_position=until):
        for row in rows:
            yield decode_row(row)


def _print_exactly(data: dict[str, Any], summary: dict[str, Any], links: dict[str, Any]) -> None:
    from symphony_es.transfer.text import plain_as_json

    told = {**_exact(summary), "context": plain_as_json(data.get("context")), "outputs": plain_as_json(data.get("outputs") or {})}
    output.json_line({**told, **{name.replace(" ", "_"): str(link) if link is not None else None for name, link in links.items()}})


def _under_way(data: Mapping[str, Any], began: Mapping[str | None, datetime]) -> dict[str, datetime]:
    """Return the innermost steps that have begun and not come to an end, and when that was."""
    from symphony_es.workflow.runs.under_way import innermost, under_way_in

    return {step: began[step] for step in innermost(under_way_in(data)) if step in began}


def _result(event: Event) -> str:
    """Return what a step gave, or what it failed of, and what it has used."""
    return " ".join(part for part in (_outcome(event), _used(event)) if part)


def _used(event: Event) -> str:
    """Return the models that an attempt has used: tokens read and written, and what that cost."""
    if event.data is None:
        return ""
    from symphony_es.workflow.record.attempts import said_of_step  # late: few steps have used any

    told = [
        f"{output.safe(used.model)} {used.input_tokens:,}+{used.output_tokens:,}"
        + (f" {used.cost:f} {output.safe(str(used.currency))}" if used.cost is not None else "")
        for used in said_of_step(event.name, event.data).get("usage", ())
    ]
    return f"[{'; '.join(told)}]" if told else ""


def _outcome(event: Event) -> str:
    values = {tuple(change[1]): change[2] for change in event.changes if len(change) == 3}
    if event.name == "WorkflowStepCompleted":
        from symphony_es.workflow.runs.parts import described

        step = event.metadata.step or ""
        return output.brief(described(values.get(("outputs", step)), step), 50)
    error = event.data if event.name == "WorkflowStepFailed" else values.get(("error",))
    return output.brief(f"{error['type']}: {error['message']}", 80) if isinstance(error, dict) else ""
