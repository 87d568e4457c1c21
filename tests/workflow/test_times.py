"""`within_s` says how long a run waits, `timeout_s` how long an attempt or a caller may take: the wrong one is refused, with advice."""

from __future__ import annotations

from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import DefinitionError
from symphony_es.workflow import StepList, WorkflowDefinition, wait_for_signal


@pytest.mark.parametrize("default", [None, "late", 0, {"approved": False}])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("form", ["dict", "builder"])
def test_a_default_belongs_to_within_s(default: Any, nested: bool, form: str) -> None:
    """Beside `timeout_s` alone it would never be given: the definition is not made, and the error has the other name with the value."""

    def make(**times: Any) -> Any:
        wait = {"kind": "wait", "name": "w", "signal": "s", "default": default, **times}
        steps: Any = [wait] if form == "dict" else StepList().add_wait("w", "s", default=default, **times).to_dicts()
        return WorkflowDefinition(name="d", steps=[{"kind": "sequence", "name": "q", "steps": steps}] if nested else steps)

    with pytest.raises(DefinitionError, match=r"within_s.{1,4}600"):
        make(timeout_s=600)
    for fine in ({"within_s": 600}, {"within_s": 600, "timeout_s": 5}, {}):
        assert make(**fine).name == "d"


@pytest.mark.parametrize("name", ["within_s", "timeout_s"])
async def test_one_name_is_given_in_code(symphony: Symphony, name: str) -> None:
    """Either is how long to wait, on record when the wait begins; both contradict each other."""

    @symphony.workflow
    async def one() -> Any:
        return await wait_for_signal("s", **{name: 0}, default="late")

    @symphony.workflow
    async def both() -> Any:
        return await wait_for_signal("s", timeout_s=1, within_s=2)

    assert (await symphony.workflows.execute_workflow(one)).result == "late"
    run = await symphony.workflows.execute_workflow(both)
    assert (run.status, run.attempts) == ("failed", {})
    assert "leave timeout_s out" in run.error["message"]  # type: ignore[index]
