"""The best rows of the clusters nearest to a query, scanned one byte a value.

A cluster's codes lie one after the other, so a query reads a few runs of memory and no more: of
n rows about n nprobe / nlist, d + 4 bytes each. What a query may not be shown is passed over where
it is met, so nobody has to ask for more than k because of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, best
from martlet.kernels.int8 import products, shown
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread
from martlet.kernels.select import offer, pop_all
from martlet.kernels.topk import EVERYTHING, rows_of

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]

_BLOCK = 256  # rows; with 64 features 16 KB
_GRAIN = 8  # queries that are worth a thread


class Lists(NamedTuple):
    """Rows by cluster, in int8.

    Attributes:
        centres: (nlist, d) int8 codes of the clusters' centres.
        centre_scale: (nlist,) float32; a value is about its code times the scale of its row.
        offsets: (nlist + 1,) int64; cluster c holds places ``offsets[c]`` to ``offsets[c + 1]``.
        rows: (n,) int32, the row at each place.
        codes: (n, d) int8 codes by place.
        scale: (n,) float32 by place.
    """

    centres: I8
    centre_scale: F32
    offsets: NDArray[np.int64]
    rows: I32
    codes: I8
    scale: F32


def scan_lists(
    vectors: F32,
    lists: Lists,
    nprobe: int,
    k: int,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
    threads: int = 1,
) -> I32:
    """Return the (B, k) rows of largest product of codes in the nearest clusters, best first.

    O(B d (nlist + n nprobe / nlist)); the same whatever the batch and the threads. Products of
    codes err by half a step a value, so the caller asks for more than needed and scores them again.

    Args:
        vectors: (B, d) float32.
        lists: the catalogue by cluster.
        nprobe: clusters to scan a query, 1 to nlist: those of largest product.
        k: length of the lists.
        hidden: (B x n) CSR of rows to leave out, rising in each row.
        allow: (n,) bool of the rows that may appear; None allows all.
        threads: threads to use.

    Returns:
        (B, k) int32; short lists end in -1. A query that is not finite finds nothing.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    indptr, indices = rows_of(hidden, len(vectors))
    mask = EVERYTHING if allow is None else np.ascontiguousarray(allow)
    found = np.empty((len(vectors), k), np.int32)

    def scan(start: int, stop: int) -> None:
        _scan(vectors, *lists, nprobe, start, stop, indptr, indices, mask, found)

    spread(scan, len(vectors), threads, _GRAIN)
    return found


def search_lists(
    vectors: F32,
    lists: Lists,
    nprobe: int,
    k: int,
    again: int,
    values: F32,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
    threads: int = 1,
) -> tuple[I32, F32]:
    """Return ``rescore`` of what ``scan_lists`` finds, in one call: a query is done in 10 us.

    Args:
        vectors: (B, d) float32.
        lists: the catalogue by cluster.
        nprobe: clusters to scan a query.
        k: length of the lists.
        again: rows to score again.
        values: (n, d) float32, C-contiguous.
        hidden: (B x n) CSR of rows to leave out, rising in each row.
        allow: (n,) bool of the rows that may appear; None allows all.
        threads: threads to use.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    size = len(vectors)
    indptr, indices = rows_of(hidden, size)
    mask = EVERYTHING if allow is None else np.ascontiguousarray(allow)
    found, scores = np.empty((size, again), np.int32), np.empty((size, k), np.float32)
    rows = np.empty((size, k), np.int32)

    def search(start: int, stop: int) -> None:
        _search(
            vectors, *lists, nprobe, start, stop, indptr, indices, mask, found, values, rows, scores
        )  # fmt: skip

    spread(search, size, threads, _GRAIN)
    return rows, scores


def rescore(vectors: F32, values: F32, found: I32, k: int) -> tuple[I32, F32]:
    """Return the k best of the rows found, by the products with their vectors. O(B m d).

    Args:
        vectors: (B, d) float32.
        values: (n, d) float32, C-contiguous.
        found: (B, m) int32 rows, -1 for none; a row stands once in a list.
        k: length of the lists.

    Returns:
        (B, k) int32 rows and (B, k) float32 scores, digits and order those of ``topk_dot``.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    rows, scores = np.empty((len(found), k), np.int32), np.empty((len(found), k), np.float32)
    _rescore(vectors, values, found, rows, scores)
    return rows, scores


