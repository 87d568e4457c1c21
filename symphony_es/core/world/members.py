"""Which live objects belong to a Symphony, by type and id: finding, adding and removing them.

What is added is recorded from then on, beginning with its complete state; what is removed leaves a tombstone in the log. While a
world is under construction, what restorers create is given the id being restored and nothing is appended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, cast
from weakref import WeakValueDictionary

from symphony_es.attribution import current_attribution
from symphony_es.core.objects.capture import plain_state
from symphony_es.core.objects.places import Move, give_back, settle_members
from symphony_es.core.objects.plain import ATOMS, UNOWNED, admit, entities_in, kind_of, plain_at, track
from symphony_es.core.objects.restorers import EntityRestorer, PlainRestorer, RestoreManager, UnrestoredEntity
from symphony_es.core.world.boundary import Boundary
from symphony_es.core.world.constants import Constants, constant_of
from symphony_es.core.world.live_entity import EntityRecord
from symphony_es.core.world.outbox import Outbox
from symphony_es.core.world.shadow import check_form, referred_keys, refuse_difference
from symphony_es.core.world.transaction import Scope, Transaction, open_scope_of, scope_of
from symphony_es.errors import (
    AT_REST,
    PRUNED,
    REMOVED,
    UNDONE,
    UNLOADED,
    ConfigurationError,
    DetachedEntityError,
    EntityBusyError,
    EntityDamagedError,
    EntityExistsError,
    EntityNotFoundError,
    EntityOutOfStepError,
    EntityOwnershipError,
    EntityTypeError,
    ForkedProcessError,
    ReadOnlyError,
    RestorationError,
    RunPrunedError,
    SymphonyError,
    UnrecordedChangeError,
    UnstorableValueError,
)
from symphony_es.events.changes import REMOVE, Change
from symphony_es.events.fold import Damage
from symphony_es.events.foreign import why_without_state
from symphony_es.events.identifiers import check_entity_id, check_own_type
from symphony_es.events.references import EntityReference
from symphony_es.events.values import check_plain, check_types, copy_plain
from symphony_es.failures import has_failed
from symphony_es.log.forks import Inherited, left_at_fork
from symphony_es.shown import quoted

if TYPE_CHECKING:
    from symphony_es.core.objects.recorder import Recorded, Sink
    from symphony_es.core.world.waking import Watch
    from symphony_es.log.log import EventLog

__all__ = ["EntityLike", "Members"]

RUNS = ("Workflow:", "Task:")
RUNS_AND_TASKS = ("Workflow", "Task")
"""Types of which entities come to rest when their run has ended."""

FEW_REFERRED = 100

EntityLike = Any
"""An entity's object, an `EntityReference`, or `"Type:id"`."""


class _UnreadError(Exception):
    """An object of a foreign class has to be read before it is added, without the lock."""

    def __init__(self, item: Any, reference: EntityReference) -> None:
        super().__init__(reference.key)
        self.item, self.reference = item, reference


