"""Workflow runs: `runs`, and `run` for one of them. They are read from states and events; no definition has to be importable."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from symphony_es.cli import output
from symphony_es.cli.commands.looking import event_row
from symphony_es.cli.commands.registry import MOMENT, Parsers, moment, reading

if TYPE_CHECKING:
    from symphony_es.events.event import Event
    from symphony_es.events.fold import EntityState

__all__ = ["register"]


def register(parsers: Parsers) -> None:
    """Add the commands of this module."""
    command = parsers.add("runs", runs, "workflow runs, and how far each is")
    command.add_argument("--status", metavar="STATUS", help="only those that are pending, running, paused, completed, failed, …")
    command.add_argument("--at", type=moment, default="latest", metavar="MOMENT", help=f"as it was then: {MOMENT}")
    command = parsers.add("run", run, "what one run did, in order")
    command.add_argument("run_id", metavar="RUN")
    command.add_argument("--at", type=moment, default="latest", metavar="MOMENT", help=f"as it was then: {MOMENT}")


async def runs(given: argparse.Namespace) -> None:
    """`symphony-es runs`."""
    async with reading(given) as opened:
        view = await opened.past.at(given.at)
    found = [_summary(view.state(reference)) for reference in view.all("Workflow")]
    found = [one for one in found if given.status in (None, one["status"])]
    found.sort(key=lambda one: (one["created_at"] or "", one["run"]))
    if given.json:
        for one in found:
            output.json_line(one)
        return
    columns = ("run", "name", "status", "steps", "started_at", "ended_at", "error")
    output.table(columns, [[one[column] if one[column] is not None else "" for column in columns] for one in found], "no runs")


def _summary(state: EntityState) -> dict[str, Any]:
    data = state.data or {}
    error = data.get("error")
    return {
        "run": state.entity_id,
        "name": data.get("name", ""),
        "status": _status(data),
        "steps": len(data.get("outputs") or ()),
        "created_at": _time(data.get("created_at")),
        "started_at": _time(data.get("started_at")),
        "ended_at": _time(data.get("ended_at")),
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
    links = {"parent": data.get("parent"), "forked from": (data.get("forked_from") or {}).get("run")}
    if given.json:
        told = {**_summary(state), "context": plain_as_json(data.get("context")), "outputs": plain_as_json(data.get("outputs"))}
        output.json_line({**told, **{name.replace(" ", "_"): str(link) if link is not None else None for name, link in links.items()}})
        for event in events:
            output.json_line(event_as_json(event))
        return
    shown = {name: value for name, value in {**_summary(state), **links}.items() if value is not None}
    output.pairs({**shown, "context": output.brief(data.get("context"), 200)})
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
