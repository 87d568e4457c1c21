"""Data of somebody who means harm: bytes of msgpack, texts, numbers and JSON that are nearly right, or right and strange."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

from symphony_es.events import codec

__all__ = ["damaged", "json_value", "number", "packed", "packed_array", "packed_number", "packed_text", "text"]

TEXTS = (
    "", "a", "b", "id", "n", "Type:id", "symphony.Checkpoint:ckpt_1", "Workflow:r", "UTC", "Europe/Berlin", "Mars/Base", "../../etc/passwd",
    "1.5", "-0", "1E+5", "1E+999999999999999999", "1E-999999", "NaN", "sNaN12", "Infinity", "9" * 700, "0x" + "f" * 99, "1_0", "\u0661",
    "2026-11-28", "2026-11-28T10:00:00.123456+01:00", "latest", "true", "null", "\x1b[2J", "\u202etxt", "\ud800", "a\nb", "a\0b", "x" * 600,
    "{{ a }}", "{{ a[0] }}", "{{ 9**9 }}", "lines[0].amount", "a['b c']", "$ref", "$bytes", "e" * 130, "builtins:frozenset",
    "fractions:Fraction", "builtins:range", "collections:defaultdict", "SetElsewhere", "Created", "@1", "#1", "9" * 5000,
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 63, 64, 65, 100, 127, 255, 256, 2**31, 2**32 - 1, 2**53, 2**61 - 1, 2**61 - 2, 2**63 - 1, 2**63, -(2**63), 2**64 - 1,
    2**64, -(2**64), 10**18, 10**400, -(10**700), 10**5000, 86_400_000_000, 3_652_059, 3_652_060, 999_999_999 * 86_400_000_000,
)  # fmt: skip


def text(rng: random.Random) -> str:
    """A text that something may take for more than it is."""
    pick = rng.random()
    if pick < 0.6:
        return rng.choice(TEXTS)
    if pick < 0.8:
        return "".join(rng.choice("ab:._-/ %0\u00e9\u4e2d\U0001f600\x1b\n'\"[]{}\\") for _ in range(rng.randrange(12)))
    return rng.choice(TEXTS) + rng.choice(TEXTS)


def number(rng: random.Random) -> int:
    """A whole number at or beside a border, or any."""
    pick = rng.random()
    if pick < 0.6:
        return rng.choice(NUMBERS) + rng.choice((0, 0, 0, 1, -1))
    return rng.getrandbits(rng.choice((3, 8, 30, 64, 65, 130, 1000))) * rng.choice((1, -1))


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bytes with one or a few of them changed, cut out, put in, or the end cut off."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0x90, 0xC1, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del changed[at:]
        elif kind == 3:
            del changed[at : at + rng.randrange(1, 5)]
        elif kind == 4:
            changed[at:at] = rng.randbytes(rng.randrange(1, 5))
        else:
            changed[at : at + 8] = changed[rng.randrange(len(changed) + 1) :][:8]
    return bytes(changed)


# -- msgpack ----------------------------------------------------------------------------------------------------------


def _head(rng: random.Random, small: int, most_small: int, codes: tuple[int, ...], size: int) -> bytes:
    """What a text, array or map begins with; sometimes longer than it need be, or with another length than is true."""
    if rng.random() < 0.005:
        size = rng.choice((0, size + 1, 2**31 - 1, 2**32 - 1))
    if size <= most_small and rng.random() < 0.97:
        return bytes((small | size,))
    width = rng.choice([index for index in range(len(codes)) if size < 256 ** (1 << (index + (len(codes) == 2)))] or [len(codes) - 1])
    form = {3: (">BB", ">BH", ">BI"), 2: (">BH", ">BI")}[len(codes)][width]
    return struct.pack(form, codes[width], size)


def packed_text(rng: random.Random, value: str | None = None) -> bytes:
    """A text."""
    raw = (text(rng) if value is None else value).encode("utf-8", "surrogatepass")
    return _head(rng, 0xA0, 31, (0xD9, 0xDA, 0xDB), len(raw)) + raw


def packed_array(rng: random.Random, items: list[bytes]) -> bytes:
    """An array."""
    return _head(rng, 0x90, 15, (0xDC, 0xDD), len(items)) + b"".join(items)


def packed_map(rng: random.Random, depth: int) -> bytes:
    size = rng.choice((0, 1, 1, 2, 2, 3, 5))
    keys = [packed(rng, 0) if rng.random() < 0.05 else packed_number(rng) if rng.random() < 0.2 else packed_text(rng) for _ in range(size)]
    return _head(rng, 0x80, 15, (0xDE, 0xDF), size) + b"".join(key + packed(rng, depth - 1) for key in keys)


def packed_number(rng: random.Random) -> bytes:
    """A whole number, as it is written or longer."""
    value = number(rng)
    if -(2**63) <= value < 2**64 and rng.random() < 0.95:
        return codec.pack(value)
    return _ext(rng, codec.BIGINT, value.to_bytes(value.bit_length() // 8 + rng.choice((1, 1, 1, 2)), "big", signed=True))


def _ext(rng: random.Random, code: int, payload: bytes) -> bytes:
    if rng.random() < 0.01:
        payload = damaged(rng, payload)
    fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}.get(len(payload))
    if fixed is not None:
        return bytes((fixed, code & 0xFF)) + payload
    form, kind = (">BBB", 0xC7) if len(payload) < 256 else (">BHB", 0xC8) if len(payload) < 65536 else (">BIB", 0xC9)
    return struct.pack(form, kind, len(payload), code & 0xFF) + payload


def _moment(rng: random.Random) -> bytes:
    wall = codec.pack(rng.choice((0, 1, 86_399_999_999, 63_900_000_000_000_000, rng.randrange(3 * 10**17), -1, 10**18)))
    offset = rng.choice((b"\xc0", codec.pack(0), codec.pack(3_600_000_000), codec.pack(-86_400_000_000), packed_number(rng)))
    name = rng.choice((b"\xc0", packed_text(rng, "UTC"), packed_text(rng, "Europe/Berlin"), packed_text(rng)))
    return packed_array(rng, [packed_number(rng) if rng.random() < 0.1 else wall, codec.pack(rng.choice((0, 1, 2))), offset, name])


def _tagged(rng: random.Random, depth: int, code: int) -> bytes:
    data = rng.choice((packed_text, packed_number))(rng) if code == codec.ENUM else packed_map(rng, depth - 1)
    more = [] if rng.random() < 0.7 else [packed(rng, depth - 1) if code == codec.ENUM else packed_number(rng)]
    return packed_array(rng, [packed_text(rng, "shop:Part") if rng.random() < 0.8 else packed_text(rng), data, *more])


_PAYLOADS: dict[int, Callable[[random.Random, int], bytes]] = {
    codec.TUPLE: lambda rng, depth: packed_array(rng, [packed(rng, depth - 1) for _ in range(rng.choice((0, 1, 2, 3)))]),
    codec.SET: lambda rng, depth: packed_array(rng, [packed(rng, min(depth - 1, 1)) for _ in range(rng.choice((0, 1, 2, 3)))]),
    codec.DATETIME: lambda rng, _: _moment(rng),
    codec.DATE: lambda rng, _: packed_number(rng),
    codec.TIME: lambda rng, _: _moment(rng),
    codec.TIMEDELTA: lambda rng, _: packed_number(rng),
    codec.DECIMAL: lambda rng, _: text(rng).encode("utf-8", "surrogatepass"),
    codec.UUID_: lambda rng, _: rng.randbytes(rng.choice((16, 16, 16, 15))),
    codec.BIGINT: lambda rng, _: rng.randbytes(rng.choice((0, 1, 8, 9, 9, 20, 300))),
    codec.REFERENCE: lambda rng, _: text(rng).encode("utf-8", "surrogatepass"),
    codec.ENUM: lambda rng, depth: _tagged(rng, depth, codec.ENUM),
    codec.VALUE: lambda rng, depth: _tagged(rng, depth, codec.VALUE),
    codec.PART: lambda rng, depth: _tagged(rng, depth, codec.PART),
    codec.REDACTED: lambda rng, _: text(rng).encode("utf-8", "surrogatepass"),
    codec.ENCRYPTED: lambda rng, _: packed_array(rng, [packed_text(rng), b"\xc4\x02ab"]),
}


def packed(rng: random.Random, depth: int = 4) -> bytes:
    """A value as bytes: of each type, with whatever may stand in it."""
    pick = rng.random()
    if depth > 0 and pick < 0.35:
        return (
            packed_map(rng, depth) if pick < 0.2 else packed_array(rng, [packed(rng, depth - 1) for _ in range(rng.choice((0, 1, 2, 4)))])
        )
    if pick < 0.6:
        code = rng.choice(tuple(_PAYLOADS)) if rng.random() < 0.98 else rng.randrange(256)
        return _ext(rng, code, _PAYLOADS.get(code, lambda rng, _: rng.randbytes(3))(rng, depth))
    if pick < 0.75:
        return packed_text(rng)
    if pick < 0.9:
        return packed_number(rng)
    return rng.choice(
        (
            b"\xc0",
            b"\xc2",
            b"\xc3",
            b"\xc4\x03abc",
            struct.pack(">Bd", 0xCB, rng.choice((0.0, -0.0, 1.5, 1e308, float("nan"), float("inf")))),
        )
    )


# -- JSON -------------------------------------------------------------------------------------------------------------


def json_value(rng: random.Random, depth: int = 3, names: tuple[str, ...] = TEXTS[:9]) -> Any:
    """What `json.dumps` takes; with names that are looked for."""
    pick = rng.random()
    if depth > 0 and pick < 0.3:
        return {
            rng.choice(names) if rng.random() < 0.9 else text(rng): json_value(rng, depth - 1, names)
            for _ in range(rng.choice((0, 1, 2, 4)))
        }
    if depth > 0 and pick < 0.45:
        return [json_value(rng, depth - 1, names) for _ in range(rng.choice((0, 1, 2, 3)))]
    if pick < 0.7:
        return text(rng)
    if pick < 0.85:
        found = number(rng)
        return found if found.bit_length() < 2000 else 10**300
    return rng.choice((None, True, False, 1.5, -0.0, 1e308, 0)) if rng.random() < 0.98 else float("inf")
