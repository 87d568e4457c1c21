"""What a stranger may try to make this process run by naming it in data, all of it, in one process: prints what has run.

The names stand in definitions, contexts, templates, retry policies, logs that are recovered, exports that are imported, events of the
golden file, files of read models, requests and arguments of commands. Each would run a command, or a module that lies on the path, if a
name were enough. Nobody has registered or allowed any of them.

Run it as `python -m tests.acceptance.naming_code EMPTY_DIRECTORY EACH`: with EACH = 1 it goes through all names, with 3 through a third.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import json
import os
import pkgutil
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import symphony_es
import symphony_es_projections
from symphony_es import Symphony, WorkflowDefinition, entity
from symphony_es.cli.main import main as command_line
from symphony_es.core.state import UnrestoredEntity
from symphony_es.errors import SymphonyError
from symphony_es.events.event import EventMetadata, NewEvent
from symphony_es.events.fold import Fold
from symphony_es.events.rows import decode_row, encode_body, seal_state
from symphony_es.events.values import Tagged
from symphony_es.projections import AuditTrail, ProjectionRunner
from symphony_es.transfer import export_jsonl, import_jsonl
from tests.compatibility.test_format_1 import ROWS

PLANTED = "planted_by_a_stranger"
GADGETS = [
    # the standard library: what runs commands, code or files
    "os:system", "os:popen", "os:execv", "posix:system", "subprocess:run", "subprocess:Popen", "subprocess:getoutput", "builtins:eval",
    "builtins:exec", "builtins:__import__", "importlib:import_module", "importlib:reload", "runpy:run_path", "runpy:run_module",
    "logging.config:dictConfig", "pickle:loads", "pickle:_load", "shutil:rmtree", "code:interact", "pdb:run", "cProfile:run",
    "timeit:timeit", "pydoc:locate", "pkgutil:resolve_name", "ctypes:CDLL", "webbrowser:open", "operator:attrgetter", "functools:partial",
    "unittest.mock:patch", "tempfile:_os.system", "asyncio:create_subprocess_shell", "multiprocessing.pool:Pool", "this:c",
    "antigravity:fly",
    # the four dependencies, and this library
    "eventsourcing.utils:resolve_topic", "eventsourcing.utils:get_topic", "msgpack:unpackb", "msgpack.fallback:Unpacker", "aiofiles:open",
    "aiofiles.os:remove", "structlog:configure", "structlog._config:get_config", "symphony_es.lazy:import_module",
    "symphony_es.testing.restarted:restore", "symphony_es.registry:invoke",
    # ways around the rule
    f"{PLANTED}:fire", f"{PLANTED}:Class", "tests.application:Customer.__init__", "tests.application:field", "__main__:command_line",
    "tests.acceptance.naming_code:Symphony", "sys:modules", "..os:system", "os:", ":system", "os:system.__call__", "os.path:os.system",
]  # fmt: skip
WATCHED = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pty.spawn", "webbrowser.open")

ran: list[str] = []
tried: Counter[str] = Counter()
watching = False


@entity
class Decoy:
    """What a stranger's log says has a part of some class."""

    id: str = ""
    what: Any = None


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Note what runs commands, and each module that begins to be imported."""
    if watching and event in WATCHED:
        ran.append(f"{event} {arguments!r:.200}")
    if watching and event == "import" and not str(arguments[0]).startswith("symphony_es"):
        ran.append(f"import of {arguments[0]}")


def payload(proof: Path) -> dict[str, Any]:
    """A mapping that makes a gadget which gets it write a file."""
    command = f"echo ran > {proof}"
    formatter = {"()": "os.system", "command": command}
    return {"version": 1, "disable_existing_loggers": False, "formatters": {"f": formatter}, "args": command, "command": command}


async def attempt(channel: str, name: str, call: Callable[[], Awaitable[Any]], *, allowed: type[BaseException] = SymphonyError) -> None:
    """Try one name in one place; an error of the library is an answer."""
    tried[channel] += 1
    with contextlib.suppress(allowed):
        found = await call()
        if channel in MUST_REFUSE:
            ran.append(f"{channel} took {name}: {found!r:.100}")


MUST_REFUSE = {"function", "nested", "retry predicate", "step kind", "model", "tool of a task"}


def definition(name: str, step: dict[str, Any], proof: Path, **settings: Any) -> WorkflowDefinition:
    """A definition as a stranger writes it: a text."""
    return WorkflowDefinition.from_json(json.dumps({"name": "innocent", "steps": [step], "context": payload(proof), **settings}))


async def definitions(name: str, number: int, proof: Path) -> None:
    """The name wherever a definition has room for one."""
    call = {"kind": "function", "name": "call", "function": name}
    harmless = {"kind": "function", "name": "call", "function": "harmless"}
    nested: list[dict[str, Any]] = [
        {"kind": "sequence", "name": "outer", "steps": [call]},
        {"kind": "parallel", "name": "outer", "branches": [[call]]},
        {"kind": "map", "name": "outer", "items": [1], "steps": [call]},
        {"kind": "loop", "name": "outer", "steps": [call], "max_iterations": 1},
        {"kind": "conditional", "name": "outer", "condition": "true", "then": [call]},
        {**harmless, "undo": name},
    ]
    async with Symphony() as symphony:
        symphony.functions.register("harmless", lambda context: 1)

        def run(step: dict[str, Any], **settings: Any) -> Callable[[], Awaitable[Any]]:
            async def go() -> Any:
                return await symphony.workflows.execute_workflow(definition(name, step, proof, **settings))

            return go

        await attempt("function", name, run(call))
        await attempt("nested", name, run(nested[number % len(nested)]))
        await attempt("clean-up", name, run({**harmless, "function": "unknown"}, cleanup=[call]))
        await attempt("retry predicate", name, run({**harmless, "retry": {"max_attempts": 2, "when": name}}))
        await attempt("error class", name, run({**harmless, "retry": {"on": [name.replace(":", ".")], "never_on": [name]}}))
        await attempt("step kind", name, run({"kind": name, "name": "call"}))
        await attempt("model", name, run({"kind": "task", "name": "call", "task": "x", "model": name, "prompt": "x"}))
        await attempt("child run", name, run({"kind": "workflow", "name": "call", "workflow_id": name}))
        await attempt("context", name, run(harmless, metadata={"function": name, "restorer": name}))
        dotted = name.replace(":", ".")
        await attempt("template", name, run({**harmless, "inputs": {"a": f"{{{{ {dotted}('id') }}}}", "b": f"{{{{ {name} }}}}"}}))
        await attempt("condition", name, run({"kind": "conditional", "name": "c", "condition": f"{dotted}(command)", "then": [harmless]}))


def event(key: str, name: str, changes: Any, data: Any = None) -> NewEvent:
    """An event of a stranger."""
    who, called = EventMetadata(actor=name, reason=name), re.sub(r"\W", "_", name)
    return NewEvent(
        entity_key=key, version=1, name=called, changes=changes, metadata=who, event_id=os.urandom(16), transaction_id=None, data=data
    )


async def write_hostile_log(place: Path, proof: Path, names: list[str]) -> None:
    """A stranger's log: runs that go on with a gadget, and entities whose parts, values and enums are of gadgets."""
    async with Symphony(place) as attacker:
        for number, name in enumerate(names):
            attacker.functions.register(name, lambda context: "the stranger's own")
            wait = {"kind": "wait", "name": "wait", "signal": "go"}
            call = {"kind": "function", "name": "call", "function": name, "retry": {"max_attempts": 2, "when": name}}
            told = {"name": name or "unnamed", "steps": [wait, call], "context": payload(proof)}
            await attacker.workflows.start(WorkflowDefinition.from_dict(told), run_id=f"run-{number}")
        await attacker.flush()
        head = []
        for number, name in enumerate(names):
            kinds = [
                Tagged("enum", name, "A", value=str(proof)),
                Tagged("part", name, payload(proof)),
                Tagged("value", name, payload(proof)),
            ]
            for kind in (*kinds, Tagged("value", f"{name}[os:system, int]", payload(proof))):
                state = {"what": kind}
                key = f"Decoy:{number}-{len(head)}"
                head.append(event(key, name, [(0, (), state)]))
        await attacker.log.append(head)


