"""Arguments that no store takes are refused by a typed error, which speaks of the argument and not of damage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, PositionNotFoundError
from tests.application import Customer
from tests.conftest import Opener

HUGE = 10**30
LONE = "\ud800"

ODD: dict[str, Callable[[Symphony], Awaitable[Any]]] = {
    "history after a version": lambda s: s.history("Customer:odd", after_version=HUGE),
    "history before a version": lambda s: s.history("Customer:odd", after_version=-HUGE),
    "history, so many": lambda s: s.history("Customer:odd", limit=HUGE),
    "history, a part of one": lambda s: s.history("Customer:odd", limit=2.5),  # type: ignore[arg-type]
    "history of a name": lambda s: s.history("Customer:odd", "name", limit=HUGE),
    "audit, so many": lambda s: s.audit.find(limit=HUGE),
    "audit, a part of one": lambda s: s.audit.find(limit=2.5),  # type: ignore[arg-type]
    "audit from a position": lambda s: s.audit.find(after_position=HUGE),
    "audit of an actor": lambda s: s.audit.find(actor=LONE),
    "audit, a page": lambda s: anext(s.audit.stream(page=HUGE)),
    "rows from a position": lambda s: s.log.read_rows(HUGE),
    "rows, so many": lambda s: s.log.read_rows(limit=HUGE),
    "rows, a part of one": lambda s: s.log.read_rows(limit=2.5),  # type: ignore[arg-type]
    "an entity's rows": lambda s: s.log.read_entity("Customer:odd", HUGE),
    "a row": lambda s: s.log.row_at(HUGE),
    "the bounds of a transaction": lambda s: s.log.transaction_bounds(HUGE),
}


@pytest.mark.parametrize("question", ODD)
async def test_odd_arguments_are_refused(reopen: Opener, question: str) -> None:
    """The error names what was given; the next question is answered."""
    symphony = await reopen()
    symphony.entities.add(Customer(id="odd", name="Ada"))
    await symphony.flush()
    with pytest.raises((ConfigurationError, PositionNotFoundError), match=r"10000000|2\.5|surrogate"):
        await ODD[question](symphony)
    assert len(await symphony.history("Customer:odd")) == 1
