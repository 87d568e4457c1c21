"""Retries against a real HTTP server that fails twice, and what is on record of the attempts.

Run it with `python examples/flaky_http.py [STATE_DIR]`. Without a directory it works in a temporary one. The server runs in a thread of
this process and listens on a free port of the loopback interface.
"""

import asyncio
import json
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from symphony_es import Symphony
from symphony_es.workflow import RetryPolicy, RunContext

FAILURES = 2


class Handler(BaseHTTPRequestHandler):
    """Answers 503 at first, then 200; remembers the keys that requests came with."""

    keys: ClassVar[list[str]]

    def do_GET(self) -> None:
        """One request."""
        self.keys.append(self.headers["Idempotency-Key"])
        failing = len(self.keys) <= FAILURES
        body = b"try again later" if failing else b'{"city": "Oslo", "celsius": -4}'
        self.send_response(503 if failing else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Says nothing."""


@contextmanager
def flaky_server() -> Iterator[tuple[str, list[str]]]:
    """A server's address, and the keys of the requests it gets."""

    class OneServersHandler(Handler):
        keys: ClassVar[list[str]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), OneServersHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/weather", OneServersHandler.keys
        finally:
            server.shutdown()
            thread.join()


def fetch(context: RunContext) -> Any:
    """A plain function, so it runs in a thread and may block."""
    request = urllib.request.Request(context.inputs["url"], headers={"Idempotency-Key": context.idempotency_key})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise ConnectionError(f"the server answered {error.code}: {error.read().decode()}") from None


async def fetch_weather(state_dir: str) -> None:
    """One run."""
    async with Symphony({"state_dir": state_dir}, persistence_enabled=True) as symphony:
        symphony.functions.register("fetch", fetch)
        definition = (
            symphony.build_workflow()
            .create("weather")
            .add_function(
                "fetch",
                fetch,
                inputs={"url": "{{ url }}"},
                retry=RetryPolicy(max_attempts=5, delay_s=0.05, factor=2, jitter=0, on=("OSError",)),
                timeout_s=5,
            )
            .build()
        )
        with flaky_server() as (url, keys):
            run = await symphony.workflows.execute_workflow(definition, {"url": url})

        print(f"run: {run.status} with {run.result}")
        for event in await symphony.log.read_entity(f"Workflow:{run.id}"):
            if event.metadata.step == "fetch":
                why = f" {event.data['type']}: {event.data['message']}" if event.name == "WorkflowStepFailed" else ""
                print(f"  attempt {event.metadata.attempt or 1}: {event.name}{why}")
        print(f"the server got {len(keys)} requests with {len(set(keys))} idempotency key")
        assert run.result == {"city": "Oslo", "celsius": -4}
        assert run.attempts["fetch"] == FAILURES + 1 == len(keys)
        assert len(set(keys)) == 1
    print("done")


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(fetch_weather(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            asyncio.run(fetch_weather(directory))
