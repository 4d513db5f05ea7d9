"""A merged embedding table in its storage: look rows up, sum the gradients of equal ones.

A batch names a row many times. Its gradients are summed first, in the order of their positions, and
the row then takes one step of its optimizer (``kernels.row_steps``); so a row of the table is read
and written once a batch, and the digits depend neither on the number of threads nor on how rows are
dealt out to them.

A table may be stored in fewer bits than it is computed in. Rows are widened to float32, moved, and
rounded up or down by chance, so that the mean of many small steps is theirs, where rounding to the
nearest would lose them all. The chance is a hash of seed, step, row and column: a run repeats bit
for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from martlet.kernels.groups import Rows, check_rows, sort_rows, sum_groups
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread
from martlet.kernels.rows import ask_row, mix_step, read_row, write_row

F32 = NDArray[np.float32]
Storage = Literal["fp32", "fp16", "bf16", "int8"]

_AHEAD = 64  # rows between the one at hand and the one that memory is asked for
GRAIN = 1 << 19  # values that are worth a thread
_PIECES = 4  # of the work a thread takes
_NO_VECTOR = np.zeros(0, np.float32)
_DTYPES: dict[str, Any] = {
    "fp32": np.float32, "fp16": np.float16, "bf16": np.uint16, "int8": np.int8,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class EmbeddingTable:
    """An (N, d) table of float32 meaning that is trained in its storage.

    Attributes:
        storage: "fp32", "fp16", "bf16" (the upper half of a float32) or "int8" (symmetric, a scale
            a row).
        values: (N, d) float32, float16, uint16 or int8, C-contiguous.
        scale: (N,) float32 with int8, where a value is code times scale; else empty.
        seed: of the rounding by chance.
    """

    storage: Storage
    values: Any
    scale: F32
    seed: int = 0

    @staticmethod
    def of(vectors: F32, storage: Storage = "fp32", seed: int = 0) -> EmbeddingTable:
        """Return a table of (N, d) vectors, copied and rounded to the nearest. O(N d)."""
        scale = _NO_VECTOR
        if storage == "int8":
            scale = np.abs(vectors).max(1, initial=0) / np.float32(127)
            codes = vectors / np.where(scale > 0, scale, np.float32(1))[:, None]
            values: Any = np.rint(codes).astype(np.int8)
        elif storage == "bf16":
            bits = np.ascontiguousarray(vectors).view(np.uint32)
            values = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        else:
            values = np.array(vectors, _DTYPES[storage], order="C")
        return EmbeddingTable(storage, values, scale, seed)

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return int(self.values.nbytes + self.scale.nbytes)

    def wide(self) -> F32:
        """Return the (N, d) float32 vectors. O(N d)."""
        if self.storage == "bf16":
            return (self.values.astype(np.uint32) << 16).view(np.float32)
        wide: F32 = self.values.astype(np.float32)
        return wide * self.scale[:, None] if self.storage == "int8" else wide

    def store(self, rows: Rows, vectors: F32, step: int) -> None:
        """Set distinct rows, in place, rounded by chance as a training step rounds them.

        Args:
            rows: (n,) int32 or int64 below N, none twice.
            vectors: (n, d) float32.
            step: another number gives other chances.

        Raises:
            DataError: a row lies outside the table; nothing has changed.
        """
        outside = np.flatnonzero((rows < 0) | (rows >= len(self.values)))
        check_rows(rows, int(outside[0]) if len(outside) else len(rows), len(self.values))
        _store(*self.arrays(), np.ascontiguousarray(vectors), rows, *self.chance(step))

    def arrays(self) -> tuple[Any, F32]:
        """Return what kernels take: half precision as integers of its bits, by their sign."""
        halves = {"fp16": np.uint16, "bf16": np.int16}.get(self.storage)
        return self.values if halves is None else self.values.view(halves), self.scale

    def chance(self, step: int) -> tuple[np.uint64, np.uint64]:
        """Return what kernels take to round a step by chance."""
        return np.uint64(self.seed % 2**64), np.uint64(step)


@dataclass(frozen=True, eq=False)
class Batch:
    """The rows that a batch names, sorted.

    Attributes:
        keys: (n,) uint64 that rise, each a row above the bits of one of its positions.
        shift: number of the positions' bits.
    """

    keys: NDArray[np.uint64]
    shift: np.int64

    @staticmethod
    def of(rows: Rows, num_rows: int) -> Batch:
        """Sort (n,) int32 or int64 rows below ``num_rows``. O(n) for each 11 bits of a row.

        Raises:
            DataError: a row lies outside the table.
        """
        return Batch(*sort_rows(rows, num_rows))


def lookup(
    table: EmbeddingTable, rows: Rows, *, out: F32 | None = None, num_threads: int = 1
) -> F32:
    """Return the (n, d) float32 rows of a table. O(n d), bound by the memory's latency.

    Args:
        table: of N rows.
        rows: (n,) int32 or int64 below N.
        out: (n, d) float32, C-contiguous, to be filled and returned; None makes one.
        num_threads: threads over rows.

    Raises:
        DataError: a row lies outside the table.
    """
    wide = _room(table, rows) if out is None else out
    outside = [len(rows)]

    def some(start: int, stop: int) -> None:
        outside.append(_gather(*table.arrays(), rows, wide, start, stop))

    spread(some, len(rows), num_threads, max(1, GRAIN // wide.shape[1]))
    check_rows(rows, min(outside), len(table.values))
    return wide


def _room(table: EmbeddingTable, rows: Rows) -> F32:
    return np.empty((len(rows), table.values.shape[1]), np.float32)


def lookup_reference(table: EmbeddingTable, rows: Rows) -> F32:
    """Return what ``lookup`` returns, in NumPy."""
    return table.wide()[rows]


def begin(
    table: EmbeddingTable, rows: Rows, *, out: F32 | None = None, num_threads: int = 1
) -> tuple[F32, Batch]:
    """Return what ``lookup`` returns, and the batch sorted for the step that follows. O(n d).

    One thread sorts while the others look up.
    """
    wide = _room(table, rows) if out is None else out
    n, tasks, batches = len(rows), _PIECES * num_threads, list[Batch]()
    if wide.size < 2 * GRAIN or num_threads == 1:
        lookup(table, rows, out=wide)
        return wide, Batch.of(rows, len(table.values))

    def some(first: int, last: int) -> None:
        for task in range(first, last):
            if task == 0:
                batches.append(Batch.of(rows, len(table.values)))
            else:
                bounds = n * (task - 1) // (tasks - 1), n * task // (tasks - 1)
                _gather(*table.arrays(), rows, wide, *bounds)

    spread(some, tasks, num_threads)
    return wide, batches[0]


def merge(batch: Batch, gradients: F32) -> tuple[NDArray[np.int64], F32]:
    """Return the distinct rows of a batch, rising, and the sum of the gradients of each.

    Args:
        batch: of n positions.
        gradients: (n, d) float32, C-contiguous, summed in the order of their positions.

    Returns:
        (m,) int64 and (m, d) float32. O(n d).
    """
    distinct = np.empty(len(batch.keys), np.int64)
    sums = np.empty(gradients.shape, np.float32)
    count = _merge(batch.keys, batch.shift, gradients, sums, distinct)
    return distinct[:count], sums[:count]


def merge_reference(rows: Rows, gradients: F32) -> tuple[Any, NDArray[np.float64]]:
    """Return what ``merge`` returns, in NumPy, with sums in float64."""
    distinct, place = np.unique(rows, return_inverse=True)
    sums = np.zeros((len(distinct), gradients.shape[1]))
    np.add.at(sums, place, gradients.astype(np.float64))
    return distinct.astype(np.int64), sums


@njit(cache=True, nogil=True)
def _gather(values: Any, scale: Any, rows: Any, out: Any, start: int, stop: int) -> int:
    """Fill ``out[start:stop]``; return the first position of a row outside, else the length."""
    for at in range(start, stop):
        if rows[at] < 0 or rows[at] >= len(values):
            return at
    for at in range(start, min(start + _AHEAD, stop)):
        ask_row(values, np.int64(rows[at]))
    for at in range(start, stop):
        later = np.int64(rows[min(at + _AHEAD, stop - 1)])
        ask_row(values, later)
        if len(scale):
            ask_row(scale, later)
        read_row(values, scale, np.int64(rows[at]), out, np.int64(at))
    return len(rows)


@njit(cache=True, nogil=True)
def _store(values: Any, scale: Any, vectors: Any, rows: Any, seed: Any, step: Any) -> None:
    state = np.int64(mix_step(seed, step))
    for at in range(len(rows)):
        write_row(values, scale, np.int64(rows[at]), vectors, np.int64(at), state)


@njit(cache=True, nogil=True)
def _merge(keys: Any, shift: Any, gradients: Any, sums: Any, distinct: Any) -> int:
    return sum_groups(keys, shift, np.int64(0), np.int64(len(keys)), gradients, (), sums, distinct)
