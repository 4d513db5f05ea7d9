from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from martlet.core import CSR
from martlet.kernels.ials import (
    Objective,
    gram,
    gram_reference,
    half_sweep,
    half_sweep_reference,
    loss,
    loss_reference,
    transpose,
    transpose_reference,
    turn,
    turn_reference,
)


@st.composite
def systems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, m, d = draw(st.integers(0, 9)), draw(st.integers(1, 30)), draw(st.integers(1, 9))
    rows = [np.flatnonzero(rng.random(m) < 0.4) for _ in range(n)]
    weights = [rng.random(len(row)) + 0.1 for row in rows]
    # Columns at right angles, so that the Gram matrix is diagonal.
    vectors, sizes, _ = np.linalg.svd(rng.normal(size=(max(m, d), d)), full_matrices=False)
    y = (vectors * sizes)[:m].astype(np.float32)
    dense = (draw(st.sampled_from([0.1, 1.0])) * sizes**2).astype(np.float32)
    reg = (rng.random(n) + 0.5).astype(np.float32)
    return CSR.from_rows(rows, m, weights), y, dense, reg, draw(st.sampled_from([0.0, 1.0]))


@given(systems(), st.integers(1, 2))
@settings(deadline=None)
def test_enough_steps_reach_the_solution(system, threads):
    matrix, y, dense, reg, offset = system
    x = np.random.default_rng(0).normal(size=(matrix.num_rows, y.shape[1])).astype(np.float32)
    half_sweep(matrix, x, y, dense, reg, offset=offset, steps=30, num_threads=threads)
    expected = half_sweep_reference(matrix, y, dense, reg, offset=offset)
    np.testing.assert_allclose(x, expected, rtol=2e-3, atol=2e-4)


def test_each_step_comes_nearer():
    rng = np.random.default_rng(1)
    matrix = CSR.from_rows([np.flatnonzero(rng.random(200) < 0.3) for _ in range(50)], 200)
    vectors, sizes, _ = np.linalg.svd(rng.normal(size=(200, 16)), full_matrices=False)
    y, dense = (vectors * sizes).astype(np.float32), (0.1 * sizes**2).astype(np.float32)
    reg = np.full(50, 0.5, np.float32)
    expected = half_sweep_reference(matrix, y, dense, reg)
    errors = []
    for steps in range(4):
        x = np.zeros((50, 16), np.float32)
        half_sweep(matrix, x, y, dense, reg, steps=steps)
        errors.append(np.abs(x - expected).max())
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.05 * errors[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_do_not_change_a_digit(threads):
    rng = np.random.default_rng(2)
    matrix = CSR.from_rows([np.flatnonzero(rng.random(60) < 0.3) for _ in range(1500)], 60)
    y, dense = rng.normal(size=(60, 8)).astype(np.float32), np.ones(8, np.float32)
    reg = np.ones(1500, np.float32)
    one, other = np.zeros((2, 1500, 8), np.float32)
    half_sweep(matrix, one, y, dense, reg, num_threads=1)
    half_sweep(matrix, other, y, dense, reg, num_threads=threads)
    assert (one == other).all()


@given(systems(), st.sampled_from([0.0, 1.0]))
@settings(deadline=None)
def test_the_loss_is_the_reference(system, exponent):
    matrix, y, _, _, offset = system
    x = np.random.default_rng(3).normal(size=(matrix.num_rows, y.shape[1])).astype(np.float32)
    objective = Objective(0.3, 0.2, exponent, offset)
    expected = loss_reference(matrix, x, y, objective)
    assert loss(matrix, x, y, objective, 2) == pytest.approx(expected, rel=1e-5, abs=1e-4)


@given(systems())
@settings(deadline=None)
def test_transposed_by_counting_as_by_sorting(system):
    matrix = system[0]
    for one in (matrix, replace(matrix, values=None)):
        found = transpose(one)
        for expected in (transpose_reference(one), one.transpose()):
            assert found.indptr.tolist() == expected.indptr.tolist()
            assert found.indices.tolist() == expected.indices.tolist()
            assert found.weights().tolist() == expected.weights().tolist()
            assert found.num_cols == expected.num_cols == matrix.num_rows


@pytest.mark.parametrize(("m", "d"), [(0, 3), (1, 1), (7, 5), (4097, 4), (140_000, 3)])
def test_the_gram_matrix_is_the_reference_and_its_digits_know_no_threads(m, d):
    y = np.random.default_rng(6).normal(size=(m, d)).astype(np.float32)
    with threadpool_limits(1, "blas"):
        found = gram(y)
        assert (gram(y, 2) == found).all()
    np.testing.assert_allclose(found, gram_reference(y), rtol=1e-4, atol=1e-5 * max(m, 1))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_turn_is_the_reference(threads):
    rng = np.random.default_rng(7)
    scale = 2.0 ** np.arange(6)  # so that no two columns are as long, and none can be exchanged
    x, y = (rng.normal(size=(n, 6)).astype(np.float32) for n in (1100, 3000))
    y = np.ascontiguousarray(y * scale, np.float32)
    turned_x, turned_y, expected = turn_reference(x, y)
    np.testing.assert_allclose(turn(x, y, threads), expected, rtol=1e-4)
    np.testing.assert_allclose(np.abs(x), np.abs(turned_x), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.abs(y), np.abs(turned_y), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(("n", "m", "d"), [(3, 2500, 5), (1, 2, 4), (0, 1, 1)])
def test_a_turn_keeps_the_products_and_makes_the_gram_matrix_diagonal(n, m, d):
    rng = np.random.default_rng(4)
    x, y = (rng.normal(size=(rows, d)).astype(np.float32) for rows in (n, m))
    products, squares = x @ y.T, gram(y)
    diagonal = turn(x, y, 2)
    np.testing.assert_allclose(x @ y.T, products, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gram(y), np.diag(diagonal), rtol=1e-4, atol=1e-5 * squares.trace())
    assert (np.diff(diagonal) <= 0).all()


@pytest.mark.parametrize("relax", [0.5, 1.0, 1.6, 1.9])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_every_half_sweep_lowers_the_loss(relax, offset):
    rng = np.random.default_rng(5)
    matrix = CSR.from_rows([np.flatnonzero(rng.random(80) < 0.2) for _ in range(90)], 80)
    objective = Objective(1.0, 0.5, 0.0, offset)
    x, y = np.zeros((90, 6), np.float32), rng.random((80, 6), np.float32)
    across, last = transpose(matrix), np.inf
    for _ in range(10):
        for rows, left, right in ((matrix, x, y), (across, y, x)):
            dense, reg = turn(left, right), objective.strengths(rows.lengths, len(right))
            half_sweep(rows, left, right, dense, reg, offset=offset, steps=2, relax=relax)
            now = loss(matrix, x, y, objective)
            assert now <= last * (1 + 1e-6)
            last = now
