"""Checkpoints: `checkpoints`, `checkpoints create`, `checkpoints delete`."""

from __future__ import annotations

import argparse
from typing import Any

from symphony_es.cli import output
from symphony_es.cli.commands.registry import MOMENT, MOST_NAMES, Parsers, moment, reading, run_id, whole_number, writing
from symphony_es.errors import CheckpointNotFoundError, ConfigurationError, near_misses
from symphony_es.strict_json import read_strictly

__all__ = ["register"]


def register(parsers: Parsers) -> None:
    """Add the commands of this module."""
    command = parsers.add(
        "checkpoints", checkpoints, "all checkpoints, newest first; or `create` and `delete` one", writes=True, skips=True
    )
    command.add_argument("action", nargs="?", choices=["list", "create", "delete"], default="list")
    command.add_argument("name", nargs="?", metavar="NAME", help="name of the new one; name or id of the one to delete")
    command.add_argument("--at", type=moment, metavar="MOMENT", help=f"what the new one names: {MOMENT}")
    command.add_argument("--metadata", metavar="JSON", help="an object of your own, kept with the new one")
    command.add_argument("--limit", type=whole_number, default=0, metavar="N", help="list at most so many, the newest ones (0: all)")
    command.add_argument(
        "--before", type=moment, metavar="MOMENT", help="list only those older than a checkpoint or a time, or below a position"
    )
    command.add_argument("--run", dest="of_run", type=run_id, metavar="RUN", help="list only those of this run")
    command.add_argument("--name", dest="named", metavar="NAME", help="list only those of this name")


async def checkpoints(given: argparse.Namespace) -> None:
    """Carry out `symphony-es checkpoints`."""
    if given.action != "create" and (given.at is not None or given.metadata is not None):
        raise ConfigurationError("--at and --metadata say what a new checkpoint is: symphony-es checkpoints create NAME --at MOMENT")
    if given.action == "list" and given.name is not None:
        raise ConfigurationError("a name is for `create` and `delete`: `checkpoints --name NAME` lists those of a name")
    if given.action != "list" and (given.limit or any(each is not None for each in (given.before, given.of_run, given.named))):
        raise ConfigurationError(f"--limit, --before, --run and --name say which to list: leave them out of `checkpoints {given.action}`")
    if given.action != "list" and given.skip_damaged:
        raise ConfigurationError("--skip-damaged is for listing: beside a damage the application makes checkpoints")
    if given.action == "create":
        await _create(given)
    elif given.action == "delete":
        await _delete(given)
    else:
        await _list(given)


async def _list(given: argparse.Namespace) -> None:
    from symphony_es.core.past.checkpoint_pages import CheckpointFilter

    async with reading(given) as opened:
        wanted = CheckpointFilter(
            limit=given.limit + 1 if given.limit else None, before=given.before, run_id=given.of_run, name=given.named
        )
        found = await opened.past.checkpoints(wanted)
        nothing = "no checkpoints"
        if not found and given.of_run is not None and not await opened.past.checkpoints(CheckpointFilter(limit=1, run_id=given.of_run)):
            await opened.past.state_of(f"Workflow:{given.of_run}")  # a misspelt run is said, with those that are written like it
        if not found and given.named is not None and not await opened.past.checkpoints(CheckpointFilter(limit=1, name=given.named)):
            known = await opened.past.checkpoints(CheckpointFilter(limit=MOST_NAMES))
            near = near_misses(given.named, [entry.name for entry in known])
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            nothing = output.safe(f"no checkpoint is called {given.named}{hint}")
    shown = found[: given.limit] if given.limit else found
    if given.json:
        from symphony_es.transfer.text import plain_as_json

        for entry in shown:
            output.json_line({**entry.as_dict(), "metadata": plain_as_json(entry.metadata)})
    else:
        rows = [(e.id, e.name, e.position, output.time(e.created_at), e.entity_count, output.brief(e.metadata)) for e in shown]
        output.table(("id", "name", "position", "created", "entities", "metadata"), rows, nothing)
    if len(shown) < len(found):
        output.cut(f"the next page: --before {shown[-1].id}", as_json=given.json)


async def _create(given: argparse.Namespace) -> None:
    from symphony_es.core.past.checkpoints import check_name
    from symphony_es.core.past.moments import check_boundary

    metadata = _metadata(given.metadata)
    check_name(given.name)
    async with writing(given) as opened:
        assert opened.checkpoints is not None
        position = await opened.past.position(given.at)
        await check_boundary(opened.log, position)  # else nobody could go back to it
        count = await opened.history.count_entities(position)
        made = await opened.checkpoints.name_position(position, count, given.name, metadata)
        name = (await opened.checkpoints.find(made)).name
    told = {"id": made, "name": name, "position": position}
    output.json_line(told) if given.json else output.say(f"checkpoint {made} names position {position}")


def _metadata(text: str | None) -> dict[str, Any]:
    try:
        read = read_strictly(text) if text else {}
    except ValueError as error:
        raise ConfigurationError(f"--metadata is no JSON: {error}") from error
    if not isinstance(read, dict):
        raise ConfigurationError("--metadata is a JSON object, as in --metadata '{\"ticket\": 7}'")
    return read


async def _delete(given: argparse.Namespace) -> None:
    if not given.name:
        raise ConfigurationError("name the checkpoint to delete: symphony-es checkpoints delete NAME")
    from symphony_es.core.past.checkpoint_pages import CheckpointFilter

    async with writing(given) as opened:
        assert opened.checkpoints is not None
        gone = await opened.checkpoints.find(given.name)
        if not await opened.checkpoints.delete(f"id:{gone.id}"):
            raise CheckpointNotFoundError(given.name)
        others = len(await opened.checkpoints.entries(CheckpointFilter(name=gone.name)))
    if given.json:
        output.json_line({"deleted": given.name, "id": gone.id, "name": gone.name, "position": gone.position, "others": others})
        return
    more = f"; {others:,} older {'one' if others == 1 else 'ones'} of its name {'stays' if others == 1 else 'stay'}" if others else ""
    output.say(f"checkpoint {gone.name} ({gone.id}) of position {gone.position} is gone; its events stay{more}")
