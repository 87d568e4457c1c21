"""Measuring: a row has contenders, each round lets every contender run once, in turns, in a process of its own.

So drift of the machine hits all of them alike, none leaves garbage, threads or memory to another one, and a ratio is computed within a
round before the median of the rounds is taken. Rounds go through the contenders in one direction and the next round in the other.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Contender", "ContenderError", "Goal", "Place", "Result", "Row", "Sample", "call", "peak_mb", "run_row"]

ROUNDS = 5
TIMEOUT_S = 3600
PEERS = "benchmarks.peers."


class ContenderError(RuntimeError):
    """A contender's process has failed; the message holds what it wrote to standard error."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender works, and how much it has to do.

    Attributes:
        own: an empty directory of its own.
        shared: what the row's preparation has left; to be read only.
        sizes: numbers by name, such as `events`.
    """

    own: Path
    shared: Path
    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one run of a contender gave.

    Attributes:
        figures: numbers by name; the median of the rounds is reported.
        settings: what makes it comparable, as read back from the connection or file: journal mode, synchronous, version.
        series: named lists of (x, y), for the plots; the last round's are kept.
    """

    figures: Mapping[str, float]
    settings: Mapping[str, Any] = field(default_factory=dict)
    series: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One of those who are compared.

    Attributes:
        target: `module:function`; the function takes a Place and returns a Sample, or is a coroutine function that does.
        what: what it does, in a few words, for the report.
        peer: needs the packages of the dependency group `peers`.
        rounds: at most so many rounds, for what takes long or gives the same each time.
    """

    name: str
    target: str
    what: str
    peer: bool = False
    rounds: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A figure to reach: of one contender, or its ratio to another one's.

    Attributes:
        text: what is compared, for the report.
        of, to: `contender.figure`; without `to` it is the figure itself.
        at_least, at_most: the bound; one of them. A goal without a bound is only reported.
    """

    text: str
    of: str
    to: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def needs(self) -> set[str]:
        """Names of the contenders."""
        return {name.partition(".")[0] for name in (self.of, self.to) if name is not None}

    def reached(self, value: float) -> bool | None:
        """Whether a value reaches it; None where there is no bound."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table.

    Attributes:
        name: for `--rows`.
        title: what is measured.
        unit: of the first figure of each contender.
        contenders: in the order of the report; the first one is ours.
        goals: what is to be reached.
        sizes: how much, by scale: `default`, and where they differ from it `quick` and `full`.
        prepare: `module:function` that leaves something in the shared directory, once for all rows that name it with equal sizes.
        rounds: how many.
        note: what else a reader has to know.
    """

    name: str
    title: str
    unit: str
    contenders: tuple[Contender, ...]
    goals: tuple[Goal, ...] = ()
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: {"default": {}})
    prepare: tuple[str, ...] = ()
    rounds: int = ROUNDS
    note: str = ""

    def sizes_of(self, scale: str) -> dict[str, int]:
        """Sizes of a scale: those of `default`, with what the scale says otherwise."""
        return {**self.sizes["default"], **self.sizes.get(scale, {})}


@dataclass(slots=True, kw_only=True)
class Result:
    """A row's outcome.

    Attributes:
        samples: by contender, one per round.
        failures: contenders that failed, and why.
    """

    row: Row
    sizes: dict[str, int]
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def values(self, name: str) -> list[float]:
        """A figure (`contender.figure`) of all rounds."""
        contender, _, figure = name.partition(".")
        return [float(sample.figures[figure]) for sample in self.samples.get(contender, []) if figure in sample.figures]

    def median(self, name: str) -> float | None:
        """Median of a figure over the rounds; None when it was not measured."""
        values = self.values(name)
        return statistics.median(values) if values else None

    def goal_values(self, goal: Goal) -> list[float]:
        """A goal's value in each round: a ratio is one of figures of the same round, where both have as many rounds."""
        of, to = self.values(goal.of), self.values(goal.to) if goal.to is not None else None
        if to is None or not of or not to:
            return of if to is None else []
        if len(of) != len(to):
            of, to = [statistics.median(of)], [statistics.median(to)]
        return [a / b for a, b in zip(of, to, strict=False) if b]


def peak_mb() -> float:
    """Peak resident memory of this process alone, MB; what getrusage tells begins with the peak of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024 if sys.platform == "darwin" else 1024)


def call(target: str, place: Place) -> Any:
    """Call `module:function` with a place, in this process."""
    module, _, name = target.partition(":")
    function: Callable[[Place], Any] = getattr(importlib.import_module(module), name)
    outcome = function(place)
    return asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome


def call_in_a_process(target: str, place: Place) -> Any:
    """The same in a process of its own, which hands its sample back as JSON.

    Raises:
        ContenderError: it failed.
    """
    command = [sys.executable, "-m", "benchmarks.child", target, str(place.own), str(place.shared), json.dumps(dict(place.sizes))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise ContenderError(f"{target} took more than {TIMEOUT_S} s") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise ContenderError(f"{target} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    answer = json.loads(lines[-1])
    return Sample(**answer) if answer is not None else None


def run_row(
    row: Row,
    directory: Path,
    *,
    scale: str = "default",
    peers: bool = False,
    rounds: int | None = None,
    sizes: Mapping[str, int] | None = None,
    isolated: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Result:
    """Measure a row.

    Args:
        directory: an empty one, or one in which other rows have prepared something.
        scale: `quick`, `default` or `full`.
        peers: with those contenders that need their packages.
        sizes: in place of the scale's.
        isolated: a process for each contender; without it, all in this one (for tests).
        say: told what is being done.
    """
    chosen = {**row.sizes_of(scale), **(sizes or {})}
    run = call_in_a_process if isolated else call
    targets = [target for target in row.prepare if peers or not target.startswith(PEERS)]
    shared = _prepared(row.name, targets, directory, chosen, run, say)
    result = Result(row=row, sizes=chosen)
    contenders = [contender for contender in row.contenders if peers or not contender.peer]
    for round_ in range(rounds or row.rounds):
        for contender in contenders if round_ % 2 == 0 else reversed(contenders):
            if contender.name in result.failures or round_ >= contender.rounds:
                continue
            say(f"{row.name}: {contender.name}, round {round_ + 1} of {min(rounds or row.rounds, contender.rounds)}")
            with tempfile.TemporaryDirectory(dir=directory) as own:
                try:
                    sample = run(contender.target, Place(Path(own), shared, chosen))
                except ContenderError as error:
                    result.failures[contender.name] = str(error)
                    say(f"{row.name}: {contender.name} failed: {error}")
                    continue
            result.samples.setdefault(contender.name, []).append(sample)
    return result


def _prepared(
    name: str,
    targets: Sequence[str],
    directory: Path,
    sizes: Mapping[str, int],
    run: Callable[[str, Place], Any],
    say: Callable[[str], None],
) -> Path:
    """The shared directory; made unless an earlier row has. Preparations that fail are the failures of their contenders."""
    kept = json.dumps([targets, sorted(sizes.items())])
    shared = directory / "shared" / str(zlib.crc32(kept.encode()))
    if not shared.exists():
        shared.mkdir(parents=True)
        for target in targets:
            say(f"{name}: preparing, {target}")
            try:
                run(target, Place(shared, shared, sizes))
            except ContenderError as error:
                say(f"{name}: {error}")
    return shared
