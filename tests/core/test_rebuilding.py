"""Objects of foreign classes inside a foreign object, stored by one release of a class and made again by the next."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

import attrs
import pydantic
import pytest

from symphony_es.core.objects.restorers import UnrestoredEntity
from symphony_es.core.state import EntityRestorer, RestorationContext
from symphony_es.errors import ConfigurationError


@dataclass
class Shelf:
    id: str
    held: Any


class ShelfRestorer(EntityRestorer):
    entity_type = "Shelf"  # type: ignore[assignment]

    async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
        return Shelf(**data)


def dataclass_of(release: int) -> Any:
    @dataclass
    class Option:
        depth: int = 1
        if release == 2:
            tags: list[str] = field(default_factory=list)

        def __post_init__(self) -> None:
            self._client = f"client {self.depth}"

    return Option


def frozen_of(release: int) -> Any:
    @dataclass(frozen=True, slots=True)
    class Option:
        depth: int = 1
        if release == 2:
            tags: list[str] = field(default_factory=list)

    return Option


def with_init_var_of(release: int) -> Any:
    @dataclass
    class Option:
        depth: int = 1
        given: InitVar[int] = 2
        if release == 2:
            tags: list[str] = field(default_factory=list)

        def __post_init__(self, given: int) -> None:
            self._client = f"client {self.depth}"

    return Option


def attrs_of(release: int) -> Any:
    @attrs.define(slots=False)
    class Option:
        depth: int = 1
        if release == 2:
            tags: list[str] = attrs.field(default=attrs.Factory(lambda self: [], takes_self=True))

        def __attrs_post_init__(self) -> None:
            self._client = f"client {self.depth}"

    return Option


def model_of(release: int) -> Any:
    class Option(pydantic.BaseModel):
        depth: int = 1
        if release == 2:
            tags: list[str] = pydantic.Field(default_factory=list)
        _client: str = pydantic.PrivateAttr(default="")

        def model_post_init(self, context: Any) -> None:
            self._client = f"client {self.depth}"

    return Option


def validated_of(release: int) -> Any:
    class Option(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)
        depth: int = pydantic.Field(default=1, alias="howDeep")
        if release == 2:
            tags: list[str] = []
        _client: str = pydantic.PrivateAttr(default="")

        @pydantic.field_validator("depth")
        @classmethod
        def doubled(cls, value: int) -> int:
            return 2 * value

        @pydantic.model_validator(mode="after")
        def connect(self) -> Any:
            self._client = f"client {self.depth}"
            return self

    return Option


def named_tuple_of(release: int) -> Any:
    class Option(NamedTuple):
        depth: int = 1
        if release == 2:
            tags: list[str] = []

    return Option


KINDS = [dataclass_of, frozen_of, with_init_var_of, attrs_of, model_of, named_tuple_of]


async def shelved(reopen: Any, held: Any) -> Any:
    """A Symphony of the next process, in which the restorer is registered and nothing is resumed yet."""
    symphony = await reopen()
    symphony.entities.add(Shelf("1", held))
    symphony = await reopen()
    symphony.restore_manager.register_restorer(ShelfRestorer())
    return symphony


@pytest.mark.parametrize("kind", KINDS)
async def test_a_new_field_takes_its_default_and_what_is_not_stored_comes_back(reopen: Any, kind: Any) -> None:
    """In lists, dicts and tuples; what `__post_init__` and its like make is there again."""
    option = kind(1)
    symphony = await shelved(reopen, [option(depth=5), {"a": option(depth=6)}, (option(depth=7),)])
    now = kind(2)
    symphony.restore_manager.types.register(now)
    report = await symphony.resume()
    assert not report.unrestored
    held = symphony.entities.get("Shelf:1").held
    for made, depth in ((held[0], 5), (held[1]["a"], 6), (held[2][0], 7)):
        assert type(made) is now
        assert (made.depth, made.tags) == (depth, [])
        if kind not in (frozen_of, named_tuple_of):
            assert made._client == f"client {depth}"
    assert [item.entity for item in report.different] == ["Shelf:1"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_removed_field_is_left_out_and_reported(reopen: Any, kind: Any) -> None:
    """The other way round: what the class lacks is no part of the object, and the report names it."""
    symphony = await shelved(reopen, kind(2)(depth=5, tags=["x"]))
    now = kind(1)
    symphony.restore_manager.types.register(now)
    report = await symphony.resume()
    assert symphony.entities.get("Shelf:1").held == now(depth=5)
    assert [(item.entity, item.paths) for item in report.different] == [("Shelf:1", (("held",),))]


async def test_validators_run_and_what_is_stored_stays_as_it_is(reopen: Any) -> None:
    """A validator that is not idempotent does nothing to a stored field, though it runs, by the field's name and not by its alias."""
    option = validated_of(1)
    stored = option(howDeep=5)
    assert stored.depth == 10
    symphony = await shelved(reopen, stored)
    now = validated_of(2)
    symphony.restore_manager.types.register(now)
    await symphony.resume()
    made = symphony.entities.get("Shelf:1").held
    assert (made.depth, made.tags, made._client) == (10, [], "client 20")


