"""The child process of the enumerated kills that are real: goes on with a story, or begins it, and dies right after its k-th commit.

`python -m tests.acceptance.every_event` is a fork server: imports are done once. Each line of standard input is
`STORY DIRECTORY COUNTED COMMITS`; the child dies when it has made so many commits durable and before anybody is told (0: never).
COUNTED says which ones: `all`, or `progress`, those that a process which goes on does not make again. Each submission is a commit of
its own, so that every boundary between transactions is one at which a child can die.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from symphony_es import Symphony
from symphony_es.log import writer as writer_module
from tests.acceptance.every_story import go_on

__all__ = ["is_progress"]

AGAIN = frozenset({"WorkflowResumed", "WorkflowStepStarted", "WorkflowStepRetried", "TaskStarted"})
"""What each process that goes on with a run records anew, however often it dies; anything else brings the run further."""


def is_progress(events: Sequence[Any]) -> bool:
    """Whether a commit of these events brings a run further."""
    return any(event.name not in AGAIN for event in events)


async def live(story: str, directory: str, counted: str, commits: int) -> None:
    """One process, from its opening of the log to the end of the story, or to its death."""
    effects = os.open(f"{directory}.effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    writer_module.MAX_BATCH_EVENTS = 1
    symphony = Symphony({"state_dir": directory}, persistence_enabled=True)
    await symphony.setup()
    die_after(symphony.log, counted, commits)
    await go_on(symphony, story, lambda line: os.write(effects, f"{line}\n".encode()))
    await symphony.close()
    os.write(1, b"done\n")


def die_after(log: Any, counted: str, commits: int) -> None:
    """Has this process killed when it has made so many commits."""
    recorder = log._writer._recorder
    append_groups = recorder.append_groups
    made = 0

    def append(groups: Any, time_ns: int) -> Any:
        nonlocal made
        outcomes = append_groups(groups, time_ns)
        (events,) = groups
        made += counted == "all" or is_progress(events)
        if made == commits:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcomes

    recorder.append_groups = append


def serve() -> None:
    """Fork one child per line of standard input; say how it ended."""
    for line in sys.stdin:
        story, directory, counted, commits = line.split()
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)  # a run that waits for what will never come is a failure, not a hanging test
            try:
                asyncio.run(live(story, directory, counted, int(commits)))
            except BaseException:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        os.write(1, f"E {status}\n".encode())


if __name__ == "__main__":
    serve()
