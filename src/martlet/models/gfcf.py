"""Graph filter collaborative filtering: no training, two filters over the item graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Dataset, SpecError, num_threads, rng, settle
from martlet.scorers.item_item import ItemItem, LowRank
from martlet.scorers.table import Table

F32 = NDArray[np.float32]
_OVERSAMPLE, _POWER = 16, 4  # of the randomized decomposition


@dataclass(frozen=True)
class GFCF:
    """Smooths a history over the normalized item graph: a linear filter and an ideal low pass.

    With R' = D_u^-1/2 R D_i^-1/2 and its ``rank`` leading right vectors V, a history h scores
    h R'^T R' + ideal h D_i^-1/2 V V^T D_i^1/2.

    **Source**: Shen et al., "How Powerful is Graph Convolution for Recommendation?" (CIKM 2021),
    equations 9 and 10.
    **Differs**: the singular vectors come from a randomized decomposition; of R'^T R' each item
    keeps its ``keep`` largest entries, itself among them.

    Attributes:
        rank: vectors of the ideal low pass.
        ideal: weight of the ideal low pass beside the linear filter.
        keep: neighbours kept for each item.
    """

    rank: int = 64
    ideal: float = 0.3
    keep: int = 400

    def __post_init__(self) -> None:
        settle(self)
        if self.rank < 1 or self.keep < 1:
            raise SpecError(f"rank {self.rank}, keep {self.keep}: expected whole numbers above 0")
        if not self.ideal >= 0:
            raise SpecError(f"ideal is {self.ideal}: expected a number of at least 0")

    def fit(self, dataset: Dataset, *, seed: int = 0) -> ItemItem:
        """Return the two filters.

        O(sum over users of |history|^2 + nnz rank + n rank^2) time, O(n (keep + rank)) memory.
        """
        from martlet.kernels.item_item import neighbours

        train = dataset.train.matrix
        user = np.maximum(train.lengths, 1) ** -0.5
        degree = np.bincount(train.indices, minlength=train.num_cols).astype(np.float64)
        item = np.where(degree > 0, np.maximum(degree, 1) ** -0.5, 0.0)
        values = (user[train.row_numbers()] * item[train.indices]).astype(np.float32)
        graph = CSR(train.indptr, train.indices, values, train.num_cols)
        linear = neighbours(graph, self.keep, diagonal=True, num_threads=num_threads())
        low_rank = None
        if self.ideal:
            factors = _right_vectors(graph, min(self.rank, train.num_rows, train.num_cols), seed)
            back = self.ideal * np.sqrt(degree)
            low_rank = LowRank(Table.of(factors), Table.of(item), Table.of(back))
        return ItemItem(Table.of_csr(linear), low_rank)

    def flops(self, dataset: Dataset) -> int:
        """Operations of a fit: pairs of a history, sparse products, orthogonalizations."""
        train = dataset.train.matrix
        width = min(self.rank + _OVERSAMPLE, train.num_rows, train.num_cols) if self.ideal else 0
        dense = 4 * _POWER * train.num_cols * width**2
        return int(2 * (train.lengths**2).sum()) + (4 * _POWER + 2) * train.nnz * width + dense

    def bytes(self, num_items: int) -> int:
        """Bytes of the fitted tables at most."""
        kept = min(self.keep, num_items)
        low = 4 * num_items * (min(self.rank, num_items) + 2) if self.ideal else 0
        return 8 * num_items * kept + 8 * (num_items + 1) + low


def _right_vectors(graph: CSR, rank: int, seed: int) -> F32:
    """Return (n, rank) leading right singular vectors.

    **Source**: Halko, Martinsson and Tropp (2011), algorithm 4.4, then Rayleigh and Ritz: the
    eigenvectors of the graph within the subspace that was found.
    """
    import scipy.sparse as sp

    shape = graph.num_rows, graph.num_cols
    x = sp.csr_matrix((graph.weights(), graph.indices, graph.indptr), shape)
    xt = x.T.tocsr()
    width = min(rank + _OVERSAMPLE, *shape)
    basis = rng(seed, "gfcf").standard_normal((shape[1], width), np.float32)
    for _ in range(_POWER):
        basis, _ = np.linalg.qr(xt @ (x @ basis))
    seen = x @ basis
    _, turn = np.linalg.eigh(seen.T.astype(np.float64) @ seen)
    return np.ascontiguousarray(basis @ turn[:, ::-1][:, :rank].astype(np.float32))
