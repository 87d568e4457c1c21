"""A soak of the web service: orders without end, the server killed again and again, and at the end nothing lost or done twice.

`python -m tests.soak --minutes 10 --orders-per-s 30 --kill-every 20`, or `make soak`. It ends with status 1 and says what is wrong where an
order, charge or mail was lost or doubled, an order has failed without a reason, the stock is wrong, or the memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import importlib.util
import itertools
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

EXAMPLE = Path(__file__).parents[1] / "examples" / "web_service.py"
PATIENCE_S = 120.0
AGAIN_S = 0.05
SOLD_OUT_EVERY = 50
"""Each so-manieth order wants more than there is, and is to fail with a reason."""
GROWTH_BYTES_PER_ORDER = 6000
"""What an order may hold in memory for good: itself, a live object of the shop, and its line in the list of runs."""
BACKLOG = 300
"""An order is placed when the one so many before it has ended: what comes faster than this machine can serve shows as `behind_s`."""
LOOK_EVERY = 25
"""At each so-manieth order that is looked at."""
AT_ONCE = 150
"""So many customers are under way at most, each with a thread and a connection: who waits for an answer waits for the service."""
GROWTH_BYTES = 40_000_000
"""What else a process may grow by between its start and its end."""


def service() -> Any:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("web_service", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Client:
    """Asks the service, by connections that stay open; costs little, for it shares the machine with what it measures.

    Args:
        port: where the service listens.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.threads = ThreadPoolExecutor(AT_ONCE)
        self.own = threading.local()
        self.opened: list[http.client.HTTPConnection] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.threads.shutdown()
        for connection in self.opened:
            connection.close()

    async def request(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        """The status and the body of the answer.

        Raises:
            OSError, http.client.HTTPException: there is no whole answer.
        """
        return await asyncio.get_running_loop().run_in_executor(self.threads, self._request, method, path, body)

    def _request(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        connection = getattr(self.own, "connection", None)
        if connection is None:
            connection = self.own.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            self.opened.append(connection)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request opens it again
            raise


@dataclass
class Soak:
    """What was asked of the service, and what it has come to.

    Attributes:
        placed: ids of orders that were answered.
        wanted: how many of them want what there is.
        kills: how often the server was killed.
        down_s: for how long it did not answer after each kill.
        behind_s: how long after its time the order that waited longest was placed, since `AT_ONCE` customers or `BACKLOG` orders were
            under way.
        placing_s: how long it took to place all.
        memory: resident bytes of the server with the orders placed by then, one list for each process.
        wrong: what is not as it should be.
    """

    directory: Path
    stock: int
    placed: list[str] = field(default_factory=list)
    kills: int = 0
    repeated: int = 0
    placing: bool = True
    down_s: list[float] = field(default_factory=list)
    behind_s: float = 0.0
    placing_s: float = 0.0
    memory: list[list[tuple[int, int]]] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.module = service()
        self.customers = asyncio.Semaphore(AT_ONCE)
        self.server = self.module.Server(self.directory, stock=self.stock)

    def wants(self, number: int) -> int:
        """The quantity of an order."""
        return self.stock + 1 if number % SOLD_OUT_EVERY == SOLD_OUT_EVERY - 1 else 1

    async def ask(self, client: Client, method: str, path: str, body: Any = None) -> Any:
        """Asks until there is an answer: a server that is killed gives none, and is asked again."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            try:
                status, answer = await client.request(method, path, body)
            except (OSError, http.client.HTTPException):
                self.repeated += 1
                await asyncio.sleep(AGAIN_S)
                continue
            if status < 400:
                return json.loads(answer)
            if status != 404 or method != "POST":
                self.wrong.append(f"{method} {path}: {status} {answer[:200].decode()}")
                return None
            await asyncio.sleep(AGAIN_S)
        self.wrong.append(f"{method} {path} has not been answered within {PATIENCE_S:.0f} s")
        return None

    async def order(self, client: Client, number: int) -> None:
        """One customer: orders, and the parcel is reported twice."""
        async with self.customers:
            await self._order(client, number)

    async def _order(self, client: Client, number: int) -> None:
        order_id = f"o{number}"
        body = {"id": order_id, "customer": f"c{number % 7}", "quantity": self.wants(number)}
        if await self.ask(client, "POST", "/orders", body) is None:
            return
        self.placed.append(order_id)
        if self.wants(number) == 1:
            for _ in range(2):
                shown = await self.ask(client, "GET", f"/orders/{order_id}")
                if shown is None or shown["run"] == "completed":
                    return
                await self.ask(client, "POST", f"/orders/{order_id}/shipped")

    async def place(self, client: Client, duration_s: float, orders_per_s: float) -> None:
        """Orders at a rate, each in a task of its own."""
        began = time.monotonic()
        try:
            await self._place(client, began, duration_s, orders_per_s)
        finally:
            self.placing_s = time.monotonic() - began

    async def _place(self, client: Client, began: float, duration_s: float, orders_per_s: float) -> None:
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                due = began + number / orders_per_s
                if due >= began + duration_s:
                    self.placing = False
                    return
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                async with self.customers:
                    pass  # there is room for one more
                if number >= BACKLOG and number % LOOK_EVERY == 0:
                    await self.ended(client, f"o{number - BACKLOG}")
                self.behind_s = max(self.behind_s, time.monotonic() - due)
                group.create_task(self.order(client, number))

    async def ended(self, client: Client, order_id: str) -> None:
        """Waits until the run of an order has ended."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            shown = await self.ask(client, "GET", f"/orders/{order_id}") if order_id in self.placed else {"run": "placed"}
            if shown is None or shown["run"] in ("completed", "failed"):
                return  # where there was no answer, `ask` has said what is wrong
            await asyncio.sleep(AGAIN_S)
        self.wrong.append(f"order {order_id} has not ended within {PATIENCE_S:.0f} s")

    async def kill(self, every_s: float) -> None:
        """Kills the server again and again, while orders are placed; measures the memory of each process."""
        while self.placing:
            self.memory.append([])
            ends = time.monotonic() + every_s
            process = psutil.Process(self.server.process.pid)
            while time.monotonic() < ends and self.placing:
                self.memory[-1].append((len(self.placed), process.memory_info().rss))
                await asyncio.sleep(min(1.0, max(0.0, ends - time.monotonic())))
            if not self.placing:
                return
            self.server.kill()
            self.kills += 1
            began = time.monotonic()
            await asyncio.to_thread(self.server.start)
            self.down_s.append(time.monotonic() - began)

    async def run(self, duration_s: float, orders_per_s: float, kill_every_s: float) -> None:
        """The soak, and the questions at its end."""
        await asyncio.to_thread(self.server.start)
        with Client(self.server.port) as client:
            killing = asyncio.create_task(self.kill(kill_every_s))
            await self.place(client, duration_s, orders_per_s)
            await killing
            await self.settle(client)
            left = (await self.ask(client, "GET", "/stock/tea"))["left"]
        status = self.server.stop()
        if status not in (0, -15):
            self.wrong.append(f"the server has ended with {status} on SIGTERM")
        self.look(left)

    async def settle(self, client: Client) -> None:
        """Waits until no run goes on any more, and asks each order where it stands."""
        ends = time.monotonic() + PATIENCE_S
        while (runs := (await self.ask(client, "GET", "/health"))["runs"]).keys() - {"completed", "failed"}:
            if time.monotonic() > ends:
                self.wrong.append(f"runs do not end: {runs}")
                break
            await asyncio.sleep(0.1)
        for order_id in self.placed:
            shown = await self.ask(client, "GET", f"/orders/{order_id}")
            if shown is None:
                continue
            self.states[shown["run"]] += 1
            expected = "completed" if self.wants(int(order_id[1:])) == 1 else "failed"
            if shown["run"] != expected or (expected == "failed" and "wanted" not in (shown["error"] or "")):
                self.wrong.append(f"order {order_id} is {shown['run']}, and is to be {expected}: {shown['error']}")

    def look(self, left: int) -> None:
        """Compares what the world outside has with what the service says."""
        done = Counter(self.module.Outside(self.directory / "outside.db").done())
        fine = [order_id for order_id in self.placed if self.wants(int(order_id[1:])) == 1]
        expected = Counter({(what, order_id): 1 for order_id in fine for what in ("charge", "mail")})
        for key in {*done, *expected}:
            if done[key] != expected[key]:
                self.wrong.append(f"{key[0]} of order {key[1]}: {done[key]} times")
        if left != self.stock - len(fine):
            self.wrong.append(f"{left} left in stock, and {self.stock - len(fine)} are right")
        self.memory = [measured for measured in self.memory if measured]
        for number, measured in enumerate(self.memory):
            grown = measured[-1][1] - measured[len(measured) // 3][1]
            orders = measured[-1][0] - measured[len(measured) // 3][0]
            if grown > GROWTH_BYTES + orders * GROWTH_BYTES_PER_ORDER:
                self.wrong.append(f"process {number + 1} has grown by {grown:,} bytes with {orders} orders")

    def report(self) -> str:
        """The figures."""
        first, last = (self.memory[at][-1][1] / 1e6 for at in (0, -1)) if self.memory else (0.0, 0.0)
        size = sum(file.stat().st_size for file in (self.directory / "state").rglob("*") if file.is_file()) / 1e6
        return (
            f"{len(self.placed):,} orders ({dict(self.states)}), {len(self.placed) / self.placing_s:.1f} a second, "
            f"{self.kills} kills, {self.repeated:,} requests repeated, "
            f"longest start {max(self.down_s, default=0.0):.1f} s, up to {self.behind_s:.1f} s behind, "
            f"memory {first:.0f} MB at the end of the first process and {last:.0f} MB at that of the last, "
            f"state {size:.1f} MB: {len(self.wrong)} wrong"
        )


def main(arguments: list[str] | None = None) -> int:
    """Runs it; 0 where everything is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--orders-per-s", type=float, default=30.0)
    parser.add_argument("--kill-every", type=float, default=20.0, metavar="SECONDS")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        soak = Soak(Path(directory), stock=1_000_000)
        try:
            asyncio.run(soak.run(given.minutes * 60, given.orders_per_s, given.kill_every))
        finally:
            if soak.server.process is not None and soak.server.process.poll() is None:
                soak.server.kill()
        sys.stdout.write("\n".join([soak.report(), *soak.wrong[:50]]) + "\n")
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
