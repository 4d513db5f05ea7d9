import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import DataError, rng
from martlet.kernels import embedding as kernel
from martlet.kernels import row_steps
from martlet.kernels.embedding import Batch, EmbeddingTable, begin, lookup, merge

N = 50
RULES = ("sgd", "adagrad", "adam")
STORAGES = ("fp32", "fp16", "bf16", "int8")
LOW = STORAGES[1:]
shapes = (
    st.integers(0, 99),
    st.integers(0, 300),
    st.one_of(st.integers(1, 37), st.sampled_from([56, 57, 64, 128])),
    st.sampled_from(["i4", "i8"]),
)


def draw(seed, size, d, kind="i4", num_rows=N):
    """Return vectors and a batch whose rows repeat, the first the most.

    Gradients are multiples of 1/64: where they cancel, float32 loses nothing of their sum.
    """
    random = rng(seed, "embedding")
    rows = (num_rows * random.random(size) ** 3).astype(kind)
    vectors = random.normal(size=(num_rows, d)).astype(np.float32)
    gradients = np.rint(64 * random.normal(size=(size, d))) / 64
    return vectors, rows, gradients.astype(np.float32)


def start(rule, vectors, seed=0):
    """Return a state that is under way."""
    random = rng(seed, "state")
    second = random.uniform(0.1, 2, len(vectors)).astype(np.float32)
    first = 0.1 * random.normal(size=vectors.shape).astype(np.float32)
    return {"sgd": (), "adagrad": (second,), "adam": (first, second)}[rule]


def stepped(rule, table, state, rows, gradients, threads=1, step=3):
    """Return the table and the state after a step of copies."""
    arrays = [array.copy() for array in state]
    table = EmbeddingTable(table.storage, table.values.copy(), table.scale.copy(), table.seed)
    batch = Batch.of(rows, len(table.values))
    take = getattr(row_steps, rule)
    take(table, *arrays, batch, gradients, step=step, rate=0.05, num_threads=threads)
    return table, arrays


def by_formula(rule, vectors, state, rows, gradients):
    further = {"step": 3} if rule == "adam" else {}
    found = getattr(row_steps, f"{rule}_reference")(
        vectors, *state, rows, gradients, rate=0.05, **further
    )
    return found if state else (found,)


@pytest.mark.parametrize("storage", STORAGES)
@given(*shapes)
@settings(max_examples=30, deadline=None)
def test_rows_are_looked_up(storage, seed, size, d, kind):
    vectors, rows, _ = draw(seed, size, d, kind)
    table = EmbeddingTable.of(vectors, storage)
    wanted = kernel.lookup_reference(table, rows)
    found, batch = begin(table, rows)
    assert np.array_equal(found, wanted)
    assert np.array_equal(lookup(table, rows), wanted)
    assert np.array_equal(batch.keys, Batch.of(rows, N).keys)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_given_array_is_filled(threads):
    vectors, rows, _ = draw(0, 200_000, 9)
    table, out = EmbeddingTable.of(vectors), np.empty((200_000, 9), np.float32)
    assert out.size > 3 * kernel.GRAIN
    assert lookup(table, rows, out=out, num_threads=threads) is out
    assert np.array_equal(out, vectors[rows])
    out[:] = 0
    found, batch = begin(table, rows, out=out, num_threads=threads)
    assert found is out
    assert np.array_equal(out, vectors[rows])
    assert np.array_equal(batch.keys, Batch.of(rows, N).keys)
    rows[170_000] = N
    for call in (lookup, begin):
        with pytest.raises(DataError, match="row 50 at position 170000 is outside"):
            call(table, rows, out=out, num_threads=threads)


@given(*shapes)
@settings(max_examples=60, deadline=None)
def test_gradients_of_a_row_are_summed(seed, size, d, kind):
    _, rows, gradients = draw(seed, size, d, kind)
    at, sums = merge(Batch.of(rows, N), gradients)
    wanted = kernel.merge_reference(rows, gradients)
    assert np.array_equal(at, wanted[0])
    assert np.array_equal(sums, wanted[1])


@pytest.mark.parametrize("d", [1, 8, 16, 32, 57])
def test_gradients_are_summed_in_the_order_of_their_positions(d):
    """Large and small numbers, whose float32 sum depends on the order."""
    big = np.repeat(np.array([[1e8], [1.0], [-1e8], [1.0]], np.float32), d, 1)
    batch = Batch.of(np.zeros(4, np.int32), 1)
    assert (merge(batch, big)[1] == 1).all()
    assert (merge(batch, big[[0, 2, 1, 3]])[1] == 2).all()


