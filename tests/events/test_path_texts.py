"""Paths as text: what the library prints of a path, it reads again."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from symphony_es.errors import ConfigurationError, format_path
from symphony_es.events.paths import parse_path

KEYS = st.one_of(st.text(max_size=6), st.integers(), st.text(alphabet="aé_1\u0301'\"\\ .[]\n\ud800", max_size=4))


@given(path=st.lists(KEYS, max_size=4).map(tuple))
@example(path=("d", -5))
@example(path=("d", 10**20, -(10**20)))
@example(path=("e\u0301", "a b", "", "'", '"', "x.y", "[0]"))
def test_what_is_printed_is_read(path: tuple[str | int, ...]) -> None:
    """Keys of any text and any whole number, at any place."""
    assert parse_path(format_path(path)) == path


@pytest.mark.parametrize(
    "text", [".a", "a.", "a..b", "a b", "a[", "a[]", "a[--1]", "a[1.5]", "a['x]", "a]", "1a", "a.[0]", "[0]a", f"a[{'9' * 5000}]"]
)
def test_what_is_no_path_is_refused(text: str) -> None:
    """The message says where it stops to be one."""
    with pytest.raises(ConfigurationError, match=r"is no path.*column"):
        parse_path(text)
