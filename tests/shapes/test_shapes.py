"""What one release of a program has stored, the next one reads, though its classes have changed: equal, or told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.shapes.__main__ import EQUAL, REFUSED, REPORTED, WRONG, run_both
from tests.shapes.releases import shapes

TOLD = {"removed": "an enum has lost the member that is stored", "moved": "a parametrised generic model has moved"}


def test_every_shape_comes_back_or_is_told(tmp_path: Path) -> None:
    """No shape comes back as something else or as a placeholder; what is told is an enum without the stored member, or a moved generic."""
    found = run_both(tmp_path)
    counts = Counter(verdict for verdict, _ in found.values())
    assert counts[WRONG] == 0, [(key, why) for key, (verdict, why) in found.items() if verdict == WRONG]
    assert counts[REFUSED] == 0, [(key, why) for key, (verdict, why) in found.items() if verdict == REFUSED]
    told = {(shape.kind, shape.change) for shape in shapes() if found[shape.holder][0] == REPORTED}
    assert {change for _, change in told} <= TOLD.keys()
    assert all(kind.endswith(("enum", "flag", "mixin")) for kind, change in told if change == "removed")
    assert counts[EQUAL] >= len(found) * 0.9
