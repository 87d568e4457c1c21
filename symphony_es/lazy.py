"""Names of a package that are imported at their first use (PEP 562): whoever needs one layer does not wait for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from symphony_es.shown import quoted

__all__ = ["lazy_names"]


def lazy_names(package: str, homes: Mapping[str, str], namespace: dict[str, Any]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package.

    Args:
        package: its name.
        homes: by name the module that has it.
        namespace: the package's globals, where a name stands once it has been imported.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {quoted(package)} has no attribute {quoted(name)}")
        namespace[name] = found = getattr(import_module(homes[name]), name)
        return found

    return find
