from dataclasses import replace

import numpy as np
import pytest

from martlet.core import DataError, Dataset, Interactions, Queries, SpecError, Text, Vocabulary
from martlet.measure.quality import evaluate
from martlet.models.fit import fit
from martlet.models.registry import spec
from martlet.scorers.bundle import Bundle
from martlet.scorers.factors import Factors
from martlet.scorers.popular import Popular
from martlet.scorers.projections import LinearFold
from martlet.scorers.table import Table
from support.datasets import tasteful


def events(pairs, num_users=40, num_items=60):
    user, item, time = np.array(pairs).T
    return Interactions.sort(user, item, None, time, num_users=num_users, num_items=num_items)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    parts = []
    for part in range(3):
        # Users 35 and up come only in the last part: nothing is known of them.
        user = rng.integers(0, 35 if part < 2 else 40, 400)
        parts.append(events(np.stack([user, rng.integers(0, 60, 400), np.full(400, part)]).T))
    catalogue = {"price": np.arange(60.0), "title": Text.of(map(str, range(60)))}
    users, items = Vocabulary.of(range(40)), Vocabulary.of(range(60))
    return Dataset(users, items, *parts, catalogue)


@pytest.fixture(scope="module")
def factors():
    vectors = np.random.default_rng(1).normal(size=(60, 5)).astype(np.float32)
    return Factors(Table.of(vectors), LinearFold())


ALL = ("recall", "precision", "hit_rate", "ndcg", "mrr", "map", "novelty", "coverage", "gini")


def test_the_same_digits_for_any_batch_and_number_of_threads(dataset, factors, monkeypatch):
    found = []
    for batch in (1, 7, 512, None):
        for threads in ("1", "2"):
            monkeypatch.setenv("MARTLET_THREADS", threads)
            quality = evaluate(factors, dataset, ks=(5, 10), metrics=(*ALL, "auc"), batch=batch)
            found.append(quality.figures)
    assert all(figures == found[0] for figures in found)


def test_the_bound_on_memory_decides_the_batch(dataset, factors):
    assert evaluate(factors, dataset, memory_mb=1e-3).figures == evaluate(factors, dataset).figures


def test_figures_are_those_of_a_plain_loop(dataset, factors):
    quality = evaluate(
        factors, dataset, ks=(10,), metrics=("recall", "auc", "value_recall"), value="price",
        per_user=True,
    )  # fmt: skip
    history, test = dataset.before("test").histories, dataset.test.histories
    vectors = factors.items.dense()
    row = 0
    for user in range(40):
        met = set(history.row(user).tolist())
        wanted = set(test.row(user).tolist()) - met
        if not wanted:
            continue
        assert quality.user_row[row] == user
        x = vectors[history.row(user)].mean(0) if met else np.zeros(5)
        scores = vectors @ x
        others = [item for item in range(60) if item not in met]
        if met:
            top = sorted(others, key=lambda item: -scores[item])[:10]
            hits = wanted & set(top)
            assert quality.users["recall@10"][row] == pytest.approx(len(hits) / len(wanted))
            assert quality.users["value_recall@10"][row] == pytest.approx(
                sum(hits) / max(sum(wanted), 1)
            )
            rest = [item for item in others if item not in wanted]
            right = np.mean([scores[w] > scores[r] for w in wanted for r in rest])
            assert quality.users["auc"][row] == pytest.approx(right)
        row += 1
    assert quality.num_users == row


def test_what_repeats_is_counted_or_kept(dataset, factors):
    hidden, kept = evaluate(factors, dataset), evaluate(factors, dataset, seen="keep")
    assert hidden.num_repeats > 0
    assert kept.num_repeats == 0
    assert kept.figures != hidden.figures


def test_a_bundle_answers_as_it_would_when_served(dataset, factors):
    popularity = dataset.train.item_count.astype(np.float32)
    bundle = Bundle(factors, dataset.users, dataset.items, dataset.train.histories, popularity)
    cold = np.arange(35, 40)
    found = evaluate(bundle, dataset, users=cold)
    assert found.num_fallback == found.num_users == 5
    popular = evaluate(Popular(Table.of(popularity)), dataset, users=cold)
    assert found.figures == popular.figures


