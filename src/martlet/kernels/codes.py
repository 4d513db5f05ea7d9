"""Vectors as int8 codes, and what bounds the error of a product with them.

A row v is kept as codes: v = scale * c + r, with c in int8. A query is kept as q = step * z + p,
with z in int16, so that one integer product a row, z . c, gives

    |q . v - step * scale * (z . c)| <= step * scale * E,
    step * E = |q| R + |p| C + rounding,   R >= |r| / scale,   C >= |c|   over all rows

by Cauchy-Schwarz: one number E a query bounds the error of every row in units of its own scale.
Scales of columns are multiplied into the query, so that every row has the scale 1. What is added to
all codes of a row adds itself times the sum of the query.
Halved, the codes are c = 16 h + l with h and l of four bits in planes of their own, and the query
is z = 256 x + y with x in int8; the high halves alone give

    |z . c - 256 x . (16 h + 7.5)| <= 256 |x| L + |y| C,   L >= |l - 7.5|   over all rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I8 = NDArray[np.int8]
U8 = NDArray[np.uint8]
I32 = NDArray[np.int32]

PAIRED = (
    16  # bytes of halves that hold two runs of as many codes, as ``kernels/dots.py`` reads them
)
GAIN = 256 * 16  # of the product of a coarse query and high halves

_ROWS = 4096  # rows that are worked on at a time
_HALF = 2.0**-24  # the largest relative error of one float32 rounding
_LEAST = 1e-36  # a smaller scale is near the end of float32's range, where errors are absolute
_TINY = 2.0**-149  # the smallest step of float32


@dataclass(frozen=True, eq=False)
class Codes:
    """Rows in int8, and what bounds the error of a product with them.

    Attributes:
        values: (n, d) int8 codes; halved, the (n, w) uint8 high halves plus 8, two to a byte, with
            d filled up by zeros to 2 w, a multiple of 32.
        scale: (n,) float32, at least 0; a value is about its code times the scale of its row. Empty
            where ``columns`` are given.
        vectors: (n, d) float32 or float16 that the codes stand for, in memory or mapped from a
            file; read only where a row may be in the answer. None: the codes are all there is.
        residual: R, the largest |v - scale * c| / scale over the rows; infinite if unknown. Rows
            of vanishing scale are left out: what they are off by is bounded as it stands.
        low: (n, w) uint8 low halves, two to a byte; None where ``values`` are whole codes.
        low_norm: L, the largest |l - 7.5| of a row.
        columns: (d,) float32, at least 0; a value is its code times the scale of its column.
        zero: what is added to that: (n,) float32 to a row, beside ``columns`` (d,) to a column.
    """

    values: I8 | U8
    scale: F32
    vectors: NDArray[np.floating] | None = None
    residual: float = np.inf
    low: U8 | None = None
    low_norm: float = 0.0
    columns: F32 | None = None
    zero: F32 | None = None

    @staticmethod
    def of(vectors: F32) -> Codes:
        """Quantize (n, d) float32 vectors, symmetrically and by row. O(n d)."""
        vectors = np.ascontiguousarray(vectors, np.float32)
        scale = np.abs(vectors).max(1, initial=0.0) / np.float32(127)
        values = np.empty(vectors.shape, np.int8)
        for part in _parts(len(vectors)):
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                exact = np.where(scale[part, None] > 0, vectors[part] / scale[part, None], 0)
            values[part] = np.rint(np.clip(np.nan_to_num(exact), -127, 127))
        return Codes.beside(values, scale, vectors)

    @staticmethod
    def beside(values: I8, scale: F32, vectors: NDArray[np.floating]) -> Codes:
        """Join whole codes to the vectors that they stand for, and measure R. O(n d)."""
        worst = 0.0
        for part in _parts(len(values)):
            size = scale[part].astype(np.float64)
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                rest = vectors[part].astype(np.float64) - values[part] * size[:, None]
                length = np.sqrt(np.einsum("ij,ij->i", rest, rest))
                small = length <= _least(vectors.shape[1])
                ratio = np.where((size < _LEAST) & small, 0.0, length / size)
            # A NaN, from a value that is no finite number, must not be lost to a maximum.
            worst = max(worst, float(np.where(np.isnan(ratio), np.inf, ratio).max(initial=0.0)))
        return Codes(values, scale, vectors, worst * (1 + 2.0**-40))

    def halved(self) -> Codes:
        """Return the same codes in halves, of which a search for one reads half the bytes. O(n d).

        The new arrays take as many bytes as the codes, with d filled up to a multiple of 32.
        """
        n, d = self.values.shape
        width = half_bytes(d)
        high, low = np.empty((n, width), np.uint8), np.empty((n, width), np.uint8)
        worst = 0.0
        for part in _parts(n):
            codes = np.zeros((len(high[part]), 2 * width), np.int8)
            codes[:, :d] = self.values[part]
            off = (codes[:, :d] & 15) - 7.5
            worst = max(worst, float(np.sqrt((off * off).sum(1)).max(initial=0.0)))
            high[part] = _pairs((codes >> 4) + 8)
            low[part] = _pairs(codes & 15)
        return replace(self, values=high, low=low, low_norm=worst)

    @cached_property
    def unit(self) -> float:
        """A power of two that brings the largest scale near 1; NaN if a number is not finite."""
        top = float(np.max(self.scale, initial=0.0)) if self.columns is None else 1.0
        sure = top < np.inf and np.isfinite(self._largest_zero)
        return float(np.ldexp(1.0, min(126, -int(np.frexp(top)[1])))) if sure else np.nan

    @cached_property
    def _largest_zero(self) -> float:
        return 0.0 if self.zero is None else float(np.abs(self.zero).max(initial=0.0))

    def rows(self, at: I32) -> F32:
        """Return the (len(at), d) float32 rows that count: the vectors, or code times scale."""
        if self.vectors is not None:
            return self.vectors[at].astype(np.float32, copy=False)
        each = self.columns is None
        with np.errstate(invalid="ignore", over="ignore"):
            wide: F32 = self.values[at].astype(np.float32)
            wide *= self.scale[at][:, None] if self.columns is None else self.columns
            if self.zero is not None:
                wide += self.zero[at][:, None] if each else self.zero
            return wide

    def shifts(self, vectors: F32, step: NDArray[np.float64]) -> tuple[F32, NDArray[np.float64]]:
        """Return what a zero of a row is multiplied by, and what zeros make a product err by.

        Both (B,), in the units of ``bounds``, whose steps (B,) are given.
        """
        exact = vectors.astype(np.float64)
        shift = np.zeros(len(exact)) if self.columns is not None else exact.sum(1) / step
        rounding = 2 * (exact.shape[1] + 8) * _HALF * np.abs(exact).sum(1) / step
        return (shift * self.unit).astype(np.float32), rounding * self._largest_zero * self.unit

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and scales; the vectors are left out."""
        low = 0 if self.low is None else self.low.nbytes
        return self.values.nbytes + low + self.scale.nbytes

    def bounds(self, vectors: F32) -> tuple[NDArray[np.int16], F32, F32, F32]:
        """Return z, E, what every upper bound has added, and what zeros are multiplied by.

        Args:
            vectors: (B, d) float32 queries.

        Returns:
            (B, d) int16, filled up by zeros to the codes of a row, and (B,) float32 thrice. An
            infinite addition means that nothing is known: every row has to be scored again.
        """
        d = vectors.shape[1]
        limit = min(32767, (2**31 - 1) // (128 * max(1, d)))  # z . c stays within int32
        exact = vectors.astype(np.float64)
        if self.columns is not None:
            with np.errstate(invalid="ignore"):
                exact = exact * self.columns
        top = np.abs(exact).max(1, initial=0.0)
        codes = d if self.low is None else 2 * self.values.shape[1]
        z = np.zeros((len(vectors), codes), np.int16)
        with np.errstate(all="ignore"):
            step = np.where(top > 0, top / limit, 1.0)
            known = np.isfinite(top)[:, None]
            z[:, :d] = np.where(known, np.rint(exact / step[:, None]), 0)
            rest = np.linalg.norm(exact - step[:, None] * z[:, :d], axis=1)
            length = np.linalg.norm(exact, axis=1)
            code = 128 * np.sqrt(d)
            # Without vectors a row is its code times its scale, rounded once, and plus its zero.
            residual = 2 * _HALF * code if self.vectors is None else self.residual
            rounding = 2 * (d + 1) * _HALF * length * (code + residual)
            error = (length * residual + rest * code + rounding) / step
            # The bounds themselves are computed in float32: a few roundings of |z . c| + 3 E.
            error = error * (1 + 2.0**-18) + 2.0**-19 * np.linalg.norm(z, axis=1) * code
            # Below float32's normal range errors are absolute: those of a score, of a bound.
            slack = 1e-30 + (length * _least(d) + 2 * d * _TINY) * self.unit / step
            shift, apart = self.shifts(vectors, step)
            slack = slack + 2 * apart
            largest = length * (code + residual) / self.unit
            sure = (largest < 1e37) & (error < 1e30) & (slack < 1e30) & np.isfinite(shift)
        none = np.float32(np.inf)
        return (
            z,
            np.where(sure, error, 0).astype(np.float32),
            np.where(sure, slack, none).astype(np.float32),
            np.where(sure, shift, 0).astype(np.float32),
        )

    def half_bounds(
        self, z: NDArray[np.int16]
    ) -> tuple[I8, NDArray[np.float64], NDArray[np.float64]]:
        """Return the coarse queries of halved codes, and what bounds z . c from their products.

        With p the product of ``half_dots``, |z . c - GAIN p - middle| <= further.

        Args:
            z: (B, 2 w) int16.

        Returns:
            (B, 2, w) int8 as ``half_dots`` takes them, and (B,) float64 middles and furthers.
        """
        coarse = np.clip(np.rint(z / 256.0), -127, 127)
        rest = np.linalg.norm(z - 256 * coarse, axis=1)
        size = np.linalg.norm(coarse, axis=1)
        further = 256 * size * self.low_norm + rest * 128 * np.sqrt(z.shape[1])
        # A stored half is h + 8, and 16 h + 7.5 its middle.
        middle = 256 * (7.5 - 128) * coarse.sum(1)
        runs = coarse.astype(np.int8).reshape(len(z), -1, 2, PAIRED).swapaxes(1, 2)
        return runs.reshape(len(z), 2, z.shape[1] // 2), middle, further * (1 + 2.0**-18)


def half_bytes(d: int) -> int:
    """Return the bytes that the high or the low halves of d codes take."""
    return -(-d // (2 * PAIRED)) * PAIRED


def _parts(n: int) -> list[slice]:
    return [slice(start, start + _ROWS) for start in range(0, n, _ROWS)]


def _pairs(halves: Any) -> U8:
    """Return (m, w) uint8 of (m, 2 w) values below 16; each second run gets the high bits."""
    runs = halves.astype(np.uint8).reshape(len(halves), -1, 2, PAIRED)
    return (runs[:, :, 0] | runs[:, :, 1] << 4).reshape(len(halves), halves.shape[1] // 2)


def _least(d: int) -> float:
    """Return what a row of a scale below ``_LEAST`` is off by at most."""
    return 256 * _LEAST * float(np.sqrt(d))
