"""The same list for everybody: items by a popularity that was counted once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from martlet.core import Queries, QueryError, Ranking, Reason, tie_key
from martlet.scorers.shown import check_k, topk_candidates
from martlet.scorers.table import Table


@dataclass(frozen=True, eq=False)
class Popular:
    """Scores an item by its popularity, whoever asks.

    Attributes:
        popularity: (n, 1) table.
    """

    popularity: Table
    kind: ClassVar[str] = "popular"

    @property
    def num_items(self) -> int:
        """Rows of the item vocabulary."""
        return self.popularity.shape[0]

    @cached_property
    def _order(self) -> NDArray[np.int32]:
        """All item rows that may be ranked, best first."""
        score = self._score
        rows = np.flatnonzero(score > -np.inf).astype(np.int32)
        return rows[np.lexsort((tie_key(rows), -score[rows]))]

    @cached_property
    def _score(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(self.popularity.dense()[:, 0])

    def topk(self, queries: Queries, k: int) -> Ranking:
        """Return the k most popular items that each query may be shown.

        O(B (k + longest hidden row)) once the order is known.

        Raises:
            QueryError: ``k`` is below 1.
        """
        check_k(k)
        if queries.candidates is not None:
            return topk_candidates(self, queries, k)
        order = self._order
        if queries.allow is not None:
            order = order[queries.allow[order]]
        hidden = queries.hidden()
        # Nobody can lose more of the head than they have hidden.
        head = order[: k + int(hidden.lengths.max(initial=0))]
        shown = np.ones((len(queries), len(head)), bool)
        if hidden.nnz:
            place = np.full(self.num_items, -1, np.int32)
            place[head] = np.arange(len(head), dtype=np.int32)
            at = place[hidden.indices]
            shown[hidden.row_numbers()[at >= 0], at[at >= 0]] = False
        first = np.argsort(~shown, axis=1, kind="stable")[:, :k]
        there = np.take_along_axis(shown, first, axis=1)
        rows = np.full((len(queries), k), -1, np.int32)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        rows[:, : there.shape[1]] = np.where(there, head[first], -1)
        scores[:, : there.shape[1]] = np.where(there, self._score[head[first]], -np.inf)
        return Ranking(rows, scores)

    def score(self, queries: Queries, candidates: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return (B, C) float32 popularities; -inf where a candidate is -1."""
        known = candidates >= 0
        return np.where(known, self._score[np.where(known, candidates, 0)], np.float32(-np.inf))

    def similar(self, item_row: int, k: int) -> Ranking:
        """Refuse: popularity knows no likeness.

        Raises:
            QueryError: always.
        """
        raise QueryError(
            "popularity knows of no item that is like another: ask a bundle of item-knn, EASE, "
            "a graph filter or iALS"
        )

    def explain(self, queries: Queries, items: NDArray[np.int32]) -> list[list[Reason]]:
        """Return the one reason there is, for each query."""
        return [[Reason(-1, 1.0, "popular with everyone")] for _ in range(len(queries))]

    def tables(self) -> Mapping[str, Table]:
        """Return every parameter by name."""
        return {"popularity": self.popularity}

    def with_tables(self, tables: Mapping[str, Table]) -> Popular:
        """Return the same scorer over other storages."""
        return Popular(tables["popularity"])

    def config(self) -> dict[str, Any]:
        """Return what ``from_parts`` needs beside the tables, as plain JSON."""
        return {}

    @staticmethod
    def from_parts(config: Mapping[str, Any], tables: Mapping[str, Table], files: Path) -> Popular:
        """Return the scorer that a bundle stored."""
        return Popular(tables["popularity"])
