"""One text, one moment: what a position, a time, and the id or name of a checkpoint are in the API and on the command line."""

from __future__ import annotations

import argparse
import asyncio
import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony_es import Symphony, entity
from symphony_es.cli.commands.registry import moment, past_time
from symphony_es.cli.main import build_parser, main
from symphony_es.core.past import checkpoints as checkpoint
from symphony_es.core.past.audit import Audit
from symphony_es.core.past.checkpoints import CheckpointReader
from symphony_es.core.past.moment_texts import ReadMoment, looks_like_a_moment, read_checkpoint, read_moment, read_time
from symphony_es.core.past.time_travel import TimeTravel
from symphony_es.errors import AmbiguousMomentError, CheckpointNotFoundError, ConfigurationError, PositionNotFoundError
from symphony_es.facades.entities import Entities
from symphony_es.facades.requests import Requests
from symphony_es.facades.runs import RunRequests

NAMES = ("2", "0002", "99999", "latest", "2026-01-01", "2026-01-01T10:00+01:00", "2h", "before")
"""Names of checkpoints; all but the last one mean something else as well."""
PREFIXED = ("#5", "@x", "@2026-01-01", "id:2", "name:before", "name:name:x", "#latest")
"""Names that begin as a prefix does: without `name:` they mean what the prefix says."""


@entity
class OfAMoment:
    id: str = ""
    n: int = 0


