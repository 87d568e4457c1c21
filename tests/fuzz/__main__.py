"""Run many random workflows: `python -m tests.fuzz --programs 2000`. A seed that diverges is printed and makes the exit code 1.

Of all programs the processes die at commits, which is simulated in this process; of a share of them they are killed besides, kill -9.
`--what declared --first 4711 --programs 1 --kill-every 1` shows one again. `python -m tests.fuzz decoders` feeds data to decoders.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time

from tests.fuzz import decoders
from tests.fuzz.chaos import Requests
from tests.fuzz.declared import ENDING, FAILING
from tests.fuzz.dying import check_dying
from tests.fuzz.killed import Forks, check_killed
from tests.fuzz.lives import Coded, Declared, Fuzzer

__all__ = ["FUZZERS", "main"]

FUZZERS: dict[str, tuple[Fuzzer, int]] = {
    "declared": (Declared(), 1),
    "declared that fail": (Declared(FAILING), 2),
    "declared and collected": (Declared(ENDING), 2),
    "coded": (Coded(failing=False), 2),
    "coded that fail": (Coded(failing=True), 2),
    "many requests at once": (Requests(), 8),
}
"""The fuzzers by name; and of so many programs one is run."""


def main() -> int:
    """Run them, one fuzzer after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=2000, help="so many definitions; of other kinds fewer")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--what", choices=FUZZERS, action="append", help="these only, in full number")
    parser.add_argument("--kill-every", type=int, default=10, help="of so many programs the processes of one are really killed; 0: of none")
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)  # what fails on purpose is no news
    failed = 0
    with Forks() as forks:
        for name in chosen.what or FUZZERS:
            _, share = FUZZERS[name]
            programs = chosen.programs if chosen.what else -(-chosen.programs // share)
            failed += _run(forks, name, range(chosen.first, chosen.first + programs), chosen.kill_every)
    return 1 if failed else 0


def _run(forks: Forks, name: str, seeds: range, kill_every: int) -> int:
    """Run one fuzzer; how many programs diverge."""
    fuzzer, _ = FUZZERS[name]
    begun, deaths, kills, killed, diverged = time.monotonic(), 0, 0, 0, 0
    for seed in seeds:
        try:
            deaths += asyncio.run(check_dying(fuzzer, seed))
            if kill_every and seed % kill_every == 0:
                killed += 1
                kills += check_killed(forks, name, fuzzer, seed)
        except Exception as error:
            diverged += 1
            print(f"{name}, seed {seed}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    spent = time.monotonic() - begun
    print(
        f"{name}: seeds {seeds[0]} to {seeds[-1]}, {deaths} deaths; {kills} kills in {killed} of them; {diverged} diverge; {spent:.0f} s",
        flush=True,
    )
    return diverged


if __name__ == "__main__":
    sys.exit(decoders.main(sys.argv[2:]) if sys.argv[1:2] == ["decoders"] else main())
