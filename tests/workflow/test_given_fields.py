"""Which fields of a pydantic model were given a value is part of it: what `exclude_unset` leaves out stays so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import pytest
from pydantic import BaseModel, ConfigDict, Field

from symphony_es import Symphony
from symphony_es.errors import UnstorableValueError
from symphony_es.workflow import RunContext, run_workflow, step, wait_for_signal
from tests.conftest import Opener

T = TypeVar("T")


class Change(BaseModel):
    """A change of some fields, as a web request asks for it."""

    name: str | None = None
    price: int | None = None
    tags: list[str] = []
    inner: Change | None = None


class Fixed(BaseModel):
    model_config = ConfigDict(frozen=True)
    a: int = 1
    b: int | None = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int = 1
    b: int = 2


class Named(BaseModel):
    a: int = Field(1, alias="theirs")
    b: int = 2


class Box(BaseModel, Generic[T]):
    item: T
    note: str = ""


def appended_to() -> Change:
    """A list that was never given, and has changed in place."""
    change = Change(name="x")
    change.tags.append("a")
    return change


MODELS: dict[str, Callable[[], Any]] = {
    "one": lambda: Change(name="x"),
    "none": Change,
    "all": lambda: Change(name="x", price=1, tags=[], inner=None),
    "a default that was given": lambda: Change(price=None),
    "nested": lambda: Change(inner=Change(price=None)),
    "in a list": lambda: [Change(name="x"), {"k": Change(price=3)}, (Change(tags=[]),)],
    "in a set": lambda: {Fixed(a=1)},
    "copied": lambda: Change(name="x").model_copy(update={"price": 3}),
    "constructed": lambda: Change.model_construct(name="x"),
    "appended to": appended_to,
    "frozen": lambda: Fixed(b=None),
    "open": lambda: Open(a=3, more=4),
    "by alias": lambda: Named(theirs=1),
    "generic": lambda: Box[Change](item=Change(name="x")),
}


def given(value: Any) -> Any:
    """What was given a value, all through a value."""
    if isinstance(value, BaseModel):
        extras = value.__pydantic_extra__ or {}
        return type(value), value.model_fields_set, {name: given(item) for name, item in {**value.__dict__, **extras}.items()}
    if isinstance(value, dict):
        return {key: given(item) for key, item in value.items()}
    return [given(item) for item in value] if isinstance(value, (list, tuple, set)) else value


def declare(symphony: Symphony, seen: list[tuple[str, Any]]) -> Any:
    """Two workflows that hand models on in every way there is."""

    async def note(where: str, value: Any) -> Any:
        seen.append((where, given(value)))
        return value

    async def make(kind: str) -> Any:
        return MODELS[kind]()

    @symphony.workflow
    async def kid(model: Any) -> Any:
        seen.append(("child's argument", given(model)))
        return model

    @symphony.workflow
    async def hands_on(kind: str, model: Any) -> Any:
        seen.append(("argument", given(model)))
        made = await step(make, kind)
        seen.append(("made", given(made)))
        seen.append(("handed on", given(await step(note, "step's argument", made))))
        seen.append(("signal", given(await wait_for_signal("model"))))
        seen.append(("child", given(await run_workflow(kid, {"model": made}))))
        await wait_for_signal("go")
        return made

    def writes(context: RunContext) -> Any:
        context["kept"] = MODELS[context["kind"]]()
        return MODELS[context["kind"]]()

    def reads(context: RunContext) -> Any:
        for where, value in (("context", context["kept"]), ("output", context.outputs["writes"]), ("start", context["model"])):
            seen.append((where, given(value)))
        seen.append(("inputs", given(context.inputs["kept"])))
        return context["kept"]

    symphony.functions.register("writes", writes)
    symphony.functions.register("reads", reads)
    function = {"kind": "function"}
    declared = {
        "name": "declared",
        "steps": [
            {**function, "name": "writes", "function": "writes"},
            {"kind": "wait", "name": "go", "signal": "go"},
            {**function, "name": "reads", "function": "reads", "inputs": {"kept": "{{ kept }}"}},
        ],
    }
    return hands_on, declared


@pytest.mark.parametrize("kind", MODELS)
async def test_what_was_given_a_value_stays_that(reopen: Opener, kind: str) -> None:
    """Wherever a run hands a model on, before and after a restart."""
    want, seen = given(MODELS[kind]()), []
    symphony = await reopen()
    hands_on, declared = declare(symphony, seen)
    by_code = await symphony.workflows.start(hands_on, {"kind": kind, "model": MODELS[kind]()}, run_id="code", auto_checkpoint=False)
    await symphony.workflows.start(declared, {"kind": kind, "model": MODELS[kind]()}, run_id="declared", auto_checkpoint=False)
    await by_code.signal("model", MODELS[kind]())
    async with asyncio.timeout(30):
        while "wait go" not in by_code.run.attempts and by_code.status == "running":
            await asyncio.sleep(0)
    symphony = await reopen()
    for cls in (Change, Fixed, Open, Named, Box):
        symphony.types.register(cls)
    declare(symphony, seen)
    await symphony.workflows.recover(wait=False)
    for run_id in ("code", "declared"):
        await symphony.workflows.signal(run_id, "go")
    runs = [await symphony.workflows.handle(run_id).wait() for run_id in ("code", "declared")]
    seen += [(f"result of {run.id}", given(run.result)) for run in runs]
    wrong = [(where, got) for where, got in seen if got != want]
    assert wrong == []
    assert len({where for where, _ in seen}) == 13


@pytest.mark.parametrize("argument", [{"name": "x"}, Change(name="x")], ids=["dict", "object"])
async def test_an_annotated_argument_has_what_was_given(symphony: Symphony, argument: Any) -> None:
    """As in the web request that it came from, also when the function runs again."""
    seen = []

    @symphony.workflow
    async def patch(change: Change) -> dict[str, Any]:
        seen.append(change.model_dump(exclude_unset=True))
        await wait_for_signal("go")
        return change.model_dump(exclude_unset=True)

    handle = await symphony.workflows.start(patch, {"change": argument}, auto_checkpoint=False)
    await handle.pause()
    await handle.wait("paused")
    await handle.signal("go")
    run = await handle.resume()
    assert [*seen, run.result] == [{"name": "x"}] * 3


async def test_an_extra_that_is_called_as_every_model_calls_it_is_refused(symphony: Symphony) -> None:
    """It could not be told from what was given a value."""
    with pytest.raises(UnstorableValueError, match="give it another one"):
        await symphony.workflows.start({"name": "w", "steps": []}, {"model": Open(model_fields_set=["a"])})
