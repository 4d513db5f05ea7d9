from dataclasses import replace

import numpy as np
import pytest

from martlet.core import DataError, Queries, rng
from martlet.measure.quality import questions
from martlet.measure.sampled import _draw, _met, evaluate_sampled
from martlet.metrics import sampled
from martlet.models.fit import fit
from martlet.models.ials import IALS
from martlet.models.popularity import Popularity
from support.datasets import NUM_ITEMS, tasteful


@pytest.fixture(scope="module")
def data():
    return tasteful()


def test_negatives_are_never_what_the_user_met(data):
    met = _met(data)
    users = np.repeat(np.arange(data.num_users), 5)
    drawn = _draw(rng(0, "x"), users, 50, met, data.num_items)
    assert ((drawn >= 0) & (drawn < NUM_ITEMS)).all()
    for part in (data.train, data.valid, data.test):
        pairs = set(zip(part.user_row.tolist(), part.item_row.tolist(), strict=True))
        for user, items in zip(users.tolist(), drawn.tolist(), strict=True):
            assert not pairs & {(user, item) for item in items}


def test_a_user_who_met_everything_has_no_negatives():
    met = np.arange(10, dtype=np.int64)  # user 0 with all of ten items, user 1 with none
    drawn = _draw(rng(0, "x"), np.array([0, 1]), 4, met, 10)
    assert (drawn[0] == -1).all()
    assert (drawn[1] >= 0).all()


def test_the_figures_are_those_of_the_protocol_on_the_same_draw(data):
    bundle = fit(IALS(dim=8), data)
    found = evaluate_sampled(bundle, data, ks=(1, 10), negatives=20, seed=3)
    history, truth, _ = questions(data, "test", "hide")
    users = truth.row_numbers()
    drawn = _draw(rng(3, "negatives", "test"), users, 20, _met(data), data.num_items)
    queries = Queries.of(history.csr.take(users), users, seen="keep")
    assert (history.csr.lengths[users] > 0).all(), "every user here is known"
    same = sampled(bundle.scorer, queries, truth.indices, drawn, ks=(1, 10))
    assert found == {f"sampled20_{name}": value for name, value in same.items()}
    assert found["sampled20_hit_rate@1"] == found["sampled20_ndcg@1"]


def test_popularity_answers_for_users_of_whom_nothing_is_known(data):
    nobody = np.unique(data.test.user_row)[:10]
    known = ~np.isin(data.train.user_row, nobody)
    cold = replace(
        data,
        train=data.train.select(known),
        valid=data.valid.select(~np.isin(data.valid.user_row, nobody)),
        test=data.test.select(np.isin(data.test.user_row, nobody)),
    )
    model, popular = fit(IALS(dim=8), cold), fit(Popularity(), cold)
    assert evaluate_sampled(model, cold, negatives=15) == evaluate_sampled(
        popular, cold, negatives=15
    )


def test_a_scorer_alone_is_measured_too(data):
    bundle = fit(IALS(dim=8), data)
    assert evaluate_sampled(bundle.scorer, data) == evaluate_sampled(bundle, data)


def test_nothing_to_find(data):
    nothing = data.test.select(np.zeros(len(data.test), bool))
    with pytest.raises(DataError, match="part 'test' has no item to find"):
        evaluate_sampled(fit(Popularity(), data), replace(data, test=nothing))
