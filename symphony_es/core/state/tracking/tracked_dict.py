"""A dict that records its own changes; every mutating method of the builtin type is covered.

Each method works in the same order: ask the entity's record whether the change may happen (it may belong to a transaction, or be
refused), convert the new values, change the container, record the change together with what undoes it. A refusal leaves the
container as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from symphony_es.core.state.tracking.live import BUILDERS, MISSING, PLAIN_COPIES, own, plain_at, release
from symphony_es.core.state.tracking.site import Site, build_at, whole
from symphony_es.errors import UnstorableValueError
from symphony_es.events.changes import REMOVE, SET
from symphony_es.events.values import check_plain

if TYPE_CHECKING:
    from symphony_es.core.state.membership import Membership

__all__ = ["TrackedDict"]


def check_key(key: Any) -> None:
    """Dict keys are text or whole numbers, exactly: True would come back as 1.

    Raises:
        UnstorableValueError: it is anything else.
    """
    if type(key) is str and key.isascii():
        return
    if type(key) is not str and type(key) is not int:
        raise UnstorableValueError((), f"the dict key {key!r} is a {type(key).__name__}; keys are str or int")
    check_plain(key)


class TrackedDict(dict[Any, Any]):
    """A dict that records its changes; it belongs to one place in one entity."""

    __slots__ = ("_symphony_key", "_symphony_owner")
    _symphony_kind = "container"

    def __init__(self, items: Mapping[Any, Any] | Iterable[Any] = (), world: Membership | None = None, depth: int = 0) -> None:
        super().__init__()
        self._symphony_owner: Any = None
        self._symphony_key: Any = None
        for key, item in dict(items).items():
            check_key(key)
            live = build_at(item, world, depth, key)
            own(live, self, key)
            super().__setitem__(key, live)

    @classmethod
    def _symphony_copy(cls, source: Mapping[Any, Any], world: Membership | None, depth: int) -> TrackedDict:
        return cls(source, world, depth)

    def _symphony_key_of(self, child: Any) -> Any:
        return child._symphony_key

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def _put(self, key: Any, live: Any) -> Any:
        """Set or drop a key, unrecorded; returns what stood there, or MISSING."""
        old = super().pop(key, MISSING) if live is MISSING else super().get(key, MISSING)
        release(old)
        if live is not MISSING:
            super().__setitem__(key, live)
            own(live, self, key)
        return old

    def __setitem__(self, key: Any, value: Any) -> None:
        with Site(self) as site:
            try:
                check_key(key)
            except UnstorableValueError as error:
                raise error.within(site.record.key if site.record else None, site.path) from None
            live, plain = site.convert(value, key)
            old = self._put(key, live)
            site.recorded((SET, (*site.path, key), plain), (self._put, key, old), live)

    @whole
    def __delitem__(self, key: Any) -> None:
        if key not in self:
            raise KeyError(key)
        with Site(self) as site:
            old = self._put(key, MISSING)
            site.recorded((REMOVE, (*site.path, key)), (self._put, key, old))

    @whole
    def pop(self, key: Any, /, *default: Any) -> Any:
        """Remove a key and return its value."""
        if key not in self:
            return super().pop(key, *default)
        value = self[key]
        del self[key]
        return value

    @whole
    def popitem(self) -> tuple[Any, Any]:
        """Remove and return the last item."""
        if not self:
            raise KeyError("popitem(): dictionary is empty")
        key = next(reversed(self))
        return key, self.pop(key)

    def _refill(self, items: Mapping[Any, Any]) -> None:
        for key in list(self):
            self._put(key, MISSING)
        for key, live in items.items():
            self._put(key, live)

    @whole
    def clear(self) -> None:
        """Remove everything."""
        if self:
            with Site(self) as site:
                old = dict(self)
                self._refill({})
                site.recorded((SET, site.path, {}), (self._refill, old))

    @whole
    def setdefault(self, key: Any, default: Any = None, /) -> Any:
        """The value under a key, which is set to the default when it is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    @whole
    def update(self, *others: Any, **named: Any) -> None:
        """Set all given items, one by one."""
        for key, value in dict(*others, **named).items():
            self[key] = value

    @whole
    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self


BUILDERS[dict] = TrackedDict
PLAIN_COPIES[TrackedDict] = lambda live, world: {key: plain_at(item, world, key) for key, item in live.items()}
