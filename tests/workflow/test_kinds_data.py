"""The data of every kind of step: what is written is read back equal, what cannot run is refused where it stands, limits are kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symphony_es import Symphony
from symphony_es.errors import DefinitionError
from symphony_es.workflow import (
    ConditionalStep,
    FunctionStep,
    LoopStep,
    MapStep,
    RetryPolicy,
    SequenceStep,
    SleepStep,
    Step,
    SubWorkflowStep,
    TaskStep,
    WaitStep,
    WorkflowDefinition,
)
from symphony_es.workflow.definitions.comparison import compare_definitions
from symphony_es.workflow.definitions.nesting import MAX_ADDRESS_BYTES, MAX_DEPTH, MAX_STEPS, extent_of, walk
from symphony_es.workflow.definitions.reading import MAX_SECONDS
from symphony_es.workflow.kinds.map import MAX_ITEMS

COUNT: dict[str, Any] = {"kind": "function", "name": "count", "function": "count"}
DRAFT: dict[str, Any] = {"kind": "task", "name": "draft", "template": "Draft {{ topic }}"}

conditions = st.sampled_from(["n > 2", "'a' in names", "step.count.result == 1"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
).filter(lambda value: "{{" not in str(value))
retries = (
    st.none() | st.integers(1, 5) | st.fixed_dictionaries({}, optional={"delay_s": st.floats(0, 9), "never_on": st.just(["KeyError"])})
)


def keys(kind: str, **held: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Dicts of one kind, with what every step may have; keys that came out as None are left out."""
    common = {"retry": retries, "timeout_s": st.none() | st.floats(0.1, 9), "output_key": st.sampled_from([None, "key"])}
    made = st.fixed_dictionaries({"kind": st.just(kind), "description": st.sampled_from(["", "text"]), **common, **held})
    return made.map(lambda step: {key: value for key, value in step.items() if value is not None or key == "default"})


def siblings(steps: st.SearchStrategy[dict[str, Any]], least: int = 1) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Some steps with names of their own."""
    return st.lists(steps, min_size=least, max_size=3).map(
        lambda several: [{"name": f"{step['kind']} {index}", **step} for index, step in enumerate(several)]
    )


def composites(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Steps of the kinds that have steps inside."""
    together = {"max_concurrency": st.sampled_from([None, 1, 7]), "on_error": st.sampled_from(["fail_fast", "collect"])}
    loop = {"steps": siblings(inner), "max_iterations": st.integers(1, 100_000), "on_limit": st.sampled_from(["complete", "fail"])}
    definition = st.fixed_dictionaries({"name": st.just("inner"), "steps": siblings(inner)})
    return (
        keys("sequence", steps=siblings(inner))
        | keys("conditional", condition=conditions, then=siblings(inner), **{"else": siblings(inner, least=0)})
        | keys("parallel", branches=siblings(inner), **together)
        | keys("loop", until=st.none() | conditions, **loop)
        | keys("loop", **{"while": conditions}, **loop)
        | keys(
            "map",
            over=st.sampled_from(["{{ items }}", [1, "{{ n }}"], []]),
            step=inner.map(lambda step: {"name": "one", **step}),
            **together,
        )
        | keys("workflow", definition=definition, context=st.dictionaries(st.text(max_size=3), values, max_size=2))
    )


leaves = (
    keys("task", template=st.sampled_from(["Draft", "{{ topic }}"]), model=st.sampled_from([None, "small"]))
    | keys("function", function=st.just("count"), inputs=st.dictionaries(st.text(max_size=3), values, max_size=2), atomic=st.booleans())
    | keys("wait", signal=st.just("go {{ n }}"), within_s=st.sampled_from([2.5, "{{ n }}"]), default=values)
    | keys("wait", signal=st.just("go {{ n }}"), within_s=st.none())
    | keys("sleep", seconds=st.floats(0, 1e9) | st.just("{{ n }}"))
    | keys("sleep", until=st.sampled_from(["2030-01-01T00:00:00+02:00", "{{ moment }}"]))
)
trees = siblings(st.recursive(leaves, composites, max_leaves=6))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(trees, retries, values)
def test_any_tree_of_steps_survives_dicts_and_json(steps: list[dict[str, Any]], retry: Any, output: Any) -> None:
    """Written and read back, as a dict and as JSON, it is equal: same content, same version, the same class of step at every path."""
    made = WorkflowDefinition(name="x", steps=steps, retry=retry, output=output, cleanup=steps[:1])
    for read in (WorkflowDefinition.from_dict(made.to_dict()), WorkflowDefinition.from_json(made.to_json(indent=None))):
        assert (read.to_dict(), read.version) == (made.to_dict(), made.version)
        assert [(path, type(step)) for path, step in walk(read.plan)] == [(path, type(step)) for path, step in walk(made.plan)]
    assert json.loads(made.to_json()) == made.to_dict()


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(trees)
def test_what_was_given_is_what_is_held(steps: list[dict[str, Any]]) -> None:
    """Of each key that was given, the dict of the read step has the value, unless that is the key's default."""
    made = WorkflowDefinition(name="x", steps=steps)
    for given_step, step in zip(steps, made.plan, strict=True):
        written = step.to_dict()
        for key in set(given_step) - {"retry", "steps", "then", "else", "branches", "step", "definition"}:
            default = {"on_error": "fail_fast", "on_limit": "complete", "atomic": False, "description": "", "context": {}, "inputs": {}}
            assert written.get(key, default.get(key)) == given_step[key]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(trees)
