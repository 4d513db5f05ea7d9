import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.kernels import pairs


@given(st.integers(0, 9), st.integers(1, 4), st.integers(1, 70), st.integers(0, 9))
@settings(deadline=None)
def test_products_and_slopes_are_those_of_the_formula(batch, count, dim, seed):
    stream = np.random.default_rng(seed)
    users, items, gradient = (
        stream.normal(size=shape).astype(np.float32)
        for shape in ((batch, dim), (batch, count, dim), (batch, count))
    )
    found = pairs.pair_dots(users, items, 2)
    np.testing.assert_allclose(found, pairs.pair_dots_reference(users, items), rtol=1e-4, atol=1e-4)
    ours = pairs.pair_slopes(users, items, gradient, 2)
    theirs = pairs.pair_slopes_reference(users, items, gradient)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_threads_touch_no_digit():
    stream = np.random.default_rng(0)
    users, items = stream.normal(size=(900, 33)), stream.normal(size=(900, 3, 33))
    users, items = users.astype(np.float32), items.astype(np.float32)
    one, two = (pairs.pair_dots(users, items, threads) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)
    slopes = [pairs.pair_slopes(users, items, one, threads) for threads in (1, 2)]
    for a, b in zip(*slopes, strict=True):
        np.testing.assert_array_equal(a, b)
