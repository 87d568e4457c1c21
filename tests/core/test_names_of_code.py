"""The one way from a stored name to a function or class: what it finds, and what nobody reaches through it, though it be allowed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony_es import Symphony
from symphony_es.core.objects.types import TypeTable
from symphony_es.errors import ConfigurationError, NotRegisteredError
from symphony_es.naming import AllowedModules, defined_under
from symphony_es.registry import NamedCallables
from symphony_es.workflow import RetryPolicy
from symphony_es.workflow.definitions.error_rules import unknown_names
from symphony_es.workflow.kinds.function import find_function, name_function
from tests.acceptance.naming_code import GADGETS

STEPS = """
import dataclasses, enum, functools, os, subprocess, threading
import os.path as path
from collections import namedtuple
from logging.config import dictConfig
from os import system
from subprocess import Popen, run

def own(context): return "own"

@functools.wraps(own)
def other(context): return "wrapped"

def decorated(fn):
    @functools.wraps(fn)
    def around(context): return fn(context)
    return around

@decorated
def kept(context): return "kept"

class Tool:
    borrowed = run
    shell = staticmethod(os.system)
    called = Popen

    def __init__(self, *given): raise AssertionError("made")
    def __call__(self, context): raise AssertionError("called")
    def __reduce__(self): raise AssertionError("reduced")
    def method(self): return "method"
    @staticmethod
    def helper(context): return "helper"
    @classmethod
    def built(cls, context): raise AssertionError("built")
    @property
    def looked_at(self): raise AssertionError("looked at")
    class Inner:
        @staticmethod
        def deep(context): return "deep"

class Worker(threading.Thread): pass
class Status(enum.Enum): OPEN = 1
@dataclasses.dataclass
class Order: number: int = 0
Pair = namedtuple("Pair", "a b")

tool = object.__new__(Tool)
bound = tool.method
part = functools.partial(own)
cached = functools.lru_cache(own)
nameless = lambda context: 1
def closing():
    def inner(context): return 1
    return inner
inner = closing()

class Posing:
    __class__ = property(lambda self: type)
    def __getattr__(self, name): raise AssertionError(name)
posing = object.__new__(Posing)
posing.__qualname__, posing.__module__, posing.__name__ = "posing", __name__, "posing"

def __getattr__(name): raise AssertionError("asked for " + name)
def __dir__(): raise AssertionError("listed")
"""
FOUND = [
    "own",
    "kept",
    "Tool",
    "Tool.method",
    "Tool.helper",
    "Tool.Inner",
    "Tool.Inner.deep",
    "Worker",
    "Status",
    "Order",
    "Pair",
    "closing",
    "Posing",
]
NOT_FOUND = [
    # what the module has imported, by its own name and by a walk
    "run", "Popen", "system", "dictConfig", "os", "path", "os.system", "path.join", "subprocess.run", "functools.partial",
    "threading.Thread",
    "Tool.borrowed", "Tool.shell", "Tool.called", "Worker.start", "Worker._bootstrap", "Status._missing_", "Pair._make", "Pair._replace",
    # objects, and what is theirs
    "tool", "tool.helper", "tool.method", "bound", "part", "part.func", "cached", "Status.OPEN", "Status.OPEN.name", "posing", "posing.x",
    # what stands under another name than its own, or under none
    "other", "nameless", "<lambda>", "inner", "closing.inner", "closing.<locals>.inner", "Tool.built", "Tool.looked_at", "Tool.Inner.built",
    # what Python calls, and the ways out of a function
    "Tool.__init__", "Tool.__call__", "Tool.__reduce__", "Tool.__dict__", "Tool.__subclasses__", "Tool.__mro__", "Tool.__class__",
    "__getattr__", "own.__globals__", "own.__code__", "own.__call__", "own.__builtins__", "__builtins__", "__builtins__.eval", "__loader__",
    "__spec__.loader", "__dir__", "Order.__init__", "Order.__eq__",
    # what is no name
    "", ".", ".own", "own.", "Tool..helper", "own:own", "own ", " own", "own()", "own\\n", "Tool[own]", "own\\0", "ｏwn", "own.\\u200b",
]  # fmt: skip


def module_of(name: str, source: str, monkeypatch: pytest.MonkeyPatch, kind: type[ModuleType] = ModuleType) -> ModuleType:
    """A module that is loaded."""
    module = kind(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(source, module.__dict__)
    return module


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An application's module of steps."""
    return module_of("a_shop.steps", STEPS, monkeypatch)


def allowing(*prefixes: str) -> NamedCallables:
    """The functions of an application that allows these modules."""
    functions = NamedCallables("function", "register it")
    for prefix in prefixes:
        functions.allow(prefix)
    return functions


