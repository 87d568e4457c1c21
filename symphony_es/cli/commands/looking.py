"""Looking at entities, and the past: `entities show at history blame diff`. None of them writes."""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

from symphony_es.cli import output
from symphony_es.cli.commands.events import event_row
from symphony_es.cli.commands.registry import MOMENT, Parsers, entity_key, moment, reading, whole_number
from symphony_es.cli.near import hint_of, names_like
from symphony_es.shown import so_many

if TYPE_CHECKING:
    from collections.abc import Iterable

    from symphony_es.events.comparison import ValueChange
    from symphony_es.events.event import Event

__all__ = ["register"]


def register(parsers: Parsers) -> None:
    """Add the commands of this module."""
    command = parsers.add("entities", entities, "which entities there are: types and their numbers, or those of one type", skips=True)
    command.add_argument("type", nargs="?", metavar="TYPE")
    command.add_argument("--at", type=moment, metavar="MOMENT", help=f"as it was then: {MOMENT}")

    command = parsers.add("show", show, "the state of one entity, and what refers to what", skips=True)
    command.add_argument("entity", type=entity_key, metavar="TYPE:ID")
    command.add_argument("--at", type=moment, metavar="MOMENT", help=f"as it was then: {MOMENT}")

    command = parsers.add("at", at, "all entities as they were at a moment", skips=True)
    command.add_argument("moment", type=moment, metavar="MOMENT", help=MOMENT)
    command.add_argument("--type", metavar="TYPE", help="only those of a type")

    command = parsers.add("history", history, "every version of one entity: who set what, from which value to which", skips=True)
    command.add_argument("entity", type=entity_key, metavar="TYPE:ID")
    command.add_argument("--after-version", type=whole_number, default=0, metavar="N", help="only later ones")
    command.add_argument("--limit", type=whole_number, default=None, metavar="N", help="at most so many (0: all)")

    command = parsers.add("blame", blame, "which events set a value, the last one first", skips=True)
    command.add_argument("entity", type=entity_key, metavar="TYPE:ID")
    command.add_argument("path", metavar="PATH", nargs="?", default="", help="lines[0].amount; the whole entity when it is left out")
    command.add_argument("--until", type=moment, metavar="MOMENT", help=f"only events up to: {MOMENT}")
    command.add_argument(
        "--since", type=moment, metavar="MOMENT", help="only events after a position or checkpoint, or from a time on, as for --until"
    )
    command.add_argument("--actor", metavar="ACTOR", help="only events that this actor caused")

    command = parsers.add("diff", diff, "what is different between two moments", skips=True)
    command.add_argument("before", type=moment, metavar="BEFORE", help=MOMENT)
    command.add_argument("after", type=moment, nargs="?", metavar="AFTER", help="`latest` when it is left out")
    command.add_argument("--entity", type=entity_key, metavar="TYPE:ID", help="only this one; costs its own events only")
    command.add_argument("--events", action="store_true", help="with the events that did it")


# -- states -----------------------------------------------------------------------------------------------------------


async def entities(given: argparse.Namespace) -> None:
    """Carry out `symphony-es entities`."""
    from symphony_es.core.past.foreign_forks import foreign_at
    from symphony_es.events.identifiers import FOREIGN_PREFIX

    async with reading(given) as opened:
        if given.type is None:
            position = await opened.past.position(given.at)
            counts = Counter(await opened.history.count_by_type(position))
            counts.update(key.partition(":")[0] for key in await foreign_at(opened.log, position))
            if given.json:
                for name, count in sorted(counts.items()):
                    output.json_line({"type": name, "entities": count})
            else:
                output.table(("type", "entities"), sorted(counts.items()), f"no entities at position {position}")
            return
        view = await opened.past.at(given.at)
        found = [view.state(reference) for reference in view.all(given.type)]  # looks into the log
        rows = [(state.key, state.version, state.position, state.damage) for state in found]
        if given.type.startswith(FOREIGN_PREFIX):
            foreign = await foreign_at(opened.log, view.position)
            rows = [(key, *place, None) for key, place in foreign.items() if key.startswith(f"{given.type}:")]
    if given.json:
        for key, version, last, damage in rows:
            damaged = {"damage": str(damage)} if damage is not None else {}
            output.json_line({"entity": key, "version": version, "position": last, **damaged})
    else:
        shown = [(key + (" (damaged)" if damage is not None else ""), version, last) for key, version, last, damage in rows]
        output.table(("entity", "version", "position"), shown, f"no entities of type {given.type} at position {view.position}")


