"""A side effect that happens exactly once, though its step runs twice: the key makes it so, at the target.

Run it with `python examples/idempotent_side_effect.py [STATE_DIR]`. Without a directory it works in a temporary one.

The first process is killed at the worst moment: the payment is in the bank's database, and the step's completion is not in the log yet. So
the step has to run again. It gets the idempotency key of the first attempt, and the bank takes a key once.
"""

import argparse
import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from symphony_es import Symphony
from symphony_es.workflow import RunContext

SCHEMA = "CREATE TABLE IF NOT EXISTS payments (idempotency_key TEXT PRIMARY KEY, customer TEXT NOT NULL, amount INTEGER NOT NULL)"
PAY = "INSERT INTO payments VALUES (?, ?, ?) ON CONFLICT (idempotency_key) DO NOTHING"


class Bank:
    """Somebody else's database: it knows nothing of runs and steps."""

    def __init__(self, directory: Path, *, dies: bool = False) -> None:
        self.path = directory / "bank.db"
        self.dies = dies

    def pay(self, context: RunContext) -> str:
        """The step's function: pays, and is killed before anybody hears of it."""
        with closing(sqlite3.connect(self.path)) as database, database:
            database.execute(SCHEMA)
            inserted = database.execute(PAY, (context.idempotency_key, context["customer"], context["amount"])).rowcount
        print(f"   attempt {context.attempt}: {'paid' if inserted else 'had been paid already'}", flush=True)
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return f"paid {context['amount']} to {context['customer']}"

    def rows(self) -> list[tuple[str, str, int]]:
        """All payments."""
        with closing(sqlite3.connect(self.path)) as database:
            return list(database.execute("SELECT * FROM payments"))


async def start(directory: Path) -> None:
    """The first process: does not survive its step."""
    async with Symphony({"state_dir": str(directory / "state")}, persistence_enabled=True) as symphony:
        symphony.functions.register("pay", Bank(directory, dies=True).pay)
        definition = symphony.build_workflow().create("payment").add_function("pay", "pay").build()
        await symphony.workflows.execute_workflow(definition, {"customer": "Ada", "amount": 30})


async def resume(directory: Path) -> None:
    """The second process: the step runs again."""
    bank = Bank(directory)
    rows_before = bank.rows()
    async with Symphony({"state_dir": str(directory / "state"), "resume": "latest"}, persistence_enabled=True) as symphony:
        symphony.functions.register("pay", bank.pay)
        (run,) = await symphony.workflows.recover()
    print(f"run: {run.status} after {run.attempts['pay']} attempts at the step: {run.result}")
    rows = [row for row in bank.rows() if row[0].startswith(run.id)]
    print(f"payments of this run: {[row[1:] for row in rows]}")
    assert run.attempts["pay"] == 2
    assert rows == [(f"{run.id}:pay:0", "Ada", 30)]
    assert bank.rows() == rows_before, "the second attempt changed nothing"


def main(directory: Path) -> None:
    """Both processes, one after the other, over one directory."""
    print("the first process pays, and is killed before the step's completion is on record:", flush=True)
    first = subprocess.run([sys.executable, __file__, str(directory), "--act-as", "start"], check=False, timeout=60)
    assert first.returncode == -signal.SIGKILL
    print("the second one goes on with the run:", flush=True)
    asyncio.run(resume(directory))
    print("done")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("state_dir", nargs="?", type=Path)
    parser.add_argument("--act-as", choices=["start"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.act_as == "start":
        asyncio.run(start(options.state_dir))
    elif options.state_dir:
        options.state_dir.mkdir(parents=True, exist_ok=True)
        main(options.state_dir)
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
