import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import CSR, BundleError, SpecError, rng
from martlet.kernels.topk import topk_dot
from martlet.scorers.storages import families, storage_of
from martlet.scorers.table import Table, blocks, check_csr, tables_under

X = rng(0, "table").normal(size=(9, 5)).astype(np.float32)
X[3] = 0
SPARSE = Table.of_csr(CSR.from_rows([[1, 4], [], [0]], 5, [[0.5, -2], [], [3]]))


def test_dense_values_are_kept_as_they_are():
    table = Table.of(X)
    assert table.dense() is not None
    assert np.shares_memory(table.dense(), X)
    assert np.array_equal(table.rows(np.array([8, 0, 8])), X[[8, 0, 8]])
    assert np.array_equal(table.transposed, X.T)
    assert (table.storage, table.shape, table.nbytes) == ("fp32", (9, 5), 9 * 5 * 4)


def test_a_vector_is_one_column():
    assert Table.of(np.arange(3.0)).shape == (3, 1)


@pytest.mark.parametrize(("precision", "nbytes"), [("fp16", 90), ("int8", 45 + 36)])
def test_smaller_precisions_take_fewer_bytes(precision, nbytes):
    small = Table.of(X).to(precision)
    small.check("x")
    assert (small.storage, small.nbytes) == (precision, nbytes)
    assert small.dense().dtype == np.float32
    bound = np.abs(X).max(1, keepdims=True) / (254 if precision == "int8" else 2048) * 1.001
    assert (np.abs(small.dense() - X) <= bound).all()
    assert np.array_equal(small.rows(np.array([2, 3])), small.dense()[[2, 3]])
    assert not small.dense()[3].any()


# Those that need an option, or more bytes than there are, stand below by one of their texts.
DENSE = [name for name in families() if name not in ("pq", "shared") and "csr" not in name]


@pytest.mark.parametrize("storage", [*DENSE, "int4:2", "int2-affine:3", "shared:int8"])
def test_every_storage_keeps_rows_and_finds_the_best_by_them(storage, tmp_path):
    x = rng(1, "storages").normal(size=(60, 7)).astype(np.float32)
    x[3], x[5] = 0, 2
    table = Table.of(x).to(storage)
    table.check("x")
    assert table.storage == storage
    assert storage == "fp32" or table.nbytes < Table.of(x).nbytes
    wide = table.dense()
    step = {"8": 0.02, "4": 0.3, "2": 1.2}.get(storage[3:4], 0.02)
    assert np.abs(wide - x).max() <= step
    assert np.array_equal(table.rows(np.array([9, 0, 9])), wide[[9, 0, 9]])
    assert np.array_equal(table.rows(slice(4, 8)), wide[4:8])
    if "affine" in storage:  # a row that is all alike has a middle and no range
        np.testing.assert_allclose(wide[5], 2, atol=step)
    if "int2" not in storage and "affine" not in storage:
        assert not wide[3].any()
    vectors = rng(2, "storages").normal(size=(3, 7)).astype(np.float32)
    rows, scores = table.kind.topk(table, vectors, 9, None, None, 1)
    best = topk_dot(vectors, np.ascontiguousarray(wide.T), 9)
    assert np.array_equal(rows, best[0])
    assert np.array_equal(scores, best[1])


def test_many_halves_are_widened_to_what_few_are():
    table = Table.of(rng(4, "many").normal(size=(500, 40))).to("fp16")
    few = np.concatenate([table.rows(slice(at, at + 100)) for at in range(0, 500, 100)])
    assert np.array_equal(table.dense(), few)
    assert np.array_equal(table.rows(np.arange(499, -1, -1)), few[::-1])


@pytest.mark.parametrize("storage", [name for name in DENSE if name.startswith("int")])
def test_calibrated_ranges_err_less_on_the_products_they_are_for(storage):
    random = rng(3, "moment")
    x = random.normal(size=(400, 16)).astype(np.float32) ** 3
    queries = random.normal(size=(500, 16)) * np.linspace(0.05, 2, 16)
    moment = queries.T @ queries / len(queries)

    def error(table):
        off = (table.dense() - x).astype(np.float64)
        return np.einsum("ij,jk,ik->i", off, moment, off).mean()

    plain, calibrated = Table.of(x).to(storage), Table.of(x).to(storage, moment)
    assert calibrated.storage == plain.storage
    assert calibrated.nbytes == plain.nbytes
    assert error(calibrated) <= error(plain) * 1.0001
    assert storage.startswith("int8") or error(calibrated) < error(plain)


@pytest.mark.parametrize("storage", [name for name in DENSE if name.startswith("int")])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_codes_of_what_is_not_finite_are_refused(storage, bad):
    x = X.copy()
    x[2, 1] = bad
    with pytest.raises(SpecError, match="not finite: no codes stand for it"):
        Table.of(x).to(storage)


