"""Whether a log is what it was: every event is read and checked, and what is wrong is listed by position.

Nothing is written, another process may go on writing the log, and a bad event does not hide the ones behind it. Checked are, of every
event, its check value, its content, that its position and version are the next ones, that its time is not before the last one's, that
its transaction is its own or the one going on, and that its changes fit its entity; of every snapshot, that the log has its event, that
its file is whole, and that its states are what the events come to; of every read model, that its pages are what was written there, and
that it is of the log's past; of the log's file, what SQLite finds, the schema, the identity, and that the positions given out are those
there are.

There are two kinds of damage (docs/backup.md): bytes that are not what was written, and events that are, and do not fit their entity. The
latter harm that entity alone, and only until it is repaired: what has been repaired since is no problem of the log.

Who rewrites the log together with all check values, versions, times and snapshots is not found out by this: docs/backup.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import field, replace
from pathlib import Path
from uuid import UUID

from symphony_es.core.past.snapshots.store import SnapshotInfo, SnapshotStore
from symphony_es.core.past.snapshots.writing import is_left_out
from symphony_es.errors import (
    FOREIGN_PREFIX,
    ConfigurationError,
    DamagedEventError,
    LogDamagedError,
    LogUnavailableError,
    SnapshotDamagedError,
    repair_call,
)
from symphony_es.events.event import Event
from symphony_es.events.fold import REPAIR_EVENT, Damage, EntityState, Fold
from symphony_es.events.identifiers import text_id
from symphony_es.events.rows import Row, commitment, decode_row
from symphony_es.events.values import plain_equal
from symphony_es.late_dataclasses import dataclass
from symphony_es.log.directory import check_readable
from symphony_es.log.head_note import HEAD_NAME, noted_head
from symphony_es.log.log import DATABASE_NAME, EventLog
from symphony_es.log.pages import PAGE_ROWS
from symphony_es.log.sqlite_connections import is_damage
from symphony_es.log.sqlite_raw import RawLog, Unreadable, check_origin, lost_commits
from symphony_es.shown import quoted
from symphony_es.system import given_path, present
from symphony_es.transfer.progress import OnProgress, Progress, Stop, in_thread
from symphony_es.transfer.snapshot_files import distrust_damaged

__all__ = ["Problem", "VerifyReport", "verify", "verify_log"]

PAGE = PAGE_ROWS
MAX_PROBLEMS = 1000  # listed ones: a log whose every event is bad must not fill the memory with saying so
_SKIP = "or without it: setup(skip_damaged=True)"
_BACKUP = "restore a backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is wrong with a log.

    Attributes:
        position: where; None where it is no event in particular.
        entity: key of the entity, as far as it can be trusted; None where it is none in particular.
        what: what is wrong.
        way_out: what to do.
        version: version of the event; None where it is no event in particular, or its version cannot be trusted.
    """

    position: int | None
    entity: str | None
    what: str
    way_out: str
    version: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What a verification has found.

    Attributes:
        events: how many events were read and are good.
        head: the last position that was looked at.
        problems: in the order of their positions, those of no position last; at most 1,000.
        problem_count: how many there are, listed or not.
        snapshots: how many snapshots are good: of an event of the log, and whole.
        damaged: entities that an event does not fit, and that have not been repaired since, by key; each is a problem.
        repaired: those that have been repaired since, by key, with the last damage of each.
        damaged_snapshots: files of snapshots that cannot be trusted, as (name, why). They are no problems: the log rebuilds them.
        read_models: how many read models beside the log are what was written, and of the log's past.
        damaged_read_models: those that are not, as (name, why). They are no problems: the log answers until they are built anew.
        duration_s: how long it took, in seconds.
    """

    events: int
    head: int
    problems: tuple[Problem, ...]
    problem_count: int
    snapshots: int
    damaged_snapshots: tuple[tuple[str, str], ...]
    duration_s: float
    damaged: Mapping[str, Damage] = field(default_factory=dict)
    repaired: Mapping[str, Damage] = field(default_factory=dict)
    read_models: int = 0
    damaged_read_models: tuple[tuple[str, str], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong with the log."""
        return not self.problem_count

    @property
    def whole(self) -> bool:
        """Whether every byte is what was written: nothing is wrong but entities that are damaged, if any."""
        return self.problem_count == len(self.damaged)

    @property
    def first_bad_position(self) -> int | None:
        """The lowest position that something is wrong with; None where nothing is, or no position can be told."""
        return next((problem.position for problem in self.problems if problem.position is not None), None)


