"""An entity that no object can be made of harms nobody else: the others come back, it is kept whole, and the report says what to do."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import EntityReference, Symphony, entity, part, restore_manager, value
from symphony_es.core.resume import building as builder_module
from symphony_es.core.resume.building import WorldBuilder
from symphony_es.core.state import EntityRestorer, RestorationContext, UnrestoredEntity
from symphony_es.errors import EntityOutOfStepError, RestorationError

from ..conftest import Opener


@dataclasses.dataclass
class Gauge:
    """A class that does not track itself."""

    id: str
    level: int = 0


@part
class Dial:
    """What changes in place, so that no tuple can hold it."""

    shows: int = 0


class Rows(list[int]):
    """A container of the application's own."""


@value
class Wire:
    """A value with a hook, which is called again when what the value refers to is connected."""

    to: Any

    def __restored__(self) -> None:
        if FAILING and not isinstance(self.to, EntityReference):
            raise FAILING[0]


FAILING: list[BaseException] = []


def restorer(
    version: int,
    restore: Callable[..., Any] | None = None,
    upcast: Callable[..., Any] | None = None,
    capture: Callable[..., Any] | None = None,
) -> EntityRestorer:
    """A restorer of gauges, as one release of an application has it."""

    class GaugeRestorer(EntityRestorer):
        restored_class = Gauge
        state_version = version

        @property
        def entity_type(self) -> str:
            return "Gauge"

        async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
            return restore(data, context) if restore is not None else Gauge(**data)

        def upcast(self, data: dict[str, Any], from_version: int) -> dict[str, Any]:
            if upcast is None:
                return super().upcast(data, from_version)
            made: dict[str, Any] = upcast(data, from_version)
            return made

        def capture(self, entity: Any) -> dict[str, Any]:
            held: dict[str, Any] = super().capture(entity) if capture is None else capture(entity)
            return held

    return GaugeRestorer()


def declare(**options: Any) -> type[Any]:
    """The declared class, as one release of an application has it."""
    hook = options.pop("hook", None)

    @entity(type="Meter", **options)
    class Meter:
        id: str = ""
        level: int = 0

        def __restored__(self) -> None:
            if hook is not None:
                hook()

    return Meter


@entity
class Reading:
    """What refers to it, and is not concerned."""

    id: str = ""
    source: Any = None


def fail(*_: Any) -> Any:
    """Code of an application that meets a state it was not written for."""
    raise KeyError("sku")


def half_made(data: dict[str, Any], context: RestorationContext) -> Any:
    """Make the object, and fail afterwards."""
    context.symphony.entities.add(Gauge(**data))
    raise ValueError("too late")


def locked(data: dict[str, Any], context: RestorationContext) -> Any:
    """A new release of a class has a field that nothing can store."""
    return Gauge(data["id"], threading.Lock())  # type: ignore[arg-type]


def of_parts(data: dict[str, Any], version: int) -> dict[str, Any]:
    """A tuple, whose members do not change, of what does."""
    return data | {"level": (Dial(1),)}


def of_rows(data: dict[str, Any], version: int) -> dict[str, Any]:
    """A list of a class that would not come back."""
    return data | {"level": Rows([1])}


KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "restorer: newer than the code": ("Gauge", {"version": 1}, "newer code has written it"),
    "restorer: no upcast": ("Gauge", {"version": 4}, "define upcast"),
    "restorer: upcast raises": ("Gauge", {"version": 4, "upcast": fail}, "the upcast of Gauge from version 3 to 4 failed: KeyError"),
    "restorer: upcast returns nothing": ("Gauge", {"version": 4, "upcast": lambda data, version: None}, "returned NoneType"),
    "restorer: raises": ("Gauge", {"version": 3, "restore": fail}, "could not restore Gauge:1: KeyError"),
    "restorer: returns nothing": ("Gauge", {"version": 3, "restore": lambda data, context: None}, "returned None"),
    "restorer: fails when it has made it": ("Gauge", {"version": 3, "restore": half_made}, "too late"),
    "restorer: what it makes holds a lock": ("Gauge", {"version": 3, "restore": locked}, "_thread.lock is no plain data"),
    "restorer: capture raises": ("Gauge", {"version": 3, "capture": fail}, "GaugeRestorer.capture could not read it: KeyError"),
    "class: newer than the code": ("Meter", {"state_version": 1}, "newer code has written it"),
    "class: newer than its upcast": ("Meter", {"state_version": 2, "upcast": lambda data, version: data}, "newer code has written it"),
    "class: no upcast": ("Meter", {"state_version": 4}, "define upcast"),
    "class: upcast raises": ("Meter", {"state_version": 4, "upcast": fail}, "the upcast of Meter from version 3 to 4 failed: KeyError"),
    "class: upcast returns nothing": ("Meter", {"state_version": 4, "upcast": lambda data, version: None}, "returned NoneType"),
    "class: upcast returns a tuple of parts": ("Meter", {"state_version": 4, "upcast": of_parts}, "cannot be stored"),
    "class: upcast returns a list of its own": ("Meter", {"state_version": 4, "upcast": of_rows}, "would come back as a plain list"),
}


def release(symphony: Symphony, name: str = "", **options: Any) -> None:
    """Put the code of a release in force: that of one type is as the options say, the other as it was written."""
    declare(**(options if name == "Meter" else {"state_version": 3}))
    symphony.restore_manager.register_restorer(restorer(**(options if name == "Gauge" else {"version": 3})), replace=True)


async def written(symphony: Symphony) -> None:
    """A gauge, a meter, and a reading that refers to both, by the first release."""
    release(symphony)
    meter = restore_manager.restorer_for("Meter")
    assert meter is not None
    assert meter.restored_class is not None
    gauge, made = symphony.entities.add(Gauge("1", 7)), symphony.entities.add(meter.restored_class(id="1", level=7))
    symphony.entities.add(Reading(id="r", source=[gauge, made]))
    await symphony.flush()


@pytest.mark.parametrize("kind", KINDS)
async def test_the_others_come_back(kind: str, reopen: Opener) -> None:
    """Resume, the objects of a view and a rewind: the entity is kept whole and reported, strict raises, and mended code makes it."""
    name, options, words = KINDS[kind]
    symphony = await reopen()
    await written(symphony)
    checkpoint = await symphony.create_checkpoint("written")
    symphony = await reopen()
    release(symphony, name, **options)
    with pytest.raises(RestorationError, match=words):
        await symphony.resume(strict=True)
    assert symphony.entities.all() == []
    for report in (await symphony.resume(), await symphony.resume_from_checkpoint(checkpoint) and symphony.last_resume):
        assert report is not None
        assert list(report.unrestored) == [f"{name}:1"]
        assert words in report.unrestored[f"{name}:1"]
        kept = symphony.entities.get(f"{name}:1")
        assert isinstance(kept, UnrestoredEntity)
        assert kept.state == {"id": "1", "level": 7}
        reading = symphony.entities.get(Reading, "r")
        assert kept in list(reading.source)
        assert [type(held).__name__ for held in reading.source].count("UnrestoredEntity") == 1
    past = await (await symphony.at(checkpoint)).objects()
    assert isinstance(past.get(f"{name}:1"), UnrestoredEntity)
    reading = symphony.entities.get(Reading, "r")
    reading.source = reading.source[::-1]  # what refers to it can be changed
    await symphony.flush()
    with pytest.raises(RestorationError, match=words):
        other = await reopen()
        release(other, name, **options)
        await other.entities.load(f"{name}:1")
    symphony = await reopen()
    release(symphony)
    assert (await symphony.resume()).complete
    assert symphony.entities.get(f"{name}:1").level == 7


