"""Items that a user has not met, drawn in bulk."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR
from martlet.kernels.jit import njit

TRIES = 32  # the last of so many draws is taken, though it was met
_GOLDEN = 0x9E3779B97F4A7C15
_64_BITS = (1 << 64) - 1


def draw_unmet(matrix: CSR, users: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return (B, count) int64 items drawn evenly among those that each user has not met.

    Who has met nearly all may be given what was met. O(B count log d) for d events of a user.

    Args:
        matrix: (users x items) CSR, items rising in each row.
        users: (B,) int64 rows of it.
        count: items for each.
        seed: 64 bits; an item is a function of it and of its place in the result.
    """
    found = np.empty((len(users), count), np.int64)
    _draw(matrix.indptr, matrix.indices, users, matrix.num_cols, np.uint64(seed & _64_BITS), found)
    return found


def draw_unmet_reference(
    matrix: CSR, users: NDArray[np.int64], count: int, seed: int
) -> NDArray[np.int64]:
    """Do the same in Python."""
    found = np.empty((len(users), count), np.int64)
    for place in range(found.size):
        met = set(matrix.row(int(users[place // count])).tolist())
        for turn in range(TRIES):
            z = (seed + (place * TRIES + turn + 1) * _GOLDEN) & _64_BITS
            z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _64_BITS
            item = ((z ^ (z >> 31)) >> 32) * matrix.num_cols >> 32
            if item not in met:
                break
        found.flat[place] = item
    return found


@njit(cache=True, nogil=True)
def _draw(indptr: Any, indices: Any, users: Any, num_items: Any, seed: Any, found: Any) -> None:
    count = found.shape[1]
    for row in range(len(users)):
        start, stop = indptr[users[row]], indptr[users[row] + 1]
        for at in range(count):
            for turn in range(TRIES):
                place = (row * count + at) * TRIES + turn + 1
                z = seed + np.uint64(place) * np.uint64(_GOLDEN)
                z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                z = (z ^ (z >> np.uint64(31))) >> np.uint64(32)
                item = np.int64(z * np.uint64(num_items) >> np.uint64(32))
                found[row, at] = item
                low, high = start, stop
                while low < high:  # where it would stand among what the user met
                    middle = (low + high) // 2
                    if indices[middle] < item:
                        low = middle + 1
                    else:
                        high = middle
                if low == stop or indices[low] != item:
                    break
