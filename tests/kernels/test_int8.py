"""The int8 search finds what a float32 search of every row finds, digit for digit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from martlet.core import CSR
from martlet.kernels.codes import GAIN, Codes
from martlet.kernels.dots import half_dots, join
from martlet.kernels.int8 import (
    _half_products,
    best_rows,
    best_rows_reference,
    products,
    topk_int8,
    topk_int8_reference,
)
from martlet.kernels.topk import topk_dot

ROOT = Path(__file__).parents[2]
LAYOUTS = ("whole", "halves", "alone", "affine", "columns", "affine columns")
KINDS = ("normal", "ties", "zeros", "scales", "tiny", "same", "clusters")


def make(kind: str, n: int, d: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    values = random.standard_normal((n, d)).astype(np.float32)
    match kind:
        case "ties":
            return np.rint(values).astype(np.float32)
        case "zeros":
            return values * (random.random((n, 1)) < 0.3)
        case "scales":
            return values * np.float32(10) ** random.integers(-18, 15, (n, 1)).astype(np.float32)
        case "tiny":
            return values * np.float32(1e-38)
        case "same":
            return np.repeat(values[:1], n, axis=0)
        case "clusters":
            near = np.float32(1e-4) * values
            return near + random.standard_normal((2, d)).astype(np.float32)[np.arange(n) % 2]
    return values


def laid_out(layout: str, vectors: np.ndarray) -> tuple[Codes, np.ndarray]:
    """Return the codes in one of the layouts, and the vectors that count there."""
    codes = Codes.of(vectors)
    if layout == "halves":
        return codes.halved(), vectors
    if layout == "alone":
        vectors = codes.values.astype(np.float32) * codes.scale[:, None]
        return Codes(codes.values, codes.scale), vectors
    if layout in ("affine", "columns", "affine columns"):
        sizes = np.abs(np.random.default_rng(1).standard_normal((2, max(vectors.shape))))
        per = vectors.shape[1] if "columns" in layout else len(vectors)
        scale, zero = sizes.astype(np.float32)[:, :per]
        if layout == "affine":
            codes = Codes(codes.values, scale, zero=zero)
        else:
            zero = zero if "affine" in layout else None
            codes = Codes(codes.values, scale[:0], columns=scale, zero=zero)
        return codes, codes.rows(np.arange(len(vectors)))
    return codes, vectors


def nibbles(plane: np.ndarray) -> np.ndarray:
    """Return the (n, 2 w) values of an (n, w) plane of two values a byte, in NumPy."""
    runs = plane.reshape(len(plane), -1, 1, 16) >> np.array([[0], [4]], np.uint8) & 15
    return runs.reshape(len(plane), -1).astype(np.int64)


def numbers(codes: Codes) -> np.ndarray:
    """Return the whole codes of any layout, in NumPy."""
    if codes.low is None:
        return codes.values.astype(np.int64)
    return 16 * nibbles(codes.values) + nibbles(codes.low) - 128


def same(found, expected) -> None:
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    query_kind=st.sampled_from(KINDS),
    n=st.integers(1, 700),
    d=st.integers(1, 70),
    size=st.integers(1, 4),
    k=st.integers(1, 12) | st.just(900),
    seed=st.integers(0, 999),
    hide=st.booleans(),
    restrict=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    threads=st.integers(1, 2),
)
def test_finds_what_float32_finds(
    kind, query_kind, n, d, size, k, seed, hide, restrict, layout, threads
):
    queries = make(query_kind, size, d, seed + 1)
    codes, vectors = laid_out(layout, make(kind, n, d, seed))
    random = np.random.default_rng(seed)
    hidden = allow = None
    if hide:
        rows = [np.flatnonzero(random.random(n) < random.random()) for _ in range(size)]
        hidden = CSR.from_rows(rows, n)
    if restrict:
        allow = random.random(n) < 0.5
    rows, scores, count = topk_int8(queries, codes, k, hidden, allow, threads)
    transposed = np.ascontiguousarray(vectors.T)
    same((rows, scores), topk_dot(queries, transposed, k, hidden, allow, threads))
    reference = topk_int8_reference(queries, codes, k, hidden, allow)
    magnitude = np.abs(queries).astype(float) @ np.abs(transposed).astype(float)
    shown = np.isfinite(reference[1])
    assert (np.isfinite(scores) == shown).all()
    largest = np.repeat(magnitude.max(1)[:, None], k, axis=1)[shown]
    assert (np.abs(scores[shown] - reference[1][shown]) <= 1e-5 * largest + 1e-40).all()
    assert (count >= (rows >= 0).sum(1)).all()
    assert (count <= n).all()


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    query_kind=st.sampled_from(KINDS),
    d=st.integers(1, 130),
    seed=st.integers(0, 999),
    layout=st.sampled_from(LAYOUTS),
)
def test_the_bound_holds_for_every_row(kind, query_kind, d, seed, layout):
    query = make(query_kind, 1, d, seed + 1)
    codes, vectors = laid_out(layout, make(kind, 200, d, seed))
    z, error, slack, shift = codes.bounds(query)
    whole = numbers(codes)
    asked = query[0].astype(float) * (1 if codes.columns is None else codes.columns)
    step = np.abs(asked).max() / min(32767, (2**31 - 1) // (128 * d)) or 1.0
    coarse = whole @ z[0].astype(np.int64)
    if layout == "halves":
        near, middle, further = codes.half_bounds(z)
        products = np.empty(200, np.int32)
        _half_products(codes.values, near[0], products)
        assert (np.abs(coarse - GAIN * products.astype(np.int64) - middle) <= further).all()
    exact = vectors.astype(float) @ query[0].astype(float)
    # In the kernel's unit: a step of the query times the largest scale's power of two.
    scale = (codes.scale if codes.columns is None else np.ones(200)).astype(float) * codes.unit
    estimate = scale * coarse
    if codes.zero is not None:
        each = codes.zero.astype(float)
        known = each * shift[0] if codes.columns is None else each @ query[0] / step * codes.unit
        estimate = estimate + known
    off = np.abs(exact / step * codes.unit - estimate)
    assert (off <= scale * float(error[0]) + float(slack[0])).all()


@pytest.mark.parametrize("layout", ["whole", "halves"])
@pytest.mark.parametrize(("n", "k"), [(300_000, 10), (100_000, 7)])
def test_threads_and_batches_change_nothing_and_few_rows_are_scored_again(n, k, layout):
    vectors, queries = make("normal", n, 24, 3), make("normal", 5, 24, 4)
    codes, _ = laid_out(layout, vectors)
    one = topk_int8(queries, codes, k, threads=1)
    two = topk_int8(queries, codes, k, threads=2)
    same(one, two)
    np.testing.assert_array_equal(one[2], two[2])
    for b in range(5):
        alone = topk_int8(queries[b : b + 1], codes, k, threads=2)
        same(alone, (one[0][b : b + 1], one[1][b : b + 1]))
        assert alone[2][0] == one[2][b]
    assert one[2].max() < 40 * k


def test_a_row_that_nearly_vanishes_does_not_spoil_the_bound_of_the_others():
    vectors = make("normal", 5000, 16, 0)
    vectors[17] = 1e-45
    codes = Codes.of(vectors)
    queries = make("normal", 3, 16, 1)
    found = topk_int8(queries, codes, 5)
    same(found, topk_dot(queries, np.ascontiguousarray(vectors.T), 5))
    assert codes.residual < 4
    assert found[2].max() < 100


def test_equal_rows_are_all_scored_again_and_ordered_by_tie_key():
    vectors = make("same", 20_000, 8, 0)
    codes = Codes.of(vectors)
    found = topk_int8(np.ones((1, 8), np.float32), codes, 5)
    same(found, topk_int8_reference(np.ones((1, 8), np.float32), codes, 5))
    assert found[2][0] == 20_000


def pairs(size: int, n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return queries and rows of pairs drawn from all there are, in any order, each once."""
    random = np.random.default_rng(seed)
    drawn = random.permutation(size * n)[: round(share * size * n)]
    return (drawn // max(n, 1)).astype(np.int32), (drawn % max(n, 1)).astype(np.int32)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(0, 300),
    d=st.integers(1, 70),
    size=st.integers(0, 4),
    k=st.integers(1, 12) | st.just(400),
    share=st.floats(0, 1),
    spoilt=st.lists(st.sampled_from([np.nan, np.inf, -np.inf]), max_size=3),
    seed=st.integers(0, 999),
)
def test_the_best_of_given_pairs_are_those_of_the_reference(
    kind, n, d, size, k, share, spoilt, seed
):
    # Small whole numbers: sums are exact, so ties are ties in whatever way they are summed.
    vectors, queries = (np.rint(make("normal", m, d, seed + m)) for m in (n, size))
    query, row = pairs(size, n, share, seed)
    vectors[: len(spoilt), 0] = spoilt[:n]
    take = vectors.__getitem__
    same(best_rows(queries, take, query, row, k), best_rows_reference(queries, take, query, row, k))
    vectors, queries = make(kind, n, d, seed), make(kind, size, d, seed + 1)
    take = vectors.__getitem__
    _, scores = best_rows(queries, take, query, row, k)
    _, expected = best_rows_reference(queries, take, query, row, k)
    shown = np.isfinite(expected)
    np.testing.assert_array_equal(shown, np.isfinite(scores))
    largest = (np.abs(queries).astype(float) @ np.abs(vectors.T).astype(float)).max(1, initial=0)
    room = np.repeat(1e-5 * largest[:, None] + 1e-40, k, axis=1)
    assert (np.abs(scores[shown] - expected[shown]) <= room[shown]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_is_searched_row_by_row(bad):
    vectors, queries = make("normal", 500, 16, 1), make("normal", 2, 16, 2)
    worse_query = queries.copy()
    worse_query[0, 3] = bad
    transposed = np.ascontiguousarray(vectors.T)
    same(topk_int8(worse_query, Codes.of(vectors), 5), topk_dot(worse_query, transposed, 5))
    vectors[7, 2] = bad
    transposed = np.ascontiguousarray(vectors.T)
    same(topk_int8(queries, Codes.of(vectors), 5), topk_dot(queries, transposed, 5))


def test_no_rows_and_no_queries():
    nothing = Codes.of(np.empty((0, 4), np.float32))
    rows, scores, count = topk_int8(np.ones((2, 4), np.float32), nothing, 3)
    assert rows.tolist() == [[-1] * 3] * 2
    assert (scores == -np.inf).all()
    assert count.tolist() == [0, 0]
    rows, _, count = topk_int8(np.ones((0, 4), np.float32), Codes.of(np.eye(4, dtype="f4")), 3)
    assert rows.shape == (0, 3)
    assert count.shape == (0,)


def test_a_scan_moves_a_quarter_of_the_bytes_and_the_scales():
    codes = Codes.of(make("normal", 1000, 64, 0))
    assert codes.nbytes == 1000 * (64 + 4)


@pytest.mark.parametrize("d", [1, 15, 16, 17, 64, 100, 600])
@pytest.mark.parametrize("n", [1, 8, 13, 64])
def test_the_coarse_products_are_exact_whole_numbers(n, d):
    random = np.random.default_rng(n + d)
    values = random.choice(np.array([-128, -127, 3, 127], np.int8), (n, d))
    limit = min(32767, (2**31 - 1) // (128 * d))
    z = random.choice(np.array([-limit, 1, limit], np.int16), d)
    values[0], z[:] = -128, -limit  # the largest sum there can be
    total = np.empty(max(n, 8), np.int32)
    products(values, z, total)
    np.testing.assert_array_equal(total[:n], values.astype(np.int64) @ z.astype(np.int64))


@pytest.mark.parametrize("d", [1, 32, 33, 64, 100])
def test_halves_are_the_same_codes_in_as_many_bytes(d):
    values = np.random.default_rng(d).integers(-128, 128, (37, d)).astype(np.int8)
    halves = Codes(values, np.ones(37, np.float32)).halved()
    whole = numbers(halves)
    np.testing.assert_array_equal(whole[:, :d], values)
    np.testing.assert_array_equal(nibbles(halves.values)[:, :d], (values >> 4) + 8)
    assert not whole[:, d:].any()
    assert halves.values.nbytes + halves.low.nbytes == 37 * 32 * -(-d // 32)
    joined = np.full(whole.shape, 99, np.int8)
    _joined(halves.values, halves.low, joined)
    np.testing.assert_array_equal(joined, whole)


@pytest.mark.parametrize("d", [32, 64, 96, 608])
@pytest.mark.parametrize("n", [1, 8, 13])
def test_the_products_of_halves_are_exact_whole_numbers(n, d):
    random = np.random.default_rng(n + d)
    pairs = random.integers(0, 256, (n, d // 2)).astype(np.uint8)
    pairs[0] = 255
    query = random.choice(np.array([-128, -127, 1, 127], np.int8), d)
    query[: d // 2] = -128  # the largest sums there can be
    total = np.empty(max(n, 8), np.int32)
    runs = query.reshape(-1, 2, 16).swapaxes(0, 1)
    _half_products(pairs, np.ascontiguousarray(runs).reshape(2, d // 2), total)
    np.testing.assert_array_equal(total[:n], nibbles(pairs) @ query.astype(np.int64))


def test_a_machine_without_avx2_gets_the_same_products(monkeypatch):
    pairs = np.random.default_rng(0).integers(0, 256, (8, 48)).astype(np.uint8)
    query = np.random.default_rng(1).integers(-128, 128, (2, 48)).astype(np.int8)
    found = []
    for chosen in (None, "+sse2"):
        monkeypatch.setattr("martlet.kernels.dots.config.CPU_FEATURES", chosen)

        @njit
        def products(values, query, out):
            half_dots(values, 0, query, out)

        out = np.empty(8, np.int32)
        products(pairs, query, out)
        found.append(out)
    np.testing.assert_array_equal(*found)
    low, high = pairs & 15, pairs >> 4
    expected = low @ query[0].astype(np.int64) + high @ query[1].astype(np.int64)
    np.testing.assert_array_equal(found[0], expected)


@njit
def _joined(high, low, out):
    join(high, low, out)


@pytest.mark.parametrize(("vectors", "name"), [("gaussian", "Gaussian"), ("factors", "factors of")])
def test_the_decision_tells_what_was_measured_last(vectors, name):
    page = (ROOT / "docs/decisions/int8-search.md").read_text()
    lines = (ROOT / "results/int8_search.jsonl").read_text().splitlines()
    newest = {
        line["batch"]: line
        for line in map(json.loads, lines)
        if line["vectors"] == vectors and not line["tiny"]
    }
    medians = {
        batch: {key: value["median"] for key, value in line["summary"].items()}
        for batch, line in newest.items()
    }
    searches = [f"{1e3 * medians[1][key]:.1f} ms" for key in ("martlet", "read", "numpy")]
    told = next(line for line in page.splitlines() if line.startswith(f"| {name}"))
    assert told.strip("| ").split(" | ")[1:] == [*searches, f"{newest[1]['speedup']:.1f}"]
    assert f"{newest[1]['rescored_mean']:.0f}" in page.split("## Halves")[0]
    assert f"({medians[64]['martlet_fp32'] / medians[64]['martlet']:.1f}\n  times at 64)" in page


def test_more_pairs_than_are_gathered_at_a_time_make_one_list():
    vectors, queries = np.rint(make("normal", 40_000, 4, 0)), np.rint(make("normal", 3, 4, 1))
    query, row = pairs(3, 40_000, 1, 2)
    take = vectors.__getitem__
    found = best_rows(queries, take, query, row, 9)
    same(found, best_rows_reference(queries, take, query, row, 9))
    same(found, topk_dot(queries, np.ascontiguousarray(vectors.T), 9))
