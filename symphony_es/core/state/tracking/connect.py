"""Connecting references: the second phase of restoring.

The references projection says which entity refers to which target at which path. Each `EntityReference` that stands there in a
live object is replaced by the target: in attributes, lists and dicts in place; tuples, frozen values and members of sets are
replaced by new ones. Nothing of this is recorded: the state already says it.
"""

from __future__ import annotations

from typing import Any

from symphony_es.core.state.tracking.capture import field_names, set_attribute
from symphony_es.core.state.tracking.live import MISSING, kind_of
from symphony_es.events.references import EntityReference, Path

__all__ = ["connect"]


def connect(live: Any, path: Path, reference: Any, target: Any) -> Any:
    """Put `target` where `reference` (or an object that is to go) stands below a live value; returns that, or a new one where it is fixed.

    A path that leads nowhere (an object laid out in its own way) changes nothing: its restorer connects it with
    `context.add_pending_reference`, or the report shows the difference.
    """
    if live is reference and not path:
        return target
    if type(live) is EntityReference:
        return target if not path and live == reference else live
    if isinstance(live, set):
        if reference in live:
            set.discard(live, reference)
            set.add(live, target)
        return live
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
    held = getattr(live, key, MISSING) if isinstance(key, str) else MISSING
    if held is MISSING:
        return live
    new = target if held is None and not rest else connect(held, rest, reference, target)  # a restorer may leave it out
    if new is held:
        return live
    if kind_of(live) in ("entity", "part"):
        live.__dict__[key] = new
        return live
    if kind_of(live) == "value":
        names = field_names(type(live)) or ()
        made = object.__new__(type(live))
        for name in names:
            object.__setattr__(made, name, new if name == key else getattr(live, name))
        hook = type(live)._symphony_spec.hook
        if hook is not None:
            hook(made)
        return made
    set_attribute(live, key, new)
    return live
