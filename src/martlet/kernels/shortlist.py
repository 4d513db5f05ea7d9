"""The k best of a stream of scores, in the project's total order.

Score and row are packed into one number that orders them: the score's bits above, the tie key
below. Whatever may be among the best is put aside, and once 2 k are there, the lesser half goes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.kernels.jit import njit
from martlet.kernels.select import tie

_CHUNK = 32  # scores that are passed over at once where none is good enough
_FEW = 64  # a list this short is kept sorted: its bound is always the newest
_SIGN = np.uint32(1 << 31)
_ALL_BITS = np.uint32(0xFFFFFFFF)


def room(k: int) -> int:
    """Return how many keys a shortlist of k needs."""
    return 2 * k + _CHUNK


@njit(cache=True, nogil=True, error_model="numpy")
def put_aside(
    scores: NDArray[np.float32], first_row: int, k: int, keys: Any, count: Any, worst: Any
) -> Any:
    """Add what may be among the best of (n,) contiguous scores of rows ``first_row ...``.

    NaN and -inf are dropped. O(n), and O(1) for each that is added.

    Args:
        scores: (n,) float32.
        first_row: row of the first score.
        k: how many will be asked for.
        keys: (room(k),) uint64.
        count: how many of the keys are in use.
        worst: no score below it can be among the best.

    Returns:
        The new count and the new bound.
    """
    bits = scores.view(np.uint32)
    for chunk in range(0, len(scores), _CHUNK):
        end = min(chunk + _CHUNK, len(scores))
        # Unsigned places need no test for a negative index, which would keep SIMD away.
        found = np.uint32(0)
        for j in range(np.uint64(chunk), np.uint64(end)):
            found = np.uint32(found | np.uint32(scores[j] >= worst))
        if not found:
            continue
        for j in range(chunk, end):
            if scores[j] >= worst and scores[j] > -np.inf:
                key = _pack(bits[j], first_row + j)
                if k > _FEW:
                    keys[count] = key
                    count += 1
                elif count < k or key > keys[k - 1]:
                    count = min(count + 1, k)
                    at = count - 1
                    while at > 0 and keys[at - 1] < key:
                        keys[at] = keys[at - 1]
                        at -= 1
                    keys[at] = key
                    if count == k:
                        worst = _score(keys[k - 1])
        if count >= 2 * k:
            _trim(keys, count, k)
            count, worst = k, _score(keys[k - 1])
    return count, worst


@njit(cache=True, nogil=True)
def write_best(keys: Any, count: Any, rows: Any, scores: Any) -> None:
    """Write the best of ``count`` keys, best first, into (k,) rows and scores; changes the keys."""
    k = len(rows)
    if count > k:
        _trim(keys, count, k)
        count = k
    # By Shell's gaps (Knuth's 1, 4, 13 ...): one pass where the keys are in order already, and
    # compiled in a tenth of the time that Numba's own sort takes.
    gap = 1
    while 3 * gap < count:
        gap = 3 * gap + 1
    while gap > 0:
        for at in range(gap, count):
            key = keys[at]
            while at >= gap and keys[at - gap] < key:
                keys[at] = keys[at - gap]
                at -= gap
            keys[at] = key
        gap //= 3
    for place in range(count):
        rows[place], scores[place] = _row(keys[place]), _score(keys[place])


@njit(cache=True, nogil=True)
def _score(key: Any) -> Any:
    """Return the score that was packed into a key."""
    high = np.uint32(key >> np.uint64(32))
    return np.uint32(high ^ _SIGN if high & _SIGN else high ^ _ALL_BITS).view(np.float32)


@njit(cache=True, nogil=True)
def _row(key: Any) -> Any:
    """Return the row that was packed into a key: the steps of ``tie`` undone, last one first."""
    x = np.uint32(key) ^ _ALL_BITS
    x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x43021123))
    x = np.uint32((x ^ (x >> np.uint32(15)) ^ (x >> np.uint32(30))) * np.uint32(0x1D69E2A5))
    return np.int32(x ^ (x >> np.uint32(16)))


@njit(cache=True, nogil=True, inline="always")
def _pack(bits: Any, row: Any) -> Any:
    """Return the uint64 that is larger the better (score, row) is; -0 counts as 0."""
    if bits == _SIGN:
        bits = np.uint32(0)
    high = bits ^ _ALL_BITS if bits & _SIGN else bits ^ _SIGN
    return (np.uint64(high) << np.uint64(32)) | np.uint64(tie(row) ^ _ALL_BITS)


@njit(cache=True, nogil=True)
def _trim(keys: Any, count: Any, k: Any) -> Any:
    """Move the k largest of ``count`` keys to the front, the least of them last.

    **Source**: Hoare, "Algorithm 65: Find" (1961).
    """
    low, high = 0, count - 1
    while low < high:
        pivot = keys[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            break
