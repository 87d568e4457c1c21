"""The fluent builder, JSON, and the dict form of every kind of step: three ways to the same definition."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Self

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError, DefinitionError
from symphony_es.workflow import (
    DataReader,
    RetryPolicy,
    Step,
    StepList,
    TaskStep,
    WaitStep,
    WorkflowBuilder,
    WorkflowDefinition,
    register_step_kind,
)
from symphony_es.workflow.definitions.nesting import path_at, step_at, walk
from symphony_es.workflow.definitions.steps import _OWN_KINDS, as_step

DRAFT = {"kind": "task", "name": "draft", "template": "Draft {{ topic }}"}
COUNT = {"kind": "function", "name": "count", "function": "count"}

EVERY_KIND: list[dict[str, Any]] = [
    {**DRAFT, "retry": 3, "timeout_s": 5, "output_key": "text"},
    {**COUNT, "atomic": True, "inputs": {"n": "{{ n }}"}, "retry": {"max_attempts": 2, "delay_s": 0, "on": ["ValueError"]}},
    {"kind": "sequence", "name": "several", "steps": [DRAFT, COUNT]},
    {"kind": "conditional", "name": "gate", "condition": "n > 2", "then": [DRAFT], "else": [COUNT]},
    {"kind": "parallel", "name": "fan", "branches": [DRAFT, COUNT], "max_concurrency": 1, "on_error": "collect"},
    {"kind": "loop", "name": "again", "steps": [COUNT], "max_iterations": 3, "until": "step.count.result > 1", "on_limit": "fail"},
    {"kind": "loop", "name": "whilst", "steps": [COUNT], "max_iterations": 3, "while": "n > 1"},
    {"kind": "map", "name": "each", "over": "{{ items }}", "step": COUNT, "as": "thing", "max_concurrency": 4},
    {"kind": "wait", "name": "approval", "signal": "approve", "within_s": 60, "default": None},
    {"kind": "sleep", "name": "nap", "seconds": 1.5},
    {"kind": "sleep", "name": "until", "until": "2030-01-01T00:00:00+00:00"},
    {"kind": "workflow", "name": "child", "definition": {"name": "inner", "steps": [COUNT]}, "context": {"n": "{{ n }}"}},
    {"kind": "workflow", "name": "saved", "workflow_id": "some-id"},
]


def built() -> WorkflowDefinition:
    """The same as `EVERY_KIND`, by the builder."""
    draft = StepList().add_task("draft", "", "Draft {{ topic }}")
    count = StepList().add_function("count", "count")
    both = StepList().add_task("draft", "", "Draft {{ topic }}").add_function("count", "count")
    return (
        WorkflowBuilder()
        .create("all", definition_id="all")
        .add_task("draft", "", "Draft {{ topic }}", retry=3, timeout_s=5, output_key="text")
        .add_function(
            "count", "count", atomic=True, inputs={"n": "{{ n }}"}, retry=RetryPolicy(max_attempts=2, delay_s=0, on=("ValueError",))
        )
        .add_sequence("several", both)
        .add_conditional("gate", "n > 2", draft, count)
        .add_parallel("fan", both, max_concurrency=1, on_error="collect")
        .add_loop("again", count, 3, until="step.count.result > 1", on_limit="fail")
        .add_loop("whilst", count, 3, while_="n > 1")
        .add_map("each", "{{ items }}", count, item_name="thing", max_concurrency=4)
        .add_wait("approval", "approve", within_s=60, default=None)
        .add_sleep("nap", 1.5)
        .add_sleep("until", until="2030-01-01T00:00:00+00:00")
        .add_workflow("child", {"name": "inner", "steps": [COUNT]}, {"n": "{{ n }}"})
        .add_workflow("saved", "some-id")
        .with_context({"n": 1})
        .with_retry(2)
        .with_timeout(30)
        .with_deadline(600)
        .with_output({"text": "{{ step.draft.result }}"})
        .add_cleanup(count)
        .build()
    )


def given() -> WorkflowDefinition:
    """The definition by dicts."""
    return WorkflowDefinition(
        id="all",
        name="all",
        steps=EVERY_KIND,
        context={"n": 1},
        retry=2,
        timeout_s=30,
        deadline_s=600,
        output={"text": "{{ step.draft.result }}"},
        cleanup=[COUNT],
    )


def test_the_builder_covers_every_kind() -> None:
    """What it builds equals what the dicts say, and every kind that the library has is among it."""
    assert built() == given()
    assert {step.kind for _, step in walk(built().plan)} >= set(_OWN_KINDS)


def test_a_definition_survives_dicts_and_json() -> None:
    """Written and read back it is equal, has the same id and version, and nothing of the steps is lost."""
    made = given()
    assert WorkflowDefinition.from_dict(made.to_dict()).to_dict() == made.to_dict()
    again = WorkflowDefinition.from_json(made.to_json())
    assert (again, again.id, again.version) == (made, "all", made.version)
    assert [step.to_dict() for step in again.plan] == [step.to_dict() for step in made.plan]


def test_a_default_of_none_is_not_no_default() -> None:
    """A wait with `default: null` gives None when its time is up; one without fails."""
    with_default = WorkflowDefinition(name="x", steps=[{"kind": "wait", "name": "w", "signal": "s", "default": None}])
    without = WorkflowDefinition(name="x", steps=[WaitStep(name="w", signal="s")])
    assert "default" in with_default.to_dict()["steps"][0]
    assert "default" not in without.to_dict()["steps"][0]


@pytest.mark.parametrize(
    ("step", "path"),
    [
        ({"kind": "conditional", "name": "x", "then": [DRAFT]}, "steps[0].condition"),
        ({"kind": "conditional", "name": "x", "condition": "a +", "then": [DRAFT]}, "steps[0].condition"),
        ({"kind": "conditional", "name": "x", "condition": "a", "then": []}, "steps[0].then"),
        ({"kind": "conditional", "name": "x", "condition": "a", "then": [{**DRAFT, "name": ""}]}, "steps[0].then[0].name"),
        ({"kind": "conditional", "name": "x", "condition": "a", "then": [DRAFT], "else": [DRAFT, DRAFT]}, "steps[0].else[1].id"),
        ({"kind": "parallel", "name": "x", "branches": [DRAFT], "max_concurrency": 0}, "steps[0].max_concurrency"),
        ({"kind": "parallel", "name": "x", "branches": [DRAFT], "on_error": "ignore"}, "steps[0].on_error"),
        ({"kind": "parallel", "name": "x", "branches": "draft"}, "steps[0].branches"),
        ({"kind": "loop", "name": "x", "steps": [DRAFT]}, "steps[0].max_iterations"),
        ({"kind": "loop", "name": "x", "steps": [DRAFT], "max_iterations": True}, "steps[0].max_iterations"),
        ({"kind": "loop", "name": "x", "steps": [DRAFT], "max_iterations": 2, "until": "a", "while": "b"}, "steps[0].while"),
        ({"kind": "map", "name": "x", "step": DRAFT}, "steps[0].over"),
        ({"kind": "map", "name": "x", "over": 3, "step": DRAFT}, "steps[0].over"),
        ({"kind": "map", "name": "x", "over": "{{ a }}"}, "steps[0].step"),
        ({"kind": "map", "name": "x", "over": "{{ a }}", "step": {**DRAFT, "template": "{{"}}, "steps[0].step.template"),
        ({"kind": "map", "name": "x", "over": "{{ a }}", "step": DRAFT, "as": "index"}, "steps[0].as"),
        ({"kind": "wait", "name": "x"}, "steps[0].signal"),
        ({"kind": "wait", "name": "x", "signal": "s", "within_s": -1}, "steps[0].within_s"),
        ({"kind": "sleep", "name": "x"}, "steps[0].seconds"),
        ({"kind": "sleep", "name": "x", "seconds": -1}, "steps[0].seconds"),
        ({"kind": "sleep", "name": "x", "until": "tomorrow"}, "steps[0].until"),
        ({"kind": "sleep", "name": "x", "until": "2030-01-01T00:00:00"}, "steps[0].until"),
        ({"kind": "workflow", "name": "x"}, "steps[0].definition"),
        ({"kind": "workflow", "name": "x", "definition": {"name": "y", "steps": [{"kind": "z"}]}}, "steps[0].definition.steps[0].kind"),
        ({**DRAFT, "retry": 0}, "steps[0].retry.max_attempts"),
        ({**DRAFT, "retry": {"factor": 0.5}}, "steps[0].retry.factor"),
        ({**DRAFT, "retry": {"jitter": 2}}, "steps[0].retry.jitter"),
        ({**DRAFT, "retry": {"tries": 2}}, "steps[0].retry.tries"),
        ({**DRAFT, "retry": {"on": "ValueError"}}, "steps[0].retry.on"),
        ({**DRAFT, "retry": "often"}, "steps[0].retry"),
        ({**DRAFT, "timeout_s": 0}, "steps[0].timeout_s"),
        ({**DRAFT, "atomic": True}, "steps[0].atomic"),
        ({**COUNT, "atomic": "yes"}, "steps[0].atomic"),
    ],
)
def test_a_fault_is_named_by_its_path(step: dict[str, Any], path: str) -> None:
    """Also deep inside: the path leads to the very key."""
    with pytest.raises(DefinitionError) as caught:
        WorkflowDefinition.from_dict({"name": "x", "steps": [step]})
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"steps": [DRAFT], "code": "f"}, "steps"),
        ({"steps": [{**DRAFT, "name": "cleanup"}], "cleanup": [COUNT]}, "steps[0].id"),
        ({"cleanup": [{**COUNT, "function": ""}]}, "cleanup[0].function"),
        ({"deadline_s": "soon"}, "deadline_s"),
        ({"output": "{{ step."}, "output"),
        ({"retry": {"delay_s": -1}}, "retry.delay_s"),
    ],
)
def test_a_fault_of_the_definition_is_named_by_its_path(data: dict[str, Any], path: str) -> None:
    """The keys of the definition itself."""
    with pytest.raises(DefinitionError) as caught:
        WorkflowDefinition.from_dict({"name": "x", **data})
    assert caught.value.path == path


def test_nesting_has_a_limit() -> None:
    """Sixteen levels are read, seventeen are refused with the way out; so are too many steps."""
    step: dict[str, Any] = DRAFT
    for depth in range(15):
        step = {"kind": "sequence", "name": f"level {depth}", "steps": [step]}
    WorkflowDefinition(name="x", steps=[step])
    with pytest.raises(DefinitionError, match="deeper than 16"):
        WorkflowDefinition(name="x", steps=[{"kind": "sequence", "name": "top", "steps": [step]}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[]", "a definition is a dict"),
        ('{"name": "x", "name": "y"}', "twice"),
        ('{"name": "x", "context": {"a": NaN}}', "NaN"),
        ("[" * 100_000, "no JSON"),
        (None, "no JSON"),
        (b"\xff", "no JSON"),
        ('{"name": "x", "context": {"a": [1e999]}}', r"context.a\[0\]: JSON has no inf"),
        ('{"name": "x", "context": {"a": ' + "9" * 5000 + "}}", "no JSON"),
        ('{"name": "x", "context": {"a": "\\ud800"}}', "context.a: cannot be stored"),
        ('{"name": "x", "steps": [{"kind": "task", "name": "a", "template": "b", "kind": "task"}]}', "kind: this key is there twice"),
        ('{"name": "x", "steps": [{"kind": "sleep", "name": "s"}]}', r"steps\[0\].seconds"),
    ],
)
def test_faulty_json_is_refused(text: Any, message: str) -> None:
    """Nothing of it is taken in silence."""
    with pytest.raises(DefinitionError, match=message):
        WorkflowDefinition.from_json(text)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (datetime(2030, 1, 1, tzinfo=UTC), "context.a"),
        ([b"x"], "context.a[0]"),
        ({1: 2}, "context.a.1"),
        ((1,), "context.a"),
        (float("inf"), "context.a"),
        pytest.param(10**5000, "context.a", id="huge"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_its_path(value: Any, path: str) -> None:
    """A definition as a dict may hold it; its JSON text would give back something else."""
    made = WorkflowDefinition(name="x", context={"a": value})
    with pytest.raises(DefinitionError) as caught:
        made.to_json()
    assert caught.value.path == path


def test_dicts_as_yaml_gives_them_are_read() -> None:
    """YAML reads dates and numbers by itself; keys that are no text are refused where names are expected."""
    made = WorkflowDefinition.from_dict({"name": "x", "steps": [{"kind": "sleep", "name": "s", "until": datetime(2030, 1, 1, tzinfo=UTC)}]})
    assert made.to_dict()["steps"][0]["until"] == datetime(2030, 1, 1, tzinfo=UTC)
    with pytest.raises(DefinitionError, match="context"):
        WorkflowDefinition.from_dict({"name": "x", "context": {1: "a"}})


def test_models_reach_nested_tasks() -> None:
    """A default model is for tasks at any depth that name none, an assignment for those of an agent type."""
    inner = StepList().add_task("a", "", "x").add_task("b", "", "x", agent_type="writer").add_task("c", "", "x", model="own")
    made = (
        WorkflowBuilder()
        .create("x")
        .add_conditional("gate", "True", StepList().add_map("each", [1], inner))
        .default_model("small")
        .model_assignments({"writer": "large"})
        .build()
    )
    models = {path: step.to_dict().get("model") for path, step in walk(made.plan) if step.kind == "task"}
    assert list(models.values()) == ["small", "large", "own"]


def test_addresses_lead_to_steps() -> None:
    """Indexes of iterations and items, parts and ids: an address of a run leads to the step that executes there."""
    plan = WorkflowDefinition(
        name="x",
        steps=[
            {
                "kind": "loop",
                "name": "l",
                "max_iterations": 2,
                "steps": [{"kind": "conditional", "name": "if", "condition": "a", "then": [DRAFT]}],
            },
            {"kind": "map", "name": "m", "over": [1], "step": {"kind": "sequence", "name": "s", "steps": [COUNT]}},
        ],
    ).plan
    found = {address: getattr(step_at(plan, address), "id", None) for address in ("l", "l/1/if", "l/0/if/then/draft", "m/7", "m/7/count")}
    assert found == {"l": "l", "l/1/if": "if", "l/0/if/then/draft": "draft", "m/7": "s", "m/7/count": "count"}
    assert [step_at(plan, address) for address in ("x", "l/if", "l/1", "m/x", "l/0/if/else/draft")] == [None] * 5
    assert path_at(plan, "m/7/count") == "m/*/s/count"
    assert {path for path, _ in walk(plan)} == {"l", "l/*/if", "l/*/if/then/draft", "m", "m/*/s", "m/*/s/count"}


async def test_all_of_a_definition_is_saved(symphony: Symphony, reopen: Any) -> None:
    """A saved definition comes back from the log as it was, its cleanup, retry and output with it."""
    await symphony.workflows.save_workflow(given())
    await symphony.close()
    again = await reopen()
    await again.resume()
    assert (await again.workflows.get_definition("all")).to_dict() == given().to_dict()
    await again.workflows.save_workflow(WorkflowDefinition(id="all", name="less"))
    assert (await again.workflows.get_definition("all")).to_dict() == WorkflowDefinition(id="all", name="less").to_dict()


def test_json_is_for_people() -> None:
    """Indented, and with every letter as it is."""
    text = WorkflowDefinition(name="größer").to_json()
    assert "größer" in text
    assert json.loads(text)["name"] == "größer"


@pytest.mark.parametrize("retry", [RetryPolicy(), {}, 3])
def test_the_default_policy_is_a_policy(retry: Any) -> None:
    """A step that is given the default policy is retried, unlike one that is given none; so is a definition's default."""
    made = WorkflowBuilder().create("x").add_function("f", "f", retry=retry).add_function("g", "g").with_retry(retry).build()
    assert [step.retry for step in made.plan] == [RetryPolicy(), None]
    assert WorkflowDefinition.from_json(made.to_json()).retry_policy == RetryPolicy()