def ambiguous(name: str) -> bool:
    return name in NAMES[:-1]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log whose checkpoints have names that nobody can give them today."""
    directory = tmp_path_factory.mktemp("moments") / "state"

    async def write() -> None:
        async with Symphony({"state_dir": directory}, persistence_enabled=True) as symphony:
            one = symphony.entities.add(OfAMoment(id="1"))
            await symphony.flush()
            for name in (*NAMES, *PREFIXED):
                one.n += 1
                await symphony.create_checkpoint(name)
            made = (await symphony.list_checkpoints(name="before"))[0]["id"]
            one.n += 1
            await symphony.create_checkpoint(made)  # its name is the id of another one
            one.n += 1

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoint, "check_name", lambda name: None)
        asyncio.run(write())
    return directory


def opened(log: Path) -> Symphony:
    return Symphony({"state_dir": log}, persistence_enabled=True, read_only=True)


def told(capsys: pytest.CaptureFixture[str], log: Path, *words: str) -> tuple[int, str]:
    """What the command line answers: its exit code, and all that it has printed."""
    try:
        code = main([*words, "--state-dir", str(log)])
    except SystemExit as ended:
        code = int(ended.code or 0)
    printed = capsys.readouterr()
    return code, printed.out + printed.err


NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("#42", 42), ("42", 42), ("#latest", "latest"), ("latest", "latest"), ("0042", 42), ("#" + "9" * 5_000, int("9" * 640)),
        ("@2026-11-27", datetime(2026, 11, 27, tzinfo=UTC)), ("2026-11-27", datetime(2026, 11, 27, tzinfo=UTC)),
        ("@20261127", datetime(2026, 11, 27, tzinfo=UTC)), ("2026-11-27 17:22", datetime(2026, 11, 27, 17, 22, tzinfo=UTC)),
        ("@2026-11-27T17:22:42+01:00", datetime(2026, 11, 27, 16, 22, 42, tzinfo=UTC)), ("20261127", 20261127),
        ("id:ckpt_x", None), ("name:2026", None), ("before import", None), ("2026-11-27 before import", None), ("-1", None), ("٤٢", None),
        (7, 7), (NOW, NOW),
    ],
)  # fmt: skip
def test_what_a_text_says(text: Any, place: Any) -> None:
    """The table of docs/time-travel.md."""
    read = read_moment(text)
    assert read.place == place
    assert (read.checkpoint_name is not None) == (isinstance(text, str) and text[0] not in "#@" and not text.startswith("id:"))


@pytest.mark.parametrize(("text", "age"), [("2h", 7_200), ("@90s", 90), ("@7d", 604_800), ("1w", 604_800)])
def test_how_long_ago(text: str, age: int) -> None:
    """An age is a time, with the prefix of times and without it, wherever a moment or a time is asked for."""
    for read in (read_moment(text).place, read_time(text)):
        assert isinstance(read, datetime)
        assert abs(datetime.now(UTC) - timedelta(seconds=age) - read) < timedelta(minutes=5)
    assert read_time("@999999999w") == datetime.min.replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["#", "#x", "#-1", "#1.0", "@", "@x", "@2026-13-01", "id:", "name:", True, None, 1.5, b"1", ["1"]])
def test_what_is_no_moment(text: Any) -> None:
    """A prefix says what follows it: a text that is none of that kind means nothing, and no name either."""
    with pytest.raises(ConfigurationError):
        read_moment(text)
    if isinstance(text, str):
        for read in (moment, past_time):
            with pytest.raises(argparse.ArgumentTypeError):
                read(text)


@pytest.mark.parametrize("text", ["#5", "latest", "7", "name:x", "id:x", "tomorrow", "", "@x"])
def test_what_is_no_time(text: str) -> None:
    """Where only a time can be meant, all other moments are refused, also on the command line."""
    with pytest.raises(ConfigurationError, match="is no time"):
        read_time(text)
    with pytest.raises(argparse.ArgumentTypeError, match="is no time"):
        past_time(text)


@given(st.text(min_size=1, max_size=12) | st.from_regex(r"[#@]?(id:|name:|latest|\d{0,4}-?\d\d?-?)[T:hd#@ -]{0,3}\d{0,4}", fullmatch=True))
@settings(max_examples=300)
def test_a_name_that_is_allowed_means_the_checkpoint_alone(name: str) -> None:
    """And `name:` means the checkpoint of any name; of one that is refused the bare text means something else, or nothing."""
    if looks_like_a_moment(name):
        try:
            read = read_moment(name)
        except ConfigurationError:
            read = ReadMoment()
        assert read != ReadMoment(checkpoint_name=name) or name.startswith("20") or name[:4].isdigit()
    else:
        assert read_moment(name) == read_checkpoint(name) == ReadMoment(checkpoint_name=name)
    assert read_moment(f"name:{name}") == read_checkpoint(f"name:{name}") == ReadMoment(checkpoint_name=name)


async def test_a_name_has_a_bound(tmp_path: Path) -> None:
    """The longest one that an automatic checkpoint has is within it."""
    async with Symphony({"state_dir": tmp_path / "state"}, persistence_enabled=True) as symphony:
        assert await symphony.create_checkpoint("ä" * 1_024)
        head = symphony.log.head
        for name in ("ä" * 1_025, "x" * 100_000):
            with pytest.raises(ConfigurationError, match="at most 2,048 bytes") as raised:
                await symphony.create_checkpoint(name)
            assert len(str(raised.value)) < 500
        assert symphony.log.head == head


@pytest.mark.parametrize("name", [*(name for name in NAMES if ambiguous(name)), *PREFIXED, "checkpoint", "2026-13-13", ""])
def test_names_that_could_not_be_meant_are_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the API and the command line alike; the name that is proposed is taken."""

    async def create() -> None:
        async with Symphony({"state_dir": tmp_path / "state"}, persistence_enabled=True) as symphony:
            with pytest.raises(ConfigurationError) as raised:
                await symphony.create_checkpoint(name)
            if name:
                assert f"'before-{name}'" in str(raised.value)
                made = await symphony.create_checkpoint(f"before-{name}")
                assert (await symphony.list_checkpoints(before=f"name:before-{name}")) == []
                assert await symphony.resume_from_checkpoint(f"before-{name}") == made

    asyncio.run(create())
    code, text = told(capsys, tmp_path / "state", "checkpoints", "create", name)
    assert (code, "a checkpoint" in text) == (2, True)


# -- what means two things ----------------------------------------------------------------------------------------------


