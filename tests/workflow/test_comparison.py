"""Definitions are compared by the ids of their steps, and a run's history decides which differences it can go on with."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony_es import Symphony
from symphony_es.errors import DefinitionChangedError
from symphony_es.workflow import WorkflowDefinition
from symphony_es.workflow.definitions.comparison import DefinitionChanges, compare_definitions
from symphony_es.workflow.definitions.nesting import walk

NESTED = ("steps", "then", "else", "branches")


def work(name: str, **keys: Any) -> dict[str, Any]:
    """A function step."""
    return {"kind": "function", "name": name, "function": "work", **keys}


def around(kind: str, name: str, *steps: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
    """A composite step around others."""
    match kind:
        case "loop":
            return {"kind": kind, "name": name, "steps": list(steps), "max_iterations": 3, **keys}
        case "map":
            return {"kind": kind, "name": name, "over": [1, 2], "step": steps[0], **keys}
        case "conditional":
            return {"kind": kind, "name": name, "condition": "True", "then": list(steps), **keys}
        case _:
            return {"kind": kind, "name": name, {"parallel": "branches"}.get(kind, "steps"): list(steps), **keys}


def flow(*steps: Mapping[str, Any], **keys: Any) -> WorkflowDefinition:
    """A definition."""
    return WorkflowDefinition(name="flow", id="flow", steps=list(steps), **keys)


def compared(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], begun: str = "", completed: str = "") -> DefinitionChanges:
    """The comparison for a run that has completed some addresses, and begun some more."""
    done = completed.split()
    return compare_definitions(flow(*old), flow(*new), begun=[*done, *begun.split()], completed=done)


def test_differences_are_listed_by_path() -> None:
    """Added, removed, changed with the keys that differ, moved, and settings of the definition; nested steps count for themselves."""
    old = flow(work("a"), around("sequence", "s", work("x"), work("y")), work("b"), work("c"), retry=2)
    new = flow(
        work("c"), work("a", output_key="k", description="d"), around("sequence", "s", work("x"), work("z")), work("b"), output="{{ k }}"
    )
    found = compare_definitions(old, new, begun=[], completed=[])
    assert found.to_dict() == {
        "added": ["s/z"],
        "removed": ["s/y"],
        "changed": {"a": ["description", "output_key"]},
        "moved": ["c"],
        "settings": ["retry", "output"],
        "contradictions": [],
    }
    assert found.compatible
    assert found.report().splitlines() == [
        "  added: s/z",
        "  removed: s/y",
        "  moved: c",
        "  changed: a (description, output_key)",
        "  changed of the definition itself: retry, output",
    ]


def test_equal_definitions_have_no_differences() -> None:
    """Whatever the run has done; the report says so in words."""
    found = compared(TREE, TREE, begun="par fan", completed="first cond cond/then/t par/left fan/0")
    assert found.compatible
    assert found.report() == "  no differences"
    assert not any(found.to_dict().values())


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ([work("a"), work("c")], "b has begun, and is removed"),
        ([work("a", output_key="k"), work("b"), work("c")], "a has completed, and does something else now (output_key)"),
        ([work("a"), work("new"), work("b"), work("c")], "new is added before b, which has begun"),
        ([work("a"), work("c"), work("b")], "c is moved before b, which has begun"),
        ([work("b"), work("a"), work("c")], "steps that have begun are in another order: b, a"),
        ([work("a"), around("sequence", "b", work("in")), work("c")], "b has begun as a function step, and is a sequence step now"),
    ],
)
def test_what_a_history_contradicts(new: list[dict[str, Any]], expected: str) -> None:
    """Of three steps one has completed, one has begun, one has not: the report names the contradiction, and nothing else of its kind."""
    old = [work("a"), work("b"), work("c")]
    assert compared(old, new, begun="b", completed="a").contradictions == (expected,)
    assert compared(old, new).compatible, "a run that has begun nothing can go on with anything"


@pytest.mark.parametrize(
    "new",
    [
        [work("a"), work("b"), work("new"), work("c")],
        [work("a"), work("b")],
        [work("a"), work("b"), work("c", output_key="k")],
        [work("a"), work("b", function="other"), work("c")],
        [work("Renamed", id="a", description="d", retry=3, timeout_s=5), work("b"), work("c")],
        [work("a"), work("b"), around("sequence", "c", work("in"))],
    ],
    ids=["added after", "not begun removed", "not begun changed", "begun changed", "completed renamed", "not begun of another kind"],
)
def test_what_a_run_goes_on_with(new: list[dict[str, Any]]) -> None:
    """What has not begun may change in any way, what has begun but not completed in all but its kind, what has completed in its looks."""
    assert compared([work("a"), work("b"), work("c")], new, begun="b", completed="a").contradictions == ()


@pytest.mark.parametrize(
    ("kind", "completed"),
    [("sequence", "s/a s"), ("parallel", "s/a s"), ("conditional", "s/then/a s"), ("loop", "s/0/a s/1/a s/2/a s")],
)
def test_nothing_is_added_inside_of_what_has_completed(kind: str, completed: str) -> None:
    """It would be passed over without a word; as long as the step around it is under way, it still runs (but for loops, see below)."""
    old, new = [around(kind, "s", work("a"))], [around(kind, "s", work("a"), work("new"))]
    (told,) = compared(old, new, completed=completed).contradictions
    assert told.startswith("s/")
    assert told.endswith("/new is added where the run has been: it would never begin")
    if kind != "loop":
        assert compared(old, new, completed=completed.removesuffix(" s"), begun="s").compatible


def test_nor_deeper_inside() -> None:
    """A branch that failed inside of a parallel that collects, and has completed, is not entered again either."""
    old, new = (
        [around("parallel", "p", around("sequence", "s", *inner), on_error="collect")] for inner in ([work("a")], [work("a"), work("b")])
    )
    assert compared(old, new, begun="p/s p/s/a", completed="p").contradictions == (
        "p/s/b is added where the run has been: it would never begin",
    )


def test_a_branch_that_was_not_chosen_may_change() -> None:
    """It is no part of the history; nor is the body of a loop that never turned."""
    old = [around("conditional", "c", work("t"), **{"else": [work("e")]}), around("loop", "l", work("b"), **{"while": "False"})]
    new = [
        around("conditional", "c", work("t"), **{"else": [work("x"), work("e")]}),
        around("loop", "l", work("b"), work("n"), **{"while": "False"}),
    ]
    assert compared(old, new, completed="c/then/t c l").compatible
    assert not compared(old, new, completed="c/else/e c l").compatible
    assert compared([around("conditional", "c", work("t"))], new[:1], completed="c/then/t c").compatible
    assert not compared([around("conditional", "c", work("t"))], new[:1], completed="c").compatible, "else was chosen, and was empty"


def test_branches_beside_each_other_have_no_order() -> None:
    """A branch may be added before others and branches may change places, as long as the parallel step has not completed."""
    old = [around("parallel", "p", work("a"), work("b"))]
    found = compared(old, [around("parallel", "p", work("new"), work("b"), work("a"))], begun="p p/b", completed="p/a")
    assert (found.compatible, found.added, found.moved) == (True, ("p/new",), ())
    assert not compared(old, [around("parallel", "p", work("a"))], begun="p p/b", completed="p/a").compatible


def test_a_loops_body_is_one_place_for_all_iterations() -> None:
    """A step counts as begun when it has in any iteration; once an iteration has ended, its last step stays the last one."""
    body = [work("a"), work("b")]
    old, appended = [around("loop", "l", *body)], [around("loop", "l", *body, work("c"))]
    assert compared(old, appended, begun="l l/0/a").compatible
    told = "l/*/c is added at the end of a loop's body, and iterations have ended without it"
    assert compared(old, appended, begun="l l/1/a", completed="l/0/a l/0/b").contradictions == (told,)
    inserted = [around("loop", "l", work("a"), work("x"), work("b"))]
    assert compared(old, inserted, begun="l l/1/a", completed="l/0/a l/0/b").contradictions == (
        "l/*/x is added before l/*/b, which has begun",
    )
    changed = compared(old, [around("loop", "l", *body, max_iterations=9)], begun="l l/0/a")
    assert (changed.compatible, changed.changed) == (True, {"l": ("max_iterations",)})


def test_only_the_outermost_of_what_is_removed_is_a_contradiction() -> None:
    """One sentence for a removed step, whatever was inside of it; all paths are listed."""
    found = compared([around("sequence", "s", work("a"), work("b")), work("z")], [work("z")], begun="s s/b", completed="s/a")
    assert found.contradictions == ("s has begun, and is removed",)
    assert found.removed == ("s", "s/a", "s/b")


def test_the_function_of_a_code_first_run_stays() -> None:
    """Another function, or steps in its place, contradict a run that has begun."""
    one, other = WorkflowDefinition(name="w", code="one"), WorkflowDefinition(name="w", code="other")
    found = compare_definitions(one, other, begun=["call"], completed=[])
    assert found.contradictions == ("the run was begun by the function 'one', and the definition has the function 'other' now",)
    assert compare_definitions(one, other, begun=[], completed=[]).compatible
    assert not compare_definitions(one, flow(work("a")), begun=["call"], completed=[]).compatible


TREE = [
    work("first"),
    around("conditional", "cond", work("t"), **{"else": [around("conditional", "elif", work("u"))]}),
    around("parallel", "par", work("left"), around("sequence", "right", work("0"), work("1"))),
    around("loop", "l", work("a"), around("map", "inner", around("sequence", "each", work("p"), around("loop", "deep", work("q"))))),
    around("map", "fan", work("one")),
]


def changed_at(steps: Sequence[Mapping[str, Any]], path: list[str]) -> list[dict[str, Any]]:
    """A copy of a tree, where the step at a path has another output key."""
    made: list[dict[str, Any]] = []
    for given_step in steps:
        step = dict(given_step)
        if step["name"] == path[0] and len(path) == 1:
            step["output_key"] = "another"
        elif step["name"] == path[0]:
            if step["kind"] == "map":
                (step["step"],) = changed_at([step["step"]], path[2:])
            else:
                part = {"conditional": path[1], "parallel": "branches"}.get(step["kind"], "steps")
                step[part] = changed_at(step[part], path[2 if step["kind"] in ("conditional", "loop") else 1 :])
        made.append(step)
    return made


@pytest.mark.parametrize("path", [path for path, _ in walk(flow(*TREE).plan)])
def test_the_address_of_a_run_leads_to_the_step(path: str) -> None:
    """A completed step that does something else now is found from its address, wherever it stands."""
    address = path.replace("fan/*/one", "fan/12").replace("inner/*/each", "inner/7").replace("*", "31")
    found = compare_definitions(flow(*TREE), flow(*changed_at(TREE, path.split("/"))), begun=[address], completed=[address])
    assert found.contradictions == (f"{path} has completed, and does something else now (output_key)",)


@given(st.sets(st.sampled_from([path for path, _ in walk(flow(*TREE).plan)])), st.randoms(use_true_random=False))
def test_a_definition_never_contradicts_itself(paths: set[str], source: random.Random) -> None:
    """Whatever is on record, also what only a forced change has brought about: a run goes on with the definition that it has."""
    begun = [path.replace("fan/*/one", "fan/12").replace("inner/*/each", "inner/7").replace("*", "31") for path in sorted(paths)]
    completed = [address for address in begun if source.random() < 0.5]
    assert compare_definitions(flow(*TREE), flow(*TREE), begun=begun, completed=completed).contradictions == ()


@given(st.permutations(list("abcdefg")))
def test_moved_names_the_fewest_steps_that_explain_the_order(order: list[str]) -> None:
    """The others stand in the old order, and there is no longer sequence that does."""
    found = compared([work(name) for name in "abcdefg"], [work(name) for name in order])
    rest = [name for name in order if name not in found.moved]
    assert rest == sorted(rest)
    longest: dict[str, int] = {}
    for name in order:
        longest[name] = 1 + max((length for other, length in longest.items() if other < name), default=0)
    assert len(rest) == max(longest.values())


class Counted(str):
    """The id of a step that counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


