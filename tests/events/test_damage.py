"""Damage of one entity in a fold: an event that does not fit takes nothing with it, and every way of folding tells the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony_es.core.past.snapshots.frames import decode_block, encode_frame
from symphony_es.events.changes import ADD, APPEND, DISCARD, INSERT, REMOVE, SET, SPLICE, apply_changes
from symphony_es.events.codec import decode_value, encode_canonical, encode_value
from symphony_es.events.fold import REPAIR_EVENT, Damage, EntityState, Fold
from symphony_es.events.rows import Row, decode_row
from symphony_es.events.undo import Undo, revert
from symphony_es.events.values import Tagged, copy_plain, plain_equal
from tests.events.plain_data import row_of

STATE: dict[str, Any] = {
    "n": 1,
    "items": [1, [2], {"k": 3}],
    "numbers": {1, 2.5, "x", (True, 0)},
    "table": {"a": {"b": [1]}, 5: "five"},
    "line": Tagged("part", "Line", {"text": "t", "tags": [1]}),
}
FITTING = [
    (SET, ("n",), 2), (SET, ("new",), [1]), (SET, ("items", 0), {"deep": 1}), (SET, ("table", "a", "b", 0), 9),
    (SET, ("line", "text"), "u"),
    (SET, ("table", 6), None), (INSERT, ("items",), 1, "in"), (INSERT, ("items",), 3, "end"), (SPLICE, ("items",), 0, 2, [7, 8, 9]),
    (SPLICE, ("items",), 1, 1, ["x"]), (SPLICE, ("items",), 0, 3, []), (APPEND, ("items",), [0]), (APPEND, ("line", "tags"), 2),
    (REMOVE, ("items", 1)), (REMOVE, ("table", 5)), (REMOVE, ("n",)), (ADD, ("numbers",), 3), (ADD, ("numbers",), True),
    (DISCARD, ("numbers",), True), (DISCARD, ("numbers",), "x"), (DISCARD, ("numbers",), (1, 0)), (DISCARD, ("numbers",), "none"),
    (SET, (), {"whole": 1}), (REMOVE, ()),
]  # fmt: skip
UNFIT = [
    (REMOVE, ("nothing",)), (SET, ("items", 99), 1), (APPEND, ("n",), 1), (SPLICE, ("items",), 50, 60, []), (INSERT, ("table",), 0, 1),
    (ADD, ("items",), 1), (DISCARD, ("n",), 1), (SET, ("nothing", "below"), 1), (REMOVE, ("items", 99)),
]  # fmt: skip


def canonical(data: Any) -> bytes:
    return encode_canonical(data)


@given(st.lists(st.sampled_from(FITTING), max_size=6))
def test_what_is_noted_takes_changes_back(changes: list[Any]) -> None:
    """Whatever was changed, also what stood in what was replaced, is what it was: by type and value."""
    state, undo = copy_plain(STATE), Undo()
    for change in changes:
        try:
            apply_changes(state, [copy_plain(list(change))], undo=undo)
        except ValueError:
            continue  # it does not fit any more, and has noted nothing
    revert(undo)
    assert plain_equal(state, STATE)
    assert not undo


@pytest.mark.parametrize("member", [1, True, 1.0, (1, 0), (True, False), "x", b"x", None], ids=repr)
@pytest.mark.parametrize("asked", [1, True, 1.0, (1, 0), (True, False), "x"], ids=repr)
def test_a_member_that_is_equal_and_not_the_same_comes_back(member: Any, asked: Any) -> None:
    """What `discard` drops is put back as it was, not as it was asked for; what `add` does not put in is not taken out."""
    for operation in (DISCARD, ADD):
        state, undo = {"s": {member, "other"}}, Undo()
        apply_changes(state, [(operation, ("s",), asked)], undo=undo)
        revert(undo)
        assert plain_equal(state, {"s": {member, "other"}})


@pytest.mark.exhaustive
@settings(max_examples=300)
@given(st.lists(st.sampled_from(FITTING[:-2]), max_size=4), st.sampled_from(UNFIT), st.lists(st.sampled_from(FITTING), max_size=2))
def test_the_last_good_state_is_the_one_before_the_event(before: list[Any], unfit: Any, after: list[Any]) -> None:
    """Wherever in its event the unfit change stands: by page, by row and by event."""
    created = row_of(1, "Task:a", 1, changes=((SET, (), STATE),))
    row = row_of(2, "Task:a", 2, changes=(*before, unfit, *after))
    later = [row_of(3, "Task:b", 1, changes=((SET, (), {"fine": 1}),)), row_of(4, "Task:a", 3, changes=((SET, ("n",), 5),))]
    folds = by_page, by_row, by_event = Fold(), Fold(), Fold()
    by_page.apply_rows([created, row, *later])
    for each in (created, row, *later):
        by_row.apply_row(each)
        by_event.apply_event(decode_row(each))
    for fold in folds:
        damaged = fold.states["Task:a"]
        if damaged.damage is None:  # what came before made room for it
            assert fits([*before, unfit, *after])
            continue
        assert plain_equal(damaged.data, STATE)
        assert (damaged.version, damaged.position) == (3, 4)
        assert damaged.damage == by_page.states["Task:a"].damage
        assert (damaged.damage.version, damaged.damage.position) == (2, 2)
        assert fold.states["Task:b"].data == {"fine": 1}


def fits(changes: list[Any]) -> bool:
    apply_changes(copy_plain(STATE), changes)
    return True


def histories() -> st.SearchStrategy[list[Row]]:
    """Rows of three entities: created, changed, deleted, repaired, with versions that jump, in pages of every kind of event."""
    change = st.sampled_from([*FITTING, *UNFIT, (SET, ("n",), 3), (SET, ("n",), 4), (APPEND, ("items",), 5)])
    event = st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["TaskChanged", "TaskChanged", "TaskChanged", REPAIR_EVENT]),
        st.lists(change, max_size=3),
        st.sampled_from([1] * 9 + [2, 3]),
        st.booleans(),
    )
    return st.lists(event, max_size=25).map(_rows)


def _rows(events: list[Any]) -> list[Row]:
    rows, versions = list[Row](), dict[str, int]()
    for position, (which, name, changes, step, whole) in enumerate(events, 1):
        version = versions.get(which, 0) + (step if which in versions else 1)
        first = [(SET, (), copy_plain(STATE))] if whole and (name == REPAIR_EVENT or which not in versions) else []
        versions[which] = version
        rows.append(row_of(position, f"Task:{which}", version, changes=(*first, *changes), name=name))
    return rows


def told(fold: Fold) -> dict[str, Any]:
    """What a fold says of its entities."""
    return {
        key: (canonical(each.data), each.version, each.position, each.state_version, each.generation, each.damage)
        for key, each in fold.states.items()
    }


def through_a_snapshot(fold: Fold, rows: list[Row]) -> Fold:
    """The fold as it comes back from a snapshot, which leaves tombstones out."""
    kept = [state for state in fold.states.values() if state.data is not None or state.damage is not None]
    block = b"".join(encode_frame(state) for state in sorted(kept, key=lambda state: state.key))

    def look_up(key: str, position: int) -> EntityState | None:
        before = Fold()
        for row in rows:
            if row[1] == key and row[0] < position:
                before.apply_row(row)
        return before.states.get(key)

    return Fold({state.key: state for state in decode_block("snap", memoryview(block))}, fold.position, look_up)


@pytest.mark.exhaustive
@settings(max_examples=250)
@given(histories(), st.data())
def test_every_way_tells_the_same_of_damaged_histories(rows: list[Row], data: st.DataObject) -> None:
    """Page, rows, events, each entity by itself, snapshot and replay: at every position, with a snapshot at any other."""
    for until in range(len(rows) + 1):
        whole, single, by_event = Fold(), Fold(), Fold()
        whole.apply_rows(rows[:until])
        for row in rows[:until]:
            single.apply_row(row)
            by_event.apply_event(decode_row(row))
        assert told(whole) == told(single) == told(by_event)
        alone = dict[str, Any]()
        for key in whole.states:
            fold = Fold()
            fold.apply_rows([row for row in rows[:until] if row[1] == key])
            alone.update(told(fold))
        assert alone == told(whole)
        taken = data.draw(st.integers(0, until))
        early = Fold()
        early.apply_rows(rows[:taken])
        resumed = through_a_snapshot(early, rows)
        resumed.apply_rows(rows[taken:until])
        gone = {key for key, state in whole.states.items() if state.data is None and state.damage is None}
        assert {key: each for key, each in told(resumed).items() if key not in gone} == {
            key: each for key, each in told(whole).items() if key not in gone
        }
        assert {key for key, state in resumed.states.items() if state.data is None and state.damage is None} <= gone


def test_a_repair_clears_the_mark_and_versions_go_on() -> None:
    """Only an event of that name that begins with the whole state; then later events are applied again."""
    rows = [
        row_of(1, "Task:a", 1, changes=((SET, (), {"n": 1}),)),
        row_of(2, "Task:a", 2, changes=((REMOVE, ("x",)),)),
        row_of(3, "Task:a", 3, changes=((SET, (), {"n": 3}),)),
        row_of(4, "Task:a", 4, changes=((SET, ("n",), 4),), name=REPAIR_EVENT),
        row_of(5, "Task:a", 5, changes=((SET, (), {"n": 5}), (REMOVE, ("y",))), name=REPAIR_EVENT),
        row_of(6, "Task:a", 6, changes=((SET, (), {"n": 6}),), name=REPAIR_EVENT),
        row_of(7, "Task:a", 7, changes=((SET, ("n",), 7),)),
    ]
    fold = Fold()
    fold.apply_rows(rows[:5])
    state = fold.states["Task:a"]
    assert state.damage == Damage(2, 2, "change 0 (remove at x) does not fit the state: KeyError('x')")
    assert (state.data, state.version, state.position) == ({"n": 1}, 5, 5)
    fold.apply_rows(rows[5:])
    assert (state.data, state.version, state.damage) == ({"n": 7}, 7, None)


def test_an_event_of_an_earlier_version_says_nothing_new() -> None:
    """Versions out of order damage the entity once; what comes late is not counted down."""
    fold = Fold()
    fold.apply_rows(
        [
            row_of(1, "Task:a", 1, changes=((SET, (), {"n": 1}),)),
            row_of(2, "Task:a", 3, changes=((SET, ("n",), 3),)),
            row_of(3, "Task:a", 2, changes=((SET, ("n",), 2),)),
        ]
    )
    state = fold.states["Task:a"]
    assert state.damage == Damage(3, 2, "it has version 3 after version 1")
    assert (state.data, state.version, state.position) == ({"n": 1}, 3, 2)
    assert decode_value(encode_value(state.data)) == {"n": 1}
