"""What was taken out of the library stays out: nobody brings a name or module back by mistake, or leaves a half of it behind."""

from __future__ import annotations

import importlib
import importlib.util

import pytest

NAMES = [
    ("symphony_es.core.state", "FileStorageProvider"),
    ("symphony_es.core.state", "StateBundle"),
    ("symphony_es.core.state", "StorageTransaction"),
    ("symphony_es.errors", "StorageTransactionError"),
    ("symphony_es.errors", "StoredValueDamagedError"),
]
"""Modules, and the names that they had."""

MODULES = [
    "symphony_es.files.bundle",
    "symphony_es.files.storage",
    "symphony_es.files.transaction",
    "symphony_es.files.values",
]


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_names_that_have_vanished(module: str, name: str) -> None:
    """Neither importable nor promised, there or by the package itself."""
    for place in (importlib.import_module(module), importlib.import_module("symphony_es")):
        assert not hasattr(place, name)
        assert name not in getattr(place, "__all__", ())
        assert name not in dir(place)


@pytest.mark.parametrize("module", MODULES)
def test_modules_that_have_vanished(module: str) -> None:
    """Nothing is found under their paths."""
    assert importlib.util.find_spec(module) is None
