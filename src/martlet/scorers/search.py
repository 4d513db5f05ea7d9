"""The best items of a vector by inner product: over the table itself, or through an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Queries, Ranking, best, num_threads
from martlet.scorers.shown import check_k
from martlet.scorers.table import Table

if TYPE_CHECKING:
    from martlet.scorers.index import Index

F32 = NDArray[np.float32]


def topk_vectors(
    vectors: F32, items: Table, queries: Queries, k: int, index: Index | None = None
) -> Ranking:
    """Return the k items of largest product with each (B, d) vector that its query may be shown.

    With an index, a query that the index leaves short, and any batch with ``allow``, is searched
    exactly. Exact: O(B n d). ``queries.candidates`` is the caller's to handle.

    Raises:
        QueryError: ``k`` is below 1.
    """
    check_k(k)
    if not len(queries):
        return Ranking(np.empty((0, k), np.int32), np.empty((0, k), np.float32))
    hidden = queries.hidden()
    if index is None or queries.allow is not None:
        return _exact(vectors, items, k, hidden, queries.allow)
    ranking = Ranking(
        np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32)
    )
    # As deep as a query's own hidden items ask for, to a power of two: a batch that went as deep as
    # its longest history would not answer as its queries do alone.
    spare = np.exp2(np.ceil(np.log2(hidden.lengths + 1))).astype(np.int64)
    for more in np.unique(spare):
        at = np.flatnonzero(spare == more)
        rows, scores = index.search(vectors[at], min(items.shape[0], k + int(more)))
        some = best(scores, _drop(rows, hidden.take(at)), k)
        ranking.item_row[at], ranking.score[at] = some.item_row, some.score
    wanted = np.minimum(k, items.shape[0] - hidden.lengths)
    short = np.flatnonzero((ranking.item_row >= 0).sum(1) < wanted)
    if len(short):
        again = _exact(vectors[short], items, k, hidden.take(short), None)
        ranking.item_row[short], ranking.score[short] = again.item_row, again.score
    return ranking


def _exact(
    vectors: F32, items: Table, k: int, hidden: CSR, allow: NDArray[np.bool_] | None
) -> Ranking:
    some = hidden if hidden.nnz else None
    return Ranking(*items.kind.topk(items, vectors, k, some, allow, num_threads()))


def _drop(rows: NDArray[np.int32], hidden: CSR) -> NDArray[np.int32]:
    """Return (B, m) rows with -1 in the place of what the query's hidden row holds."""
    if not hidden.nnz:
        return rows
    line = np.arange(len(rows), dtype=np.int64)[:, None] * hidden.num_cols
    key = hidden.row_numbers().astype(np.int64) * hidden.num_cols + hidden.indices
    at = np.minimum(np.searchsorted(key, line + rows), len(key) - 1)
    return np.where((rows < 0) | (key[at] == line + rows), np.int32(-1), rows)
