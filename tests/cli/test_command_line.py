"""Every command, on a log that another process is writing, without the application's classes, and with what goes wrong."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import runpy
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.cli import output
from symphony_es.cli.advice import in_words_of_the_command_line
from symphony_es.cli.main import build_parser, main
from symphony_es.core.past.moment_texts import read_moment
from symphony_es.errors import (
    AnchorMismatchError,
    CheckpointNotFoundError,
    CleanupUnfinishedError,
    DamagedEventError,
    EntityDamagedError,
    RunBlockedError,
)
from symphony_es.events.paths import ABSENT
from tests.application import Customer
from tests.cli.document import EXAMPLES, answer, command_names, make_log, render
from tests.interrupts import heed_interrupts

ROOT = Path(__file__).parents[2]
WRITER = """
import asyncio, itertools, sys
from symphony_es import Symphony
from tests.application import Customer

async def work():
    async with Symphony({"state_dir": sys.argv[1]}, persistence_enabled=True) as symphony:
        async def append(number):
            customer = symphony.entities.add(Customer(id=f"w{number}"))
            for count in itertools.count():
                async with symphony.transaction("Counted", actor=f"writer-{number}"):
                    customer.notes["n"] = customer.notes.get("n", 0) + 1
                if count > 2000:  # at full speed to here: a log that grows by the minute would make each command longer than the one before
                    await asyncio.sleep(0.01)
        await symphony.create_checkpoint("begun")
        print("ready", flush=True)
        await asyncio.gather(*(append(number) for number in range(4)))

