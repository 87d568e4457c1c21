"""Reading the log: each reading is told where it ends, and raises when it does not get there.

A page that is short, or empty, is the end of a reading only where the store says so: see `LogRecorder.read`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from symphony_es.errors import DamagedEventError, ForkedProcessError, NotReadyError, PositionNotFoundError
from symphony_es.events.changes import REMOVE
from symphony_es.events.event import Event
from symphony_es.events.fold import PRUNED_EVENTS, PRUNED_TYPES, EntityState, Fold
from symphony_es.events.identifiers import FOREIGN_PREFIX
from symphony_es.events.rows import Row, decode_row, time_of
from symphony_es.log.arguments import LARGEST, check_key_range, check_names, check_numbers, check_numbers_if_given, check_texts
from symphony_es.log.forks import Inherited
from symphony_es.log.pages import PAGE_ROWS, Page
from symphony_es.log.recorder import LogRecorder, missing
from symphony_es.shown import shown

__all__ = ["LogReader"]

PAGE = PAGE_ROWS
REPLAYED_PAGES = 16
LOOK_UP_ROWS = 50  # what looking up an entity counts, so that some hundred make as long a call as some pages do
T = TypeVar("T")


class LogReader(Inherited):
    """The reading half of an `EventLog`, in threads of its own; in memory, in the caller's."""

    def __init__(self, recorder: LogRecorder, *, read_only: bool, head: int | None = None) -> None:
        self._recorder = recorder
        self._in_process = recorder.in_process
        self._readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="symphony-es-reader")
        self._head = recorder.head() if head is None else head
        self._followers: set[asyncio.Event] = set()
        self._read_only = read_only
        self._closed = False
        self._forked_from: int | None = None

    @property
    def read_only(self) -> bool:
        """Whether it was opened for reading: another process may be writing it."""
        return self._read_only

    @property
    def head(self) -> int:
        """The newest durable position known here; 0 when the log is empty."""
        return self._head

    async def refresh_head(self) -> int:
        """Return the newest durable position, asked of the store: another process may have appended."""
        self._check_process()
        if self._read_only:
            found = await self._call(self._recorder.head)
            self._head = max(self._head, found)  # of several that ask, the one that was answered first may go on last
        return self._head

    def recorder(self) -> LogRecorder:
        """Return the store, for threads that may wait for what they read: its calls block.

        Raises:
            NotReadyError: the log is closed. ForkedProcessError: it is the parent process's.
        """
        self._check_process()
        if self._closed:
            raise NotReadyError("the log is closed")
        return self._recorder

    async def _call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        if self._in_process and not self._closed:
            self._check_process()
            return function(*arguments, **named)
        return await self._in_reader(partial(function, *arguments, **named))

    async def _in_reader(self, function: Callable[..., T], *arguments: Any) -> T:
        self._check_process()
        if self._closed:
            raise NotReadyError("the log is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, function, *arguments)

    def leave_to_parent(self, parent: int) -> None:
        """See `Inherited`."""
        self._closed, self._forked_from = True, parent

    def _check_process(self) -> None:
        if self._forked_from is not None:
            raise ForkedProcessError(self._forked_from)

    async def read_rows(
        self,
        after: int = 0,
        until: int | None = None,
        limit: int = PAGE_ROWS,
        names: Sequence[str] = (),
        key_range: tuple[str, str] | None = None,
    ) -> Page:
        """Return a page of checked rows with positions above `after`; see `LogRecorder.read`.

        Raises:
            ConfigurationError: a number that no store takes, a text with a lone surrogate, or what is neither number nor text.
        """
        check_numbers(after, limit)
        check_numbers_if_given(until)
        check_names(names)
        if key_range is not None:
            check_key_range(key_range)
        return await self._call(self._recorder.read, after, until=until, limit=limit, names=tuple(names), key_range=key_range)

    async def replay(self, fold: Fold, until: int) -> None:
        """Feed a fold with the events after its position, up to `until`, in a thread; a cancelled call stops after some thousand events.

        Raises:
            DamagedEventError: an event is damaged; those before it have been applied.
        """
        fold.look_up = self.state_before
        while fold.position < until:
            await self._in_reader(self._replay_some, fold, until)

    def _replay_some(self, fold: Fold, until: int) -> None:
        """Feed some pages at once, since each hop between threads costs as much as a hundred events."""
        for _ in range(REPLAYED_PAGES):
            if fold.position < until:
                fold.apply_rows(self._some(fold.position, until, PAGE))

    def _some(self, after: int, until: int, limit: int) -> Page:
        """Return the next rows of a reading that ends at `until`: at least one."""
        rows = self._recorder.read(after, until=until, limit=limit)
        if not rows:
            raise missing(after + 1, until)
        return rows

    async def pages(self, after: int, until: int, page: int = PAGE, *, first: int | None = None) -> AsyncIterator[Page]:
        """Yield all checked rows with positions above `after` up to `until`, page by page: it ends there, and nowhere before.

        Args:
            after: only later ones.
            until: only those up to this position.
            page: how many rows a page has at most.
            first: how many the first one has, where the reader may stop soon; each one behind it has twice as many.

        Raises:
            DamagedEventError: an event is damaged or missing, or the log ends before `until`; the pages before it have been handed out.
            PositionNotFoundError: the history there is no longer kept.
        """
        check_numbers(after, until, page)
        check_numbers_if_given(first)
        sizes = _sizes(page, first)
        while after < until:
            rows = await self._call(self._some, after, until, next(sizes))
            after = rows[-1][0]  # before: who gets the page may take it apart
            yield rows

    async def replay_entities(self, folds: Mapping[str, Fold], until: int) -> None:
        """Feed folds of one entity each, by key, with that entity's later events, up to `until`, as `replay` does with all events.

        Raises:
            DamagedEventError: an event is damaged.
        """
        for fold in folds.values():
            fold.look_up = self.state_before
        waiting = list(folds.items())
        while waiting:
            await self._call(self._replay_some_entities, waiting, until)

    def _replay_some_entities(self, waiting: list[tuple[str, Fold]], until: int) -> None:
        """Feed some hundred folds, the last ones first, or fewer that have many events; those that are done wait no more."""
        room = REPLAYED_PAGES * PAGE
        while waiting and room > 0:
            key, fold = waiting[-1]
            state = fold.states.get(key)
            rows = self._recorder.read_entity(key, after_version=state.version if state else 0, until_position=until, limit=PAGE)
            fold.apply_rows(sorted(rows))  # by position, as every fold is: they are in order, unless versions are not
            if len(rows) < PAGE and not rows.cut:  # versions have no gap: these are the last ones that the store knows of
                waiting.pop()
            room -= LOOK_UP_ROWS + len(rows)

    def state_before(self, key: str, position: int) -> EntityState | None:
        """Return one entity's state right before a position, folded from its first event that is kept; blocks.

        None where it had no event.
        """
        check_texts(key)
        check_numbers(position)
        kept = self._recorder.base_state(key)
        fold, version = (Fold({key: kept}, kept.position), kept.version) if kept is not None else (Fold(), 0)
        while rows := self._recorder.read_entity(key, after_version=version, until_position=position - 1, limit=PAGE):
            fold.apply_rows(sorted(rows))
            version = rows[-1][2]
        return fold.states.get(key)

    async def read(
        self, after: int = 0, until: int | None = None, names: Sequence[str] = (), page: int = 1000
    ) -> AsyncIterator[list[Event]]:
        """Yield pages of events with positions above `after`, up to `until` or the head as it is now, whichever comes first.

        Raises:
            DamagedEventError: an event is damaged or missing, also one of another name; those before it have been handed out.
        """
        check_numbers(after, page)
        check_numbers_if_given(until)
        check_names(names)
        stop = self._head
        if until is not None:
            stop = until if until <= stop else min(until, await self.refresh_head())
        if not names:
            async for rows in self.pages(after, stop, page):
                yield [decode_row(row) for row in rows]
            return
        found: list[Row] = []
        async for rows in self.pages(after, stop):
            found += [row for row in rows if row[3] in names]
            while len(found) >= page or (found and rows.cut):
                yield [decode_row(row) for row in found[:page]]
                del found[:page]
        if found:
            yield [decode_row(row) for row in found]

    async def pages_back(self, before: int, after: int = 0, *, first: int | None = None) -> AsyncIterator[Page]:
        """Yield all checked rows with positions below one and above another, the newest first. See `pages`."""
        check_numbers(before, after)
        check_numbers_if_given(first)
        sizes = _sizes(PAGE, first)
        while before > after + 1:
            rows = await self._call(self._recorder.read_back, before, after=after, limit=next(sizes))
            if not rows:
                raise missing(before - 1, before - 1)
            before = rows[-1][0]
            yield rows

    async def read_entity_rows(self, key: str, after_version: int = 0, until_position: int | None = None, limit: int = PAGE) -> Page:
        """Return a page of one entity's rows with versions above `after_version`. Errors are those of `read_rows`."""
        check_texts(key)
        check_numbers(after_version, limit)
        check_numbers_if_given(until_position)
        return await self._call(self._recorder.read_entity, key, after_version=after_version, until_position=until_position, limit=limit)

    async def read_entity(self, key: str, after_version: int = 0, until_position: int | None = None) -> list[Event]:
        """Return all events of one entity with versions above `after_version`, in order."""
        return [decode_row(row) async for rows in self.entity_pages(key, after_version, until_position) for row in rows]

    async def entity_pages(
        self, key: str, after_version: int = 0, until_position: int | None = None, *, last_version: int | None = None, page: int = PAGE,
        first: int | None = None,
    ) -> AsyncIterator[Page]:  # fmt: skip
        """Yield all checked rows of one entity with versions above `after_version`, page by page, in order and without a gap.

        Args:
            key: `Type:id`.
            after_version: only later ones.
            until_position: only those up to this position.
            last_version: the reading ends at this version, and nowhere before; None where nobody knows which one is the last.
            page: how many rows a page has at most.
            first: see `pages`.

        Raises:
            DamagedEventError: an event is damaged or missing.
            PositionNotFoundError: the history there is no longer kept.
        """
        check_numbers(page, after_version)
        check_numbers_if_given(last_version, first)
        sizes = _sizes(page, first)
        while last_version is None or after_version < last_version:
            size = next(sizes)
            limit = size if last_version is None else min(size, last_version - after_version)
            rows = await self.read_entity_rows(key, after_version, until_position, limit)
            at_its_end = len(rows) < limit and not rows.cut  # the store gives fewer only at the end
            if rows:
                after_version = rows[-1][2]
                yield rows
            if at_its_end:
                if last_version is not None and after_version < last_version:
                    raise DamagedEventError(None, key, f"version {after_version + 1} is missing, and it goes up to version {last_version}")
                return

    async def entity_pages_back(
        self, key: str, *, after_version: int = 0, until_position: int | None = None, first: int | None = None
    ) -> AsyncIterator[Page]:
        """Yield all checked rows of one entity with versions above one, up to a position, the newest first. See `entity_pages`."""
        check_texts(key)
        check_numbers(after_version)
        check_numbers_if_given(until_position, first)
        before: int | None = None
        sizes = _sizes(PAGE, first)
        while before is None or before > after_version + 1:
            limit = next(sizes)
            rows = await self._call(
                self._recorder.read_entity_back,
                key, before_version=before, after_version=after_version, until_position=until_position, limit=limit,
            )  # fmt: skip
            at_its_end = len(rows) < limit and not rows.cut
            if rows:
                before = rows[-1][2]
                yield rows
            if at_its_end:
                return

    async def version_at(self, key: str, position: int) -> int:
        """Return version of an entity's last event up to a position; 0 when there is none. Costs a look-up in the index."""
        check_texts(key)
        check_numbers(position)
        return await self._call(self._recorder.version_at, key, position)

    async def entity_row(self, key: str, version: int) -> Row:
        """Return the row of one version of an entity, which there is.

        Raises:
            DamagedEventError: it is damaged or missing.
            PositionNotFoundError: the history there is no longer kept.
        """
        check_numbers(version)
        (row,) = [row async for rows in self.entity_pages(key, version - 1, last_version=version) for row in rows]
        return row

    async def row_at(self, position: int) -> Row:
        """Return the row at a position.

        Raises:
            PositionNotFoundError: there is none.
        """
        if type(position) is not int:
            check_numbers(position)
        rows = await self.read_rows(position - 1, position, 1) if 0 < position <= LARGEST else []
        if not rows:
            raise PositionNotFoundError(f"position {shown(position)} is not in the log: its head is {self._head}")
        return rows[0]

    def entity_status_now(self, key: str) -> tuple[int, bool]:
        """Return version of an entity's last event (0 when there is none) and whether it is alive; a synchronous look-up.

        Raises:
            DamagedEventError: that event is damaged.
        """
        check_texts(key)
        self._check_process()
        version = self._recorder.entity_version(key)
        if not version or key.startswith(FOREIGN_PREFIX):  # which has events and no state
            return version, False
        row = self._recorder.last_row(key)
        if row is None:
            state = self._recorder.base_state(key)
            return version, state is not None and not state.deleted
        changes = decode_row(row).changes
        return version, not (changes and changes[-1][0] == REMOVE and not changes[-1][1])

    def entity_types_now(self) -> list[str]:
        """Return the types that any event is of, sorted; a synchronous look-up that costs one step per type."""
        self._check_process()
        return self._recorder.entity_types()

    async def alive_keys(self, entity_type: str) -> list[str]:
        """Return keys of the entities of a type that are alive, sorted; costs their newest events, whatever they have been through.

        Raises:
            DamagedEventError: one of these events is damaged.
        """
        check_texts(entity_type)
        return await self._in_reader(self._alive_keys, entity_type)

    def _alive_keys(self, entity_type: str) -> list[str]:
        base = self._recorder.base()  # first: what becomes part of it meanwhile has a newer row still
        alive = {key: not state.deleted for key, state in base.states.items()} if base is not None else {}
        last = ""
        while rows := self._recorder.last_rows(entity_type, last):
            for row in rows:
                changes = decode_row(row).changes
                alive[row[1]] = not (changes and changes[-1][0] == REMOVE and not changes[-1][1])
            last = rows[-1][1]
        return sorted(key for key, lives in alive.items() if lives and key.startswith(f"{entity_type}:"))

    async def alive_keys_below(self, entity_type: str, prefix: str) -> list[str]:
        """Return keys of the entities of a type that are alive and whose ids begin so, sorted; costs these entities' events. Errors are the
        same.

        Args:
            entity_type: the type.
            prefix: ends with a slash.
        """
        return sorted(await self.versions_below(entity_type, prefix))

    async def versions_below(self, entity_type: str, prefix: str) -> dict[str, int]:
        """Return the versions of the same entities, by key."""
        check_texts(entity_type, prefix)
        if self._recorder.base() is not None:
            keys = [key for key in await self.alive_keys(entity_type) if key.startswith(f"{entity_type}:{prefix}")]
            return {key: self._recorder.entity_version(key) for key in keys}
        after_slash = f"{entity_type}:{prefix[:-1]}0"
        after, alive = 0, dict[str, int]()
        while rows := await self.read_rows(after, None, PAGE, key_range=(f"{entity_type}:{prefix}", after_slash)):
            for row in rows:
                changes = decode_row(row).changes
                alive[row[1]] = 0 if changes and changes[-1][0] == REMOVE and not changes[-1][1] else row[2]
            after = rows[-1][0]
        return {key: version for key, version in alive.items() if version}

    def pruned_at(self, key: str) -> int | None:
        """Return position of the event that has pruned a run or a task of one, where that is its last one; a synchronous look-up."""
        check_texts(key)
        self._check_process()
        row = self._recorder.last_row(key) if key.startswith(PRUNED_TYPES) else None
        return row[0] if row is not None and row[3] in PRUNED_EVENTS else None

    async def weight(self, after: int, until: int | None = None) -> int:
        """Return bytes of all states at positions above `after`, up to `until` where it is given."""
        check_numbers(after)
        check_numbers_if_given(until)
        return await self._call(self._recorder.weight, after, until)

    async def size_bytes(self) -> int:
        """Return how much room the log takes, in bytes."""
        return await self._call(self._recorder.size_bytes)

    @property
    def base(self) -> Fold | None:
        """In memory: the states that events no longer kept were folded into, as a copy; None where everything is kept."""
        return self._recorder.base()

    @property
    def base_position(self) -> int:
        """In memory: the position up to which events are no longer kept; 0 where everything is."""
        return self._recorder.base_position()

    def base_state(self, key: str) -> EntityState | None:
        """Return, in memory, the state, as a copy, that an entity's events which are no longer kept have led to."""
        check_texts(key)
        return self._recorder.base_state(key)

    async def position_at(self, time_ns: int) -> int:
        """Return the position before the first event with a later time; a binary search."""
        if type(time_ns) is not int:
            check_numbers(time_ns)
        low, high = self.base_position, await self.refresh_head()
        while low < high:
            middle = (low + high + 1) // 2
            if time_of((await self.row_at(middle))[4]) <= time_ns:
                low = middle
            else:
                high = middle - 1
        return low

    async def transaction_bounds(self, position: int) -> tuple[int, int]:
        """Return the first and last position of the transaction that an event belongs to; in memory, of what is kept of it.

        Costs a look at some events, however many it has: those of a transaction stand side by side.

        Raises:
            PositionNotFoundError: there is no event there.
        """
        own = decode_row(await self.row_at(position)).transaction_id
        edges = []
        for way, room in ((-1, position - self.base_position - 1), (1, self._head - position)):
            inside, step = 0, 1
            while inside < room:  # ever longer steps while they stay inside, then shorter ones
                ahead = min(inside + step, room)
                if decode_row(await self.row_at(position + way * ahead)).transaction_id == own:
                    inside, step = ahead, step * 2
                else:
                    room, step = ahead - 1, max((ahead - inside) // 2, 1)
            edges.append(position + way * inside)
        return edges[0], edges[1]

    # -- following ----------------------------------------------------------------------------------------------------

    async def follow(self, after: int = 0, names: Sequence[str] = (), poll_s: float = 0.1) -> AsyncIterator[list[Event]]:
        """Yield pages of events as they become durable, for ever: history first, then what is appended, no event twice or missing.

        Args:
            after: the last position already known.
            names: only events of these names.
            poll_s: how often, in seconds, a log that another process writes is asked; in the writing process a signal wakes.
        """
        check_numbers(after)
        check_names(names)
        self._check_process()
        changed = _LoopEvent(asyncio.get_running_loop())
        self._followers.add(changed)
        try:
            while not self._closed:
                changed.clear()
                head = await self.refresh_head()
                async for events in self.read(after, head, names):
                    yield events
                after = max(after, head)
                if self._head <= after and not self._closed:
                    await self._wait_for_change(changed, poll_s)
        finally:
            self._followers.discard(changed)

    async def _wait_for_change(self, changed: asyncio.Event, poll_s: float) -> None:
        if not self._read_only:
            await changed.wait()
            return
        try:
            await asyncio.wait_for(changed.wait(), poll_s)
        except TimeoutError:
            return

    async def wait_for(self, position: int, timeout_s: float | None = None) -> None:
        """Wait until a position is durable.

        Raises:
            TimeoutError: it is not after `timeout_s` seconds.
        """
        check_numbers(position)
        async with asyncio.timeout(timeout_s):
            changed = _LoopEvent(asyncio.get_running_loop())
            self._followers.add(changed)
            try:
                while await self.refresh_head() < position:
                    changed.clear()
                    if self._head < position:
                        await self._wait_for_change(changed, 0.1)
            finally:
                self._followers.discard(changed)


def _sizes(most: int, first: int | None) -> Iterator[int]:
    """Yield how many rows each page of a reading has at most."""
    size = most if first is None else max(1, min(first, most))
    while True:
        yield size
        size = min(2 * size, most)


class _LoopEvent(asyncio.Event):
    """An event that knows its loop, so that the writer thread can set it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
