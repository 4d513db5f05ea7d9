"""Item-to-item arithmetic: the nearest items of every item, and the best items of a history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, best
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread
from martlet.kernels.select import offer, pop_all

F32 = NDArray[np.float32]
Rows = Callable[[Any], F32]
TILE = 8  # queries that share one reading of the low-rank table; each always sits in a full tile
_NO_SCALE = np.empty(0, np.float32)
_ALL = np.empty(0, np.bool_)
_DECODED = 1 << 20  # values of U that are decoded at a time: 4 MB
_GRAIN = 256  # items that are worth a thread, and a buffer of n totals


def neighbours(
    matrix: CSR,
    top: int,
    *,
    norm: F32 | None = None,
    shrink: float = 0.0,
    diagonal: bool = False,
    num_threads: int = 1,
) -> CSR:
    """Return the ``top`` largest entries of each row of X^T X, divided by norms; rows rising.

    Entry (i, j) is ``(X^T X)[i, j] / (norm[i] norm[j] + shrink)``; ties by ``tie_key``; pairs that
    no row of X joins are not stored.

    Args:
        matrix: X, (num_users x n) CSR with each pair once.
        top: entries kept a row.
        norm: (n,) float32 lengths to divide by; None divides by nothing.
        shrink: added to the product of norms, so that rare pairs count less.
        diagonal: whether (i, i) competes.
        num_threads: threads over items.

    Returns:
        (n x n) CSR float32. O(sum over users of |history|^2) time, O(n top + threads n) memory.
    """
    n = matrix.num_cols
    top = min(top, n)
    users_of = parts(matrix.transpose())
    items_of = parts(matrix)
    rows = np.full((n, top), -1, np.int32)
    values = np.zeros((n, top), np.float32)
    lengths = _NO_SCALE if norm is None else frozen(norm.astype(np.float32))

    def items(start: int, stop: int) -> None:
        _neighbours(
            users_of, items_of, lengths, np.float32(shrink), diagonal, rows, values, start, stop
        )
        part = slice(start, stop)
        order = np.argsort(rows[part], axis=1)
        rows[part] = np.take_along_axis(rows[part], order, 1)
        values[part] = np.take_along_axis(values[part], order, 1)

    spread(items, n, num_threads, _GRAIN)
    kept = rows >= 0
    indptr = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int64)
    return CSR(indptr, rows[kept], values[kept], n)


def neighbours_reference(
    matrix: CSR,
    top: int,
    *,
    norm: F32 | None = None,
    shrink: float = 0.0,
    diagonal: bool = False,
) -> CSR:
    """Return the same from the dense (n, n) product; weights above 0."""
    n = matrix.num_cols
    dense = np.zeros((matrix.num_rows, n), np.float32)
    dense[matrix.row_numbers(), matrix.indices] = matrix.weights()
    gram = dense.T @ dense
    joined = gram > 0
    if norm is not None:
        gram = gram / (np.outer(norm, norm) + np.float32(shrink))
    if not diagonal:
        np.fill_diagonal(joined, False)
    scores = np.where(joined, gram, -np.inf).astype(np.float32)
    kept = best(scores, np.arange(n, dtype=np.int32)[None], top).item_row
    rows = [np.sort(row[row >= 0]) for row in kept]
    return CSR.from_rows(rows, n, [gram[i, row].tolist() for i, row in enumerate(rows)])


@njit(cache=True, nogil=True)
def _neighbours(
    users_of: Any, items_of: Any, norm: Any, shrink: Any, diagonal: bool,
    rows: Any, values: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """Fill rows ``start:stop`` of the (n, top) neighbours, a heap each; one buffer of totals."""
    n = len(rows)
    total = np.zeros(n, np.float32)
    touched = np.empty(n, np.int32)
    for i in range(start, stop):
        met = 0
        for a in range(users_of[0][i], users_of[0][i + 1]):
            user, weight = users_of[1][a], users_of[2][a]
            for b in range(items_of[0][user], items_of[0][user + 1]):
                j = items_of[1][b]
                if total[j] == 0:
                    touched[met] = j
                    met += 1
                total[j] += weight * items_of[2][b]
        size = np.int64(0)
        for at in range(met):
            j = touched[at]
            value = total[j]
            total[j] = 0
            if len(norm):
                value = value / (norm[i] * norm[j] + shrink)
            if diagonal or j != i:
                size = offer(values[i], rows[i], size, value, j)


def topk_item_item(
    history: CSR,
    weights: CSR,
    k: int,
    hidden: CSR,
    allow: NDArray[np.bool_] | None = None,
    *,
    scale: F32 | None = None,
    low_rank: tuple[NDArray[Any] | Rows, F32, F32] | None = None,
    num_threads: int = 1,
) -> tuple[NDArray[np.int32], F32]:
    """Return the k best items of each history: score = h S + ((h * left) U) U^T * right.

    The same digits whatever the batch and the threads: a query's sums run in the order of its
    history, and the low-rank part always works on a full tile of ``TILE`` queries.

    Args:
        history: (B x n) CSR, each item once a row.
        weights: S, (n x n) CSR, row = item of the history; values float32 or int8 codes.
        k: places of each list; beyond the catalogue it is padded.
        hidden: (B x n) CSR of items not to show.
        allow: (n,) bool of the items that may be shown, or None.
        scale: (n,) float32, what the codes of each row of S count; None for float32 values.
        low_rank: U (n, r) float32 or int8, or a function from row numbers or a slice to float32
            rows of it, which are then asked for block by block; left (n,) and right (n,) float32.
        num_threads: threads over tiles of queries.

    Returns:
        (B, k) int32 rows and float32 scores, padded with -1 and -inf.
        O(B (entries met + n r + n)) time, O(threads TILE n) memory beside the arguments.
    """
    n, size = weights.num_cols, history.num_rows
    rows = np.full((size, k), -1, np.int32)
    scores = np.full((size, k), -np.inf, np.float32)
    mine, sparse, hide = parts(history), parts(weights), parts(hidden)[:2]
    if low_rank is None:
        low_rank = np.empty((n, 0), sparse[2].dtype), _NO_SCALE, _NO_SCALE
    u, left, right = low_rank[0], frozen(low_rank[1]), frozen(low_rank[2])
    codes, shown = frozen(_NO_SCALE if scale is None else scale), frozen(_ALL)
    if allow is not None:
        shown = frozen(np.ascontiguousarray(allow))

    def tiles(start: int, stop: int) -> None:
        for first in range(start * TILE, min(stop * TILE, size), TILE):
            last = min(first + TILE, size)
            total = np.zeros((TILE, n), np.float32)
            _add_sparse(mine, sparse, codes, first, last, total)
            if callable(u):
                _add_rows(mine, u, left, right, first, last, total)
            elif u.shape[1]:
                z = np.zeros((TILE, u.shape[1]), np.float32)
                _project(mine, mine[1], frozen(u), left, first, last, z)
                _add_low_rank(total, 0, z, frozen(u), right)
            _select(total, hide, shown, rows, scores, first, last)

    spread(tiles, -(-size // TILE), num_threads)
    return rows, scores


def _add_rows(
    mine: tuple[Any, ...], rows_of: Rows, left: Any, right: Any, first: int, last: int, total: F32
) -> None:
    """Add the low-rank part of a tile, from rows that are decoded some at a time."""
    low, high = mine[0][first], mine[0][last]
    wide = rows_of(mine[1][low:high])
    z = np.zeros((TILE, wide.shape[1]), np.float32)
    at = np.arange(-low, len(mine[1]) - low, dtype=np.int32)
    _project(mine, frozen(at), frozen(wide), left, first, last, z)
    step = max(1, _DECODED // max(1, wide.shape[1]))
    for start in range(0, total.shape[1], step):
        _add_low_rank(total, start, z, frozen(rows_of(slice(start, start + step))), right)


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view: one type for arrays in memory and arrays that are mapped files."""
    view = array.view()
    view.flags.writeable = False
    return view