def test_a_step_is_as_large_as_what_is_inside_of_it(steps: list[dict[str, Any]]) -> None:
    """The extent that is measured as a step is read is the one of the whole tree measured anew."""
    made = WorkflowDefinition(name="x", steps=steps)
    for path, step in walk(made.plan):
        assert step.extent == extent_of(step), path
        below = [inner for inside in (step.children(), step.inlined()) for part in inside.values() for inner in part]
        assert step.extent.steps == 1 + sum(inner.extent.steps for inner in below)
        assert step.extent.depth == 1 + max((inner.extent.depth for inner in below), default=0)


def deep(levels: int, leaf: dict[str, Any] = COUNT, *, chars: int = 3) -> dict[str, Any]:
    """Sequences in one another, as many levels as asked, the leaf included; ids of so many characters."""
    for level in range(levels - 1):
        leaf = {"kind": "sequence", "name": f"{level:03}".ljust(chars, "n"), "steps": [leaf]}
    return leaf


def inline(levels: int) -> dict[str, Any]:
    """Definitions in one another, with so many levels of steps."""
    definition: dict[str, Any] = {"name": "inner", "steps": [COUNT]}
    for _ in range(levels - 1):
        definition = {"name": "outer", "steps": [{"kind": "workflow", "name": "child", "definition": definition}]}
    return definition


@pytest.mark.parametrize("build", [lambda levels: {"name": "x", "steps": [deep(levels)]}, inline])
def test_nesting_ends_at_its_limit(build: Any) -> None:
    """Also through definitions inside; what is accepted can be stored, what is absurdly deep is refused like what is a little too deep."""
    made = WorkflowDefinition.from_dict(build(MAX_DEPTH))
    assert made.plan[0].extent.depth == MAX_DEPTH
    assert len(made.version) == 64
    for levels in (MAX_DEPTH + 1, 100, 3_000):
        with pytest.raises(DefinitionError, match="nested deeper") as caught:
            WorkflowDefinition.from_dict(build(levels))
        assert caught.value.path.startswith("steps")


def test_what_holds_itself_is_refused() -> None:
    """A dict, or a step made by hand, that is somewhere inside itself has no end."""
    step: dict[str, Any] = {"kind": "sequence", "name": "x"}
    step["steps"] = [step]
    by_hand = SequenceStep(name="y", steps=[])
    object.__setattr__(by_hand, "steps", [by_hand])
    for given_step in (step, by_hand):
        with pytest.raises(DefinitionError, match="nested deeper") as caught:
            WorkflowDefinition(name="x", steps=[COUNT], cleanup=[given_step])
        assert caught.value.path == "cleanup"


async def test_an_address_has_room_in_the_ids_made_of_it(symphony: Symphony) -> None:
    """As long as it may be, a task is made at it; longer ones are refused in the definition, not in the middle of a run."""

    def nested(chars: int) -> WorkflowDefinition:
        task = {"kind": "task", "name": "t" * chars, "template": "x", "model": "echo"}
        around = {"kind": "loop", "name": "a" * 100, "max_iterations": 100_000, "until": "True", "steps": [task]}
        return WorkflowDefinition(name="x", steps=[{"kind": "sequence", "name": "ö" * 97, "steps": [around]}])

    room = MAX_ADDRESS_BYTES - len("ö".encode()) * 97 - len("/") - 100 - len("/99999/")
    run = await symphony.workflows.execute_workflow(nested(room), auto_checkpoint=False)
    assert run.status == "completed", run.error
    with pytest.raises(DefinitionError, match=rf"would take {MAX_ADDRESS_BYTES + 1} bytes") as caught:
        nested(room + 1)
    assert caught.value.path == "steps[0]"


