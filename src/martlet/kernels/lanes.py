"""Rows of columns as vectors of LLVM: as wide as what is left, of no particular machine.

Plain loops become vectors of 64 columns and more, and rows of 32 are left to what remains of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from martlet.kernels.dots import _INT, _LONG, _pick

_WIDTHS = (32, 16, 8, 1)  # columns at a time, as many as are left


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


def fold(build: Any, value: Any, join: Callable[[Any, Any], Any]) -> Any:
    """Return the lanes of a vector joined by halves."""
    width = value.type.count
    while width > 1:
        width //= 2
        value = join(*_pick(build, value, value, range(width), range(width, 2 * width)))
    return build.extract_element(value, _INT(0))


def cell(build: Any, row: Any, dim: Any, column: Any) -> Any:
    """Return the place of a row's column in an array of ``dim`` columns."""
    return build.add(build.mul(row, dim), column)


def put(build: Any, value: Any, data: Any, place: Any) -> None:
    """Store a vector at a place that is aligned to its values alone."""
    target = build.bitcast(build.gep(data, [place]), value.type.as_pointer())
    build.store(value, target, align=1)


def every(kind: Any, value: Any) -> Any:
    """Return a vector of one constant."""
    return kind([value] * kind.count)


def splat(build: Any, value: Any, width: int) -> Any:
    """Return a vector of one value."""
    vector = ir.VectorType(value.type, width)(ir.Undefined)
    one = build.insert_element(vector, value, _INT(0))
    return _pick(build, one, one, [0] * width)[0]
