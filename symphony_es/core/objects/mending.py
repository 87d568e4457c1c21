"""Mending: giving nodes of an entity's object the content that its shadow says, after something in it was taken back.

What is taken back puts the nodes where they were; what happened to their content while they belonged nowhere was nobody's change, and
is not known. So their content is compared, and only what differs is made anew: objects in hand stay the objects they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import is_not
from typing import TYPE_CHECKING, Any

from symphony_es.core.objects.connect import connect
from symphony_es.core.objects.making import Making, enliven
from symphony_es.core.objects.places import detach, is_node
from symphony_es.core.objects.plain import MISSING, UNOWNED, kind_of, locate, own, plain_of, record_above
from symphony_es.errors import UnstorableValueError
from symphony_es.events.paths import ABSENT, value_at
from symphony_es.events.references import find_references
from symphony_es.events.values import Tagged, plain_equal

if TYPE_CHECKING:
    from symphony_es.core.objects.recorder import Recorded, Recorder

__all__ = ["made_of_plain", "mend", "nodes_in", "reorder"]


def nodes_in(value: Any) -> list[Any]:
    """Return the parts and tracked containers among a value and the members of the plain list or dict that it is; not those inside them."""
    cls = type(value)
    if cls in UNOWNED:
        return []
    if kind_of(value) in ("part", "container"):
        return [value]
    members = value.values() if cls is dict else value if cls is list else ()
    return [member for member in members if type(member) not in UNOWNED and kind_of(member) in ("part", "container")]


def mend(record: Recorded, nodes: Iterable[Any]) -> None:
    """Give nodes that stand in an entity's object the content that its shadow has at their places; costs their size."""
    if record.shadow is None:
        return
    for node in nodes:
        if type(node) not in UNOWNED and kind_of(node) in ("part", "container"):
            owner, path = locate(node)
            plain = value_at(record.shadow, path) if owner is record else ABSENT
            if plain is not ABSENT:
                _fill(node, plain, node._symphony_owner, record.world)


def reorder(live: Any, plain: dict[Any, Any]) -> None:
    """Bring the keys of a tracked dict into the order that they have in its shadow."""
    if isinstance(live, dict) and live.keys() == plain.keys() and list(live) != list(plain):
        _refill_dict(live, {key: live[key] for key in plain})


def _fill(live: Any, plain: Any, owner: Any, world: Recorder) -> Any:
    """Return what stands for a plain value: the live one, with its content put right, or a new one where it is another's,
    or another thing.
    """
    if type(live) in UNOWNED:
        return live if plain_equal(live, plain) else made_of_plain(plain, world)
    kind = kind_of(live)
    if kind in ("part", "container") and live._symphony_owner is not owner:
        return made_of_plain(plain, world)
    if kind == "part" and type(plain) is Tagged and plain.kind == "part" and live._symphony_spec.fields == tuple(plain.data):
        fields = _filled(live, plain.data.items(), live.__dict__, world)
        for name, member in fields.items():
            _stand(live, live.__dict__, name, member)
        return live
    if kind == "container":
        if isinstance(live, list) and type(plain) is list:
            members = list(_filled(live, enumerate(plain), dict(enumerate(live)), world).values())
            if len(live) != len(members) or any(map(is_not, live, members)):
                _refill_list(live, members)
            return live
        if isinstance(live, dict) and type(plain) is dict:
            items = _filled(live, plain.items(), live, world)
            if list(live) != list(items) or any(live[key] is not item for key, item in items.items()):
                _refill_dict(live, items)
            return live
        if isinstance(live, set) and type(plain) is set:
            if not _is(live, plain, world):
                set.clear(live)
                set.update(live, [made_of_plain(item, world) for item in plain])
            return live
    return live if _is(live, plain, world) else made_of_plain(plain, world)


def _filled(owner: Any, plain: Iterable[tuple[Any, Any]], held: Mapping[Any, Any], world: Recorder) -> dict[Any, Any]:
    """Return what stands under each key of an owner: what is held there, with its content put right, or a new one.

    A node that is held twice stands in the first of the two places: it can have one content.
    """
    members: dict[Any, Any] = {}
    seen: set[int] = set()
    for key, item in plain:
        live = held.get(key, MISSING)
        if live is MISSING or id(live) in seen:
            members[key] = made_of_plain(item, world)
            continue
        if is_node(live):
            seen.add(id(live))
        members[key] = _fill(live, item, owner, world)
    return members


def _is(live: Any, plain: Any, world: Recorder) -> bool:
    try:
        return plain_equal(plain_of(live, world), plain)
    except UnstorableValueError:
        return False


def made_of_plain(plain: Any, world: Recorder) -> Any:
    """Return a new live value of a plain one; its references are live objects where there are any."""
    made = enliven(plain, Making(world.types))
    for path, reference in find_references(plain):
        target = world.held(reference)
        if target is not None:
            made = connect(made, path, reference, target)
    return made


def _stand(owner: Any, held: dict[Any, Any], key: Any, live: Any) -> None:
    if held.get(key) is not live:
        _detach(owner, [held.get(key)])
        held[key] = live
    own(live, owner, key)


def _detach(owner: Any, members: Iterable[Any]) -> None:
    """Detach what does not come back: whoever has it in hand is told so at its next change."""
    record = record_above(owner)
    for member in members:
        if is_node(member) and member._symphony_owner is owner:  # else it has come to stand elsewhere
            detach(member, record.key if record is not None else "its entity")


def _refill_list(live: list[Any], members: list[Any]) -> None:
    _detach(live, live)
    list.__setitem__(live, slice(None), members)
    for index, member in enumerate(members):
        own(member, live, index)


def _refill_dict(live: dict[Any, Any], members: dict[Any, Any]) -> None:
    _detach(live, live.values())
    dict.clear(live)
    dict.update(live, members)
    for key, member in members.items():
        own(member, live, key)
