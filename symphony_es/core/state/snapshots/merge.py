"""A new snapshot from an earlier one and the entities that have changed since.

Runs in a worker thread and yields bytes. The rule kept here: cost follows change. Blocks without a changed entity are taken over
as bytes, whole ranges at once (their check values are verified on the way, so damage is never handed on); of a block with one,
the frames are found, and only those that change are encoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from symphony_es.core.state.snapshots.format import Anchor, BlockEntry, counts_as_entity
from symphony_es.core.state.snapshots.frames import Frame, encode_frame
from symphony_es.core.state.snapshots.reading import SnapshotReader
from symphony_es.core.state.snapshots.writing import SnapshotAssembler, is_left_out
from symphony_es.events.fold import EntityState

__all__ = ["merged_chunks"]


def merged_chunks(base: SnapshotReader, changed: Mapping[str, EntityState], position: int, anchor: Anchor) -> Iterator[bytes]:
    """The bytes of the merged snapshot.

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
    for number, keys in groupby(sorted(changed), key=lambda key: index.find(key.encode()) or 0):
        states = [changed[key] for key in keys]
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
    if entries:
        yield assembler.close_blocks()
    for group, data in base.ranges(entries):
        yield assembler.take_over(group, data)


def _added(assembler: SnapshotAssembler, states: list[EntityState]) -> Iterator[bytes]:
    for state in states:
        if is_left_out(state):
            continue
        assembler.entities += _counted(state.key, state.deleted)
        yield assembler.add_frame(state.key, encode_frame(state))


def _merged_block(
    base: SnapshotReader, assembler: SnapshotAssembler, entry: BlockEntry, before: bytes | None, states: list[EntityState]
) -> Iterator[bytes]:
    block = base.read_block(entry)
    at = 0
    for frame in list(base.frames(entry, block, before)):
        stop = at
        while stop < len(states) and states[stop].key < frame.key:
            stop += 1
        yield from _added(assembler, states[at:stop])
        at = stop
        if at < len(states) and states[at].key == frame.key:
            assembler.entities -= _counted(frame.key, frame.deleted)
            yield from _added(assembler, states[at : at + 1])
            at += 1
        else:
            yield assembler.add_frame(frame.key, _raw(block, frame))
    yield from _added(assembler, states[at:])


def _raw(block: memoryview, frame: Frame) -> bytes:
    return bytes(block[frame.start : frame.stop])


def _counted(key: str, deleted: bool) -> int:
    return 0 if deleted or not counts_as_entity(key) else 1
