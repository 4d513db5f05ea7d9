"""Two scorers in a row: one that is cheap finds candidates, one that is good orders them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from martlet.core import Queries, Ranking, Reason, SpecError, best
from martlet.scorers.registry import (
    Stored,
    context_of,
    knows,
    save_files,
    scorer_from,
    similar,
)
from martlet.scorers.shown import check_k
from martlet.scorers.table import Table, tables_under

_PARTS = ("retrieve", "rank")


@dataclass(frozen=True, eq=False)
class Cascade:
    """Retrieves ``depth`` candidates by one scorer and ranks them by another.

    Attributes:
        retrieve: searches the catalogue, and minds what may be shown.
        rank: scores what was retrieved; its scores are the cascade's.
        depth: candidates a query; never fewer than are asked for.
    """

    retrieve: Stored
    rank: Stored
    depth: int
    kind: ClassVar[str] = "cascade"

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise SpecError(f"depth is {self.depth}: expected at least 1 candidate to rank")
        if self.retrieve.num_items != self.rank.num_items:
            raise SpecError(
                f"retrieve knows {self.retrieve.num_items} items, rank {self.rank.num_items}: "
                "expected two scorers over one vocabulary"
            )

    @property
    def num_items(self) -> int:
        """Rows of the item vocabulary."""
        return self.rank.num_items

    @property
    def context(self) -> tuple[str, ...]:
        """Names of the query's columns that either scorer reads."""
        return tuple(dict.fromkeys((*context_of(self.retrieve), *context_of(self.rank))))

    @property
    def extra_bytes(self) -> int:
        """Bytes of both scorers' networks and indexes."""
        return sum(int(getattr(part, "extra_bytes", 0)) for part in (self.retrieve, self.rank))

    def knows(self, queries: Queries) -> NDArray[np.bool_]:
        """Return (B,) bool: the queries that candidates can be retrieved for."""
        return knows(self.retrieve, queries)

    def topk(self, queries: Queries, k: int) -> Ranking:
        """Return the k best of the retrieved candidates by the second scorer.

        Raises:
            QueryError: ``k`` is below 1.
        """
        check_k(k)
        candidates = self.retrieve.topk(queries, max(k, self.depth)).item_row
        return best(self.rank.score(queries, candidates), candidates, k)

    def score(self, queries: Queries, candidates: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the second scorer's (B, C) float32 scores, retrieved or not."""
        return self.rank.score(queries, candidates)

    def similar(self, item_row: int, k: int) -> Ranking:
        """Return what the first scorer holds to be similar, (1, k)."""
        return similar(self.retrieve, item_row, k)

    def explain(self, queries: Queries, items: NDArray[np.int32]) -> list[list[Reason]]:
        """Return the second scorer's reasons."""
        return self.rank.explain(queries, items)

    def tables(self) -> Mapping[str, Table]:
        """Return both scorers' parameters, as ``retrieve.*`` and ``rank.*``."""
        return {
            f"{part}.{name}": table
            for part in _PARTS
            for name, table in getattr(self, part).tables().items()
        }

    def with_tables(self, tables: Mapping[str, Table]) -> Cascade:
        """Return the same cascade over other storages."""
        retrieve, rank = (
            getattr(self, part).with_tables(tables_under(tables, part)) for part in _PARTS
        )
        return Cascade(retrieve, rank, self.depth)

    def config(self) -> dict[str, Any]:
        """Return what ``from_parts`` needs beside the tables and the files, as plain JSON."""
        parts = {part: getattr(self, part) for part in _PARTS}
        kinds = {part: {"kind": s.kind, "config": s.config()} for part, s in parts.items()}
        return {"depth": self.depth, **kinds}

    def save_files(self, folder: Path) -> None:
        """Write each scorer's files into a folder of its own under ``folder``."""
        for part in _PARTS:
            (folder / part).mkdir()
            save_files(getattr(self, part), folder / part)

    @staticmethod
    def from_parts(config: Mapping[str, Any], tables: Mapping[str, Table], files: Path) -> Cascade:
        """Return the scorer that a bundle stored."""
        retrieve, rank = (
            scorer_from(
                config[part]["kind"],
                config[part]["config"],
                tables_under(tables, part),
                files / part,
            )
            for part in _PARTS
        )
        return Cascade(retrieve, rank, int(config["depth"]))
