"""Copies of what a state holds, for code that wants to change them freely."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Any

from symphony_es.core.objects.places import clone
from symphony_es.core.objects.plain import UNOWNED, kind_of
from symphony_es.core.world.boundary import is_object

__all__ = ["thaw"]

_OWN_DICTS = (OrderedDict, Counter, defaultdict)


def thaw(value: Any) -> Any:
    """Return a copy of a value of a state that can be changed freely.

    Tracked containers become plain ones, what cannot change is shared.
    """
    if type(value) in UNOWNED:
        return value
    if isinstance(value, list):
        return [thaw(item) for item in value]
    if isinstance(value, Mapping):  # a view of a run's outputs as well
        if isinstance(value, _OWN_DICTS):
            return copy.deepcopy(value)
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, set):
        return set(value)
    if type(value) is tuple:
        return tuple(thaw(item) for item in value)
    if is_object(value):
        return copy.deepcopy(value)
    if kind_of(value) == "part":
        return clone(value)
    return value
