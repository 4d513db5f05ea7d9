import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import CSR
from martlet.kernels.rank import pairs_in_order, pairs_in_order_reference


@given(st.integers(0, 5), st.integers(1, 12), st.integers(0, 99))
@settings(deadline=None)
def test_shares_are_those_of_a_sort(users, items, seed):
    stream = np.random.default_rng(seed)
    scores = stream.integers(0, 4, (users, items)).astype(np.float32)  # many ties
    scores[stream.random(scores.shape) < 0.1] = -np.inf
    wanted, hidden = (
        CSR.from_rows([np.flatnonzero(row) for row in stream.random(scores.shape) < 0.3], items)
        for _ in range(2)
    )
    expected = pairs_in_order_reference(scores, wanted, hidden)
    for threads in (1, 2):
        found = pairs_in_order(scores, wanted, hidden, threads)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("share", [pairs_in_order, pairs_in_order_reference])
def test_shares_by_hand(share):
    scores = np.array([[3, 9, 5, 5, 7]], np.float32)
    nothing = CSR.empty(1, 5)
    # Item 2 scores 5: above 3, level with 5, below 9 and 7.
    assert share(scores, CSR.from_rows([[2]], 5), nothing)[0] == 1.5 / 4
    assert share(scores, CSR.from_rows([[2]], 5), CSR.from_rows([[1, 4]], 5))[0] == 1.5 / 2
    assert share(scores, CSR.from_rows([[1, 4]], 5), nothing)[0] == 1.0
    assert share(scores, nothing, nothing)[0] == 0.5
    assert share(scores, CSR.from_rows([range(5)], 5), nothing)[0] == 0.5
