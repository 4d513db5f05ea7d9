"""Arithmetic over the events of a log: number ids, order, merge, thin out, compare."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR
from martlet.kernels.item_item import frozen
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
F32 = NDArray[np.float32]
Mask = NDArray[np.bool_]

_GRAIN = 1 << 12  # users that are worth a thread, and an array over the items
_CODE = np.uint64(0xFFFFFFFF)


def new_slots(size: int = 8) -> U64:
    """Return a table for ``number_keys`` of twice the size or more, all empty."""
    return np.zeros((1 << int(2 * size - 1).bit_length(), 2), np.uint64)


def number_keys(keys: U64, checks: U32, slots: U64, count: int) -> tuple[I32, I64, U64]:
    """Give each key a code, in the order of first appearances; equal keys get equal codes.

    Args:
        keys: (n,) uint64.
        checks: (n,) uint32, further bits of each key.
        slots: of ``new_slots`` or of the call before; changed.
        count: codes that earlier calls gave.

    Returns:
        (n,) int32 codes; positions of the keys that are new, whose codes are count, count + 1 ...;
        and the table, another one where it had to grow. O(n).
    """
    codes = np.empty(len(keys), np.int32)
    new_at = np.empty(len(keys), np.int64)
    at, now = 0, count
    while True:
        at, now = _number(keys, checks, slots, codes, new_at, at, now, count)
        if at == len(keys):
            return codes, new_at[: now - count].copy(), slots
        slots = _grown(slots)


def _grown(slots: U64) -> U64:
    full = slots[(slots[:, 1] & _CODE) > 0]
    full = full[np.argsort(full[:, 1] & _CODE)]
    bigger = new_slots(len(slots))
    checks = (full[:, 1] >> np.uint64(32)).astype(np.uint32)
    codes, new_at = np.empty(len(full), np.int32), np.empty(len(full), np.int64)
    _number(np.ascontiguousarray(full[:, 0]), checks, bigger, codes, new_at, 0, 0, 0)
    return bigger


# A slot is a key, and its check above its code plus 1: one look-up is one line of memory.
@njit(cache=True, nogil=True)
def _number(
    keys: Any, checks: Any, slots: Any, codes: Any, new_at: Any, start: int, count: int, first: int
) -> tuple[int, int]:
    """Number from ``start`` on until the end, or until the table is half full."""
    size = np.uint64(len(slots))
    last = size - np.uint64(1)
    shift = np.uint64(64)
    while size > np.uint64(1):
        size >>= np.uint64(1)
        shift -= np.uint64(1)
    for at in range(start, len(keys)):
        if 2 * count >= len(slots):
            return at, count
        key, check = keys[at], np.uint64(checks[at])
        # The upper bits of a product with an odd constant (2^64 / the golden ratio) are well mixed.
        slot = (key * np.uint64(0x9E3779B97F4A7C15)) >> shift
        while True:
            held = slots[slot, 1]
            if held == np.uint64(0):
                slots[slot, 0] = key
                slots[slot, 1] = (check << np.uint64(32)) | np.uint64(count + 1)
                new_at[count - first] = at
                codes[at] = count
                count += 1
                break
            if slots[slot, 0] == key and held >> np.uint64(32) == check:
                codes[at] = np.int64(held & np.uint64(0xFFFFFFFF)) - 1
                break
            slot = (slot + np.uint64(1)) & last
    return len(keys), count


def number_keys_reference(keys: U64, checks: U32) -> I32:
    """Return the codes of keys that meet an empty table."""
    seen: dict[tuple[int, int], int] = {}
    pairs = zip(keys.tolist(), checks.tolist(), strict=True)
    return np.array([seen.setdefault(pair, len(seen)) for pair in pairs], np.int32)


def order_by(
    key: I32, num_keys: int, time: I64 | None = None, num_threads: int = 1
) -> tuple[NDArray[np.integer], I64]:
    """Return the positions that sort by key, then by time, equal ones as they are given.

    Args:
        key: (n,) int32 below ``num_keys``.
        num_keys: keys there may be.
        time: (n,) int64, or None.
        num_threads: threads over keys.

    Returns:
        (n,) int32 positions, int64 for 2^31 events or more; and (num_keys,) int64 counts. O(n)
        where each key's times rise already, else O(n log n); memory is what it returns.
    """
    small = len(key) < 2**31
    order: NDArray[np.integer] = np.empty(len(key), np.int32 if small else np.int64)
    ends = np.zeros(num_keys + 2, np.int64)
    _place(key, ends, order)
    if time is not None:
        times = time
        spread(
            lambda first, last: _sort_runs(ends, times, order, first, last),
            num_keys, num_threads, _GRAIN,
        )  # fmt: skip
    return order, np.diff(ends[:-1])


@njit(cache=True, nogil=True)
def _place(key: Any, ends: Any, order: Any) -> None:
    """Fill ``order`` by key; leave the offsets of the keys in ``ends[:-1]``."""
    for at in range(len(key)):
        ends[key[at] + 2] += 1
    for one in range(2, len(ends)):
        ends[one] += ends[one - 1]
    for at in range(len(key)):
        place = ends[key[at] + 1]
        order[place] = at
        ends[key[at] + 1] = place + 1


# Merges by hand, and in plain loops: NumPy's argsort takes Numba seconds to compile.
@njit(cache=True, nogil=True)
def _sort_runs(ends: Any, time: Any, order: Any, first: int, last: int) -> None:
    for key in range(first, last):
        begin, n = ends[key], ends[key + 1] - ends[key]
        rising = True
        for at in range(begin + 1, begin + n):
            rising &= time[order[at - 1]] <= time[order[at]]
        if rising:
            continue
        times, rows = np.empty(n, np.int64), np.empty(n, np.int64)
        to_times, to_rows = np.empty(n, np.int64), np.empty(n, np.int64)
        for at in range(n):
            rows[at] = order[begin + at]
            times[at] = time[rows[at]]
        width = 1
        while width < n:
            for start in range(0, n, 2 * width):
                middle, stop = min(start + width, n), min(start + 2 * width, n)
                left, right = start, middle
                for at in range(start, stop):
                    if right == stop or (left < middle and times[left] <= times[right]):
                        to_times[at], to_rows[at] = times[left], rows[left]
                        left += 1
                    else:
                        to_times[at], to_rows[at] = times[right], rows[right]
                        right += 1
            times, to_times, rows, to_rows = to_times, times, to_rows, rows
            width *= 2
        for at in range(n):
            order[begin + at] = rows[at]


def order_by_reference(key: I32, time: I64 | None) -> NDArray[np.integer]:
    """Return the same by NumPy's stable sorts."""
    return np.argsort(key, kind="stable") if time is None else np.lexsort((time, key))


