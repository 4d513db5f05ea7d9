"""Stochastic gradient descent on a factorization, cell by cell."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.kernels.jit import njit

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


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