async def recover(place: Path, channel: str) -> None:
    """What an application does with a log that it is handed: opens it, restores it, takes its runs up."""
    async with Symphony(place) as victim:
        report = await victim.resume()
        recovered = await victim.workflows.recover(wait=False)
        for left in recovered.missing:
            tried[f"{channel}, run"] += 1
            if not any(left.name in each for each in left.missing):
                ran.append(f"{left.run_id} does not say what it lacks: {left.missing}")
        for handle in recovered.handles:
            ran.append(f"{handle.run.name} goes on")
        for decoy in victim.entities.all("Decoy"):
            tried[f"{channel}, class"] += 1
            if not isinstance(decoy, UnrestoredEntity):
                ran.append(f"made an object: {decoy!r:.200}")
        view = await victim.at("latest")
        for key in list(report.unrestored)[:5]:
            view[key]


async def exports(place: Path) -> None:
    """The log as JSON lines, taken in elsewhere."""
    async with Symphony(place, read_only=True) as reader:
        await export_jsonl(reader.log, place.with_suffix(".jsonl"))
    await import_jsonl(place.with_suffix(".jsonl"), place.with_suffix(".imported"))
    await recover(place.with_suffix(".imported"), "import")


def golden_file() -> None:
    """Events of the golden file, with gadgets in the places of the names that they have."""
    for number, name in enumerate(GADGETS):
        tried["golden file"] += 1
        position, key, version, topic, state = ROWS[number % len(ROWS)]
        fold = Fold()
        with contextlib.suppress(SymphonyError):
            fold.apply_event(decode_row((position, key, version, name, state)))  # the name in the place of the event's own
        made = event(
            f"Decoy:g{number}", topic, [(0, (), {"what": Tagged("part", name, {"a": name})})], {name: Tagged("enum", name, "A", value=1)}
        )
        body = encode_body(made, bytes(16))
        stored = seal_state(number + 1, made.entity_key, 1, made.name, made.event_id, 1_700_000_000_000_000_000, body)
        Fold().apply_event(decode_row((number + 1, made.entity_key, 1, made.name, stored)))


