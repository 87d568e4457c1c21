"""Wait steps: a run waits for a signal, for as long as it takes or until its time is up."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self

from symphony_es.core.objects.frozen import copied
from symphony_es.errors import SignalTimeoutError
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import quoted, type_shown
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.definitions.steps import NO_DEFAULT, Step, register_step_kind
from symphony_es.workflow.kinds.sleep import as_seconds

if TYPE_CHECKING:
    from symphony_es.workflow.engine.execution import StepExecution

__all__ = ["NO_DEFAULT", "WaitStep"]


@register_step_kind
@dataclass(frozen=True, kw_only=True)
class WaitStep(Step):
    """Takes the oldest signal of a name that no step has taken, or waits for one; the output is its payload.

    Attributes:
        signal: the signal's name; may be a template.
        within_s: how long to wait, in seconds, or a template that gives it; None for as long as it takes.
        default: the output when the time is up; without one the step fails then.
    """

    kind: ClassVar[str] = "wait"
    keeps_progress: ClassVar[bool] = False  # another attempt waits as long again
    reentrant: ClassVar[bool] = True

    signal: str
    within_s: Any = None
    default: Any = NO_DEFAULT

    def data(self) -> dict[str, Any]:
        """Return the signal, how long, and the default."""
        return {
            "signal": self.signal,
            **({"within_s": self.within_s} if self.within_s is not None else {}),
            **({"default": self.default} if self.default is not NO_DEFAULT else {}),
        }

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        """Read `signal`, `within_s` and `default`."""
        signal = reader.template("signal", required=True)
        if not isinstance(signal, str) or not signal:
            raise reader.fault("signal", "must be a str that is not empty")
        is_template = isinstance(reader.value("within_s"), str) and "{{" in reader.value("within_s")
        within_s = reader.template("within_s") if is_template else reader.seconds("within_s")
        default = reader.plain("default") if reader.has("default") else NO_DEFAULT
        if default is not NO_DEFAULT and within_s is None and reader.value("timeout_s") is not None:
            instead = f'"within_s": {quoted(reader.value("timeout_s"))}'
            raise reader.fault("default", f"is for within_s, how long to wait: {instead}; timeout_s ends an attempt as a failure")
        return cls(**common, signal=signal, within_s=within_s, default=default)

    def works_with(self, execution: StepExecution) -> dict[str, Any]:
        """Return the signal, and how long."""
        waits = {"within_s": execution.prepare(self.within_s)} if self.within_s is not None and execution.progress is None else {}
        return {"signal": execution.prepare(self.signal), **waits}

    async def perform(self, execution: StepExecution) -> Any:
        """Wait; how long is fixed when the wait begins.

        Raises:
            SignalTimeoutError: the time is up, and there is no default.
            TypeError: a template gives no name, or no duration.
        """
        name = execution.render(self.signal)
        if name == "" or isinstance(name, bool) or not isinstance(name, (str, int)):
            raise TypeError(f"a signal's name is a text that is not empty, and {quoted(self.signal)} gives {type_shown(name)}")
        name = str(name)
        noted, until = execution.progress, None
        if isinstance(noted, dict) and "until" in noted:
            until = noted["until"]
        elif self.within_s is not None and noted is None:
            until = execution.now() + timedelta(seconds=as_seconds(execution.render(self.within_s)))
            await execution.note("WorkflowTimerSet", {"until": until})
        try:
            return await execution.take_signal(name, until)
        except TimeoutError:
            if self.default is NO_DEFAULT:
                raise SignalTimeoutError(name, until) from None
            return copied(self.default)
