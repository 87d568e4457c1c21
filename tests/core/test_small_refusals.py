"""Calls that a user makes by mistake, or rightly: the first are refused by name, the second work."""

from __future__ import annotations

from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError
from tests.application import Customer


@pytest.mark.parametrize("position", ["1", 1.0, None, True, [1]])
async def test_consequences_of_what_is_not_a_position(symphony: Symphony, position: Any) -> None:
    """The error says what a position is."""
    with pytest.raises(ConfigurationError, match="a position is a whole number"):
        await symphony.audit.consequences(position)


async def test_an_id_may_be_assigned_as_it_is(symphony: Symphony) -> None:
    """Nothing is recorded for it; another id is refused as before."""
    customer = symphony.entities.add(Customer(id="c"))
    await symphony.flush()
    customer.id = customer.id
    await symphony.flush()
    assert len(await symphony.history(customer)) == 1
    with pytest.raises(AttributeError, match="cannot change"):
        customer.id = "d"


async def plain(topic: str = "") -> str:
    return topic


class Flows:
    async def method(self) -> None:
        """A method is a function too."""


@pytest.mark.parametrize("function", [plain, Flows().method, lambda: None, len])
async def test_a_plain_function_is_not_a_workflow(symphony: Symphony, function: Any) -> None:
    """The error names the decorator."""
    with pytest.raises(ConfigurationError, match=r"@symphony\.workflow"):
        await symphony.workflows.start(function)
