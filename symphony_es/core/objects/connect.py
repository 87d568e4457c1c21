"""Connecting references: the second phase of restoring.

The references projection says which entity refers to which target at which path. Each `EntityReference` that stands there in a
live object is replaced by the target: in attributes, lists and dicts in place; tuples, frozen values and members of sets are
replaced by new ones. Nothing of this is recorded: the state already says it.
"""

from __future__ import annotations

from typing import Any

from symphony_es.core.objects.capture import field_names, set_attribute
from symphony_es.core.objects.plain import MISSING, kind_of
from symphony_es.errors import SymphonyError
from symphony_es.events.references import EntityReference, Path
from symphony_es.shown import type_shown

__all__ = ["UnhashableTargetError", "connect"]


def connect(live: Any, path: Path, reference: Any, target: Any) -> Any:
    """Put `target` where `reference` (or an object that is to go) stands below a live value; returns that, or a new one where it is fixed.

    References in members of a set have the path of the set: they are looked for in all its members.

    Raises:
        UnhashableTargetError: a member of a set would have to hold the target, which has no hash. Nothing has changed.

    A path that leads nowhere (an object laid out in its own way) changes nothing: its restorer connects it with
    `context.add_pending_reference`, or the report shows the difference.
    """
    if live is reference and not path:
        return target
    if type(live) is EntityReference:
        return target if not path and live == reference else live
    if isinstance(live, set):
        return _in_set(live, reference, target)
    if not path:
        return live
    key, rest = path[0], path[1:]
    if isinstance(live, (list, tuple)):
        return _in_sequence(live, key, rest, reference, target)
    if isinstance(live, dict):
        if key in live:
            dict.__setitem__(live, key, connect(live[key], rest, reference, target))
        return live
    return _in_object(live, key, rest, reference, target)


class UnhashableTargetError(SymphonyError, TypeError):
    """A reference in a set stays what it is: the target's class has no hash, so no set can hold the target."""


def _in_set(live: Any, reference: Any, target: Any) -> Any:
    for member in list(live):
        new = _everywhere(member, reference, target)
        if new is not member:
            try:
                hash(new)
            except TypeError as error:
                raise UnhashableTargetError(f"{type_shown(member)} stays as it is: {error}, and stands in a set") from error
            set.discard(live, member)
            set.add(live, new)
    return live


def _everywhere(member: Any, reference: Any, target: Any) -> Any:
    """Return a member of a set, or what stands in one, with the target wherever the reference stands.

    Another one, as members never change.
    """
    if member is reference:
        return target
    if type(member) is EntityReference:
        return target if member == reference else member
    if type(member) is tuple:
        items = [_everywhere(item, reference, target) for item in member]
        return member if all(new is old for new, old in zip(items, member, strict=True)) else tuple(items)
    if kind_of(member) == "value":
        names = field_names(type(member)) or ()
        held = {name: getattr(member, name) for name in names}
        made = {name: _everywhere(item, reference, target) for name, item in held.items()}
        return member if all(made[name] is held[name] for name in names) else _made_anew(member, made)
    return member


def _in_sequence(live: Any, key: Any, rest: Path, reference: Any, target: Any) -> Any:
    if isinstance(key, str) and isinstance(live, tuple) and key in getattr(live, "_fields", ()):
        named: Any = live
        key = named._fields.index(key)
    if not isinstance(key, int) or key >= len(live):
        return live
    new = connect(live[key], rest, reference, target)
    if isinstance(live, tuple):
        if new is live[key]:
            return live
        cls: Any = type(live)
        made = (*live[:key], new, *live[key + 1 :])
        return made if cls is tuple else cls._make(made)
    list.__setitem__(live, key, new)
    return live


def _in_object(live: Any, key: Any, rest: Path, reference: Any, target: Any) -> Any:
    declared = kind_of(live) in ("entity", "part")
    held = live.__dict__.get(key, MISSING) if declared else MISSING  # what it is read through, a property, may be another object
    if held is MISSING:
        held = getattr(live, key, MISSING) if isinstance(key, str) else MISSING
    if held is MISSING:
        return live
    new = target if held is None and not rest else connect(held, rest, reference, target)  # a restorer may leave it out
    if new is held:
        return live
    if declared:
        live.__dict__[key] = new
        return live
    if kind_of(live) == "value":
        names = field_names(type(live)) or ()
        return _made_anew(live, {name: new if name == key else getattr(live, name) for name in names})
    try:
        set_attribute(live, key, new)
    except (AttributeError, TypeError, ValueError):  # its class refuses assignments
        object.__setattr__(live, key, new)
    return live


def _made_anew(old: Any, fields: dict[str, Any]) -> Any:
    made = object.__new__(type(old))
    for name, item in fields.items():
        object.__setattr__(made, name, item)
    hook = type(old)._symphony_spec.hook
    if hook is not None:
        hook(made)
    return made
