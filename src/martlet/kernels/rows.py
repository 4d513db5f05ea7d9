"""Rows of a table in its storage: read as float32, moved, and rounded back up or down by chance.

A value between two that can be stored becomes the upper one with the chance of its place between
them, so what is stored is right in the mean. Rounding to the nearest would leave a row where it is
for ever if its steps are less than half of that distance. The chance is 16 bits of a hash of seed,
step, row and column (SplitMix64): it depends neither on threads nor on the order of the rows, and
needs no state.

Kernels take the table as arrays: (N, d) float32; uint16, the bits of float16; int16, the upper half
of a float32, which is bfloat16; or int8 codes with an (N,) float32 scale. All are C-contiguous.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from martlet.kernels.dots import _INT, _LINE, _LONG, _arrays, _ask, _load
from martlet.kernels.jit import njit
from martlet.kernels.lanes import by_columns, cell, every, fold, put, splat
from martlet.kernels.rounding import GOLDEN, bfloats, chances, codes, halves, mixed, rescale

_FLOAT = ir.FloatType()
_SIGN = 0x8000
_INFINITE = 0x7F800000  # bits of a float32; finite ones lie below, NaNs above


@intrinsic
def ask_row(typing: Any, values: Any, row: Any) -> Any:
    """Ask the memory for a row of one axis or two, without waiting for it."""
    return types.void(values, row), _generate_ask


@intrinsic
def read_row(typing: Any, values: Any, scale: Any, row: Any, out: Any, at: Any) -> Any:
    """Write a row of a table to row ``at`` of ``out`` (n, d) float32. O(d)."""
    return types.void(values, scale, row, out, at), _generate_read


@intrinsic
def descend_row(
    typing: Any, values: Any, scale: Any, row: Any, steps: Any, at: Any, length: Any
) -> Any:
    """Replace row ``at`` of ``steps`` (n, d) float32 by the table's row less ``length`` of it."""
    return types.void(values, scale, row, steps, at, length), _generate_descend


@intrinsic
def write_row(
    typing: Any, values: Any, scale: Any, row: Any, vectors: Any, at: Any, state: Any
) -> Any:
    """Store row ``at`` of ``vectors`` (n, d) float32 as a row of a table, rounded by chance.

    ``state`` is that of ``mix_step``. The scale of int8 follows the largest value of the row.
    Finite values beyond the largest of a storage become that one; what is not finite stays so, and
    makes the whole of an int8 row NaN. O(d).
    """
    return types.void(values, scale, row, vectors, at, state), _generate_write


@intrinsic
def blend_row(typing: Any, moments: Any, row: Any, steps: Any, at: Any, old: Any, new: Any) -> Any:
    """Set a row of ``moments`` and row ``at`` of ``steps``, both (n, d) float32, to old m + new g.

    m is the row of ``moments``, g that of ``steps``. O(d).
    """
    return types.void(moments, row, steps, at, old, new), _generate_blend


@intrinsic
def square_row(typing: Any, steps: Any, at: Any) -> Any:
    """Return the sum of the squares of row ``at`` of an (n, d) float32 array. O(d)."""
    return types.float32(steps, at), _generate_square


@njit(cache=True, nogil=True)
def mix_step(seed: Any, step: Any) -> Any:
    """Return the uint64 state of a step from two uint64."""
    return _mix(_mix(seed) + step)


