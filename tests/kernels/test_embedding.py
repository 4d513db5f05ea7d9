import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import DataError, rng
from martlet.kernels import embedding as kernel

N = 50
RULES = ("sgd", "adagrad", "adam")
shapes = st.integers(0, 99), st.integers(0, 300), st.integers(1, 37), st.sampled_from(["i4", "i8"])


def draw(seed, size, d, kind="i4", num_rows=N):
    """Return a table and a batch whose rows repeat, the first the most."""
    random = rng(seed, "embedding")
    rows = (num_rows * random.random(size) ** 3).astype(kind)
    values, gradients = random.normal(size=(num_rows, d)), random.normal(size=(size, d))
    return values.astype(np.float32), rows, gradients.astype(np.float32)


def start(rule, values, seed=0):
    """Return a state that is under way."""
    random = rng(seed, "state")
    second = random.uniform(0.1, 2, len(values)).astype(np.float32)
    first = 0.1 * random.normal(size=values.shape).astype(np.float32)
    return {"sgd": (), "adagrad": (second,), "adam": (first, second)}[rule]


def numbers(rule, rate=0.05):
    return {"rate": rate} | ({"step": 3} if rule == "adam" else {})


def stepped(rule, values, state, rows, gradients, threads=1):
    """Return the table and the state after a step of copies."""
    arrays = [array.copy() for array in (values, *state)]
    step = getattr(kernel, rule)
    step(*arrays, rows, gradients, **numbers(rule), num_threads=threads)
    return arrays


@given(*shapes)
@settings(max_examples=60, deadline=None)
def test_rows_are_looked_up(seed, size, d, kind):
    values, rows, _ = draw(seed, size, d, kind)
    assert np.array_equal(kernel.lookup(values, rows), kernel.lookup_reference(values, rows))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_given_array_is_filled(threads):
    values, rows, out = *draw(0, 5000, 9)[:2], np.empty((5000, 9), np.float32)
    assert kernel.lookup(values, rows, out=out, num_threads=threads) is out
    assert np.array_equal(out, values[rows])


@given(*shapes)
@settings(max_examples=60, deadline=None)
def test_gradients_of_a_row_are_summed(seed, size, d, kind):
    _, rows, gradients = draw(seed, size, d, kind)
    at, sums = kernel.merge(rows, gradients, N)
    wanted = kernel.merge_reference(rows, gradients)
    assert np.array_equal(at, wanted[0])
    np.testing.assert_allclose(sums, wanted[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_rows", [1, 2, 2048, 2049, 1 << 22, (1 << 22) + 1, 1 << 40])
def test_tables_of_any_size_are_sorted(num_rows):
    rows = rng(1, "size", num_rows).integers(num_rows, size=999)
    gradients = np.eye(999, dtype=np.float32)
    at, sums = kernel.merge(rows, gradients, num_rows)
    assert np.array_equal(at, np.unique(rows))
    assert np.array_equal(at[sums.argmax(0)], rows)


def test_gradients_are_summed_in_the_order_of_their_positions():
    """Large and small numbers, whose float32 sum depends on the order."""
    big = np.array([[1e8], [1.0], [-1e8], [1.0]], np.float32)
    assert kernel.merge(np.zeros(4, np.int32), big, 1)[1] == 1
    assert kernel.merge(np.zeros(4, np.int32), big[[0, 2, 1, 3]], 1)[1] == 2


@pytest.mark.parametrize("rule", RULES)
@given(*shapes)
@settings(max_examples=60, deadline=None)
def test_a_step_is_the_formulas(rule, seed, size, d, kind):
    values, rows, gradients = draw(seed, size, d, kind)
    state = start(rule, values, seed)
    wanted = getattr(kernel, f"{rule}_reference")(values, *state, rows, gradients, **numbers(rule))
    found = stepped(rule, values, state, rows, gradients)
    for one, other in zip(found, [wanted] if rule == "sgd" else wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    rest = np.setdiff1d(np.arange(N), rows)
    for one, other in zip(found, (values, *state), strict=True):
        assert np.array_equal(one[rest], other[rest])


@pytest.mark.parametrize("rule", RULES)
def test_threads_change_no_digit(rule):
    values, rows, gradients = draw(3, 20_000, 17, num_rows=10_000)
    state = start(rule, values)
    one, two = (stepped(rule, values, state, rows, gradients, threads) for threads in (1, 2))
    for mine, other in zip(one, two, strict=True):
        assert np.array_equal(mine, other)


@pytest.mark.parametrize("bad", [-1, N])
@pytest.mark.parametrize("kind", ["i4", "i8"])
def test_rows_outside_the_table_are_refused_and_nothing_moves(bad, kind):
    values, rows, gradients = draw(0, 8, 4, kind)
    rows[5], before = bad, values.copy()
    told = f"row {bad} at position 5 is outside the table: expected 0 to 49"
    with pytest.raises(DataError, match=told):
        kernel.lookup(values, rows)
    with pytest.raises(DataError, match=told):
        kernel.sgd(values, rows, gradients, rate=1.0)
    assert np.array_equal(values, before)
