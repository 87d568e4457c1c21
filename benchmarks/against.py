"""This checkout against another one of the same project: `python -m benchmarks.against OTHER [--rows NAMES] [--rounds N]`.

OTHER is the folder of a checkout of an earlier commit (`git worktree add OTHER COMMIT`). In each round every contender of ours runs once
from each of the two, in turns, in a process of its own, with the benchmarks of its own checkout. So both meet the same machine in the
same minutes, and a ratio is computed within a round before the median is taken; its quartiles say how much the machine has wavered.
Ends with 1 when a figure is worse by more than the bound.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import Contender, Row
from benchmarks.rows.table import ROWS

HERE = Path(__file__).parents[1]
NOT_OURS = ("floor", "plain")


def run_in(checkout: Path, target: str, own: Path, shared: Path, sizes: dict[str, int]) -> dict[str, float] | str:
    """The figures of one run from a checkout, or why it failed."""
    command = [sys.executable, "-m", "benchmarks.child", target, str(own), str(shared), json.dumps(sizes)]
    path = os.pathsep.join([str(checkout), str(checkout / "projections")])
    # Both keep their compiled modules in one place: a checkout without any would compile them in each process, and be measured with it.
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONPYCACHEPREFIX": str(shared.parent / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        return done.stderr.strip()[-500:] or f"ended with {done.returncode}"
    answer = json.loads(lines[-1])
    return {} if answer is None else {name: float(figure) for name, figure in answer["figures"].items()}


def more_is_better(figure: str) -> bool:
    """Whether a larger figure is the better one; times, bytes and memory are better when they are small."""
    return figure.endswith("_per_s") or figure == "events_per_commit"


def contenders_of(row: Row) -> Iterator[Contender]:
    """The contenders of a row that are this library."""
    for contender in row.contenders:
        if not contender.peer and not contender.name.startswith(NOT_OURS):
            yield contender


def compare(row: Row, other: Path, rounds: int, scale: str, directory: Path) -> list[tuple[str, float, float, list[float]]]:
    """Figure, here, there, and how much worse it is here (1.0: the same), in each round."""
    sizes = row.sizes_of(scale)
    places: dict[Path, Path] = {}
    for checkout in (HERE, other):
        shared = places[checkout] = directory / f"{row.name}-{'here' if checkout == HERE else 'there'}"
        shared.mkdir()
        for target in row.prepare:
            if ".peers." not in target:
                run_in(checkout, target, shared, shared, sizes)
        for contender in contenders_of(row):  # once for nothing: what it imports is compiled
            with tempfile.TemporaryDirectory(dir=directory) as own:
                run_in(checkout, contender.target, Path(own), shared, sizes)
    figures: dict[str, dict[Path, list[float]]] = {}
    for round_ in range(rounds):
        for contender in contenders_of(row):
            for checkout in (HERE, other) if round_ % 2 == 0 else (other, HERE):
                with tempfile.TemporaryDirectory(dir=directory) as own:
                    sample = run_in(checkout, contender.target, Path(own), places[checkout], sizes)
                if isinstance(sample, str):
                    print(f"{row.name}: {contender.name} in {checkout.name}: {sample}", file=sys.stderr)
                    continue
                for name, figure in sample.items():
                    figures.setdefault(f"{contender.name}.{name}", {}).setdefault(checkout, []).append(figure)
    found = []
    for name, by in figures.items():
        mine, theirs = by.get(HERE, []), by.get(other, [])
        worse = [b / a if more_is_better(name) else a / b for a, b in zip(mine, theirs, strict=False) if a and b]
        if worse:
            found.append((name, statistics.median(mine), statistics.median(theirs), worse))
    return found


def main() -> int:
    """Compare and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__)
    parser.add_argument("other", type=Path, help="the folder of the other checkout")
    parser.add_argument("--rows", help="only these, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--bound", type=float, default=1.05, help="how much worse a figure may be")
    given = parser.parse_args()
    chosen = [row for row in ROWS if given.rows is None or row.name in given.rows.split(",")]
    bad = 0
    with tempfile.TemporaryDirectory() as directory:
        for row in chosen:
            for name, here, there, ratios in compare(
                row, given.other.resolve(), given.rounds, "quick" if given.quick else "default", Path(directory)
            ):
                low, worse, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
                sign = " <--" if worse > given.bound else ""
                bad += bool(sign)
                print(f"{row.name:20} {name:34} {here:14,.3f} {there:14,.3f}  x {worse:.3f} ({low:.2f} to {high:.2f}){sign}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