def test_a_policy_may_be_given_by_its_fields() -> None:
    """As keywords, of which those left out have their default; not beside a policy, where one would be lost."""
    made = WorkflowBuilder().create("x").with_retry(max_attempts=5, delay_s=0, never_on=["KeyError"]).build()
    assert made.retry == RetryPolicy(max_attempts=5, delay_s=0, never_on=("KeyError",))
    with pytest.raises(DefinitionError, match=r"retry\.attempts: is no key"):
        WorkflowBuilder().create("x").with_retry(attempts=5).build()
    with pytest.raises(DefinitionError, match="not both"):
        WorkflowBuilder().create("x").with_retry(3, delay_s=1)


def test_nested_steps_are_given_in_many_ways() -> None:
    """A list of steps, another builder, step objects, dicts, one alone: all the same in the definition."""
    step = TaskStep(name="draft", template="Draft {{ topic }}")
    ways: list[Any] = [StepList().add_step(step), WorkflowBuilder().add_step(DRAFT), [step], (DRAFT,), step, DRAFT]
    made = [WorkflowBuilder().create("x").add_sequence("s", way).add_cleanup(way).build() for way in ways]
    made.append(WorkflowBuilder().create("x").add_sequence("s", (one for one in [step])).add_cleanup(step).build())  # type: ignore[arg-type]
    assert all(definition == made[0] for definition in made)


