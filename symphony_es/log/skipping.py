"""A log whose damaged events are read as events that say nothing: each damages its entity, as one that does not fit does, and nobody else.

What stands in the place of a damaged event is made here: a row whose check value holds, and whose body says why it cannot be read. So every
reader above takes it for what it is, without knowing of this module. The log's file stays as it is. The index is not relied on: the whole
log is read once when it is opened, and what an entity has been through is kept in memory.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from symphony_es.diagnostics import get_logger
from symphony_es.errors import DamagedEventError, InvalidIdentifierError
from symphony_es.events.identifiers import split_key
from symphony_es.events.rows import Row, check_row, substitute_row, time_of
from symphony_es.log.pages import PAGE_ROWS, Page, take_page
from symphony_es.log.sqlite import SQLiteLogRecorder
from symphony_es.log.sqlite_raw import RawLog, Unreadable

__all__ = ["UNKNOWN_TYPE", "SkippingLogRecorder"]

UNKNOWN_TYPE = "symphony.Damaged"
"""Type of the entity that stands for a position of which nobody can tell whose event was there."""
logger = get_logger(__name__)


class _Bad(NamedTuple):
    """A position whose event cannot be read."""

    why: str
    claimed: tuple[str, int] | None


class _Places:
    """Where the events of one entity stand: 16 bytes for each, and a look for a version costs the logarithm of their number."""

    __slots__ = ("_positions", "_versions")

    def __init__(self) -> None:
        self._versions = array("q")  # in their order
        self._positions = array("q")

    def note(self, version: int, position: int) -> None:
        """Take an event in; of two of one version the first one counts."""
        at = bisect_left(self._versions, version) if version <= self.last_version() else len(self._versions)
        if self._versions[at : at + 1] != array("q", [version]):
            self._versions.insert(at, version)
            self._positions.insert(at, position)

    def last_version(self) -> int:
        """Return the newest version; 0 where there is none."""
        return self._versions[-1] if self._versions else 0

    def last_position(self) -> int:
        """Return where that one stands."""
        return self._positions[-1]

    def between(self, after: int, before: int | None, until_position: int | None, *, newest_first: bool = False) -> Iterator[int]:
        """Yield positions of the versions after one and before another, as far as they stand up to a position."""
        places = range(bisect_right(self._versions, after), len(self._versions) if before is None else bisect_left(self._versions, before))
        for at in reversed(places) if newest_first else places:
            if until_position is None or self._positions[at] <= until_position:
                yield self._positions[at]

    def version_at(self, position: int) -> int:
        """Return the newest version that stands up to a position; 0 where there is none."""
        return next((self._versions[at] for at in reversed(range(len(self._versions))) if self._positions[at] <= position), 0)


_NOWHERE = _Places()


class SkippingLogRecorder(SQLiteLogRecorder):
    """See the module; the arguments are those of `SQLiteLogRecorder`."""

    skips = True
    _learned_until = 0
    _last_time_ns = 0
    _unknown = 0

    @property
    def skipped(self) -> dict[int, Row]:
        """What stands in the place of each damaged event, by position."""
        self._learn()
        return self._substitutes

    # -- what is there ------------------------------------------------------------------------------------------------

    def _learn(self) -> None:
        """Look at all rows that have not been looked at yet: which are damaged, and which event of which entity each one is."""
        if "_guard" not in self.__dict__:  # asked for while the recorder is being made
            self._guard = threading.RLock()
            self._substitutes: dict[int, Row] = {}
            self._places: dict[str, _Places] = {}
        with self._guard:
            head = self.head()
            if head <= self._learned_until:
                return
            with self._raw() as raw:
                while self._learned_until < head:
                    good, bad, until = self._fetch(raw, self._learned_until, min(self._learned_until + PAGE_ROWS, head))
                    entries = raw.entries_of(bad.keys()) if bad else {}
                    for position in range(self._learned_until + 1, until + 1):
                        row = good.get(position) or self._substitute(position, bad[position], entries.get(position))
                        places = self._places.get(row[1])
                        if places is None:
                            places = self._places[row[1]] = _Places()
                        places.note(row[2], position)
                        self._last_time_ns = time_of(row[4])
                    self._learned_until = until

    def _raw(self) -> RawLog:
        return RawLog(self.path, immutable=self._store.immutable)

    @staticmethod
    def _fetch(raw: RawLog, after: int, until: int) -> tuple[dict[int, Row], dict[int, _Bad], int]:
        """Return the rows above a position up to another, as far as a page goes: those that check, what is wrong with the others, and how
        far.
        """
        good: dict[int, Row] = {}
        bad: dict[int, _Bad] = {}
        items, seen = raw.page(after, until, until - after)
        until = seen if len(items) < until - after else until  # a page that ends because of its bytes
        for item in items:
            _take(item, good, bad)
        for position in range(after + 1, until + 1):
            if position not in good:  # a damaged page may hide others from a query for many
                for item in raw.page(position - 1, position, 1)[0]:
                    if item[0] == position:
                        _take(item, good, bad)
                if position not in good:
                    bad.setdefault(position, _Bad("it is missing", None))
                else:
                    bad.pop(position, None)
        return {position: good[position] for position in range(after + 1, until + 1) if position in good}, bad, until

    def _substitute(self, position: int, bad: _Bad, entry: tuple[str, int] | None) -> Row:
        key, version = self._owner(entry) or self._owner(bad.claimed) or (f"{UNKNOWN_TYPE}:{position}", 1)
        self._unknown += key.startswith(UNKNOWN_TYPE)
        made = self._substitutes[position] = substitute_row(position, key, version, self._last_time_ns, bad.why)
        logger.warning("damaged_event_skipped", position=position, entity=key, version=version, why=bad.why)
        return made

    def _owner(self, claimed: tuple[str, int] | None) -> tuple[str, int] | None:
        """Return whose event a damaged one is, by what the index or the row itself says; None where that cannot be.

        Its version is the next one of that entity; where events came before of which nobody knows whose they were, they may be between.
        """
        if claimed is None or type(claimed[0]) is not str or type(claimed[1]) is not int:
            return None
        try:
            split_key(claimed[0])
        except InvalidIdentifierError:
            return None
        before = self._places.get(claimed[0], _NOWHERE).last_version()
        return claimed if before < claimed[1] <= before + 1 + self._unknown else None

    # -- reading ------------------------------------------------------------------------------------------------------

    def _rows(self, positions: Sequence[int]) -> Iterator[Row]:
        """Yield the rows at positions, in that order; about a page of them is held at a time."""
        found: dict[int, Row] = {}
        with self._raw() as raw:
            for at, position in enumerate(positions):
                row = self._substitutes.get(position) or found.get(position)
                if row is None:
                    last = positions[min(at + PAGE_ROWS, len(positions)) - 1]
                    dense = 0 <= last - position < 2 * PAGE_ROWS
                    found = self._fetch(raw, position - 1, last if dense else position)[0]
                    row = found.get(position)
                if row is None:
                    raise DamagedEventError(position, None, "it was whole when the log was opened, and cannot be read any more")
                yield row

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
        self._learn()
        until = self._learned_until if until is None else min(until, self._learned_until)
        low, high = key_range or ("", "\U0010ffff")
        rows = self._rows(range(after + 1, until + 1))
        return take_page((row for row in rows if (not names or row[3] in names) and low <= row[1] < high), limit)

    def read_back(self, before: int, *, after: int = 0, limit: int = PAGE_ROWS) -> Page:
        """See `LogRecorder`."""
        self._learn()
        return take_page(self._rows(range(min(before - 1, self._learned_until), after, -1)), limit)

    def _places_of(self, key: str) -> _Places:
        self._learn()
        return self._places.get(key, _NOWHERE)

    def read_entity(self, key: str, *, after_version: int = 0, until_position: int | None = None, limit: int = PAGE_ROWS) -> Page:
        """See `LogRecorder`."""
        positions = self._places_of(key).between(after_version, None, until_position)
        return take_page(self._rows(list(islice(positions, limit))), limit)

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
        positions = self._places_of(key).between(after_version, before_version, until_position, newest_first=True)
        return take_page(self._rows(list(islice(positions, limit))), limit)

    def last_row(self, key: str) -> Row | None:
        """See `LogRecorder`."""
        places = self._places_of(key)
        return next(self._rows([places.last_position()])) if places.last_version() else None

    def last_rows(self, entity_type: str, after_key: str = "", limit: int = PAGE_ROWS) -> Page:
        """See `LogRecorder`."""
        self._learn()
        keys = sorted(key for key in self._places if key.startswith(f"{entity_type}:") and key > after_key)
        return take_page((row for key in keys if (row := self.last_row(key)) is not None), limit)

    def entity_types(self) -> list[str]:
        """See `LogRecorder`."""
        self._learn()
        return sorted({key.partition(":")[0] for key in self._places})

    def version_at(self, key: str, position: int) -> int:
        """See `LogRecorder`."""
        return self._places_of(key).version_at(position)

    def entity_version(self, key: str) -> int:
        """See `LogRecorder`."""
        return self._places_of(key).last_version()

    def _known_version(self, key: str) -> int:
        return self._versions.get(key) or self.entity_version(key)

    def head(self) -> int:
        """See `LogRecorder`. Where the last events are missing, it is the last position that was given out."""
        if self._store.writer is not None and self._head:
            return self._head
        with self._raw() as raw:
            return max(number or 0 for number in raw.ends())

    def weight(self, after: int, until: int | None = None) -> int:
        """See `LogRecorder`; 0 where damage is in the way."""
        try:
            return super().weight(after, until)
        except DamagedEventError:
            return 0

    def verify_pages(self) -> None:
        """See `SQLiteLogReader`: what is wrong with the file is told, and no error."""
        with self._raw() as raw:
            for answer in raw.integrity():
                logger.warning("damage_in_the_file", path=str(self.path), found=answer)


def _take(item: Row | Unreadable, good: dict[int, Row], bad: dict[int, _Bad]) -> None:
    if isinstance(item, Unreadable):
        bad[item.position] = _Bad(f"SQLite cannot read it ({item.why})", None)
        return
    try:
        check_row(item)
    except DamagedEventError as error:
        bad[item[0]] = _Bad(error.why, (item[1], item[2]))
    else:
        good[item[0]] = item
