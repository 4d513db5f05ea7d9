"""Tables as product codes: what they hold, what they cost, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from martlet.core import CSR, BundleError, SpecError
from martlet.kernels.topk import topk_dot
from martlet.scorers.pq import ProductQuantized
from martlet.scorers.storages import storage_of
from martlet.scorers.table import Table

N, D = 3000, 20
NAMES = ("pq:8x4", "pq:7x8", "pq:10x4+10x4", "pq:10x4+5x8")


def vectors(n: int = N, d: int = D, seed: int = 0) -> np.ndarray:
    """Return rows whose columns are correlated and of unequal spread."""
    random = np.random.default_rng(seed)
    mix = np.random.default_rng(9).standard_normal((d, d)) * 0.8 ** np.arange(d)[:, None]
    return (random.standard_normal((n, d)) @ mix).astype(np.float32)


TABLE = Table.of(vectors())


@pytest.fixture(params=NAMES, scope="module")
def table(request):
    return TABLE.to(request.param)


def error(table: Table, queries: np.ndarray) -> float:
    exact = TABLE.dense() @ queries.T
    return float(np.square(table.dense() @ queries.T - exact).mean() / exact.var())


def test_rows_are_near_and_take_the_bytes_that_are_told(table):
    table.check("items")
    kept = 1 - np.square(table.dense() - TABLE.dense()).sum() / np.square(TABLE.dense()).sum()
    assert kept > {"pq:8x4": 0.75, "pq:7x8": 0.85}.get(table.storage, 0.95)
    kind = table.kind
    codes = sum(quantizer.width for quantizer in kind._quantizers)
    books = sum(int(np.prod(quantizer.books(D))) for quantizer in kind._quantizers)
    padded = (-N % 64) * kind.coarse.width
    assert table.nbytes == N * codes + padded + 2 * books + 2 * D * D + 4
    assert kind.pays(TABLE)


def test_rows_are_read_by_place_and_by_slice(table):
    at = np.array([5, 0, 2999, 5], np.int32)
    np.testing.assert_array_equal(table.rows(at), table.dense()[at])
    np.testing.assert_array_equal(table.rows(slice(10, 20)), table.dense()[10:20])
    assert table.rows(np.zeros(0, np.int32)).shape == (0, D)


def test_the_search_is_that_of_the_rows(table):
    queries = vectors(6, seed=3)
    hidden = CSR.from_rows([[0, 5], [], [7], [], [], []], N)
    allow = np.random.default_rng(0).random(N) < 0.9
    rows, scores = table.kind.topk(table, queries, 10, hidden, allow, 2)
    exact = topk_dot(queries, np.ascontiguousarray(table.dense().T), 10, hidden, allow)
    if table.kind.fine is None:
        np.testing.assert_array_equal(rows, exact[0])
        np.testing.assert_array_equal(scores, exact[1])
    else:  # among those that are best by the coarse codes
        assert (rows[:, :, None] == exact[0][:, None]).any(2).mean() > 0.9
        again = np.take_along_axis(queries @ table.dense().T, rows.astype(np.int64), 1)
        np.testing.assert_allclose(scores, again, rtol=1e-4, atol=1e-4)


def test_the_same_codes_whatever_the_threads(table, monkeypatch):
    monkeypatch.setenv("MARTLET_THREADS", "2")
    again = TABLE.to(table.storage)
    for name, array in table.arrays.items():
        np.testing.assert_array_equal(array, again.arrays[name], err_msg=name)


@pytest.mark.parametrize("name", ["pq:10x4", "pq:10x4+10x4"])
def test_known_queries_make_errors_of_scores_smaller(name):
    queries = vectors(500, seed=4) * 3.0 ** -np.arange(D, dtype=np.float32)
    moment = queries.astype(np.float64).T @ queries / len(queries)
    assert error(TABLE.to(name, moment), queries) < 0.8 * error(TABLE.to(name), queries)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_scale_of_a_table_does_not_matter(scale):
    other = Table.of(TABLE.dense() * np.float32(scale)).to("pq:10x8").dense() / scale
    one = TABLE.to("pq:10x8").dense()
    off = [np.square(rows - TABLE.dense()).mean() for rows in (one, other)]
    assert abs(off[0] - off[1]) < 0.05 * off[0]


def test_rows_of_zeros_and_constant_columns_stay_what_they_are():
    values = np.zeros((300, 4), np.float32)
    np.testing.assert_array_equal(Table.of(values).to("pq:2x8").dense(), values)
    values[:, 1] = 3
    np.testing.assert_allclose(Table.of(values).to("pq:4x8").dense(), values, atol=2e-3)


@pytest.mark.parametrize(
    ("values", "name", "words"),
    [
        (vectors(200), "pq:4x8", "200 rows are too few to learn codebooks of 256 entries"),
        (vectors(15), "pq:4x4", "15 rows are too few"),
        (vectors(200), "pq:4x4+4x8", "200 rows are too few to learn codebooks of 256"),
        (vectors(), "pq:21x4", "20 columns cannot be cut into 21 runs"),
        (np.where(vectors() > 5, np.nan, vectors()), "pq:4x4", "not finite"),
    ],
)
def test_what_cannot_be_coded_is_refused_by_name(values, name, words):
    with pytest.raises(SpecError, match=words):
        Table.of(values).to(name)


@pytest.mark.parametrize("option", ["", "16", "16x", "0x4", "16x5", "4x4+", "4x4+4x4+4x4", "axb"])
def test_an_unknown_text_is_refused(option):
    with pytest.raises(SpecError, match=r"expected such as pq:16x8"):
        storage_of(f"pq:{option}")


def test_a_few_rows_do_not_pay():
    few = Table.of(vectors(40))
    assert not ProductQuantized.of("pq", "8x8").pays(few)
    assert not ProductQuantized.of("pq", "1x4").pays(Table.of(np.ones((20, 1))))
    assert not ProductQuantized.of("pq", "20x8+20x8").pays(Table.of(vectors(260)))


@pytest.mark.parametrize("array", ["codebooks", "basis", "unit", "fine_codebooks"])
def test_a_codebook_that_is_not_finite_is_refused(array):
    table = TABLE.to("pq:10x4+10x4")
    spoilt = np.array(table.arrays[array])
    spoilt.flat[0] = np.nan
    with pytest.raises(BundleError, match=f"table items has {array} with a number"):
        Table(table.storage, table.shape, {**table.arrays, array: spoilt}).check("items")
