"""Carries out what other processes ask of the runs of this log; the files behind it are those of `symphony_es.core.world.inbox`.

The order of durable steps: that the request is taken, at which version of its run; what it does to the run, with the request's id as
correlation id; the answer; the file's removal. After a kill between the second and the third, the run's events since that version say that
it was done; between the last two, the answer does. A signal needs no first step: its id is the request's, and the run knows its signals.

Nobody looks: the kernel wakes the event loop when a request comes (elsewhere than on Linux, the inbox is looked at each second), from soon
after the opening (see `watching.py`). What lay there when the log was opened is taken up when the application has recovered or resumed, so
that its functions are registered by then, or a second after the opening. A request that needs what this process has not (a function, a
class) is nobody's event, as such a run is: it stays, and is looked at again after the next `recover`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from weakref import ref

from symphony_es.attribution import acting, current_attribution
from symphony_es.core.world.inbox import PRUNE, REQUEST_TYPE, FaultyRequest, Inbox, Request
from symphony_es.core.world.requesting import ANSWERS, DONE_EVENT, REFUSED_EVENT, TAKEN_EVENT
from symphony_es.diagnostics import error_text, get_logger, message_of, shortened
from symphony_es.errors import (
    ConcurrencyError,
    ConfigurationError,
    DetachedEntityError,
    DrainingError,
    EntityOutOfStepError,
    LogError,
    NotReadyError,
    NotRegisteredError,
    RunInterruptedError,
    StorageUnavailableError,
    SymphonyError,
    UnknownValueError,
)
from symphony_es.events.event import Event, NewEvent
from symphony_es.events.identifiers import entity_key, uuid7
from symphony_es.events.rows import decode_row
from symphony_es.workflow.engine.children import GRACE_S
from symphony_es.workflow.engine.stopping import request_cancel
from symphony_es.workflow.runs.failures import message_on_record
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import WorkflowStatus

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.workflow.engine.engine import WorkflowEngine

__all__ = ["RequestTaker"]

FIRST_LOOK_S = 1.0
"""How long what lay in the inbox at the opening waits for the application to register its functions and to recover."""
LOOK_EVERY_S = 1.0
"""How often an inbox is looked at where the kernel does not tell of a new file."""
COARSE_NS = 20_000_000
"""By so much a file system's clock may be behind."""
MOST_MESSAGE = 2000
MOST_IDS_SAID = 100
"""So many ids of runs stand in the answer to a prune."""

_log = get_logger(__name__)
_MISSING_HERE = (NotRegisteredError, UnknownValueError)
_NOT_THE_REQUESTS_FAULT = (
    NotReadyError, DrainingError, LogError, EntityOutOfStepError, RunInterruptedError, DetachedEntityError, StorageUnavailableError,
)  # fmt: skip


