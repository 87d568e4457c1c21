"""A digest of the code of a workflow: it tells whether another attempt at a run that contradicts the code would be the same attempt."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any

from symphony_es.annotated import annotations_of, written_annotations_of
from symphony_es.workflow.record.functions import closed_over, constant_of

__all__ = ["code_digest"]

_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")
_WORD = re.compile(r"[^\W\d]\w*")
_FLAGS = frozenset({bool, int, float, str, bytes, type(None), tuple})
"""Types of globals that count by their value: what a module has for constants."""

MAX_LOOKED_AT = 2_000
"""So many functions and classes are looked at; a change in others is found where somebody resumes the run by name."""


def code_digest(function: Callable[..., Any]) -> str:
    """Return 8 bytes, in hexadecimal digits, that another text of the code changes.

    What counts is the function, and the functions and classes that it and they name, as far as the same package defines them: what a
    developer changes to mend a workflow may be a function that it calls, or the class of an argument. Of values that they close over, those
    count that cannot change; of lists, dicts and other objects, the class. So it is with values that they read as globals of their modules,
    as a feature flag: texts, numbers and the like count.
    """
    digest = hashlib.blake2b(digest_size=8)
    package = _package(function)
    waiting: list[Any] = [inspect.unwrap(function)]
    seen: set[int] = set()
    while waiting and len(seen) < MAX_LOOKED_AT:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        digest.update(_text(f"{item.__module__}:{item.__qualname__}"))
        if isinstance(item, type):
            digest.update(_text(sorted(written_annotations_of(item).items(), key=str)))
            names = vars(sys.modules[item.__module__]) if item.__module__ in sys.modules else {}
            fields = [inner for field in annotations_of(item).values() for inner in _named_in(field, names)]
            named: list[Any] = [*vars(item).values(), *fields]
        else:
            _take(digest, item.__code__)
            digest.update(_text((item.__defaults__, sorted((item.__kwdefaults__ or {}).items()))))
            for content in closed_over(item):
                digest.update(_text(constant_of(content)))
            digest.update(_text([(name, constant_of(value)) for name, value in _globals_of(item) if type(value) in _FLAGS]))
            named = list(_named_by(item))
        # Not by the order in which a set gives them: the digest is the same in each process.
        waiting.extend(inner for inner in map(_plain, named) if inner is not None and _package(inner) == package)
    return digest.hexdigest()


def _package(item: Any) -> str:
    return str(getattr(item, "__module__", "")).partition(".")[0]


def _plain(item: Any) -> Any | None:
    """Return the function or class behind a name, without what is wrapped around it; None of anything else."""
    item = item.fget if isinstance(item, property) else getattr(item, "__func__", item)
    item = getattr(item, "function", item) if type(item).__name__ == "CodeWorkflow" else item
    if callable(item) and hasattr(item, "__wrapped__"):
        item = inspect.unwrap(item)
    return item if isinstance(item, (FunctionType, type)) else None


def _globals_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the globals that the code of a function names, but for those that Python gives a module, as `__file__`."""
    names: dict[str, None] = {}
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(dict.fromkeys(code.co_names))
        codes.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
    held = function.__globals__
    yield from ((name, held[name]) for name in names if name in held and not name.startswith("__"))


def _named_by(function: FunctionType) -> Iterator[Any]:
    """Yield what the code of a function names: globals, and what it closes over."""
    yield from (value for _, value in _globals_of(function))
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # empty as yet
            continue
    for annotation in annotations_of(function).values():
        yield from _named_in(annotation, function.__globals__)


def _named_in(annotation: Any, names: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the classes that an annotation names, also where it is a text."""
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        yield from (names[word] for word in _WORD.findall(annotation) if word in names)
    elif typing.get_args(annotation):
        for argument in typing.get_args(annotation):
            yield from _named_in(argument, names)
    else:
        yield annotation


def _take(digest: Any, code: CodeType) -> None:
    digest.update(code.co_code)
    digest.update(_text((code.co_names, code.co_varnames)))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _take(digest, constant)
        else:
            digest.update(_text(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant))


def _text(value: Any) -> bytes:
    """Return what stands for a value; the address of an object is another in each process."""
    return _ADDRESS.sub("", repr(value)).encode("utf-8", "backslashreplace") + b"\0"