def test_an_address_counts_what_it_has_and_nothing_else() -> None:
    """Parts, indexes and the name of cleanup count; of a map the index stands for the step's id; a child run's address goes on."""

    def length(step: dict[str, Any]) -> int:
        return WorkflowDefinition(name="x", steps=[step]).plan[0].extent.address_bytes

    assert length(COUNT) == len("count")
    assert length({"kind": "conditional", "name": "if", "condition": "n", "then": [COUNT]}) == len("if/then/count")
    assert length({"kind": "parallel", "name": "fan", "branches": [COUNT]}) == len("fan/count")
    assert length({"kind": "loop", "name": "l", "max_iterations": 1, "steps": [COUNT]}) == len("l/99999/count")
    assert length({"kind": "map", "name": "m", "over": [1], "step": {**COUNT, "name": "c" * 90}}) == len("m/99999")
    assert length({"kind": "map", "name": "m", "over": [1], "step": deep(2)}) == len("m/99999/count")
    assert length({"kind": "workflow", "name": "w", "definition": {"name": "y", "cleanup": [COUNT]}}) == len("w/cleanup/count")
    tight = deep(5, {**COUNT, "name": "c" * (MAX_ADDRESS_BYTES - 4 * 90)}, chars=89)
    WorkflowDefinition(name="x", steps=[tight])
    with pytest.raises(DefinitionError, match="408 bytes") as caught:
        WorkflowDefinition(name="x", cleanup=[COUNT, tight])
    assert caught.value.path == "cleanup[1]"


