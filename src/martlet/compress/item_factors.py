"""A matrix of items by items as two tables of vectors, nearest in the scores of known histories."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.compress.basis import Choose
from martlet.compress.turned import FLOATS, turn
from martlet.core import CSR, Queries, SpecError, rng
from martlet.scorers.factors import Factors
from martlet.scorers.item_item import ItemItem, LowRank
from martlet.scorers.projections import LinearFold
from martlet.scorers.table import Table

F32 = NDArray[np.float32]
_OVERSAMPLE, _POWER, _PROBES = 16, 4, 32  # of the randomized decomposition


def item_factors(
    label: str, scorer: ItemItem, histories: CSR, rank: int | None, error: float | None, seed: int
) -> tuple[Factors, dict[str, Any]]:
    """Return factors that score as the matrix does, and what is told of them.

    With H the known histories and T the matrix, the scores are H T; the leading right singular
    vectors V of H T give (T V) V^T, of all matrices of that rank the one whose scores on these
    histories are nearest. Histories of one item each stand beside the known ones, so that those
    yet to come are thought of.

    **Source**: Izenman, "Reduced-rank regression" (1975); the decomposition as Halko, Martinsson
    and Tropp (2011), algorithm 4.4.

    Raises:
        SpecError: two tables of that rank take more bytes than the matrix.
    """
    before = sum(table.nbytes for table in scorer.tables().values())
    most = (before - 1) // (8 * scorer.num_items)  # columns that two tables may have
    if most < 1 or (rank is not None and rank > most):
        raise SpecError(
            f"{label} over items by items of {before:,} bytes: two tables of vectors take fewer "
            f"up to rank {most}; give a lower rank or leave it out"
        )
    seen = _seen(scorer, histories)
    width = min(most if rank is None else rank, min(seen.shape)) + _OVERSAMPLE
    turn, square, total = _right_vectors(scorer, seen, min(width, *seen.shape), seed)
    lost = np.sqrt(np.maximum(1 - np.append(0, np.cumsum(square)) / max(total, 1e-30), 0))
    if rank is None:
        reached = np.flatnonzero(lost <= (error or 0.0))
        if not len(reached) or reached[0] > most:
            raise SpecError(
                f"{label} over items by items of {before:,} bytes: rank {most}, the most that "
                f"takes fewer bytes, loses {lost[min(most, len(square))]:.3f} of the scores; give "
                "a larger error or leave it out"
            )
        rank = int(max(1, reached[0]))
    rank = min(rank, len(square))
    items = np.ascontiguousarray(turn[:, :rank])
    fold = LinearFold(0.0, Table.of(_times(scorer, items)), distinct=not scorer.weighted)
    told = {"rank": rank, "of": scorer.num_items, "error": round(float(lost[rank]), 6)}
    return Factors(Table.of(items), fold), {"items": told}


def fewer_factors(
    label: str, scorer: Any, histories: CSR, choose: Choose
) -> tuple[ItemItem, dict[str, Any]]:
    """Return the scorer with fewer columns of its low-rank part, and what is told of them.

    The sparse part stays. The columns are turned into the directions that the scores of known
    histories are made of.

    Raises:
        SpecError: there is no such part, it is codes already, or every direction stays.
    """
    low: LowRank | None = getattr(scorer, "low_rank", None)
    if low is None:
        raise SpecError(f"{label} over a {scorer.kind} scorer: it has no part of a low rank to cut")
    if low.factors.precision not in FLOATS:
        raise SpecError(f"{label} over factors stored as {low.factors.storage}: put {label} first")
    u, left, right = (side.astype(np.float64) for side in _factors(low))
    vectors, items = _seen(scorer, histories) @ (left * u), right * u
    basis = choose(items.T @ items, vectors.T @ vectors)
    width = u.shape[1]
    if basis.rank == width:
        raise SpecError(
            f"{label} leaves every direction of this {scorer.kind} scorer (factors has {width}): "
            "give a lower rank, a larger error, or leave it out"
        )
    cut = replace(low, factors=turn(low.factors, basis.vectors))
    told = {"rank": basis.rank, "of": width, "error": round(basis.error, 6)}
    return replace(scorer, low_rank=cut), {"factors": told}


def _seen(scorer: ItemItem, histories: CSR) -> Any:
    """Return the known histories and those of one item each, as a SciPy matrix.

    Each row of the first is of length 1, so that no user outweighs; both halves weigh alike.
    """
    import scipy.sparse as sp

    n = scorer.num_items
    single = sp.identity(n, np.float32, "csr") * np.float32(n**-0.5)
    rows = np.flatnonzero(histories.lengths > 0)
    if not len(rows):
        return single
    h = scorer.once(Queries.of(histories.take(rows)).history)
    square = np.add.reduceat(h.weights() ** 2, h.indptr[:-1]) * np.float32(len(rows))
    values = h.weights() / np.repeat(np.sqrt(square), h.lengths)
    return sp.vstack([sp.csr_matrix((values, h.indices, h.indptr), (len(rows), n)), single], "csr")


def _right_vectors(
    scorer: ItemItem, seen: Any, width: int, seed: int
) -> tuple[F32, NDArray[np.float64], float]:
    """Return V (n, width), the squares of their singular values, and the sum of all squares."""
    random = rng(seed, "low-rank")
    basis = random.standard_normal((scorer.num_items, width), np.float32)
    for _ in range(_POWER):
        basis, _ = np.linalg.qr(_back(scorer, seen.T @ (seen @ _times(scorer, basis))))
    scores = (seen @ _times(scorer, basis)).astype(np.float64)
    square, turn = np.linalg.eigh(scores.T @ scores)
    # What lies outside of the basis, from probes: what lies inside is known.
    probes = random.standard_normal((scorer.num_items, _PROBES), np.float32)
    probes -= basis @ (basis.T @ probes)
    outside = float(((seen @ _times(scorer, probes)).astype(np.float64) ** 2).sum() / _PROBES)
    square = np.maximum(square[::-1], 0)
    return basis @ turn[:, ::-1].astype(np.float32), square, float(square.sum()) + outside


def _times(scorer: ItemItem, x: F32) -> F32:
    """Return T x, of (n, p)."""
    product = _sparse(scorer) @ x
    if scorer.low_rank is not None:
        u, left, right = _factors(scorer.low_rank)
        product += left * (u @ (u.T @ (right * x)))
    return product  # type: ignore[no-any-return]


def _back(scorer: ItemItem, x: F32) -> F32:
    """Return T^T x, of (n, p)."""
    product = _sparse(scorer).T @ x
    if scorer.low_rank is not None:
        u, left, right = _factors(scorer.low_rank)
        product += right * (u @ (u.T @ (left * x)))
    return product  # type: ignore[no-any-return]


def _factors(low: LowRank) -> tuple[F32, F32, F32]:
    return low.factors.dense(), low.left.dense(), low.right.dense()


def _sparse(scorer: ItemItem) -> Any:
    import scipy.sparse as sp

    csr = scorer.weights.csr()
    return sp.csr_matrix((csr.weights(), csr.indices, csr.indptr), scorer.weights.shape)
