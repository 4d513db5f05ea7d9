"""One step of an optimizer over the rows that a batch names: each moves once, and no other does.

For Adam that is its lazy form: the moments of other rows rest too, and the correction of their bias
counts the steps of the whole table. Rows are read, moved in float32 and written back in the table's
storage, rounded by chance: see ``kernels.embedding``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.kernels.embedding import GRAIN, Batch, EmbeddingTable, merge_reference
from martlet.kernels.groups import Rows, sum_groups
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread
from martlet.kernels.rows import blend_row, descend_row, mix_step, square_row, write_row

F32 = NDArray[np.float32]

_CHUNK = 64  # positions whose sums wait in the first cache until their rows have come
_SGD, _ADAGRAD, _ADAM = 0, 1, 2
_NO_MATRIX, _NO_VECTOR = np.zeros((0, 0), np.float32), np.zeros(0, np.float32)


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
    state = *table.arrays(), first, second
    rest = rule, np.array(numbers, np.float32), *table.chance(step)

    def some(start: int, stop: int) -> None:
        _update(batch.keys, batch.shift, gradients, *state, *rest, start, stop)

    spread(some, len(batch.keys), num_threads, max(1, GRAIN // gradients.shape[1]))


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