def test_several_steps_are_given_one_after_the_other_or_as_a_list() -> None:
    """What is a sequence takes steps and lists of them one after the other, as the clean-up does."""
    first, second, third = ({**DRAFT, "name": name} for name in ("a", "b", "c"))
    whole = [first, second, third]
    ways: list[list[Any]] = [[whole], [first, second, third], [[first, second], third], [StepList().add_step(first), (second, third)]]
    for way in ways:
        made = WorkflowBuilder().create("x").add_sequence("s", *way).add_map("m", [1], *way, item_name="n").build().to_dict()["steps"]
        assert [one["name"] for one in made[0]["steps"]] == ["a", "b", "c"]
        assert [one["name"] for one in made[1]["step"]["steps"]] == ["a", "b", "c"]
        assert made[1]["as"] == "n"


@pytest.mark.parametrize(
    ("build", "path"),
    [
        (lambda builder: builder.add_step(7), "steps[0]"),
        (lambda builder: builder.add_sequence("s", 7), "steps[0].steps[0]"),
        (lambda builder: builder.add_map("s", [1], "draft"), "steps[0].step"),
        (lambda builder: builder.add_cleanup(7), "cleanup[0]"),
        (lambda builder: builder.add_sequence("s", [DRAFT, 7]), "steps[0].steps[1]"),
        (lambda builder: builder.add_conditional("s", "n", [{**COUNT, "function": lambda context: 1}]), "steps[0].then[0].function"),
        (lambda builder: builder.add_cleanup(DRAFT, {**COUNT, "function": len}), "cleanup[1].function"),
    ],
)
def test_what_is_no_step_is_refused_where_it_stands(build: Any, path: str) -> None:
    """Also what the builder was given in place of steps, and functions that no other process could find, with the way out."""
    with pytest.raises(DefinitionError) as caught:
        build(WorkflowBuilder().create("x").default_model("small")).build()
    assert caught.value.path == path
    assert "function" not in path or "symphony.functions.register" in caught.value.why


