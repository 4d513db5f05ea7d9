import numpy as np
import pytest

from martlet.core import BundleError, rng
from martlet.scorers.shared import Mixed, Quotient, shared_of
from martlet.scorers.table import Table


def table(rows, dim, seed=0):
    return Table.of(rng(seed, "shared").normal(size=(rows, dim)))


def quotient():
    return Quotient(table(3, 4, 1), table(5, 4, 2))


def mixed():
    return Mixed((table(2, 4, 1), table(6, 2, 2), table(9, 1, 3)), (table(2, 4, 4), table(1, 4, 5)))


@pytest.mark.parametrize("make", [quotient, mixed])
def test_some_rows_are_those_of_all_and_the_parts_make_it_again(make):
    whole = make()
    at = np.array([7, 0, 14, 7, 3], np.int32)
    assert whole.dense().shape == whole.shape
    np.testing.assert_array_equal(whole.rows(at), whole.dense()[at])
    np.testing.assert_array_equal(whole.rows(slice(2, 5)), whole.dense()[2:5])
    again = shared_of(whole.tables())
    assert type(again) is type(whole)
    np.testing.assert_array_equal(again.dense(), whole.dense())
    assert whole.nbytes == sum(part.nbytes for part in whole.tables().values())


def test_rows_by_hand():
    one = quotient()
    assert one.shape == (15, 4)
    np.testing.assert_array_equal(
        one.rows(np.array([13]))[0], one.quotient.dense()[2] * one.remainder.dense()[3]
    )
    two = mixed()
    assert two.shape == (17, 4)
    np.testing.assert_array_equal(two.rows(np.array([1]))[0], two.blocks[0].dense()[1])
    np.testing.assert_allclose(
        two.rows(np.array([10]))[0], two.blocks[2].dense()[2] @ two.up[1].dense(), rtol=1e-6
    )


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"quotient": table(3, 4)},
        {"quotient": table(3, 4), "remainder": table(5, 3)},
        {"block0": table(3, 4), "block1": table(5, 2)},
        {"block0": table(3, 4), "block1": table(5, 2), "up1": table(3, 4)},
        {"block0": table(3, 4), "block2": table(5, 2), "up1": table(2, 4)},
    ],
)
def test_parts_that_do_not_belong_together(tables):
    with pytest.raises(BundleError, match=r"make no shared table: expected quotient"):
        shared_of(tables)
