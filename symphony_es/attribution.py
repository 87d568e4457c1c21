"""Who changes something, why, and on whose behalf: the metadata that every event carries.

The attribution is a context variable: tasks and `asyncio.to_thread` calls started inside a block inherit it, and a change is
attributed when it is made, not when it is flushed. A block may end in another context than it began in (the event loop closes an
asynchronous generator in a task of its own): from then on it counts nowhere, but for the tasks that were started inside it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from symphony_es.errors import ConfigurationError, near_misses
from symphony_es.events.event import EventMetadata
from symphony_es.events.values import check_plain
from symphony_es.left_blocks import LeftElsewhere, runner
from symphony_es.shown import quoted, shown

__all__ = [
    "NOBODY", "SYSTEM_ACTOR", "ActingAs", "Attribution", "Standing", "acting", "acting_attribution", "attribute", "attributed",
    "check_texts", "current_attribution", "user_data",
]  # fmt: skip


class Attribution(NamedTuple):
    """What is known of the origin of the changes made right now; every field may be absent.

    Attributes:
        actor: who acts: a person, an agent, a service.
        reason: why, in the actor's words.
        run_id: the workflow run on whose behalf it happens.
        step: address of the step in that run.
        attempt: number of the attempt at that step, from 1.
        cause: id (16 bytes) of the event that led to this.
        correlation_id: the application's own thread of events.
        user: the application's own keys; plain data.
    """

    actor: str | None = None
    reason: str | None = None
    run_id: str | None = None
    step: str | None = None
    attempt: int | None = None
    cause: bytes | None = None
    correlation_id: str | None = None
    user: Mapping[str, Any] | None = None

    def metadata(self, *, state_version: int | None = None, generation: int | None = None) -> EventMetadata:
        """Return the metadata of an event written now; the trace id is OpenTelemetry's, where that is active."""
        trace_id = _active_trace_id()
        if self is NOBODY and trace_id is None and state_version is None and generation is None:
            return EventMetadata()  # takes half as long, and most changes are nobody's
        return EventMetadata(
            run_id=self.run_id,
            step=self.step,
            attempt=self.attempt,
            actor=self.actor,
            cause=self.cause,
            reason=self.reason,
            trace_id=trace_id,
            correlation_id=self.correlation_id,
            state_version=state_version,
            generation=generation,
            user=dict(self.user) if self.user else None,
        )


NOBODY = Attribution()
SYSTEM_ACTOR = "symphony"
"""Who acts where the library itself has to append something: nobody who uses it has made that change."""


class Standing:
    """What a block has put into a variable, until the block has ended.

    Attributes:
        value: what counts in the block.
        outer: what the block lies in; None of what lies in nothing, and of a block that has ended where it began.
        left: for whom it still counts, where it has ended elsewhere.
    """

    __slots__ = ("entered_by", "left", "outer", "value")

    def __init__(self, value: Attribution, outer: Standing | None) -> None:
        self.value = value
        self.outer = outer
        self.entered_by: Any = runner() if outer is not None else None
        self.left: LeftElsewhere | None = None


class StandingVariable:
    """A context variable for blocks that may end in another context than they began in, or before a block inside them has ended.

    Attributes:
        innermost: returns the block that was begun last; it may have ended elsewhere.
    """

    __slots__ = ("_variable", "innermost")

    def __init__(self, name: str) -> None:
        outermost = Standing(NOBODY, None)  # never changed: it lies in nothing and is not left
        self._variable: ContextVar[Standing] = ContextVar(name, default=outermost)
        self.innermost: Callable[[], Standing] = self._variable.get

    def get(self) -> Attribution:
        """Return what the innermost block says that has not ended."""
        found = self._variable.get()
        while found.left is not None and found.outer is not None and not found.left.counts():
            found = found.outer
            self._variable.set(found)
        return found.value

    def set(self, value: Attribution) -> Standing:
        """Begin a block, and return what `reset` needs to end it."""
        self.get()
        standing = Standing(value, self._variable.get())
        self._variable.set(standing)
        return standing

    def reset(self, standing: Standing) -> None:
        """End a block, in whatever context and order."""
        if self._variable.get() is not standing or standing.entered_by != runner():
            standing.left = LeftElsewhere(standing.entered_by)
        standing.entered_by = None  # contexts of tasks that were started inside hold this longer than the task is needed
        if self._variable.get() is standing and standing.outer is not None:
            self._variable.set(standing.outer)
            if standing.left is None:
                standing.outer = None  # nobody asks for it any more: chains of tasks that each begin a block keep nothing alive

    def put(self, value: Attribution) -> None:
        """Have a value count in this context as if no block had begun."""
        self._variable.set(Standing(value, None))


