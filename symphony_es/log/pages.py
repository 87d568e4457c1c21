"""Where the pages of a reading end: by rows, and by bytes, since one event may have as many as a thousand others.

Every store cuts its pages here, so no reader above holds more than a page of the log, whatever the events weigh.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from sys import maxsize
from typing import Any

from symphony_es.events.rows import Row

__all__ = ["PAGE_BYTES", "PAGE_ROWS", "Page", "take_page"]

PAGE_ROWS = 1000
PAGE_BYTES = 8 * 1024 * 1024
"""A page ends with the row with which its states come to so many bytes; it has one row at least."""


class Page(list[Row]):
    """Rows in order.

    Attributes:
        cut: it ends where it does because of its bytes: there may be more rows of those that were asked for.
    """

    __slots__ = ("cut",)

    def __init__(self, rows: Iterable[Row] = (), *, cut: bool = False) -> None:
        super().__init__(rows)
        self.cut = cut


def take_page(rows: Iterable[Any], limit: int, room: int | None = None) -> Page:
    """Return the first rows, as far as a page goes; no later one is read.

    Args:
        rows: in order.
        limit: at most so many.
        room: about so many bytes; `PAGE_BYTES` when it is left out.
    """
    page = Page()
    if limit <= 0:
        return page
    left, add = PAGE_BYTES if room is None else room, page.append
    for row in islice(rows, min(limit, maxsize)):
        add(row)
        state = row[4]
        if type(state) is bytes:  # of a damaged row it may be anything
            left -= len(state)
        if left <= 0:
            page.cut = len(page) < limit
            break
    return page
