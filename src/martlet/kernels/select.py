"""The k best of a stream of scored rows in the project's total order: a heap, worst at the root.

Callers give sizes as int64 and rows as int32, never a literal: each type is compiled anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from martlet.kernels.jit import njit


@njit(cache=True, nogil=True, inline="always")
def tie(row: Any) -> Any:
    """Return ``core.tie_key`` of one row."""
    x = np.uint32(row)
    x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32((x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@njit(cache=True, nogil=True)
def worse(score: Any, row: Any, other_score: Any, other_row: Any) -> Any:
    """Return whether (score, row) is ranked after (other_score, other_row)."""
    return score < other_score or (score == other_score and tie(row) > tie(other_row))


@njit(cache=True, nogil=True)
def sink(scores: Any, rows: Any, size: Any, score: Any, row: Any) -> Any:
    """Put (score, row) at the root of a heap of ``size`` and let it sink to its place."""
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and worse(
            scores[child + 1], rows[child + 1], scores[child], rows[child]
        ):
            child += 1
        if not worse(scores[child], rows[child], score, row):
            break
        scores[at], rows[at] = scores[child], rows[child]
        at = child
    scores[at], rows[at] = score, row


@njit(cache=True, nogil=True)
def offer(scores: Any, rows: Any, size: Any, score: Any, row: Any) -> Any:
    """Offer (score, row) to a heap of ``size`` in arrays of k places; return its new size.

    O(1) when it is too bad to enter, else O(log k). The score is not NaN.
    """
    if size < len(scores):
        at = size
        while at > 0:
            parent = (at - 1) // 2
            if not worse(score, row, scores[parent], rows[parent]):
                break
            scores[at], rows[at] = scores[parent], rows[parent]
            at = parent
        scores[at], rows[at] = score, row
        return size + 1
    if score >= scores[0] and worse(scores[0], rows[0], score, row):
        sink(scores, rows, size, score, row)
    return size


@njit(cache=True, nogil=True)
def pop_all(scores: Any, rows: Any, size: Any) -> Any:
    """Turn a heap of ``size`` into a list, best first. O(size log size)."""
    for end in range(size - 1, 0, -1):
        score, row = scores[end], rows[end]
        scores[end], rows[end] = scores[0], rows[0]
        sink(scores, rows, end, score, row)
