"""What a query may be shown, and ranking no more than that: shared by all scorers."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, MartletError, Queries, QueryError, Ranking, Scorer, best

if TYPE_CHECKING:
    from martlet.scorers.table import Table

_CHUNK_VALUES = 1 << 22


def check_k(k: int) -> None:
    """Refuse a list length that no list has.

    Raises:
        QueryError: ``k`` is no whole number, or below 1.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise QueryError(f"k is {k!r}: expected a whole number of at least 1")


def listed(name: str, given: Any, error: type[MartletError] = QueryError) -> list[Any]:
    """Return ``given`` as a list; a text, which Python would take letter by letter, is none.

    Raises:
        QueryError: it is no list; or another ``error`` that is asked for.
    """
    if not isinstance(given, str | bytes):
        with suppress(TypeError):
            return list(given)
    raise error(f"{name} is {given!r}: expected a list")


def shown_candidates(queries: Queries) -> NDArray[np.int32]:
    """Return (B, C) int32 candidate rows, each once, less what is hidden or not allowed; -1 pads.

    O(candidates log candidates).
    """
    given, n = queries.candidates, queries.num_items
    if given is None:
        given = CSR.from_rows([np.arange(n)] * len(queries), n)
    key = np.unique(given.row_numbers().astype(np.int64) * n + given.indices)
    hidden = queries.hidden()
    if hidden.nnz:
        drop = hidden.row_numbers().astype(np.int64) * n + hidden.indices
        key = key[~np.isin(key, drop, assume_unique=True)]
    if queries.allow is not None:
        key = key[queries.allow[key % n]]
    ends = np.searchsorted(key, np.arange(len(queries) + 1, dtype=np.int64) * n)
    return padded(CSR(ends.astype(np.int64), (key % n).astype(np.int32), None, n))


def padded(csr: CSR) -> NDArray[np.int32]:
    """Return (num_rows, longest row) int32 columns, short rows padded with -1."""
    lengths = csr.lengths
    wide = np.full((csr.num_rows, int(lengths.max(initial=0))), -1, np.int32)
    wide[np.arange(wide.shape[1]) < lengths[:, None]] = csr.indices
    return wide


def topk_candidates(scorer: Scorer, queries: Queries, k: int) -> Ranking:
    """Return the k best of each query's candidates by ``scorer.score``."""
    candidates = shown_candidates(queries)
    return best(scorer.score(queries, candidates), candidates, k)


def topk_scores(scorer: Scorer, queries: Queries, k: int) -> Ranking:
    """Return the k best items that each query may be shown, by ``scorer.score`` of all that may be.

    In blocks of bounded memory; O(B n) scores without candidates.

    Raises:
        QueryError: ``k`` is below 1.
    """
    check_k(k)
    if queries.candidates is not None:
        return topk_candidates(scorer, queries, k)
    rows = np.full((len(queries), k), -1, np.int32)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    step = max(1, _CHUNK_VALUES // max(1, scorer.num_items))
    everything = np.arange(scorer.num_items, dtype=np.int32)
    for start in range(0, len(queries), step):
        part = queries.slice(start, start + step)
        found = scorer.score(part, np.broadcast_to(everything, (len(part), len(everything))))
        hidden = part.hidden()
        found[hidden.row_numbers(), hidden.indices] = -np.inf
        if part.allow is not None:
            found[:, ~part.allow] = -np.inf
        ranking = best(found, everything[None], k)
        rows[start : start + step] = ranking.item_row
        scores[start : start + step] = ranking.score
    return Ranking(rows, scores)


def dot_candidates(
    vectors: NDArray[np.float32], items: Table, candidates: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Return (B, C) float32 products of (B, d) vectors with candidate rows; -inf for row -1.

    In blocks of bounded memory; O(B C d).
    """
    scores = np.full(candidates.shape, -np.inf, np.float32)
    query, place = np.nonzero(candidates >= 0)
    step = max(1, _CHUNK_VALUES // max(1, vectors.shape[1]))
    for start in range(0, len(query), step):
        q, p = query[start : start + step], place[start : start + step]
        scores[q, p] = np.einsum("ij,ij->i", vectors[q], items.rows(candidates[q, p]))
    return scores


def best_of_all(score: NDArray[np.float32], k: int) -> Ranking:
    """Return the (1, k) ranking of (n,) scores, row by row; O(n + k log k) but for ties."""
    n = len(score)
    rows = np.arange(n, dtype=np.int32)
    clean = np.where(np.isnan(score), np.float32(-np.inf), score)
    if k < n:
        rows = np.flatnonzero(clean >= np.partition(clean, n - k)[n - k]).astype(np.int32)
    return best(clean[rows][None], rows[None], k)
