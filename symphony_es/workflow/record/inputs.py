"""The input of one execution of a step, and what the events of its start and its end say beyond their effect.

The start says, as a list: a digest of the input (16 bytes) with one of the code behind it (8 bytes, where the step calls a function), what
was read to make the input, None where not all of the input could be looked at, and, where that is asked for, the input itself in a dict.
The end says, in a dict: `used`, and what the body has `read` beside its input.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from symphony_es.events.codec import pack
from symphony_es.failures import is_failure
from symphony_es.workflow.record.canonical import (
    INPUT_DIGEST_BYTES,
    SECRET,
    VALUE_DIGEST_BYTES,
    Canonical,
    TooLargeError,
    digest,
)
from symphony_es.workflow.record.functions import function_digest, parameters_of
from symphony_es.workflow.record.reads import MAX_EDGES, short_name
from symphony_es.workflow.record.redaction import current_redaction, records_inputs
from symphony_es.workflow.record.shown import shown_input

if TYPE_CHECKING:
    from symphony_es.core.world.members import Members
    from symphony_es.workflow.definitions.steps import Step
    from symphony_es.workflow.engine.execution import StepExecution
    from symphony_es.workflow.runs.context import RunContext

__all__ = ["CUT_OFF", "StepInput", "argument_names", "describe_end", "describe_start", "input_of_call", "input_of_values"]

CUT_OFF = "WorkflowStepCutOff"
"""An attempt that has used models was cut off: it has neither completed nor failed, and has cost what it has cost."""

_SMALL = frozenset({type(None), bool, int, float})
_SMALL_CHARS = 8
"""A text that is shorter says nothing of where it came from."""


class StepInput:
    """What is known of an input.

    Attributes:
        digest: of all of it.
        check: a number that another input changes, and nothing that an object of an ordinary class holds: a replay compares it.
        edges: what it was made of, where its own values say that: digests of arguments, and entities with their versions.
        complete: whether all of it could be looked at.
        size: about how many bytes were looked at.
        values: the input itself, by name, as it is.
    """

    __slots__ = ("check", "complete", "digest", "edges", "size", "values")

    def __init__(self, digest: bytes, check: int, edges: Sequence[Any], values: Mapping[str, Any], *, complete: bool, size: int) -> None:
        self.digest = digest
        self.check = check
        self.edges = edges
        self.values = values
        self.complete = complete
        self.size = size


def input_of_values(values: Mapping[str, Any], world: Members | None, *, arguments: bool = False) -> StepInput:
    """Return what is known of values by name.

    Args:
        values: the input.
        world: whose entities count by their keys.
        arguments: whether these are the arguments of a call by code, whose values tell where they came from.
    """
    if not values:
        return _NOTHING
    redaction = current_redaction.get()
    canonical = Canonical(world, redaction)
    try:
        packed, edges = _packed(values, canonical, arguments=arguments)
        told = packed
        if canonical.has_objects:
            told, _ = _packed(values, Canonical(world, redaction, with_state=False), arguments=arguments)
        complete = canonical.complete
    except TooLargeError:
        packed = told = pack({str(name): type(values[name]).__qualname__ for name in sorted(values)})
        edges, complete = [], False
    made = blake2b(packed, digest_size=INPUT_DIGEST_BYTES).digest()
    check = int.from_bytes((made if told is packed else blake2b(told, digest_size=INPUT_DIGEST_BYTES).digest())[:4])
    for key, record in canonical.entities.items():
        if record is not None and len(edges) < MAX_EDGES:
            edges += (short_name(key), 0 if record.unplaced else record.version)
    return StepInput(made, check, edges, values, complete=complete, size=canonical.size)


def _packed(values: Mapping[str, Any], canonical: Canonical, *, arguments: bool) -> tuple[bytes, list[Any]]:
    """Return the bytes that stand for values by name, and the digests of those that say where they came from."""
    plain: dict[str, Any] = {}
    edges: list[Any] = []
    of, is_secret = canonical.of, canonical.hides
    for name in sorted(values):
        value = values[name]
        cls = type(value)
        if is_secret(name, value):
            plain[name] = SECRET
        elif cls in _SMALL:
            plain[name] = value if value == value else "nan"
        elif (cls is str or cls is bytes) and len(value) < _SMALL_CHARS:
            plain[name] = value
        else:
            made = of(value)
            if arguments and not canonical.is_entity(made):
                held = digest(made)
                plain[name] = held
                if len(edges) < MAX_EDGES:
                    edges.append(held[:VALUE_DIGEST_BYTES])
            else:
                plain[name] = made
    try:
        return pack(plain), edges
    except UnicodeEncodeError:
        return digest(plain), edges


_NOTHING = StepInput(blake2b(pack({}), digest_size=INPUT_DIGEST_BYTES).digest(), 0, (), {}, complete=True, size=0)


def input_of_call(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], world: Members | None) -> StepInput:
    """Return what is known of the arguments of a call."""
    if not args and not kwargs and type(fn) is FunctionType:
        return _NOTHING
    return input_of_values(argument_names(fn, args, kwargs), world, arguments=True)


def argument_names(fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments by the names of their parameters; `*0` and so on where nothing says them, `self` of what the function belongs to."""
    while isinstance(fn, functools.partial):
        args, kwargs, fn = (*fn.args, *args), {**fn.keywords, **kwargs}, fn.func
    named: dict[str, Any] = {}
    names: tuple[str, ...] = ()
    if isinstance(fn, FunctionType):
        names = parameters_of(fn).names
    elif isinstance(fn, MethodType):
        named["self"] = fn.__self__
        names = parameters_of(fn.__func__).names[1:] if type(fn.__func__) is FunctionType else ()
    elif isinstance(fn, BuiltinFunctionType):
        if fn.__self__ is not None and not isinstance(fn.__self__, ModuleType):
            named["self"] = fn.__self__
    elif not isinstance(fn, type):
        named["self"] = fn
    for place, value in enumerate(args):
        named[names[place] if place < len(names) else f"*{place}"] = value
    named.update(kwargs)
    return named