def merge_pairs(histories: CSR, weight: F32 | None, num_threads: int = 1) -> Mask:
    """Return which events are the last of their pair of row and column.

    Args:
        histories: (num_users x num_items) CSR, the events of a user in their order.
        weight: (nnz,) float32 that becomes each last event's sum of its pair's; None adds nothing.
        num_threads: threads over users.

    Returns:
        (nnz,) bool. O(nnz) time, O(threads num_items) memory.
    """
    keep = np.ones(histories.nnz, np.bool_)
    values, add = (np.empty(0, np.float32), False) if weight is None else (weight, True)
    spread(
        lambda first, last: _merge(
            histories.indptr, histories.indices, values, add, keep, histories.num_cols, first, last
        ),
        histories.num_rows, num_threads, _GRAIN,
    )  # fmt: skip
    return keep


@njit(cache=True, nogil=True)
def _merge(
    indptr: Any, items: Any, weight: Any, add: bool, keep: Any, num_items: int,
    first: int, last: int,
) -> None:  # fmt: skip
    met_at = np.full(num_items, -1, np.int64)
    for user in range(first, last):
        start = indptr[user]
        for at in range(start, indptr[user + 1]):
            before = met_at[items[at]]
            if before >= start:  # else an earlier user met it
                keep[before] = False
                if add:
                    weight[at] += weight[before]
            met_at[items[at]] = at


