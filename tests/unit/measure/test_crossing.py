"""One log under two numberings: what is measured is the same."""

import numpy as np
import pytest

import martlet as mt
from martlet.core import DataError
from martlet.data import RandomSplit, prepare
from martlet.measure.quality import evaluate
from martlet.measure.sampled import evaluate_sampled

METRICS = ("recall", "ndcg", "auc", "coverage")


def log(seed, users=60, items=30):
    stream = np.random.default_rng(seed)
    user = stream.integers(0, users, 900)
    item = (stream.integers(0, items // 2, 900) + user % 2 * (items // 2)) % items
    return {"user": [f"u{u}" for u in user], "item": [f"i{i}" for i in item]}


@pytest.fixture(scope="module")
def data():
    return prepare(log(0), split=RandomSplit(0.1, 0.2))


@pytest.fixture(scope="module", params=[mt.IALS(dim=8), mt.ItemKNN(), mt.Popularity()], ids=repr)
def bundle(request, data):
    return mt.fit(request.param, data)


def renumbered(bundle, data):
    """Return the bundle's answers as vectors in another order of users and items."""
    users, items = (
        np.random.default_rng(3).permutation(n) for n in (data.num_users, data.num_items)
    )
    return mt.from_vectors(
        bundle.scorer.items.dense()[items],
        data.items.names(items),
        bundle.scorer.encode(bundle.queries(data.users.names(users))),
        data.users.names(users),
    )


def test_other_rows_of_the_same_ids_measure_alike(data):
    fitted = mt.fit(mt.IALS(dim=8), data)
    # A stored vector a user: the same history on both sides, by id.
    straight = mt.from_vectors(
        fitted.scorer.items.dense(),
        data.items.names(range(data.num_items)),
        fitted.scorer.encode(fitted.queries(data.users.names(range(data.num_users)))),
        data.users.names(range(data.num_users)),
    )
    turned = renumbered(fitted, data)
    one, other = (evaluate(b, data, metrics=METRICS, ks=(5, 30)) for b in (straight, turned))
    assert dict(one.figures) == pytest.approx(dict(other.figures))
    sampled = [evaluate_sampled(b, data, negatives=7, seed=1).figures for b in (straight, turned)]
    assert dict(sampled[0]) == pytest.approx(dict(sampled[1]))


def test_a_log_that_shares_only_some_ids(bundle):
    other = prepare(log(1, users=80, items=40), split=RandomSplit(0.1, 0.3))
    found = evaluate(bundle, other, metrics=METRICS, ks=(10, 40), per_user=True)
    assert 0 < found.figures["ndcg@10"] < 1
    unknown = [row for row in range(other.num_items) if bundle.items.row(other.items.ids[row]) < 0]
    assert unknown
    truth = other.test.matrix
    met = other.before("test").matrix
    lost = 0
    for at, user in enumerate(found.user_row):
        wanted = set(truth.row(user).tolist()) - set(met.row(user).tolist())
        lost += len(wanted & set(unknown))
        most = 1 - len(wanted & set(unknown)) / len(wanted)
        assert found.users["recall@40"][at] <= most + 1e-9
    assert lost
    evaluate_sampled(bundle, other, negatives=5)


def test_nothing_in_common_is_refused(bundle):
    strange = {"user": ["a", "b"] * 20, "item": [f"k{i % 9}" for i in range(40)]}
    other = prepare(strange, split=RandomSplit(0.2, 0.2))
    with pytest.raises(DataError, match="knows none of the dataset's items, such as 'k"):
        evaluate(bundle, other)
    with pytest.raises(DataError, match=r"the scorer ranks 30 items, the dataset has 9"):
        evaluate(bundle.scorer, other)
