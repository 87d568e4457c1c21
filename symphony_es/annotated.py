"""Signatures and annotations, also where an annotation names what is not there.

From Python 3.14 on, annotations are evaluated when somebody asks for them, and asking in the ordinary way raises the error of a name that
stands for a class which is defined later, is being declared, or is imported for type checkers alone. Here such a name costs itself only.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "UNREADABLE",
    "add_annotation",
    "annotations_of",
    "evaluated",
    "hints_of",
    "signature",
    "signature_shown",
    "written_annotations_of",
]

UNREADABLE = (NameError, AttributeError, TypeError, ValueError, SyntaxError, LookupError, ImportError, ArithmeticError, RecursionError)
"""What the evaluation of an annotation may raise: it is an expression of the application."""

if sys.version_info >= (3, 14):
    import annotationlib

    def signature(function: Callable[..., Any]) -> inspect.Signature:
        """Return the signature of a callable. An annotation that cannot be evaluated is a `ForwardRef` in it.

        Raises:
            TypeError: the object is not one that has a signature.
            ValueError: it is written in C, and does not say.
        """
        return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)

    def signature_shown(function: Callable[..., Any]) -> str:
        """Return the signature, for a message; as it is written where an annotation cannot be evaluated."""
        try:
            return str(inspect.signature(function))
        except UNREADABLE:
            written = inspect.signature(function, annotation_format=annotationlib.Format.STRING)
            return written.format(quote_annotation_strings=False)

    def annotations_of(item: Any) -> dict[str, Any]:
        """Return the annotations of a class itself, or of a callable: objects, texts and, for names that are not there, `ForwardRef`."""
        return annotationlib.get_annotations(item, format=annotationlib.Format.FORWARDREF)

    def written_annotations_of(item: Any) -> dict[str, Any]:
        """Return the annotations of a class or callable in a form that does not depend on what has been defined so far."""
        return annotationlib.get_annotations(item, format=annotationlib.Format.STRING)

    def add_annotation(cls: Any, name: str, annotation: str) -> None:
        """Give a class one annotation more; the others are evaluated no sooner."""
        evaluate = cls.__annotate__
        if evaluate is None:  # texts, by `from __future__ import annotations`, or none
            cls.__annotations__ = {**inspect.get_annotations(cls), name: annotation}
            return

        def annotate(asked: annotationlib.Format, /) -> dict[str, Any]:
            return {**annotationlib.call_annotate_function(evaluate, asked, owner=cls), name: annotation}

        cls.__annotate__ = annotate

    def evaluated(text: str, names: dict[str, Any]) -> Any:
        """Return what the text of an annotation means where names are taken from a dict, which may make those that it lacks.

        Raises:
            Exception: one of `UNREADABLE`.
        """
        # `typing` copies the dict, and what it lacks is not made any more.
        return annotationlib.ForwardRef(text, is_class=True).evaluate(globals={}, locals=names)

else:

    def signature(function: Callable[..., Any]) -> inspect.Signature:
        """Return the signature of a callable.

        Raises:
            TypeError: the object is not one that has a signature.
            ValueError: it is written in C, and does not say.
        """
        return inspect.signature(function)

    def signature_shown(function: Callable[..., Any]) -> str:
        """Return the signature, for a message."""
        return str(inspect.signature(function))

    def annotations_of(item: Any) -> dict[str, Any]:
        """Return the annotations of a class itself, or of a callable: objects and texts."""
        return inspect.get_annotations(item)

    def written_annotations_of(item: Any) -> dict[str, Any]:
        """Return the annotations of a class or callable in a form that does not depend on what has been defined so far."""
        return inspect.get_annotations(item)

    def add_annotation(cls: Any, name: str, annotation: str) -> None:
        """Give a class one annotation more."""
        cls.__annotations__ = {**inspect.get_annotations(cls), name: annotation}

    def evaluated(text: str, names: dict[str, Any]) -> Any:
        """Return what the text of an annotation means where names are taken from a dict, which may make those that it lacks.

        Raises:
            Exception: one of `UNREADABLE`.
        """
        holder = type("Holder", (), {"__annotations__": {"it": text}})
        return typing.get_type_hints(holder, {}, names, include_extras=True)["it"]


def hints_of(item: Any) -> dict[str, Any]:
    """Return what the annotations of a class, with its bases, or of a callable mean; those that cannot be evaluated are left out."""
    try:
        return typing.get_type_hints(item, include_extras=True)
    except UNREADABLE:
        return _each_hint(item)


def _each_hint(item: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in reversed(item.__mro__) if isinstance(item, type) else (item,):
        names = _names_around(each)
        for name, annotation in annotations_of(each).items():
            holder = type("Holder", (), {"__annotations__": {name: annotation}})
            try:
                found[name] = typing.get_type_hints(holder, names, include_extras=True)[name]
            except UNREADABLE:
                found.pop(name, None)  # a base's, which this class has declared anew
    return found


def _names_around(item: Any) -> dict[str, Any]:
    if isinstance(item, type):
        module = sys.modules.get(item.__module__)
        return {} if module is None else dict(vars(module))
    names: Mapping[str, Any] = getattr(inspect.unwrap(item), "__globals__", {})
    return dict(names)
