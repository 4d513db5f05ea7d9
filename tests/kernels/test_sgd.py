import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from martlet.core import CSR
from martlet.kernels import parts as cut
from martlet.kernels.sgd import (
    bpr_epoch,
    bpr_epoch_reference,
    drawn_epoch,
    drawn_epoch_reference,
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


def pair(users, items, dim):
    """Return the same factors twice."""
    stream = np.random.default_rng(9)
    start = [stream.normal(0, 0.3, (n, dim)).astype(np.float32) for n in (users, items)]
    return start, [one.copy() for one in start]


def some_events(users, items, share, seed):
    met = np.random.default_rng(seed).random((users, items)) < share
    return CSR.from_rows([np.flatnonzero(row) for row in met], items)


@pytest.fixture(params=[1, 3], ids=["one part", "three parts"])
def parts(request, monkeypatch):
    """A catalogue of nine items that is cut, or is not."""
    monkeypatch.setattr(cut, "_LEAST", 9 // request.param)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("logistic", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@given(st.integers(1, 6), st.integers(1, 35), st.integers(1, 4), st.integers(0, 2**64 - 1))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_pass_over_drawn_cells_is_that_of_the_formula(
    logistic, biased, users, dim, negatives, seed
):
    matrix, (ours, theirs) = some_events(users, 9, 0.5, seed), pair(users, 9, dim)
    matrix = CSR(matrix.indptr, matrix.indices, np.full(matrix.nnz, 0.75, np.float32), 9)
    biases = [pair(users, 9, 1)[0] for _ in range(2)]
    biases = [tuple(one[:, 0].copy() for one in both) if biased else None for both in biases]
    about = {"negatives": negatives, "rate": 0.02, "reg": 0.01, "logistic": logistic, "seed": seed}
    found = drawn_epoch(matrix, *ours, biases[0], **about, num_threads=2)
    expected = drawn_epoch_reference(matrix, *theirs, biases[1], **about)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    # An item that is drawn twice in a step moves twice, between which the kernel reads it.
    for a, b in zip([*ours, *(biases[0] or ())], [*theirs, *(biases[1] or ())], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("parts")
@given(st.integers(1, 6), st.integers(1, 35), st.integers(0, 2**64 - 1))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_pass_over_pairs_is_that_of_the_formula(users, dim, seed):
    matrix, (ours, theirs) = some_events(users, 9, 0.5, seed), pair(users, 9, dim)
    about = {"rate": 0.05, "reg": 0.01, "seed": seed}
    found = bpr_epoch(matrix, *ours, **about, num_threads=2)
    assert found == pytest.approx(bpr_epoch_reference(matrix, *theirs, **about), rel=1e-4, abs=1e-6)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_who_met_everything_is_passed_over():
    matrix = CSR.from_rows([range(3)], 3)
    users, items = np.ones((1, 2), np.float32), np.ones((3, 2), np.float32)
    assert bpr_epoch(matrix, users, items, rate=0.1, reg=0.1, seed=0, num_threads=1) == 0
    assert (users == 1).all()
    assert (items == 1).all()


def test_events_are_taken_once_and_items_are_drawn_evenly_among_those_not_met():
    matrix = some_events(40, 30, 0.3, 0)
    times, drawn = np.zeros(matrix.nnz, int), np.zeros((40, 30), int)
    for seed in range(150):
        for user, at, others in cut.events_reference(matrix, 2, seed):
            times[at] += 1
            np.add.at(drawn[user], others, 1)
    assert (times == 150).all()
    met = np.zeros((40, 30), bool)
    met[matrix.row_numbers(), matrix.indices] = True
    assert (drawn[met] == 0).all()
    expected = 300 * matrix.lengths / (30 - matrix.lengths)  # of each item that was not met
    off = (drawn - expected[:, None]) / np.sqrt(expected)[:, None]
    assert abs(off[~met]).max() < 5


def test_the_number_of_threads_touches_no_digit(monkeypatch):
    monkeypatch.setattr(cut, "_LEAST", 20)
    matrix, found = some_events(60, 90, 0.2, 1), []
    for threads in (1, 2, 4):
        (users, items), biases = pair(60, 90, 33)[0], (np.zeros(60, "f4"), np.zeros(90, "f4"))
        loss = drawn_epoch(
            matrix, users, items, biases, negatives=3, rate=0.01, reg=0.0, logistic=True, seed=7,
            num_threads=threads,
        )  # fmt: skip
        loss += bpr_epoch(matrix, users, items, rate=0.01, reg=0.0, seed=8, num_threads=threads)
        found.append([users, items, *biases, loss])
    for one in found[1:]:
        for a, b in zip(found[0], one, strict=True):
            np.testing.assert_array_equal(a, b)


def test_scores_beyond_the_exponent_have_a_finite_loss():
    matrix = CSR.from_rows([[0]], 2)
    users, items = np.array([[200.0]], np.float32), np.array([[-1.0], [1.0]], np.float32)
    loss = drawn_epoch(
        matrix, users, items, None, negatives=1, rate=1e-9, reg=0.0, logistic=True, seed=0,
        num_threads=1,
    )  # fmt: skip
    assert loss == pytest.approx(400)
