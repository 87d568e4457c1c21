"""Calls that people try first, coming from other libraries: they work, or the error says what to write."""

from __future__ import annotations

import copy
import importlib
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es import Symphony, entity
from symphony_es.errors import ConfigurationError, DefinitionError, GuessedNameError, ResultTimeoutError, SymphonyError
from symphony_es.registry import NamedCallables
from symphony_es.workflow import RetryPolicy, WorkflowDefinition
from symphony_es.workflow.guessed import ON_CODE_WORKFLOWS, ON_HANDLES, ON_REQUESTS, ON_WORKFLOWS


@entity
class GuessedNote:
    id: str = ""
    text: str = ""


async def rate(context: Any) -> int:
    """A step's function."""
    return 7


@pytest.fixture
async def symphony() -> Any:
    """A Symphony in memory."""
    async with Symphony() as opened:
        yield opened


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("checkpoint", "create_checkpoint"), ("checkpoints", "list_checkpoints"), ("undo", "rewind"), ("commit", "flush"),
        ("save", "flush"), ("add", "entities.add"), ("get", "entities.get"), ("query", "entities.all"), ("execute", "execute_workflow"),
        ("stop", "close"), ("shutdown", "close"), ("connect", "setup"), ("export", "export_jsonl"), ("events", "history"),
        ("load", "entities.load"), ("restore", "resume_from_checkpoint"), ("head", r"log\.head"), ("snapshot", "create_checkpoint"),
    ],
)  # fmt: skip
async def test_a_name_of_another_library_says_what_to_write(symphony: Symphony, name: str, advice: str) -> None:
    """On the Symphony; it is an AttributeError, so hasattr is False."""
    with pytest.raises(AttributeError, match=advice) as raised:
        getattr(symphony, name)
    assert isinstance(raised.value, GuessedNameError)
    assert raised.value.name == name
    assert not hasattr(symphony, name)


@pytest.mark.parametrize("guess", ["open", "open of one", "with"])
def test_what_is_looked_up_on_the_class_says_what_to_write(guess: str) -> None:
    """`Symphony.open(dir)` and `with Symphony():` never reach `__getattr__`: an error of the library's names the call all the same."""
    cls: Any = Symphony
    calls: dict[str, Callable[[], Any]] = {
        "open": lambda: cls.open("dir"),
        "open of one": lambda: cls().open(),
        "with": lambda: _with(cls()),
    }
    with pytest.raises(SymphonyError, match="async with Symphony"):
        calls[guess]()


def _with(symphony: Any) -> None:
    with symphony:
        raise AssertionError("it has been entered")


@pytest.mark.parametrize(
    ("name", "advice"), [("query", "entities.all"), ("create", "entities.add"), ("exists", "in entities"), ("odd", "odd")]
)
async def test_a_name_of_another_library_on_entities(symphony: Symphony, name: str, advice: str) -> None:
    """On the facade of entities; one that nobody guesses is an ordinary AttributeError."""
    with pytest.raises(AttributeError, match=advice):
        getattr(symphony.entities, name)


@pytest.mark.parametrize("call", ["mapping", "keyword", "value", "name", "name and value"])
async def test_a_function_is_started_however_its_arguments_are_given(symphony: Symphony, call: str) -> None:
    """By a dict, by keyword, by position, by its name; its handle is awaited, asked and shown."""

    @symphony.workflow
    async def research(topic: str, depth: int = 1) -> str:
        return f"{topic}{depth}"

    start = symphony.workflows.start
    starts: dict[str, Callable[[], Any]] = {
        "mapping": lambda: start(research, {"topic": "x"}, run_id="r"),
        "keyword": lambda: start(research, topic="x", run_id="r"),
        "value": lambda: start(research, "x", run_id="r"),
        "name": lambda: start("research", {"topic": "x"}, run_id="r"),
        "name and value": lambda: start("research", "x", run_id="r"),
    }
    handle = await starts[call]()
    assert await handle == await handle.result(timeout=5) == "x1"
    assert handle.run_id == handle.run.run_id == "r"
    assert handle.get_status() is handle.status
    assert repr(handle) == "<RunHandle 'r' of 'research': completed, 0 steps completed>"
    assert json.loads(json.dumps(handle.to_dict()))["result"] == handle.run.to_dict()["result"] == "x1"
    assert repr(research) == "<CodeWorkflow research(topic: 'str', depth: 'int' = 1) -> 'str'>"
    assert (await symphony.workflows.execute_workflow(research, "y", depth=2)).result == "y2"


