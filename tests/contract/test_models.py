"""Every model of the registry, held to one behaviour on a checkerboard with a known answer."""

from dataclasses import replace

import numpy as np
import pytest

from martlet.core import CSR, Dataset, Interactions, Queries, Text, Vocabulary
from martlet.models.fit import fit
from martlet.models.registry import name_of, names, spec
from martlet.scorers.bundle import Bundle

USERS, ITEMS = 24, 16
FIELDS = {"dim": 8, "hidden": 16, "epochs": 25, "batch": 64, "rate": 0.005}
FIELDS |= {"table_optimizer": "adagrad", "table_rate": 0.1}
FIELDS |= {"columns": ()}  # the cost formula is that of items without columns
TOWERS = {"dim": 8, "hidden": 8, "epochs": 2, "batch": 64}
SETTINGS = {
    "ease": [{"reg": 1.0}, {"reg": 1.0, "neighbours": 6}],
    "gfcf": [{"rank": 4}, {"rank": 4, "ideal": 0.0}],
    "ials": [{"dim": 8, "iterations": 12}],
    "bpr": [{"dim": 4, "epochs": 200}],
    "matrix-factorization": [
        {"dim": 2},
        {"dim": 2, "loss": "logistic"},
        {
            "dim": 2,
            "loss": "logistic",
            "cells": "sampled",
            "optimizer": "sgd",
            "rate": 0.1,
            "biases": True,
        },
    ],
    "ncf": [
        {"kind": "gmf", "dim": 2, "reg": 0.05, "epochs": 120, "batch": 32, "table_rate": 0.05},
        {
            "dim": 2,
            "inner": 4,
            "layers": 1,
            "reg": 0.05,
            "epochs": 120,
            "batch": 32,
            "table_rate": 0.05,
            "rate": 0.01,
        },
    ],
    "item-knn": [{"neighbours": 8}, {"neighbours": 8, "weighting": "bm25"}],
    "two-tower": [TOWERS, TOWERS | {"item_columns": True, "loss": "in-batch"}],
    "content": [{"dim": 2}],
    "cascade": [{"retrieve": "ials:dim=8,iterations=12", "rank": "ease:reg=1.0"}],
    "popularity": [{}, {"half_life_days": 1.0}],
} | {
    name: [{"dim": 8, "epochs": 2, "max_length": 8}]
    for name in ("gru4rec", "nextitnet", "sasrec", "hstu")
}
SETTINGS |= {name: [FIELDS] for name in ("wide-deep", "deepfm", "dcnv2", "dlrm", "watch-time")}
# Popularity sees no pairs, and a sequence model an order.
COLOUR_BLIND = ("popularity", "gru4rec", "nextitnet", "sasrec", "hstu", "two-tower")
CASES = [(name, params) for name in names() for params in SETTINGS.get(name, [{}])]


def checkerboard():
    """Even users met even items, odd users odd ones, but each missed one item of its own colour.

    Users and items of the other colour never met; user 23 met nothing.
    """
    user, item = np.divmod(np.arange(USERS * ITEMS), ITEMS)
    missed = user % ITEMS
    keep = (user % 2 == item % 2) & (item != missed) & (user < USERS - 1)
    user, item = user[keep], item[keep]
    nothing = np.zeros(0, np.int64)
    size = {"num_users": USERS, "num_items": ITEMS}
    train = Interactions.sort(user, item, time_s=np.arange(len(user)) * 3600, **size)
    empty = Interactions.sort(nothing, nothing, time_s=nothing, **size)
    users, items = (
        Vocabulary.of(f"{c}{i}" for i in range(n)) for c, n in (("u", USERS), ("i", ITEMS))
    )
    catalogue = {"colour": Text.of(("white", "black")[i % 2] for i in range(ITEMS))}
    return Dataset(users, items, train, empty, empty, catalogue, about={"source": "checkerboard"})


@pytest.fixture(scope="module")
def dataset():
    return checkerboard()


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request):
    return request.param


@pytest.fixture(scope="module")
def one(case):
    name, params = case
    return spec(name, **params)


@pytest.fixture(scope="module")
def bundle(one, dataset):
    return fit(one, dataset, seed=0)


@pytest.fixture
def queries(bundle):
    return bundle.queries([f"u{row}" for row in range(USERS - 1)])


def same(one, other):
    return np.array_equal(one.item_row, other.item_row) and np.array_equal(one.score, other.score)


def test_the_missed_square_comes_first(one, bundle, queries):
    if name_of(one) in COLOUR_BLIND:
        pytest.skip(f"{name_of(one)} knows no colours")
    first = bundle.scorer.topk(queries, 1).item_row[:, 0]
    assert first.tolist() == [row % ITEMS for row in range(USERS - 1)]


