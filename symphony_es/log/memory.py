"""The log in memory: bounded, and the executable specification of what a log does.

Events beyond the bound are folded into a base state and dropped, oldest first, so a process that runs for months does not leak.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from uuid import UUID

from symphony_es.errors import ConcurrencyError, PositionNotFoundError, SymphonyError
from symphony_es.events.fold import EntityState, Fold
from symphony_es.events.identifiers import DEFINITION_PREFIX
from symphony_es.events.rows import Row, seal_state
from symphony_es.log.pages import PAGE_ROWS, Page, take_page
from symphony_es.log.placing import without_known
from symphony_es.log.recorder import Appended, PreparedEvent

__all__ = ["MemoryLogRecorder"]


class MemoryLogRecorder:
    """Events in memory, behind the port of the log.

    Args:
        max_events: how many events are kept.
    """

    in_process = True
    path: Path | None = None
    lost_at_the_end: tuple[int, int] | None = None
    skips = False
    skipped: Mapping[int, Row] = MappingProxyType({})
    least_of: Callable[[str], int] | None = None  # nothing can be lost here

    def __init__(self, max_events: int = 100_000) -> None:
        self.max_events = max_events
        self._lock = threading.Lock()
        self._rows: list[Row] = []
        self._dropped = 0  # how many events of the log were folded into the base
        self._base = Fold()
        self._by_key: dict[str, list[Row]] = {}
        self._versions: dict[str, int] = {}
        self._time_ns = 0

    @property
    def last_time_ns(self) -> int:
        """When the last event was committed, nanoseconds since 1970; 0 without any."""
        return self._time_ns

    def append_groups(self, groups: Sequence[Sequence[PreparedEvent]], time_ns: int) -> list[Appended | SymphonyError]:
        """See `LogRecorder`."""
        with self._lock:
            self._time_ns = max(self._time_ns, time_ns)
            outcomes = [self._append(group) for group in groups]
            self._trim()
            return outcomes

    def _append(self, group: Sequence[PreparedEvent]) -> Appended | SymphonyError:
        versions: dict[str, int] = {}
        forgotten: dict[str, int] = {}
        if any(event.entity_key.startswith(DEFINITION_PREFIX) for event in group):
            group = without_known(group, lambda key: self._versions.get(key, 0))
        for event in group:
            key = event.entity_key
            actual = versions.get(key, self._versions.get(key, 0))
            if not actual and self._dropped and event.version > 1:
                # Its id was used and forgotten while whoever uses it again still knew its version, and did not know that the log does not.
                actual = forgotten[key] = event.version - 1
            if event.version != actual + 1:
                return ConcurrencyError(key, event.version - 1, actual)
            versions[key] = event.version
        for key, version in forgotten.items():
            self._base.states[key] = EntityState(key, None, version, self._base.position)
        first = self._head() + 1
        for position, (key, version, name, event_id, body) in enumerate(group, first):
            self._keep((position, key, version, name, seal_state(position, key, version, name, event_id, self._time_ns, body)))
        return Appended(first, self._head(), self._time_ns)

    def _keep(self, row: Row) -> None:
        self._rows.append(row)
        self._by_key.setdefault(row[1], []).append(row)
        self._versions[row[1]] = row[2]

    def _head(self) -> int:
        return self._dropped + len(self._rows)

    def _trim(self) -> None:
        """Fold what is too old into the base; in slices, so that the cost per event stays the same."""
        surplus = len(self._rows) - self.max_events
        if surplus < max(1, self.max_events // 16):
            return
        for row in self._rows[:surplus]:
            self._base.apply_row(row)
            rows = self._by_key[row[1]]
            del rows[0]
            if not rows:
                del self._by_key[row[1]]
                state = self._base.states[row[1]]
                if state.deleted and state.damage is None:  # nothing of it is kept: its id begins anew
                    del self._base.states[row[1]], self._versions[row[1]]
        del self._rows[:surplus]
        self._dropped += surplus

    def read(
        self,
        after: int,
        *,
        until: int | None = None,
        limit: int = PAGE_ROWS,
        names: Sequence[str] = (),
        key_range: tuple[str, str] | None = None,
    ) -> Page:
        """See `LogRecorder`."""
        with self._lock:
            self._check_kept(after)
            start, end = after - self._dropped, len(self._rows) if until is None else max(until - self._dropped, 0)
            rows = islice(self._rows, start, end) if names or key_range is not None else self._rows[start : min(end, start + limit)]
            low, high = key_range or ("", "\U0010ffff")
            chosen = (row for row in rows if (not names or row[3] in names) and low <= row[1] < high)
            return take_page(rows if key_range is None and not names else chosen, limit)

    def _check_kept(self, after: int) -> None:
        if after < self._dropped:
            raise PositionNotFoundError(
                f"the events up to position {self._dropped} are no longer in memory: keep more with setup(memory_events=...)"
            )

    def read_entity(self, key: str, *, after_version: int = 0, until_position: int | None = None, limit: int = PAGE_ROWS) -> Page:
        """See `LogRecorder`."""
        with self._lock:
            base = self._base.states.get(key)
            if base is not None and after_version < base.version:
                self._check_kept(base.position - 1)
            last = self._head() if until_position is None else until_position
            return take_page((row for row in self._by_key.get(key, ()) if row[2] > after_version and row[0] <= last), limit)

    def read_back(self, before: int, *, after: int = 0, limit: int = PAGE_ROWS) -> Page:
        """See `LogRecorder`."""
        with self._lock:
            self._check_kept(after)
            start, end = after - self._dropped, max(min(before - 1, self._head()) - self._dropped, 0)
            return take_page(reversed(self._rows[max(start, end - limit) : end]), limit)

    def read_entity_back(
        self,
        key: str,
        *,
        before_version: int | None = None,
        after_version: int = 0,
        until_position: int | None = None,
        limit: int = PAGE_ROWS,
    ) -> Page:
        """See `LogRecorder`."""
        with self._lock:
            last, before = self._head() if until_position is None else until_position, before_version or sys.maxsize
            rows = reversed(self._by_key.get(key, []))
            return take_page((row for row in rows if after_version < row[2] < before and row[0] <= last), limit)

    def last_row(self, key: str) -> Row | None:
        """See `LogRecorder`."""
        with self._lock:
            rows = self._by_key.get(key)
            return rows[-1] if rows else None

    def entity_types(self) -> list[str]:
        """See `LogRecorder`."""
        with self._lock:
            return sorted({key.partition(":")[0] for key in (*self._by_key, *self._base.states)})

    def last_rows(self, entity_type: str, after_key: str = "", limit: int = PAGE_ROWS) -> Page:
        """See `LogRecorder`."""
        prefix = f"{entity_type}:"
        with self._lock:
            keys = sorted(key for key in self._by_key if key.startswith(prefix) and key > after_key)
            return take_page((self._by_key[key][-1] for key in keys), limit)

    def head(self) -> int:
        """See `LogRecorder`."""
        with self._lock:
            return self._head()

    def version_at(self, key: str, position: int) -> int:
        """See `LogRecorder`."""
        with self._lock:
            base = self._base.states.get(key)
            known = base.version if base is not None and base.position <= position else 0
            return next((row[2] for row in reversed(self._by_key.get(key, [])) if row[0] <= position), known)

    def entity_version(self, key: str) -> int:
        """See `LogRecorder`."""
        with self._lock:
            return self._versions.get(key, 0)

    def weight(self, after: int, until: int | None = None) -> int:
        """See `LogRecorder`."""
        with self._lock:
            stop = None if until is None else max(until - self._dropped, 0)
            return sum(len(row[4]) for row in self._rows[max(after - self._dropped, 0) : stop])

    def size_bytes(self) -> int:
        """See `LogRecorder`."""
        return self.weight(0)

    def log_id(self) -> UUID | None:
        """See `LogRecorder`."""
        return None

    def base(self) -> Fold | None:
        """See `LogRecorder`."""
        with self._lock:
            return self._base.copy() if self._dropped else None

    def base_position(self) -> int:
        """See `LogRecorder`."""
        return self._dropped

    def base_state(self, key: str) -> EntityState | None:
        """See `LogRecorder`."""
        with self._lock:
            state = self._base.states.get(key)
            return state.copy() if state is not None else None

    def maintain(self) -> None:
        """Do nothing: there is nothing to maintain."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""
