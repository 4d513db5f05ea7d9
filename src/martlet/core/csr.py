"""Ragged rows of item rows: the one sparse layout of the project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class CSR:
    """Compressed sparse rows.

    Attributes:
        indptr: (num_rows + 1,) int64; row r lies at ``indptr[r]:indptr[r + 1]``.
        indices: (nnz,) int32 column numbers, in any order within a row.
        values: (nnz,) float32, or None where every entry counts 1.
        num_cols: columns of the matrix.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32] | None
    num_cols: int

    @property
    def num_rows(self) -> int:
        """Rows of the matrix."""
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        """Stored entries."""
        return len(self.indices)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(num_rows,) entries of each row."""
        return self.indptr[1:] - self.indptr[:-1]

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        values = 0 if self.values is None else self.values.nbytes
        return self.indptr.nbytes + self.indices.nbytes + values

    def weights(self) -> NDArray[np.float32]:
        """(nnz,) float32: the values, or ones."""
        return np.ones(self.nnz, np.float32) if self.values is None else self.values

    def row(self, row: int) -> NDArray[np.int32]:
        """Column numbers of one row."""
        return self.indices[self.indptr[row] : self.indptr[row + 1]]

    def row_numbers(self) -> NDArray[np.int32]:
        """(nnz,) int32: the row number of each entry."""
        if self.num_rows == 1:
            return np.zeros(self.nnz, np.int32)
        return np.repeat(np.arange(self.num_rows, dtype=np.int32), self.lengths)

    def positions(self, rows: NDArray[np.integer]) -> tuple[NDArray[np.int64], Any]:
        """Return the offsets of ``take(rows)`` and where its entries lie: an array or a slice."""
        if len(rows) and rows[0] >= 0 and (len(rows) == 1 or (np.diff(rows) == 1).all()):
            indptr = self.indptr[rows[0] : int(rows[-1]) + 2]
            return indptr - indptr[0], slice(indptr[0], indptr[-1])
        rows = np.asarray(rows, np.int64)
        known = rows >= 0
        start = np.where(known, self.indptr[rows], 0)
        length = np.where(known, self.indptr[rows + 1] - start, 0)
        indptr = np.concatenate([[0], np.cumsum(length)])
        return indptr, np.arange(indptr[-1]) + np.repeat(start - indptr[:-1], length)

    def take(self, rows: NDArray[np.integer]) -> CSR:
        """Return the given rows, in that order; row -1 becomes an empty row."""
        indptr, at = self.positions(rows)
        values = None if self.values is None else self.values[at]
        return CSR(indptr, self.indices[at], values, self.num_cols)

    def transpose(self) -> CSR:
        """Return the matrix with rows and columns exchanged; rows come out sorted."""
        return CSR.from_pairs(
            self.indices, self.row_numbers(), self.values, (self.num_cols, self.num_rows)
        )

    @staticmethod
    def from_pairs(
        rows: NDArray[np.integer],
        cols: NDArray[np.integer],
        values: NDArray[np.float32] | None,
        shape: tuple[int, int],
    ) -> CSR:
        """Build from (row, column) pairs; entries of a row keep their given order."""
        num_rows, num_cols = shape
        indptr = np.zeros(num_rows + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=num_rows), out=indptr[1:])
        order = np.argsort(rows, kind="stable")
        indices = np.asarray(cols, np.int32)[order]
        return CSR(indptr, indices, None if values is None else values[order], num_cols)

    @staticmethod
    def from_rows(
        rows: Sequence[Sequence[int] | NDArray[np.integer]],
        num_cols: int,
        values: Sequence[Sequence[float]] | None = None,
    ) -> CSR:
        """Build from a list of rows, each a list of column numbers.

        >>> CSR.from_rows([[2, 0], [], [1]], num_cols=3).lengths.tolist()
        [2, 0, 1]
        """
        indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)])
        flat = [np.asarray(row, np.int32) for row in rows]
        indices = np.concatenate([*flat, np.empty(0, np.int32)])
        data = None
        if values is not None:
            parts = [np.asarray(row, np.float32) for row in values]
            data = np.concatenate([*parts, np.empty(0, np.float32)])
        return CSR(indptr.astype(np.int64), indices, data, num_cols)

    @staticmethod
    def empty(num_rows: int, num_cols: int) -> CSR:
        """Return a matrix with no entries."""
        return CSR(np.zeros(num_rows + 1, np.int64), np.empty(0, np.int32), None, num_cols)