async def test_a_model_that_its_own_validators_would_refuse_comes_back_as_it_was(reopen: Any) -> None:
    """It was changed past them in its first process, so the state is what it is."""
    option = model_of(1)
    stored = option(depth=5)
    stored.depth = "five"
    symphony = await shelved(reopen, stored)
    symphony.restore_manager.types.register(model_of(1))
    await symphony.resume()
    assert symphony.entities.get("Shelf:1").held.depth == "five"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_older_version_passes_through_the_upcast(reopen: Any, kind: Any) -> None:
    """It gets the fields as they are stored and the version; without one the entity is kept whole and the report says what to do."""
    symphony = await shelved(reopen, kind(1)(depth=5))
    now, seen = kind(2), []

    def upcast(data: dict[str, Any], version: int) -> dict[str, Any]:
        seen.append((dict(data), version))
        return {"depth": data["depth"] * 100, "tags": ["upcast"]}

    symphony.restore_manager.types.register(now, state_version=2)
    report = await symphony.resume()
    assert isinstance(symphony.entities.get("Shelf:1"), UnrestoredEntity)
    assert "upcast" in report.unrestored["Shelf:1"]
    symphony.restore_manager.types.register(now, state_version=2, upcast=upcast)
    await symphony.resume()
    made = symphony.entities.get("Shelf:1").held
    assert (made.depth, made.tags) == (500, ["upcast"])
    assert seen == [({"depth": 5}, 1)]


async def test_a_class_that_is_not_known_keeps_the_entity_whole(reopen: Any) -> None:
    """It is named in the report with the call that mends it; no stored form reaches the restorer."""
    symphony = await reopen()

    def hidden() -> Any:
        @dataclass
        class Unheard:
            depth: int = 1

        return Unheard(5)

    symphony.entities.add(Shelf("1", [hidden()]))
    symphony = await reopen()
    symphony.restore_manager.register_restorer(ShelfRestorer())
    report = await symphony.resume()
    kept = symphony.entities.get("Shelf:1")
    assert isinstance(kept, UnrestoredEntity)
    assert "symphony.types.register(Unheard)" in report.unrestored["Shelf:1"]
    symphony.restore_manager.types.register(type(hidden()))
    await symphony.resume()
    assert symphony.entities.get("Shelf:1").held[0].depth == 5


async def test_a_new_field_without_a_default_is_named(reopen: Any) -> None:
    """The entity is kept whole; nothing raises a bare error."""

    def option(release: int) -> Any:
        @dataclass
        class Option:
            depth: int
            if release == 2:
                tags: list[str]

        return Option

    symphony = await shelved(reopen, option(1)(5))
    symphony.restore_manager.types.register(option(2))
    report = await symphony.resume()
    assert "has no 'tags'" in report.unrestored["Shelf:1"]


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    tricks: list[str] = []


class Owner(pydantic.BaseModel):
    pet: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]
    others: dict[str, Cat | Dog] = {}


class Names(pydantic.RootModel[list[str]]):
    pass


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    name: str = ""


@attrs.frozen
class Badge:
    text: str


@dataclass
class Parent:
    a: int = 1


@dataclass
class Child(Parent):
    b: Parent = field(default_factory=Parent)
    total: int = field(init=False, default=0)