def test_steps_of_definitions_inside_count() -> None:
    """A run copies its definition with all that is in it."""
    half = [{**COUNT, "name": f"count {index}"} for index in range(MAX_STEPS // 2)]
    child = {"kind": "workflow", "name": "child", "definition": {"name": "y", "steps": half}}
    WorkflowDefinition(name="x", steps=[*half[1:], child])
    with pytest.raises(DefinitionError, match="10,001 steps are more") as caught:
        WorkflowDefinition(name="x", steps=[*half, child])
    assert caught.value.path == "steps"


def test_a_definition_inside_is_the_same_in_every_process() -> None:
    """A made id is another one each time: inside a definition the name stands for it, so versions are equal and nothing has changed."""

    def outer() -> WorkflowDefinition:
        inner = WorkflowDefinition(name="inner").add_step(COUNT)
        return WorkflowDefinition(name="outer", steps=[SubWorkflowStep(name="child", definition=inner), {**COUNT, "name": "last"}])

    one, other = outer(), outer()
    assert one.id != other.id
    assert one.version == other.version == WorkflowDefinition.from_dict(one.to_dict()).version
    changes = compare_definitions(one, other, begun={"child", "last"}, completed={"child"})
    assert (changes.compatible, changes.changed) == (True, {})
    as_dict = [{"kind": "workflow", "name": "child", "definition": WorkflowDefinition(name="inner", steps=[COUNT])}]
    assert WorkflowDefinition(name="outer", steps=[*as_dict, {**COUNT, "name": "last"}]).version == one.version
    kept = SubWorkflowStep(name="child", definition=WorkflowDefinition(id="given", name="inner"))
    assert kept.to_dict()["definition"]["id"] == "given"


@pytest.mark.parametrize(
    ("step", "path"),
    [
        ({**DRAFT, "timeout_s": 10**400}, "timeout_s"),
        ({**DRAFT, "timeout_s": MAX_SECONDS + 1}, "timeout_s"),
        ({**DRAFT, "timeout_s": float("nan")}, "timeout_s"),
        ({**DRAFT, "timeout_s": True}, "timeout_s"),
        ({**DRAFT, "retry": {"factor": 10**5000}}, "retry.factor"),
        ({**DRAFT, "retry": {"delay_s": float("nan")}}, "retry.delay_s"),
        ({**DRAFT, "retry": {"max_delay_s": 1e300}}, "retry.max_delay_s"),
        ({**DRAFT, "retry": {"max_attempts": 2.0}}, "retry.max_attempts"),
        ({**DRAFT, "retry": {"never_on": [""]}}, "retry.never_on"),
        ({**DRAFT, "name": "\ud800"}, "name"),
        ({**DRAFT, "output_key": ""}, "output_key"),
        ({**COUNT, "function": lambda context: 1}, "function"),
        ({**COUNT, "function": 7}, "function"),
        ({"kind": "sleep", "name": "x", "seconds": 10**400}, "seconds"),
        ({"kind": "sleep", "name": "x", "seconds": MAX_SECONDS * 2}, "seconds"),
        ({"kind": "sleep", "name": "x", "seconds": {"a": "{{ n }}"}}, "seconds"),
        ({"kind": "sleep", "name": "x", "seconds": 1, "until": "{{ n }}"}, "seconds"),
        ({"kind": "sleep", "name": "x", "until": "0001-01-01T00:00:00+23:00"}, "until"),
        ({"kind": "wait", "name": "x", "signal": ""}, "signal"),
        ({"kind": "wait", "name": "x", "signal": "s", "within_s": "soon"}, "within_s"),
        ({"kind": "wait", "name": "x", "signal": "s", "within_s": 1e300}, "within_s"),
        ({"kind": "wait", "name": "x", "signal": "s", "default": object()}, "default"),
        ({"kind": "map", "name": "x", "over": "items", "step": COUNT}, "over"),
        ({"kind": "map", "name": "x", "over": [0] * (MAX_ITEMS + 1), "step": COUNT}, "over"),
        ({"kind": "map", "name": "x", "over": [1], "step": COUNT, "as": "for"}, "as"),
        ({"kind": "map", "name": "x", "over": [1], "step": COUNT, "as": "None"}, "as"),
        ({"kind": "map", "name": "x", "over": [1], "step": COUNT, "as": "two words"}, "as"),
        ({"kind": "map", "name": "x", "over": [1], "step": [COUNT]}, "step"),
        ({"kind": "loop", "name": "x", "steps": [COUNT], "max_iterations": 100_001}, "max_iterations"),
        ({"kind": "loop", "name": "x", "steps": [COUNT], "max_iterations": 1, "until": "n ="}, "until"),
        ({"kind": "loop", "name": "x", "steps": [COUNT], "max_iterations": 1, "while": "import os"}, "while"),
        ({"kind": "loop", "name": "x", "steps": [COUNT], "max_iterations": 1, "on_limit": "stop"}, "on_limit"),
        ({"kind": "sequence", "name": "x", "steps": []}, "steps"),
        ({"kind": "workflow", "name": "x", "workflow_id": "a", "definition": {"name": "b"}}, "definition"),
        ({"kind": "workflow", "name": "x", "definition": "b"}, "definition"),
        ({"kind": "workflow", "name": "x", "workflow_id": "a", "context": {"n": "{{ }}"}}, "context"),
        ({"kind": "workflow", "name": "x", "workflow_id": "a", "context": {1: 2}}, "context"),
        (WaitStep(name="x", signal=7), "signal"),  # type: ignore[arg-type]
        (TaskStep(name=None, template="x"), "name"),  # type: ignore[arg-type]
        (TaskStep(name="x", template="x", retry="often"), "retry"),  # type: ignore[arg-type]
        (FunctionStep(name="x", function=lambda context: 1), "function"),  # type: ignore[arg-type]
        (SequenceStep(name="x", steps=[7]), "steps[0]"),  # type: ignore[list-item]
        (ConditionalStep(name="x", condition="n", then="draft"), "then"),  # type: ignore[arg-type]
        (MapStep(name="x", over=[1], step=7), "step"),  # type: ignore[arg-type]
        (LoopStep(name="x", steps=[COUNT], max_iterations=0), "max_iterations"),
        (SleepStep(name="x"), "seconds"),
    ],
)
def test_what_could_not_run_is_refused_where_it_stands(step: Any, path: str) -> None:
    """On the first level and deep inside: whatever is wrong with the numbers, texts and objects of a step, the path leads to the key."""
    for around, place in (
        (step, "steps[0]"),
        ({"kind": "conditional", "name": "if", "condition": "n", "then": [DRAFT], "else": [COUNT, step]}, "steps[0].else[1]"),
        ({"kind": "map", "name": "m", "over": [1], "step": SequenceStep(name="s", steps=[COUNT, step])}, "steps[0].step.steps[1]"),
    ):
        with pytest.raises(DefinitionError) as caught:
            WorkflowDefinition(name="definition", steps=[around])
        assert caught.value.path == f"{place}.{path}"


def test_the_short_forms_are_read() -> None:
    """A number of attempts of a step made by hand; a function itself, by the name it is imported by; a moment as YAML gives it."""
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    short: Any = 4
    steps: list[Step] = [TaskStep(name="t", template="x", retry=short), SleepStep(name="s", until=moment)]
    function = {"kind": "function", "name": "f", "function": deep}
    made = WorkflowDefinition(name="x", steps=[*steps, {"kind": "sequence", "name": "all", "steps": [function]}])
    assert made.plan[0].retry == RetryPolicy(max_attempts=4)
    assert made.to_dict()["steps"][1]["until"] == moment
    assert made.to_dict()["steps"][2]["steps"][0]["function"] == f"{__name__}:deep"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            {"kind": "wait", "signal": "{{ nothing }}", "within_s": 0.01},
            "a signal's name is a text that is not empty, and '{{ nothing }}' gives None",
        ),
        (
            {"kind": "wait", "signal": "{{ empty }}", "within_s": 0.01},
            "a signal's name is a text that is not empty, and '{{ empty }}' gives an empty str",
        ),
        ({"kind": "wait", "signal": "go", "within_s": "{{ text }}"}, "a wait takes a number of seconds between 0 and"),
        ({"kind": "wait", "signal": "go", "within_s": "{{ huge }}"}, "a wait takes a number of seconds between 0 and"),
        ({"kind": "sleep", "seconds": "{{ huge }}"}, "a wait takes a number of seconds between 0 and"),
        ({"kind": "sleep", "seconds": "{{ nothing }}"}, "a wait takes a number of seconds between 0 and"),
        ({"kind": "sleep", "until": "{{ text }}"}, "a sleep takes a moment in ISO 8601"),
        ({"kind": "map", "over": "{{ text }}", "step": COUNT}, "a map goes over a list, and '{{ text }}' gives a str"),
        ({"kind": "map", "over": "{{ many }}", "step": COUNT}, "a map goes over at most 100,000 items"),
    ],
)
async def test_what_a_template_gives_is_looked_at(symphony: Symphony, step: dict[str, Any], message: str) -> None:
    """A step that was given no name, no number or no list fails and says so; it neither waits for ever nor goes over letters."""
    symphony.functions.register("count", len)
    context = {"nothing": None, "empty": "", "text": "5", "huge": 1e300, "many": [0] * (MAX_ITEMS + 1)}
    run = await symphony.workflows.execute_workflow({"name": "x", "steps": [{"name": "s", **step}]}, context, auto_checkpoint=False)
    assert run.error is not None
    assert (run.status, run.error["step"]) == ("failed", "s")
    assert message in run.error["message"]
    assert not run.progress


