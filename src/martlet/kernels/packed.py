"""Rows in codes of four or two bits, a scale for a group of columns: how they lie.

A value is ``scale * (code - offset) + zero``, with the scale and the zero of its row and group in
bfloat16, so that the product is exact in float32. A group is cut into runs of 16 bytes or fewer.
A run of c codes takes m = ceil(c bits / 8) bytes: its first m codes stand in the lowest bits of
the bytes, the next m above them, and so on, as SIMD likes to unpack them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.kernels.half import from_bf16
from martlet.kernels.jit import njit

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
I64 = NDArray[np.int64]

RUN_BYTES = 16  # as ``kernels/dots.py`` reads them
_ROWS = 4096  # rows that are worked on at a time


@dataclass(frozen=True)
class Layout:
    """How the codes of a row of ``dim`` columns lie in its bytes.

    Attributes:
        dim: columns.
        bits: 4 or 2, of a code.
        group: columns that share a scale; the last group of a row may be smaller.
    """

    dim: int
    bits: int
    group: int

    @cached_property
    def runs(self) -> I64:
        """(R, 4) int64: of each run the first column, the codes, the first byte and the group."""
        most, found, byte = RUN_BYTES * 8 // self.bits, [], 0
        for group, begin in enumerate(range(0, self.dim, self.group)):
            end = min(begin + self.group, self.dim)
            for first in range(begin, end, most):
                count = min(most, end - first)
                found.append((first, count, byte, group))
                byte += -(-count * self.bits // 8)
        return np.array(found, np.int64).reshape(-1, 4)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's codes."""
        return int((-(-self.runs[:, 1] * self.bits // 8)).sum())

    @property
    def num_groups(self) -> int:
        """Scales of a row."""
        return -(-self.dim // self.group)

    def groups(self) -> list[slice]:
        """Return the columns of each group."""
        begins = range(0, self.dim, self.group)
        return [slice(begin, min(begin + self.group, self.dim)) for begin in begins]

    def planes(self, run: int) -> list[tuple[int, slice]]:
        """Return, for each run of bits in a byte, how far it is shifted and its columns."""
        first, count = self.runs[run, :2].tolist()
        size = -(-count * self.bits // 8)
        found = []
        for plane in range(8 // self.bits):
            begin, end = min(plane * size, count), min((plane + 1) * size, count)
            found.append((plane * self.bits, slice(first + begin, first + end)))
        return found

    def pack(self, codes: U8) -> U8:
        """Return (m, row_bytes) uint8 of (m, dim) codes. O(m dim)."""
        values = np.zeros((len(codes), self.row_bytes), np.uint8)
        for run, start in enumerate(self.runs[:, 2].tolist()):
            for shift, columns in self.planes(run):
                size = columns.stop - columns.start
                values[:, start : start + size] |= codes[:, columns] << np.uint8(shift)
        return values

    def unpack(self, values: U8) -> U8:
        """Return the (m, dim) uint8 codes of (m, row_bytes); what ``pack`` packed. O(m dim)."""
        codes, mask = np.empty((len(values), self.dim), np.uint8), np.uint8((1 << self.bits) - 1)
        for run, start in enumerate(self.runs[:, 2].tolist()):
            for shift, columns in self.planes(run):
                size = columns.stop - columns.start
                codes[:, columns] = values[:, start : start + size] >> np.uint8(shift) & mask
        return codes


@dataclass(frozen=True, eq=False)
class Packed:
    """Rows of packed codes.

    Attributes:
        layout: how they lie.
        values: (n, row_bytes) uint8.
        scale: (n, G) uint16, bits of bfloat16, of values at least 0.
        zero: (n, G) uint16, the same, or None for zeros.
        offset: the code that stands for ``zero``; a number between two codes too.
    """

    layout: Layout
    values: U8
    scale: U16
    zero: U16 | None
    offset: float

    def rows(self, at: Any) -> F32:
        """Return the (len(at), dim) float32 rows of int numbers or of a slice. O(len(at) dim)."""
        if isinstance(at, slice):
            at = np.arange(len(self.values))[at]
        at = np.ascontiguousarray(at, np.int64)
        wide = np.empty((len(at), self.layout.dim), np.float32)
        zero = np.zeros((0, 0), np.uint16) if self.zero is None else self.zero
        bits, offset = self.layout.bits, np.float32(self.offset)
        _decode(self.values, self.scale, zero, at, self.layout.runs, bits, offset, wide)
        return wide

    def rows_reference(self, at: Any) -> F32:
        """Return what ``rows`` returns, in NumPy."""
        group = np.repeat(np.arange(self.layout.num_groups), self.layout.group)[: self.layout.dim]
        codes = self.layout.unpack(self.values[at]).astype(np.float32) - np.float32(self.offset)
        wide = codes * from_bf16(self.scale[at])[:, group]
        return wide if self.zero is None else wide + from_bf16(self.zero[at])[:, group]

    @cached_property
    def reach(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """What bounds a product: (G,) largest |codes - offset| and |zero|, and the largest scale.

        The first is the length of a row's codes in the group. A scale of infinity says that a
        number is not finite. O(n d), kept.
        """
        groups, norm = self.layout.groups(), np.zeros(self.layout.num_groups)
        zero, top = np.zeros(self.layout.num_groups), 0.0
        for start in range(0, len(self.values), _ROWS):
            part = slice(start, start + _ROWS)
            codes = self.layout.unpack(self.values[part]).astype(np.float32)
            codes = np.square(codes - np.float32(self.offset))
            for g, columns in enumerate(groups):
                norm[g] = max(norm[g], codes[:, columns].sum(1).max(initial=0.0))
            top = max(top, _largest(from_bf16(self.scale[part])))
            if self.zero is not None:
                middle = np.abs(from_bf16(self.zero[part]))
                top = top if np.isfinite(middle).all() else np.inf
                zero = np.maximum(zero, middle.max(0, initial=0.0))
        return np.sqrt(norm) * (1 + 2.0**-18), zero, top


def _largest(scale: F32) -> float:
    return float(scale.max(initial=0.0)) if np.isfinite(scale).all() else np.inf


@njit(cache=True, nogil=True)
def _decode(
    values: Any, scale: Any, zero: Any, at: Any, runs: Any, bits: Any, offset: Any, out: Any
) -> None:
    """Write rows ``at`` as float32; the innermost loops run over bytes, in SIMD."""
    mask, pair = np.uint8((1 << bits) - 1), np.zeros(2, np.uint32)
    wide = pair.view(np.float32)
    for place in range(len(at)):
        row = at[place]
        for run in range(len(runs)):
            first, count, start, group = runs[run]
            size = (count * bits + 7) // 8
            pair[0], pair[1] = np.uint32(scale[row, group]) << np.uint32(16), np.uint32(0)
            if len(zero):
                pair[1] = np.uint32(zero[row, group]) << np.uint32(16)
            step, middle = wide[0], wide[1]
            for plane in range(8 // bits):
                begin, shift = plane * size, np.uint8(plane * bits)
                some = min(size, count - begin)
                codes = values[row, start : start + some]
                found = out[place, first + begin : first + begin + some]
                for j in range(np.uint64(max(0, some))):
                    code = np.float32((codes[j] >> shift) & mask)
                    found[j] = step * (code - offset) + middle
