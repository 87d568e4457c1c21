"""Definitions are immutable data with stable ids, a version by content, and errors that give the path."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from symphony_es.errors import ConfigurationError, DefinitionError, NotRegisteredError
from symphony_es.registry import NamedCallables
from symphony_es.workflow import FunctionStep, Step, TaskStep, WorkflowBuilder, WorkflowDefinition, register_step_kind
from symphony_es.workflow.definitions.reading import DataReader
from symphony_es.workflow.definitions.steps import step_kinds
from symphony_es.workflow.kinds.function import find_function, name_function

PLAN = {"kind": "task", "name": "plan", "template": "Plan {{ topic }}"}
COUNT = {"kind": "function", "name": "count words", "function": "count", "inputs": {"text": "{{ step.plan.result }}"}}


def importable(context: Any) -> str:
    return "imported"


class Holder:
    def method(self, context: Any) -> str:
        return "method"

    @staticmethod
    def static(context: Any) -> str:
        return "static"


def definition(**changes: Any) -> WorkflowDefinition:
    return WorkflowDefinition(**{"name": "report", "steps": [PLAN, COUNT], "context": {"topic": "rain"}, **changes})


def test_a_definition_written_and_read_back_is_the_same() -> None:
    """`to_dict` gives plain data that JSON can carry; reading it gives equal content, the same id and the same version."""
    made = definition(description="About weather", metadata={"team": "sky"})
    written = json.loads(json.dumps(made.to_dict()))
    read = WorkflowDefinition.from_dict(written)
    assert read == made
    assert (read.id, read.version, read.to_dict()) == (made.id, made.version, made.to_dict())
    assert [type(step) for step in read.plan] == [TaskStep, FunctionStep]
    assert read.get_steps()[0] == {"id": "plan", **PLAN}


def test_the_version_follows_the_content_alone() -> None:
    """Equal content has one version in every process, whatever the id; any change of a step has another."""
    assert definition().version == definition().version
    assert definition(id="a").version == definition(id="b", metadata={"x": 1}).version
    assert hash(definition()) == hash(definition())
    assert definition(steps=[PLAN]).version != definition().version
    assert definition(context={"topic": "sun"}).version != definition().version
    assert definition() != "report"


def test_ids_are_made_once_from_names_and_kept() -> None:
    """A step's id is its name as long as an address can hold it; renaming keeps it, so addresses stay."""
    made = definition()
    assert [step.id for step in made.plan] == ["plan", "count words"]
    renamed = made.plan[0].renamed("make a plan")
    assert (renamed.id, renamed.name) == ("plan", "make a plan")
    assert Step.from_dict({**PLAN, "name": "a/b"}).id == "a_b"
    assert made.step("plan") is made.step("plan")
    with pytest.raises(DefinitionError, match="there is no step 'review'"):
        made.step("review")


def test_a_definition_grows_step_by_step_without_reading_all_steps_again() -> None:
    """A step that was read once stays the same object in every longer definition; one made by hand is checked first."""
    made = definition()
    longer = made.add_step({**PLAN, "name": "more"})
    assert longer.plan[0] is made.plan[0]
    with pytest.raises(DefinitionError, match=r"steps\[2\].template"):
        made.add_step(TaskStep(name="x", template="{{ 1 + }}"))
    with pytest.raises(DefinitionError, match=r"steps\[2\].id"):
        made.add_step(made.plan[0])


def test_nothing_of_a_definition_can_be_changed() -> None:
    """Fields are frozen, what goes in and out is copied, and adding a step gives another definition with the same id."""
    context = {"topic": ["rain"]}
    made = definition(context=context)
    context["topic"].append("sun")
    made.to_dict()["context"]["topic"].append("wind")
    assert made.to_dict()["context"] == {"topic": ["rain"]}
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "other"  # type: ignore[misc]
    longer = made.add_step(FunctionStep(name="last", function="count"))
    assert (len(longer.plan), len(made.plan), longer.id) == (3, 2, made.id)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"name": ""}, "name"),
        ({"name": 7}, "name"),
        ({"id": 7}, "id"),
        ({"steps": "plan"}, "steps"),
        ({"steps": ["plan"]}, "steps[0]"),
        ({"steps": [PLAN, PLAN]}, "steps[1].id"),
        ({"steps": [PLAN, {**COUNT, "id": "x", "name": "plan"}]}, "steps[1].name"),
        ({"steps": [{**PLAN, "kind": "tsak"}]}, "steps[0].kind"),
        ({"steps": [{"kind": "task", "name": "x"}]}, "steps[0].template"),
        ({"steps": [{**PLAN, "template": 7}]}, "steps[0].template"),
        ({"steps": [{**PLAN, "template": "{{ 1 + }}"}]}, "steps[0].template"),
        ({"steps": [{**PLAN, "agnet_id": "a"}]}, "steps[0].agnet_id"),
        ({"steps": [{**PLAN, "agent_id": 7}]}, "steps[0].agent_id"),
        ({"steps": [{**PLAN, "inputs": ["x"]}]}, "steps[0].inputs"),
        ({"steps": [{**PLAN, "inputs": {"x": object()}}]}, "steps[0].inputs.x"),
        ({"steps": [{**COUNT, "function": ""}]}, "steps[0].function"),
        ({"steps": [{**COUNT, "inputs": "x"}]}, "steps[0].inputs"),
        ({"steps": [{**COUNT, "id": "a/b"}]}, "steps[0].id"),
        ({"steps": [{**COUNT, "name": "n" * 101}]}, "steps[0].name"),
        ({"context": {"x": {1: {2.5}, "deep": [{"bad": object()}]}}}, "context.x.deep[0].bad"),
        ({"context": {7: "x"}}, "context"),
        ({"metadata": "x"}, "metadata"),
    ],
)
def test_a_fault_is_named_by_its_path(changes: dict[str, Any], path: str) -> None:
    """Whatever is wrong is refused when the definition is made, with the place of the fault."""
    with pytest.raises(DefinitionError) as raised:
        definition(**changes)
    assert raised.value.path == path
    assert str(raised.value).startswith(path)


