"""The search of product codes finds what a search of the decoded rows finds, digit for digit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import CSR
from martlet.kernels.codebooks import assign, assign_reference, entries_of, learn_codebooks, runs
from martlet.kernels.pq import topk_pq, topk_pq_reference
from martlet.kernels.product_codes import (
    ProductCodes,
    pack,
    paired,
    rows_reference,
    unpack,
    unpaired,
)
from martlet.kernels.topk import topk_dot

KINDS = ("normal", "ties", "zeros", "large", "tiny")


def books(kind: str, parts: int, bits: int, d: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    drawn = random.standard_normal((parts, 1 << bits, -(-d // parts))).astype(np.float32)
    match kind:
        case "ties":
            return np.rint(drawn)
        case "zeros":
            return np.zeros_like(drawn)
    return drawn * np.float32({"large": 1e15, "tiny": 1e-25}.get(kind, 1))


def make(
    kind: str, n: int, d: int, parts: int, bits: int, seed: int, fine: tuple[int, int] | None = None
) -> ProductCodes:
    random = np.random.default_rng(seed)
    basis = np.eye(d) if kind == "ties" else random.standard_normal((d, d))
    codes = random.integers(0, 1 << bits, (n, parts)).astype(np.uint8)
    coarse = pack(codes, bits), n, books(kind, parts, bits, d, seed), basis.astype(np.float32)
    if fine is None:
        return ProductCodes(*coarse)
    more = random.integers(0, 1 << fine[1], (n, fine[0])).astype(np.uint8)
    return ProductCodes(*coarse, paired(more, fine[1]), books(kind, *fine, d, seed + 1) / 4)


def queries_of(size: int, d: int, seed: int, kind: str = "normal") -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((size, d)).astype(np.float32)
    return np.rint(drawn) if kind == "ties" else drawn


def same(found, expected) -> None:
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def of_all(queries, codes, k, hidden=None, allow=None):
    rows = codes.rows(np.arange(codes.num_rows))
    return topk_dot(queries, np.ascontiguousarray(rows.T), k, hidden, allow)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 700),
    d=st.integers(1, 40),
    share=st.floats(0, 1),
    bits=st.sampled_from([4, 8]),
    fine=st.none() | st.sampled_from([4, 8]),
    size=st.integers(1, 4),
    k=st.integers(1, 12) | st.just(900),
    seed=st.integers(0, 999),
    hide=st.booleans(),
    restrict=st.booleans(),
    threads=st.integers(1, 2),
)
def test_finds_what_a_search_of_the_decoded_rows_finds(
    kind, n, d, share, bits, fine, size, k, seed, hide, restrict, threads
):
    parts = 1 + round(share * (d - 1))
    codes = make(kind, n, d, parts, bits, seed, None if fine is None else (1 + parts // 2, fine))
    queries, random = queries_of(size, d, seed + 1, kind), np.random.default_rng(seed)
    hidden = allow = None
    if hide:
        rows = [np.flatnonzero(random.random(n) < random.random()) for _ in range(size)]
        hidden = CSR.from_rows(rows, n)
    if restrict:
        allow = random.random(n) < 0.5
    rows, scores, count = topk_pq(queries, codes, k, hidden, allow, threads)
    same((rows, scores), of_all(queries, codes, k, hidden, allow))
    assert (count >= (rows >= 0).sum(1)).all()
    if kind == "ties":  # whole numbers, exact in whatever way they are summed
        same((rows, scores), topk_pq_reference(queries, codes, k, hidden, allow))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 200),
    d=st.integers(1, 40),
    share=st.floats(0, 1),
    bits=st.sampled_from([4, 8]),
    fine=st.none() | st.sampled_from([4, 8]),
    seed=st.integers(0, 999),
)
def test_decodes_as_the_reference(n, d, share, bits, fine, seed):
    parts = 1 + round(share * (d - 1))
    codes = make("normal", n, d, parts, bits, seed, None if fine is None else (parts, fine))
    at = np.random.default_rng(seed).integers(0, max(n, 1), 2 * n)
    room = 1e-5 * codes.reach.max()
    np.testing.assert_allclose(codes.rows(at), rows_reference(codes, at), rtol=0, atol=room)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("parts", [1, 2, 7, 16])
@pytest.mark.parametrize("n", [0, 1, 64, 130])
def test_codes_are_packed_and_unpacked(n, parts, bits):
    codes = np.random.default_rng(n).integers(0, 1 << bits, (n, parts)).astype(np.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (-(-n // 64), -(-parts * bits // 8), 64)
    np.testing.assert_array_equal(unpack(packed, n, parts, bits), codes)
    np.testing.assert_array_equal(unpaired(paired(codes, bits), parts, bits), codes)


@pytest.mark.parametrize(("bits", "parts", "fine"), [(4, 12, None), (8, 6, None), (4, 12, (6, 8))])
def test_threads_and_batches_change_nothing_and_few_rows_are_decoded(bits, parts, fine):
    codes, queries = make("normal", 300_000, 24, parts, bits, 3, fine), queries_of(5, 24, 4)
    one = topk_pq(queries, codes, 10, threads=1, deep=100)
    two = topk_pq(queries, codes, 10, threads=2, deep=100)
    same(one, two)
    for b in range(5):
        alone = topk_pq(queries[b : b + 1], codes, 10, threads=2, deep=100)
        same(alone, (one[0][b : b + 1], one[1][b : b + 1]))
    assert one[2].max() < 40
    if fine is None:
        same(one, of_all(queries, codes, 10))


def test_the_finer_codes_choose_among_the_best_of_the_others():
    codes, queries = make("normal", 5000, 16, 8, 4, 0, (8, 4)), queries_of(3, 16, 1)
    coarse = ProductCodes(codes.values, 5000, codes.books, codes.basis)
    rows, scores, _ = topk_pq(queries, codes, 5, deep=40)
    for query, mine, score in zip(queries, rows, scores, strict=True):
        first = topk_pq(query[None], coarse, 40)[0][0]
        allow = np.zeros(5000, np.bool_)
        allow[first] = True
        same((mine[None], score[None]), of_all(query[None], codes, 5, None, allow))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_a_query_that_is_not_finite_is_scored_against_every_row(bad, bits):
    codes, queries = make("normal", 500, 16, 8, bits, 1), queries_of(3, 16, 2)
    queries[1, 3] = bad
    found = topk_pq(queries, codes, 5)
    same(found, of_all(queries, codes, 5))
    assert found[2].tolist()[1] == 500
    assert found[2][0] < 20


def test_equal_rows_are_all_decoded_and_ordered_by_tie_key():
    codes = ProductCodes(
        pack(np.full((20_000, 4), 7, np.uint8), 4), 20_000, books("normal", 4, 4, 8, 0),
        np.eye(8, dtype=np.float32),
    )  # fmt: skip
    found = topk_pq(np.ones((1, 8), np.float32), codes, 5)
    same(found, of_all(np.ones((1, 8), np.float32), codes, 5))
    assert found[2][0] == 20_000


def test_no_rows_and_no_queries():
    nothing = make("normal", 0, 4, 2, 4, 0)
    rows, scores, count = topk_pq(np.ones((2, 4), np.float32), nothing, 3)
    assert rows.tolist() == [[-1] * 3] * 2
    assert (scores == -np.inf).all()
    assert count.tolist() == [0, 0]
    rows, _, count = topk_pq(np.ones((0, 4), np.float32), make("normal", 70, 4, 2, 8, 0), 3)
    assert rows.shape == (0, 3)
    assert count.shape == (0,)


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(1, 50),
    d=st.integers(1, 20),
    share=st.floats(0, 1),
    entries=st.sampled_from([3, 16, 256]),
    seed=st.integers(0, 99),
)
def test_the_nearest_entry_is_that_of_the_reference(m, d, share, entries, seed):
    random, parts = np.random.default_rng(seed), 1 + round(share * (d - 1))
    # Small whole numbers: distances are exact, so that ties are ties.
    points = random.integers(-3, 4, (m, d)).astype(np.float32)
    some = random.integers(-3, 4, (parts, entries, -(-d // parts))).astype(np.float32)
    np.testing.assert_array_equal(assign(points, some, 2), assign_reference(points, some))


@pytest.mark.parametrize("threads", [1, 2])
def test_k_means_finds_clusters_that_are_there(threads):
    random = np.random.default_rng(0)
    centres = random.standard_normal((2, 16, 3)).astype(np.float32) * 10
    which = random.integers(0, 16, (4000, 2))
    points = np.concatenate([centres[part, which[:, part]] for part in (0, 1)], axis=1)
    points += random.normal(0, 0.01, points.shape).astype(np.float32)
    found = learn_codebooks(points, 2, 16, 0, threads)
    decoded = entries_of(assign(points, found, threads), found, 6)
    assert np.square(points - decoded).mean() < 0.05 * points.var()
    np.testing.assert_array_equal(found, learn_codebooks(points, 2, 16, 0, 1))


def test_an_entry_that_nobody_is_nearest_to_moves():
    points = np.repeat(np.arange(8, dtype=np.float32), 30)[:, None]
    points[0] = 50
    found = learn_codebooks(points, 1, 16, 0, 1)
    assert set(np.unique(assign_reference(points, found))) <= set(range(16))
    np.testing.assert_array_equal(entries_of(assign(points, found, 1), found, 1), points)


def test_runs_are_as_even_as_can_be():
    for d in range(1, 30):
        for parts in range(1, d + 1):
            widths = np.diff(runs(d, parts))
            assert widths.sum() == d
            assert widths.max() - widths.min() <= 1
