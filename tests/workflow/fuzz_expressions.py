"""Random expressions, well-formed and not: nothing but the declared error and plain values comes out of them.

`python -m tests.workflow.fuzz_expressions --inputs 1000000 --seed 1`, and `--only 4711` to see one input of a seed again.
A fault is an AssertionError that names both.
"""

from __future__ import annotations

import argparse
import gc
import random
import resource
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from symphony_es.core.objects.tracked_dict import TrackedDict
from symphony_es.core.objects.tracked_list import TrackedList
from symphony_es.core.objects.tracked_set import TrackedSet
from symphony_es.errors import ExpressionError, TemplateError
from symphony_es.workflow.language.expressions import MAX_CHARS, evaluate, truth
from symphony_es.workflow.language.operations import MAX_INT_BITS
from symphony_es.workflow.language.templates import render

TOUCHED: list[str] = []


class Trap:
    """A value that may be compared and handed on; whoever reaches into it is found out."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("cannot be compared")

    def __lt__(self, other: object) -> bool:
        raise RuntimeError("cannot be compared")

    def __bool__(self) -> bool:
        raise RuntimeError("neither true nor false")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")


def _trapped(name: str) -> Any:
    def reached(self: Trap, *given: Any, **named: Any) -> Any:
        TOUCHED.append(name)
        raise RuntimeError(name)

    return reached


_METHODS = """
call getattr getitem iter len contains add radd sub mul rmul truediv floordiv mod rmod pow neg pos abs round index int float format
"""
for _name in _METHODS.split():
    setattr(Trap, f"__{_name}__", _trapped(_name))


class Grade(StrEnum):
    """A member of it equals its text."""

    GOOD = "good"


SCOPE: dict[str, Any] = {
    "a": 3,
    "b": 0.5,
    "s": "rain",
    "n": None,
    "t": True,
    "l": [1, 2, [3, "x"]],
    "d": {"k": 1, "my-key": 2, 3: "three", "l": [1]},
    "trap": Trap(),
    "trapped": [Trap()],
    "price": Decimal("1.25"),
    "vast": Decimal("1E+999999"),
    "odd": float("nan"),
    "endless": float("inf"),
    "huge": 1 << 4095,
    "beyond": 1 << 10_000,
    "at": datetime(2026, 1, 1, tzinfo=UTC),
    "naive": datetime(2026, 1, 1),
    "id": UUID(int=1),
    "grade": Grade.GOOD,
    "long": "x" * 60_000,
    "many": list(range(60_000)),
    "set": {1, "x"},
    "raw": b"raw",
    "tl": TrackedList._symphony_make([1, {"x": [2]}]),
    "td": TrackedDict._symphony_make({"k": {"x": 1}}),
    "ts": TrackedSet._symphony_make([1, 2]),
    "pair": (1, (2,)),
    "é": 1,
}
_NAMES = [name for name in SCOPE for _ in range(1 if name in ("trap", "trapped", "long", "many", "beyond") else 4)]
_PLAIN = (type(None), bool, int, float, str, bytes, Decimal, datetime, UUID)
_ODD_TOKENS = r"""
__class__ @ .__mro__[1] @ .__subclasses__() @ __import__('os') @ lambda: 0 @ ** @ << @ := @ ｏs @ f'{a}' @ '\''
# @ \ @ for x in l @ [x for x in l]
await a @ yield @ *l @ **d @ ... @ 1e999 @ 0x @ 1_ @ 1j @ ; @ { @ } @ {{ @ }} @ ' @ " @ b''
getattr(a, 'b') @ '{0.__class__}'.format(a) @ '%s' % a
'x' * 10**9 @ type(a) @ print @ = @ == @ is @ is not @ in @ not @ if @ else @ and @ ! @ 0777
😀 @ "" @ '''
"""
_ODD = [
    *(token for line in _ODD_TOKENS.split("\n") for token in line.split(" @ ")),
    *("\0", "\ud800", "\n", "\r", "\f", "\u2028", "@", "(" * 40, "[" * 40, ")" * 40, "not " * 40, "-" * 40, "a." * 30, "a+" * 110),
]
_ANY = "ab0159_.,:;()[]{}<>=!+-*/%&|^~@#'\"\\ \t\n\r\0éｏ\ud800\u0301\u2028²٣😀"


class Writer:
    """Writes expressions of the language, most of which mean something in `SCOPE`."""

    def __init__(self, dice: random.Random, *, attributes: bool) -> None:
        self._dice = dice
        self._attributes = attributes

    def write(self, depth: int) -> str:
        """An expression in which at most `depth` others stand in one another."""
        dice = self._dice
        if depth == 0 or dice.random() < 0.2:
            return self._atom()
        one, other = self.write(depth - 1), self.write(depth - 1)
        form = dice.randrange(12)
        if form <= 2:
            return f"({one} {dice.choice(['+', '-', '*', '/', '//', '%'])} {other})"
        if form <= 4:
            return f"({one} {dice.choice(['==', '!=', '<', '<=', '>', '>=', 'in', 'not in'])} {other})"
        if form == 5:
            return f"({one} {dice.choice(['and', 'or'])} {other})"
        if form == 6:
            return f"{dice.choice(['not ', '-', '+'])}({one})"
        if form == 7:
            return f"({one} if {other} else {self.write(depth - 1)})"
        if form == 8:
            return dice.choice([f"[{one}, {other}]", f"({one}, {other})", f"({one} in {{{other}, 1}})", f"({one} is None)"])
        if form == 9:
            return dice.choice(
                [f"len({one})", f"min({one}, {other})", f"max({one})", f"abs({one})", f"round({one})", f"round({one}, {other})"]
            )
        if form == 10:
            return dice.choice([f"{self._name()}[{one}]", f"{self._name()}[{one}:{other}]", f"{self._name()}[:{other}]"])
        return f"{self._name()}.{dice.choice(['k', 'x', 'l', 'append', 'real'])}" if self._attributes else self._name()

    def _name(self) -> str:
        return self._dice.choice(_NAMES)

    def _atom(self) -> str:
        if self._dice.random() < 0.6:
            return self._name()
        return self._dice.choice(
            ["0", "1", "2", "-1", "0.5", "1e300", "'x'", "'k'", '"my-key"', "None", "True", "''", "10_000", "missing", "[]", "()"]
        )


def write_input(seed: int, number: int) -> tuple[str, bool]:
    """One input, and whether it is written so that Python reads it with the same meaning."""
    dice = random.Random(seed << 32 | number)
    kind = dice.random()
    if kind < 0.1:
        return "".join(dice.choice(_ANY) for _ in range(dice.randrange(40))), False
    attributes = dice.random() < 0.5
    text = Writer(dice, attributes=attributes).write(dice.randrange(1, 5))
    if kind < 0.5:
        return text, not attributes
    for _ in range(dice.randrange(1, 4)):
        at, end = sorted((dice.randrange(len(text) + 1), dice.randrange(len(text) + 1)))
        change = dice.randrange(5)
        if change == 0:
            text = text[:at] + text[at + 1 :]
        elif change == 1:
            text = text[:at] + dice.choice(_ODD) + text[at:]
        elif change == 2:
            text = text[:at] + dice.choice(_ANY) + text[at:]
        elif change == 3:
            text = text[:end] + text[at:]
        else:
            text = text[:at] + dice.choice(_ODD) + text[end:]
    return text, False


def _check_result(value: Any, depth: int = 0) -> None:
    """Only plain values, and what stands in the scope itself."""
    if type(value) in _PLAIN:
        if type(value) is int:
            assert value.bit_length() <= MAX_INT_BITS or value is SCOPE["beyond"]
        return
    if isinstance(value, (Trap, Grade)):
        return
    assert type(value) in (list, tuple, dict, set, TrackedList, TrackedDict, TrackedSet), type(value)
    assert depth < 100
    if value is not SCOPE["many"] and len(value) < 1_000:
        for item in value.values() if isinstance(value, dict) else value:
            _check_result(item, depth + 1)


def _check_error(error: ExpressionError, text: str) -> None:
    assert 0 <= error.offset <= max(len(text), MAX_CHARS)
    assert str(error)
    assert error.why


def _by_python(text: str, scope: Mapping[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of literals on both sides of `is`
        return eval(text, {}, dict(scope))


def check_input(text: str, scope: Mapping[str, Any], *, python: bool) -> bool:
    """Evaluates one input in all ways; True when it had a value."""
    try:
        value = evaluate(text, scope)
    except ExpressionError as error:
        _check_error(error, text)
        value = error
    else:
        _check_result(value)
        if python:
            theirs = _by_python(text, scope)
            assert type(theirs) is type(value)
            assert theirs is value or repr(theirs) == repr(value)
        try:
            assert isinstance(truth(text, scope), bool)
        except ExpressionError as error:
            _check_error(error, text)
    template = f"é {{{{ {text} }}}} {{{{a}}}}"
    try:
        render(template, scope)
    except TemplateError as error:
        _check_error(error, template)
    return not isinstance(value, ExpressionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a round of inputs came to."""

    inputs: int
    evaluated: int
    duration_s: float
    slowest_s: float
    slowest: str


def run(inputs: int, seed: int, first: int = 0) -> Outcome:
    """Tries inputs `first` to `first + inputs` of a seed.

    Raises:
        AssertionError: with the seed, number and text of the input that found a fault.
    """
    evaluated, slowest_s, slowest = 0, 0.0, ""
    begin = time.perf_counter()
    gc.collect()
    gc.freeze()  # a pass of the collector over all that other tests have left is no cost of an expression
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for number in range(first, first + inputs):
            text, python = write_input(seed, number)
            before = time.thread_time()  # of this thread alone: others may have the processor meanwhile
            try:
                evaluated += check_input(text, SCOPE, python=python)
                assert not TOUCHED, f"reached into a value: {TOUCHED}"
                assert not warned, f"warned: {warned[0].message}"
            except Exception as error:
                raise AssertionError(f"--seed {seed} --only {number}: {text!r}: {type(error).__name__}: {error}") from error
            took_s = time.thread_time() - before
            if took_s > slowest_s:
                slowest_s, slowest = took_s, text
    gc.unfreeze()
    return Outcome(inputs=inputs, evaluated=evaluated, duration_s=time.perf_counter() - begin, slowest_s=slowest_s, slowest=slowest)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--only", type=int, help="try one input of the seed, and show it")
    given = parser.parse_args()
    if given.only is not None:
        print(repr(write_input(given.seed, given.only)[0]))
    print(f"seed {given.seed}", flush=True)
    outcome = run(given.inputs, given.seed) if given.only is None else run(1, given.seed, given.only)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{outcome.inputs:,} inputs in {outcome.duration_s:.0f} s: {outcome.evaluated:,} had a value, the others the declared error")
    print(f"slowest {outcome.slowest_s * 1000:.0f} ms: {outcome.slowest[:200]!r}; peak memory {peak_mib:.0f} MiB")


if __name__ == "__main__":
    main()