async def test_arguments_that_fit_nothing_are_refused_before_a_run_is_made(symphony: Symphony) -> None:
    """Given twice, unknown, of no function, or a value where a mapping is due."""

    @symphony.workflow
    async def research(topic: str) -> str:
        return topic

    symphony.functions.register(rate)
    declared = symphony.build_workflow("declared").add_function(rate).build()
    for arguments, options in (
        (({"topic": "x"},), {"topic": "y"}),
        ((), {"topic": "x", "run_idd": "r"}),
    ):
        with pytest.raises(ConfigurationError):
            await symphony.workflows.start(research, *arguments, **options)
    with pytest.raises(ConfigurationError, match="context="):
        await symphony.workflows.start(declared, topic="x")
    with pytest.raises(ConfigurationError, match="mapping"):
        await symphony.workflows.start(declared, "x")
    assert await symphony.workflows.get_all_runs() == []


async def test_a_saved_definition_is_found_by_its_name(symphony: Symphony) -> None:
    """As long as one only is called so; two are told apart by their ids."""
    symphony.functions.register(rate)
    await symphony.build_workflow("order").add_function(rate).save()
    assert (await symphony.workflows.execute_workflow("order")).result == 7
    await symphony.build_workflow("order").add_function("other", rate).save()
    with pytest.raises(ConfigurationError, match="give the id"):
        await symphony.workflows.start("order")


async def test_cancel_and_pause_give_the_run(symphony: Symphony) -> None:
    """So that its status can be read off at once; a handle names a run."""
    definition = symphony.build_workflow("waits").add_wait("go").build()
    handle = await symphony.workflows.start(definition)
    assert (await symphony.workflows.pause(handle)) is handle.run
    assert (await symphony.workflows.cancel(handle)) is handle.run
    assert handle.run.status.value == "cancelled"
    other = await symphony.workflows.start(definition)
    with pytest.raises(ResultTimeoutError, match=r"has not ended within 0.01 s: it is running at go, and was left alone") as raised:
        await other.result(timeout=0.01)
    assert isinstance(raised.value, TimeoutError)
    assert (raised.value.run_id, raised.value.status, raised.value.current) == (other.id, "running", ("go",))
    assert (await other.cancel()).status.value == "cancelled"


def test_a_retry_policy_takes_a_number_and_classes() -> None:
    """And names its settings when they are called as elsewhere."""
    assert RetryPolicy(3) == RetryPolicy(max_attempts=3)
    assert RetryPolicy(3, on=(ValueError, ConfigurationError)).on == ("ValueError", "symphony_es.errors.ConfigurationError")  # type: ignore[arg-type]
    assert RetryPolicy(3, on=(ValueError,)).allows(UnicodeError(), 1)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="factor"):
        RetryPolicy(backoff=2)  # type: ignore[call-arg]


async def test_a_wait_says_which_time_its_default_belongs_to(symphony: Symphony) -> None:
    """`timeout_s` ends an attempt, `within_s` the wait."""
    with pytest.raises(DefinitionError, match="within_s"):
        symphony.build_workflow("w").add_wait("shipped", timeout_s=600, default="late")
    assert symphony.build_workflow("w").add_wait("shipped", within_s=600, default="late").build().steps


def test_callables_are_registered_under_their_own_names() -> None:
    """As a call and as a decorator; what was defined anew takes the place of the old, what only looks like it does not."""
    functions = NamedCallables("function", "functions.register(name, fn)")
    assert functions.register(rate) is functions.get("rate") is rate
    anew: dict[str, Any] = {"__name__": __name__}
    exec(compile("async def rate(context):\n    return 8\n", "cell", "exec"), anew)
    assert functions.register("rate", anew["rate"]) is functions.get("rate")
    with pytest.raises(ConfigurationError, match="replace=True"):
        functions.register("rate", test_callables_are_registered_under_their_own_names)
    with pytest.raises(ConfigurationError, match="no name of its own"):
        functions.register(lambda: 1)
    with pytest.raises(ConfigurationError, match="register"):
        functions.register(5)  # type: ignore[call-overload]


