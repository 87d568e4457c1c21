"""Arguments that no store takes are refused by a typed error, which speaks of the argument and not of damage."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, PositionNotFoundError, SymphonyError
from symphony_es.log.log import EventLog
from symphony_es.projections import ProjectionRunner, open_current
from symphony_es.transfer import backup, export_changes, export_cloudevents, export_csv, export_jsonl, import_jsonl, restore, verify
from tests.application import Customer
from tests.conftest import Opener

HUGE = 10**30
LONE = "\ud800"

ODD: dict[str, Callable[[Symphony], Awaitable[Any]]] = {
    "history after a version": lambda s: s.history("Customer:odd", after_version=HUGE),
    "history before a version": lambda s: s.history("Customer:odd", after_version=-HUGE),
    "history, so many": lambda s: s.history("Customer:odd", limit=HUGE),
    "history, a part of one": lambda s: s.history("Customer:odd", limit=2.5),  # type: ignore[arg-type]
    "history of a name": lambda s: s.history("Customer:odd", "name", limit=HUGE),
    "audit, so many": lambda s: s.audit.find(limit=HUGE),
    "audit, a part of one": lambda s: s.audit.find(limit=2.5),  # type: ignore[arg-type]
    "audit from a position": lambda s: s.audit.find(after_position=HUGE),
    "audit of an actor": lambda s: s.audit.find(actor=LONE),
    "audit, a page": lambda s: anext(s.audit.stream(page=HUGE)),
    "rows from a position": lambda s: s.log.read_rows(HUGE),
    "rows, so many": lambda s: s.log.read_rows(limit=HUGE),
    "rows, a part of one": lambda s: s.log.read_rows(limit=2.5),  # type: ignore[arg-type]
    "an entity's rows": lambda s: s.log.read_entity("Customer:odd", HUGE),
    "a row": lambda s: s.log.row_at(HUGE),
    "the bounds of a transaction": lambda s: s.log.transaction_bounds(HUGE),
}


@pytest.mark.parametrize("question", ODD)
async def test_odd_arguments_are_refused(reopen: Opener, question: str) -> None:
    """The error names what was given; the next question is answered."""
    symphony = await reopen()
    symphony.entities.add(Customer(id="odd", name="Ada"))
    await symphony.flush()
    with pytest.raises((ConfigurationError, PositionNotFoundError), match=r"10000000|2\.5|surrogate"):
        await ODD[question](symphony)
    assert len(await symphony.history("Customer:odd")) == 1


WRONG: dict[str, Any] = {
    "a lone surrogate": LONE, "a null character": "a\0b", "no character": "", "very many": "x" * 10_000, "None": None, "a number": 7,
    "a large number": HUGE, "no number": float("nan"), "bytes": b"\xff\0", "a list": [], "a list of None": [None], "a dict": {},
    "a dict with another key": {b"\0": 1}, "an object": object(), "a class": int,
}  # fmt: skip
"""What stands for a name, a key, a number or a mapping in some call or other, and is none."""
GIVEN: dict[str, Any] = {
    "entity": "Customer:odd", "key": "Customer:odd", "entity_type": "Customer", "moment": "#1", "to": "#1", "before": "#1", "at": "#1",
    "checkpoint": "start", "position": 1, "version": 1, "until": 1, "after": 0, "time_ns": 1, "function": len, "fn": len, "cls": Customer,
    "status": "pending", "older_than": 0, "names": [], "prefix": "shop", "entities": ["Customer:odd"], "service": 1, "obj": 1,
    "callback": print, "restorer": None, "least": None, "into": None,
}  # fmt: skip
"""The other arguments of a call that needs them; where the name says nothing, a text."""
NOT_ASKED = {
    "symphony": "opened shell setup close service load_entities take_checkpoint while_nothing_loads error_on_record",
    "restore_manager": "declare_late keep restore_entity",
    "registry": "register_late",
    "types": "declare_late learn learn_from meet tagged_member name_of_enum class_of name_of upcast_of version_of",
    "tasks": "forget_run of_run note perform_for_step rest_again",
    "workflows": "drain",
    "log": "append append_blocking submit prepare bound_versions in_memory open open_blocking open_read_only open_read_only_blocking close "
    "end end_after has_written note_written follow wait_for leave_to_parent go_on_after_fork quiet_for_fork replay replay_entities",
}
"""Calls of the layers to each other, calls that wait for ever, and those that open and close, which another test is for."""
FACADES = (
    "symphony", "agents", "tasks", "entities", "workflows", "registry", "functions", "models", "restore_manager", "types", "log", "audit",
    "view", "objects",
)  # fmt: skip


async def _facade(symphony: Symphony, name: str) -> Any:
    if name in ("view", "objects"):
        view = await symphony.at("#1")
        return view if name == "view" else await view.objects()
    return symphony if name == "symphony" else getattr(symphony, name)


def _calls(facade: Any, name: str) -> Iterator[tuple[str, inspect.Signature]]:
    """The public methods of a facade."""
    for called in sorted(set(dir(type(facade)))):
        method = getattr(type(facade), called) if not called.startswith("_") else None
        if inspect.isroutine(method) and called not in NOT_ASKED.get(name, "").split():
            yield called, inspect.signature(getattr(facade, called))


async def _used(made: Any, timeout_s: float = 30) -> None:
    """Wait for what a call gives, or begin with it."""
    if hasattr(made, "__aiter__"):
        await anext(aiter(made), None)
    elif inspect.isawaitable(made):
        async with asyncio.timeout(timeout_s):
            await made


@pytest.mark.parametrize("name", FACADES)
@pytest.mark.parametrize("place", ["on disk", "in memory"])
async def test_every_call_refuses_what_it_does_not_take(name: str, place: str, tmp_path: Path) -> None:
    """It is done, or refused by an error of the library: none of Python's, which would tell nothing of the argument."""
    found = set()
    symphony = Symphony(tmp_path / "state") if place == "on disk" else Symphony()
    with contextlib.suppress(SymphonyError):  # what was done may leave something that the log does not take at its end
        async with symphony:
            symphony.entities.add(Customer(id="odd", name="Ada"))
            await symphony.flush()
            facade = await _facade(symphony, name)
            for called, signature in _calls(facade, name):
                for odd, value in itertools.product(signature.parameters, WRONG):
                    error = await _error_of(getattr(facade, called), signature, odd, WRONG[value], tmp_path)
                    if error is not None:
                        found.add(f"{called}({odd}={value}): {type(error).__name__}: {error}"[:200])
    assert sorted(found) == []


