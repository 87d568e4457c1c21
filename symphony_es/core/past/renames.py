"""Where a value stood before its field was renamed.

An upcast gives a state another shape, and the event that says so (`StateAdopted`) removes a field here and sets one there. Where what
was set is what was removed, the field was renamed: a question about the new name is one about the old name before that event. An upcast
that no event says yet counts as one at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from symphony_es.core.past.walk import Walk
from symphony_es.events.comparison import ValueChange
from symphony_es.events.event import ADOPTION_EVENT
from symphony_es.events.references import Path
from symphony_es.events.rows import decode_row
from symphony_es.events.values import Tagged, plain_equal

if TYPE_CHECKING:
    from symphony_es.core.past.names import Names
    from symphony_es.core.past.states import StateHistory

__all__ = ["PathInTime", "path_before", "path_in_time", "renames_in"]


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
            path = path_before(path, renamed)
        self._spans.append((0, path))

    def at(self, version: int) -> Path:
        """Return where the value stands right after a version."""
        return self._spans[0][1] if version >= self._spans[0][0] else next(path for first, path in self._spans if version >= first)

    @property
    def paths(self) -> list[Path]:
        """All paths it has had, the newest first."""
        return list(dict.fromkeys(path for _, path in self._spans))


def path_before(path: Path, renamed: dict[Path, Path]) -> Path:
    """Tell where a value stood before fields were renamed (new path → old path)."""
    for length in range(len(path), 0, -1):
        old = renamed.get(path[:length])
        if old is not None:
            return (*old, *path[length:])
    return path


def renames_in(changes: Iterable[ValueChange]) -> dict[Path, Path]:
    """Return new path → old path of what changes have moved; where several values are alike, the names that are most alike belong together.

    A value was moved where it stands again as it was, or with more in it: an upcast that renames a field may give its parts new fields, and
    rename theirs, at once.
    """
    found: dict[Path, Path] = {}
    told = [change for change in changes if change.path]
    removed = {change.path: change.before for change in told if change.kind == "removed"}
    _pair(removed, {change.path: change.after for change in told if change.kind == "added"}, found)
    for change in told:
        if change.kind == "changed":
            _look_into(change.path, change.before, change.path, change.after, found)
    return found


def _pair(removed: Mapping[Path, Any], added: Mapping[Path, Any], found: dict[Path, Path]) -> None:
    """Find which of the removed values stand again among the added ones, and look into those that are not quite what they were."""
    pairs = [
        (plain_equal(before, after), _likeness(new, old), new, old)
        for new, after in added.items()
        for old, before in removed.items()
        if _is_in(before, after)
    ]
    taken: set[Path] = set()
    for equal, _, new, old in sorted(pairs, key=lambda pair: (not pair[0], -pair[1], str(pair[2]), str(pair[3]))):
        if new not in found and old not in taken:
            found[new] = old
            taken.add(old)
            if not equal:
                _look_into(old, removed[old], new, added[new], found)


def _look_into(old: Path, before: Any, new: Path, after: Any, found: dict[Path, Path]) -> None:
    """Find the renames inside a value that is not what it was."""
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        one, other = dict(enumerate(before)), dict(enumerate(after))
    else:
        one, other = _fields(before), _fields(after)
    if not one or not other:
        return
    _pair(
        {(*old, key): value for key, value in one.items() if key not in other},
        {(*new, key): value for key, value in other.items() if key not in one},
        found,
    )
    for key in one.keys() & other.keys():
        if not plain_equal(one[key], other[key]):
            _look_into((*old, key), one[key], (*new, key), other[key], found)


def _is_in(before: Any, after: Any) -> bool:
    """Return whether a value is another one, or that one without what was added to it; nothing that is empty is in something."""
    if plain_equal(before, after):
        return True
    if isinstance(before, list) and isinstance(after, list):
        return 0 < len(before) == len(after) and all(map(_is_in, before, after))
    one, other = _fields(before), _fields(after)
    if not one or not all(_is_in(value, other[key]) for key, value in one.items() if key in other):
        return False
    added = [value for key, value in other.items() if key not in one]
    for value in (value for key, value in one.items() if key not in other):
        at = next((at for at, candidate in enumerate(added) if plain_equal(value, candidate)), None)
        if at is None:
            return False
        del added[at]
    return True


def _fields(plain: Any) -> dict[Any, Any]:
    """Return what stands in a value under names; nothing for a value without names."""
    if isinstance(plain, Tagged):
        plain = plain.data
    return plain if isinstance(plain, dict) else {}


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