@pytest.mark.parametrize("steps", [400, 4_000])
def test_comparing_many_steps_searches_no_siblings(steps: int) -> None:
    """The event loop stands still meanwhile: each id is compared with a few others, not with all beside it."""
    numbers = range(steps)
    definition = flow(around("parallel", "p", *(work(f"b{number}") for number in numbers)), *(work(f"s{number}") for number in numbers))
    addresses = [Counted(name) for number in numbers for name in (f"p/b{number}", f"s{number}")] + ["p"]
    for _, step in walk(definition.plan):
        object.__setattr__(step, "id", Counted(step.id))
    Counted.compared = 0
    compare_definitions(definition, definition, begun=addresses, completed=addresses)
    assert Counted.compared < 60 * steps


def random_steps(source: random.Random, depth: int, names: list[int]) -> list[dict[str, Any]]:
    """One to three steps, some of them composites."""
    made = []
    for _ in range(source.randint(1, 3)):
        names[0] += 1
        kind = source.choice(["function", "function", "sequence", "parallel", "loop", "map", "conditional"]) if depth else "function"
        name = f"n{names[0]}"
        made.append(work(name) if kind == "function" else around(kind, name, *random_steps(source, depth - 1, names)))
        if kind == "loop":
            made[-1]["max_iterations"] = 2
    return made


