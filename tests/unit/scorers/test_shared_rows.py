import numpy as np
import pytest

from martlet.core import CSR, BundleError, SpecError, rng
from martlet.scorers.storages import storage_of
from martlet.scorers.table import Table

N, D = 60, 8


@pytest.fixture
def values():
    """Rows of which every third is the same, and two are zeros of either sign."""
    drawn = rng(0, "shared rows").normal(size=(N, D)).astype(np.float32)
    drawn[::3] = drawn[0]
    drawn[1], drawn[2] = 0.0, -0.0
    return drawn


@pytest.fixture
def table(values):
    return Table.of(values)


@pytest.mark.parametrize("inner", ["fp32", "fp16", "int8", "int4:4"])
def test_equal_rows_are_stored_once(table, inner):
    shared, plain = table.to(f"shared:{inner}"), table.to(inner)
    assert shared.values.shape[0] == 40
    np.testing.assert_array_equal(
        shared.dense(), plain.dense() if inner != "fp32" else table.dense()
    )
    at = np.array([5, 0, 3, 59])
    np.testing.assert_array_equal(shared.rows(at), plain.rows(at))
    assert shared.nbytes == 4 * N + plain.nbytes * 40 // 60
    assert shared.precision == inner
    shared.check("items")


def test_another_precision_keeps_the_sharing(table):
    once = table.to("shared:fp32").to("int8")
    assert once.storage == "shared:int8"
    np.testing.assert_array_equal(once.dense(), table.to("shared:int8").dense())
    assert once.to("shared:int8") is not None
    assert once.arrays["place"] is not None


def test_an_exact_search_is_that_of_the_plain_table(table):
    vectors = rng(1, "shared rows").normal(size=(5, D)).astype(np.float32)
    hidden = CSR.from_rows([[0, 3], [], [7], [1, 2], []], N)
    allow = np.arange(N) % 2 == 0
    shared = table.to("shared:fp32")
    for shown in ((None, None), (hidden, None), (None, allow), (hidden, allow)):
        found, exact = (t.kind.topk(t, vectors, 20, *shown, 1) for t in (shared, table))
        np.testing.assert_array_equal(found[0], exact[0])
        np.testing.assert_array_equal(found[1], exact[1])


@pytest.mark.parametrize("name", ["shared", "shared:csr", "shared:shared:fp32", "shared:fp99"])
def test_a_storage_of_no_dense_rows_is_refused(name):
    with pytest.raises(SpecError, match=r"^storage .* is unknown: expected"):
        storage_of(name)


def test_a_damaged_table_is_refused(table):
    shared = table.to("shared:fp32")
    beyond = shared.arrays["place"].copy()
    beyond[4] = 999
    for arrays, words in (
        ({"place": beyond}, "table items has places 0 to 999: expected 0 to 39"),
        ({"place": shared.arrays["place"][:-1]}, r"table items stored as shared:fp32 60 x 8 has"),
        ({"values": shared.values[:, :-1]}, r"table items stored as shared:fp32 60 x 8 has"),
    ):
        damaged = Table(shared.storage, shared.shape, {**shared.arrays, **arrays})
        with pytest.raises(BundleError, match=words):
            damaged.check("items")
    bare = Table(shared.storage, shared.shape, {"place": shared.arrays["place"][:3]})
    with pytest.raises(BundleError, match=r"has arrays place int32\(3,\): expected"):
        bare.check("items")
