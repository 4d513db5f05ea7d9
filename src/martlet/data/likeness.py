"""How alike two logs are: the statistics that the generator is fitted to and tested on."""

from __future__ import annotations

from dataclasses import dataclass

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
    """What a log looks like from afar.

    Attributes:
        gini: inequality of the events over the items that have any; 0 is even.
        item_count: events of each item that has any, falling.
        length: quantiles of the history length at ``SHARES``.
        cosine: quantiles at ``SHARES`` of the cosine between pairs of the top items.
        log_lift: quantiles at ``SHARES`` of log2 of (pairs met / pairs expected) of the top items.
        spectrum: log2 of the share of the variance of the top items' columns that the principal
            directions of ``RANKS`` explain.
        drift: correlation of log(1 + events) of an item between the first and last third of all
            events, over items with 10 events or more; 1 without times.
        repeat_share: share of events that repeat an earlier pair.
    """

    gini: float
    item_count: NDArray[np.int64]
    length: F64
    cosine: F64
    log_lift: F64
    spectrum: F64
    drift: float
    repeat_share: float

    @staticmethod
    def of(log: Interactions) -> Likeness:
        """Measure a log. O(events log events + users TOP_ITEMS^2)."""
        counts = np.sort(log.item_count[log.item_count > 0])[::-1]
        lengths = np.bincount(log.user_row, minlength=log.num_users)
        cosine, lift, spectrum = _pairs(log)
        return Likeness(
            gini(counts),
            counts,
            np.quantile(lengths[lengths > 0], SHARES),
            np.quantile(cosine, SHARES),
            np.quantile(lift, SHARES),
            spectrum,
            _drift(log),
            1 - log.matrix.nnz / max(1, len(log)),
        )

    def distance(self, other: Likeness) -> dict[str, float]:
        """Return how far ``other`` is, statistic by statistic; 0 is the same.

        ``gini``, ``drift``, ``repeat_share``: absolute difference. ``popularity_ks``: largest gap
        between the distributions of events an item. ``length``: mean absolute difference of the
        log2 of the quantiles. ``cosine``, ``log_lift``, ``spectrum``: mean absolute difference.
        """
        return {
            "gini": abs(self.gini - other.gini),
            "popularity_ks": _ks(self.item_count, other.item_count),
            "length": float(np.abs(np.log2(self.length / other.length)).mean()),
            "cosine": float(np.abs(self.cosine - other.cosine).mean()),
            "log_lift": float(np.abs(self.log_lift - other.log_lift).mean()),
            "spectrum": float(np.abs(self.spectrum - other.spectrum).mean()),
            "drift": abs(self.drift - other.drift),
            "repeat_share": abs(self.repeat_share - other.repeat_share),
        }


def _pairs(log: Interactions) -> tuple[F64, F64, F64]:
    """Return the cosine and log2 lift of every pair of the top items, and their spectrum."""
    top = np.argsort(-log.item_count, kind="stable")[:TOP_ITEMS]
    column = np.full(log.num_items, -1, np.int64)
    column[top] = np.arange(len(top))
    matrix = log.matrix
    users, columns = matrix.row_numbers(), column[matrix.indices]
    users, columns = users[columns >= 0], columns[columns >= 0]
    together = np.zeros((len(top), len(top)))
    for begin in range(0, log.num_users, 4096):  # a block of users keeps the product's memory small
        at = slice(*np.searchsorted(users, [begin, begin + 4096]))
        block = np.zeros((4096, len(top)), np.float32)
        block[users[at] - begin, columns[at]] = 1
        together += block.T @ block
    met = np.diagonal(together)
    at_pair = np.triu_indices(len(top), 1)
    expected = np.outer(met, met)[at_pair] / max(1, log.num_users)
    # Half a meeting is added to both, so that pairs never met stay finite.
    lift = np.log2((together[at_pair] + 0.5) / (expected + 0.5))
    cosine = together[at_pair] / np.sqrt(np.maximum(1, np.outer(met, met)[at_pair]))
    centred = together - np.outer(met, met) / log.num_users
    scale = np.sqrt(np.maximum(np.diagonal(centred), 1e-9))
    variance = np.linalg.eigvalsh(centred / np.outer(scale, scale))[::-1]
    share = np.maximum(variance / max(variance.sum(), 1e-9), 1e-9)
    spectrum = np.log2(share[np.minimum(RANKS, len(top)) - 1])
    return (cosine, lift, spectrum) if len(cosine) else (np.zeros(1), np.zeros(1), spectrum)


def _drift(log: Interactions) -> float:
    if log.time_s is None or len(log) < 3:
        return 1.0
    low, high = np.quantile(log.time_s, [1 / 3, 2 / 3])
    known = log.item_count >= 10
    thirds = [
        np.log1p(np.bincount(log.item_row[part], minlength=log.num_items)[known])
        for part in (log.time_s <= low, log.time_s > high)
    ]
    if known.sum() < 3 or min(part.std() for part in thirds) == 0:
        return 1.0
    return float(np.corrcoef(thirds[0], thirds[1])[0, 1])


def _ks(a: NDArray[np.integer], b: NDArray[np.integer]) -> float:
    places = np.union1d(a, b)
    share = [np.searchsorted(np.sort(x), places, side="right") / max(1, len(x)) for x in (a, b)]
    return float(np.abs(share[0] - share[1]).max())
