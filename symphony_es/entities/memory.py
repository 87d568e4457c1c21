"""Memory: what an agent keeps between tasks, by key.

An entity of its own, so that several agents can share one; an agent refers to it. The items are part of the state: each
`store` is one small change in the log.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from symphony_es.core.objects.entity import entity

__all__ = ["Memory"]

_MISSING = object()


@entity(type="Memory")
class Memory:
    """Values by key.

    Attributes:
        id: made when left empty.
        kind: the application's word for what it is, for example `working` or `long_term`.
        items: values by key; plain data.
        metadata: the application's own.
    """

    id: str = ""
    kind: str = "working"
    items: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def store(self, key: str, value: Any) -> None:
        """Keep `value` under `key`, in place of what was there.

        Raises:
            UnstorableValueError: the value is no plain data; the memory is as it was.
        """
        self.items[key] = value

    def retrieve(self, key: str, default: Any = None) -> Any:
        """Return the value under `key`, or `default`."""
        return self.items.get(key, default)

    def forget(self, key: str) -> bool:
        """Remove a key; False when it was not there. The history keeps what it held."""
        return self.items.pop(key, _MISSING) is not _MISSING

    def search(self, query: str, limit: int = 10) -> list[tuple[str, Any]]:
        """Return items whose key or value has words of `query` in it, the ones with most of them first, then by key.

        Example:
            >>> memory = Memory(items={"sky": "blue and wide", "sea": "blue and deep", "sun": "hot"})
            >>> memory.search("deep blue")
            [('sea', 'blue and deep'), ('sky', 'blue and wide')]
        """
        words = set(query.casefold().split())
        scored = []
        for key, value in self.items.items():
            text = f"{key} {value}".casefold()
            hits = sum(word in text for word in words)
            if hits:
                scored.append((-hits, str(key), value))
        scored.sort(key=lambda found: found[:2])
        return [(key, value) for _, key, value in scored[:limit]]
