from types import SimpleNamespace

import numpy as np
import pytest

from martlet.core import CSR, SpecError
from martlet.kernels.ials import Objective, gram, loss
from martlet.models.ials import IALS, sweeps


@pytest.fixture
def matrix():
    """Two halves of users that meet two halves of items, and an item that nobody met."""
    rng = np.random.default_rng(0)
    half = [np.flatnonzero(rng.random(20) < 0.5) + 20 * (user % 2) for user in range(60)]
    return CSR.from_rows(half, 41)


def run(matrix, objective, sweeps_, **options):
    start = np.random.default_rng(1).random((matrix.num_cols, 6), np.float32) * np.float32(0.01)
    return [
        loss(matrix, *at, objective) for at in sweeps(matrix, start, objective, sweeps_, **options)
    ]


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_sweeps_lower_the_loss_to_the_same_end_and_sooner_when_over_relaxed(matrix, exponent):
    objective = Objective(1.0, 0.05, exponent, 1.0)
    plain, relaxed = (run(matrix, objective, 200, relax=relax) for relax in (1.0, 1.6))
    for losses in (plain, relaxed):
        assert (np.diff(losses) <= 1e-5 * losses[0]).all()
    assert relaxed[-1] == pytest.approx(plain[-1], rel=5e-3)
    near = 1.01 * min(plain[-1], relaxed[-1])
    assert sum(value > near for value in relaxed) <= sum(value > near for value in plain)


def test_the_factors_tell_the_halves_apart_and_lie_on_the_principal_axes(matrix):
    users, items = IALS(dim=4).factorize(matrix)
    scores = users @ items.T
    assert scores[::2, :20].mean() > 5 * abs(scores[::2, 20:40].mean())
    assert not items[40].any()
    shape = gram(items)
    assert np.abs(shape - np.diag(np.diag(shape))).max() < 1e-4 * shape.max()
    assert (np.diff(np.diag(shape)) <= 1e-6 * shape.max()).all()


def test_the_same_seed_gives_the_same_digits_whatever_the_threads(matrix, monkeypatch):
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("MARTLET_THREADS", threads)
        found.append(IALS(dim=4).factorize(matrix, seed=3)[1])
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize("wrong", [{"relax": 2.0}, {"relax": 0.0}, {"relax": float("nan")}])
def test_a_step_of_twice_its_best_length_is_refused(wrong):
    with pytest.raises(SpecError, match=r"relax is .*: expected a number above 0 and below 2"):
        IALS(**wrong)


def test_vectors_that_no_memory_holds_are_refused(matrix, monkeypatch):
    with pytest.raises(SpecError, match=r"ials of dim 10,000,000 needs at least 4,0.* smaller dim"):
        IALS(dim=10**7).factorize(matrix)
    monkeypatch.setattr("martlet.core.memory.memory_bytes", lambda: 4 * 101 * 4 + 40 * 16 - 1)
    with pytest.raises(SpecError, match="ials of dim 4 needs at least"):
        IALS(dim=4).factorize(matrix)


@pytest.mark.parametrize("value", [-0.1, 2.1, float("nan")])
def test_an_exponent_that_no_float_survives_is_refused(value):
    with pytest.raises(SpecError, match=f"reg_exponent is {value}: expected a number from 0 to 2"):
        IALS(reg_exponent=value)


def test_costs_follow_the_formula(matrix):
    dataset = SimpleNamespace(train=SimpleNamespace(matrix=matrix))
    spec = IALS(dim=8, iterations=3, steps=2)
    assert spec.flops(dataset) == 3 * (8 * matrix.nnz * 8 * 3 + 10 * (60 + 41) * 64)
    assert spec.bytes(41) == 4 * (41 * 8 + 64)


def test_without_a_weight_the_share_of_pairs_that_met_gives_one(matrix):
    found = IALS().objective(matrix).unobserved_weight
    assert found == pytest.approx(min(0.4, 1.5 * (matrix.nnz / (60 * 41)) ** 0.5))
    thin = CSR.from_rows([[at] for at in range(100)], 100)
    assert IALS().objective(thin).unobserved_weight == pytest.approx(0.15)
    assert IALS(unobserved_weight=0.3).objective(thin).unobserved_weight == 0.3
