"""The best items of a catalogue of product codes, found by table look-ups, without decoding it.

A row is decoded as ``y B`` (``kernels/product_codes.py``). So its product with a query q is a sum
of M entries of tables that are made once a query, for ``q B'`` against each codebook. Tables in 8
bits let 64 rows be summed in SIMD (``kernels/near.py``). They are rounded to one side, so that no
row that may be in the answer is passed over; what remains is summed from float32 tables, and the
few best of that are decoded and scored as ``best_rows`` scores. Thus the answer is that of the
decoded rows, digit for digit, whatever the batch and the number of threads.

With a second, finer quantizer of what the first leaves over, the scan reads the codes of the first
alone: ``deep`` rows of largest product by the first are scored again by both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, num_threads
from martlet.kernels.codebooks import runs
from martlet.kernels.floor import sift, threshold
from martlet.kernels.int8 import best_rows, shown
from martlet.kernels.jit import njit
from martlet.kernels.near import LANES, first_bit, near
from martlet.kernels.parallel import spread
from martlet.kernels.product_codes import FOUR_BITS, ProductCodes, code_of, rows_reference
from martlet.kernels.select import offer

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

_TILE = 1 << 14  # bytes of codes that stay in the cache while every query is summed over them
_GRAIN = 1 << 22  # bytes of codes, once for each query, that are worth a thread
_PIECES = 2  # ranges a thread, so that a thread that is held up does not hold up the answer
_SAMPLE = 2048  # rows, or 8 k, that give a first floor under the answer
_SHARE = 8  # of the rows at most one in so many is in the sample
_FIRST = 4096  # places for what may be in the answer, before more are made
_ROUNDING = 2.0**-23  # of a float32 sum, a term
_LARGEST = 1e37  # beyond it a sum of float32 is not to be trusted
_NO_ROWS = np.zeros(0, np.int64), np.zeros(0, np.int32)
_ALL = np.zeros(0, np.bool_)


def topk_pq(
    vectors: F32,
    codes: ProductCodes,
    k: int,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
    threads: int | None = None,
    *,
    deep: int | None = None,
) -> tuple[I32, F32, NDArray[np.int64]]:
    """Return the k rows of largest inner product with each vector, among the decoded rows.

    O(B n M) look-ups in tables of 8 bits, of which a machine makes 64 at a time; n M bytes read, or
    half as many with codes of 4 bits.

    Args:
        vectors: (B, d) float32; a query that is not finite is scored against every row.
        codes: the catalogue.
        k: length of the lists.
        hidden: (B x n) CSR of rows to leave out, rising in each row.
        allow: (n,) bool of the rows that may appear; None allows all.
        threads: threads to use; None takes ``num_threads()``.
        deep: with a finer quantizer, how many rows of largest product by the first alone are scored
            by both, at least; None takes all, for an exact answer. Without one it does not count.

    Returns:
        (B, k) int32 rows and (B, k) float32 scores, score falling, ties by ``tie_key`` of the row
        rising; NaN and -inf are dropped; short lists end in -1 and -inf. And (B,) int64: how many
        rows were decoded.

    **Source**: Jégou et al., "Product quantization for nearest neighbor search" (2011); the tables
    of 8 bits are those of ``kernels/near.py``.
    **Differs**: tables are rounded so that they bound a score, and a floor under the answer says
    which rows they cannot rule out.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    size, n = len(vectors), codes.num_rows
    threads = num_threads() if threads is None else threads
    indptr, indices = _NO_ROWS if hidden is None else (hidden.indptr, hidden.indices)
    mask = _ALL if allow is None else np.ascontiguousarray(allow)
    fine = codes.fine is not None
    with np.errstate(invalid="ignore", over="ignore"):
        reach = np.abs(vectors.astype(np.float64)) @ codes.reach
    usable = reach <= _LARGEST
    # Sums over codes, over columns and over the basis, each as the tables and as decoded.
    terms = len(codes.books) + 3 * vectors.shape[1] + 8
    error = np.where(usable, 2 * _ROUNDING * terms * reach, 0).astype(np.float32)
    slack = np.zeros_like(error) if fine else error
    first = k if not fine else n if deep is None else max(k, deep)
    hunt = _Hunt(vectors, codes, usable, error, slack, threads)
    query, row, sums = hunt.near_best(min(first, n), (indptr, indices, mask))
    if fine:
        _add_fine(codes.fine_codes, hunt.tables(codes.fine_entries), query, row, sums)
        keep = _near_best(query, sums, size, k, error)
        query, row = query[keep], row[keep]
    rows, scores = best_rows(vectors, codes.rows, query, row, k)
    return rows, scores, np.bincount(query, minlength=size)


