"""One entity in a world: its object, its version, and the changes of it that wait to be appended.

Changes made outside a transaction are gathered in segments, one per attribution, and flushed together at the next turn of the
event loop. A record also says whether the entity may be changed right now, and by whom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from symphony_es.attribution import SYSTEM_ACTOR, Attribution, current_attribution
from symphony_es.core.objects.plain import kind_of
from symphony_es.core.world.shadow import advance, put_plain
from symphony_es.core.world.transaction import current_scope, scope_of
from symphony_es.errors import EntityBusyError
from symphony_es.events.changes import LONG, SCALARS, SET, TEXTS, Change, as_extension
from symphony_es.events.event import ADOPTION_EVENT
from symphony_es.events.identifiers import split_key
from symphony_es.events.references import EntityReference
from symphony_es.events.values import copy_plain
from symphony_es.late_dataclasses import dataclass

if TYPE_CHECKING:
    from symphony_es.core.objects.recorder import Sink
    from symphony_es.core.objects.restorers import EntityRestorer
    from symphony_es.core.world.constants import Constant
    from symphony_es.core.world.members import Members
    from symphony_es.core.world.transaction import Scope, Transaction

__all__ = ["ADOPTED", "EntityRecord", "Segment"]

ADOPTED = "restored as its restorer made it"


@dataclass(slots=True, kw_only=True)
class Segment:
    """Changes of one entity that will be one event (or more, where they are too large for one).

    Attributes:
        record: the entity.
        generation: the entity's generation from this event on, where the event raises it.
        constant: the constant entity that the entity names from this event on; the log is to have it.
        open: whether further unnamed changes may join.
    """

    record: EntityRecord
    name: str
    attribution: Attribution
    changes: list[Change] = field(default_factory=list)
    data: Any = None
    state_version: int | None = None
    generation: int | None = None
    constant: Constant | None = None
    open: bool = True

    @property
    def empty(self) -> bool:
        """Whether there is nothing to append: a change was announced and then refused."""
        return self.open and not self.changes and self.data is None

    def keep(self, change: Change, undo: tuple[Any, ...]) -> None:
        """Record a change; outside transactions it is undone only if it cannot be recorded. Errors are those of `advance`."""
        # By far the most changes set one field to a value that cannot change: for these, what `advance` would do is written out.
        shadow, path = self.record.shadow, change[1]
        if change[0] is SET and len(path) == 1 and type(value := change[2]) in SCALARS and shadow is not None:
            if type(value) in TEXTS and len(value) >= LONG:
                change = as_extension(shadow.get(path[0]), change)
            shadow[path[0]] = value
        elif shadow is None or put_plain(shadow, change) is None:
            change = advance(self.record, change, undo)
        self.changes.append(change)

    def note(self, undo: tuple[Any, ...]) -> None:
        """Do nothing: outside transactions nothing needs to be undone."""

    def begin(self, state: dict[str, Any]) -> None:
        """Record the creation of the entity, whose state has been checked; it takes the state over."""
        self.record.shadow = copy_plain(state)
        self.changes.append((SET, (), state))


class EntityRecord:
    """What a world knows of one entity.

    Attributes:
        key: `Type:id`.
        reference: the same as an `EntityReference`.
        obj: the live object.
        version: the version it will have when everything submitted has been appended.
        unplaced: whether its versions are counted from its addition: the log has not been asked yet whether it had the id before.
        shadow: the plain state that everything recorded of it makes; None while it does not exist, and for what cannot be changed.
        pending: changes that have not been submitted yet.
        holder: the transaction that claims it.
        block: the innermost open block of that transaction that has changed it.
        born: the innermost open block that creates it; None once its creation is durable.
        broken: why its changes could not be appended; then `dropped` holds those that were lost on the way.
        closed: why it cannot be changed any more.
        adoption: changes that bring the log in line with what a restorer made; appended before the first change.
        adoption_reason: why there are any: nobody acted, so the event says that the library did.
    """

    __slots__ = (
        "adoption", "adoption_reason", "adoption_version", "block", "born", "broken", "closed", "dropped", "generation", "holder", "key",
        "manual", "obj", "pending", "reference", "restorer", "shadow", "unplaced", "version", "world",
    )  # fmt: skip
    reference: EntityReference

    def __init__(
        self,
        world: Members,
        key: str,
        obj: Any,
        restorer: EntityRestorer | None,
        *,
        version: int = 0,
        generation: int = 0,
        shadow: dict[str, Any] | None = None,
    ) -> None:
        self.world = world
        self.key = key
        self.obj = obj
        self.restorer = restorer
        self.version = version
        self.generation = generation
        self.shadow = shadow
        self.manual = False
        self.unplaced = False
        self.pending: list[Segment] | tuple[()] = ()  # most entities never change, and a list of their own would take room
        self.holder: Transaction | None = None
        self.block: Scope | None = None
        self.born: Scope | None = None
        self.broken: Exception | None = None
        self.dropped: Sequence[Segment] = ()
        self.closed: str | None = None
        self.adoption: list[Change] | None = None
        self.adoption_version: int | None = None
        self.adoption_reason = ADOPTED

    if not TYPE_CHECKING:  # for type checkers there are no other attributes than those above

        def __getattr__(self, name: str) -> EntityReference:
            """Return the reference, made when it is first asked for: most of the entities that a resume brings back are never asked."""
            if name != "reference":
                raise AttributeError(name)
            self.reference = made = EntityReference(*split_key(self.key))
            return made

    @property
    def entity_type(self) -> str:
        """The entity's type."""
        return self.reference.entity_type

    @property
    def is_compared(self) -> bool:
        """Whether its object does not track itself, and is compared with the shadow."""
        return self.shadow is not None and kind_of(self.obj) is None

    def lost_changes(self) -> list[Change]:
        """Return changes that could not be appended, or wait behind such ones."""
        return [change for segment in (*self.dropped, *self.pending) for change in segment.changes]

    def sink(self) -> Sink:
        """Return where a change made right now is recorded; called with the world's lock held, before the change is made.

        Raises:
            DetachedEntityError: the object is not part of a world any more.
            EntityBusyError: a transaction claims the entity and the change does not belong to it.
            TransactionEndedError: the change belongs to a transaction that has ended.
        """
        # Each assignment comes through here, so what the calls would find is looked at before they are made.
        world = self.world
        if self.closed is not None or world.sealed is not None:
            world.check_open(self)
        if world.restoring:
            return world.touch(self)
        if current_scope.get() is not None:
            scope = scope_of(world)
            if scope is not None:
                return scope.sink(self)
        if self.holder is not None:
            raise EntityBusyError(self.key, self.holder.name, "a change outside it")
        standing = current_attribution.innermost()  # asked for each change: its `get` without the call
        attribution = standing.value if standing.left is None else current_attribution.get()
        if self.pending and self.adoption is None:
            last = self.pending[-1]
            if last.open and last.attribution is attribution:
                return last
        return self.new_segment(attribution)

    def new_segment(self, attribution: Attribution, name: str | None = None, data: Any = None) -> Segment:
        """Begin a segment for changes made outside transactions; without a name, further ones of the same attribution may join."""
        if self.adoption is not None:
            self._queue(self.take_adoption())
        made = Segment(record=self, name=name or f"{self.entity_type}Changed", attribution=attribution, data=data, open=name is None)
        self._queue(made)
        return made

    def _queue(self, segment: Segment) -> None:
        if self.pending:
            self.pending.append(segment)
        else:
            self.pending = [segment]
            self.world.outbox.mark_dirty(self)

    def take_adoption(self) -> Segment:
        """Return the event that makes the log agree with what a restorer made. It is nobody's change: whose change comes next has not made
        it.
        """
        changes, self.adoption = self.adoption or [], None
        attribution, version = Attribution(actor=SYSTEM_ACTOR, reason=self.adoption_reason), self.adoption_version
        return Segment(record=self, name=ADOPTION_EVENT, attribution=attribution, changes=changes, state_version=version, open=False)