@pytest.mark.parametrize("rule", RULES)
@given(*shapes)
@settings(max_examples=60, deadline=None)
def test_a_step_is_the_formulas(rule, seed, size, d, kind):
    vectors, rows, gradients = draw(seed, size, d, kind)
    state = start(rule, vectors, seed)
    wanted = by_formula(rule, vectors, state, rows, gradients)
    table, arrays = stepped(rule, EmbeddingTable.of(vectors), state, rows, gradients)
    for one, other in zip((table.values, *arrays), wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("rule", RULES)
def test_rows_that_are_not_named_rest(rule, storage):
    vectors, rows, gradients = draw(2, 40, 12)
    before, state = EmbeddingTable.of(vectors, storage), start(rule, vectors)
    table, arrays = stepped(rule, before, state, rows, gradients)
    rest = np.setdiff1d(np.arange(N), rows)
    assert 0 < len(rest) < N
    pairs = [(before.values, table.values), *zip(state, arrays, strict=True)]
    for one, other in pairs + [(before.scale, table.scale)] * (storage == "int8"):
        assert np.array_equal(one[rest], other[rest])
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("rule", RULES)
def test_threads_change_no_digit(rule, storage):
    vectors, rows, gradients = draw(3, 70_000, 17, num_rows=10_000)
    assert rows.size * 17 > 2 * kernel.GRAIN
    state = start(rule, vectors)
    (one, mine), (two, other) = (
        stepped(rule, EmbeddingTable.of(vectors, storage), state, rows, gradients, threads)
        for threads in (1, 2)
    )
    assert np.array_equal(one.values, two.values)
    assert np.array_equal(one.scale, two.scale)
    for left, right in zip(mine, other, strict=True):
        assert np.array_equal(left, right)


@pytest.mark.parametrize("storage", LOW)
@pytest.mark.parametrize("rule", RULES)
@given(*shapes)
@settings(max_examples=20, deadline=None)
def test_a_step_of_few_bits_is_within_one_unit(rule, storage, seed, size, d, kind):
    vectors, rows, gradients = draw(seed, size, d, kind)
    before, state = EmbeddingTable.of(vectors, storage, seed), start(rule, vectors, seed)
    wanted = by_formula(rule, before.wide(), state, rows, gradients)
    table, arrays = stepped(rule, before, state, rows, gradients)
    at = np.unique(rows)
    exact = np.abs(wanted[0][at])
    bits = {"fp16": 10, "bf16": 7}.get(storage)
    unit = (
        table.scale[at, None]
        if bits is None
        else 2.0 ** (np.maximum(np.frexp(exact)[1] - 1, -14) - bits)
    )
    assert (np.abs(table.wide()[at] - wanted[0][at]) <= 1.001 * unit + 1e-6).all()
    for one, other in zip(arrays, wanted[1:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("storage", LOW)
def test_rounding_repeats_and_differs_by_seed_and_step(storage):
    vectors, rows, gradients = draw(4, 200, 16)
    found = [
        stepped("sgd", EmbeddingTable.of(vectors, storage, seed), (), rows, gradients, step=step)
        for seed, step in ((0, 1), (0, 1), (1, 1), (0, 2))
    ]
    first, again, *others = [table.values for table, _ in found]
    assert np.array_equal(first, again)
    for other in others:
        assert (first != other)[np.unique(rows)].mean() > 0.1


@pytest.mark.parametrize("storage", LOW)
def test_small_steps_add_up(storage):
    """A hundred steps, each a twentieth of what can be stored, where the nearest stays put."""
    vectors = np.full((2000, 4), 1.0, np.float32)
    unit = {"fp16": 2.0**-10, "bf16": 2.0**-7, "int8": 1 / 127}[storage]
    vectors[:, 0] = 1.2  # the scale of int8 stays
    table, rows = EmbeddingTable.of(vectors, storage), np.arange(2000)
    begin_at, batch = table.wide(), Batch.of(rows, 2000)
    gradients = np.zeros((2000, 4), np.float32)
    gradients[:, 1:] = -unit / 20
    for step in range(1, 101):
        row_steps.sgd(table, batch, gradients, step=step, rate=1.0)
    moved = (table.wide() - begin_at)[:, 1:] / unit
    assert abs(moved.mean() - 5) < 0.2


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("bad", [-1, N])
@pytest.mark.parametrize("kind", ["i4", "i8"])
def test_rows_outside_the_table_are_refused(storage, bad, kind):
    vectors, rows, _ = draw(0, 8, 4, kind)
    rows[5], table = bad, EmbeddingTable.of(vectors, storage)
    before = table.values.copy()
    told = f"row {bad} at position 5 is outside the table: expected 0 to 49"
    with pytest.raises(DataError, match=told):
        lookup(table, rows)
    with pytest.raises(DataError, match=told):
        Batch.of(rows, N)
    with pytest.raises(DataError, match=told):
        table.store(rows, np.zeros((8, 4), np.float32), 0)
    assert np.array_equal(table.values, before)


def test_a_table_is_a_copy_and_tells_its_bytes():
    vectors = draw(0, 0, 8)[0]
    sizes = [EmbeddingTable.of(vectors, storage).nbytes for storage in STORAGES]
    assert sizes == [N * 8 * 4, N * 8 * 2, N * 8 * 2, N * (8 + 4)]
    table = EmbeddingTable.of(vectors)
    table.values[0] = 9
    assert vectors[0, 0] != 9


@pytest.mark.parametrize("storage", STORAGES)
def test_a_table_is_made_by_rounding_to_the_nearest(storage):
    vectors = draw(5, 0, 8)[0]
    found = EmbeddingTable.of(vectors, storage).wide()
    unit = {"fp32": 0, "fp16": 2.0**-11, "bf16": 2.0**-8, "int8": 0.5 / 127}[storage]
    largest = np.abs(vectors).max(1, keepdims=True)
    assert (np.abs(found - vectors) <= unit * largest * 1.0001).all()
    assert (np.abs(found - vectors).max() > 0) == (storage != "fp32")
