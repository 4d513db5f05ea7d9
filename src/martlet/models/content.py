"""Items by their words, so that one that nobody has met yet can be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import Column, DataError, Dataset, SpecError, Text, check_counts, rng, settle
from martlet.scorers.alike import WORD
from martlet.scorers.factors import Factors
from martlet.scorers.projections import LinearFold
from martlet.scorers.table import Table

F32 = NDArray[np.float32]
_OVERSAMPLE = 16
_POWER = 4


@dataclass(frozen=True)
class Content:
    """A user is the mean of the items met; an item is what its texts say.

    Each text column of the catalogue becomes a matrix of its words, a row an item, by TF-IDF:
    (1 + log tf) (1 + log(n / df)), rows of length 1, so that a column counts as much as another
    however long its texts are. Side by side they are cut to ``dim`` numbers by a truncated SVD,
    and made length 1 again: the score is the mean cosine to what the user met. No event is learnt
    from, so an item without any is placed like all others. O(words dim) time and O(n dim) memory
    beside the words.

    **Source**: Deerwester et al., "Indexing by Latent Semantic Analysis" (1990); Pazzani and
    Billsus, "Content-Based Recommendation Systems" (2007).
    **Differs**: texts are cut at everything that is no letter or digit; languages that put no
    space between words give few words in common.

    Attributes:
        dim: length of the vectors; fewer where there are fewer words.
        columns: the text columns to read, separated by commas; "" reads all.
        min_items: items a word must stand in: what stands in one alone joins nothing.
        max_share: share of the items above which a word is left out: it tells none apart.
    """

    dim: int = 128
    columns: str = ""
    min_items: int = 2
    max_share: float = 0.5

    def __post_init__(self) -> None:
        settle(self)
        check_counts(self, "dim", "min_items")
        if not 0 < self.max_share <= 1:
            raise SpecError(f"max_share is {self.max_share}: expected above 0, and at most 1")

    def fit(self, dataset: Dataset, *, seed: int = 0) -> Factors:
        """Return the vectors of the items.

        Raises:
            DataError: the catalogue has no such text, or no word stands in enough items.
        """
        names = self._names(dataset.catalogue)
        vectors = _spectrum(self._matrix(dataset, names), self.dim, seed)
        return Factors(Table.of(_unit(vectors)), LinearFold(), columns=names)

    def flops(self, dataset: Dataset) -> int:
        """Operations of a fit: the products of the power iterations, and what makes bases.

        With texts of some ten words an item.
        """
        n, width = dataset.num_items, self.dim + _OVERSAMPLE
        return (4 * _POWER + 2) * 10 * n * width + 4 * _POWER * n * width**2

    def bytes(self, num_items: int) -> int:
        """Bytes of the vectors at most."""
        return 4 * num_items * min(self.dim, num_items)

    def _names(self, catalogue: Mapping[str, Column]) -> tuple[str, ...]:
        texts = tuple(name for name, column in catalogue.items() if isinstance(column, Text))
        asked = tuple(name.strip() for name in self.columns.split(",") if name.strip()) or texts
        for name in asked:
            if name not in texts:
                have = ", ".join(texts) or "none"
                raise DataError(f"the catalogue has no text column {name!r}: it has {have}")
        if not asked:
            raise DataError(
                "the catalogue has no text to know an item by: prepare the log with a table of "
                "items that has titles, categories or descriptions"
            )
        return asked

    def _matrix(self, dataset: Dataset, names: tuple[str, ...]) -> Any:
        """Return the sparse (n, words of all columns) TF-IDF, each column's rows of length 1."""
        import scipy.sparse as sp

        parts = [self._words(dataset.catalogue[name]) for name in names]
        parts = [part for part in parts if part.shape[1]]
        if not parts:
            raise DataError(
                f"no word of {', '.join(names)} stands in {self.min_items} items and in at most "
                f"{self.max_share:.0%} of them: there is nothing to tell items alike by"
            )
        return sp.hstack(parts, "csr", np.float32)

    def _words(self, column: Any) -> Any:
        import polars as pl
        import scipy.sparse as sp

        n = len(column)
        frame = pl.DataFrame({"item": np.arange(n, dtype=np.int32), "text": list(column)})
        found = (
            frame.select("item", pl.col("text").str.to_lowercase().str.extract_all(WORD))
            .explode("text")
            .drop_nulls()
            .group_by("item", "text")
            .len("count")
        )
        kept = (
            found.group_by("text")
            .len("items")
            .filter(pl.col("items").is_between(self.min_items, max(self.max_share * n, 1)))
            .sort("text")
            .with_row_index("word")
        )
        found = found.join(kept, on="text").sort("item", "word")
        weight = (1 + np.log(found["count"])) * (1 + np.log(n / found["items"]))
        places = (found["item"].to_numpy(), found["word"].to_numpy())
        matrix = sp.csr_matrix((np.asarray(weight, np.float32), places), (n, len(kept)))
        length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1)).ravel())
        return sp.diags(1 / np.where(length > 0, length, 1)).astype(np.float32) @ matrix


def _spectrum(matrix: Any, dim: int, seed: int) -> F32:
    """Return (n, <= dim) left singular vectors times their values.

    **Source**: Halko, Martinsson and Tropp (2011), algorithm 4.4, then Rayleigh and Ritz.
    """
    rank = min(dim, *matrix.shape)
    width = min(rank + _OVERSAMPLE, *matrix.shape)
    across = matrix.T.tocsr()
    basis = rng(seed, "content").standard_normal((matrix.shape[1], width), np.float32)
    for _ in range(_POWER):
        basis, _ = np.linalg.qr(across @ (matrix @ basis))
    seen = matrix @ basis
    value, turn = np.linalg.eigh(seen.T.astype(np.float64) @ seen)
    # What is no more than rounding would be blown up to length 1.
    kept = np.flatnonzero(value > 1e-10 * value[-1])[::-1][:rank]
    return np.ascontiguousarray(seen @ turn[:, kept].astype(np.float32))


def _unit(vectors: F32) -> F32:
    """Return the rows at length 1; a row of an item without words stays 0."""
    length = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    scale = np.where(length > 1e-6, length, np.inf).astype(np.float32)
    return vectors / scale[:, None]
