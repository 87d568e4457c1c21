"""From the allowed part of a syntax tree to a function of the scope; every error tells where in the text it is at home.

Pure; between `scanning`, which gives the tree, and `operations`, which compute. A node without a method here is refused: the table
at the end is the language.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from math import isinf
from typing import Any, Final

from symphony_es.errors import ExpressionError
from symphony_es.shown import quoted
from symphony_es.workflow.language.metering import Metered
from symphony_es.workflow.language.operations import (
    COMPARISONS,
    FUNCTIONS,
    RefusedError,
    arithmetic,
    cut,
    describe,
    look_up,
    negative,
    positive,
    suggestion,
)
from symphony_es.workflow.language.parts import Parts
from symphony_es.workflow.language.scanning import MAX_DEPTH, Source

__all__ = ["MAX_NODES", "Compiler", "Read", "holds", "lookup", "whole", "whole_of"]

MAX_NODES: Final = 200
"""Names, constants, operations: a bound on the time and on the stack that an expression takes."""

_MAX_SEEN_CHARS = 60

Read = Callable[[Metered], Any]
"""What an expression is compiled to: a scope goes in, its value comes out. What it costs is counted before it is done."""

Count = Callable[..., None]
"""Counts what an operation with values costs: `(scope, *values)`."""

_SIGNS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%"}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: negative, ast.UAdd: positive, ast.Not: lambda value: not value}
_COUNTS: dict[str, Count] = {"min": Metered.visit, "max": Metered.visit}
_CONSTANTS = (str, int, float, bool, type(None))


def whole(scope: Metered) -> Any:
    """Return the names themselves: where every look-up begins."""
    return scope.names


def holds(text: str, offset: int, value: Any) -> bool:
    """Return whether a value counts as true; a value that fails to tell is the error of the part at `offset`."""
    try:
        return bool(value)
    except Exception as error:
        raise ExpressionError(text, offset, describe(error)) from error


def _one(text: str, offset: int, operation: Callable[[Any], Any], read: Read) -> Read:
    """Read one value and do something with it; what goes wrong there becomes the error that tells where."""

    def run(scope: Metered) -> Any:
        value = read(scope)
        try:
            return operation(value)
        except RefusedError as refused:
            raise ExpressionError(text, offset, refused.why, refused.available) from None
        except Exception as error:
            raise ExpressionError(text, offset, describe(error)) from error

    return run


def _many(text: str, offset: int, operation: Callable[..., Any], reads: Sequence[Read], count: Count | None = None) -> Read:
    """Read values in order and do something with them all, after what that costs has been counted."""

    def run(scope: Metered) -> Any:
        values = [read(scope) for read in reads]
        try:
            if count is not None:
                count(scope, *values)
            return operation(*values)
        except RefusedError as refused:
            raise ExpressionError(text, offset, refused.why, refused.available) from None
        except Exception as error:
            raise ExpressionError(text, offset, describe(error)) from error

    return run


def lookup(text: str, offset: int, seen: str, read: Read, key: str | int) -> Read:
    """Look a key that is written in the text up; a name that is missing is looked for among those that are there."""

    def run(scope: Metered) -> Any:
        value = read(scope)
        try:
            found = look_up(value, key, seen)
            if scope.reads is not None:
                scope.reads.looked_up(value, key, found)
            return found
        except RefusedError as refused:
            hint = _hint(text, offset, seen, refused)
            raise ExpressionError(text, offset, refused.why + hint, refused.available) from None
        except Exception as error:
            raise ExpressionError(text, offset, describe(error)) from error

    return run


def whole_of(read: Read) -> Read:
    """Read a value with which something is done as a whole: one that consists of parts is put together."""

    def run(scope: Metered) -> Any:
        value = read(scope)
        if isinstance(value, Parts):
            scope.spend(len(value))
            return value.made()
        return value

    return run


def _hint(text: str, offset: int, seen: str, refused: RefusedError) -> str:
    if not isinstance(refused.missing, str):
        return ""
    names = [name for name in refused.available if len(name) > len(refused.missing) and text.startswith(name, offset)]
    if names:  # `step.my-step` was read as a subtraction
        return f"; write {seen or 'context'}[{quoted(max(names, key=len))}]"
    return suggestion(refused.missing, refused.available, seen)


class Compiler:
    """Turns the allowed part of a syntax tree into functions of the scope; what has no method here is refused.

    Attributes:
        nodes: names, constants and operations that have been compiled.
        makes: whether a list, a tuple or a text may be made of values that were read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._text = source.text
        self.nodes = 0
        self.makes = False

    def compile(self, node: ast.expr, depth: int, *, looked_in: bool = False) -> Read:
        """Return what reads this node; `depth` is how many others it stands in. Where its value is `looked_in`, it may be `Parts`.

        Raises:
            ExpressionError: it is not of the language, or beyond a limit.
        """
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self._fault(node, f"it has more than {MAX_NODES} names, constants and operations")
        if depth > MAX_DEPTH:
            raise self._fault(node, f"it is nested deeper than {MAX_DEPTH}")
        build = _BUILDERS.get(type(node))
        if build is None:
            raise self._fault(node, f"{_REFUSED.get(type(node), type(node).__name__)} cannot be written here")
        read = build(self, node, depth)
        return whole_of(read) if not looked_in and isinstance(node, (ast.Attribute, ast.Subscript)) else read

    def _fault(self, node: ast.expr, why: str) -> ExpressionError:
        return ExpressionError(self._text, self._source.start(node), why)

    def _seen(self, node: ast.expr) -> str:
        seen = self._text[self._source.start(node) : self._source.end(node)]
        return seen if len(seen) <= _MAX_SEEN_CHARS else f"{seen[: _MAX_SEEN_CHARS - 1]}…"

    def constant(self, node: ast.Constant, depth: int) -> Read:
        """Return a number, a text, None, True or False, within the limits."""
        value = node.value
        if type(value) not in _CONSTANTS:
            raise self._fault(node, f"{type(value).__name__} cannot be written here")
        if isinstance(value, float) and isinf(value):
            raise self._fault(node, "it is too large for a float")
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise self._fault(node, "it contains a lone surrogate, which is no character")
        return lambda scope: value

    def name(self, node: ast.Name, depth: int) -> Read:
        """Return a name of the scope."""
        return lookup(self._text, self._source.start(node), "", whole, node.id)

    def attribute(self, node: ast.Attribute, depth: int) -> Read:
        """Return a key of a mapping, written as an attribute."""
        offset = self._source.end(node) - len(node.attr)
        return lookup(self._text, offset, self._seen(node.value), self.compile(node.value, depth, looked_in=True), node.attr)

    def subscript(self, node: ast.Subscript, depth: int) -> Read:
        """Return an element by key or index, or a part of a list."""
        seen, key = self._seen(node.value), node.slice
        read = self.compile(node.value, depth, looked_in=not isinstance(key, ast.Slice))
        if isinstance(key, ast.Slice):
            if key.step is not None:
                raise self._fault(key.step, "a part of a list has no step")
            bounds = [_nothing if bound is None else self.compile(bound, depth + 1) for bound in (key.lower, key.upper)]
            start = self._source.start(node)
            return _many(self._text, start, lambda value, low, high: cut(value, low, high, seen), [read, *bounds], Metered.copy)
        offset = self._source.start(key)
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            self.compile(key, depth + 1)
            return lookup(self._text, offset, seen, read, key.value)
        parts = [read, self.compile(key, depth + 1)]
        return _many(self._text, offset, lambda value, element: look_up(value, element, seen), parts, _note_element)

    def sequence(self, node: ast.List | ast.Tuple, depth: int) -> Read:
        """Return a list or a tuple."""
        reads = [self.compile(element, depth + 1) for element in node.elts]
        self.makes = self.makes or bool(reads)
        if isinstance(node, ast.List):
            return lambda scope: [read(scope) for read in reads]
        return lambda scope: tuple([read(scope) for read in reads])

    def operation(self, node: ast.BinOp, depth: int) -> Read:
        """Compute two values into one."""
        sign = _SIGNS.get(type(node.op))
        if sign is None:
            raise self._fault(node, f"the operator {type(node.op).__name__} cannot be written here")
        self.makes = True
        reads = [self.compile(node.left, depth), self.compile(node.right, depth + 1)]
        return _many(self._text, self._source.start(node), lambda left, right: arithmetic(sign, left, right), reads, Metered.copy)

    def unary(self, node: ast.UnaryOp, depth: int) -> Read:
        """Return `not`, and the sign of a number."""
        operation = _UNARY.get(type(node.op))
        if operation is None:
            raise self._fault(node, f"the operator {type(node.op).__name__} cannot be written here")
        return _one(self._text, self._source.start(node), operation, self.compile(node.operand, depth + 1))

    def combination(self, node: ast.BoolOp, depth: int) -> Read:
        """Return `and` and `or`: the first value that decides, as in Python."""
        text, stop = self._text, isinstance(node.op, ast.Or)
        *parts, last = [(self.compile(value, depth + 1), self._source.start(value)) for value in node.values]

        def run(scope: Metered) -> Any:
            for read, offset in parts:
                value = read(scope)
                if holds(text, offset, value) is stop:
                    return value
            return last[0](scope)

        return run

    def choice(self, node: ast.IfExp, depth: int) -> Read:
        """Return `a if condition else b`: only one of them is evaluated."""
        text, offset = self._text, self._source.start(node.test)
        test, then, other = [self.compile(part, depth + 1) for part in (node.test, node.body, node.orelse)]
        return lambda scope: then(scope) if holds(text, offset, test(scope)) else other(scope)

    def comparison(self, node: ast.Compare, depth: int) -> Read:
        """Return a chain of comparisons; it ends with the first that is false."""
        text = self._text
        first = self.compile(node.left, depth + 1)
        offsets = [self._source.start(part) for part in (node.left, *node.comparators)]
        reads = [self._compared(sign, part, depth + 1) for sign, part in zip(node.ops, node.comparators, strict=True)]
        rest = [(COMPARISONS[type(sign).__name__], read, offset) for sign, read, offset in zip(node.ops, reads, offsets, strict=False)]

        def run(scope: Metered) -> bool:
            left = first(scope)
            for compare, read, offset in rest:
                right = read(scope)
                try:
                    scope.visit(left, right)
                    outcome = bool(compare(left, right))
                except RefusedError as refused:
                    raise ExpressionError(text, offset, refused.why) from None
                except Exception as error:
                    raise ExpressionError(text, offset, describe(error)) from error
                if not outcome:
                    return False
                left = right
            return True

        return run

    def _compared(self, sign: ast.cmpop, node: ast.expr, depth: int) -> Read:
        if isinstance(sign, (ast.Is, ast.IsNot)) and not (isinstance(node, ast.Constant) and node.value is None):
            raise self._fault(node, "`is` compares with None only; write ==")
        if isinstance(sign, (ast.In, ast.NotIn)) and isinstance(node, ast.Set):
            reads = [self.compile(element, depth + 1) for element in node.elts]
            return _many(self._text, self._source.start(node), lambda *members: set(members), reads, Metered.visit)
        return self.compile(node, depth)

    def call(self, node: ast.Call, depth: int) -> Read:
        """Return one of the few functions."""
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS:
            raise self._fault(node, f"the only calls are {', '.join(f'{known}()' for known in FUNCTIONS)}")
        fewest, most, function = FUNCTIONS[name]
        if node.keywords or not fewest <= len(node.args) <= (most or MAX_NODES):
            how_many = str(fewest) if fewest == most else f"{fewest} to {most}" if most else f"{fewest} or more"
            raise self._fault(node, f"{name}() takes {how_many} value{'' if most == 1 else 's'}")
        reads = [self.compile(value, depth + 1, looked_in=name == "len") for value in node.args]
        return _many(self._text, self._source.start(node), function, reads, _COUNTS.get(name))


def _note_element(scope: Metered, value: Any, element: Any) -> None:
    if scope.reads is not None:
        scope.reads.looked_up(value, element, None)


def _nothing(scope: Metered) -> None:
    return None


_BUILDERS: dict[type[ast.expr], Callable[[Compiler, Any, int], Read]] = {
    ast.Constant: Compiler.constant,
    ast.Name: Compiler.name,
    ast.Attribute: Compiler.attribute,
    ast.Subscript: Compiler.subscript,
    ast.List: Compiler.sequence,
    ast.Tuple: Compiler.sequence,
    ast.BinOp: Compiler.operation,
    ast.UnaryOp: Compiler.unary,
    ast.BoolOp: Compiler.combination,
    ast.IfExp: Compiler.choice,
    ast.Compare: Compiler.comparison,
    ast.Call: Compiler.call,
}
_REFUSED: dict[type[ast.expr], str] = {
    ast.Dict: "a dict",
    ast.Set: "a set, but after `in`,",
    ast.Starred: "an unpacked value",
    ast.Slice: "a part of a list in several dimensions",
}