def rescore_reference(vectors: F32, values: F32, found: I32, k: int) -> tuple[I32, F32]:
    """Return what ``rescore`` returns, in NumPy: one feature after the other, then full sorts."""
    score = np.zeros(found.shape, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for feature in range(vectors.shape[1]):
            score += vectors[:, feature, None] * values[found, feature]
    ranking = best(score, found, k)
    return ranking.item_row, ranking.score


def scan_lists_reference(
    vectors: F32,
    lists: Lists,
    nprobe: int,
    k: int,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
) -> I32:
    """Return what ``scan_lists`` returns, in NumPy: every product of a query, then full sorts."""
    found = np.full((len(vectors), k), -1, np.int32)
    cluster = np.repeat(np.arange(len(lists.centres)), np.diff(lists.offsets))
    for b, vector in enumerate(vectors.astype(np.float32)):
        if not np.isfinite(vector).all():
            continue
        top = np.abs(vector).max(initial=np.float32(0))
        step = (
            np.float32(min(32767, (2**31 - 1) // (128 * len(vector)))) / top
            if top > 0
            else np.float32(0)
        )
        z = np.rint(vector * step).astype(np.int64)
        near = (lists.centres @ z).astype(np.float32) * lists.centre_scale
        numbers = np.arange(len(near), dtype=np.int32)
        chosen = best(near[None], numbers[None], nprobe).item_row[0]
        score = (lists.codes @ z).astype(np.float32) * lists.scale
        keep = np.isin(cluster, chosen)
        if hidden is not None:
            keep &= ~np.isin(lists.rows, hidden.row(b))
        if allow is not None:
            keep &= allow[lists.rows]
        found[b] = best(score[None, keep], lists.rows[None, keep], k).item_row[0]
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def _search(
    vectors: F32, centres: I8, centre_scale: F32, offsets: Any, places: I32, codes: I8, scale: F32,
    nprobe: int, start: int, stop: int, indptr: Any, indices: I32, allow: Any, found: I32,
    values: F32, rows: I32, scores: F32,
) -> None:  # fmt: skip
    """Fill the lists of queries ``start:stop``, scored again."""
    _scan(
        vectors, centres, centre_scale, offsets, places, codes, scale, nprobe, start, stop,
        indptr, indices, allow, found,
    )  # fmt: skip
    part = slice(start, stop)
    _rescore(vectors[part], values, found[part], rows[part], scores[part])


@njit(cache=True, nogil=True, error_model="numpy")
def _scan(
    vectors: F32, centres: I8, centre_scale: F32, offsets: Any, rows: I32, codes: I8, scale: F32,
    nprobe: int, start: int, stop: int, indptr: Any, indices: I32, allow: Any, found: I32,
) -> None:  # fmt: skip
    """Fill the lists of queries ``start:stop``."""
    (nlist, d), k = centres.shape, found.shape[1]
    z = np.empty(d, np.int16)
    total, score = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.float32)
    near, clusters = np.empty(nprobe, np.float32), np.empty(nprobe, np.int32)
    scores = np.empty(k, np.float32)
    for b in range(start, stop):
        filled = np.int64(0)
        if quantize(vectors[b], z):
            chosen = np.int64(0)
            for first in range(0, nlist, _BLOCK):
                last = min(first + _BLOCK, nlist)
                cut = near[0] if chosen == nprobe else -np.float32(np.inf)
                if not _score(centres[first:last], centre_scale[first:last], z, cut, total, score):
                    continue
                for at in range(last - first):
                    if chosen < nprobe or score[at] >= near[0]:
                        chosen = offer(near, clusters, chosen, score[at], np.int32(first + at))
            pop_all(near, clusters, chosen)
            for cluster in clusters[:chosen]:
                low, high = offsets[cluster], offsets[cluster + 1]
                for first in range(low, high, _BLOCK):
                    last = min(first + _BLOCK, high)
                    cut = scores[0] if filled == k else -np.float32(np.inf)
                    if not _score(codes[first:last], scale[first:last], z, cut, total, score):
                        continue
                    for at in range(last - first):
                        if filled < k or score[at] >= scores[0]:
                            row = rows[first + at]
                            if shown(b, row, indptr, indices, allow):
                                filled = offer(scores, found[b], filled, score[at], row)
            pop_all(scores, found[b], filled)
        for place in range(filled, k):
            found[b, place] = -1


@njit(cache=True, nogil=True, error_model="numpy")
def quantize(vector: F32, z: Any) -> bool:
    """Write a query as int16 codes; return whether all of it is finite."""
    # So large that products of d codes fit int32.
    limit = np.float32(min(32767, (2**31 - 1) // (128 * max(1, len(z)))))
    top, whole = np.float32(0), True
    for value in vector:
        whole &= abs(value) < np.inf
        top = max(top, abs(value))
    step = limit / top if top > 0 else np.float32(0)
    for j, value in enumerate(vector):
        z[j] = np.int16(np.rint(value * step)) if whole else np.int16(0)
    return whole


@njit(cache=True, nogil=True, error_model="numpy")
def _score(codes: I8, scale: F32, z: Any, cut: Any, total: I32, score: F32) -> Any:
    """Write the scores of some rows, and return how many reach ``cut``."""
    products(codes, z, total)
    above = np.int32(0)
    for at in range(np.uint64(len(scale))):
        score[at] = scale[at] * np.float32(total[at])
        above = np.int32(above + np.int32(score[at] >= cut))
    return above


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _rescore(vectors: F32, values: F32, found: I32, rows: I32, scores: F32) -> None:
    """Fill the lists; products are summed over the features as in ``topk_dot``.

    Four rows at a time: each sum waits for its own last addition.
    """
    size, m = found.shape
    at, total = np.zeros(4, np.int64), np.zeros(4, np.float32)
    for b in range(size):
        filled = np.int64(0)
        for first in range(0, m, 4):
            for i in range(4):
                at[i] = max(found[b, min(first + i, m - 1)], 0)
            a0, a1, a2, a3 = np.uint64(at[0]), np.uint64(at[1]), np.uint64(at[2]), np.uint64(at[3])
            t0, t1, t2, t3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for j in range(np.uint64(values.shape[1])):
                v = vectors[b, j]
                t0, t1 = t0 + v * values[a0, j], t1 + v * values[a1, j]
                t2, t3 = t2 + v * values[a2, j], t3 + v * values[a3, j]
            total[0], total[1], total[2], total[3] = t0, t1, t2, t3
            for i in range(min(4, m - first)):
                row = found[b, first + i]
                if row >= 0 and total[i] > -np.inf:
                    filled = offer(scores[b], rows[b], filled, total[i], row)
        pop_all(scores[b], rows[b], filled)
        for place in range(filled, len(rows[b])):
            rows[b, place], scores[b, place] = -1, -np.inf