def test_a_batch_is_its_single_queries(bundle, queries):
    whole = bundle.scorer.topk(queries, 5)
    for row in range(len(queries)):
        part = bundle.scorer.topk(queries.slice(row, row + 1), 5)
        assert np.array_equal(part.item_row[0], whole.item_row[row])
        assert np.array_equal(part.score[0], whole.score[row])


def test_what_may_not_be_shown_is_not_shown(bundle, queries):
    excluded = CSR.from_rows([[row % ITEMS, 3] for row in range(len(queries))], ITEMS)
    allow = np.arange(ITEMS) != 5
    asked = replace(queries, exclude=excluded, allow=allow)
    ranking = bundle.scorer.topk(asked, ITEMS)
    for row in range(len(queries)):
        shown = ranking.item_row[row][ranking.item_row[row] >= 0].tolist()
        banned = {*queries.history.row(row).tolist(), row % ITEMS, 3, 5}
        assert sorted(shown) == sorted(set(range(ITEMS)) - banned)


def test_more_than_the_catalogue_is_padded(bundle, queries):
    ranking = bundle.scorer.topk(queries, ITEMS + 9)
    found = ranking.item_row >= 0
    assert found.sum(1).tolist() == (ITEMS - queries.history.lengths).tolist()
    assert (ranking.score[~found] == -np.inf).all()
    assert np.isfinite(ranking.score[found]).all()


def test_who_is_unknown_gets_popularity(bundle):
    ranking, fallback = bundle.topk(bundle.queries(["u0", "nobody", "u23"]), 3)
    assert fallback.tolist() == [False, True, True]
    best = np.sort(bundle.popularity)[::-1][:3].tolist()
    assert ranking.score[1:].tolist() == [best, best]
    empty = bundle.scorer.topk(Queries.of(CSR.empty(1, ITEMS)), 3)
    assert np.isfinite(empty.score[empty.item_row >= 0]).all()


def test_candidates_are_ranked_alone(bundle, queries):
    asked = CSR.from_rows([[1, 2, 9, 12]] * len(queries), ITEMS)
    ranking = bundle.scorer.topk(replace(queries, candidates=asked, seen="keep"), 4)
    assert (np.sort(ranking.item_row) == [1, 2, 9, 12]).all()
    everything = bundle.scorer.topk(replace(queries, seen="keep"), ITEMS)
    for row in range(len(queries)):
        found = dict(zip(everything.item_row[row], everything.score[row], strict=True))
        expected = [found[item] for item in ranking.item_row[row]]
        np.testing.assert_allclose(ranking.score[row], expected, rtol=1e-4, atol=1e-6)


def test_saved_and_loaded_answers_alike(bundle, queries, tmp_path):
    bundle.save(tmp_path / "bundle")
    again = Bundle.load(tmp_path / "bundle")
    assert same(again.scorer.topk(queries, 6), bundle.scorer.topk(queries, 6))
    assert again.id == bundle.id
    assert again.lineage[0]["spec"] == bundle.lineage[0]["spec"]


def test_a_seed_decides_everything_and_nothing_is_changed(one, bundle, dataset, queries):
    before = dataset.train.hash
    again = fit(one, checkerboard(), seed=0)
    assert again.lineage == bundle.lineage
    assert again.id == bundle.id
    assert same(again.scorer.topk(queries, 6), bundle.scorer.topk(queries, 6))
    assert replace(dataset.train).hash == before


def test_reasons_come_from_the_history(bundle, queries):
    reasons = bundle.scorer.explain(queries, np.arange(len(queries), dtype=np.int32) % ITEMS)
    for row, parts in enumerate(reasons):
        assert {part.item_row for part in parts} <= {-1, *queries.history.row(row).tolist()}
        assert sum(abs(part.share) for part in parts) == pytest.approx(1, abs=1e-5)


def test_the_lineage_says_how_it_was_fitted(one, case, bundle, dataset):
    line = bundle.lineage[0]
    assert line["spec"] == case[0]
    assert spec(line["spec"], **line["params"]) == one
    assert line["seed"] == 0
    assert line["trained_on"] == [dataset.train.hash]
    assert line["items"] == dataset.items.hash
    assert line["data"] == {"source": "checkerboard"}


def test_the_cost_formulae_hold(one, bundle, dataset):
    tables = dict(bundle.scorer.tables())
    tables.pop("projection.users", None)  # the formula is one of the items
    spent = sum(table.nbytes for table in tables.values())
    assert spent <= one.bytes(ITEMS) <= 2.5 * spent
    half = replace(dataset, train=dataset.train.select(dataset.train.user_row < USERS // 2))
    assert 0 < one.flops(half) <= one.flops(dataset)
