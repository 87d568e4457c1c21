"""Copies of what a state holds, for code that wants to change them freely."""

from __future__ import annotations

from typing import Any

from symphony_es.core.state.tracking.live import kind_of
from symphony_es.core.state.tracking.places import clone

__all__ = ["thaw"]


def thaw(value: Any) -> Any:
    """A copy of a value of a state that can be changed freely: tracked containers become plain ones, the rest is shared."""
    if isinstance(value, list):
        return [thaw(item) for item in value]
    if isinstance(value, dict):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, set):
        return set(value)
    if kind_of(value) == "part":
        return clone(value)
    return value
