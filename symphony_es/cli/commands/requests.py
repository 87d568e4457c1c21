"""What is asked of the process that has the log open: `signal`, `cancel`, `pause`, `resume`, `retry`. Each is a request in its inbox."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from symphony_es.cli import output
from symphony_es.cli.commands.registry import Parsers, reading, run_id, seconds
from symphony_es.cli.commands.runs import add_filters, filtered, find_run, find_runs, print_runs, why_none
from symphony_es.errors import ConfigurationError, RequestPendingError, SymphonyError
from symphony_es.shown import quoted, so_many
from symphony_es.strict_json import read_strictly

if TYPE_CHECKING:
    from symphony_es.core.past.opening import OpenedLog
    from symphony_es.core.world.inbox import Request
    from symphony_es.core.world.requesting import Answer

__all__ = ["DONE", "NOT_THERE", "REFUSED", "add_request_options", "register"]

DONE, NOT_THERE, REFUSED = 0, 3, 6
TIMEOUT_S = 10.0


def register(parsers: Parsers) -> None:
    """Add the commands of this module."""
    command = _add(parsers, "signal", signal, "send a signal to a run, once, however often this is repeated under one --request-id")
    command.add_argument("name", metavar="NAME", help="which signal")
    command.add_argument("--payload", metavar="JSON", help="what comes with it; null when left out")

    command = _add(parsers, "cancel", cancel, "cancel a run and its child runs; its clean-up runs then")
    command.add_argument("--grace-s", type=seconds, metavar="S", help="how long steps under way may take to end by themselves")
    command.add_argument("--no-cleanup", action="store_true", help="leave the clean-up out, or end one that hangs")

    _add(parsers, "pause", pause, "pause a run: steps under way come to their end, no other begins")
    _add(parsers, "resume", resume, "go on with a run that is paused, pending, interrupted, blocked or has failed")

    command = _add(
        parsers, "retry", retry, "try a failed run again where it failed, or from a step on; without RUN, all runs that fit", "?"
    )
    command.add_argument(
        "--step",
        metavar="STEP",
        action="append",
        help="from this step on: what came after it is taken back and done again; may be repeated, for several items of a map",
    )
    add_filters(command, "failed")
    command.add_argument("--dry-run", action="store_true", help="say which runs, and ask nothing")


def _add(parsers: Parsers, name: str, run: Any, about: str, several: str | None = None) -> Any:
    command = parsers.add(name, run, about, writes=True)
    command.add_argument("run_id", metavar="RUN", type=run_id, nargs=several)
    add_request_options(command)
    return command


def add_request_options(command: Any) -> None:
    """Add the options of what asks the process that has the log open."""
    command.add_argument(
        "--timeout-s", type=seconds, default=TIMEOUT_S, metavar="S", help=f"how long to wait for the answer ({TIMEOUT_S:g})"
    )
    command.add_argument("--request-id", metavar="ID", help="the request's id; asking again under it changes nothing, and gives the answer")


async def signal(given: argparse.Namespace) -> int:
    """Carry out `symphony-es signal`."""
    try:
        payload = read_strictly(given.payload) if given.payload is not None else None
    except ValueError as error:
        raise ConfigurationError(f"--payload is no JSON: {error}; a text stands in quotes, as in --payload '\"yes\"'") from error
    return await _ask(given, {"name": given.name, "payload": payload})


async def cancel(given: argparse.Namespace) -> int:
    """Carry out `symphony-es cancel`."""
    return await _ask(given, {"cleanup": not given.no_cleanup, **({} if given.grace_s is None else {"grace_s": given.grace_s})})


async def pause(given: argparse.Namespace) -> int:
    """Carry out `symphony-es pause`."""
    return await _ask(given, {})


async def resume(given: argparse.Namespace) -> int:
    """Carry out `symphony-es resume`."""
    return await _ask(given, {})


async def retry(given: argparse.Namespace) -> int:
    """Carry out `symphony-es retry`."""
    arguments = {} if given.step is None else {"step": given.step if len(given.step) > 1 else given.step[0]}
    if given.run_id is not None:
        if filtered(given):
            raise ConfigurationError("a run is named, or runs are filtered: leave one of them out")
        if not given.dry_run:
            return await _ask(given, arguments)
        async with reading(given) as opened:
            return await _say_which(given, opened, [await find_run(opened, given.run_id)], arguments.get("step"))
    if not filtered(given):
        raise ConfigurationError(
            "name a run, or say which ones: symphony-es retry --name order --since 2h --dry-run (all failed: --status failed)"
        )
    if given.request_id is not None:
        raise ConfigurationError("--request-id names one request, and each run gets one of its own: name the run")
    async with reading(given) as opened:
        found = [one for one in (await find_runs(opened, given)).runs if one["parent"] is None]  # child runs go on with their parents
        found = found[: given.limit] if given.limit else found
        if given.dry_run or not found:
            return await _say_which(given, opened, found, arguments.get("step"))
        return await _send(given, opened, [_request(given, "retry", one["run"], arguments) for one in found])


async def _say_which(given: argparse.Namespace, opened: OpenedLog, found: list[dict[str, Any]], step: Any) -> int:
    """Print the runs that would be tried again, and why the others would be refused, as `retry` itself says it."""
    from symphony_es.workflow.engine.retriable import check_retry_on_record

    refused: dict[str, str] = {}
    for one in found:
        try:
            await check_retry_on_record(opened.past, one["run"], step)
        except SymphonyError as error:
            refused[one["run"]] = str(error)
    if given.json:
        print_runs([{**one, "refused": refused.get(one["run"])} for one in found], as_json=True)
        return REFUSED if refused else DONE
    print_runs([one for one in found if one["run"] not in refused], as_json=False, hint="" if found else await why_none(opened, given))
    for run, why in refused.items():
        output.complain(f"retry {run}: would be refused: {why}")
    output.say(f"{so_many(len(found) - len(refused), 'run')} would be tried again" + (f", {len(refused)} refused" if refused else ""))
    return REFUSED if refused else DONE


def _request(given: argparse.Namespace, verb: str, run: str, arguments: dict[str, Any]) -> Request:
    from symphony_es.core.world.inbox import Request

    chosen = {} if given.request_id is None else {"id": given.request_id}
    return Request(verb=verb, run=run, arguments=arguments, actor=given.actor, reason=given.reason, **chosen)


async def _ask(given: argparse.Namespace, arguments: dict[str, Any]) -> int:
    request = _request(given, given.command, given.run_id, arguments)
    async with reading(given) as opened:
        await opened.past.state_of(f"Workflow:{given.run_id}")  # a misspelt run is said at once, with those that are written like it
        return await _send(given, opened, [request])


async def _send(given: argparse.Namespace, opened: OpenedLog, requests: Sequence[Request]) -> int:
    from symphony_es.core.world.requesting import send_requests

    assert opened.directory is not None
    answers = await send_requests(opened.log, opened.directory, requests, timeout_s=given.timeout_s)
    codes = []
    for request, answer in zip(requests, answers, strict=True):
        if given.json:
            output.json_line(_as_json(request, answer))
        elif isinstance(answer, RequestPendingError):
            output.complain(f"{request.verb} {request.run}: {answer}")
        elif answer.done:
            kept = f" ({output.safe(quoted(given.name))} is kept until a step takes it)" if request.verb == "signal" else ""
            output.say(f"{request.verb} {output.safe(request.run)}: done{kept}, and it is {answer.status} now (request {request.id})")
        else:
            output.complain(f"{request.verb} {request.run}: refused: {answer.message}")
        codes.append(_code(answer))
    if len(codes) > 1 and not given.json:
        output.say(
            f"of {so_many(len(codes), 'run')}, tried again: {codes.count(DONE)}, refused: {codes.count(REFUSED)}, "
            f"waiting: {codes.count(NOT_THERE)}"
        )
    return min(code for code in codes if code) if any(codes) else DONE


def _code(answer: Answer | RequestPendingError) -> int:
    if isinstance(answer, RequestPendingError) or answer.error_type == "EntityNotFoundError":
        return NOT_THERE
    return DONE if answer.done else REFUSED


def _as_json(request: Request, answer: Answer | RequestPendingError) -> dict[str, Any]:
    told: dict[str, Any] = {"request": request.id, "verb": request.verb, "run": request.run}
    if isinstance(answer, RequestPendingError):
        return {**told, "answered": False, "done": False, "status": None, "error": str(answer)}
    return {**told, "answered": True, "done": answer.done, "status": answer.status or None, "error": answer.message or None}
