"""Copies and pickles of entities and parts: they belong to no Symphony, whatever the class says itself about copying.

The attributes that tie an object to its Symphony start with `_symphony_`. They are left out, and the fields are assigned anew, so that
containers are tracked ones of the copy's own.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from symphony_es.core.objects.places import clone

__all__ = ["install_copying"]


def install_copying(cls: Any) -> None:
    """Have copies and pickles leave out what belongs to the Symphony, also where the class says itself what they hold."""
    for name, ours, around in (("__getstate__", _copied_state, _around_getstate), ("__setstate__", _set_copied_state, _around_setstate)):
        theirs = getattr(cls, name, None)
        if theirs is None or theirs is getattr(object, name, None):
            setattr(cls, name, ours)
        elif theirs is not ours and name in cls.__dict__:
            setattr(cls, name, around(theirs))
    for name in ("__copy__", "__deepcopy__"):
        if name in cls.__dict__:
            setattr(cls, name, _around_copy(cls.__dict__[name]))


def _around_copy(theirs: Any) -> Any:
    @functools.wraps(theirs)
    def copied(self: Any, *memo: Any) -> Any:
        made = theirs(self, *memo)
        if made is not self and type(made) is type(self):  # it may have got all of `__dict__`, with the place in the Symphony
            held = made.__dict__
            fields = {name: held.pop(name) for name in type(self)._symphony_spec.fields if name in held}
            for name in [name for name in held if name.startswith("_symphony_")]:
                del held[name]
            _set_copied_state(made, fields)
        return made

    return copied


def _around_getstate(theirs: Any) -> Any:
    @functools.wraps(theirs)
    def __getstate__(self: Any) -> Any:
        state = theirs(self)
        if not isinstance(state, dict):
            return state
        return {name: item for name, item in state.items() if not str(name).startswith("_symphony_")}

    return __getstate__


def _around_setstate(theirs: Any) -> Any:
    @functools.wraps(theirs)
    def __setstate__(self: Any, state: Any) -> None:
        theirs(self, state)
        held = self.__dict__
        _set_copied_state(self, {name: held.pop(name) for name in type(self)._symphony_spec.fields if name in held})

    return __setstate__


def _copied_state(self: Any) -> Mapping[str, Any]:
    return {name: item for name, item in self.__dict__.items() if not name.startswith("_symphony_")}


def _set_copied_state(self: Any, state: Mapping[str, Any]) -> None:
    fields = type(self)._symphony_spec.fields
    for name, item in state.items():
        if name in fields:
            setattr(self, name, clone(item))
        else:  # what it keeps beside its state, also where no assignment could have put it
            self.__dict__[name] = clone(item)
