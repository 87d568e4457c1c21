"""A seeded part of `python -m tests.fuzz decoders`; `make fuzz-decoders` runs a million executions."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from symphony_es.errors import DecodeError
from tests.fuzz import decoders
from tests.fuzz.decoders import DECODERS, Fault, check, run
from tests.fuzz.hostile import packed

EXECUTIONS = 12_000
"""Of all decoders together: some seconds."""


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_of_hostile_data(name: str) -> None:
    """Each refuses what it is fed with a declared error, or gives what comes back as itself."""
    base = os.urandom(4).hex() + "-" if os.environ.get("SYMPHONY_RANDOM") else ""
    count = max(4, EXECUTIONS * DECODERS[name].share // 1000)
    faults = run(name, [f"{base}{number}" for number in range(count)])
    assert faults == [], f"python -m tests.fuzz decoders {faults[0]}"


def test_the_data_are_nearly_right() -> None:
    """Enough of them decode that the ways behind the check values are gone."""
    rng, decoded = random.Random("part"), 0
    for _ in range(300):
        try:
            decoders.values.decode_value(packed(rng))
            decoded += 1
        except DecodeError:
            continue
    assert decoded > 100


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (ValueError("bare"), "ValueError: bare"),
        (AssertionError("another value"), "another value"),
        (DecodeError("declared"), None),
    ],
)
def test_what_counts_as_a_fault(fault: Exception, told: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of no declared type, and a value that does not come back; a declared error is none."""

    def fail(_: Any) -> None:
        raise fault

    monkeypatch.setitem(DECODERS, "values", decoders.Decoder(fail, 1))
    if told is None:
        check("values", "7")
        return
    with pytest.raises(Fault, match=told) as caught:
        check("values", "7")
    assert "--only 'values:7'" in str(caught.value)
