"""The protocol of published tables on any dataset: each held-out item among sampled negatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import DataError, Dataset, Progress, Scorer, SpecError, num_threads, rng
from martlet.core.queries import Seen
from martlet.kernels.parallel import in_order
from martlet.measure.crossing import crossing
from martlet.measure.quality import (
    CELL,
    History,
    Quality,
    batches,
    check_memory,
    columns_read,
    questions,
    refuse_seen_in_training,
    scores_of,
)
from martlet.metrics import sampled_values
from martlet.metrics.quality import check

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle

_CELLS = 1 << 20  # items drawn at once: 40 MB while they are compared with what was met
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
    memory_mb: float = 256,
    per_user: bool = False,
    progress: Progress | None = None,
) -> Quality:
    """Return ``sampled99_hit_rate@k`` and ``sampled99_ndcg@k``, means over the events to find.

    To compare with published tables alone: which items are drawn decides much of the figure, and
    models change places under it. A user is asked once for all of its events (twice where the
    draw stops between them), for every item where that is fewer than were drawn.
    O(events negatives), and at most the scores of every user for every item.

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
        memory_mb: bound on what the scoring under way may hold, as in ``evaluate``; the draw of
            some 10^6 items (40 MB) comes on top. The digits do not depend on it.
        per_user: keep each user's values: means over its events.
        progress: told how far it is.

    Raises:
        DataError: there is nothing to find, or the part was trained on.
        SpecError: a bound of memory that is none, or a number below 1.
    """
    check_memory(memory_mb)
    check((), ks, {})
    if negatives < 1:
        raise SpecError(f"negatives is {negatives}: expected a whole number of 1 or more")
    refuse_seen_in_training(scorer, dataset.part(part), part)
    scorer = crossing(scorer, dataset)
    history, truth, num_repeats = questions(dataset, part, seen)
    users, positives = truth.row_numbers(), truth.indices
    if not len(users):
        raise DataError(f"part {part!r} has no item to find: split differently, or seen='keep'")
    met = _met(dataset)
    random = rng(seed, "negatives", part)
    values, fallback = [], np.zeros(dataset.num_users, bool)
    step = max(1, _CELLS // (1 + negatives))
    for start in range(0, len(users), step):
        rows = users[start : start + step]
        drawn = _draw(random, rows, negatives, met, dataset.num_items)
        items = np.column_stack([positives[start : start + step], drawn]).astype(np.int32)
        scores, unknown = _score(scorer, history, rows, items, memory_mb)
        values.append(sampled_values(scores, ks))
        fallback[unknown] = True
        if progress is not None:
            progress("measure among negatives", start + len(rows), len(users))
    named = {
        f"sampled{negatives}_{name}": np.concatenate([value[name] for value in values])
        for name in values[0]
    }
    figures = {name: float(value.mean()) for name, value in named.items()}
    asked = np.flatnonzero(truth.lengths)
    kept = {}
    if per_user:
        kept = {
            name: np.bincount(users, value, len(fallback))[asked] / truth.lengths[asked]
            for name, value in named.items()
        }
    num_fallback = int(fallback.sum())
    return Quality(figures, len(asked), num_fallback, num_repeats, kept, asked.astype(np.int32))


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
    row, col = np.nonzero(_among(met, base + drawn))
    for _ in range(_ROUNDS):
        if not len(row):
            return drawn
        drawn[row, col] = random.integers(0, num_items, len(row))
        again = _among(met, base[row, 0] + drawn[row, col])
        row, col = row[again], col[again]
    drawn[row, col] = -1
    return drawn


def _among(met: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of the keys are among the rising ``met``."""
    return np.asarray(met[np.minimum(np.searchsorted(met, keys), len(met) - 1)] == keys)


def _score(
    scorer: Any,
    history: History,
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    memory_mb: float,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return the scores of (events, 1 + negatives) items, and the users popularity answered.

    ``users`` are those of the events, rising. Users of about as many items to score are asked
    together, so that little is padded.
    """
    asked, first = np.unique(users, return_index=True)
    n, events = history.csr.num_cols, np.diff(first, append=len(users))
    width = np.minimum(events * items.shape[1], n)
    scores = np.empty(items.shape, np.float32)
    columns = columns_read(scorer)

    def ask(places: NDArray[np.integer]) -> NDArray[np.int32]:
        rows = asked[places]
        queries = history.queries(rows, columns, "keep")
        own = [slice(first[place], first[place] + events[place]) for place in places]
        widest = int(width[places].max())
        if widest == n:
            everything = np.broadcast_to(np.arange(n, dtype=np.int32), (len(rows), n))
            found, fallback = scores_of(scorer, queries, everything)
            for score, at in zip(found, own, strict=True):
                scores[at] = np.where(items[at] < 0, np.float32(-np.inf), score[items[at]])
            return np.asarray(rows[fallback])
        candidates = np.full((len(rows), widest), -1, np.int32)
        for candidate, at in zip(candidates, own, strict=True):
            candidate[: items[at].size] = items[at].ravel()
        found, fallback = scores_of(scorer, queries, candidates)
        for score, at in zip(found, own, strict=True):
            scores[at] = score[: items[at].size].reshape(-1, items.shape[1])
        return np.asarray(rows[fallback])

    order = np.argsort(-width, kind="stable")
    # A batch is as wide as its widest user: one of half that or less begins another.
    kinds = np.flatnonzero(np.diff(np.log2(width[order]).astype(np.int64))) + 1
    tasks = []
    workers = num_threads()
    for places in np.split(order, kinds):
        cost = CELL * width[places] + 64 * history.csr.lengths[asked[places]]
        tasks += batches(places, cost, memory_mb / workers)
    return scores, np.concatenate(list(in_order(ask, tasks, workers)))
