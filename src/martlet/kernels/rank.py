"""Where the items to find stand among all others: the arithmetic of AUC."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def pairs_in_order(scores: F32, wanted: CSR, hidden: CSR, num_threads: int = 1) -> F64:
    """Return for each user the share of (item to find, other item) pairs in the right order.

    Other items are neither hidden nor to be found. A tie counts one half, and so does a user
    without any pair: nothing is known of the order. O(n) a wanted item.

    Args:
        scores: (B, n) float32, no NaN.
        wanted: (B x n) CSR, each item once a row.
        hidden: (B x n) CSR.
        num_threads: threads to use at most.

    Returns:
        (B,) float64.
    """
    shares = np.full(len(scores), 0.5)

    def some(start: int, stop: int) -> None:
        _pairs(
            scores, wanted.indptr, wanted.indices, hidden.indptr, hidden.indices, start, stop,
            np.empty(scores.shape[1], np.bool_), shares,
        )  # fmt: skip

    spread(some, len(scores), num_threads)
    return shares


def pairs_in_order_reference(scores: F32, wanted: CSR, hidden: CSR) -> F64:
    """Return the same by sorting the others of each user."""
    other = np.ones(scores.shape, bool)
    for taken in (hidden, wanted):
        other[taken.row_numbers(), taken.indices] = False
    shares = np.full(len(scores), 0.5)
    for user, score in enumerate(scores):
        against, mine = np.sort(score[other[user]]), score[wanted.row(user)]
        if len(against) and len(mine):
            twice = np.searchsorted(against, mine, "left") + np.searchsorted(against, mine, "right")
            shares[user] = twice.sum() / (2 * len(mine) * len(against))
    return shares


@njit(cache=True, nogil=True)
def _pairs(
    scores: Any, wanted_ptr: Any, wanted: Any, hidden_ptr: Any, hidden: Any, start: int, stop: int,
    other: Any, shares: Any,
) -> None:  # fmt: skip
    size = scores.shape[1]
    for user in range(start, stop):
        mine = wanted[wanted_ptr[user] : wanted_ptr[user + 1]]
        other[:] = True
        for item in hidden[hidden_ptr[user] : hidden_ptr[user + 1]]:
            other[item] = False
        for item in mine:
            other[item] = False
        against = 0
        for item in range(size):
            against += other[item]
        twice = 0
        for item in mine:
            score = scores[user, item]
            for rival in range(size):
                value = scores[user, rival]
                twice += other[rival] * ((value < score) + (value <= score))
        if against > 0 and len(mine) > 0:
            shares[user] = twice / (2.0 * len(mine) * against)
