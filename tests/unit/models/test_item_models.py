"""The item-item models against their formulae in dense NumPy."""

import numpy as np
import pytest

from martlet.core import Dataset, Interactions, SpecError, Vocabulary, rng
from martlet.models.ease import EASE
from martlet.models.gfcf import GFCF
from martlet.models.item_knn import ItemKNN

USERS, ITEMS = 64, 20


def dataset(weights=False):
    random = rng(0, "models", "log")
    met = random.random((USERS, ITEMS)) < np.linspace(0.9, 0.4, ITEMS)
    user, item = np.nonzero(met)
    weight = random.integers(1, 5, len(user)).astype(np.float32) if weights else None
    train = Interactions.sort(user, item, weight, num_users=USERS, num_items=ITEMS)
    nothing = train.select(np.zeros(len(train), bool))
    users, items = (Vocabulary.of(range(n)) for n in (USERS, ITEMS))
    return Dataset(users, items, train, nothing, nothing)


def matrix(data):
    dense = np.zeros((USERS, ITEMS))
    dense[data.train.user_row, data.train.item_row] = data.train.weight
    return dense


def hold_the_largest(found, dense, keep):
    """Check that of each row the entries of largest magnitude are there; of ties, any."""
    there = found != 0
    assert (there.sum(1) == keep).all()
    np.testing.assert_allclose(found[there], dense[there], rtol=1e-3)
    sizes = -np.sort(-np.abs(np.where(there, dense, 0)))[:, :keep]
    np.testing.assert_allclose(sizes, -np.sort(-np.abs(dense))[:, :keep], rtol=1e-3)


def test_ease_is_the_closed_form():
    data = dataset()
    x = matrix(data)
    inverse = np.linalg.inv(x.T @ x + 5 * np.eye(ITEMS))
    weights = -inverse / np.diagonal(inverse)
    np.fill_diagonal(weights, 0)
    found = EASE(reg=5.0, keep=ITEMS).fit(data).weights.dense()
    np.testing.assert_allclose(found, weights, rtol=1e-3, atol=1e-5)
    hold_the_largest(EASE(reg=5.0, keep=4).fit(data).weights.dense(), weights, 4)


def test_ease_by_all_neighbours_is_the_dense_one():
    data = dataset()
    for exponent in (0.0, 0.5):
        dense = EASE(reg=5.0, keep=ITEMS, user_exponent=exponent).fit(data)
        sparse = EASE(reg=5.0, neighbours=ITEMS, user_exponent=exponent).fit(data)
        np.testing.assert_allclose(
            sparse.weights.dense(), dense.weights.dense(), rtol=1e-3, atol=1e-5
        )


def test_ease_refuses_a_matrix_that_does_not_fit():
    with pytest.raises(SpecError, match=r"dense matrix of 20 x 20 items, .* give neighbours=200"):
        EASE(memory_mb=0.001).fit(dataset())


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, r"ease of 20 items needs .* give neighbours=200 for the sparse form"),
        ({"neighbours": 10**9}, r"ease of 20 neighbours needs .* give fewer neighbours"),
    ],
)
def test_ease_refuses_what_the_machine_cannot_hold(monkeypatch, params, words):
    EASE(**params).fit(dataset())
    monkeypatch.setattr("martlet.core.memory.memory_bytes", lambda: 4 * 400)
    with pytest.raises(SpecError, match=words):
        EASE(**params).fit(dataset())


@pytest.mark.parametrize("value", [-0.1, 2.1, float("nan")])
def test_ease_refuses_an_exponent_that_no_float_survives(value):
    with pytest.raises(SpecError, match=f"user_exponent is {value}: expected a number from 0 to 2"):
        EASE(user_exponent=value)


