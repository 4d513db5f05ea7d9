import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import rng
from martlet.kernels.fold_in import fold_in, fold_in_reference


def draw(seed, size, d):
    random = rng(seed, "fold_in")
    indptr = np.concatenate([[0], np.cumsum(random.integers(0, 12, size))])
    vectors = random.normal(size=(indptr[-1], d)).astype(np.float32)
    weights = random.uniform(0.1, 3, indptr[-1]).astype(np.float32)
    gram = random.normal(size=(d + 3, d))
    right = random.normal(size=(size, d)).astype(np.float32)
    return (vectors, weights, indptr, gram.T @ gram, random.uniform(0.1, 2, size)), right


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.integers(0, 30), st.integers(1, 40), st.booleans())
def test_the_system_is_solved(seed, size, d, given_right):
    parts, right = draw(seed, size, d)
    side = right if given_right else None
    found = fold_in(*parts, side)
    np.testing.assert_allclose(found, fold_in_reference(*parts, side), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("threads", [1, 2])
def test_neighbours_and_threads_change_no_digit(threads):
    (vectors, weights, indptr, gram, ridge), _ = draw(0, 40, 17)
    whole = fold_in(vectors, weights, indptr, gram, ridge, num_threads=threads)
    for b in range(40):
        at = slice(indptr[b], indptr[b + 1])
        only = np.array([0, at.stop - at.start])
        one = fold_in(vectors[at], weights[at], only, gram, ridge[b : b + 1])
        assert np.array_equal(one[0], whole[b])


def test_no_events_give_zeros():
    (_, _, _, gram, _), _ = draw(0, 1, 5)
    nothing = np.zeros((0, 5), np.float32), np.zeros(0, np.float32)
    assert not fold_in(*nothing, np.zeros(4, np.int64), gram, np.ones(3)).any()