def parts(csr: CSR) -> tuple[NDArray[Any], ...]:
    """Return offsets, columns and values as a kernel takes them."""
    return frozen(csr.indptr), frozen(csr.indices), frozen(csr.weights())


def topk_item_item_reference(
    history: F32, weights: F32, low_rank: F32, k: int, hidden: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], F32]:
    """Return the same from dense (B, n) histories, (n, n) weights and (n, n) low-rank product."""
    scores = np.where(hidden, np.float32(-np.inf), history @ weights + history @ low_rank)
    ranking = best(scores, np.arange(weights.shape[1], dtype=np.int32)[None], k)
    return ranking.item_row, ranking.score


# Sums may be reassociated and fused, the same way for every query; NaN and infinity keep their
# meaning, for they are what the selection drops.
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")
def _add_sparse(history: Any, weights: Any, scale: Any, first: int, last: int, total: Any) -> None:
    """Add what the entries of S say to the (TILE, n) totals of queries ``first:last``."""
    for q in range(first, last):
        mine = total[q - first]
        for a in range(history[0][q], history[0][q + 1]):
            j, w = history[1][a], history[2][a]
            step = w * scale[j] if len(scale) else w
            for b in range(weights[0][j], weights[0][j + 1]):
                mine[weights[1][b]] += step * np.float32(weights[2][b])


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")
def _project(history: Any, at: Any, u: Any, left: Any, first: int, last: int, z: Any) -> None:
    """Add (h * left) U to ``z`` (TILE, r); entry a of the histories has row ``at[a]`` of ``u``."""
    for q in range(first, last):
        own = z[q - first]
        for a in range(history[0][q], history[0][q + 1]):
            step, row = history[2][a] * left[history[1][a]], at[a]
            for d in range(u.shape[1]):
                own[d] += step * np.float32(u[row, d])