async def _error_of(method: Any, signature: inspect.Signature, odd: str, value: Any, scratch: Path) -> BaseException | None:
    """The error of a call with one odd argument, where it is not one of the library's."""
    given: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if name == odd:
            given[name] = value
        elif parameter.default is parameter.empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            given[name] = scratch / "into" if name == "into" else GIVEN.get(name, "x")
    if signature.parameters[odd].kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        return None
    try:
        await _used(method(**given), 0.5)  # a run that waits has no end
    except (SymphonyError, TimeoutError):
        return None
    except Exception as error:
        return error
    return None


PATHS: dict[str, Callable[[Symphony, Any], Any]] = {
    "Symphony": lambda s, path: Symphony(state_dir=path).setup(),
    "setup": lambda s, path: Symphony(persistence_enabled=True).setup(path),
    "read only": lambda s, path: Symphony(path, read_only=True).setup(),
    "opened": lambda s, path: Symphony.opened(path),
    "fork": lambda s, path: s.fork(into=path),
    "backup of": lambda s, path: backup(path, "backup of"),
    "backup to": lambda s, path: backup(s.state_dir or "", path),
    "restore of": lambda s, path: restore(path, "restore of"),
    "restore to": lambda s, path: restore(s.state_dir or "", path),
    "export_jsonl": lambda s, path: export_jsonl(s.log, path),
    "export_csv": lambda s, path: export_csv(s.log, path),
    "export_cloudevents": lambda s, path: export_cloudevents(s.log, path, source="x"),
    "export_changes": lambda s, path: export_changes(s.state_history, path),
    "import of": lambda s, path: import_jsonl(path, "import of"),
    "import to": lambda s, path: import_jsonl("none", path),
    "verify": lambda s, path: verify(path),
    "EventLog.open": lambda s, path: EventLog.open(path),
    "EventLog.open_read_only": lambda s, path: EventLog.open_read_only(path),
    "open_current": lambda s, path: open_current(path, "x"),
}
NO_PATHS = {
    **{name: value for name, value in WRONG.items() if name != "None"},
    "a path of it": Path("\0"), "a path of a lone surrogate": Path(LONE), "a deep path": "x/" * 3000,
}  # fmt: skip


@pytest.mark.parametrize("call", PATHS)
async def test_what_is_no_path_is_refused(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By every call that takes a file or directory, before anything is made."""
    monkeypatch.chdir(tmp_path)
    async with Symphony("state") as symphony:
        for path in NO_PATHS.values():
            with pytest.raises(SymphonyError):
                await _used(PATHS[call](symphony, path))
    assert [made.name for made in tmp_path.iterdir()] == ["state"]


async def test_a_directory_of_read_models_is_a_path() -> None:
    """Whether anything is built in it or not."""
    async with Symphony() as symphony:
        for path in (LONE, "a\0b", "", 7, b"x"):
            with pytest.raises(ConfigurationError, match="directory is the path"):
                ProjectionRunner(symphony.log, path)  # type: ignore[arg-type]
