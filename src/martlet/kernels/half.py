"""Half precision is for storage here: widened block by block, by SIMD, just before it is used.

That is float16, and bfloat16 as the uint16 of its bits: the upper half of a float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.kernels.jit import njit


def widen(halves: NDArray[np.float16], start: int, stop: int) -> NDArray[np.float32]:
    """Return columns ``start:stop`` of (d, n) float16 as (d, stop - start) float32, C-contiguous.

    Bit for bit what NumPy's ``astype`` gives (but for a NaN's payload), about ten times as fast on
    processors whose NumPy converts one value at a time. O(d (stop - start)).
    """
    wide = np.empty((len(halves), stop - start), np.float32)
    _widen(halves.view(np.uint16), start, wide.view(np.uint32), wide)
    return wide


def widen_reference(halves: NDArray[np.float16], start: int, stop: int) -> NDArray[np.float32]:
    """Return what ``widen`` returns, in NumPy."""
    return np.ascontiguousarray(halves[:, start:stop].astype(np.float32))


def widen_bf16(halves: NDArray[np.uint16], start: int, stop: int) -> NDArray[np.float32]:
    """Return columns ``start:stop`` of (d, n) bits of bfloat16 as (d, stop - start) float32.

    Exact, as ``from_bf16`` is. O(d (stop - start)).
    """
    bits = np.empty((len(halves), stop - start), np.uint32)
    _widen_bf16(halves, start, bits)
    return bits.view(np.float32)


def from_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the float32 that bits of bfloat16 stand for, C-contiguous."""
    wide = np.empty(bits.shape, np.uint32)
    np.left_shift(bits, np.uint32(16), out=wide, dtype=np.uint32)
    return wide.view(np.float32)


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the bits of the nearest bfloat16, ties to even; a NaN stays one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    up = np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    near = np.where(np.isnan(values), bits | np.uint32(1 << 22), bits + up)
    return (near >> np.uint32(16)).astype(np.uint16)


@njit(cache=True, nogil=True)
def _widen(halves: Any, start: int, bits: Any, wide: Any) -> None:
    """Move sign, exponent and fraction to their new places, then mend the exponent's bias.

    The product by 2^112 mends normal and subnormal halves alike, and is exact.
    """
    begin, width = np.uint64(start), np.uint64(wide.shape[1])
    for f in range(len(wide)):
        for j in range(width):
            half = np.uint32(halves[f, begin + j])
            moved = ((half & np.uint32(0x7FFF)) << np.uint32(13)) | (
                (half & np.uint32(0x8000)) << np.uint32(16)
            )
            special = (half & np.uint32(0x7C00)) == np.uint32(0x7C00)
            bits[f, j] = moved | (np.uint32(0x7F800000) if special else np.uint32(0))
        for j in range(width):
            wide[f, j] = wide[f, j] * np.float32(2.0**112)


@njit(cache=True, nogil=True)
def _widen_bf16(halves: Any, start: int, bits: Any) -> None:
    """Move the bits of each bfloat16 to the upper half of a float32."""
    begin, width = np.uint64(start), np.uint64(bits.shape[1])
    for f in range(len(bits)):
        for j in range(width):
            bits[f, j] = np.uint32(halves[f, begin + j]) << np.uint32(16)
