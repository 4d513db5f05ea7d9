"""The exact best items of a catalogue, found by scanning one byte a value instead of four.

A row v is kept as codes: v = scale * c + r, with c in int8. The query is kept as q = step * z + p,
with z in int16, so that one integer product a row, z . c, gives

    |q . v - step * scale * (z . c)| <= step * scale * E,
    step * E = |q| R + |p| C + rounding,   R >= |r| / scale,   C >= |c|   over all rows

by Cauchy-Schwarz: one number E a query bounds the error of every row in units of its own scale. The
k-th largest lower bound met so far is a floor under the answer; a row whose upper bound lies below
it cannot be in the answer, and all others are scored again in float32. Thus the answer is that of
``topk_dot`` over the same vectors, digit for digit, whatever the batch and the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from martlet.core import CSR, num_threads
from martlet.kernels.dots import ROWS, STEP, dots
from martlet.kernels.parallel import spread
from martlet.kernels.select import offer, pop_all

F32 = NDArray[np.float32]
I8 = NDArray[np.int8]
I32 = NDArray[np.int32]

_BLOCK = 256  # rows; with 64 features 16 KB, so that the next query finds them in the cache
_GRAIN = 1 << 21  # codes that are worth a thread
_PIECES = 4  # ranges a thread, so that a thread that is held up does not hold up the answer
_FIRST = 4096  # places for what may be in the answer, before more are made
_GATHERED = 1 << 16  # rows that are gathered at a time to be scored again
_HALF = 2.0**-24  # the largest relative error of one float32 rounding
_LEAST = 1e-36  # a smaller scale is near the end of float32's range, where errors are absolute
_TINY = 2.0**-149  # the smallest step of float32
_NO_ROWS = np.zeros(0, np.int64), np.zeros(0, np.int32)
_ALL = np.zeros(0, np.bool_)


@dataclass(frozen=True, eq=False)
class Codes:
    """Rows in int8, and what bounds the error of a product with them.

    Attributes:
        values: (n, d) int8.
        scale: (n,) float32, at least 0; a value is about its code times the scale of its row.
        vectors: (n, d) float32 or float16 that the codes stand for, in memory or mapped from a
            file; read only where a row may be in the answer. None: the codes are all there is.
        residual: R, the largest |v - scale * c| / scale over the rows; infinite if unknown. Rows
            of vanishing scale are left out: what they are off by is bounded as it stands.
    """

    values: I8
    scale: F32
    vectors: NDArray[np.floating] | None = None
    residual: float = np.inf

    @staticmethod
    def of(vectors: F32) -> Codes:
        """Quantize (n, d) float32 vectors, symmetrically and by row. O(n d)."""
        vectors = np.ascontiguousarray(vectors, np.float32)
        scale = np.abs(vectors).max(1, initial=0.0) / np.float32(127)
        values = np.empty(vectors.shape, np.int8)
        for start in range(0, len(vectors), _FIRST):
            part = slice(start, start + _FIRST)
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                exact = np.where(scale[part, None] > 0, vectors[part] / scale[part, None], 0)
            values[part] = np.rint(np.clip(np.nan_to_num(exact), -127, 127))
        return Codes.beside(values, scale, vectors)

    @staticmethod
    def beside(values: I8, scale: F32, vectors: NDArray[np.floating]) -> Codes:
        """Join codes to the vectors that they stand for, and measure R. O(n d)."""
        worst = 0.0
        for start in range(0, len(values), _FIRST):
            part = slice(start, start + _FIRST)
            size = scale[part].astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                rest = vectors[part].astype(np.float64) - values[part] * size[:, None]
                length = np.sqrt(np.einsum("ij,ij->i", rest, rest))
                small = length <= _least(vectors.shape[1])
                ratio = np.where((size < _LEAST) & small, 0.0, length / size)
            # A NaN, from a value that is no finite number, must not be lost to a maximum.
            worst = max(worst, float(np.where(np.isnan(ratio), np.inf, ratio).max(initial=0.0)))
        return Codes(values, scale, vectors, worst * (1 + 2.0**-40))

    @cached_property
    def unit(self) -> float:
        """A power of two that brings the largest scale near 1; NaN if one is not finite."""
        top = float(np.max(self.scale, initial=0.0))
        return float(np.ldexp(1.0, min(126, -int(np.frexp(top)[1])))) if top < np.inf else np.nan

    def rows(self, at: I32) -> F32:
        """Return the (len(at), d) float32 rows that count: the vectors, or code times scale."""
        if self.vectors is not None:
            return self.vectors[at].astype(np.float32, copy=False)
        with np.errstate(invalid="ignore", over="ignore"):
            return self.values[at].astype(np.float32) * self.scale[at][:, None]  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        """Bytes that a search scans; the vectors are left out."""
        return self.values.nbytes + self.scale.nbytes


def topk_int8(
    vectors: F32,
    codes: Codes,
    k: int,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
    threads: int | None = None,
) -> tuple[I32, F32, NDArray[np.int64]]:
    """Return the k rows of largest inner product with each vector: of float32, not of codes.

    Moves n (d + 4) bytes for a few queries and 4 d for each row that is scored again; O(B n d)
    integer multiply-adds. Rows without ``codes.vectors`` are scored as code times scale.

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
    z, error, slack = _bounds(vectors, codes)
    values = np.ascontiguousarray(codes.values)
    finite = np.isfinite(codes.unit)
    unit = np.float32(codes.unit if finite else 1)
    scale = codes.scale if finite else np.zeros(n, np.float32)
    parts = max(1, min(threads * _PIECES, n * vectors.shape[1] // _GRAIN)) if threads > 1 else 1
    floors = np.full((parts, size, k), -np.inf, np.float32)
    found: list[Any] = [()] * parts

    def scan(start: int, stop: int) -> None:
        for part in range(start, stop):
            low, high = n * part // parts, n * (part + 1) // parts
            found[part] = _scan(
                values, scale, unit, z, error, slack, low, high,
                indptr, indices, mask, floors[part],
            )  # fmt: skip

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


def _least(d: int) -> float:
    """Return what a row of a scale below ``_LEAST`` is off by at most."""
    return 256 * _LEAST * float(np.sqrt(d))


def _bounds(vectors: F32, codes: Codes) -> tuple[NDArray[np.int16], F32, F32]:
    """Return z (B, d), E (B,), and what is added to every upper bound besides, (B,) float32.

    An infinite addition means that nothing is known, and sends every row to be scored again.
    """
    d = vectors.shape[1]
    limit = min(32767, (2**31 - 1) // (128 * max(1, d)))  # z . c stays within int32
    exact = vectors.astype(np.float64)
    top = np.abs(exact).max(1, initial=0.0)
    with np.errstate(all="ignore"):
        step = np.where(top > 0, top / limit, 1.0)
        known = np.isfinite(top)[:, None]
        z = np.where(known, np.rint(exact / step[:, None]), 0).astype(np.int16)
        rest = np.linalg.norm(exact - step[:, None] * z, axis=1)
        length = np.linalg.norm(exact, axis=1)
        code = 128 * np.sqrt(d)
        # Without vectors a row is its code times its scale, rounded once.
        residual = _HALF * code if codes.vectors is None else codes.residual
        rounding = 2 * (d + 1) * _HALF * length * (code + residual)
        error = (length * residual + rest * code + rounding) / step
        # The bounds themselves are computed in float32: a few roundings of |z . c| + 3 E.
        error = error * (1 + 2.0**-18) + 2.0**-19 * np.linalg.norm(z, axis=1) * code
        # Below float32's normal range errors are absolute: those of a score, those of a bound.
        slack = 1e-30 + (length * _least(d) + 2 * d * _TINY) * codes.unit / step
        largest = length * (code + residual) / codes.unit
        sure = (largest < 1e37) & (error < 1e30) & (slack < 1e30)
    none = np.float32(np.inf)
    return (
        z,
        np.where(sure, error, 0).astype(np.float32),
        np.where(sure, slack, none).astype(np.float32),
    )


@njit(cache=True, nogil=True)
def _add(values: I8, low: int, high: int, first: int, z: Any, total: I32) -> None:
    """Add the products over features ``first ...`` of rows ``low:high``."""
    for row in range(low, high):
        dot = total[row]
        for j in range(first, values.shape[1]):
            dot = np.int32(dot + np.int32(np.int32(values[row, j]) * np.int32(z[j])))
        total[row] = dot


@njit(cache=True, nogil=True, error_model="numpy")
def _coarse(
    values: I8, scale: F32, unit: Any, z: Any, error: Any, cut: Any, total: I32, upper: F32
) -> int:
    """Write the upper bounds of the rows given and return how many reach ``cut``.

    Two loops, for each of them becomes SIMD: whole numbers over the features, floats over the rows.
    """
    n, d = values.shape
    whole = n - n % ROWS
    total[:n] = 0
    for row in range(0, whole, ROWS):
        dots(values, row, z, total)  # type: ignore[call-arg]
    if d % STEP:
        _add(values, 0, whole, d - d % STEP, z, total)
    _add(values, whole, n, 0, z, total)
    reach = np.int32(0)
    for row in range(n):
        bound = scale[row] * unit * (np.float32(total[row]) + error)
        upper[row] = bound
        reach = np.int32(reach + np.int32(bound >= cut))
    return reach  # type: ignore[return-value]


@njit(cache=True, nogil=True, error_model="numpy")
def _scan(
    values: I8, scale: F32, unit: Any, z: Any, error: F32, slack: F32, low: int, high: int,
    indptr: Any, indices: I32, allow: Any, floors: F32,
) -> Any:  # fmt: skip
    """Return (query, row, upper bound) of what may be in the answers from rows ``low:high``.

    ``floors`` (B, k) becomes the k largest lower bounds of each query.
    """
    size, k = floors.shape
    heap_rows = np.zeros((size, k), np.int32)
    filled = np.zeros(size, np.int64)
    queries, rows = np.empty(_FIRST, np.int32), np.empty(_FIRST, np.int32)
    bounds = np.empty(_FIRST, np.float32)
    count = 0
    total, upper = np.empty(_BLOCK, np.int32), np.empty(_BLOCK, np.float32)
    for start in range(low, high, _BLOCK):
        stop = min(start + _BLOCK, high)
        for b in range(size):
            cut = floors[b, 0] - slack[b] if filled[b] == k else -np.float32(np.inf)
            block, steps = values[start:stop], scale[start:stop]
            if not _coarse(block, steps, unit, z[b], error[b], cut, total, upper):
                continue
            for row in range(start, stop):
                bound = upper[row - start]
                if bound < cut or (len(allow) and not allow[row]):
                    continue
                if len(indptr):
                    mine = indices[indptr[b] : indptr[b + 1]]
                    at = np.searchsorted(mine, row)
                    if at < len(mine) and mine[at] == row:
                        continue
                lower = bound - np.float32(2) * (scale[row] * unit * error[b])
                filled[b] = offer(floors[b], heap_rows[b], filled[b], lower, row)
                if filled[b] == k:
                    cut = floors[b, 0] - slack[b]
                if count == len(rows):
                    count = _compact(queries, rows, bounds, floors, filled, slack)
                    if 2 * count > len(rows):
                        more = np.empty(len(rows), np.int32)
                        queries = np.concatenate((queries, more))
                        rows = np.concatenate((rows, more))
                        bounds = np.concatenate((bounds, np.empty(len(bounds), np.float32)))
                queries[count], rows[count], bounds[count] = b, row, bound
                count += 1
    return queries[:count], rows[:count], bounds[:count]


@njit(cache=True, nogil=True)
def _compact(queries: I32, rows: I32, bounds: F32, floors: F32, filled: Any, slack: F32) -> int:
    """Drop what the floors have since ruled out; return how many are left, at the front."""
    k = floors.shape[1]
    kept = 0
    for at in range(len(rows)):
        b = queries[at]
        if filled[b] < k or bounds[at] >= floors[b, 0] - slack[b]:
            queries[kept], rows[kept], bounds[kept] = b, rows[at], bounds[at]
            kept += 1
    return kept


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
