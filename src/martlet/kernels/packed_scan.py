"""The exact best items of a catalogue in codes of four or two bits, by scanning the codes.

A query is kept in groups as q = step * x + p with x in int8. Over groups g, of scales s_g, codes
c_g (their offset taken off) and zeros z_g, a score is bounded from both sides by

    |q . v / step - sum_g (s_g x_g . c_g + z_g sum(q_g) / step)| <= sum_g s_g E_g,
    E_g = |p_g| C_g / step + rounding,   C_g >= |c_g|   over all rows

by Cauchy-Schwarz. E_g is added before the scale is multiplied in, so that a scan gives upper bounds
at once. As in ``kernels/int8.py``, what the k-th largest lower bound rules out is dropped and all
others are scored again in float32: the answer is that of ``topk_dot`` over the rows decoded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, num_threads
from martlet.kernels.dots import ROWS, packed2_dots, packed4_dots
from martlet.kernels.floor import sift, threshold
from martlet.kernels.int8 import best_rows, shown
from martlet.kernels.jit import njit
from martlet.kernels.packed import RUN_BYTES, Packed
from martlet.kernels.parallel import spread
from martlet.kernels.select import offer

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

_BLOCK = 256  # rows, so that the next query finds them in the cache
_GRAIN = 1 << 20  # bytes that are worth a thread
_PIECES = 2  # ranges a thread, so that a thread that is held up does not hold up the answer
_FIRST = 4096  # places for what may be in the answer, before more are made
_HALF = 2.0**-24  # the largest relative error of one float32 rounding
_TINY = 2.0**-149  # the smallest step of float32
_NO_ROWS = np.zeros(0, np.int64), np.zeros(0, np.int32)
_ALL = np.zeros(0, np.bool_)
_NO_ZERO = np.zeros((0, 0), np.uint16)


class Asked(NamedTuple):
    """B queries as the scan takes them.

    Attributes:
        codes: (B, R, planes, 16) int8, x where the codes of each run lie; 0 elsewhere.
        middle: (B, R) float32, a quarter of what is taken off each run's product.
        error: (B, G) float32, E.
        shift: (B, G) float32, what a zero is multiplied by.
        slack: (B,) float32, added to every upper bound; infinite where nothing is known.
    """

    codes: NDArray[np.int8]
    middle: F32
    error: F32
    shift: F32
    slack: F32


def topk_packed(
    vectors: F32,
    packed: Packed,
    k: int,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
    threads: int | None = None,
) -> tuple[I32, F32, NDArray[np.int64]]:
    """Return the k rows of largest inner product with each vector.

    Moves the codes and scales once, n (d bits / 8 + 2 G) bytes, and those of each row that is
    scored again; O(B n d) integer multiply-adds.

    Args:
        vectors: (B, d) float32; a query that is not finite is scored against every row.
        packed: the catalogue.
        k: length of the lists.
        hidden: (B x n) CSR of rows to leave out, rising in each row.
        allow: (n,) bool of the rows that may appear; None allows all.
        threads: threads to use; None takes ``num_threads()``.

    Returns:
        (B, k) int32 rows and (B, k) float32 scores, score falling, ties by ``tie_key`` of the row
        rising; NaN and -inf are dropped; short lists end in -1 and -inf. And (B,) int64: how many
        rows were scored again.

    **Source**: the floor is the threshold of Fagin's algorithm ("Optimal aggregation algorithms",
    2001). **Differs**: the query is quantized besides, and what that costs is bounded too.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    size, n = len(vectors), len(packed.values)
    threads = num_threads() if threads is None else threads
    indptr, indices = _NO_ROWS if hidden is None else (hidden.indptr, hidden.indices)
    mask = _ALL if allow is None else np.ascontiguousarray(allow)
    asked, runs = ask(packed, vectors), packed.layout.runs
    start, group = (np.ascontiguousarray(runs[:, column]) for column in (2, 3))
    values, scale, zero = np.ascontiguousarray(packed.values), packed.scale, packed.zero
    if not np.isfinite(packed.reach[2]):  # nothing is known: every row is scored again
        scale, zero = np.zeros_like(scale), None
    scale = np.ascontiguousarray(scale)
    zero = _NO_ZERO if zero is None else np.ascontiguousarray(zero)
    parts = max(1, min(threads * _PIECES, values.nbytes // _GRAIN)) if threads > 1 else 1
    floors = np.full((parts, size, k), -np.inf, np.float32)
    known = np.full(size, -np.inf, np.float32)
    found: list[Any] = [()] * parts

    def scan(first: int, last: int) -> None:
        for part in range(first, last):
            found[part] = _scan(
                packed.layout.bits, values, scale, zero, start, group, *asked,
                n * part // parts, n * (part + 1) // parts,
                indptr, indices, mask, known.copy(), floors[part],
            )  # fmt: skip
            # Lists of k fill from -inf, so that a floor is known where there are k rows.
            np.maximum(known, floors[part].min(1, initial=np.inf), out=known)

    spread(scan, parts, threads)
    query, row, upper = (np.concatenate(column) for column in zip(*found, strict=True))
    lower = floors.transpose(1, 0, 2).reshape(size, parts * k)
    floor = np.partition(lower, (parts - 1) * k, axis=1)[:, (parts - 1) * k]
    keep = upper >= (floor - asked.slack)[query]
    query, row = query[keep], row[keep]
    rows, scores = best_rows(vectors, packed.rows, query, row, k)
    return rows, scores, np.bincount(query, minlength=size)


def topk_packed_reference(
    vectors: F32,
    packed: Packed,
    k: int,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
) -> tuple[I32, F32]:
    """Return what ``topk_packed`` finds, in NumPy: every row in float32, then a full sort."""
    from martlet.kernels.topk import topk_dot_reference

    everything = packed.rows_reference(slice(None))
    return topk_dot_reference(vectors, np.ascontiguousarray(everything.T), k, hidden, allow)


def ask(packed: Packed, vectors: F32) -> Asked:
    """Quantize (B, d) queries and bound what that costs."""
    layout, (norm, zero, scale) = packed.layout, packed.reach
    size, d = vectors.shape
    exact = vectors.astype(np.float64)
    top = np.abs(exact).max(1, initial=0.0)
    sure = np.isfinite(top) & np.isfinite(scale)
    zero = zero if np.isfinite(scale) else np.zeros_like(zero)
    exact = np.where(sure[:, None], exact, 0)
    step = np.where(sure & (top > 0), top / 127, 1.0)[:, None]
    x = np.rint(exact / step)
    runs, num_groups = layout.runs, layout.num_groups
    codes = np.zeros((size, len(runs), 8 // layout.bits, RUN_BYTES), np.int8)
    for run in range(len(runs)):
        for plane, (_, columns) in enumerate(layout.planes(run)):
            codes[:, run, plane, : columns.stop - columns.start] = x[:, columns]
    rest, length, sums, sizes = (np.zeros((size, num_groups)) for _ in range(4))
    for g, columns in enumerate(layout.groups()):
        rest[:, g] = np.linalg.norm(exact[:, columns] - step * x[:, columns], axis=1)
        length[:, g] = np.linalg.norm(exact[:, columns], axis=1)
        sums[:, g] = exact[:, columns].sum(1)
        sizes[:, g] = np.abs(exact[:, columns]).sum(1)
    # Of float32 sums: that of a score over its features, that of a bound over runs and zeros.
    rounding = 2 * (d + len(runs) + num_groups + 8) * _HALF
    error = (rest + 2 * rounding * (length + rest)) * norm / step * (1 + 2.0**-18)
    # A zero and what underflows add errors that no scale bounds; both sides, so twice.
    slack = 2 * (rounding * (zero * sizes).sum(1) + 4 * d * _TINY) / step[:, 0] + 2.0**-130
    with np.errstate(invalid="ignore"):
        largest = (scale * length * norm + zero * sizes).sum(1) / step[:, 0]
    sure &= (largest < 1e30) & (slack < 1e30)
    middle = packed.offset * codes.sum((2, 3), dtype=np.int64) / 4
    _, leads = np.unique(runs[:, 3], return_index=True)
    middle[:, leads] -= error / 4
    none = np.float32(np.inf)
    return Asked(
        np.where(sure[:, None, None, None], codes, 0).astype(np.int8),
        np.where(sure[:, None], middle, 0).astype(np.float32),
        np.where(sure[:, None], error, 0).astype(np.float32),
        np.where(sure[:, None], sums / step, 0).astype(np.float32),
        np.where(sure, slack, none).astype(np.float32),
    )


@njit(cache=True, nogil=True)
def _products(
    bits: Any, values: Any, row: Any, start: Any, group: Any, query: Any, middle: Any, scale: Any,
    place: Any, out: F32,
) -> None:  # fmt: skip
    if bits == 4:
        packed4_dots(values, row, start, group, query, middle, scale, place, out)
    else:
        packed2_dots(values, row, start, group, query, middle, scale, place, out)


@njit(cache=True, nogil=True, error_model="numpy")
def _bounds(
    bits: Any, values: Any, scale: Any, zero: Any, start: Any, group: Any, query: Any, middle: F32,
    shift: F32, first: int, last: int, cut: Any, upper: F32,
) -> int:  # fmt: skip
    """Write the upper bounds of rows ``first:last`` and return how many come up to ``cut``.

    ``upper`` has room for as many, in eights. The last rows of all are copied, for a run is read
    beyond the end of its row.
    """
    n, width = values.shape
    for row in range(first, last, ROWS):
        place = row - first
        if row + ROWS + RUN_BYTES <= n:
            _products(bits, values, row, start, group, query, middle, scale, place, upper)
            continue
        few = np.zeros((ROWS + RUN_BYTES, width), np.uint8)
        few_scale = np.zeros((ROWS, scale.shape[1]), np.uint16)
        for one in range(row, min(row + ROWS, n)):
            for j in range(width):
                few[one - row, j] = values[one, j]
            for j in range(scale.shape[1]):
                few_scale[one - row, j] = scale[one, j]
        _products(bits, few, 0, start, group, query, middle, few_scale, place, upper)
    if len(zero):
        _add_zeros(zero, shift, first, last, upper)
    above = np.int32(0)
    for place in range(np.uint64(last - first)):
        above = np.int32(above + np.int32(upper[place] >= cut))
    return above  # type: ignore[return-value]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_zeros(zero: Any, shift: F32, first: int, last: int, upper: F32) -> None:
    for g in range(zero.shape[1]):
        for place in range(np.uint64(last - first)):
            upper[place] += _wide(zero[np.uint64(first) + place, g]) * shift[g]


@njit(cache=True, nogil=True)
def _width(scale: Any, row: Any, error: F32) -> Any:
    """Return how far a row's upper bound lies above its estimate: the sum of s_g E_g."""
    total = np.float32(0)
    for g in range(scale.shape[1]):
        total = np.float32(total + _wide(scale[row, g]) * error[g])
    return total


@njit(cache=True, nogil=True, inline="always")
def _wide(bits: Any) -> Any:
    """Return the float32 of the bits of a bfloat16."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@njit(cache=True, nogil=True, error_model="numpy")
def _scan(
    bits: Any, values: Any, scale: Any, zero: Any, start: Any, group: Any,
    codes: Any, middle: F32, error: F32, shift: F32, slack: F32, first: int, last: int,
    indptr: Any, indices: I32, allow: Any, known: F32, floors: F32,
) -> Any:  # fmt: skip
    """Return (query, row, upper bound) of what may be in the answers from rows ``first:last``.

    ``known`` (B,) is a floor under each answer; ``floors`` (B, k) becomes the k largest lower
    bounds of each query.
    """
    size, k = floors.shape
    heap_rows, filled = np.zeros((size, k), np.int32), np.zeros(size, np.int64)
    queries, rows = np.empty(_FIRST, np.int32), np.empty(_FIRST, np.int32)
    bounds, count = np.empty(_FIRST, np.float32), 0
    upper = np.empty(_BLOCK, np.float32)
    for begin in range(first, last, _BLOCK):
        end = min(begin + _BLOCK, last)
        for b in range(size):
            cut = threshold(floors[b, 0], filled[b] == k, known[b], slack[b])
            if not _bounds(
                bits, values, scale, zero, start, group, codes[b], middle[b], shift[b],
                begin, end, cut, upper,
            ):  # fmt: skip
                continue
            for row in range(begin, end):
                bound = upper[row - begin]
                if bound < cut or not shown(b, row, indptr, indices, allow):
                    continue
                lower = bound - np.float32(2.0001) * _width(scale, row, error[b])
                filled[b] = offer(floors[b], heap_rows[b], filled[b], lower, np.int32(row))
                cut = threshold(floors[b, 0], filled[b] == k, known[b], slack[b])
                if count == len(rows):
                    queries, rows, bounds, count = sift(
                        queries, rows, bounds, floors, filled, slack
                    )
                queries[count], rows[count], bounds[count] = b, row, bound
                count += 1
    return queries[:count], rows[:count], bounds[:count]