async def test_a_workflow_takes_the_place_of_another_one_when_told(symphony: Symphony) -> None:
    """`replace=True`, which the error advises, works."""

    @symphony.workflow(name="w")
    async def one() -> int:
        return 1

    with pytest.raises(ConfigurationError, match="replace=True"):

        @symphony.workflow(name="w")
        async def two() -> int:
            return 2

    @symphony.workflow(name="w", replace=True)
    async def three() -> int:
        return 3

    assert (await symphony.workflows.execute_workflow("w")).result == 3


@pytest.mark.parametrize(
    ("name", "advice"),
    [("save", "save_workflow"), ("run", "execute_workflow"), ("start", "workflows.start"), ("draw", "to_dict"), ("to_mermaid", "to_dict")],
)
def test_a_name_of_another_library_on_a_definition(name: str, advice: str) -> None:
    """It copies, pickles and compares as before."""
    definition = WorkflowDefinition(name="w")
    with pytest.raises(GuessedNameError, match=advice):
        getattr(definition, name)
    with pytest.raises(AttributeError, match="has no 'nothing'"):
        _ = definition.nothing  # type: ignore[attr-defined]
    assert copy.deepcopy(definition) == pickle.loads(pickle.dumps(definition)) == copy.copy(definition) == definition


GUESSES = {"workflows": ON_WORKFLOWS, "handle": ON_HANDLES, "code": ON_CODE_WORKFLOWS, "requests": ON_REQUESTS}


@pytest.mark.parametrize("what", GUESSES)
async def test_names_of_other_libraries_on_what_runs_are_asked_by(symphony: Symphony, tmp_path: Path, what: str) -> None:
    """None of them is a name that there is, and each says what to write, in names that there are."""

    @symphony.workflow
    async def flow() -> None:
        return None

    async with Symphony(tmp_path / "log"), Symphony(tmp_path / "log", read_only=True) as reader:
        handle = await symphony.workflows.start(flow)
        await handle.wait()
        known = {"symphony": symphony, "handle": handle}
        asked: Any = {"workflows": symphony.workflows, "handle": handle, "code": flow, "requests": reader.requests}[what]
        for name, advice in GUESSES[what].items():
            with pytest.raises(GuessedNameError, match=re.escape(advice)):
                getattr(asked, name)
            for path in re.findall(r"\b((?:symphony|handle)(?:\.\w+)+)", advice):
                first, *names = path.split(".")
                found = reader if names[0] == "requests" else known[first]
                for each in names:
                    found = getattr(found, each)
        with pytest.raises(AttributeError, match="has no 'nothing'"):
            _ = asked.nothing


def test_the_package_is_no_decorator() -> None:
    """`from symphony_es import workflow` gives the package: an error of the library's names the decorator."""
    package: Any = importlib.import_module("symphony_es.workflow")
    with pytest.raises(ConfigurationError, match=r"@symphony\.workflow over the function"):
        package(rate)
    with pytest.raises(ConfigurationError, match=r"@symphony\.workflow over the function"):
        package(name="rate")
    assert not hasattr(package, "nothing")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"deadline": 3},
            r"deadline: no parameter of the workflow 'flow' and no option \(did you mean deadline_s\?\); it takes topic, and",
        ),
        ({"run_Id": "r"}, "did you mean run_id"),
        ({"topc": "rain"}, "did you mean topic"),
        ({"colour": 3}, "options are auto_checkpoint, hooks, run_id, deadline_s, metadata"),
        ({"topic": "rain"}, "topic of the workflow 'flow': given in the context and by name"),
    ],
)
async def test_what_is_no_parameter_and_no_option_of_a_start(symphony: Symphony, given: dict[str, Any], said: str) -> None:
    """The error names both; a function that takes any keywords is given it."""

    @symphony.workflow
    async def flow(topic: str) -> str:
        return topic

    @symphony.workflow
    async def any_keyword(**keywords: Any) -> int:
        return len(keywords)

    for call in (symphony.workflows.start, symphony.workflows.execute_workflow):
        with pytest.raises(ConfigurationError, match=said):
            await call(flow, {"topic": "rain"}, **given)
    if "deadline" in given:
        assert (await symphony.workflows.execute_workflow(any_keyword, **given)).result == 1
