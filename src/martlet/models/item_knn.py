"""Item-based nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Dataset, SpecError, check_counts, num_threads, settle
from martlet.scorers.item_item import ItemItem
from martlet.scorers.table import Table

Weighting = Literal["none", "tf-idf", "bm25"]
_BM25_K1, _BM25_B = 1.2, 0.75  # the usual values of Robertson and Zaragoza


@dataclass(frozen=True)
class ItemKNN:
    """Scores an item by its similarity to the items of the history.

    **Source**: Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms" (WWW
    2001), for the cosine; the shrinkage of Bell and Koren (2007); TF-IDF and BM25 weights as in
    text retrieval, with users as terms and items as documents.
    **Differs**: the shrinkage is added to the product of the lengths, as in "Are We Really Making
    Much Progress?" (RecSys 2019). Each item of the history keeps its own nearest neighbours (as
    opposed to each scored item), so that scoring reads one short row for each.

    Attributes:
        neighbours: most similar items kept for each item.
        shrink: added to the product of two lengths; large values distrust rare pairs.
        weighting: "none", "tf-idf" or "bm25" on the user x item matrix before the cosine.
        exponent: power of the lengths that are divided by: 1 is the cosine, smaller favours
            popular items.
        weighted: whether the weights of the events count, or only that they are there.
    """

    neighbours: int = 200
    shrink: float = 10.0
    weighting: Weighting = "none"
    exponent: float = 1.0
    weighted: bool = False

    def __post_init__(self) -> None:
        settle(self)
        check_counts(self, "neighbours")
        if not self.shrink >= 0:
            raise SpecError(f"shrink is {self.shrink}: expected a number of at least 0")

    def fit(self, dataset: Dataset, *, seed: int = 0) -> ItemItem:
        """Return the nearest neighbours of each item.

        O(sum over users of |history|^2) time, O(n neighbours + threads n) memory.
        """
        from martlet.kernels.item_item import neighbours

        matrix = self._weigh(dataset.train.matrix)
        squared = np.bincount(matrix.indices, matrix.weights() ** 2, minlength=matrix.num_cols)
        norm = (squared ** (self.exponent / 2)).astype(np.float32)
        nearest = neighbours(
            matrix, self.neighbours, norm=norm, shrink=self.shrink, num_threads=num_threads()
        )
        return ItemItem(Table.of_csr(nearest), weighted=self.weighted)

    def _weigh(self, matrix: CSR) -> CSR:
        values = matrix.weights() if self.weighted else np.ones(matrix.nnz, np.float32)
        if self.weighting != "none":
            user = matrix.row_numbers()
            idf = np.log1p(matrix.num_cols / np.maximum(1, matrix.lengths))
            frequency = np.sqrt(values)
            if self.weighting == "bm25":
                frequency = self._saturate(values, matrix)
            values = (frequency * idf[user]).astype(np.float32)
        return CSR(matrix.indptr, matrix.indices, values, matrix.num_cols)

    @staticmethod
    def _saturate(values: NDArray[np.float32], matrix: CSR) -> NDArray[np.floating]:
        length = np.bincount(matrix.indices, values, minlength=matrix.num_cols)
        relative = length / max(float(length.mean()), 1e-12)
        damp = _BM25_K1 * (1 - _BM25_B + _BM25_B * relative[matrix.indices])
        return values * (_BM25_K1 + 1) / (values + damp)

    def flops(self, dataset: Dataset) -> int:
        """Operations of a fit: a multiplication and an addition a pair of items in a history."""
        lengths = dataset.train.matrix.lengths
        return int(2 * (lengths**2).sum())

    def bytes(self, num_items: int) -> int:
        """Bytes of the fitted table at most: 8 a neighbour and 8 an item."""
        kept = min(self.neighbours, max(0, num_items - 1))
        return 8 * num_items * kept + 8 * (num_items + 1)
