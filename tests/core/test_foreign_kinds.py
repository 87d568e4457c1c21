"""What is read off objects of foreign classes, and put back exactly: mapped objects, open models, added attributes, kept containers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

import attrs
import pydantic
import pytest
from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column, relationship

from symphony_es import Symphony
from symphony_es.core.state import EntityRestorer, RestorationContext
from symphony_es.errors import EntityTypeError, UnstorableValueError
from symphony_es.events.values import Tagged


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    balance: Mapped[Decimal]
    note: Mapped[str] = mapped_column(default="none", deferred=True)
    entries: Mapped[list[Entry]] = relationship(back_populates="account")


class Entry(Base):
    __tablename__ = "entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    account: Mapped[Account] = relationship(back_populates="entries")


class DataBase(MappedAsDataclass, DeclarativeBase):
    pass


class DataAccount(DataBase):
    """Mapped, and a dataclass."""

    __tablename__ = "data_account"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(default="")
    balance: Mapped[Decimal] = mapped_column(default=Decimal(0))
    note: Mapped[str] = mapped_column(default="none")
    entries: Mapped[list[DataEntry]] = relationship(default_factory=list)


class DataEntry(DataBase):
    __tablename__ = "data_entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("data_account.id"), default=None)


@pytest.fixture(params=[(Base, Account, Entry), (DataBase, DataAccount, DataEntry)], ids=["plain", "dataclass"])
def mapped(request: pytest.FixtureRequest) -> Iterator[tuple[Session, Any]]:
    """A session, and an account of the database with one entry, not loaded."""
    base, account, entry = request.param
    engine = create_engine("sqlite://")
    base.metadata.create_all(engine)
    with Session(engine) as session:
        made = account(id=1, owner="Ada", balance=Decimal(10), note="none")
        session.add(made)
        made.entries.append(entry(id=1))
        session.commit()
        yield session, made
    engine.dispose()


STATE = {"id": 1, "owner": "Ada", "balance": Decimal(10), "note": "none"}


def state_of(symphony: Symphony, key: str) -> Any:
    """The live object's plain state."""
    record = symphony.world.record_for(key)
    return symphony.world.capture(record.obj, record.reference)


class TestMapped:
    async def test_a_commit_inside_the_block_is_the_change_alone(self, symphony: Symphony, mapped: tuple[Session, Any]) -> None:
        """The commit expires every attribute: what is stored are the columns, and the difference is what was changed."""
        session, account = mapped
        symphony.entities.add(account, "Account", "1")
        assert {**state_of(symphony, "Account:1")} == STATE
        for _ in range(2):
            async with symphony.transaction("Paid", actor="ann", claim=[account]):
                account.balance -= 3
                session.commit()
        changes = (await symphony.history("Account:1"))[-1].changes
        assert [(change.where, change.before, change.after) for change in changes] == [("balance", Decimal(7), Decimal(4))]

    @pytest.mark.parametrize("look", ["expire", "load relationship", "expunge and back", "refresh", "expire one"])
    async def test_what_is_loaded_changes_nothing(self, symphony: Symphony, mapped: tuple[Session, Any], look: str) -> None:
        """Attributes that are expired, deferred or loaded again, and relationships that are loaded, are no change."""
        session, account = mapped
        symphony.entities.add(account, "Account", "1")
        await symphony.flush()
        match look:
            case "expire":
                session.expire(account)
            case "expire one":
                session.expire(account, ["owner"])
            case "load relationship":
                assert len(account.entries) == 1
            case "refresh":
                session.refresh(account)
            case _:
                assert account.owner == "Ada"
                session.expunge(account)
                session.add(account)
        await symphony.flush()
        async with symphony.transaction("Looked", claim=[account]):
            assert account.owner == "Ada"
        assert len(await symphony.history("Account:1")) == 1

    async def test_a_detached_object_is_a_typed_error_and_no_deletion(self, symphony: Symphony, mapped: tuple[Session, Any]) -> None:
        """What cannot be loaded is named with the way out, nothing is recorded, and it goes on when the object is attached again."""
        session, account = mapped
        symphony.entities.add(account, "Account", "1")
        await symphony.flush()
        session.expire(account)
        session.expunge(account)
        with pytest.raises(UnstorableValueError, match=r"Account:1.*mapper.*expire_on_commit=False"):
            await symphony.flush()
        with pytest.raises(UnstorableValueError, match="mapper"):
            symphony.entities.record(account)
        assert len(await symphony.history("Account:1")) == 1
        session.add(account)
        account.owner = "Bob"
        await symphony.flush()
        changes = (await symphony.history("Account:1"))[-1].changes
        assert [(change.where, change.after) for change in changes] == [("owner", "Bob")]

    async def test_a_rollback_sets_the_columns_that_differ(self, symphony: Symphony, mapped: tuple[Session, Any]) -> None:
        """And no others, so that the session has nothing to write but these."""
        session, account = mapped
        symphony.entities.add(account, "Account", "1")
        with pytest.raises(ZeroDivisionError):
            async with symphony.transaction("Failed", claim=[account]):
                account.balance = Decimal(0)
                session.commit()
                raise ZeroDivisionError
        assert (account.balance, account.owner) == (Decimal(10), "Ada")
        assert {attribute.key for attribute in account._sa_instance_state.attrs if attribute.history.has_changes()} == {"balance"}

    async def test_a_mapped_object_inside_another_is_refused_with_the_way_out(
        self, symphony: Symphony, mapped: tuple[Session, Any]
    ) -> None:
        """Unless it is an entity: then it is a reference."""
        _, account = mapped
        with pytest.raises(UnstorableValueError, match=r"Folder:f: the value at inside.*object of a mapper"):
            symphony.entities.add(Folder("f", account))
        symphony.entities.add(account, "Account", "1")
        symphony.entities.add(Folder("f", account))
        assert state_of(symphony, "Folder:f")["inside"].key == "Account:1"


