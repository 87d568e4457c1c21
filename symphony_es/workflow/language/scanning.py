"""From the text of an expression to Python's syntax tree: what may be written at all, before any meaning.

Pure; below `compiling`, which allows a part of the tree that comes out. Every token is looked at before Python's parser sees the
text: what is no part of the language (`**`, `lambda`, prefixed and triple-literal texts, comments, odd characters) never reaches it,
so it neither warns nor meets brackets nested deeper than the limit, and a name in the tree is spelled as it stands in the text.
White space of any kind separates, also line breaks outside brackets.
"""

from __future__ import annotations

import ast
import re
from keyword import iskeyword
from unicodedata import normalize

from symphony_es.errors import ExpressionError
from symphony_es.shown import quoted

__all__ = ["MAX_CHARS", "MAX_DEPTH", "Source", "parse"]

MAX_CHARS = 1_000
"""Room for a dozen lines; what is longer belongs into a function step."""

MAX_DEPTH = 30
"""Brackets and operators inside one another; a chain written flat, `a + b + c` or `a.b.c`, is no nesting."""

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    | (?P<text>'(?:[^'\\\r\n]|\\[^\r\n])*' | "(?:[^"\\\r\n]|\\[^\r\n])*")
    | (?P<number>(?:0[xX][0-9a-fA-F_]+ | 0[oO][0-7_]+ | 0[bB][01_]+ | (?:[0-9][0-9_]*\.?[0-9_]* | \.[0-9][0-9_]*)(?:[eE][+-]?[0-9_]+)?))
    | (?P<name>(?:[A-Za-z_]|[^\x00-\x7f])(?:[A-Za-z0-9_]|[^\x00-\x7f])*)
    | (?P<operator>//(?!/)|[=!<>]=(?!=)|[<>](?![<>=])|\*(?!\*)|:(?!=)|[-+/%()\[\]{},.])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"""\\(?:[\\'"nrt]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})""")
_WORDS = frozenset({"and", "or", "not", "in", "is", "if", "else", "None", "True", "False"})
_BITS = "there are no operations on bits"
_INSTEAD = {
    "=": "write == to compare; nothing can be assigned",
    "&&": "write and",
    "||": "write or",
    "!": "write not",
    "**": "there are no powers",
    "<<": _BITS,
    ">>": _BITS,
    "&": _BITS,
    "|": _BITS,
    "^": _BITS,
    "~": _BITS,
    ":=": "nothing can be assigned",
    "#": "there are no comments",
    "'": "the closing quote is missing",
    '"': "the closing quote is missing",
}


class Source:
    """A text and its tree, and where in the text the parts of the tree stand.

    Attributes:
        text: the expression as it was given.
        tree: its one expression.
    """

    def __init__(self, text: str, begin: int, tree: ast.expr) -> None:
        self.text = text
        self.tree = tree
        self._begin = begin
        self._bytes = None if text.isascii() else text[begin:].encode()

    def _at(self, column: int) -> int:
        return self._begin + (column if self._bytes is None else len(self._bytes[:column].decode()))

    def start(self, node: ast.expr) -> int:
        """Return where the node begins, in characters from 0; Python counts in bytes of UTF-8."""
        return self._at(node.col_offset)

    def end(self, node: ast.expr) -> int:
        """Return where the node ends: the first character after it."""
        return self._at(node.end_col_offset or 0)


def parse(text: str) -> Source:
    """Return the syntax tree of an expression.

    Raises:
        ExpressionError: the text is no expression of the language, whatever it is.
    """
    if len(text) > MAX_CHARS:
        raise ExpressionError(f"{text[:40]}…", MAX_CHARS, f"it is longer than {MAX_CHARS:,} characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ExpressionError(ascii(text), error.start, "it contains a lone surrogate, which is no character") from None
    _scan(text)
    begin = len(text) - len(text.lstrip())
    flat = re.sub(r"\s", " ", text[begin:]).rstrip()  # a text cannot hold a line break, and a name no space
    if not flat:
        raise ExpressionError(text, 0, "it is empty")
    try:
        return Source(text, begin, ast.parse(flat, mode="eval").body)
    except SyntaxError as error:
        offset = min(max(begin + (error.offset or 1) - 1, 0), len(text))
        raise ExpressionError(text, offset, f"it cannot be read: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(text, 0, f"it cannot be read: {error}") from None


def _scan(text: str) -> None:
    """Look at every token; whether they make sense together is the parser's business."""
    position = depth = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            found = next((sign for sign in (text[position : position + 2], text[position]) if sign in _INSTEAD), text[position])
            why = _INSTEAD.get(found, "it is no part of an expression")
            raise ExpressionError(text, position, f"{quoted(found)}: {why}" if found not in "'\"" else why)
        kind, end = token.lastgroup, token.end()
        following = text[end : end + 1]
        if kind == "name":
            _check_name(text, position, token[0], following)
        elif kind == "number":
            _check_number(text, position, token[0], following)
        elif kind == "text":
            _check_text(text, position, token[0], following)
        elif kind == "operator":
            depth += (token[0] in "([{") - (token[0] in ")]}")
            if depth > MAX_DEPTH:
                raise ExpressionError(text, position, f"it is nested deeper than {MAX_DEPTH}")
        position = end


def _check_name(text: str, position: int, name: str, following: str) -> None:
    if following in ("'", '"'):
        raise ExpressionError(text, position, f"{quoted(name)} before a quote: texts have no prefixes")
    if not name.isidentifier():
        raise ExpressionError(text, position, f"{quoted(name)} is no name; a key with such characters is read as ['…']")
    if normalize("NFKC", name) != name:
        raise ExpressionError(
            text, position, f"{quoted(name)} is written with characters that stand for others; a key like this is read as ['…']"
        )
    if iskeyword(name) and name not in _WORDS:
        raise ExpressionError(text, position, f"{quoted(name)} has no meaning in expressions; a key of this name is read as ['{name}']")


def _check_number(text: str, position: int, number: str, following: str) -> None:
    if following.isalnum() or following == "_" or not following.isascii():
        raise ExpressionError(text, position, f"a number ends where {quoted(following)} begins; put a space between them")
    if number[0] == "." and position and (text[position - 1].isalnum() or text[position - 1] in "_])"):
        raise ExpressionError(text, position, f"an element of a list is read as [{number[1:]}]")


def _check_text(text: str, position: int, literal: str, following: str) -> None:
    if following in ("'", '"'):
        raise ExpressionError(text, position, "there are no triple quotes; put a space between two texts")
    at = literal.find("\\")
    while at >= 0:
        escape = _ESCAPE.match(literal, at)
        if escape is None:
            raise ExpressionError(text, position + at, f"{quoted(literal[at : at + 2])} has no meaning; write \\\\ for a backslash")
        at = literal.find("\\", escape.end())