@njit(cache=True, nogil=True, error_model="numpy")
def _select(
    total: Any, hidden: Any, allow: Any, rows: Any, scores: Any, first: int, last: int
) -> None:
    """Fill the lists of queries ``first:last`` from their totals."""
    k, n = rows.shape[1], total.shape[1]
    for q in range(first, last):
        mine = total[q - first]
        for a in range(hidden[0][q], hidden[0][q + 1]):
            mine[hidden[1][a]] = -np.inf
        found, worst = np.int64(0), np.float32(-np.inf)
        for i in range(n):
            if mine[i] < worst:
                continue
            if mine[i] > -np.inf and (len(allow) == 0 or allow[i]):
                found = offer(scores[q], rows[q], found, mine[i], np.int32(i))
                worst = scores[q, 0] if found == k else worst
        pop_all(scores[q], rows[q], found)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _add_low_rank(total: Any, start: int, z: Any, u: Any, right: Any) -> None:
    """Add right * (U z) of items ``start ...`` to a tile; eight sums share each reading of U."""
    n, rank = u.shape
    for i in range(n):
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0)
        for d in range(rank):
            v = np.float32(u[i, d])
            s0 += v * z[0, d]
            s1 += v * z[1, d]
            s2 += v * z[2, d]
            s3 += v * z[3, d]
            s4 += v * z[4, d]
            s5 += v * z[5, d]
            s6 += v * z[6, d]
            s7 += v * z[7, d]
        total[0, start + i] += right[start + i] * s0
        total[1, start + i] += right[start + i] * s1
        total[2, start + i] += right[start + i] * s2
        total[3, start + i] += right[start + i] * s3
        total[4, start + i] += right[start + i] * s4
        total[5, start + i] += right[start + i] * s5
        total[6, start + i] += right[start + i] * s6
        total[7, start + i] += right[start + i] * s7
