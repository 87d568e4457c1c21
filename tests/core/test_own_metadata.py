"""Metadata of the application's own in `transaction` and `acting_as`: free keywords, but none that is a misspelt one of the call's."""

from __future__ import annotations

from typing import Any

import pytest

from symphony_es import Symphony
from symphony_es.errors import ConfigurationError
from tests.application import Customer

MISSPELT = [
    ("acter", "actor="), ("Actor", "actor="), ("actr", "actor="), ("reasn", "reason="), ("REASON", "reason="), ("users", "user=")
]  # fmt: skip
ONLY_TRANSACTION = [("claims", "claim="), ("dat", "data="), ("name_", "name=")]


@pytest.mark.parametrize(("keyword", "meant"), [*MISSPELT, *ONLY_TRANSACTION])
async def test_a_misspelt_keyword_of_a_transaction_is_no_metadata(symphony: Symphony, keyword: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"transaction takes no {keyword!r}: did you mean {meant}\?.*user=\{{{keyword!r}: …\}}"):
        symphony.transaction("Changed", **{keyword: ["x"]})


@pytest.mark.parametrize(("keyword", "meant"), MISSPELT)
async def test_a_misspelt_keyword_of_acting_as_is_no_metadata(symphony: Symphony, keyword: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"acting_as takes no {keyword!r}: did you mean {meant}\?.*user=\{{{keyword!r}: …\}}"):
        symphony.acting_as("ann", **{keyword: "x"})


@pytest.mark.parametrize("given", ["ann", 7, ["x"]])
async def test_user_is_a_mapping(symphony: Symphony, given: Any) -> None:
    with pytest.raises(ConfigurationError, match="actor= says who acts"):
        symphony.transaction("Changed", user=given)
    with pytest.raises(ConfigurationError, match="actor= says who acts"):
        symphony.acting_as("ann", user=given)


async def test_every_name_is_stored_that_is_said_to_be_metadata(symphony: Symphony) -> None:
    customer = symphony.entities.add(Customer(id="own-metadata"))
    words = {"region": "eu", "username": "x", "user_id": 3, "date": "today", "author": "ann", "action": "name", "reason_code": 4}
    async with symphony.transaction("Named", ticket=7, **words, user={"acter": 1, "actor": 2}):
        customer.name = "a"
    with symphony.acting_as("bob", ticket=8, user={"reasn": 3}):
        customer.name = "b"
    await symphony.flush()
    *_, first, second = [version.event.metadata for version in await symphony.history(customer)]
    assert (first.actor, first.user) == (None, {"ticket": 7, **words, "acter": 1, "actor": 2})
    assert (second.actor, second.user) == ("bob", {"ticket": 8, "reasn": 3})