class RequestTaker:
    """Takes requests out of an inbox, for the process that has the log open for writing.

    Attributes:
        taking: ids of the requests that are being carried out.
        left: those that stay, and why: this process lacks what they need, or cannot append.
    """

    def __init__(self, symphony: Host, inbox: Inbox, crash: Callable[[str], None] = lambda _: None) -> None:
        self._symphony = ref(symphony)
        self._inbox = inbox
        self._crash = crash
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._again = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._last_of: dict[str | None, asyncio.Task[None]] = {}
        self.taking: set[str] = set()
        self.left: dict[str, str] = {}

    def begin(self, newest_ns: int, opened_ns: int) -> None:
        """Begin to wait for requests in the running event loop.

        Args:
            newest_ns: when the newest of what waits there came, in nanoseconds since 1970; 0 where nothing does.
            opened_ns: when the log was opened: what has come since is looked at now, what lay there before a second after the opening.
        """
        self._listen()
        if newest_ns >= opened_ns - COARSE_NS:
            self.look()
        elif newest_ns:
            left_s = max(0.0, FIRST_LOOK_S - (time.time_ns() - opened_ns) / 1e9)
            self._timer = asyncio.get_running_loop().call_later(left_s, self.look, context=Context())

    def _listen(self) -> None:
        """Have the running loop wake this; the loop it was opened in may have ended."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        self._unlisten()
        self._loop = loop
        watch = self._inbox.fileno()
        if watch is None:
            self._timer = loop.call_later(LOOK_EVERY_S, self._look_now_and_then, context=Context())
        else:
            Context().run(loop.add_reader, watch, self._woken)

    def _unlisten(self) -> None:
        watch, loop, self._loop = self._inbox.fileno(), self._loop, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if watch is not None and loop is not None and not loop.is_closed():
            loop.remove_reader(watch)

    def _woken(self) -> None:
        self._inbox.heard()
        if self._symphony() is None:  # it was collected without close()
            self._unlisten()
            self._inbox.close()
        else:
            self.look()

    def _look_now_and_then(self) -> None:
        if self._loop is not None and self._symphony() is not None:
            self.look()
            self._timer = self._loop.call_later(LOOK_EVERY_S, self._look_now_and_then, context=Context())

    def look(self, *, all_again: bool = False) -> None:
        """Look at what waits, soon; with `all_again` also at what was left because this process lacked something."""
        self._listen()
        if all_again:
            self.left.clear()
        self._again = True
        if self._looking is None or self._looking.done():
            assert self._loop is not None
            self._looking = self._loop.create_task(self._look(), name="symphony-es-inbox", context=Context())

    async def _look(self) -> None:
        while self._again:
            self._again = False
            try:
                arrived = await asyncio.to_thread(self._inbox.waiting, {*self.taking, *self.left})
            except StorageUnavailableError as error:
                _log.warning("inbox_unavailable", error=str(error))
                return
            for request in arrived:
                if request.id not in self.taking and request.id not in self.left:
                    self._begin(request)

    def _begin(self, request: Request | FaultyRequest) -> None:
        """Carry a request out in a task of its own, after those to the same run that came before it; refuse what is none, one by one."""
        run = request.run if isinstance(request, Request) else None
        task = asyncio.create_task(self._take(request, self._last_of.get(run)), name=f"request {request.id}")
        self.taking.add(request.id)
        self._last_of[run] = task
        self._keep(task)

        def ended(_: object) -> None:
            self.taking.discard(request.id)
            if self._last_of.get(run) is task:
                del self._last_of[run]
            if not self.taking and self._loop is not None and not task.cancelled():
                self.look()  # there may be more than are looked at in one go

        task.add_done_callback(ended)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Take no more requests, and wait until those under way have been given up; what has no answer stays. Idempotent."""
        loop = self._loop
        self._unlisten()
        tasks = [task for task in (*self._tasks, self._looking) if task is not None and not task.done()]
        if loop is asyncio.get_running_loop():
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        self._inbox.close()

    # -- one request ----------------------------------------------------------------------------------------------------

    async def _take(self, request: Request | FaultyRequest, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            self._crash("found")
            known = await self._symphony_now().log.read_entity(entity_key(REQUEST_TYPE, request.id))
            if not any(event.name in ANSWERS for event in known):
                await self._answer_once(request, known)
            self._crash("answered")
            await asyncio.to_thread(self._inbox.remove, request.id)
            self._crash("removed")
        except SymphonyError as error:  # what is the request's own fault has been answered
            self._leave(request, error)

    def _leave(self, request: Request | FaultyRequest, error: Exception) -> None:
        self.left[request.id] = str(error)
        _log.warning("request_left", request_id=request.id, error=error_text(error))

    def _said(self, error: Exception) -> str:
        """Return what is put on record of an error, and so answered: of one of this library always why, of others what the rules let."""
        engine: WorkflowEngine = self._symphony_now().registry.get("workflow_engine")
        if isinstance(error, SymphonyError):
            return engine.redaction.text(message_of(error))
        return message_on_record(message_of(error), engine.redaction)

    def _symphony_now(self) -> Host:
        symphony = self._symphony()
        if symphony is None:
            raise NotReadyError("the Symphony has ended")
        return symphony

    async def _answer_once(self, request: Request | FaultyRequest, known: Sequence[Event]) -> None:
        if isinstance(request, FaultyRequest):
            _log.warning("request_faulty", request_id=request.id, error=request.why)
            await self._answer(request, error=ConfigurationError(f"what lies in the inbox as {request.id} is not taken: {request.why}"))
            return
        with acting(actor=request.actor, reason=request.reason, correlation_id=request.id):
            try:
                said = await (self._prune(request) if request.verb == PRUNE else self._do(request, known))
            except _MISSING_HERE as error:
                raise NotReadyError(str(error)) from error  # it stays for a process that has it
            except _NOT_THE_REQUESTS_FAULT:
                raise
            except Exception as error:  # noqa: BLE001  code of the application's may raise anything; who asks is told, and the owner goes on
                await self._answer(request, error=error)
                return
            self._crash("carried out")
            await self._answer(request, said)

    async def _do(self, request: Request, known: Sequence[Event]) -> dict[str, Any]:
        """Carry out what is asked of a run, unless an owner that did not live to answer has; return what the answer says."""
        run = await self._run(request.run)
        if known:
            is_done = await self._is_on_record(request, known[0])
        else:
            is_done = False
            await self._note_taken(request, run)
        self._crash("taken")
        if not is_done:
            await self._carry_out(request, run)
        return {"status": run.status.value}

    async def _prune(self, request: Request) -> dict[str, Any]:
        """Prune what fits; what an owner that did not live to answer has pruned is pruned. Return what the answer says."""
        from symphony_es.workflow.engine.leaving import prune  # late: few are asked to
        from symphony_es.workflow.runs.filters import RunFilter, moment_of_age, prune_filter, read_time

        given = request.arguments
        symphony: Any = self._symphony_now()
        engine: WorkflowEngine = symphony.registry.get("workflow_engine")
        before = read_time("before", moment_of_age(given.get("older_than_s", given.get("before")), engine.clock.now()))
        assert before is not None, "a request has one of them"
        wanted = prune_filter(RunFilter(status=given.get("status"), name=given.get("name"), metadata=given.get("metadata")))
        report = (await prune(symphony, engine.resting, wanted, before)).to_dict()
        return {"pruned": {**report, "ids": report["ids"][:MOST_IDS_SAID], "kept_ids": report["kept_ids"][:MOST_IDS_SAID]}}

    async def _answer(
        self, request: Request | FaultyRequest, said: Mapping[str, Any] = MappingProxyType({}), *, error: Exception | None = None
    ) -> None:
        """Append the answer; one that is there already stays. Only what is taken has an event before it."""
        told: dict[str, Any] = {"status": "", **said}
        if isinstance(request, Request):
            told |= {"verb": request.verb, "run": request.run, "asked": request.digest}
        if error is not None:
            told["error"] = {"type": type(error).__name__, "message": shortened(self._said(error), MOST_MESSAGE)}
        known = len(await self._symphony_now().log.read_entity(entity_key(REQUEST_TYPE, request.id)))
        try:
            await self._append(request, known + 1, DONE_EVENT if error is None else REFUSED_EVENT, told)
        except ConcurrencyError:
            _log.info("request_answered_twice", request_id=request.id)

    async def _note_taken(self, request: Request, run: Workflow) -> None:
        if request.verb != "signal":
            record = self._symphony_now().world.record_of(run)
            version = 0 if record is None or record.unplaced else record.version
            await self._append(request, 1, TAKEN_EVENT, {"run": request.run, "version": version})

    async def _append(self, request: Request | FaultyRequest, version: int, name: str, data: Any) -> None:
        event = NewEvent(
            entity_key=entity_key(REQUEST_TYPE, request.id),
            version=version,
            name=name,
            changes=[],
            metadata=current_attribution.get()._replace(correlation_id=request.id).metadata(),
            data=data,
            event_id=uuid7(time.time_ns(), os.urandom(16)),
        )
        await self._symphony_now().log.append([event])

    async def _run(self, run_id: str) -> Workflow:
        engine: WorkflowEngine = self._symphony_now().registry.get("workflow_engine")
        return await engine.resting.bring(entity_key("Workflow", run_id))

    async def _is_on_record(self, request: Request, taken: Event) -> bool:
        """Return whether an owner that did not live to answer has done it: the run's own events since it was taken say so."""
        mark = request.id.encode()
        after = taken.data["version"] if isinstance(taken.data, dict) else 0
        async for rows in self._symphony_now().log.entity_pages(entity_key("Workflow", request.run), after):
            for row in rows:
                if mark in row[4] and decode_row(row).metadata.correlation_id == request.id:
                    return True
        return False

    async def _carry_out(self, request: Request, run: Workflow) -> None:
        engine: WorkflowEngine = self._symphony_now().registry.get("workflow_engine")
        given = request.arguments
        if request.verb == "signal":
            await engine.signal(run, given["name"], given.get("payload"), signal_id=request.id)
        elif request.verb == "pause":
            await engine.pause(run)
        elif request.verb == "resume":
            await engine.start(run)
        elif request.verb == "retry":
            await self._retry(engine, run, given.get("step"))
        else:
            cleanup = given.get("cleanup", True)
            await request_cancel(engine, run, cleanup=cleanup, with_parent=False)
            await self._symphony_now().world.flush(run)
            self._keep(asyncio.create_task(self._cancel(engine, run, given.get("grace_s", GRACE_S), cleanup=cleanup)))

    @staticmethod
    async def _retry(engine: WorkflowEngine, run: Workflow, step: str | list[str] | None) -> None:
        if step is not None:
            await engine.retry_in_background(run, step)
        else:
            from symphony_es.workflow.engine.retriable import check_retry  # late: few requests ask for it

            check_retry(run)
            await engine.start(run)

    @staticmethod
    async def _cancel(engine: WorkflowEngine, run: Workflow, grace_s: float, *, cleanup: bool) -> None:
        """Bring a cancellation to its end. That it is asked for is on record by now, and the request is answered."""
        try:
            await engine.cancel(run, grace_s=grace_s, cleanup=cleanup)
        except SymphonyError as error:
            if run.status is WorkflowStatus.CANCELLING:
                _log.warning("run_not_cancelled_yet", run_id=run.id, error=error_text(error))