def merge_pairs_reference(histories: CSR) -> Mask:
    """Return the same from sorted pairs."""
    pair = histories.row_numbers().astype(np.int64) * histories.num_cols + histories.indices
    order = np.argsort(pair, kind="stable")
    keep = np.zeros(len(pair), np.bool_)
    keep[order[np.append(np.diff(pair[order]) != 0, True)[: len(pair)]]] = True
    return keep


def k_core(user_row: I32, item_row: I32, shape: tuple[int, int], least: tuple[int, int]) -> Mask:
    """Return which events are left when every user and item with fewer is dropped, over and over.

    Args:
        user_row: (n,) int32.
        item_row: (n,) int32.
        shape: users and items.
        least: events that a user, and that an item, has to have.

    Returns:
        (n,) bool; there is one largest such set, whatever the order of dropping. O(n passes).
    """
    keep = np.ones(len(user_row), np.bool_)
    users, items = (np.zeros(size, np.int64) for size in shape)
    _thin(user_row, item_row, users, items, *least, keep)
    return keep


@njit(cache=True, nogil=True)
def _thin(
    user_row: Any, item_row: Any, users: Any, items: Any, of_user: int, of_item: int, keep: Any
) -> None:
    for at in range(len(keep)):
        users[user_row[at]] += 1
        items[item_row[at]] += 1
    dropped = True
    while dropped:
        dropped = False
        for at in range(len(keep)):
            if keep[at]:
                user, item = user_row[at], item_row[at]
                if users[user] < of_user or items[item] < of_item:
                    keep[at] = False
                    users[user] -= 1
                    items[item] -= 1
                    dropped = True


def k_core_reference(
    user_row: I32, item_row: I32, shape: tuple[int, int], least: tuple[int, int]
) -> Mask:
    """Return the same, counting anew in each round."""
    keep = np.ones(len(user_row), np.bool_)
    while True:
        users = np.bincount(user_row[keep], minlength=shape[0])
        items = np.bincount(item_row[keep], minlength=shape[1])
        enough = (users[user_row] >= least[0]) & (items[item_row] >= least[1])
        if not (keep & ~enough).any():
            return keep
        keep &= enough


@njit(cache=True, nogil=True)
def count_rows(rows: Any, part: Any, first: Any, all_: Any) -> None:
    """Add to (size,) int64 counts: of the rows of part 0, and of all. ``bincount`` widens rows."""
    for at in range(len(rows)):
        all_[rows[at]] += 1
        if part[at] == 0:
            first[rows[at]] += 1


def count_rows_reference(rows: Any, part: Any, first: Any, all_: Any) -> None:
    """Add the same by NumPy's ``bincount``."""
    all_ += np.bincount(rows, minlength=len(all_))
    first += np.bincount(rows[part == 0], minlength=len(first))


def shared_pairs(first: CSR, second: CSR, num_threads: int = 1) -> int:
    """Return how many different pairs of row and column stand in both. O(nnz) time."""
    found: list[int] = []
    one, other = ((frozen(csr.indptr), frozen(csr.indices)) for csr in (first, second))
    spread(
        lambda start, stop: found.append(_shared(*one, *other, first.num_cols, start, stop)),
        first.num_rows, num_threads, _GRAIN,
    )  # fmt: skip
    return int(sum(found))


@njit(cache=True, nogil=True)
def _shared(
    indptr: Any, items: Any, others_indptr: Any, others: Any, num_items: int, start: int, stop: int
) -> int:
    user_of = np.full(num_items, -1, np.int64)
    count = 0
    for user in range(start, stop):
        if others_indptr[user] == others_indptr[user + 1]:
            continue
        for at in range(indptr[user], indptr[user + 1]):
            user_of[items[at]] = user
        for at in range(others_indptr[user], others_indptr[user + 1]):
            if user_of[others[at]] == user:
                user_of[others[at]] = -1
                count += 1
    return count


def shared_pairs_reference(first: CSR, second: CSR) -> int:
    """Return the same from sets of pairs."""
    one, other = (
        set(zip(csr.row_numbers().tolist(), csr.indices.tolist(), strict=True))
        for csr in (first, second)
    )
    return len(one & other)
