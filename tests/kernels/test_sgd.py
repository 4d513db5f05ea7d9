import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import CSR
from martlet.kernels.sgd import (
    bpr_epoch,
    bpr_epoch_reference,
    sgd_epoch,
    sgd_epoch_reference,
)


@pytest.mark.parametrize("logistic", [False, True])
@given(st.integers(0, 30), st.integers(1, 9), st.integers(0, 5))
@settings(deadline=None)
def test_a_pass_is_that_of_the_formula(logistic, cells, dim, seed):
    stream = np.random.default_rng(seed)
    rows, cols = (stream.integers(4, size=cells).astype(np.int32) for _ in range(2))
    values, order = stream.random(cells).astype(np.float32), stream.permutation(cells)
    ours, theirs = (
        [np.random.default_rng(9).normal(size=(4, dim)).astype(np.float32) for _ in range(2)]
        for _ in range(2)
    )
    for call, (users, items) in ((sgd_epoch, ours), (sgd_epoch_reference, theirs)):
        call(rows, cols, values, order, users, items, 0.05, 0.01, logistic)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 5), st.integers(0, 2**64 - 1))
@settings(deadline=None)
def test_a_pass_over_pairs_is_that_of_the_formula(users, dim, seed, draws):
    stream = np.random.default_rng(seed)
    met = stream.random((users, 7)) < 0.5
    matrix = CSR.from_rows([np.flatnonzero(row) for row in met], 7)
    order = stream.permutation(matrix.nnz)
    ours, theirs = (
        [np.random.default_rng(9).normal(size=(n, dim)).astype(np.float32) for n in (users, 7)]
        for _ in range(2)
    )
    found = [
        call(matrix, order, *factors, 0.05, 0.01, draws)
        for call, factors in ((bpr_epoch, ours), (bpr_epoch_reference, theirs))
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-6)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_who_met_everything_is_passed_over():
    matrix = CSR.from_rows([range(3)], 3)
    users, items = np.ones((1, 2), np.float32), np.ones((3, 2), np.float32)
    assert bpr_epoch(matrix, np.arange(3), users, items, 0.1, 0.1, 0) == 0
    assert (users == 1).all()
    assert (items == 1).all()