def _calls() -> dict[tuple[str, str, str], Callable[[Symphony, Any], Any]]:
    """Every parameter of the API that takes a moment, and a call that gives it one."""
    key = "OfAMoment:1"

    async def first(walked: Any) -> None:
        async for _ in walked:
            return

    calls: dict[tuple[str, str, str], Callable[[Symphony, Any], Any]] = {
        ("Symphony", "at", "moment"): lambda s, m: s.at(m),
        ("Symphony", "diff", "before"): lambda s, m: s.diff(m),
        ("Symphony", "diff", "after"): lambda s, m: s.diff(1, m),
        ("Symphony", "history", "since"): lambda s, m: s.history(key, since=m),
        ("Symphony", "history", "until"): lambda s, m: s.history(key, until=m),
        ("Symphony", "blame", "since"): lambda s, m: s.blame(key, since=m),
        ("Symphony", "blame", "until"): lambda s, m: s.blame(key, until=m),
        ("Symphony", "walk", "since"): lambda s, m: first(s.walk(key, since=m)),
        ("Symphony", "walk", "until"): lambda s, m: first(s.walk(key, until=m)),
        ("Symphony", "fork", "at"): lambda s, m: s.fork(into=s.state_dir.parent / "never", at=m),  # type: ignore[union-attr]
        ("Symphony", "list_checkpoints", "before"): lambda s, m: s.list_checkpoints(before=m),
        ("Symphony", "resume", "replay_until"): lambda s, m: s.resume(replay_until=m),
        ("Symphony", "resume_latest_checkpoint", "replay_until"): lambda s, m: s.resume_latest_checkpoint(replay_until=m),
        ("TimeTravel", "position", "moment"): lambda s, m: s.past.position(m),
        ("TimeTravel", "between", "since"): lambda s, m: s.past.between(m, None),
        ("TimeTravel", "between", "until"): lambda s, m: s.past.between(None, m),
        ("TimeTravel", "check_order", "since"): lambda s, m: s.past.check_order(m, 1),
        ("TimeTravel", "check_order", "until"): lambda s, m: s.past.check_order(1, m),
        ("TimeTravel", "resolve", "moment"): lambda s, m: s.past.resolve(m),
        ("TimeTravel", "since", "moment"): lambda s, m: s.past.since(m),
        ("TimeTravel", "at", "moment"): lambda s, m: s.past.at(m),
        ("TimeTravel", "state_of", "at"): lambda s, m: s.past.state_of(key, m),
        ("TimeTravel", "diff", "before"): lambda s, m: s.past.diff(m),
        ("TimeTravel", "diff", "after"): lambda s, m: s.past.diff(1, m),
        ("TimeTravel", "differing", "before"): lambda s, m: s.past.differing(m, None, None),
        ("TimeTravel", "differing", "after"): lambda s, m: s.past.differing(1, m, None),
        ("TimeTravel", "history", "since"): lambda s, m: s.past.history(key, since=m),
        ("TimeTravel", "history", "until"): lambda s, m: s.past.history(key, until=m),
        ("TimeTravel", "blame", "since"): lambda s, m: s.past.blame(key, since=m),
        ("TimeTravel", "blame", "until"): lambda s, m: s.past.blame(key, until=m),
        ("TimeTravel", "versions", "until"): lambda s, m: first(s.past.versions(key, until=m)),
        ("TimeTravel", "settings", "since"): lambda s, m: first(s.past.settings(key, since=m, seen=str)),
        ("TimeTravel", "settings", "until"): lambda s, m: first(s.past.settings(key, until=m, seen=str)),
        ("TimeTravel", "walk", "since"): lambda s, m: first(s.past.walk(key, since=m)),
        ("TimeTravel", "walk", "until"): lambda s, m: first(s.past.walk(key, until=m)),
        ("TimeTravel", "fork", "at"): lambda s, m: s.past.fork(s.state_dir.parent / "never", m),  # type: ignore[union-attr]
        ("TimeTravel", "plan_rewind", "to"): lambda s, m: s.past.plan_rewind(m),
    }
    return calls


CALLS = _calls()
WRITING = {("Symphony", "rewind", "to"), ("Symphony", "resume_from_checkpoint", "replay_until"), ("Entities", "repair", "to")}
"""Those that need a log that is open for writing: see `test_what_writes_refuses_it_too`."""
CHECKPOINTS = {
    (name, call, "checkpoint")
    for name, call in (
        ("Symphony", "delete_checkpoint"),
        ("Symphony", "resume_from_checkpoint"),
        ("CheckpointReader", "find"),
    )
}
"""Those that take a checkpoint and nothing else."""
_OF_RUNS = ("since", "until", "created_after", "created_before")
TIMES = {
    *(("Audit", "find", name) for name in ("since", "until")),
    *(("RunRequests", "list_runs", name) for name in _OF_RUNS),
    *(("RunRequests", "count_runs", name) for name in _OF_RUNS[:2]),
    *((name, "prune_runs", "older_than") for name in ("RunRequests", "Requests")),
}
"""Those that take a time."""
OTHERS = {
    ("RunRequests", "list_runs", "after"), ("RunRequests", "fork", "at"), ("CheckpointReader", "called", "checkpoint_id"),
}  # fmt: skip
"""What only looks like one: where a page of runs ended, a step."""
WORDS = {
    "at",
    "moment",
    "since",
    "until",
    "before",
    "after",
    "to",
    "replay_until",
    "checkpoint",
    "older_than",
    "created_after",
    "created_before",
}


