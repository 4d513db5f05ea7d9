"""Positions of a batch grouped by the row that they name, and the sum over each group.

A batch names a few rows often and most of them once, so a loop over each group ends when no
processor expects it. Here one loop goes over all positions and starts a sum anew where the row
changes, by a choice between two vectors instead of a jump; the sum stays in registers. It is given
to LLVM in vectors of no particular machine. Meanwhile the memory is asked for what comes later: the
gradients, and the rows that are to move by these sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from martlet.core import DataError
from martlet.kernels.dots import _LINE, _LONG, _arrays, _ask, _load
from martlet.kernels.jit import njit
from martlet.kernels.lanes import by_columns

Rows = NDArray[np.int32] | NDArray[np.int64]

_DIGIT = 11  # bits that are sorted at a time: the counts stay in the first cache
_AHEAD = 64  # positions from the gradient at hand to the one that memory is asked for

_FLOAT = ir.FloatType()


def sort_rows(rows: Rows, num_rows: int) -> tuple[NDArray[np.uint64], np.int64]:
    """Return keys that rise: a row above the bits of one of its positions.

    Args:
        rows: (n,) int32 or int64 below ``num_rows``.
        num_rows: rows of the table.

    Returns:
        (n,) uint64 keys, positions rising within a row, and the number of the positions' bits.
        O(n) for each 11 bits of a row.

    Raises:
        DataError: a row lies outside the table.
    """
    n = len(rows)
    row_bits, shift = max(1, (num_rows - 1).bit_length()), max(1, (n - 1).bit_length())
    keys = np.empty((2, n), np.uint64)
    outside = _sort(rows, num_rows, row_bits, shift, keys)
    check_rows(rows, outside, num_rows)
    passes = -(-row_bits // _DIGIT)
    return keys[passes & 1], np.int64(shift)


def sort_rows_reference(rows: Rows) -> tuple[Any, Any]:
    """Return the rows and positions that the keys of ``sort_rows`` hold, in NumPy."""
    order = np.argsort(rows, kind="stable")
    return rows[order], order


def check_rows(rows: Rows, outside: int, num_rows: int) -> None:
    """Raise ``DataError`` if ``outside``, the first position of a row outside, is one of them."""
    if outside < len(rows):
        raise DataError(
            f"row {rows[outside]} at position {outside} is outside the table: expected 0 to "
            f"{num_rows - 1}; look ids up in the vocabulary that the table was made for"
        )


@intrinsic
def sum_groups(
    typing: Any, keys: Any, shift: Any, start: Any, stop: Any, gradients: Any, tables: Any,
    sums: Any, distinct: Any,
) -> Any:  # fmt: skip
    """Sum the gradients of each row of ``keys[start:stop]``; return how many rows there are.

    ``keys`` and ``shift`` are those of ``sort_rows``, ``gradients`` (n, d) float32. ``sums``
    (m, d) float32 and ``distinct`` (m,) int64 have room for all rows of the range. Each sum is
    taken in the order of the positions. The memory is asked for the rows of all ``tables``, a
    tuple of arrays of one or two axes, empty ones left out. All are C-contiguous. O(n d).
    """
    signature = types.int64(keys, shift, start, stop, gradients, tables, sums, distinct)
    return signature, _generate_sums


def _generate_sums(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    keys, shift, start, stop, gradients, tables, sums, distinct = _arrays(
        context, build, signature, arguments
    )
    dim = build.extract_value(gradients.shape, 1)
    last = build.sub(build.extract_value(keys.shape, 0), _LONG(1))
    places = build.sub(build.shl(_LONG(1), shift), _LONG(1))
    count = cgutils.alloca_once_value(build, _LONG(0))
    kinds = signature.args[5].types
    later_tables = [
        (kind, context.make_array(kind)(context, build, build.extract_value(tables, at)))
        for at, kind in enumerate(kinds)
    ]

    def walk(width: int, column: Any) -> None:
        vector = ir.VectorType(_FLOAT, width)
        zero = vector([0.0] * width)
        total = cgutils.alloca_once_value(build, zero)
        group = cgutils.alloca_once_value(build, _LONG(-1))
        before = cgutils.alloca_once_value(build, _LONG(-1))
        with cgutils.for_range(build, build.sub(stop, start)) as loop:
            at = build.add(start, loop.index)
            key = build.load(build.gep(keys.data, [at]))
            row, place = build.lshr(key, shift), build.and_(key, places)
            later = build.add(at, _LONG(_AHEAD))
            later = build.select(build.icmp_signed("<", later, last), later, last)
            later = build.and_(build.load(build.gep(keys.data, [later])), places)
            _ask_for(build, gradients.data, later, dim, column, width, 4)
            for kind, table in later_tables:
                with build.if_then(build.icmp_signed("!=", table.nitems, _LONG(0)), likely=True):
                    size = kind.dtype.bitwidth // 8
                    if kind.ndim == 1:
                        _ask(build, table.data, row)
                    else:
                        _ask_for(build, table.data, row, dim, column, width, size)
            new = build.icmp_unsigned("!=", row, build.load(before))
            build.store(row, before)
            mine = build.add(build.load(group), build.zext(new, _LONG))
            build.store(mine, group)
            offset = build.add(build.mul(place, dim), column)
            gradient = _load(build, gradients.data, offset, vector, align=4)
            value = build.fadd(build.select(new, zero, build.load(total)), gradient)
            build.store(value, total)
            target = build.gep(sums.data, [build.add(build.mul(mine, dim), column)])
            build.store(value, build.bitcast(target, vector.as_pointer()), align=4)
            build.store(row, build.gep(distinct.data, [mine]))
        build.store(build.add(build.load(group), _LONG(1)), count)

    by_columns(build, dim, walk)
    return build.load(count)


def _ask_for(build: Any, data: Any, row: Any, dim: Any, column: Any, width: int, size: int) -> None:
    """Ask for some columns of a row; what begins within a line ends in one more."""
    first = build.add(build.mul(row, dim), column)
    for at in sorted({*range(0, width, _LINE // size), width - 1}):
        _ask(build, data, build.add(first, _LONG(at)))


@njit(cache=True, nogil=True)
def _sort(rows: Any, num_rows: int, row_bits: int, place_bits: int, keys: Any) -> Any:
    """Sort by digits, from the lowest; the last pass leaves ``keys[passes & 1]`` in order.

    Each pass counts the digits of the next. Returns the first position of a row outside the table,
    else n.
    """
    n, one = np.uint64(len(rows)), np.int32(1)
    shift = np.uint64(place_bits)
    passes = (row_bits + _DIGIT - 1) // _DIGIT
    digit = np.uint64((row_bits + passes - 1) // passes)
    mask = (np.uint64(1) << digit) - np.uint64(1)
    count, later = np.zeros((2, mask + np.uint64(1)), np.int32)
    for at in range(n):
        row = np.int64(rows[at])
        if row < 0 or row >= num_rows:
            return np.int64(at)
        keys[0, at] = (np.uint64(row) << shift) | at
        count[np.uint64(row) & mask] += one
    for turn in range(passes):
        by = shift + digit * np.uint64(turn)
        total = np.int32(0)
        for own in range(len(count)):
            total, count[own] = np.int32(total + count[own]), total
            later[own] = np.int32(0)
        given, ordered = keys[turn & 1], keys[1 - (turn & 1)]
        for at in range(n):
            key = given[at]
            own = (key >> by) & mask
            place = count[own]
            ordered[np.uint32(place)] = key
            count[own] = np.int32(place + one)
            later[(key >> (by + digit)) & mask] += one
        count, later = later, count
    return len(rows)
