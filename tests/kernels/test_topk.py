import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import CSR, tie_key
from martlet.kernels.topk import (
    ranks_dot,
    topk_dot,
    topk_dot_reference,
    topk_scores,
    topk_scores_reference,
)


@st.composite
def searches(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    size, n, d = draw(st.integers(0, 11)), draw(st.integers(0, 300)), draw(st.integers(1, 9))
    # Whole numbers are summed without rounding and collide often: ties are the rule here.
    vectors = rng.integers(-2, 3, (size, d)).astype(np.float32)
    items = rng.integers(-2, 3, (d, n)).astype(np.float32)
    if n and draw(st.booleans()):
        items[:, rng.integers(n)] = rng.choice([np.nan, np.inf, -np.inf])
    share = draw(st.sampled_from([0.0, 0.1, 1.0]))
    hidden = CSR.from_rows([np.flatnonzero(rng.random(n) < share) for _ in range(size)], n)
    allow = rng.random(n) < 0.7 if draw(st.booleans()) else None
    return vectors, items, draw(st.integers(1, 20)), hidden, allow


@given(searches(), st.integers(1, 3))
@settings(deadline=None)
def test_topk_dot_is_the_reference(search, threads):
    rows, scores = topk_dot(*search, threads)
    expected_rows, expected_scores = topk_dot_reference(*search)
    assert rows.tolist() == expected_rows.tolist()
    assert scores.tolist() == expected_scores.tolist()


@given(searches())
@settings(deadline=None)
def test_topk_scores_is_the_reference_and_changes_nothing(search):
    vectors, items, k, hidden, allow = search
    scores = np.nan_to_num(vectors, nan=0) @ np.nan_to_num(items, nan=1, posinf=9, neginf=-9)
    before = scores.copy()
    for found, expected in zip(
        topk_scores(scores, k, hidden, allow, 2),
        topk_scores_reference(scores, k, hidden, allow),
        strict=True,
    ):
        assert found.tolist() == expected.tolist()
    assert (scores == before).all()


@pytest.mark.parametrize("d", [1, 3, 8, 33])
def test_the_same_digits_whatever_the_batch_the_threads_and_the_place(d):
    rng = np.random.default_rng(d)
    vectors = rng.normal(size=(45, d)).astype(np.float32)
    items = rng.normal(size=(d, 5001)).astype(np.float32)
    rows, scores = topk_dot(vectors, items, 7, threads=1)
    for batch in (1, 2, 7, 45):
        for threads in (1, 2):
            for start in range(0, 45, batch):
                part = topk_dot(vectors[start : start + batch], items, 7, threads=threads)
                assert (part[0] == rows[start : start + batch]).all()
                assert (part[1] == scores[start : start + batch]).all()
    # Another place in its block must not change the digits of an item either.
    for first in (1, 77, 4096):
        item, moved = items[:, rows[0, 0], None], items.copy()
        moved[:, first] = item[:, 0]
        again = topk_dot(vectors[:1], moved, 5001)
        assert again[1][0, again[0][0] == first] == scores[0, 0]


def test_a_large_catalogue_is_shared_between_threads_with_the_same_answer():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1, 16)).astype(np.float32)
    items = rng.normal(size=(16, 600_000)).astype(np.float32)
    one, two = (topk_dot(vectors, items, 50, threads=threads) for threads in (1, 2))
    assert one[0].tolist() == two[0].tolist()
    assert one[1].tolist() == two[1].tolist()


@given(searches())
@settings(deadline=None)
def test_ranks_are_the_places_in_the_full_list(search):
    vectors, items, _, hidden, allow = search
    size, n = len(vectors), items.shape[1]
    targets = CSR.from_rows([np.unique(np.arange(min(3, n)) * 2 % max(n, 1))] * size, n)
    places, counts = ranks_dot(vectors, items, targets, hidden, allow, 2)
    for user in range(size):
        drop = np.zeros(n, bool)
        drop[hidden.row(user)] = True
        if allow is not None:
            drop |= ~allow
        drop[targets.row(user)] = False
        one = CSR.from_rows([np.flatnonzero(drop)], n)
        rows, _ = topk_dot_reference(vectors[user : user + 1], items, n + 1, one)
        full = [row for row in rows[0].tolist() if row >= 0]
        assert counts[user] == len(full)
        found = places[targets.indptr[user] : targets.indptr[user + 1]].tolist()
        expected = [full.index(t) if t in full else -1 for t in targets.row(user).tolist()]
        assert found == expected


def test_rows_of_a_piece_keep_their_numbers():
    items = np.ones((1, 6), np.float32)
    rows, _ = topk_dot(np.ones((1, 1), np.float32), items, 6, first_row=10)
    assert rows[0].tolist() == sorted(range(10, 16), key=lambda row: tie_key(np.array([row]))[0])