@dataclass
class Folder:
    id: str
    inside: Any


class Column:
    """A field of the two stand-ins below: its value is kept in `values`, by name, and loaded when it is asked for."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.attname = self.name = name

    def __get__(self, obj: Any, owner: type) -> Any:
        if obj is None:
            return self
        if self.name not in obj.values:
            obj.values[self.name] = f"loaded {self.name}"
        return obj.values[self.name]

    def __set__(self, obj: Any, value: Any) -> None:
        obj.values[self.name] = value


class OfDjangosShape:
    def __init__(self) -> None:
        self.__dict__["values"] = {}
        self.__dict__["cached"] = object()

    name = Column()
    place = Column()

    class _meta:
        pass


OfDjangosShape._meta.concrete_fields = [OfDjangosShape.__dict__["name"], OfDjangosShape.__dict__["place"]]  # type: ignore[attr-defined]


class OfPeeweesShape(OfDjangosShape):
    class _meta:
        sorted_field_names = ["name", "place"]
        fields = {"name": Column(), "place": Column()}


class WithDescriptors:
    name = Column()
    place = Column()

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    @property
    def values(self) -> dict[str, Any]:
        return self._values


@pytest.mark.parametrize("cls", [OfDjangosShape, OfPeeweesShape, WithDescriptors])
async def test_values_that_are_kept_elsewhere_are_read_by_asking(symphony: Symphony, cls: Any) -> None:
    """By the fields of the mapper, or the descriptors of the class; what is loaded in between is no change, and a rollback sets them."""
    obj = symphony.entities.add(cls(), "Thing", "1")
    assert state_of(symphony, "Thing:1") == {"name": "loaded name", "place": "loaded place"}
    await symphony.flush()
    obj.values.clear()
    await symphony.flush()
    assert len(await symphony.history("Thing:1")) == 1
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Failed", claim=[obj]):
            obj.name = "x"
            raise ZeroDivisionError
    assert obj.name == "loaded name"


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow", validate_assignment=True)
    id: str
    lines: list[int] = []
    names: dict[str, int] = {}
    _hidden: int = pydantic.PrivateAttr(default=1)


class Plain:
    def __init__(self) -> None:
        self.id = "1"
        self.lines: list[int] = []
        self.names: dict[str, int] = {}
        self.marks: set[int] = set()
        self.inner = Inner()

    @cached_property
    def total(self) -> int:
        return sum(self.lines)


@dataclass
class Inner:
    values: list[int] = field(default_factory=list)


class Slots:
    __slots__ = ("id", "lines", "names", "other")

    def __init__(self) -> None:
        self.id = "1"
        self.lines: list[int] = []
        self.names: dict[str, int] = {}


def opened() -> Open:
    return Open.model_validate({"id": "1", "more": [1]})


def added(obj: Any) -> None:
    obj.other = "added"


def removed(obj: Any) -> None:
    del obj.names


def replaced(obj: Any) -> None:
    obj.lines = [9]
    obj.names = {"z": 1}


def in_place(obj: Any) -> None:
    obj.lines.extend([1, 2])
    obj.names.update(a=1, b=2)


def swapped(obj: Any) -> None:
    obj.lines, obj.names = [*obj.names], {"a": 1}


def unstorable(obj: Any) -> None:
    obj.lines.append(object())


CHANGES = [added, removed, replaced, in_place, unstorable]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("make", [Plain, Slots, opened])
@pytest.mark.parametrize("inner", [False, True])
async def test_a_rollback_is_exact(symphony: Symphony, make: Any, change: Any, inner: bool) -> None:
    """Added attributes go, removed ones come, and the containers in hand are the ones that stand there again, with their content."""
    obj = symphony.entities.add(make(), "Thing")
    obj.lines += [5]
    obj.names["y"] = 7
    await symphony.flush()
    lines, names, before = obj.lines, obj.names, state_of(symphony, "Thing:1")
    versions = len(await symphony.history("Thing:1"))
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Failed", claim=[obj]):
            if inner:
                async with symphony.transaction("Inner"):
                    ends_well = change is not unstorable and (change is not removed or make is not opened)
                    change(obj) if ends_well else in_place(obj)
            change(obj) if not inner else in_place(obj) if change is not removed else None
            raise ZeroDivisionError
    assert state_of(symphony, "Thing:1") == before
    assert not hasattr(obj, "other")
    assert obj.lines is lines
    assert obj.names is names
    assert (lines, names) == ([5], {"y": 7})
    await symphony.flush()
    assert len(await symphony.history("Thing:1")) == versions


async def test_nested_objects_and_sets_in_hand_are_put_back_too(symphony: Symphony) -> None:
    """Also where they were replaced; a value that was computed from what is undone is computed anew."""
    obj = symphony.entities.add(Plain(), "Thing")
    inner, values, marks = obj.inner, obj.inner.values, obj.marks
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Failed", claim=[obj]):
            values.append(1)
            marks.add(1)
            obj.inner, obj.marks = Inner([2]), {3}
            obj.lines.append(4)
            assert obj.total == 4
            raise ZeroDivisionError
    assert obj.inner is inner
    assert inner.values is values
    assert obj.marks is marks
    assert (values, marks, obj.total) == ([], set(), 0)


async def test_a_computed_value_that_is_cached_is_no_part_of_the_state(symphony: Symphony) -> None:
    """Reading it changes nothing."""
    obj = symphony.entities.add(Plain(), "Thing")
    await symphony.flush()
    assert obj.total == 0
    await symphony.flush()
    assert len(await symphony.history("Thing:1")) == 1


async def test_extras_of_an_open_model_are_part_of_its_state(symphony: Symphony) -> None:
    """As an entity and inside another object, in a rollback too."""
    model = symphony.entities.add(opened(), "Thing")
    assert state_of(symphony, "Thing:1") == {"id": "1", "lines": [], "names": {}, "more": [1]}
    await symphony.flush()
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Failed", claim=[model]):
            model.more = 5  # type: ignore[attr-defined]
            model.new = 6  # type: ignore[attr-defined]
            raise ZeroDivisionError
    assert model.model_extra == {"more": [1]}
    folder = symphony.entities.add(Folder("f", opened()))
    assert state_of(symphony, "Folder:f")["inside"].data == {"id": "1", "lines": [], "names": {}, "more": [1]}
    assert folder.inside.more == [1]


class Undeclared(Inner):
    def __init__(self) -> None:
        super().__init__()
        self.own = 1


class Pair(NamedTuple):
    one: int
    two: Any = None


@attrs.frozen
class Badge:
    text: str


async def test_attributes_beside_the_fields_of_a_base_are_not_lost_in_silence(symphony: Symphony) -> None:
    """A class that derives from one with declared fields, and is not declared itself, is refused with the way out."""
    with pytest.raises(EntityTypeError, match="its 'own' would be lost"):
        symphony.entities.add(Undeclared(), "Thing", "1")
    with pytest.raises(UnstorableValueError, match=r"Folder:f: the value at inside.*'own' would be lost"):
        symphony.entities.add(Folder("f", Undeclared()))


async def test_named_tuples_and_sets_of_frozen_objects_are_values(symphony: Symphony) -> None:
    """A named tuple keeps its class; a set holds frozen objects, and refuses others by path."""
    symphony.entities.add(Folder("f", [Pair(1, {"a": 1}), {Badge("x")}]))
    state = state_of(symphony, "Folder:f")["inside"]
    assert (state[0].kind, state[0].data) == ("value", {"one": 1, "two": {"a": 1}})
    assert {type(item) for item in state[1]} == {Tagged}

    @attrs.define(eq=False)
    class Hashable:
        text: str = ""

    with pytest.raises(UnstorableValueError, match=r"Folder:g: the value at inside\.a cannot be stored.*member of a set"):
        symphony.entities.add(Folder("g", {"a": {Hashable()}}))


async def test_an_object_that_refuses_to_be_put_back_is_named_and_the_others_are_put_back(symphony: Symphony) -> None:
    """It is out of step with the log; nothing else is."""

    class Refusing(EntityRestorer):
        entity_type = "Refusing"  # type: ignore[assignment]

        async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
            raise NotImplementedError

        def reset(self, entity: Any, data: dict[str, Any]) -> None:
            raise LookupError("no")

    symphony.restore_manager.register_restorer(Refusing())
    refusing, other = symphony.entities.add(Folder("r", 1), "Refusing"), symphony.entities.add(Folder("f", 1))
    await symphony.flush()
    with pytest.raises(ZeroDivisionError):
        async with symphony.transaction("Failed", claim=[refusing, other]):
            refusing.inside = other.inside = 2
            raise ZeroDivisionError
    assert other.inside == 1
    assert "a rollback could not put Refusing:r back" in str(symphony.world.record_for(refusing).broken)
    symphony.restore_manager.unregister_restorer("Refusing")
    await symphony.refresh(refusing)
    assert refusing.inside == 1
