"""Scopes: what one block of a transaction does until it ends, and how it is taken back.

Inside a transaction, an entity belongs to the innermost open block that has changed it: only that block and those inside it may go on,
so that what a block has done can be taken back in strict reverse order. When a block ends, what was its own is the enclosing one's.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from symphony_es.attribution import current_attribution
from symphony_es.core.objects.mending import mend, nodes_in, reorder
from symphony_es.core.objects.places import Move, clone, give_back, is_node
from symphony_es.core.objects.plain import kind_of, record_above
from symphony_es.core.world.shadow import advance, order_before, put_plain
from symphony_es.errors import EntityBusyError, TransactionEndedError
from symphony_es.events.changes import LONG, SCALARS, SET, TEXTS, Change, as_extension
from symphony_es.events.undo import ABSENT, put_back, revert
from symphony_es.events.undo import Undo as Inverse
from symphony_es.events.values import copy_plain
from symphony_es.left_blocks import LeftElsewhere, runner
from symphony_es.shown import quoted

if TYPE_CHECKING:
    from symphony_es.core.objects.recorder import Sink
    from symphony_es.core.objects.shape import Shape
    from symphony_es.core.world.live_entity import EntityRecord, Segment
    from symphony_es.core.world.members import Members
    from symphony_es.core.world.transaction import Transaction

__all__ = ["Draft", "Handed", "Scope", "current_scope", "open_scope_of", "scope_of"]

Undo = tuple[Any, ...]

current_scope: ContextVar[Scope | None] = ContextVar("symphony_es_scope", default=None)


def scope_of(world: Members) -> Scope | None:
    """Return the innermost block around the running code that belongs to a world; blocks of other Symphonies are passed over."""
    scope = current_scope.get()
    while scope is not None and (scope.transaction.world is not world or (scope.left is not None and not scope.left.counts())):
        scope = scope.outer
    return scope


def open_scope_of(world: Members) -> Scope | None:
    """Return the same, and None when its transaction has ended: a task may outlive the block that it was started in."""
    scope = scope_of(world)
    return None if scope is None or scope.transaction.ended else scope


class Draft:
    """An event in the making, inside a transaction.

    Attributes:
        before: the entity's latest draft when this one was begun.
        dropped: whether its block has been rolled back.
    """

    __slots__ = ("before", "dropped", "record", "scope", "segment")

    def __init__(self, record: EntityRecord, scope: Scope, segment: Segment, before: Draft | None) -> None:
        self.record = record
        self.scope = scope
        self.segment = segment
        self.before = before
        self.dropped = False

    def keep(self, change: Change, undo: Undo) -> None:
        """Record a change and what undoes it; one that cannot be recorded is undone. Errors are those of `advance`."""
        # By far the most changes set one field to a value that cannot change: for these, what `advance` would do is written out.
        record, scope = self.record, self.scope
        shadow = record.shadow
        if change[0] is SET and len(change[1]) == 1 and type(change[2]) in SCALARS and shadow is not None:
            name, value, old = change[1][0], change[2], shadow.get(change[1][0], ABSENT)
            scope.undo_log.append((record, undo, (put_back, shadow, name, old)))
            if type(value) in TEXTS and len(value) >= LONG:
                change = as_extension(old, change)
            shadow[name] = value
        elif shadow is not None and (back := put_plain(shadow, change)) is not None:
            scope.undo_log.append((record, undo, back))
        else:
            order, inverse = order_before(record, change, scope.reordered), list[Any]()
            change = advance(record, change, undo, scope, inverse)
            if order is not None:
                scope.note_order(record, getattr(undo[0], "__self__", None), *order)
            scope.undo_log.append((record, undo, inverse))
        self.segment.changes.append(change)

    def note(self, undo: Undo) -> None:
        """Note what undoes something that has changed no state."""
        self.scope.undo_log.append((self.record, undo, ()))

    def begin(self, state: dict[str, Any], undo: Undo) -> None:
        """Record the creation of the entity, whose state has been checked, and what undoes it; it takes the state over."""
        self.scope.undo_log.append((self.record, undo, (setattr, self.record, "shadow", self.record.shadow)))
        self.record.shadow = copy_plain(state)
        self.segment.changes.append((SET, (), state))
        self.record.born = self.scope
        self.scope.born.append(self.record)


class Handed:
    """The objects of foreign classes that a block, or an attempt at a step, was handed in its own context.

    Attributes:
        outer: what the block around it was handed.
        attribution: of what the block changes.
        records: the objects' records, with what they were made of when they were handed to it.
        inherited: the same of what the blocks around it were handed, as it was at its beginning.
        open: whether the block has not ended.
    """

    __slots__ = ("attribution", "inherited", "open", "outer", "records", "scope", "world")

    def __init__(self, world: Members, outer: Handed | None, scope: Scope | None = None) -> None:
        self.world = world
        self.outer = outer
        self.scope = scope
        self.attribution = current_attribution.get()
        self.records: dict[EntityRecord, Shape | None] = {}
        self.inherited: dict[EntityRecord, Shape | None] = {}
        self.open = True

    @property
    def transaction(self) -> Transaction | None:
        """The block's transaction; a step's attempt has none."""
        return self.scope.transaction if self.scope is not None else None

    def transaction_claims(self) -> set[EntityRecord]:
        """Return what the block's transaction was told to claim."""
        return self.scope.transaction.claimed if self.scope is not None else set()

    def has(self, record: EntityRecord) -> bool:
        """Return whether it, or a block around it, was handed an object."""
        holder: Handed | None = self
        while holder is not None:
            if record in holder.records:
                return True
            holder = holder.outer
        return False

    def shares(self, record: EntityRecord) -> bool:
        """Return whether it, or a block around it in the same transaction, was handed an object."""
        holder: Handed | None = self
        while holder is not None and holder.transaction is self.transaction:
            if record in holder.records:
                return True
            holder = holder.outer
        return False

    def encloses(self, other: Handed) -> bool:
        """Return whether this is another one's block, or lies around it."""
        holder: Handed | None = other
        while holder is not None and holder is not self:
            holder = holder.outer
        return holder is self

    def reach(self) -> list[EntityRecord]:
        """Return what it and the blocks around it were handed."""
        return [*self.records] if self.outer is None else [*self.records, *self.outer.reach()]


