"""The protocol of published tables that rank one positive among sampled negatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from martlet.core import SpecError


def sampled_quality(
    scores: NDArray[np.floating], ks: Sequence[int] = (10,), *, ties: str = "fair"
) -> dict[str, float]:
    """Return ``hit_rate@k`` and ``ndcg@k`` of one positive among sampled negatives.

    **Source**: He et al., "Neural Collaborative Filtering" (2017): one held-out item a user is
    ranked among 99 items that the user has not met.

    Args:
        scores: (B, 1 + negatives); column 0 is the positive.
        ks: lengths.
        ties: "fair" takes the mean over the orders of equal scores, so that a model which scores
            all alike gets chance; "first" lets the positive win a tie, "last" lets it lose.

    Raises:
        SpecError: an unknown way to break ties.
    """
    positive, negatives = scores[:, :1], scores[:, 1:]
    above, equal = (negatives > positive).sum(1), (negatives == positive).sum(1)
    found: dict[str, float] = {}
    for k in ks:
        gain = np.concatenate([1 / np.log2(np.arange(2, k + 2)), np.zeros(scores.shape[1] + 1)])
        if ties in ("first", "last"):
            place = np.minimum(above if ties == "first" else above + equal, k)
            hit, ndcg = (place < k).astype(float), gain[place]
        elif ties == "fair":
            # The mean over the places that the positive may take among its equals.
            sums = np.concatenate([[0.0], np.cumsum(gain)])
            top = above + equal + 1
            hit = (np.minimum(top, k) - np.minimum(above, k)) / (equal + 1)
            ndcg = (sums[np.minimum(top, k)] - sums[np.minimum(above, k)]) / (equal + 1)
        else:
            raise SpecError(f"ties is {ties!r}: expected 'first', 'last' or 'fair'")
        found[f"hit_rate@{k}"], found[f"ndcg@{k}"] = float(hit.mean()), float(ndcg.mean())
    return found
