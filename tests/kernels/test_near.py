"""Sums of table entries in SIMD are those of NumPy, on every machine."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from martlet.kernels.near import LANES, first_bit, near


def masks():
    """Return a new compiled scan of all blocks: code is made for the machine as it is then."""

    @njit
    def scan(codes, tables, most, out):
        for block in range(len(codes)):
            out[block] = near(codes, block, tables, most)

    def call(codes, tables, most):
        out = np.empty(len(codes), np.uint64)
        scan(codes, tables, np.uint8(most), out)
        return out

    return call


def expected(codes: np.ndarray, tables: np.ndarray, most: int) -> np.ndarray:
    whole = codes.astype(np.int64)
    if tables.shape[1] == 16:
        whole = np.stack([whole & 15, whole >> 4], axis=2).reshape(len(codes), -1, LANES)
    cost = sum(tables[part][whole[:, part]].astype(np.int64) for part in range(len(tables)))
    places = np.arange(LANES, dtype=np.uint64)
    return ((np.minimum(cost, 255) <= most).astype(np.uint64) << places).sum(1)


def draw(entries: int, width: int, blocks: int = 9) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(entries + width)
    parts = 2 * width if entries == 16 else width
    codes = random.integers(0, 256, (blocks, width, LANES)).astype(np.uint8)
    return codes, random.integers(0, 400 // parts + 1, (parts, entries)).astype(np.uint8)


scan = masks()


@pytest.mark.parametrize("entries", [16, 256])
@pytest.mark.parametrize("width", [1, 2, 7, 16])
@pytest.mark.parametrize("most", [0, 3, 180, 254, 255])
def test_the_rows_found_cost_no_more(entries, width, most):
    codes, tables = draw(entries, width)
    np.testing.assert_array_equal(scan(codes, tables, most), expected(codes, tables, most))


def test_sums_beyond_255_stay_there():
    codes = np.zeros((1, 3, LANES), np.uint8)
    tables = np.full((6, 16), 200, np.uint8)
    assert scan(codes, tables, 254)[0] == 0
    assert scan(codes, tables, 255)[0] == np.uint64(2**64 - 1)


@pytest.mark.parametrize("features", [(), ("avx2",), ("avx2", "avx512bw")])
@pytest.mark.parametrize("entries", [16, 256])
def test_every_machine_finds_the_same(features, entries, monkeypatch):
    from martlet.kernels import near as module

    here = module._has
    monkeypatch.setattr(module, "_has", lambda name: name in features and here(name))
    codes, tables = draw(entries, 5)
    np.testing.assert_array_equal(masks()(codes, tables, 150), expected(codes, tables, 150))


def test_code_made_for_another_machine_asks_for_no_instruction_of_this_one(monkeypatch):
    from martlet.kernels import near as module

    monkeypatch.setattr("martlet.kernels.near.config.CPU_FEATURES", "+sse2")
    assert module._register() == 0
    codes, tables = draw(16, 4)
    np.testing.assert_array_equal(masks()(codes, tables, 99), expected(codes, tables, 99))


def test_the_first_bit_is_the_lowest():
    @njit
    def first(bits):
        return first_bit(bits)

    for place in (0, 5, 63):
        assert first(np.uint64((1 << place) | (1 << 63))) == place