async def test_a_number_may_name_a_signal(symphony: Symphony) -> None:
    """A template that is one expression gives a number as it is; as a name it is a text."""
    steps = [{"kind": "wait", "name": "w", "signal": "{{ order }}", "within_s": "{{ order / 7 }}"}]
    handle = await symphony.workflows.start({"name": "x", "steps": steps}, {"order": 7}, auto_checkpoint=False)
    await handle.signal("7", "paid")
    assert await handle.result() == "paid"


@given(st.floats(1, 1e6), st.integers(1, 10**6), st.floats(0, 1))
def test_no_delay_stays_no_delay(factor: float, failed: int, chance: float) -> None:
    """However often it grows, beyond what a float holds as well."""
    assert RetryPolicy(delay_s=0, factor=factor).delay_before(failed, chance) == 0


@given(st.floats(0, 1e3), st.floats(1, 10), st.integers(1, 6), st.floats(0, 1), st.floats(0, 1))
def test_a_delay_is_its_term_of_the_series_give_or_take_the_jitter(
    delay_s: float, factor: float, failed: int, jitter: float, chance: float
) -> None:
    """The n-th is the first one times the factor to the power of n - 1; chance moves it from the shortest to the longest."""
    policy = RetryPolicy(delay_s=delay_s, factor=factor, max_delay_s=1e9, jitter=jitter)
    term = delay_s * factor ** (failed - 1)
    assert policy.delay_before(failed, 0) == pytest.approx(term * (1 - jitter))
    assert policy.delay_before(failed, 0.5) == pytest.approx(term)
    assert policy.delay_before(failed, 1) == pytest.approx(term * (1 + jitter))
    assert policy.delay_before(failed, 0) <= policy.delay_before(failed, chance) <= policy.delay_before(failed, 1)
