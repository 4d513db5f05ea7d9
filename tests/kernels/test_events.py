import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.core import CSR
from martlet.kernels import events

SIZES = (5, 7)


@st.composite
def logs(draw):
    n = draw(st.integers(0, 60))
    rows = [draw(st.lists(st.integers(0, size - 1), min_size=n, max_size=n)) for size in SIZES]
    times = draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))
    return *(np.array(row, np.int32) for row in rows), np.array(times, np.int64)


def csr(users, items):
    return CSR.from_pairs(users, items, None, SIZES)


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2)), max_size=200), st.data())
@settings(deadline=None)
def test_keys_are_numbered_as_they_appear_whatever_the_pieces(pairs, data):
    # Few different keys too, and more than one check a key.
    small = data.draw(st.booleans())
    keys = np.array([k % 9 if small else k for k, _ in pairs], np.uint64)
    checks = np.array([c for _, c in pairs], np.uint32)
    cut = data.draw(st.integers(0, len(keys)))
    slots, count, found = events.new_slots(), 0, []
    for part in (slice(0, cut), slice(cut, None)):
        codes, new_at, slots = events.number_keys(keys[part], checks[part], slots, count)
        assert codes[new_at].tolist() == list(range(count, count + len(new_at)))
        count += len(new_at)
        found += codes.tolist()
    assert found == events.number_keys_reference(keys, checks).tolist()


@given(logs(), st.booleans())
@settings(deadline=None)
def test_order_is_stable(log, timed):
    users, _, times = log
    time = times if timed else None
    found, counts = events.order_by(users, SIZES[0], time, 2)
    assert counts.tolist() == np.bincount(users, minlength=SIZES[0]).tolist()
    assert found.tolist() == events.order_by_reference(users, time).tolist()


@given(logs())
@settings(deadline=None)
def test_the_last_of_each_pair_stays_and_may_carry_the_sum(log):
    histories = csr(*log[:2])
    expected = events.merge_pairs_reference(histories)
    weight = np.arange(1, histories.nnz + 1, dtype=np.float32)
    total = weight.sum()
    assert (events.merge_pairs(histories, None, 2) == expected).all()
    assert (events.merge_pairs(histories, weight, 2) == expected).all()
    assert weight[expected].sum() == total


@given(logs(), st.integers(0, 4), st.integers(0, 4))
@settings(deadline=None)
def test_k_core(log, of_user, of_item):
    arguments = (*log[:2], SIZES, (of_user, of_item))
    assert (events.k_core(*arguments) == events.k_core_reference(*arguments)).all()


@given(logs(), logs())
@settings(deadline=None)
def test_shared_pairs_count_once(one, other):
    pair = csr(*one[:2]), csr(*other[:2])
    assert events.shared_pairs(*pair, num_threads=2) == events.shared_pairs_reference(*pair)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_many_users_in_pieces(num_threads):
    n, users = 60_000, 20_000
    stream = np.random.default_rng(0)
    # One user is much longer than the others.
    user, item = stream.integers(users, size=n, dtype=np.int32), stream.integers(7, size=n)
    user[stream.random(n) < 0.01] = 3
    time = stream.integers(100, size=n)
    order, _ = events.order_by(user, users, time, num_threads)
    assert (order == events.order_by_reference(user, time)).all()
    histories = CSR.from_pairs(user[order], item[order], None, (users, 7))
    expected = events.merge_pairs_reference(histories)
    assert (events.merge_pairs(histories, None, num_threads) == expected).all()
    half = CSR.from_pairs(user[: n // 2], item[: n // 2], None, (users, 7))
    assert events.shared_pairs(histories, half, num_threads) == events.shared_pairs_reference(
        histories, half
    )


@given(logs())
@settings(deadline=None)
def test_rows_are_counted_of_one_part_and_of_all(log):
    users, items, _ = log
    # On top of what was counted before.
    found, expected = np.ones((2, 2, SIZES[0]), np.int64)
    events.count_rows(users, items.astype(np.int8), *found)
    events.count_rows_reference(users, items.astype(np.int8), *expected)
    assert found.tolist() == expected.tolist()
    assert expected[1].sum() == len(users) + SIZES[0]
