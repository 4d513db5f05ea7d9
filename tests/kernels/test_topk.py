import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import tie_key
from martlet.kernels.topk import (
    topk_dot,
    topk_dot_reference,
    topk_scores,
    topk_scores_reference,
)
from support.searches import searches


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


@pytest.mark.parametrize("first", [10, 123_456, 2**31 - 100])
@pytest.mark.parametrize("k", [6, 90])
def test_rows_of_a_piece_keep_their_numbers(first, k):
    items = np.ones((1, 90), np.float32)
    rows, _ = topk_dot(np.ones((1, 1), np.float32), items, k, first_row=first)
    order = sorted(range(first, first + 90), key=lambda row: tie_key(np.array([row]))[0])
    assert rows[0].tolist() == order[:k]


def test_the_order_holds_for_every_kind_of_number():
    scores = np.array([[-0.0, 0.0, np.nan, -np.inf, np.inf, 1e-45, -1e-45, -3.5, 3.4e38]], "f4")
    rows, top = topk_scores(scores, 9)
    zeros = sorted([0, 1], key=lambda row: tie_key(np.array([row]))[0])
    assert rows[0].tolist() == [4, 8, 5, *zeros, 6, 7, -1, -1]
    assert top[0, :7].tolist() == scores[0, rows[0, :7]].tolist()
