"""A neural network scores each (query, item) pair from the features of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from martlet.core import BundleError, Queries, QueryError, Ranking, Reason
from martlet.core.queries import is_missing
from martlet.scorers.projections import Projection, projection_from
from martlet.scorers.reasons import left_out_reasons
from martlet.scorers.shown import topk_scores
from martlet.scorers.table import Table, tables_under
from martlet.scorers.tiles import Tiles

RANKER = "ranker.onnx"
_PAIRS = 1 << 14  # looked up at a time


@dataclass(frozen=True, eq=False)
class Ranker:
    """Scores a (query, item) pair by a network over the features of both.

    The network takes ``user`` (N, d_user + contexts) and ``item`` (N, d_item), float32, a row a
    pair, and gives (N,) or (N, 1) logits. Pairs are run in ``Tiles``, so neither the batch nor the
    number of candidates touches a digit.

    Attributes:
        items: (n, d_item) features of the items.
        projection: how a history becomes the user's features.
        network: the ONNX file's content.
        history: (n, d) vectors that the projection sees where they are not ``items``.
        context: names of the query's columns that follow the user's features; 0 where missing.
        parameters: the network's own weights, which it was derived from.
    """

    items: Table
    projection: Projection
    network: bytes
    history: Table | None = None
    context: tuple[str, ...] = ()
    parameters: Mapping[str, Table] = field(default_factory=dict)
    kind: ClassVar[str] = "ranker"

    @property
    def num_items(self) -> int:
        """Rows of the item vocabulary."""
        return self.items.shape[0]

    @property
    def extra_bytes(self) -> int:
        """Bytes of the network."""
        return len(self.network)

    @cached_property
    def _tiles(self) -> Tiles:
        return Tiles(self.network, {"user": 2, "item": 2})

    def knows(self, queries: Queries) -> NDArray[np.bool_]:
        """Return (B,) bool: the queries with features of their own."""
        known = self.projection.knows(queries)
        for name in self.context:
            if name in queries.context:
                known = known | ~is_missing(queries.context[name])
        return known

    def score(self, queries: Queries, candidates: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return (B, C) float32 logits; -inf where a candidate is -1.

        Raises:
            BundleError: the network cannot be run.
            QueryError: a column of the context holds something else than finite numbers.
        """
        user = self._features(queries)
        scores = np.full(candidates.shape, -np.inf, np.float32)
        query, place = np.nonzero(candidates >= 0)
        for start in range(0, len(query), _PAIRS):
            q, p = query[start : start + _PAIRS], place[start : start + _PAIRS]
            scores[q, p] = self._tiles.run(user=user[q], item=self.items.rows(candidates[q, p]))
        return scores

    def _features(self, queries: Queries) -> NDArray[np.float32]:
        table = self.items if self.history is None else self.history
        columns = [self._column(queries, name) for name in self.context]
        vectors = self.projection.project(queries, table)
        return np.column_stack([vectors, *columns]).astype(np.float32, copy=False)

    def _column(self, queries: Queries, name: str) -> NDArray[np.float32]:
        if name not in queries.context:
            return np.zeros(len(queries), np.float32)
        given = queries.context[name]
        try:
            with np.errstate(over="ignore"):
                column = np.asarray(given, np.float32)
        except ValueError:
            column = np.full(len(queries), np.nan, np.float32)
        if given.dtype.kind == "f":
            column = np.where(is_missing(given), np.float32(0), column)
        if not np.isfinite(column).all():
            raise QueryError(f"context {name!r} is {given.tolist()!r}: expected numbers of float32")
        return column

    def topk(self, queries: Queries, k: int) -> Ranking:
        """Return the k best items that each query may be shown; scores the whole catalogue.

        In blocks of bounded memory; O(B n) pairs through the network.

        Raises:
            QueryError: ``k`` is below 1.
        """
        return topk_scores(self, queries, k)

    def explain(self, queries: Queries, items: NDArray[np.int32]) -> list[list[Reason]]:
        """Return what leaving out each event takes from the score; a scoring each."""
        return left_out_reasons(self, queries, items)

    def tables(self) -> Mapping[str, Table]:
        """Return every parameter by name."""
        found = {"items": self.items}
        if self.history is not None:
            found["history"] = self.history
        for prefix, own in (("projection", self.projection.tables()), ("network", self.parameters)):
            found |= {f"{prefix}.{name}": table for name, table in own.items()}
        return found

    def with_tables(self, tables: Mapping[str, Table]) -> Ranker:
        """Return the same scorer over other storages."""
        return replace(
            self,
            items=tables["items"],
            history=tables.get("history"),
            projection=self.projection.with_tables(tables_under(tables, "projection")),
            parameters=tables_under(tables, "network"),
        )

    def config(self) -> dict[str, Any]:
        """Return what ``from_parts`` needs beside the tables and the files, as plain JSON."""
        projection = {"kind": self.projection.kind, **self.projection.config()}
        return {"projection": projection, "context": list(self.context)}

    def save_files(self, folder: Path) -> None:
        """Write the network into ``folder``."""
        (folder / RANKER).write_bytes(self.network)

    @staticmethod
    def from_parts(config: Mapping[str, Any], tables: Mapping[str, Table], files: Path) -> Ranker:
        """Return the scorer that a bundle stored."""
        seen = tables.get("history", tables["items"])
        if seen.shape[0] != tables["items"].shape[0]:
            raise BundleError(
                f"table history has {seen.shape[0]} rows, items {tables['items'].shape[0]}"
            )
        own = tables_under(tables, "projection")
        return Ranker(
            tables["items"],
            projection_from(config["projection"], own, seen.shape),
            (files / RANKER).read_bytes(),
            tables.get("history"),
            tuple(map(str, config["context"])),
            tables_under(tables, "network"),
        )
