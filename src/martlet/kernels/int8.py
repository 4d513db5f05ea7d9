"""The exact best items of a catalogue, found by scanning one byte a value, or half a one.

An integer product of codes bounds a score from both sides (``kernels/codes.py``). The k-th largest
lower bound met so far is a floor under the answer; a row whose upper bound lies below it cannot be
in the answer, and all others are scored again in float32. Thus the answer is that of ``topk_dot``
over the same vectors, digit for digit, whatever the batch and the number of threads.

Halved codes bound a score twice: the high halves of every row are read, and the low halves only of
the rows that the first bound cannot rule out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, best, num_threads
from martlet.kernels.codes import GAIN, Codes
from martlet.kernels.dots import ROWS, STEP, ask, dots, half_dots, join
from martlet.kernels.floor import sift, threshold
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread
from martlet.kernels.select import offer, pop_all

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

_BLOCK = 256  # rows; with 64 features 16 KB, so that the next query finds them in the cache
_GRAIN = 1 << 21  # codes that are worth a thread
_PIECES = 2  # ranges a thread, so that a thread that is held up does not hold up the answer
_FIRST = 4096  # places for what may be in the answer, before more are made
_GATHERED = 1 << 16  # rows that are gathered at a time to be scored again
_WAITING = 16  # rows whose low halves the memory is asked for at a time
_NO_ROWS = np.zeros(0, np.int64), np.zeros(0, np.int32)
_ALL = np.zeros(0, np.bool_)
_NO_ZERO = np.zeros(0, np.float32)
_WHOLE = np.zeros((0, 0), np.uint8)  # no low halves


def topk_int8(
    vectors: F32,
    codes: Codes,
    k: int,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
    threads: int | None = None,
) -> tuple[I32, F32, NDArray[np.int64]]:
    """Return the k rows of largest inner product with each vector: of float32, not of codes.

    Moves n (d + 4) bytes for a few queries, n (d / 2 + 4) for one over halved codes, and 4 d
    for each row that is scored again; O(B n d) integer multiply-adds. Rows without
    ``codes.vectors`` are scored as code times scale.

    Args:
        vectors: (B, d) float32; a query that is not finite is scored against every row.
        codes: the catalogue.
        k: length of the lists.
        hidden: (B x n) CSR of rows to leave out, rising in each row.
        allow: (n,) bool of the rows that may appear; None allows all.
        threads: threads to use; None takes ``num_threads()``.

    Returns:
        (B, k) int32 rows and (B, k) float32 scores, score falling, ties by ``tie_key`` of the row
        rising; NaN and -inf are dropped; short lists end in -1 and -inf. And (B,) int64: how many
        rows were scored again.

    **Source**: the bound is the one of inner-product search by scalar quantization and re-ranking;
    the floor is the threshold of Fagin's algorithm ("Optimal aggregation algorithms", 2001).
    **Differs**: one bound serves every row, in units of its scale, so no bound a row is read.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    size, n = len(vectors), len(codes.values)
    threads = num_threads() if threads is None else threads
    indptr, indices = _NO_ROWS if hidden is None else (hidden.indptr, hidden.indices)
    mask = _ALL if allow is None else np.ascontiguousarray(allow)
    z, error, slack, shift = codes.bounds(vectors)
    values = np.ascontiguousarray(codes.values)
    low = _WHOLE if codes.low is None else codes.low
    finite = np.isfinite(codes.unit)
    unit = np.float32(codes.unit if finite else 1)
    scale = codes.scale if finite else np.zeros(n, np.float32)
    # The zeros of columns add the same to every row's score, and so rank nothing.
    zero = codes.zero if finite and codes.columns is None else None
    zero = _NO_ZERO if zero is None else zero
    parts = max(1, min(threads * _PIECES, n * vectors.shape[1] // _GRAIN)) if threads > 1 else 1
    floors = np.full((parts, size, k), -np.inf, np.float32)
    known = np.full(size, -np.inf, np.float32)
    found: list[Any] = [()] * parts

    # One query is bound by the bytes that it reads, a batch by its products.
    halves = codes.low is not None and size == 1
    if halves:
        coarse, middle, further = codes.half_bounds(z)
        reach = (error + middle + further).astype(np.float32)

    def scan(start: int, stop: int) -> None:
        for part in range(start, stop):
            rest = (
                z, error, slack, n * part // parts, n * (part + 1) // parts,
                indptr, indices, mask, known.copy(), floors[part],
            )  # fmt: skip
            if halves:
                found[part] = _scan_halves(values, low, scale, unit, coarse, reach, *rest)
            else:
                found[part] = _scan(values, low, scale, zero, shift, unit, *rest)
            # Lists of k fill from -inf, so that a floor is known where there are k rows.
            np.maximum(known, floors[part].min(1, initial=np.inf), out=known)

    spread(scan, parts, threads)
    query, row, upper = (np.concatenate(column) for column in zip(*found, strict=True))
    lower = floors.transpose(1, 0, 2).reshape(size, parts * k)
    floor = np.partition(lower, (parts - 1) * k, axis=1)[:, (parts - 1) * k]
    keep = upper >= (floor - slack)[query]
    query, row = query[keep], row[keep]
    rows, scores = best_rows(vectors, codes.rows, query, row, k)
    return rows, scores, np.bincount(query, minlength=size)


def best_rows(
    vectors: F32, take: Callable[[I32], F32], query: I32, row: I32, k: int
) -> tuple[I32, F32]:
    """Return the k best of given pairs of query and row, ordered as by ``topk_dot``. O(m d).

    Args:
        vectors: (B, d) float32.
        take: gives the (len, d) float32 rows of a catalogue by their numbers.
        query: (m,) int32, the query of each pair.
        row: (m,) int32, the row of each pair; a pair occurs once.
        k: length of the lists.
    """
    size = len(vectors)
    rows, scores = np.full((size, k), -1, np.int32), np.full((size, k), -np.inf, np.float32)
    filled = np.zeros(size, np.int64)
    for start in range(0, len(row), _GATHERED):
        part = slice(start, start + _GATHERED)
        _rescore(vectors, take(row[part]), query[part], row[part], filled, rows, scores)
    _sort(filled, rows, scores)
    return rows, scores


def best_rows_reference(
    vectors: F32, take: Callable[[I32], F32], query: I32, row: I32, k: int
) -> tuple[I32, F32]:
    """Return what ``best_rows`` returns, in NumPy: one feature after the other, then full sorts."""
    wide = take(row)
    score = np.zeros(len(row), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for feature in range(vectors.shape[1]):
            score += vectors[query, feature] * wide[:, feature]
    rows, scores = np.empty((len(vectors), k), np.int32), np.empty((len(vectors), k), np.float32)
    for b in range(len(vectors)):
        mine = query == b
        ranking = best(score[None, mine], row[None, mine], k)
        rows[b], scores[b] = ranking.item_row[0], ranking.score[0]
    return rows, scores


def topk_int8_reference(
    vectors: F32,
    codes: Codes,
    k: int,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
) -> tuple[I32, F32]:
    """Return what ``topk_int8`` finds, in NumPy: every row in float32, then a full sort."""
    from martlet.kernels.topk import topk_dot_reference

    everything = codes.rows(np.arange(len(codes.values), dtype=np.int32))
    return topk_dot_reference(vectors, np.ascontiguousarray(everything.T), k, hidden, allow)


@njit(cache=True, nogil=True)
def products(values: Any, z: Any, total: I32) -> None:
    """Write the products of the rows given; ``total`` has room for ``ROWS`` at least."""
    n, d = values.shape
    if n >= ROWS:
        # The last rows once more, so that they too come eight at a time.
        for row in range(0, n, ROWS):
            dots(values, min(row, n - ROWS), z, total)
    else:
        few = np.zeros((ROWS, d), values.dtype)
        _copy(values, few)
        dots(few, 0, z, total)
    if d % STEP:
        for row in range(n):
            dot = total[row]
            for j in range(d - d % STEP, d):
                dot = np.int32(dot + np.int32(np.int32(values[row, j]) * np.int32(z[j])))
            total[row] = dot


@njit(cache=True, nogil=True)
def _copy(values: Any, out: Any) -> None:
    """Copy the rows given; an array assignment would take Numba 3 s to compile, for its errors."""
    for row in range(len(values)):
        for j in range(values.shape[1]):
            out[row, j] = values[row, j]


@njit(cache=True, nogil=True)
def _half_products(values: Any, coarse: Any, total: I32) -> None:
    """Write the products of the halves given; ``total`` has room for ``ROWS`` at least."""
    n, width = values.shape
    if n >= ROWS:
        for row in range(0, n, ROWS):
            half_dots(values, min(row, n - ROWS), coarse, total)
    else:
        few = np.zeros((ROWS, width), values.dtype)
        _copy(values, few)
        half_dots(few, 0, coarse, total)


@njit(cache=True, nogil=True, error_model="numpy")
def _bound(total: I32, scale: F32, unit: Any, gain: Any, reach: Any, cut: Any, upper: F32) -> int:
    """Write the upper bounds of some rows and return how many come up to ``cut``."""
    above = np.int32(0)
    for row in range(len(scale)):
        bound = scale[row] * unit * (gain * np.float32(total[row]) + reach)
        upper[row] = bound
        above = np.int32(above + np.int32(bound >= cut))
    return above  # type: ignore[return-value]


@njit(cache=True, nogil=True, error_model="numpy")
def _bound_one_scale(count: int, total: I32, unit: Any, reach: Any, cut: Any, upper: F32) -> int:
    """Do as ``_bound`` does for ``count`` rows of the scale 1."""
    above = np.int32(0)
    for row in range(np.uint64(count)):
        bound = unit * (np.float32(total[row]) + reach)
        upper[row] = bound
        above = np.int32(above + np.int32(bound >= cut))
    return above  # type: ignore[return-value]


@njit(cache=True, nogil=True, error_model="numpy")
def _add_zeros(zero: F32, shift: Any, cut: Any, upper: F32) -> int:
    """Add the zeros' part to the upper bounds and return how many come up to ``cut`` now."""
    above = np.int32(0)
    for row in range(len(zero)):
        upper[row] = upper[row] + zero[row] * shift
        above = np.int32(above + np.int32(upper[row] >= cut))
    return above  # type: ignore[return-value]


@njit(cache=True, nogil=True, error_model="numpy")
def _scan(
    values: Any, low: Any, scale: F32, zero: F32, shift: F32, unit: Any,
    z: Any, error: F32, slack: F32, first: int, last: int,
    indptr: Any, indices: I32, allow: Any, known: F32, floors: F32,
) -> Any:  # fmt: skip
    """Return (query, row, upper bound) of what may be in the answers from rows ``first:last``.

    ``known`` (B,) is a floor under each answer; ``floors`` (B, k) becomes the k largest lower
    bounds of each query. Halves are joined once a block, for all queries.
    """
    size, k = floors.shape
    heap_rows, filled = np.zeros((size, k), np.int32), np.zeros(size, np.int64)
    queries, rows = np.empty(_FIRST, np.int32), np.empty(_FIRST, np.int32)
    bounds, count = np.empty(_FIRST, np.float32), 0
    total, upper = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.float32)
    whole = np.empty((_BLOCK if len(low) else 0, 2 * values.shape[1]), np.int8)
    for start in range(first, last, _BLOCK):
        stop = min(start + _BLOCK, last)
        if len(low):
            join(values[start:stop], low[start:stop], whole)
        for b in range(size):
            if len(low):
                products(whole[: stop - start], z[b], total)
            else:
                products(values[start:stop], z[b], total)
            cut = threshold(floors[b, 0], filled[b] == k, known[b], slack[b])
            if len(scale):
                above = _bound(total, scale[start:stop], unit, 1, error[b], cut, upper)
            else:
                above = _bound_one_scale(stop - start, total, unit, error[b], cut, upper)
            if len(zero):
                above = _add_zeros(zero[start:stop], shift[b], cut, upper)
            if not above:
                continue
            for row in range(start, stop):
                bound = upper[row - start]
                if bound < cut or not shown(b, row, indptr, indices, allow):
                    continue
                step = scale[row] * unit if len(scale) else unit
                lower = bound - np.float32(2) * (step * error[b])
                filled[b] = offer(floors[b], heap_rows[b], filled[b], lower, np.int32(row))
                cut = threshold(floors[b, 0], filled[b] == k, known[b], slack[b])
                if count == len(rows):
                    queries, rows, bounds, count = sift(
                        queries, rows, bounds, floors, filled, slack
                    )
                queries[count], rows[count], bounds[count] = b, row, bound
                count += 1
    return queries[:count], rows[:count], bounds[:count]


@njit(cache=True, nogil=True, error_model="numpy")
def _scan_halves(
    high: Any, low: Any, scale: F32, unit: Any, coarse: Any, reach: F32, z: Any, error: F32,
    slack: F32, first: int, last: int,
    indptr: Any, indices: I32, allow: Any, known: F32, floors: F32,
) -> Any:  # fmt: skip
    """Return what ``_scan`` does, for one query over halved codes.

    Rows that the high halves cannot rule out wait until their low halves have come from memory.
    """
    k = floors.shape[1]
    heap_rows, filled = np.zeros(k, np.int32), np.zeros(1, np.int64)
    queries, rows = np.zeros(_FIRST, np.int32), np.empty(_FIRST, np.int32)
    bounds, count = np.empty(_FIRST, np.float32), 0
    total, upper = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.float32)
    waiting, num_waiting = np.empty(_BLOCK + _WAITING, np.int64), 0
    whole, products = np.zeros((ROWS, 2 * high.shape[1]), np.int8), np.empty(ROWS, np.int32)
    cut = known[0] - slack[0]
    for start in range(first, last, _BLOCK):
        stop = min(start + _BLOCK, last)
        _half_products(high[start:stop], coarse[0], total)
        if _bound(total, scale[start:stop], unit, GAIN, reach[0], cut, upper):
            for row in range(start, stop):
                if upper[row - start] >= cut:
                    ask(low, row)
                    waiting[num_waiting] = row
                    num_waiting += 1
        if num_waiting < _WAITING and stop < last:
            continue
        for at in range(num_waiting):
            if at % ROWS == 0:
                for place, row in enumerate(waiting[at : min(at + ROWS, num_waiting)]):
                    join(high[row : row + 1], low[row : row + 1], whole[place : place + 1])
                dots(whole, 0, z[0], products)
            row = waiting[at]
            bound = scale[row] * unit * (np.float32(products[at % ROWS]) + error[0])
            if bound < cut or not shown(0, row, indptr, indices, allow):
                continue
            lower = bound - np.float32(2) * (scale[row] * unit * error[0])
            filled[0] = offer(floors[0], heap_rows, filled[0], lower, np.int32(row))
            cut = threshold(floors[0, 0], filled[0] == k, known[0], slack[0])
            if count == len(rows):
                queries, rows, bounds, count = sift(queries, rows, bounds, floors, filled, slack)
            queries[count], rows[count], bounds[count] = 0, row, bound
            count += 1
        num_waiting = 0
    return queries[:count], rows[:count], bounds[:count]


@njit(cache=True, nogil=True)
def shown(b: int, row: int, indptr: Any, indices: I32, allow: Any) -> bool:
    """Return whether a query may be answered by a row."""
    if len(allow) and not allow[row]:
        return False
    if not len(indptr):
        return True
    low, high = indptr[b], indptr[b + 1]
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < row:
            low = middle + 1
        else:
            high = middle
    return bool(low == indptr[b + 1] or indices[low] != row)


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _rescore(
    vectors: F32, wide: F32, query: I32, row: I32, filled: Any, rows: I32, scores: F32
) -> None:
    """Offer each pair to its query's heap, summed over the features as in ``topk_dot``."""
    for at in range(len(row)):
        b = query[at]
        total = np.float32(0)
        for j in range(wide.shape[1]):
            total = total + vectors[b, j] * wide[at, j]
        if total > -np.inf:
            filled[b] = offer(scores[b], rows[b], filled[b], total, row[at])


@njit(cache=True, nogil=True)
def _sort(filled: Any, rows: I32, scores: F32) -> None:
    """Turn every heap into a list, best first."""
    for b in range(len(filled)):
        pop_all(scores[b], rows[b], filled[b])
