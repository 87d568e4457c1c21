"""Where a value stood before its field was renamed.

An upcast gives a state another shape, and the event that says so (`StateAdopted`) removes a field here and sets one there. Where what
was set is what was removed, the field was renamed: a question about the new name is one about the old name before that event. An upcast
that no event says yet counts as one at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from symphony_es.core.state.past.walk import Walk
from symphony_es.events.comparison import ValueChange
from symphony_es.events.event import ADOPTION_EVENT
from symphony_es.events.references import Path
from symphony_es.events.rows import decode_row
from symphony_es.events.values import plain_equal

if TYPE_CHECKING:
    from symphony_es.core.state.history import StateHistory
    from symphony_es.core.state.names import Names

__all__ = ["PathInTime", "path_in_time", "renames_in"]


class PathInTime:
    """The path of one value, version by version.

    Args:
        path: where it stands at the end.
        renames: (version, new path → old path) of each event that renamed fields, oldest first.
    """

    def __init__(self, path: Path, renames: Sequence[tuple[int, dict[Path, Path]]] = ()) -> None:
        self._spans: list[tuple[int, Path]] = []  # (first version, path), newest first
        for version, renamed in reversed(renames):
            self._spans.append((version, path))
            path = _before(path, renamed)
        self._spans.append((0, path))

    def at(self, version: int) -> Path:
        """Where the value stands right after a version."""
        return next(path for first, path in self._spans if version >= first)

    @property
    def paths(self) -> list[Path]:
        """All paths it has had, the newest first."""
        return list(dict.fromkeys(path for _, path in self._spans))


def _before(path: Path, renamed: dict[Path, Path]) -> Path:
    for length in range(len(path), 0, -1):
        old = renamed.get(path[:length])
        if old is not None:
            return (*old, *path[length:])
    return path


def renames_in(changes: Iterable[ValueChange]) -> dict[Path, Path]:
    """New path → old path of what changes have moved; where several values are alike, the names that are most alike belong together."""
    told = list(changes)
    removed = [change for change in told if change.kind == "removed" and change.path]
    pairs = [
        (_likeness(change.path, other.path), change.path, other.path)
        for change in told
        if change.kind == "added" and change.path
        for other in removed
        if plain_equal(other.before, change.after)
    ]
    found: dict[Path, Path] = {}
    for _, new, old in sorted(pairs, key=lambda pair: (-pair[0], str(pair[1]), str(pair[2]))):
        if new not in found and old not in found.values():
            found[new] = old
    return found


def _likeness(one: Path, other: Path) -> float:
    return SequenceMatcher(None, str(one), str(other)).ratio()


async def path_in_time(history: StateHistory, names: Names, key: str, path: Path, until: int | None) -> PathInTime:
    """Find where a value has stood: a look-up for an entity that has kept its shape, and else a pass over its events."""
    renames: list[tuple[int, dict[Path, Path]]] = []
    log = history.log
    if await log.read_rows(log.base_position, until, 1, (ADOPTION_EVENT,), (key, f"{key}\0")):
        kept = log.base_state(key)
        walk = Walk(kept)
        async for rows in log.entity_pages(key, kept.version if kept is not None else 0, until):
            for event in map(decode_row, rows):
                changes = walk.take(event, tell=event.name == ADOPTION_EVENT)
                if changes and (renamed := renames_in(changes)):
                    renames.append((event.version, renamed))
    if names.state_version(key.partition(":")[0]) != 1:
        state_then = await history.entity_at(key, log.head if until is None else until)
        renamed = renames_in(names.pending_upcast(state_then))
        if renamed and state_then is not None:
            renames.append((state_then.version + 1, renamed))
    return PathInTime(path, renames)
