"""The best items of the whole catalogue, scored and selected in one pass.

Scores never reach memory: a block of items that fits the cache is scored for two users at a time
and compared with their k-th best. SIMD runs over items, so every score is summed over the features
in the same order, whatever the batch, the block and the number of threads: same digits always.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from martlet.core import CSR, best, num_threads
from martlet.kernels.parallel import spread
from martlet.kernels.select import pop_all, sink, tie, worse

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

_BLOCK = 128  # items; with 64 features 32 KB, so that the next users find them in the cache
_LONG_BLOCK = 4096  # items, for a few users: long runs of each feature, as memory likes to be read
_GRAIN = 1 << 21  # multiply-adds that are worth a thread

_NO_ROWS = np.zeros(0, np.int64), np.zeros(0, np.int32)
_ALL = np.zeros(0, np.bool_)


def topk_dot(
    vectors: F32,
    items_t: F32,
    k: int,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
    threads: int | None = None,
    *,
    first_row: int = 0,
) -> tuple[I32, F32]:
    """Return the k items of largest inner product with each vector. O(B n d).

    Args:
        vectors: (B, d) float32.
        items_t: (d, n) float32, the item vectors transposed.
        k: length of the lists.
        hidden: (B x n) CSR of items to leave out, rising in each row.
        allow: (n,) bool of the items that may appear; None allows all.
        threads: threads to use; None takes ``num_threads()``.
        first_row: added to every row; for a catalogue that is searched piece by piece.

    Returns:
        (B, k) int32 rows and (B, k) float32 scores, score falling, ties by ``tie_key`` of the row
        rising; NaN and -inf are dropped; short lists end in -1 and -inf.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    items_t = np.ascontiguousarray(items_t, np.float32)
    size, n = len(vectors), items_t.shape[1]
    indptr, indices = _rows_of(hidden, size)
    mask = _ALL if allow is None else np.ascontiguousarray(allow)
    threads = num_threads() if threads is None else threads
    # A few vectors leave no work to share between threads, so they share the items instead.
    parts = 1 if size >= 4 * threads else max(1, min(threads, size * n * len(items_t) // _GRAIN))
    width = -(-n // parts) if n else 1
    rows = np.full((size, parts, k), -1, np.int32)
    scores = np.full((size, parts, k), -np.inf, np.float32)

    def part(start: int, stop: int) -> None:
        for cell in range(start, stop):
            low, high = cell * width, min((cell + 1) * width, n)
            _topk_dot(
                vectors, items_t, 0, size, low, high, indptr, indices, mask, first_row,
                rows[:, cell], scores[:, cell],
            )  # fmt: skip

    def users(start: int, stop: int) -> None:
        _topk_dot(
            vectors, items_t, start, stop, 0, n, indptr, indices, mask, first_row,
            rows[:, 0], scores[:, 0],
        )  # fmt: skip

    if parts > 1:
        spread(part, parts, threads)
        merged = best(scores.reshape(size, -1), rows.reshape(size, -1), k)
        return merged.item_row, merged.score
    # Whole pairs of users a piece, so that none is scored beside an idle lane.
    pairs = max(1, _GRAIN // max(1, 2 * n * len(items_t)))
    spread(lambda a, b: users(2 * a, min(2 * b, size)), -(-size // 2), threads, pairs)
    return rows[:, 0], scores[:, 0]


def topk_dot_reference(
    vectors: F32,
    items_t: F32,
    k: int,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
    *,
    first_row: int = 0,
) -> tuple[I32, F32]:
    """Return what ``topk_dot`` returns, in NumPy: one feature after the other, then a full sort."""
    scores = np.zeros((len(vectors), items_t.shape[1]), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for feature in range(len(items_t)):
            scores += vectors[:, feature, None] * items_t[feature]
    return topk_scores_reference(scores, k, hidden, allow, first_row=first_row)


def topk_scores(
    scores: F32,
    k: int,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
    threads: int | None = None,
) -> tuple[I32, F32]:
    """Return the k largest of each row of (B, n) float32 scores, in the order of ``topk_dot``.

    O(B n): every score is read once.
    """
    scores = np.ascontiguousarray(scores, np.float32)
    size, n = scores.shape
    indptr, indices = _rows_of(hidden, size)
    mask = _ALL if allow is None else np.ascontiguousarray(allow)
    rows = np.full((size, k), -1, np.int32)
    top = np.full((size, k), -np.inf, np.float32)
    spread(
        lambda a, b: _topk_scores(scores, a, b, indptr, indices, mask, rows, top),
        size,
        num_threads() if threads is None else threads,
        max(1, _GRAIN // max(1, n)),
    )
    return rows, top


def topk_scores_reference(
    scores: F32,
    k: int,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
    *,
    first_row: int = 0,
) -> tuple[I32, F32]:
    """Return what ``topk_scores`` returns, by a full sort in NumPy."""
    shown = scores.copy()
    if hidden is not None:
        shown[hidden.row_numbers(), hidden.indices] = -np.inf
    if allow is not None:
        shown[:, ~allow] = -np.inf
    n = scores.shape[1]
    ranking = best(shown, np.arange(first_row, first_row + n, dtype=np.int32)[None], k)
    return ranking.item_row, ranking.score


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
    indptr, indices = _rows_of(hidden, size)
    mask = _ALL if allow is None else np.ascontiguousarray(allow)
    places = np.zeros(targets.nnz, np.int64)
    counts = np.zeros(size, np.int64)

    def users(start: int, stop: int) -> None:
        scores = np.empty((2, n), np.float32)
        for at in range(start, stop, 2):
            pair = min(at + 2, stop)
            _score(vectors, items_t, at, pair, 0, n, scores)
            _places(
                scores, at, pair, indptr, indices, mask, targets.indptr, targets.indices,
                places, counts,
            )  # fmt: skip

    grain = max(1, _GRAIN // max(1, n * len(items_t)))
    spread(users, size, num_threads() if threads is None else threads, grain)
    return places, counts


def _rows_of(csr: CSR | None, size: int) -> tuple[Any, Any]:
    if csr is None or not csr.nnz:
        return _NO_ROWS
    assert csr.num_rows == size, "one hidden row a query"
    return csr.indptr, csr.indices


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _score(vectors: F32, items_t: F32, user: int, stop: int, low: int, high: int, out: F32) -> None:
    """Write the scores of one or two users for items ``low:high`` into (2, high - low) ``out``.

    Four features a step: eight multiply-adds for six loads keep the arithmetic busy.
    """
    d = len(items_t)
    other = min(user + 1, stop - 1)
    width = high - low
    a, b = out[0], out[1]
    for j in range(width):
        a[j] = np.float32(0)
        b[j] = np.float32(0)
    whole = d - d % 4
    for f in range(0, whole, 4):
        v0, v1 = items_t[f, low:high], items_t[f + 1, low:high]
        v2, v3 = items_t[f + 2, low:high], items_t[f + 3, low:high]
        p0, p1 = vectors[user, f], vectors[user, f + 1]
        p2, p3 = vectors[user, f + 2], vectors[user, f + 3]
        q0, q1 = vectors[other, f], vectors[other, f + 1]
        q2, q3 = vectors[other, f + 2], vectors[other, f + 3]
        for j in range(width):
            a[j] = a[j] + p0 * v0[j] + p1 * v1[j] + p2 * v2[j] + p3 * v3[j]
            b[j] = b[j] + q0 * v0[j] + q1 * v1[j] + q2 * v2[j] + q3 * v3[j]
    for f in range(whole, d):
        v = items_t[f, low:high]
        p, q = vectors[user, f], vectors[other, f]
        for j in range(width):
            a[j] = a[j] + p * v[j]
            b[j] = b[j] + q * v[j]


@njit(cache=True, nogil=True)
def _select(
    scores: F32, low: int, hidden: I32, allow: Any, first_row: int, rows: I32, top: F32
) -> None:
    """Offer (width,) scores of items ``low ...`` to the heap; overwrites the hidden ones."""
    width = len(scores)
    at = np.searchsorted(hidden, low)
    while at < len(hidden) and hidden[at] < low + width:
        scores[hidden[at] - low] = -np.inf
        at += 1
    if len(allow):
        for j in range(width):
            if not allow[low + j]:
                scores[j] = -np.inf
    k = len(rows)
    worst = top[0]
    for j in range(width):
        # A NaN compares false, so it never enters.
        if scores[j] >= worst and scores[j] > -np.inf:
            row = first_row + low + j
            if worse(top[0], rows[0], scores[j], row):
                sink(top, rows, k, scores[j], row)
                worst = top[0]


@njit(cache=True, nogil=True)
def _topk_dot(
    vectors: F32, items_t: F32, start: int, stop: int, low: int, high: int,
    indptr: Any, indices: I32, allow: Any, first_row: int, rows: I32, top: F32,
) -> None:  # fmt: skip
    """Fill the heaps of users ``start:stop`` from items ``low:high``, then sort them."""
    length = _BLOCK if stop - start > 8 else _LONG_BLOCK
    scores = np.empty((2, length), np.float32)
    for block in range(low, high, length):
        end = min(block + length, high)
        for user in range(start, stop, 2):
            pair = min(user + 2, stop)
            _score(vectors, items_t, user, pair, block, end, scores)
            for one in range(user, pair):
                hidden = indices[indptr[one] : indptr[one + 1]] if len(indptr) else indices
                _select(
                    scores[one - user, : end - block], block, hidden, allow, first_row,
                    rows[one], top[one],
                )  # fmt: skip
    for user in range(start, stop):
        pop_all(top[user], rows[user], len(top[user]))


@njit(cache=True, nogil=True)
def _topk_scores(
    scores: F32, start: int, stop: int, indptr: Any, indices: I32, allow: Any, rows: I32, top: F32
) -> None:
    """Fill and sort the lists of rows ``start:stop``; the scores given stay as they are."""
    block = np.empty(_BLOCK, np.float32)
    n = scores.shape[1]
    for user in range(start, stop):
        hidden = indices[indptr[user] : indptr[user + 1]] if len(indptr) else indices
        for low in range(0, n, _BLOCK):
            width = min(_BLOCK, n - low)
            block[:width] = scores[user, low : low + width]
            _select(block[:width], low, hidden, allow, 0, rows[user], top[user])
        pop_all(top[user], rows[user], len(top[user]))


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