async def read_models(place: Path, scratch: Path) -> None:
    """A read model whose file names gadgets as the projection that has built it, and in its rows."""
    async with Symphony(place) as writer:
        for number, name in enumerate(GADGETS[::20]):
            tried["file of a read model"] += 1
            directory = scratch / f"projections-{number}"
            for step in ("built", "read again"):
                async with ProjectionRunner(writer.log, directory) as runner:
                    runner.add(AuditTrail())
                    runner.start()
                    await runner.wait_for(writer.log.head, timeout_s=60)
                if step == "built":
                    for file in directory.rglob("*.db"):
                        rename(file, name)


def rename(file: Path, name: str) -> None:
    """Put a gadget in place of each text that a read model's file has about itself."""
    with contextlib.closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE projection_progress SET name = ?, updated = ?", (name, name))
        row = (0, name, name, name, name, name)
        db.execute("INSERT OR REPLACE INTO projection_parked VALUES (?, ?, ?, ?, ?, ?, 1)", row)


def run_command(*arguments: str) -> tuple[int, str]:
    """One command of the command line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return command_line(list(arguments)), said.getvalue()
    except SystemExit as ended:
        return int(ended.code or 0), said.getvalue()


def commands(place: Path, names: list[str]) -> None:
    """Each gadget as an argument of commands; the one option by which a person names the application is not among them."""
    for number, name in enumerate(names):
        told = [
            ["show", f"Decoy:{name}"], ["entities", name], ["at", name], ["history", name], ["blame", "Decoy:0-0", name],
            ["diff", name, "latest"], ["runs", "--status", name], ["run", name], ["audit", "--event", name], ["log", "--entity", name],
            ["types", "--at", name], ["retry", "--name", name, "--dry-run"], [name], ["checkpoints", "--name", name],
            ["types", "--import", name],
        ]  # fmt: skip
        for arguments in (told[number % len(told)], told[(number * 7 + 3) % len(told)]):
            tried["command"] += 1
            run_command("--state-dir", str(place), *arguments)


async def requests(place: Path) -> None:
    """Files in the inbox that ask for gadgets as verbs, runs, signals and payloads."""
    async with Symphony(place) as victim:
        await victim.resume()
        inbox = place / "inbox"
        inbox.mkdir(exist_ok=True, mode=0o700)
        for number, name in enumerate(GADGETS):
            tried["request"] += 1
            told = {"verb": "signal", "run": f"run-{number}", "arguments": {"name": name, "payload": {"function": name}}}
            asked = [told, {**told, "verb": name}, {"verb": "retry", "run": f"run-{number}", "arguments": {"from_step": name}}][number % 3]
            (inbox / f"request-{number}").write_text(json.dumps({"format": 1, **asked, "actor": name, "reason": name}))
        await victim.close()


def load_everything() -> None:
    """Import all of the library, and what it imports late, so that a module which comes later was named by somebody."""
    for package in (symphony_es, symphony_es_projections):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    late = ("difflib", "zoneinfo", "traceback", "annotationlib" if sys.version_info >= (3, 14) else "inspect", "fractions", "csv", "ctypes")
    for name in late:
        importlib.import_module(name)


async def main(scratch: Path, each: int) -> None:
    """Go through all of it twice: the first round loads what the library and Python load late, the second one is looked at."""
    global watching
    proof = scratch / "proof"
    (scratch / f"{PLANTED}.py").write_text(
        f"import pathlib\npathlib.Path({str(proof)!r}).write_text('imported')\ndef fire(context): pass\n"
    )
    sys.path.insert(0, str(scratch))
    load_everything()
    before: set[str] = set()
    for number in (1, 2):
        place = scratch / f"log-{number}"
        watching = number == 2
        if watching:
            before = set(sys.modules)
            tried.clear()
        names = GADGETS[:: each if watching else 10]
        for index, name in enumerate(names):
            await definitions(name, index, proof)
        watching_now, watching = watching, False
        await write_hostile_log(place, proof, GADGETS if watching_now else names)
        watching = watching_now
        await recover(place, "log")
        await exports(place)
        golden_file()
        await read_models(place, scratch / f"models-{number}")
        await asyncio.to_thread(commands, place, names)
        await requests(place)
        await recover(place, "log after requests")
    watching = False
    told = {"ran": ran, "tried": tried, "imported": sorted(set(sys.modules) - before), "proof": proof.exists()}
    print(json.dumps(told))


if __name__ == "__main__":
    sys.addaudithook(watch)
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
