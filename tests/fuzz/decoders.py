"""Feed every decoder data that are nearly right, with check values made right after the change: `python -m tests.fuzz decoders`.

A fault is an error of no declared type, a message that is longer than messages are or has control characters in it, time or memory beyond
the bound, and a value that does not come back as itself. Each execution has a seed of its own: `--only values:4711` shows one again.
`SYMPHONY_RANDOM=1` takes other seeds.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from symphony_es.errors import SymphonyError
from tests.fuzz import stores, texts, values

__all__ = ["DECODERS", "Fault", "check", "main"]

MOST_S = 5.0
"""Seconds of CPU that one execution may take; no input here has more than some thousand bytes."""
MOST_GROWTH_MB = 300


class Decoder(NamedTuple):
    """Something that reads data of somebody else.

    Attributes:
        check: makes data, decodes them, and looks at what came out.
        share: of a thousand executions this many are of it.
    """

    check: Callable[[random.Random], None]
    share: int


DECODERS: dict[str, Decoder] = {
    "values": Decoder(values.check_value, 260),
    "events": Decoder(values.check_event, 220),
    "columns": Decoder(values.check_columns, 60),
    "folds": Decoder(values.check_fold, 90),
    "requests": Decoder(texts.check_request, 80),
    "definitions": Decoder(texts.check_definition, 80),
    "expressions": Decoder(texts.check_template_text, 50),
    "texts": Decoder(texts.check_texts, 100),
    "exports": Decoder(texts.check_export, 20),
    "snapshots": Decoder(stores.check_snapshot, 15),
    "write-ahead files": Decoder(stores.check_wal, 10),
    "lists of checkpoints and runs": Decoder(stores.check_lists, 10),
    "databases": Decoder(stores.check_database, 2),
    "notes of the head": Decoder(stores.check_head, 3),
}


class Fault(AssertionError):
    """What a decoder has done that none may do."""


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def check(name: str, seed: str) -> None:
    """One execution.

    Raises:
        Fault: as the module says; the seed is named.
    """
    rng = random.Random(seed)
    begun, peak = time.process_time(), _peak_mb()
    try:
        DECODERS[name].check(rng)
    except SymphonyError as error:
        try:
            texts.check_message(error)
        except AssertionError as complaint:
            raise Fault(f"--only '{name}:{seed}': {complaint}") from error
    except Exception as error:
        raise Fault(f"--only '{name}:{seed}': {type(error).__name__}: {error}"[:500]) from error
    spent, grown = time.process_time() - begun, _peak_mb() - peak
    if spent > MOST_S or grown > MOST_GROWTH_MB:
        raise Fault(f"--only '{name}:{seed}': it took {spent:.1f} s and {grown} MB")


def run(name: str, seeds: Iterable[str]) -> list[Fault]:
    """Many executions; the faults."""
    faults = []
    for seed in seeds:
        try:
            check(name, seed)
        except Fault as fault:
            faults.append(fault)
    return faults


def main(arguments: list[str]) -> int:
    """Run all decoders, or those that are named."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz decoders", description=__doc__)
    parser.add_argument("--executions", type=int, default=1_000_000, help="of all decoders together")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--what", choices=DECODERS, action="append", help="these only")
    parser.add_argument("--only", help="one execution, as a fault names it")
    chosen = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    if chosen.only:
        name, _, seed = chosen.only.partition(":")
        check(name, seed)
        return 0
    base = os.urandom(4).hex() + "-" if os.environ.get("SYMPHONY_RANDOM") else ""
    names = chosen.what or list(DECODERS)
    total = sum(DECODERS[name].share for name in names)
    failed = executed = 0
    for name in names:
        count = -(-chosen.executions * DECODERS[name].share // total)
        begun = time.process_time()
        faults = run(name, (f"{base}{number}" for number in range(chosen.first, chosen.first + count)))
        for fault in faults[:20]:
            print(fault, file=sys.stderr, flush=True)
        failed += len(faults)
        executed += count
        spent = time.process_time() - begun
        print(f"{name}: {count:,} from {base}{chosen.first} on, {len(faults)} faults; {spent:.0f} s; peak {_peak_mb()} MB", flush=True)
    print(f"{executed:,} executions, {failed} faults", flush=True)
    return 1 if failed else 0