async def verify(
    directory: Path | str, *, fold: bool = True, on_progress: OnProgress | None = None, allow_shared_directory: bool = False
) -> VerifyReport:
    """Verify the log in a state directory, also while another process writes it.

    Memory holds all states; without `fold` one number per entity.

    Args:
        fold: apply every event, and compare the states with what each snapshot holds. Without it, which spares some
            memory and about a tenth of the time, an event that does not fit its entity is not found.
        on_progress: called with how many positions are done, and how many there are; ten times a second at most, in a worker thread.
        allow_shared_directory: look at a log that others than its owner could change.

    Raises:
        LogUnavailableError: there is no log, it cannot be read, or others could change it. (Damage is no error: it is in the report.)
    """
    path = given_path(directory, "directory")
    await in_thread(lambda _: check_readable(path, allow_shared=allow_shared_directory))
    snapshots = await SnapshotStore(path / "snapshots", read_only=True).open()
    report = await in_thread(lambda stop: _verify(path / DATABASE_NAME, snapshots, fold, stop, on_progress))
    if not present(path / "projections"):
        return report
    try:
        log = await EventLog.open_read_only(path, allow_shared=allow_shared_directory)
    except (LogDamagedError, LogUnavailableError, DamagedEventError):  # that is in the report
        return await _with_read_models(report, path, None)
    try:
        return await _with_read_models(report, path, log)
    finally:
        await log.close()


async def verify_log(
    log: EventLog, snapshots: SnapshotStore | None, *, fold: bool = True, on_progress: OnProgress | None = None
) -> VerifyReport:
    """Return `verify` for a log that is open in this process.

    Raises:
        ConfigurationError: the log is in memory, where nothing can be damaged.
        LogUnavailableError: it cannot be read.
    """
    path = log.path
    if path is None:
        raise ConfigurationError("only a log on disk can be verified")
    if snapshots is not None:
        await asyncio.to_thread(snapshots.list)
    report = await in_thread(lambda stop: _verify(path, snapshots, fold, stop, on_progress))
    return await _with_read_models(report, path.parent, log)


async def _with_read_models(report: VerifyReport, directory: Path, log: EventLog | None) -> VerifyReport:
    """Return the report, with what every page of the read models says."""
    from symphony_es_projections.doubts import read_models  # late: most logs have none

    found = await read_models(directory / "projections", log, whole=True)
    damaged = tuple((name, why) for name, why in found.items() if why is not None)
    return replace(report, read_models=len(found) - len(damaged), damaged_read_models=damaged)


def _verify(path: Path, snapshots: SnapshotStore | None, fold: bool, stop: Stop, on_progress: OnProgress | None) -> VerifyReport:
    began = time.monotonic()
    # The list comes first: a snapshot is of events that were durable before it, so one beyond a head that is read later has lost them.
    infos = snapshots.list() if snapshots is not None else []
    check = _Check(infos, snapshots if fold else None, fold)
    try:
        with RawLog(path) as log:
            _check_file(log, check, stop, on_progress)
    except (LogDamagedError, LogUnavailableError) as error:
        if isinstance(error, LogUnavailableError) and not (isinstance(error.__cause__, Exception) and is_damage(error.__cause__)):
            raise
        check.report(None, None, str(error), _BACKUP)
    if snapshots is not None:
        distrust_damaged(snapshots, infos, stop)
    found = snapshots.damaged if snapshots is not None else ()
    damaged = tuple((name, why) for name, why in found if snapshots is not None and present(snapshots.directory / name))
    return VerifyReport(
        events=check.good,
        head=check.head,
        problems=check.sorted_problems(),
        problem_count=check.count,
        snapshots=len(check.compared.difference(name for name, _ in found)),
        damaged_snapshots=damaged,
        duration_s=time.monotonic() - began,
        damaged=check.damaged,
        repaired=check.repaired,
    )


def _check_file(log: RawLog, check: _Check, stop: Stop, on_progress: OnProgress | None) -> None:
    noted = 0  # before the head is read: a writer notes what is durable
    try:
        log.check_schema()
        log_id = log.setting("log_id")
        _check_identity(log_id, check)
        noted = _noted(log.path, log_id)
        with suppress(ValueError, AttributeError, TypeError):  # one that is no identity has been reported
            check_origin(log.path, UUID(log_id) if log_id else None)
    except LogDamagedError as error:
        check.report(None, None, str(error), _BACKUP)
    if not log.has_events_table():
        check.report(None, None, "the table of events cannot be read", _BACKUP)
        return
    last, issued = log.ends()
    head = last if last is not None else issued
    if head is None:
        check.report(None, None, "the newest position cannot be read", _BACKUP)
    progress = Progress(on_progress, head or 0)
    at = 0
    while at < (head or 0):
        stop.look()
        found, at = log.page(at, head or 0, PAGE)
        for item in found:
            check.take(item)
        progress.tell(at)
    check.end(head or 0, issued, noted)
    if lost_commits(log.path):
        what = f"the write-ahead file holds acknowledged commits after position {check.head} that are damaged"
        check.report(check.head + 1, None, what, f"{_BACKUP}, or open with ignore_anchor=True to go on with what is before the damage")
    for answer in log.integrity():
        check.report(None, None, f"SQLite found damage in its file: {answer}", _BACKUP)
    progress.end()


