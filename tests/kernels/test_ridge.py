"""The small regressions against NumPy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import CSR, rng
from martlet.kernels.ridge import ridge, ridge_reference, solve


def sparse(random, users, n):
    dense = random.random((users, n)) * (random.random((users, n)) < 0.4)
    at = np.nonzero(dense)
    return dense, CSR.from_pairs(*at, dense[at].astype(np.float32), (users, n))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    users=st.integers(1, 30),
    n=st.integers(1, 20),
    most=st.integers(0, 12),
)
def test_ridge_is_the_reference(seed, users, n, most):
    random = rng(seed, "ridge")
    dense, matrix = sparse(random, users, n)
    others = [np.delete(np.arange(n), item) for item in range(n)]
    size = [random.integers(0, min(most, n - 1) + 1) for _ in range(n)]
    rows = [np.sort(random.choice(o, s, replace=False)) for o, s in zip(others, size, strict=True)]
    features = CSR.from_rows(rows, n)
    expected = ridge_reference(dense.astype(np.float32), features, 0.5)
    for threads in (1, 2):
        found = ridge(matrix, features, 0.5, threads)
        np.testing.assert_array_equal(found.indices, features.indices)
        values = expected[found.row_numbers(), found.indices]
        np.testing.assert_allclose(found.weights(), values, rtol=1e-3, atol=1e-4)


def test_the_digits_do_not_depend_on_the_threads():
    random = rng(1, "ridge threads")
    _, matrix = sparse(random, 90, 300)
    rows = [np.delete(np.arange(300), item)[:70] for item in range(300)]
    features = CSR.from_rows(rows, 300)
    one, two = (ridge(matrix, features, 2.0, threads) for threads in (1, 2))
    np.testing.assert_array_equal(one.weights(), two.weights())


def test_solve_is_a_solution():
    random = rng(2, "solve")
    half = random.normal(size=(40, 30))
    system = half.T @ half + np.eye(30)
    right = random.normal(size=30)
    found = right.astype(np.float32)
    solve(system.astype(np.float32), found)
    np.testing.assert_allclose(found, np.linalg.solve(system, right), rtol=1e-3, atol=1e-4)
