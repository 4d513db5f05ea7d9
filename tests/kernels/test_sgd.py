import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.kernels.sgd import sgd_epoch, sgd_epoch_reference


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
