import numpy as np
import pytest

import martlet as mt
from martlet.core import CSR, SpecError, rng
from martlet.data import RandomSplit, prepare
from martlet.data.synthetic import synthesize
from martlet.models.matrix_factorization import MatrixFactorization, _Prepared, _squared
from support.sequences import ring

EXAMPLE = np.array([[1, 2, 0], [0, 1, 2], [2, 0, 1]], np.float32)


def observed(dense):
    rows = [np.flatnonzero(row) for row in dense]
    return CSR.from_rows(
        rows, dense.shape[1], [row[at] for row, at in zip(dense, rows, strict=True)]
    )


def run(spec, matrix, seed=0):
    steps = list(spec.steps(matrix, seed))
    users, items, _ = steps[-1]
    return users, items, [loss for _, _, loss in steps]


def loss_of(kind, cells, dense, users, items, reg=0.0):
    score = users.astype(np.float64) @ items.T
    each = (score - dense) ** 2 if kind == "squared" else np.log1p(np.exp(score)) - dense * score
    kept = each[dense > 0] if cells == "observed" else each
    return kept.sum() + reg * ((users**2).sum() + (items**2).sum())


class TestTheWorkedExample:
    """R = [[1, 2, 0], [0, 1, 2], [2, 0, 1]] with k = 2, where 0 is not known."""

    def test_the_observed_cells_are_met_by_plain_gradient_descent(self):
        spec = MatrixFactorization(
            dim=2, cells="observed", optimizer="descent", rate=0.05, epochs=2000
        )
        users, items, losses = run(spec, observed(EXAMPLE))
        known = EXAMPLE > 0
        np.testing.assert_allclose((users @ items.T)[known], EXAMPLE[known], atol=1e-3)
        assert (np.diff(losses) <= 1e-6).all()

    def test_all_cells_are_met_as_well_as_rank_two_can(self):
        spec = MatrixFactorization(dim=2, cells="all", optimizer="descent", rate=0.05, epochs=4000)
        users, items, losses = run(spec, observed(EXAMPLE))
        left = np.linalg.svd(EXAMPLE, compute_uv=False)[2] ** 2  # Eckart, Young
        assert losses[-1] == pytest.approx(left, rel=1e-3)
        assert loss_of("squared", "all", EXAMPLE, users, items) == pytest.approx(left, rel=1e-3)

    def test_the_first_step_by_hand(self):
        spec = MatrixFactorization(dim=2, cells="observed", optimizer="descent", rate=0.1, epochs=2)
        steps = spec.steps(observed(EXAMPLE), 3)
        start = rng(3, "matrix factorization").normal(0, 0.1, (6, 2)).astype(np.float32)
        u, v = start[:3].copy(), start[3:].copy()
        users, items, loss = next(steps)
        error = np.where(EXAMPLE > 0, u @ v.T - EXAMPLE, 0)
        assert loss == pytest.approx((error**2).sum(), rel=1e-5)
        np.testing.assert_allclose(users, u - 0.1 * 2 * error @ v, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(items, v - 0.1 * 2 * error.T @ u, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["squared", "logistic"])
@pytest.mark.parametrize("cells", ["observed", "all"])
def test_every_gradient_is_the_slope_of_its_loss(kind, cells, monkeypatch):
    monkeypatch.setattr("martlet.models.matrix_factorization._BLOCK_VALUES", 8)
    stream = np.random.default_rng(0)
    dense = np.where(stream.random((5, 4)) < 0.5, stream.random((5, 4)), 0).astype(np.float32)
    spec = MatrixFactorization(
        dim=3, loss=kind, cells=cells, optimizer="descent", rate=1e-3, epochs=2, reg=0.1
    )
    steps = spec.steps(observed(dense), 0)
    users, items, _ = next(steps)
    u, v = users.astype(np.float64), items.astype(np.float64)
    loss = loss_of(kind, cells, dense, u, v, 0.1)
    slopes = []
    for which in (u, v):
        slope = np.zeros_like(which)
        for at in np.ndindex(*which.shape):
            which[at] += 1e-5
            slope[at] = (loss_of(kind, cells, dense, u, v, 0.1) - loss) / 1e-5
            which[at] -= 1e-5
        slopes.append(slope)
    again, items_again, told = next(steps)
    assert told == pytest.approx(loss, rel=1e-4)
    np.testing.assert_allclose((u - again) / 1e-3, slopes[0], atol=5e-3)
    np.testing.assert_allclose((v - items_again) / 1e-3, slopes[1], atol=5e-3)


def test_adam_takes_the_steps_of_the_paper():
    spec = MatrixFactorization(dim=2, optimizer="adam", rate=0.1, epochs=3)
    both = [np.concatenate(step[:2]).copy() for step in spec.steps(observed(EXAMPLE), 0)]
    first = second = np.zeros_like(both[0])
    of = _Prepared(observed(EXAMPLE), False, "all")
    for step in (1, 2):
        _, slope = _squared(of, both[step - 1][:3], both[step - 1][3:])
        if step == 1:
            start = rng(0, "matrix factorization").normal(0, 0.1, (6, 2)).astype(np.float32)
            _, before = _squared(of, start[:3], start[3:])
            first, second = 0.1 * before, 0.001 * before**2
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        hat = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        expected = both[step - 1] - 0.1 * hat[0] / (np.sqrt(hat[1]) + 1e-8)
        np.testing.assert_allclose(both[step], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["descent", "adam", "sgd"])
@pytest.mark.parametrize("kind", ["squared", "logistic"])
def test_every_way_goes_down(optimizer, kind):
    dense = (np.random.default_rng(0).random((12, 9)) < 0.4).astype(np.float32)
    spec = MatrixFactorization(
        dim=4, loss=kind, cells="observed", optimizer=optimizer, rate=0.02, epochs=600
    )
    losses = run(spec, observed(dense))[2]
    assert losses[-1] < 0.5 * losses[0]


def test_it_recommends(tmp_path):
    data = ring(users=200)
    bundle = mt.fit(MatrixFactorization(dim=6, cells="all", epochs=150, reg=1.0), data, seed=0)
    bundle.save(tmp_path / "b")
    answer = mt.load(tmp_path / "b").recommend(data.users.names([0]), k=3)[0]
    assert len(answer.item_ids) == 3
    popular = mt.evaluate(mt.fit(mt.Popularity(), data), data).figures["ndcg@10"]
    assert mt.evaluate(bundle, data).figures["ndcg@10"] > popular


SAMPLED = {"cells": "sampled", "optimizer": "sgd", "loss": "logistic", "rate": 0.05}


@pytest.mark.parametrize("biases", [False, True])
def test_drawn_cells_make_a_ranking(biases):
    log = synthesize(num_users=300, num_items=150, num_events=9000, seed=4)
    data = prepare({"user": log.user_row, "item": log.item_row}, split=RandomSplit(0.1, 0.2))
    spec = MatrixFactorization(dim=16, epochs=60, reg=0.05, negatives=3, biases=biases, **SAMPLED)
    bundle = mt.fit(spec, data, seed=0)
    popular = mt.evaluate(mt.fit(mt.Popularity(), data), data).figures["ndcg@10"]
    assert mt.evaluate(bundle, data).figures["ndcg@10"] > popular + 0.03
    assert bundle.scorer.items.nbytes == spec.bytes(data.num_items)


def test_what_a_bias_adds_is_a_column():
    dense = (np.random.default_rng(0).random((30, 20)) < np.linspace(0.9, 0.1, 20)).astype("f4")
    spec = MatrixFactorization(dim=3, epochs=60, negatives=2, biases=True, **SAMPLED)
    users, items, _ = run(spec, observed(dense))
    assert (users[:, 3] == 1).all()
    assert np.corrcoef(items[:, 3], dense.sum(0))[0, 1] > 0.9
    assert items[observed(dense).indices, 3].mean() == pytest.approx(1, abs=1e-4)


def test_the_loss_of_drawn_cells_falls():
    dense = (np.random.default_rng(0).random((40, 30)) < 0.2).astype("f4")
    for kind in ("logistic", "squared"):
        spec = MatrixFactorization(dim=8, epochs=80, negatives=2, **(SAMPLED | {"loss": kind}))
        losses = run(spec, observed(dense))[2]
        assert losses[-1] < 0.6 * losses[0]


def test_the_number_of_threads_does_not_touch_drawn_cells(monkeypatch):
    monkeypatch.setattr("martlet.kernels.parts._LEAST", 5)
    matrix = observed((np.random.default_rng(0).random((40, 30)) < 0.2).astype("f4"))
    found = []
    for threads in ("1", "2"):
        monkeypatch.setenv("MARTLET_THREADS", threads)
        spec = MatrixFactorization(dim=5, epochs=3, biases=True, **SAMPLED)
        found.append(run(spec, matrix))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_full_matrix_and_a_sparse_one_take_the_same_steps(monkeypatch):
    dense = np.random.default_rng(0).random((30, 20)).astype("f4")
    dense[dense < 0.5] = 0
    found = []
    for most in (1 << 25, 0):
        monkeypatch.setattr("martlet.models.matrix_factorization._DENSE_VALUES", most)
        found.append(run(MatrixFactorization(dim=4, rate=0.01, epochs=20), observed(dense)))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"rate": float("inf")}, "rate is inf"),
        ({"reg": -1.0}, "reg is -1"),
        ({"optimizer": "sgd", "cells": "all"}, "sgd moves after every observed cell"),
        ({"cells": "sampled"}, "optimizer is 'adam' and cells 'sampled'"),
        ({"biases": True}, "biases go with cells='sampled'"),
        ({"negatives": 0}, "negatives is 0"),
    ],
)
def test_settings_that_make_no_sense(wrong, why):
    with pytest.raises(SpecError, match=why):
        MatrixFactorization(**wrong)


def test_a_loss_that_grows_without_bound_is_told():
    spec = MatrixFactorization(dim=2, optimizer="descent", rate=50.0, epochs=50)
    with np.errstate(all="ignore"), pytest.raises(SpecError, match="grew without bound by epoch"):
        run(spec, observed(EXAMPLE))
    spec = MatrixFactorization(
        dim=2, cells="sampled", optimizer="sgd", rate=1e6, negatives=1, epochs=50
    )
    with np.errstate(all="ignore"), pytest.raises(SpecError, match="grew without bound by epoch"):
        run(spec, observed(EXAMPLE))


def test_the_logistic_loss_takes_shares():
    with pytest.raises(SpecError, match="the weights reach 2: the logistic loss expects 0 to 1"):
        run(MatrixFactorization(loss="logistic"), observed(EXAMPLE))
