"""What is called on an object that has been restored, so that what is not stored comes back: a client, a lock, an index.

Restoring does not run the constructor: the fields are as they were stored. Then the class's `__restored__(self)` is called where it has
one, else its `__post_init__`; references are live objects by then. `__post_init__` is not called where it takes an `InitVar` without a
default, as nothing is left to give it: such a class writes `__restored__`.

What the log holds wins: what a hook does to a stored field is undone; a field that the stored state lacks keeps what the hook gave it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["find_hook"]


def find_hook(cls: type) -> Callable[[Any], None] | None:
    """Return what to call on a restored object of a dataclass, or None."""
    own = getattr(cls, "__restored__", None)
    if own is not None:
        hook: Callable[[Any], None] = own
        return hook
    after_init = getattr(cls, "__post_init__", None)
    if after_init is None:
        return None
    declared: dict[str, Any] = getattr(cls, "__dataclass_fields__", {})
    parameters = [field.default for field in declared.values() if field._field_type is _kind_of_init_vars()]
    if dataclasses.MISSING in parameters:
        return None
    return lambda made: after_init(made, *parameters)


@cache
def _kind_of_init_vars() -> Any:
    """Return how `dataclasses` marks a pseudo-field that is handed to `__post_init__` only."""

    @dataclasses.dataclass
    class Sample:
        given: dataclasses.InitVar[int]

    fields: dict[str, Any] = Sample.__dataclass_fields__
    return fields["given"]._field_type
