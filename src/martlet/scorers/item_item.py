"""An item is scored by the items of the history: a sparse matrix, and a low-rank one beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, BundleError, Queries, QueryError, Ranking, Reason, num_threads
from martlet.scorers.reasons import event_reasons
from martlet.scorers.shown import best_of_all, check_k, topk_candidates
from martlet.scorers.table import Table

F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LowRank:
    """The matrix diag(left) U U^T diag(right), by its factors.

    Attributes:
        factors: U, (n, r).
        left: (n, 1), scales the items of the history.
        right: (n, 1), scales the items that are scored.
    """

    factors: Table
    left: Table
    right: Table


@dataclass(frozen=True, eq=False)
class ItemItem:
    """Scores an item by the history: h S + h diag(left) U U^T diag(right).

    h holds each item of the history once: 1, or its summed weights where ``weighted``. A scaling
    of the whole history (by its length, say) would leave every ranking as it is, so there is none.
    An item that nothing of the history leads to scores 0.

    Attributes:
        weights: S, (n, n) sparse; row = item of the history, column = item scored.
        low_rank: the second part, or None.
        weighted: whether the weights of the events count.
    """

    weights: Table
    low_rank: LowRank | None = None
    weighted: bool = False
    kind: ClassVar[str] = "item_item"

    @property
    def num_items(self) -> int:
        """Rows of the item vocabulary."""
        return self.weights.shape[0]

    def topk(self, queries: Queries, k: int) -> Ranking:
        """Return the k best items that each query may be shown, the same whatever the batch.

        O(B (entries met + n r + n)).

        Raises:
            QueryError: ``k`` is below 1, or the queries are over another catalogue.
        """
        from martlet.kernels.item_item import topk_item_item

        check_k(k)
        self._check(queries)
        if queries.candidates is not None:
            return topk_candidates(self, queries, k)
        weights, scale = self._codes
        found = topk_item_item(
            self.once(queries.history),
            weights,
            k,
            queries.hidden(),
            queries.allow,
            scale=scale,
            low_rank=self._low_rank,
            num_threads=num_threads(),
        )
        return Ranking(*found)

    def score(self, queries: Queries, candidates: NDArray[np.int32]) -> F32:
        """Return (B, C) float32 scores; -inf where a candidate is -1.

        O(B (entries met + (|history| + C) r + n)).
        """
        self._check(queries)
        history = self.once(queries.history)
        scores = np.empty(candidates.shape, np.float32)
        for query, asked in enumerate(candidates):
            at = slice(history.indptr[query], history.indptr[query + 1])
            mine, weight = history.indices[at], history.weights()[at]
            items, place = np.unique(np.maximum(asked, 0), return_inverse=True)
            row, col, part = self._sparse_parts(mine, items)
            score = np.bincount(col, weight[row] * part, len(items))
            if self._low_rank is not None:
                u, left, right = self._low_rank
                vector = np.einsum("h,hr->r", weight * left[mine], _rows(u, mine))
                score += right[items] * np.einsum("cr,r->c", _rows(u, items), vector)
            scores[query] = np.where(asked < 0, -np.inf, score[place])
        return scores

    def explain(self, queries: Queries, items: NDArray[np.int32]) -> list[list[Reason]]:
        """Return, for item ``items[b]`` of query b, what each item of the history adds.

        Exact, for the score is a sum over the history. Shares add to 1 where no part is negative.
        """
        self._check(queries)
        history = self.once(queries.history)
        parts = np.zeros(history.nnz, np.float32)
        for query, item in enumerate(items):
            at = slice(history.indptr[query], history.indptr[query + 1])
            own = self._parts(history.indices[at], np.array([item]))
            parts[at] = history.weights()[at] * own[:, 0]
        return event_reasons(Queries.of(history, queries.user_row), parts)

    def similar(self, item_row: int, k: int) -> Ranking:
        """Return the (1, k) items that a history of one item scores best, itself left out."""
        check_k(k)
        everything = np.arange(self.num_items, dtype=np.int32)
        score = self._parts(np.array([item_row]), everything)[0]
        score[item_row] = -np.inf
        return best_of_all(score, k)

    def tables(self) -> Mapping[str, Table]:
        """Return every parameter by name."""
        if self.low_rank is None:
            return {"weights": self.weights}
        low = self.low_rank
        return {
            "weights": self.weights,
            "factors": low.factors,
            "left": low.left,
            "right": low.right,
        }

    def with_tables(self, tables: Mapping[str, Table]) -> ItemItem:
        """Return the same scorer over other storages."""
        low = None
        if "factors" in tables:
            low = LowRank(tables["factors"], tables["left"], tables["right"])
        return ItemItem(tables["weights"], low, self.weighted)

    def config(self) -> dict[str, Any]:
        """Return what ``from_parts`` needs beside the tables, as plain JSON."""
        return {"weighted": self.weighted}

    @staticmethod
    def from_parts(config: Mapping[str, Any], tables: Mapping[str, Table], files: Path) -> ItemItem:
        """Return the scorer that a bundle stored."""
        n, r = tables["weights"].shape[0], tables.get("factors", tables["weights"]).shape[1]
        expected = {"weights": (n, n), "factors": (n, r), "left": (n, 1), "right": (n, 1)}
        for name, table in tables.items():
            if table.shape != expected[name] or table.sparse != (name == "weights"):
                raise BundleError(
                    f"table {name} is stored as {table.storage} {table.shape}: expected "
                    f"{'csr' if name == 'weights' else 'dense values'} {expected[name]}"
                )
        return ItemItem(tables["weights"], None, bool(config["weighted"])).with_tables(tables)

    def once(self, history: CSR) -> CSR:
        """Return h, each item once a row and rising, so that its order changes no digit."""
        n = self.num_items
        key = history.row_numbers().astype(np.int64) * n + history.indices
        order = np.argsort(key, kind="stable")
        first = np.flatnonzero(np.diff(key[order], prepend=-1))
        weight = None
        if self.weighted and len(first):
            weight = np.add.reduceat(history.weights()[order], first)
        key = key[order][first]
        indptr = np.searchsorted(key, np.arange(history.num_rows + 1, dtype=np.int64) * n)
        return CSR(indptr.astype(np.int64), (key % n).astype(np.int32), weight, n)

    def _check(self, queries: Queries) -> None:
        if queries.num_items != self.num_items:
            raise QueryError(
                f"the queries are over {queries.num_items} items, the scorer knows "
                f"{self.num_items}: build them with the vocabulary of the same bundle"
            )

    def _parts(self, history: NDArray[np.integer], items: NDArray[np.integer]) -> F32:
        """Return (len(history), len(items)) entries of the whole matrix; ``items`` distinct."""
        parts = np.zeros((len(history), len(items)), np.float32)
        row, col, part = self._sparse_parts(history, items)
        parts[row, col] = part
        if self._low_rank is not None:
            u, left, right = self._low_rank
            mine = _rows(u, history) * left[history, None]
            parts += (mine @ _rows(u, items).T) * right[items]
        return parts

    def _sparse_parts(
        self, history: NDArray[np.integer], items: NDArray[np.integer]
    ) -> tuple[NDArray[np.integer], NDArray[np.integer], F32]:
        """Return places in ``history`` and in ``items``, and the stored entry of S there."""
        weights, scale = self._codes
        place = np.full(self.num_items, -1, np.int32)
        place[items] = np.arange(len(items), dtype=np.int32)
        met = weights.take(history)
        col, row = place[met.indices], met.row_numbers()
        there = col >= 0
        row, col, part = row[there], col[there], met.weights()[there].astype(np.float32)
        return row, col, part if scale is None else part * scale[history[row]]

    @cached_property
    def _codes(self) -> tuple[CSR, F32 | None]:
        """S as it is stored where the kernel reads it so (float32, int8), else as float32."""
        if self.weights.storage != "csr-int8":
            return self.weights.csr(), None
        arrays: Any = self.weights.arrays
        codes = CSR(arrays["indptr"], arrays["indices"], arrays["values"], self.num_items)
        return codes, arrays["scale"]

    @cached_property
    def _low_rank(self) -> tuple[Any, F32, F32] | None:
        """U in float32 or int8 codes, and the scales of its rows, those of the codes included.

        Of another storage U is a function that gives rows of it.
        """
        if self.low_rank is None:
            return None
        u = self.low_rank.factors
        left, right = (side.dense()[:, 0] for side in (self.low_rank.left, self.low_rank.right))
        if u.storage != "int8":
            return u.dense() if u.storage == "fp32" else u.rows, left, right
        scale: Any = u.arrays["scale"]
        return u.values, left * scale, right * scale


def _rows(u: Any, at: NDArray[np.integer]) -> F32:
    """Return float32 rows of a matrix or of what gives its rows."""
    return u(at) if callable(u) else u[at].astype(np.float32)  # type: ignore[no-any-return]