def _parameters() -> set[tuple[str, str, str]]:
    found = set()
    for cls in (Symphony, TimeTravel, Entities, Audit, RunRequests, Requests, CheckpointReader):
        for name, call in inspect.getmembers(cls, callable):
            if name.startswith("_"):
                continue
            for parameter in inspect.signature(call).parameters.values():
                written = str(parameter.annotation)
                looks_like_one = parameter.name in WORDS or any(word in written for word in ("Moment", "ReplayUntil", "Time", "Age"))
                if looks_like_one and "timeout" not in parameter.name:
                    found.add((cls.__name__, name, parameter.name))
    return found


def test_all_calls_that_take_a_moment_are_known() -> None:
    """A new one is either tried here with what means two things, or said to be something else."""
    known = {*CALLS, *WRITING, *CHECKPOINTS, *TIMES, *OTHERS}
    assert _parameters() - known == set()
    assert known - _parameters() <= OTHERS


@pytest.mark.parametrize("call", CALLS, ids=".".join)
async def test_what_means_two_things_is_refused_by_every_call(call: tuple[str, str, str], log: Path) -> None:
    """With both readings, each of which is taken by the same call; what a prefix says is not looked for among names."""
    async with opened(log) as symphony:
        for name in (*NAMES, *PREFIXED):
            if not ambiguous(name):
                continue
            with pytest.raises(AmbiguousMomentError) as raised:
                await CALLS[call](symphony, name)
            readings = raised.value.readings
            assert len(readings) == 2
            assert all(repr(text) in str(raised.value) for text in readings)
        if "fork" not in call:
            await CALLS[call](symphony, "name:2")
            await CALLS[call](symphony, "#2")


async def test_each_reading_is_what_it_says(log: Path) -> None:
    """`name:` is the checkpoint of any name, `id:` that of an id, and without them what begins as a prefix does is what it says."""
    async with opened(log) as symphony:
        by_name = {entry["name"]: entry for entry in await symphony.list_checkpoints()}
        head = symphony.log.head
        for name, entry in by_name.items():
            for text in (f"name:{name}", f"id:{entry['id']}"):
                assert (await symphony.at(text)).position == entry["position"]
        assert await symphony.past.position("#5") == 5
        assert await symphony.past.position("#latest") == head
        assert await symphony.past.position("@2026-01-01") == await symphony.past.position(datetime(2026, 1, 1, tzinfo=UTC))
        assert await symphony.past.position("name:before") == await symphony.past.position("before") == by_name["before"]["position"]
        same = by_name[by_name["before"]["id"]]
        with pytest.raises(AmbiguousMomentError) as raised:
            await symphony.at(same["name"])
        assert set(raised.value.readings) == {f"id:{same['name']}", f"name:{same['name']}"}
        with pytest.raises(ConfigurationError):
            await symphony.at("@x")
        with pytest.raises(CheckpointNotFoundError):
            await symphony.at("id:2")
        told = {"99999": "99999", "1234567890123456789012345": "1234567890123456789012345", "1" * 5_000: "an int of"}
        for digits, position in told.items():
            with pytest.raises(PositionNotFoundError, match=f"position {position}.* is not in the log"):
                await symphony.at(f"#{digits}")
        with pytest.raises(ConfigurationError, match="no time, and no checkpoint"):
            await symphony.at("2026-02-30")


