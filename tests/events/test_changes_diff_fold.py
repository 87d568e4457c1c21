"""Changes, the difference of two states, and the fold: the three agree on what a history means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from symphony_es.errors import ChangeError, DamagedEventError
from symphony_es.events.changes import (
    ADD,
    APPEND,
    DISCARD,
    INSERT,
    OPERATION_NAMES,
    REMOVE,
    SET,
    SPLICE,
    apply_changes,
    check_change,
    same_change,
)  # fmt: skip
from symphony_es.events.codec import encode_canonical
from symphony_es.events.diff import diff
from symphony_es.events.fold import EntityState, Fold
from symphony_es.events.references import EntityReference
from symphony_es.events.rows import Row, decode_row
from symphony_es.events.values import Tagged, copy_plain, plain_equal
from tests.events.plain_data import keys, members, row_of, states, values, with_key


def part(**fields: Any) -> Tagged:
    """A part with these fields."""
    return Tagged("part", "Line", fields)


def state() -> dict[str, Any]:
    """A state with one container of each kind."""
    return {"n": 1, "list": [1, 2, 3], "dict": {"a": 1, 5: {"deep": [0]}}, "set": {1, 2}, "part": part(x=1, y=[]), "tuple": ([1],),
            "value": Tagged("value", "Money", {"amount": 1})}  # fmt: skip


FITTING = [
    ((SET, ("n",), 2), ("n",), 2),
    ((SET, ("new",), [1]), ("new",), [1]),
    ((SET, (7,), 2), (7,), 2),
    ((SET, ("list", 2), "x"), ("list",), [1, 2, "x"]),
    ((SET, ("dict", 5, "deep", 0), 9), ("dict", 5), {"deep": [9]}),
    ((SET, ("part", "x"), 2), ("part",), part(x=2, y=[])),
    ((APPEND, ("part", "y"), 2), ("part", "y"), [2]),
    ((SET, ("tuple", 0, 0), 2), ("tuple",), ([2],)),
    ((SET, (), {"only": 1}), (), {"only": 1}),
    ((INSERT, ("list",), 0, 9), ("list",), [9, 1, 2, 3]),
    ((INSERT, ("list",), 3, 9), ("list",), [1, 2, 3, 9]),
    ((SPLICE, ("list",), 1, 3, []), ("list",), [1]),
    ((SPLICE, ("list",), 1, 1, [8, 9]), ("list",), [1, 8, 9, 2, 3]),
    ((SPLICE, ("list",), 3, 3, [4]), ("list",), [1, 2, 3, 4]),
    ((APPEND, ("list",), {"a": 1}), ("list",), [1, 2, 3, {"a": 1}]),
    ((REMOVE, ("list", 0)), ("list",), [2, 3]),
    ((REMOVE, ("dict", 5)), ("dict",), {"a": 1}),
    ((REMOVE, ("part", "x")), ("part",), part(y=[])),
    ((REMOVE, ()), (), None),
    ((ADD, ("set",), 3), ("set",), {1, 2, 3}),
    ((ADD, ("set",), 1), ("set",), {1, 2}),
    ((DISCARD, ("set",), 1), ("set",), {2}),
    ((DISCARD, ("set",), 5), ("set",), {1, 2}),
]  # fmt: skip


@pytest.mark.parametrize(("change", "path", "expected"), FITTING, ids=lambda item: repr(item)[:50])
@pytest.mark.parametrize("own_values", [False, True])
def test_each_operation_does_what_it_says(change: Any, path: Any, expected: Any, own_values: bool) -> None:
    """Every operation, on every container it is for, leaves what it should; as a tuple and as the list it is decoded to."""
    for form in (change, [change[0], list(change[1]), *change[2:]]):
        check_change(form)
        at: Any = apply_changes(state(), [copy_plain(form)], own_values=own_values)
        for key in path:
            at = at.data[key] if type(at) is Tagged else at[key]
        assert plain_equal(at, expected)


UNFITTING: list[Any] = [
    (SET, ("list", 3), 1), (SET, ("list", -1), 1), (SET, ("list", "0"), 1), (SET, ("list", True), 1), (SET, ("n", "x"), 1),
    (SET, ("missing", "x"), 1), (SET, ("set", 1), 1), (SET, ("tuple", 0), 1), (SET, ("tuple", -1, 0), 1), (SET, ("value", "amount"), 1),
    (SET, ("value", "amount", "x"), 1), (SET, ("part", "z", "x"), 1), (SET, (None,), 1), (SET, (True,), 1), (SET, (1.0,), 1),
    (SET, ("dict", 5.0), 1), (SET, ("dict", True), 1), (SET, ("dict", 5.0, "deep"), 1), (SET, ("dict", (), 1), 1), (SET, ()), (SET, ("n",)),
    (SET, (), [1]), (SET, (), None), (APPEND, (), 1), (ADD, (), 1), (SET, ("list", 2**70), 1), (SET, ("n", 0), 1),
    (INSERT, ("list",), 4, 1), (INSERT, ("list",), -1, 1), (INSERT, ("list",), True, 1), (INSERT, ("dict",), 0, 1), (INSERT, ("list",), 0),
    (INSERT, ("tuple",), 0, 1), (SPLICE, ("list",), 2, 1, []), (SPLICE, ("list",), 0, 4, []), (SPLICE, ("list",), -1, 0, []),
    (SPLICE, ("list",), 0, 1, "ab"), (SPLICE, ("list",), 0, 1, (1,)), (SPLICE, ("list",), 0.0, 1, []), (SPLICE, ("set",), 0, 0, []),
    (APPEND, ("dict",), 1), (APPEND, ("n",), 1), (APPEND, ("list",)), (APPEND, ("list",), 1, 2), (APPEND, ("list", 0), 1),
    (REMOVE, ("list", 3)), (REMOVE, ("list", -1)), (REMOVE, ("dict", "b")), (REMOVE, ("dict", 5.0)), (REMOVE, ("n", "x")),
    (REMOVE, ("set", 1)), (REMOVE, ("tuple", 0)), (REMOVE, ("missing",)), (REMOVE, ("value", "amount")), (REMOVE, ("part", "z")),
    (ADD, ("list",), 1), (ADD, ("set",), []), (ADD, ("set",), part()), (DISCARD, ("dict",), 1), (DISCARD, ("set",), []),
    (DISCARD, ("set",)), (7, ("n",), 1), (-1, ("set",), 1), (True, ("list",), 0, 1), (None, ("n",), 1), ("set", ("n",), 1),
    (99, (), {}),
    (), None, 5, (SET,),
    (SET, None, 1), (SET, 5, 1), [],
]  # fmt: skip


@pytest.mark.parametrize("change", UNFITTING, ids=repr)
def test_what_does_not_fit_is_a_change_error(change: Any) -> None:
    """Every change that does not fit its state is a ChangeError that names the change; the ones before it have been applied.

    A fold takes them back and marks the entity.
    """
    for own_values in (False, True):
        before = state()
        with pytest.raises(ChangeError, match="change 1 "):
            apply_changes(before, [(SET, ("first",), 1), change], own_values=own_values)
        assert before["first"] == 1
        fold = Fold({"Task:a": EntityState("Task:a", state(), 1, 1)}, 1)
        damaged = fold.states["Task:a"]
        fold._apply(damaged, 2, 2, "TaskChanged", [(SET, ("first",), 1), change], (None, None), own_values=own_values)
        assert plain_equal(damaged.data, state())
        assert (damaged.version, damaged.position) == (2, 2)
        assert damaged.damage is not None
        assert (damaged.damage.version, damaged.damage.position) == (2, 2)
        assert damaged.damage.reason.startswith("change 1 ")


@pytest.mark.parametrize("change", [(SET, ("n",), 1), (REMOVE, ("n",)), (APPEND, ("list",), 1)], ids=repr)
def test_an_entity_that_does_not_exist_can_only_be_created(change: Any) -> None:
    """Nothing but setting the whole state fits where there is none."""
    with pytest.raises(ChangeError, match="does not exist"):
        apply_changes(None, [change])
    with pytest.raises(ChangeError, match="does not exist"):
        apply_changes(state(), [(REMOVE, ()), change])
    assert apply_changes(None, [(SET, (), {"n": 0}), (SET, ("n",), 1)]) == {"n": 1}


@pytest.mark.parametrize(
    "change",
    [
        None, 5, (), (SET,), "set", (SET, ("n",)), (SET, ("n",), 1, 2), (REMOVE, ("n",), 1), (7, ("n",), 1), (-1, ("n",), 1),
        (False, ("n",), 1), (0.0, ("n",), 1), (SET, "n", 1), (SET, (True,), 1), (SET, (1.0,), 1), (SET, (None,), 1), (SET, ("a",) * 65, 1),
        (SPLICE, ("list",), 0, 0, (1,)),
    ],
    ids=lambda change: repr(change)[:40],
)  # fmt: skip
def test_the_form_of_a_change_is_checked(change: Any) -> None:
    """A change that could fit no state at all is refused before it is written, and when it is read."""
    with pytest.raises(ChangeError):
        check_change(change)


def test_values_are_copied_into_the_state() -> None:
    """A container that was handed in and one in the state are never the same."""
    items, made = [1], {"inner": [1]}
    whole = apply_changes(None, [(SET, (), made), (SET, ("items",), items), (APPEND, ("inner",), items)])
    assert whole is not None
    items.append(2)
    made["inner"].append(2)
    assert whole == {"inner": [1, [1]], "items": [1]}


def test_changes_compare_by_type_and_value() -> None:
    """Setting 1 is not setting True."""
    assert same_change((SET, ("n",), [1]), (SET, ("n",), [1]))
    assert not same_change((SET, ("n",), 1), (SET, ("n",), True))
    assert OPERATION_NAMES[SPLICE] == "splice"


# -- diff -------------------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
@given(states, states)
@example({"s": {1}}, {"s": {True}})
@example({"s": {1, 2.0}}, {"s": {1.0, 2}})
@example({"s": {(1,)}}, {"s": {(True,)}})
@example({"n": 1}, {"n": True})
@example({"n": 0.0}, {"n": -0.0})
@example({"n": [float("nan")]}, {"n": [float("nan")]})
@example({"p": Tagged("part", "A", {"x": 1})}, {"p": Tagged("part", "A", {"y": 1})})
@example({"p": Tagged("part", "A", {"x": 1})}, {"p": Tagged("part", "B", {"x": 1})})
@example({"p": Tagged("part", "A", {"x": [1]})}, {"p": Tagged("part", "A", {"x": [1, 2]})})
@example({1: 2, "1": 3}, {1: 3, "1": 2})
@example({"a": 1}, {})
def test_the_difference_applied_is_the_other_state(one: dict[Any, Any], other: dict[Any, Any]) -> None:
    """For all pairs of states, the changes lead exactly from the one to the other, and each has the form of a change."""
    _differ(one, other)


@st.composite
def edited(draw: st.DrawFn) -> tuple[Any, Any]:
    """A state and a slightly changed copy of it."""
    one = draw(states)
    other = _edit(draw, copy_plain(one))
    return one, other if isinstance(other, dict) else {}


def _edit(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, Tagged) and value.kind == "part":
        value.data = _edit(draw, value.data) if value.data else value.data
        return value
    if isinstance(value, list) and value and draw(st.booleans()):
        index = draw(st.integers(0, len(value) - 1))
        choice = draw(st.sampled_from(["edit", "delete", "insert", "append", "reverse"]))
        if choice == "edit":
            value[index] = _edit(draw, value[index])
        elif choice == "delete":
            del value[index:][draw(st.integers(0, 2)) :]
            del value[index]
        elif choice == "insert":
            value[index:index] = draw(st.lists(values, max_size=2))
        elif choice == "append":
            value.append(draw(values))
        else:
            value.reverse()
        return value
    if isinstance(value, dict) and value:
        key = draw(st.sampled_from(sorted(value, key=repr)))
        if draw(st.integers(0, 3)) == 0:
            del value[key]
            return value
        value[key] = _edit(draw, value[key])
        return value
    if isinstance(value, set):
        return set(sorted(value, key=repr)[1:]) | {draw(members)}
    return draw(values)


@pytest.mark.exhaustive
@given(edited())
def test_the_difference_to_an_edited_copy_is_exact_too(pair: tuple[Any, Any]) -> None:
    """The same where most is shared, which is where splices, appends and paths come in."""
    _differ(*pair)


def _differ(one: Any, other: Any) -> None:
    changes = diff(one, other)
    for change in changes:
        check_change(change)
    reached = apply_changes(copy_plain(one), changes)
    assert plain_equal(reached, other)
    assert not diff(one, copy_plain(one))
    assert bool(changes) != plain_equal(one, other)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"l": [1, 2]}, {"l": [1, 2, 3]}, [(APPEND, ("l",), 3)]),
        ({"l": []}, {"l": [1, 2]}, [(SPLICE, ("l",), 0, 0, [1, 2])]),
        ({"l": [1, 2, 3, 4]}, {"l": [1, 4]}, [(SPLICE, ("l",), 1, 3, [])]),
        ({"l": [1, 2, 3]}, {"l": [1, 9, 3]}, [(SET, ("l", 1), 9)]),
        ({"l": [{"a": 1, "b": 2}]}, {"l": [{"a": 1, "b": 3}]}, [(SET, ("l", 0, "b"), 3)]),
        ({"l": [1, 1]}, {"l": [1]}, [(SPLICE, ("l",), 1, 2, [])]),
        ({"s": {1, 2}}, {"s": {2, 3}}, [(DISCARD, ("s",), 1), (ADD, ("s",), 3)]),
        ({"p": part(x=[])}, {"p": part(x=[1])}, [(APPEND, ("p", "x"), 1)]),
        ({"a": 1, "b": 2}, {"b": 2}, [(REMOVE, ("a",))]),
        ({"t": (1, [2])}, {"t": (1, [3])}, [(SET, ("t",), (1, [3]))]),
        (None, {"a": 1}, [(SET, (), {"a": 1})]),
    ],
    ids=repr,
)
def test_differences_are_as_small_as_what_changed(one: Any, other: Any, expected: Any) -> None:
    """Appending is one change, a shortened list one splice, a field of a part one path."""
    assert diff(one, other) == expected


def test_a_difference_shares_nothing_with_the_states() -> None:
    """The changes hold copies."""
    other = {"a": [[1]], "l": [[2]]}
    changes = diff({"l": []}, other)
    other["a"][0].append(9)
    other["l"][0].append(9)
    assert changes == [(SET, ("a",), [[1]]), (APPEND, ("l",), [2])]


# -- fold -------------------------------------------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, Any, Any, dict[str, Any]]]:
    """Steps of up to four entities: key, state before, state after (None: deleted), metadata."""
    now: dict[str, Any] = {}
    steps = []
    for _ in range(draw(st.integers(1, 12))):
        key = f"Task:{draw(st.sampled_from('abcd'))}"
        before = now.get(key)
        after = None if before is not None and draw(st.integers(0, 4)) == 0 else draw(states)
        metadata = {"state_version": draw(st.sampled_from([None, 1, 2, 9])), "generation": draw(st.sampled_from([None, 0, 1, 2]))}
        steps.append((key, before, after, metadata))
        now[key] = after
    return steps


@pytest.mark.exhaustive
@given(histories(), keys)
def test_the_fold_of_a_history_is_what_was_done(steps: list[tuple[str, Any, Any, dict[str, Any]]], key: Any) -> None:
    """Fed row by row, event by event, or from a copy in the middle: states, versions and positions are those of a naive fold."""
    naive: dict[str, tuple[Any, int, int, int, int]] = {}
    rows: list[Row] = []
    for position, (entity, before, after, metadata) in enumerate(steps, start=3):
        _, version, _, shape, generation = naive.get(entity, (None, 0, 0, 1, 0))
        if before is None:
            shape = 1
        changes = [(REMOVE, ())] if after is None else [(SET, (), after)] if before is None else diff(before, after)
        rows.append(row_of(position, entity, version + 1, changes=tuple(changes), **metadata))
        shape = shape if metadata["state_version"] is None else metadata["state_version"]
        generation = generation if metadata["generation"] is None else metadata["generation"]
        naive[entity] = (after, version + 1, position, shape, generation)
    by_rows, by_events, first = Fold(), Fold(), Fold()
    by_rows.apply_rows(rows)
    for row in rows:
        by_events.apply_event(decode_row(row))
    half = len(rows) // 2
    first.apply_rows(rows[:half])
    kept = first.copy()
    first.apply_rows(rows[half:])
    kept.apply_rows(rows[half:])
    for fold in (by_rows, by_events, first, kept):
        assert fold.position == rows[-1][0]
        assert fold.states.keys() == naive.keys()
        for entity, found in fold.states.items():
            data, *numbers = naive[entity]
            assert plain_equal(found.data, data)
            assert [found.version, found.position, found.state_version, found.generation] == numbers
            assert found.deleted == (data is None)


def test_what_a_fold_hands_out_is_named() -> None:
    """A state knows its type, id and reference; its copy has data of its own."""
    fold = Fold()
    fold.apply_row(row_of(1, "Task:a:b", 1, changes=((SET, (), {"l": []}),)))
    found = fold.states["Task:a:b"]
    assert (found.entity_type, found.entity_id, found.reference) == ("Task", "a:b", EntityReference("Task", "a:b"))
    assert "version=1, position=1" in repr(found)
    copied = found.copy()
    assert copied.data is not None
    copied.data["l"].append(1)
    assert found.data == {"l": []}


def test_applying_an_event_does_not_share_its_containers() -> None:
    """An event can be fed to two folds."""
    event = decode_row(row_of(1, version=1, changes=((SET, (), {"l": []}),)))
    one, other = Fold(), Fold()
    one.apply_event(event)
    other.apply_event(event)
    one.apply_row(row_of(2, version=2, changes=((APPEND, ("l",), 1),)))
    assert other.states["Task:t1"].data == {"l": []}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (row_of(3, version=1), "version 1 after version 1"),
        (row_of(3, version=3), "version 3 after version 1"),
        (row_of(3, "Task:new", 2), "version 2 after version 0"),
        (row_of(3, "Task:new", 1), "does not exist"),
        (row_of(3, version=2, changes=((REMOVE, ("nothing",)),)), "does not fit"),
        (with_key(row_of(3, version=1, changes=((SET, (), {}),)), "no key"), "Type:id"),
        (with_key(row_of(3, version=1, changes=((SET, (), {}),)), "Task:"), "empty"),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_rows_that_do_not_fit_damage_their_entity(row: Row, why: str) -> None:
    """Versions go up by one, an entity begins with its creation: otherwise the entity is marked, and keeps what it was before the row."""
    fold = Fold()
    fold.apply_row(row_of(2, version=1, changes=((SET, (), {"status": "new"}),)))
    before = encode_canonical(fold.states["Task:t1"].data)
    fold.apply_row(row)
    damaged = fold.states[row[1]]
    assert damaged.damage is not None
    assert (damaged.damage.version, damaged.damage.position) == (row[2], row[0])
    assert why in damaged.damage.reason
    assert fold.position == row[0]
    assert encode_canonical(fold.states["Task:t1"].data) == before
    assert {key for key, each in fold.states.items() if each.damage is not None} == {row[1]}


@pytest.mark.parametrize("position", [1, 2])
def test_rows_whose_positions_do_not_rise_are_damage(position: int) -> None:
    """Positions rise: otherwise the row is named as damaged, and nothing of it is applied."""
    row, why = row_of(position, "Task:new", 1, changes=((SET, (), {}),)), "after the event at position 2"
    fold = Fold()
    fold.apply_row(row_of(2, version=1, changes=((SET, (), {"status": "new"}),)))
    before = encode_canonical(fold.states["Task:t1"].data)
    with pytest.raises(DamagedEventError, match=why) as caught:
        fold.apply_row(row)
    assert (caught.value.position, caught.value.entity) == (row[0], row[1])
    assert fold.position == 2
    assert fold.states.keys() == {"Task:t1"}
    assert encode_canonical(fold.states["Task:t1"].data) == before


@pytest.mark.parametrize("kind", ["part", "dict"])
@pytest.mark.parametrize("changed", [0, 1])
@pytest.mark.parametrize("more", [1, 2])
def test_a_member_of_one_field_that_changed_before_one_that_did_not_stays(kind: str, changed: int, more: int) -> None:
    """Its price changed while others were appended: the price is a change of its own, and the rest is what was appended."""

    def line(price: int) -> Any:
        return {"price": price} if kind == "dict" else Tagged("part", "Line", {"price": price})

    before = {"lines": [line(1), line(2), line(3)]}
    after = {"lines": [line(9 if at == changed else at + 1) for at in range(3)] + [line(5 + extra) for extra in range(more)]}
    changes = diff(before, after)
    assert changes[0] == (SET, ("lines", changed, "price"), 9)
    assert len(changes) == 2
    assert plain_equal(apply_changes(before, changes), after)
