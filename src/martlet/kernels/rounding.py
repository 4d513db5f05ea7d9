"""Rounding by chance to float16, bfloat16 and int8, in vectors, and in NumPy.

A value between two that can be stored becomes the upper one with the chance of its place between
them. The chance is 16 bits of a hash of seed, step, row and column (SplitMix64).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numpy.typing import NDArray

from martlet.kernels.dots import _INT, _LONG, _call
from martlet.kernels.lanes import by_columns, every, fold, splat

F32 = NDArray[np.float32]

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: SplitMix64's step
_FLOAT, _SHORT, _BYTE = ir.FloatType(), ir.IntType(16), ir.IntType(8)
_SIGN, _SIZE = 0x8000, 0x7FFFFFFF
_INFINITE = 0x7F800000  # bits of a float32; finite ones lie below, NaNs above
_HALF_NORMAL = 0x38800000  # bits of 2^-14, the least normal half
_HALF_MOST, _BFLOAT_MOST = 0x7BFF, 0x7F7F  # bits of the largest finite values
_LEAST_SCALE = 2.0**-120  # the inverse of a smaller one may be infinite


def chances_reference(
    seed: int, step: int, rows: NDArray[np.integer], dim: int
) -> NDArray[np.uint16]:
    """Return the (n, dim) chances, over 2^16, with which ``write_row`` rounds up, in NumPy."""

    def mix(z: Any) -> Any:
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    golden = np.uint64(GOLDEN)
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


def halves(build: Any, value: Any, chance: Any) -> Any:
    """Return the bits of float16: 13 bits of chance are added below its last one, and cut off."""
    ints, floats = chance.type, value.type
    sign, size = _parts(build, value, ints)
    code = build.add(size, build.lshr(chance, every(ints, 3)))
    code = build.sub(build.lshr(code, every(ints, 13)), every(ints, 112 << 10))
    # Below the least normal half, values are whole numbers of 2^-24. Others must fit an integer.
    fixed = build.fmul(build.bitcast(size, floats), every(floats, 2.0**24))
    least = build.fcmp_ordered("<", fixed, every(floats, 1024.0))
    fixed = build.select(least, fixed, every(floats, 1024.0))
    share = build.fmul(build.uitofp(chance, floats), every(floats, 2.0**-16))
    small = build.fptosi(build.fadd(fixed, share), ints)
    code = build.select(build.icmp_unsigned("<", size, every(ints, _HALF_NORMAL)), small, code)
    return _join(build, sign, size, code, _HALF_MOST, 0x7C00, 0x7E00)


def bfloats(build: Any, value: Any, chance: Any) -> Any:
    """Return the bits of bfloat16: 16 bits of chance are added below its last one, and cut off."""
    sign, size = _parts(build, value, chance.type)
    code = build.lshr(build.add(size, chance), every(chance.type, 16))
    return _join(build, sign, size, code, _BFLOAT_MOST, 0x7F80, 0x7FC0)


def _parts(build: Any, value: Any, ints: Any) -> tuple[Any, Any]:
    """Return the sign of float32 where half precision has it, and the bits below."""
    bits = build.bitcast(value, ints)
    sign = build.and_(build.lshr(bits, every(ints, 16)), every(ints, _SIGN))
    return sign, build.and_(bits, every(ints, _SIZE))


def _join(build: Any, sign: Any, size: Any, code: Any, most: int, infinite: int, nan: int) -> Any:
    """Return sign and code as 16 bits; what is not finite stays so, whatever was rounded."""
    ints = code.type
    code = build.select(build.icmp_unsigned("<", code, every(ints, most)), code, every(ints, most))
    number = build.icmp_unsigned("<=", size, every(ints, _INFINITE))
    special = build.select(number, every(ints, infinite), every(ints, nan))
    finite = build.icmp_unsigned("<", size, every(ints, _INFINITE))
    code = build.or_(build.select(finite, code, special), sign)
    return build.trunc(code, ir.VectorType(_SHORT, ints.count))


def rescale(build: Any, dim: Any, wide: Callable[[int, Any], Any], scale: Any) -> Any:
    """Store the scale of a row of int8 and return its inverse."""
    top = cgutils.alloca_once_value(build, _INT(0))

    def larger(one: Any, other: Any) -> Any:
        return build.select(build.icmp_unsigned(">", one, other), one, other)

    def walk(width: int, column: Any) -> None:
        # The bits of floats above 0 rise with them, and those of NaNs are the largest.
        ints = ir.VectorType(_INT, width)
        size = build.and_(build.bitcast(wide(width, column), ints), every(ints, _SIZE))
        build.store(larger(build.load(top), fold(build, size, larger)), top)

    by_columns(build, dim, walk)
    largest = build.load(top)
    unit = build.fdiv(build.bitcast(largest, _FLOAT), _FLOAT(127.0))
    finite = build.icmp_unsigned("<", largest, _INT(_INFINITE))
    useful = build.fcmp_ordered(">=", unit, _FLOAT(_LEAST_SCALE))
    unit = build.select(useful, unit, _FLOAT(0.0))
    build.store(build.select(finite, unit, _FLOAT(float("nan"))), scale)
    inverse = build.fdiv(_FLOAT(1.0), unit)
    return build.select(build.and_(finite, useful), inverse, _FLOAT(0.0))


def codes(build: Any, value: Any, inverse: Any, chance: Any) -> Any:
    """Return codes of int8."""
    floats = value.type
    share = build.fmul(build.uitofp(chance, floats), every(floats, 2.0**-16))
    code = build.fadd(build.fmul(value, inverse), share)
    code = _call(build, f"llvm.floor.v{floats.count}f32", floats, code)
    for sign, most in (("<", 127.0), (">", -127.0)):
        limit = every(floats, most)
        code = build.select(build.fcmp_ordered(sign, code, limit), code, limit)
    return build.fptosi(code, ir.VectorType(_BYTE, floats.count))


def chances(build: Any, state: Any, column: Any, width: int) -> Any:
    """Return the chances of some columns, over 2^16, as int32: four a word of the hash."""
    ints = ir.VectorType(_INT, width)
    word = build.add(build.udiv(column, _LONG(4)), _LONG(1))
    if width == 1:
        word = mixed(build, build.add(state, build.mul(word, _LONG(GOLDEN))))
        word = build.lshr(word, build.mul(build.urem(column, _LONG(4)), _LONG(16)))
        return splat(build, build.and_(build.trunc(word, _INT), _INT(0xFFFF)), 1)
    longs = ir.VectorType(_LONG, width // 4)
    places = build.add(splat(build, word, width // 4), longs(list(range(width // 4))))
    words = build.mul(places, every(longs, GOLDEN))
    words = mixed(build, build.add(splat(build, state, width // 4), words))
    return build.zext(build.bitcast(words, ir.VectorType(_SHORT, width)), ints)


def mixed(build: Any, z: Any) -> Any:
    """Return SplitMix64's mixture of int64 or a vector of them (Steele, 2014)."""
    many = isinstance(z.type, ir.VectorType)

    def number(value: int) -> Any:
        return every(z.type, value) if many else _LONG(value)

    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = build.mul(build.xor(z, build.lshr(z, number(shift))), number(factor))
    return build.xor(z, build.lshr(z, number(31)))
