"""Time zones of moments that entities and runs hold: in another process they are what they were."""

from __future__ import annotations

import datetime as dt
from dataclasses import field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pydantic

from symphony_es import Symphony, entity, part, value
from symphony_es.workflow import RunContext

_HOUR = dt.timedelta(hours=1)
_ZONES: list[dt.tzinfo] = [ZoneInfo("CET"), dt.timezone(_HOUR, "CET"), dt.timezone(_HOUR), dt.UTC, dt.timezone(dt.timedelta(0), "UTC")]


@value
class ZonedStay:
    """A value with a moment."""

    at: dt.datetime


@part
class ZonedLeg:
    """A part with a moment."""

    at: dt.datetime
    stays: list[ZonedStay] = field(default_factory=list)


@entity
class ZonedJourney:
    """An entity with moments at every kind of place."""

    id: str = ""
    moments: list[dt.datetime] = field(default_factory=list)
    members: set[dt.datetime] = field(default_factory=set)
    legs: list[ZonedLeg] = field(default_factory=list)
    times: dict[str, dt.time] = field(default_factory=dict)


class ZonedModel(pydantic.BaseModel):
    """A model inside of a model, with moments."""

    at: dt.datetime
    inner: ZonedModel | None = None


def _moments() -> list[dt.datetime]:
    return [dt.datetime(2025, 1, index + 1, 12, tzinfo=zone) for index, zone in enumerate(_ZONES)]


def model_of_moments(context: RunContext) -> Any:
    """Give models that hold a moment each; one was read from JSON, with pydantic's own fixed offset."""
    return [
        *(ZonedModel(at=moment, inner=ZonedModel(at=moment)) for moment in _moments()),
        ZonedModel.model_validate_json('{"at": "2025-01-01T12:00:00+01:00"}'),
    ]


def _told(moments: list[dt.datetime]) -> list[tuple[Any, ...]]:
    return [(moment, type(moment.tzinfo), repr(moment.tzinfo), moment + 180 * 24 * _HOUR) for moment in moments]


async def test_zones_come_back_as_they_were(tmp_path: Path) -> None:
    """A named zone by its name, a fixed offset with the name that it was given: in lists, sets, parts, values, and outputs of steps."""
    given = _moments()
    async with Symphony(tmp_path) as symphony:
        symphony.functions.register("model_of_moments", model_of_moments)
        journey = ZonedJourney(id="j", moments=given, members=set(given), times={str(n): one.timetz() for n, one in enumerate(given)})
        journey.legs = [ZonedLeg(at=one, stays=[ZonedStay(at=one)]) for one in given]
        symphony.entities.add(journey)
        await symphony.workflows.execute_workflow(
            {"name": "n", "steps": [{"kind": "function", "name": "f", "function": "model_of_moments"}]}, {"at": given}, run_id="r"
        )
    async with Symphony(tmp_path) as symphony:
        symphony.types.register(ZonedModel)
        await symphony.resume()
        there = symphony.entities.get("ZonedJourney", "j")
        run = await symphony.entities.load("Workflow", "r")
        models = run.outputs["f"]
        for moments in (
            list(there.moments),
            sorted(there.members),
            [leg.at for leg in there.legs],
            [leg.stays[0].at for leg in there.legs],
            list(run.context["at"]),
            [model.at for model in models[:-1]],
            [model.inner.at for model in models[:-1]],
        ):
            assert _told(moments) == _told(given)
        assert [(type(one.tzinfo), one.tzinfo) for one in there.times.values()] == [(type(one.tzinfo), one.tzinfo) for one in given]
        assert models[-1].at.tzinfo == dt.timezone(_HOUR), "another library's fixed offset is one of Python's afterwards"
