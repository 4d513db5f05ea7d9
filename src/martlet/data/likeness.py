"""How alike two logs are: the statistics that the generator is fitted to and tested on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from martlet.core import Interactions
from martlet.metrics.quality import gini

F64 = NDArray[np.float64]
TOP_ITEMS = 400  # pairs among these are counted; rarer items meet too seldom to tell
SHARES = np.array([0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999])
RANKS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64])


@dataclass(frozen=True, eq=False)
class Likeness:
    """What a log looks like from afar; each statistic is computed when it is first asked for."""

    log: Interactions

    def distance(self, other: Likeness, only: Sequence[str] = ()) -> dict[str, float]:
        """Return how far ``other`` is, by statistic (``DISTANCES``, or some); 0 is the same."""
        return {name: float(DISTANCES[name](self, other)) for name in only or DISTANCES}

    @cached_property
    def item_count(self) -> NDArray[np.int64]:
        """Events of each item that has any, falling."""
        return np.sort(self.log.item_count[self.log.item_count > 0])[::-1]

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Events of each user, by row."""
        return np.bincount(self.log.user_row, minlength=self.log.num_users)

    @cached_property
    def length(self) -> F64:
        """Quantiles at ``SHARES`` of the events of the users that have any."""
        return _quantiles(self.lengths[self.lengths > 0])

    @cached_property
    def taste(self) -> F64:
        """Quantiles at ``SHARES`` of log2 of the popularity of a user's items, on average."""
        level = np.log2(np.maximum(1, self.log.item_count))[self.log.item_row]
        total = np.bincount(self.log.user_row, level, minlength=self.log.num_users)
        active = self.lengths > 0
        return _quantiles(total[active] / self.lengths[active])

    @cached_property
    def together(self) -> F64:
        """Users that met both of two top items; on the diagonal those that met one."""
        top = np.argsort(-self.log.item_count, kind="stable")[:TOP_ITEMS]
        column = np.full(self.log.num_items, -1, np.int64)
        column[top] = np.arange(len(top))
        matrix = self.log.matrix
        users, columns = matrix.row_numbers(), column[matrix.indices]
        users, columns = users[columns >= 0], columns[columns >= 0]
        together = np.zeros((len(top), len(top)))
        for begin in range(0, self.log.num_users, 4096):  # a block keeps the product's memory small
            at = slice(*np.searchsorted(users, [begin, begin + 4096]))
            block = np.zeros((4096, len(top)), np.float32)
            block[users[at] - begin, columns[at]] = 1
            together += block.T @ block
        return together

    @cached_property
    def cosine(self) -> F64:
        """Quantiles at ``SHARES`` of the cosine between pairs of the top items."""
        met = np.diagonal(self.together)
        return _of_pairs(self.together / np.sqrt(np.maximum(1, np.outer(met, met))))

    @cached_property
    def log_lift(self) -> F64:
        """Quantiles at ``SHARES`` of log2 of (pairs met / pairs expected) of the top items."""
        met = np.diagonal(self.together)
        expected = np.outer(met, met) / max(1, self.log.num_users)
        # Half a meeting is added to both, so that pairs never met stay finite.
        return _of_pairs(np.log2((self.together + 0.5) / (expected + 0.5)))

    @cached_property
    def spectrum(self) -> F64:
        """Log2 of the share of the top items' variance that the directions of ``RANKS`` explain.

        The columns of users that met an item are standardized; the directions are the principal.
        """
        met = np.diagonal(self.together)
        centred = self.together - np.outer(met, met) / max(1, self.log.num_users)
        scale = np.sqrt(np.maximum(np.diagonal(centred), 1e-9))
        variance = np.linalg.eigvalsh(centred / np.outer(scale, scale))[::-1]
        share = np.maximum(variance / max(variance.sum(), 1e-9), 1e-9)
        return np.asarray(np.log2(share[np.minimum(RANKS, len(share)) - 1]))

    @cached_property
    def drift(self) -> float:
        """Correlation of the popularity of items between the first and the last third of events.

        Of log(1 + events), over items with 10 events or more; 1 without times.
        """
        log, known = self.log, self.log.item_count >= 10
        if log.time_s is None or known.sum() < 3:
            return 1.0
        low, high = np.quantile(log.time_s, [1 / 3, 2 / 3])
        thirds = [
            np.log1p(np.bincount(log.item_row[part], minlength=log.num_items)[known])
            for part in (log.time_s <= low, log.time_s > high)
        ]
        if min(part.std() for part in thirds) == 0:
            return 1.0
        return float(np.corrcoef(thirds[0], thirds[1])[0, 1])

    @cached_property
    def clock(self) -> F64:
        """Quantiles at ``SHARES`` of the times, from 0 at the first event to 1 at the last."""
        if self.log.time_s is None:
            return np.zeros(len(SHARES))
        since = self.log.time_s - self.log.time_s.min()
        return _quantiles(since / max(1, since.max()))

    @cached_property
    def repeat_share(self) -> float:
        """Share of the events that repeat an earlier pair."""
        return 1 - self.log.matrix.nnz / max(1, len(self.log))

    @cached_property
    def weight_by_item(self) -> float:
        """Share of the variance of the ranks of the weights that the item explains."""
        return _explained(self.log.item_row, self.log.weight)

    @cached_property
    def weight_by_user(self) -> float:
        """Share of the variance of the ranks of the weights that the user explains."""
        return _explained(self.log.user_row, self.log.weight)


