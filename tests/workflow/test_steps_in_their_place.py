"""Lists of steps, steps and other values in each other's place: the definition is refused, and the message says how it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from symphony_es.errors import DefinitionError
from symphony_es.workflow import StepList, WorkflowBuilder, WorkflowDefinition


def steps(*names: str) -> list[dict[str, Any]]:
    """Steps of these names."""
    return [{"kind": "sleep", "name": name, "seconds": 0} for name in names]


def listed(*names: str) -> StepList:
    """The same, as a chain of calls makes them."""
    made = StepList()
    for step in steps(*names):
        made.add_step(step)
    return made


ONE, TWO = steps("a")[0], steps("b")[0]
BRANCHES = r"steps\[0\].max_concurrency: steps are given .* takes its branches as one list, \[first, second\]"
SEQUENCE = r"several steps are one by add_sequence\('name', steps\)"
CASES: dict[str, tuple[Callable[[WorkflowBuilder], Any], str]] = {
    "parallel-lists": (lambda made: made.add_parallel("p", steps("a"), steps("b")), BRANCHES),  # type: ignore[arg-type]
    "parallel-steps": (lambda made: made.add_parallel("p", ONE, TWO), BRANCHES),  # type: ignore[arg-type]
    "parallel-chains": (lambda made: made.add_parallel("p", listed("a"), listed("b")), BRANCHES),  # type: ignore[arg-type]
    "parallel-three": (lambda made: made.add_parallel("p", steps("a"), steps("b"), steps("c")), "steps are given"),  # type: ignore[arg-type]
    "parallel-nested": (lambda made: made.add_parallel("p", [steps("a", "b"), steps("c")]), SEQUENCE),  # type: ignore[list-item]
    "parallel-nested-chains": (lambda made: made.add_parallel("p", [listed("a"), listed("b")]), SEQUENCE),  # type: ignore[list-item]
    "parallel-functions": (lambda made: made.add_parallel("p", [steps, listed]), r"add_function\('name', function\)"),  # type: ignore[list-item]
    "sequence-nested": (lambda made: made.add_sequence("s", [steps("a")]), SEQUENCE),  # type: ignore[list-item]
    "loop-order": (lambda made: made.add_loop("l", steps("a"), steps("b")), r"its steps as one list, then max_iterations"),  # type: ignore[arg-type]
    "map-order": (lambda made: made.add_map("m", steps("a"), "{{ [1] }}"), r"first what it goes over"),
    "conditional-order": (lambda made: made.add_conditional("c", steps("a"), "x"), r"first the condition"),  # type: ignore[arg-type]
    "conditional-nested": (lambda made: made.add_conditional("c", "1 == 1", [steps("a")]), SEQUENCE),  # type: ignore[list-item]
    "cleanup-nested": (lambda made: made.add_sleep("z", 0).add_cleanup([steps("a")]), SEQUENCE),  # type: ignore[list-item]
    "step-list": (lambda made: made.add_step(steps("a")), SEQUENCE),  # type: ignore[arg-type]
    "step-chain": (lambda made: made.add_step(listed("a")), SEQUENCE),  # type: ignore[arg-type]
    "undo-list": (lambda made: made.add_function("a", "f", undo=steps("u", "v")), SEQUENCE),
    "function-list": (lambda made: made.add_function("a", [steps]), r"steps\[0\].function: must be a function, or the name of one, not \["),  # type: ignore[arg-type]
    "workflow-list": (lambda made: made.add_workflow("w", steps("a")), r"steps alone are a sequence, add_sequence\('w', steps\)"),  # type: ignore[arg-type]
}
DICTS: dict[str, tuple[dict[str, Any], str]] = {
    "steps": ({"steps": ONE}, r"steps: must be a list, not dict: one alone is a list of one, \[step\]"),
    "cleanup": ({"steps": [ONE], "cleanup": [[TWO]]}, SEQUENCE),
    "nested": ({"steps": [[ONE], [TWO]]}, SEQUENCE),
    "branches": ({"steps": [{"kind": "parallel", "name": "p", "branches": ONE}]}, r"one alone is a list of one"),
    "step": ({"steps": [{"kind": "map", "name": "m", "over": "{{ [1] }}", "step": [ONE, TWO]}]}, SEQUENCE),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_builder_is_given(case: str) -> None:
    """The message has the path, says what was given in whose place, and names the call that does what was meant."""
    call, said = CASES[case]
    with pytest.raises(DefinitionError, match=said):
        call(WorkflowBuilder().create("d")).build()


@pytest.mark.parametrize("case", DICTS)
def test_what_a_dict_holds(case: str) -> None:
    """The same of a definition that is written as a dict."""
    given, said = DICTS[case]
    with pytest.raises(DefinitionError, match=said):
        WorkflowDefinition.from_dict({"name": "d", **given})


def test_what_the_messages_advise() -> None:
    """Lists of branches, a sequence as a branch, one step alone and a chain of calls are taken."""
    made = WorkflowBuilder().create("d").add_parallel("p", [StepList().add_sequence("s", steps("a", "b")).to_dicts()[0], ONE])
    made.add_sequence("one", ONE).add_loop("l", listed("a"), 2).add_map("m", [1], steps("x", "y"))
    assert [step.kind for step in made.build().plan] == ["parallel", "sequence", "loop", "map"]
