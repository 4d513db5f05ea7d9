from dataclasses import replace

import numpy as np
import pytest

from martlet.core import CSR, Queries, QueryError, best, rng
from martlet.scorers import dense
from martlet.scorers.popular import Popular
from martlet.scorers.search import topk_vectors
from martlet.scorers.shown import best_of_all, dot_candidates, padded, shown_candidates
from martlet.scorers.table import Table

N, D, B = 50, 6, 9
ITEMS = Table.of(rng(0, "search", "items").normal(size=(N, D)))
VECTORS = rng(0, "search", "users").normal(size=(B, D)).astype(np.float32)
HISTORY = CSR.from_rows([rng(b, "search").choice(N, b, replace=False) for b in range(B)], N)
QUERIES = Queries.of(HISTORY)


class Nearest:
    """An index that finds the best ``depth`` rows at most, and only among ``rows``.

    It pays where ``least`` of the items are allowed.
    """

    kind, nbytes = "nearest", 7

    def __init__(self, rows=range(N), depth=N, least=0.5):
        self.rows, self.depth, self.least = np.array(rows, np.int32), depth, least
        self.asked = []

    def pays(self, share):
        return share >= self.least

    def search(self, vectors, k, hidden=None, allow=None):
        self.asked.append((len(vectors), k))
        score = vectors @ ITEMS.dense().T
        if hidden is not None:
            score[hidden.row_numbers(), hidden.indices] = -np.inf
        if allow is not None:
            score[:, ~allow] = -np.inf
        found = best(score[:, self.rows], self.rows[None], min(k, self.depth))
        return padded_to(found, k)


def padded_to(found, k):
    short = ((0, 0), (0, k - found.k))
    return (
        np.pad(found.item_row, short, constant_values=-1),
        np.pad(found.score, short, constant_values=-np.inf),
    )


def wanted(queries, items, k):
    score = VECTORS @ items.dense().T
    hidden = queries.hidden()
    score[hidden.row_numbers(), hidden.indices] = -np.inf
    if queries.allow is not None:
        score[:, ~queries.allow] = -np.inf
    return best(score, np.arange(N, dtype=np.int32)[None], k)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("k", [1, 7, N + 1])
@pytest.mark.parametrize("allow", [None, np.arange(N) % 2 == 0])
def test_every_storage_is_searched_exactly(monkeypatch, precision, k, allow):
    monkeypatch.setattr(dense, "_BLOCK_VALUES", 7 * D)
    items = ITEMS.to(precision)
    queries = replace(QUERIES, allow=allow)
    found, want = topk_vectors(VECTORS, items, queries, k), wanted(queries, items, k)
    assert np.array_equal(found.item_row, want.item_row)
    np.testing.assert_allclose(found.score, want.score, rtol=1e-5, atol=1e-6)


def test_ties_are_the_same_in_every_block(monkeypatch):
    alike = Table.of(np.ones((N, D))).to("fp16")
    whole = topk_vectors(VECTORS, alike, QUERIES, 5)
    monkeypatch.setattr(dense, "_BLOCK_VALUES", 7 * D)
    pieces = topk_vectors(VECTORS, alike, QUERIES, 5)
    assert np.array_equal(whole.item_row, pieces.item_row)
    want = wanted(QUERIES, Table.of(np.ones((N, D))), 5)
    assert np.array_equal(whole.item_row, want.item_row)


def test_an_index_is_told_what_is_hidden():
    index = Nearest()
    found = topk_vectors(VECTORS, ITEMS, QUERIES, 5, index)
    assert index.asked == [(B, 5)]
    assert np.array_equal(found.item_row, wanted(QUERIES, ITEMS, 5).item_row)


def test_a_query_that_the_index_leaves_short_is_searched_exactly():
    want = wanted(QUERIES, ITEMS, 6)
    found = topk_vectors(VECTORS, ITEMS, QUERIES, 6, Nearest(depth=6))
    assert np.array_equal(found.item_row, want.item_row)
    padding = Nearest(rows=[*range(3), -1, -1])
    nothing = Queries.of(CSR.empty(B, N))
    again = topk_vectors(VECTORS, ITEMS, nothing, 4, padding)
    assert np.array_equal(again.item_row, wanted(nothing, ITEMS, 4).item_row)


