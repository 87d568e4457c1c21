"""Looking at events, entities, and the past: `log tail entities show at history blame diff`. None of them writes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from symphony_es.cli import output
from symphony_es.cli.commands.registry import MOMENT, PAST_TIME, Parsers, entity_key, event_name, moment, past_time, reading, whole_number
from symphony_es.cli.near import hint_of, names_like
from symphony_es.shown import so_many

if TYPE_CHECKING:
    from symphony_es.core.state.opening import OpenedLog
    from symphony_es.events.comparison import ValueChange
    from symphony_es.events.event import Event
    from symphony_es.log.log import EventLog

__all__ = ["event_row", "print_events", "register"]

EVENT_COLUMNS = ("position", "time", "entity", "event", "actor", "reason", "step", "changes")


def register(parsers: Parsers) -> None:
    """Add the commands of this module."""
    command = parsers.add("log", log, "events in the order of their positions")
    _event_filters(command)
    command.add_argument("--after", type=whole_number, default=None, metavar="POSITION", help="only later ones")
    command.add_argument("--until", type=whole_number, default=None, metavar="POSITION", help="only those up to it")
    command.add_argument(
        "--limit", type=whole_number, default=50, metavar="N", help="at most so many (50): the last ones; with --after the first ones"
    )

    command = parsers.add("tail", tail, "the newest events")
    _event_filters(command)
    command.add_argument("-n", type=whole_number, default=10, metavar="N", help="so many (10)")
    command.add_argument("-f", "--follow", action="store_true", help="go on with those that come, until interrupted")

    command = parsers.add("entities", entities, "which entities there are: types and their numbers, or those of one type")
    command.add_argument("type", nargs="?", metavar="TYPE")
    command.add_argument("--at", type=moment, default="latest", metavar="MOMENT", help=f"as it was then: {MOMENT}")

    command = parsers.add("show", show, "the state of one entity, and what refers to what")
    command.add_argument("entity", type=entity_key, metavar="TYPE:ID")
    command.add_argument("--at", type=moment, default="latest", metavar="MOMENT", help=f"as it was then: {MOMENT}")

    command = parsers.add("at", at, "all entities as they were at a moment")
    command.add_argument("moment", type=moment, metavar="MOMENT", help=MOMENT)
    command.add_argument("--type", metavar="TYPE", help="only those of a type")

    command = parsers.add("history", history, "every version of one entity: who set what, from which value to which")
    command.add_argument("entity", type=entity_key, metavar="TYPE:ID")
    command.add_argument("--after-version", type=whole_number, default=0, metavar="N", help="only later ones")
    command.add_argument("--limit", type=whole_number, default=None, metavar="N", help="at most so many")

    command = parsers.add("blame", blame, "which events set a value, the last one first")
    command.add_argument("entity", type=entity_key, metavar="TYPE:ID")
    command.add_argument("path", metavar="PATH", nargs="?", default="", help="lines[0].amount; the whole entity when it is left out")
    command.add_argument("--until", type=moment, default="latest", metavar="MOMENT", help=f"only events up to: {MOMENT}")
    command.add_argument("--since", type=past_time, metavar="TIME", help=f"only events committed then or later: {PAST_TIME}")
    command.add_argument("--actor", metavar="ACTOR", help="only events that this actor caused")

    command = parsers.add("diff", diff, "what is different between two moments")
    command.add_argument("before", type=moment, metavar="BEFORE", help=MOMENT)
    command.add_argument("after", type=moment, nargs="?", default="latest", metavar="AFTER", help="`latest` when it is left out")
    command.add_argument("--entity", type=entity_key, metavar="TYPE:ID", help="only this one; costs its own events only")
    command.add_argument("--events", action="store_true", help="with the events that did it")


def _event_filters(command: Any) -> None:
    command.add_argument(
        "--event", type=event_name, action="append", default=[], metavar="NAME", help="only events of this name; may be repeated"
    )
    command.add_argument("--entity", type=entity_key, metavar="TYPE:ID", help="only events of this entity")


# -- events -----------------------------------------------------------------------------------------------------------


async def log(given: argparse.Namespace) -> None:
    """`symphony-es log`."""
    async with reading(given) as opened:
        until = opened.log.head if given.until is None else min(given.until, opened.log.head)
        if given.after is None:
            events = await _newest(opened.log, given, until, given.limit)
        else:
            events = await _first(opened.log, given, given.after, until, given.limit)
        print_events(events, as_json=given.json, hint="" if events else await why_none(opened, given))


async def tail(given: argparse.Namespace) -> None:
    """`symphony-es tail`."""
    async with reading(given) as opened:
        seen = opened.log.head
        events = await _newest(opened.log, given, seen, given.n)
        hint = "" if events or given.follow else await why_none(opened, given)
        print_events(events, as_json=given.json, columns=not given.follow, hint=hint)
        if given.follow:
            async for page in opened.log.follow(seen, given.event):
                chosen = [event for event in page if given.entity in (None, event.entity_key)]
                if chosen:
                    print_events(chosen, as_json=given.json, columns=False)


async def why_none(opened: OpenedLog, given: argparse.Namespace, **wanted: Any) -> str:
    """The end of a message that no event fits: names there are that are written like those asked for.

    Raises:
        EntityNotFoundError: the log has never had the entity that is asked for.
    """
    if given.entity is not None:
        await opened.past.history(given.entity, limit=1)
    return "" if given.json else hint_of(await names_like(opened, event=given.event, **wanted))


async def _first(log: EventLog, given: argparse.Namespace, after: int, until: int, limit: int) -> list[Event]:
    if given.entity is not None:
        found = await log.read_entity(given.entity, until_position=until)
        return [event for event in found if event.position > after and (not given.event or event.name in given.event)][:limit]
    events: list[Event] = []
    async for page in log.read(after, until, given.event, page=min(limit, 1000) or 1):
        events += page
        if len(events) >= limit:
            break
    return events[:limit]


async def _newest(log: EventLog, given: argparse.Namespace, until: int, limit: int) -> list[Event]:
    """The last events up to a position that match; goes back from there as far as it must."""
    if limit <= 0:
        return []
    if given.entity is not None:
        return (await _first(log, given, 0, until, until))[-limit:]
    events: list[Event] = []
    width = max(limit, 100)
    while until > 0 and len(events) < limit:
        after = max(0, until - width)
        events = [event async for page in log.read(after, until, given.event) for event in page] + events
        until, width = after, width * 4
    return events[-limit:]


def print_events(events: list[Event], *, as_json: bool, columns: bool = True, hint: str = "") -> None:
    """Events as a table, or as JSON lines; without the names of the columns, a line each as they come; the hint where there are none."""
    from symphony_es.transfer.text import event_as_json

    if as_json:
        for event in events:
            output.json_line(event_as_json(event))
    elif columns:
        output.table(EVENT_COLUMNS, [event_row(event) for event in events], f"no events{hint}")
    else:
        for event in events:  # as they come: whoever follows sees each at once
            output.line("  ".join(output.safe(cell) for cell in event_row(event) if cell))
            print(end="", flush=True)


def event_row(event: Event) -> tuple[object, ...]:
    """An event as a row of `EVENT_COLUMNS`."""
    from symphony_es.errors import format_path
    from symphony_es.events.changes import OPERATION_NAMES

    changes = ", ".join(f"{OPERATION_NAMES[change[0]]} {format_path(change[1]) or '(all)'}" for change in event.changes[:4])
    more = f", and {len(event.changes) - 4} more" if len(event.changes) > 4 else ""
    return (
        event.position,
        output.time(event.recorded_at, milliseconds=True),
        event.entity_key,
        event.name,
        event.metadata.actor or "",
        event.metadata.reason or "",
        event.metadata.step or "",
        changes + more,
    )


# -- states -----------------------------------------------------------------------------------------------------------


async def entities(given: argparse.Namespace) -> None:
    """`symphony-es entities`."""
    async with reading(given) as opened:
        view = await opened.past.at(given.at)
        found = [] if given.type is None else [view.state(reference) for reference in view.all(given.type)]  # looks into the log
    if given.type is None:
        counts: dict[str, int] = {}
        for reference in view:
            counts[reference.entity_type] = counts.get(reference.entity_type, 0) + 1
        if given.json:
            for name, count in counts.items():
                output.json_line({"type": name, "entities": count})
        else:
            output.table(("type", "entities"), list(counts.items()), f"no entities at position {view.position}")
        return
    if given.json:
        for state in found:
            damaged = {"damage": str(state.damage)} if state.damage is not None else {}
            output.json_line({"entity": state.key, "version": state.version, "position": state.position, **damaged})
    else:
        rows = [(state.key + (" (damaged)" if state.damage is not None else ""), state.version, state.position) for state in found]
        output.table(("entity", "version", "position"), rows, f"no entities of type {given.type} at position {view.position}")


async def show(given: argparse.Namespace) -> None:
    """`symphony-es show`."""
    from symphony_es.errors import format_path, repair_call
    from symphony_es.events.references import find_references
    from symphony_es.transfer.text import plain_as_json

    async with reading(given) as opened:
        position = await opened.past.position(given.at)
        state = await opened.past.state_of(given.entity, position)
    references = [{"path": format_path(path), "target": str(target)} for path, target in find_references(state.data)]
    if given.json:
        told: dict[str, Any] = {"entity": state.key, "version": state.version, "position": state.position, "at": position}
        if state.damage is not None:
            told["damage"] = str(state.damage)
        output.json_line({**told, "state": plain_as_json(state.data), "references": references})
        return
    output.line(f"{output.safe(state.key)}  version {state.version}, of the event at position {state.position}; as of position {position}")
    if state.damage is not None:
        print(f"  {output.safe(str(state.damage))}; this is the last good state. In the application, {repair_call(state.key)}")
    output.pairs({name: output.brief(value, 200) for name, value in (state.data or {}).items()}, "  ")
    for reference in references:
        output.line(f"  {output.safe(reference['path'])} -> {output.safe(reference['target'])}")


async def at(given: argparse.Namespace) -> None:
    """`symphony-es at`."""
    from symphony_es.transfer.text import plain_as_json

    async with reading(given) as opened:
        view = await opened.past.at(given.moment)
        states = [view.state(reference) for reference in view.all(given.type)]
    if given.json:
        for state in states:
            output.json_line({"entity": state.key, "version": state.version, "state": plain_as_json(state.data)})
        return
    rows = [(state.key, state.version, output.brief(state.data, 100)) for state in states]
    print(f"position {view.position}")
    output.table(("entity", "version", "state"), rows, "no entities")


# -- changes ----------------------------------------------------------------------------------------------------------


async def history(given: argparse.Namespace) -> None:
    """`symphony-es history`."""
    async with reading(given) as opened:
        async for version in opened.past.versions(given.entity, after_version=given.after_version, limit=given.limit):
            if given.json:
                told = {"damage": str(version.damage)} if version.damage is not None else {}
                output.json_line({**_heading(version.event), "changes": [_change_as_json(change) for change in version.changes], **told})
                continue
            output.line(f"version {version.version}  {_line(version.event)}")
            if version.damage is not None:
                output.line(f"    not applied: {output.safe(str(version.damage))}")
            _print_changes(version.changes)


async def blame(given: argparse.Namespace) -> None:
    """`symphony-es blame`."""
    from symphony_es.events.paths import ABSENT
    from symphony_es.transfer.text import plain_as_json

    def seen(value: Any) -> Any:
        if not given.json:
            return output.brief(value, 40)
        return {} if value is ABSENT else {"value": plain_as_json(value)}

    lines = output.Kept()
    rows = output.Table(("position", "time", "event", "actor", "reason", "run/step", "before", "after"))
    async with reading(given) as opened:
        async for event, before, after in opened.past.settings(given.entity, given.path, since=given.since, until=given.until, seen=seen):
            if given.actor not in (None, event.metadata.actor):
                continue
            if given.json:
                sides = {name: side["value"] for name, side in (("before", before), ("after", after)) if side}
                text = output.json_text({**_heading(event), **sides})
                lines.add(text, len(text))
                continue
            why, time = event.metadata, output.time(event.recorded_at, milliseconds=True)
            run = "/".join(part for part in (why.run_id, why.step) if part)
            rows.add((event.position, time, event.name, why.actor or "", why.reason or "", run, before, after))
        hint = "" if rows or given.json else hint_of(await names_like(opened, actor=given.actor))
    if given.json:
        for text in lines.each(newest_first=True):
            print(text, flush=True)
    elif rows:
        rows.print(newest_first=True)
    else:
        print(f"no event of those that are asked for has set it{hint}")


async def diff(given: argparse.Namespace) -> None:
    """`symphony-es diff`."""
    async with reading(given) as opened:
        difference = await opened.past.diff(given.before, given.after, given.entity)
        for entity in difference:
            events = await entity.events() if given.events else []
            if given.json:
                changes = [_change_as_json(change) for change in entity.changes]
                told: dict[str, Any] = {"entity": str(entity.entity), "kind": entity.kind, "changes": changes}
                output.json_line({**told, "events": [_heading(event) for event in events]} if given.events else told)
                continue
            output.line(f"{entity.kind.ljust(7)}  {output.safe(entity.entity)}")
            if entity.kind == "changed":
                _print_changes(entity.changes)
            for event in events:
                output.line(f"    {_line(event)}")
        if not given.json:
            differ = f"{so_many(len(difference), 'entity', 'entities')} differ{'s' * (len(difference) == 1)}"
            output.line(f"{differ} between position {difference.before} and position {difference.after}")


def _line(event: Event) -> str:
    position, time, _, name, actor, why, step, _ = (output.safe(cell) for cell in event_row(event))
    reason = f"  ({why})" if why else ""
    return f"position {position}  {time}  {name}{f'  by {actor}' if actor else ''}{f'  in step {step}' if step else ''}{reason}"


def _heading(event: Event) -> dict[str, Any]:
    """An event without what it changed."""
    from symphony_es.transfer.text import event_as_json

    return {name: value for name, value in event_as_json(event).items() if name != "changes"}


def _print_changes(changes: tuple[ValueChange, ...]) -> None:
    for change in changes:
        output.change(change.where, change.before, change.after)


def _change_as_json(change: ValueChange) -> dict[str, Any]:
    from symphony_es.events.paths import ABSENT
    from symphony_es.transfer.text import plain_as_json

    sides = {name: value for name, value in (("before", change.before), ("after", change.after)) if value is not ABSENT}
    return {"kind": change.kind, "path": change.where if change.path else "", **{k: plain_as_json(v) for k, v in sides.items()}}
