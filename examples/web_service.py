"""A web service: orders over HTTP, each a workflow that reserves, charges, waits for the parcel, and writes to the customer.

Run it with `python examples/web_service.py`: that starts the server as a process of its own in a temporary directory, kills it (SIGKILL)
in the middle of its orders, starts it again and looks whether every order was charged once. `python examples/web_service.py serve
DIRECTORY PORT` is the server alone, to try with curl. It needs fastapi and uvicorn.

What makes it safe to kill: an order and its run are one transaction, a request that is repeated finds what the first one did, what cannot
be taken back has an idempotency key, and `setup(recover=True)` goes on with what a crash has left.
"""

import argparse
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel

from symphony_es import Symphony, entity
from symphony_es.workflow import RunContext, WorkflowDefinition


@entity(type="WebOrder")
class Order:
    """What a customer wants, and where it stands."""

    id: str = ""
    customer: str = ""
    article: str = ""
    quantity: int = 1
    state: str = "placed"


@entity(type="WebStock")
class Stock:
    """How much of an article is left."""

    id: str = ""
    left: int = 0


class SoldOutError(Exception):
    """There is not enough left of an article."""


class NewOrder(BaseModel):
    """What `POST /orders` takes; the id is the customer's, who repeats a request that was not answered."""

    id: str
    customer: str
    article: str = "tea"
    quantity: int = 1


class Outside:
    """The bank and the post, which know nothing of workflows: a database of their own, in which a key counts once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.one_at_a_time = threading.Lock()  # SQLite has those who come at once try again and again, in no order
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY, what TEXT, order_id TEXT)")

    def do(self, what: str, order_id: str, key: str) -> None:
        """Do something for an order, unless it has been done under this key."""
        with self.one_at_a_time, closing(sqlite3.connect(self.path, timeout=30)) as database, database:
            database.execute("INSERT OR IGNORE INTO done VALUES (?, ?, ?)", (key, what, order_id))

    def done(self) -> list[tuple[str, str]]:
        """What was done, and for which order."""
        with closing(sqlite3.connect(self.path, timeout=30)) as database:
            return database.execute("SELECT what, order_id FROM done ORDER BY rowid").fetchall()


class Shop:
    """The application: its functions, its definition, and the Symphony that keeps it."""

    def __init__(self, directory: Path) -> None:
        self.symphony = Symphony(directory / "state")
        self.outside = Outside(directory / "outside.db")
        for function in (self.reserve, self.give_back, self.charge, self.refund, self.write):
            self.symphony.functions.register(function.__name__, function)
        self.definition: WorkflowDefinition = (
            self.symphony.build_workflow("order")
            .add_function("reserve", self.reserve, atomic=True, undo="give_back")
            .add_function("charge", self.charge, undo="refund", retry={"max_attempts": 3, "delay_s": 0.05})
            .add_wait("shipped")
            .add_function("write", self.write)
            .cleanup_on("failure")
            .build()
        )

    def order_of(self, context: RunContext) -> Order:
        """The order that a run is about."""
        return self.symphony.entities.get(Order, str(context["order"]))

    async def reserve(self, context: RunContext) -> None:
        """Takes the goods, with the step's completion, in one transaction: many orders may want the same."""
        order = self.order_of(context)
        stock = self.symphony.entities.get(Stock, order.article)
        if stock.left < order.quantity:
            raise SoldOutError(f"{stock.left} of {order.article} left, {order.quantity} wanted")
        stock.left -= order.quantity
        order.state = "reserved"

    async def give_back(self, context: RunContext) -> None:
        """Undoes a reservation, where there was one."""
        order = self.order_of(context)
        if order.state in ("reserved", "charged", "refunded"):
            async with self.symphony.transaction("GoodsReturned", claim=[f"WebStock:{order.article}"]):
                self.symphony.entities.get(Stock, order.article).left += order.quantity
                order.state = "returned"

    def charge(self, context: RunContext) -> None:
        """Takes the money, in a thread: the bank sees the same key again after a crash, and counts it once."""
        self.outside.do("charge", context["order"], context.idempotency_key)
        self.order_of(context).state = "charged"

    def refund(self, context: RunContext) -> None:
        """Undoes a charge."""
        self.outside.do("refund", context["order"], context.idempotency_key)
        self.order_of(context).state = "refunded"

    def write(self, context: RunContext) -> None:
        """Tells the customer that the parcel is on its way."""
        self.outside.do("mail", context["order"], context.idempotency_key)
        self.order_of(context).state = "sent"

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Opens before the first request, and goes on with what a crash left; drains and closes after the last one."""
        await self.symphony.setup(resume="latest", recover=True)
        if self.symphony.entities.find("WebStock:tea") is None:
            self.symphony.entities.add(Stock(id="tea", left=int(os.environ.get("SHOP_STOCK", "1000"))))
            await self.symphony.flush()
        yield
        await self.symphony.workflows.drain(timeout_s=10)
        await self.symphony.close()


def create_app(directory: Path) -> FastAPI:
    """The application of FastAPI over the shop in a directory."""
    shop = Shop(directory)
    symphony = shop.symphony
    app = FastAPI(lifespan=shop.lifespan)

    @app.post("/orders", status_code=201)
    async def place(new: NewOrder) -> dict[str, Any]:
        """Order and run are one transaction; a repeated request finds them, and waits until they are durable."""
        if symphony.entities.find(f"WebOrder:{new.id}") is None:
            async with symphony.transaction("OrderPlaced", actor=new.customer):
                symphony.entities.add(Order(**new.model_dump()))
                await symphony.workflows.start(shop.definition, {"order": new.id}, run_id=f"order-{new.id}")
        else:
            async with symphony.transaction(claim=[f"WebOrder:{new.id}"]):
                pass  # the first request may be placing it yet: what is answered is durable
        return {"id": new.id, "run": f"order-{new.id}"}

    @app.get("/orders/{order_id}")
    async def show(order_id: str) -> dict[str, Any]:
        """Where an order stands, and its run."""
        order = symphony.entities.find(f"WebOrder:{order_id}")
        if not isinstance(order, Order):
            raise HTTPException(404, f"there is no order {order_id}")
        run = await symphony.workflows.get_run(f"order-{order_id}")
        progress = symphony.workflows.handle(run).progress
        return {
            "id": order.id,
            "state": order.state,
            "run": run.status,
            "done": progress.done,
            "known": progress.known,
            "current": progress.current,
            "error": (run.error or {}).get("message"),
        }

    @app.post("/orders/{order_id}/shipped", status_code=202)
    async def shipped(order_id: str, request: Request) -> dict[str, str]:
        """The signal has an id, so that it counts once however often it is sent."""
        await symphony.workflows.signal(f"order-{order_id}", "shipped", signal_id=request.headers.get("Idempotency-Key", order_id))
        return {"id": order_id}

    @app.post("/orders/{order_id}/cancel")
    async def cancel(order_id: str) -> dict[str, str]:
        """Undoes what was done, in reverse order."""
        run = await symphony.workflows.cancel(f"order-{order_id}", grace_s=1)
        return {"id": order_id, "run": run.status}

    @app.get("/orders/{order_id}/history")
    async def history(order_id: str) -> list[dict[str, Any]]:
        """Who changed what, when and why."""
        return [version.to_dict() for version in await symphony.history(f"WebOrder:{order_id}")]

    @app.get("/stock/{article}")
    async def stock(article: str) -> dict[str, int]:
        """What is left."""
        return {"left": symphony.entities.get(Stock, article).left}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether orders go on: what recover had to leave alone, how many run and wait."""
        report = symphony.last_recover
        left = [run.run_id for run in (*report.missing, *report.blocked)] if report is not None else []
        return {
            "ok": not left,
            "left_alone": left,
            "runs": await symphony.workflows.count_runs(by="status"),
            "queued": len(symphony.workflows.queue()),
            "position": symphony.log.head,
        }

    return app


