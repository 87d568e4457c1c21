"""The names under which classes and functions are stored, and how such a name leads back to one without importing anything.

A name is `module:qualname`. The module of a program that is run as a file is the one by which other programs import that file, so that
a file means the same whether it is run or imported. Keeps the rule that data never chooses code: a name that a log holds is looked up
among the modules that are loaded, and only in those that the application allows. What it finds there is a function or a class that the
module itself defines: nothing that it has imported, no object and nothing of one.
"""

from __future__ import annotations

import builtins
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from symphony_es.errors import ConfigurationError
from symphony_es.shown import shown
from symphony_es.system import is_plain_file, present

__all__ = [
    "AllowedModules", "defined_in_program", "defined_under", "is_generic", "name_parts", "names_in", "origin_of", "stored_module",
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
    """Return the name of what a generic model was given; what has no name of its own is shown as it shows itself."""
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
    return _name_of_program(program) if _are_one_file(program, loaded) else module


def _are_one_file(one: ModuleType | None, other: ModuleType | None) -> bool:
    first, second = (names_in(module).get("__file__") for module in (one, other))
    return isinstance(first, str) and isinstance(second, str) and _lead_to_one_file(first, second)


@functools.cache
def _lead_to_one_file(one: str, other: str) -> bool:
    try:
        if not Path(one).samefile(other):  # as nearly always: this costs less than following both paths
            return False
    except OSError:
        pass  # a file that is not there: the paths are all there is
    return _real(one) == _real(other)


def defined_in_program(module: str) -> bool:
    """Return whether a stored module is the program's own: the file that is run, or what is typed where there is none."""
    return any(name in sys.modules and _name_of_program(sys.modules[name]) == module for name in _MAINS)


def _name_of_program(program: ModuleType | None) -> str:
    spec = getattr(program, "__spec__", None)  # of `python -m package.module`
    name = getattr(spec, "name", None)
    file = getattr(program, "__file__", None)
    if isinstance(name, str) and name not in _MAINS:
        return _import_name(sys.argv[0]) if _runs_a_script(program) else name
    return _import_name(file) if isinstance(file, str) and not file.startswith("<") else MAIN  # `python < script.py` has the file <stdin>


def _runs_a_script(program: ModuleType | None) -> bool:
    """Return whether this is the module of a tool that runs another file, as cProfile is in `python -m cProfile script.py`."""
    file, spec = getattr(program, "__file__", None), getattr(program, "__spec__", None)
    if not isinstance(file, str) or not sys.argv or getattr(spec, "name", MAIN) in _MAINS:
        return False
    return _is_another_file(sys.argv[0], file)


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


def defined_under(name: str) -> type | FunctionType | None:
    """Return the function or class that a loaded module defines under a stored name, or None; nothing is imported."""
    module, _, qualname = name.partition(":")
    return _defined_in((*_programs(module), *_loaded(module)), module, qualname)


def _defined_in(places: Iterable[ModuleType], module: str, qualname: str) -> type | FunctionType | None:
    """Return the walk from modules of one name to what they define: through classes of their own, to a class or plain function of their
    own.

    Only what stands in the dict of a module or class is looked at, so no code runs: no module's `__getattr__`, no descriptor, no
    attribute of an object, no module that is loaded when it is touched. What Python itself calls (`__init__`, `__reduce__`) has no name
    for data.
    """
    parts = qualname.split(".")
    if not all(part.isidentifier() and not (part.startswith("__") and part.endswith("__")) for part in parts):
        return None
    for place in places:
        found: Any = place
        for depth, part in enumerate(parts, start=1):
            found = names_in(found).get(part)
            found = found.__func__ if type(found) is staticmethod else found
            if not _is_own(found, module, ".".join(parts[:depth]), last=depth == len(parts)):
                break
        else:
            own: type | FunctionType = found
            return own
    return None


def names_in(place: Any) -> Mapping[str, Any]:
    """Return what a module or class itself defines, without running anything; nothing of all else."""
    kind = type(place)
    if issubclass(kind, type):
        own: Mapping[str, Any] = type.__getattribute__(place, "__dict__")
    else:  # not `vars`: a module may be loaded when one of its attributes is asked for
        own = object.__getattribute__(place, "__dict__") if issubclass(kind, ModuleType) else {}
    return own


def _is_own(found: Any, module: str, qualname: str, *, last: bool) -> bool:
    kind = type(found)
    if issubclass(kind, type):  # not isinstance: an object can say of itself that it is a class
        defined_in, called = (type.__getattribute__(found, name) for name in ("__module__", "__qualname__"))
    elif kind is FunctionType and last:
        defined_in, called = found.__module__, found.__qualname__
    else:
        return False
    return called == qualname and type(defined_in) is str and stored_module(defined_in) == module


def _programs(module: str) -> Iterator[ModuleType]:
    """Yield the modules in which the program's own file runs, if it has this name; not that of a tool, which has run the file elsewhere."""
    for name in _MAINS:
        program = sys.modules.get(name)
        if program is not None and _name_of_program(program) == module and not _runs_a_script(program):
            yield program


def _loaded(module: str) -> Iterator[ModuleType]:
    loaded = sys.modules.get(module)
    if loaded is not None and issubclass(type(loaded), ModuleType):  # and not whatever else a program has put there
        yield loaded


def _imported_programs(module: str) -> Iterator[ModuleType]:
    """Yield the program's own file where it has been imported as well: a module that merely has its name is another one."""
    if defined_in_program(module):
        yield from (loaded for loaded in _loaded(module) if _are_one_file(sys.modules.get(MAIN), loaded))


class AllowedModules:
    """The modules whose functions or classes data may name; without a word of the application, the program's own file.

    Args:
        also: others that the application allows for more than this: what they cover is covered here.
    """

    def __init__(self, also: AllowedModules | None = None) -> None:
        self._prefixes: set[str] = set()
        self._also = also

    def allow(self, prefix: str) -> None:
        """Allow a module and what lies in it: `shop.steps` allows `shop.steps` and `shop.steps.mail`.

        Raises:
            ConfigurationError: this is not the name of a module. Nothing has been changed.
        """
        named: object = prefix
        if not isinstance(named, str) or not all(part.isidentifier() for part in named.split(".")):
            raise ConfigurationError(f"{shown(prefix)} is not the name of a module, such as 'shop.steps'")
        program = stored_module(prefix)
        if prefix in _MAINS and program != prefix:
            raise ConfigurationError(f"{shown(prefix)} is the program's own file, which is always allowed, under the name {shown(program)}")
        self._prefixes.add(prefix)

    @property
    def count(self) -> int:
        """How many have been allowed; none is ever taken back."""
        return len(self._prefixes) + (self._also.count if self._also is not None else 0)

    def covers(self, module: str) -> bool:
        """Return whether data may name what this module defines, be it the program's own file or not."""
        if any(module == prefix or module.startswith(f"{prefix}.") for prefix in self._prefixes):
            return True
        return self._also is not None and self._also.covers(module)

    def find(self, name: str) -> type | FunctionType | None:
        """Return the function or class that the program's file, or a loaded module that is allowed, defines under a name, or None."""
        module, colon, qualname = name.partition(":")
        if not colon:
            return None
        places = _loaded(module) if self.covers(module) else _imported_programs(module)
        return _defined_in((*_programs(module), *places), module, qualname)
