"""A log whose damaged events are read as events that say nothing: each damages its entity, as one that does not fit does, and nobody else.

What stands in the place of a damaged event is made here: a row whose check value holds, and whose body says why it cannot be read. So every
reader above takes it for what it is, without knowing of this module. The log's file stays as it is. The index is not relied on: the whole
log is read once when it is opened, and what an entity has been through is kept in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import NamedTuple

from symphony_es.diagnostics import get_logger
from symphony_es.errors import DamagedEventError, InvalidIdentifierError
from symphony_es.events.identifiers import split_key
from symphony_es.events.rows import Row, check_row, substitute_row, time_of
from symphony_es.log.sqlite import SQLiteLogRecorder
from symphony_es.log.sqlite_raw import RawLog, Unreadable

__all__ = ["UNKNOWN_TYPE", "SkippingLogRecorder"]

UNKNOWN_TYPE = "symphony.Damaged"
"""Type of the entity that stands for a position of which nobody can tell whose event was there."""
PAGE = 1000
logger = get_logger(__name__)


class _Bad(NamedTuple):
    """A position whose event cannot be read."""

    why: str
    claimed: tuple[str, int] | None


class SkippingLogRecorder(SQLiteLogRecorder):
    """See the module; the arguments are those of `SQLiteLogRecorder`."""

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
            self._places: dict[str, dict[int, int]] = {}  # positions by key and version
        with self._guard:
            head = self.head()
            if head <= self._learned_until:
                return
            with self._raw() as raw:
                while self._learned_until < head:
                    until = min(self._learned_until + PAGE, head)
                    good, bad = self._fetch(raw, self._learned_until, until)
                    entries = raw.entries_of(bad.keys()) if bad else {}
                    for position in range(self._learned_until + 1, until + 1):
                        row = good.get(position) or self._substitute(position, bad[position], entries.get(position))
                        self._places.setdefault(row[1], {}).setdefault(row[2], position)
                        self._last_time_ns = time_of(row[4])
                    self._learned_until = until

    def _raw(self) -> RawLog:
        return RawLog(self.path, immutable=self._store.immutable)

    @staticmethod
    def _fetch(raw: RawLog, after: int, until: int) -> tuple[dict[int, Row], dict[int, _Bad]]:
        """The rows above a position up to another: those that check, and what is wrong with the others."""
        good: dict[int, Row] = {}
        bad: dict[int, _Bad] = {}
        for item in [*raw.page(after, until, until - after)[0]]:
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
        return {position: good[position] for position in range(after + 1, until + 1) if position in good}, bad

    def _substitute(self, position: int, bad: _Bad, entry: tuple[str, int] | None) -> Row:
        key, version = self._owner(entry) or self._owner(bad.claimed) or (f"{UNKNOWN_TYPE}:{position}", 1)
        self._unknown += key.startswith(UNKNOWN_TYPE)
        made = self._substitutes[position] = substitute_row(position, key, version, self._last_time_ns, bad.why)
        logger.warning("damaged_event_skipped", position=position, entity=key, version=version, why=bad.why)
        return made

    def _owner(self, claimed: tuple[str, int] | None) -> tuple[str, int] | None:
        """Whose event a damaged one is, by what the index or the row itself says; None where that cannot be.

        Its version is the next one of that entity; where events came before of which nobody knows whose they were, they may be between.
        """
        if claimed is None or type(claimed[0]) is not str or type(claimed[1]) is not int:
            return None
        try:
            split_key(claimed[0])
        except InvalidIdentifierError:
            return None
        before = max(self._places.get(claimed[0], {0: 0}))
        return claimed if before < claimed[1] <= before + 1 + self._unknown else None

    # -- reading ------------------------------------------------------------------------------------------------------

    def _rows(self, positions: Collection[int]) -> list[Row]:
        """The rows at positions, in that order."""
        found: dict[int, Row] = {}
        with self._raw() as raw:
            wanted = [position for position in positions if position not in self._substitutes]
            if wanted and max(wanted) - min(wanted) < 2 * len(wanted):
                found, _ = self._fetch(raw, min(wanted) - 1, max(wanted))
            else:
                for position in wanted:
                    found |= self._fetch(raw, position - 1, position)[0]
        try:
            return [self._substitutes.get(position) or found[position] for position in positions]
        except KeyError as error:
            raise DamagedEventError(error.args[0], None, "it was whole when the log was opened, and cannot be read any more") from error

    def read(
        self,
        after: int,
        *,
        until: int | None = None,
        limit: int = 1000,
        names: Sequence[str] = (),
        key_range: tuple[str, str] | None = None,
    ) -> list[Row]:
        """See `LogRecorder`."""
        self._learn()
        until = self._learned_until if until is None else min(until, self._learned_until)
        found: list[Row] = []
        while after < until and len(found) < limit:
            last = min(after + PAGE, until)
            rows = self._rows(range(after + 1, last + 1))
            found += [
                row for row in rows if (not names or row[3] in names) and (key_range is None or key_range[0] <= row[1] < key_range[1])
            ]
            after = last
        return found[:limit]

    def read_entity(self, key: str, *, after_version: int = 0, until_position: int | None = None, limit: int = 1000) -> list[Row]:
        """See `LogRecorder`."""
        self._learn()
        places = sorted(self._places.get(key, {}).items())
        wanted = [
            position for version, position in places if version > after_version and (until_position is None or position <= until_position)
        ]
        return self._rows(wanted[:limit])

    def last_row(self, key: str) -> Row | None:
        """See `LogRecorder`."""
        version = self.entity_version(key)
        return self._rows([self._places[key][version]])[0] if version else None

    def last_rows(self, entity_type: str) -> list[Row]:
        """See `LogRecorder`."""
        self._learn()
        keys = sorted(key for key in self._places if key.startswith(f"{entity_type}:"))
        return [row for key in keys if (row := self.last_row(key)) is not None]

    def entity_types(self) -> list[str]:
        """See `LogRecorder`."""
        self._learn()
        return sorted({key.partition(":")[0] for key in self._places})

    def entity_version(self, key: str) -> int:
        """See `LogRecorder`."""
        self._learn()
        return max(self._places.get(key, {0: 0}))

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