@pytest.mark.parametrize(
    "held",
    [
        Owner(pet=Dog(tricks=["sit"]), others={"x": Cat(lives=3)}),
        Names(["a", "b"]),
        Open.model_validate({"name": "n", "more": {"a": [1]}}),
        Badge("x"),
        Child(2, Child(3)),
        {Badge("x"), Badge("y")},
    ],
    ids=lambda held: type(held).__name__,
)
async def test_what_was_stored_comes_back_equal(reopen: Any, held: Any) -> None:
    """Discriminated unions, root models, extras, frozen objects, subclasses, members of sets: nothing differs, nothing is reported."""
    symphony = await shelved(reopen, held)
    for cls in (Owner, Cat, Dog, Names, Open, Badge, Parent, Child):
        symphony.restore_manager.types.register(cls)
    report = await symphony.resume()
    assert (report.unrestored, report.different) == ({}, [])
    made = symphony.entities.get("Shelf:1").held
    assert made == held
    assert type(made) is type(held)


def test_a_version_is_a_whole_number_from_one() -> None:
    """Anything else is refused when the class is registered."""
    from symphony_es.core.objects.types import TypeTable

    for wrong in (0, -1, True, "2", 1.0):
        with pytest.raises(ConfigurationError):
            TypeTable().register(Parent, state_version=wrong)  # type: ignore[arg-type]


def test_what_the_application_registers_is_not_displaced_by_what_annotations_name() -> None:
    """Of two classes of one name the registered one stands, whichever table finds the other one later; a later registration replaces it."""
    from symphony_es.core.objects.types import TypeTable

    def named(base: type) -> tuple[Any, Any]:
        @dataclass
        class Item:
            a: int = 0

        def code(item: base) -> None:  # type: ignore[valid-type]
            assert item

        code.__annotations__ = {"item": Item}
        return Item, code

    old, code = named(Parent)
    new, _ = named(Parent)
    parent = TypeTable()
    child = TypeTable(parent)
    name = parent.register(new)
    for table in (parent, child):
        table.learn(code)
        table.look_again()
        assert table.class_of(name) is new
    parent.register(old)
    assert child.class_of(name) is old


def test_annotations_are_evaluated_when_a_name_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking again costs nothing until a tagged value is met, and then everything that was registered since counts."""
    from symphony_es.core.objects import types as module

    looked_at: list[Any] = []
    look_into = module.look_into
    monkeypatch.setattr(module, "look_into", lambda item, seen: (looked_at.append(item), look_into(item, seen))[1])

    @dataclass
    class Late:
        a: int = 0

    def code(item: Any) -> None:
        assert item

    code.__annotations__ = {"item": Late}
    table = module.TypeTable()
    table.learn(code)
    table.look_again()
    assert looked_at == []
    assert table.class_of(f"{__name__}:{Late.__qualname__}") is Late
    assert looked_at == [code]
    assert table.class_of(f"{__name__}:{Late.__qualname__}") is Late
    assert looked_at == [code]


async def test_an_upcast_that_keeps_the_names_of_the_fields_is_applied_once(reopen: Any) -> None:
    """What was adopted has the new version in the log, so that the next resume does not turn it again."""
    symphony = await shelved(reopen, model_of(1)(depth=5))
    for _ in range(3):
        symphony.restore_manager.register_restorer(ShelfRestorer(), replace=True)
        symphony.restore_manager.types.register(model_of(1), state_version=2, upcast=lambda data, version: {"depth": data["depth"] * 100})
        await symphony.resume()
        shelf = symphony.entities.get("Shelf:1")
        assert shelf.held.depth == 500
        shelf.id = f"{shelf.id}+"
        symphony = await reopen()


class Row(pydantic.BaseModel):
    sku: str
    price: int = 0
    count: int = 1


@pytest.mark.parametrize("keyed", [False, True])
async def test_a_change_and_an_addition_in_one_block_are_told_as_what_they_are(reopen: Any, keyed: bool) -> None:
    """The changed one is not told as removed and inserted; by most of its fields, or by its id."""
    symphony = await reopen()
    rows: list[Any] = [{"id": "a", "n": 1}, {"id": "b", "n": 1}] if keyed else [Row(sku="a"), Row(sku="b")]
    shelf = symphony.entities.add(Shelf("1", rows))
    await symphony.flush()
    async with symphony.transaction("Changed", claim=[shelf]):
        if keyed:
            shelf.held[0]["n"] = 2
            shelf.held.append({"id": "c", "n": 1})
        else:
            shelf.held[0].price = 2
            shelf.held.append(Row(sku="c"))
    changes = (await symphony.log.read_entity("Shelf:1"))[-1].changes
    assert [change[:2] for change in changes] == [(0, ("held", 0, "n" if keyed else "price")), (3, ("held",))]
