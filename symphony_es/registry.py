"""What an application hands to its Symphony by name: services, and callables (functions, model clients, tools).

Sits below everything that looks something up by name. Keeps the rule that stored data never holds code: a state holds a
name, and the process that goes on with it must have registered the callable again. Each Symphony has registries of its
own, so two in one process share nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from threading import RLock
from types import FunctionType, MethodType
from typing import Any, TypeVar, overload

from symphony_es.errors import ConfigurationError, NotRegisteredError
from symphony_es.naming import AllowedModules, stored_name
from symphony_es.raised import raised_in_thread
from symphony_es.shown import shown
from symphony_es.threads import ThreadPool, current_pool

__all__ = ["NamedCallables", "ServiceRegistry", "invoke"]

_Fn = TypeVar("_Fn", bound=Callable[..., Any])


class ServiceRegistry:
    """Services of one Symphony by name, for example `workflow_engine`."""

    def __init__(self) -> None:
        self._services: dict[str, Any] = {}
        self._late: dict[str, Callable[[], Any]] = {}
        self._making = RLock()

    def register(self, name: str, service: Any, *, replace: bool = False) -> None:
        """Make `service` available under `name`.

        Raises:
            ConfigurationError: another service has the name and `replace` is not set; nothing has been changed.
        """
        _check_name("service", name)
        with self._making:
            if not replace and (name in self._late or self._services.get(name, service) is not service):
                raise ConfigurationError(
                    f"a service is registered under {shown(name)} already; pass replace=True to put another in its place"
                )
            self._late.pop(name, None)
            self._services[name] = service

    def register_late(self, name: str, make: Callable[[], Any]) -> None:
        """Have a service made when it is asked for, by `make`, in the thread that asks; the last registration before that holds."""
        self._late[name] = make

    def made(self, name: str) -> Any | None:
        """Return the service of that name, where it was registered or made; None where nothing has asked for it yet."""
        _check_text("service", name)
        return self._services.get(name)

    def get(self, name: str) -> Any:
        """Return the service of that name.

        Raises:
            NotRegisteredError: there is none.
            ConfigurationError: this is not a name.
        """
        _check_text("service", name)
        if name not in self._services:
            with self._making:  # in whichever thread: there is one of each
                while name not in self._services and (make := self._late.get(name)) is not None:
                    service = make()
                    if self._late.get(name) is make:  # else another one was registered while it was made
                        self._services[name] = service
                        del self._late[name]
        try:
            return self._services[name]
        except KeyError:
            how = "registry.register(name, service) adds one; the library's own are there after await symphony.setup()"
            raise NotRegisteredError("service", name, self.names(), how) from None

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted({*self._services, *self._late})

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._services or name in self._late)


class NamedCallables:
    """Callables of one kind by name: what stored data names and a process provides.

    Attributes:
        allowed: the modules whose functions data may name without their being registered.

    Example:
        >>> functions = NamedCallables("function", "functions.register(name, fn) adds one")
        >>> @functions.register("double")
        ... def double(context):
        ...     return 2 * context["n"]
        >>> functions.get("double")({"n": 21})
        42
    """

    def __init__(self, kind: str, how: str) -> None:
        self.kind = kind
        self._how = how
        self._callables: dict[str, Callable[..., Any]] = {}
        self._places: dict[str, Callable[..., Any]] = {}  # those that are functions, by `module:qualname`; the one registered last
        self.allowed = AllowedModules()

    def allow(self, prefix: str) -> None:
        """Allow data to name what a module, or one that lies in it, defines, by `module:qualname`: functions, and classes of data.

        Any of its functions may be called then by whoever writes definitions or the log, so it is best a module of steps and nothing else.
        It must be loaded by then: nothing is imported because data names it. The program's own file is always allowed.

        Raises:
            ConfigurationError: this is not the name of a module. Nothing has been changed.
        """
        self.allowed.allow(prefix)

    @overload
    def register(self, name: str, fn: _Fn, *, replace: bool = False) -> _Fn: ...
    @overload
    def register(self, name: str, fn: None = None, *, replace: bool = False) -> Callable[[_Fn], _Fn]: ...
    @overload
    def register(self, name: _Fn, fn: None = None, *, replace: bool = False) -> _Fn: ...

    def register(self, name: str | _Fn, fn: _Fn | None = None, *, replace: bool = False) -> _Fn | Callable[[_Fn], _Fn]:
        """Make `fn` available under `name` and return it; without `fn`, a decorator that does so; `register(fn)` takes its own name.

        Registering the same callable again does nothing, and one that was defined anew (the same name in the same module, as when the
        cell of a notebook is run again) takes the place of the old one.

        Raises:
            ConfigurationError: the name is taken by another callable and `replace` is not set, or `fn` is not callable;
                nothing has been changed.
        """
        if fn is None and not isinstance(name, str) and callable(name):
            return self._add(_own_name(self.kind, name), name, replace)
        if not isinstance(name, str):
            raise ConfigurationError(f"a {self.kind} is registered as register('name', function) or register(function), not {shown(name)}")
        _check_name(self.kind, name)
        if fn is None:
            return lambda decorated: self._add(name, decorated, replace)
        return self._add(name, fn, replace)

    def get(self, name: str) -> Callable[..., Any]:
        """Return the callable of that name.

        Raises:
            NotRegisteredError: there is none; the message says how to register one.
            ConfigurationError: this is not a name.
        """
        _check_text(self.kind, name)
        try:
            return self._callables[name]
        except KeyError:
            raise NotRegisteredError(self.kind, name, self.names(), self._how) from None

    def at(self, place: str) -> Callable[..., Any] | None:
        """Return the registered function that is defined at `module:qualname`, whatever it is registered as, or None."""
        _check_text(self.kind, place)
        return self._places.get(place)

    def name_of(self, fn: Callable[..., Any]) -> str | None:
        """Return the name that `fn` is registered under, or None."""
        return next((name for name, known in self._callables.items() if known is fn or (type(fn) is MethodType and known == fn)), None)

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._callables)

    def callables(self) -> list[Callable[..., Any]]:
        """Return everything that is registered."""
        return list(self._callables.values())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._callables

    def _add(self, name: str, fn: _Fn, replace: bool) -> _Fn:
        if not callable(fn):
            raise ConfigurationError(f"{shown(fn)} is not callable and cannot be registered as the {self.kind} {shown(name)}")
        known = self._callables.get(name, fn)
        if not replace and known is not fn and not _defined_anew(known, fn):
            said = "already; pass replace=True to put another in its place"
            raise ConfigurationError(f"a {self.kind} is registered under {shown(name)} {said}")
        replaced = self._callables.get(name)
        self._callables[name] = fn
        if type(replaced) is FunctionType and not any(other is replaced for other in self._callables.values()):
            self._places = {place: other for place, other in self._places.items() if other is not replaced}
        if type(fn) is FunctionType and "<" not in fn.__qualname__:  # a lambda shares its place with others
            self._places[stored_name(fn)] = fn
        return fn


async def invoke(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call `fn` without blocking the event loop and return its result.

    Coroutine functions run on the loop, everything else in a thread of the current pool (see `threads.py`) with the caller's context
    variables; what a plain function returns is awaited when it is awaitable. Cancellation reaches coroutines; a thread runs to its end and
    its result is dropped.

    Raises:
        ThreadsExhaustedError: functions that do not return hold all threads.
    """
    if inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None)):  # noqa: B004 - not a test for callability
        return await fn(*args, **kwargs)
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    result = await (current_pool.get() or ThreadPool()).run(partial(_for_a_future, fn, *args, **kwargs), name)
    return await result if inspect.isawaitable(result) else result


