"""Codes of four and two bits: packed and read back, and searched as float32 rows are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import CSR
from martlet.kernels.half import from_bf16, to_bf16, widen_bf16
from martlet.kernels.packed import Layout, Packed
from martlet.kernels.packed_scan import ask, topk_packed, topk_packed_reference
from martlet.kernels.topk import topk_dot

SCALES = ("normal", "wide", "zeros", "tiny", "same", "infinite")
SHAPES = st.tuples(
    st.integers(1, 90), st.integers(1, 140), st.sampled_from([2, 5, 16, 32, 48, 200])
)


def make(n, d, group, bits=4, affine=False, kind="normal", seed=0):
    random = np.random.default_rng(seed)
    layout = Layout(d, bits, group)
    scale = random.random((n, layout.num_groups), np.float32)
    match kind:
        case "wide":
            scale *= np.float32(10) ** random.integers(-18, 15, (n, 1)).astype(np.float32)
        case "zeros":
            scale *= random.random((n, 1)) < 0.3
        case "tiny":
            scale *= np.float32(1e-38)
        case "same":
            scale[:] = 1
        case "infinite":
            scale[0, 0] = np.inf
    codes = random.integers(0, 1 << bits, (n, d)).astype(np.uint8)
    codes = codes[:1].repeat(n, axis=0) if kind == "same" else codes
    zero = to_bf16(random.standard_normal(scale.shape).astype(np.float32)) if affine else None
    offset = 8.0 if bits == 4 and not affine else (1 << bits) / 2 - 0.5
    return Packed(layout, layout.pack(codes), to_bf16(scale), zero, offset)


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.sampled_from([2, 4]), st.integers(0, 9))
def test_what_is_packed_is_read_back(shape, bits, seed):
    n, d, group = shape
    layout = Layout(d, bits, group)
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (n, d)).astype(np.uint8)
    values = layout.pack(codes)
    assert np.array_equal(layout.unpack(values), codes)
    least = sum(-(-(part.stop - part.start) * bits // 8) for part in layout.groups())
    assert values.shape == (n, least)  # no byte is filled up where a group is one run


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.sampled_from([2, 4]), st.booleans(), st.integers(0, 9))
def test_rows_are_those_of_the_reference(shape, bits, affine, seed):
    packed = make(*shape, bits, affine, seed=seed)
    at = np.random.default_rng(seed).integers(0, shape[0], 7)
    np.testing.assert_array_equal(packed.rows(at), packed.rows_reference(at))
    np.testing.assert_array_equal(
        packed.rows(slice(1, None)), packed.rows_reference(slice(1, None))
    )


@settings(max_examples=80, deadline=None)
@given(
    SHAPES, st.sampled_from([2, 4]), st.booleans(), st.sampled_from(SCALES),
    st.integers(1, 30), st.integers(1, 4), st.integers(0, 9),
)  # fmt: skip
def test_a_search_finds_what_a_float32_search_of_the_rows_finds(
    shape, bits, affine, kind, k, size, seed
):
    packed = make(*shape, bits, affine, kind, seed)
    n, d, _ = shape
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((size, d)).astype(np.float32)
    vectors[0] *= [1, 0, 1e-30, np.nan][seed % 4]
    hidden = CSR.from_rows(
        [np.sort(random.choice(n, n // 3, replace=False)) for _ in range(size)], n
    )
    allow = random.random(n) < 0.8
    with np.errstate(all="ignore"):
        wide = np.ascontiguousarray(packed.rows(slice(None)).T)
        want = topk_dot(vectors, wide, k, hidden, allow, 1)
        found = topk_packed(vectors, packed, k, hidden, allow, 1)
    np.testing.assert_array_equal(found[0], want[0])
    np.testing.assert_array_equal(found[1], want[1])


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("affine", [False, True])
def test_threads_and_batches_change_nothing_and_few_rows_are_scored_again(bits, affine):
    packed = make(70_000, 64, 32, bits, affine)
    vectors = np.random.default_rng(1).standard_normal((5, 64)).astype(np.float32)
    rows, scores, again = topk_packed(vectors, packed, 10, threads=1)
    assert (again >= 10).all()
    assert (again < 100).all()
    for threads in (2, 4):
        more = topk_packed(vectors, packed, 10, threads=threads)
        assert np.array_equal(more[0], rows)
        assert np.array_equal(more[1], scores)
    for b in range(5):
        alone = topk_packed(vectors[b : b + 1], packed, 10, threads=1)
        assert np.array_equal(alone[0][0], rows[b])
        assert np.array_equal(alone[1][0], scores[b])


def test_the_reference_finds_the_same_where_scores_lie_apart():
    packed = make(40, 9, 5)
    vectors = np.random.default_rng(2).standard_normal((3, 9)).astype(np.float32)
    found = topk_packed(vectors, packed, 6)
    rows, scores = topk_packed_reference(vectors, packed, 6)
    assert np.array_equal(found[0], rows)
    np.testing.assert_allclose(found[1], scores, rtol=1e-5)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("kind", ["normal", "wide", "zeros"])
def test_the_stated_error_bounds_every_row(affine, kind):
    packed = make(500, 50, 16, 4, affine, kind)
    vectors = np.random.default_rng(3).standard_normal((4, 50)).astype(np.float32)
    asked = ask(packed, vectors)
    wide, scale = packed.rows(slice(None)).astype(np.float64), from_bf16(packed.scale)
    step = np.abs(vectors).max(1) / 127
    for b, vector in enumerate(vectors):
        x = np.rint(vector / step[b])
        group = np.arange(50) // 16
        zero = 0 if packed.zero is None else from_bf16(packed.zero)[:, group]
        estimate = (wide - zero) @ x
        estimate = estimate + (
            0 if packed.zero is None else from_bf16(packed.zero) @ asked.shift[b]
        )
        reach = scale @ asked.error[b].astype(np.float64)
        off = np.abs(wide @ vector.astype(np.float64) / step[b] - estimate)
        assert (off <= reach + asked.slack[b]).all()


@settings(max_examples=50, deadline=None)
@given(st.floats(-(2.0**127), 2.0**127, width=32))
def test_bfloat16_is_the_nearest(value):
    exact = np.array([value], np.float32)
    bits = to_bf16(exact)
    near = from_bf16(np.array([bits[0] - (bits[0] & 0x7FFF > 0), bits[0], bits[0] + 1], np.uint16))
    off = np.abs(near.astype(np.float64) - exact)
    assert off[1] <= min(off[0], off[2])
    assert np.isnan(from_bf16(to_bf16(np.array([np.nan], np.float32))))[0]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 70), st.integers(0, 70), st.integers(0, 9))
def test_columns_of_bfloat16_are_widened_exactly(d, start, width, seed):
    bits = np.random.default_rng(seed).integers(0, 1 << 16, (d, start + width + 3), np.uint16)
    found = widen_bf16(bits, start, start + width)
    wanted = from_bf16(bits[:, start : start + width])
    assert np.array_equal(found.view(np.uint32), wanted.view(np.uint32))
