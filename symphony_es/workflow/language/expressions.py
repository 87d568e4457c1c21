"""Expressions: `score > 0.5 and step.plan.result == "ok"`, the language of conditions and of the `{{ … }}` of templates.

Pure; beside the definitions, which check an expression when they are made, and below the steps, which evaluate it when they run.
It reads the names of a scope and computes with plain values; it assigns nothing, and reaches no attribute of an object. What an
expression costs is bounded (`MAX_CHARS`, `MAX_NODES`, `MAX_DEPTH`, `MAX_INT_BITS`, `MAX_SIZE`; `MAX_WORK` and `MAX_OUTPUT_BYTES` for all
of a template together), and whatever goes wrong in it is an `ExpressionError` that tells where: a condition that cannot be evaluated is
never quietly false.

What is written as in Python, and means the same:

```
1  2.5  "text"  'text'  None True False  [a, b]  (a, b)
name    a.key    a["key"]    a[0]    a[-1]    a[1:3]        a.key is a["key"], of mappings only
a == b  !=  <  <=  >  >=  chains  in  not in  is None  is not None        x in {1, 2}
a and b    a or b    not a    a if condition else b
+  -  *  /  //  %        numbers; + also joins two texts, lists or tuples
len(x)  min(a, b)  max(list)  abs(n)  round(n, 2)
```

Everything else is refused: other calls, powers, bits, formatted texts, comprehensions, lambda, steps in slices, `is` between two values.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from symphony_es.errors import ExpressionError
from symphony_es.workflow.language.compiling import MAX_NODES, Compiler, Read, holds
from symphony_es.workflow.language.metering import Metered
from symphony_es.workflow.language.operations import RefusedError
from symphony_es.workflow.language.scanning import MAX_CHARS, MAX_DEPTH, parse

__all__ = ["MAX_CHARS", "MAX_DEPTH", "MAX_NODES", "Expression", "check_expression", "compile_expression", "evaluate", "truth"]


class Expression:
    """An expression that has been checked; evaluating it reads a scope and changes nothing.

    Attributes:
        text: the expression as it was written.
        path: the keys that it looks up one after the other, where it does nothing else.
        makes: whether its value may be put together of several values of the scope, or hold one of them several times.
    """

    __slots__ = ("_nodes", "_read", "makes", "path", "text")

    def __init__(self, text: str, read: Read, nodes: int, *, path: tuple[str | int, ...] | None = None, makes: bool = False) -> None:
        self.text = text
        self.path = path
        self.makes = makes
        self._read = read
        self._nodes = nodes

    def evaluate(self, scope: Mapping[str, Any]) -> Any:
        """Return the value of the expression. Containers of `scope` are handed out, not copied.

        Raises:
            ExpressionError: a name that is not there, or values that an operation cannot be done with.
        """
        metered = Metered(scope)
        try:
            value = self.read(metered)
            if self.makes:
                metered.hand_out(value)
        except RefusedError as refused:
            raise ExpressionError(self.text, 0, refused.why) from None
        return value

    def read(self, scope: Metered) -> Any:
        """Return the same, as one of several that have a meter together; the caller counts what is done with the value.

        Raises:
            ExpressionError: as `evaluate`.
            RefusedError: all of them together would cost too much.
        """
        scope.evaluate(self._nodes)
        try:
            return self._read(scope)
        except RecursionError as error:
            raise ExpressionError(self.text, 0, "the stack has no room left for it") from error

    def truth(self, scope: Mapping[str, Any]) -> bool:
        """Return whether the value counts as true, as in Python: None, False, 0, and what is empty do not.

        Raises:
            ExpressionError: as `evaluate`, or the value does not tell.
        """
        return holds(self.text, 0, self.evaluate(scope))

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


def evaluate(text: str, scope: Mapping[str, Any]) -> Any:
    """Return the value of an expression in a scope.

    Example:
        >>> evaluate("scores[-1] * 2 if scores else None", {"scores": [1, 4]})
        8

    Raises:
        ExpressionError: it cannot be read or evaluated; nothing else is ever raised on account of the text or the values.
    """
    return compile_expression(text).evaluate(scope)


def truth(text: str, scope: Mapping[str, Any]) -> bool:
    """Return whether a condition holds in a scope; any value counts as true or false as it does in Python.

    Example:
        >>> truth("score > 0.5 and 'ok' in words", {"score": 0.7, "words": ["ok"]})
        True

    Raises:
        ExpressionError: it cannot be read or evaluated; a condition that cannot be evaluated is not false.
    """
    return compile_expression(text).truth(scope)


def check_expression(text: str) -> None:
    """Read an expression and evaluate nothing.

    Raises:
        ExpressionError: it is not of the language.
    """
    compile_expression(text)


def compile_expression(text: str) -> Expression:
    """Return the expression that a text writes; the last ones are remembered.

    Raises:
        ExpressionError: it is not of the language.
    """
    if not isinstance(text, str):
        raise ExpressionError(f"<{type(text).__name__}>", 0, "an expression is a text")
    if len(text) > MAX_CHARS:
        raise ExpressionError(f"{text[:40]}…", MAX_CHARS, f"it is longer than {MAX_CHARS:,} characters")
    return _compiled(text)


@lru_cache(maxsize=1024)
def _compiled(text: str) -> Expression:
    source = parse(text)
    try:
        compiler = Compiler(source)
        read = compiler.compile(source.tree, 1)
        return Expression(text, read, compiler.nodes, makes=compiler.makes)
    except RecursionError as error:
        raise ExpressionError(text, 0, "the stack has no room left for it") from error
