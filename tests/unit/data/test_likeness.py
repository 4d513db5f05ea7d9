"""Every statistic of a log against a count by hand, and what each distance notices."""

import numpy as np
import pytest

from martlet.core import Interactions
from martlet.data.likeness import DISTANCES, RANKS, SHARES, Likeness

USERS, ITEMS = [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 1, 0, 3, 3]


def log(users=USERS, items=ITEMS, weight=None, time_s=None, **sizes):
    users, items = np.array(users), np.array(items)
    return Interactions.sort(
        users,
        items,
        None if weight is None else np.array(weight, np.float32),
        None if time_s is None else np.array(time_s),
        **{"num_users": users.max() + 1, "num_items": items.max() + 1} | sizes,
    )


def test_counts():
    found = Likeness(log(num_users=5, num_items=6))
    assert found.item_count.tolist() == [3, 2, 2, 1]
    np.testing.assert_allclose(found.length, np.quantile([3, 2, 3], SHARES))
    assert found.repeat_share == 1 / 8


def test_taste_is_the_mean_log_popularity_of_a_users_items():
    three, two = np.log2(3), 1.0
    means = [(three + two + 0) / 3, (three + two) / 2, (three + two + two) / 3]
    np.testing.assert_allclose(Likeness(log()).taste, np.quantile(means, SHARES))


def test_pairs():
    """Items 0, 1, 3, 2 are met by users (0 1 2), (0 1), (2), (0)."""
    found = Likeness(log())
    expected = [[3, 2, 1, 1], [2, 2, 0, 1], [1, 0, 1, 0], [1, 1, 0, 1]]
    assert found.together.tolist() == expected
    cosine = [2 / 6**0.5, 1 / 3**0.5, 1 / 3**0.5, 0, 1 / 2**0.5, 0]
    np.testing.assert_allclose(found.cosine, np.quantile(cosine, SHARES))
    met = [(2, 2), (1, 1), (1, 1), (0, 2 / 3), (1, 2 / 3), (0, 1 / 3)]
    lift = [np.log2((pairs + 0.5) / (chance + 0.5)) for pairs, chance in met]
    np.testing.assert_allclose(found.log_lift, np.quantile(lift, SHARES))


def test_pairs_of_more_users_than_a_block():
    stream = np.random.default_rng(0)
    users, items = np.repeat(np.arange(5000), 3), stream.integers(0, 7, 15000)
    met = np.zeros((5000, 7))
    met[users, items] = 1
    found = Likeness(log(users, items))
    order = np.argsort(-np.bincount(items), kind="stable")
    np.testing.assert_array_equal(found.together, (met.T @ met)[np.ix_(order, order)])


def test_the_spectrum_is_that_of_the_correlations():
    stream = np.random.default_rng(0)
    met = stream.random((60, 5)) < 0.4
    met[:, 1] |= met[:, 0]
    users, items = np.nonzero(met)
    variance = np.sort(np.linalg.eigvalsh(np.corrcoef(met.T.astype(float))))[::-1]
    expected = np.log2(variance / variance.sum())[np.minimum(RANKS, 5) - 1]
    np.testing.assert_allclose(Likeness(log(users, items)).spectrum, expected, atol=1e-6)


def test_drift_compares_the_first_third_with_the_last():
    # The last item has too few events to count. A third ends with event 10, the next with 20.
    items = [0] * 8 + [1] * 4 + [0, 1, 2] * 2 + [2] * 8 + [1] * 4 + [3]
    found = Likeness(log([0] * 31, items, time_s=range(31))).drift
    assert found == pytest.approx(np.corrcoef(np.log1p([8, 3, 0]), np.log1p([0, 4, 5]))[0, 1])
    assert found < 0


def test_without_times_or_counts_nothing_drifts():
    assert Likeness(log()).drift == 1.0
    assert Likeness(log(time_s=range(8))).drift == 1.0  # no item has 10 events
    even = log([0] * 90, [0, 1, 2] * 30, time_s=range(90))
    assert Likeness(even).drift == 1.0
    assert Likeness(log()).clock.tolist() == [0.0] * len(SHARES)


def test_the_clock_runs_from_the_first_event_to_the_last():
    found = Likeness(log(time_s=[100, 110, 120, 130, 140, 150, 160, 170]))
    np.testing.assert_allclose(found.clock, np.quantile(np.arange(8) / 7, SHARES))


def test_weights_are_explained_by_whose_they_are():
    users, items = np.divmod(np.arange(400), 20)
    noise = np.random.default_rng(0).random(400)
    by_item = Likeness(log(users, items, weight=1 + items % 2 + noise / 10))
    assert by_item.weight_by_item == 0.49  # the most that is said
    assert by_item.weight_by_user < 0.05
    by_user = Likeness(log(users, items, weight=1 + users % 2 + noise / 10))
    assert by_user.weight_by_user == 0.49
    assert by_user.weight_by_item < 0.05
    assert Likeness(log(users, items, weight=1 + noise)).weight_by_item < 0.05
    assert Likeness(log()).weight_by_item == 0.0  # all alike


def test_a_log_of_one_item():
    found = Likeness(log([0, 1], [0, 0]))
    assert found.cosine.tolist() == found.log_lift.tolist() == [0.0] * len(SHARES)
    assert all(np.isfinite(found.spectrum))


STREAM = np.random.default_rng(1)
BLOCK = np.repeat(np.arange(200), 10)
PICKED = (BLOCK % 4) * 20 + STREAM.integers(0, 20, 2000) // (1 + STREAM.integers(0, 3, 2000))
RATED, WHEN = STREAM.integers(1, 6, 2000), STREAM.permutation(2000)
SAME = {"users": BLOCK, "items": PICKED, "weight": RATED + 2 * (PICKED % 2), "time_s": WHEN}
OTHERS = {
    "popularity": {"items": STREAM.integers(0, 80, 2000)},
    "gini": {"items": STREAM.integers(0, 80, 2000)},
    "length": {"users": np.sort(STREAM.integers(0, 200, 2000))},
    "taste": {"items": np.sort(PICKED)},
    "cosine": {"items": STREAM.permutation(PICKED)},
    "log_lift": {"items": STREAM.permutation(PICKED)},
    "spectrum": {"items": STREAM.permutation(PICKED)},
    "clock": {"time_s": WHEN**2},
    "drift": {"time_s": np.argsort(np.argsort(PICKED, kind="stable"))},
    "repeat_share": {"items": np.tile(np.arange(80), 25)},
    "weight": {"weight": RATED},
    "weight_by_item": {"weight": STREAM.permutation(SAME["weight"])},
    "weight_by_user": {"weight": RATED + 2 * (BLOCK % 2)},
}


def test_every_distance_is_named_here():
    assert list(OTHERS) == list(DISTANCES)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_is_nothing_to_itself_and_something_to_another(name):
    here = Likeness(log(**SAME))
    assert here.distance(Likeness(log(**SAME)), (name,)) == {name: 0.0}
    assert here.distance(Likeness(log(**SAME | OTHERS[name])), (name,))[name] > 0.02
    assert list(here.distance(here)) == list(DISTANCES)
