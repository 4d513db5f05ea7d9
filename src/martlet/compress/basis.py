"""The directions of a table that scores are made of: an orthonormal basis, cut where it may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from martlet.scorers.table import Table, blocks

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Basis:
    """r directions of a d-dimensional space.

    Attributes:
        vectors: (d, r) float64, orthonormal columns.
        error: share of the products' root mean square that is lost outside of them.
    """

    vectors: F64
    error: float

    @property
    def rank(self) -> int:
        """Directions that are kept, r."""
        return int(self.vectors.shape[1])


class Choose(Protocol):
    """Chooses the directions of a table."""

    def __call__(self, gram: F64, moment: F64 | None) -> Basis:
        """Return the basis for rows of second moment ``gram`` (d, d).

        Args:
            gram: sum of y y^T over the rows y.
            moment: sum of q q^T over the vectors q that the rows are multiplied by; None where
                nothing is known of them: all directions count alike.
        """


def gram_of(table: Table, weight: NDArray[np.floating] | None = None) -> F64:
    """Return the (d, d) sum of w y y^T over the rows y of a table, by blocks. O(n d^2).

    Args:
        table: (n, d).
        weight: (n,) not negative; None counts every row once.
    """
    gram = np.zeros((table.shape[1], table.shape[1]))
    for start, stop in blocks(*table.shape):
        part = table.rows(slice(start, stop)).astype(np.float64)
        gram += part.T @ (part if weight is None else part * weight[start:stop, None])
    return gram


def leading(gram: F64, moment: F64 | None, rank: int | None, error: float | None) -> Basis:
    """Return the leading directions: ``rank`` of them, or the fewest within ``error``.

    They are eigenvectors of gram, of moment, or of the two in equal parts, whichever lose least.
    The best approximation of the scores has no orthonormal basis in general; that of the two is
    within a hundredth of it where we measured. O(d^3).
    """
    parts = [gram] if moment is None else [_whole(gram) + _whole(moment), gram, moment]
    found = [_cut(part, gram, moment, rank, error) for part in parts]
    return min(found, key=lambda basis: (basis.rank, basis.error))


def _cut(part: F64, gram: F64, moment: F64 | None, rank: int | None, error: float | None) -> Basis:
    turn = np.linalg.eigh(part)[1][:, ::-1]
    lost = lost_beyond(turn.T @ gram @ turn, None if moment is None else turn.T @ moment @ turn)
    if rank is None:
        rank = int(np.argmax(lost <= (error or 0.0)))
    rank = min(max(1, rank), len(gram))
    return Basis(_signed(turn[:, :rank]), float(lost[rank]))


def columns(gram: F64, moment: F64 | None, share: float) -> Basis:
    """Return the columns that give the most of the scores, without the given share of them.

    A column's energy is the product of its mean squares on both sides. O(d^2).
    """
    size = len(gram)
    energy = np.diag(gram) * (1 if moment is None else np.diag(moment))
    order = np.argsort(-energy, kind="stable")
    rank = max(1, size - round(share * size))
    at = np.ix_(order, order)
    lost = lost_beyond(gram[at], None if moment is None else moment[at])
    return Basis(np.eye(size)[:, np.sort(order[:rank])], float(lost[rank]))


def lost_beyond(gram: F64, moment: F64 | None) -> F64:
    """Return, for r = 0 ... d, the share of the products lost without all but the first r.

    (d + 1,): sqrt(tr(T gram T moment) / tr(gram moment)), T the projection on the rest.
    """
    size = len(gram)
    product = np.diag(np.diag(gram)) if moment is None else gram * moment.T
    square = np.zeros((size + 1, size + 1))
    square[:size, :size] = product[::-1, ::-1].cumsum(0).cumsum(1)[::-1, ::-1]
    rest = np.maximum(np.diag(square), 0)
    return np.sqrt(rest / rest[0]) if rest[0] > 0 else np.zeros(size + 1)


def _whole(moment: F64) -> F64:
    return moment / max(float(np.trace(moment)), np.finfo(np.float64).tiny)


def _signed(vectors: F64) -> F64:
    """Return the columns, each with its largest entry positive: a sign that no library picks."""
    top = np.abs(vectors).argmax(0)
    return vectors * np.where(vectors[top, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)
