"""The best items of a vector by inner product: over the table itself, or through an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Queries, Ranking, num_threads
from martlet.scorers.shown import check_k
from martlet.scorers.table import Table

if TYPE_CHECKING:
    from martlet.scorers.index import Index

F32 = NDArray[np.float32]


def topk_vectors(
    vectors: F32, items: Table, queries: Queries, k: int, index: Index | None = None
) -> Ranking:
    """Return the k items of largest product with each (B, d) vector that its query may be shown.

    With an index, a query that the index leaves short is searched exactly, and so is a batch where
    ``allow`` leaves so few items that the index does not pay. Exact: O(B n d).
    ``queries.candidates`` is the caller's to handle.

    Raises:
        QueryError: ``k`` is below 1.
    """
    check_k(k)
    if not len(queries):
        return Ranking(np.empty((0, k), np.int32), np.empty((0, k), np.float32))
    hidden = queries.hidden()
    allow = queries.allow
    if index is None or not (allow is None or index.pays(float(np.mean(allow)))):
        return _exact(vectors, items, k, hidden, allow)
    some = hidden if hidden.nnz else None
    ranking = Ranking(*index.search(vectors, k, some, allow))
    wanted = np.minimum(k, _left(hidden, allow))
    short = np.flatnonzero((ranking.item_row >= 0).sum(1) < wanted)
    if len(short):
        again = _exact(vectors[short], items, k, hidden.take(short), allow)
        ranking.item_row[short], ranking.score[short] = again.item_row, again.score
    return ranking


def _exact(
    vectors: F32, items: Table, k: int, hidden: CSR, allow: NDArray[np.bool_] | None
) -> Ranking:
    some = hidden if hidden.nnz else None
    return Ranking(*items.kind.topk(items, vectors, k, some, allow, num_threads()))


def _left(hidden: CSR, allow: NDArray[np.bool_] | None) -> NDArray[np.integer]:
    """Return (B,) how many items each query may be shown."""
    if allow is None:
        return np.asarray(hidden.num_cols - hidden.lengths)
    out = np.bincount(hidden.row_numbers(), allow[hidden.indices], hidden.num_rows)
    return np.asarray(np.count_nonzero(allow) - out).astype(np.int64)