class Scope:
    """One block: the transaction it belongs to, the name that events of its changes get, and what it has done until now.

    Attributes:
        handed: the objects of foreign classes that it was handed.
        open: whether it has not ended.
        undone: whether it has been rolled back.
        left: for whom it still counts, where another task or thread has left it: its context variable could not be reset.
        undo_log: what takes back each thing that was done, in the order of doing: (entity, for its object, for its shadow).
    """

    __slots__ = (
        "born", "data", "drafts", "entered_by", "handed", "inner", "left", "name", "open", "outer", "owned", "reordered", "transaction",
        "undo_log", "undone",
    )  # fmt: skip

    def __init__(self, transaction: Transaction, name: str | None, data: Any, outer: Scope | None, around: Handed | None = None) -> None:
        self.handed = Handed(transaction.world, around, self)
        self.transaction = transaction
        self.name = name
        self.data = data
        self.outer = outer
        self.open = True
        self.undone = False
        self.entered_by = runner()
        self.left: LeftElsewhere | None = None
        self.inner: dict[Scope, None] = {}
        self.drafts: list[Draft] = []
        self.undo_log: list[tuple[EntityRecord, Undo, Undo | Inverse]] = []
        self.owned: dict[EntityRecord, Scope | None] = {}  # with the block that each belonged to before
        self.born: list[EntityRecord] = []
        self.reordered: dict[int, dict[Any, Any]] = {}
        if self.enclosing is not None:
            self.enclosing.inner[self] = None

    @property
    def enclosing(self) -> Scope | None:
        """The innermost open block of the same transaction around this one."""
        scope = self.outer
        while scope is not None and (scope.transaction is not self.transaction or not scope.open):
            scope = scope.outer
        return scope

    @property
    def title(self) -> str:
        """What it is called in errors."""
        return self.name or self.transaction.name

    def within(self, other: Scope) -> bool:
        """Return whether this block is another one, or inside it."""
        scope: Scope | None = self
        while scope is not None:
            if scope is other:
                return True
            scope = scope.outer
        return False

    def standing(self) -> Scope:
        """Return this block while it is open, else the one that has taken over what it did: a task may outlive the block that began it.

        Raises:
            TransactionEndedError: the transaction has ended, or the block has been rolled back.
        """
        self.transaction.check_open("an entity")
        if self.open:
            return self
        around = self.enclosing
        if self.undone or around is None:
            raise TransactionEndedError(
                f"the block {quoted(self.title)} has been rolled back, and a task or thread of it changes something: "
                "await it inside the block, or start it outside of the block"
            )
        return around

    def sink(self, record: EntityRecord) -> Sink:
        """Return where a change of an entity made in this block is recorded."""
        return self.transaction.draft(record, self)

    def own(self, record: EntityRecord) -> None:
        """Make an entity this block's, and refuse it to those around.

        Raises:
            EntityBusyError: it belongs to an open block that this one is not inside of.
        """
        owner = record.block
        if owner is self:
            return
        if owner is not None and owner.open:
            if not self.within(owner):
                relation = "around it" if owner.within(self) else "that runs beside it"
                raise EntityBusyError.of_block(record.key, owner.title, f"the block {quoted(self.title)} {relation}")
        else:
            owner = None
        self.owned[record] = owner
        record.block = self

    def note_order(self, record: EntityRecord, live: Any, holder: dict[Any, Any], order: list[Any]) -> None:
        """Have the order restored that the keys of a dict had before this block first took one out of it."""
        self.reordered[id(holder)] = holder  # kept, so that its id stays its own
        self.undo_log.append((record, (reorder, live, holder), (_order, holder, order)))

    def merge(self) -> None:
        """End it: what it has done is the enclosing block's from now on."""
        self.open = False
        outer = self.enclosing
        if outer is None:
            return
        outer.inner.pop(self, None)
        for block in self.inner:
            outer.inner[block] = None
        outer.undo_log += self.undo_log
        outer.drafts += self.drafts
        outer.born += self.born
        for record in self.born:
            record.born = outer
        for record, before in self.owned.items():
            if record.block is self:
                record.block = outer
            outer.owned.setdefault(record, before if before is not outer else None)
        outer.reordered.update(self.reordered)
        self.forget()

    def roll_back(self) -> None:
        """Take back what this block and those inside it have done, newest first; costs what they have done.

        Afterwards each entity is what its shadow says, which is what it was before the block.
        """
        self.open, self.undone = False, True
        for block in reversed(list(self.inner)):
            block.roll_back()
        if self.enclosing is not None:
            self.enclosing.inner.pop(self, None)
        nodes: list[Any] = []
        for record, undo, inverse in reversed(self.undo_log):
            if isinstance(inverse, list):
                revert(inverse)
            elif inverse:
                inverse[0](*inverse[1:])
            _take_back(record, undo, nodes)
        for node in {id(node): node for node in nodes}.values():
            owner = record_above(node)  # it may have come to stand elsewhere since it was noted
            if owner is not None:
                mend(owner, nodes_in(list(vars(node).values())) if kind_of(node) == "entity" else [node])
        for draft in reversed(self.drafts):
            self.transaction.drop(draft)
        for record in self.born:
            record.born = None
        for record, before in self.owned.items():
            record.block = before
        self.forget()

    def forget(self) -> None:
        """Let go of what was noted to take it back."""
        self.undo_log, self.drafts, self.born = [], [], []
        self.owned, self.reordered, self.inner = {}, {}, {}


