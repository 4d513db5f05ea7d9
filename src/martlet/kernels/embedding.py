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

_AHEAD = 64  # rows between the one at hand and the one that memory is asked for
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


def merge(rows: Rows, gradients: F32, num_rows: int) -> tuple[Any, F32]:
    """Return the distinct rows of a batch, rising, and the sum of the gradients of each.

    Args:
        rows: (n,) int32 or int64 below ``num_rows``.
        gradients: (n, d) float32, C-contiguous, summed in the order of their positions.
        num_rows: rows of the table.

    Returns:
        (m,) int64 and (m, d) float32. O(n d).

    Raises:
        DataError: a row lies outside the table.
    """
    keys, shift, count = _sorted(rows, num_rows)
    distinct = np.empty(count, np.int64)
    sums = np.empty((count, gradients.shape[1]), np.float32)
    _sum_groups(keys, shift, gradients, _bytes(gradients), distinct, sums)
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
    keys, shift, _ = _sorted(rows, len(values))
    constants = np.array(numbers, np.float32)
    tables = _bytes(values), _bytes(first), _bytes(second), _bytes(gradients)

    def some(start: int, stop: int) -> None:
        _update(
            keys, shift, values, first, second, gradients, *tables, rule, constants, start, stop
        )

    spread(some, len(keys), num_threads, _GRAIN)


def _sorted(rows: Rows, num_rows: int) -> tuple[Any, Any, int]:
    """Return keys that rise, each a row above the bits of its position, and the rows' number."""
    n = len(rows)
    row_bits, shift = max(1, (num_rows - 1).bit_length()), max(1, (n - 1).bit_length())
    keys = np.empty((2, n), np.uint64)
    at, count = _sort(rows, num_rows, row_bits, shift, keys)
    _check(rows, n if count >= 0 else at, num_rows)
    return keys[at], np.uint64(shift), count


def _bytes(values: Any) -> NDArray[np.uint8]:
    width = values.nbytes // max(1, len(values))
    return values.reshape(-1).view(np.uint8).reshape(len(values), width)


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
    for at in range(start, min(start + _AHEAD, stop)):
        ask(table, np.int64(rows[at]))
    for at in range(np.uint64(start), np.uint64(stop)):
        ask(table, np.int64(rows[min(at + np.uint64(_AHEAD), np.uint64(stop - 1))]))
        row = np.uint64(rows[at])
        for f in range(np.uint64(values.shape[1])):
            out[at, f] = values[row, f]
    return stop


@njit(cache=True, nogil=True)
def _sort(rows: Any, num_rows: int, row_bits: int, place_bits: int, keys: Any) -> tuple[int, int]:
    """Sort the positions by row, equal ones as they stand: by digits, from the lowest.

    Returns which of the two ``keys`` holds the sorted ones, and the number of distinct rows; or the
    first position of a row outside the table, and -1.
    """
    n = len(rows)
    shift = np.uint64(place_bits)
    passes = (row_bits + _DIGIT - 1) // _DIGIT
    digit = (row_bits + passes - 1) // passes
    mask = np.int64((1 << digit) - 1)
    counts = np.zeros((passes, mask + 1), np.int32)
    for at in range(n):
        row = np.int64(rows[at])
        if row < 0 or row >= num_rows:
            return at, -1
        keys[0, at] = (np.uint64(row) << shift) | np.uint64(at)
        for turn in range(passes):
            counts[turn, (row >> (digit * turn)) & mask] += 1
    for turn in range(passes):
        count, by = counts[turn], shift + np.uint64(digit * turn)
        total = np.int32(0)
        for one in range(len(count)):
            total, count[one] = np.int32(total + count[one]), total
        given, ordered = keys[turn & 1], keys[1 - (turn & 1)]
        for at in range(n):
            key = given[at]
            own = np.int64(key >> by) & mask
            ordered[count[own]] = key
            count[own] += 1
    last, ordered = passes & 1, keys[passes & 1]
    distinct = 0
    for at in range(n):
        distinct += at == 0 or ordered[at] >> shift != ordered[at - 1] >> shift
    return last, distinct


@njit(cache=True, nogil=True)
def _sum(keys: Any, shift: Any, at: int, gradients: Any, gradient_bytes: Any, total: Any) -> int:
    """Sum the gradients of the row at place ``at`` of the keys; return the place after its last."""
    places = (np.uint64(1) << shift) - np.uint64(1)
    end = len(keys) - 1
    row = keys[at] >> shift
    place = np.int64(keys[at] & places)
    ask(gradient_bytes, np.int64(keys[min(at + _AHEAD, end)] & places))
    for f in range(len(total)):
        total[f] = gradients[place, f]
    at += 1
    while at < len(keys) and keys[at] >> shift == row:
        ask(gradient_bytes, np.int64(keys[min(at + _AHEAD, end)] & places))
        place = np.int64(keys[at] & places)
        for f in range(len(total)):
            total[f] += gradients[place, f]
        at += 1
    return at


@njit(cache=True, nogil=True)
def _sum_groups(
    keys: Any, shift: Any, gradients: Any, gradient_bytes: Any, distinct: Any, sums: Any
) -> None:
    at = 0
    for group in range(len(distinct)):
        distinct[group] = keys[at] >> shift
        at = _sum(keys, shift, at, gradients, gradient_bytes, sums[group])


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")
def _update(
    keys: Any, shift: Any, values: Any, first: Any, second: Any, gradients: Any,
    value_bytes: Any, first_bytes: Any, second_bytes: Any, gradient_bytes: Any,
    rule: int, numbers: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """Move the rows whose first key lies in ``start:stop``."""
    d = values.shape[1]
    zero, end = np.float32(0), len(keys) - 1
    rate, eps, beta1, rest1, beta2, rest2 = numbers
    g = np.empty(d, np.float32)
    at = start
    while 0 < at < stop and keys[at] >> shift == keys[at - 1] >> shift:
        at += 1
    while at < stop:
        row = np.int64(keys[at] >> shift)
        later = np.int64(keys[min(at + _AHEAD, end)] >> shift)
        ask(value_bytes, later)
        if rule != _SGD:
            ask(second_bytes, later)
            if rule == _ADAM:
                ask(first_bytes, later)
        at = _sum(keys, shift, at, gradients, gradient_bytes, g)
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
