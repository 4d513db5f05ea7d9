"""Vectors of fewer numbers, and layers as products of two thin ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from martlet.compress.basis import F64, Basis, leading
from martlet.compress.item_factors import fewer_factors, item_factors
from martlet.compress.layers import thin_layers
from martlet.compress.queries import training_queries
from martlet.compress.transform import before_index, smaller
from martlet.compress.turned import Cut
from martlet.core import Dataset, Progress, SpecError
from martlet.scorers.bundle import Bundle
from martlet.scorers.item_item import ItemItem

Part = Literal["vectors", "factors", "network"]


@dataclass(frozen=True)
class LowRank:
    """Keep the directions that scores are made of: a truncated decomposition of tables or layers.

    Vectors are turned into the leading directions of what both sides of the score do in them, and
    cut there; folds and lookups turn with them, and a network gets a product before its input and
    behind its output. A matrix of items by items becomes two tables of vectors; with ``of=factors``
    the sparse part stays, and the part beside it that is of a low rank is cut. With ``of=network``
    the weights of layers become products of two, where that takes fewer bytes.

    Attributes:
        rank: directions that stay.
        error: in place of a rank: the share of the scores that may be lost, as root mean squares
            over the bundle's own users (of the values, where no score tells: layers, what a
            network reads); the fewest directions within it stay.
        of: "vectors", "factors" or "network".
    """

    rank: int | None = None
    error: float | None = None
    of: Part = "vectors"

    def __post_init__(self) -> None:
        if self.of not in get_args(Part):
            raise SpecError(f"low-rank of {self.of!r}: expected vectors, factors or network")
        if (self.rank is None) == (self.error is None):
            raise SpecError(
                "low-rank takes a rank or an error: expected such as low-rank:16 or "
                "low-rank:error=.05"
            )
        if self.rank is not None and self.rank < 1:
            raise SpecError(f"rank is {self.rank}: expected at least 1 direction")
        if self.error is not None and not 0 < self.error < 1:
            raise SpecError(f"error is {self.error}: expected a share between 0 and 1")

    @property
    def label(self) -> str:
        """The text that ``parse`` reads the transform from."""
        much = f"error={self.error}" if self.rank is None else str(self.rank)
        return f"low-rank:{much}" + ("" if self.of == "vectors" else f",of={self.of}")

    def of_tables(
        self,
        bundle: Bundle,
        dataset: Dataset | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Bundle:
        """Return a new bundle of a lower rank. O(n d^2 + d^3); of items by items O(nnz rank).

        Raises:
            SpecError: the bundle has an index, nothing has a rank to cut, the values are codes, the
                result would take more bytes, or a network is to be cut without the package onnx.
        """
        scorer: Any = bundle.scorer
        before_index(self.label, scorer)
        if self.of == "network":
            found, told = thin_layers(self.label, scorer, self.rank, self.error)
        elif self.of == "factors" or isinstance(getattr(scorer, "retrieve", scorer), ItemItem):
            found, told = self._items_by_items(bundle, seed)
        else:
            queries = training_queries(bundle, dataset, seed)
            known = bundle.popularity if (bundle.popularity > 0).any() else None
            found, told = Cut(self.label, self._chosen, queries, known).of(scorer)
        after = bundle.then(found, {"transform": self.label, "seed": seed, "tables": told})
        return smaller(
            self.label, bundle, after, "give a lower rank, a larger error, or leave it out"
        )

    def _chosen(self, gram: F64, moment: F64 | None) -> Basis:
        return leading(gram, moment, self.rank, self.error)

    def _items_by_items(self, bundle: Bundle, seed: int) -> tuple[Any, dict[str, Any]]:
        scorer: Any = bundle.scorer
        matrix = getattr(scorer, "retrieve", scorer)
        given = self.label, matrix, bundle.histories
        found: Any
        if self.of == "factors":
            found, told = fewer_factors(*given, self._chosen)
        else:
            found, told = item_factors(*given, self.rank, self.error, seed)
        return (found if scorer is matrix else replace(scorer, retrieve=found)), told
