"""Embarrassingly shallow autoencoder: each item predicted from the others by ridge regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Dataset, SpecError, check_counts, check_memory, num_threads, settle
from martlet.scorers.item_item import ItemItem
from martlet.scorers.table import Table

F32 = NDArray[np.float32]
_BLOCK = 1024  # rows of the dense matrix under work at once


@dataclass(frozen=True)
class EASE:
    """Predicts each item from other items by ridge regression; an item never predicts itself.

    Without ``neighbours`` every item explains every other, by one dense inverse. With them each
    item is explained by its nearest items alone, n small regressions that never meet a dense
    n x n matrix: for catalogues of any size, and as good where most pairs never met.

    **Source**: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (WWW 2019), equation 8:
    B = I - P diag(1 / diag P) with P = (X^T X + reg I)^-1. With neighbours: the feature selection
    of Ning and Karypis, "SLIM" (ICDM 2011), section IV-B, with the squares of EASE alone.
    **Differs**: of each row of the dense B only the ``keep`` entries of largest magnitude are
    stored, so that scoring reads a short row for each item of the history. X^T X counts a pair of
    user u with the weight |history of u|^(-2 user_exponent); 0 is the paper's.

    Attributes:
        reg: weight of the squares, in events.
        neighbours: nearest items (by cosine) that explain an item; None takes all, densely.
        keep: entries kept for each item of the dense B.
        user_exponent: larger values make users of long histories count less.
        memory_mb: the dense matrix is refused above this, in 10^6 bytes.
    """

    reg: float = 200.0
    neighbours: int | None = None
    keep: int = 200
    user_exponent: float = 0.0
    memory_mb: float = 4000.0

    def __post_init__(self) -> None:
        settle(self)
        if not self.reg > 0:
            raise SpecError(f"reg is {self.reg}: expected a number above 0")
        if not 0 <= self.user_exponent <= 2:
            raise SpecError(f"user_exponent is {self.user_exponent}: expected a number from 0 to 2")
        check_counts(self, "keep")
        if self.neighbours is not None and self.neighbours < 1:
            raise SpecError(
                f"neighbours is {self.neighbours}: expected a whole number above 0, or none"
            )

    def fit(self, dataset: Dataset, *, seed: int = 0) -> ItemItem:
        """Return the regression weights.

        Dense: O(n^3) operations, 4 n^2 bytes. With m neighbours: O(n m^3) operations, O(n m) bytes.

        Raises:
            SpecError: the catalogue is too large for the dense inverse or the machine's memory, or
                ``reg`` too small or too large for float32.
        """
        train = dataset.train.matrix
        scale = np.maximum(train.lengths, 1.0) ** -self.user_exponent
        x = CSR(
            train.indptr,
            train.indices,
            scale[train.row_numbers()].astype(np.float32),
            train.num_cols,
        )
        weights = self._dense(x) if self.neighbours is None else self._sparse(x, self.neighbours)
        if not weights.nnz and (train.lengths > 1).any():
            raise SpecError(
                f"reg is {self.reg}: the weights came out zero in float32; expected a smaller reg"
            )
        return ItemItem(Table.of_csr(weights))

    def _sparse(self, x: CSR, top: int) -> CSR:
        from martlet.kernels.item_item import neighbours
        from martlet.kernels.ridge import ridge

        top = min(top, x.num_cols)
        # The list of each item, and the system that a thread has under work.
        needed = 8 * x.num_cols * top + 4 * top**2
        check_memory(f"ease of {top:,} neighbours", needed, "give fewer neighbours")
        squared = np.bincount(x.indices, x.weights() ** 2, minlength=x.num_cols)
        norm = np.sqrt(squared).astype(np.float32)
        nearest = neighbours(x, top, norm=norm, num_threads=num_threads())
        return ridge(x, nearest, self.reg, num_threads()).transpose()

    def _dense(self, x: CSR) -> CSR:
        from scipy.linalg import lapack

        n = x.num_cols
        if 4 * n * n > self.memory_mb * 1e6:
            raise SpecError(
                f"ease inverts a dense matrix of {n:,} x {n:,} items, {4 * n * n / 1e6:,.0f} MB: "
                f"expected at most {self.memory_mb:,.0f} MB; give neighbours=200 for the sparse "
                "form, or a larger memory_mb if the machine has it"
            )
        kept = 8 * n * min(self.keep, n)
        advice = "give neighbours=200 for the sparse form"
        check_memory(f"ease of {n:,} items", 4 * n * n + kept, advice)
        system = _gram(x)
        system[np.diag_indices(n)] += np.float32(self.reg)
        # In place: the Cholesky factor, then the inverse, both in the lower triangle.
        system, failed = lapack.spotrf(system, lower=1, overwrite_a=1, clean=0)
        if not failed:
            system, failed = lapack.spotri(system, lower=1, overwrite_c=1)
        if failed:
            raise SpecError(
                f"reg is {self.reg}: the system has no inverse in float32; "
                "expected a larger reg, some events or more"
            )
        for start in range(0, n, _BLOCK):
            stop = min(n, start + _BLOCK)
            square = np.tril(system[start:stop, start:stop])
            system[start:stop, start:stop] = square + np.tril(square, -1).T
            system[start:stop, stop:] = system[stop:, start:stop].T
        return _largest_weights(system, self.keep)

    def flops(self, dataset: Dataset) -> int:
        """Operations of a fit: pairs of a history, then the inverse or the small systems."""
        n, pairs = dataset.num_items, int((dataset.train.matrix.lengths**2).sum())
        if self.neighbours is None:
            return 2 * pairs + n**3
        return 2 * pairs + n * min(self.neighbours, n - 1) ** 3 // 3

    def bytes(self, num_items: int) -> int:
        """Bytes of the fitted table at most: 8 an entry and 8 an item."""
        kept = min(self.neighbours or self.keep, max(0, num_items - 1))
        return 8 * num_items * kept + 8 * (num_items + 1)


def _gram(x: CSR) -> F32:
    """Return X^T X as (n, n) float32 in Fortran order, made in blocks."""
    import scipy.sparse as sp

    n = x.num_cols
    columns = sp.csr_matrix((x.weights(), x.indices, x.indptr), (x.num_rows, n))
    rows = columns.T.tocsr()
    gram = np.empty((n, n), np.float32, order="F")
    for start in range(0, n, _BLOCK):
        block = rows[start : start + _BLOCK] @ columns
        gram[:, start : start + _BLOCK] = block.toarray().T
    return gram


def _largest_weights(inverse: F32, keep: int) -> CSR:
    """Return of -P diag(1 / diag P), off the diagonal, the entries of largest magnitude a row.

    Columns rise in a row; zeros are left out. Works in blocks of rows.
    """
    n, diagonal = len(inverse), np.diagonal(inverse).copy()
    found: list[tuple[Any, Any, Any]] = []
    for start in range(0, n, _BLOCK):
        weights = -inverse[start : start + _BLOCK] / diagonal
        here = np.arange(len(weights))
        weights[here, start + here] = 0
        if keep < n:
            some = np.argpartition(np.abs(weights), n - keep, axis=1)[:, n - keep :]
            cols = np.sort(some, axis=1).ravel()
            rows = np.repeat(here, keep)
        else:
            rows, cols = np.repeat(here, n), np.tile(np.arange(n), len(here))
        there = weights[rows, cols] != 0
        rows, cols = rows[there], cols[there]
        found.append((start + rows, cols, weights[rows, cols]))
    rows, cols, values = (np.concatenate(part) for part in zip(*found, strict=True))
    return CSR.from_pairs(rows, cols, values, (n, n))