def test_reading_refuses_what_is_no_definition() -> None:
    """A key that nobody reads is a misspelt one; anything but a dict is named by its type."""
    with pytest.raises(DefinitionError, match="stesp: is no key"):
        WorkflowDefinition.from_dict({"name": "x", "stesp": []})
    with pytest.raises(DefinitionError, match="expected a dict, not list"):
        WorkflowDefinition.from_dict([])  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="is missing"):
        WorkflowDefinition.from_dict({})
    assert WorkflowDefinition.from_dict({"name": "empty", "steps": None}).plan == ()


def test_an_application_adds_a_kind_of_step() -> None:
    """A registered class is read by its kind; another class cannot claim the kind."""

    @register_step_kind
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class WaitStep(Step):
        kind = "test-wait"
        seconds: str = "1"

        def data(self) -> dict[str, Any]:
            return {"seconds": self.seconds}

        @classmethod
        def read(cls, reader: DataReader, **common: Any) -> WaitStep:
            return cls(**common, seconds=reader.text("seconds", default="1"))

        async def perform(self, execution: Any) -> Any:
            return self.seconds

    assert "test-wait" in step_kinds()
    read = Step.from_dict({"kind": "test-wait", "name": "pause", "seconds": "2", "output_key": "waited"})
    assert read == WaitStep(name="pause", seconds="2", output_key="waited")
    assert register_step_kind(WaitStep) is WaitStep
    with pytest.raises(ConfigurationError, match="both claim"):

        @register_step_kind
        class Other(WaitStep):
            pass


