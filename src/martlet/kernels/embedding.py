"""One step of training over a merged embedding table: look rows up, sum gradients, move each once.

A batch names a row many times. Its gradients are summed first, in the order of their positions, and
the row then takes one step of its optimizer; so a row of the table is read and written once a
batch, and the digits depend neither on the number of threads nor on how rows are dealt out to them.

Only the rows of a batch move. For Adam that is its lazy form: the moments of other rows rest too,
and the correction of their bias counts the steps of the whole table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import DataError
from martlet.kernels.dots import ask
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread

F32 = NDArray[np.float32]
Rows = NDArray[np.int32] | NDArray[np.int64]

_AHEAD = 16  # rows between the one at hand and the one that memory is asked for
_GRAIN = 1 << 10  # rows that are worth a thread
_DIGIT = 11  # bits that are sorted at a time: the counts stay in the first cache
_SGD, _ADAGRAD, _ADAM = 0, 1, 2
_NO_STATE = np.zeros((0, 0), np.float32), np.zeros(0, np.float32)


def lookup(values: F32, rows: Rows, *, out: F32 | None = None, num_threads: int = 1) -> F32:
    """Return the (n, d) float32 rows of a table. O(n d), bound by the memory's latency.

    Args:
        values: (N, d) float32, C-contiguous.
        rows: (n,) int32 or int64 below N.
        out: (n, d) float32, C-contiguous, to be filled and returned; None makes one.
        num_threads: threads over rows.

    Raises:
        DataError: a row lies outside the table.
    """
    n = len(rows)
    wide = np.empty((n, values.shape[1]), np.float32) if out is None else out
    table, bad = _bytes(values), np.full(1, n, np.int64)

    def some(start: int, stop: int) -> None:
        outside = _gather(values, table, rows, wide, start, stop)
        if outside < stop:
            bad[0] = min(bad[0], outside)

    spread(some, n, num_threads, _GRAIN)
    _check(rows, int(bad[0]), len(values))
    return wide


def lookup_reference(values: F32, rows: Rows) -> F32:
    """Return what ``lookup`` returns, in NumPy."""
    return values[rows]


def merge(rows: Rows, gradients: F32, num_rows: int, num_threads: int = 1) -> tuple[Any, F32]:
    """Return the distinct rows of a batch, rising, and the sum of the gradients of each.

    Args:
        rows: (n,) int32 or int64 below ``num_rows``.
        gradients: (n, d) float32, C-contiguous, summed in the order of their positions.
        num_rows: rows of the table.
        num_threads: threads over distinct rows.

    Returns:
        (m,) int64 and (m, d) float32. O(n d).

    Raises:
        DataError: a row lies outside the table.
    """
    distinct, starts, order = _grouped(rows, num_rows)
    sums = np.zeros((len(distinct), gradients.shape[1]), np.float32)
    spread(
        lambda start, stop: _sum_groups(gradients, order, starts, sums, start, stop),
        len(distinct), num_threads, _GRAIN,
    )  # fmt: skip
    return distinct, sums


def merge_reference(rows: Rows, gradients: F32) -> tuple[Any, NDArray[np.float64]]:
    """Return what ``merge`` returns, in NumPy, with sums in float64."""
    distinct, place = np.unique(rows, return_inverse=True)
    sums = np.zeros((len(distinct), gradients.shape[1]))
    np.add.at(sums, place, gradients.astype(np.float64))
    return distinct.astype(np.int64), sums


def sgd(values: F32, rows: Rows, gradients: F32, *, rate: float, num_threads: int = 1) -> None:
    """Take a step of plain descent, in place: w -= rate g, with g the sum of a row's gradients.

    Args:
        values: (N, d) float32, C-contiguous.
        rows: (n,) int32 or int64 below N, in any order, as often as they occur.
        gradients: (n, d) float32, C-contiguous.
        rate: length of the step.
        num_threads: threads over distinct rows.

    Raises:
        DataError: a row lies outside the table; nothing has moved.
    """
    _step(values, *_NO_STATE, rows, gradients, _SGD, (rate, 0, 0, 0, 0, 0), num_threads)


def adagrad(
    values: F32,
    squares: F32,
    rows: Rows,
    gradients: F32,
    *,
    rate: float,
    eps: float = 1e-8,
    num_threads: int = 1,
) -> None:
    """Take a step of row-wise Adagrad, in place.

        s += mean over features of g^2;  w -= rate g / (sqrt(s) + eps)

    Args:
        values: (N, d) float32, C-contiguous.
        squares: (N,) float32, the s of every row; zeros at first.
        rows: (n,) int32 or int64 below N, in any order, as often as they occur.
        gradients: (n, d) float32, C-contiguous; g is the sum over a row's positions.
        rate: length of the step.
        eps: keeps the step finite.
        num_threads: threads over distinct rows.

    Raises:
        DataError: a row lies outside the table; nothing has moved.

    **Source**: Duchi, Hazan and Singer (2011).
    **Differs**: one number a row in place of one a feature, as in production recommenders.
    """
    state = _NO_STATE[0], squares
    _step(values, *state, rows, gradients, _ADAGRAD, (rate, eps, 0, 0, 0, 0), num_threads)


def adam(
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
    num_threads: int = 1,
) -> None:
    """Take a step of lazy, row-wise Adam, in place.

        m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) mean over features of g^2
        w -= rate (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)

    Args:
        values: (N, d) float32, C-contiguous.
        first: (N, d) float32, the m of every row; zeros at first.
        second: (N,) float32, the v of every row; zeros at first.
        rows: (n,) int32 or int64 below N, in any order, as often as they occur.
        gradients: (n, d) float32, C-contiguous; g is the sum over a row's positions.
        step: number of this step of the whole table, from 1.
        rate: length of the step.
        beta1: decay of m.
        beta2: decay of v.
        eps: keeps the step finite.
        num_threads: threads over distinct rows.

    Raises:
        DataError: a row lies outside the table; nothing has moved.

    **Source**: Kingma and Ba (2015), algorithm 1.
    **Differs**: one second moment a row; rows that are not in the batch rest, their moments too.
    """
    # In float32, 1 - 0.999 would be off by 1e-5: what is near 1 is taken from 1 out here.
    root = (1 - beta2**step) ** 0.5
    numbers = rate * root / (1 - beta1**step), eps * root, beta1, 1 - beta1, beta2, 1 - beta2
    _step(values, first, second, rows, gradients, _ADAM, numbers, num_threads)


def sgd_reference(values: F32, rows: Rows, gradients: F32, *, rate: float) -> Any:
    """Return the table after ``sgd``, in NumPy and float64."""
    at, g = merge_reference(rows, gradients)
    wide = values.astype(np.float64)
    wide[at] -= rate * g
    return wide


def adagrad_reference(
    values: F32, squares: F32, rows: Rows, gradients: F32, *, rate: float, eps: float = 1e-8
) -> Any:
    """Return the table and its state after ``adagrad``, in NumPy and float64."""
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
    """Return the table and its two moments after ``adam``, in NumPy and float64."""
    at, g = merge_reference(rows, gradients)
    wide, m, v = (array.astype(np.float64) for array in (values, first, second))
    m[at] = beta1 * m[at] + (1 - beta1) * g
    v[at] = beta2 * v[at] + (1 - beta2) * (g**2).mean(1)
    root = np.sqrt(v[at] / (1 - beta2**step)) + eps
    wide[at] -= rate * (m[at] / (1 - beta1**step)) / root[:, None]
    return wide, m, v


def _step(
    values: F32, first: F32, second: F32, rows: Rows, gradients: F32, rule: int,
    numbers: tuple[float, ...], num_threads: int,
) -> None:  # fmt: skip
    distinct, starts, order = _grouped(rows, len(values))
    constants = np.array(numbers, np.float32)
    table = _bytes(values)

    def some(start: int, stop: int) -> None:
        _update(
            values, table, first, second, gradients, distinct, starts, order, rule, constants,
            start, stop,
        )  # fmt: skip

    spread(some, len(distinct), num_threads, _GRAIN)


def _grouped(rows: Rows, num_rows: int) -> tuple[Any, Any, Any]:
    """Return distinct rows, rising; where each begins in the order; and the order of positions."""
    n = len(rows)
    bits = max(1, (num_rows - 1).bit_length()), max(1, (n - 1).bit_length())
    order, distinct = np.empty(n, np.int64), np.empty(n, np.int64)
    starts = np.empty(n + 1, np.int64)
    count = _group(rows, num_rows, *bits, order, distinct, starts)
    _check(rows, n if count >= 0 else -1 - count, num_rows)
    return distinct[:count], starts[: count + 1], order


def _bytes(values: Any) -> NDArray[np.uint8]:
    return values.view(np.uint8).reshape(len(values), -1)


def _check(rows: Rows, outside: int, num_rows: int) -> None:
    if outside < len(rows):
        raise DataError(
            f"row {rows[outside]} at position {outside} is outside the table: expected 0 to "
            f"{num_rows - 1}; look ids up in the vocabulary that the table was made for"
        )


@njit(cache=True, nogil=True)
def _gather(values: Any, table: Any, rows: Any, out: Any, start: int, stop: int) -> int:
    """Fill ``out[start:stop]``; return the first position of a row outside, else ``stop``."""
    for at in range(start, stop):
        if rows[at] < 0 or rows[at] >= len(values):
            return at
    for at in range(start, stop):
        ask(table, np.int64(rows[min(at + _AHEAD, stop - 1)]))
        row = rows[at]
        for f in range(values.shape[1]):
            out[at, f] = values[row, f]
    return stop


@njit(cache=True, nogil=True)
def _group(
    rows: Any, num_rows: int, row_bits: int, place_bits: int, order: Any, distinct: Any, starts: Any
) -> int:
    """Sort positions by row, equal ones as they stand, and mark where each row begins.

    Digit by digit, from the lowest, over keys that carry their positions. Returns the number of
    distinct rows, or -1 minus the first position of a row outside the table.
    """
    n = len(rows)
    shift = np.uint64(place_bits)
    passes = (row_bits + _DIGIT - 1) // _DIGIT
    digit = (row_bits + passes - 1) // passes
    mask = np.uint64((1 << digit) - 1)
    counts = np.zeros((passes, (1 << digit) + 1), np.int64)
    keys, others = np.empty(n, np.uint64), np.empty(n, np.uint64)
    for at in range(n):
        row = np.int64(rows[at])
        if row < 0 or row >= num_rows:
            return -1 - at
        keys[at] = (np.uint64(row) << shift) | np.uint64(at)
        for turn in range(passes):
            counts[turn, ((row >> (digit * turn)) & np.int64(mask)) + 1] += 1
    for turn in range(passes):
        count, by = counts[turn], shift + np.uint64(digit * turn)
        for one in range(1, len(count)):
            count[one] += count[one - 1]
        for at in range(n):
            key = keys[at]
            own = (key >> by) & mask
            others[count[own]] = key
            count[own] += 1
        keys, others = others, keys
    places = (np.uint64(1) << shift) - np.uint64(1)
    found, last = 0, np.uint64(num_rows)
    for at in range(n):
        row = keys[at] >> shift
        order[at] = keys[at] & places
        if row != last:
            distinct[found], starts[found] = row, at
            found += 1
            last = row
    starts[found] = n
    return found


@njit(cache=True, nogil=True)
def _sum(gradients: Any, order: Any, start: int, stop: int, total: Any) -> None:
    """Sum the gradients at positions ``order[start:stop]``, one after the other."""
    for f in range(len(total)):
        total[f] = gradients[order[start], f]
    for at in range(start + 1, stop):
        for f in range(len(total)):
            total[f] += gradients[order[at], f]


@njit(cache=True, nogil=True)
def _sum_groups(gradients: Any, order: Any, starts: Any, sums: Any, start: int, stop: int) -> None:
    for group in range(start, stop):
        _sum(gradients, order, starts[group], starts[group + 1], sums[group])


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")
def _update(
    values: Any, table: Any, first: Any, second: Any, gradients: Any, distinct: Any, starts: Any,
    order: Any, rule: int, numbers: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """Move the distinct rows ``start:stop``."""
    d = values.shape[1]
    zero = np.float32(0)
    rate, eps, beta1, rest1, beta2, rest2 = numbers
    g = np.empty(d, np.float32)
    for group in range(start, stop):
        ask(table, distinct[min(group + _AHEAD, stop - 1)])
        row = distinct[group]
        _sum(gradients, order, starts[group], starts[group + 1], g)
        scale = rate
        if rule != _SGD:
            square = zero
            for f in range(d):
                square += g[f] * g[f]
            square /= np.float32(d)
            if rule == _ADAGRAD:
                second[row] += square
                scale = rate / (np.sqrt(second[row]) + eps)
            else:
                second[row] = beta2 * second[row] + rest2 * square
                scale = rate / (np.sqrt(second[row]) + eps)
                for f in range(d):
                    moment = beta1 * first[row, f] + rest1 * g[f]
                    first[row, f] = moment
                    g[f] = moment
        for f in range(d):
            values[row, f] -= scale * g[f]
