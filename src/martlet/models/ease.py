"""Embarrassingly shallow autoencoder, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from martlet.core import CSR, Dataset, Executor, SpecError
from martlet.scorers.item_item import ItemItem
from martlet.scorers.table import Table

_MAX_BYTES = 8 << 30  # two matrices of 32,768 items squared


@dataclass(frozen=True)
class EASE:
    """Predicts each item from all others by ridge regression with a zero diagonal.

    **Source**: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (WWW 2019), equation 8:
    B = I - P diag(1 / diag P) with P = (X^T X + reg I)^-1.
    **Differs**: of each row of B only the ``keep`` entries of largest magnitude are stored, so that
    scoring reads a short row for each item of the history.

    Attributes:
        reg: weight of the squares, in events.
        keep: entries kept for each item.
    """

    reg: float = 200.0
    keep: int = 200

    def __post_init__(self) -> None:
        if not self.reg > 0:
            raise SpecError(f"reg is {self.reg}: expected a number above 0")
        if self.keep < 1:
            raise SpecError(f"keep is {self.keep}: expected a whole number above 0")

    def fit(
        self,
        dataset: Dataset,
        *,
        seed: int = 0,
        init: Any = None,
        teacher: Any = None,
        executor: Executor | None = None,
    ) -> ItemItem:
        """Return the regression weights. O(n^3) operations and 8 n^2 bytes for n items.

        Raises:
            SpecError: the catalogue is too large for a dense inverse.
        """
        import scipy.sparse as sp
        from scipy.linalg import lapack

        n = dataset.num_items
        if 8 * n * n > _MAX_BYTES:
            raise SpecError(
                f"ease inverts a dense matrix of {n:,} x {n:,} items, {8 * n * n / 1e9:.0f} GB: "
                f"expected at most {_MAX_BYTES / 1e9:.0f} GB; drop rare items when preparing, or "
                "take gfcf, item-knn or ials, which stay sparse"
            )
        train = dataset.train.matrix
        x = sp.csr_matrix(
            (np.ones(train.nnz, np.float32), train.indices, train.indptr), (train.num_rows, n)
        )
        gram = np.asfortranarray((x.T @ x).toarray())
        gram[np.diag_indices(n)] += np.float32(self.reg)
        # In place: the Cholesky factor, then the inverse in the lower triangle.
        factor, _ = lapack.spotrf(gram, lower=1, overwrite_a=1, clean=0)
        inverse, _ = lapack.spotri(factor, lower=1, overwrite_c=1)
        lower = np.tril(inverse)
        inverse = lower + np.tril(lower, -1).T
        weights = -inverse / np.diagonal(inverse)
        np.fill_diagonal(weights, 0)
        return ItemItem(Table.of_csr(_largest(weights, self.keep)))

    def flops(self, dataset: Dataset) -> int:
        """Operations of a fit: the products of pairs in a history, and the inverse."""
        pairs = int((dataset.train.matrix.lengths**2).sum())
        return 2 * pairs + dataset.num_items**3

    def bytes(self, num_items: int) -> int:
        """Bytes of the fitted table at most."""
        kept = min(self.keep, max(0, num_items - 1))
        return 8 * num_items * kept + 8 * (num_items + 1)


def _largest(weights: Any, keep: int) -> CSR:
    """Return the entries of largest magnitude of each row, columns rising; zeros left out."""
    n = len(weights)
    if keep >= n:
        rows, cols = np.nonzero(weights)
    else:
        top = np.sort(np.argpartition(np.abs(weights), n - keep, axis=1)[:, n - keep :], axis=1)
        rows, cols = np.repeat(np.arange(n), keep), top.ravel()
        there = weights[rows, cols] != 0
        rows, cols = rows[there], cols[there]
    return CSR.from_pairs(rows, cols, weights[rows, cols].astype(np.float32), (n, n))
