"""One step of training over a merged embedding table: look rows up, sum gradients, move each once.

A batch names a row many times. Its gradients are summed first, in the order of their positions, and
the row then takes one step of its optimizer; so a row of the table is read and written once a
batch, and the digits depend neither on the number of threads nor on how rows are dealt out to them.

Only the rows of a batch move. For Adam that is its lazy form: the moments of other rows rest too,
and the correction of their bias counts the steps of the whole table.

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
from martlet.kernels.rows import (
    ask_row,
    blend_row,
    descend_row,
    mix_step,
    read_row,
    square_row,
    write_row,
)

F32 = NDArray[np.float32]
Storage = Literal["fp32", "fp16", "bf16", "int8"]

_AHEAD = 64  # rows between the one at hand and the one that memory is asked for
_CHUNK = 64  # positions whose sums wait in the first cache until their rows have come
_GRAIN = 1 << 19  # values that are worth a thread
_PIECES = 4  # of the work a thread takes
_SGD, _ADAGRAD, _ADAM = 0, 1, 2
_NO_MATRIX, _NO_VECTOR = np.zeros((0, 0), np.float32), np.zeros(0, np.float32)
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
        _store(*self._arrays(), np.ascontiguousarray(vectors), rows, *self._chance(step))

    def _arrays(self) -> tuple[Any, F32]:
        """Return what kernels take: half precision as integers of its bits, by their sign."""
        halves = {"fp16": np.uint16, "bf16": np.int16}.get(self.storage)
        return self.values if halves is None else self.values.view(halves), self.scale

    def _chance(self, step: int) -> tuple[np.uint64, np.uint64]:
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
        outside.append(_gather(*table._arrays(), rows, wide, start, stop))

    spread(some, len(rows), num_threads, max(1, _GRAIN // wide.shape[1]))
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
    if wide.size < 2 * _GRAIN or num_threads == 1:
        lookup(table, rows, out=wide)
        return wide, Batch.of(rows, len(table.values))

    def some(first: int, last: int) -> None:
        for task in range(first, last):
            if task == 0:
                batches.append(Batch.of(rows, len(table.values)))
            else:
                bounds = n * (task - 1) // (tasks - 1), n * task // (tasks - 1)
                _gather(*table._arrays(), rows, wide, *bounds)

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


def sgd(
    table: EmbeddingTable,
    batch: Batch,
    gradients: F32,
    *,
    step: int,
    rate: float,
    num_threads: int = 1,
) -> None:
    """Take a step of plain descent, in place: w -= rate g, with g the sum of a row's gradients.

    Args:
        table: of N rows.
        batch: of n positions of the table.
        gradients: (n, d) float32, C-contiguous.
        step: number of this step of the whole table, from 1; rounding takes its chances from it.
        rate: length of the step.
        num_threads: threads over rows.
    """
    numbers = rate, 0, 0, 0, 0, 0
    _step(table, _NO_MATRIX, _NO_VECTOR, batch, gradients, _SGD, numbers, step, num_threads)


def adagrad(
    table: EmbeddingTable,
    squares: F32,
    batch: Batch,
    gradients: F32,
    *,
    step: int,
    rate: float,
    eps: float = 1e-8,
    num_threads: int = 1,
) -> None:
    """Take a step of row-wise Adagrad, in place.

        s += mean over features of g^2;  w -= rate g / (sqrt(s) + eps)

    Args:
        table: of N rows.
        squares: (N,) float32, the s of every row; zeros at first.
        batch: of n positions of the table.
        gradients: (n, d) float32, C-contiguous; g is the sum over a row's positions.
        step: number of this step of the whole table, from 1; rounding takes its chances from it.
        rate: length of the step.
        eps: keeps the step finite.
        num_threads: threads over rows.

    **Source**: Duchi, Hazan and Singer (2011).
    **Differs**: one number a row in place of one a feature, as in production recommenders.
    """
    numbers = rate, eps, 0, 0, 0, 0
    _step(table, _NO_MATRIX, squares, batch, gradients, _ADAGRAD, numbers, step, num_threads)


def adam(
    table: EmbeddingTable,
    first: F32,
    second: F32,
    batch: Batch,
    gradients: F32,
    *,
    step: int,
    rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    num_threads: int = 1,
) -> None:
    """Take a step of lazy, row-wise Adam, in place.

        m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) mean over features of g^2
        w -= rate (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)

    Args:
        table: of N rows.
        first: (N, d) float32, the m of every row; zeros at first.
        second: (N,) float32, the v of every row; zeros at first.
        batch: of n positions of the table.
        gradients: (n, d) float32, C-contiguous; g is the sum over a row's positions.
        step: number of this step of the whole table, from 1.
        rate: length of the step.
        beta1: decay of m.
        beta2: decay of v.
        eps: keeps the step finite.
        num_threads: threads over rows.

    **Source**: Kingma and Ba (2015), algorithm 1.
    **Differs**: one second moment a row; rows that are not in the batch rest, their moments too.
    """
    # In float32, 1 - 0.999 would be off by 1e-5: what is near 1 is taken from 1 out here.
    root = (1 - beta2**step) ** 0.5
    numbers = rate * root / (1 - beta1**step), eps * root, beta1, 1 - beta1, beta2, 1 - beta2
    _step(table, first, second, batch, gradients, _ADAM, numbers, step, num_threads)


def sgd_reference(values: F32, rows: Rows, gradients: F32, *, rate: float) -> Any:
    """Return the values after ``sgd`` of an fp32 table, in NumPy and float64."""
    at, g = merge_reference(rows, gradients)
    wide = values.astype(np.float64)
    wide[at] -= rate * g
    return wide


def adagrad_reference(
    values: F32, squares: F32, rows: Rows, gradients: F32, *, rate: float, eps: float = 1e-8
) -> Any:
    """Return the values of an fp32 table and its state after ``adagrad``, in NumPy and float64."""
    at, g = merge_reference(rows, gradients)
    wide, s = values.astype(np.float64), squares.astype(np.float64)
    s[at] += (g**2).mean(1)
    wide[at] -= rate * g / (np.sqrt(s[at]) + eps)[:, None]
    return wide, s


def adam_reference(
    values: F32,
    first: F32,
    second: F32,
    rows: Rows,
    gradients: F32,
    *,
    step: int,
    rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> Any:
    """Return the values of an fp32 table and its moments after ``adam``, in NumPy and float64."""
    at, g = merge_reference(rows, gradients)
    wide, m, v = (array.astype(np.float64) for array in (values, first, second))
    m[at] = beta1 * m[at] + (1 - beta1) * g
    v[at] = beta2 * v[at] + (1 - beta2) * (g**2).mean(1)
    root = np.sqrt(v[at] / (1 - beta2**step)) + eps
    wide[at] -= rate * (m[at] / (1 - beta1**step)) / root[:, None]
    return wide, m, v


def _step(
    table: EmbeddingTable, first: F32, second: F32, batch: Batch, gradients: F32, rule: int,
    numbers: tuple[float, ...], step: int, num_threads: int,
) -> None:  # fmt: skip
    state = *table._arrays(), first, second
    rest = rule, np.array(numbers, np.float32), *table._chance(step)

    def some(start: int, stop: int) -> None:
        _update(batch.keys, batch.shift, gradients, *state, *rest, start, stop)

    spread(some, len(batch.keys), num_threads, max(1, _GRAIN // gradients.shape[1]))


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


@njit(cache=True, nogil=True, error_model="numpy")
def _update(
    keys: Any, shift: Any, gradients: Any, values: Any, scale: Any, first: Any, second: Any,
    rule: int, numbers: Any, seed: Any, step: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """Move the rows whose first key lies in ``start:stop``."""
    n, d, by = len(keys), values.shape[1], np.uint64(shift)
    rate, eps, beta1, rest1, beta2, rest2 = numbers
    share, state = np.float32(1) / np.float32(d), np.int64(mix_step(seed, step))
    # What begins the sums of a row becomes its step, and then the row itself.
    steps, distinct = np.empty((_CHUNK, d), np.float32), np.empty(_CHUNK, np.int64)
    tables = (values, scale, first, second)
    at = start
    while 0 < at < stop and keys[at] >> by == keys[at - 1] >> by:
        at += 1
    while at < stop:
        end = min(at + _CHUNK, stop)
        while end < n and keys[end] >> by == keys[end - 1] >> by:
            end += 1
        count: int = sum_groups(
            keys, shift, np.int64(at), np.int64(end), gradients, tables, steps, distinct
        )
        at = end
        for group in range(count):
            row, length = distinct[group], rate
            if rule != _SGD:
                square = share * square_row(steps, group)
                if rule == _ADAGRAD:
                    second[row] += square
                else:
                    second[row] = beta2 * second[row] + rest2 * square
                    blend_row(first, row, steps, group, beta1, rest1)
                length = rate / (np.sqrt(second[row]) + eps)
            descend_row(values, scale, row, steps, group, length)
            write_row(values, scale, row, steps, group, state)