@pytest.mark.parametrize("name", ["int4:1", "int4:x", "int2:-3", "int8:4", "fp16:2", "csr:1"])
def test_an_option_that_a_storage_does_not_have_is_refused(name):
    with pytest.raises(SpecError, match=f"^storage {name} is unknown"):
        storage_of(name)


def test_what_codes_have_no_scale_for_is_refused():
    with pytest.raises(SpecError, match=r"a value of 3\.4e\+38, beyond codes"):
        Table.of(X * 0 + 3.4e38).to("int4-affine:2")
    damaged = Table.of(X).to("int4")
    damaged.arrays["scale"][0, 0] = 0x8001
    damaged.check("x", entries=False)
    with pytest.raises(BundleError, match="table x has a scale below 0"):
        damaged.check("x")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_sparse_values_keep_their_places(precision):
    small = SPARSE.to(precision)
    small.check("x")
    assert small.storage == {"fp32": "csr"}.get(precision, f"csr-{precision}")
    want = np.array([[0, 0.5, 0, 0, -2], [0] * 5, [3, 0, 0, 0, 0]])
    np.testing.assert_allclose(small.dense(), want, atol=0.01)
    np.testing.assert_allclose(small.rows(np.array([2, 0])), want[[2, 0]], atol=0.01)
    assert small.csr().lengths.tolist() == [2, 0, 1]
    assert small.to("fp32").storage == "csr"


def test_a_dense_table_gives_its_nonzeros_as_csr():
    assert np.array_equal(Table.of_csr(Table.of(X).csr()).dense(), X)


def test_the_same_precision_is_the_same_table():
    assert SPARSE.to("fp32") is SPARSE


def test_an_unknown_precision_is_refused():
    with pytest.raises(
        SpecError, match="storage 'fp64' is unknown: expected fp32, fp16, bf16, int8"
    ):
        Table.of(X).to("fp64")


def test_what_half_precision_cannot_hold_is_refused():
    with pytest.raises(SpecError, match=r"a value of 1e\+06, beyond 65504.*int8 or fp32"):
        Table.of(X * 0 + 1e6).to("fp16")
    with pytest.raises(SpecError, match="a value of nan"):
        Table.of(X * np.nan).to("fp16")
    with pytest.raises(SpecError, match=r"beyond 3\.38953e\+38, the largest of bfloat16"):
        Table.of(X * 0 + 3.4e38).to("bf16")


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5))
def test_int8_errs_by_half_a_step_at_most(n, d, seed):
    x = rng(seed, "int8").normal(size=(n, d)).astype(np.float32) ** 3
    small = Table.of(x).to("int8")
    assert (np.abs(small.dense() - x) <= small.scale[:, None] * 0.5001).all()


def test_blocks_cover_all_rows_once():
    assert blocks(10, 3, 12) == [(0, 4), (4, 8), (8, 10)]
    assert blocks(2, 100, 12) == [(0, 1), (1, 2)]
    assert blocks(0, 3) == []


def test_tables_are_found_by_prefix():
    assert tables_under({"a.b": SPARSE, "a.c.d": SPARSE, "ab.c": SPARSE}, "a").keys() == {
        "b",
        "c.d",
    }


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(BundleError, match="table x has storage 'fp8' is unknown: expected fp32"):
        Table("fp8", (1, 1), {}).check("x")
    with pytest.raises(
        BundleError, match=r"x stored as fp32 9 x 4 has arrays values float32\(9, 5\)"
    ):
        Table("fp32", (9, 4), {"values": X}).check("x")
    with pytest.raises(BundleError, match=r"expected values int8\(9, 5\), scale float32\(9,\)"):
        Table("int8", (9, 5), {"values": X}).check("x")


@pytest.mark.parametrize(
    ("indptr", "indices", "words"),
    [
        ([0, 2, 1], [0, 1], "offsets that do not rise from 0 to 2"),
        ([1, 2, 2], [0, 1], "offsets that do not rise"),
        ([0, 1, 3], [0, 1], "offsets that do not rise"),
        ([0, 1, 2], [0, 5], "columns 0 to 5: expected 0 to 4"),
        ([0, 1, 2], [-1, 0], "columns -1 to 0: expected 0 to 4"),
    ],
)
def test_damaged_sparse_rows_are_refused(indptr, indices, words):
    with pytest.raises(BundleError, match=f"here has {words}"):
        check_csr("here", np.array(indptr), np.array(indices), 5)
    arrays = {
        "indptr": np.array(indptr, np.int64),
        "indices": np.array(indices, np.int32),
        "values": np.ones(2, np.float32),
    }
    Table("csr", (2, 5), arrays).check("x", entries=False)
    with pytest.raises(BundleError, match=f"table x has {words}"):
        Table("csr", (2, 5), arrays).check("x")
