"""Run many random programs: `python -m tests.model --programs 20000 --operations 50`. A failing seed is printed and ends the run with 1."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter

from symphony_es import Symphony
from tests.model.programs import Failed, Program
from tests.model.universe import GaugeRestorer

ON_DISK = 10  # one program in so many runs on a log on disk


async def run_one(seed: int, operations: int) -> Program:
    """Run the program of a seed in a Symphony of its own."""
    with tempfile.TemporaryDirectory() as directory:
        on_disk = seed % ON_DISK == 0
        async with Symphony({"state_dir": directory} if on_disk else None, persistence_enabled=on_disk) as symphony:
            return await _run_in(symphony, seed, operations)


async def _run_in(symphony: Symphony, seed: int, operations: int) -> Program:
    symphony.restore_manager.register_restorer(GaugeRestorer())
    program = Program(seed, symphony, operations)
    try:
        await program.run()
    except BaseException as error:
        shown = error if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
        raise Failed(f"seed {seed}, operation {program.outcome.operations}: {shown}\n{' ; '.join(program.journal[-12:])}") from error
    return program


def main() -> int:
    """Run them, one after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=20_000)
    parser.add_argument("--operations", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--go-on", action="store_true", help="count failures instead of ending at the first one")
    chosen = parser.parse_args()
    begun, operations, checks, failed, refused = time.monotonic(), 0, 0, 0, Counter[str]()
    for seed in range(chosen.first, chosen.first + chosen.programs):
        if (seed - chosen.first) % 500 == 499:
            print(f"{seed - chosen.first} programs, {failed} failed, {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        try:
            program = asyncio.run(run_one(seed, chosen.operations))
        except Failed as error:
            failed += 1
            print(error, file=sys.stderr)
            if not chosen.go_on:
                return 1
            continue
        operations += program.outcome.operations
        checks += program.outcome.checks
        refused.update(key.partition(": ")[0] + ": " + key.split(": ")[1] for key in program.outcome.refused.elements())
    share = sum(refused.values()) / max(operations, 1)
    print(
        f"{chosen.programs} programs, {operations} operations, {checks} comparisons with the fold, {failed} failed, "
        f"{share:.2%} refused, {time.monotonic() - begun:.0f} s"
    )
    for what, count in refused.most_common(20):
        print(f"  {count:7} {what}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
