"""Reads the plain dict of a definition or step, and names the path of every fault.

Pure. `to_dict` and `from_dict` of definitions and steps stand on it, also those of step kinds that an application adds.
Keeps rule 6 (nothing is lost in silence): a key nobody reads is an error, since it is a misspelt one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from symphony_es.core.objects.frozen import copied
from symphony_es.errors import DefinitionError, ExpressionError, UnstorableValueError, format_path
from symphony_es.events.values import check_plain
from symphony_es.shown import shown

__all__ = ["MAX_SECONDS", "DataReader"]

MAX_SECONDS = 100 * 365 * 86_400
"""A hundred years: what is longer is a mistake, and ends beyond the last moment that a clock can tell."""


class DataReader:
    """The keys of one dict, read once each.

    Example:
        >>> reader = DataReader({"name": "plan", "kind": "task"}, "steps[0]")
        >>> reader.text("name"), reader.optional_text("kind"), reader.text("model", default="")
        ('plan', 'task', '')
        >>> reader.finish()

    Args:
        data: what was given; anything but a mapping with str keys is a fault.
        path: where it stands, for messages; "" for the definition itself.
    """

    def __init__(self, data: object, path: str = "") -> None:
        if not isinstance(data, Mapping):
            raise DefinitionError(path, f"expected a dict, not {type(data).__name__}")
        self.path = path
        self._data: Mapping[Any, Any] = data
        self._asked: set[Any] = set()

    def text(self, key: str, *, default: str | None = None) -> str:
        """Return a str; it must be there and not be empty unless a default is given."""
        value = self.value(key, default)
        if value is None and default is None:
            raise self.fault(key, "is missing")
        if not isinstance(value, str):
            raise self.fault(key, f"must be a str, not {type(value).__name__}")
        if not value and default is None:
            raise self.fault(key, "must not be empty")
        self._check(key, value)
        return value

    def optional_text(self, key: str) -> str | None:
        """Return a str that is not empty, or None when the key is missing or None."""
        return None if self.value(key) is None else self.text(key)

    def flag(self, key: str) -> bool:
        """Return a bool; False when it is missing or None."""
        value = self.value(key)
        if value is not None and not isinstance(value, bool):
            raise self.fault(key, f"must be true or false, not {type(value).__name__}")
        return bool(value)

    def whole(self, key: str, least: int, most: int | None = None) -> int | None:
        """Return an int within bounds, or None when it is missing or None."""
        value = self.value(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.fault(key, f"must be an int, not {type(value).__name__}")
        if value < least or (most is not None and value > most):
            bounds = f"at least {least}" if most is None else f"between {least} and {most:,}"
            raise self.fault(key, f"must be {bounds}, not {shown(value)}")
        return value

    def seconds(self, key: str) -> float | None:
        """Return a number of seconds greater than 0 and at most `MAX_SECONDS`, or None when it is missing or None."""
        value = self.value(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MAX_SECONDS:
            raise self.fault(key, f"must be a number of seconds greater than 0 and at most {MAX_SECONDS:,} (100 years), not {shown(value)}")
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """Return one of some texts; the first when it is missing or None."""
        value = self.value(key)
        if value is None:
            return choices[0]
        if value not in choices:
            raise self.fault(key, f"must be one of {', '.join(map(repr, choices))}, not {shown(value)}")
        return str(value)

    def mapping(self, key: str) -> dict[str, Any]:
        """Return a copy of a dict of plain values with str keys; empty when it is missing or None."""
        value = self.plain(key)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise self.fault(key, "must be a dict with str keys")
        return value

    def template(self, key: str, *, required: bool = False) -> Any:
        """Return a copy of a plain value whose texts may hold `{{ … }}`, each of which parses."""
        value = self.plain(key)
        if required and value is None:
            raise self.fault(key, "is missing")
        if value is None:
            return None
        from symphony_es.workflow.language.templates import check_template  # late: only texts in definitions need the language

        try:
            check_template(value)
        except ExpressionError as error:
            raise self.fault(key, str(error)) from error
        return value

    def expression(self, key: str, *, required: bool = False) -> str | None:
        """Return a text in the language of conditions, which parses; None when it is missing or None."""
        text = self.text(key) if required else self.optional_text(key)
        if text is not None:
            from symphony_es.workflow.language.expressions import check_expression

            try:
                check_expression(text)
            except ExpressionError as error:
                raise self.fault(key, str(error)) from error
        return text

    def sequence(self, key: str) -> list[Any]:
        """Return the elements of a list or tuple; none when it is missing or None."""
        value = self.value(key)
        if value is None:
            return []
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            alone = ": one alone is a list of one, [step]" if isinstance(value, Mapping) and "kind" in value else ""
            raise self.fault(key, f"must be a list, not {type(value).__name__}{alone}")
        return list(value)

    def plain(self, key: str) -> Any:
        """Return a copy of a value that can be part of a state, or None; its containers are plain, also where a definition holds them."""
        given = self.value(key)
        if given is None:
            return None
        value = copied(given)
        self._check(key, value)
        return value

    def has(self, key: str) -> bool:
        """Return whether the key is there, be its value None."""
        self._asked.add(key)
        return key in self._data

    def value(self, key: str, default: Any = None) -> Any:
        """Return whatever stands under the key, not copied."""
        self._asked.add(key)
        return self._data.get(key, default)

    def fault(self, key: str, why: str) -> DefinitionError:
        """Return the error for one key of this dict."""
        return DefinitionError(self.at(key), why)

    def at(self, key: str) -> str:
        """Return where a key of this dict stands in the definition."""
        return f"{self.path}.{key}" if self.path else key

    def _check(self, key: str, value: Any) -> None:
        try:
            check_plain(value)
        except UnstorableValueError as error:
            inner = format_path(error.path)
            separator = "" if not inner or inner.startswith("[") else "."
            raise self.fault(f"{key}{separator}{inner}", f"cannot be stored: {error.why}") from error

    def finish(self) -> None:
        """Refuse keys that nobody has asked for."""
        for key in self._data:
            if key not in self._asked:
                raise self.fault(str(key), f"is no key that is known here (known: {', '.join(sorted(self._asked))})")
