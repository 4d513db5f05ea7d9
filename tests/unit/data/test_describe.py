"""Every count, curve and warning of a description against a log made by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from martlet.core import Dataset, Interactions, Vocabulary
from martlet.data.describe import describe

DAY = 86_400
NOW_S = 100 * DAY


def events(*rows, users=4, items=5, times=True):
    """Return the events ``(user, item, day)``."""
    user, item, day = (np.array(column, int) for column in zip(*rows, strict=True)) if rows else (
        [np.zeros(0, int)] * 3
    )  # fmt: skip
    time_s = day * DAY if times else None
    return Interactions.sort(user, item, None, time_s, num_users=users, num_items=items)


# Users 0 to 3 meet 4, 3, 2 and 1 items; items 0 to 4 are met 4, 3, 2, 1 and 0 times.
TRAIN = [(user, item, user + item) for user in range(4) for item in range(4 - user)]
CLEAN = [row for row in TRAIN if row != (3, 0, 3)] + [(3, 0, 3), (3, 1, 4)]


def dataset(train=CLEAN, valid=((2, 2, 8), (3, 2, 9)), test=((1, 3, 10), (2, 3, 11)), **given):
    parts = [events(*rows, **given) for rows in (train, valid, test)]
    return Dataset(Vocabulary.of(range(4)), Vocabulary.of("abcde"), *parts)


def warnings(data, now_s=NOW_S):
    return describe(data, now_s=now_s).warnings


def test_a_clean_log_has_nothing_to_warn_of():
    assert warnings(dataset()) == []
    assert str(describe(dataset(), now_s=NOW_S)).endswith("nothing to warn of")


def test_counts():
    found = describe(dataset(TRAIN), now_s=NOW_S)
    assert found.counts == {"users": 4, "items": 5, "train": 10, "valid": 2, "test": 2}
    assert found.density == 10 / (4 * 4)  # of the items that train knows


def test_a_repeated_pair_counts_once_in_the_density():
    assert describe(dataset([*TRAIN, (3, 0, 5)])).density == 10 / 16


def test_the_distributions_of_history_lengths_and_popularity():
    found = describe(dataset(TRAIN), now_s=NOW_S)
    # (1, 2, 3, 4) are the lengths, and the popularity of the items that have any
    expected = {"q0": 1.0, "q0.25": 1.75, "q0.5": 2.5, "q0.75": 3.25, "q0.9": 3.7, "q0.99": 3.97,
                "q1": 4.0}  # fmt: skip
    assert found.history_length == pytest.approx(expected)
    assert found.popularity == pytest.approx(expected)
    assert found.history_curve == found.popularity_curve == [4, 3, 2, 1]
    # sorted 0 1 2 3 4: 2 (1*0 + 2*1 + 3*2 + 4*3 + 5*4) / (5 * 10) - 6 / 5
    assert found.gini == pytest.approx(0.4)


def test_a_long_curve_is_kept_at_forty_even_steps():
    rows = [(user, item, 0) for user in range(100) for item in range(100 - user)]
    train = events(*rows, users=100, items=100)
    none = events(users=100, items=100)
    found = describe(
        Dataset(Vocabulary.of(range(100)), Vocabulary.of(range(100)), train, none, none)
    )
    assert found.history_curve == [100 - place for place in np.linspace(0, 99, 40).astype(int)]
    assert found.popularity_curve == found.history_curve


def test_the_time_range_is_that_of_all_parts():
    found = describe(dataset(), now_s=NOW_S)
    assert found.time_range == ["1970-01-01T00:00:00+00:00", "1970-01-12T00:00:00+00:00"]
    assert describe(dataset(times=False)).time_range is None


def test_a_time_beyond_the_calendar_is_shown():
    """Milliseconds that were read as seconds."""
    found = describe(dataset([*CLEAN, (0, 4, 20_000_000)]), now_s=NOW_S)
    assert found.time_range[1].startswith("56728-")


def test_what_is_printed():
    text = str(describe(dataset(TRAIN), now_s=NOW_S)).splitlines()
    assert text == [
        "users 4, items 5, train 10, valid 2, test 2",
        "density 62.5000%, sparsity 37.5000%, popularity gini 0.400",
        "events a user: q0 1, q0.25 2, q0.5 2, q0.75 3, q0.9 4, q0.99 4, q1 4  █▇▅▄",
        "events an item: q0 1, q0.25 2, q0.5 2, q0.75 3, q0.9 4, q0.99 4, q1 4  █▇▅▄",
        "from 1970-01-01T00:00:00+00:00 to 1970-01-12T00:00:00+00:00",
        "warning: 1 of 4 users met one item in training: little to learn from; --min-user 2 drops "
        "those of one event",
    ]


def test_it_is_plain_json():
    found = describe(dataset(TRAIN), now_s=NOW_S).to_json()
    assert json.loads(json.dumps(found)) == found


def test_duplicates():
    twice = [*CLEAN, (0, 0, 5), (0, 0, 6), (1, 1, 6)]
    (warning,) = warnings(dataset(twice))
    assert warning.startswith("3 of 14 training events repeat a pair: merge them with --duplicates")


def test_users_of_one_item():
    assert warnings(dataset(TRAIN))[0].startswith("1 of 4 users met one item in training")
    repeated = [*TRAIN, (3, 0, 4)]
    assert any(
        words.startswith("1 of 4 users met one item") for words in warnings(dataset(repeated))
    )


def test_bots():
    rows = [(0, item, 1) for item in range(1001)] + [(user, 0, 1) for user in (1, 2, 3)]
    none = events(users=4, items=1001)
    vocabularies = Vocabulary.of(range(4)), Vocabulary.of(range(1001))
    heavy = Dataset(*vocabularies, events(*rows, items=1001), none, none)
    assert "1 of 4 users have over 1,000 events: bots? --max-user drops them" in warnings(heavy)
    light = replace(heavy, train=events(*rows[1:], items=1001))
    assert not any("bots" in words for words in warnings(light))
    # Where all are that active, 50 times the median is the limit.
    usual = rows + [(user, item, 1) for user in (1, 2, 3) for item in range(1, 21)]
    assert not any(
        "bots" in words for words in warnings(replace(heavy, train=events(*usual, items=1001)))
    )


def test_every_event_in_the_future_is_counted():
    assert warnings(dataset(), now_s=4 * DAY - 1) == [
        "1 of 11 train events lie in the future: check --time-unit",
        "2 of 2 valid events lie in the future: check --time-unit",
        "2 of 2 test events lie in the future: check --time-unit",
    ]
    assert warnings(dataset(), now_s=10 * DAY) == [
        "1 of 2 test events lie in the future: check --time-unit"
    ]


def test_the_clock_of_the_machine_is_the_measure_of_the_future():
    assert not any("future" in words for words in describe(dataset()).warnings)
    later = [*CLEAN, (0, 4, 40_000)]  # the year 2079
    assert any(
        "1 of 12 train events lie in the future" in w for w in describe(dataset(later)).warnings
    )


def test_empty_parts():
    assert warnings(dataset(valid=(), test=())) == [
        "part valid is empty: nothing can be measured on it",
        "part test is empty: nothing can be measured on it",
    ]
    nothing = describe(dataset((), (), ()), now_s=NOW_S)
    assert (nothing.density, nothing.gini, nothing.history_curve) == (0.0, 0.0, [])
    assert nothing.history_length == nothing.popularity == {}
    assert nothing.time_range is None
    assert "events a user:" in str(nothing)


def test_users_and_items_that_train_does_not_know():
    strangers = [row for row in CLEAN if row[0] != 3]
    assert warnings(dataset(strangers, test=((1, 4, 10), (2, 4, 11), (3, 3, 12)))) == [
        "1 of 2 valid events are of users that train does not know",
        "1 of 3 test events are of users that train does not know",
        "2 of 3 test events are of items that train does not know",
    ]


def test_a_split_that_leaks_pairs():
    assert warnings(dataset(valid=((0, 0, 8), (2, 2, 8)), test=((0, 0, 9), (2, 2, 9)))) == [
        "1 pairs in train and valid: the split leaks, or people repeat (seen='keep')",
        "1 pairs in train and test: the split leaks, or people repeat (seen='keep')",
        "2 pairs in valid and test: the split leaks, or people repeat (seen='keep')",
    ]


def test_a_split_that_crosses_times():
    early = [(user, item, day - 7) for user, item, day in ((1, 3, 10), (2, 3, 11))]
    assert warnings(dataset(test=early)) == [
        "not so: train ends before test; a model may learn from the future (--split time)",
        "not so: valid ends before test; a model may learn from the future (--split time)",
    ]
    assert warnings(dataset(test=early, times=False)) == []