async def show(given: argparse.Namespace) -> None:
    """Carry out `symphony-es show`."""
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
        output.say(f"  {output.safe(str(state.damage))}; this is the last good state. In the application, {repair_call(state.key)}")
    output.pairs({name: output.brief(value, 200) for name, value in (state.data or {}).items()}, "  ")
    for reference in references:
        output.line(f"  {output.safe(reference['path'])} -> {output.safe(reference['target'])}")


async def at(given: argparse.Namespace) -> None:
    """Carry out `symphony-es at`."""
    from symphony_es.transfer.text import plain_as_json

    async with reading(given) as opened:
        view = await opened.past.at(given.moment)
        states = [view.state(reference) for reference in view.all(given.type)]
    if given.json:
        for state in states:
            output.json_line({"entity": state.key, "version": state.version, "state": plain_as_json(state.data)})
        return
    rows = [(state.key, state.version, output.brief(state.data, 100)) for state in states]
    output.say(f"position {view.position}")
    output.table(("entity", "version", "state"), rows, "no entities")


# -- changes ----------------------------------------------------------------------------------------------------------


async def history(given: argparse.Namespace) -> None:
    """Carry out `symphony-es history`."""
    async with reading(given) as opened:
        count, last = 0, given.after_version
        async for version in opened.past.versions(given.entity, after_version=given.after_version, limit=given.limit or None):
            count, last = count + 1, version.version
            if given.json:
                told = {"damage": str(version.damage)} if version.damage is not None else {}
                output.json_line({**_heading(version.event), "changes": [_change_as_json(change) for change in version.changes], **told})
                continue
            output.line(f"version {version.version}  {_line(version.event)}")
            if version.damage is not None:
                output.line(f"    not applied: {output.safe(str(version.damage))}")
            _print_changes(version.changes)
        if count and count == given.limit:
            output.cut(f"the next page: --after-version {last}", as_json=given.json)


async def blame(given: argparse.Namespace) -> None:
    """Carry out `symphony-es blame`."""
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
            output.say(text, flush=True)
    elif rows:
        rows.print(newest_first=True)
    else:
        output.say(f"no event of those that are asked for has set it{hint}")


async def diff(given: argparse.Namespace) -> None:
    """Carry out `symphony-es diff`."""
    async with reading(given) as opened:
        before, after, differing = await opened.past.differing(given.before, given.after, given.entity)
        count = 0
        for entity in differing:
            count += 1
            if given.json:
                changes = [_change_as_json(change) for change in entity.changes]
                told: dict[str, Any] = {"entity": str(entity.entity), "kind": entity.kind, "changes": changes}
                if given.events:
                    told["events"] = [_heading(event) async for event in entity.events]
                output.json_line(told)
                continue
            output.line(f"{entity.kind.ljust(7)}  {output.safe(entity.entity)}")
            if entity.kind == "changed":
                _print_changes(entity.changes)
            if given.events:
                async for event in entity.events:
                    output.line(f"    {_line(event)}")
        if not given.json:
            differ = f"{so_many(count, 'entity', 'entities')} differ{'s' * (count == 1)}"
            output.line(f"{differ} between position {before} and position {after}")


def _line(event: Event) -> str:
    position, time, _, name, actor, why, step, _ = (output.safe(cell) for cell in event_row(event))
    reason = f"  ({why})" if why else ""
    return f"position {position}  {time}  {name}{f'  by {actor}' if actor else ''}{f'  in step {step}' if step else ''}{reason}"


def _heading(event: Event) -> dict[str, Any]:
    """Return an event without what it changed."""
    from symphony_es.transfer.text import event_as_json

    return {name: value for name, value in event_as_json(event).items() if name != "changes"}


def _print_changes(changes: Iterable[ValueChange]) -> None:
    for change in changes:
        output.change(change.where, change.before, change.after)


def _change_as_json(change: ValueChange) -> dict[str, Any]:
    from symphony_es.events.paths import ABSENT
    from symphony_es.transfer.text import plain_as_json

    sides = {name: value for name, value in (("before", change.before), ("after", change.after)) if value is not ABSENT}
    return {"kind": change.kind, "path": change.where if change.path else "", **{k: plain_as_json(v) for k, v in sides.items()}}
