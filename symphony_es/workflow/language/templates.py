"""Templates: `{{ topic }}` and `{{ step.plan.result }}` in the texts and inputs of a step.

Pure; sits beside the definitions, which check a template when they are made, and below the steps, which render it when they run. What
stands between the braces is a path or, where it is none, an expression as conditions are (`expressions`). Keeps rule 6 (nothing is
lost in silence): a name that is not there is an error with the names that are, never an empty text or the text as it was.

```
path = name { "." name | "." number | "[" number "]" | "[" quoted text "]" }
```
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from symphony_es.errors import ExpressionError, TemplateError
from symphony_es.late_dataclasses import dataclass
from symphony_es.workflow.language.compiling import Read, lookup, whole, whole_of
from symphony_es.workflow.language.expressions import MAX_CHARS, MAX_NODES, Expression, compile_expression
from symphony_es.workflow.language.metering import Metered
from symphony_es.workflow.language.operations import RefusedError

__all__ = ["Placeholder", "check_template", "parse_template", "render"]

T = TypeVar("T")

MAX_DEPTH = 64
"""As deep as a value inside a state may be."""

_NAME = re.compile(r"(?!(?:None|True|False)\b)([^\W\d]\w*)\s*")
_STEP = re.compile(
    r"""\.\s*(?P<key>[^\W\d]\w*|[0-9]{1,9})\s*
    | \[\s*(?P<index>-?[0-9]{1,9})\s*\]\s* | \[\s*(?:"(?P<quoted>[^"\\\r\n]*)"|'(?P<single>[^'\\\r\n]*)')\s*\]\s*""",
    re.VERBOSE,
)
_MARK = re.compile(r"""'(?:[^'\\\r\n]|\\[^\r\n])*' | "(?:[^"\\\r\n]|\\[^\r\n])*" | \{ | \}\}? """, re.VERBOSE)


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One `{{ … }}`: its expression, and where that begins in the template (characters from 0)."""

    expression: Expression
    offset: int


def render(template: Any, scope: Mapping[str, Any]) -> Any:
    """Return `template` with its expressions replaced by what they read in `scope`.

    A text that is one expression as a whole gives the value itself, with its type; expressions inside a longer text give
    `str()` of theirs. Lists, tuples and the values of dicts are rendered inside; everything else is returned as it is.
    What was put in is never rendered again. Containers of `scope` are handed out, not copied.

    Example:
        >>> render("{{ n }}", {"n": 3}), render("n is {{ n }}", {"n": 3})
        (3, 'n is 3')

    Raises:
        TemplateError: an expression that cannot be read or evaluated, for example for a name that is not in `scope`.
    """
    if isinstance(template, str):
        parts = parse_template(template)
        if len(parts) == 1 and isinstance(parts[0], Placeholder) and not parts[0].expression.makes:
            return _read(parts[0], Metered(scope), _as_it_is)  # a value of the scope, or a part of one, once: that takes no memory
    return _render(template, Metered(scope), 0)


def check_template(template: Any) -> None:
    """Parse every expression of `template` and read none.

    Raises:
        TemplateError: the first one that cannot be read.
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
def parse_template(text: str) -> tuple[str | Placeholder, ...]:
    """Return the text between placeholders, and the placeholders, in order; empty texts are left out.

    Raises:
        TemplateError: what stands between the braces is no expression, or an opening `{{` is without its `}}`.
    """
    parts: list[str | Placeholder] = []
    end = 0
    while (start := text.find("{{", end)) >= 0:
        close = _find_close(text, start + 2)
        if close < 0:
            shown = text[start + 2 :][:40].strip()
            raise TemplateError(shown, start, f"its closing }}}} is missing, or more than {MAX_CHARS:,} characters away")
        if start > end:
            parts.append(text[end:start])
        parts.append(_placeholder(text, start + 2, close))
        end = close + 2
    if end < len(text):
        parts.append(text[end:])
    return tuple(parts)


def _find_close(text: str, begin: int) -> int:
    """Return where the `}}` of a placeholder is: not inside a quoted text, and not what ends a set."""
    position, end, opened = begin, begin + MAX_CHARS + 2, 0
    while mark := _MARK.search(text, position, end):
        found = mark[0]
        if found == "{":
            opened += 1
        elif found[0] == "}" and opened:
            opened -= 1
            position = mark.start() + 1
            continue
        elif found == "}}":
            return mark.start()
        position = mark.end()
    return text.find("}}", begin, end)  # a quote or a brace is left open: what stands there is refused when it is read


def _placeholder(template: str, begin: int, end: int) -> Placeholder:
    text = template[begin:end].strip()
    offset = begin + len(template[begin:end]) - len(template[begin:end].lstrip())
    try:
        return Placeholder(_path(text) or compile_expression(text), offset)
    except ExpressionError as error:
        raise TemplateError(error.expression, offset + error.offset, error.why) from None


def _path(text: str) -> Expression | None:
    """Return the expression that looks up one key or index after the other; None when the text is no path."""
    name = _NAME.match(text)
    if name is None or len(text) > MAX_CHARS:
        return None
    read: Read = lookup(text, 0, "", whole, name[1])
    path: list[str | int] = [name[1]]
    position = name.end()
    while position < len(text):
        found = _STEP.match(text, position)
        if found is None or len(path) == MAX_NODES:
            return None
        kind = found.lastgroup or ""
        key: str | int = found[kind]
        if kind == "index" or (kind == "key" and found[kind].isdecimal()):
            key = int(key)
        read = lookup(text, found.start(kind), text[:position].rstrip(), read, key)
        path.append(key)
        position = found.end()
    return Expression(text, whole_of(read), len(path), path=tuple(path))


def _render(template: Any, scope: Metered, depth: int) -> Any:
    if isinstance(template, str):
        parts = parse_template(template)
        if len(parts) == 1 and isinstance(parts[0], Placeholder):
            path = parts[0].expression.path
            return _read(parts[0], scope, scope.hand_out if path is None else lambda value: scope.hand_on(value, path))
        return "".join([part if isinstance(part, str) else _read(part, scope, scope.text_of) for part in parts])
    if depth >= MAX_DEPTH:
        raise TemplateError("", 0, f"the template is nested deeper than {MAX_DEPTH}")
    if isinstance(template, Mapping):
        return {key: _render(value, scope, depth + 1) for key, value in template.items()}
    if isinstance(template, list):
        return [_render(value, scope, depth + 1) for value in template]
    if isinstance(template, tuple):
        return tuple(_render(value, scope, depth + 1) for value in template)
    return template


def _as_it_is(value: Any) -> Any:
    return value


def _read(placeholder: Placeholder, scope: Metered, give: Callable[[Any], T]) -> T:
    """Return what is given of a placeholder's value; errors tell where in the template it stands."""
    try:
        return give(placeholder.expression.read(scope))
    except ExpressionError as error:
        raise TemplateError(error.expression, placeholder.offset + error.offset, error.why, error.available) from error.__cause__
    except RefusedError as refused:
        raise TemplateError(placeholder.expression.text, placeholder.offset, refused.why) from refused.__cause__
