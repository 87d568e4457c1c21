"""Annotations that name what is not there: a class defined later, the class being declared, an import for type checkers alone.

The sources are the same on each Python: with `from __future__ import annotations`, and without it where annotations are evaluated late.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.annotated import add_annotation, annotations_of, hints_of, signature, signature_shown
from symphony_es.core.objects.arguments import fit_arguments
from symphony_es.workflow.code.digest import code_digest

LATE = {"as texts": "from __future__ import annotations\n"} | ({"late": ""} if sys.version_info >= (3, 14) else {})

SOURCE = """
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

from symphony_es import entity, part, step, value

if TYPE_CHECKING:
    from elsewhere import Unknown


@dataclass
class NamedAmount:
    number: int = 0
    unknown: Unknown | None = None


class NamedOrder(TypedDict):
    amount: NamedAmount
    unknown: Unknown


@part
class NamedLine:
    text: str = ""
    unknown: Unknown | None = None


@value
class NamedPrice:
    number: int = 0
    before: NamedPrice | None = None


@entity
class NamedNode:
    title: str = ""
    unknown: Unknown | None = None
    price: NamedPrice | None = None
    lines: list[NamedLine] = field(default_factory=list)
    inside: NamedNode | None = None
    below: list[NamedNode] = field(default_factory=list)


async def double(unknown: Unknown, number: int, timeout_s: float = 0.0) -> Unknown:
    return number * 2


async def flow(amount: NamedAmount, order: NamedOrder | None = None, unknown: Unknown | None = None) -> Unknown:
    return await step(double, unknown, amount.number, timeout_s=1.0)


async def client(prompt: str, unknown: Unknown | None = None) -> Unknown:
    return prompt
"""


@pytest.fixture(params=LATE)
def late(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The module of that source."""
    name = "named_late"
    module = sys.modules[name] = ModuleType(name)
    try:
        exec(compile(LATE[request.param] + SOURCE, f"{name}.py", "exec", dont_inherit=True), vars(module))
        yield module
    finally:
        del sys.modules[name]


class TestWhatIsDeclared:
    def test_an_entity_may_name_itself(self, late: ModuleType) -> None:
        """As a field, and in a list; `id` has been added, and stands last."""
        made = late.NamedNode(title="a", price=late.NamedPrice(2, late.NamedPrice(1)), lines=[late.NamedLine("x")])
        made.below.append(late.NamedNode(title="b", id="1"))
        assert made.below[0].id == "1"
        assert list(annotations_of(late.NamedNode)) == ["title", "unknown", "price", "lines", "inside", "below", "id"]
        assert hints_of(late.NamedNode)["inside"] == late.NamedNode | None

    async def test_it_comes_back(self, late: ModuleType, tmp_path: Path) -> None:
        """What its fields hold is known by their annotations, though one of them cannot be evaluated."""
        async with Symphony(tmp_path) as symphony:
            symphony.entities.add(late.NamedNode(title="a", id="1", lines=[late.NamedLine("x")], price=late.NamedPrice(3)))
        async with Symphony(tmp_path) as symphony:
            await symphony.resume()
            again = symphony.entities.get(late.NamedNode, "1")
            assert (type(again.lines[0]), again.price) == (late.NamedLine, late.NamedPrice(3))

    def test_an_annotation_that_is_added_evaluates_no_other(self) -> None:
        """Also of a class that has none, and of one whose base has some."""

        class Base:
            a: int

        class Plain(Base):
            pass

        add_annotation(Plain, "id", "str")
        assert (annotations_of(Plain), annotations_of(Base)) == ({"id": "str"}, {"a": "int"})


class TestWhatIsCalled:
    async def test_a_workflow_may_name_what_is_not_there(self, late: ModuleType) -> None:
        """Its arguments become what the other annotations ask for, and options of steps are told from arguments."""
        async with Symphony() as symphony:
            flow = symphony.workflow(late.flow, name="flow")
            run = await symphony.workflows.execute_workflow(flow, {"amount": {"number": 4}, "unknown": [1]})
            assert run.result == 8

    def test_each_annotation_is_evaluated_alone(self, late: ModuleType) -> None:
        """One that cannot be leaves itself out: in a function, a dataclass and a typed dict."""
        assert list(hints_of(late.flow)) == ["amount", "order"]
        assert list(hints_of(late.NamedAmount)) == ["number"]
        fitted = fit_arguments(late.flow, {"amount": {"number": 1}, "order": {"amount": {"number": 2}, "unknown": 3}, "unknown": {"a": 1}})
        assert fitted["amount"] == late.NamedAmount(1)
        assert fitted["order"] == {"amount": late.NamedAmount(2), "unknown": 3}
        assert fitted["unknown"] == {"a": 1}

    def test_a_signature_is_shown_as_it_is_written(self, late: ModuleType) -> None:
        """By its names, not by what stands for them."""
        assert list(signature(late.client).parameters) == ["prompt", "unknown"]
        assert signature_shown(late.client).replace("'", "") == "(prompt: str, unknown: Unknown | None = None) -> Unknown"

    def test_the_digest_of_code_does_not_depend_on_what_is_defined_so_far(self, late: ModuleType) -> None:
        """A class that is there later changes neither its text nor the process's digest of it."""
        before = code_digest(late.flow)
        assert code_digest(late.flow) == before
        vars(late)["Unknown"] = type("Unknown", (), {"__module__": "elsewhere"})
        assert code_digest(late.flow) == before


def test_nobody_asks_in_the_ordinary_way() -> None:
    """Signatures and annotations are read by the one module: the ordinary ways raise where a name is not there."""
    root = Path(__file__).parents[1]
    ways = ("inspect.signature(", "get_annotations(", ".__annotations__", "from inspect import signature")
    found = [
        f"{path}: {way}"
        for folder in (root / "symphony_es", root / "projections")
        for path in sorted(folder.rglob("*.py"))
        for way in ways
        if path.name != "annotated.py" and way in path.read_text(encoding="utf-8")
    ]
    assert not found


@pytest.mark.parametrize("of", [len, int, "a text".upper, print], ids=["len", "int", "upper", "print"])
def test_what_is_written_in_c_has_no_hints(of: Callable[..., Any]) -> None:
    """And is no error."""
    assert hints_of(of) == {}
