"""Templates: `{{ topic }}` and `{{ step.plan.result }}` in the texts and inputs of a step.

Pure; sits beside the definitions, which check a template when they are made, and below the steps, which render it when
they run. A template reads paths, nothing else: it cannot call, compute or reach an attribute. Keeps rule 6 (nothing is
lost in silence): a name that is not there is an error with the names that are, never an empty text or the text as it was.

```
expression = name { "." name | "." number | "[" number "]" | "[" quoted text "]" }
```
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from symphony_es.errors import TemplateError

__all__ = ["Expression", "check_template", "parse_template", "render"]

MAX_EXPRESSION_CHARS = 500
"""An expression is a path; a longer one is an unclosed brace somewhere before it."""

MAX_DEPTH = 64
"""As deep as a value inside a state may be."""

_NAME = re.compile(r"\s*([^\W\d]\w*)\s*")
_STEP = re.compile(r"""\s*(?: \.\s*([^\W\d]\w*|\d+) | \[\s*(-?\d+)\s*\] | \[\s*"([^"]*)"\s*\] | \[\s*'([^']*)'\s*\] )\s*""", re.VERBOSE)


@dataclass(frozen=True, slots=True)
class Expression:
    """One `{{ … }}`: its text, where it begins in the template (characters from 0), and the path it reads."""

    text: str
    offset: int
    path: tuple[str | int, ...]


def render(template: Any, scope: Mapping[str, Any]) -> Any:
    """`template` with its expressions replaced by what they read in `scope`.

    A text that is one expression as a whole gives the value itself, with its type; expressions inside a longer text give
    `str()` of theirs. Lists, tuples and the values of dicts are rendered inside; everything else is returned as it is.
    What was put in is never rendered again. Containers of `scope` are handed out, not copied.

    Example:
        >>> render("{{ n }}", {"n": 3}), render("n is {{ n }}", {"n": 3})
        (3, 'n is 3')

    Raises:
        TemplateError: an expression that cannot be parsed, or a name that is not in `scope`.
    """
    return _render(template, scope, 0)


def check_template(template: Any) -> None:
    """Parses every expression of `template` and reads none.

    Raises:
        TemplateError: the first one that cannot be parsed.
    """
    if isinstance(template, str):
        parse_template(template)
    elif isinstance(template, Mapping):
        for value in template.values():
            check_template(value)
    elif isinstance(template, (list, tuple)):
        for value in template:
            check_template(value)


@lru_cache(maxsize=1024)
def parse_template(text: str) -> tuple[str | Expression, ...]:
    """The text between expressions, and the expressions, in order; empty texts are left out.

    Raises:
        TemplateError: an expression that is no path, or an opening `{{` without its `}}`.
    """
    parts: list[str | Expression] = []
    end = 0
    while (start := text.find("{{", end)) >= 0:
        close = text.find("}}", start + 2)
        if close < 0:
            raise TemplateError(text[start + 2 :][:40].strip(), start, "its closing }} is missing")
        if start > end:
            parts.append(text[end:start])
        parts.append(_parse_expression(text[start + 2 : close], start))
        end = close + 2
    if end < len(text):
        parts.append(text[end:])
    return tuple(parts)


def _parse_expression(source: str, offset: int) -> Expression:
    text = source.strip()
    if len(text) > MAX_EXPRESSION_CHARS:
        raise TemplateError(f"{text[:40]}…", offset, f"it is longer than {MAX_EXPRESSION_CHARS} characters")
    name = _NAME.match(text)
    if name is None:
        raise TemplateError(text, offset, "it must begin with a name, for example {{ topic }} or {{ step.plan.result }}")
    path: list[str | int] = [name.group(1)]
    position = name.end()
    while position < len(text):
        found = _STEP.match(text, position)
        if found is None:
            why = f"{text[position:][:20]!r} is no part of a path; write .name, [0] or ['a key']"
            raise TemplateError(text, offset, why)
        key, index, quoted, single = found.groups()
        if key is not None:
            path.append(int(key) if key.isdecimal() and key.isascii() else key)
        elif index is not None:
            path.append(int(index))
        else:
            path.append(quoted if quoted is not None else single)
        position = found.end()
    return Expression(text, offset, tuple(path))


def _render(template: Any, scope: Mapping[str, Any], depth: int) -> Any:
    if isinstance(template, str):
        parts = parse_template(template)
        if len(parts) == 1 and isinstance(parts[0], Expression):
            return _read(parts[0], scope)
        return "".join(part if isinstance(part, str) else str(_read(part, scope)) for part in parts)
    if depth >= MAX_DEPTH:
        raise TemplateError("", 0, f"the template is nested deeper than {MAX_DEPTH}")
    if isinstance(template, Mapping):
        return {key: _render(value, scope, depth + 1) for key, value in template.items()}
    if isinstance(template, list):
        return [_render(value, scope, depth + 1) for value in template]
    if isinstance(template, tuple):
        return tuple(_render(value, scope, depth + 1) for value in template)
    return template


def _read(expression: Expression, scope: Mapping[str, Any]) -> Any:
    value: Any = scope
    seen = ""
    for element in expression.path:
        value = _enter(value, element, expression, seen)
        seen = f"{seen}[{element!r}]" if isinstance(element, int) or not element.isidentifier() else f"{seen}.{element}".lstrip(".")
    return value


def _enter(value: Any, element: str | int, expression: Expression, seen: str) -> Any:
    where = f"in {seen}" if seen else "in the run's context"
    if isinstance(value, Mapping):
        try:
            return value[element]
        except KeyError as error:
            names = [str(key) for key in value]
            reason = error.args[0] if error.args and error.args[0] != element else f"there is no {element!r} {where}"
            raise TemplateError(expression.text, expression.offset, str(reason), names) from None
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if not isinstance(element, int):
            raise TemplateError(expression.text, expression.offset, f"{seen} is a list: it has indexes, and no {element!r}")
        try:
            return value[element]
        except IndexError:
            why = f"{seen} has {len(value)} elements, and no [{element}]"
            raise TemplateError(expression.text, expression.offset, why) from None
    raise TemplateError(expression.text, expression.offset, f"{seen} is {type(value).__name__}: it has no {element!r} inside")
