"""The protocol of published tables on any dataset: each held-out item among sampled negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import DataError, Dataset, Queries, Scorer, rng
from martlet.core.queries import Seen
from martlet.measure.quality import questions
from martlet.metrics import sampled_quality

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle

_CELLS = 1 << 20  # scores held at once: 4 MB
_ROUNDS = 100  # of drawing again what the user has met


def evaluate_sampled(
    scorer: Scorer | Bundle,
    dataset: Dataset,
    *,
    part: str = "test",
    ks: Sequence[int] = (10,),
    negatives: int = 99,
    seen: Seen = "hide",
    seed: int = 0,
) -> dict[str, float]:
    """Return ``sampled99_hit_rate@k`` and ``sampled99_ndcg@k``, a query each event to find.

    To compare with published tables alone: which items are drawn decides much of the figure, and
    models change places under it. O(events negatives).

    **Source**: He et al., "Neural Collaborative Filtering" (2017): the last item of each user is
    ranked among 99 items that the user has not met. With a last-out split of one event, this is
    that. **Differs**: an item that ties with the one to find counts half.

    Args:
        scorer: what scores; for users of whom nothing is known a bundle's popularity does.
        dataset: the parts; an item met in any of them is no negative of that user.
        part: "valid" or "test".
        ks: lengths of the lists.
        negatives: items drawn for each item to find, with repetition; fewer where a user has met
            nearly all.
        seen: as in ``evaluate``.
        seed: drives the draw.

    Raises:
        DataError: there is nothing to find.
    """
    history, truth, _ = questions(dataset, part, seen)
    users, positives = truth.row_numbers(), truth.indices
    if not len(users):
        raise DataError(f"part {part!r} has no item to find: split differently, or seen='keep'")
    met = _met(dataset)
    random = rng(seed, "negatives", part)
    scores = np.empty((len(users), 1 + negatives), np.float32)
    step = max(1, _CELLS // (1 + negatives))
    for start in range(0, len(users), step):
        rows, at = users[start : start + step], slice(start, start + step)
        drawn = _draw(random, rows, negatives, met, dataset.num_items)
        queries = Queries.of(history.csr.take(rows), rows, time_s=history.times(rows), seen="keep")
        asked = np.column_stack([positives[at], drawn]).astype(np.int32)
        scores[at] = _score(scorer, queries, asked)
    found = sampled_quality(scores, ks)
    return {f"sampled{negatives}_{name}": value for name, value in found.items()}


def _met(dataset: Dataset) -> NDArray[np.int64]:
    """Return the sorted keys of every (user, item) pair of any part."""
    parts = (dataset.train, dataset.valid, dataset.test)
    keys = [p.user_row.astype(np.int64) * dataset.num_items + p.item_row for p in parts]
    return np.unique(np.concatenate(keys))


def _draw(
    random: np.random.Generator,
    users: NDArray[np.integer],
    size: int,
    met: NDArray[np.int64],
    num_items: int,
) -> NDArray[np.int64]:
    """Return (users, size) items that each user has not met; -1 where none was found."""
    drawn = random.integers(0, num_items, (len(users), size))
    base = users.astype(np.int64)[:, None] * num_items
    for _ in range(_ROUNDS):
        key = base + drawn
        bad = met[np.minimum(np.searchsorted(met, key), len(met) - 1)] == key
        if not bad.any():
            return drawn
        drawn[bad] = random.integers(0, num_items, int(bad.sum()))
    drawn[met[np.minimum(np.searchsorted(met, base + drawn), len(met) - 1)] == base + drawn] = -1
    return drawn


def _score(scorer: Any, queries: Queries, rows: NDArray[np.int32]) -> NDArray[np.float32]:
    from martlet.scorers.bundle import Bundle

    if not isinstance(scorer, Bundle):
        return np.asarray(scorer.score(queries, rows))
    from martlet.scorers.registry import knows

    popular = np.where(rows >= 0, scorer.popularity[rows], -np.inf)
    known = knows(scorer.scorer, queries)[:, None]
    return np.where(known, scorer.scorer.score(queries, rows), popular).astype(np.float32)
