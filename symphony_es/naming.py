"""The names under which classes and functions are stored, and how such a name leads back to one without importing anything.

A name is `module:qualname`. The module of a program that is run as a file is the one by which other programs import that file, so that
a file means the same whether it is run or imported. Keeps the rule that data never chooses code: a name that a log holds is looked up
among the modules that are loaded, and only in those that the application allows.
"""

from __future__ import annotations

import builtins
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from symphony_es.errors import ConfigurationError
from symphony_es.shown import shown
from symphony_es.system import is_plain_file, present

__all__ = [
    "AllowedModules", "defined_in_program", "defined_under", "is_generic", "name_parts", "origin_of", "stored_module",
    "stored_name",
]  # fmt: skip

MAIN = "__main__"
_MAINS = frozenset({MAIN, "__mp_main__"})  # the second is the program's file in a process that multiprocessing has started


def stored_name(item: type | Callable[..., Any]) -> str:
    """Return the name by which a class or function is stored: `module:qualname`, of a generic model with arguments `m:Box[m:Item, int]`.

    The arguments are named in full, since the name that the model gives itself, `Box[Item]`, is that of every `Item` there is.
    """
    origin = origin_of(item)
    if origin is not None:
        return f"{stored_name(origin)}[{', '.join(map(_argument, item.__pydantic_generic_metadata__['args']))}]"  # type: ignore[union-attr]
    module: Any = item.__module__  # None of what is made from strings
    return f"{stored_module(module if isinstance(module, str) else 'builtins')}:{item.__qualname__}"


def is_generic(item: Any) -> bool:
    """Return whether this is a generic model, with arguments or without."""
    return issubclass(type(item), type) and bool(getattr(item, "__pydantic_generic_metadata__", None))


def origin_of(item: Any) -> type | None:
    """Return the generic model that a model with arguments was made of; None of everything else."""
    if not is_generic(item) or not item.__pydantic_generic_metadata__["args"]:
        return None
    origin: type = item.__pydantic_generic_metadata__["origin"]
    return origin


def _argument(argument: Any) -> str:
    """The name of what a generic model was given; what has no name of its own is shown as it shows itself."""
    origin = get_origin(argument)
    if origin is Union or isinstance(origin, type):  # `X | Y` is a UnionType, and makes another class of a model than Union[X, Y] does
        outer = "Union" if origin is Union else "UnionType" if origin is UnionType else _argument(origin)
        return f"{outer}[{', '.join(map(_argument, get_args(argument)))}]"
    if argument is None or argument is NoneType:
        return "None"
    if argument is Any:
        return "Any"
    if not isinstance(argument, type):
        return repr(argument)
    named: type = argument
    return named.__qualname__ if getattr(builtins, named.__qualname__, None) is named else stored_name(named)


def name_parts(name: str) -> tuple[str, list[str]] | None:
    """Return the name of a generic model and those of its arguments, `("m:Box", ["m:Item", "int"])`; None of any other name."""
    origin, bracket, rest = name.partition("[")
    if not bracket or not origin or not rest.endswith("]"):
        return None
    parts, depth = [""], 0
    for letter in rest[:-1]:
        depth += (letter == "[") - (letter == "]")
        if depth < 0:
            return None
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return (origin, [part.strip() for part in parts]) if depth == 0 else None


def stored_module(module: str) -> str:
    """Return the name of a module as others import it: for the program's own file its import name, else the name as it is.

    A program without a file (a REPL, a notebook, `python -c`) is `__main__`. The program's file, imported by whatever name, is the same
    module as the program.
    """
    loaded = sys.modules.get(module)
    if module in _MAINS:
        return _name_of_program(loaded) if loaded is not None else MAIN
    program = sys.modules.get(MAIN)
    file = getattr(program, "__file__", None)
    other = getattr(loaded, "__file__", None)
    if isinstance(file, str) and isinstance(other, str) and _real(file) == _real(other):
        return _name_of_program(program)
    return module


def defined_in_program(module: str) -> bool:
    """Return whether a stored module is the program's own: the file that is run, or what is typed where there is none."""
    return any(name in sys.modules and _name_of_program(sys.modules[name]) == module for name in _MAINS)


def _name_of_program(program: ModuleType | None) -> str:
    spec = getattr(program, "__spec__", None)  # of `python -m package.module`
    name = getattr(spec, "name", None)
    file = getattr(program, "__file__", None)
    if isinstance(name, str) and name not in _MAINS:
        script = sys.argv[0] if sys.argv else ""  # `python -m cProfile script.py`: what is run is the script
        return _import_name(script) if isinstance(file, str) and _is_another_file(script, file) else name
    return _import_name(file) if isinstance(file, str) and not file.startswith("<") else MAIN  # `python < script.py` has the file <stdin>


@functools.cache
def _is_another_file(script: str, file: str) -> bool:
    return script.endswith(".py") and _real(script) != _real(file) and is_plain_file(_real(script))


@functools.cache
def _real(file: str) -> Path:
    return Path(file).resolve()


@functools.cache  # the answer must not change while the program adds to sys.path
def _import_name(file: str) -> str:
    """Return the name by which a file can be imported.

    Where several entries of `sys.path` lead to it, the first wins that is not itself inside a package, as the folder of a script is.
    """
    stem = _real(file).with_suffix("")
    names = []
    for entry in sys.path:
        folder = Path(entry).resolve()
        if folder in stem.parents:
            parts = stem.relative_to(folder).parts
            if all("." not in part and ":" not in part and part.isprintable() for part in parts):
                names.append((present(folder / "__init__.py"), ".".join(parts)))
    return min(names, key=lambda found: found[0])[1] if names else MAIN


def defined_under(name: str) -> Any | None:
    """Return what a loaded module defines under a stored name, or None; nothing is imported.

    Only what the module itself defines counts: a name that leads to something from elsewhere leads nowhere.
    """
    module, _, qualname = name.partition(":")
    for loaded in _loaded(module):
        found: Any = loaded
        for attribute in qualname.split("."):
            found = found.__dict__.get(attribute) if isinstance(found, (type, ModuleType)) else None
            found = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
        if getattr(found, "__qualname__", None) == qualname and stored_name(found) == name:
            return found
    return None


def _loaded(module: str) -> Iterator[ModuleType]:
    if defined_in_program(module):
        yield from (sys.modules[name] for name in _MAINS if name in sys.modules)
    if module in sys.modules:
        yield sys.modules[module]


class AllowedModules:
    """The modules whose functions or classes data may name; without a word of the application, the program's own file."""

    def __init__(self) -> None:
        self._prefixes: set[str] = set()

    def allow(self, prefix: str) -> None:
        """Allow a module and what lies in it: `shop.steps` allows `shop.steps` and `shop.steps.mail`.

        Raises:
            ConfigurationError: this is not the name of a module. Nothing has been changed.
        """
        if not prefix or not all(part.isidentifier() for part in prefix.split(".")):
            raise ConfigurationError(f"{shown(prefix)} is not the name of a module, such as 'shop.steps'")
        self._prefixes.add(prefix)

    def covers(self, module: str) -> bool:
        """Return whether data may name what this module defines."""
        return defined_in_program(module) or any(module == prefix or module.startswith(f"{prefix}.") for prefix in self._prefixes)

    def find(self, name: str) -> Any | None:
        """Return what an allowed module that is loaded defines under a stored name, or None."""
        return defined_under(name) if ":" in name and self.covers(name.partition(":")[0]) else None