DISTANCES: dict[str, Callable[[Likeness, Likeness], float]] = {
    # largest gap between the distributions of events an item
    "popularity": lambda a, b: _gap(a.item_count, b.item_count),
    "gini": lambda a, b: abs(gini(a.item_count) - gini(b.item_count)),
    # mean gap of log2 of the quantiles
    "length": lambda a, b: np.abs(np.log2(a.length / b.length)).mean(),
    # mean gaps of the quantiles, or of the directions
    "taste": lambda a, b: np.abs(a.taste - b.taste).mean(),
    "cosine": lambda a, b: np.abs(a.cosine - b.cosine).mean(),
    "log_lift": lambda a, b: np.abs(a.log_lift - b.log_lift).mean(),
    "spectrum": lambda a, b: np.abs(a.spectrum - b.spectrum).mean(),
    "clock": lambda a, b: np.abs(a.clock - b.clock).mean(),
    "drift": lambda a, b: abs(a.drift - b.drift),
    "repeat_share": lambda a, b: abs(a.repeat_share - b.repeat_share),
    # largest gap between the distributions of the weights
    "weight": lambda a, b: _gap(a.log.weight, b.log.weight),
    "weight_by_item": lambda a, b: abs(a.weight_by_item - b.weight_by_item),
    "weight_by_user": lambda a, b: abs(a.weight_by_user - b.weight_by_user),
}


def _of_pairs(values: F64) -> F64:
    pairs = values[np.triu_indices(len(values), 1)]
    return _quantiles(pairs if len(pairs) else np.zeros(1))


def _quantiles(values: NDArray[np.number]) -> F64:
    return np.asarray(np.quantile(values, SHARES))


def _explained(rows: NDArray[np.int32], weight: NDArray[np.float32]) -> float:
    """Return the share of the variance of ranks that the group explains, chance taken off."""
    values, at = np.unique(weight, return_inverse=True)
    if len(values) < 2:
        return 0.0
    before = np.concatenate([[0], np.cumsum(np.bincount(at))])
    middle = (before[1:] + before[:-1]) / (2 * len(weight))
    score = np.array([NormalDist().inv_cdf(m) for m in middle])[at]
    count = np.bincount(rows)
    mean = np.bincount(rows, score) / np.maximum(1, count)
    within = ((score - mean[rows]) ** 2).sum() / max(1, len(rows) - np.count_nonzero(count))
    return float(np.clip(1 - within / max(score.var(), 1e-12), 0.0, 0.49))


def _gap(a: NDArray[np.number], b: NDArray[np.number]) -> float:
    """Return the largest difference of two distribution functions (Kolmogorov, Smirnov)."""
    places = np.union1d(a, b)
    share = [np.searchsorted(np.sort(x), places, side="right") / max(1, len(x)) for x in (a, b)]
    return float(np.abs(share[0] - share[1]).max())