class Server:
    """The service as a process of its own, for the demonstration and the tests."""

    def __init__(self, directory: Path, stock: int = 1000) -> None:
        self.directory = directory
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.environment = {**os.environ, "SHOP_STOCK": str(stock)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begins, and waits until it answers."""
        command = [sys.executable, str(Path(__file__).resolve()), "serve", str(self.directory), str(self.port)]
        self.process = subprocess.Popen(command, env=self.environment)
        while self.ask("GET", "/health") is None:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server has ended with {self.process.returncode}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Ends it as a power failure would."""
        self.stop(signal.SIGKILL)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends it a signal, and waits for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What it answers; None where nobody does.

        Raises:
            urllib.error.HTTPError: it answers with an error.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except (OSError, ValueError):
            return None

    def until(self, order_id: str, state: str) -> dict[str, Any]:
        """Waits until an order stands somewhere."""
        while True:
            shown = self.ask("GET", f"/orders/{order_id}")
            if shown is not None and state in (shown["state"], shown["run"]):
                return dict(shown)
            time.sleep(0.01)


def demonstrate(directory: Path) -> None:
    """Kills the server while orders are under way, and looks at what came of them."""
    server = Server(directory, stock=3)
    try:
        serve_and_kill(server)
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()
    done = Outside(directory / "outside.db").done()
    print("outside:", sorted(done))
    assert sorted(done) == sorted([(what, str(number)) for number in range(3) for what in ("charge", "mail")]), done
    print("done")


def serve_and_kill(server: Server) -> None:
    """What a customer sees of it."""
    server.start()
    for number in range(3):
        server.ask("POST", "/orders", {"id": str(number), "customer": "ann"})
    server.until("0", "charged")
    server.kill()
    print("killed while the orders were under way")
    server.start()
    again = server.ask("POST", "/orders", {"id": "0", "customer": "ann"})
    print(f"asked again, the same order: {again['run']}")
    for number in range(3):
        server.until(str(number), "charged")
    server.ask("POST", "/orders", {"id": "3", "customer": "bob"})  # now that the others have what there was
    shown = server.until("3", "failed")
    print(f"the fourth one: {shown['run']}, {shown['error']}")
    for number in range(3):
        for _ in range(2):  # the second one changes nothing
            server.ask("POST", f"/orders/{number}/shipped")
        server.until(str(number), "completed")
    print(f"left in stock: {server.ask('GET', '/stock/tea')['left']}")
    history = server.ask("GET", "/orders/0/history")
    print("order 0:", ", ".join(f"{version['name']} by {version['metadata'].get('actor')}" for version in history))
    print(f"the server ends on SIGTERM with {server.stop()}")


def main() -> None:
    """Serves, or demonstrates."""
    parser = argparse.ArgumentParser(description="Serves, or demonstrates.")
    parser.add_argument("what", nargs="?", choices=["serve"])
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("port", nargs="?", type=int, default=8000)
    arguments = parser.parse_args()
    if arguments.what == "serve":
        uvicorn.run(create_app(arguments.directory), host="127.0.0.1", port=arguments.port, log_level="warning")
        return
    with tempfile.TemporaryDirectory() as directory:
        demonstrate(Path(directory))


if __name__ == "__main__":
    main()
