"""What a ranked list is worth: every metric, at several lengths at once.

With ``hit_r`` = 1 where place r (from 1) holds a relevant item, and R relevant items:

    recall@k         sum_{r<=k} hit_r / R
    precision@k      sum_{r<=k} hit_r / k
    hit_rate@k       1 if any hit in k places
    ndcg@k           sum_{r<=k} hit_r / log2(r + 1)  over its largest value, with min(k, R) hits
    mrr@k            1 / place of the first hit in k places, else 0
    map@k            sum_{r<=k} hit_r precision@r / min(k, R)
    value_recall@k   value of the hits / value of all relevant items (price or margin)
    novelty@k        mean over the list of -log2(share of the training users who met the item)
    coverage@k       share of the catalogue that stands in any list
    gini@k           inequality of how often items are shown: 0 all alike, 1 one item alone
    auc              share of (relevant, other) pairs of the whole catalogue in the right order, a
                     tie one half; it has no k, and needs the scores: ``measure.evaluate`` finds it

**Source**: Järvelin and Kekäläinen (2002) for NDCG; the normalisations are those of LightGCN's
published tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, DataError, SpecError

F64 = NDArray[np.float64]


class Metric(NamedTuple):
    """What a figure means.

    Attributes:
        unit: what one is.
        higher_is_better: None where neither end is.
        needs: what it needs beside the lists ("value", "popularity", "scores"), or "".
        of_users: whether it is a mean over users; otherwise it belongs to all lists together.
    """

    unit: str
    higher_is_better: bool | None
    needs: str = ""
    of_users: bool = True


METRICS: Mapping[str, Metric] = {
    "recall": Metric("share of the relevant items", True),
    "precision": Metric("share of the places", True),
    "hit_rate": Metric("share of the users", True),
    "ndcg": Metric("share of the ideal gain", True),
    "mrr": Metric("mean of 1 / place", True),
    "map": Metric("mean of average precisions", True),
    "value_recall": Metric("share of the relevant value", True, "value"),
    "novelty": Metric("bits", None, "popularity"),
    "auc": Metric("share of the pairs in order", True, "scores"),
    "coverage": Metric("share of the catalogue", True, of_users=False),
    "gini": Metric("0 equal .. 1 concentrated", False, of_users=False),
}


def hits_of(rows: NDArray[np.int32], truth: CSR) -> NDArray[np.bool_]:
    """Return (B, k) bool: whether (B, k) ``rows`` stand in the (B x n) truth. O(B k log nnz)."""
    if not truth.nnz:
        return np.zeros(rows.shape, bool)
    n = truth.num_cols
    key = np.sort(truth.row_numbers().astype(np.int64) * n + truth.indices)
    asked = np.arange(len(rows), dtype=np.int64)[:, None] * n + rows
    found = key[np.minimum(np.searchsorted(key, asked), len(key) - 1)] == asked
    return np.asarray(found & (rows >= 0))


def per_user(
    rows: NDArray[np.int32],
    truth: CSR,
    *,
    ks: Sequence[int],
    metrics: Sequence[str] = ("recall", "ndcg"),
    value: F64 | None = None,
    popularity: F64 | None = None,
) -> dict[str, F64]:
    """Return ``{"ndcg@10": (B,) float64, ...}`` of ranked item rows. O(B k log nnz).

    Args:
        rows: (B, k) int32, best first, padded with -1; k at least ``max(ks)``.
        truth: (B x n) CSR of relevant items, each once a row, at least one a row.
        ks: lengths to cut the lists at.
        metrics: names from ``METRICS`` that are means over users.
        value: (n,) worth of each item, 0 or more, for ``value_recall``.
        popularity: (n,) share of the training users who met each item, for ``novelty``.

    Raises:
        SpecError: an unknown metric, a missing column, or lists shorter than asked.
        DataError: a value below 0.
    """
    if value is not None:
        check_value(value)
    check(metrics, ks, {"value": value is not None, "popularity": popularity is not None})
    if rows.shape[1] < max(ks):
        raise SpecError(f"lists of {rows.shape[1]} places cannot be measured at k = {max(ks)}")
    hits = hits_of(rows, truth)
    relevant = truth.lengths
    discount = 1 / np.log2(np.arange(2, max(ks) + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    found: dict[str, F64] = {}
    for k in ks:
        hit = hits[:, :k]
        most = np.maximum(np.minimum(k, relevant), 1)
        counts = hit.sum(1)
        for name in metrics:
            match name:
                case "recall":
                    result = counts / np.maximum(relevant, 1)
                case "precision":
                    result = counts / k
                case "hit_rate":
                    result = (counts > 0).astype(np.float64)
                case "ndcg":
                    result = (hit * discount[:k]).sum(1) / ideal[most]
                case "mrr":
                    result = np.where(counts > 0, 1 / (hit.argmax(1) + 1), 0.0)
                case "map":
                    so_far = np.cumsum(hit, 1) / np.arange(1, k + 1)
                    result = (hit * so_far).sum(1) / most
                case "value_recall":
                    assert value is not None
                    worth = np.where(hit, value[rows[:, :k]], 0.0).sum(1)
                    total = np.bincount(truth.row_numbers(), value[truth.indices], len(rows))
                    result = np.divide(worth, total, out=np.zeros(len(rows)), where=total > 0)
                case "novelty":
                    assert popularity is not None
                    shown = rows[:, :k] >= 0
                    surprise = -np.log2(np.maximum(popularity[rows[:, :k]], 1e-12))
                    sums = np.where(shown, surprise, 0.0).sum(1)
                    result = sums / np.maximum(shown.sum(1), 1)
                case _:
                    continue  # of all lists together
            found[f"{name}@{k}"] = np.asarray(result, np.float64)
    return found


@dataclass
class Tally:
    """Collects lists batch by batch and gives the figures of all of them.

    Per-user values are kept (8 bytes each) and averaged once, in user order: the digits do not
    depend on the batches.

    Attributes:
        num_items: size of the catalogue.
        ks: lengths to cut the lists at.
        metrics: names from ``METRICS``.
        value: (n,) worth of each item, 0 or more, or None.
        popularity: (n,) share of the training users who met each item, or None.
    """

    num_items: int
    ks: Sequence[int] = (10,)
    metrics: Sequence[str] = ("recall", "ndcg")
    value: F64 | None = None
    popularity: F64 | None = None
    _batches: list[dict[str, F64]] = field(default_factory=list)
    _shown: dict[int, NDArray[np.int64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        has = {"value": self.value is not None, "popularity": self.popularity is not None}
        check(self.metrics, self.ks, has)

    def add(self, rows: NDArray[np.int32], truth: CSR) -> None:
        """Add (B, k) lists with their (B x n) truth."""
        of_users = [name for name in self.metrics if METRICS[name].of_users]
        self._batches.append(
            per_user(
                rows,
                truth,
                ks=self.ks,
                metrics=of_users,
                value=self.value,
                popularity=self.popularity,
            )
        )
        if len(of_users) < len(self.metrics):
            for k in self.ks:
                top = rows[:, :k]
                counts = np.bincount(top[top >= 0], minlength=self.num_items)
                self._shown[k] = self._shown.get(k, 0) + counts

    def users(self) -> dict[str, F64]:
        """Return (users,) float64 values of each metric that is a mean over users."""
        names = self._batches[0] if self._batches else {}
        return {name: np.concatenate([batch[name] for batch in self._batches]) for name in names}

    def figures(self) -> dict[str, float]:
        """Return every metric at every k, in the order asked for."""
        means = {name: float(values.mean()) for name, values in self.users().items()}
        for k, counts in self._shown.items():
            means[f"coverage@{k}"] = float((counts > 0).mean())
            means[f"gini@{k}"] = gini(counts)
        order = [f"{name}@{k}" for name in self.metrics for k in self.ks]
        return {name: means[name] for name in order if name in means}


def gini(counts: NDArray[np.integer]) -> float:
    """Return the Gini coefficient of counts: 0 where all are equal, (n - 1) / n where one has all.

    >>> gini(np.array([5, 5, 5, 5]))
    0.0
    >>> gini(np.array([0, 0, 0, 8]))
    0.75
    """
    total = counts.sum()
    if not total:
        return 0.0
    n = len(counts)
    place = np.arange(1, n + 1)
    return float((2 * (place * np.sort(counts)).sum() / total - (n + 1)) / n)


def check_value(value: F64, name: Callable[[int], object] = int) -> None:
    """Check that shares of (n,) values have a meaning; ``name`` tells an item by its row.

    Raises:
        DataError: one is below 0, infinite or no number.
    """
    bad = np.flatnonzero(~((value >= 0) & (value < np.inf)))
    if len(bad):
        more = f", and {len(bad) - 1} more are like it" if len(bad) > 1 else ""
        raise DataError(
            f"the value of item {name(int(bad[0]))!r} is {value[bad[0]]:g}{more}: value_recall is "
            "a share of the value, which needs finite numbers of 0 or more; mend that column, or "
            "weigh by another"
        )


def check(metrics: Sequence[str], ks: Sequence[int], has: Mapping[str, bool]) -> None:
    """Check names and lengths.

    Raises:
        SpecError: an unknown metric, a length below 1, none at all, or a column that is missing.
    """
    for name in metrics:
        if name not in METRICS:
            raise SpecError(f"no metric is called {name!r}: expected one of {', '.join(METRICS)}")
        needs = METRICS[name].needs
        if needs == "scores":
            raise SpecError(f"{name} needs the scores of every item: ask measure.evaluate for it")
        if needs and not has[needs]:
            raise SpecError(f"{name} needs the {needs} of every item: give {needs}=")
    if not ks or min(ks) < 1:
        raise SpecError(f"k is {list(ks)}: expected whole numbers of 1 or more")
