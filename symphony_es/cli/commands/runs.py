"""Workflow runs: `runs`, and `run` for one of them. They are read from states and events; no definition has to be importable."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from symphony_es.cli import output
from symphony_es.cli.commands.looking import event_row
from symphony_es.cli.commands.registry import MOMENT, PAST_TIME, Parsers, moment, past_time, reading, run_id, whole_number

if TYPE_CHECKING:
    from symphony_es.core.state.opening import OpenedLog
    from symphony_es.events.event import Event
    from symphony_es.events.fold import EntityState

__all__ = ["add_filters", "filtered", "find_runs", "print_runs", "register"]

LIMIT = 50
STATUSES = ("pending", "running", "paused", "cancelling", "blocked", "completed", "failed", "cancelled")


def register(parsers: Parsers) -> None:
    """Add the commands of this module."""
    command = parsers.add("runs", runs, "workflow runs, the newest first, and how far each is")
    add_filters(command)
    command.add_argument("--blocked", action="store_true", help="only those that contradict the code, and wait for other code")
    command.add_argument("--at", type=moment, default="latest", metavar="MOMENT", help=f"as it was then: {MOMENT}")
    command = parsers.add("run", run, "what one run did, in order")
    command.add_argument("run_id", type=run_id, metavar="RUN")
    command.add_argument("--at", type=moment, default="latest", metavar="MOMENT", help=f"as it was then: {MOMENT}")


def add_filters(command: Any, only: str | None = None) -> None:
    """Options that say which runs are meant; `filtered` tells whether one was given.

    Args:
        command: the command's parser.
        only: which status is meant where none is given.
    """
    which = f"only those that are {', '.join(STATUSES)}; may be repeated{f' ({only})' if only else ''}"
    command.add_argument("--status", type=str.lower, choices=STATUSES, action="append", metavar="STATUS", help=which)
    command.add_argument("--name", action="append", metavar="NAME", help="only those of this workflow; may be repeated")
    command.add_argument("--since", type=past_time, metavar="TIME", help=f"only those created then or later: {PAST_TIME}")
    command.add_argument("--until", type=past_time, metavar="TIME", help="only those created then or earlier")
    command.add_argument("--error", metavar="TEXT", help="only those whose error has this text in its type or message")
    default, told = (0, "all") if only else (LIMIT, f"{LIMIT}; 0 for all")
    command.add_argument("--limit", type=whole_number, default=default, metavar="N", help=f"at most so many, the newest ones ({told})")
    command.set_defaults(only=only, blocked=False)


def filtered(given: argparse.Namespace) -> bool:
    """Whether a filter was given."""
    return any((given.status, given.name, given.since, given.until, given.error))


async def find_runs(opened: OpenedLog, given: argparse.Namespace) -> list[dict[str, Any]]:
    """The runs that fit all filters, the newest first."""
    view = await opened.past.at(getattr(given, "at", "latest"))
    statuses = {*(given.status or ()), *(["blocked"] if given.blocked else ())} or ({given.only} if given.only else set())
    found = []
    for reference in view.all("Workflow"):
        one = _summary(view.state(reference))
        if (
            (not statuses or one["status"] in statuses)
            and (not given.name or one["name"] in given.name)
            and (given.since is None or (one["created"] is not None and one["created"] >= given.since))
            and (given.until is None or (one["created"] is not None and one["created"] <= given.until))
            and (given.error is None or given.error.casefold() in (one["error"] or "").casefold())
        ):
            found.append(one)
    found.sort(key=lambda one: (one["created_at"] or "", one["run"]), reverse=True)
    return found


async def runs(given: argparse.Namespace) -> None:
    """`symphony-es runs`."""
    async with reading(given) as opened:
        found = await find_runs(opened, given)
    shown = found[: given.limit] if given.limit else found
    print_runs(shown, as_json=given.json)
    if len(shown) < len(found) and not given.json:
        print(f"{len(found) - len(shown):,} more: --limit 0 shows all, --since and --status fewer")


def print_runs(found: list[dict[str, Any]], *, as_json: bool) -> None:
    """Runs as a table, or as JSON lines."""
    if as_json:
        for one in found:
            output.json_line({name: value for name, value in one.items() if name != "created"})
        return
    columns = ("run", "name", "status", "steps", "started", "ended", "error")
    rows = [
        (
            one["run"],
            one["name"],
            output.status(one["status"]),
            one["steps"],
            one["started_at"] or "",
            one["ended_at"] or "",
            one["error"] or "",
        )
        for one in found
    ]
    output.table(columns, rows, "no runs")


def _summary(state: EntityState) -> dict[str, Any]:
    data = state.data or {}
    error = data.get("error")
    return {
        "run": state.entity_id,
        "name": data.get("name", ""),
        "status": _status(data),
        "steps": len(data.get("outputs") or ()),
        "created": data.get("created_at"),
        "created_at": _time(data.get("created_at")),
        "started_at": _time(data.get("started_at")),
        "ended_at": _time(data.get("ended_at")),
        "parent": str(data["parent"]) if data.get("parent") is not None else None,
        "error": f"{error['type']}: {error['message']}" if error else None,
    }


def _status(data: dict[str, Any]) -> str:
    """The status as text: it is an enum member, whose class need not be importable."""
    return str(getattr(data.get("status"), "data", data.get("status"))).lower()


def _time(moment: Any) -> str | None:
    return output.time(moment) if moment is not None else None


async def run(given: argparse.Namespace) -> None:
    """`symphony-es run`."""
    from symphony_es.transfer.text import event_as_json, plain_as_json

    async with reading(given) as opened:
        position = await opened.past.position(given.at)
        state = await opened.past.state_of(f"Workflow:{given.run_id}", position)
        events = await opened.log.read_entity(state.key, until_position=position)
    data = state.data or {}
    summary = {name: value for name, value in _summary(state).items() if name != "created"}
    links = {"forked from": (data.get("forked_from") or {}).get("run")}
    if given.json:
        told = {**summary, "context": plain_as_json(data.get("context")), "outputs": plain_as_json(data.get("outputs"))}
        output.json_line({**told, **{name.replace(" ", "_"): str(link) if link is not None else None for name, link in links.items()}})
        for event in events:
            output.json_line(event_as_json(event))
        return
    shown = {name.removesuffix("_at"): value for name, value in {**summary, **links}.items() if value is not None}
    output.pairs({**shown, "status": output.status(summary["status"]), "context": output.brief(data.get("context"), 200)})
    print()
    columns = ("position", "time", "event", "step", "attempt", "actor", "output or error")
    rows = []
    for event in events:
        at, time, _, name, actor, step, _ = event_row(event)
        rows.append((at, time, name, step, event.metadata.attempt or "", actor, _result(event)))
    output.table(columns, rows)


def _result(event: Event) -> str:
    """What a step gave, or what it failed of."""
    values = {tuple(change[1]): change[2] for change in event.changes if len(change) == 3}
    if event.name == "WorkflowStepCompleted":
        return output.brief(values.get(("outputs", event.metadata.step)), 50)
    error = event.data if event.name == "WorkflowStepFailed" else values.get(("error",))
    return output.brief(f"{error['type']}: {error['message']}", 80) if isinstance(error, dict) else ""