def topk_pq_reference(
    vectors: F32,
    codes: ProductCodes,
    k: int,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
) -> tuple[I32, F32]:
    """Return the best of all decoded rows, in NumPy, by a full sort."""
    from martlet.kernels.topk import topk_dot_reference

    everything = rows_reference(codes, np.arange(codes.num_rows))
    return topk_dot_reference(vectors, np.ascontiguousarray(everything.T), k, hidden, allow)


@dataclass(frozen=True, eq=False)
class _Hunt:
    """A search of one batch: its tables, and what bounds their errors."""

    vectors: F32
    codes: ProductCodes
    usable: NDArray[np.bool_]
    error: F32
    slack: F32
    threads: int

    def tables(self, books: F32, even: bool = False) -> F32:
        """Return the (B, M, entries) products of each query's runs with the entries of books.

        All are 0 for a query that is not finite, so that every row is as good as the others; and
        the last one, where an ``even`` number was asked for.
        """
        parts, entries, _ = books.shape
        room = parts + parts % 2 if even else parts
        out = np.zeros((len(self.vectors), room, entries), np.float32)
        cuts = runs(len(self.codes.basis), parts)

        def some(start: int, stop: int) -> None:
            _tables(
                self.vectors[start:stop], self.usable[start:stop], self.codes.basis, books, cuts,
                out[start:stop],
            )  # fmt: skip

        spread(some, len(out), self.threads, 8)
        return out

    def near_best(self, k: int, shown: tuple[Any, I32, Any]) -> tuple[I32, I32, F32]:
        """Return (query, row, sum) of each row whose sum is among a query's k largest, or near.

        Near are those below the k-th by ``slack`` at most; so too are all that tie with it.
        """
        values, n, size = self.codes.values, self.codes.num_rows, len(self.vectors)
        lut = self.tables(self.codes.books, even=self.codes.books.shape[1] == FOUR_BITS)
        floor, step = np.empty(size, np.float32), np.empty(size, np.float32)
        top, small = np.empty(size, np.float32), np.empty(lut.shape, np.uint8)

        def prepare(start: int, stop: int) -> None:
            _prepare(
                values, n, lut, start, stop, k, self.error, self.slack, *shown, floor, top, step,
                small,
            )  # fmt: skip

        spread(prepare, size, self.threads, 8)
        work = size * values.size // _GRAIN
        parts = max(1, min(self.threads * _PIECES, work)) if self.threads > 1 else 1
        floors = np.full((parts, size, k), -np.inf, np.float32)
        found: list[Any] = [()] * parts

        def scan(start: int, stop: int) -> None:
            for part in range(start, stop):
                found[part] = _scan(
                    values, n, lut, small, top, step, self.error, self.slack,
                    len(values) * part // parts, len(values) * (part + 1) // parts,
                    *shown, floor.copy(), floors[part],
                )  # fmt: skip
                # Lists of k fill from -inf, so that a floor is known where there are k rows.
                np.maximum(floor, floors[part].min(1, initial=np.inf), out=floor)

        spread(scan, parts, self.threads)
        query, row, sums = (np.concatenate(column) for column in zip(*found, strict=True))
        keep = _near_best(query, sums, size, k, self.slack)
        return query[keep], row[keep], sums[keep]


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _tables(vectors: F32, usable: Any, basis: F32, books: F32, cuts: Any, out: F32) -> None:
    """Fill (B, M, entries) tables of products, each summed in the order of the columns."""
    d = len(basis)
    turned = np.empty(d, np.float32)
    for b in range(len(vectors)):
        if not usable[b]:
            continue
        for i in range(d):
            total = np.float32(0)
            for j in range(d):
                total = total + basis[i, j] * vectors[b, j]
            turned[i] = total
        for part in range(len(books)):
            for entry in range(books.shape[1]):
                total = np.float32(0)
                for j in range(cuts[part + 1] - cuts[part]):
                    total = total + turned[cuts[part] + j] * books[part, entry, j]
                out[b, part, entry] = total


