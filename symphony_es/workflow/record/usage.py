"""What a step has used of models: tokens, and what they cost. It stands on the event that ends the attempt, whether it failed or not."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, fields
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any

from symphony_es.errors import ConfigurationError
from symphony_es.late_dataclasses import dataclass
from symphony_es.shown import shown

__all__ = ["ModelUsage", "RunUsage", "Used", "read_usage"]

NANO = 10**9
MAX_NUMBER = 2**63 - 1
MAX_MODEL_CHARS = 200
_CURRENCY = re.compile(r"[A-Z]{3}")
Counts = list[int | None]
"""Input, output and cached tokens, cost in 10^-9 units or None, and calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsage:
    """What was used of one model.

    Attributes:
        model: its name.
        input_tokens: how many it read.
        output_tokens: how many it wrote.
        cache_read_tokens: how many of those it read came from a cache.
        cost: in units of the currency; None where nothing was said of it.
        currency: ISO 4217 code, or None.
        calls: how often it was called.
    """

    model: str
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cost: Decimal | None = None
    currency: str | None = None
    calls: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take; the cost as text, which loses nothing."""
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**told, "cost": None if self.cost is None else format(self.cost, "f")}


class Used:
    """What one attempt has used so far; calls of one model in one currency are added up."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str | None], list[Counts]] = {}

    def add(self, model: Any, input_tokens: Any, output_tokens: Any, cache_read_tokens: Any, cost: Any, currency: Any) -> None:
        """Note one call of a model.

        Raises:
            ConfigurationError: a number is none, is negative or too large, or the currency is not a code. Nothing has been noted.
        """
        if not isinstance(model, str) or not 0 < len(model) <= MAX_MODEL_CHARS:
            raise ConfigurationError(f"used({shown(model)}): the name of a model is a text of 1 to {MAX_MODEL_CHARS} characters")
        if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
            raise ConfigurationError(f"used(currency={shown(currency)}): a currency is a code of three capital letters, for example 'USD'")
        named = {"input_tokens": input_tokens, "output_tokens": output_tokens, "cache_read_tokens": cache_read_tokens}
        tokens = [_whole(name, given) for name, given in named.items()]
        nano = None if cost is None else _nano(cost)
        key = (model.encode("utf-8", "backslashreplace").decode(), None if nano is None else currency)
        # Appended, and added up later: a plain function may call this from threads of its own.
        self._sums.setdefault(key, []).append([*tokens, nano, 1])

    def data(self) -> list[list[Any]] | None:
        """Return what the event says: `[model, input, output, cached, cost, currency, calls]` each, without what is missing at the end."""
        if not self._sums:
            return None
        made = []
        for (model, currency), several in list(self._sums.items()):
            *tokens, nano, calls = _added(list(several))
            entry: list[Any] = [model, *tokens, nano, currency, calls if calls != 1 else None]
            while entry[-1] is None or (len(entry) <= 4 and entry[-1] == 0):
                entry.pop()
            made.append(entry)
        return made


def _whole(name: str, given: Any) -> int:
    try:
        number = operator.index(given) if not isinstance(given, bool) else -1
    except TypeError:
        number = -1
    if not 0 <= number <= MAX_NUMBER:
        raise ConfigurationError(f"used({name}={shown(given)}): it is a whole number from 0 to {MAX_NUMBER:,}")
    return number


def _nano(cost: Any) -> int:
    try:
        given = cost if isinstance(cost, Decimal) else Decimal(str(cost)) if not isinstance(cost, bool) else Decimal("NaN")
        number = int((given * NANO).to_integral_value(ROUND_HALF_EVEN)) if given.is_finite() and given < MAX_NUMBER else -1
    except (InvalidOperation, ValueError, OverflowError):
        number = -1
    if not 0 <= number <= MAX_NUMBER:
        raise ConfigurationError(f"used(cost={shown(cost)}): it is a number of units of the currency, from 0 to {MAX_NUMBER // NANO:,}")
    return number


