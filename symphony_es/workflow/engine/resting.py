"""Runs that have ended leave memory, with their tasks and child runs: what is finished is at rest in the log.

A run comes to rest as soon as its end is durable and the hooks that must not miss it have been told. A child run rests with the run that
started it; a run rests when its child runs have ended. Whoever has the object of a run in hand reads and changes it as before: its next
change makes it live again. What a living entity refers to is found as before, as long as that entity, or anybody else, has its object.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from symphony_es.core.resume.bringing import load_entity
from symphony_es.diagnostics import error_text, get_logger
from symphony_es.errors import AT_REST, SymphonyError
from symphony_es.workflow.runs.notes import GATHERED, row_of_run
from symphony_es.workflow.runs.run import Workflow
from symphony_es.workflow.runs.transitions import ENDED

if TYPE_CHECKING:
    from symphony_es.core.host import Host
    from symphony_es.core.world.live_entity import EntityRecord
    from symphony_es.core.world.world import World
    from symphony_es.workflow.engine.active import ActiveRuns

__all__ = ["Resting"]

_log = get_logger(__name__)

LARGE = 200
"""Steps of a run that is not brought to rest at once, but in slices."""

SLICE_S = 0.005


class Resting:
    """Brings the runs of one Symphony to rest, and back.

    Args:
        symphony: whose runs. active: those that execute.
    """

    def __init__(self, symphony: Host, active: ActiveRuns) -> None:
        self._symphony = symphony
        self._active = active
        self._due: list[Workflow] = []
        self._needed_by: dict[str, set[str]] = {}  # by a run's id, the ids of the forks of it that have not come to rest
        self._used: Counter[str] = Counter()  # by id, how many requests under way read what a run was
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def use(self, run: Workflow) -> Iterator[None]:
        """Keep a run in the log's present while a request reads what it was; it rests, or is driven, as it would."""
        self._used[run.id] += 1
        try:
            yield
        finally:
            self._used[run.id] -= 1
            if not self._used[run.id]:
                del self._used[run.id]

    def uses(self, run_id: str) -> bool:
        """Return whether a request under way reads what a run was."""
        return run_id in self._used

    def ended(self, run: Workflow) -> None:
        """Have a run rest that does not go on in this process, now or when its last change is durable; others are left alone."""
        world = self._symphony.world
        again = [record.obj for record in self._take_woken(world)]
        for one in (run, *again):
            if not isinstance(one, Workflow):
                self._symphony.tasks.rest_again(one)
            elif one.status in ENDED and (len(one.attempts) > LARGE or not self.rest(one)):
                self._due.append(one)
        if self._due and (self._task is None or self._task.done() or not self._task.get_loop().is_running()):
            self._task = asyncio.get_running_loop().create_task(self._when_durable())

    @staticmethod
    def _take_woken(world: World) -> Iterable[EntityRecord]:
        if not world.woken:
            return ()
        with world.lock:
            taken, world.woken = world.woken, []
        return taken

    async def _when_durable(self) -> None:
        while self._due:
            due, self._due = self._due, []
            world = self._symphony.world
            try:
                await world.outbox.flush([])
            except SymphonyError as error:  # whoever waits for the changes gets it; these runs stay live until the next one ends
                _log.debug("runs_stay_live", runs=len(due), error=error_text(error))
                self._due += due
                return
            for run in due:
                until = time.perf_counter() + SLICE_S
                for _ in self._rests(world, run):
                    if time.perf_counter() > until:
                        await asyncio.sleep(0)
                        until = time.perf_counter() + SLICE_S

    def rest(self, run: Workflow) -> bool:
        """Have a run rest with all that belongs to it, where nothing keeps it; False where that only has to become durable."""
        return all(self._rests(self._symphony.world, run))

    def _rests(self, world: World, run: Workflow) -> Iterator[bool]:
        """Have a run and its family rest, one by one; gives of each whether that is settled."""
        top = run
        while isinstance(top.parent, Workflow):
            if top.parent.status not in ENDED:
                return  # it rests with the run that started it
            top = top.parent
        for member in _family(top):
            if self._is_needed(world, member):
                return
            yield True
        for member in _family(top):
            rests = yield from self._rest_one(world, member)
            yield rests
            if rests and (record := world.record_of(member)) is not None and record.closed is AT_REST:
                for settled in self._tasks_rest(world, member):
                    rests = rests and settled
                    yield settled
                if rests:
                    self._symphony.tasks.forget_run(member.id)

    def rest_again(self, keys: Iterable[str]) -> None:
        """Have runs rest of which another process has said something, where they have ended: in a Symphony that follows the log."""
        world = self._symphony.world
        for key in keys:
            record = world.records.get(key)
            if record is not None and key.startswith("Task:"):
                self._symphony.tasks.note(record.obj)
        for key in keys:
            record = world.records.get(key)
            if record is not None and isinstance(record.obj, Workflow) and record.obj.status in ENDED:
                self.rest(record.obj)

    async def bring(self, key: str) -> Workflow:
        """Return a run by its key, brought from the log where it is not live; one that has ended goes on resting, as the caller's object.

        Errors are those of `load_entity`.
        """
        world = self._symphony.world
        is_live = key in world.records
        run = await load_entity(self._symphony, Workflow, key)
        if not is_live and run.status in ENDED and not world.restoring:
            self.rest(run)
        return run

    def _tasks_rest(self, world: World, run: Workflow) -> Iterator[bool]:
        for task in self._symphony.tasks.of_run(run.id):
            known = world.record_of(task)
            yield known is None or world.is_kept(known.key) or world.rest(known)

    def _is_needed(self, world: World, run: Workflow) -> bool:
        record = world.record_of(run)
        if record is None or run.status not in ENDED or self._active.is_taken(run) or bool(run.untold) or world.is_kept(record.key):
            return True
        forks = self._needed_by.get(run.id)
        if forks is not None and not any(f"Workflow:{fork}" in world.records for fork in forks):
            del self._needed_by[run.id]  # they were removed, or taken back by a rewind
            forks = None
        return forks is not None

    def _rest_one(self, world: World, run: Workflow) -> Generator[bool, None, bool]:
        """Have one run rest; gives True between the slices of its comparison, and at the end whether that is settled."""
        record = world.record_of(run)
        if record is None or record.closed is AT_REST or self._is_needed(world, run):
            return True
        if world.outbox.suspects.has(record):
            for alike in world.outbox.suspects.is_alike(record, world.lock):
                if not alike:
                    return False  # closing finds it, and says so
                yield True
            if self._is_needed(world, run):
                return True  # it goes on
        if not world.rest(record, compared=True):
            return False
        notes = self._symphony.run_notes
        notes[record.key] = row_of_run(run, record.version)
        if len(notes) >= GATHERED:
            self._symphony.run_listing.catch_up_soon()
        for other in _others(run):
            self._let_go(run, other)
        return True

    def _let_go(self, fork: Workflow, other: Workflow) -> None:
        """Let go of what a fork that has ended needs no more: its original, and the child runs that it shares with that."""
        forks = self._needed_by.get(other.id, set())
        forks.discard(fork.id)
        if not forks:
            self._needed_by.pop(other.id, None)
            self.rest(other)

    def begins(self, run: Workflow) -> None:
        """Have what a run refers to be live until it has come to rest: the run that started it, with all that belongs to that; of a fork
        the original, and the child runs that both share.
        """
        world = self._symphony.world
        others = list(_others(run))
        for other in others:
            self._needed_by.setdefault(other.id, set()).add(run.id)
        for other in [run.parent, *others]:
            record = world.record_of(other) if isinstance(other, Workflow) else None
            if record is not None and record.closed is AT_REST:
                self._wake_family(world, record.obj)

    @staticmethod
    def _wake_family(world: World, run: Workflow) -> None:
        while isinstance(run.parent, Workflow):
            run = run.parent
        for member in _family(run):
            record = world.record_of(member)
            if record is not None and record.closed is AT_REST:
                world.wake(record)

    async def close(self) -> None:
        """Let what waits here be: the world ends."""
        self._due.clear()
        self._needed_by.clear()
        task, self._task = self._task, None
        if task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait([task])


def _family(run: Workflow) -> Iterator[Workflow]:
    """Yield a run, and the child runs that it has started, at any depth."""
    waiting = [run]
    while waiting:
        found = waiting.pop()
        yield found
        waiting += [child for child in list(found.children.values()) if isinstance(child, Workflow) and child.parent is found]


def _others(run: Workflow) -> Iterator[Workflow]:
    """Yield the original of a fork, and the child runs that it shares with that."""
    original = run.forked_from["run"] if run.forked_from is not None else None
    if isinstance(original, Workflow):
        yield original
    yield from (child for child in list(run.children.values()) if isinstance(child, Workflow) and child.parent is not run)