@njit(cache=True, nogil=True, error_model="numpy")
def _sum(codes: Any, lane: Any, lut: F32) -> Any:
    """Return the sum of the entries of a row of a block, in the order of its codes."""
    total, place = np.float32(0), np.uint64(lane)  # unsigned: no test for a negative place
    if lut.shape[1] == FOUR_BITS:
        for at in range(np.uint64(len(codes))):
            code, part = codes[at, place], at + at
            total = total + lut[part, np.uint64(code & np.uint8(15))]
            total = total + lut[part + np.uint64(1), np.uint64(code >> np.uint8(4))]
    else:
        for at in range(np.uint64(len(codes))):
            total = total + lut[at, np.uint64(codes[at, place])]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _sums(codes: Any, lut: F32, out: F32) -> None:
    """Write what ``_sum`` returns for each of a block's rows."""
    for lane in range(np.uint64(LANES)):
        out[lane] = np.float32(0)
    for at in range(np.uint64(len(codes))):
        if lut.shape[1] == FOUR_BITS:
            part = at + at
            for lane in range(np.uint64(LANES)):
                code = codes[at, lane]
                total = out[lane] + lut[part, np.uint64(code & np.uint8(15))]
                out[lane] = total + lut[part + np.uint64(1), np.uint64(code >> np.uint8(4))]
        else:
            for lane in range(np.uint64(LANES)):
                out[lane] = out[lane] + lut[at, np.uint64(codes[at, lane])]


