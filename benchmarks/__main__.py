"""What the library costs, beside the physical floor and the peers: `python -m benchmarks`; see docs/performance.md.

Every row lets ours, the floor and the peers run in turns, with the same durability, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import Result, run_row
from benchmarks.report import as_json, as_text, earlier, surroundings, write
from benchmarks.rows.table import ROWS


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the rows and their goals")
    parser.add_argument("--rows", metavar="NAMES", help="only these, separated by commas")
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--quick", action="store_true", help="small sizes, to see that everything works; the figures mean little")
    scale.add_argument("--full", action="store_true", help="the sizes of the goals, also where that takes long: 10,000,000 events")
    parser.add_argument("--rounds", type=int, help="how many rounds in place of each row's own number")
    parser.add_argument("--peers", action="store_true", help="with the peers; they are the dependency group of that name")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results as JSON")
    parser.add_argument("--out", metavar="DIR", type=Path, help="write results, a page and plots; rows not asked for stay as they are")
    parser.add_argument("--work", metavar="DIR", type=Path, help="where logs are made, in place of the system's temporary directory")
    return parser.parse_args()


def list_rows() -> None:
    """Print every row with its goals."""
    for row in ROWS:
        print(f"{row.name:20} {row.title}")
        for goal in row.goals:
            if goal.at_least is not None or goal.at_most is not None:
                sign = f">= {goal.at_least:g}" if goal.at_least is not None else f"<= {goal.at_most:g}"
                print(f"{'':20}   {goal.text}: {sign}")


def main() -> None:
    """Measure and report."""
    given = arguments()
    # What is installed has been compiled when a program starts, so ours is too: it would be compiled anew in each process that is measured.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if given.list:
        list_rows()
        return
    names = given.rows.split(",") if given.rows else [row.name for row in ROWS]
    unknown = sorted(set(names) - {row.name for row in ROWS})
    if unknown:
        raise SystemExit(f"no such rows: {', '.join(unknown)}; --list shows them")
    scale = "quick" if given.quick else "full" if given.full else "default"
    around = surroundings(scale)
    kept = [result for result in earlier(given.out, ROWS, around) if result.row.name not in names] if given.out is not None else []
    results: list[Result] = []
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.0f} s] {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(dir=given.work) as directory:
        for row in ROWS:
            if row.name in names:
                result = run_row(row, Path(directory), scale=scale, peers=given.peers, rounds=given.rounds, say=say)
                results.append(result)
                print(as_text(result), flush=True)
                if given.json is not None:
                    given.json.write_text(json.dumps(as_json(results, around), indent=1) + "\n")
                if given.out is not None:
                    write(sorted([*results, *kept], key=lambda result: ROWS.index(result.row)), given.out, around)
    say("done")


if __name__ == "__main__":
    main()