def _for_a_future(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    # A future refuses a StopIteration, so one that leaves the function would leave the caller waiting for ever; and the GeneratorExit of a
    # future closes the coroutines that await it.
    try:
        return fn(*args, **kwargs)
    except (StopIteration, GeneratorExit) as error:
        raise RuntimeError(f"{getattr(fn, '__qualname__', fn)} raised {type(error).__name__}") from error
    except BaseException as error:
        raised_in_thread(error)
        raise


def _own_name(kind: str, fn: Callable[..., Any]) -> str:
    name = getattr(fn, "__name__", "")
    if not name or name == "<lambda>":
        raise ConfigurationError(f"{shown(fn)} has no name of its own: register('name', {kind}) gives it one")
    return str(name)


def _defined_anew(known: Callable[..., Any], fn: Callable[..., Any]) -> bool:
    """Return whether both are what one place in the source has made, and the later one stands for the earlier one.

    A lambda is not told by its name, nor are functions that one code makes around different values.
    """
    if not (inspect.isfunction(known) and inspect.isfunction(fn)) or fn.__name__ == "<lambda>":
        return False
    if (known.__module__, known.__qualname__) != (fn.__module__, fn.__qualname__):
        return False
    if known.__code__ is not fn.__code__:
        return True
    around = [[cell.cell_contents for cell in one.__closure__ or ()] for one in (known, fn)]
    return all(mine is its for mine, its in zip(*around, strict=True))


def _check_name(kind: str, name: object) -> None:
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"a {kind} needs a non-empty name, not {shown(name)}")


def _check_text(kind: str, name: object) -> None:
    if not isinstance(name, str):
        raise ConfigurationError(f"a {kind} is found by its name, a text, not by {shown(name)}")
