"""Strands of a `gather` that were cut off, because another one had failed, while the code has caught that and gone on.

What such a strand had called last has no outcome, and never gets one: when the function runs again, the strand is cut off there again, and
nothing of it begins anew. So the place is on record, as a mark of the call, or in the place of the next call where none was under way. The
mark is part of the event of the first call that the code makes after the `gather`: where it has not gone on, the `gather` is still open.
Where that call is taken back, or was made after a failure that is forgiven, the mark holds no longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from symphony_es.events.changes import SET, Change
from symphony_es.workflow.code.forgiving import is_marked
from symphony_es.workflow.runs.under_way import CUT_OFF, is_cut_off

if TYPE_CHECKING:
    from symphony_es.workflow.code.strands import Call, Group, Strand
    from symphony_es.workflow.runs.run import Workflow

__all__ = ["CutOff", "catch_up", "cut_off_in", "cut_off_outside", "note_cuts"]

IDLE_TURNS = 100
"""So many turns of the event loop without a call: what does not catch up waits for something of its own."""


class CutOff(NamedTuple):
    """Where a strand was cut off.

    Attributes:
        group: address of the `gather` whose failure it was.
        around: the strand that has called this `gather`.
        strand: name of the strand in whose numbering the place is.
        place: of the call that was under way, or of the next one.
    """

    group: str
    around: str
    strand: str
    place: int

    def is_before(self, call: Call) -> bool:
        """Return whether a call is made when the `gather` is over: by the strand around it, or by one around that."""
        name = call.strand.name
        return not name or self.around == name or self.around.startswith(f"{name}/")


async def catch_up(group: Group, failed: Strand) -> None:
    """Return when the other strands have made the calls that are on record of them; then a failure may cancel them.

    A strand that was cut off in the middle of what it only repeats would clean up in another place than it did.
    """
    idle, calls = 0, -1
    while idle < IDLE_TURNS and any(strand.is_repeating for strand in group.strands if strand is not failed):
        idle, calls = (idle + 1, calls) if failed.flow.calls == calls else (0, failed.flow.calls)
        await asyncio.sleep(0)


def cut_off_in(group: Group, around: str) -> Iterator[CutOff]:
    """Return where the strands of a `gather` that has failed were cut off, and those inside of them."""
    waiting = [strand for strand in group.strands if strand is not group.failed]
    while waiting:
        strand = waiting.pop()
        within = strand.last_group
        if within is not None and not within.is_over:
            waiting += within.strands
        if strand.cut_at is not None:  # also where its code has caught that, and has come to its end
            yield CutOff(group.address, around, strand.cut_at.strand.name, strand.cut_at.place)
        elif not strand.ended:
            yield CutOff(group.address, around, strand.name, strand.made)


def note_cuts(run: Workflow, cuts: list[CutOff], carrier: Call) -> list[Change]:
    """Return what puts cuts on record, as part of the event of a call's first start."""
    changes: list[Change] = []
    new: dict[str, dict[str, Any]] = {}
    for cut in cuts:
        mark = "\n".join((CUT_OFF, cut.group, carrier.strand.name, str(carrier.place)))
        calls = run.calls.get(cut.strand)
        place = cut.place
        call = None if calls is None else calls.get(str(place))
        if call is not None and call[0] in run.recorded_outputs:  # it was cancelled, and came to its end all the same
            place += 1
            call = None if calls is None else calls.get(str(place))
            if call is not None:
                continue
        if (call is not None and is_cut_off(call)) or (calls is None and cut.strand == carrier.strand.name):
            continue
        marked = ["", CUT_OFF, mark] if call is None else [*(call[:-1] if is_marked(call) else call), mark]
        if calls is None:
            new.setdefault(cut.strand, {})[str(place)] = marked
        else:
            changes.append((SET, ("calls", cut.strand, str(place)), marked))
    return [*changes, *((SET, ("calls", strand), calls) for strand, calls in new.items())]


def cut_off_outside(group: Group) -> bool | None:
    """Return whether strands of a `gather` that has not failed were cut off by a `gather` around it; None where none were cut off."""
    groups = [mark.split("\n")[1] for strand in group.strands if (mark := strand.called_off) is not None]
    return None if not groups else any(one != group.address for one in groups)
