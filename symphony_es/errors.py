"""Every error that symphony_es raises on purpose, in one tree.

A class stands for a reaction of the caller, not for a place in the code. Each also derives from the builtin that a caller
would expect, carries ids and positions as attributes, and says in its message what to do. Unless a docstring says
otherwise, nothing has been appended to the log when one of these is raised.

```
SymphonyError
├── ConfigurationError (ValueError)             a call's arguments contradict each other or make no sense
│   └── AmbiguousMomentError                    a text that means a checkpoint of this log and a position, a time or another one
├── GuessedNameError (AttributeError)           a call of other libraries': which one it is here
├── PersistenceDisabledError (RuntimeError)     the call needs persistence_enabled=True
├── NotReadyError (RuntimeError)                setup() has not been awaited, or close() has been
│   ├── ReadOnlyError                           the Symphony or log is open for reading only
│   └── ForkedProcessError                      opened before a fork: it is the parent's, the child opens its own
├── InvalidIdentifierError (ValueError)         a type, id, key or event name that cannot be stored
├── UnstorableValueError (TypeError)            a value that is no plain data: entity, path, what to do
├── LimitExceededError (ValueError)             too deep, too large, too many
├── ChangeError (ValueError)                    a change does not fit the state it is applied to
├── DecodeError (ValueError)                    stored bytes that do not follow format 1
│   └── DamagedEventError                       an event whose check value, types or order are wrong
├── LogError
│   ├── ConcurrencyError                        another writer was first: fold anew, decide anew
│   ├── LogInUseError (BlockingIOError)         another process writes this log, or another Symphony of this one
│   ├── CloseTimeoutError (TimeoutError)        close() took too long: which changes are not known to be durable
│   ├── LogDamagedError                         the log lost acknowledged events, or is not the log it was
│   │   └── AnchorMismatchError                 the log is shorter than its snapshot, or differs there
│   ├── LogUnavailableError (OSError)           disk full, read-only, I/O error, unsafe file system
│   │   └── LogFormatError                      another version of the library has written it
│   ├── PositionNotFoundError (LookupError)     before the kept history, or after the head
│   └── PositionInsideTransactionError (ValueError)
├── StorageError
│   ├── StorageUnavailableError (OSError)       disk full, read-only, I/O error
│   └── SnapshotDamagedError (ValueError)       a snapshot file that cannot be trusted; the log rebuilds it
├── EntityError
│   ├── EntityTypeError (TypeError)             a class that cannot be an entity, part or value, or a type declared twice
│   ├── EntityNotFoundError (LookupError)
│   │   ├── RunPrunedError (EntityExistsError)  the run was pruned: its history stays readable, and its id is not free
│   │   └── UnknownTypeError                    no class, restorer or event knows the type: near misses are named
│   ├── UnknownPathError (LookupError)          nothing has ever stood there: near misses are named
│   ├── EntityExistsError (ValueError)
│   │   └── RunExistsError                      a run has the id, and was started with another input
│   ├── EntityOwnershipError (ValueError)       the object belongs to another Symphony, or to none
│   ├── EntityBusyError (RuntimeError)          claimed by a transaction, or a resume or close is under way
│   ├── EntityOutOfStepError (RuntimeError)     its last changes are not in the log: refresh() it
│   ├── EntityDamagedError (RuntimeError)       an event in the log does not fit it: entities.repair() it
│   ├── DetachedEntityError (RuntimeError)      removed, of a world that a resume has replaced, or of the past
│   ├── DetachedPartError (RuntimeError)        the entity holds something else where this part or container stood
│   ├── UnrecordedChangeError (RuntimeError)    a container was changed past its methods (heapq): assign it, x.items = heap
│   └── TransactionEndedError (RuntimeError)
├── RestorationError
│   ├── UnknownValueError (LookupError)         a stored value of a class that is not known here, or has changed too far
│   ├── RestorerConflictError (ValueError)      two explicit restorers for one type
│   ├── UnresolvedReferenceError (LookupError)  strict=True and a target is missing
│   ├── NotTakenBackError (RuntimeError)        an atomic step has failed, and others have its objects too: put them right, retry the run
│   └── RunsInProgressError (RuntimeError)      stop the runs first, or pass stop_runs=True
├── CheckpointError
│   └── CheckpointNotFoundError (LookupError)
├── TransferError
│   ├── TargetOccupiedError (FileExistsError)   an export, import, backup, restore or fork would go where something is already
│   ├── ExportDamagedError (ValueError)         a file to import that is cut off, altered or of another format
│   └── BackupDamagedError (ValueError)         a backup that does not verify: `report` says where
├── ProjectionError
│   ├── ProjectionFailedError (RuntimeError)    a projection cannot go on: name, position, why, what to do
│   └── ProjectionUnavailableError (LookupError) there is no projection of this name, or it has not been built
└── WorkflowError
    ├── DefinitionError (ValueError)            a definition that cannot be run, with the path of the fault
    ├── ExpressionError (ValueError)            an expression that cannot be read or evaluated, with the place of the fault
    │   └── TemplateError                       the same of an expression inside a template
    ├── DefinitionChangedError (ValueError)     a run's history contradicts the definition it is to go on with
    ├── StepFailedError                         a step of a code-first workflow failed for good
    ├── HistoryMismatchError (RuntimeError)     the code of a workflow contradicts what is on record of its run
    ├── CallNotAwaitedError (ConfigurationError) a code-first function has ended without awaiting a call that it made
    ├── StepTimeoutError (TimeoutError)         an attempt at a step took longer than its timeout_s
    ├── ThreadsExhaustedError (RuntimeError)    plain functions that do not return hold all threads
    ├── ResultTimeoutError (TimeoutError)       a run did not end while a caller waited; it goes on
    ├── SignalTimeoutError (TimeoutError)       a signal did not come in time
    ├── DeadlineExceededError (TimeoutError)    a run did not end before its deadline
    ├── HookFailedError                         a hook failed that declares to stop the run
    ├── RunFailedError                          a run failed: type, message and step of its error
    ├── RunCancelledError                       a run was cancelled
    ├── RunBlockedError (RuntimeError)          a run whose record contradicts the code of this process
    ├── RunsLeftAloneError (RuntimeError)       recover(strict=True): runs that this process cannot go on with
    ├── CleanupUnfinishedError (RuntimeError)   a run ended without all of its clean-up: resume goes on with it
    ├── IllegalTransitionError (ValueError)     a run's or task's status does not allow the request
    ├── NotRegisteredError (LookupError)        a model client, function, tool or service nobody registered
    ├── RequestPendingError (LookupError)       a request to the owner of a log that nobody has answered: it stays
    ├── RequestRefusedError (RuntimeError)      a request that the owner of a log has not carried out, and why
    ├── DrainingError (RuntimeError)            this process is being drained and starts no run any more
    ├── DeadlockError (RuntimeError)            a step waits for a run that cannot end before it: the circle is named
    └── RunInterruptedError (RuntimeError)      the run was stopped before its end and can be resumed
```
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Self

from symphony_es.shown import message, quoted, shown

MOST_PLAIN_BITS = 2000
"""A longer whole number in a path is written in hexadecimal: Python may refuse so many digits."""
MADE_AND_SHOWN = 10
"""So many calls that were never awaited are listed in an error."""


class SymphonyError(Exception):
    """The root of all errors that this library raises on purpose. They can be pickled, so that pools of processes hand them on.

    Whatever names and texts a message is made of, it is cut where it is long, and has no control characters (`shown.message`); the
    attributes hold them as they are.
    """

    _lines = False
    """Whether the message has several lines: a report, or the message of an error of the application."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*[message(each, lines=self._lines) if isinstance(each, str) else each for each in arguments])

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, dict(self.__dict__))


