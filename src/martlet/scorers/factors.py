"""A user is a vector, an item is a vector, and their product is the score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from martlet.core import Queries, Ranking, Reason
from martlet.scorers.projections import Projection, projection_from
from martlet.scorers.reasons import event_reasons
from martlet.scorers.search import topk_vectors
from martlet.scorers.shown import (
    best_of_all,
    check_k,
    dot_candidates,
    topk_candidates,
)
from martlet.scorers.table import Table, blocks, tables_under

if TYPE_CHECKING:
    from martlet.scorers.index import Index


@dataclass(frozen=True, eq=False)
class Factors:
    """Projects a history to a vector, and ranks items by their product with it.

    Attributes:
        items: (n, d) item vectors.
        projection: how a history becomes a (d,) vector.
        index: searched in place of the whole table, where there is one.
        columns: text columns of the catalogue that the item vectors were made of, if they were:
            an explanation then tells what two items share in them.
    """

    items: Table
    projection: Projection
    index: Index | None = None
    columns: tuple[str, ...] = ()
    kind: ClassVar[str] = "factors"

    @property
    def num_items(self) -> int:
        """Rows of the item vocabulary."""
        return self.items.shape[0]

    def encode(self, queries: Queries) -> NDArray[np.float32]:
        """Return the (B, d) float32 vectors of the users, the same whatever the batch."""
        return self.projection.project(queries, self.items)

    def knows(self, queries: Queries) -> NDArray[np.bool_]:
        """Return (B,) bool: the queries that have a vector."""
        return self.projection.knows(queries)

    @property
    def extra_bytes(self) -> int:
        """Bytes of the index."""
        return 0 if self.index is None else self.index.nbytes

    def topk(self, queries: Queries, k: int) -> Ranking:
        """Return the k items of largest product that each query may be shown. O(B n d).

        Raises:
            QueryError: ``k`` is below 1.
        """
        check_k(k)
        if queries.candidates is not None:
            return topk_candidates(self, queries, k)
        return topk_vectors(self.encode(queries), self.items, queries, k, self.index)

    def score(self, queries: Queries, candidates: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return (B, C) float32 products; -inf where a candidate is -1. O(B C d)."""
        return dot_candidates(self.encode(queries), self.items, candidates)

    def similar(self, item_row: int, k: int) -> Ranking:
        """Return the (1, k) items of largest cosine with one item, itself left out. O(n d)."""
        check_k(k)
        vector = self.items.rows(np.array([item_row]))[0]
        cosine = np.empty(self.num_items, np.float32)
        for start, stop in blocks(*self.items.shape):
            cosine[start:stop] = self.items.rows(slice(start, stop)) @ vector
        length = self._lengths * self._lengths[item_row]
        np.divide(cosine, length, out=cosine, where=length > 0)
        cosine[item_row] = -np.inf
        return best_of_all(cosine, k)

    @cached_property
    def _lengths(self) -> NDArray[np.float32]:
        parts = [self.items.rows(slice(*block)) for block in blocks(*self.items.shape)]
        return np.concatenate([np.sqrt(np.einsum("ij,ij->i", part, part)) for part in parts])

    def explain(self, queries: Queries, items: NDArray[np.int32]) -> list[list[Reason]]:
        """Return, for item ``items[b]`` of query b, what each event of the history adds.

        A share is a part over the sum of all magnitudes, so shares add to 1 where no part is
        negative. A projection that the history does not decide gives one reason of row -1.
        """
        parts = self.projection.parts(queries, self.items, items)
        if parts is None:
            return [[Reason(-1, 1.0, "close to what is known of the user")] for _ in items]
        return event_reasons(queries, parts)

    def tables(self) -> Mapping[str, Table]:
        """Return every parameter by name."""
        own = self.projection.tables()
        return {"items": self.items, **{f"projection.{name}": own[name] for name in own}}

    def with_tables(self, tables: Mapping[str, Table]) -> Factors:
        """Return the same scorer over other storages, without an index: it knew the old vectors."""
        projection = self.projection.with_tables(tables_under(tables, "projection"))
        return replace(self, items=tables["items"], projection=projection, index=None)

    def with_index(self, index: Index | None) -> Factors:
        """Return the same scorer searched through another index."""
        return replace(self, index=index)

    def config(self) -> dict[str, Any]:
        """Return what ``from_parts`` needs beside the tables, as plain JSON."""
        projection = {"kind": self.projection.kind, **self.projection.config()}
        own = {"columns": list(self.columns)} if self.columns else {}
        return {"projection": projection, "index": index_config(self.index), **own}

    def save_files(self, folder: Path) -> None:
        """Write what is not a table into ``folder``."""
        if self.index is not None:
            self.index.save(folder)

    @staticmethod
    def from_parts(config: Mapping[str, Any], tables: Mapping[str, Table], files: Path) -> Factors:
        """Return the scorer that a bundle stored."""
        items = tables["items"]
        own = tables_under(tables, "projection")
        projection = projection_from(config["projection"], own, items.shape)
        index = index_from(config["index"], files, items)
        return Factors(items, projection, index, tuple(map(str, config.get("columns", ()))))


def index_config(index: Index | None) -> dict[str, Any] | None:
    """Return what ``index_from`` needs beside the files, as plain JSON."""
    return None if index is None else {"kind": index.kind, **index.config()}


def index_from(config: Mapping[str, Any] | None, files: Path, items: Table) -> Index | None:
    """Return the index over ``items`` that a bundle stored."""
    if config is None:
        return None
    from martlet.scorers.index import load_index

    return load_index(files, config, items)
