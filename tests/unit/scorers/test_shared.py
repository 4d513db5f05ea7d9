import numpy as np
import pytest

from martlet.core import BundleError, rng
from martlet.scorers.shared import Mixed, Placed, Quotient, shared_of
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


@pytest.mark.parametrize(("make", "size"), [(quotient, 13), (mixed, 17)])
def test_rows_stand_where_their_places_say(make, size):
    place = rng(0, "places").permutation(size).astype(np.int32)
    placed = Placed(make(), place)
    assert placed.shape == (size, 4)
    np.testing.assert_array_equal(placed.dense(), make().dense()[place])
    np.testing.assert_array_equal(placed.rows(np.array([4, 0])), make().dense()[place[[4, 0]]])
    assert placed.nbytes == make().nbytes
    assert placed.tables().keys() == make().tables().keys()


@pytest.mark.parametrize(
    ("make", "size"), [(quotient, 16), (quotient, 10), (mixed, 16), (mixed, 18)]
)
def test_places_of_other_features_are_refused(make, size):
    with pytest.raises(BundleError, match=f"a shared table has .* rows, its features {size}"):
        Placed(make(), np.arange(size, dtype=np.int32))
