"""Products of eight rows of codes with one int16 vector at a time, in SIMD.

A row is of int8 codes, or of codes of four bits (0 to 15), two to a byte: of each 16 bytes the low
bits are codes 0 to 15, the high bits codes 16 to 31.

Numba turns a plain loop over features into SIMD by itself, but sums the lanes of every row apart,
which costs as much as the products. Here the lanes of eight rows are folded together. The code is
given to LLVM in vectors of no particular machine: widening, products and pairwise sums, which
become ``vpmovsxbw``, ``vpmaddwd`` and ``vphaddd`` where there is AVX2. So the products keep up with
the memory, if it is asked in time.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 8  # rows at a time
STEP = 16  # bytes of a row at a time

_LINE = 64  # bytes of a cache line
_AHEAD = 2048  # bytes from the rows at hand to those that memory is asked for

_LONG, _INT = ir.IntType(64), ir.IntType(32)
_CODES = ir.VectorType(ir.IntType(8), STEP)
_SHORTS = ir.VectorType(ir.IntType(16), STEP)
_PRODUCTS = ir.VectorType(_INT, STEP)
_SUMS = ir.VectorType(_INT, STEP // 2)


@intrinsic
def dots(typing: Any, values: Any, row: Any, z: Any, out: Any) -> Any:
    """Write the products of rows ``row`` to ``row + 7`` of ``values`` to those places of ``out``.

    ``values`` (n, w) int8, or uint8 with two codes a byte, ``z`` int16, a value a code, and ``out``
    (n,) int32 are C-contiguous. Only the first ``w - w % 16`` bytes of a row count, and their sums
    must fit int32. O(w).
    """
    two = values.dtype == types.uint8

    def generate(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
        arrays = [
            context.make_array(kind)(context, build, value)
            if isinstance(kind, types.Array)
            else value
            for kind, value in zip(signature.args, arguments, strict=True)
        ]
        return _generate(context, build, *arrays, _two_a_byte if two else _one_a_byte)

    return types.void(values, row, z, out), generate


@intrinsic
def join(typing: Any, high: Any, low: Any, out: Any) -> Any:
    """Write the codes ``16 high + low - 128`` of two C-contiguous (n, w) uint8 arrays.

    Both hold two values of four bits a byte, as ``dots`` reads them; w is a multiple of 16 and
    ``out`` (n, 2 w) int8 is C-contiguous. O(n w).
    """
    return types.void(high, low, out), _generate_join


def _generate_join(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    high, low, out = (
        context.make_array(kind)(context, build, value)
        for kind, value in zip(signature.args, arguments, strict=True)
    )
    four, below, above = (_CODES([value] * STEP) for value in (4, 15, 0xF0))
    middle = _CODES([0x80] * STEP)
    bytes_ = build.mul(*(build.extract_value(high.shape, axis) for axis in (0, 1)))
    with cgutils.for_range(build, build.udiv(bytes_, _LONG(STEP))) as steps:
        offset = build.mul(steps.index, _LONG(STEP))
        one = _load(build, high.data, offset, _CODES, align=1)
        other = _load(build, low.data, offset, _CODES, align=1)
        first = build.or_(build.shl(one, four), build.and_(other, below))
        second = build.or_(build.and_(one, above), build.lshr(other, four))
        for part, codes in enumerate((first, second)):
            at = build.add(build.mul(offset, _LONG(2)), _LONG(part * STEP))
            place = build.bitcast(build.gep(out.data, [at]), _CODES.as_pointer())
            build.store(build.xor(codes, middle), place, align=1)
    return context.get_dummy_value()


def _one_a_byte(build: Any, raw: Any) -> list[Any]:
    return [build.sext(raw, _PRODUCTS)]


def _two_a_byte(build: Any, raw: Any) -> list[Any]:
    wide = build.zext(raw, _SHORTS)
    low, high = build.and_(wide, _SHORTS([15] * STEP)), build.lshr(wide, _SHORTS([4] * STEP))
    return [build.sext(low, _PRODUCTS), build.sext(high, _PRODUCTS)]


def _generate(
    context: Any, build: Any, values: Any, row: Any, z: Any, out: Any, unpack: Any
) -> Any:
    width = build.extract_value(values.shape, 1)
    first = build.gep(values.data, [build.mul(row, width)])
    zeros = _SUMS([0] * (STEP // 2))
    sums = [cgutils.alloca_once_value(build, zeros) for _ in range(ROWS)]
    with cgutils.for_range(build, build.udiv(width, _LONG(STEP))) as steps:
        offset = build.mul(steps.index, _LONG(STEP))
        _prefetch(build, first, build.add(build.mul(offset, _LONG(ROWS)), _LONG(_AHEAD)))
        queries: list[Any] = []
        for r, total in enumerate(sums):
            place = build.add(offset, build.mul(_LONG(r), width))
            codes = unpack(build, _load(build, first, place, _CODES, align=1))
            queries = queries or _query(build, z.data, offset, len(codes))
            for some, query in zip(codes, queries, strict=True):
                product = build.mul(some, query, flags=["nsw"])
                even, odd = _pick(build, product, product, range(0, STEP, 2), range(1, STEP, 2))
                build.store(build.add(build.load(total), build.add(even, odd)), total)
    rows = [build.load(total) for total in sums]
    # Pairwise sums within each half of a vector, as machines have them: twice halves 8 to 2.
    for _ in range(2):
        pairs = zip(rows[::2], rows[1::2], strict=True)
        at = [0, 2, 8, 10, 4, 6, 12, 14]
        folded = [_pick(build, one, other, at, [i + 1 for i in at]) for one, other in pairs]
        rows = [build.add(*halves) for halves in folded]
    # Each holds four rows twice, half a sum in either half.
    low, high = _pick(build, *rows, [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])
    target = build.bitcast(build.gep(out.data, [row]), _SUMS.as_pointer())
    build.store(build.add(low, high), target, align=4)
    return context.get_dummy_value()


def _query(build: Any, data: Any, offset: Any, parts: int) -> list[Any]:
    """Return the values of the query that the codes of the bytes from ``offset`` meet."""
    first = build.mul(offset, _LONG(parts))
    places = [build.add(first, _LONG(part * STEP)) for part in range(parts)]
    return [build.sext(_load(build, data, at, _SHORTS, align=2), _PRODUCTS) for at in places]


def _load(build: Any, data: Any, offset: Any, kind: Any, align: int) -> Any:
    return build.load(build.bitcast(build.gep(data, [offset]), kind.as_pointer()), align=align)


def _prefetch(build: Any, data: Any, offset: Any) -> None:
    """Ask for the ``ROWS * STEP`` bytes from ``offset``; beyond the array's end it does no harm."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, _INT, _INT, _INT])
    call = cgutils.get_or_insert_function(build.module, kind, "llvm.prefetch.p0")
    for line in range(0, ROWS * STEP, _LINE):
        at = build.gep(data, [build.add(offset, _LONG(line))])
        build.call(call, [build.bitcast(at, byte), _INT(0), _INT(3), _INT(1)])


def _pick(build: Any, one: Any, other: Any, *choices: Any) -> list[Any]:
    """Return vectors of the chosen lanes of two vectors laid end to end."""
    masks = [ir.VectorType(_INT, len(at))(list(at)) for at in choices]
    return [build.shuffle_vector(one, other, mask) for mask in masks]
