"""Sleep steps: a run waits for a moment. The moment is on record, so a crash or a pause neither shortens nor lengthens the wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self

from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import shown, type_shown
from symphony_es.workflow.definitions.reading import MAX_SECONDS, DataReader
from symphony_es.workflow.definitions.steps import Step, register_step_kind

if TYPE_CHECKING:
    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["SleepStep", "as_seconds"]


@register_step_kind
@dataclass(frozen=True, kw_only=True)
class SleepStep(Step):
    """Waits so many seconds, or for a moment; the output is None.

    Attributes:
        seconds: how long, from 0 to 100 years, or a template that gives it.
        until: a moment with a time zone, its ISO 8601 text, or a template that gives either. One of both is given.
    """

    kind: ClassVar[str] = "sleep"
    reentrant: ClassVar[bool] = True

    seconds: Any = None
    until: Any = None

    def data(self) -> dict[str, Any]:
        """Return how long, or until when."""
        return {"seconds": self.seconds} if self.seconds is not None else {"until": self.until}

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        """Read `seconds` and `until`."""
        seconds, until = reader.template("seconds"), reader.template("until")
        if (seconds is None) == (until is None):
            raise reader.fault("seconds", "a sleep has `seconds` or `until`, one of both")
        try:
            if seconds is not None and not _is_template(seconds):
                as_seconds(seconds)
            elif until is not None and not _is_template(until):
                _moment(until)
        except (TypeError, ValueError) as error:
            key, given = ("seconds", seconds) if seconds is not None else ("until", until)
            raise reader.fault(key, f"{error}; it is {shown(given)}") from None
        return cls(**common, seconds=seconds, until=until)

    def works_with(self, execution: StepExecution) -> dict[str, Any]:
        """Return how long, or until when."""
        if execution.progress is not None:
            return {}
        return {"seconds": execution.prepare(self.seconds)} if self.seconds is not None else {"until": execution.prepare(self.until)}

    async def perform(self, execution: StepExecution) -> None:
        """Wait for the moment, which is fixed when the wait begins.

        Raises:
            TypeError, ValueError: a template gives no duration or moment.
        """
        noted = execution.progress
        if noted is None:
            if self.seconds is not None:
                until = execution.now() + timedelta(seconds=as_seconds(execution.render(self.seconds)))
            else:
                until = _moment(execution.render(self.until))
            noted = {"until": until}
            await execution.note("WorkflowTimerSet", noted)
        await execution.sleep_until(noted["until"])


def as_seconds(given: Any) -> float:
    """Return how long a step is to wait; what is given may have been rendered, and is not shown.

    Raises:
        TypeError: it is no number from 0 to `MAX_SECONDS`.
    """
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given <= MAX_SECONDS:
        raise TypeError(f"a wait takes a number of seconds between 0 and {MAX_SECONDS:,} (100 years), not {type_shown(given)}")
    return given


def _is_template(given: Any) -> bool:
    return isinstance(given, str) and "{{" in given


def _moment(given: Any) -> datetime:
    if isinstance(given, str):
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            raise ValueError("a sleep takes a moment in ISO 8601, for example 2030-01-31T12:00:00+00:00, not another text") from None
    if not isinstance(given, datetime):
        raise TypeError(f"a sleep takes a moment, not {type_shown(given)}")
    if given.tzinfo is None:
        raise ValueError("a sleep takes a moment with its time zone: write +00:00 for UTC")
    try:
        return given.astimezone(UTC)
    except OverflowError:
        raise ValueError("a sleep takes a moment that a clock can tell: this one is beyond them") from None
