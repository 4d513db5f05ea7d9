"""A bundle measured on a dataset of other rows: ids are what both share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, DataError, Dataset, Queries, Ranking, Vocabulary

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle

I32 = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Crossing:
    """Answers in the rows of a dataset, by a bundle that has rows of its own.

    What the bundle does not know falls out of the histories and scores -inf. What only it knows
    takes its place in a list, as row -1: it was shown, and was not to be found.

    Attributes:
        bundle: what answers.
        user_row: (dataset's users,) int32 rows of the bundle, -1 where it does not know the id.
        item_row: (dataset's items,) int32 the same of the items.
        back: (bundle's items,) int32 rows of the dataset.
    """

    bundle: Bundle
    user_row: I32
    item_row: I32
    back: I32

    def topk(self, queries: Queries, k: int) -> tuple[Ranking, NDArray[np.bool_]]:
        """Return what ``Bundle.topk`` does, in the dataset's rows."""
        ranking, fallback = self.bundle.topk(self.queries(queries), k)
        rows = np.where(ranking.item_row >= 0, self.back[ranking.item_row], np.int32(-1))
        return Ranking(rows, ranking.score), fallback

    def queries(self, queries: Queries) -> Queries:
        """Return the same questions in the bundle's rows."""
        history = queries.history
        rows = self.item_row[history.indices]
        known = rows >= 0
        indptr = np.concatenate([[0], np.cumsum(known)])[history.indptr]
        values = None if history.values is None else history.values[known]
        asked = queries.user_row
        return replace(
            queries,
            history=CSR(indptr, rows[known], values, len(self.back)),
            user_row=np.where(asked >= 0, self.user_row[asked], np.int32(-1)),
            time_s=None if queries.time_s is None else queries.time_s[known],
        )


def crossing(scorer: Any, dataset: Dataset) -> Any:
    """Return the scorer itself where it speaks of the dataset's rows, else a ``Crossing``.

    Raises:
        DataError: a scorer without ids has another number of items, or no item is known to both.
    """
    from martlet.scorers.bundle import Bundle

    if not isinstance(scorer, Bundle):
        if scorer.num_items != dataset.num_items:
            raise DataError(
                f"the scorer ranks {scorer.num_items:,} items, the dataset has "
                f"{dataset.num_items:,}: measure a bundle, which knows their ids, or the dataset "
                "that it was fitted on"
            )
        return scorer
    if (scorer.users.hash, scorer.items.hash) == (dataset.users.hash, dataset.items.hash):
        return scorer
    item_row, back = _rows(scorer.items, dataset.items), _rows(dataset.items, scorer.items)
    if (item_row < 0).all():
        raise DataError(
            f"the bundle knows none of the dataset's items, such as {dataset.items.ids[0]!r}: its "
            f"own are called like {scorer.items.ids[0]!r}; measure it on a log of the same ids"
        )
    return Crossing(scorer, _rows(scorer.users, dataset.users), item_row, back)


def _rows(of: Vocabulary, ids: Vocabulary) -> I32:
    """Return the rows that ``of`` gives to the ids of another vocabulary."""
    return of.rows(ids.names(np.arange(len(ids))))
