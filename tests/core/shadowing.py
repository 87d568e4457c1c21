"""What the tests of recording and of blocks share: an entity of many shapes, and the comparison of object, shadow and fold."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from symphony_es import Symphony, entity, part
from symphony_es.core.past.resting import has_ended, run_of_task
from symphony_es.core.world.shadow import compare_with_shadow
from symphony_es.events.fold import Fold
from symphony_es.events.values import plain_equal

__all__ = ["Crate", "Parcel", "order_of", "states_agree"]


@part
class Parcel:
    """A part that changes in place, and holds others."""

    weight: int = 0
    notes: list[Any] = field(default_factory=list)
    inside: dict[str, Any] = field(default_factory=dict)


@entity
class Crate:
    """An entity with a field of every kind."""

    id: str = ""
    number: int = 0
    top: Any = None
    parcels: list[Any] = field(default_factory=list)
    named: dict[Any, Any] = field(default_factory=dict)
    labels: set[Any] = field(default_factory=set)


async def states_agree(symphony: Symphony) -> None:
    """Flush; object, shadow and fold of each entity must be the same, and so must what a new resume would bring back.

    Runs that have ended may be at rest, with their tasks; the objects of theirs that somebody has in hand are looked at as well.
    """
    await symphony.flush()
    fold = Fold()
    await symphony.log.replay(fold, await symphony.log.refresh_head())
    world = symphony.world
    folded = {key: state.data for key, state in fold.states.items() if state.data is not None and not key.startswith("symphony.")}
    resting = {key for key in folded if key not in world.records}
    assert world.records.keys() == folded.keys() - resting
    assert all(has_ended(fold.states[key]) or run_of_task(fold.states[key]) in resting for key in resting)
    in_hand = {key: record for key in resting if (record := world.at_rest(key)) is not None}
    for key, record in (world.records | in_hand).items():
        assert compare_with_shadow(record) == []
        assert plain_equal(record.shadow, folded[key]), f"{key}: the shadow is {record.shadow}, the log has {folded[key]}"


def order_of(value: Any) -> Any:
    """The order of all keys in a live value."""
    if isinstance(value, dict):
        return [(key, order_of(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [order_of(item) for item in value]
    if isinstance(value, Parcel):
        return [order_of(value.notes), order_of(value.inside)]
    return None