def test_ease_refuses_a_reg_that_float32_loses():
    alike = dataset()
    user = np.repeat(np.arange(USERS), 2)
    item = np.tile([0, 1], USERS)
    train = Interactions.sort(user, item, num_users=USERS, num_items=ITEMS)
    alike = Dataset(alike.users, alike.items, train, alike.valid, alike.test)
    with pytest.raises(SpecError, match=r"reg is 1e-08: the system has no inverse in float32"):
        EASE(reg=1e-8).fit(alike)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EASE(reg=0.0), "reg is 0.0: expected a number above 0"),
        (lambda: EASE(keep=0), "keep is 0: expected a whole number above 0"),
        (lambda: EASE(neighbours=0), "neighbours is 0: expected a whole number above 0, or none"),
        (lambda: GFCF(rank=0), "rank 0, keep 400: expected whole numbers above 0"),
        (lambda: GFCF(ideal=-1.0), "ideal is -1.0: expected a number of at least 0"),
        (lambda: ItemKNN(neighbours=0), "neighbours is 0: expected a whole number above 0"),
        (lambda: ItemKNN(shrink=-1.0), "shrink is -1.0: expected a number of at least 0"),
        (
            lambda: ItemKNN(weighting="idf"),
            "weighting is 'idf': expected one of none, tf-idf, bm25",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_item_knn_is_the_shrunk_cosine():
    data = dataset(weights=True)
    for weighted in (False, True):
        x = matrix(data) if weighted else (matrix(data) > 0).astype(float)
        length = np.sqrt((x**2).sum(0))
        cosine = (x.T @ x) / (np.outer(length, length) + 7)
        np.fill_diagonal(cosine, 0)
        found = ItemKNN(neighbours=5, shrink=7.0, weighted=weighted).fit(data)
        hold_the_largest(found.weights.dense(), cosine, 5)
        assert found.weighted == weighted


def test_text_weights_are_the_usual_ones():
    data = dataset(weights=True)
    x = matrix(data)
    idf = np.log1p(ITEMS / (x > 0).sum(1))[:, None]
    length = x.sum(0) / x.sum(0).mean()
    bm25 = x * 2.2 / (x + 1.2 * (0.25 + 0.75 * length)) * idf
    for name, weighed in (("tf-idf", np.sqrt(x) * idf), ("bm25", bm25)):
        norm = np.sqrt((weighed**2).sum(0))
        cosine = (weighed.T @ weighed) / np.outer(norm, norm)
        np.fill_diagonal(cosine, 0)
        found = ItemKNN(ITEMS, shrink=0.0, weighting=name, weighted=True).fit(data)
        np.testing.assert_allclose(found.weights.dense(), cosine, rtol=1e-4)


def test_gfcf_is_its_two_filters():
    data = dataset()
    x = matrix(data)
    degree = x.sum(0)
    graph = x / np.sqrt(np.maximum(x.sum(1), 1))[:, None] / np.sqrt(degree)
    _, _, right = np.linalg.svd(graph)
    ideal = (right[:5].T @ right[:5]) / np.sqrt(degree)[:, None] * np.sqrt(degree)
    found = GFCF(rank=5, ideal=0.4, keep=ITEMS).fit(data)
    np.testing.assert_allclose(found.weights.dense(), graph.T @ graph, rtol=1e-4)
    low = found.low_rank
    u, left, out = low.factors.dense(), low.left.dense(), low.right.dense()
    product = (left * u) @ (u.T * out.T)
    np.testing.assert_allclose(product, 0.4 * ideal, rtol=1e-3, atol=1e-4)


def test_the_cost_formulae():
    data = dataset()
    pairs = int((data.train.matrix.lengths**2).sum())
    assert EASE().flops(data) == 2 * pairs + ITEMS**3
    assert EASE(neighbours=6).flops(data) == 2 * pairs + ITEMS * 72
    assert EASE(keep=5).bytes(100) == EASE(neighbours=5).bytes(100) == 4000 + 808
    assert ItemKNN(neighbours=5).flops(data) == 2 * pairs
    assert ItemKNN(neighbours=5).bytes(100) == 4000 + 808
    assert GFCF(rank=16, keep=5).bytes(100) == 4000 + 808 + 400 * 18
    assert GFCF(rank=16, ideal=0.0).bytes(100) == 8 * 100 * 100 + 808
    sparse, dense = 18 * data.train.matrix.nnz * 18, 16 * ITEMS * 18**2
    assert GFCF(rank=2).flops(data) == 2 * pairs + sparse + dense
    assert GFCF(rank=2, ideal=0.0).flops(data) == 2 * pairs
