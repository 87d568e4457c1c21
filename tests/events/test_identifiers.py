"""Types, ids, keys and the ids the library makes: what is allowed, and that hostile text is refused or kept as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony_es.errors import InvalidIdentifierError
from symphony_es.events.event import check_event_name
from symphony_es.events.identifiers import check_entity_id, check_entity_type, entity_key, split_key, text_id, uuid7
from symphony_es.events.references import EntityReference

GOOD_IDS = [
    "1",
    "../../x",
    "a:b",
    ":",
    " ",
    "\n",
    "\u202eabc\u202c",
    "ž" * 256,
    "x" * 512,
    "🎉" * 128,
    "%00",
    "CON",
    "'; DROP TABLE events;--",
]
BAD_IDS = ["", "\0", "a\0b", "x" * 513, "ž" * 257, "x" * 10_000, "🎉" * 129, "\ud800", "a\udfffb", None, 1, b"a", ["a"], True]
GOOD_TYPES = ["Task", "_", "a.b.c", "symphony.Checkpoint", "A" * 100, "a9", "_9."]
BAD_TYPES = ["", "9a", ".a", "a b", "a:b", "A" * 101, "ž", "Task\n", "a/b", "../x", "\0", "\u202eTask", "\ud800", None, 5, b"Task", "a-b"]


@pytest.mark.parametrize("identifier", GOOD_IDS, ids=lambda text: repr(text)[:30])
def test_ids_are_any_text(identifier: str) -> None:
    """Paths, marks that turn the writing direction, colons and 512 bytes are ids like any other, kept to the letter."""
    assert check_entity_id(identifier) == identifier
    key = entity_key("Task", identifier)
    assert split_key(key) == ("Task", identifier)
    reference = EntityReference.parse(key)
    assert (reference.entity_type, reference.entity_id, reference.key, str(reference)) == ("Task", identifier, key, key)


@pytest.mark.parametrize("identifier", BAD_IDS, ids=lambda text: repr(text)[:30])
def test_ids_that_cannot_be_stored_are_refused(identifier: object) -> None:
    """Empty, NUL, a lone surrogate, more than 512 bytes, or no text: the error holds the id and shows only its beginning."""
    for call in (check_entity_id, lambda text: entity_key("Task", text), lambda text: EntityReference("Task", text)):
        with pytest.raises(InvalidIdentifierError) as caught:
            call(identifier)  # type: ignore[arg-type]
        assert caught.value.identifier is identifier
        assert len(str(caught.value)) < 250
    if isinstance(identifier, str):
        with pytest.raises(InvalidIdentifierError):
            split_key(f"Task:{identifier}")


@pytest.mark.parametrize("name", GOOD_TYPES)
def test_types_and_event_names_are_plain_names(name: str) -> None:
    """A letter or underscore, then letters, digits, underscores and dots, 100 in all."""
    assert check_entity_type(name) == name
    assert check_event_name(name) == name


@pytest.mark.parametrize("name", BAD_TYPES, ids=lambda text: repr(text)[:30])
def test_other_types_and_event_names_are_refused(name: object) -> None:
    """Everything else is refused, also letters of other alphabets and a line break at the end."""
    for call in (
        check_entity_type,
        lambda text: check_event_name(text + "A" * 27 if len(str(text)) > 100 else text),
        lambda text: entity_key(text, "1"),
        lambda text: EntityReference(text, "1"),
    ):
        with pytest.raises(InvalidIdentifierError):
            call(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["", "Task", "Task:", ":1", "9:1", None, 5, b"Task:1", "Task\0:1"], ids=repr)
def test_keys_that_are_none_are_refused(key: object) -> None:
    """A key is a type, a colon and an id."""
    with pytest.raises(InvalidIdentifierError):
        split_key(key)  # type: ignore[arg-type]


@pytest.mark.exhaustive
@given(st.text(max_size=600))
def test_any_text_is_an_id_or_refused(text: str) -> None:
    """No other error, and an id that is taken fits its bounds and comes back from its key."""
    try:
        key = entity_key("T", text)
    except InvalidIdentifierError:
        return
    assert 0 < len(text.encode()) <= 512
    assert split_key(key) == ("T", text)


def test_uuid7_has_the_fields_of_the_standard() -> None:
    """RFC 9562: milliseconds, version 7, the fraction of a millisecond, variant, random bits."""
    made = uuid7(0x017F22E279B0 * 1_000_000 + 500_000, b"\xff" * 8)
    assert made.hex() == "017f22e279b07800bfffffffffffffff"
    assert uuid7(0, bytes(8)).hex() == "00000000000070008000000000000000"


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.binary(min_size=8, max_size=8), st.binary(min_size=8, max_size=8))
def test_ids_sort_by_time_as_bytes_and_as_text(early: int, late: int, one: bytes, other: bytes) -> None:
    """The order of texts is the order of bytes, and later ids sort later where their times differ by 245 ns or more."""
    first, second = uuid7(early, one), uuid7(late, other)
    assert (first < second) == (text_id(first) < text_id(second))
    assert len(text_id(first)) == 26
    if late - early >= 245:
        assert first < second