asyncio.run(work())
"""
READING = [
    "runs", "run order-1", "log --limit 5", "tail -n 3", "entities", "entities Customer", "show Customer:ada", "show Customer:w1",
    "at begun", "history Customer:ada", "blame Customer:ada name", "diff begun latest", "checkpoints", "rewind begun --dry-run",
    "audit --actor writer-1", "audit --following 1", "audit --entity Customer:ada --newest-first", "stats", "doctor", "verify",
    "prune --dry-run",
]  # fmt: skip


def run(command: str, state_dir: Path | None, *, cwd: Path | None = None, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which knows nothing of the tests' classes."""
    environment = {name: value for name, value in os.environ.items() if name != "SYMPHONY_STATE_DIR"}
    given = ["--state-dir", str(state_dir)] if state_dir is not None else []
    return subprocess.run(
        [sys.executable, "-P", "-m", "symphony_es.cli", *command.split(), *given],
        capture_output=True, text=True, timeout=timeout, cwd=cwd, env=environment, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("module", ["symphony_es", "symphony_es.cli"])
def test_the_command_line_is_what_the_package_does_as_a_program(module: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """`python -m symphony_es` is `symphony-es`."""
    monkeypatch.setattr(sys, "argv", [module, "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code in (0, None)
    assert capsys.readouterr().out.startswith("symphony-es ")


@pytest.mark.parametrize("command", ["checkpoints", "runs", "doctor", "stats", "prune --dry-run", "rewind named --dry-run"])
def test_a_directory_may_be_named_by_a_relative_path(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What stands beside the log is found by whatever way leads to it from the working directory."""

    async def make() -> None:
        async with Symphony(tmp_path / "state") as symphony:
            symphony.entities.add(Customer(id="ada"))
            await symphony.create_checkpoint("named")
            await symphony.list_checkpoints()
            await symphony.workflows.list_runs()

    asyncio.run(make())
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), "--state-dir", "state"]) == 0
    assert not capsys.readouterr().err


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A log that another process writes at full speed."""
    directory = tmp_path_factory.mktemp("written")
    asyncio.run(make_log(directory / "state"))
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory / "state")],
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        yield directory
        assert writer.poll() is None, "the writer went on all the time"
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()  # type: ignore[union-attr]


ANSWERS = """
import contextlib, io, json, sys
from symphony_es.cli.main import main

for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def answering() -> Iterator[subprocess.Popen[str]]:
    """A process that answers one command after another, and cannot import the application."""
    process = subprocess.Popen([sys.executable, "-P", "-c", ANSWERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("command", READING)
def test_reading_commands_work_beside_a_writer(written: Path, answering: subprocess.Popen[str], command: str) -> None:
    """At full speed, as tables and as JSON, in a process that cannot import the application."""
    assert answering.stdin is not None
    assert answering.stdout is not None
    for form in ([], ["--json"]):
        print(json.dumps([*command.split(), *form, "--state-dir", str(written / "state")]), file=answering.stdin, flush=True)
        code, out, err = json.loads(answering.stdout.readline())
        beside = [line for line in err.splitlines() if not (form and line.startswith("symphony-es: the next page: "))]
        assert (code, beside) == (0, [])
        lines = out.splitlines()
        assert lines or form
        if form:
            assert all(isinstance(json.loads(line), dict) for line in lines)


@pytest.mark.parametrize("command", ["export {}/events.jsonl", "export {}/events.csv", "export {}/events.ndjson", "backup {}/backup"])
def test_a_log_is_copied_beside_a_writer(written: Path, tmp_path: Path, command: str) -> None:
    """Exports and backups of a log that grows are whole; what they give can be read again."""
    ended = run(command.format(tmp_path), written / "state")
    assert (ended.returncode, ended.stderr) == (0, "")
    if "jsonl" in command:
        assert run(f"import {tmp_path}/events.jsonl {tmp_path}/imported", None).returncode == 0
        assert run("verify", tmp_path / "imported").returncode == 0
    if "backup" in command:
        assert run(f"restore {tmp_path}/backup {tmp_path}/restored", None).returncode == 0
        assert run("verify --fold", tmp_path / "restored").returncode == 0


def test_a_fork_is_made_beside_a_writer(written: Path, tmp_path: Path) -> None:
    """Only the new log is written."""
    assert run(f"fork {tmp_path}/fork --at begun", written / "state").returncode == 0
    assert "Customer" in run("entities", tmp_path / "fork").stdout


@pytest.mark.parametrize("given", ["tail --follow -n 3", "tail --follow --json -n 3"])
def test_tail_ends_with_its_reader(written: Path, given: str) -> None:
    """As in `tail --follow | head -1`: also where no event comes that would tell."""
    following = subprocess.Popen(
        [sys.executable, "-P", "-m", "symphony_es.cli", *given.split(), "--state-dir", str(written / "state")], stdout=subprocess.PIPE
    )
    try:
        assert following.stdout is not None
        assert following.stdout.readline()
        following.stdout.close()
        assert following.wait(60) == 0
    finally:
        following.kill()
        following.wait()


def test_tail_follows(written: Path) -> None:
    """New events come as they are appended, until the reader is interrupted."""
    following = subprocess.Popen(
        [sys.executable, "-m", "symphony_es.cli", "tail", "-f", "-n", "1", "--event", "Counted", "--state-dir", str(written / "state")],
        stdout=subprocess.PIPE, text=True, preexec_fn=heed_interrupts,
    )  # fmt: skip
    try:
        assert following.stdout is not None
        positions = [int(following.stdout.readline().split()[0]) for _ in range(20)]
        assert positions == sorted(set(positions))
        following.send_signal(2)
        following.stdout.read()  # what it has written before it noticed: it ends when that is read
        assert following.wait(60) == 130
    finally:
        following.kill()
        following.stdout.close()  # type: ignore[union-attr]
        following.wait()


@pytest.mark.parametrize("command", ["rewind 1", "checkpoints create x", "checkpoints delete named", "prune"])
def test_what_writes_is_refused_beside_a_writer(written: Path, command: str) -> None:
    """One process writes a log; the other one is told so."""
    ended = run(command, written / "state")
    assert ended.returncode == 4
    assert "symphony-es: " in ended.stderr


def test_a_live_writer_takes_requests(written: Path) -> None:
    """Another process at full speed, in which the run is not live: it is done once, and answered again under the same id."""
    asked = [run("signal order-1 note --payload 5 --request-id ticket --timeout-s 60 --json", written / "state") for _ in range(2)]
    assert [(ended.returncode, json.loads(ended.stdout)["done"]) for ended in asked] == [(0, True)] * 2
    told = run("audit --correlation ticket --event WorkflowSignalReceived --json", written / "state").stdout.splitlines()
    assert [json.loads(line)["entity"]["id"] for line in told] == ["order-1"]
    refused = run("pause order-1 --timeout-s 60", written / "state")
    assert (refused.returncode, "cannot become paused" in refused.stderr) == (6, True)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A directory with the small log of the examples."""
    asyncio.run(make_log(tmp_path / "state"))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("show Customer:nobody", 3, "there is no entity Customer:nobody"),
        ("show Customer", 2, "is not a valid"),
        ("run nothing", 3, "Workflow:nothing"),
        ("at 999", 3, "its head is"),
        ("at never", 3, "never"),
        ("diff 2026-99-99", 2, "is no time"),
        ("blame Customer:ada name..x", 2, "is no path"),
        ("checkpoints delete nothing", 3, "nothing"),
        ("checkpoints delete", 2, "name the checkpoint"),
        ("checkpoints create x --metadata nonsense", 2, "is no JSON"),
        ("audit --since tomorrow", 2, "is no time"),
        ("audit --following 1 --actor x", 2, "question of its own"),
        ("audit --transaction x", 2, "event id"),
        ("audit --following 1 --since 2026-01-01", 2, "question of its own"),
        ("audit --following 1 --after 0", 2, "question of its own"),
        ("audit --following 1 --newest-first", 2, "question of its own"),
        (f"audit --following {10**30}", 3, "its head is"),
        (f"history Customer:ada --after-version {10**30}", 0, ""),
        (f"audit --limit {10**30}", 0, "Customer:ada"),
        ("log --entity nonsense", 2, "is not a valid entity key"),
        ("tail --entity nonsense --follow", 2, "is not a valid entity key"),
        ("log --event \udcff", 2, "is not a valid event name"),
        ("log --event TaskCompleted!", 2, "is not a valid event name"),
        ("diff 0 --entity Customer:nobody", 3, "there is no entity Customer:nobody"),
        (f"blame Customer:ada notes[{'9' * 5000}]", 2, "is no path"),
        (f"stats --state-dir {'n' * 300}", 4, "File name too long"),
        ("fork DIR/state", 6, "is not empty"),
        ("checkpoints create 2", 2, "could never be meant"),
        ("checkpoints create latest", 2, "could never be meant"),
        ("checkpoints create 2026-13-13", 2, "could never be meant"),
        ("checkpoints named", 2, "invalid choice"),
        ("checkpoints list named", 2, "--name NAME"),
        ("checkpoints delete named --at 1", 2, "a new checkpoint"),
        ("log --limit x", 2, "no whole number"),
        ("log --after -5", 3, "no checkpoint"),
        ("audit --limit -1", 2, "no whole number"),
        ("export DIR/x.jsonl --until 999", 3, "its head is"),
        ("types --app no.such.module", 2, "cannot be imported"),
        ("nonsense", 2, "invalid choice"),
        ("rnus", 2, "did you mean runs?"),
        ("runs --stauts failed", 2, "did you mean --status"),
        ("runs --status faild", 2, "did you mean failed"),
        ("runs --since tomorrow", 2, "is no time"),
        ("show Customer:Ada", 3, "did you mean Customer:ada?"),
        ("show customer:ada", 3, "did you mean Customer?"),
        ("blame Customer:ada nmae", 3, "did you mean name?"),
        ("at nmaed", 3, "`symphony-es checkpoints` lists those there are; did you mean named?"),
        ("run Order-1", 3, "did you mean Workflow:order-1?"),
        ("pause order-11", 3, "did you mean Workflow:order-1?"),
        ("pause order-1 --timeout-s -1", 2, "no number of seconds"),
        ("pause order-1 --request-id ../x", 2, "is not an id of a request"),
        ("signal order-1 x --payload yes", 2, "is no JSON"),
        ('signal order-1 x --payload {"ok":true,"ok":false}', 2, "the key 'ok' is there twice"),
        ('signal order-1 x --payload [{"a":{"ok":1,"ok":1}}]', 2, "the key 'ok' is there twice"),
        ("signal order-1 x --payload NaN", 2, "JSON has no NaN"),
        ("signal order-1 x --payload [1e999]", 2, "larger than a float"),
        ('checkpoints create x --metadata {"ok":true,"ok":false}', 2, "the key 'ok' is there twice"),
        ('checkpoints create x --metadata {"ok":-Infinity}', 2, "JSON has no -Infinity"),
        ("retry", 2, "name a run"),
        ("retry order-1 --status failed", 2, "leave one of them out"),
        ("retry --status failed --request-id x", 2, "names one request"),
        ("log --event CustomerRenamd", 0, "no events; did you mean --event CustomerRenamed"),
        ("tail --event CustomerRenamd", 0, "no events; did you mean --event CustomerRenamed"),
        ("audit --event CustomerRenamd", 0, "no events; did you mean --event CustomerRenamed"),
        ("audit --event CustomerRenamed --actor nobody-at-all", 0, "no events\n"),
        ("export - --format changes --event CustomerRenamd", 0, "no changes; did you mean --event CustomerRenamed"),
        ("log --entity Customer:adaa", 3, "did you mean Customer:ada?"),
        ("tail --entity Customer:adaa --json", 3, "did you mean Customer:ada?"),
        ("audit --entity Customer:adaa", 3, "did you mean Customer:ada?"),
        ("checkpoints --run order-11", 3, "did you mean Workflow:order-1?"),
        ("entities Custmer", 3, "did you mean Customer?"),
        ("at named --type Custmer", 3, "did you mean Customer?"),
        ("retry order-1 --dry-run", 0, "1 run would be tried again"),
        ("retry order-1 --step ship --dry-run", 0, "1 run would be tried again"),
        ("retry order-1 --step shp --dry-run", 6, "would be refused: run order-1 has not begun a step 'shp'; did you mean ship?"),
        ("retry order-11 --dry-run", 3, "did you mean Workflow:order-1?"),
        ("retry --name ordr --dry-run", 0, "no runs; did you mean order?"),
        ("prune-runs --older-than 0s --name ordr --dry-run", 0, "0 runs would be pruned; did you mean order?"),
        ("export DIR/named.jsonl --overwrite --until 999", 3, "its head is"),
        ("", 2, "usage: symphony-es"),
    ],
)
def test_what_goes_wrong_is_said_with_an_exit_code(log: Path, command: str, code: int, said: str) -> None:
    """On one line, without a traceback."""
    text, ended = answer(command, log)
    assert ended == code
    assert said in text
    assert "Traceback" not in text


@pytest.mark.parametrize("command", ["runs", "retry", "checkpoints", "prune-runs", "history"])
def test_near_misses_are_options_of_the_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An option of other commands is told with what this one has, never with itself; the usage is that of the command."""
    parsers = build_parser().commands
    own = {option for option in parsers[command]._option_string_actions if option.startswith("--")}
    others = {option for parser in parsers.values() for option in parser._option_string_actions if option.startswith("--")} - own
    assert others
    for option in sorted(others):
        with pytest.raises(SystemExit):
            parsers[command].refuse([option, "x"])
        usage, _, said = capsys.readouterr().err.partition(f"unrecognized arguments: {option} x")
        assert f"usage: symphony-es {command}" in usage
        assert set(re.findall(r"--[a-z-]+", said)) <= own


def test_the_first_and_the_last_events_up_to_a_position(log: Path) -> None:
    """With --after the first ones after it, else the last ones."""

    def positions(command: str) -> list[int]:
        lines = answer(f"{command} --json", log)[0].splitlines()
        return [json.loads(line)["position"] for line in lines if not line.startswith("symphony-es: the next page: ")]

    assert positions("log --until 6 --limit 2") == [5, 6]
    assert positions("log --until 3 --limit 2 --entity Customer:ada") == [1, 2]
    assert positions("log --after 2 --until 6 --limit 2") == [3, 4]
    assert positions("log --after 0 --limit 2") == [1, 2]


def test_a_checkpoint_is_made_where_one_can_go_back_to(log: Path) -> None:
    """One without a name says which it was given; the middle of a transaction is refused, and nothing is appended."""
    told = json.loads(answer("checkpoints create --json", log)[0])
    assert told["name"] == f"checkpoint_at_{told['position']}"

    async def together() -> int:
        async with Symphony({"state_dir": log / "state"}, persistence_enabled=True) as symphony:
            async with symphony.transaction("Both"):
                symphony.entities.add(Customer(id="one"))
                symphony.entities.add(Customer(id="two"))
            return symphony.log.head

    last = asyncio.run(together())
    text, code = answer(f"checkpoints create inside --at {last - 1}", log)
    assert (code, "inside the transaction" in text) == (6, True)
    counted = json.loads(answer("stats --json", log)[0])
    assert counted["events"] == last
    assert counted["all_files_bytes"] == sum(path.lstat().st_size for path in log.rglob("*") if not path.is_dir())
    assert counted["all_files_bytes"] > counted["log_bytes"] + counted["snapshot_bytes"], "the note of the head, at least"


PRINTING = ("log", "log --json", "stats", "verify", "doctor --json", "prune --json", "types", "--help", "log --help", "--version", "")


def test_what_cannot_be_printed_is_no_finding(log: Path) -> None:
    """A terminal that has not every character gets escapes; a full disk is 4, and so is no output at all; a reader that has gone is not."""
    program = f"{sys.executable} -P -m symphony_es.cli"

    async def abroad() -> None:
        async with Symphony({"state_dir": log / "state"}, persistence_enabled=True) as symphony:
            symphony.entities.add(Customer(id="é", name="日本"))

    asyncio.run(abroad())
    environment = {**os.environ, "SYMPHONY_STATE_DIR": str(log / "state"), "PYTHONIOENCODING": "ascii"}
    for command, code, said in (
        ("show Customer:é", 0, "\\u65e5"),
        ("log --json | true", 0, ""),
        *((f"{command} >&-", 4, "no standard output") for command in PRINTING),
        *((f"{command} >&- 2>&-", 4, "") for command in PRINTING[:2]),
        *((f"{command} | true; exit ${{PIPESTATUS[0]}}", 0, "") for command in ("log", "--help", "types")),
        ("export - --format csv | true; exit ${PIPESTATUS[0]}", 4, "not whole"),
        ("export - >&-", 2, "no standard output"),
        ("show Customer:nobody 2>&-", 3, ""),
        *((f"{command} > /dev/full", 4, "No space left") for command in (*PRINTING, "export -") if Path("/dev/full").exists()),
    ):
        ended = subprocess.run(["bash", "-c", f"{program} {command}"], env=environment, capture_output=True, text=True, check=False)
        assert (ended.returncode, said in ended.stdout + ended.stderr) == (code, True), (command, ended)
        assert "Traceback" not in ended.stderr
        assert "Exception ignored" not in ended.stderr


def test_values_of_different_types_look_different(capsys: pytest.CaptureFixture[str]) -> None:
    """A text that would be taken for something else stands in quotes; columns stand below each other whatever is in them."""
    for value, shown in (
        (5, "5"), ("5", '"5"'), ("-1.5e3", '"-1.5e3"'), (None, "null"), ("null", '"null"'), (True, "true"), ("true", '"true"'),
        (ABSENT, "-"), ("-", '"-"'), ("", '""'), ([], "[]"), ("[]", '"[]"'), ("2026-11-23", "2026-11-23"), ("Ada", "Ada"),
        ("x" * 100_000, f"{'x' * 59}…"),
    ):  # fmt: skip
        assert output.brief(value) == shown
    output.table(("name", "value"), [("日本", "a"), ("e\u0301", "b"), ("ab", "c")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["name  value", "日本  a", "e\u0301     b", "ab    c"]


class Grade(Enum):
    """What values for people are tried with."""

    HIGH = "h"


@entity
class Product:
    """One of many kinds of values."""

    id: str = ""
    grade: Grade = Grade.HIGH
    price: Decimal = Decimal(0)
    since: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    tags: set[str] = field(default_factory=set)
    text: str = ""
    many: list[int] = field(default_factory=list)


@pytest.fixture
def products(tmp_path: Path) -> Path:
    """A log of a product that is changed, by somebody who writes what a spreadsheet would take for a formula."""

    async def make() -> None:
        async with Symphony({"state_dir": tmp_path / "state"}, persistence_enabled=True) as symphony:
            product = symphony.entities.add(Product(id="p", price=Decimal("9.50"), tags={"b", "a"}, many=list(range(200))))
            await symphony.flush()
            async with symphony.transaction("PriceCut", actor="=cmd|' /C calc'!A0", reason="@sale"):
                product.price, product.text = Decimal("-5"), "+1+1"
            async with symphony.transaction("Renamed", actor="bob"):
                product.text = "日本" * 100
                product.many[0] = -1

    asyncio.run(make())
    return tmp_path


def test_values_are_shown_for_people_and_exact_as_json(products: Path) -> None:
    """No marks of the format in tables: a member's name, a decimal as a number, a time with its zone."""
    text, _ = answer("show Product:p --at 1", products)
    shown = dict(line.split(None, 1) for line in text.splitlines()[1:])
    assert (shown["grade"], shown["price"], shown["since"], shown["tags"]) == ("HIGH", "9.50", "2026-01-02 03:04:05Z", '["a", "b"]')
    for command in ("history Product:p", "blame Product:p price", "at latest", "diff 1 latest", "run p", "log", "audit"):
        assert "$" not in answer(command, products)[0], command
    state = json.loads(answer("show Product:p --at 1 --json", products)[0])["state"]
    assert state["price"] == {"$decimal": "9.50"}
    assert state["grade"]["$enum"].endswith("Grade")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_no_line_wraps(products: Path, columns: int) -> None:
    """However narrow the terminal: columns are cut, and stand below each other where there is no room; `--full` cuts nothing."""
    asyncio.run(_fail(products / "state"))
    commands = (
        "log", "tail", "audit", "entities", "entities Product", "show Product:p", "at latest", "history Product:p",
        "diff 1 latest --events", "blame Product:p text", "runs", "run failed", "checkpoints",
    )  # fmt: skip
    for command in commands:
        text, code = answer(command, products, columns=columns)
        assert code == 0
        wide = [line for line in text.splitlines() if output._width(line) > columns]
        assert not wide, command
        assert "…" in text or command != "show Product:p"
        assert "…" not in answer(f"{command} --full", products, columns=columns)[0], command


async def _fail(directory: Path) -> None:
    async with Symphony({"state_dir": directory}, persistence_enabled=True) as symphony:

        async def fail(context: Any) -> None:
            raise ConnectionError("the carrier does not answer " * 20 + "whatsoever")

        symphony.functions.register("fail", fail)
        steps = [{"kind": "function", "name": "fail", "function": "fail"}]
        await symphony.workflows.execute_workflow({"id": "w", "name": "w", "steps": steps}, auto_checkpoint=False, run_id="failed")


@pytest.mark.parametrize(("environment", "red"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_failed_runs_are_red_where_there_is_a_terminal(log: Path, environment: dict[str, str], red: bool) -> None:
    """Not in a pipe, and not where the user has said so; the columns stay where they are."""
    assert "\x1b" not in answer("runs", log)[0]
    leader, follower = os.openpty()
    try:
        given = {"TERM": "xterm", "COLUMNS": "120", **environment}
        program = [sys.executable, "-P", "-m", "symphony_es.cli", "runs", "--state-dir", str(log / "state")]
        subprocess.run(program, stdout=follower, check=True, env={**os.environ, **given})
        shown = os.read(leader, 10_000).decode()
    finally:
        os.close(leader)
        os.close(follower)
    assert ("\x1b[31mfailed\x1b[0m" in shown) == red
    assert shown.count("\x1b") == 2 * red


def test_blame_says_who_and_why_of_those_that_are_asked_for(log: Path) -> None:
    """Reason, run and step stand beside the change; `--actor` and `--since` choose."""
    text, _ = answer("blame Customer:ada name", log)
    assert [word in text.splitlines()[0] for word in ("actor", "reason", "run/step")] == [True, True, False], "without empty columns"
    assert "married" in text
    assert "ship" in answer("blame Workflow:order-1 failures", log, columns=200)[0].splitlines()[1]
    assert answer("blame Customer:ada name --actor ann --json", log)[0].count("\n") == 1
    assert answer("blame Customer:ada name --since 1h --json", log)[0].count("\n") == 3
    assert answer("blame Customer:ada name --since 2050-01-01", log) == ("no event of those that are asked for has set it\n", 0)


def test_a_run_that_is_stuck_says_where_and_since_when(log: Path) -> None:
    """The steps that are under way; and who has asked what of the owner of the log, where there is none."""

    async def stop() -> None:
        async with Symphony(log / "state") as symphony:
            waits = {"id": "w", "name": "w", "steps": [{"kind": "wait", "name": "approval", "signal": "approved"}]}
            handle = await symphony.workflows.start(waits, auto_checkpoint=False, run_id="stuck")
            async for event in handle.events():
                if event.metadata.step:
                    break

    asyncio.run(stop())
    assert re.search(r"under way +approval since \d{4}-", answer("run stuck", log)[0])
    assert "under way" not in answer("run order-1", log)[0]
    assert "requests wait" not in answer("doctor", log)[0]
    text, code = answer("cancel stuck --reason ticket-9", log)
    assert (code, "nobody has this log open" in text) == (3, True)
    assert "1 request waits in" in answer("doctor", log)[0]


def test_changes_are_exported_for_spreadsheets(products: Path) -> None:
    """A row for each value, with what was there before, who, and why; no cell is a formula, and numbers stay numbers."""
    assert answer("export DIR/c.csv --format changes --type Product", products)[0].startswith("11 changes of 3 events")
    with (products / "c.csv").open(newline="") as file:
        *rows, end = csv.DictReader(file)
    assert (end["time"], end["who"]) == ("end", "11 rows")
    assert {name: rows[0][name] for name in ("who", "why", "entity", "field", "from", "to", "position")} == {
        "who": "", "why": "", "entity": "Product:p", "field": "id", "from": "", "to": "p", "position": "1"
    }  # fmt: skip
    price, text, renamed, item = rows[-4:]
    assert (price["field"], price["from"], price["to"]) == ("price", "9.50", "-5")
    assert (price["who"], price["why"]) == ("'=cmd|' /C calc'!A0", "'@sale")
    assert (text["field"], text["from"], text["to"]) == ("text", "", "'+1+1")
    assert (renamed["from"], renamed["event"]) == ("'+1+1", "Renamed")
    assert (item["field"], item["from"], item["to"]) == ("many[0]", "0", "-1")
    for row in rows:
        assert not any(cell[:1] in "=+-@\t\r" and not cell.lstrip("-").isdigit() for cell in row.values() if cell)


@pytest.mark.parametrize(
    ("conditions", "fields"),
    [
        ("--actor bob --field text", ["text"]),
        ("--event PriceCut", ["price", "text"]),
        ("--entity Product:p --after 1 --field price", ["price"]),
        ("--type Product --after 2 --field text", ["text"]),
        ("--since 2050-01-01", []),
        ("--until 1 --field many", ["many"]),
        ("--run-id nothing", []),
    ],
)
def test_changes_that_are_asked_for(products: Path, conditions: str, fields: list[str]) -> None:
    """Each condition holds for the changes that are written; what was there before is right wherever the export begins."""
    text, code = answer(f"export - --format changes {conditions}", products)
    *rows, end = csv.DictReader(text.splitlines())
    assert (code, [row["field"] for row in rows], end["who"]) == (0, fields, f"{len(fields)} rows")
    if fields == ["text"]:
        assert rows[0]["from"] == "'+1+1"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("export - --format csv --actor bob", 2, "are for --format changes"),
        ("export - --format changes --after 1 --since 1h", 2, "leave one of them out"),
        ("export - --format changes --entity Product:P", 3, "did you mean Product:p?"),
        ("export - --format changes --type Produkt", 3, "did you mean Product?"),
        ("export - --format changes --type Customer", 3, "there are Product"),
    ],
)
def test_conditions_of_an_export_that_make_no_sense(products: Path, command: str, code: int, said: str) -> None:
    """Are refused, and nothing is written."""
    text, ended = answer(command, products)
    assert (ended, said in text) == (code, True), text


def test_runs_that_are_asked_for(log: Path) -> None:
    """By status, name, time, error and number; the newest first, and what is left out is said."""
    asyncio.run(_fail(log / "state"))
    both = ["failed", "order-1"]
    for conditions, found in (
        ("", both), ("--limit 1", ["failed"]), ("--name order", ["order-1"]), ("--name order --name w", both), ("--since 1h", both),
        ("--since 2050-01-01", []), ("--until 2020-01-01", []), ("--status failed", both), ("--status FAILED --error CARRIER", both),
        ("--status running", []), ("--blocked", []), ("--at 7", ["order-1"]), ("--at 7 --status failed", []),
        ("--at 12 --error nothing", []),
        *((f"{at} --error {text}", found) for at in ("", "--at latest") for text, found in (
            ("carrier", both), ("connectionERROR", both), ("Connection", []), ("whatsoever", []),
        )),
    ):  # fmt: skip
        lines = [line for line in answer(f"runs --json {conditions}", log)[0].splitlines() if not line.startswith("symphony-es: 1 more")]
        assert [json.loads(line)["run"] for line in lines] == found, conditions
    assert "1 more: --limit 0 shows all" in answer("runs --limit 1", log)[0]


def test_what_json_has_not_is_json_all_the_same(log: Path) -> None:
    """Numbers that are none, in metadata of a checkpoint that a program has made."""

    async def make() -> None:
        async with Symphony(log / "state") as symphony:
            await symphony.create_checkpoint("odd", {"x": float("nan"), "y": float("inf")})

    asyncio.run(make())
    (line,) = [line for line in answer("checkpoints --json", log)[0].splitlines() if "odd" in line]
    assert json.loads(line, parse_constant=pytest.fail)["metadata"] == {"x": {"$float": "nan"}, "y": {"$float": "inf"}}


def test_advice_is_in_the_words_of_the_command_line(tmp_path: Path) -> None:
    """What errors advise a program to call is a command or an option here, or said to be for the application."""
    for error in (
        CheckpointNotFoundError("x"), RunBlockedError("r", {"message": "m"}), CleanupUnfinishedError("r", "w"),
        EntityDamagedError("Type:id", "damaged"), AnchorMismatchError(1, 2), DamagedEventError(1, "Type:id", "why"),
    ):  # fmt: skip
        text = in_words_of_the_command_line(error)
        for call in re.finditer(r"await |symphony\.\w+|resume\(|recover\(|\w+=True", text):
            assert "application" in text[: call.start()], text


def test_no_log_is_said_with_where_it_was_looked_for(tmp_path: Path) -> None:
    """Nothing is created."""
    (tmp_path / "below").mkdir()
    for state_dir, said in ((tmp_path / "none", "there is no log in"), (None, "and no .symphony in it or above")):
        ended = run("stats", state_dir, cwd=tmp_path / "below")
        assert (ended.returncode, said in ended.stderr) == (4, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["below"]


def test_the_nearest_log_above_is_found(tmp_path: Path) -> None:
    """`.symphony` in a directory above; the environment names another one; the option wins."""
    asyncio.run(make_log(tmp_path / ".symphony"))
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert "Customer" in run("entities", None, cwd=tmp_path / "a" / "b").stdout


def test_the_log_of_the_working_directory_is_found(tmp_path: Path) -> None:
    """Also where that is the log's directory itself, whatever it is called; one named by the option wins."""
    asyncio.run(make_log(tmp_path / "state"))
    asyncio.run(make_log(tmp_path / "other" / ".symphony"))
    assert "Customer" in run("entities", None, cwd=tmp_path / "state").stdout
    assert run("stats --json", tmp_path / "other" / ".symphony", cwd=tmp_path / "state").stdout.count("other") == 1


@pytest.mark.parametrize("command", ["runs", "entities", "checkpoints", "checkpoints create again", "doctor"])
def test_the_directory_may_be_named_before_the_command(log: Path, command: str) -> None:
    """`--state-dir` says the same on either side of the command; the one after it wins."""
    state = str(log / "state")
    for words in (
        f"--state-dir {state} {command}",
        f"--state-dir={state} {command}",
        f"--state-dir {log}/none {command} --state-dir {state}",
    ):
        ended = run(words, None, cwd=log)
        assert ended.returncode in (0, 6 if "create" in command else 0), ended


def test_times_for_people_say_that_they_are_utc(log: Path) -> None:
    """As they stand in a table, the command line takes them as moments, whatever the zone of the machine."""
    for command in (
        "runs",
        "run order-1",
        "log",
        "tail",
        "history Customer:ada",
        "checkpoints",
        "blame Customer:ada name",
        "audit --actor ann",
        "diff 1 2 --events",
    ):
        found = re.findall(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[^\s|,\"]*", answer(command, log)[0])
        assert found, command
        for text in found:
            read = read_moment(text).place
            assert text.endswith("Z"), command
            assert isinstance(read, datetime)
            assert abs(datetime.now(UTC) - read) < timedelta(hours=1)


def test_a_log_in_a_directory_that_cannot_be_written_is_read(log: Path) -> None:
    """All reading commands; nothing new stands beside it."""
    state = log / "state"
    for path in (*state.iterdir(), state):
        path.chmod(0o500 if path.is_dir() else 0o400)
    before = sorted(path.name for path in state.iterdir())
    try:
        for command in ("runs", "log", "entities", "history Customer:ada", "audit --actor ann", "verify", "stats"):
            text, code = answer(command, log)
            assert (code, text != "") == (0, True), text
        if os.geteuid():
            assert sorted(path.name for path in state.iterdir()) == before
    finally:
        state.chmod(0o700)


def test_verify_names_the_first_bad_position_and_exits_with_1(log: Path) -> None:
    """An actor that was edited behind the log's back."""
    with sqlite3.connect(log / "state" / "events.db") as database:
        database.execute("DROP TRIGGER stored_events_no_update")
        (state,) = database.execute("SELECT state FROM stored_events WHERE position = 2").fetchone()
        assert b"ann" in state
        database.execute("UPDATE stored_events SET state = ? WHERE position = 2", (state.replace(b"ann", b"eve"),))
        database.execute(
            "CREATE TRIGGER stored_events_no_update BEFORE UPDATE ON stored_events BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END"
        )
    database.close()
    text, code = answer("verify --json", log)
    assert (code, json.loads(text)["first_bad_position"]) == (1, 2)
    text, code = answer("verify", log)
    assert (code, text.startswith("position 2 (Customer:ada)")) == (1, True)
    text, code = answer("history Customer:ada", log)
    assert (code, "position 2" in text) == (5, True)


def test_text_of_the_log_never_moves_the_cursor(tmp_path: Path) -> None:
    """Control characters in ids and values are written as escapes."""

    async def hostile() -> None:
        async with Symphony({"state_dir": tmp_path / "state"}, persistence_enabled=True) as symphony:
            with symphony.acting_as("evil\x1b[2J", reason="a\nb"):
                symphony.entities.add(Customer(id="x\x1b]0;title\x07", name="\x1b[31mred\r\n"))
                await symphony.flush()

    asyncio.run(hostile())
    for command in ("log", "entities Customer", "at latest", "audit", "tail"):
        text, code = answer(command, tmp_path)
        assert code == 0
        assert not any(ord(character) < 32 and character != "\n" for character in text)


def test_what_is_changed_names_who_changed_it(log: Path) -> None:
    """A rewind from the command line is on record with actor, reason and target."""
    assert answer("rewind named --actor ops --reason oops", log)[1] == 0
    (line,) = answer("tail -n 1 --json", log)[0].splitlines()
    event = json.loads(line)
    assert (event["name"], event["metadata"]["actor"], event["metadata"]["reason"], event["data"]) == ("Rewound", "ops", "oops", {"to": 2})
    assert json.loads(answer("show Customer:ada --json", log)[0])["state"]["name"] == "Ada Byron"


def test_prune_keeps_what_checkpoints_lean_on(tmp_path: Path) -> None:
    """The newest snapshot, and those at or before a checkpoint, stay; every checkpoint still loads."""

    async def grow() -> None:
        async with Symphony({"state_dir": tmp_path / "state"}, persistence_enabled=True) as symphony:
            opened = symphony._opened
            assert opened is not None
            assert opened.snapshotter is not None
            opened.snapshotter.store.keep_fraction = 100
            customer = symphony.entities.add(Customer(id="c"))
            for number in range(4):
                for digit in range(3):  # so much that each snapshot spares a replay much
                    customer.name = f"{number + digit}" * 1000
                await symphony.flush()
                await opened.snapshotter.take(symphony.log.head)
                if number == 1:
                    await symphony.create_checkpoint("kept")

    asyncio.run(grow())
    assert "2 snapshots" in answer("prune --dry-run", tmp_path)[0]
    assert "2 stay" in answer("prune", tmp_path)[0]
    assert answer("show Customer:c --at kept", tmp_path)[1] == 0
    assert "0 snapshots" in answer("prune", tmp_path)[0]


def test_the_document_is_what_the_commands_say() -> None:
    """docs/command-line.md has every command's help and examples of its output: `python -m tests.cli.document` writes it."""
    assert set(EXAMPLES) == command_names()
    with tempfile.TemporaryDirectory() as short:  # a long path would be cut where it stands in a table
        assert (ROOT / "docs" / "command-line.md").read_text() == render(Path(short))


def test_a_command_starts_in_a_moment(log: Path) -> None:
    """What is not needed is not imported: neither the application's facade nor the engine, or structlog."""
    program = (
        "import sys\nfrom symphony_es.cli.main import main\ncode = main(['tail'])\n"
        "heavy = {'symphony_es.app', 'symphony_es.workflow', 'structlog'} & set(sys.modules)\n"
        "sys.exit(f'{code} {heavy}' if heavy or code else 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "SYMPHONY_STATE_DIR": str(log / "state")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
