"""The item-item kernels against NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import CSR, best, rng
from martlet.kernels.item_item import (
    neighbours,
    neighbours_reference,
    topk_item_item,
    topk_item_item_reference,
)


def sparse(random, rows, cols, density=0.3):
    dense = np.where(random.random((rows, cols)) < density, random.integers(1, 4, (rows, cols)), 0)
    at = np.nonzero(dense)
    return dense.astype(np.float32), CSR.from_pairs(*at, dense[at].astype(np.float32), (rows, cols))


def whole(random, shape):
    """Small whole numbers: sums are exact in any order, and ties are many."""
    return random.integers(-2, 3, shape).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 20),
    n=st.integers(1, 30),
    rank=st.integers(0, 9),
    k=st.integers(1, 35),
    int8=st.booleans(),
)
def test_topk_item_item_is_the_reference(seed, size, n, rank, k, int8):
    random = rng(seed, "topk")
    history_dense, history = sparse(random, size, n)
    hidden_dense, hidden = sparse(random, size, n)
    weights_dense = whole(random, (n, n)) * (random.random((n, n)) < 0.4)
    at = np.nonzero(weights_dense)
    dtype = np.int8 if int8 else np.float32
    weights = CSR.from_pairs(*at, weights_dense[at].astype(dtype), (n, n))
    scale = random.integers(1, 3, n).astype(np.float32) if int8 else np.ones(n, np.float32)
    u, left, right = whole(random, (n, rank)), whole(random, n), whole(random, n)
    product = ((u * left[:, None]) @ u.T) * right
    expected = topk_item_item_reference(
        history_dense, weights_dense * scale[:, None], product, k, hidden_dense > 0
    )
    low_rank = (u.astype(dtype), left, right) if rank else None
    for threads in (1, 2):
        found = topk_item_item(
            history,
            weights,
            k,
            hidden,
            scale=scale if int8 else None,
            low_rank=low_rank,
            num_threads=threads,
        )
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_allow_keeps_the_rest_out():
    random = rng(3, "allow")
    _, history = sparse(random, 5, 40)
    _, weights = sparse(random, 40, 40)
    allow = random.random(40) < 0.5
    rows, _ = topk_item_item(history, weights, 40, CSR.empty(5, 40), allow)
    assert (np.sort(rows)[:, -allow.sum() :] == np.flatnonzero(allow)).all()
    assert (rows == -1).sum(1).tolist() == [40 - allow.sum()] * 5


def test_the_digits_do_not_depend_on_the_batch_or_the_threads():
    random = rng(4, "digits")
    _, history = sparse(random, 37, 301)
    _, weights = sparse(random, 301, 301)
    weights = CSR(
        weights.indptr, weights.indices, random.random(weights.nnz, np.float32), weights.num_cols
    )
    low_rank = tuple(random.standard_normal(s).astype(np.float32) for s in ((301, 13), 301, 301))
    options = {"low_rank": low_rank}
    hidden = CSR.empty(37, 301)
    rows, scores = topk_item_item(history, weights, 20, hidden, num_threads=2, **options)
    for batch in (1, 7, 37):
        for start in range(0, 37, batch):
            at = np.arange(start, min(37, start + batch))
            part = topk_item_item(history.take(at), weights, 20, hidden.take(at), **options)
            np.testing.assert_array_equal(part[0], rows[at])
            np.testing.assert_array_equal(part[1], scores[at])


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    users=st.integers(1, 15),
    n=st.integers(1, 25),
    top=st.integers(1, 30),
    diagonal=st.booleans(),
    normed=st.booleans(),
)
def test_neighbours_are_the_largest_entries_of_the_gram_matrix(
    seed, users, n, top, diagonal, normed
):
    random = rng(seed, "neighbours")
    _, matrix = sparse(random, users, n)
    norm = random.integers(1, 5, n).astype(np.float32) if normed else None
    options = {"norm": norm, "shrink": 3.0, "diagonal": diagonal}
    expected = neighbours_reference(matrix, top, **options)
    for threads in (1, 2):
        found = neighbours(matrix, top, **options, num_threads=threads)
        np.testing.assert_array_equal(found.indptr, expected.indptr)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_allclose(found.weights(), expected.weights(), rtol=1e-6)
    assert found.num_cols == expected.num_cols == n


def test_neighbours_worked_out_by_hand():
    matrix = CSR.from_rows([[0, 1], [0, 1, 2], [2, 3]], 4)  # X^T X: 2 for 0 and 1, 1 for 0 and 2
    norm = np.array([1, 2, 1, 1], np.float32)
    for find in (neighbours, neighbours_reference):
        assert [find(matrix, 1).row(i).tolist() for i in (0, 1)] == [[1], [0]]
        near = find(matrix, 2, norm=norm, shrink=1.0)
        assert near.row(0).tolist() == [1, 2]
        np.testing.assert_allclose(near.weights()[:2], [2 / 3, 1 / 2], rtol=1e-6)
        assert near.row(3).tolist() == [2], "none that no row joins"


def test_offers_end_in_the_projects_order():
    from martlet.kernels.select import offer, pop_all

    random = rng(5, "select")
    score = random.integers(0, 4, 200).astype(np.float32)
    scores, rows = np.empty(30, np.float32), np.empty(30, np.int32)
    size = 0
    for row in random.permutation(200):
        size = offer(scores, rows, size, score[row], row)
    pop_all(scores, rows, size)
    expected = best(score[None], np.arange(200, dtype=np.int32)[None], 30)
    assert size == 30
    np.testing.assert_array_equal(rows, expected.item_row[0])
    np.testing.assert_array_equal(scores, expected.score[0])


@pytest.mark.parametrize("top", [1, 4])
def test_a_catalogue_without_events_has_no_neighbours(top):
    assert neighbours(CSR.empty(3, 6), top).nnz == 0