@pytest.mark.parametrize("kind", KINDS)
async def test_a_reader_that_follows_newer_code_goes_on(kind: str, tmp_path: Path) -> None:
    """Following is not ended by an entity that this code makes no object of; the others are followed, and nobody waits for ever."""
    name, options, _words = KINDS[kind]
    async with Symphony(tmp_path) as writer:
        await written(writer)
        async with Symphony(tmp_path, read_only=True, follow=True) as reader:
            release(reader, name, **options)
            changed = writer.entities.get(f"{name}:1")
            changed.level = 8
            await writer.flush()
            writer.entities.get(Reading, "r").source.append("after")
            await writer.flush()
            following = reader._following
            assert following is not None
            await following.wait_for(writer.log.head)
            assert reader.entities.get(Reading, "r").source[-1] == "after"
            seen = reader.entities.get(f"{name}:1")
            assert isinstance(seen, UnrestoredEntity) or seen.level == 8
            assert any(seen is held for held in reader.entities.get(Reading, "r").source)


async def test_a_value_that_refuses_what_it_refers_to_costs_its_own_entity(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting a value makes it anew, and calls its hook: what that raises ends nobody else's resume."""
    symphony = await reopen()
    reading = symphony.entities.add(Reading(id="r"))
    symphony.entities.add(Reading(id="s", source=Wire(reading)))
    symphony = await reopen()
    monkeypatch.setattr(f"{__name__}.FAILING", [PermissionError("sealed")])
    with pytest.raises(RestorationError, match=r"Reading:s cannot be made: its object takes no Reading:r at source\.to: PermissionError"):
        await symphony.resume(strict=True)
    report = await symphony.resume()
    assert list(report.unrestored) == ["Reading:s"]
    assert isinstance(symphony.entities.get("Reading:r"), Reading)


async def test_a_refresh_says_what_cannot_be_stored(reopen: Opener) -> None:
    """It concerns the one entity that is refreshed: the error says which, and what to do."""
    symphony = await reopen()
    symphony.restore_manager.register_restorer(restorer(3), replace=True)
    gauge = symphony.entities.add(Gauge("1", 7))
    await symphony.flush()
    symphony.restore_manager.register_restorer(restorer(3, capture=fail), replace=True)
    with pytest.raises(RestorationError, match="Gauge:1 has been put back, but the object made of it cannot be stored"):
        await symphony.refresh(gauge)
    symphony.restore_manager.register_restorer(restorer(3), replace=True)
    await symphony.refresh(gauge)
    assert gauge.level == 7


@value
class PickyWire:
    """A value that takes no state in the place of an object."""

    to: Any

    def __post_init__(self) -> None:
        if isinstance(self.to, UnrestoredEntity):
            raise PermissionError("no states")


@pytest.mark.parametrize("follows", [False, True])
async def test_what_refuses_to_hold_a_state_is_given_up_with_it(reopen: Opener, tmp_path: Path, *, follows: bool) -> None:
    """A hook has failed after all was connected: the state comes in the object's place, and who refuses that costs itself only."""
    symphony = await reopen()
    release(symphony)
    meter = symphony.entities.add(declare(state_version=3)(id="1"))
    first = symphony.entities.add(Reading(id="a", source=PickyWire(meter)))
    symphony.entities.add(Reading(id="b", source=[PickyWire(first), meter]))
    symphony.entities.add(Reading(id="c", source=[meter]))
    await symphony.flush()
    fails: list[bool] = [] if follows else [True]

    def hook() -> None:
        if fails:
            raise KeyError("sku")

    if follows:
        async with Symphony(tmp_path / "state", read_only=True, follow=True) as reader:
            release(reader, "Meter", state_version=3, hook=hook)
            await reader.resume()
            fails.append(True)
            meter.level = 8
            await symphony.flush()
            assert reader._following is not None
            await reader._following.wait_for(symphony.log.head)
            assert reader.following_failure is None
            told = {str(key): reader.entities.get(key) for key in ("Meter:1", "Reading:a", "Reading:b", "Reading:c")}
    else:
        symphony = await reopen()
        release(symphony, "Meter", state_version=3, hook=hook)
        with pytest.raises(RestorationError, match="Meter:1"):
            await symphony.resume(strict=True)
        report = await symphony.resume()
        assert report.restored == 1
        assert list(report.unrestored) == ["Meter:1", "Reading:a", "Reading:b"]
        told = {key: symphony.entities.get(key) for key in (*report.unrestored, "Reading:c")}
    assert [key for key, obj in told.items() if isinstance(obj, UnrestoredEntity)] == ["Meter:1", "Reading:a", "Reading:b"]
    assert "no Meter:1 at source.to" in told["Reading:a"].reason or "no state of Meter:1 at source.to" in told["Reading:a"].reason
    assert told["Reading:c"].source == [told["Meter:1"]]


async def test_many_that_are_given_up_cost_one_look_at_what_refers_to_them(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not one each, over all references of all."""
    symphony = await reopen()
    meters = [symphony.entities.add(declare(state_version=3)(id=f"{number}")) for number in range(20)]
    symphony.entities.add(Reading(id="r", source=meters))
    symphony = await reopen()
    release(symphony, "Meter", state_version=3, hook=fail)
    looked: list[str] = []
    referring = WorldBuilder._referring

    def counting(self: WorldBuilder) -> Any:
        looked.append("once")
        return referring(self)

    monkeypatch.setattr(WorldBuilder, "_referring", counting)
    report = await symphony.resume()
    assert len(report.unrestored) == 20
    assert len(looked) == 2
    assert all(isinstance(meter, UnrestoredEntity) for meter in symphony.entities.get(Reading, "r").source)


async def test_looking_for_what_upcasts_refer_to_holds_up_nobody(reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: others have their turn in between."""
    symphony = await reopen()
    release(symphony, "Gauge", version=3)
    for number in range(50):
        symphony.entities.add(Gauge(f"{number}", 7))
    symphony = await reopen()
    release(symphony, "Gauge", version=4, upcast=lambda data, version: data)
    turns: list[int] = []
    breathe = WorldBuilder._breathe

    async def counting(self: WorldBuilder) -> bool:
        turns.append(1)
        return await breathe(self)

    class Watching(WorldBuilder):
        async def upcast_targets(self) -> set[str]:
            before = len(turns)
            found = await super().upcast_targets()
            breathed.append(len(turns) - before)
            return found

    breathed: list[int] = []
    monkeypatch.setattr(WorldBuilder, "_breathe", counting)
    monkeypatch.setattr(builder_module, "WorldBuilder", Watching)
    await symphony.resume()
    assert breathed == [50]


@pytest.mark.parametrize("error", [KeyError, lambda: SystemExit(3), asyncio.CancelledError])
async def test_a_refresh_that_fails_leaves_nobody_in_doubt(reopen: Opener, error: Callable[[], BaseException]) -> None:
    """It is an error of this entity's, which stays out of step until a refresh has put it back: the object is not what the log has."""
    symphony = await reopen()
    mended = restorer(3)
    symphony.restore_manager.register_restorer(mended, replace=True)
    gauge = symphony.entities.add(Gauge("1", 7))
    await symphony.flush()
    gauge.level = 8
    broken = restorer(3)
    broken.reset = raising(error)  # type: ignore[method-assign]
    symphony.restore_manager.register_restorer(broken, replace=True)
    with pytest.raises(RestorationError, match=r"Gauge:1 could not be put back: .*; mend its class or restorer, and refresh again"):
        await symphony.refresh(gauge)
    with pytest.raises(EntityOutOfStepError, match="Gauge:1"):
        await symphony.flush()
    symphony.restore_manager.register_restorer(mended, replace=True)
    await symphony.refresh(gauge)
    assert gauge.level == 7
    gauge.level = 9
    await symphony.flush()


async def test_a_refresh_whose_upcast_makes_what_cannot_be_stored(reopen: Opener) -> None:
    """It says which entity that is, wherever the object is read."""
    symphony = await reopen()
    await written(symphony)
    meter = symphony.entities.get("Meter:1")
    release(symphony, "Meter", state_version=4, upcast=of_rows)
    with pytest.raises(RestorationError, match="Meter:1 has been put back, but the object made of it cannot be stored"):
        await symphony.refresh(meter)
    release(symphony)
    await symphony.refresh(meter)
    assert meter.level == 7


ODD: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(3),
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "BaseExceptionGroup": lambda: BaseExceptionGroup("several", [SystemExit(1)]),
}


def raising(error: Callable[[], BaseException]) -> Callable[..., Any]:
    """Code of the application that raises it."""

    def fails(*_: Any) -> Any:
        raise error()

    return fails


@pytest.mark.parametrize("where", ["restore", "capture", "upcast", "class", "hook", "value's hook"])
@pytest.mark.parametrize("name", ODD)
async def test_whatever_code_raises_is_its_entitys_failure(name: str, where: str, reopen: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """`SystemExit` of a hook, or a cancellation that nobody asked for, ends neither the program nor the resume of the others."""
    fails = raising(ODD[name])
    symphony = await reopen()
    await written(symphony)
    symphony.entities.add(Reading(id="v", source=Wire(symphony.entities.get("Reading:r"))))
    checkpoint = await symphony.create_checkpoint("written")
    symphony = await reopen()
    release(symphony)
    if where == "class":
        release(symphony, "Meter", state_version=4, upcast=fails)
    elif where == "hook":
        release(symphony, "Meter", state_version=3, hook=fails)
    elif where == "value's hook":
        monkeypatch.setattr(f"{__name__}.FAILING", [ODD[name]()])
    else:
        release(symphony, "Gauge", version=4 if where == "upcast" else 3, upcast=fails, **({where: fails} if where != "upcast" else {}))
    key = {"class": "Meter:1", "hook": "Meter:1", "value's hook": "Reading:v"}.get(where, "Gauge:1")
    with pytest.raises(RestorationError, match=name):
        await symphony.resume(strict=True)
    for report in (await symphony.resume(), await symphony.resume_from_checkpoint(checkpoint) and symphony.last_resume):
        assert report is not None
        assert list(report.unrestored) == [key]
        assert name in report.unrestored[key]
    assert isinstance(symphony.entities.get("Reading:r"), Reading)


async def test_a_cancellation_that_somebody_asked_for_ends_the_resume(reopen: Opener) -> None:
    """It is not the restorer's failure; the objects in hand stay the live ones, and the next resume does it all."""
    waits = asyncio.Event()

    class Waiting(EntityRestorer):
        entity_type = "Gauge"
        restored_class = Gauge

        async def restore(self, entity_id: str, data: dict[str, Any], context: RestorationContext) -> Any:
            waits.set()
            await asyncio.sleep(0 if waiting else 3600)
            return Gauge(**data)

    waiting: list[str] = []
    symphony = await reopen()
    symphony.restore_manager.register_restorer(Waiting(), replace=True)
    gauge = symphony.entities.add(Gauge("1", 7))
    task = asyncio.create_task(symphony.resume())
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert symphony.entities.get("Gauge:1") is gauge
    waiting.append("no more")
    assert (await symphony.resume()).complete


async def test_what_interrupts_the_program_ends_the_resume(reopen: Opener) -> None:
    """Whoever presses Control-C means the program, wherever it is just then."""
    symphony = await reopen()
    await written(symphony)
    release(symphony, "Meter", state_version=4, upcast=raising(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        await symphony.resume()
    assert symphony.entities.get("Meter:1").level == 7
