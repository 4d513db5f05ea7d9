"""Questions that a bundle is asked, to tune a transform on."""

from __future__ import annotations

import numpy as np

from martlet.core import CSR, Dataset, Queries, rng
from martlet.core.queries import context_at
from martlet.scorers.bundle import Bundle
from martlet.scorers.registry import context_of


def training_queries(
    bundle: Bundle, dataset: Dataset | None = None, seed: int = 0, most: int = 512
) -> Queries:
    """Return at most so many queries of training users; where nobody is known, of one item each.

    Args:
        bundle: whose histories are asked with.
        dataset: only users of its training part are taken; None takes any with a history.
        seed: of the draw.
        most: queries.
    """
    random, n = rng(seed, "index", "queries"), len(bundle.items)
    histories = bundle.histories
    rows = np.flatnonzero(histories.lengths > 0)
    if dataset is not None:
        trained = np.unique(dataset.train.user_row)
        rows = np.intersect1d(rows, bundle.users.rows(dataset.users.names(trained)))
    if not len(rows):
        one_each = CSR.from_rows([[row] for row in random.permutation(n)[:most].tolist()], n)
        return Queries.of(one_each)
    rows = np.sort(random.permutation(rows)[:most])
    context = context_at(bundle.user_table, context_of(bundle.scorer), rows)
    return Queries.of(histories.take(rows), rows.astype(np.int32), context=context)