def edited(source: random.Random, steps: list[dict[str, Any]], names: list[int]) -> list[dict[str, Any]]:
    """The steps with one step added, removed, moved, changed, or renamed somewhere."""
    lists = [steps]
    for siblings in lists:
        lists.extend(step[key] for step in siblings for key in NESTED if key in step)
    siblings = source.choice(lists)
    place = source.randrange(len(siblings))
    match source.choice(["add", "add", "remove", "move", "change", "rename"]):
        case "add":
            names[0] += 1
            siblings.insert(source.randint(0, len(siblings)), work(f"n{names[0]}"))
        case "remove" if len(siblings) > 1:
            del siblings[place]
        case "move":
            siblings.insert(source.randrange(len(siblings)), siblings.pop(place))
        case "change" if siblings[place]["kind"] == "function":
            siblings[place]["inputs"] = {"changed": True}
        case _:
            siblings[place] = {**siblings[place], "id": siblings[place]["name"], "name": f"renamed {siblings[place]['name']}"}
    return steps


def copied(value: Any) -> Any:
    """Dicts and lists, all the way down."""
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


async def ends_alike(source: random.Random) -> bool:
    """A run that failed somewhere goes on with an edited definition; whether it was let, and then ends as a new run of it does."""
    names = [0]
    old = random_steps(source, 2, names)
    new = edited(source, copied(old), names)
    async with Symphony() as symphony:
        fails_at: list[int] = [source.randint(1, 8)]

        async def body(context: Any) -> Any:
            fails_at[0] -= 1
            if fails_at[0] == 0:
                raise ValueError("not now")
            return [context.step, context.inputs]

        symphony.functions.register("work", body)
        run = await symphony.workflows.execute_workflow(flow(*old), auto_checkpoint=False)
        if run.status == "completed":
            return False
        try:
            await symphony.workflows.resume(run, False, definition=flow(*new))
        except DefinitionChangedError:
            return False
        fresh = await symphony.workflows.execute_workflow(flow(*new), auto_checkpoint=False)
        assert run.status == fresh.status == "completed", (run.error, old, new)
        assert dict(run.outputs) == dict(fresh.outputs), (old, new)
        return True


def run_async(function: Callable[[], Any]) -> Any:
    """In an event loop of its own."""
    with asyncio.Runner() as runner:
        return runner.run(function())


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_what_is_compatible_ends_as_a_new_run_of_the_definition(source: random.Random) -> None:
    """The meaning of "compatible": outputs at the same addresses, with the same values, and no step passed over."""
    run_async(lambda: ends_alike(source))


def test_the_property_is_not_empty() -> None:
    """A good part of random edits is compatible, so that the property above says something."""
    assert sum(run_async(lambda seed=seed: ends_alike(random.Random(seed))) for seed in range(60)) >= 10  # type: ignore[misc]
