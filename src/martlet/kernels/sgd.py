"""Stochastic gradient descent on a factorization, cell by cell or pair by pair."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR
from martlet.kernels.jit import njit

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
_TRIES = 32  # draws of an item that the user has not met; then the event is passed over


def sgd_epoch(
    rows: I32, cols: I32, values: F32, order: NDArray[np.int64], users: F32, items: F32,
    rate: float, reg: float, logistic: bool,
) -> None:  # fmt: skip
    """Move both factors once for every cell, in the given order. O(n d), in place.

    With e = f(u . v) - r, where f is the identity or the logistic function, a step is
    u -= rate (e v + reg u) and v -= rate (e u + reg v), from the values before the step: half the
    gradient of the square, the gradient of the cross-entropy.

    Args:
        rows: (n,) int32 of each cell.
        cols: (n,) int32.
        values: (n,) float32 r.
        order: (n,) int64, a permutation of the cells.
        users: (users, d) float32, moved.
        items: (items, d) float32, moved.
        rate: length of a step.
        reg: L2 strength.
        logistic: whether f is the logistic function.
    """
    _epoch(rows, cols, values, order, users, items, np.float32(rate), np.float32(reg), logistic)


def sgd_epoch_reference(
    rows: I32, cols: I32, values: F32, order: NDArray[np.int64], users: F32, items: F32,
    rate: float, reg: float, logistic: bool,
) -> None:  # fmt: skip
    """Do the same in NumPy."""
    for at in order:
        user, item = users[rows[at]].copy(), items[cols[at]].copy()
        score = user @ item
        error = (1 / (1 + np.exp(-score)) if logistic else score) - values[at]
        users[rows[at]] -= np.float32(rate) * (error * item + np.float32(reg) * user)
        items[cols[at]] -= np.float32(rate) * (error * user + np.float32(reg) * item)


def bpr_epoch(
    matrix: CSR,
    order: NDArray[np.int64],
    users: F32,
    items: F32,
    rate: float,
    reg: float,
    seed: int,
) -> float:
    """Move the factors once for every event against a drawn item that its user has not met.

    With x = u . (i - j) and s = 1 / (1 + e^x), a step is u += rate (s (i - j) - reg u),
    i += rate (s u - reg i), j += rate (-s u - reg j), from the values before the step. O(nnz d).

    Args:
        matrix: (users x items) CSR, items rising in each row.
        order: (nnz,) int64, a permutation of the events.
        users: (users, d) float32, moved.
        items: (items, d) float32, moved.
        rate: length of a step.
        reg: L2 strength.
        seed: of the drawn items; the draw for an event is a function of it and of its turn.

    Returns:
        The mean of log(1 + e^-x) before each step.
    """
    rows = matrix.row_numbers()
    total = _bpr(
        matrix.indptr, matrix.indices, rows, order, users, items, np.float32(rate),
        np.float32(reg), np.uint64(seed % 2**64),
    )  # fmt: skip
    return float(total) / max(1, len(order))


def bpr_epoch_reference(
    matrix: CSR,
    order: NDArray[np.int64],
    users: F32,
    items: F32,
    rate: float,
    reg: float,
    seed: int,
) -> float:
    """Do the same in NumPy."""
    rows, total = matrix.row_numbers(), 0.0
    for turn, at in enumerate(order.tolist()):
        met = matrix.row(rows[at])
        other = next(
            (
                item
                for item in (
                    _mixed(seed % 2**64, turn * _TRIES + again) % len(items)
                    for again in range(_TRIES)
                )
                if item not in met
            ),
            None,
        )
        if other is None:
            continue
        user, item, rival = (
            users[rows[at]].copy(),
            items[matrix.indices[at]].copy(),
            items[other].copy(),
        )
        x = user @ (item - rival)
        share = 1 / (1 + np.exp(x))
        total += np.logaddexp(0, -x)
        users[rows[at]] += np.float32(rate) * (share * (item - rival) - np.float32(reg) * user)
        items[matrix.indices[at]] += np.float32(rate) * (share * user - np.float32(reg) * item)
        items[other] += np.float32(rate) * (-share * user - np.float32(reg) * rival)
    return total / max(1, len(order))


def _mixed(seed: int, turn: int) -> int:
    """Return the number that SplitMix64 (Steele, 2014) gives at a turn, as the kernel does."""
    z = (seed + (turn + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return (z ^ (z >> 31)) >> 33


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _epoch(
    rows: Any, cols: Any, values: Any, order: Any, users: Any, items: Any, rate: Any, reg: Any,
    logistic: bool,
) -> None:  # fmt: skip
    one = np.float32(1)
    for at in order:
        user, item = users[rows[at]], items[cols[at]]
        error = np.float32(0)
        for f in range(len(user)):
            error += user[f] * item[f]
        if logistic:
            error = one / (one + np.exp(-error))
        error -= values[at]
        for f in range(len(user)):
            u, v = user[f], item[f]
            user[f] = u - rate * (error * v + reg * u)
            item[f] = v - rate * (error * u + reg * v)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def _bpr(
    indptr: Any, indices: Any, rows: Any, order: Any, users: Any, items: Any, rate: Any, reg: Any,
    seed: Any,
) -> float:  # fmt: skip
    total, one = 0.0, np.float32(1)
    for turn in range(len(order)):
        at = order[turn]
        row, mine = rows[at], indices[at]
        other = np.int64(-1)
        for again in range(_TRIES):
            z = seed + np.uint64(turn * _TRIES + again + 1) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            drawn = np.int64((z ^ (z >> np.uint64(31))) >> np.uint64(33)) % len(items)
            low, high = indptr[row], indptr[row + 1]
            while low < high:  # where it would stand among what the user met
                middle = (low + high) // 2
                if indices[middle] < drawn:
                    low = middle + 1
                else:
                    high = middle
            if low == indptr[row + 1] or indices[low] != drawn:
                other = drawn
                break
        if other < 0:
            continue
        user, item, rival = users[row], items[mine], items[other]
        x = np.float32(0)
        for f in range(len(user)):
            x += user[f] * (item[f] - rival[f])
        share = one / (one + np.exp(x))
        total += np.log1p(np.exp(-abs(x))) + max(-x, np.float32(0))
        for f in range(len(user)):
            u, i, j = user[f], item[f], rival[f]
            user[f] = u + rate * (share * (i - j) - reg * u)
            item[f] = i + rate * (share * u - reg * i)
            rival[f] = j + rate * (-share * u - reg * j)
    return total
