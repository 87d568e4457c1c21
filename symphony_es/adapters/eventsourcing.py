"""An application of the library `eventsourcing` on this log: the infrastructure that `PERSISTENCE_MODULE` names.

    PERSISTENCE_MODULE=symphony_es.adapters.eventsourcing
    STATE_DIR=/var/lib/shop

Its aggregates' events are events of the log like all others, with positions, check values and history. The entity of an aggregate is
`eventsourcing.Aggregate:<originator id>`; topic and state of a stored event are the event's data, byte for byte. A resume leaves these
entities at rest. Snapshots stand at `eventsourcing.Snapshot:<originator id>`, and how far an application has come in following another one
at `eventsourcing.Tracking:<application>/<the other one>`, in the transaction of the events that this has led to.

An application's notifications are the events that it has recorded: their ids are positions of the log, and go up with gaps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    DataError,
    InfrastructureFactory,
    InfrastructureFactoryError,
    IntegrityError,
    InterfaceError,
    InternalError,
    ListenNotifySubscription,
    Mapper,
    Notification,
    NotSupportedError,
    OperationalError,
    ProcessRecorder,
    Recorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
    Transcoder,
)
from eventsourcing.utils import Environment, resolve_topic, strtobool

from symphony_es.adapters.loaded_topics import LoadedTopicsMapper, TAggregateID
from symphony_es.adapters.open_logs import Use, use_log, use_memory
from symphony_es.adapters.sequences import NumberTakenError, Sequences
from symphony_es.errors import (
    DamagedEventError,
    InvalidIdentifierError,
    LimitExceededError,
    LogDamagedError,
    LogError,
    NotReadyError,
    ReadOnlyError,
    UnstorableValueError,
)
from symphony_es.events.foreign import AGGREGATE, SNAPSHOT, Foreign, ForeignEvent, tracking_key
from symphony_es.events.identifiers import entity_key
from symphony_es.log.arguments import LARGEST
from symphony_es.shown import quoted, shown, type_shown

__all__ = ["LogAggregateRecorder", "LogApplicationRecorder", "LogFactory", "LogProcessRecorder", "LogTrackingRecorder"]

TYPES = {"events": AGGREGATE, "snapshots": SNAPSHOT}
"""Types of entities by what their recorder is for."""
IN_MEMORY = ":memory:"
SWITCHES = ("read_only", "skip_damaged", "allow_shared_directory", "force_network_fs", "ignore_anchor")
"""Arguments of a Symphony that are variables of the environment here, in capital letters."""
_SWITCH = f"({'|'.join(SWITCHES)})=True"
_ARGUMENT = re.compile(rf"(pass )?(?:(?:setup|Symphony)\((?:.*?, )??{_SWITCH}\)|\b{_SWITCH})")
TRecorder = TypeVar("TRecorder", bound=Recorder)


@contextmanager
def _as_persistence_error() -> Iterator[None]:
    """Raise what goes wrong in the log as that library's own errors; the log's error is the cause."""
    try:
        yield
    except NumberTakenError as error:
        raise IntegrityError(str(error)) from error
    except (InvalidIdentifierError, LimitExceededError, UnstorableValueError) as error:
        raise DataError(_told(error)) from error
    except ReadOnlyError as error:
        raise NotSupportedError(_told(error)) from error
    except NotReadyError as error:
        raise InterfaceError(_told(error)) from error
    except (DamagedEventError, LogDamagedError) as error:
        raise InternalError(_told(error)) from error
    except LogError as error:
        raise OperationalError(_told(error)) from error


def _told(error: Exception) -> str:
    """Return the message of an error, with the variables of the environment that do what it advises."""
    return _ARGUMENT.sub(lambda found: f"{'set ' if found[1] else ''}{(found[2] or found[3]).upper()}=yes", str(error))


class LogAggregateRecorder(AggregateRecorder):
    """Sequences of aggregates' events, or of snapshots, in a log.

    Args:
        use: the use of a log.
        entity_type: the type of the entities that the sequences are.
        application: name of the application that records.
    """

    def __init__(self, use: Use, *, entity_type: str = AGGREGATE, application: str = "") -> None:
        super().__init__()
        self._use = use
        self._type = entity_type
        self._application = application

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Append events together, and wait until they are durable; see `AggregateRecorder`.

        Raises:
            IntegrityError: one of them is recorded already; nothing was appended.
            DataError: one cannot be stored: an id that the log cannot hold, or a state beyond its limit; nothing was appended.
            PersistenceError: the log is closed, open for reading only, damaged or unavailable.
        """
        self._insert(stored_events, kwargs.get("tracking"))
        return None

    def _insert(self, stored_events: Sequence[StoredEvent], tracking: Tracking | None) -> Sequence[int]:
        with _as_persistence_error():
            events = [_foreign(self._type, event) for event in stored_events]
            rising = [_tracked(self._application, tracking)] if tracking is not None else []
            return list(self._use.sequences.append(events, rising=rising, application=self._application))

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return events of one aggregate; see `AggregateRecorder`.

        Raises:
            PersistenceError: the log is closed, damaged or unavailable.
        """
        with _as_persistence_error():
            try:
                key = entity_key(self._type, str(originator_id))
            except InvalidIdentifierError:  # an id that the log cannot hold
                return []
            found = self._use.sequences.select(key, after=gt, until=lte, newest_first=desc, limit=limit)
            return [
                StoredEvent(originator_id=originator_id, originator_version=event.number, topic=event.topic, state=event.state)
                for event in found
            ]


def _foreign(entity_type: str, event: StoredEvent) -> Foreign:
    """Turn a stored event into what a log takes.

    Raises:
        DataError, InvalidIdentifierError: the log cannot hold it.
    """
    given: tuple[Any, Any, Any] = event.originator_version, event.topic, event.state  # that library checks no types
    version, topic, state = given
    if type(version) is not int or not 0 <= version <= LARGEST:
        raise DataError(f"versions of aggregates are whole numbers from 0 to {LARGEST}, not {shown(version)}")
    if not isinstance(topic, str) or not isinstance(state, bytes | bytearray | memoryview):
        raise DataError(f"a stored event has a topic and bytes, not {shown(topic)} and {type_shown(state)}")
    return Foreign(entity_key(entity_type, str(event.originator_id)), version, topic, bytes(state))


def _tracked(application: str, tracking: Tracking) -> Foreign:
    return Foreign(tracking_key(application, tracking.application_name), tracking.notification_id, "Tracked", b"")


class LogApplicationRecorder(LogAggregateRecorder, ApplicationRecorder):
    """An application's events in a log.

    Args:
        use: the use of a log.
        application: name of the application: its notifications are those that it has recorded. Without one, all applications' are.
        text_ids: ids of aggregates are text, also where they look like UUIDs.
    """

    def __init__(self, use: Use, *, application: str = "", text_ids: bool = False) -> None:
        super().__init__(use, application=application)
        self._id_of = str if text_ids else _uuid_or_text

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """Append events as `LogAggregateRecorder` does; returns their notification ids."""
        return self._insert(stored_events, kwargs.get("tracking"))

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Return notifications by their ids; see `ApplicationRecorder`.

        Raises:
            PersistenceError: the log is closed, damaged or unavailable.
        """
        after = max(0, 0 if start is None else start - 1 if inclusive_of_start else start)
        with _as_persistence_error():
            found = self._use.sequences.notifications(after, until=stop, limit=limit, topics=topics, application=self._application)
            return [self._notification(event) for event in found]

    def _notification(self, event: ForeignEvent) -> Notification:
        return Notification(
            id=event.position,
            originator_id=self._id_of(event.key.partition(":")[2]),
            originator_version=event.number,
            topic=event.topic,
            state=event.state,
        )

    def max_notification_id(self) -> int | None:
        """Return the newest notification's id, or None."""
        with _as_persistence_error():
            return self._use.sequences.last_notification(self._application)

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """Hand out notifications as they are recorded, for ever; see `ApplicationRecorder`.

        Raises:
            NotSupportedError: the log is open for reading only: whoever writes it wakes nobody here.
        """
        with _as_persistence_error():
            sequences = self._use.sequences
        if sequences.log.read_only:
            raise NotSupportedError("a log that is open for reading only has no subscriptions: ask select_notifications() again")
        return LogSubscription(self, sequences, gt=gt, topics=topics)