def describe_start(step: Step, execution: StepExecution) -> list[Any]:
    """Return what the event of an attempt's start says; the templates of the input are rendered now, and errors in them are kept."""
    context = execution.context
    try:
        given = step.input_of(execution)
        if given is None:
            values = step.works_with(execution)
            given = input_of_values(values, execution.symphony.world) if values else _NOTHING
        fn = step.function_of(execution.symphony)
    except BaseException as error:  # of a kind that the application has added; it will say so when it performs
        if not is_failure(error, asyncio.current_task()):
            raise
        given, fn = StepInput(_NOTHING.digest, 0, (), {}, complete=False, size=0), None
    data: list[Any] = [given.digest if fn is None else given.digest + function_digest(fn)]
    made_of = context.take_reads()
    if made_of.entities and given.edges:
        for key in [key for key in made_of.entities if short_name(key) in given.edges]:
            del made_of.entities[key]
    data += made_of.data()
    data += given.edges
    if not given.complete:
        data.append(None)
    if _wants_inputs(step, execution):
        data.append({"input": shown_input(given.values, execution.symphony.world)})
    return data


def _wants_inputs(step: Step, execution: StepExecution) -> bool:
    """Return whether the input itself is put on record: as the step says, else its definition, else the engine."""
    for said in (step.record_inputs, execution.run.definition.record_inputs):
        if said is not None:
            return said
    return records_inputs.get()


def describe_end(context: RunContext) -> dict[str, Any] | None:
    """Return what the event of an attempt's end says: what it used, and what its body read; None where it has done neither."""
    context.ended = True
    usage, reads = context.usage, context.reads.data()
    used = None if usage is None else usage.data()
    if used is None and not reads:
        return None
    return {**({"used": used} if used is not None else {}), **({"read": reads} if reads else {})}
