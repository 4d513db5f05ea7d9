"""The place of given items among all that may be shown: what AUC and a full MRR need."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, num_threads
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread
from martlet.kernels.select import tie
from martlet.kernels.topk import (
    EVERYTHING,
    F32,
    GRAIN,
    I32,
    rows_of,
    score_pair,
    topk_dot_reference,
)


def ranks_dot(
    vectors: F32,
    items_t: F32,
    targets: CSR,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
    threads: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the place of each target among all items that may be shown. O(B n d).

    Args:
        vectors: (B, d) float32.
        items_t: (d, n) float32.
        targets: (B x n) CSR of the items to find.
        hidden: (B x n) CSR of items that take no place, rising in each row; a target keeps its own.
        allow: (n,) bool of the items that take a place.
        threads: threads to use.

    Returns:
        (targets.nnz,) int64 places, 0 for the best, -1 for a target of no score; and (B,) int64
        counts of the items that took a place.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    items_t = np.ascontiguousarray(items_t, np.float32)
    size, n = len(vectors), items_t.shape[1]
    indptr, indices = rows_of(hidden, size)
    mask = EVERYTHING if allow is None else np.ascontiguousarray(allow)
    places = np.zeros(targets.nnz, np.int64)
    counts = np.zeros(size, np.int64)

    def users(start: int, stop: int) -> None:
        scores = np.empty((2, n), np.float32)
        for at in range(start, stop, 2):
            pair = min(at + 2, stop)
            score_pair(vectors, items_t, at, pair, 0, n, scores)
            _places(
                scores, at, pair, indptr, indices, mask, targets.indptr, targets.indices,
                places, counts,
            )  # fmt: skip

    grain = max(1, GRAIN // max(1, n * len(items_t)))
    spread(users, size, num_threads() if threads is None else threads, grain)
    return places, counts


def ranks_dot_reference(
    vectors: F32,
    items_t: F32,
    targets: CSR,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the same from each user's full list."""
    size, n = len(vectors), items_t.shape[1]
    places, counts = np.full(targets.nnz, -1, np.int64), np.zeros(size, np.int64)
    for user in range(size):
        shown = np.ones(n, np.bool_) if allow is None else allow.copy()
        if hidden is not None:
            shown[hidden.row(user)] = False
        own = slice(*targets.indptr[user : user + 2])
        shown[targets.indices[own]] = True
        rows, _ = topk_dot_reference(vectors[user : user + 1], items_t, max(1, n), allow=shown)
        full = rows[0][rows[0] >= 0]
        place = np.full(n, -1, np.int64)
        place[full] = np.arange(len(full))
        places[own], counts[user] = place[targets.indices[own]], len(full)
    return places, counts


@njit(cache=True, nogil=True)
def _places(
    scores: F32, start: int, stop: int, indptr: Any, indices: I32, allow: Any,
    target_ptr: Any, targets: I32, places: Any, counts: Any,
) -> None:  # fmt: skip
    """Count, for each target of users ``start:stop``, the shown items that come before it."""
    n = scores.shape[1]
    for user in range(start, stop):
        row = scores[user - start]
        begin, end = target_ptr[user], target_ptr[user + 1]
        own = row[targets[begin:end]].copy()
        if len(indptr):
            for hidden in indices[indptr[user] : indptr[user + 1]]:
                row[hidden] = -np.inf
        if len(allow):
            for item in range(n):
                if not allow[item]:
                    row[item] = -np.inf
        for t in range(end - begin):
            row[targets[begin + t]] = own[t]
        for item in range(n):
            if row[item] > -np.inf:
                counts[user] += 1
        for t in range(end - begin):
            target = targets[begin + t]
            if not own[t] > -np.inf:
                places[begin + t] = -1
                continue
            before = 0
            for item in range(n):
                if row[item] > own[t] or (
                    row[item] == own[t] and item != target and tie(item) < tie(target)
                ):
                    before += 1
            places[begin + t] = before