class LogSubscription(ListenNotifySubscription[LogApplicationRecorder]):
    """Notifications of an application as they are recorded."""

    def __init__(self, recorder: LogApplicationRecorder, sequences: Sequences, gt: int | None = None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._listeners = sequences.listeners
        self._listeners.add(self._has_been_notified)
        self._has_been_notified.set()  # something may have been appended since the first look

    def stop(self) -> None:
        """Stop the subscription."""
        super().stop()
        self._listeners.discard(self._has_been_notified)


def _uuid_or_text(entity_id: str) -> UUID | str:
    """Return an originator id as it was given: ids are stored as text, and that of a UUID has one form."""
    try:
        uuid = UUID(entity_id)
    except ValueError:
        return entity_id
    return uuid if str(uuid) == entity_id else entity_id


class LogTrackingRecorder(TrackingRecorder):
    """How far an application has come in following others, in a log.

    Args:
        use: the use of a log.
        application: name of the application that follows.
    """

    def __init__(self, use: Use, *, application: str = "") -> None:
        super().__init__()
        self._use = use
        self._application = application

    def insert_tracking(self, tracking: Tracking) -> None:
        """Record how far it has come; see `TrackingRecorder`.

        Raises:
            IntegrityError: it was so far already.
            PersistenceError: the log is closed, open for reading only, damaged or unavailable.
        """
        with _as_persistence_error():
            self._use.sequences.append([], rising=[_tracked(self._application, tracking)])

    def max_tracking_id(self, application_name: str) -> int | None:
        """Tell how far it has come in following an application; None where it has not begun."""
        with _as_persistence_error():
            try:
                key = tracking_key(self._application, application_name)
            except InvalidIdentifierError:  # a name that the log cannot hold
                return None
            return self._use.sequences.highest(key)


class LogProcessRecorder(LogTrackingRecorder, LogApplicationRecorder, ProcessRecorder):
    """The events of an application that follows others, and how far it has come, in the same transactions."""

    def __init__(self, use: Use, *, application: str = "", text_ids: bool = False) -> None:
        LogApplicationRecorder.__init__(self, use, application=application, text_ids=text_ids)


class LogFactory(InfrastructureFactory[LogTrackingRecorder]):
    """The infrastructure of an application on a log; `PERSISTENCE_MODULE` names this module.

    What it reads of the environment, each also with the application's name before it (`SHOP_STATE_DIR`):

    * `STATE_DIR`: the directory of the log, made where it is missing, or `:memory:`.
    * `READ_ONLY` (no): open a log that another process may be writing, and record nothing.
    * `SKIP_DAMAGED` (no): leave damaged events out of the notifications. An aggregate that has one is an error all the same.
    * `ALLOW_SHARED_DIRECTORY`, `FORCE_NETWORK_FS`, `IGNORE_ANCHOR` (no): open a log that is refused otherwise; see `Symphony.setup`.
    * `ORIGINATOR_ID_TYPE` (uuid): `text` where ids of aggregates are text, also where they look like UUIDs.
    * what the library itself knows: `CIPHER_TOPIC`, `COMPRESSOR_TOPIC`, `MAPPER_TOPIC`, `IS_SNAPSHOTTING_ENABLED`, …

    Raises:
        InfrastructureFactoryError: `STATE_DIR` is missing, or a value is not one of those.
        OperationalError: the log cannot be opened, as another process writes it.
        PersistenceError: it is damaged.
    """

    STATE_DIR = "STATE_DIR"
    ORIGINATOR_ID_TYPE = "ORIGINATOR_ID_TYPE"

    def __init__(self, env: Environment | Mapping[str, str] | None) -> None:
        super().__init__(env)
        directory = self.env.get(self.STATE_DIR)
        if not directory:
            keys = " or ".join(self.env.create_keys(self.STATE_DIR))
            raise InfrastructureFactoryError(
                f"the environment does not say where the log is: set {keys} to its directory, or to {IN_MEMORY}"
            )
        id_type = self.env.get(self.ORIGINATOR_ID_TYPE, "uuid").lower()
        if id_type not in ("uuid", "text"):
            raise InfrastructureFactoryError(f"{self.ORIGINATOR_ID_TYPE} is 'uuid' or 'text', not {quoted(id_type)}")
        self._text_ids = id_type == "text"
        switches = {name: self._is_on(name.upper()) for name in SWITCHES}
        with _as_persistence_error():
            self._use = use_memory(AGGREGATE) if directory == IN_MEMORY else use_log(directory, AGGREGATE, **switches)

    def _is_on(self, name: str) -> bool:
        value = self.env.get(name, "no")
        try:
            return strtobool(value)
        except ValueError as error:
            raise InfrastructureFactoryError(f"{name} is 'yes' or 'no', not {quoted(value)}") from error

    def mapper(self, transcoder: Transcoder | None = None, mapper_class: type[Mapper[TAggregateID]] | None = None) -> Mapper[TAggregateID]:
        """Make the mapper that `MAPPER_TOPIC` names, or one that imports nothing because a log names it."""
        if mapper_class is None and not self.env.get(self.MAPPER_TOPIC):
            mapper_class = LoadedTopicsMapper[TAggregateID]
        return super().mapper(transcoder, mapper_class)

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Make a recorder of sequences: `events` of aggregates, or `snapshots`."""
        if purpose not in TYPES:
            raise NotSupportedError(f"a log holds {' and '.join(TYPES)} of aggregates, and no {quoted(purpose)}")
        return LogAggregateRecorder(self._use, entity_type=TYPES[purpose], application=self.env.name)

    def application_recorder(self) -> ApplicationRecorder:
        """Make the recorder of the application, or what `APPLICATION_RECORDER_TOPIC` names."""
        made = self._class_of(self.APPLICATION_RECORDER_TOPIC, LogApplicationRecorder)
        return made(self._use, application=self.env.name, text_ids=self._text_ids)

    def tracking_recorder(self, tracking_recorder_class: type[LogTrackingRecorder] | None = None) -> LogTrackingRecorder:
        """Make the recorder of how far the application is, of a class that is given, or that `TRACKING_RECORDER_TOPIC` names."""
        made = tracking_recorder_class or self._class_of(self.TRACKING_RECORDER_TOPIC, LogTrackingRecorder)
        return made(self._use, application=self.env.name)

    def process_recorder(self) -> ProcessRecorder:
        """Make the recorder of an application that follows others, or what `PROCESS_RECORDER_TOPIC` names."""
        made = self._class_of(self.PROCESS_RECORDER_TOPIC, LogProcessRecorder)
        return made(self._use, application=self.env.name, text_ids=self._text_ids)

    def _class_of(self, name: str, usual: type[TRecorder]) -> type[TRecorder]:
        topic = self.env.get(name)
        named = resolve_topic(topic) if topic else usual
        if not isinstance(named, type) or not issubclass(named, usual):
            raise InfrastructureFactoryError(f"{name} names a subclass of {usual.__name__}, not {quoted(topic or '')}")
        return named

    def close(self) -> None:
        """Let go of the log; idempotent. It is closed where no other application and no Symphony of this process uses it.

        Raises:
            PersistenceError: it could not be closed in order.
        """
        with _as_persistence_error():
            self._use.close()