def test_kinds_are_known_before_they_are_imported() -> None:
    """All of the library's own are listed, nobody else can claim one, and those that a definition has are imported when it is read."""
    program = (
        "import pkgutil, sys\n"
        "from symphony_es.errors import ConfigurationError\n"
        "from symphony_es.workflow.definitions.steps import Step, nested_keys_of, register_step_kind, step_kinds\n"
        "import symphony_es.workflow.kinds as kinds\n"
        "modules = {module.name for module in pkgutil.iter_modules(kinds.__path__)}\n"
        "assert {name.replace('sub_', '') for name in modules} == set(step_kinds()), step_kinds()\n"
        "def imported(): return {name for name in modules if f'{kinds.__name__}.{name}' in sys.modules}\n"
        "assert not imported(), imported()\n"
        "Step.from_dict({'kind': 'sleep', 'name': 's', 'seconds': 1})\n"
        "assert imported() == {'sleep'}, imported()\n"
        "assert nested_keys_of('loop') == ('steps',) and 'loop' in imported()\n"
        "try:\n"
        "    register_step_kind(type('Mine', (Step,), {'kind': 'wait'}))\n"
        "except ConfigurationError as error:\n"
        "    assert 'both claim' in str(error)\n"
        "else:\n"
        "    sys.exit('claimed')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_functions_are_held_by_name() -> None:
    """A registered name wins; a function of a module has the name it is imported by."""
    functions = NamedCallables("function", "register it")
    inner = functions.register("inner", lambda context: "registered")
    assert name_function("any name", functions) == "any name"
    assert name_function(inner, functions) == "inner"
    own = name_function(importable, functions)
    assert own == f"{__name__}:importable"
    assert find_function(own, functions) is importable
    assert name_function(Holder.static, None) == f"{__name__}:Holder.static"
    assert find_function("inner", functions) is inner


@pytest.mark.parametrize("function", [lambda context: 1, Holder().method, print, Holder])
def test_what_no_other_process_could_find_is_refused_with_the_way_out(function: Callable[..., Any]) -> None:
    """Lambdas, closures, methods, builtins and classes need a registered name: told when the definition is made."""
    with pytest.raises(DefinitionError, match=r"steps\[0\].function: .*symphony.functions.register"):
        WorkflowBuilder().create("x").add_function("f", function)

    def closure(context: Any) -> Any:
        return function

    with pytest.raises(DefinitionError, match="register"):
        WorkflowBuilder().create("x").add_processing_step("f", "", closure)


@pytest.mark.parametrize(
    "name", ["unknown", "no_such_module_at_all:f", "os:system", "json:dumps.x", "os.path:nothing", "tempfile:_os.getcwd", ":f", "..:f"]
)
def test_a_name_that_leads_to_no_function_of_its_module_is_not_called(name: str) -> None:
    """A stored name reaches functions that the named module defines, and nothing through it."""
    functions = NamedCallables("function", "register it")
    with pytest.raises(NotRegisteredError):
        find_function(name, functions)
    for module in ("os", "json", "tempfile"):
        functions.allow(module)
    with pytest.raises(NotRegisteredError):
        find_function(name, functions)
    assert "no_such_module_at_all" not in sys.modules


def test_a_function_is_called_where_its_module_is_allowed() -> None:
    """By prefix, at a dot; a function that nobody has registered, handed over or allowed is not, though its module is loaded."""
    functions = NamedCallables("function", "register it")
    with pytest.raises(NotRegisteredError, match=r"register\('json:loads', fn\) with a function of your own"):
        find_function("json:loads", functions)
    functions.allow("js")
    with pytest.raises(NotRegisteredError):
        find_function("json:loads", functions)
    functions.allow("json")
    assert find_function("json:loads", functions) is json.loads
    with pytest.raises(ConfigurationError, match="not the name of a module"):
        functions.allow("json:loads")


def test_a_function_of_the_main_module_is_found_by_the_name_it_is_run_as(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a notebook it is `__main__:f`; of a script, and of `python -m package.module`, the name by which others can import the file."""
    monkeypatch.setattr(importable, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "importable", importable, raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
    assert name_function(importable, None) == "__main__:importable"
    notebook = NamedCallables("function", "register it")
    assert find_function("__main__:importable", notebook) is importable
    notebook.allow("__main__")  # it is, always
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "folder" / "script-1.py"))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert name_function(importable, None) == "folder.script-1:importable"
    functions = NamedCallables("function", "register it")
    with pytest.raises(NotRegisteredError, match=r"goes by the name of its file: 'folder\.script-1:other'") as caught:
        find_function("__main__:other", functions)
    assert "allow(" not in str(caught.value)
    assert find_function("folder.script-1:importable", functions) is importable
    with pytest.raises(ConfigurationError, match=r"always allowed, under the name 'folder\.script-1'"):
        functions.allow("__main__")
    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", sys.modules[__name__].__spec__ or __spec__)
    assert name_function(importable, None) == f"{__name__}:importable"


def test_the_builder_makes_what_the_dicts_make() -> None:
    """Every call of the chain ends up in the definition; nothing is left out or added."""
    built = (
        WorkflowBuilder()
        .create("report", "About weather", {"team": "sky"}, definition_id="report-1")
        .add_task("plan", "Make a plan", "Plan {{ topic }}", agent_type="planner", output_key="plan")
        .add_task("write", "Write it", agent_id="a1", inputs={"n": 1})
        .add_task("edit", "Edit it", model="big")
        .add_task("send", "Send it")
        .add_processing_step("count", "Count words", "count", {"text": "{{ plan }}"})
        .add_step(FunctionStep(name="last", function="count"))
        .add_step({**COUNT, "name": "very last"})
        .with_context({"topic": "rain"})
        .with_metadata({"more": True})
        .default_model("small")
        .model_assignments({"planner": "clever"})
        .build()
    )
    assert built.to_dict() == {
        "id": "report-1",
        "name": "report",
        "description": "About weather",
        "context": {"topic": "rain"},
        "metadata": {"team": "sky", "more": True},
        "steps": [
            {
                "kind": "task",
                "id": "plan",
                "name": "plan",
                "description": "Make a plan",
                "output_key": "plan",
                "template": "Plan {{ topic }}",
                "agent_type": "planner",
                "model": "clever",
            },
            {
                "kind": "task",
                "id": "write",
                "name": "write",
                "description": "Write it",
                "template": "Write it",
                "agent_id": "a1",
                "inputs": {"n": 1},
            },
            {"kind": "task", "id": "edit", "name": "edit", "description": "Edit it", "template": "Edit it", "model": "big"},
            {"kind": "task", "id": "send", "name": "send", "description": "Send it", "template": "Send it", "model": "small"},
            {
                "kind": "function",
                "id": "count",
                "name": "count",
                "description": "Count words",
                "function": "count",
                "inputs": {"text": "{{ plan }}"},
            },
            {"kind": "function", "id": "last", "name": "last", "function": "count"},
            {**COUNT, "id": "very last", "name": "very last"},
        ],
    }


async def test_a_builder_without_a_symphony_builds_and_nothing_else() -> None:
    """Saving and executing say where to get a builder that can."""
    builder = WorkflowBuilder().create("x")
    assert builder.build().plan == ()
    with pytest.raises(ConfigurationError, match="build_workflow"):
        await builder.save()
    with pytest.raises(ConfigurationError, match="build_workflow"):
        await builder.execute()
