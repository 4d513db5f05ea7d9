import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import rng
from martlet.kernels.groups import sort_rows, sort_rows_reference


def check(rows, num_rows):
    keys, shift = sort_rows(rows, num_rows)
    found = keys >> np.uint64(shift), keys & np.uint64((1 << int(shift)) - 1)
    for one, other in zip(found, sort_rows_reference(rows), strict=True):
        assert np.array_equal(one.astype(np.int64), other)


@given(st.lists(st.integers(0, 9), max_size=70), st.sampled_from(["i4", "i8"]))
@settings(deadline=None)
def test_rows_are_sorted_and_equal_ones_stay_in_order(rows, kind):
    check(np.array(rows, kind), 10)


@pytest.mark.parametrize("num_rows", [1, 2, 2048, 2049, 1 << 22, (1 << 22) + 1, 1 << 40])
@pytest.mark.parametrize("size", [1, 2, 999, 1024, 1025])
def test_tables_and_batches_of_any_size_are_sorted(num_rows, size):
    random = rng(1, "size", num_rows)
    check(random.integers(num_rows, size=size), num_rows)
    check(np.full(size, num_rows - 1), num_rows)