def _again(cls: type[SymphonyError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> SymphonyError:
    """Return an error as it was in another process, without its constructor, whose arguments are others than the message."""
    error = cls.__new__(cls, *arguments)
    error.args = arguments
    error.__dict__.update(attributes)
    return error


class ConfigurationError(SymphonyError, ValueError):
    """Arguments that contradict each other or make no sense."""


class AmbiguousMomentError(ConfigurationError):
    """A text means several moments of a log, as a checkpoint there has a name that is a number or a time; nothing has been done.

    Attributes:
        moment: the text.
        readings: what it can mean, by the text that means this alone.
    """

    def __init__(self, moment: str, readings: Mapping[str, str]) -> None:
        told = ", ".join(f"{shown(text)} is {what}" for text, what in readings.items())
        super().__init__(f"{shown(moment)} has more than one meaning here: {told}. Write the one that you mean")
        self.moment = moment
        self.readings = dict(readings)


class GuessedNameError(SymphonyError, AttributeError):
    """A call that other libraries have is called otherwise here.

    Attributes:
        name: what was asked for.
        advice: what to write.
    """

    def __init__(self, owner: str, name: str, advice: str) -> None:
        super().__init__(f"{owner} has no {quoted(name)}: use {advice}")
        self.name = name
        self.advice = advice


class PersistenceDisabledError(SymphonyError, RuntimeError):
    """The call needs a log on disk, and this Symphony was made without one."""

    def __init__(self, operation: str) -> None:
        super().__init__(
            f"{operation} needs persistence: create the Symphony with Symphony(persistence_enabled=True) and await setup(state_dir=...)"
        )
        self.operation = operation


class NotReadyError(SymphonyError, RuntimeError):
    """setup() has not been awaited yet, or close() has been."""


class ReadOnlyError(NotReadyError):
    """A call would change what is open for reading only. Nothing has been changed, in memory or in the log."""


class ForkedProcessError(NotReadyError):
    """What was opened before a fork is used in the child. Nothing has happened; the parent goes on with it.

    Attributes:
        opened_by: the process that has it open.
    """

    def __init__(self, opened_by: int) -> None:
        super().__init__(
            f"this Symphony was opened by process {opened_by}, and this is a child of it: open one of your own in this process, "
            "with read_only=True where the parent goes on writing the same directory"
        )
        self.opened_by = opened_by


class InvalidIdentifierError(SymphonyError, ValueError):
    """A type, id, key or name that cannot be stored; `identifier` holds it as given."""

    def __init__(self, kind: str, identifier: object, why: str) -> None:
        super().__init__(f"{shown(identifier, 80)} is not a valid {kind}: {why}")
        self.kind = kind
        self.identifier = identifier


class UnstorableValueError(SymphonyError, TypeError):
    """A value that is no plain data.

    Attributes:
        entity: key of the entity (`Type:id`), or None where it is not known yet.
        path: where in the state the value stands.
        why: what is wrong with it and what to do.
    """

    def __init__(self, path: Sequence[Any], why: str, entity: str | None = None) -> None:
        self.path = tuple(path)
        self.why = why
        self.entity = entity
        super().__init__(path, why, entity)

    def __str__(self) -> str:
        where = format_path(self.path) or "the whole state"
        owner = f"{self.entity}: " if self.entity else ""
        return message(f"{owner}the value at {where} cannot be stored: {self.why}")

    def within(self, entity: str | None, prefix: Sequence[Any] = ()) -> UnstorableValueError:
        """Return the same error with the entity named and the path prefixed."""
        return type(self)((*prefix, *self.path), self.why, self.entity or entity)


class LimitExceededError(SymphonyError, ValueError):
    """Something is deeper, larger or more than its limit."""


class ChangeError(SymphonyError, ValueError):
    """A change does not fit the state it is applied to; the state must not be used any more."""


class DecodeError(SymphonyError, ValueError):
    """Stored bytes that do not follow the format they claim."""


FOREIGN_PREFIX = "eventsourcing."
"""What the types of foreign entities begin with, which have events and no state."""
FOREIGN_WAYS_OUT = (
    "restore a backup, or go on in a fork of the log, `symphony-es fork DIRECTORY --skip-damaged`, "
    "which takes along the events before that, and those of all others"
)
_DOCTOR = "`symphony-es doctor` says what is damaged"
WAYS_OUT = f"{_DOCTOR}; restore a backup, or go on without it with setup(skip_damaged=True), which marks the entities concerned"


class DamagedEventError(DecodeError):
    """An event whose check value, column types or place in the log is wrong. Nothing of it is handed out."""

    def __init__(self, position: object, entity: object, why: str) -> None:
        foreign = isinstance(entity, str) and entity.startswith(FOREIGN_PREFIX)
        ways_out = f"{_DOCTOR}; {FOREIGN_WAYS_OUT}, or go on without it with setup(skip_damaged=True)" if foreign else WAYS_OUT
        super().__init__(
            f"the event at position {quoted(position)} (entity {quoted(entity)}) is damaged: {why}; {ways_out}, "
            "or read up to the position before it"
        )
        self.position = position
        self.entity = entity
        self.why = why


class LogError(SymphonyError):
    """The log could not do what was asked."""


class ConcurrencyError(LogError):
    """Another writer changed the entity first: fold anew and decide anew, never append the same again.

    Nothing of the request that raised it has been appended; other requests of the same commit are not affected.
    """

    def __init__(self, entity: str, expected: int, actual: int) -> None:
        super().__init__(f"{entity}: expected version {expected}, the log has {actual}; refresh the entity and decide anew")
        self.entity = entity
        self.expected = expected
        self.actual = actual


class LogInUseError(LogError, BlockingIOError):
    """Another process has this log open for writing, or this one has already. Reading it is allowed at any time.

    Attributes:
        process: the process that has it; None where it is not known.
    """

    def __init__(self, message: str, process: int | None = None) -> None:
        super().__init__(message)
        self.process = process


class CloseTimeoutError(LogError, TimeoutError):
    """close() has waited long enough. What was submitted is still being written, by a thread that lets go of the log when it is done.

    Attributes:
        undone: by entity how many changes are not known to be durable.
    """

    def __init__(self, message: str, undone: Mapping[str, int]) -> None:
        super().__init__(message)
        self.undone = dict(undone)


class LogDamagedError(LogError):
    """Acknowledged events are missing or altered. Nothing has been changed by opening."""


class AnchorMismatchError(LogDamagedError):
    """The log is shorter than the anchor of a snapshot, or has another event at its position."""

    def __init__(self, position: int, why: str) -> None:
        super().__init__(
            f"the log does not match the snapshot at position {position}: {why}. Events that were acknowledged are missing or "
            "altered; restore a backup, or open with ignore_anchor=True to go on with what is there"
        )
        self.position = position


class LogUnavailableError(LogError, OSError):
    """The log cannot be written or read: disk full, read-only, I/O error, unsafe file system.

    Attributes:
        outcome_unknown: True when the failing commit may be on disk all the same; open the log anew to find out.
        lasting: True when the same call cannot succeed later: the file that was opened does not stand in its place any more.
    """

    def __init__(self, why: str, *, outcome_unknown: bool = False, lasting: bool = False) -> None:
        super().__init__(why)
        self.outcome_unknown = outcome_unknown
        self.lasting = lasting


class LogFormatError(LogUnavailableError):
    """The log is of another format: another version of the library has written it. It is whole, and nothing of it has been changed."""


class PositionNotFoundError(LogError, LookupError):
    """A position after the head, or before the history that is kept."""


class PositionInsideTransactionError(LogError, ValueError):
    """Rewinding or forking into the middle of a transaction; `first` and `last` are its positions."""

    def __init__(self, position: int, first: int, last: int) -> None:
        super().__init__(f"position {position} is inside the transaction of positions {first} to {last}: choose {first - 1} or {last}")
        self.position = position
        self.first = first
        self.last = last


class StorageError(SymphonyError):
    """A file of the state directory could not be handled."""


class StorageUnavailableError(StorageError, OSError):
    """Disk full, read-only or I/O error; the file that was there before is untouched."""


class SnapshotDamagedError(StorageError, ValueError):
    """A snapshot file that cannot be trusted. It is a cache: the log rebuilds it.

    Attributes:
        name: the file's name in the snapshot directory.
        why: what is wrong with it.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"the snapshot {name} cannot be trusted: {why}; the log rebuilds it")
        self.name = name
        self.why = why


class EntityError(SymphonyError):
    """An entity cannot be used the way it was."""


class EntityTypeError(EntityError, TypeError):
    """A class that cannot be an entity, part or value, or a type name that two classes claim."""


class EntityNotFoundError(EntityError, LookupError):
    """No such entity here; `entity` is its key."""

    def __init__(self, entity: str, hint: str = "") -> None:
        super().__init__(f"there is no entity {entity}{': ' + hint if hint else ''}")
        self.entity = entity


class UnknownTypeError(EntityNotFoundError):
    """No class and no restorer of this process, and no event of the log, is of this type.

    Attributes:
        entity_type: the type as given.
        near: types there are that are written like it, the nearest first.
    """

    def __init__(self, entity_type: str, known: Collection[str] = (), entity: str | None = None) -> None:
        self.entity_type = entity_type
        self.near = near_misses(entity_type, known)
        shown = ", ".join(sorted(known)[:SHOWN]) + (", …" if len(known) > SHOWN else "")
        hint = f"did you mean {' or '.join(self.near)}?" if self.near else f"there are {shown or 'none'}"
        asked = f" (asked for {entity})" if entity else ""
        SymphonyError.__init__(self, f"there is no type {quoted(entity_type)}{asked}: no class, restorer or event has it; {hint}")
        self.entity = entity or entity_type


class UnknownPathError(EntityError, LookupError):
    """Nothing has ever stood at a path: in no version of the entity, and it is no declared field.

    Attributes:
        entity: key of the entity.
        path: the path as text.
        near: paths there are, or were, that are written like it, the nearest first.
    """

    def __init__(self, entity: str, path: str, known: Collection[str] = (), parent: str = "") -> None:
        self.entity = entity
        self.path = path
        tails = {name[len(parent) :].lstrip("."): name for name in known}  # what all have in common says nothing about likeness
        self.near = [tails[tail] for tail in near_misses(path[len(parent) :].lstrip("."), tails)]
        shown = ", ".join(sorted(known)[:SHOWN]) + (", …" if len(known) > SHOWN else "")
        hint = f"did you mean {' or '.join(self.near)}?" if self.near else f"there are {shown or 'none'}"
        super().__init__(f"nothing has ever stood at {path} of {entity}; {hint}")


SHOWN = 12
"""How many names a message lists that are none of them like the one asked for."""


def near_misses(name: str, known: Collection[str], *, cutoff: float = 0.6) -> list[str]:
    """Return what is written like a name, the nearest first: differences of case count little.

    1 as `cutoff` asks for no other difference.
    """
    from difflib import get_close_matches  # late: only a message needs it

    folded: dict[str, str] = {}
    for item in sorted(known):
        folded.setdefault(item.casefold(), item)
    found = [folded[match] for match in get_close_matches(name.casefold(), folded, n=3, cutoff=cutoff)]
    tails = [item for item in sorted(known) if item.casefold().rpartition(".")[2] == name.casefold().rpartition(".")[2]]
    return list(dict.fromkeys([*found, *tails]))[:3]


class EntityExistsError(EntityError, ValueError):
    """The id is taken; `entity` is its key."""

    def __init__(self, entity: str, hint: str = "") -> None:
        super().__init__(f"{entity} exists already{': ' + hint if hint else ''}")
        self.entity = entity


class RunExistsError(EntityExistsError):
    """A run has the id, and was started with another input: it is not the one that is meant.

    Attributes:
        differs: the keys of the context that are not equal, or that one of the two has alone, sorted.
    """

    def __init__(self, entity: str, differs: Sequence[str]) -> None:
        named = ", ".join(shown(key) for key in differs[:10]) + (f" and {len(differs) - 10:,} more" if len(differs) > 10 else "")
        super().__init__(
            entity,
            f"that run was started with another input, which differs at {named}; give this start an id of its own, or the same input",
        )
        self.differs = tuple(differs)


class RunPrunedError(EntityNotFoundError, EntityExistsError):
    """The run was pruned: it is in no list any more, and its id is not free, since what was done under it is done. Nothing has happened.

    Attributes:
        entity: key of the run, or of one of its tasks.
        position: position of the event that pruned it.
    """

    def __init__(self, entity: str, position: int) -> None:
        EntityError.__init__(
            self,
            f"{entity} was pruned at position {position}: its history stays readable with symphony.history({quoted(entity)}), "
            f"its state with symphony.at({position - 1}); a new run takes another id",
        )
        self.entity = entity
        self.position = position


class EntityOwnershipError(EntityError, ValueError):
    """The object belongs to another Symphony, or to none yet."""


class EntityBusyError(EntityError, RuntimeError):
    """Not now: the entity is claimed by a transaction that has not ended, or a resume or close is under way. Nothing has changed.

    Attributes:
        entity: key of the entity.
        holder: name of the transaction that holds it, or what is under way.
        claimant: what was refused.
    """

    def __init__(self, entity: str, holder: str, claimant: str, message: str = "") -> None:
        super().__init__(
            message
            or f"{entity} is claimed by the transaction {quoted(holder)} and cannot be changed by {claimant} until it ends; "
            "wait for it with `async with symphony.transaction(..., claim=[entity])`"
        )
        self.entity = entity
        self.holder = holder
        self.claimant = claimant

    @classmethod
    def during(cls, entity: str, under_way: str, claimant: str) -> Self:
        """Return the error of a change while the world as a whole is closed to changes."""
        then = (
            "then get the object anew with symphony.entities.get, since a resume replaces all objects"
            if under_way == "a resume"
            else "or do it before"
        )
        return cls(entity, under_way, claimant, f"{entity} cannot take {claimant}: {under_way} is under way; await its end, {then}")

    @classmethod
    def in_a_circle(cls, entity: str, holder: str, claimant: str) -> Self:
        """Return the error of one who would wait for a transaction that waits for it."""
        circle = f"{entity} is claimed by the transaction {quoted(holder)}, and {claimant}, which would wait for it, is what it waits for"
        return cls(
            entity, holder, claimant, f"{circle}: have each claim all its entities when it begins, `claim=[one, other]`, and try again"
        )

    @classmethod
    def of_block(cls, entity: str, holder: str, claimant: str) -> Self:
        """Return the error of a block whose transaction has another open block that has changed the entity."""
        changed = f"{entity} has been changed by the block {quoted(holder)}, which has not ended, and cannot be changed by {claimant}"
        return cls(entity, holder, claimant, f"{changed}: await the end of that block first")

    @classmethod
    def for_refresh(cls, entity: str, holder: str) -> Self:
        """Return the error of a refresh in the middle of a transaction, be it the caller's own."""
        held = f"{entity} is claimed by the transaction {quoted(holder)}, and cannot be refreshed before that ends"
        return cls(entity, holder, "a refresh", f"{held}: refresh it after the block")

    @classmethod
    def held(cls, entity: str, holder: str, claimant: str, waited_s: float) -> Self:
        """Return the error of one who has waited for a transaction that does not end."""
        held = f"{entity} is held by the transaction {quoted(holder)}, for which {claimant} has waited {waited_s:.0f} s"
        return cls(entity, holder, claimant, f"{held}: it hangs, or waits for what only happens after it; end it, or what it waits for")


class EntityOutOfStepError(EntityError, RuntimeError):
    """The entity's last changes could not be appended; the cause is chained.

    Later changes of it wait in memory until `await symphony.refresh(entity)` puts the object back to the log's state.
    """

    def __init__(self, entity: str, why: str) -> None:
        super().__init__(
            f"{entity} is out of step with the log: {why}. "
            f"`await symphony.refresh({quoted(entity)})` puts it back and returns the changes it drops"
        )
        self.entity = entity


def repair_call(entity: str) -> str:
    """Return what to do about a damaged entity, in words."""
    if entity.startswith(FOREIGN_PREFIX):
        return f"what an eventsourcing application has recorded has no state to repair: {FOREIGN_WAYS_OUT}"
    return f"`await symphony.entities.repair({quoted(entity)})` goes on with the last good state, `state=` or `to=` with another one"


class EntityDamagedError(EntityError, RuntimeError):
    """An event of the log does not fit the entity: what was asked for cannot be done before the entity has been repaired.

    Attributes:
        entity: its key.
        damage: version and position of that event, and what is wrong with it.
    """

    def __init__(self, entity: str, damage: Any) -> None:
        super().__init__(f"{entity} is {damage}; {repair_call(entity)}")
        self.entity = entity
        self.damage = damage


REPLACED = "its world has been replaced by a resume"
REMOVED = "it was removed"
CLOSED = "its Symphony has been closed"
UNDONE = "its addition was undone"
UNLOADED = "it was unloaded"
PRUNED = "it was pruned"
"""Why an object is detached: what a record's `closed` says, and what the error gives advice by."""

AT_REST = "it is at rest in the log"
"""What a record's `closed` says of an object that has left its world and is not changed: its next change brings it back."""


class DetachedEntityError(EntityError, RuntimeError):
    """The object's world has been replaced by a resume, or the entity was removed. The change has not been made."""

    def __init__(self, entity: str, why: str = REPLACED) -> None:
        advice = _AFTER.get(why) or (_OF_THE_PAST if why.startswith("it is a look") else _REPLACED_ADVICE)
        super().__init__(f"this object of {entity} is detached ({why}): {advice.format(entity)}")
        self.entity = entity
        self.why = why


_REPLACED_ADVICE = "get the current one with symphony.entities.get({!r})"
_OF_THE_PAST = "change the present one, symphony.entities.get({!r}), or go back as a whole with symphony.rewind"
_AFTER = {
    REMOVED: "add a new object, which begins anew under the same id; its history stays readable with symphony.history({!r})",
    CLOSED: "open the Symphony again with setup() and resume(), then get {!r} with symphony.entities.get",
    UNDONE: "its addition was rolled back; add it again with symphony.entities.add",
    PRUNED: "its history stays readable with symphony.history({!r}); whatever is to be done again is another run's",
    UNLOADED: "make it live again with await symphony.entities.load({!r})",
}


class DetachedPartError(EntityError, RuntimeError):
    """A part or container in hand that its entity does not hold any more: a copy, or what the log has, stands in its place.

    The change has not been made.

    Attributes:
        entity: key of the entity.
    """

    def __init__(self, entity: str, what: str) -> None:
        super().__init__(
            f"this {what} does not belong to {entity} any more: its place was put back by a rollback, a refresh or a rewind, and something "
            "else stands there now, so that nobody would record the change; get what stands there from the entity"
        )
        self.entity = entity


class UnrecordedChangeError(EntityError, RuntimeError):
    """A list, dict or set of an entity was changed past its methods, so that nothing was recorded. The change at hand has not been made.

    Attributes:
        entity: key of the entity.
        path: where the container and the log differ.
    """

    def __init__(self, entity: str, path: Sequence[Any], why: str) -> None:
        super().__init__(
            f"{entity}: {format_path(path)} differs from what was recorded: {why} past the container's methods "
            "(heapq, list.append(x.items, …) and exec do that); assign the container to its place to record it as it is "
            f"(heap = x.items; …; x.items = heap), or await symphony.refresh({quoted(entity)}) to have it back as it was"
        )
        self.entity = entity
        self.path = tuple(path)


class TransactionEndedError(EntityError, RuntimeError):
    """A task or thread that belongs to a transaction changed an entity after the transaction's end."""


class RestorationError(SymphonyError):
    """A world could not be restored; the old one is still in place."""


class NotTakenBackError(RestorationError, RuntimeError):
    """An atomic step could not be taken back whole, so it does not run again: blocks or steps beside it have its objects as well.

    Attributes:
        entities: keys of the objects that have what the step changed, and perhaps what the others did.
    """

    def __init__(self, step: str, entities: Iterable[str]) -> None:
        self.entities = tuple(sorted(set(entities)))
        super().__init__(
            f"step {step} has failed, and what it changed in {', '.join(self.entities)} was not taken back: steps or transactions beside "
            "it were handed that too, and whose changes it has cannot be told; it is not tried again, as it would change it twice. "
            "Put it right and retry the run; atomic=True or claim=[obj] in all that change it keeps them apart"
        )


class RestorerConflictError(RestorationError, ValueError):
    """Two explicit restorers for one type."""


class UnknownValueError(RestorationError, LookupError):
    """A stored value cannot be made: its class is not known here, or has changed too far.

    Attributes:
        classes: what is the matter and what mends it, by the class's name in the log.
    """

    def __init__(self, classes: Mapping[str, str]) -> None:
        self.classes = dict(classes)
        super().__init__("; ".join(self.classes.values()))


class UnresolvedReferenceError(RestorationError, LookupError):
    """strict=True, and targets of references are missing; `references` lists (entity, path, target)."""

    def __init__(self, references: Sequence[tuple[str, tuple[Any, ...], str]]) -> None:
        shown = "; ".join(f"{entity} at {format_path(path)} -> {target}" for entity, path, target in references[:5])
        more = f" and {len(references) - 5} more" if len(references) > 5 else ""
        count = "1 reference has" if len(references) == 1 else f"{len(references):,} references have"
        super().__init__(f"{count} no target: {shown}{more}; resume without strict=True leaves them as they are, and reports them")
        self.references = list(references)


class RunsInProgressError(RestorationError, RuntimeError):
    """Runs execute in this process and would lose their objects; `run_ids` names them."""

    def __init__(self, run_ids: Sequence[str], advice: str = "wait for them, or pass stop_runs=True to interrupt them first") -> None:
        super().__init__(f"runs are in progress: {', '.join(run_ids)}; {advice}")
        self.run_ids = list(run_ids)


class CheckpointError(SymphonyError):
    """A checkpoint could not be made or used."""


class CheckpointNotFoundError(CheckpointError, LookupError):
    """No checkpoint has this id or name; `checkpoint` is what was asked for."""

    def __init__(self, checkpoint: str) -> None:
        super().__init__(f"there is no checkpoint {quoted(checkpoint)}: `await symphony.list_checkpoints()` lists those there are")
        self.checkpoint = checkpoint


class TransferError(SymphonyError):
    """A log could not be exported, imported, backed up or restored; the target is as it was before."""


class TargetOccupiedError(TransferError, FileExistsError):
    """There is something at the target already; `target` is its path. Nothing of it has been touched."""

    def __init__(self, target: object, why: str) -> None:
        super().__init__(f"{target}: {why}")
        self.target = target
        self.why = why


class ExportDamagedError(TransferError, ValueError):
    """A file to import is cut off, altered or of another format; nothing has been imported.

    Attributes:
        line: number of the line at fault, from 1; None where it is none in particular.
        why: what is wrong with it.
    """

    def __init__(self, source: object, line: int | None, why: str) -> None:
        where = f", line {line}" if line is not None else ""
        super().__init__(f"{source}{where}: {why}; nothing has been imported: export the log anew")
        self.line = line
        self.why = why


class BackupDamagedError(TransferError, ValueError):
    """A backup does not verify; nothing has been restored. `report` is what `verify` found in it."""

    def __init__(self, backup: object, report: Any) -> None:
        first = report.problems[0].what if report.problems else "it does not verify"
        super().__init__(
            f"the backup {backup} is damaged: {first}; restore an earlier one, import an export, or, where events alone are damaged, "
            "open it with setup(skip_damaged=True), repair what that marks, and fork it"
        )
        self.report = report


class ProjectionError(SymphonyError):
    """A projection could not be built, followed or read. The log is not touched by it; `name` says which projection."""

    name: str


class ProjectionFailedError(ProjectionError, RuntimeError):
    """A projection cannot go on; what it had applied by then is in place, and the cause is chained.

    Attributes:
        name: which projection.
        position: the last position it has applied.
        why: what is wrong, and what to do.
    """

    _lines = True

    def __init__(self, name: str, position: int, why: str) -> None:
        super().__init__(f"the projection {quoted(name)} cannot go on after position {position}: {why}")
        self.name = name
        self.position = position
        self.why = why


class ProjectionUnavailableError(ProjectionError, LookupError):
    """There is no projection of this name here, or it has not been built yet, or it cannot be read."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"the projection {quoted(name)} cannot be read: {why}")
        self.name = name
        self.why = why


class WorkflowError(SymphonyError):
    """A workflow could not be defined or run."""


class DefinitionError(WorkflowError, ValueError):
    """A definition that cannot be run; `path` says where in it the fault is."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}" if path else why)
        self.path = path
        self.why = why


class ExpressionError(WorkflowError, ValueError):
    """An expression that cannot be read or evaluated: a condition, or what stands inside the `{{ … }}` of a template.

    Attributes:
        expression: its text.
        offset: where in it the part at fault begins, in characters from 0.
        why: what is wrong with that part.
        available: the names that were there instead, when a name is missing.
    """

    _form = "{}: at character {}: {}"

    def __init__(self, expression: str, offset: int, why: str, available: Sequence[str] = ()) -> None:
        shown = sorted(available)
        listed = ", ".join(name if len(name) <= 60 else f"{name[:59]}…" for name in shown[:20])
        names = f" (available: {listed}{', …' if len(shown) > 20 else ''})" if shown else ""
        super().__init__(self._form.format(expression, offset, why) + names)
        self.expression = expression
        self.offset = offset
        self.why = why
        self.available = shown


class TemplateError(ExpressionError):
    """An expression of a template that cannot be read or evaluated; `offset` counts from the template's beginning."""

    _form = "{{{{ {} }}}} at character {}: {}"


class DefinitionChangedError(WorkflowError, ValueError):
    """A run's history contradicts the definition it is to go on with.

    Attributes:
        run_id: which run.
        changes: what was added, removed and changed, and the contradictions (`DefinitionChanges`).
    """

    _lines = True

    def __init__(self, run_id: str, changes: Any) -> None:
        super().__init__(f"run {message(run_id)} cannot go on with this definition:\n{changes.report()}\nforce=True takes it all the same")
        self.run_id = run_id
        self.changes = changes


class StepFailedError(WorkflowError):
    """A step of a code-first workflow failed for good, now or when the function ran before.

    Attributes:
        step: address of the step.
        error_type: name of the error's class.
        message: its message.
        beside: where `gather` raises it, addresses of the steps that have ended its other coroutines by failing.
    """

    _lines = True

    def __init__(self, step: str, error_type: str, message: str) -> None:
        super().__init__(f"step {step} failed: {error_type}{': ' if message else ''}{message}")
        self.beside: tuple[str, ...] = ()
        self.step = step
        self.error_type = error_type
        self.message = message


class HistoryMismatchError(WorkflowError, RuntimeError):
    """The code of a workflow contradicts what is on record of a run; nothing of the contradiction has been done.

    Attributes:
        run_id: which run.
        strand: which strand of it; "" for the body of the function.
        history: the calls on record, in order.
        code: the calls that the code has made so far, in order.
    """

    _lines = True

    def __init__(self, run_id: str, strand: str, history: Sequence[str], code: Sequence[str], why: str) -> None:
        where = f" in {strand}" if strand else ""
        super().__init__(
            f"run {message(run_id)}: its history contradicts the code{message(where)}: {message(why)}.\n"
            f"  on record: {message(', '.join(history)) or '(nothing)'}\n"
            f"  the code:  {message(', '.join(code)) or '(nothing)'}\n"
            'Bring the old code back for this run, or keep both behind `if patched("a-change-id"):` '
            "(docs/living-with-code-changes.md)"
        )
        self.run_id = run_id
        self.strand = strand
        self.history = list(history)
        self.code = list(code)


class CallNotAwaitedError(WorkflowError, ConfigurationError):
    """The function of a code-first workflow has made calls and ended without awaiting them, so that their steps were not run.

    Attributes:
        run_id: which run.
        calls: their addresses, in order; a call that is no step says what it is: `sleep (sleep)`, `gather`.
        strands: which strand has made each of them; "" for the body of the function.
    """

    def __init__(self, run_id: str, made: Sequence[tuple[str, str]], under_way: Sequence[str] = ()) -> None:
        shown = [f"{call} in {strand}" if strand else call for strand, call in made]
        listed = ", ".join(shown[:MADE_AND_SHOWN]) + (f" and {len(shown) - MADE_AND_SHOWN} more" if len(shown) > MADE_AND_SHOWN else "")
        left = f", and while {', '.join(under_way)} was under way" if under_way else ""
        super().__init__(
            f"run {run_id}: the function has ended without awaiting what it called: {listed}{left}. None of these has run: "
            "write `await` before the call, or hand it to `await gather(…)`, and resume the run"
        )
        self.run_id = run_id
        self.calls = [call for _, call in made]
        self.strands = [strand for strand, _ in made]


class StepTimeoutError(WorkflowError, TimeoutError):
    """An attempt at a step took longer than its `timeout_s`; its coroutine has been cancelled."""

    def __init__(self, step: str, timeout_s: float) -> None:
        super().__init__(f"step {step} took longer than its timeout of {timeout_s:g} s")
        self.step = step
        self.timeout_s = timeout_s


class ThreadsExhaustedError(WorkflowError, RuntimeError):
    """Plain functions that do not return hold all threads that there may be; the function that needed one has not been called.

    Attributes:
        hung: how many threads they hold.
        functions: some of them, by name and step, those that have run for longest first.
    """

    def __init__(self, hung: int, functions: Sequence[str]) -> None:
        super().__init__(
            f"all {hung} threads for plain functions are held by functions that have not returned since their callers gave up on them "
            f"({', '.join(functions)}): have them return (a timeout of their own), make them coroutine functions, or start the program anew"
        )
        self.hung = hung
        self.functions = list(functions)


class ResultTimeoutError(WorkflowError, TimeoutError):
    """A run has not ended in the time that `result(timeout_s=…)` waits; nothing was changed, and it goes on.

    Attributes:
        run_id: the run.
        status: where it stands.
        current: addresses of the innermost steps under way, as of `progress`.
        timeout_s: how long the caller has waited.
    """

    def __init__(self, run_id: str, status: str, current: Sequence[str], timeout_s: float) -> None:
        at = f" at {', '.join(current[:SHOWN])}" if current else ""
        super().__init__(f"run {run_id} has not ended within {timeout_s:g} s: it is {status}{at}, and was left alone")
        self.run_id = run_id
        self.status = status
        self.current = tuple(current)
        self.timeout_s = timeout_s


class SignalTimeoutError(WorkflowError, TimeoutError):
    """A step waited for a signal that did not come in time, and has no default."""

    def __init__(self, signal: str, until: object) -> None:
        super().__init__(f"no signal {quoted(signal)} came before {until}; give the step a default, or more time")
        self.signal = signal


class DeadlineExceededError(WorkflowError, TimeoutError):
    """A run did not end before its deadline; what it completed is in the log."""

    def __init__(self, run_id: str, deadline: object) -> None:
        super().__init__(f"run {run_id} did not end before its deadline, {deadline}; resume it with a new one: resume(run, deadline_s=...)")
        self.run_id = run_id


class HookFailedError(WorkflowError):
    """A hook failed that declares to stop the run; what it raised is chained, and on record.

    Attributes:
        hook: name of the hook's class.
        stage: the moment it was called at.
        error: what is on record of it: type, message, traceback and step, among others.
    """

    _lines = True

    def __init__(self, hook: str, stage: str, error: Mapping[str, Any]) -> None:
        super().__init__(f"the hook {hook} failed at {stage}: {error['type']}: {error['message']}")
        self.hook = hook
        self.stage = stage
        self.error = dict(error)


class RunFailedError(WorkflowError):
    """A run failed; it can be resumed.

    Attributes:
        run_id: which run.
        error: its error as its state holds it: type, message, traceback and step, all text.
    """

    _lines = True

    def __init__(self, run_id: str, error: Mapping[str, Any]) -> None:
        where = f" at step {error['step']}" if error.get("step") else ""
        super().__init__(f"run {run_id} failed{where}: {error.get('type')}: {error.get('message')}")
        self.run_id = run_id
        self.error = dict(error)


class RunCancelledError(WorkflowError):
    """A run was cancelled; what it completed is in the log."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"run {run_id} was cancelled; what it completed is in the log")
        self.run_id = run_id


class RunBlockedError(WorkflowError, RuntimeError):
    """What is on record of a run contradicts the code of this process; it goes on with code that fits: `recover()` or `resume(run)`.

    Attributes:
        run_id: which run.
        error: the contradiction as the run's state holds it: type, message, traceback and step, and the digest of the code.
    """

    _lines = True

    def __init__(self, run_id: str, error: Mapping[str, Any]) -> None:
        super().__init__(f"run {run_id} is blocked: {error.get('message')}; recover() tries it again with other code, resume(run) at once")
        self.run_id = run_id
        self.error = dict(error)


class RunsLeftAloneError(WorkflowError, RuntimeError):
    """Runs that this process cannot go on with, asked for with `strict=True`. Nothing has been appended, and no run goes on.

    Attributes:
        reasons: why, by the id of the run.
    """

    _lines = True

    def __init__(self, reasons: Mapping[str, str]) -> None:
        shown = "\n".join(f"  {message(run_id)}: {message(reason)}" for run_id, reason in list(reasons.items())[:10])
        more = f"\n  and {len(reasons) - 10:,} more" if len(reasons) > 10 else ""
        super().__init__(f"this process cannot go on with {len(reasons):,} run{'s' * (len(reasons) != 1)}:\n{shown}{more}")
        self.reasons = dict(reasons)


class CleanupUnfinishedError(WorkflowError, RuntimeError):
    """A run has ended without all of its clean-up: it was told to skip the rest, or a child run has not finished its own, or is gone."""

    def __init__(self, run_id: str, why: str, what_to_do: str = "resume(run) goes on with it") -> None:
        super().__init__(f"the clean-up of run {run_id} is not finished ({why}): {what_to_do}")
        self.run_id = run_id


class IllegalTransitionError(WorkflowError, ValueError):
    """The status of a run or task does not allow the request; both statuses are named, nothing has been changed."""

    def __init__(self, entity_id: str, status: str, requested: str, kind: str = "run", why: str = "") -> None:
        cannot = "cannot take a signal" if requested == "signal" else f"cannot become {requested}{' again' if requested == status else ''}"
        super().__init__(f"{kind} {entity_id} is {status} and {cannot}{f': {why}' if why else ''}")
        self.entity_id = entity_id
        self.status = status
        self.requested = requested


class NotRegisteredError(WorkflowError, LookupError):
    """Nobody registered what is needed under this name."""

    def __init__(self, kind: str, name: str, known: Sequence[str], how: str) -> None:
        listed = ", ".join(sorted(known)) or "none"
        super().__init__(f"no {kind} is registered under {shown(name, 200)} (registered: {listed}); {how}")
        self.kind = kind
        self.name = name


class RequestPendingError(WorkflowError, LookupError):
    """A request to the process that has a log open has no answer yet. It stays, and is carried out by that process or the next one.

    Attributes:
        request: id of the request; asking again under it asks for the answer, and changes nothing a second time.
    """

    def __init__(self, request: str, why: str) -> None:
        super().__init__(f"request {request}: {why}")
        self.request = request


class RequestRefusedError(WorkflowError, RuntimeError):
    """The process that has a log open has refused a request; nothing was changed.

    Attributes:
        request: id of the request.
        error_type: the class of the error that the call has raised there.
    """

    _lines = True

    def __init__(self, verb: str, request: str, error_type: str, message: str) -> None:
        super().__init__(f"{verb} (request {request}) was refused: {error_type}: {message}")
        self.request = request
        self.error_type = error_type


class DeadlockError(WorkflowError, RuntimeError):
    """A step waits for the end of a run that cannot end before the step does; `circle` has the ids of the runs, from that run to itself.

    So does a transaction that waits for a run which begins with it; it stands in `circle` by its name.
    """

    def __init__(self, circle: Sequence[str], advice: str = "") -> None:
        self.circle = list(circle)
        shown = " waits for ".join(self.circle)
        instead = advice or "Wait for another run, or start a run whose end nobody waits for with symphony.workflows.start"
        super().__init__(f"{shown}: none of them can end. {instead}")


class DrainingError(WorkflowError, RuntimeError):
    """The process is being drained and starts no run any more; nothing has been appended."""


class RunInterruptedError(WorkflowError, RuntimeError):
    """The run was stopped before its end; what it completed is in the log and it can be resumed."""


def format_path(path: Sequence[Any]) -> str:
    """Return `('lines', 0, 'amount')` as `lines[0].amount`, for messages."""
    text = ""
    for element in path:
        if isinstance(element, int):
            text += f"[{element if element.bit_length() <= MOST_PLAIN_BITS else hex(element)}]"
        elif isinstance(element, str) and element.isidentifier():
            text += f".{element}" if text else element
        else:
            text += f"[{element!r}]"
    return text
