"""The best items of the whole catalogue, scored and selected in one pass.

Scores never reach memory: a block of items that fits the cache is scored for two users at a time
and compared with their k-th best. SIMD runs over items, so every score is summed over the features
in the same order, whatever the batch, the block and the number of threads: same digits always.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, best, num_threads
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread
from martlet.kernels.shortlist import put_aside, room, write_best

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

_BLOCK = 512  # items; copied together, so that the next users find them in the cache
_LONG_BLOCK = 4096  # items, for a few users: long runs of each feature, as memory likes to be read
GRAIN = 1 << 21  # multiply-adds that are worth a thread

NO_ROWS = np.zeros(0, np.int64), np.zeros(0, np.int32)
EVERYTHING = np.zeros(0, np.bool_)


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
    indptr, indices = rows_of(hidden, size)
    mask = EVERYTHING if allow is None else np.ascontiguousarray(allow)
    threads = num_threads() if threads is None else threads
    # A few vectors leave no work to share between threads, so they share the items instead.
    parts = 1 if size >= 4 * threads else max(1, min(threads, size * n * len(items_t) // GRAIN))
    width = -(-n // parts) if n else 1
    rows = np.full((size, parts, k), -1, np.int32)
    scores = np.full((size, parts, k), -np.inf, np.float32)

    def part(start: int, stop: int) -> None:
        for cell in range(start, stop):
            low, high = cell * width, min((cell + 1) * width, n)
            _topk_dot(
                vectors, items_t, 0, size, low, high, indptr, indices, mask, first_row,
                room(k), rows, scores, cell,
            )  # fmt: skip

    def users(start: int, stop: int) -> None:
        _topk_dot(
            vectors, items_t, start, stop, 0, n, indptr, indices, mask, first_row,
            room(k), rows, scores, 0,
        )  # fmt: skip

    if parts > 1:
        spread(part, parts, threads)
        merged = best(scores.reshape(size, -1), rows.reshape(size, -1), k)
        return merged.item_row, merged.score
    # Whole pairs of users a piece, so that none is scored beside an idle lane.
    pairs = max(1, GRAIN // max(1, 2 * n * len(items_t)))
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
    indptr, indices = rows_of(hidden, size)
    mask = EVERYTHING if allow is None else np.ascontiguousarray(allow)
    rows = np.full((size, k), -1, np.int32)
    top = np.full((size, k), -np.inf, np.float32)
    spread(
        lambda a, b: _topk_scores(scores, a, b, indptr, indices, mask, room(k), rows, top),
        size,
        num_threads() if threads is None else threads,
        max(1, GRAIN // max(1, n)),
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


def rows_of(csr: CSR | None, size: int) -> tuple[Any, Any]:
    """Return the offsets and item rows of a CSR of ``size`` rows; two empty arrays for none."""
    if csr is None or not csr.nnz:
        return NO_ROWS
    assert csr.num_rows == size, "one hidden row a query"
    return csr.indptr, csr.indices


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def score_pair(
    vectors: F32, items_t: F32, user: int, stop: int, low: int, high: int, out: F32
) -> None:
    """Write the scores of one or two users for items ``low:high`` into (2, high - low) ``out``.

    Four features a step: eight multiply-adds for six loads keep the arithmetic busy.
    """
    d = len(items_t)
    other = min(user + 1, stop - 1)
    # Unsigned places need no test for a negative index, which would keep SIMD away.
    begin, width = np.uint64(low), np.uint64(high - low)
    for j in range(width):
        out[0, j] = np.float32(0)
        out[1, j] = np.float32(0)
    whole = d - d % 4
    for f in range(0, whole, 4):
        p0, p1 = vectors[user, f], vectors[user, f + 1]
        p2, p3 = vectors[user, f + 2], vectors[user, f + 3]
        q0, q1 = vectors[other, f], vectors[other, f + 1]
        q2, q3 = vectors[other, f + 2], vectors[other, f + 3]
        for j in range(width):
            v0, v1 = items_t[f, begin + j], items_t[f + 1, begin + j]
            v2, v3 = items_t[f + 2, begin + j], items_t[f + 3, begin + j]
            out[0, j] = out[0, j] + p0 * v0 + p1 * v1 + p2 * v2 + p3 * v3
            out[1, j] = out[1, j] + q0 * v0 + q1 * v1 + q2 * v2 + q3 * v3
    for f in range(whole, d):
        p, q = vectors[user, f], vectors[other, f]
        for j in range(width):
            v = items_t[f, begin + j]
            out[0, j] = out[0, j] + p * v
            out[1, j] = out[1, j] + q * v


@njit(cache=True, nogil=True)
def _hide(scores: F32, low: int, indices: I32, at: int, end: int, allow: Any) -> int:
    """Overwrite the (width,) scores of items ``low ...`` that may not be shown.

    Hidden items are read from ``indices[at:end]``; returns where the next block goes on.
    """
    high = low + len(scores)
    while at < end and indices[at] < high:
        if indices[at] >= low:
            scores[indices[at] - low] = -np.inf
        at += 1
    if len(allow):
        for j in range(len(scores)):
            if not allow[low + j]:
                scores[j] = -np.inf
    return at


@njit(cache=True, nogil=True)
def _topk_dot(
    vectors: F32, items_t: F32, start: int, stop: int, low: int, high: int,
    indptr: Any, indices: I32, allow: Any, first_row: int, room: int,
    rows: I32, top: F32, part: int,
) -> None:  # fmt: skip
    """Fill lists ``rows[user, part]`` of users ``start:stop`` from items ``low:high``."""
    k = rows.shape[2]
    keys = np.empty((stop - start, room), np.uint64)
    count = np.zeros(stop - start, np.int64)
    worst = np.full(stop - start, -np.inf, np.float32)
    hidden = np.zeros(stop - start, np.int64)
    if len(indptr):
        for user in range(start, stop):
            hidden[user - start] = indptr[user]
    many = stop - start > 8
    length = _BLOCK if many else _LONG_BLOCK
    scores = np.empty((2, length), np.float32)
    near = np.empty((len(items_t) if many else 0, length), np.float32)
    for block in range(low, high, length):
        end = min(block + length, high)
        if many:
            # Not by one assignment: the words of its error alone take Numba 2 s to compile.
            for f in range(len(items_t)):
                for j in range(np.uint64(end - block)):
                    near[f, j] = items_t[f, np.uint64(block) + j]
        items, begin = (near, 0) if many else (items_t, block)
        for user in range(start, stop, 2):
            pair = min(user + 2, stop)
            score_pair(vectors, items, user, pair, begin, begin + end - block, scores)
            for one in range(user, pair):
                shown, at = scores[one - user, : end - block], one - start
                last = indptr[one + 1] if len(indptr) else 0
                hidden[at] = _hide(shown, block, indices, hidden[at], last, allow)
                count[at], worst[at] = put_aside(
                    shown, first_row + block, k, keys[at], count[at], worst[at]
                )
    for user in range(start, stop):
        at = user - start
        write_best(keys[at], count[at], rows[user, part], top[user, part])


@njit(cache=True, nogil=True)
def _topk_scores(
    scores: F32, start: int, stop: int, indptr: Any, indices: I32, allow: Any, room: int,
    rows: I32, top: F32,
) -> None:  # fmt: skip
    """Fill the lists of rows ``start:stop``; the scores given stay as they are."""
    block = np.empty(_BLOCK, np.float32)
    keys = np.empty(room, np.uint64)
    n, k = scores.shape[1], rows.shape[1]
    for user in range(start, stop):
        at, last = (indptr[user], indptr[user + 1]) if len(indptr) else (0, 0)
        count, worst = np.int64(0), np.float32(-np.inf)
        for low in range(0, n, _BLOCK):
            width = min(_BLOCK, n - low)
            for j in range(np.uint64(width)):
                block[j] = scores[user, np.uint64(low) + j]
            at = _hide(block[:width], low, indices, at, last, allow)
            count, worst = put_aside(block[:width], low, k, keys, count, worst)
        write_best(keys, count, rows[user], top[user])