@pytest.mark.parametrize("qualname", FOUND)
def test_what_an_allowed_module_defines_is_found(qualname: str, steps: ModuleType) -> None:
    """Functions and classes of its own, inside of its own classes too; nothing where the module is not allowed."""
    wanted: Any = steps.__dict__[qualname.partition(".")[0]]
    for part in qualname.split(".")[1:]:
        wanted = getattr(wanted, part)
    assert allowing("a_shop").allowed.find(f"a_shop.steps:{qualname}") is wanted
    assert defined_under(f"a_shop.steps:{qualname}") is wanted
    for prefixes in ((), ("a_sho",), ("a_shop.step",), ("a_shop.steps.more",), ("shop.steps",)):
        assert allowing(*prefixes).allowed.find(f"a_shop.steps:{qualname}") is None


@pytest.mark.parametrize("qualname", NOT_FOUND)
@pytest.mark.usefixtures("steps")
def test_nothing_else_is_reached_through_an_allowed_module(qualname: str) -> None:
    """What it has imported, objects, methods of other classes, what Python itself calls: none is found, and nothing runs meanwhile."""
    functions = allowing("a_shop.steps", "os", "subprocess")
    name = f"a_shop.steps:{qualname}"
    assert functions.allowed.find(name) is None
    assert TypeTable(allowed=functions.allowed).class_of(name) is None
    with pytest.raises(NotRegisteredError):
        find_function(name, functions)


with pytest.MonkeyPatch.context() as _loading:
    WALKED = module_of("a_shop.walks", STEPS, _loading)


@given(st.lists(st.sampled_from([*FOUND, *NOT_FOUND, "os", "system", "__globals__", "func", "Thread", "run"]), min_size=1, max_size=4))
def test_no_walk_leaves_the_module(parts: list[str]) -> None:
    """Whatever is put together of these names: what is found, if anything, is a function or class that the module itself defines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, WALKED.__name__, WALKED)
        found = allowing("a_shop").allowed.find(f"{WALKED.__name__}:{'.'.join(parts)}")
        assert found is None or (found.__module__ == WALKED.__name__ and found.__qualname__ == ".".join(parts))


@pytest.mark.parametrize("name", GADGETS)
async def test_no_gadget_is_reachable_by_its_name(name: str) -> None:
    """Functions and classes of the standard library and of the dependencies: not as a step, predicate, class of a value or error class."""
    loaded = set(sys.modules)
    async with Symphony() as symphony:
        with pytest.raises(NotRegisteredError, match=r"register"):
            find_function(name, symphony.functions)
        with pytest.raises(NotRegisteredError):
            RetryPolicy(when=name or "x").check(symphony.functions)
        for asked in (name, f"{name}[int]", f"pydantic.networks:{name.rpartition(':')[2]}", f"{name.partition(':')[0]}:MultiHostUrl"):
            found = symphony.types.class_of(asked)
            assert found is None or asked == "pydantic_core._pydantic_core:MultiHostUrl"
        unknown_names([name, name.replace(":", ".")])
    assert set(sys.modules) - loaded <= {"difflib"}


def test_a_module_that_is_loaded_when_it_is_touched_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in data does not touch it, be it allowed or not."""
    (tmp_path / "a_sleeping_module.py").write_text("raise AssertionError('woken')\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = importlib.util.find_spec("a_sleeping_module")
    assert spec is not None
    assert spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    sleeping = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "a_sleeping_module", sleeping)
    spec.loader.exec_module(sleeping)
    functions = allowing("a_sleeping_module")
    assert functions.allowed.find("a_sleeping_module:fire") is None
    assert TypeTable(allowed=functions.allowed).class_of("a_sleeping_module:Fire") is None
    unknown_names(["a_sleeping_module.Fire", "a_sleeping_module.x.Fire"])


@pytest.mark.parametrize(
    "name",
    ["pydantic.networks:BaseModel", "pydantic.networks:Path", "pydantic_core._pydantic_core:SchemaValidator", "pydantic.networks:_CoreUrl"],
)
def test_of_pydantic_only_the_classes_of_addresses_are_known(name: str) -> None:
    """They are everyday classes by their own names; what else those modules hold is not."""
    importlib.import_module("pydantic.networks")
    assert TypeTable().class_of(name) is None
    assert TypeTable().class_of("pydantic.networks:AnyUrl") is not None


def test_who_annotates_the_base_of_all_models_means_no_model_of_a_library() -> None:
    """The subclasses of a base of the application's own are known with it; those of `BaseModel` are not."""
    pydantic = importlib.import_module("pydantic")
    foreign = type("ForeignModel", (pydantic.BaseModel,), {"__module__": "a_library", "__annotations__": {"x": int}, "x": 1})
    base = type("OwnBase", (pydantic.BaseModel,), {"__module__": "an_application"})
    own = type("OwnModel", (base,), {"__module__": "an_application"})

    def step(context: Any, model: Any) -> None:
        """Take a model."""

    step.__annotations__ = {"model": pydantic.BaseModel, "own": base}
    table = TypeTable()
    table.learn(step)
    assert table.class_of("an_application:OwnModel") is own
    assert table.class_of("a_library:ForeignModel") is None
    assert foreign.__module__ == "a_library"


