"""How fast snapshots are written, merged and read: 100,000 entities of 1 kB, of which 10 change.

Run: python benchmarks/snapshots.py [entities]. The yardstick for reading is to read the same states from one plain file and decode
each with `decode_value`, which is what no format could do without.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from symphony_es.core.past.snapshots.store import SnapshotStore
from symphony_es.events.codec import decode_value, encode_value
from symphony_es.events.fold import EntityState

ANCHOR = (b"i" * 16, b"c" * 32, 1)


def state(number: int, version: int = 1) -> EntityState:
    """An invoice of about 1 kB."""
    lines = [{"article": f"article {line} of {number}", "amount": line * 17, "price": 3.25 * line} for line in range(14)]
    data = {"number": number, "status": "open", "customer": f"Customer:{number % 977:05d}", "lines": lines, "note": "n" * 180}
    key = f"Invoice:{number:08d}"
    return EntityState(key=key, data=data, version=version, position=number + 1, state_version=1, generation=0)


def decode_plainly(path: Path, ends: list[int]) -> float:
    """Seconds for reading a file and decoding the values in it."""
    started = time.perf_counter()
    data, start, values = path.read_bytes(), 0, []
    for end in ends:
        values.append(decode_value(data[start:end]))
        start = end
    return time.perf_counter() - started


async def measure(directory: Path, entities: int) -> dict[str, float]:
    """Seconds, ratios and sizes by name."""
    encoded = [encode_value(state(number).data) for number in range(entities)]
    plain, ends, end = directory / "plain", [], 0
    plain.write_bytes(b"".join(encoded))
    for value in encoded:
        end += len(value)
        ends.append(end)
    del encoded
    plain_s = min(decode_plainly(plain, ends) for _ in range(3))

    store = SnapshotStore(directory / "snapshots")
    started = time.perf_counter()
    info = await store.write(entities, ANCHOR, (state(number) for number in range(entities)))
    write_s = time.perf_counter() - started

    reads = []
    for _ in range(3):
        started = time.perf_counter()
        store.read_all(info)
        reads.append(time.perf_counter() - started)

    changed = {item.key: item for item in (state(number, 2) for number in range(0, entities, entities // 10))}
    merges = []
    for turn in range(1, 6):
        started = time.perf_counter()
        await store.merge(info, changed, entities + turn, ANCHOR)
        merges.append(time.perf_counter() - started)

    singles = []
    for number in range(0, entities, max(1, entities // 200)):
        started = time.perf_counter()
        store.read_some(info, [f"Invoice:{number:08d}"])
        singles.append(time.perf_counter() - started)
    return {
        "entities": entities,
        "size_mb": info.size_bytes / 1e6,
        "write_s": write_s,
        "write_mb_per_s": info.size_bytes / 1e6 / write_s,
        "read_all_s": min(reads),
        "read_all_mb_per_s": info.size_bytes / 1e6 / min(reads),
        "read_plainly_s": plain_s,
        "read_all_to_plain": min(reads) / plain_s,
        "merge_10_changed_s": statistics.median(merges),
        "read_one_us": statistics.median(singles) * 1e6,
    }


def main() -> None:
    """Measure in a temporary directory and print JSON."""
    entities = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as directory:
        figures = asyncio.run(measure(Path(directory), entities))
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
