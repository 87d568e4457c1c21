"""What a resume reports can be read by people, in notebooks, and by programs."""

from __future__ import annotations

import json

from symphony_es.core.report import ResumeReport
from symphony_es.events.fold import Damage


def test_a_report_says_what_there_is_to_say() -> None:
    """Nothing of what did not happen; JSON encoders take the whole of it; a missing commit makes it incomplete."""
    report = ResumeReport(position=7, checkpoint="c", restored=3)
    assert report.complete
    assert repr(report) == "<ResumeReport position 7: 3 restored in 0.000 s>"
    report.damaged = {"Order:1": Damage(version=2, position=5, reason="does not fit")}
    report.lost_at_the_end = (8, 9)
    assert not report.complete
    assert "1 damaged" in repr(report)
    assert "2 positions missing at the end" in repr(report)
    assert "Order:1" in report._repr_html_()
    plain = json.loads(json.dumps(report.to_dict()))
    assert (plain["damaged"]["Order:1"]["reason"], plain["lost_at_the_end"], plain["unrestored"]) == ("does not fit", [8, 9], {})
