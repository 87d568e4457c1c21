"""Random programs of code-first workflows, as data; one interpreter of them calls steps, the other is plain."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from symphony_es.errors import StepFailedError
from symphony_es.workflow import RetryPolicy, gather, patched, sleep, step

__all__ = ["Plainly", "Program", "interpret", "program"]

Operation = tuple[Any, ...]
Program = list[Operation]
FLAKY = RetryPolicy(max_attempts=40, delay_s=0.001)


def program(seed: int, *, failing: bool = False) -> Program:
    """The program of a seed; with `failing`, some of its steps fail the run a few times."""
    chosen = random.Random(seed)
    made = _operations(chosen, 0, failing)
    return made if failing or chosen.random() < 0.8 else [*made, ("final",)]


def _operations(chosen: random.Random, depth: int, failing: bool) -> Program:
    kinds = ["ok"] * 4 + ["once" if failing else "ok", "fail", "fail", "flaky", "sleep", "patched", "branch", "gather", "gather"]
    made: Program = []
    for _ in range(chosen.randint(1, 4)):
        match chosen.choice(kinds if depth < 2 else kinds[:-2]):
            case "gather":
                strands = [_operations(chosen, depth + 1, failing) for _ in range(chosen.randint(1, 3))]
                made.append(("gather", strands))
            case "fail":
                made.append(("fail", chosen.choice("abc"), chosen.choice([1, 2])))
            case "patched":
                made.append(("patched", chosen.choice("pq")))
            case kind:
                made.append((kind, chosen.choice("abc")))
    return made


async def interpret(operations: Program, where: str, body: Callable[[str, str], Awaitable[str]]) -> list[Any]:
    """Execute a program; each operation's step calls `body` with its kind and its place."""
    given: list[Any] = []
    for number, (kind, *details) in enumerate(operations):
        place = f"{where}.{number}"
        match kind:
            case "ok" | "once":
                given.append(await step(body, kind, place, name=details[0]))
            case "flaky":
                given.append(await step(body, kind, place, name=details[0], retry=FLAKY))
            case "fail":
                try:
                    await step(body, kind, place, name=details[0], retry=RetryPolicy(max_attempts=details[1], delay_s=0))
                except StepFailedError as error:
                    given.append(f"{error.error_type}@{error.step}")
            case "sleep":
                await sleep(60)
            case "patched":
                given.append(patched(details[0]))
            case "branch":
                given.append(await step(body, "ok", place, name="then" if len(given) % 2 else "other"))
            case "final":
                await step(body, "fail", place, name="final")
            case _:
                given.append(await gather(*(interpret(strand, f"{place}.{n}", body) for n, strand in enumerate(details[0]))))
    return given


class Plainly:
    """Execute a program without steps.

    Attributes:
        result: what it gives; None where it fails.
        error: address of the step that it fails of, or None.
        calls: the address and the place of each step.
    """

    def __init__(self, operations: Program) -> None:
        self.calls: set[tuple[str, str]] = set()
        self.error: str | None = None
        self.result: list[Any] | None = self._strand(operations, "", "", Counter())
        if self.error is not None:
            self.result = None

    def _strand(self, operations: Program, where: str, prefix: str, names: Counter[str]) -> list[Any]:
        given: list[Any] = []

        def called(name: str, place: str) -> str:
            names[name] += 1
            address = f"{prefix}{name}" + (f"#{names[name]}" if names[name] > 1 else "")
            self.calls.add((address, place))
            return address

        for number, (kind, *details) in enumerate(operations):
            place = f"{where}.{number}"
            match kind:
                case "ok" | "once" | "flaky":
                    called(details[0], place)
                    given.append(place)
                case "fail":
                    given.append(f"ValueError@{called(details[0], place)}")
                case "sleep":
                    continue
                case "patched":
                    given.append(True)
                case "branch":
                    called("then" if len(given) % 2 else "other", place)
                    given.append(place)
                case "final":
                    self.error = called("final", place)
                case _:
                    names["gather"] += 1
                    around = f"{prefix}gather" + (f"#{names['gather']}" if names["gather"] > 1 else "")
                    given.append([self._strand(strand, f"{place}.{n}", f"{around}/{n}/", Counter()) for n, strand in enumerate(details[0])])
        return given
