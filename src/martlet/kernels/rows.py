"""Rows of a table in its storage: read as float32, moved, and rounded back up or down by chance.

A value between two that can be stored becomes the upper one with the chance of its place between
them, so what is stored is right in the mean. Rounding to the nearest would leave a row where it is
for ever if its steps are less than half of that distance. The chance is 16 bits of a hash of seed,
step, row and column (SplitMix64): it depends neither on threads nor on the order of the rows, and
needs no state.

The code is given to LLVM in vectors of no particular machine, as wide as the columns that are left.
Plain loops become vectors of 64 columns and more, and rows of 32 are left to what remains of them.

Kernels take the table as arrays: (N, d) float32; uint16, the bits of float16; int16, the upper half
of a float32, which is bfloat16; or int8 codes with an (N,) float32 scale. All are C-contiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from martlet.kernels.dots import _INT, _LINE, _LONG, _arrays, _ask, _call, _load, _pick
from martlet.kernels.jit import njit

F32 = NDArray[np.float32]

_WIDTHS = (32, 16, 8, 1)  # columns at a time, as many as are left
_FLOAT, _SHORT, _BYTE = ir.FloatType(), ir.IntType(16), ir.IntType(8)
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: SplitMix64's step
_SIGN, _SIZE = 0x8000, 0x7FFFFFFF
_INFINITE = 0x7F800000  # bits of a float32; finite ones lie below, NaNs above
_HALF_NORMAL = 0x38800000  # bits of 2^-14, the least normal half
_HALF_MOST, _BFLOAT_MOST = 0x7BFF, 0x7F7F  # bits of the largest finite values
_LEAST_SCALE = 2.0**-120  # the inverse of a smaller one may be infinite


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


def chances_reference(
    seed: int, step: int, rows: NDArray[np.integer], dim: int
) -> NDArray[np.uint16]:
    """Return the (n, dim) chances, over 2^16, with which ``write_row`` rounds up, in NumPy."""

    def mix(z: Any) -> Any:
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    golden = np.uint64(_GOLDEN)
    state = mix(mix(np.array([seed % 2**64], np.uint64)) + np.uint64(step))
    of_row = mix(state + golden * rows.astype(np.uint64))
    words = mix(of_row[:, None] + golden * np.arange(1, dim // 4 + 2, dtype=np.uint64))
    parts = words[:, :, None] >> np.arange(0, 64, 16, dtype=np.uint64)
    return parts.astype(np.uint16).reshape(len(rows), -1)[:, :dim]


def round_reference(vectors: F32, storage: str, chances: NDArray[np.uint16]) -> Any:
    """Return (n, d) finite values as they are stored and read again, in NumPy and float64.

    Args:
        vectors: (n, d) float32.
        storage: "fp16", "bf16" or "int8".
        chances: (n, d) uint16 of ``chances_reference``.
    """
    size, share = np.abs(vectors.astype(np.float64)), chances / 2.0**16
    if storage == "int8":
        scale = size.max(1, keepdims=True).astype(np.float32) / np.float32(127)
        scale[scale < _LEAST_SCALE] = 0
        inverse = np.float32(1) / np.where(scale > 0, scale, np.float32(np.inf))
        codes = np.floor(vectors * inverse + share.astype(np.float32))
        return np.clip(codes, -127, 127) * scale.astype(np.float64)
    bits, least, most = (10, -14, 65504.0) if storage == "fp16" else (7, -126, 2.0**128 - 2.0**120)
    unit = 2.0 ** (np.maximum(np.frexp(size)[1] - 1, least) - bits)
    if storage == "fp16":  # the 13 bits that a normal half loses
        share = np.where(size < 2.0**-14, share, (chances >> 3) / 2.0**13)
    return np.sign(vectors) * np.minimum(np.floor(size / unit + share) * unit, most)


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
        _put(build, found, out.data, _at(build, at, dim, column))

    by_columns(build, dim, walk)
    return context.get_dummy_value()


def _generate_descend(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    values, scale, row, steps, at, length = _arrays(context, build, signature, arguments)
    kind, dim = signature.args[0].dtype, build.extract_value(values.shape, 1)

    def walk(width: int, column: Any) -> None:
        place = _at(build, at, dim, column)
        step = _load(build, steps.data, place, ir.VectorType(_FLOAT, width), align=4)
        step = build.fmul(_splat(build, length, width), step, flags=["contract"])
        found = _read(build, kind, (values, scale), row, column, width)
        _put(build, build.fsub(found, step, flags=["contract"]), steps.data, place)

    by_columns(build, dim, walk)
    return context.get_dummy_value()


def _generate_blend(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    moments, row, steps, at, old, new = _arrays(context, build, signature, arguments)
    dim = build.extract_value(moments.shape, 1)

    def walk(width: int, column: Any) -> None:
        kept, added = _at(build, row, dim, column), _at(build, at, dim, column)
        parts = [
            build.fmul(
                _splat(build, share, width),
                _load(build, data, place, ir.VectorType(_FLOAT, width), align=4),
                flags=["contract"],
            )
            for share, data, place in ((old, moments.data, kept), (new, steps.data, added))
        ]
        value = build.fadd(*parts, flags=["contract"])
        _put(build, value, moments.data, kept)
        _put(build, value, steps.data, added)

    by_columns(build, dim, walk)
    return context.get_dummy_value()


def _generate_square(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    steps, at = _arrays(context, build, signature, arguments)
    dim = build.extract_value(steps.shape, 1)
    total = cgutils.alloca_once_value(build, _FLOAT(0.0))

    def walk(width: int, column: Any) -> None:
        kind = ir.VectorType(_FLOAT, width)
        value = _load(build, steps.data, _at(build, at, dim, column), kind, align=4)
        value = _fold(build, build.fmul(value, value), build.fadd)
        build.store(build.fadd(build.load(total), value), total)

    by_columns(build, dim, walk)
    return build.load(total)


def _generate_write(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    values, scale, row, vectors, at, state = _arrays(context, build, signature, arguments)
    kind, dim = signature.args[0].dtype, build.extract_value(values.shape, 1)
    if kind != types.float32:
        state = _mixed(build, build.add(state, build.mul(row, _LONG(_GOLDEN))))

    def wide(width: int, column: Any) -> Any:
        place = _at(build, at, dim, column)
        return _load(build, vectors.data, place, ir.VectorType(_FLOAT, width), align=4)

    if kind == types.int8:
        inverse = _rescale(build, dim, wide, build.gep(scale.data, [row]))

    def walk(width: int, column: Any) -> None:
        value = wide(width, column)
        if kind != types.float32:
            chance = _chances(build, state, column, width)
            if kind == types.int8:
                value = _codes(build, value, _splat(build, inverse, width), chance)
            else:
                value = (_halves if kind == types.uint16 else _bfloats)(build, value, chance)
        _put(build, value, values.data, _at(build, row, dim, column))

    by_columns(build, dim, walk)
    return context.get_dummy_value()


def by_columns(build: Any, dim: Any, walk: Callable[[int, Any], None]) -> None:
    """Call ``walk(width, column)`` for the columns of a row, in as wide pieces as are left."""
    column = cgutils.alloca_once_value(build, _LONG(0))

    def pieces(width: int) -> None:
        left = build.sub(dim, build.load(column))
        with cgutils.for_range(build, build.udiv(left, _LONG(width))):
            now = build.load(column)
            walk(width, now)
            build.store(build.add(now, _LONG(width)), column)

    pieces(_WIDTHS[0])
    with build.if_then(build.icmp_unsigned("!=", build.load(column), dim)):
        for width in _WIDTHS[1:]:
            pieces(width)


def _read(build: Any, kind: Any, table: Any, row: Any, column: Any, width: int) -> Any:
    """Return some columns of a row as float32; ``table`` is its values and scale."""
    values, scale = table
    size = kind.bitwidth // 8
    place = _at(build, row, build.extract_value(values.shape, 1), column)
    stored = ir.VectorType(_FLOAT if kind == types.float32 else ir.IntType(8 * size), width)
    raw = _load(build, values.data, place, stored, align=size)
    if kind == types.float32:
        return raw
    floats, ints = ir.VectorType(_FLOAT, width), ir.VectorType(_INT, width)
    if kind == types.int8:
        unit = build.load(build.gep(scale.data, [row]))
        return build.fmul(build.sitofp(raw, floats), _splat(build, unit, width))
    bits = build.zext(raw, ints)
    if kind == types.int16:
        return build.bitcast(build.shl(bits, _all(ints, 16)), floats)
    # Sign, exponent and fraction go to their new places; a product mends the exponent's bias.
    sign = build.shl(build.and_(bits, _all(ints, _SIGN)), _all(ints, 16))
    rest = build.shl(build.and_(bits, _all(ints, 0x7FFF)), _all(ints, 13))
    special = build.icmp_unsigned(">=", rest, _all(ints, 0x7C00 << 13))
    rest = build.or_(rest, build.select(special, _all(ints, _INFINITE), _all(ints, 0)))
    moved = build.bitcast(build.or_(sign, rest), floats)
    return build.fmul(moved, _all(floats, 2.0**112))


def _halves(build: Any, value: Any, chance: Any) -> Any:
    """Return the bits of float16: 13 bits of chance are added below its last one, and cut off."""
    ints, floats = chance.type, value.type
    sign, size = _parts(build, value, ints)
    code = build.add(size, build.lshr(chance, _all(ints, 3)))
    code = build.sub(build.lshr(code, _all(ints, 13)), _all(ints, 112 << 10))
    # Below the least normal half, values are whole numbers of 2^-24. Others must fit an integer.
    fixed = build.fmul(build.bitcast(size, floats), _all(floats, 2.0**24))
    least = build.fcmp_ordered("<", fixed, _all(floats, 1024.0))
    fixed = build.select(least, fixed, _all(floats, 1024.0))
    share = build.fmul(build.uitofp(chance, floats), _all(floats, 2.0**-16))
    small = build.fptosi(build.fadd(fixed, share), ints)
    code = build.select(build.icmp_unsigned("<", size, _all(ints, _HALF_NORMAL)), small, code)
    return _join(build, sign, size, code, _HALF_MOST, 0x7C00, 0x7E00)


def _bfloats(build: Any, value: Any, chance: Any) -> Any:
    """Return the bits of bfloat16: 16 bits of chance are added below its last one, and cut off."""
    sign, size = _parts(build, value, chance.type)
    code = build.lshr(build.add(size, chance), _all(chance.type, 16))
    return _join(build, sign, size, code, _BFLOAT_MOST, 0x7F80, 0x7FC0)


def _parts(build: Any, value: Any, ints: Any) -> tuple[Any, Any]:
    """Return the sign of float32 where half precision has it, and the bits below."""
    bits = build.bitcast(value, ints)
    sign = build.and_(build.lshr(bits, _all(ints, 16)), _all(ints, _SIGN))
    return sign, build.and_(bits, _all(ints, _SIZE))


def _join(build: Any, sign: Any, size: Any, code: Any, most: int, infinite: int, nan: int) -> Any:
    """Return sign and code as 16 bits; what is not finite stays so, whatever was rounded."""
    ints = code.type
    code = build.select(build.icmp_unsigned("<", code, _all(ints, most)), code, _all(ints, most))
    number = build.icmp_unsigned("<=", size, _all(ints, _INFINITE))
    special = build.select(number, _all(ints, infinite), _all(ints, nan))
    finite = build.icmp_unsigned("<", size, _all(ints, _INFINITE))
    code = build.or_(build.select(finite, code, special), sign)
    return build.trunc(code, ir.VectorType(_SHORT, ints.count))


def _rescale(build: Any, dim: Any, wide: Callable[[int, Any], Any], scale: Any) -> Any:
    """Store the scale of a row of int8 and return its inverse."""
    top = cgutils.alloca_once_value(build, _INT(0))

    def larger(one: Any, other: Any) -> Any:
        return build.select(build.icmp_unsigned(">", one, other), one, other)

    def walk(width: int, column: Any) -> None:
        # The bits of floats above 0 rise with them, and those of NaNs are the largest.
        ints = ir.VectorType(_INT, width)
        size = build.and_(build.bitcast(wide(width, column), ints), _all(ints, _SIZE))
        build.store(larger(build.load(top), _fold(build, size, larger)), top)

    by_columns(build, dim, walk)
    largest = build.load(top)
    unit = build.fdiv(build.bitcast(largest, _FLOAT), _FLOAT(127.0))
    finite = build.icmp_unsigned("<", largest, _INT(_INFINITE))
    useful = build.fcmp_ordered(">=", unit, _FLOAT(_LEAST_SCALE))
    unit = build.select(useful, unit, _FLOAT(0.0))
    build.store(build.select(finite, unit, _FLOAT(float("nan"))), scale)
    inverse = build.fdiv(_FLOAT(1.0), unit)
    return build.select(build.and_(finite, useful), inverse, _FLOAT(0.0))


def _codes(build: Any, value: Any, inverse: Any, chance: Any) -> Any:
    """Return codes of int8."""
    floats = value.type
    share = build.fmul(build.uitofp(chance, floats), _all(floats, 2.0**-16))
    code = build.fadd(build.fmul(value, inverse), share)
    code = _call(build, f"llvm.floor.v{floats.count}f32", floats, code)
    for sign, most in (("<", 127.0), (">", -127.0)):
        limit = _all(floats, most)
        code = build.select(build.fcmp_ordered(sign, code, limit), code, limit)
    return build.fptosi(code, ir.VectorType(_BYTE, floats.count))


def _chances(build: Any, state: Any, column: Any, width: int) -> Any:
    """Return the chances of some columns, over 2^16, as int32: four a word of the hash."""
    ints = ir.VectorType(_INT, width)
    word = build.add(build.udiv(column, _LONG(4)), _LONG(1))
    if width == 1:
        word = _mixed(build, build.add(state, build.mul(word, _LONG(_GOLDEN))))
        word = build.lshr(word, build.mul(build.urem(column, _LONG(4)), _LONG(16)))
        return _splat(build, build.and_(build.trunc(word, _INT), _INT(0xFFFF)), 1)
    longs = ir.VectorType(_LONG, width // 4)
    places = build.add(_splat(build, word, width // 4), longs(list(range(width // 4))))
    words = build.mul(places, _all(longs, _GOLDEN))
    words = _mixed(build, build.add(_splat(build, state, width // 4), words))
    return build.zext(build.bitcast(words, ir.VectorType(_SHORT, width)), ints)


def _mixed(build: Any, z: Any) -> Any:
    """Return SplitMix64's mixture of int64 or a vector of them (Steele, 2014)."""
    many = isinstance(z.type, ir.VectorType)

    def number(value: int) -> Any:
        return _all(z.type, value) if many else _LONG(value)

    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = build.mul(build.xor(z, build.lshr(z, number(shift))), number(factor))
    return build.xor(z, build.lshr(z, number(31)))


def _fold(build: Any, value: Any, join: Callable[[Any, Any], Any]) -> Any:
    """Return the lanes of a vector joined by halves."""
    width = value.type.count
    while width > 1:
        width //= 2
        value = join(*_pick(build, value, value, range(width), range(width, 2 * width)))
    return build.extract_element(value, _INT(0))


def _at(build: Any, row: Any, dim: Any, column: Any) -> Any:
    return build.add(build.mul(row, dim), column)


def _put(build: Any, value: Any, data: Any, place: Any) -> None:
    """Store a vector at a place that is aligned to its values alone."""
    target = build.bitcast(build.gep(data, [place]), value.type.as_pointer())
    build.store(value, target, align=1)


def _all(kind: Any, value: Any) -> Any:
    return kind([value] * kind.count)


def _splat(build: Any, value: Any, width: int) -> Any:
    vector = ir.VectorType(value.type, width)(ir.Undefined)
    one = build.insert_element(vector, value, _INT(0))
    return _pick(build, one, one, [0] * width)[0]
