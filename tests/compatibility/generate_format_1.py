"""Writes `format_1.rows`: events of every kind in format 1. Run by hand, once per format
(`python -m tests.compatibility.generate_format_1`); the file of a released format never changes.

Each row of the file: position u64, version u64, length of the key u16, of the name u16, of the state u32 (big-endian), then key, name
and state.
"""

from __future__ import annotations

import struct
from pathlib import Path

from symphony_es.events.rows import encode_body, seal_state
from tests.compatibility.format_1_events import EVENTS

ROW = struct.Struct(">QQHHI")
FILE = Path(__file__).with_name("format_1.rows")
START_NS = 1_700_000_000_123_456_789


def rows() -> bytes:
    """All rows, one after another; salts and times are made of the position, so that the file can be made again."""
    written = b""
    for position, event in enumerate(EVENTS, start=1):
        body = encode_body(event, bytes([position]) * 16)
        state = seal_state(position, event.entity_key, event.version, event.name, event.event_id, START_NS + position, body)
        key, name = event.entity_key.encode(), event.name.encode()
        written += ROW.pack(position, event.version, len(key), len(name), len(state)) + key + name + state
    return written


if __name__ == "__main__":
    if FILE.exists():
        raise SystemExit(f"{FILE.name} exists: what is stored does not change; a new shape is a new format with a file of its own")
    FILE.write_bytes(rows())