def test_what_was_trained_on_is_refused(dataset, factors):
    popularity = np.ones(60, np.float32)
    lineage = ({"spec": "x", "trained_on": [dataset.valid.hash]},)
    bundle = Bundle(
        factors, dataset.users, dataset.items, dataset.train.histories, popularity,
        lineage=lineage,
    )  # fmt: skip
    with pytest.raises(DataError, match="part 'valid' was trained on"):
        evaluate(bundle, dataset, part="valid")
    assert evaluate(bundle, dataset, part="test").num_users


def test_nothing_to_find(dataset, factors):
    with pytest.raises(DataError, match="no user of part 'test' has an item to find"):
        evaluate(factors, dataset, users=np.array([], int))


@pytest.mark.parametrize("model", ["popularity", "item-knn", "ease", "gfcf", "ials"])
@pytest.mark.parametrize("seen", ["hide", "keep"])
def test_auc_of_every_model_is_the_share_of_pairs_in_order(model, seen):
    data = tasteful()
    bundle = fit(spec(model), data)
    found = evaluate(bundle, data, metrics=("auc",), seen=seen, per_user=True)
    assert found.figures.keys() == {"auc"}
    history, test = data.before("test").histories, data.test.histories
    everything = np.arange(data.num_items, dtype=np.int32)[None]
    for user, auc in zip(found.user_row, found.users["auc"], strict=True):
        query = Queries.of(history.take(np.array([user])), np.array([user]))
        score = bundle.scorer.score(query, everything)[0]
        met = set(history.row(user).tolist()) if seen == "hide" else set()
        wanted = set(test.row(user).tolist()) - met
        others = set(range(data.num_items)) - met - wanted
        pairs = [(score[w], score[o]) for w in wanted for o in others]
        right = np.mean([1.0 if w > o else 0.5 if w == o else 0.0 for w, o in pairs])
        assert auc == pytest.approx(right, rel=1e-12)


def test_auc_of_a_score_that_tells_nothing_is_one_half(dataset):
    assert evaluate(Popular(Table.of(np.ones(60))), dataset, metrics=("auc",)).figures == {
        "auc": 0.5
    }
    empty = np.full(60, np.nan, np.float32)
    assert evaluate(Popular(Table.of(empty)), dataset, metrics=("auc",)).figures["auc"] == 0.5


def test_auc_where_there_is_nothing_else_is_one_half():
    one = events([(0, 0, 0), (0, 1, 0)], 1, 3)
    rest = events([(0, 2, 1)], 1, 3)
    data = Dataset(Vocabulary.of([0]), Vocabulary.of(range(3)), one, rest.select([]), rest)
    assert evaluate(Popular(Table.of(np.ones(3))), data, metrics=("auc",)).figures["auc"] == 0.5


def test_auc_of_users_of_whom_nothing_is_known_is_that_of_popularity(dataset, factors):
    popularity = dataset.train.item_count.astype(np.float32)
    bundle = Bundle(factors, dataset.users, dataset.items, dataset.train.histories, popularity)
    popular = evaluate(Popular(Table.of(popularity)), dataset, metrics=("auc",), per_user=True)
    found = evaluate(bundle, dataset, metrics=("auc",), per_user=True)
    cold = found.user_row >= 35
    assert cold.sum() == 5
    assert (found.users["auc"][cold] == popular.users["auc"][cold]).all()
    assert (found.users["auc"][~cold] != popular.users["auc"][~cold]).any()


@pytest.mark.parametrize("bound", [0, -1, float("nan"), float("inf")])
def test_a_bound_of_memory_that_bounds_nothing(dataset, factors, bound):
    with pytest.raises(SpecError, match=f"memory_mb is {bound}: expected a finite number of MB"):
        evaluate(factors, dataset, memory_mb=bound)


@pytest.mark.parametrize(("worth", "shown"), [(-2.5, "-2.5"), (np.inf, "inf")])
def test_a_value_of_which_there_are_no_shares(dataset, factors, worth, shown):
    price = np.array([np.nan, *np.arange(59.0)])
    priced = replace(dataset, catalogue={"price": price})
    assert evaluate(factors, priced, metrics=("value_recall",), value="price").num_users
    price[7] = price[9] = worth
    with pytest.raises(DataError, match=f"the value of item '7' is {shown}, and 1 more are like"):
        evaluate(factors, priced, metrics=("value_recall",), value="price")


@pytest.mark.parametrize("name", ["margin", "title"])
def test_a_value_that_is_no_number(dataset, factors, name):
    with pytest.raises(DataError, match=f"no numeric column '{name}': it has price"):
        evaluate(factors, dataset, metrics=("value_recall",), value=name)