@njit(cache=True, nogil=True)
def _mix(z: Any) -> Any:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _generate_ask(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    values, row = _arrays(context, build, signature, arguments)
    if signature.args[0].ndim == 1:
        _ask(build, values.data, row)
        return context.get_dummy_value()
    dim = build.extract_value(values.shape, 1)
    first, line = build.mul(row, dim), _LINE * 8 // signature.args[0].dtype.bitwidth

    def walk(width: int, column: Any) -> None:
        for at in range(0, width if width > 1 else 0, line):
            _ask(build, values.data, build.add(build.add(first, column), _LONG(at)))

    by_columns(build, dim, walk)
    # A row may begin within a line, so that the line of its last value is one more.
    _ask(build, values.data, build.add(first, build.sub(dim, _LONG(1))))
    return context.get_dummy_value()


def _generate_read(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    values, scale, row, out, at = _arrays(context, build, signature, arguments)
    kind, dim = signature.args[0].dtype, build.extract_value(values.shape, 1)

    def walk(width: int, column: Any) -> None:
        found = _read(build, kind, (values, scale), row, column, width)
        put(build, found, out.data, cell(build, at, dim, column))

    by_columns(build, dim, walk)
    return context.get_dummy_value()


def _generate_descend(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    values, scale, row, steps, at, length = _arrays(context, build, signature, arguments)
    kind, dim = signature.args[0].dtype, build.extract_value(values.shape, 1)

    def walk(width: int, column: Any) -> None:
        place = cell(build, at, dim, column)
        step = _load(build, steps.data, place, ir.VectorType(_FLOAT, width), align=4)
        step = build.fmul(splat(build, length, width), step, flags=["contract"])
        found = _read(build, kind, (values, scale), row, column, width)
        put(build, build.fsub(found, step, flags=["contract"]), steps.data, place)

    by_columns(build, dim, walk)
    return context.get_dummy_value()


def _generate_blend(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    moments, row, steps, at, old, new = _arrays(context, build, signature, arguments)
    dim = build.extract_value(moments.shape, 1)

    def walk(width: int, column: Any) -> None:
        kept, added = cell(build, row, dim, column), cell(build, at, dim, column)
        parts = [
            build.fmul(
                splat(build, share, width),
                _load(build, data, place, ir.VectorType(_FLOAT, width), align=4),
                flags=["contract"],
            )
            for share, data, place in ((old, moments.data, kept), (new, steps.data, added))
        ]
        value = build.fadd(*parts, flags=["contract"])
        put(build, value, moments.data, kept)
        put(build, value, steps.data, added)

    by_columns(build, dim, walk)
    return context.get_dummy_value()


def _generate_square(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    steps, at = _arrays(context, build, signature, arguments)
    dim = build.extract_value(steps.shape, 1)
    total = cgutils.alloca_once_value(build, _FLOAT(0.0))

    def walk(width: int, column: Any) -> None:
        kind = ir.VectorType(_FLOAT, width)
        value = _load(build, steps.data, cell(build, at, dim, column), kind, align=4)
        value = fold(build, build.fmul(value, value), build.fadd)
        build.store(build.fadd(build.load(total), value), total)

    by_columns(build, dim, walk)
    return build.load(total)


def _generate_write(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    values, scale, row, vectors, at, state = _arrays(context, build, signature, arguments)
    kind, dim = signature.args[0].dtype, build.extract_value(values.shape, 1)
    if kind != types.float32:
        state = mixed(build, build.add(state, build.mul(row, _LONG(GOLDEN))))

    def wide(width: int, column: Any) -> Any:
        place = cell(build, at, dim, column)
        return _load(build, vectors.data, place, ir.VectorType(_FLOAT, width), align=4)

    if kind == types.int8:
        inverse = rescale(build, dim, wide, build.gep(scale.data, [row]))

    def walk(width: int, column: Any) -> None:
        value = wide(width, column)
        if kind != types.float32:
            chance = chances(build, state, column, width)
            if kind == types.int8:
                value = codes(build, value, splat(build, inverse, width), chance)
            else:
                value = (halves if kind == types.uint16 else bfloats)(build, value, chance)
        put(build, value, values.data, cell(build, row, dim, column))

    by_columns(build, dim, walk)
    return context.get_dummy_value()


def _read(build: Any, kind: Any, table: Any, row: Any, column: Any, width: int) -> Any:
    """Return some columns of a row as float32; ``table`` is its values and scale."""
    values, scale = table
    size = kind.bitwidth // 8
    place = cell(build, row, build.extract_value(values.shape, 1), column)
    stored = ir.VectorType(_FLOAT if kind == types.float32 else ir.IntType(8 * size), width)
    raw = _load(build, values.data, place, stored, align=size)
    if kind == types.float32:
        return raw
    floats, ints = ir.VectorType(_FLOAT, width), ir.VectorType(_INT, width)
    if kind == types.int8:
        unit = build.load(build.gep(scale.data, [row]))
        return build.fmul(build.sitofp(raw, floats), splat(build, unit, width))
    bits = build.zext(raw, ints)
    if kind == types.int16:
        return build.bitcast(build.shl(bits, every(ints, 16)), floats)
    # Sign, exponent and fraction go to their new places; a product mends the exponent's bias.
    sign = build.shl(build.and_(bits, every(ints, _SIGN)), every(ints, 16))
    rest = build.shl(build.and_(bits, every(ints, 0x7FFF)), every(ints, 13))
    special = build.icmp_unsigned(">=", rest, every(ints, 0x7C00 << 13))
    rest = build.or_(rest, build.select(special, every(ints, _INFINITE), every(ints, 0)))
    moved = build.bitcast(build.or_(sign, rest), floats)
    return build.fmul(moved, every(floats, 2.0**112))
