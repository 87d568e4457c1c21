"""Checkpoints: `checkpoints`, `checkpoints create`, `checkpoints delete`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from symphony_es.cli import output
from symphony_es.cli.commands.registry import MOMENT, Parsers, moment, reading, writing
from symphony_es.errors import CheckpointNotFoundError, ConfigurationError

__all__ = ["register"]


def register(parsers: Parsers) -> None:
    """Add the commands of this module."""
    command = parsers.add("checkpoints", checkpoints, "all checkpoints, newest first; or `create` and `delete` one", writes=True)
    command.add_argument("action", nargs="?", choices=["list", "create", "delete"], default="list")
    command.add_argument("name", nargs="?", metavar="NAME", help="name of the new one; name or id of the one to delete")
    command.add_argument("--at", type=moment, default="latest", metavar="MOMENT", help=f"what the new one names: {MOMENT}")
    command.add_argument("--metadata", metavar="JSON", help="an object of your own, kept with the new one")


async def checkpoints(given: argparse.Namespace) -> None:
    """`symphony-es checkpoints`."""
    if given.action != "create" and (given.at != "latest" or given.metadata is not None):
        raise ConfigurationError("--at and --metadata say what a new checkpoint is: symphony-es checkpoints create NAME --at MOMENT")
    if given.action == "list" and given.name is not None:
        raise ConfigurationError("a name is for `create` and `delete`: `checkpoints` lists all there are")
    if given.action == "create":
        await _create(given)
    elif given.action == "delete":
        await _delete(given)
    else:
        async with reading(given) as opened:
            entries = await opened.past.checkpoints()
        if given.json:
            from symphony_es.transfer.text import plain_as_json

            for entry in entries:
                output.json_line({**entry.as_dict(), "metadata": plain_as_json(entry.metadata)})
            return
        rows = [(e.id, e.name, e.position, output.time(e.created_at), e.entity_count, output.brief(e.metadata)) for e in entries]
        output.table(("id", "name", "position", "created", "entities", "metadata"), rows, "no checkpoints")


async def _create(given: argparse.Namespace) -> None:
    from symphony_es.core.state.past.moments import check_boundary

    metadata = _metadata(given.metadata)
    if given.name is not None:
        _check_name(given.name)
    async with writing(given) as opened:
        assert opened.checkpoints is not None
        position = await opened.past.position(given.at)
        await check_boundary(opened.log, position)  # else nobody could go back to it
        count = await opened.history.count_entities(position)
        made = await opened.checkpoints.name_position(position, count, given.name, metadata)
        name = (await opened.checkpoints.find(made)).name
    told = {"id": made, "name": name, "position": position}
    output.json_line(told) if given.json else print(f"checkpoint {made} names position {position}")


def _check_name(name: str) -> None:
    """Refuse a name that would mean something else on the command line."""
    try:
        read = moment(name)
    except argparse.ArgumentTypeError:
        read = None
    if read != name or name == "latest":
        raise ConfigurationError(f"{name!r} reads as a position, a time or the head where a checkpoint is meant: choose another name")


def _metadata(text: str | None) -> dict[str, Any]:
    try:
        read = json.loads(text) if text else {}
    except ValueError as error:
        raise ConfigurationError(f"--metadata is no JSON: {error}") from error
    if not isinstance(read, dict):
        raise ConfigurationError("--metadata is a JSON object, as in --metadata '{\"ticket\": 7}'")
    return read


async def _delete(given: argparse.Namespace) -> None:
    if not given.name:
        raise ConfigurationError("name the checkpoint to delete: symphony-es checkpoints delete NAME")
    async with writing(given) as opened:
        assert opened.checkpoints is not None
        if not await opened.checkpoints.delete(given.name):
            raise CheckpointNotFoundError(given.name)
    output.json_line({"deleted": given.name}) if given.json else print(f"checkpoint {output.safe(given.name)} is gone; its events stay")
