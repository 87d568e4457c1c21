"""Outputs that are made of those of nested steps: each output stands once, with the step that gave it.

The output of a map is the list of its items' outputs. A run holds these; of the map it holds `PartOutputs`, which says where they are.
Whoever reads an output resolves that here, and nowhere else: the templates, steps and results of a live run, and readers of its plain
state. What failed under `collect` has its error in the run's failures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.entity import value
from symphony_es.events.changes import SCALARS, TEXTS
from symphony_es.events.values import Tagged
from symphony_es.workflow.language.parts import NamedParts, NumberedParts, complete

if TYPE_CHECKING:
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["PartOutputs", "RunOutputs", "described", "handed_on", "made_of_parts", "output_at", "outputs_in", "seen_at", "with_outputs"]

_NAME = "symphony.PartOutputs"
_SHORT = 60
"""Characters or bytes that are handed on as they are."""


@value(name=_NAME)
class PartOutputs:
    """Stands where the output of a composite step would: what it consists of is on record with its parts.

    Attributes:
        of: how many parts there are, numbered from 0: the output is a list. Or their names: it is a dict. Or the one part, whose output
            it is.
        under: of numbered parts, what their addresses end with, behind the number: empty, or beginning with "/".
    """

    of: int | tuple[str, ...] | str
    under: str = ""


def _parts_in(held: Any) -> PartOutputs | None:
    """Return what an output is made of, live or plain; None where it is the output itself."""
    if type(held) is PartOutputs:
        return held
    if type(held) is Tagged and held.name == _NAME:
        return PartOutputs(**held.data)
    return None


def seen_at(outputs: Mapping[str, Any], failures: Mapping[str, Any], address: str) -> Any:
    """Return the output of a completed step as a template looks it up: a `Parts` costs what is read of it.

    Args:
        outputs: of a run, as it holds them or as its plain state does.
        failures: the same for its failures.
        address: of the step.

    Raises:
        KeyError: it has not completed.
    """
    held = outputs[address]
    parts = _parts_in(held)
    return held if parts is None else _looked_up(parts, outputs, failures, address)


def _looked_up(parts: PartOutputs, outputs: Mapping[str, Any], failures: Mapping[str, Any], address: str) -> Any:
    of, under = parts.of, parts.under

    def seen(part: object) -> Any:
        below = f"{address}/{part}{under}"
        if below not in outputs and below in failures:  # collected
            return {"error": {key: failures[below][key] for key in ("type", "message")}}
        return seen_at(outputs, failures, below)

    if isinstance(of, str):
        return seen(of)
    return NumberedParts(of, seen) if isinstance(of, int) else NamedParts(of, seen)


class RunOutputs(Mapping[str, Any]):
    """The outputs of a run's completed steps by address, in the order in which they completed; a view, which follows the run.

    Args:
        outputs: of the run, as it holds them.
        failures: of the run.
    """

    __slots__ = ("_failures", "_outputs")

    def __init__(self, outputs: Mapping[str, Any], failures: Mapping[str, Any]) -> None:
        self._outputs = outputs
        self._failures = failures

    def __getitem__(self, address: str) -> Any:
        return complete(seen_at(self._outputs, self._failures, address))

    def __contains__(self, address: object) -> bool:
        return address in self._outputs

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self}

    def __repr__(self) -> str:
        return repr(dict(self))


def output_at(run: Workflow, address: str) -> Any:
    """Return the output of a completed step of a run; what was given is not copied.

    Raises:
        KeyError: it has not completed.
    """
    return complete(seen_at(run.recorded_outputs, run.failures, address))


def made_of_parts(run: Workflow, address: str, output: Any) -> Any:
    """Return what a step gives that is about to complete, where it says what its output is made of; else the output itself."""
    if type(output) is not PartOutputs:
        return output
    return complete(_looked_up(output, run.recorded_outputs, run.failures, address))


def handed_on(run: Workflow, address: str, part: str) -> Any:
    """Return the output of a step that gives what a part of it gave: what is small is as short as the note where it stands."""
    held = run.recorded_outputs[f"{address}/{part}"]
    is_small = type(held) in SCALARS and (type(held) not in TEXTS or len(held) <= _SHORT)
    return held if is_small else PartOutputs(part)


def outputs_in(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outputs of a run's plain state, by address."""
    return dict(RunOutputs(state.get("outputs") or {}, state.get("failures") or {}))


def with_outputs(state: Any) -> Any:
    """Return a run's plain state with its outputs as they are read; a state that has none of parts is given as it is."""
    outputs = state.get("outputs") if isinstance(state, dict) else None
    if not isinstance(outputs, dict) or all(_parts_in(output) is None for output in outputs.values()):
        return state
    return {**state, "outputs": outputs_in(state)}


def described(output: Any, address: str) -> Any:
    """Return what a line says of an output that an event has stored: where it is found, if that event has no more of it."""
    parts = _parts_in(output)
    if parts is None:
        return output
    of = parts.of if isinstance(parts.of, str) else "*" if isinstance(parts.of, int) else f"{{{','.join(parts.of)}}}"
    many = f" ({parts.of:,})" if isinstance(parts.of, int) else ""
    return f"what {address}/{of}{parts.under} gave{many}"