def test_a_module_that_has_the_name_of_the_program_is_not_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A script in `bin` that is called as the package that it starts: what the package defines is not allowed by that."""
    package = module_of("a_server", "def serve(context): pass\n", monkeypatch)
    package.__file__ = str(tmp_path / "lib" / "a_server" / "__init__.py")
    program = module_of("__main__", "def own(context): pass\n", monkeypatch)
    program.__file__ = str(tmp_path / "bin" / "a_server")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "bin")])
    allowed = AllowedModules()
    assert allowed.find("a_server:serve") is None
    assert allowed.find("a_server:own") is program.__dict__["own"]
    assert allowed.find("__main__:own") is None
    allowed.allow("a_server")
    assert allowed.find("a_server:serve") is package.__dict__["serve"]


def test_a_tool_that_runs_the_program_is_not_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Under `python -m profiler script.py` the functions of the profiler stand in `__main__`; data does not reach them."""
    (tmp_path / "script.py").write_text("")
    tool = module_of("__main__", "def runctx(context): pass\n", monkeypatch)
    tool.__file__, tool.__spec__ = str(tmp_path / "profiler.py"), importlib.util.spec_from_loader("a_profiler", None)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "script.py")])
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in ("script:runctx", "a_profiler:runctx", "__main__:runctx"):
        assert AllowedModules().find(name) is None


@pytest.mark.parametrize("wrong", ["", ".", "a.", ".a", "a:b", "a b", "*", "a.*", "__main__ ", None, 1, ["a"]])
def test_what_is_not_the_name_of_a_module_is_not_allowed(wrong: Any) -> None:
    """The error says what is."""
    with pytest.raises(ConfigurationError, match="not the name of a module"):
        allowing(wrong)


# -- what an application says -----------------------------------------------------------------------------------------


def test_what_is_registered_is_found_by_its_place_too(steps: ModuleType) -> None:
    """A builder that is given the function stores `module:qualname`; the process that goes on has registered it under a short name."""
    functions = allowing()
    functions.register("paid", steps.own)
    assert find_function("a_shop.steps:own", functions) is find_function("paid", functions) is steps.own
    other = eval("lambda context: 2")
    functions.register("paid", other, replace=True)
    with pytest.raises(NotRegisteredError):
        find_function("a_shop.steps:own", functions)
    functions.register("nameless", steps.nameless)
    with pytest.raises(NotRegisteredError):
        find_function("a_shop.steps:<lambda>", functions)


def test_a_function_that_was_defined_anew_is_the_one_that_is_called(steps: ModuleType) -> None:
    """Whether it was registered or handed to a builder last: the module's present one."""
    functions = allowing()
    functions.register("paid", steps.own)
    old = steps.own
    exec("def own(context): return 'new'", steps.__dict__)
    assert name_function(steps.own, None) == "a_shop.steps:own"
    assert find_function("a_shop.steps:own", functions) is steps.own
    assert find_function("paid", functions) is old


async def test_the_decorator_registers(symphony: Symphony) -> None:
    """Under the function's name, or another; it stays a function."""

    @symphony.function
    def pay(context: Any) -> str:
        """Pay."""
        return "paid"

    @symphony.function(name="send", replace=True)
    def anything(context: Any) -> str:
        """Send."""
        return "sent"

    built = symphony.build_workflow("order").add_function("pay", "pay").add_function("send", "send").build()
    run = await symphony.workflows.execute_workflow(built)
    assert run.outputs == {"pay": "paid", "send": "sent"}
    assert pay(None) == "paid"
    with pytest.raises(ConfigurationError, match="is registered under 'pay' already"):
        symphony.function(name="pay")(anything)


async def test_one_word_allows_functions_and_classes(steps: ModuleType, symphony: Symphony) -> None:
    """`functions.allow` covers both, at once; `types.allow` covers data alone."""
    assert symphony.types.class_of("a_shop.steps:Order") is None
    symphony.types.allow("a_shop.steps")
    assert symphony.types.class_of("a_shop.steps:Order") is steps.Order
    with pytest.raises(NotRegisteredError):
        find_function("a_shop.steps:kept", symphony.functions)
    assert symphony.types.class_of("a_shop.steps:Tool") is None  # its objects are not data
    async with Symphony() as other:
        assert other.types.class_of("a_shop.steps:Order") is None
        other.functions.allow("a_shop")
        assert other.types.class_of("a_shop.steps:Order") is steps.Order
        assert find_function("a_shop.steps:kept", other.functions) is steps.kept


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("a.shop:pay", ["allow('a.shop')", "register('a.shop:pay', fn)"]),
        ("os:system", ["function of your own", "register('os:system', fn)"]),
    ],
)
def test_the_message_has_both_ways_out(name: str, ways: list[str]) -> None:
    """Register, or import and allow; a definition that names a module of Python's own talks nobody into that."""
    with pytest.raises(NotRegisteredError) as caught:
        find_function(name, allowing())
    assert all(way in str(caught.value) for way in ways)
    with pytest.raises(NotRegisteredError) as caught:
        find_function("x" * 100_000 + ":y", allowing())
    assert len(str(caught.value)) < 1_500
