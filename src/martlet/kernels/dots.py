"""Products of eight int8 rows with one int16 vector at a time, in SIMD.

Numba turns a plain loop over features into SIMD by itself, but sums the lanes of every row apart,
which costs as much as the products. Here the lanes of eight rows are folded together. The code is
given to LLVM in vectors of no particular machine: widening, products and pairwise sums, which
become ``vpmovsxbw``, ``vpmaddwd`` and ``vphaddd`` where there is AVX2. So the products keep up with
the memory, if it is asked in time.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 8  # rows at a time
STEP = 16  # features at a time

_LINE = 64  # bytes of a cache line
_AHEAD = 2048  # bytes from the rows at hand to those that memory is asked for

_LONG, _INT = ir.IntType(64), ir.IntType(32)
_CODES = ir.VectorType(ir.IntType(8), STEP)
_QUERY = ir.VectorType(ir.IntType(16), STEP)
_PRODUCTS = ir.VectorType(_INT, STEP)
_SUMS = ir.VectorType(_INT, STEP // 2)


@intrinsic  # type: ignore[untyped-decorator]
def dots(typing: Any, values: Any, row: Any, z: Any, out: Any) -> Any:
    """Write the products of rows ``row`` to ``row + 7`` of ``values`` to those places of ``out``.

    ``values`` (n, d) int8, ``z`` (d,) int16 and ``out`` (n,) int32 are C-contiguous. Only the first
    ``d - d % 16`` features count, and their sums must fit int32. O(d).
    """
    return types.void(values, row, z, out), _generate


def _generate(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    arrays = [
        context.make_array(kind)(context, build, value) if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, arguments, strict=True)
    ]
    values, row, z, out = arrays
    d = build.extract_value(values.shape, 1)
    first = build.gep(values.data, [build.mul(row, d)])
    zeros = _SUMS([0] * (STEP // 2))
    sums = [cgutils.alloca_once_value(build, zeros) for _ in range(ROWS)]  # type: ignore[no-untyped-call]
    with cgutils.for_range(build, build.udiv(d, _LONG(STEP))) as steps:
        offset = build.mul(steps.index, _LONG(STEP))
        _prefetch(build, first, build.add(build.mul(offset, _LONG(ROWS)), _LONG(_AHEAD)))
        query = build.sext(_load(build, z.data, offset, _QUERY, align=2), _PRODUCTS)
        for r, total in enumerate(sums):
            place = build.add(offset, build.mul(_LONG(r), d))
            codes = build.sext(_load(build, first, place, _CODES, align=1), _PRODUCTS)
            product = build.mul(codes, query, flags=["nsw"])
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
