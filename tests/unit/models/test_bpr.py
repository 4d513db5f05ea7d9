import numpy as np
import pytest

import martlet as mt
from martlet.core import SpecError
from martlet.data import RandomSplit, prepare
from martlet.data.synthetic import synthesize


@pytest.fixture(scope="module")
def data():
    log = synthesize(num_users=300, num_items=150, num_events=9000, seed=4)
    return prepare({"user": log.user_row, "item": log.item_row}, split=RandomSplit(0.1, 0.2))


def test_it_ranks_better_than_popularity(data):
    ours, plain = (
        mt.evaluate(mt.fit(spec, data, seed=0), data).figures["ndcg@10"]
        for spec in (mt.BPR(dim=16), mt.Popularity())
    )
    assert ours > plain + 0.03


def test_the_seed_decides(data):
    spec = mt.BPR(dim=4, epochs=2)
    one, same, other = (mt.fit(spec, data, seed=seed).scorer.items.dense() for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_the_number_of_threads_touches_no_digit(data, monkeypatch):
    monkeypatch.setattr("martlet.kernels.parts._LEAST", 30)
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("MARTLET_THREADS", threads)
        found.append(mt.fit(mt.BPR(dim=4, epochs=2), data, seed=0).scorer.items.dense())
    np.testing.assert_array_equal(*found)


def test_a_rate_that_is_too_large_is_told(data):
    with np.errstate(all="ignore"), pytest.raises(SpecError, match="lower the rate"):
        mt.fit(mt.BPR(dim=4, epochs=50, rate=100.0, reg=1.0), data)


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"epochs": 0}, {"rate": 0.0}, {"reg": -1.0}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(SpecError, match=f"{next(iter(wrong))} is"):
        mt.BPR(**wrong)
