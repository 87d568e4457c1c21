"""What evaluating may cost as a whole: all expressions of a template together, and what they give.

Each part of the language has bounds of its own, and so a part is cheap. A template has many parts, a list that is read in each of them
stands in memory once and is written as often as it is read, and a comparison goes through whatever its values hold. So one meter is
read by all parts of one evaluation: it counts before anything is computed or copied. It counts elements, never seconds: the same state
gives the same outcome on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from symphony_es.workflow.language.operations import MAX_SIZE, RefusedError, describe

__all__ = ["MAX_OUTPUT_BYTES", "MAX_WORK", "Metered"]

MAX_WORK = 4_000_000
"""Elements that are looked at, compared or written; below a second."""

MAX_OUTPUT_BYTES = 16 * 1024 * 1024
"""What an event may hold: more could not be recorded."""

_CHARS_PER_ELEMENT = 16
"""Characters of a text that are compared in the time that an element takes."""

_ELEMENTS_PER_NODE = 8
"""Elements that are looked at in the time that a part of an expression takes."""

_SCALARS = frozenset({int, float, bool, type(None), datetime, date, time, timedelta, Decimal, UUID})


class Metered:
    """The names that an evaluation reads, and what it may still cost.

    Attributes:
        names: the scope.
        reads: takes up what is read, where the scope wants to know.
    """

    __slots__ = ("_handed_on", "_output", "_work", "names", "reads")

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.names = names
        self.reads: Any = getattr(names, "reads", None)
        self._work = MAX_WORK
        self._output = MAX_OUTPUT_BYTES
        self._handed_on = set[tuple[str | int, ...]]()

    def evaluate(self, nodes: int) -> None:
        """Count parts of an expression that are about to be evaluated.

        Raises:
            RefusedError: as `spend`.
        """
        self.spend(nodes * _ELEMENTS_PER_NODE)

    def spend(self, work: int) -> None:
        """Count work that is about to be done, in elements.

        Raises:
            RefusedError: it would be more than all parts together may do.
        """
        self._work -= work
        if self._work < 0:
            raise RefusedError(f"evaluating it looks at more than {MAX_WORK:,} elements, which is the limit for one template or condition")

    def visit(self, *values: Any) -> None:
        """Count the elements of values that are about to be compared, at every depth.

        Raises:
            RefusedError: as `spend`.
        """
        for value in values:
            if type(value) in _SCALARS:
                self.spend(1)
            else:
                self._walk(value)

    def copy(self, *values: Any) -> None:
        """Count the elements of lists and texts that are about to be put into a new one; what they hold is not copied.

        Raises:
            RefusedError: as `spend`.
        """
        for value in values:
            if isinstance(value, (list, tuple)):
                self.spend(1 + min(len(value), MAX_SIZE))
            elif isinstance(value, str):
                self.spend(1 + min(len(value), MAX_SIZE) // _CHARS_PER_ELEMENT)

    def hand_out(self, value: Any) -> Any:
        """Count what a value takes where it is stored, and give it; what stands in it twice is stored twice.

        Raises:
            RefusedError: all that is handed out would be more than an event may hold.
        """
        if type(value) in _SCALARS:
            self._write(8)
        else:
            self._walk(value, stored=True)
        return value

    def hand_on(self, value: Any, path: tuple[str | int, ...]) -> Any:
        """Give a value of the run as it stands there: that makes nothing, however large it is. From the second time on, it is counted.

        Raises:
            RefusedError: as `hand_out`.
        """
        if path in self._handed_on:
            return self.hand_out(value)
        self._handed_on.add(path)
        return value

    def text_of(self, value: Any) -> str:
        """Return `str()` of a value, counted before it is made, by what it holds, and after it.

        Raises:
            RefusedError: as `hand_out`, or the value does not write itself.
        """
        before = self._output
        self.hand_out(value)
        try:
            text = str(value)
        except Exception as error:
            raise RefusedError(f"its value cannot be written as text: {describe(error)}") from error
        self._output = before
        self._write(len(text))
        return text

    def _write(self, size: int) -> None:
        self._output -= size
        if self._output < 0:
            raise RefusedError(f"it gives more than {MAX_OUTPUT_BYTES:,} bytes, which is the limit of what an event may hold")

    def _walk(self, value: Any, *, stored: bool = False) -> None:
        waiting: list[Any] = [(value,)]
        while waiting:
            held = waiting.pop()
            kinds = set(map(type, held))
            work = size = 1 + len(held)
            if str in kinds or not kinds <= _SCALARS:
                for item in held:
                    if isinstance(item, (str, bytes, bytearray)):
                        size += len(item)
                        work += len(item) // _CHARS_PER_ELEMENT
                    elif isinstance(item, dict):
                        waiting += (item.keys(), item.values())
                    elif isinstance(item, (list, tuple, set, frozenset)):
                        waiting.append(item)
                    elif isinstance(item, (Mapping, Sequence, Set)):  # a view, such as the outputs of steps: made when it is read
                        work += len(item)
                    # else an object of the application: how it compares and is written is its own business
            self.spend(work)
            if stored:
                self._write(size)
