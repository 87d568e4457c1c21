"""Writes docs/command-line.md: what each command says of itself, and what it answers for a small log.

`python -m tests.cli.document > docs/command-line.md`. A test does the same and compares, so the page is what the commands do. Times, made
ids and paths are replaced by ones that do not change.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from symphony_es import Symphony
from symphony_es.cli.main import build_parser, main
from tests.application import Customer

INTRODUCTION = """# The command line

`symphony-es` asks a log from a terminal: what is, what was, who changed it, and why. It needs none of the application's classes. Reading
commands work on a log that another process is writing, and in a directory that cannot be written. They never write to the log. (SQLite puts
its own `-wal` and `-shm` files beside a database that is read. Where it cannot, on a volume that is mounted for reading say, a log whose
writer has crashed is read from a copy.)

The log is that of `--state-dir DIR`, before or after the command, else of `SYMPHONY_STATE_DIR`. Else it is the working directory itself,
where a log lies in it. Else it is the nearest `.symphony` in the working directory or above it. Every command that lists something has
`--json`, an object on each line; plain data that JSON has not are written as [exporting](exporting.md) says. In tables, a text that reads
as a number, as nothing or as a list stands in quotes. Where an answer was cut, its last line says how to see the rest; with `--json` it
stands on standard error. A range that can hold nothing (`--since` later than `--until`, a day and itself) is refused with 2.

What is printed for people fits the terminal (or `COLUMNS`). Columns are cut where they would wrap, and stand below each other where there
is no room beside each other. `--full` cuts nothing. A member of an enum stands by its name, a decimal as a number. `--json` is exact,
whatever the terminal. Where standard output is a terminal, `failed` and `blocked` are red, unless `NO_COLOR` is set.

Times are UTC and end in `Z`, those that are shown and those that are given without a zone. Tables show them cut to milliseconds or seconds,
so that one copied from there lies before its event: take the position, or the whole time of `--json`. `--since` and `--until` take `30m`,
`2h` or `7d` (so long ago) as well.

A `MOMENT` is `'#42'` (a position), `@2026-11-23T10:00` or `@2h` (a time), `id:…` or `name:…` (a checkpoint), or `latest` (the head), as
[time travel](time-travel.md) says. `#`, `@`, `id:` and `name:` may be left out where a text means one thing in the log; else it is refused,
and the message says what it can mean. In a shell, `#42` needs its quotes.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | `verify` or `doctor` found something wrong; where `doctor` cannot even open the log for damage, that is 5 |
| 2 | the arguments make no sense |
| 3 | what was asked for is not there: an entity, a run, a checkpoint, a position, or somebody who answers a request |
| 4 | the log, or what is written to (standard output, too), cannot be used: there is none, another process writes it, a disk is full |
| 5 | the log is damaged, or a backup or export that was to be taken in |
| 6 | refused, and nothing was changed |
| 130 | interrupted |

`signal`, `cancel`, `pause`, `resume` and `retry` ask the process that has the log open, its owner. So does `prune-runs` where there is one.
They leave a request in `DIR/inbox/`, a file whose name is the request's id. Then they wait for the answer, which is an event in the log
(`symphony.Request:ID`). A live owner takes a request within milliseconds: on Linux the kernel wakes it, elsewhere it looks each second;
nothing is done while nobody asks. It acts as the call of that name does in its process. The events of it have the actor, the reason, and
the request's id as correlation id. So `audit --correlation ID` shows what came of it. `cancel`, `resume` and `retry` are answered when they
are on record, and the run goes on.

A request is carried out once. Asking again under the same `--request-id` changes nothing, and gives the first answer, also years later; of
a signal it is the `signal_id`. Something else under an id that was used, or waits, is refused. When nobody has the log open, or no answer
comes within `--timeout-s`, the request stays for who does it then. The command says so, and ends with 3; `rm` of its file takes it back.
(`retry` of several ends with 3 where one waits, else with 6 where one was refused. With `--dry-run`, of one run or of several, it asks
nothing. It says which would be refused and why, as far as that is on record: a function that the owner lacks is not.) What waits when an
application opens the log is taken up when it has called `recover` or `resume`, or after a second. A request that needs a function which is
not registered there stays for a process that has it. A file that cannot be taken (a link, of another user, not a request) is refused on
record and removed.