def _added(several: Iterable[Counts]) -> Counts:
    sums: list[int] = [0, 0, 0, 0, 0]
    known = False
    for counts in several:
        known = known or counts[3] is not None
        sums = [total + (count or 0) for total, count in zip(sums, counts, strict=True)]
    return [*(min(total, MAX_NUMBER) for total in sums[:3]), min(sums[3], MAX_NUMBER) if known else None, sums[4]]


def read_usage(said: Any) -> tuple[ModelUsage, ...]:
    """Return what the data of an event that ends an attempt say of usage; nothing where they say nothing."""
    entries = said.get("used") if isinstance(said, Mapping) else None
    return tuple(_entry(entry) for entry in entries or () if isinstance(entry, (list, tuple)) and entry)


def _entry(entry: Sequence[Any]) -> ModelUsage:
    said: list[Any] = [*entry, *[None] * (7 - len(entry))]
    model, inputs, outputs, cached, nano, currency, calls = said[:7]
    return ModelUsage(
        model=model,
        input_tokens=inputs or 0,
        output_tokens=outputs or 0,
        cache_read_tokens=cached or 0,
        cost=None if nano is None else Decimal(nano) / NANO,
        currency=currency,
        calls=calls or 1,
    )


@dataclass(frozen=True, kw_only=True)
class RunUsage:
    """What a run has used, all attempts included, failed ones too.

    Attributes:
        by_model: one entry a model and currency.
        by_step: the same by the address of the step.
    """

    by_model: tuple[ModelUsage, ...] = ()
    by_step: Mapping[str, tuple[ModelUsage, ...]] = field(default_factory=dict)

    @property
    def cost(self) -> dict[str, Decimal]:
        """What it cost, by currency: currencies are never added up."""
        sums: dict[str, Decimal] = {}
        for used in self.by_model:
            if used.cost is not None and used.currency is not None:
                sums[used.currency] = sums.get(used.currency, Decimal(0)) + used.cost
        return sums

    @property
    def input_tokens(self) -> int:
        """Tokens that were read, of all models."""
        return sum(used.input_tokens for used in self.by_model)

    @property
    def output_tokens(self) -> int:
        """Tokens that were written, of all models."""
        return sum(used.output_tokens for used in self.by_model)

    @property
    def cache_read_tokens(self) -> int:
        """Tokens that came from caches, of all models."""
        return sum(used.cache_read_tokens for used in self.by_model)

    @property
    def calls(self) -> int:
        """How often models were called."""
        return sum(used.calls for used in self.by_model)

    @classmethod
    def of(cls, said: Iterable[tuple[str, ModelUsage]]) -> RunUsage:
        """Add up what the attempts at steps have used, each with the address of its step."""
        steps: dict[str, list[ModelUsage]] = {}
        for step, used in said:
            steps.setdefault(step, []).append(used)
        everything = [used for several in steps.values() for used in several]
        return cls(by_model=_summed(everything), by_step={step: _summed(several) for step, several in steps.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON encoders take; costs as text, which loses nothing."""
        return {
            "cost": {currency: format(cost, "f") for currency, cost in self.cost.items()},
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "calls": self.calls,
            "by_model": [used.to_dict() for used in self.by_model],
            "by_step": {step: [used.to_dict() for used in several] for step, several in self.by_step.items()},
        }


def _summed(several: Iterable[ModelUsage]) -> tuple[ModelUsage, ...]:
    sums: dict[tuple[str, str | None], ModelUsage] = {}
    for used in several:
        before = sums.get((used.model, used.currency))
        sums[used.model, used.currency] = used if before is None else _sum(before, used)
    return tuple(sums.values())


def _sum(one: ModelUsage, other: ModelUsage) -> ModelUsage:
    return ModelUsage(
        model=one.model,
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cache_read_tokens=one.cache_read_tokens + other.cache_read_tokens,
        cost=None if one.cost is None or other.cost is None else one.cost + other.cost,  # both are, or none is: they have one currency
        currency=one.currency,
        calls=one.calls + other.calls,
    )
