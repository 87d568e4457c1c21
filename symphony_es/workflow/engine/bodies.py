"""The boundary to the application's code in a run: whether a cancellation is meant for the run or is the code's own doing.

What it may raise is said in `symphony_es.failures`. Code that cancels the task it runs in (`asyncio.current_task().cancel()`, a timer, a
task of its own) has failed. Context variables tell both apart: what the code starts, a timer of `asyncio.timeout` as well, runs in a copy
of the context that the code runs in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from symphony_es.contexts import reset_variable
from symphony_es.failures import is_current, nobodys, runs_now
from symphony_es.workflow.runs.failures import describe_error

__all__ = ["Body", "StepFailure", "StepsTask", "is_interrupted", "run_body", "unclosed"]

P = ParamSpec("P")
T = TypeVar("T")


class StepFailure(Exception):  # noqa: N818  carries a step's failure through the steps around it
    """A step has failed, and that is on record.

    Attributes:
        description: the error as the run's state holds it.
        error: the error itself.
    """

    def __init__(self, description: dict[str, Any], error: BaseException) -> None:
        super().__init__(f"step {description['step']}: {description['type']}: {description['message']}")
        self.description = description
        self.error = error


class Body:
    """A block in which code of the application runs: the body of a step, the function of a workflow, a hook.

    After it the task's own cancellations are taken back, so that a task that is still being cancelled is so because somebody asked for it.

    Attributes:
        task: the task that runs it.
        own: how many cancellations of that task the code has asked for and not taken back.
        over: whether the block has ended.
    """

    __slots__ = ("_token", "over", "own", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.own = 0
        self.over = False

    def __enter__(self) -> Self:
        self.task = asyncio.current_task()
        self._token = _current.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        reset_variable(self._token)
        self.over = True
        if self.own and self.task is not None:
            for _ in range(self.own):
                asyncio.Task.uncancel(self.task)


_current: ContextVar[Body | None] = ContextVar("symphony_es_body", default=None)


class StepsTask(asyncio.Task[Any]):
    """A task that runs bodies: it knows which of its cancellations the code that runs in it has asked for."""

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the task; what a body has left behind that is over no longer can."""
        body = _current.get()
        if body is None or body.task is not self:
            return super().cancel(msg)
        if body.over or not super().cancel(msg):
            return False
        body.own += 1
        return True

    def uncancel(self) -> int:
        """Take one request to cancel the task back."""
        body = _current.get()
        if body is not None and body.task is self and body.own:
            body.own -= 1
        return super().uncancel()


def is_interrupted() -> bool:
    """Return whether somebody else than the code that runs in it has asked to cancel the running task, whatever the code made of that."""
    task, body = asyncio.current_task(), _current.get()
    own = 0 if body is None or body.task is not task else body.own
    return task is not None and task.cancelling() > own


async def run_body(code: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call code of the application and await it, in a `Body`.

    A cancellation of its task that the code has asked for and not awaited arrives here, so that it meets nobody else. What the library has
    raised through the code leaves it as it was, also out of a group that the code has made of it.
    """
    with Body() as body:
        try:
            return await code(*args, **kwargs)
        except BaseExceptionGroup as group:
            meant = nobodys(group)
            if meant is None:
                raise
            raise meant from None
        finally:
            if body.own and body.task is not None and runs_now(body.task):
                await asyncio.sleep(0)


async def unclosed(work: Callable[[], Coroutine[Any, Any, None]], step: str | None) -> None:
    """Do the work of a task, as the outermost coroutine of it, and make a failure of the `GeneratorExit` of a future that code awaited.

    Such an error does not arrive as others do: it closes all coroutines of the task but this one. The work is begun here, since a task
    that is cancelled before its first turn begins nothing.

    Raises:
        StepFailure: that has happened.
    """
    task = asyncio.current_task()
    try:
        await work()
    except GeneratorExit as error:
        if task is None or not is_current(task):
            raise
        raise StepFailure(describe_error(error, step), error) from error