async def test_what_writes_refuses_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going back, repairing and removing: nothing is appended; with the prefix it is done. Where a checkpoint is asked for, it is meant."""
    monkeypatch.setattr(checkpoint, "check_name", lambda name: None)
    async with Symphony({"state_dir": tmp_path / "state"}, persistence_enabled=True) as symphony:
        one = symphony.entities.add(OfAMoment(id="w"))
        await symphony.flush()
        for name in ("1", "latest"):
            one.n += 1
            await symphony.create_checkpoint(name)
        named = (await symphony.list_checkpoints(name="1"))[0]
        one.n = 9
        await symphony.flush()
        head = symphony.log.head
        for name in ("1", "latest"):
            for going_back in (
                symphony.rewind(name),
                symphony.resume_from_checkpoint("name:1", replay_until=name),
                symphony.resume(replay_until=name),
            ):
                with pytest.raises(AmbiguousMomentError):
                    await going_back
        for wrong in ("#1", "@2026-01-01"):
            with pytest.raises(ConfigurationError, match="a checkpoint is given by its id or name"):
                await symphony.resume_from_checkpoint(wrong)
            with pytest.raises(ConfigurationError, match="a checkpoint is given by its id or name"):
                await symphony.delete_checkpoint(wrong)
        assert (symphony.log.head, one.n) == (head, 9)
        assert (await symphony.rewind("name:1")).position == named["position"]
        await symphony.rewind("#1")
        assert symphony.entities.get("OfAMoment:w").n == 0
        assert await symphony.delete_checkpoint("1") is True
        assert await symphony.delete_checkpoint(f"id:{named['id']}") is False
        assert (await symphony.at("1")).position == 1


# -- the command line -----------------------------------------------------------------------------------------------------

TRIED = {
    ("entities", "at"): ["entities", "--at"],
    ("show", "at"): ["show", "OfAMoment:1", "--at"],
    ("at", "moment"): ["at"],
    ("types", "at"): ["types", "--at"],
    ("blame", "until"): ["blame", "OfAMoment:1", "n", "--until"],
    ("blame", "since"): ["blame", "OfAMoment:1", "n", "--since"],
    ("diff", "before"): ["diff"],
    ("diff", "after"): ["diff", "1"],
    ("runs", "at"): ["runs", "--at"],
    ("log", "after"): ["log", "--after"],
    ("log", "until"): ["log", "--until"],
    ("rewind", "to"): ["rewind", "--dry-run"],
    ("fork", "at"): ["fork", "never", "--at"],
    ("export", "after"): ["export", "-", "--after"],
    ("export", "until"): ["export", "-", "--until"],
    ("export", "since"): ["export", "-", "--since"],
    ("checkpoints", "at"): ["checkpoints", "create", "--at"],
    ("checkpoints", "before"): ["checkpoints", "--before"],
    ("run", "at"): ["run", "R", "--at"],
}
"""Every option that takes a moment, and a command line that ends with one."""
POSITIONS = {("audit", "after"), ("audit", "before"), ("runs", "after"), ("history", "after_version")}
"""What only looks like one: where a page ended."""


def _options() -> dict[tuple[str, str], argparse.Action]:
    commands = build_parser().commands
    return {(name, action.dest): action for name, parser in commands.items() for action in parser._actions}


def test_all_options_that_take_a_moment_are_known() -> None:
    """An option of such a name is read as a moment or a time, or said to be something else; all moments are tried here."""
    options = _options()
    assert {where for where, action in options.items() if action.type is moment} == set(TRIED)
    looking_like_one = {
        where
        for where, action in options.items()
        if (where[1].split("_")[0] in WORDS or action.metavar in ("MOMENT", "TIME", "BEFORE", "AFTER"))
        and action.type not in (moment, past_time)
    }
    assert looking_like_one <= POSITIONS


@pytest.mark.parametrize("option", TRIED, ids=" ".join)
def test_the_command_line_refuses_what_means_two_things(
    option: tuple[str, str], log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the API does: exit code 2, with both readings, and nothing is done."""
    monkeypatch.chdir(tmp_path)
    before = (log / "events.db").read_bytes()
    for name, readings in {
        "2": ("'#2'", "'name:2'"),
        "latest": ("'#latest'", "'name:latest'"),
        "2026-01-01": ("'@2026-01-01'", "'name:2026-01-01'"),
    }.items():
        code, text = told(capsys, log, *TRIED[option], name)
        assert code == 2, text
        assert all(reading in text for reading in readings)
    assert (log / "events.db").read_bytes() == before
    assert list(tmp_path.iterdir()) == []


def test_both_read_a_text_alike(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every text that the API takes is taken by the command line, as the same position; what it refuses is refused."""

    async def positions() -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        async with opened(log) as symphony:
            for text in TEXTS:
                try:
                    found[text] = await symphony.past.position(text)
                except (ConfigurationError, LookupError):
                    found[text] = None
        return found

    for text, position in asyncio.run(positions()).items():
        code, printed = told(capsys, log, "rewind", "--dry-run", text)
        if position is None:
            assert code != 0, text
        else:
            assert f"back to position {position};" in printed


TEXTS = [
    *NAMES, *PREFIXED, *(f"name:{name}" for name in (*NAMES, *PREFIXED)), "#3", "3", "#latest", "@2026-01-01", "2026-01-02", "@1h", "1h",
    "@", "#", "id:", "#-1", "nothing", "id:nothing", "2026-02-30", "2026-01-01 before import",
]  # fmt: skip
