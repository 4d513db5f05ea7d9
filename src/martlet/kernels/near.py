"""Sums of table entries for 64 rows of codes at a time, in SIMD: which rows may be near the best?

A row is as many codes as there are tables; its cost is the sum of the entries that they name, of
8 bits each, and a sum beyond 255 stays there. Codes stand in blocks of 64 rows, transposed: a code
of all 64 rows, then the next one. A table of 16 entries fits a vector register, where one
instruction looks 16, 32 or 64 codes up at once (``pshufb``); one of 256 fits four registers of
AVX-512 (``vpermi2b``). LLVM has no name of its own for a look-up by codes known only at run time,
so these are asked for by the machine's; elsewhere each code is looked up in memory, for the same
sums.

**Source**: André et al., "Cache locality is not enough: high-performance nearest neighbor search
with product quantization fast scan" (2015), whose saturated sums of 8 bits these are.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

LANES = 64  # rows of a block

_LONG, _INT, _BYTE = ir.IntType(64), ir.IntType(32), ir.IntType(8)
_BLOCK = ir.VectorType(_BYTE, LANES)
_ENTRIES = 16  # of a table for codes of four bits


@intrinsic
def near(typing: Any, codes: Any, block: Any, tables: Any, most: Any) -> Any:
    """Return as the bits of a uint64 which of a block's rows cost ``most`` at most. O(64 M).

    ``codes`` (blocks, w, 64) and ``tables`` (M, 16 or 256) are C-contiguous uint8, ``most`` is
    uint8. With 16 entries a byte holds two codes, the first in its low bits: M is even and w is
    M / 2. With 256 it holds one, and w is M.
    """
    return types.uint64(codes, block, tables, most), _generate_near


@intrinsic
def first_bit(typing: Any, bits: Any) -> Any:
    """Return the place of the lowest bit that is set, from 0 on; some must be."""
    return types.int64(types.uint64), _generate_first_bit


def _generate_first_bit(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    return build.cttz(arguments[0], ir.IntType(1)(1))


def _generate_near(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
    codes, tables = (
        context.make_array(signature.args[at])(context, build, arguments[at]) for at in (0, 2)
    )
    width = build.extract_value(codes.shape, 1)
    entries = build.extract_value(tables.shape, 1)
    first = build.gep(codes.data, [build.mul(arguments[1], build.mul(width, _LONG(LANES)))])
    total = cgutils.alloca_once_value(build, _BLOCK([0] * LANES))

    def add(found: Any) -> None:
        name = f"llvm.uadd.sat.v{LANES}i8"
        build.store(_call(build, name, _BLOCK, build.load(total), found), total)

    def walk(look_up: Any) -> None:
        with cgutils.for_range(build, width) as steps:
            at = build.mul(steps.index, _LONG(LANES))
            look_up(_load(build, first, at, _BLOCK), steps.index)

    def fours(raw: Any, step: Any) -> None:
        at = build.mul(step, _LONG(2 * _ENTRIES))
        low = build.and_(raw, _BLOCK([15] * LANES))
        high = build.lshr(raw, _BLOCK([4] * LANES))
        for half, codes in enumerate((low, high)):
            add(_look_up_16(build, tables.data, build.add(at, _LONG(half * _ENTRIES)), codes))

    def eights(raw: Any, step: Any) -> None:
        add(_look_up_256(build, tables.data, build.mul(step, _LONG(256)), raw))

    with build.if_else(build.icmp_unsigned("==", entries, _LONG(_ENTRIES))) as (small, large):
        with small:
            walk(fours)
        with large:
            walk(eights)
    limit = _splat(build, arguments[3])
    return build.bitcast(build.icmp_unsigned("<=", build.load(total), limit), _LONG)


def _look_up_16(build: Any, data: Any, at: Any, codes: Any) -> Any:
    """Return the entries of a table of 16 that 64 codes below 16 name."""
    lanes = _register()
    if not lanes:
        return _one_by_one(build, data, at, codes)
    entries = _load(build, data, at, ir.VectorType(_BYTE, _ENTRIES))
    mask = ir.VectorType(_INT, lanes)([lane % _ENTRIES for lane in range(lanes)])
    table = build.shuffle_vector(entries, entries, mask)
    name = {64: "llvm.x86.avx512.pshuf.b.512", 32: "llvm.x86.avx2.pshuf.b"}[lanes]
    parts = [_call(build, name, table.type, table, part) for part in _split(build, codes, lanes)]
    if len(parts) == 1:
        return parts[0]
    return build.shuffle_vector(*parts, ir.VectorType(_INT, LANES)(list(range(LANES))))


def _look_up_256(build: Any, data: Any, at: Any, codes: Any) -> Any:
    """Return the entries of a table of 256 that 64 codes name."""
    if not _has("avx512vbmi"):
        return _one_by_one(build, data, at, codes)
    parts = [_load(build, data, build.add(at, _LONG(64 * part)), _BLOCK) for part in range(4)]
    name = "llvm.x86.avx512.vpermi2var.qi.512"
    low, high = (_call(build, name, _BLOCK, parts[half], codes, parts[half + 1]) for half in (0, 2))
    return build.select(build.icmp_signed("<", codes, _BLOCK([0] * LANES)), high, low)


def _one_by_one(build: Any, data: Any, at: Any, codes: Any) -> Any:
    """Return the entries that 64 codes name, looked up in memory."""
    places, found = (cgutils.alloca_once(build, _BLOCK) for _ in range(2))
    build.store(codes, places)
    place, out = (build.bitcast(each, _BYTE.as_pointer()) for each in (places, found))
    with cgutils.for_range(build, _LONG(LANES)) as lanes:
        code = build.zext(build.load(build.gep(place, [lanes.index])), _LONG)
        entry = build.load(build.gep(data, [build.add(at, code)]))
        build.store(entry, build.gep(out, [lanes.index]))
    return build.load(found)


def _register() -> int:
    """Return how many codes this machine looks up in a table of 16 at once; 0 where it cannot."""
    return 64 if _has("avx512bw") else 32 if _has("avx2") else 0


def _has(feature: str) -> bool:
    """Return whether Numba compiles for this very machine, and that has a feature."""
    chosen: Any = config
    plain = chosen.CPU_NAME is None and chosen.CPU_FEATURES is None
    return plain and bool(binding.get_host_cpu_features().get(feature))


def _split(build: Any, values: Any, lanes: int) -> list[Any]:
    if lanes == LANES:
        return [values]
    masks = (range(start, start + lanes) for start in range(0, LANES, lanes))
    kind = ir.VectorType(_INT, lanes)
    return [build.shuffle_vector(values, values, kind(list(at))) for at in masks]


def _splat(build: Any, value: Any) -> Any:
    one = build.insert_element(_BLOCK(ir.Undefined), value, _INT(0))
    return build.shuffle_vector(one, one, ir.VectorType(_INT, LANES)([0] * LANES))


def _load(build: Any, data: Any, at: Any, kind: Any) -> Any:
    return build.load(build.bitcast(build.gep(data, [at]), kind.as_pointer()), align=1)


def _call(build: Any, name: str, kind: Any, *values: Any) -> Any:
    signature = ir.FunctionType(kind, [value.type for value in values])
    return build.call(cgutils.get_or_insert_function(build.module, signature, name), values)
