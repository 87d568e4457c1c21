"""Run many random workflows: `python -m tests.fuzz --programs 2000`. A seed that diverges is printed and makes the exit code 1.

`--what declared --first 4711 --programs 1` shows one again.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from tests.fuzz.chaos import check_chaos
from tests.fuzz.declared import ENDING, FAILING
from tests.fuzz.lives import check_coded, check_declared

__all__ = ["FUZZERS", "main"]

FUZZERS: dict[str, tuple[Callable[[int], Coroutine[Any, Any, int]], int]] = {
    "declared": (check_declared, 1),
    "declared that fail": (partial(check_declared, kinds=FAILING), 2),
    "declared and collected": (partial(check_declared, kinds=ENDING), 2),
    "coded": (partial(check_coded, failing=False), 2),
    "coded that fail": (partial(check_coded, failing=True), 2),
    "many requests at once": (check_chaos, 8),
}
"""By name, what runs the program of a seed and gives how many processes have died; and of so many programs one of these is run."""


def main() -> int:
    """Run them, one fuzzer after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=2000, help="so many definitions; of other kinds fewer")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--what", choices=FUZZERS, action="append", help="these only, in full number")
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)  # what fails on purpose is no news
    failed = 0
    for name in chosen.what or FUZZERS:
        check, share = FUZZERS[name]
        programs = chosen.programs if chosen.what else -(-chosen.programs // share)
        begun, deaths, diverged = time.monotonic(), 0, 0
        for seed in range(chosen.first, chosen.first + programs):
            try:
                deaths += asyncio.run(check(seed))
            except Exception as error:
                diverged += 1
                print(f"{name}, seed {seed}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        spent = time.monotonic() - begun
        print(
            f"{name}: seeds {chosen.first} to {chosen.first + programs - 1}, {deaths} deaths, {diverged} diverge, {spent:.0f} s", flush=True
        )
        failed += diverged
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