def _noted(path: Path, log_id: str | None) -> int:
    """Return how far the log was acknowledged, as the note beside it tells; 0 where it tells nothing."""
    try:
        return noted_head(path.with_name(HEAD_NAME), UUID(log_id).bytes if log_id else bytes(16))[1]
    except ValueError:
        return 0


def _check_identity(log_id: str | None, check: _Check) -> None:
    try:
        if log_id != "":  # one that was made without
            UUID(log_id)
    except (ValueError, AttributeError, TypeError):
        check.report(None, None, f"the identity of the log is missing or altered: {quoted(log_id, 80)}", _BACKUP)


class _Check:
    """Takes the rows of a log in order, and notes what is wrong."""

    def __init__(self, infos: Sequence[SnapshotInfo], store: SnapshotStore | None, fold: bool) -> None:
        self.problems: list[Problem] = []
        self.count = self.good = self.head = 0
        self.compared: set[str] = set()
        self._versions: dict[str, int] = {}
        self._time_ns = 0
        self._transaction: bytes | None = b""
        self._anchors: dict[int, SnapshotInfo] = {info.position: info for info in infos}
        self._store = store
        self._fold = Fold() if fold else None
        self._unfolded: set[str] = set()
        self.damaged: dict[str, Damage] = {}
        self.repaired: dict[str, Damage] = {}
        self._repairs: dict[tuple[str, object], str] = {}

    def report(self, position: int | None, entity: str | None, what: str, way_out: str, version: int | None = None) -> None:
        """Note a problem."""
        self.count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(position=position, entity=entity, what=what, way_out=way_out, version=version))

    def sorted_problems(self) -> tuple[Problem, ...]:
        """Return the problems in the order of their positions."""
        return tuple(sorted(map(self._with_repair, self.problems), key=lambda problem: (problem.position is None, problem.position or 0)))

    def _with_repair(self, problem: Problem) -> Problem:
        """Return a damaged event whose entity has been repaired since stays a problem of the file, and nothing else is left to do but a
        fork.
        """
        done = self._repairs.get((problem.entity or "", problem.position))
        if done is None:
            return problem
        return replace(problem, way_out=f"{done}: openings go on behind it; a fork at the head leaves it behind, and can be backed up")

    def take(self, item: Row | Unreadable) -> None:
        """Take the next row."""
        position = item[0]
        if position != self.head + 1:
            self._missing(self.head + 1, position - 1)
        self.head = position
        anchor = self._anchors.pop(position, None)
        if isinstance(item, Unreadable):
            self._bad(position, None, f"SQLite cannot read it ({item.why})")
            return
        try:
            event = decode_row(item)
        except DamagedEventError as error:
            if type(item[1]) is str and type(item[2]) is int:
                self._versions[item[1]] = item[2]  # so that one damaged event is one problem, not one at each event behind it
            self._bad(position, item[1] if type(item[1]) is str else None, error.why)
            return
        faults = self._faults(event)
        if event.name == REPAIR_EVENT and event.entity_key in self._unfolded:
            self._note_repair(event)
        if anchor is not None:
            faults += _faults_of_anchor(item, event, anchor)
        if self._fold is not None:
            faults += self._faults_of_fold(self._fold, event, anchor)
        if anchor is not None and not faults:
            self.compared.add(anchor.name)
        if faults:
            self._bad(position, event.entity_key, "; ".join(faults), known=True)
        else:
            self.good += 1

    def _note_repair(self, event: Event) -> None:
        """Note which damage an event has repaired: its data say where that was."""
        position = (event.data or {}).get("position")
        who = f" by {quoted(event.metadata.actor, 80)}" if event.metadata.actor else ""
        self._repairs[event.entity_key, position] = f"the entity was repaired at position {event.position}{who}"

    def _faults(self, event: Event) -> list[str]:
        """Return what is wrong with an event that is whole in itself, after those before it."""
        faults = []
        due = self._versions.get(event.entity_key, 0) + 1
        self._versions[event.entity_key] = event.version
        if event.version != due and not self._is_folded(event.entity_key):
            faults.append(f"it has version {event.version} where {due} is due")
        if event.fault is not None and not self._is_folded(event.entity_key):
            faults.append(event.fault)
        if event.time_ns < self._time_ns:
            faults.append(f"it is {(self._time_ns - event.time_ns) / 1e9:.9f} s earlier than the event before it")
        self._time_ns = event.time_ns
        if event.transaction_id not in (event.event_id, self._transaction) and self._transaction is not None:
            faults.append(f"its transaction {text_id(event.transaction_id)} is not that of the event before it, and does not begin with it")
        self._transaction = event.transaction_id
        return faults

    def _faults_of_fold(self, fold: Fold, event: Event, anchor: SnapshotInfo | None) -> list[str]:
        key = event.entity_key
        faults = []
        if key not in self._unfolded:
            fold.apply_event(event)
            damage = fold.states[key].damage
            if damage is not None:
                self.damaged[key] = damage
            elif self.damaged and key in self.damaged:
                self.repaired[key] = self.damaged.pop(key)
        if anchor is not None and self._store is not None and not self._unfolded:
            faults += _faults_of_snapshot(fold.states, anchor, self._store)
        return faults

    def _is_folded(self, key: str) -> bool:
        """Return whether the fold says what does not fit an entity: it is told at the end, when it has not been repaired."""
        return self._fold is not None and key not in self._unfolded

    def _bad(self, position: int, entity: str | None, what: str, *, known: bool = False) -> None:
        if not known:
            self._transaction = None  # whether the next one belongs to it, nobody can tell
            if entity is not None:
                self._unfolded.add(entity)
        way_out = f"{_BACKUP}, or go on with what is before it: at or fork at position {position - 1}; {_SKIP}"
        self.report(position, entity, what, repair_call(entity) if entity is not None and entity.startswith(FOREIGN_PREFIX) else way_out)

    def _missing(self, first: int, last: int) -> None:
        events = f"the event at position {first} is" if first == last else f"the events at positions {first} to {last} are"
        for position in [position for position in self._anchors if first <= position <= last]:
            del self._anchors[position]
        self._transaction = None
        way_out = f"{_BACKUP}, or go on with what is before: at or fork at position {first - 1}; {_SKIP}"
        self.report(first, None, f"{events} missing", way_out)

    def end(self, head: int, issued: int | None, noted: int) -> None:
        """Say what is damaged, after the last row, and compare the end with what else is known of it."""
        for key, damage in self.damaged.items():
            self.good -= 1
            self.report(damage.position, key, f"the entity is {damage}", repair_call(key), damage.version)
        if self.head < head:
            self._missing(self.head + 1, head)
            self.head = head
        if issued is not None and issued < head:
            self.report(
                None, None, f"the log ends at position {head}, and only {issued} have been given out: the file was altered", _BACKUP
            )
        beyond = [position for position in self._anchors if position > head]
        lost = max([issued or 0, noted, *beyond])
        if lost <= head:
            return
        known_from = [f"a snapshot is of position {max(beyond)}"] if beyond else []
        if (issued or 0) > head:
            known_from.append(f"position {issued} has been given out")
        if noted > head:
            known_from.append(f"it was acknowledged up to position {noted}")
        what = f"the log ends at position {head}, and {' and '.join(known_from)}: the newest events are missing"
        way_out = f"{_BACKUP}, or open with ignore_anchor=True to go on with what is there" if beyond or noted > head else _BACKUP
        self.report(head + 1, None, what, way_out)


def _faults_of_anchor(row: Row, event: Event, info: SnapshotInfo) -> list[str]:
    same = (event.event_id, commitment(row[4]), event.time_ns) == (info.event_id, info.commitment, info.time_ns)
    return [] if same else [f"it is not the event that the snapshot {info.name} was taken at"]


def _faults_of_snapshot(states: dict[str, EntityState], info: SnapshotInfo, store: SnapshotStore) -> list[str]:
    """Return whether a snapshot holds what the fold comes to; one that cannot be read is a damaged snapshot, no fault of the log."""
    try:
        kept = store.read_all(info)
    except SnapshotDamagedError as error:
        store.distrust(info, error.why)
        return []
    for key in sorted(states.keys() | kept.keys()):
        one, other = states.get(key), kept.get(key)
        if other is None and one is not None and is_left_out(one):
            continue
        if one is None or other is None or _told(one) != _told(other) or not plain_equal(one.data, other.data):
            return [f"the snapshot {info.name} holds another state of {key} than the events come to"]
    return []


def _told(state: EntityState) -> tuple[int, int, int, int, Damage | None]:
    return state.version, state.position, state.state_version, state.generation, state.damage