@register_step_kind
@dataclass(frozen=True, kw_only=True)
class AroundStep(Step):
    """A kind of the application's own, with a step inside, and data that only looks like one."""

    kind: ClassVar[str] = "test-around"
    nested_keys: ClassVar[tuple[str, ...]] = ("inner",)

    inner: Step
    step: Any = None

    def children(self) -> dict[str, tuple[Step, ...]]:
        return {"": (self.inner,)}

    def data(self) -> dict[str, Any]:
        return {"inner": self.inner.to_dict(), "step": self.step}

    @classmethod
    def read(cls, reader: DataReader, **common: Any) -> Self:
        return cls(**common, inner=as_step(reader.value("inner"), reader.at("inner")), step=reader.plain("step"))

    async def perform(self, execution: Any) -> Any:
        return await execution.run_step(self.inner, self.inner.id)


@pytest.mark.parametrize("given", ["order", {"name": "order"}, [], ["draft"], 3])
@pytest.mark.parametrize("make", [WorkflowBuilder, StepList])
def test_a_builder_takes_a_symphony_or_nothing(make: Any, given: Any) -> None:
    """A name or steps given where a Symphony is due are refused at once, with what to call instead."""
    with pytest.raises(ConfigurationError, match=rf"{make.__name__}\(\)\."):
        make(given)


def test_models_reach_tasks_however_they_are_given() -> None:
    """Step objects and tuples in dicts, kinds of the application's own, clean-up steps; data that is no step is left alone."""
    task = TaskStep(name="draft", template="x")
    around = {"kind": "test-around", "name": "own", "inner": {"kind": "sequence", "name": "s", "steps": (task,)}, "step": DRAFT}
    made = WorkflowBuilder().create("x").add_step(around).add_cleanup([task]).default_model("small").build()
    held = made.to_dict()["steps"][0]
    assert (held["inner"]["steps"][0]["model"], held["step"]) == ("small", DRAFT)
    assert made.to_dict()["cleanup"][0]["model"] == "small"
