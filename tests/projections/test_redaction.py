"""What a projection's errors say goes through the rules for redaction, wherever it is kept or told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, ProjectionFailedError
from symphony_es.log.log import EventLog
from symphony_es.projections import Projection
from symphony_es.workflow import Redaction
from tests.application import Customer
from tests.projections.conftest import RunnerMaker, Tally, fill

SECRET = "hunter2sesame"
SAYS = f"cannot connect with password={SECRET}"


class TellsAll(Tally):
    """Its errors name a password."""

    name = "tells_all"

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage

    def apply(self, db: Any, events: Any) -> None:
        if self.stage == "apply":
            raise ValueError(SAYS)

    def after_commit(self, events: Any) -> None:
        if self.stage == "after_commit":
            raise ValueError(SAYS)


class TellsAllInMemory(Projection):
    """The same in memory."""

    name = "tells_all"

    def apply(self, event: Any) -> None:
        raise ValueError(SAYS)


KINDS: dict[str, Callable[[], Any]] = {
    "apply": lambda: TellsAll("apply"),
    "after_commit": lambda: TellsAll("after_commit"),
    "in memory": TellsAllInMemory,
}


def _files(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def _parks(projection: Any, log: EventLog, run: RunnerMaker, **options: Any) -> tuple[Any, list[Any]]:
    runner = run(log, projection, attempts=1, **options)
    if isinstance(projection, TellsAll):
        await runner.catch_up()  # a build tells nobody of what has been
    await fill(log, 2)
    await runner.catch_up()
    return runner, runner.parked("tells_all")


@pytest.mark.parametrize("kind", KINDS)
async def test_messages_of_parked_events_are_redacted(kind: str, log: EventLog, run: RunnerMaker, directory: Path) -> None:
    """Neither what is parked, nor what is parked again after another attempt, nor any file holds what the rules take out."""
    runner, parked = await _parks(KINDS[kind](), log, run, redact=Redaction().text)
    assert [entry.message for entry in parked] == ["cannot connect with password=[redacted]"] * 2
    assert await runner.retry_parked("tells_all") == 0
    again = runner.parked("tells_all")
    assert [entry.message for entry in again] == ["cannot connect with password=[redacted]"] * 2
    assert [entry.attempts for entry in again] == [entry.attempts + 1 for entry in parked]
    assert SECRET.encode() not in _files(directory)


@pytest.mark.parametrize("kind", ["apply", "in memory"])
async def test_a_failure_is_told_without_what_is_redacted(
    kind: str, log: EventLog, run: RunnerMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """Status, error and log lines of a projection that fails by too many parked events, or by its builder, hold no secret."""
    await fill(log, 2)
    runner = run(log, KINDS[kind](), attempts=1, max_parked=0, redact=Redaction().text)
    with caplog.at_level(logging.DEBUG), pytest.raises(ProjectionFailedError) as caught:
        await runner.catch_up()
    (status,) = runner.status()
    assert SECRET not in f"{caught.value}{status.error}{caplog.text}"
    assert "password=[redacted]" in str(status.error)


class CannotBegin(Tally):
    """Its copy for a build cannot be made, and says too much of why."""

    name = "cannot_begin"

    def for_rebuild(self) -> Any:
        raise ValueError(SAYS)


@pytest.mark.parametrize(("details", "told"), [("message", "ValueError: cannot connect with password=[redacted]"), ("type", "ValueError")])
async def test_the_runner_of_a_symphony_has_its_rules(tmp_path: Path, details: Any, told: str) -> None:
    """With `error_details="type"` the class alone is on record and told, and with any other what the rules leave."""
    async with Symphony({"state_dir": str(tmp_path / "state")}, persistence_enabled=True, error_details=details) as symphony:
        symphony.projections.add(KINDS["in memory"]())
        symphony.projections.add(CannotBegin())
        symphony.entities.add(Customer(id="1"))
        await symphony.flush()
        with pytest.raises(ProjectionFailedError):
            await symphony.projections.catch_up()
        (parked,) = symphony.projections.parked("tells_all")
        failed = next(status for status in symphony.projections.status() if status.name == "cannot_begin")
    assert parked.message == told.removeprefix("ValueError").removeprefix(": ")
    assert failed.error is not None
    assert failed.error.endswith(f": {told}")


async def _waits(text: str) -> str:
    return text


def _fails(text: str) -> str:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("redact", "left"),
    [(_fails, "[left out: redact raised SystemExit]"), (lambda text: None, "[left out: redact returned None]")],
    ids=["raises", "no text"],
)
async def test_nothing_is_kept_where_redact_fails(redact: Any, left: str, log: EventLog, run: RunnerMaker) -> None:
    """A function that fails at a message puts nothing of it on record, and does not end the runner."""
    _, parked = await _parks(KINDS["apply"](), log, run, redact=redact)
    assert [entry.message for entry in parked] == [left] * 2


@pytest.mark.parametrize("redact", [_waits, "password"])
def test_what_cannot_redact_is_refused(redact: Any, log: EventLog, run: RunnerMaker) -> None:
    """A coroutine function, or something that is not a function, is refused where the runner is made."""
    with pytest.raises(ConfigurationError, match="a plain function"):
        run(log, redact=redact)