@njit(cache=True, nogil=True, error_model="numpy")
def _prepare(
    values: Any, n: int, lut: F32, start: int, stop: int, k: int, error: F32, slack: F32,
    indptr: Any, indices: I32, allow: Any, floor: F32, top: F32, step: F32, small: Any,
) -> None:  # fmt: skip
    """Fill, for queries ``start:stop``, what the scan of them needs.

    ``floor`` is the k-th largest sum of some rows or -inf, ``top`` no sum is above, and ``small``
    holds how far an entry lies below the largest of its table, in ``step``, rounded down.
    """
    blocks = min(max(_SAMPLE, 8 * k), n // _SHARE) // LANES
    scores, rows = np.empty(k, np.float32), np.empty(k, np.int32)
    sums, best = np.empty(LANES, np.float32), np.empty(lut.shape[1], np.float32)
    for b in range(start, stop):
        filled = np.int64(0)
        for at in range(blocks):
            block = (n // LANES) * at // blocks
            _sums(values[block], lut[b], sums)
            for lane in range(LANES):
                row = block * LANES + lane
                if filled == k and sums[lane] < scores[0]:
                    continue
                if shown(b, row, indptr, indices, allow):
                    filled = offer(scores, rows, filled, sums[lane], np.int32(row))
        floor[b] = scores[0] if filled == k and blocks else -np.inf
        most, least = np.float32(0), np.float32(0)
        for part in range(lut.shape[1]):
            high = low = lut[b, part, 0]
            for entry in range(lut.shape[2]):
                high, low = max(high, lut[b, part, entry]), min(low, lut[b, part, entry])
            best[part] = high
            most, least = most + high, least + low
        top[b] = most
        least = max(least, floor[b] - slack[b])
        step[b] = (most - least + np.float32(2) * error[b]) / np.float32(254)
        if not step[b] > 0:
            step[b] = np.float32(1)
        for part in range(lut.shape[1]):
            for entry in range(lut.shape[2]):
                cost = (best[part] - lut[b, part, entry]) / step[b] * np.float32(1 - 1e-6)
                small[b, part, entry] = np.uint8(min(cost, np.float32(255)))


@njit(cache=True, nogil=True, error_model="numpy")
def _limit(top: Any, cut: Any, error: Any, step: Any) -> Any:
    """Return the cost that a row whose sum comes up to ``cut`` may have at most."""
    cost = (top - cut + error) / step * np.float32(1 + 1e-6)
    return np.uint8(max(cost, np.float32(0))) if cost < 255 else np.uint8(255)


@njit(cache=True, nogil=True)
def _near(values: Any, start: int, stop: int, tables: Any, limit: Any, out: Any) -> bool:
    """Write the bits of ``near`` for some blocks, and return whether any is set."""
    some = np.uint64(0)
    for block in range(start, stop):
        bits: Any = near(values, block, tables, limit)
        out[block - start] = bits
        some |= bits
    return some != 0


@njit(cache=True, nogil=True, error_model="numpy")
def _scan(
    values: Any, n: int, lut: F32, small: Any, top: F32, step: F32, error: F32, slack: F32,
    first: int, last: int, indptr: Any, indices: I32, allow: Any, known: F32, floors: F32,
) -> Any:  # fmt: skip
    """Return (query, row, sum) of what may be in the answers from blocks ``first:last``.

    ``known`` (B,) is a floor under each answer; ``floors`` (B, k) becomes the k largest sums.
    """
    size, k = floors.shape
    heap_rows, filled = np.zeros((size, k), np.int32), np.zeros(size, np.int64)
    queries, rows = np.empty(_FIRST, np.int32), np.empty(_FIRST, np.int32)
    sums, count = np.empty(_FIRST, np.float32), 0
    tile = max(1, _TILE // max(1, values.shape[1] * LANES))
    near_by = np.empty(tile, np.uint64)
    for start in range(first, last, tile):
        for b in range(size):
            cut = threshold(floors[b, 0], filled[b] == k, known[b], slack[b])
            stop = min(start + tile, last)
            if not _near(
                values, start, stop, small[b], _limit(top[b], cut, error[b], step[b]), near_by
            ):
                continue
            for block in range(start, stop):
                bits = near_by[block - start]
                while bits:
                    lane: Any = first_bit(bits)
                    bits &= bits - np.uint64(1)
                    row = block * LANES + lane
                    total = _sum(values[block], lane, lut[b])
                    if row >= n or total < cut or not shown(b, row, indptr, indices, allow):
                        continue
                    filled[b] = offer(floors[b], heap_rows[b], filled[b], total, np.int32(row))
                    cut = threshold(floors[b, 0], filled[b] == k, known[b], slack[b])
                    if count == len(rows):
                        queries, rows, sums, count = sift(
                            queries, rows, sums, floors, filled, slack
                        )
                    queries[count], rows[count], sums[count] = b, row, total
                    count += 1
    return queries[:count], rows[:count], sums[:count]


@njit(cache=True, nogil=True)
def _near_best(query: I32, sums: F32, size: int, k: int, slack: F32) -> Any:
    """Return which pairs reach the k-th largest sum of their query, less ``slack``."""
    heap, rows = np.full((size, k), -np.inf, np.float32), np.zeros((size, k), np.int32)
    filled = np.zeros(size, np.int64)
    for at in range(len(query)):
        b = query[at]
        filled[b] = offer(heap[b], rows[b], filled[b], sums[at], np.int32(at))
    keep = np.empty(len(query), np.bool_)
    for at in range(len(query)):
        b = query[at]
        keep[at] = filled[b] < k or sums[at] >= heap[b, 0] - slack[b]
    return keep


@njit(cache=True, nogil=True, error_model="numpy")
def _add_fine(fine: Any, lut: F32, query: I32, row: I32, sums: F32) -> None:
    """Add the entries of the finer codes to the sums of pairs."""
    for at in range(len(row)):
        total = sums[at]
        for part in range(lut.shape[1]):
            total = total + lut[query[at], part, code_of(fine[row[at]], part, lut.shape[2])]
        sums[at] = total
