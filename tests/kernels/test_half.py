import numpy as np

from martlet.kernels.half import widen, widen_reference


def test_every_half_widens_to_the_bits_that_numpy_gives():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(4, -1)
    number = ~np.isnan(halves)
    wide = widen(halves, 0, halves.shape[1])
    assert np.array_equal(
        wide.view(np.uint32)[number], halves.astype(np.float32).view(np.uint32)[number]
    )
    assert np.isnan(wide[~number]).all()


def test_a_range_of_columns_is_widened():
    halves = np.linspace(-3, 3, 70).astype(np.float16).reshape(7, 10)
    wide = widen(halves, 3, 8)
    assert wide.flags.c_contiguous
    assert np.array_equal(wide, widen_reference(halves, 3, 8))
    assert widen(halves, 4, 4).shape == (7, 0)
