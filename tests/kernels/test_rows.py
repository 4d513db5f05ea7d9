import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import rng
from martlet.kernels.embedding import EmbeddingTable
from martlet.kernels.rounding import chances_reference, round_reference

LOW = ("fp16", "bf16", "int8")


def stored(vectors, storage, seed=0, step=0, rows=None):
    """Return what is read of vectors that were rounded by chance."""
    rows = np.arange(len(vectors)) if rows is None else rows
    size = int(rows.max()) + 1
    table = EmbeddingTable.of(np.zeros((size, vectors.shape[1]), np.float32), storage, seed)
    table.store(rows, vectors, step)
    return table.wide()[rows]


@pytest.mark.parametrize("storage", LOW)
@given(st.integers(0, 99), st.integers(1, 20), st.integers(1, 21), st.integers(-60, 40))
@settings(max_examples=60, deadline=None)
def test_a_row_is_rounded_as_the_reference_does(storage, seed, size, dim, exponent):
    """Over all exponents that half precision has, and beyond."""
    random = rng(seed, "rounding")
    wide = random.normal(size=(size, dim)) * 2.0 ** random.uniform(-1, 1, (size, dim))
    vectors = (wide * 2.0**exponent).astype(np.float32)
    rows = random.permutation(size)
    chances = chances_reference(seed, 7, rows, dim)
    found = stored(vectors, storage, seed, 7, rows)
    wanted = round_reference(vectors, storage, chances)
    # A float32 sum of a code and its chance may round; so little as to be seen in none of these.
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=0)


def test_the_chances_are_splitmix64s():
    """Of seed 1234567, as published with the generator's reference code."""
    golden, known = 0x9E3779B97F4A7C15, (6457827717110365317, 3203168211198807973)
    # The stream of a row begins at a mixed state; undone, it is the published one.
    first = chances_reference(0, 0, np.array([0]), 8)[0].astype(np.uint64)
    words = [
        sum(int(part) << 16 * at for at, part in enumerate(word)) for word in first.reshape(2, 4)
    ]

    def mixed(z):
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    assert tuple(mixed((1234567 + turn * golden) % 2**64) for turn in (1, 2)) == known
    begin = mixed(mixed(mixed(0)))
    assert words == [mixed((begin + turn * golden) % 2**64) for turn in (1, 2)]


@pytest.mark.parametrize("storage", LOW)
@pytest.mark.parametrize("scale", [1.0, 3e-6])
def test_rounding_is_right_in_the_mean(storage, scale):
    """Within five standard errors over 2,000 seeds; 3e-6 is below the least normal half."""
    vectors = (scale * rng(0, "mean").normal(size=(1, 12))).astype(np.float32)
    found = np.stack([stored(vectors, storage, seed) for seed in range(2000)]).astype(float)
    error = found.mean(0) - vectors
    spread = found.std(0)
    assert (spread > 0).sum() >= 11  # the largest code of int8 is exact
    assert (np.abs(error) <= 5 * spread / 2000**0.5 + 1e-4 * np.abs(vectors).max() / 127).all()


@pytest.mark.parametrize("storage", LOW)
def test_what_can_be_stored_is_stored_whatever_the_chance(storage):
    codes = np.array([[127, -127, 64, 0, 1, -2]], np.float32)
    for exponent in (0, -8):
        vectors = codes * np.float32(2.0**exponent)
        for step in range(50):
            assert np.array_equal(stored(vectors, storage, 0, step), vectors)


@pytest.mark.parametrize("storage", LOW)
def test_what_is_not_finite_stays_so(storage):
    vectors = np.ones((4, 5), np.float32)
    vectors[0, 1], vectors[1, 2], vectors[2, 3] = np.nan, np.inf, -np.inf
    vectors.view(np.uint32)[0, 1] = 0x7F800001  # a NaN that rounding may make infinite
    found = stored(vectors, storage)
    if storage == "int8":
        assert np.isnan(found[:3]).all()
        assert (found[3] == 1).all()
    else:
        np.testing.assert_array_equal(found, vectors)


@pytest.mark.parametrize("storage", ["fp16", "bf16"])
def test_what_is_too_large_becomes_the_largest(storage):
    most = {"fp16": 65504.0, "bf16": float(np.float32(2.0**128 - 2.0**120))}[storage]
    vectors = np.array([[most, -most, 3.4028e38, -3.4028e38]], np.float32)
    for step in range(20):
        assert np.array_equal(stored(vectors, storage, 0, step), [[most, -most, most, -most]])


def test_a_row_of_zeros_stays_zeros():
    assert not stored(np.zeros((3, 5), np.float32), "int8").any()
