"""Key spaces of branches: what a parallel branch or a mapped item has written.

A branch that appends to a list which lies around it writes only what it appends: the list is the one around it as it was then, and that
behind it. So what is recorded does not grow with the list. The list around it is read where it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["Space", "list_around", "space_at"]

_NONE: Mapping[str, Any] = MappingProxyType({})


def space_at(run: Workflow, address: str) -> Mapping[str, Any] | None:
    """Return what stands in the key space at an address; None while nothing does."""
    written = run.scopes.get(address)
    appended = run.appended.get(address)
    return Space(run, address, written if written is not None else _NONE, appended) if appended else written


def list_around(run: Workflow, address: str, key: str) -> Sequence[Any] | None:
    """Return the list that a key of the context is around a key space; None where that is no list."""
    while "/" in address:
        address = address.rpartition("/")[0]
        space = space_at(run, address)
        if space is not None and key in space:
            found = space[key]
            break
    else:
        found = run.context.get(key)
    return found if isinstance(found, list) else None


class Space(Mapping[str, Any]):
    """A key space that has appended to lists around it.

    Args:
        run: the run.
        address: of the key space.
        written: values that it has as a whole.
        appended: by key `{"after", "values"}`: how many items of the list around it come before, and what comes behind them.
    """

    __slots__ = ("_address", "_appended", "_run", "_written")

    def __init__(self, run: Workflow, address: str, written: Mapping[str, Any], appended: Mapping[str, Any]) -> None:
        self._run = run
        self._address = address
        self._written = written
        self._appended = appended

    def __getitem__(self, key: str) -> Any:
        if key in self._written:
            return self._written[key]
        tail = self._appended[key]
        around = list_around(self._run, self._address, key) or ()
        return [*around[: tail["after"]], *tail["values"]]

    def __contains__(self, key: object) -> bool:
        return key in self._written or key in self._appended

    def __iter__(self) -> Iterator[str]:
        yield from self._written
        yield from (key for key in self._appended if key not in self._written)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return repr(dict(self))
