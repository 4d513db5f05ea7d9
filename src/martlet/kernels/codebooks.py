"""Codebooks of a product quantizer: learnt by k-means, one for each run of columns.

The columns are cut into M runs as even as can be, and each run of a row is stored as the number of
its nearest entry among K. Every run is its own problem and is solved on one thread, so the digits
do not depend on how many threads there are.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import rng
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread

F32 = NDArray[np.float32]

_ROUNDS = 20  # of k-means; later ones move little
_GRAIN = 1 << 18  # distances that are worth a thread


def runs(d: int, parts: int) -> NDArray[np.int64]:
    """Return the (parts + 1,) columns at which d columns are cut into runs, as even as can be.

    >>> runs(10, 4).tolist()
    [0, 2, 5, 7, 10]
    """
    return np.arange(parts + 1, dtype=np.int64) * d // parts


def learn_codebooks(points: F32, parts: int, entries: int, seed: int, threads: int) -> F32:
    """Return codebooks of small squared error, by k-means in each run. O(m d entries) a round.

    Args:
        points: (m, d) float32, finite; ``entries`` rows at least.
        parts: runs of columns.
        entries: of each codebook.
        seed: of the rows that it starts from.
        threads: threads to use.

    Returns:
        (parts, entries, widest run) float32; a narrower run's last columns are 0.

    **Source**: Lloyd, "Least squares quantization in PCM" (1982).
    **Differs**: an entry that no row is nearest to moves to the row that is off most.
    """
    cuts = runs(points.shape[1], parts)
    books = np.zeros((parts, entries, int(np.diff(cuts).max())), np.float32)
    for part in range(parts):
        start = rng(seed, "codebooks", part).choice(len(points), entries, replace=False)
        books[part, :, : cuts[part + 1] - cuts[part]] = points[start, cuts[part] : cuts[part + 1]]

    def learn(first: int, last: int) -> None:
        for part in range(first, last):
            mine = np.ascontiguousarray(points[:, cuts[part] : cuts[part + 1]])
            _lloyd(mine, books[part], _ROUNDS)

    spread(learn, parts, threads)
    return books


def assign(points: F32, books: F32, threads: int) -> NDArray[np.uint8]:
    """Return (m, parts) uint8, the nearest entry of each run; of equal ones the first.

    O(m d entries).
    """
    parts, entries, _ = books.shape
    cuts = runs(points.shape[1], parts)
    codes = np.empty((len(points), parts), np.uint8)
    transposed = np.ascontiguousarray(books.transpose(0, 2, 1))

    def some(start: int, stop: int) -> None:
        _assign(points[start:stop], transposed, cuts, codes[start:stop])

    spread(some, len(points), threads, max(1, _GRAIN // (parts * entries)))
    return codes


def entries_of(codes: NDArray[np.uint8], books: F32, d: int) -> F32:
    """Return the (m, d) float32 entries that (m, parts) codes name, side by side."""
    cuts, out = runs(d, len(books)), np.empty((len(codes), d), np.float32)
    for part, (start, stop) in enumerate(itertools.pairwise(cuts)):
        out[:, start:stop] = books[part, codes[:, part], : stop - start]
    return out


def assign_reference(points: F32, books: F32) -> NDArray[np.uint8]:
    """Return what ``assign`` returns, in NumPy."""
    cuts = runs(points.shape[1], len(books))
    codes = np.empty((len(points), len(books)), np.uint8)
    for part, (start, stop) in enumerate(itertools.pairwise(cuts)):
        off = points[:, None, start:stop] - books[part, None, :, : stop - start]
        codes[:, part] = (off * off).sum(2, dtype=np.float32).argmin(1)
    return codes


@njit(cache=True, nogil=True, error_model="numpy")
def _distances(point: F32, columns: F32, out: F32) -> None:
    """Write the squared distances of one run to every entry; ``columns`` is (width, entries)."""
    for entry in range(np.uint64(len(out))):
        out[entry] = np.float32(0)
    for j in range(len(point)):
        value = point[j]
        for entry in range(np.uint64(len(out))):
            off = value - columns[j, entry]
            out[entry] = out[entry] + off * off


@njit(cache=True, nogil=True, error_model="numpy")
def _least(values: F32) -> int:
    """Return the place of the least value, of equal ones the first; in two passes, for SIMD."""
    least = values[0]
    for value in values:
        least = min(least, value)
    at = 0
    while values[at] != least:
        at += 1
    return at


@njit(cache=True, nogil=True, error_model="numpy")
def _assign(points: F32, columns: F32, cuts: Any, codes: Any) -> None:
    distance = np.empty(columns.shape[2], np.float32)
    for row in range(len(points)):
        for part in range(len(columns)):
            _distances(points[row, cuts[part] : cuts[part + 1]], columns[part], distance)
            codes[row, part] = _least(distance)


@njit(cache=True, nogil=True, error_model="numpy")
def _lloyd(points: F32, book: F32, rounds: int) -> None:
    """Move the entries of one codebook in place."""
    entries, width = len(book), points.shape[1]
    columns, distance = np.empty((width, entries), np.float32), np.empty(entries, np.float32)
    for _ in range(rounds):
        for entry in range(entries):
            for j in range(width):
                columns[j, entry] = book[entry, j]
        sums, counts = np.zeros((entries, width), np.float64), np.zeros(entries, np.int64)
        off = np.empty(len(points), np.float32)
        for row in range(len(points)):
            _distances(points[row], columns, distance)
            at = _least(distance)
            off[row] = distance[at]
            counts[at] += 1
            for j in range(width):
                sums[at, j] += points[row, j]
        for entry in range(entries):
            if counts[entry]:
                for j in range(width):
                    book[entry, j] = sums[entry, j] / counts[entry]
            else:
                far = np.argmax(off)
                off[far] = np.float32(0)
                for j in range(width):
                    book[entry, j] = points[far, j]