def test_an_index_pads_k_beyond_the_catalogue():
    found = topk_vectors(VECTORS, ITEMS, QUERIES, N + 5, Nearest())
    assert found.item_row.shape == (B, N + 5)
    assert np.array_equal(found.item_row, wanted(QUERIES, ITEMS, N + 5).item_row)


@pytest.mark.parametrize(("allowed", "asked"), [(30, True), (9, False)])
def test_a_mask_that_leaves_little_goes_round_the_index(allowed, asked):
    index, queries = Nearest(), replace(QUERIES, allow=np.arange(N) < allowed)
    found = topk_vectors(VECTORS, ITEMS, queries, 3, index)
    assert bool(index.asked) == asked
    assert np.array_equal(found.item_row, wanted(queries, ITEMS, 3).item_row)


def test_no_answer_is_short_while_allowed_items_are_left():
    queries = replace(QUERIES, allow=np.arange(N) % 2 == 0)
    for k in (7, 24, N):
        found = topk_vectors(VECTORS, ITEMS, queries, k, Nearest(depth=6))
        assert np.array_equal(found.item_row, wanted(queries, ITEMS, k).item_row)


def test_candidates_lose_doubles_and_what_is_hidden():
    given = CSR.from_rows([[4, 2, 2], [], [7, 4]], N)
    history = CSR.from_rows([[4], [1], [3]], N)
    allow = np.arange(N) != 7
    queries = Queries.of(history, candidates=given, allow=allow)
    assert shown_candidates(queries).tolist() == [[2], [-1], [4]]
    everything = Queries.of(CSR.from_rows([[0, 1]], 4))
    assert shown_candidates(everything).tolist() == [[2, 3]]


def test_ragged_rows_are_padded():
    assert padded(CSR.from_rows([[], [3, 1]], 4)).tolist() == [[-1, -1], [3, 1]]
    assert padded(CSR.empty(2, 4)).shape == (2, 0)


def test_products_are_the_same_in_blocks(monkeypatch):
    rows = rng(1, "rows").integers(-1, N, (B, 11)).astype(np.int32)
    whole = dot_candidates(VECTORS, ITEMS, rows)
    monkeypatch.setattr("martlet.scorers.shown._CHUNK_VALUES", 3 * D)
    assert np.array_equal(dot_candidates(VECTORS, ITEMS, rows), whole)
    want = np.where(rows < 0, -np.inf, np.take_along_axis(VECTORS @ ITEMS.dense().T, rows, 1))
    np.testing.assert_allclose(whole, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 8, 11])
def test_the_best_of_all_is_best(k):
    score = np.array([3, np.nan, 5, 5, -np.inf, 5, 1, 0], np.float32)
    want = best(score[None], np.arange(8, dtype=np.int32)[None], k)
    found = best_of_all(score, k)
    assert np.array_equal(found.item_row, want.item_row)
    assert np.array_equal(found.score, want.score)


def test_popularity_is_ranked_as_any_score():
    score = rng(0, "popular").integers(0, 6, N).astype(np.float32)
    score[[3, 4]] = np.nan, -np.inf
    popular = Popular(Table.of(score))
    for allow in (None, np.arange(N) % 3 > 0):
        queries = replace(QUERIES, allow=allow)
        shown = np.broadcast_to(score, (B, N)).copy()
        hidden = queries.hidden()
        shown[hidden.row_numbers(), hidden.indices] = -np.inf
        if allow is not None:
            shown[:, ~allow] = -np.inf
        for k in (1, 6, N + 4):
            want = best(shown, np.arange(N, dtype=np.int32)[None], k)
            found = popular.topk(queries, k)
            assert np.array_equal(found.item_row, want.item_row)
            assert np.array_equal(found.score, want.score)


def test_k_of_zero_is_refused():
    with pytest.raises(QueryError, match="k is 0: expected a whole number of at least 1"):
        topk_vectors(VECTORS, ITEMS, QUERIES, 0)
