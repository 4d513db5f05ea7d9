"""Rows as product codes: packed for the search, and decoded.

A row is decoded as ``y B``: ``y`` has the codebook entries that its codes name side by side, and
``B`` (d, d) is one basis for all rows. Codes that are scanned stand in blocks of 64 rows,
transposed, as ``kernels/near.py`` reads them; finer ones, read a row here and there, row by row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import num_threads
from martlet.kernels.codebooks import entries_of, runs
from martlet.kernels.jit import njit
from martlet.kernels.near import LANES
from martlet.kernels.parallel import spread

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

FOUR_BITS = 16  # entries of a codebook for codes of 4 bits
_GRAIN = 1 << 20  # multiply-adds that are worth a thread


@dataclass(frozen=True, eq=False)
class ProductCodes:
    """A catalogue of n rows as product codes.

    Attributes:
        values: (blocks, w, 64) uint8 of ``pack``.
        num_rows: n; the last block may have room for more.
        books: (M, 16 or 256, widest run) float32, the codebooks; runs of columns are ``runs``.
        basis: (d, d) float32.
        fine: (n, w2) uint8 of ``paired``, codes of what is left over; or None.
        fine_books: (M2, entries, widest run) float32, or None.
    """

    values: U8
    num_rows: int
    books: F32
    basis: F32
    fine: U8 | None = None
    fine_books: F32 | None = None

    def rows(self, at: NDArray[np.integer]) -> F32:
        """Return the (len(at), d) float32 rows. O(len(at) d^2)."""
        out = np.empty((len(at), len(self.basis)), np.float32)
        places = np.ascontiguousarray(at, np.int64)
        given: Any = self.values, self.books, self.basis, self.fine_codes, self.fine_entries
        cuts: Any = [runs(len(self.basis), len(books)) for books in (self.books, self.fine_entries)]

        def some(start: int, stop: int) -> None:
            _decode(places[start:stop], *given, *cuts, out[start:stop])

        spread(some, len(places), num_threads(), max(1, _GRAIN // max(1, out.shape[1] ** 2)))
        return out

    @cached_property
    def reach(self) -> NDArray[np.float64]:
        """(d,) how large a decoded value can be, column by column, in absolute numbers."""
        parts = [self.books] if self.fine_books is None else [self.books, self.fine_books]
        size = np.zeros(len(self.basis))
        for books in parts:
            cuts = runs(len(size), len(books))
            for book, start, stop in zip(books, cuts[:-1], cuts[1:], strict=True):
                size[start:stop] += np.abs(book[:, : stop - start].astype(np.float64)).max(0)
        return size @ np.abs(self.basis.astype(np.float64))

    @property
    def fine_codes(self) -> U8:
        """``fine``, or an array without rows."""
        return np.zeros((0, 0), np.uint8) if self.fine is None else self.fine

    @property
    def fine_entries(self) -> F32:
        """``fine_books``, or one of a single entry."""
        return np.zeros((1, 1, 1), np.float32) if self.fine_books is None else self.fine_books


def paired(codes: U8, bits: int) -> U8:
    """Return (n, M) codes as (n, w) uint8: with 4 bits two a byte, the first in its low bits."""
    if bits == 8:
        return codes
    even = np.pad(codes, ((0, 0), (0, codes.shape[1] % 2)))
    return even[:, 0::2] | (even[:, 1::2] << np.uint8(4))


def unpaired(values: U8, parts: int, bits: int) -> U8:
    """Return the (n, parts) codes that ``paired`` joined."""
    if bits == 4:
        values = np.stack([values & 15, values >> 4], axis=2).reshape(
            len(values), 2 * values.shape[1]
        )
    return np.ascontiguousarray(values[:, :parts])


def pack(codes: U8, bits: int) -> U8:
    """Return (n, M) codes in blocks of 64 rows, (blocks, w, 64) uint8: a byte of all 64, the next.

    Bytes are those of ``paired``; what is beyond the last row is 0.
    """
    rows = paired(codes, bits)
    whole = np.pad(rows, ((0, -len(rows) % LANES), (0, 0)))
    return np.ascontiguousarray(whole.reshape(-1, LANES, rows.shape[1]).transpose(0, 2, 1))


def unpack(values: U8, num_rows: int, parts: int, bits: int) -> U8:
    """Return the (n, parts) codes that ``pack`` packed."""
    rows = values.transpose(0, 2, 1).reshape(-1, values.shape[1])[:num_rows]
    return unpaired(rows, parts, bits)


def rows_reference(codes: ProductCodes, at: NDArray[np.integer]) -> F32:
    """Return what ``ProductCodes.rows`` returns but for rounding, in NumPy."""
    d, (parts, entries, _) = len(codes.basis), codes.books.shape
    whole = unpack(codes.values, codes.num_rows, parts, 4 if entries == FOUR_BITS else 8)[at]
    y = entries_of(whole, codes.books, d).astype(np.float64)
    if codes.fine is not None and codes.fine_books is not None:
        parts, entries, _ = codes.fine_books.shape
        fine = unpaired(codes.fine[at], parts, 4 if entries == FOUR_BITS else 8)
        y = y + entries_of(fine, codes.fine_books, d)
    return (y @ codes.basis).astype(np.float32)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def code_of(row: Any, part: Any, entries: Any) -> Any:
    """Return one of a row's codes."""
    if entries == FOUR_BITS:
        return (row[part // 2] >> np.uint8(4 * (part % 2))) & np.uint8(15)
    return row[part]


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _decode(
    at: Any, values: Any, books: F32, basis: F32, fine: Any, fine_books: F32, cuts: Any,
    fine_cuts: Any, out: F32,
) -> None:  # fmt: skip
    """Write the rows; each value is summed in the order of the basis's rows."""
    d = len(basis)
    y = np.empty(d, np.float32)
    for place in range(len(at)):
        block, lane = at[place] // LANES, at[place] % LANES
        for part in range(len(books)):
            code = code_of(values[block, :, lane], part, books.shape[1])
            for j in range(cuts[part + 1] - cuts[part]):
                y[cuts[part] + j] = books[part, code, j]
        for part in range(len(fine_books) if len(fine) else 0):
            code = code_of(fine[at[place]], part, fine_books.shape[1])
            for j in range(fine_cuts[part + 1] - fine_cuts[part]):
                y[fine_cuts[part] + j] += fine_books[part, code, j]
        for j in range(np.uint64(d)):
            out[place, j] = np.float32(0)
        for i in range(d):
            value = y[i]
            for j in range(np.uint64(d)):
                out[place, j] = out[place, j] + value * basis[i, j]
