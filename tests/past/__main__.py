"""Ask random logs of their past, and compare with brute force: `python -m tests.past --logs 2000`. A difference makes the exit code 1.

Each log has entities that are deleted and made again, lists whose items move, transactions, checkpoints, rewinds, and times that are
equal; a share of them is forked, and the fork is asked too. at, diff, history, blame and audit are asked by the API, with an audit trail
that is complete, that lags, and without one; of every twentieth log by the command line as well.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import structlog

from tests.past.asking import COMMANDS, Asking
from tests.past.brute import Brute, same
from tests.past.worlds import World, opened, shape

__all__ = ["ask_log", "main"]

LENGTHS = (6, 15, 30)


async def ask_log(seed: int, directory: Path, *, commands: int) -> tuple[Counter[str], list[str]]:
    """Make one log and ask it.

    Args:
        seed: of the log and of the questions. directory: where it is made.
        commands: how many rounds of questions are asked by the command line.

    Returns:
        how much there was of everything, and what was answered differently.
    """
    chance = random.Random(seed)
    done: Counter[str] = Counter(logs=1)
    wrong: list[str] = []
    async with opened(directory) as symphony:
        await symphony.resume()
        world = World(symphony, chance)
        lags = chance.choice(["no trail", "lags", "whole"])
        await world.work(chance.choice(LENGTHS))
        if lags == "lags":
            await symphony.audit.find(actor="ann")
            await world.work(chance.choice(LENGTHS))
        brute = await Brute.of(symphony.log)
        done["events"] += len(brute.events)
        done["rewinds"] += world.rewinds
        for position, states in world.seen.items():
            due = {key: shape(state) for key, state in brute.at(position).items()}
            done["states of live objects"] += len(due)
            if not all(same(states.get(key), due.get(key)) for key in states.keys() | due.keys()):
                wrong.append(f"{seed}: the log has other states at position {position} than the objects had")
        if any(not key.startswith("symphony.") for key in brute.steps):
            asking = Asking(symphony, brute, chance, f"{seed}")
            if lags == "whole":
                await asking.audit()
            await asking.all(1)
            await asking.at_checkpoints(world.checkpoints)
            if chance.random() < 0.25:
                await _ask_fork(asking, directory.with_name(f"{directory.name}-fork"), done)
            done += asking.asked
            wrong += asking.wrong
    if commands and any(not key.startswith("symphony.") for key in brute.steps):
        async with opened(directory, read_only=True) as symphony:
            asking = Asking(symphony, brute, chance, f"{seed} (read only)")
            await asking.all(1)
            await asking.by_command_line(directory, commands)
            done += asking.asked
            wrong += asking.wrong
    return done, wrong


async def _ask_fork(original: Asking, directory: Path, done: Counter[str]) -> None:
    """Fork a log at a position at which no transaction is under way; what the fork begins with, and all questions."""
    chance, brute = original.chance, original.brute
    neighbours = zip(brute.events, brute.events[1:], strict=False)
    whole = [0, *(one.position for one, other in neighbours if one.transaction_id != other.transaction_id)]
    position = chance.choice([*whole, len(brute.events)])
    await original.symphony.fork(into=directory, at=position)
    done["forks"] += 1
    async with opened(directory) as fork:
        await fork.resume()
        begun = await Brute.of(fork.log)
        if not same(begun.at(len(begun.events)), brute.at(position)):
            original.wrong.append(f"{original.title}: a fork at {position} begins with other states")
        if brute.at(position):
            world = World(fork, chance)
            await world.work(6)
            asking = Asking(fork, await Brute.of(fork.log), chance, f"{original.title} (fork at {position})")
            await asking.all(1)
            done += asking.asked
            original.wrong += asking.wrong


def main() -> int:
    """Ask them, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.past", description=__doc__)
    parser.add_argument("--logs", type=int, default=2000, help="so many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--commands-every", type=int, default=20, help="of so many logs one is asked by the command line, too")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    begun, done, differ = time.monotonic(), Counter[str](), 0
    shared = Path("/dev/shm")
    for seed in range(given.first, given.first + given.logs):
        with tempfile.TemporaryDirectory(prefix="symphony-past-", dir=shared if shared.is_dir() else None) as base:
            found, wrong = asyncio.run(ask_log(seed, Path(base) / "log", commands=0 if seed % given.commands_every else COMMANDS))
        done += found
        differ += len(wrong)
        for line in wrong:
            print(line, flush=True)
    print(f"{dict(sorted(done.items()))}: {differ} differ; {time.monotonic() - begun:.0f} s")
    return 1 if differ else 0


if __name__ == "__main__":
    raise SystemExit(main())
