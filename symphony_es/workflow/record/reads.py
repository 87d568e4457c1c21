"""What one execution of a step reads of its run and of entities, and how that is written: at most 12 bytes for each.

What is read of the run is as it was before the event that says so, so its name is enough: the address of a step whose output was read,
or `<place>//<key>` for a key of the context, where the place is empty, or that of the branch whose key space or names have it. `//` is the
whole context, `/` is everything in the run. An entity is named by its key, with its version behind it. Names that are longer than 8 bytes
are written as a digest of 7: who reads them knows the addresses of the run and the keys of the entities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from hashlib import blake2b
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Literal

from symphony_es.core.objects.plain import kind_of
from symphony_es.late_dataclasses import dataclass

if TYPE_CHECKING:
    from symphony_es.core.world.live_entity import EntityRecord
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["EVERYTHING", "MAX_EDGES", "MOST_OF_A_BODY", "Read", "Reads", "read_edges", "short_name"]

MAX_NAME_BYTES = 8
NAME_DIGEST_BYTES = 7
VALUE_DIGEST_BYTES = 8
MOST_OF_A_BODY = 32
"""A body that reads more of its run has read everything of it."""

MAX_EDGES = 1_000
"""So many are written; what is left out is said."""

WHOLE_CONTEXT = "//"
EVERYTHING = "/"
_UNKNOWN_VERSION = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One thing that a step has read.

    Attributes:
        kind: `output` of a step, `context` for a key, `entity`, `argument` for the value of an argument of code, `run` for everything;
            `unknown` for an output or a key whose name is not known any more.
        name: the address, `<place>//<key>`, or the entity's key; None where it is known by its digest only.
        digest: 7 bytes for a name, 8 for a value; None where the name is written out.
        version: of an entity; None where it is not known, and for everything else, which is as it was before the event.
    """

    kind: Literal["output", "context", "entity", "argument", "run", "unknown"]
    name: str | None = None
    digest: bytes | None = None
    version: int | None = None

    def __str__(self) -> str:
        named = self.name if self.name is not None else f"{self.kind} {self.digest.hex() if self.digest is not None else '?'}"
        return f"{named}@{self.version}" if self.version is not None else named


class Reads:
    """Takes up what is read.

    Args:
        run: whose context is known when it is met.
        most: from how many names on it is everything; None for no such limit.
    """

    __slots__ = ("_everything", "_most", "_names", "_run", "_whole", "entities")

    def __init__(self, run: Workflow | None = None, most: int | None = None) -> None:
        self.entities: dict[str, int] = {}
        self._names: dict[str, None] = {}
        self._run = run
        self._most = most
        self._everything = False
        self._whole = 0

    def output(self, address: str) -> None:
        """Note the output of a step."""
        self._note(address)

    def key(self, place: str | None, key: object) -> None:
        """Note a key of the context, as it is seen at a place."""
        self._note(f"{place or ''}//{key}")

    def context(self) -> None:
        """Note the run's context, of which a key may be asked next."""
        self._whole += 1

    def entity(self, record: EntityRecord | None) -> None:
        """Note an entity."""
        if record is not None:
            self.entities[record.key] = _UNKNOWN_VERSION if record.unplaced else record.version

    def looked_up(self, holder: Any, key: Any, found: Any) -> None:
        """Note what a path of a template has come by."""
        run = self._run
        if run is not None and holder is run.context:
            self._whole -= 1
            self._note(f"//{key}")
        if kind_of(found) == "entity":
            self.entity(found.__dict__.get("_symphony_record"))

    def _note(self, name: str) -> None:
        names = self._names
        if name not in names and not self._everything:
            names[name] = None
            self._everything = self._most is not None and len(names) > self._most

    def data(self) -> list[Any]:
        """Return what the event says of it."""
        if not self._names and not self.entities and self._whole <= 0:
            return []
        names = [EVERYTHING] if self._everything else list(self._names)
        if self._whole > 0 and not self._everything:
            names.append(WHOLE_CONTEXT)
        edges: list[Any] = [short_name(name) for name in names]
        for key, version in self.entities.items():
            edges += (short_name(key), version)
        return edges


@lru_cache(maxsize=4096)
def short_name(name: str) -> str | bytes:
    """Return a name as it is written: itself, or a digest where it is long."""
    encoded = name.encode("utf-8", "backslashreplace")
    return name if len(encoded) <= MAX_NAME_BYTES and encoded.isascii() else blake2b(encoded, digest_size=NAME_DIGEST_BYTES).digest()


def read_edges(said: Iterable[Any], name_of: Callable[[bytes], str | None] | None = None) -> tuple[Read, ...]:
    """Return what the data of an event say was read.

    Args:
        said: the names, digests and versions.
        name_of: gives the name that a digest stands for, where it is known.
    """
    items = list(said)
    reads: list[Read] = []
    for item, following in zip_longest(items, items[1:]):
        is_entity = type(following) is int
        if type(item) is str:
            reads.append(_named(item, following if is_entity else None))
        elif type(item) is bytes and len(item) == VALUE_DIGEST_BYTES:
            reads.append(Read(kind="argument", digest=item))
        elif type(item) is bytes:
            name = None if name_of is None else name_of(item)
            if name is not None:
                reads.append(_named(name, following if is_entity else None))
            else:
                version = following or None if is_entity else None
                reads.append(Read(kind="entity" if is_entity else "unknown", digest=item, version=version))
    return tuple(reads)


def _named(name: str, version: int | None) -> Read:
    if version is not None:
        return Read(kind="entity", name=name, version=version or None)
    return Read(kind="run" if name == EVERYTHING else "context" if "//" in name else "output", name=name)