class Members(Inherited):
    """The live objects of one world by type and id.

    Args:
        log: where changes go.
        restorers: the Symphony's restorers.
        restoring: start under construction.
        empty_log: the log had no entities, so every id that this world does not know is free.
    """

    def __init__(self, log: EventLog, restorers: RestoreManager, *, restoring: bool = False, empty_log: bool = False) -> None:
        self.log = log
        self.restorers = restorers
        self.types = restorers.types
        self.lock = threading.RLock()
        self.outbox = Outbox(log, self.lock)
        self.restoring = restoring
        self.under_restoration: EntityReference | None = None
        self.knows_all_ids = empty_log
        self.known_ids: set[str] = set()  # that a snapshot has, or that are being loaded: the log is asked before one is refused
        self.earlier_ids: Callable[[], set[str]] | None = None  # tells those of the newest snapshot: asked once, at the first addition
        self.in_part = False  # the log may have entities that are not here
        self.entity_count = 0
        self.uncounted_until = 0  # entities of the log up to this position are not in the count yet
        self.sealed: str | None = None
        self.removed: dict[str, EntityRecord] = {}
        self.touched: set[str] = set()
        self.damaged: dict[str, Damage] = {}
        self.watch: Watch | None = None  # while the hooks of restored objects run
        self._records: dict[str, EntityRecord] = {}
        self._foreign: dict[int, EntityRecord] = {}
        self._unrestored: set[str] = set()  # keys of entities that no object was made of, when they came to be here
        self.has_at_rest = False  # the log has ended runs that are not here
        self.referred: dict[str, None] = {}  # keys of runs and tasks that living entities have referred to; see `refer`
        self.reference_watches: tuple[Callable[[str], None], ...] = ()  # told of these keys; replaced as a whole
        self.keepers: dict[str, set[str]] = {}  # of those whose objects the entities that refer to them may not have: these entities
        self._keepers_looked_through = 0
        self._looked_through = 0  # how many of these there were when those of which nobody has the object were left out last
        self.woken: list[EntityRecord] = []  # what was at rest and has been changed
        self._at_rest: WeakValueDictionary[str, Any] = WeakValueDictionary()  # objects that somebody has in hand
        self.constants = Constants()
        self.open_transactions: set[Transaction] = set()
        self.forked_from: int | None = None
        self.read_only = False
        left_at_fork(self)

    def leave_to_parent(self, parent: int) -> None:
        """See `Inherited`: nothing here can be changed or made durable any more; a thread of the parent's may have held the lock."""
        self.forked_from, self.sealed = parent, "a process that was forked"
        self.lock = self.outbox.lock = threading.RLock()
        self.outbox.disown()

    takes_objects: bool = False
    """Whether values may be objects of foreign classes; see `Boundary`."""

    copies_parts: bool = False
    """Whether parts and containers that nothing holds are copied like all others; so is what a run begins with."""

    @cached_property
    def boundary(self) -> Boundary:
        """This world as the values of a run see it."""
        return Boundary(self)

    def around(self, obj: Any) -> Members:
        """Return this world as the values of an entity see it."""
        return cast("Members", self.boundary) if getattr(obj, "_symphony_at_boundary", False) else self

    # -- finding ------------------------------------------------------------------------------------------------------

    def record_of(self, obj: Any) -> EntityRecord | None:
        """Return the record of a live object of this world, or None."""
        if kind_of(obj) == "entity":
            record = obj.__dict__.get("_symphony_record")
            return record if isinstance(record, EntityRecord) and record.world is self else None
        return self._foreign.get(id(obj))

    def refuse_others(self, obj: Any) -> None:
        """Refuse an entity that belongs to another Symphony that is open.

        Raises:
            EntityOwnershipError: it does: an entity of this one that has its id is another.
        """
        owner = obj.__dict__.get("_symphony_record")
        if owner is None or owner.world is self:
            return
        if owner.closed is None or (owner.closed is AT_REST and owner.world.sealed is None):
            raise EntityOwnershipError(f"{owner.key} belongs to another Symphony: an object belongs to one")

    @property
    def has_foreign(self) -> bool:
        """Whether there are objects that do not track themselves."""
        return bool(self._foreign)

    def foreign_records(self) -> list[EntityRecord]:
        """Return the records of all objects that do not track themselves."""
        return list(self._foreign.values())

    def record_for(self, entity: EntityLike) -> EntityRecord:
        """Return the record of an entity, given by object, reference or key.

        Raises:
            EntityNotFoundError: it is not here; the message tells where it may be.
            EntityOwnershipError: the object was not added to this Symphony.
        """
        if isinstance(entity, str):
            known = self._records.get(entity)
            if known is not None:
                return known
            entity = EntityReference.parse(entity)
        if isinstance(entity, EntityReference):
            found = self._records.get(entity.key) or self._referred_at_rest(entity.key)
            if found is None:
                removed = self.removed.get(entity.key)
                if removed is None or removed.broken is None:
                    raise EntityNotFoundError(entity.key, self._hint(entity.key))
                found = removed  # its removal could not be appended: it can be refreshed
            return found
        found = self.record_of(entity)
        if found is None:
            raise EntityOwnershipError(
                f"this {type(entity).__name__} object belongs to no entity of this Symphony: add it with symphony.entities.add(obj)"
            )
        return found

    def _hint(self, key: str) -> str:
        if (why := why_without_state(key)) is not None:
            return why
        if not (self.in_part or self.has_at_rest) or self.sealed is not None or key in self.removed:
            return ""
        if not self.log.entity_status_now(key)[1]:
            return ""
        if self.has_at_rest and key.startswith(RUNS):
            return f"it has ended and is at rest in the log: await symphony.entities.load({quoted(key)})"
        return f"it waits in the log: await symphony.entities.load({quoted(key)}), or symphony.resume() for all entities"

    def get(self, entity: EntityLike) -> Any:
        """Return the live object of an entity.

        Raises:
            EntityNotFoundError: there is none.
        """
        record = self._records.get(entity) if type(entity) is str else None  # as most are
        if record is None:
            record = self.record_for(entity)
        self.outbox.suspects.recent[record] = None
        return record.obj

    def find(self, entity: EntityLike) -> Any | None:
        """Return the live object of an entity, or None."""
        if isinstance(entity, str):
            found = self._records.get(entity)
            if found is not None:
                self.outbox.suspects.recent[found] = None
                return found.obj
            entity = EntityReference.parse(entity)
        if isinstance(entity, EntityReference):
            found = self._records.get(entity.key) or self._referred_at_rest(entity.key)
            if found is None:
                return None
            self.outbox.suspects.recent[found] = None
            return found.obj
        return entity if self.record_of(entity) is not None else None

    def held(self, reference: EntityReference) -> Any | None:
        """Return the object of an entity that is live, or at rest in somebody's hand; None where there is none."""
        found = self.find(reference)
        return found if found is not None else self._at_rest.get(reference.key)

    def all(self, entity_type: str | None = None) -> list[Any]:
        """Return all live objects, or those of a type, those that a resume brought by their keys, then the others as they were added or
        loaded.

        What was removed in a transaction that failed comes last, before runs that have ended and that living entities refer to.
        """
        prefix = f"{entity_type}:" if entity_type is not None else ""
        found = [record for key, record in self._records.items() if key.startswith(prefix)]
        if self.referred:
            resting = [self._referred_at_rest(key) for key in sorted(self._at_rest) if key.startswith(prefix)]
            found += [record for record in resting if record is not None]
        self.outbox.suspects.recent.update(dict.fromkeys(found))
        return [record.obj for record in found]

    def check_open(self, record: EntityRecord) -> None:
        """Refuse changes while none are taken: the gate that every change passes, with the lock held.

        Raises:
            DetachedEntityError: the object is not part of a world any more.
            EntityBusyError: a resume builds the world that may replace this one, or the Symphony is being closed.
            ForkedProcessError: it is the parent process's. ReadOnlyError: the log is only read.
            EntityDamagedError: an event of the log does not fit the entity.
        """
        self.check_process()
        if self.read_only:
            hint = "; symphony.requests asks the process that writes" if record.key.startswith("Workflow:") else ""
            raise ReadOnlyError(f"{record.key}: this Symphony is open for reading only; nothing was changed{hint}")
        if record.key in self.damaged:
            raise EntityDamagedError(record.key, self.damaged[record.key])
        if record.closed is not None and record.closed is not AT_REST:
            raise DetachedEntityError(record.key, record.closed)
        if self.sealed is not None:
            raise EntityBusyError.during(record.key, self.sealed, "a change")
        if record.closed is AT_REST:
            self.wake(record)
            self.woken.append(record)

    def check_process(self) -> None:
        """Do nothing in the process that the world was made in.

        Raises:
            ForkedProcessError: this is a child of it.
        """
        if self.forked_from is not None:
            raise ForkedProcessError(self.forked_from)

    def mark_damaged(self, record: EntityRecord, damage: Damage) -> EntityDamagedError:
        """Refuse changes of a live object from now on: an event of the log does not fit its entity. Returns the error that says so."""
        self.damaged[record.key] = damage
        record.closed = str(damage)
        return EntityDamagedError(record.key, damage)

    def touch(self, record: EntityRecord) -> Sink:
        """Compare what restorers change in an object that has been made with its state; under construction nothing is appended."""
        self.touched.add(record.key)
        return self.watch.sink_of(record) if self.watch is not None else _UNRECORDED

    def least_version(self, key: str) -> int:
        """Return the version that an entity has by events that are durable, 0 where that cannot be told at once; safe from every thread."""
        if not self.lock.acquire(blocking=False):
            return 0
        try:
            record = self._records.get(key)
            settled = record is not None and record.holder is None and record.broken is None and not self.outbox.unsettled
            return record.version if record is not None and settled else 0
        finally:
            self.lock.release()

    def generation(self, entity: EntityLike) -> int:
        """Return how often a rewind took this entity back."""
        return self.record_for(entity).generation

    @property
    def records(self) -> dict[str, EntityRecord]:
        """All records by key."""
        return self._records

    # -- adding and removing ------------------------------------------------------------------------------------------

    def add(
        self,
        obj: Any,
        entity_type: str | None = None,
        entity_id: str | None = None,
        *,
        capture: Literal["auto", "on_record"] = "auto",
        event_name: str | None = None,
        data: Any = None,
    ) -> Any:
        """Add an object, and the entities it refers to; its complete state is the first event. Adding twice changes nothing.

        Raises:
            EntityExistsError: the id is taken.
            EntityOwnershipError: the object belongs to another Symphony.
            EntityTypeError, InvalidIdentifierError, UnstorableValueError: it cannot be stored. Nothing is added.
        """
        read: dict[int, dict[str, Any]] = {}
        while True:
            try:
                return self._add(obj, entity_type, entity_id, capture, event_name, data, read)
            except _UnreadError as unread:  # `capture` is the user's code, and runs without the lock
                read[id(unread.item)] = self.capture(unread.item, unread.reference)

    def _add(
        self, obj: Any, entity_type: str | None, entity_id: str | None, capture: str, event_name: str | None, data: Any,
        read: dict[int, dict[str, Any]],
    ) -> Any:  # fmt: skip
        with self.lock:
            if self.restoring:
                return self._place(obj, entity_type)
            known = self.record_of(obj)
            if known is not None and known.closed in (None, AT_REST):
                if entity_type not in (None, known.entity_type) or entity_id not in (None, known.reference.entity_id):
                    raise EntityExistsError(known.key, "an object is one entity: it cannot be added under another type or id")
                return obj
            reference = self._identify(obj, entity_type, entity_id)
            newcomers = self._gather([(reference, obj)], read)
            self._check_newcomers(newcomers)
            if data is not None:
                check_plain(data, ("data",))
            for newcomer, itself, state in newcomers.values():
                record = self._adopt(newcomer, itself, state)
                record.manual = capture == "on_record" and itself is obj
                moves: list[Move] = []
                if kind_of(itself) == "entity":
                    settle_members(itself, self, moves)
                self._begin_history(record, state, event_name if itself is obj else None, data if itself is obj else None, moves)
            return obj

    def check_referred(self, objects: Iterable[Any]) -> None:
        """Check that the entities which a change refers to are here or can be added, all together; nothing is added yet.

        Errors are those of `add`.
        """
        new = [obj for obj in objects if self.record_of(obj) is None] if not self.restoring else []
        if new:
            self._check_newcomers(self._gather([(self._identify(obj, None, None), obj) for obj in new]))

    def may_take(self, record: Recorded) -> bool:
        """Return whether the running code may take parts and containers from an entity: nobody else may roll changes of it back."""
        if record.world is not self or not isinstance(record, EntityRecord):
            return False
        if record.holder is None:
            return True
        scope, owner = scope_of(self), record.block
        if scope is None or scope.transaction is not record.holder:
            return False
        return owner is None or not owner.open or scope.within(owner)

    def check_changes(self, record: Recorded, changes: Iterable[Change]) -> None:
        """Refuse changes that are to be recorded together where one of them would be refused. Errors are those of `shadow.advance`."""
        scope = scope_of(self)
        for change in changes:
            check_form(change)
            self.check_references(record.key, change[2:], scope)

    def _check_newcomers(self, newcomers: dict[str, tuple[EntityReference, Any, dict[str, Any]]]) -> None:
        """Refuse new entities for every reason there is, before anything is done of any of them."""
        scope = open_scope_of(self)
        for key, (_, _, state) in newcomers.items():
            self._check_addable(key)
            try:
                check_types(state)
            except UnstorableValueError as error:
                raise error.within(key) from None
            self.check_references(key, state.values(), scope)

    def check_references(self, key: str, values: Iterable[Any], scope: Scope | None) -> None:
        """Refuse references to an entity that another block creates: it may be rolled back, and comes into the log later.

        Args:
            key: who is to refer.
            values: plain values that it is to hold.
            scope: the block it happens in.

        Raises:
            EntityBusyError: there is one.
        """
        if not self.open_transactions:
            return
        for referred in referred_keys(values):
            record = self._records.get(referred)
            born = record.born if record is not None else None
            if born is not None and (scope is None or not scope.within(born)):
                raise EntityBusyError(referred, born.title, f"a reference from {key}, which does not belong to that block,")

    def adopt_referred(self, obj: Any, by: Recorded | None) -> None:
        """Add an entity that a change of an added one refers to; of one that is at rest see `refer`."""
        if not self.restoring and self.record_of(obj) is None:
            self.add(obj)
        if by is not None and by.entity_type not in RUNS_AND_TASKS:  # the engine knows which runs belong together
            self._keep_live(obj)

    def _keep_live(self, obj: Any) -> None:
        record = self.record_of(obj)
        if record is not None and not self.restoring and record.entity_type in RUNS_AND_TASKS:
            self.refer(record.key)

    def refer(self, key: str) -> None:
        """Take note that a living entity refers to a run or task: that is live as long as anybody has its object, also when it rests.

        The entity has it, until it refers to something else or is gone itself. So nothing has to be told when a reference ends.
        """
        self.referred[key] = None
        for told in self.reference_watches:
            told(key)
        if len(self.referred) > 2 * self._looked_through + FEW_REFERRED:
            self.referred = {known: None for known in self.referred if known in self._records or known in self._at_rest}
            self._looked_through = len(self.referred)

    def is_referred(self, key: str) -> bool:
        """Return whether a living entity may refer to a run or task; one that did counts as long as anybody has the object."""
        return self.is_kept(key) or (key in self.referred and (key in self._records or key in self._at_rest))

    def is_kept(self, key: str) -> bool:
        """Return whether a living entity refers to a run or task, and may not have its object: then that does not rest."""
        keepers = self.keepers.get(key)
        if keepers is None:
            return False
        if self.restoring or not keepers.isdisjoint(self._records):
            return True
        del self.keepers[key]
        return False

    def _referred_at_rest(self, key: str) -> EntityRecord | None:
        record = self.at_rest(key) if self.referred else None
        part = record
        while part is not None and part.key not in self.referred:
            part = self.record_of(getattr(part.obj, "parent", None))  # of a child run
        return record if part is not None else None

    def _place(self, obj: Any, entity_type: str | None) -> Any:
        """Give what a restorer creates the id that is being restored; under construction nothing is appended."""
        wanted = self.under_restoration
        made = type(obj)._symphony_spec.name if kind_of(obj) == "entity" else entity_type or type(obj).__name__
        if wanted is None or made != wanted.entity_type:
            raise RestorationError(
                f"a restorer created a {made} while {wanted.key if wanted else 'nothing'} was being restored: it may only make that entity"
            )
        if kind_of(obj) == "entity":
            obj.__dict__["id"] = wanted.entity_id
        return obj

    def _identify(self, obj: Any, entity_type: str | None, entity_id: str | None) -> EntityReference:
        if kind_of(obj) == "entity":
            spec = type(obj).__dict__.get("_symphony_spec")
            if spec is None:
                raise EntityTypeError(
                    f"{type(obj).__qualname__} derives from an @entity class and is none itself: its own fields would be lost; "
                    "decorate it with @entity"
                )
            if entity_type not in (None, spec.name) or entity_id not in (None, obj.id):
                raise EntityTypeError(f"this object is {spec.name}:{obj.id} and cannot be added as {entity_type}:{entity_id}")
            self.refuse_others(obj)
            return EntityReference(spec.name, check_entity_id(obj.id))
        if kind_of(obj) is not None or isinstance(obj, (str, EntityReference, UnrestoredEntity)):
            raise EntityTypeError(f"a {type(obj).__name__} is no entity; add an @entity object or one of a class of your own")
        chosen = check_own_type(entity_type or self.given_type(type(obj)) or type(obj).__name__)
        restorer = self.restorers.restorer_for(chosen)
        if restorer is not None and restorer.restored_class is not None and not isinstance(obj, restorer.restored_class):
            raise EntityTypeError(
                f"{chosen} is the type of {restorer.restored_class.__qualname__}, and this is a {type(obj).__qualname__}: "
                "give entity_type=... another name"
            )
        identity = entity_id if entity_id is not None else getattr(obj, "id", None)
        if not isinstance(identity, str):
            raise ConfigurationError(
                f"{type(obj).__name__} object has no id, and as an entity of type {chosen} it needs an id: give entity_id='...', "
                "or the object an attribute `id` that is text"
            )
        return EntityReference(chosen, check_entity_id(identity))

    def given_type(self, cls: type) -> str | None:
        """Return the name that a foreign class was registered under, where the application gave it one that is a type."""
        name = self.types.name_of(cls)
        return None if name is None or ":" in name else name

    def _gather(
        self, start: Iterable[tuple[EntityReference, Any]], read: Mapping[int, dict[str, Any]] | None = None
    ) -> dict[str, tuple[EntityReference, Any, dict[str, Any]]]:
        """Return objects and every entity they refer to that is new, with their states, by key; nothing is added yet.

        Args:
            read: the states of objects of foreign classes by `id`, which have been read already; one that is missing is asked for.
        """
        found: dict[str, tuple[EntityReference, Any, dict[str, Any]]] = {}
        queue = list(start)
        while queue:
            reference, item = queue.pop()
            known = found.get(reference.key)
            if known is not None:
                if known[1] is not item:
                    raise EntityExistsError(reference.key, "two objects have the same type and id")
                continue
            if kind_of(item) == "entity":
                self._track(item, reference)
            tracked = kind_of(item) == "entity"
            if read is not None and not tracked and id(item) not in read:
                self._check_addable(reference.key)
                raise _UnreadError(item, reference)
            state = read[id(item)] if read is not None and not tracked else self.capture(item, reference)
            found[reference.key] = (reference, item, state)
            held = [item.__dict__[name] for name in state] if tracked else list(getattr(item, "__dict__", {}).values())
            referred = [other for value in held if type(value) not in UNOWNED for other in entities_in(value)]
            if read is not None and reference.entity_type not in RUNS_AND_TASKS:
                for other in referred:
                    self._keep_live(other)
            queue.extend((self._identify(other, None, None), other) for other in referred if self.record_of(other) is None)
        return found

    @staticmethod
    def _track(obj: Any, reference: EntityReference) -> None:
        try:
            track(obj)
        except UnstorableValueError as error:
            raise error.within(reference.key) from error.__cause__

    def capture(self, obj: Any, reference: EntityReference, but: Collection[str] = ()) -> dict[str, Any]:
        """Return the plain state of an object, read off now; of one of an `@entity` class, some fields may be left out."""
        try:
            if kind_of(obj) == "entity":
                held = obj.__dict__
                missing = [name for name in type(obj)._symphony_spec.fields if name not in held]
                if missing:
                    raise EntityTypeError(f"{reference.key} has no {quoted(missing[0])} yet: set every field before the object is added")
                world = self.around(obj)
                names = [name for name in type(obj)._symphony_spec.fields if name not in but] if but else type(obj)._symphony_spec.fields
                for name in names:
                    if type(held[name]) not in ATOMS and kind_of(held[name]) is None:
                        try:
                            admit(held[name], world)
                        except UnstorableValueError as error:
                            raise error.within(None, [name]) from error.__cause__
                return {name: plain_at(held[name], world, name) for name in names}
            return plain_state(self._read(obj, self.restorer_of(reference.entity_type)), self)
        except UnstorableValueError as error:
            raise error.within(reference.key) from error.__cause__

    @staticmethod
    def _read(obj: Any, restorer: EntityRestorer) -> Any:
        try:
            return restorer.capture(obj)
        except SymphonyError:
            raise
        except BaseException as error:  # the application's code may raise anything
            if not has_failed(error):
                raise
            raise UnstorableValueError((), f"{type(restorer).__name__}.capture could not read it: {quoted(error)}") from error

    def restorer_of(self, entity_type: str) -> EntityRestorer:
        """Return the restorer of a type; one that can only capture where none is registered."""
        return self.restorers.restorer_for(entity_type) or PlainRestorer(entity_type)

    def _check_addable(self, key: str) -> None:
        """Refuse a new entity for every reason there is, before anything of it is done."""
        self.check_process()
        if self.read_only:
            raise ReadOnlyError(f"{key} cannot be added: this Symphony is open for reading only")
        if self.sealed is not None:
            raise EntityBusyError.during(key, self.sealed, "an addition")
        scope = scope_of(self)
        if scope is not None:
            scope.transaction.check_open(key)
        if key in self.damaged:
            raise EntityDamagedError(key, self.damaged[key])
        if key in self._records:
            raise EntityExistsError(key, "get it with symphony.entities.get")
        removed = self.removed.get(key)
        if removed is not None:
            if removed.holder is not None:
                raise EntityExistsError(key, "it was removed in a transaction that has not ended: create it again afterwards")
            if removed.broken is not None:
                raise EntityOutOfStepError(key, str(removed.broken)) from removed.broken
        elif self._may_be_taken(key):
            if self.log.entity_status_now(key)[1]:
                raise EntityExistsError(key, f"it is in the log and has not been restored: await symphony.entities.load({quoted(key)})")
            pruned = self.log.pruned_at(key)
            if pruned is not None:
                raise RunPrunedError(key, pruned)

    def _may_be_taken(self, key: str) -> bool:
        """Return whether the log is asked at once for an id that is not here: where that costs nothing, or the id is known to have been
        taken.
        """
        if self.knows_all_ids:
            return False
        if self.log.answers_at_once:
            return True
        if self.earlier_ids is not None:
            earlier, self.earlier_ids = self.earlier_ids, None
            self.known_ids |= earlier()
        return key in self.known_ids

    def _adopt(self, reference: EntityReference, obj: Any, state: dict[str, Any]) -> EntityRecord:
        key = reference.key
        record = EntityRecord(self, key, obj, self.restorers.restorer_for(reference.entity_type))
        record.reference = reference
        removed = self.removed.get(key)  # it stays there until the log has its removal: this addition may be rolled back
        if removed is not None:
            self.outbox.submit_pending()  # its removal comes first
            record.version, record.unplaced = removed.version, removed.unplaced
        elif not self.knows_all_ids:
            if self.log.answers_at_once:
                record.version = self.log.entity_status_now(key)[0]
            else:
                record.unplaced = True  # the log is not asked here, in the event loop: it decides when it appends
        self.install(record)
        return record

    def take_in(self, beside: Members) -> None:
        """Make the entities that were built in another world part of this one, as they are in the log; nothing is appended.

        Raises:
            EntityBusyError: a resume builds the world that will replace this one, or the Symphony is being closed.
            EntityExistsError: one of them has come to be here meanwhile. In both cases nothing has changed.
        """
        with self.lock:
            made = [record for record in beside.records.values() if record.world is beside]
            for record in made:
                if not self.read_only:
                    self.check_open(record)
                if record.key in self._records:
                    raise EntityExistsError(record.key, "it was added while it was loaded")
            for record in made:
                record.world = self
                self.install(record)
            self.damaged.update(beside.damaged)
            self.referred.update(beside.referred)
            self._add_keepers(beside.keepers)

    def _add_keepers(self, keepers: Mapping[str, set[str]]) -> None:
        """Take note of entities that refer to runs and tasks; those that have left are forgotten each time that the number has doubled."""
        for key, holders in keepers.items():
            self.keepers.setdefault(key, set()).update(holders)
        if len(self.keepers) > 2 * self._keepers_looked_through + FEW_REFERRED:
            for key in list(self.keepers):
                if self.is_kept(key):
                    self.keepers[key].intersection_update(self._records)
            self._keepers_looked_through = len(self.keepers)

    def install(self, record: EntityRecord) -> None:
        """Make a record part of this world."""
        self._records[record.key] = record
        if kind_of(record.obj) == "entity":
            record.obj.__dict__["_symphony_record"] = record
        else:
            self._foreign[id(record.obj)] = record
            if type(record.obj) is UnrestoredEntity:
                self._unrestored.add(record.key)

    @property
    def has_unrestored(self) -> bool:
        """Whether there may be an `UnrestoredEntity` here; where there is none, no value needs to be looked through for one."""
        for key in list(self._unrestored):  # a copy: threads of steps look, too
            record = self._records.get(key)
            if record is not None and type(record.obj) is UnrestoredEntity:
                return True
            self._unrestored.discard(key)  # it has been made since, or has gone
        return False

    def forget(self, record: EntityRecord, moves: Sequence[Move] = ()) -> None:
        """Take a record out of this world, as if it had never been added; a thread that waits to change its object is refused.

        Args:
            moves: what it took from others when it was added: it goes back.
        """
        record.closed = UNDONE
        self.outbox.suspects.discard(record)
        self._records.pop(record.key, None)
        self._foreign.pop(id(record.obj), None)
        if kind_of(record.obj) == "entity":
            record.obj.__dict__.pop("_symphony_record", None)
        give_back(list(moves), self)

    def place(self, key: str, by: int) -> None:
        """Place an entity that was added, as the log has decided: its events stand behind so many of an earlier one of that id."""
        found = {id(record): record for record in (self._records.get(key), self.removed.get(key)) if record is not None and record.unplaced}
        for record in found.values():
            record.unplaced = False
            record.version += by
            for transaction in self.open_transactions:
                if record in transaction.records:
                    transaction.records[record] += by

    def refuse(self, record: EntityRecord, error: SymphonyError) -> None:
        """Drop an entity that was added and that the log has refused: it leaves this world, and a change of its object says so."""
        self.outbox.forget(record)
        self.outbox.suspects.discard(record)
        record.pending = ()
        if self.removed.get(record.key) is record:
            del self.removed[record.key]
        if self._records.get(record.key) is record:
            del self._records[record.key]
        self._foreign.pop(id(record.obj), None)
        record.closed = str(error)

    def let_go(self, record: EntityRecord) -> bool:
        """Make an entity not live any more; it stays in the log. False where changes of it are not durable yet.

        Raises:
            EntityBusyError: a transaction claims it.
            DetachedEntityError: it is not live.
            UnrecordedChangeError: it was changed past the methods of a container. In all cases it stays live.
        """
        with self.lock:
            self.check_open(record)
            if record.holder is not None:
                raise EntityBusyError(record.key, record.holder.name, "an unloading")
            if record.pending or self.outbox.holds(record):
                return False
            if not self.read_only:
                self.outbox.suspects.check(record)
            record.closed = UNLOADED
            self.outbox.suspects.discard(record)
            self.in_part, self.knows_all_ids = True, False
            self.known_ids.add(record.key)
            self._records.pop(record.key)
            self._foreign.pop(id(record.obj), None)
            return True

    # -- at rest ------------------------------------------------------------------------------------------------------

    def rest(self, record: EntityRecord, *, compared: bool = False) -> bool:
        """Let an entity leave this world whose object nobody changes: it stays in the log, and whoever has the object keeps a live one.

        Its next change, or a load, brings the same object back. Nothing of it is kept here, so an object that nobody has is gone.

        Args:
            record: the entity's.
            compared: the caller has compared the object with what was recorded, and they are alike.

        Returns:
            Whether it is at rest now; False where changes of it are not durable yet, or were made past the methods of a container.
        """
        with self.lock:
            if self._records.get(record.key) is not record or (record.closed is not None and not self.read_only) or self.sealed is not None:
                return record.closed is AT_REST
            if record.holder is not None or record.broken is not None or record.pending or record.adoption or self.outbox.holds(record):
                return False
            if not compared and self.outbox.suspects.has(record):
                try:
                    refuse_difference(record)
                except UnrecordedChangeError:
                    return False  # closing finds it, and says so
            record.closed = AT_REST
            self.outbox.suspects.discard(record)
            self.has_at_rest, self.knows_all_ids = True, False
            del self._records[record.key]
            self._at_rest[record.key] = record.obj
            return True

    def wake(self, record: EntityRecord) -> None:
        """Make an entity live again whose object is at rest, as it is.

        Raises:
            DetachedEntityError: another object of it has been loaded meanwhile.
        """
        with self.lock:
            if record.key in self._records:
                raise DetachedEntityError(record.key, UNLOADED)
            record.closed = None
            self._records[record.key] = record
            self._at_rest.pop(record.key, None)

    def part_from(self, keys: Iterable[str]) -> list[EntityRecord]:
        """Detach the objects at rest of entities that are being pruned; returns the records of those that somebody has in hand."""
        with self.lock:
            parted = [record for key in keys if (record := self.at_rest(key)) is not None]
            for record in parted:
                record.closed = PRUNED
                del self._at_rest[record.key]
        return parted

    def take_back(self, parted: Iterable[EntityRecord]) -> None:
        """Let objects rest again whose entities have not been pruned after all."""
        with self.lock:
            for record in parted:
                record.closed = AT_REST
                self._at_rest.setdefault(record.key, record.obj)

    def at_rest(self, key: str) -> EntityRecord | None:
        """Return the record of an entity at rest whose object somebody has in hand, or None."""
        obj = self._at_rest.get(key)
        return None if obj is None else self.record_of(obj)

    def suspect_at_rest(self) -> None:
        """Have the objects at rest compared that somebody has in hand."""
        with self.lock:
            found = [self.record_of(obj) for obj in list(self._at_rest.values())]
            self.outbox.suspects.recent.update(dict.fromkeys(record for record in found if record is not None))

    def close_at_rest(self, why: str) -> None:
        """Detach the objects at rest: changing one raises `DetachedEntityError` from now on. What is only read goes on resting."""
        if self.read_only and self.sealed is None:
            return
        for obj in list(self._at_rest.values()):
            record = self.record_of(obj)
            if record is not None:
                record.closed = why

    def _begin_history(self, record: EntityRecord, state: dict[str, Any], name: str | None, data: Any, moves: list[Move]) -> None:
        version = record.restorer.state_version if record.restorer is not None else 1
        scope = scope_of(self)
        if scope is not None:
            draft = scope.transaction.draft(record, scope, new=True, name=name or scope.name or f"{record.entity_type}Created")
            draft.begin(state, (self.forget, record, moves))
            segment = draft.segment
        else:
            segment = record.new_segment(current_attribution.get(), name or f"{record.entity_type}Created")
            segment.begin(state)
            segment.open = name is None
        segment.state_version = version if version != 1 else None
        constant = constant_of(record.obj)
        if constant is not None:
            segment.constant = self.constants.keep(constant)
        if data is not None:
            segment.data = copy_plain(data)

    def remove(self, entity: EntityLike, *, event_name: str | None = None, data: Any = None) -> None:
        """Remove an entity: a tombstone in the log, its history stays. Its object is detached.

        Raises:
            EntityNotFoundError: there is none.
            UnrecordedChangeError: it was changed past the methods of a container, which its history would not have. Nothing is removed.
        """
        with self.lock:
            record = self.record_for(entity)
            self.check_open(record)
            if data is not None:
                check_plain(data, ("data",))
                data = copy_plain(data)
            if record.broken is not None and not record.version:
                self.outbox.forget(record)  # it never reached the log: there is nothing to remove from it
                self.forget(record)
                record.closed = REMOVED
                return
            self.outbox.suspects.check(record)
            scope = scope_of(self)
            if scope is not None:
                name = event_name or scope.name or f"{record.entity_type}Deleted"
                draft = scope.transaction.draft(record, scope, new=True, name=name)
                draft.segment.data = data if data is not None else draft.segment.data
                sink: Sink = draft
            else:
                if record.holder is not None:
                    raise EntityBusyError(record.key, record.holder.name, "its removal outside it")
                sink = record.new_segment(current_attribution.get(), event_name or f"{record.entity_type}Deleted", data)
            sink.keep((REMOVE, ()), (self._unremove, record, self.removed.get(record.key)))
            record.closed = REMOVED
            self.outbox.suspects.discard(record)
            self.knows_all_ids = False  # the next one of this id has to go on with its version
            self._records.pop(record.key)
            self._foreign.pop(id(record.obj), None)
            self.removed[record.key] = record

    def _unremove(self, record: EntityRecord, before: EntityRecord | None) -> None:
        record.closed = None
        self.removed.pop(record.key, None)
        if before is not None:
            self.removed[record.key] = before
        self.install(record)
        self.outbox.suspects.recent[record] = None

    def count(self, births: int, removed: EntityRecord | None = None) -> None:
        """Take note of what has been appended: how many entities the log has alive, and removals that need not be kept in mind."""
        self.entity_count += births
        if removed is not None and self.removed.get(removed.key) is removed:
            del self.removed[removed.key]


class _Unrecorded:
    """Where changes go that are not recorded."""

    def keep(self, change: Change, undo: tuple[Any, ...]) -> None:
        """Do nothing."""

    def note(self, undo: tuple[Any, ...]) -> None:
        """Do nothing."""


_UNRECORDED = _Unrecorded()
