"""The best rows that a walk over a graph of near neighbours meets, by products of codes.

The walk keeps the ``ef`` best rows met that may be shown, and goes on from the best row not yet
gone on from until that is worse than all of them. Where it has been stands in a small table of
hashes, so that a query costs nothing that grows with the catalogue.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR
from martlet.kernels.dots import ROWS, ask
from martlet.kernels.int8 import products, shown
from martlet.kernels.ivf import quantize
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread
from martlet.kernels.select import offer, pop_all, sink
from martlet.kernels.topk import EVERYTHING, rows_of

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I8 = NDArray[np.int8]

_GRAIN = 8  # queries that are worth a thread
_PLACES = 1024  # of the table of hashes, before it grows


class Graph(NamedTuple):
    """Rows and their neighbours, by level.

    Attributes:
        codes: (n, d) int8.
        scale: (n,) float32; a value is about its code times the scale of its row.
        offsets: (n + 1,) int64; row i has neighbours ``offsets[i]`` to ``offsets[i + 1]``: 2 m of
            level 0, then m of each level above that it stands on; the unused ones are -1, last.
        neighbours: (offsets[n],) int32.
        links: m.
        entry: the row to begin at, one of the highest.
        top: the highest level.
    """

    codes: I8
    scale: F32
    offsets: NDArray[np.int64]
    neighbours: I32
    links: int
    entry: int
    top: int


def walk(
    vectors: F32,
    graph: Graph,
    ef: int,
    hidden: CSR | None = None,
    allow: NDArray[np.bool_] | None = None,
    threads: int = 1,
) -> I32:
    """Return the (B, ef) best rows met, best first; the same whatever the batch and the threads.

    Meets about 2 m ef rows a query, more where many are not to be shown: O(B m ef d).

    Args:
        vectors: (B, d) float32.
        graph: the catalogue.
        ef: rows to keep.
        hidden: (B x n) CSR of rows to leave out, rising in each row.
        allow: (n,) bool of the rows that may appear; None allows all.
        threads: threads to use.

    Returns:
        (B, ef) int32; short lists end in -1. A query that is not finite finds nothing.

    **Source**: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
    Hierarchical Navigable Small World graphs" (2016), algorithms 2 and 5.
    **Differs**: products of int8 codes; rows that may not be shown are walked through, not kept.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    indptr, indices = rows_of(hidden, len(vectors))
    mask = EVERYTHING if allow is None else np.ascontiguousarray(allow)
    found = np.empty((len(vectors), ef), np.int32)

    def scan(start: int, stop: int) -> None:
        _walk(vectors, *graph, start, stop, indptr, indices, mask, found)

    spread(scan, len(vectors), threads, _GRAIN)
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(
    vectors: F32, codes: I8, scale: F32, offsets: Any, neighbours: I32, links: int, entry: int,
    top: int, start: int, stop: int, indptr: Any, indices: I32, allow: Any, found: I32,
) -> None:  # fmt: skip
    """Fill the lists of queries ``start:stop``."""
    (n, d), ef = codes.shape, found.shape[1]
    z = np.empty(d, np.int16)
    near, close = np.zeros((max(ROWS, 2 * links), d), np.int8), np.empty(2 * links, np.int32)
    total, score = np.empty(len(near), np.int32), np.empty(2 * links, np.float32)
    scores, places = np.empty(ef, np.float32), _PLACES
    while places < links * ef:
        places *= 2
    for b in range(start, stop):
        filled = np.int64(0)
        if n and quantize(vectors[b], z):
            row: Any = np.int32(entry)
            close[0] = row
            _score(codes, scale, close[:1], z, near, total, score)
            best: Any = score[0]
            for level in range(top, 0, -1):
                row, best = _climb(
                    codes, scale, offsets, neighbours, links, level, row, best, z,
                    near, close, total, score,
                )  # fmt: skip
            met, count = np.full(places, -1, np.int32), np.int64(1)
            _new(met, row)
            waiting, order = np.empty(places, np.int32), np.empty(places, np.float32)
            left = offer(order, waiting, np.int64(0), -best, row)
            if shown(b, row, indptr, indices, allow):
                filled = offer(scores, found[b], filled, best, row)
            while left:
                row, best = waiting[0], -order[0]
                if filled == ef and best < scores[0]:
                    break
                left -= 1
                if left:
                    sink(order, waiting, left, order[left], waiting[left])
                size = 0
                first = offsets[row]
                for at in range(first, first + 2 * links):
                    other = neighbours[at]
                    if other < 0:
                        break
                    if 2 * count >= len(met):
                        met = _wider(met)
                        waiting, order = _longer(waiting), _longer(order)
                    if _new(met, other):
                        ask(codes, np.int64(other))
                        close[size] = other
                        size += 1
                        count += 1
                if not size:
                    continue
                _score(codes, scale, close[:size], z, near, total, score)
                for at in range(size):
                    if filled == ef and score[at] < scores[0]:
                        continue
                    left = offer(order, waiting, left, -score[at], close[at])
                    if shown(b, close[at], indptr, indices, allow):
                        filled = offer(scores, found[b], filled, score[at], close[at])
            pop_all(scores, found[b], filled)
        for place in range(filled, ef):
            found[b, place] = -1


@njit(cache=True, nogil=True, error_model="numpy")
def _climb(
    codes: I8, scale: F32, offsets: Any, neighbours: I32, links: int, level: int, row: Any,
    best: Any, z: Any, near: I8, close: I32, total: I32, score: F32,
) -> Any:  # fmt: skip
    """Return the row that no neighbour of a level is better than, and its score."""
    better = True
    while better:
        better, size = False, 0
        first = offsets[row] + 2 * links + (level - 1) * links
        for at in range(first, first + links):
            if neighbours[at] < 0:
                break
            close[size] = neighbours[at]
            size += 1
        if size:
            _score(codes, scale, close[:size], z, near, total, score)
        for at in range(size):
            if score[at] > best:
                row, best, better = close[at], score[at], True
    return row, best


@njit(cache=True, nogil=True, error_model="numpy")
def _score(codes: I8, scale: F32, close: I32, z: Any, near: I8, total: I32, score: F32) -> None:
    """Write the scores of some rows, gathered into ``near``."""
    for at in range(len(close)):
        # Unsigned places need no test for a negative index, which would keep SIMD away.
        row, to = np.uint64(close[at]), np.uint64(at)
        for j in range(np.uint64(codes.shape[1])):
            near[to, j] = codes[row, j]
    products(near[: max(ROWS, len(close))], z, total)  # fewer would be copied once more
    for at in range(len(close)):
        score[at] = scale[close[at]] * np.float32(total[at])


@njit(cache=True, nogil=True)
def _new(met: I32, row: Any) -> bool:
    """Put a row into a table of hashes, and return whether it was not there."""
    mask = np.uint32(len(met) - 1)
    at = np.uint32(row) * np.uint32(0x9E3779B1)
    at = (at ^ (at >> np.uint32(16))) & mask
    while met[at] >= 0:
        if met[at] == row:
            return False
        at = (at + np.uint32(1)) & mask
    met[at] = row
    return True


@njit(cache=True, nogil=True)
def _wider(met: I32) -> I32:
    """Return a table of hashes twice as wide that holds the same rows."""
    wide = np.full(2 * len(met), -1, np.int32)
    for row in met:
        if row >= 0:
            _new(wide, row)
    return wide


@njit(cache=True, nogil=True)
def _longer(values: Any) -> Any:
    """Return an array twice as long that begins with the same values."""
    longer = np.empty(2 * len(values), values.dtype)
    for at in range(len(values)):
        longer[at] = values[at]
    return longer
