"""Products of eight rows of codes with one query at a time, in SIMD.

Numba turns a plain loop over features into SIMD by itself, but sums the lanes of every row apart,
which costs as much as the products. Here the lanes of eight rows are folded together. The code is
given to LLVM in vectors of no particular machine: widening, products and pairwise sums, which
become ``vpmovsxbw``, ``vpmaddwd`` and ``vphaddd`` where there is AVX2. So the products keep up with
the memory, if it is asked in time. Products of bytes are the one thing that LLVM does not find by
itself: AVX2's ``vpmaddubsw`` is asked for by name, where the machine has it.

Codes of four bits, 0 to 15, stand two to a byte: of each 16 bytes the low bits are codes 0 to 15,
the high bits codes 16 to 31. Codes of two bits stand four to a byte in the same way.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
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
_FLOATS = ir.VectorType(ir.FloatType(), ROWS)


@intrinsic
def dots(typing: Any, values: Any, row: Any, z: Any, out: Any) -> Any:
    """Write the products of rows ``row`` to ``row + 7`` of ``values`` to those places of ``out``.

    ``values`` (n, d) int8, ``z`` (d,) int16 and ``out`` (n,) int32 are C-contiguous. Only the first
    ``d - d % 16`` features count, and their sums must fit int32. O(d).
    """
    return types.void(values, row, z, out), _generate_dots


@intrinsic
def half_dots(typing: Any, values: Any, row: Any, query: Any, out: Any) -> Any:
    """Write the products of rows ``row`` to ``row + 7`` of ``values`` to those places of ``out``.

    ``values`` (n, w) uint8 holds two codes of four bits a byte, and w is a multiple of 16;
    ``query`` (2, w) int8 what the low bits and the high bits of each byte are multiplied by;
    ``out`` (n,) is int32. All are C-contiguous. O(w).
    """
    return types.void(values, row, query, out), _generate_half_dots


@intrinsic
def packed4_dots(
    typing: Any, values: Any, row: Any, start: Any, group: Any, query: Any, middle: Any,
    scale: Any, place: Any, out: Any,
) -> Any:  # fmt: skip
    """Write scaled products of rows ``row`` to ``row + 7`` to ``out[place : place + 8]``.

    A row of ``values`` (n, w) uint8 is made of runs of two codes of four bits a byte. Run r begins
    at byte ``start[r]``; its codes are multiplied by ``query[r]``, (2, 16) int8; their sum less
    ``4 middle[r]`` counts times ``scale[row, group[r]]``, (n, G) bits of bfloat16 in uint16. Each
    run is read as 16 bytes, beyond its end and the row's too: the query has to be 0 there.
    ``start`` and ``group`` are int64, ``middle`` and ``out`` float32, and all are C-contiguous.
    """
    given = values, row, start, group, query, middle, scale, place, out
    return types.void(*given), lambda *rest: _generate_packed(4, *rest)


@intrinsic
def packed2_dots(
    typing: Any, values: Any, row: Any, start: Any, group: Any, query: Any, middle: Any,
    scale: Any, place: Any, out: Any,
) -> Any:  # fmt: skip
    """Do as ``packed4_dots`` does with four codes of two bits a byte; ``query[r]`` is (4, 16)."""
    given = values, row, start, group, query, middle, scale, place, out
    return types.void(*given), lambda *rest: _generate_packed(2, *rest)


@intrinsic
def join(typing: Any, high: Any, low: Any, out: Any) -> Any:
    """Write the codes ``16 high + low - 128`` of two C-contiguous (n, w) uint8 arrays.

    Both hold two values of four bits a byte; w is a multiple of 16 and
    ``out`` (n, 2 w) int8 is C-contiguous. O(n w).
    """
    return types.void(high, low, out), _generate_join


@intrinsic
def ask(typing: Any, values: Any, row: Any) -> Any:
    """Ask the memory for a row of a C-contiguous (n, w) array of bytes, without waiting for it."""
    return types.void(values, row), _generate_ask


def _generate_dots(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    values, row, z, out = _arrays(context, build, signature, arguments)
    d = build.extract_value(values.shape, 1)
    first = build.gep(values.data, [build.mul(row, d)])
    sums = _zeros(build)
    with cgutils.for_range(build, build.udiv(d, _LONG(STEP))) as steps:
        offset = build.mul(steps.index, _LONG(STEP))
        _prefetch(build, first, offset, STEP)
        query = build.sext(_load(build, z.data, offset, _SHORTS, align=2), _PRODUCTS)
        for r, total in enumerate(sums):
            place = build.add(offset, build.mul(_LONG(r), d))
            codes = build.sext(_load(build, first, place, _CODES, align=1), _PRODUCTS)
            product = build.mul(codes, query, flags=["nsw"])
            build.store(build.add(build.load(total), _add_pairs(build, product)), total)
    return _store(context, build, sums, row, out)


def _generate_half_dots(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    values, row, query, out = _arrays(context, build, signature, arguments)
    width = build.extract_value(values.shape, 1)
    first = build.gep(values.data, [build.mul(row, width)])
    sums = _zeros(build)

    def add(offset: Any, lanes: int) -> None:
        kind = ir.VectorType(ir.IntType(8), lanes)
        places = offset, build.add(offset, width)
        queries = [_load(build, query.data, at, kind, align=1) for at in places]
        for r, total in enumerate(sums):
            place = build.add(offset, build.mul(_LONG(r), width))
            raw = _load(build, first, place, kind, align=1)
            halves = build.and_(raw, kind([15] * lanes)), build.lshr(raw, kind([4] * lanes))
            pairs = [_byte_pairs(build, *both, lanes) for both in zip(halves, queries, strict=True)]
            fours = _short_pairs(build, build.add(*pairs), lanes // 2)
            build.store(build.add(build.load(total), _widest(build, fours)), total)

    with cgutils.for_range(build, build.udiv(width, _LONG(2 * STEP))) as steps:
        offset = build.mul(steps.index, _LONG(2 * STEP))
        _prefetch(build, first, offset, 2 * STEP)
        add(offset, 2 * STEP)
    with build.if_then(build.trunc(build.udiv(width, _LONG(STEP)), ir.IntType(1))):
        add(build.sub(width, _LONG(STEP)), STEP)
    return _store(context, build, sums, row, out)


def _generate_packed(bits: int, context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    values, row, start, group, query, middle, scale, place, out = _arrays(
        context, build, signature, arguments
    )
    width, groups = (build.extract_value(array.shape, 1) for array in (values, scale))
    first = build.gep(values.data, [build.mul(row, width)])
    scales = build.gep(scale.data, [build.mul(row, groups)])
    sums = [cgutils.alloca_once_value(build, _FLOATS([0.0] * ROWS)) for _ in range(ROWS // 2)]
    with cgutils.for_range(build, build.udiv(width, _LONG(_LINE // ROWS))) as lines:
        _ask(build, first, build.add(build.mul(lines.index, _LONG(_LINE)), _LONG(_AHEAD)))
    with cgutils.for_range(build, build.extract_value(start.shape, 0)) as runs:
        offset, own = (build.load(build.gep(one.data, [runs.index])) for one in (start, group))
        less = _splat(build, build.load(build.gep(middle.data, [runs.index])), ROWS)
        planes = []
        for plane in range(8 // bits):
            at = build.add(build.mul(runs.index, _LONG(128 // bits)), _LONG(plane * STEP))
            one = _load(build, query.data, at, _CODES, align=1)
            planes.append(_pick(build, one, one, range(2 * STEP))[0])
        for pair, total in enumerate(sums):
            rows = [_LONG(2 * pair), _LONG(2 * pair + 1)]
            places = [build.add(offset, build.mul(r, width)) for r in rows]
            raw = [_load(build, first, at, _CODES, align=1) for at in places]
            both = _pick(build, *raw, range(2 * STEP))[0]
            product = _float_product(build, bits, both, planes)
            factors = [
                _splat(build, _wide(build, scales, build.add(own, build.mul(r, groups))), STEP // 4)
                for r in rows
            ]
            factor = _pick(build, *factors, range(ROWS))[0]
            added = build.fmul(build.fsub(product, less), factor)
            build.store(build.fadd(build.load(total), added), total)
    at = [0, 2, 8, 10, 4, 6, 12, 14]
    folded = [build.load(total) for total in sums]
    while len(folded) > 1:
        pairs = zip(folded[::2], folded[1::2], strict=True)
        picked = [_pick(build, *two, at, [i + 1 for i in at]) for two in pairs]
        folded = [build.fadd(*two) for two in picked]
    # Even rows lie in the first half, odd rows in the second.
    (found,) = _pick(build, folded[0], folded[0], [0, 4, 1, 5, 2, 6, 3, 7])
    build.store(found, build.bitcast(build.gep(out.data, [place]), _FLOATS.as_pointer()), align=4)
    return context.get_dummy_value()


def _float_product(build: Any, bits: int, both: Any, planes: list[Any]) -> Any:
    """Return eight float32 sums of products: four of the first 16 bytes, four of the others."""
    mask, products = both.type([(1 << bits) - 1] * (2 * STEP)), []
    for plane, query in enumerate(planes):
        shifted = build.lshr(both, both.type([plane * bits] * (2 * STEP))) if plane else both
        last = plane == len(planes) - 1
        codes = shifted if last else build.and_(shifted, mask)
        products.append(_byte_pairs(build, codes, query, 2 * STEP))
    total = products[0]
    for product in products[1:]:
        total = build.add(total, product)
    return build.sitofp(_short_pairs(build, total, STEP), _FLOATS)


def _wide(build: Any, bits: Any, at: Any) -> Any:
    """Return the float32 of the bits of a bfloat16."""
    found = build.zext(build.load(build.gep(bits, [at])), _INT)
    return build.bitcast(build.shl(found, _INT(16)), ir.FloatType())


def _splat(build: Any, value: Any, lanes: int) -> Any:
    """Return a vector of one value."""
    kind = ir.VectorType(value.type, lanes)
    one = build.insert_element(kind(ir.Undefined), value, _INT(0))
    return _pick(build, one, one, [0] * lanes)[0]


def _generate_join(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    high, low, out = _arrays(context, build, signature, arguments)
    four, below, above = (_CODES([value] * STEP) for value in (4, 15, 0xF0))
    middle = _CODES([0x80] * STEP)
    size = build.mul(*(build.extract_value(high.shape, axis) for axis in (0, 1)))
    with cgutils.for_range(build, build.udiv(size, _LONG(STEP))) as steps:
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


def _generate_ask(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    values, row = _arrays(context, build, signature, arguments)
    width = build.extract_value(values.shape, 1)
    first = build.gep(values.data, [build.mul(row, width)])
    # A row may begin within a line, so that the line of its last byte is one more.
    with cgutils.for_range(build, build.udiv(width, _LONG(_LINE))) as lines:
        _ask(build, first, build.mul(lines.index, _LONG(_LINE)))
    _ask(build, first, build.sub(width, _LONG(1)))
    return context.get_dummy_value()


def _arrays(context: Any, build: Any, signature: Any, arguments: Any) -> list[Any]:
    return [
        context.make_array(kind)(context, build, value) if isinstance(kind, types.Array) else value
        for kind, value in zip(signature.args, arguments, strict=True)
    ]


def _zeros(build: Any) -> list[Any]:
    return [cgutils.alloca_once_value(build, _SUMS([0] * (STEP // 2))) for _ in range(ROWS)]


def _store(context: Any, build: Any, sums: list[Any], row: Any, out: Any) -> Any:
    """Write the sums over the lanes of each row."""
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


def _add_pairs(build: Any, values: Any) -> Any:
    lanes = values.type.count
    return build.add(*_pick(build, values, values, range(0, lanes, 2), range(1, lanes, 2)))


def _byte_pairs(build: Any, codes: Any, query: Any, lanes: int) -> Any:
    """Return sums of two products of uint8 below 16 and int8, in int16."""
    kind = ir.VectorType(ir.IntType(16), lanes)
    if _has_avx2():
        name = {32: "llvm.x86.avx2.pmadd.ub.sw", 16: "llvm.x86.ssse3.pmadd.ub.sw.128"}[lanes]
        return _call(build, name, ir.VectorType(ir.IntType(16), lanes // 2), codes, query)
    return _add_pairs(build, build.mul(build.zext(codes, kind), build.sext(query, kind)))


def _short_pairs(build: Any, values: Any, lanes: int) -> Any:
    """Return sums of two int16, in int32."""
    if _has_avx2():
        name = {16: "llvm.x86.avx2.pmadd.wd", 8: "llvm.x86.sse2.pmadd.wd"}[lanes]
        ones = values.type([1] * lanes)
        return _call(build, name, ir.VectorType(_INT, lanes // 2), values, ones)
    return _add_pairs(build, build.sext(values, ir.VectorType(_INT, lanes)))


def _widest(build: Any, values: Any) -> Any:
    """Return four or eight int32 as eight, filled up by zeros."""
    if values.type.count == STEP // 2:
        return values
    return _pick(build, values, values.type([0] * 4), range(8))[0]


def _has_avx2() -> bool:
    """Return whether Numba compiles for this very machine, and that has AVX2."""
    chosen: Any = config
    plain = chosen.CPU_NAME is None and chosen.CPU_FEATURES is None
    return plain and bool(binding.get_host_cpu_features().get("avx2"))


def _call(build: Any, name: str, kind: Any, *values: Any) -> Any:
    signature = ir.FunctionType(kind, [value.type for value in values])
    return build.call(cgutils.get_or_insert_function(build.module, signature, name), values)


def _load(build: Any, data: Any, offset: Any, kind: Any, align: int) -> Any:
    return build.load(build.bitcast(build.gep(data, [offset]), kind.as_pointer()), align=align)


def _prefetch(build: Any, first: Any, offset: Any, step: int) -> None:
    """Ask for the bytes of a later step."""
    ahead = build.add(build.mul(offset, _LONG(ROWS)), _LONG(_AHEAD))
    for line in range(0, ROWS * step, _LINE):
        _ask(build, first, build.add(ahead, _LONG(line)))


def _ask(build: Any, data: Any, offset: Any) -> None:
    """Ask for a line of memory; beyond the array's end it does no harm."""
    at = build.bitcast(build.gep(data, [offset]), ir.IntType(8).as_pointer())
    _call(build, "llvm.prefetch.p0", ir.VoidType(), at, _INT(0), _INT(3), _INT(1))


def _pick(build: Any, one: Any, other: Any, *choices: Any) -> list[Any]:
    """Return vectors of the chosen lanes of two vectors laid end to end."""
    masks = [ir.VectorType(_INT, len(at))(list(at)) for at in choices]
    return [build.shuffle_vector(one, other, mask) for mask in masks]