def _order(holder: dict[Any, Any], order: list[Any]) -> None:
    """Bring the keys of a dict into an order."""
    items = {key: holder[key] for key in order}
    holder.clear()
    holder.update(items)


def _take_back(record: EntityRecord, undo: Undo, nodes: list[Any]) -> None:
    """Take one thing back in an object; the nodes that return to it are noted, since their content may have changed meanwhile."""
    function, *arguments = undo
    returning: list[Any] = []
    free: list[Any] = []
    for at, argument in enumerate(arguments):
        found = nodes_in(argument)
        away = [node for node in found if record_above(node) not in (None, record)]
        if away:  # what has a place in another entity by now stays there
            arguments[at] = _with_copies(argument, away, record)
            found = nodes_in(arguments[at])
        nodes += found
        returning += found
        free += [node for node in found if record_above(node) is None]
    moves = [move for argument in arguments if type(argument) is list for move in argument if type(move) is Move]
    taken = [node for move in moves for node in (move.node, move.copy)]
    owner = arguments[0] if function is reorder else getattr(function, "__self__", None)
    if is_node(owner) and record_above(owner) is not record and kind_of(record.obj) == "entity":
        nodes.append(record.obj)  # a copy of it stands there, and nobody knows where
    if is_node(owner) and record_above(owner) not in (None, record):  # what it holds is none of the block's
        for argument in arguments:
            if type(argument) is list and any(type(move) is Move for move in argument):
                give_back(argument, record.world)
        nodes += taken
        return
    function(*arguments)
    mend(record, free)  # at once: what was done before, and is taken back next, was done to the content that they had then
    if any(node._symphony_owner is not owner for node in returning):  # it stands elsewhere, and a copy of it has come back
        nodes += nodes_in(list(vars(owner).values())) if kind_of(owner) == "entity" else nodes_in(owner)
    nodes += taken


def _with_copies(argument: Any, away: list[Any], record: EntityRecord) -> Any:
    """Return an argument of an undo, with copies of the nodes that are elsewhere."""
    copies = {id(node): clone(node) for node in away}
    if id(argument) in copies:
        return copies[id(argument)]
    if type(argument) is dict:
        return {key: copies.get(id(item), item) for key, item in argument.items()}
    return [copies.get(id(item), item) for item in argument]
