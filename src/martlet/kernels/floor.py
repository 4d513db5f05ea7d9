"""What a scan with bounds keeps: rows that may still be in an answer, given the floor under it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.kernels.jit import njit

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


@njit(cache=True, nogil=True)
def threshold(least: Any, full: bool, known: Any, slack: Any) -> Any:
    """Return what an upper bound has to come up to: the floor of k rows met, or one known."""
    return (max(least, known) if full else known) - slack


@njit(cache=True, nogil=True)
def sift(queries: I32, rows: I32, bounds: F32, floors: F32, filled: Any, slack: F32) -> Any:
    """Drop what the floors have since ruled out, and make places where that is not much."""
    k = floors.shape[1]
    kept = 0
    for at in range(len(rows)):
        b = queries[at]
        if filled[b] < k or bounds[at] >= floors[b, 0] - slack[b]:
            queries[kept], rows[kept], bounds[kept] = b, rows[at], bounds[at]
            kept += 1
    if 2 * kept > len(rows):
        more = np.empty(len(rows), np.int32)
        queries, rows = np.concatenate((queries, more)), np.concatenate((rows, more))
        bounds = np.concatenate((bounds, np.empty(len(bounds), np.float32)))
    return queries, rows, bounds, kept
