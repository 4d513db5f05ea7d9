"""The protocol of published tables that rank one positive among sampled negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from martlet.core import Queries, Scorer, SpecError

F64 = NDArray[np.float64]
Ties = Literal["fair", "first", "last"]


def sampled(
    scorer: Scorer,
    queries: Queries,
    positives: NDArray[np.integer],
    negatives: NDArray[np.integer],
    *,
    ks: Sequence[int] = (10,),
    ties: Ties = "fair",
    batch: int = 1024,
) -> dict[str, float]:
    """Return ``hit_rate@k`` and ``ndcg@k`` of a scorer that ranks one positive a query.

    **Source**: He et al., "Neural Collaborative Filtering" (2017): one held-out item a user is
    ranked among 99 items that the user has not met.

    Args:
        scorer: what scores.
        queries: (B) queries.
        positives: (B,) item rows to find.
        negatives: (B, m) item rows; one that is the positive itself, or -1, is left out.
        ks: lengths.
        ties: as in ``sampled_quality``.
        batch: queries at a time.

    Raises:
        SpecError: an unknown way to break ties, or parts of different sizes.
    """
    if not len(queries) == len(positives) == len(negatives):
        raise SpecError(
            f"{len(queries)} queries, {len(positives)} positives and {len(negatives)} rows of "
            "negatives: expected as many of each"
        )
    twice = negatives == positives[:, None]
    rows = np.column_stack([positives, np.where(twice, -1, negatives)]).astype(np.int32)
    scores = np.empty(rows.shape, np.float32)
    for start in range(0, len(rows), batch):
        at = slice(start, start + batch)
        scores[at] = scorer.score(queries.slice(start, start + batch), rows[at])
    return sampled_quality(scores, ks, ties=ties)


def sampled_quality(
    scores: NDArray[np.floating], ks: Sequence[int] = (10,), *, ties: Ties = "fair"
) -> dict[str, float]:
    """Return the means of ``sampled_values``.

    Raises:
        SpecError: as ``sampled_values`` does, or no queries.
    """
    if not len(scores):
        raise SpecError("there are no queries to measure: expected a row of scores for each")
    values = sampled_values(scores, ks, ties=ties)
    return {name: float(value.mean()) for name, value in values.items()}


def sampled_values(
    scores: NDArray[np.floating], ks: Sequence[int] = (10,), *, ties: Ties = "fair"
) -> dict[str, F64]:
    """Return (B,) ``hit_rate@k`` and ``ndcg@k`` of one positive among sampled negatives each.

    Args:
        scores: (B, 1 + negatives); column 0 is the positive. A negative of NaN or -inf is left
            out, a positive of NaN or -inf is missed.
        ks: lengths.
        ties: "fair" takes the mean over the orders of equal scores, so that a model which scores
            all alike gets chance; "first" lets the positive win a tie, "last" lets it lose.

    Raises:
        SpecError: an unknown way to break ties.
    """
    if ties not in ("fair", "first", "last"):
        raise SpecError(f"ties is {ties!r}: expected 'first', 'last' or 'fair'")
    positive, negatives = scores[:, :1], scores[:, 1:]
    above, equal = (negatives > positive).sum(1), (negatives == positive).sum(1)
    found = positive[:, 0] > -np.inf
    places = above + (equal if ties == "last" else 0)
    spread = equal + 1 if ties == "fair" else np.ones_like(equal)
    values: dict[str, F64] = {}
    for k in ks:
        gain = np.zeros(scores.shape[1] + k)
        gain[:k] = 1 / np.log2(np.arange(2, k + 2))
        values[f"hit_rate@{k}"] = _gain(gain > 0, places, spread, found)
        values[f"ndcg@{k}"] = _gain(gain, places, spread, found)
    return values


def _gain(
    gain: NDArray[np.generic],
    place: NDArray[np.integer],
    spread: NDArray[np.integer],
    found: NDArray[np.bool_],
) -> F64:
    """Return (B,) mean gains where a positive takes any of ``spread`` places from ``place`` on."""
    sums = np.concatenate([[0.0], np.cumsum(gain, dtype=np.float64)])
    return np.asarray((sums[place + spread] - sums[place]) / spread * found)
