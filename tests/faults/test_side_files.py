"""Random damages to what stands beside a log: every answer is the log's."""

from __future__ import annotations

from tests.faults.side_files import run


def test_random_damages_beside_a_log() -> None:
    """A seeded part of `python -m tests.faults.side_files`: nothing is answered that the log would not answer."""
    kinds, outcomes, wrong = run(range(24), seed=7)
    assert wrong == []
    assert outcomes.total() == kinds.total() == 24
    assert outcomes["right"] > 12