current_attribution = StandingVariable("symphony_es_attribution")


acting_attribution = StandingVariable("symphony_es_acting")
"""What `acting_as` says, without the run, step or transaction that it may stand in."""


def attribute(*, user: Mapping[str, Any] | None = None, **changes: Any) -> Standing:
    """Attribute every change made from now on, until the variable is reset with what is returned; see `attributed`.

    Raises:
        ConfigurationError: a field that is text is something else. Nothing has changed.
        UnstorableValueError: a value of `user` is no plain data. Nothing has changed.
    """
    check_texts(changes)
    if user:
        check_plain(dict(user))
    return current_attribution.set(_changed(current_attribution.get(), user, changes))


def _changed(before: Attribution, user: Mapping[str, Any] | None, changes: Mapping[str, Any]) -> Attribution:
    if not user:
        return before._replace(**changes)
    return before._replace(**changes, user=MappingProxyType({**(before.user or {}), **user}))


@contextmanager
def attributed(**changes: Any) -> Iterator[Attribution]:
    """Attribute every change made in the block; fields not named keep the value of the enclosing block.

    Args:
        **changes: fields of `Attribution`. The keys of `user`, plain data, are added to those of the enclosing block.

    Raises:
        ConfigurationError: a field that is text is something else. The block is not entered.
        UnstorableValueError: a value of `user` is no plain data. The block is not entered.
    """
    token = attribute(**changes)
    try:
        yield current_attribution.get()
    finally:
        current_attribution.reset(token)


def check_texts(fields: Mapping[str, Any]) -> None:
    """Refuse fields of an attribution that no event could store, where they are given.

    Raises:
        ConfigurationError: actor, reason, run, step or correlation is neither text nor None, or text that cannot be encoded.
    """
    for name in _TEXTS & fields.keys():
        given = fields[name]
        if given is None:
            continue
        if not isinstance(given, str):
            raise ConfigurationError(f"{name} is text, not {type(given).__name__}: {shown(given)}")
        if not given.isascii():
            try:
                given.encode()
            except UnicodeEncodeError:
                raise ConfigurationError(f"{name} holds a lone surrogate, which is no text that can be stored: {shown(given)}") from None


@lru_cache(256)
def _alike(key: str, parameters: tuple[str, ...]) -> list[str]:
    """Return what a keyword may have been meant to be. Words such as `user_id`, `date`, `author` and `action` are none of these."""
    return near_misses(key, parameters, cutoff=0.8)


def user_data(call: str, parameters: Collection[str], user: Mapping[str, Any] | None, more: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the application's own metadata, as a call was given it: a mapping, free keywords, or both.

    Raises:
        ConfigurationError: `user` is no mapping; or a keyword is written so like one of the call's own parameters that this may be meant.
    """
    if user is not None and not isinstance(user, Mapping):
        raise ConfigurationError(
            f"{call}(user=…) takes a mapping of your own metadata, not {type(user).__name__}: {shown(user)}; actor= says who acts"
        )
    for key in more:
        alike = _alike(key, tuple(parameters))
        if alike:
            meant = " or ".join(f"{name}=" for name in alike)
            raise ConfigurationError(
                f"{call} takes no {quoted(key)}: did you mean {meant}? For metadata of your own by that name pass user={{{quoted(key)}: …}}"
            )
    return {**(user or {}), **more} or None


_TEXTS = frozenset({"actor", "reason", "run_id", "step", "correlation_id"})


@contextmanager
def acting(*, user: Mapping[str, Any] | None = None, **changes: Any) -> Iterator[Attribution]:
    """Attribute like `attributed`, for `acting_as`: what a call in the block finds changed in objects of foreign classes is included."""
    with attributed(user=user, **changes) as attribution:
        token = acting_attribution.set(_changed(acting_attribution.get(), user, changes))
        try:
            yield attribution
        finally:
            acting_attribution.reset(token)


class ActingAs(AbstractContextManager[Attribution], AbstractAsyncContextManager[Attribution]):
    """A block of `acting`, for `with` and for `async with`, which is the same here: nothing is awaited."""

    def __init__(self, block: AbstractContextManager[Attribution]) -> None:
        self._block = block

    def __enter__(self) -> Attribution:
        return self._block.__enter__()

    def __exit__(self, *exception: Any) -> bool | None:
        return self._block.__exit__(*exception)

    async def __aenter__(self) -> Attribution:
        return self._block.__enter__()

    async def __aexit__(self, *exception: Any) -> bool | None:
        return self._block.__exit__(*exception)


def _active_trace_id() -> str | None:
    """Return the trace id of the active OpenTelemetry span, without importing OpenTelemetry for it."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else None
