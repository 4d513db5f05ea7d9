"""How deep an index must search: until users lose less than is allowed, or recall is reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.compress.queries import training_queries
from martlet.core import CSR, Dataset, Queries, rng
from martlet.core.queries import context_at
from martlet.metrics import paired_bootstrap, per_user
from martlet.scorers.bundle import Bundle
from martlet.scorers.registry import context_of, knows

DEPTH = 10
_USERS = 4096


def least(first: int, most: int, enough: Callable[[int], bool]) -> int:
    """Return the least depth from ``first`` to ``most`` that is enough, or ``most`` if none is.

    By doubling, then halving: as far as more depth finds more. O(log most) calls.
    """
    high = first
    while high < most and not enough(high):
        high = min(2 * high, most)
    low = max(first - 1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@dataclass(frozen=True, eq=False)
class Recall:
    """The share of the exact ten best items that is found, of training users' queries.

    Attributes:
        scorer: the scorer without an index.
        queries: what is asked.
        exact: (B, 10) rows of the exact answers.
    """

    scorer: Any
    queries: Queries
    exact: NDArray[np.int32]

    @staticmethod
    def of(bundle: Bundle, scorer: Any, dataset: Dataset | None, seed: int) -> Recall:
        """Return the measure over up to 512 training users."""
        queries = training_queries(bundle, dataset, seed)
        return Recall(scorer, queries, scorer.topk(queries, DEPTH).item_row)

    def at(self, index: Any) -> float:
        """Return the share that an index finds."""
        found = self.scorer.with_index(index).topk(self.queries, DEPTH).item_row
        there = self.exact >= 0
        hit = (self.exact[:, :, None] == found[:, None, :]).any(2) & there
        return float(hit.sum() / max(1, there.sum()))


@dataclass(frozen=True, eq=False)
class Loss:
    """The share of NDCG@10 that validation users lose, with the bound of a paired interval.

    Attributes:
        scorer: the scorer without an index.
        queries: what is asked: of each user, what was known before the validation part.
        truth: the items to find.
        exact: (B,) NDCG@10 of the exact answers.
        seed: of the interval.
    """

    scorer: Any
    queries: Queries
    truth: CSR
    exact: NDArray[np.float64]
    seed: int

    @staticmethod
    def of(bundle: Bundle, scorer: Any, dataset: Dataset, seed: int) -> Loss | str:
        """Return the measure over up to 4,096 validation users, or why there is none."""
        if dataset.valid.hash in (bundle.lineage[0] if bundle.lineage else {}).get(
            "trained_on", ()
        ):
            return "the validation part was trained on"
        queries, truth = _questions(bundle, dataset, seed)
        asked = np.flatnonzero(knows(scorer, queries) & (truth.lengths > 0))
        if len(asked) < len(queries):
            queries, truth = _at(queries, asked), truth.take(asked)
        if not len(queries):
            return "no validation user has an item to find"
        exact = _ndcg(scorer, queries, truth)
        return Loss(scorer, queries, truth, exact, seed) if exact.any() else "no user finds an item"

    def at(self, index: Any) -> tuple[float, float]:
        """Return the share lost in the mean, and the bound that holds it at 95%, two-sided."""
        found = _ndcg(self.scorer.with_index(index), self.queries, self.truth)
        interval = paired_bootstrap(self.exact, found, seed=self.seed)
        whole = float(self.exact.mean())
        return -interval.mean / whole, -interval.low / whole


def _ndcg(scorer: Any, queries: Queries, truth: CSR) -> NDArray[np.float64]:
    rows = scorer.topk(queries, DEPTH).item_row
    return per_user(rows, truth, ks=(DEPTH,), metrics=("ndcg",))[f"ndcg@{DEPTH}"]


def _questions(bundle: Bundle, dataset: Dataset, seed: int) -> tuple[Queries, CSR]:
    """Return queries of validation users and what they are to find, in the bundle's rows."""
    users = np.unique(dataset.valid.user_row)
    users = np.sort(rng(seed, "index", "validation").permutation(users)[:_USERS])
    item_row = bundle.items.rows(dataset.items.names(np.arange(len(dataset.items))))
    before = dataset.before("valid")
    history = _translated(before.histories.take(users), item_row, len(bundle.items))
    met = _translated(before.matrix.take(users), item_row, len(bundle.items))
    wanted = _translated(dataset.valid.matrix.take(users), item_row, len(bundle.items))
    n = len(bundle.items)
    key = wanted.row_numbers().astype(np.int64) * n + wanted.indices
    new = ~np.isin(key, met.row_numbers().astype(np.int64) * n + met.indices)
    truth = CSR.from_pairs(wanted.row_numbers()[new], wanted.indices[new], None, (len(users), n))
    rows = bundle.users.rows(dataset.users.names(users))
    context = context_at(bundle.user_table, context_of(bundle.scorer), rows)
    return Queries.of(history, rows, context=context), truth


def _translated(csr: CSR, item_row: NDArray[np.int32], num_items: int) -> CSR:
    """Return the same events in other rows, those of items that have none left out."""
    rows = item_row[csr.indices]
    known = rows >= 0
    indptr = np.concatenate([[0], np.cumsum(known)])[csr.indptr]
    values = None if csr.values is None else csr.values[known]
    return CSR(indptr, rows[known], values, num_items)


def _at(queries: Queries, rows: NDArray[np.integer]) -> Queries:
    context = {name: column[rows] for name, column in queries.context.items()}
    return Queries.of(queries.history.take(rows), queries.user_row[rows], context=context)
