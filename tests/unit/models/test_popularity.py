"""Popularity against counts made by hand."""

import numpy as np
import pytest

from martlet.core import DataError, Dataset, Interactions, SpecError, Vocabulary
from martlet.models.popularity import Popularity

DAY = 86_400


def dataset(times=True):
    user, item = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 1])
    time_s = np.array([0, 2, 1, 3, 3]) * DAY if times else None
    weight = np.array([5, 1, 1, 1, 2], np.float32)
    train = Interactions.sort(user, item, weight, time_s, num_users=3, num_items=4)
    nothing = train.select(np.zeros(5, bool))
    users, items = Vocabulary.of("abc"), Vocabulary.of("wxyz")
    return Dataset(users, items, train, nothing, nothing)


def scores(spec):
    return spec.fit(dataset()).popularity.dense()[:, 0].tolist()


def test_events_are_counted():
    assert scores(Popularity()) == [1, 3, 1, 0]
    assert scores(Popularity(weighted=True)) == [5, 4, 1, 0]


def test_trending_halves_with_age():
    assert scores(Popularity(half_life_days=1)) == [0.125, 0.5 + 0.25 + 1, 1, 0]


def test_trending_needs_times():
    with pytest.raises(DataError, match="half_life_days needs the time of each event"):
        Popularity(half_life_days=1).fit(dataset(times=False))


@pytest.mark.parametrize("value", [0, -2.0, float("nan")])
def test_a_half_life_is_above_zero(value):
    with pytest.raises(SpecError, match=r"half_life_days is .*: expected a number of days above 0"):
        Popularity(half_life_days=value)


def test_the_cost_formulae():
    assert Popularity().flops(dataset()) == 5
    assert Popularity(half_life_days=1).flops(dataset()) == 20
    assert Popularity().bytes(1000) == 4000