What a command costs: `log`, `tail`, `run`, `show`, `history` and `blame` read the events that they show, of one entity where one is named.
`log --event` and `tail --event` read on until there are enough of that name. The log is read by pages of 1,000 events or 8 MiB, whichever
is less. What is printed in the end waits in a temporary file where it is much. `entities` and `stats` count what the nearest snapshot has,
and the events since; `at`, `diff`, `rewind` and `fork` cost the size of the state, however long the log. `runs` costs what has happened
since the application last asked for its list of runs; with `--at`, the size of the state. `audit` costs what it finds where the application
keeps an [audit trail](time-travel.md#audit-queries), and reads the log after the trail's end. Without a trail that is all of it; `audit
--entity` reads that entity's events. `export`, `verify` and `backup` read everything.

The examples below are answers for one small log: a customer who is renamed, and a run with a step that fails.
"""

EXAMPLES: dict[str, list[str]] = {
    "runs": ["runs", "runs --status failed --json"],
    "run": ["run order-1"],
    "log": ["log --limit 4", "log --after 2 --limit 1 --json"],
    "tail": ["tail -n 3 --event CustomerRenamed"],
    "entities": ["entities", "entities Customer"],
    "types": ["types"],
    "show": ["show Customer:ada", "show Customer:ada --at 1"],
    "history": ["history Customer:ada"],
    "blame": ["blame Customer:ada name --since 2h"],
    "diff": ["diff 1 named --entity Customer:ada --events", "diff named"],
    "checkpoints": ["checkpoints", "checkpoints create second --at 2", "checkpoints delete second"],
    "at": ["at named --type Customer"],
    "pause": ["pause order-2 --reason ticket-8"],
    "resume": ["resume order-2", "resume Order-2"],
    "signal": ["signal order-2 note --payload true --request-id ticket-8"],
    "cancel": ["cancel order-2", "cancel order-2 --json"],
    "retry": ["retry --status failed --since 2h --dry-run", "retry order-1"],
    "rewind": ["rewind named --dry-run", "rewind named --actor ann --reason ticket-7"],
    "fork": ["fork DIR/fork --at named"],
    "audit": ["audit --actor ann", "audit --run-id order-1 --event WorkflowStepFailed"],
    "export": ["export DIR/events.jsonl", "export DIR/events.csv --until 3", "export - --format changes --entity Customer:ada --after 1"],
    "import": ["import DIR/events.jsonl DIR/imported"],
    "verify": ["verify"],
    "stats": ["stats"],
    "doctor": ["doctor"],
    "prune": ["prune"],
    "prune-runs": ["prune-runs --older-than 30d --dry-run", "prune-runs --older-than 0s --status cancelled --status failed"],
    "backup": ["backup DIR/backup"],
    "restore": ["restore DIR/backup DIR/restored"],
}
OWNED = ("pause", "resume", "signal", "cancel", "retry")
"""Commands whose answers come from a process that has the log open; they stand beside each other."""


async def make_log(directory: Path) -> None:
    """The small log of the examples."""
    async with Symphony({"state_dir": directory}, persistence_enabled=True) as symphony:
        ada = symphony.entities.add(Customer(id="ada", name="Ada"))
        await symphony.flush()
        async with symphony.transaction("CustomerRenamed", actor="ann", reason="married"):
            ada.name = "Ada Byron"
        await symphony.create_checkpoint("named")
        async with symphony.transaction("CustomerRenamed", actor="bob"):
            ada.name = "Lady Lovelace"

        async def ship(context: Any) -> None:
            raise ConnectionError("the carrier does not answer")

        async def pack(context: Any) -> dict[str, int]:
            return {"parcels": 2}

        symphony.functions.register("pack", pack)
        symphony.functions.register("ship", ship)
        steps = [{"kind": "function", "name": name, "function": name} for name in ("pack", "ship")]
        await symphony.workflows.execute_workflow(
            {"id": "order", "name": "order", "steps": steps}, {"customer": "ada"}, auto_checkpoint=False, run_id="order-1"
        )


@contextlib.contextmanager
def owner(directory: Path) -> Iterator[None]:
    """The application, at work in another thread: its carrier answers by now, and another order waits."""
    symphony = Symphony(directory)

    async def begin() -> None:
        await symphony.setup()
        symphony.functions.register("pack", lambda context: {"parcels": 2})
        symphony.functions.register("ship", lambda context: "shipped")
        waits = {"id": "approve", "name": "approve", "steps": [{"kind": "wait", "name": "approval", "signal": "approved"}]}
        await symphony.workflows.start(waits, auto_checkpoint=False, run_id="order-2")

    with symphony.portal() as portal:
        portal.call(begin)
        yield
        portal.call(symphony.close)


def answer(command: str, directory: Path, *, columns: int = 100) -> tuple[str, int]:
    """What a command prints, and its exit code; run in this process."""
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    environment = {"COLUMNS": str(columns), "SYMPHONY_STATE_DIR": str(directory / "state"), "USER": "ann"}
    words = [word.replace("DIR", str(directory)) if word.startswith("DIR/") else word for word in command.split()]
    with mock.patch.dict(os.environ, environment), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            code = main(words)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return printed.buffer.getvalue().decode(), code  # type: ignore[attr-defined]


def steady(text: str, directory: Path) -> str:
    """An answer with what differs from one machine and moment to the next replaced."""
    for pattern, replacement in (
        (re.escape(str(directory)), "DIR"),
        (r"\d{4}-\d\d-\d\d([ T])\d\d:\d\d:\d\d(\.\d{9}Z)", r"2026-11-23\g<1>10:00:00.000000000Z"),
        (r"\d{4}-\d\d-\d\d([ T])\d\d:\d\d:\d\d\.\d{6}", r"2026-11-23\g<1>10:00:00.000000"),
        (r"\d{4}-\d\d-\d\d([ T])\d\d:\d\d:\d\d\.\d{3}(?!\d)", r"2026-11-23\g<1>10:00:00.000"),
        (r"\d{4}-\d\d-\d\d([ T])\d\d:\d\d:\d\d(?!\.)", r"2026-11-23\g<1>10:00:00"),
        (r"\b0[0-9a-v]{25}\b|(?<=_)0[0-9a-v]{25}\b", "01k85g1jq2f62b9uvald6sr2j3"),
        (r"sha256 [0-9a-f]{64}", "sha256 6b1f…"),
        (r"\d[\d,]* MiB free", "80,000 MiB free"),
        (r"is on \S+", "is on ext4"),
        (r"Python [\d.]+\S*, SQLite [\d.]+", "Python 3.11.7, SQLite 3.40.1"),
        (r"(log bytes +|log of )[\d,]+", r"\g<1>32,768"),
        (r"(all files bytes +)[\d,]+", r"\g<1>65,536"),
        (r"write-ahead file has [\d.]+", "write-ahead file has 0.0"),
    ):
        text = re.sub(pattern, replacement, text)
    return "\n".join(line.rstrip() for line in text.splitlines())


def render(directory: Path) -> str:
    """The whole page."""
    asyncio.run(make_log(directory / "state"))
    parts = [INTRODUCTION]
    with contextlib.ExitStack() as stack:
        for name, examples in EXAMPLES.items():
            if name == OWNED[0]:
                stack.enter_context(owner(directory / "state"))
            parts += _section(name, examples, directory)
            if name == OWNED[-1]:
                stack.close()
    return "\n".join(parts)


def _section(name: str, examples: list[str], directory: Path) -> list[str]:
    """What is said of one command."""
    parts = [f"## {name}\n\n```text\n{steady(answer(f'{name} --help', directory)[0], directory)}\n```\n"]
    for example in examples:
        text, code = answer(example, directory)
        ending = "" if code == 0 else f"\n(exit code {code})"
        parts.append(f"```text\n$ symphony-es {example}\n{steady(text, directory)}{ending}\n```\n")
    return parts


def command_names() -> set[str]:
    """All commands there are."""
    (commands,) = (action for action in build_parser()._actions if action.choices is not None)
    return set(commands.choices or ())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write(render(Path(scratch)))
