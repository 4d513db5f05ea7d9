import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import Interactions, SpecError
from martlet.features import Features, Sequence, history_before, spans_before

events = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5)), max_size=30)


def log_of(table, timed=True):
    user, item, time = np.array(table, np.int64).reshape(-1, 3).T
    return Interactions.sort(
        user, item, 1.0 + item, time if timed else None, num_users=4, num_items=5
    )


@settings(deadline=None)
@given(events, st.one_of(st.none(), st.integers(1, 6)))
def test_a_history_holds_what_came_before_and_nothing_else(table, max_length):
    log = log_of(table)
    found = history_before(log, max_length)
    assert found.num_rows == len(log)
    for event in range(len(log)):
        before = [
            int(log.item_row[other])
            for other in range(len(log))
            if log.user_row[other] == log.user_row[event] and log.time_s[other] < log.time_s[event]
        ]
        assert found.row(event).tolist() == before[-(max_length or 1000) :]
    assert found.values.tolist() == [1.0 + item for item in found.indices]


def test_repeated_items_stay_and_equal_times_do_not_count():
    log = log_of([(0, 2, 10), (0, 2, 11), (0, 1, 12), (0, 3, 12), (0, 2, 13), (1, 4, 12)])
    found = history_before(log)
    assert [found.row(event).tolist() for event in range(6)] == [
        [],
        [2],
        [2, 2],
        [2, 2],
        [2, 2, 1, 3],
        [],
    ]


def test_without_times_the_given_order_rules():
    log = log_of([(0, 2, 7), (0, 1, 7), (1, 0, 7), (0, 3, 7)], timed=False)
    found = history_before(log)
    assert [found.row(event).tolist() for event in range(4)] == [[], [2], [2, 1], []]


@settings(deadline=None)
@given(events, st.data())
def test_a_later_event_changes_no_earlier_history(table, data):
    """Point in time: whatever is to come, the history of an event stays the same."""
    log = log_of(table)
    cut = data.draw(st.integers(0, 6))
    early = log.select(log.time_s < cut)
    found, whole = history_before(early, 3), history_before(log, 3)
    kept = whole.take(np.flatnonzero(log.time_s < cut))
    assert found.indptr.tolist() == kept.indptr.tolist()
    assert found.indices.tolist() == kept.indices.tolist()


def test_a_batch_of_events():
    log = log_of([(0, item % 5, item) for item in range(20)])
    whole, some = history_before(log, 4), history_before(log, 4, np.array([7, 2, 19]))
    assert [some.row(i).tolist() for i in range(3)] == [whole.row(i).tolist() for i in (7, 2, 19)]
    begin, end = spans_before(log, 4)
    assert (end - begin).tolist() == [min(event, 4) for event in range(20)]


def test_it_is_what_a_sequence_takes():
    log = log_of([(0, 2, 1), (0, 4, 2), (0, 1, 3)])
    history = history_before(log)
    features = Features.fit([Sequence("history", 1)], {"history": history})
    bag = features.apply({"history": history}).bags[0]
    assert bag.indptr.tolist() == [0, 0, 1, 2]
    assert bag.rows.tolist() == [3, 5]


def test_a_length_is_a_count():
    with pytest.raises(SpecError, match="max_length is 0: expected a whole number above 0"):
        history_before(log_of([]), 0)
