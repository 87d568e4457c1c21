"""A new snapshot from an earlier one and the entities that have changed since.

Runs in a worker thread and yields bytes. The rule kept here: cost follows change. Blocks without a changed entity are taken over
as bytes, whole ranges at once (their check values are verified on the way, so damage is never handed on); of a block with one,
the frames are found, and only those that change are encoded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import groupby

from symphony_es.core.past.snapshots.format import ALIVE, RESTING, Anchor, BlockEntry, counts_as_entity
from symphony_es.core.past.snapshots.frames import Frame, encode_frame
from symphony_es.core.past.snapshots.reading import SnapshotReader
from symphony_es.core.past.snapshots.writing import SnapshotAssembler, is_left_out, part_of
from symphony_es.events.fold import EntityState

__all__ = ["merged_chunks"]


Placed = tuple[bytes, EntityState | None]
"""Where a state stands, as the index has it, and the state; None where it stands no longer."""


def merged_chunks(
    base: SnapshotReader, changed: Mapping[str, EntityState], position: int, anchor: Anchor, moved: Collection[str] = ()
) -> Iterator[bytes]:
    """Yield the bytes of the merged snapshot.

    Args:
        base: the earlier one.
        changed: states that have changed since, by key.
        position: of the new one. anchor: the event there.
        moved: keys of those that stood in the other part of the earlier one.

    Raises:
        SnapshotDamagedError: the earlier snapshot cannot be trusted.
        LimitExceededError: a state does not fit the format.
    """
    assembler = SnapshotAssembler(position, anchor)
    assembler.entities = base.info.entity_count
    yield assembler.begin()
    index = base.index
    entries = list(index)
    done = 0
    placed: dict[bytes, EntityState | None] = {part_of(state) + key.encode(): state for key, state in changed.items()}
    for key in moved:
        placed[(ALIVE if part_of(changed[key]) == RESTING else RESTING) + key.encode()] = None
    find = index.finder(len(placed))
    for number, places in groupby(sorted(placed), key=lambda place: find(place) or 0):
        states = [(place, placed[place]) for place in places]
        yield from _copied(base, assembler, entries[done:number])
        if entries:
            before = entries[number + 1].first_key if number + 1 < len(entries) else None
            yield from _merged_block(base, assembler, entries[number], before, states)
        else:
            yield from _added(assembler, states)
        done = number + 1
    yield from _copied(base, assembler, entries[done:])
    yield assembler.end()


def _copied(base: SnapshotReader, assembler: SnapshotAssembler, entries: list[BlockEntry]) -> Iterator[bytes]:
    for part in (ALIVE, RESTING):
        chosen = [entry for entry in entries if entry.first_key[:1] == part]
        if chosen:
            yield assembler.begin_resting() if part == RESTING else b""
            yield assembler.close_blocks()
        for group, data in base.ranges(chosen):
            yield assembler.take_over(group, data)


def _added(assembler: SnapshotAssembler, states: list[Placed]) -> Iterator[bytes]:
    for place, state in states:
        if state is None or is_left_out(state):
            continue
        assembler.entities += _counted(state.key, state.deleted)
        yield assembler.add_frame(place[:1], state.key, encode_frame(state))


def _merged_block(
    base: SnapshotReader, assembler: SnapshotAssembler, entry: BlockEntry, before: bytes | None, states: list[Placed]
) -> Iterator[bytes]:
    block, part = base.read_block(entry), entry.first_key[:1]
    at = 0
    for frame in list(base.frames(entry, block, before)):
        stop, place = at, part + frame.key.encode()
        while stop < len(states) and states[stop][0] < place:
            stop += 1
        yield from _added(assembler, states[at:stop])
        at = stop
        if at < len(states) and states[at][0] == place:
            assembler.entities -= _counted(frame.key, frame.deleted)
            yield from _added(assembler, states[at : at + 1])
            at += 1
        else:
            yield assembler.add_frame(part, frame.key, _raw(block, frame))
    yield from _added(assembler, states[at:])


def _raw(block: memoryview, frame: Frame) -> bytes:
    return bytes(block[frame.start : frame.stop])


def _counted(key: str, deleted: bool) -> int:
    return 0 if deleted or not counts_as_entity(key) else 1
