"""Implicit alternating least squares: the turn, half a sweep, the loss.

Each row of a half sweep is a ridge regression whose system is a0 G + r I plus a term of the row's
own few entries, with G = Y^T Y. The loss knows X and Y by their product and their lengths, so one
orthogonal matrix may turn both. Turned to the eigenvectors of G,

- the dense part of a row's system costs d multiplications in place of d^2;
- its inverse is a preconditioner at no cost, exact for a row without entries;
- what remains is one reading of the row's vectors a conjugate-gradient step.

The steps are over-relaxed: they are conjugate, so each may go up to twice its best length and the
loss still falls; 1.5 times saves up to half of the sweeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_BLOCK = 1024  # rows turned or summed at a time: they stay in the cache
_WORK = 1 << 14  # entries that are worth a thread
_FAST = {"reassoc", "contract", "nsz", "arcp"}  # sums may be reordered; NaN and infinity stay


@dataclass(frozen=True)
class Objective:
    """What is minimized over X (n, d) and Y (m, d), with x a row of the one, y of the other.

        sum over observed pairs of  w (x.y - 1)^2 + offset (1 - 2 x.y)
        + unobserved_weight * sum over all pairs of (x.y)^2
        + reg * sum over x of (n_x + unobserved_weight m)^reg_exponent |x|^2, and the same for y

    **Source**: offset 0 is Rendle et al., "Revisiting the Performance of iALS on Item
    Recommendation Benchmarks" (2021), equations 2 to 5. Hu, Koren and Volinsky (2008), with
    confidence 1 + w where observed and 1 elsewhere, is offset = unobserved_weight = 1.

    Attributes:
        unobserved_weight: weight of every pair, observed or not.
        reg: L2 strength.
        reg_exponent: 1 regularizes in proportion to frequency, 0 is the classic objective.
        offset: added to w in the right-hand side of the least squares.
    """

    unobserved_weight: float
    reg: float
    reg_exponent: float = 0.0
    offset: float = 0.0

    def strengths(self, lengths: NDArray[np.integer], num_others: int) -> F32:
        """Return the (n,) float32 L2 strength of rows with ``lengths`` entries."""
        size = lengths + self.unobserved_weight * num_others
        return (self.reg * size**self.reg_exponent).astype(np.float32)


def turn(x: F32, y: F32, num_threads: int = 1) -> F32:
    """Turn X (n, d) and Y (m, d), in place, so that Y^T Y is diagonal; return that diagonal.

    An orthogonal turn leaves every product of a row of X and a row of Y as it is. The diagonal
    falls: the first features are the principal ones. BLAS should be held to one thread, as the
    rows are already spread over threads; then the digits do not depend on their number.

    Returns:
        (d,) float32. O((n + m) d^2 + d^3).
    """
    values, vectors = np.linalg.eigh(gram(y, num_threads))
    basis = np.ascontiguousarray(vectors[:, ::-1], np.float32)
    _multiply(x, basis, num_threads)
    _multiply(y, basis, num_threads)
    return np.asarray(np.maximum(values[::-1], 0), np.float32)


def turn_reference(x: F32, y: F32) -> tuple[F64, F64, F64]:
    """Return the turned X, the turned Y and the diagonal in float64; a column's sign is free."""
    values, vectors = np.linalg.eigh(gram_reference(y))
    basis = vectors[:, ::-1]
    return x @ basis, y @ basis, np.maximum(values[::-1], 0)


def half_sweep(
    matrix: CSR,
    x: F32,
    y: F32,
    dense: F32,
    reg: F32,
    *,
    offset: float = 0.0,
    steps: int = 2,
    relax: float = 1.0,
    num_threads: int = 1,
) -> None:
    """Move each row of ``x`` towards the solution of its least squares, in place.

    Row u solves (diag(dense) + sum_j w_uj y_j y_j^T + reg_u I) x_u = sum_j (w_uj + offset) y_j.
    The digits of a row depend on that row alone, not on the threads.

    Args:
        matrix: (n x m) CSR of weights w.
        x: (n, d) float32, the start and the answer; rows without entries become zero.
        y: (m, d) float32, turned so that Y^T Y is diagonal.
        dense: (d,) float32, that diagonal times the weight of the unobserved.
        reg: (n,) float32 L2 strength of each row.
        offset: added to the weights on the right; see ``Objective``.
        steps: conjugate-gradient steps.
        relax: length of a step over its best one, above 0 and below 2.
        num_threads: threads over rows.

    O((steps + 1) (4 nnz d + 6 n d)) operations. As often, nnz d float32 are gathered: once from
    memory, then from the cache where a row's vectors stay in it.

    **Source**: Takács, Pilászy and Tikk (2011) for conjugate gradients in ALS.
    **Differs**: a diagonal Gram matrix, its inverse as the preconditioner, over-relaxation.
    """
    weights = matrix.weights()
    # A row costs its entries and a little: pieces of equal work, as rows fall by frequency.
    work = matrix.indptr + 8 * np.arange(len(matrix.indptr))
    pieces = int(min(4 * num_threads, 1 + work[-1] // _WORK))
    bounds = np.searchsorted(work, np.linspace(0, work[-1], pieces + 1))

    def some(first: int, last: int) -> None:
        _half_sweep(
            matrix.indptr, matrix.indices, weights, x, y, dense, reg, np.float32(offset),
            steps, np.float32(relax), bounds[first], bounds[last],
        )  # fmt: skip

    spread(some, pieces, num_threads)


def half_sweep_reference(matrix: CSR, y: F32, dense: F32, reg: F32, *, offset: float = 0.0) -> F64:
    """Return the solutions that ``half_sweep`` moves towards, by ``numpy.linalg.solve``."""
    x = np.zeros((matrix.num_rows, y.shape[1]))
    weights = matrix.weights()
    for row in range(matrix.num_rows):
        at = slice(*matrix.indptr[row : row + 2])
        vectors, weight = y[matrix.indices[at]].astype(np.float64), weights[at]
        if len(weight):
            system = np.diag(dense + reg[row]) + (vectors.T * weight) @ vectors
            x[row] = np.linalg.solve(system, vectors.T @ (weight + offset))
    return x


def loss(matrix: CSR, x: F32, y: F32, objective: Objective, num_threads: int = 1) -> float:
    """Return the objective at (X, Y), summed in float64. O(nnz d + (n + m) d^2)."""
    parts, weights = np.zeros(len(x)), matrix.weights()
    offset = np.float32(objective.offset)

    def some(start: int, stop: int) -> None:
        _observed(matrix.indptr, matrix.indices, weights, x, y, offset, parts, start, stop)

    spread(some, len(x), num_threads, _BLOCK)
    total = float(parts.sum())
    total += objective.unobserved_weight * float(
        (gram(x, num_threads) * gram(y, num_threads)).sum()
    )
    item_lengths = np.bincount(matrix.indices, minlength=len(y))
    for side, lengths, others in ((x, matrix.lengths, len(y)), (y, item_lengths, len(x))):
        squares = np.einsum("ij,ij->i", side, side, dtype=np.float64)
        total += float(objective.strengths(lengths, others) @ squares)
    return total


def loss_reference(matrix: CSR, x: F32, y: F32, objective: Objective) -> float:
    """Return the same from the dense (n, m) product, term by term."""
    product = x.astype(np.float64) @ y.T
    p = product[matrix.row_numbers(), matrix.indices]
    observed = matrix.weights() * (p - 1) ** 2 + objective.offset * (1 - 2 * p)
    item_lengths = np.bincount(matrix.indices, minlength=len(y))
    penalty = objective.strengths(matrix.lengths, len(y)) @ (x.astype(np.float64) ** 2).sum(1)
    penalty += objective.strengths(item_lengths, len(x)) @ (y.astype(np.float64) ** 2).sum(1)
    return float(observed.sum() + objective.unobserved_weight * (product**2).sum() + penalty)


def transpose(matrix: CSR) -> CSR:
    """Return what ``CSR.transpose`` returns, by counting instead of sorting. O(nnz)."""
    indptr = np.zeros(matrix.num_cols + 1, np.int64)
    np.cumsum(np.bincount(matrix.indices, minlength=matrix.num_cols), out=indptr[1:])
    indices, values = np.empty(matrix.nnz, np.int32), np.empty(matrix.nnz, np.float32)
    place = indptr[:-1].copy()
    _transpose(matrix.indptr, matrix.indices, matrix.weights(), place, indices, values)
    return CSR(indptr, indices, values, matrix.num_rows)


def transpose_reference(matrix: CSR) -> CSR:
    """Return the same by a stable sort of the columns."""
    order = np.argsort(matrix.indices, kind="stable")
    indptr = np.searchsorted(matrix.indices[order], np.arange(matrix.num_cols + 1))
    rows = matrix.row_numbers()[order]
    return CSR(indptr.astype(np.int64), rows, matrix.weights()[order], matrix.num_rows)


def gram(y: F32, num_threads: int = 1) -> F64:
    """Return the (d, d) Y^T Y; blocks of rows are summed in float64, in a fixed order."""
    size = max(4 * _BLOCK, -(-len(y) // 32))
    parts = np.zeros((-(-len(y) // size), y.shape[1], y.shape[1]), np.float32)

    def some(first: int, last: int) -> None:
        for block in range(first, last):
            rows = y[block * size : (block + 1) * size]
            np.matmul(rows.T, rows, out=parts[block])

    spread(some, len(parts), num_threads)
    return np.asarray(parts.sum(0, dtype=np.float64))


def gram_reference(y: F32) -> F64:
    """Return the same as one product in float64."""
    wide = y.astype(np.float64)
    return wide.T @ wide


def _multiply(x: F32, basis: F32, num_threads: int) -> None:
    """Replace X by X ``basis``, a cache-sized block at a time. O(n d^2)."""

    def some(first: int, last: int) -> None:
        for start in range(first * _BLOCK, min(last * _BLOCK, len(x)), _BLOCK):
            rows = x[start : start + _BLOCK]
            rows[:] = rows @ basis

    spread(some, -(-len(x) // _BLOCK), num_threads)


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _half_sweep(
    indptr: Any, indices: Any, weights: Any, x: Any, y: Any, dense: Any, reg: Any,
    offset: Any, steps: int, relax: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """Move rows ``start:stop`` of x."""
    d = x.shape[1]
    zero, one = np.float32(0), np.float32(1)
    diagonal, inverse = np.empty(d, np.float32), np.empty(d, np.float32)
    residual, direction = np.empty(d, np.float32), np.empty(d, np.float32)
    image = np.empty(d, np.float32)
    for row in range(start, stop):
        low, high = indptr[row], indptr[row + 1]
        mine = x[row]
        if low == high:
            mine[:] = zero
            continue
        for f in range(d):
            diagonal[f] = dense[f] + reg[row]
            inverse[f] = one / diagonal[f]
            residual[f] = -diagonal[f] * mine[f]
        _accumulate(indices, weights, y, low, high, mine, residual, offset, one, -one)
        energy = zero
        for f in range(d):
            direction[f] = inverse[f] * residual[f]
            energy += residual[f] * direction[f]
        # Below this the rest is rounding, and steps along it lead nowhere.
        floor = np.float32(1e-11) * energy
        for step in range(steps):
            if not energy > floor:
                break
            for f in range(d):
                image[f] = diagonal[f] * direction[f]
            _accumulate(indices, weights, y, low, high, direction, image, zero, zero, one)
            curve = zero
            for f in range(d):
                curve += direction[f] * image[f]
            length, before = energy / curve, energy
            for f in range(d):
                mine[f] += relax * length * direction[f]
            if step + 1 < steps:
                energy = zero
                for f in range(d):
                    residual[f] -= length * image[f]
                    energy += residual[f] * residual[f] * inverse[f]
                for f in range(d):
                    direction[f] = inverse[f] * residual[f] + energy / before * direction[f]


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _accumulate(
    indices: Any, weights: F32, y: F32, low: int, high: int, vector: F32, out: F32,
    offset: Any, constant: Any, slope: Any,
) -> None:  # fmt: skip
    """Add sum_j (offset + w_j (constant + slope y_j . vector)) y_j to ``out``.

    Four vectors at a time: each is read once, while it is in the cache, for both products.
    """
    d = len(vector)
    zero = np.float32(0)
    at = low
    while at + 4 <= high:
        y0, y1 = y[indices[at]], y[indices[at + 1]]
        y2, y3 = y[indices[at + 2]], y[indices[at + 3]]
        s0, s1, s2, s3 = zero, zero, zero, zero
        for f in range(d):
            v = vector[f]
            s0 += y0[f] * v
            s1 += y1[f] * v
            s2 += y2[f] * v
            s3 += y3[f] * v
        s0 = offset + weights[at] * (constant + slope * s0)
        s1 = offset + weights[at + 1] * (constant + slope * s1)
        s2 = offset + weights[at + 2] * (constant + slope * s2)
        s3 = offset + weights[at + 3] * (constant + slope * s3)
        for f in range(d):
            out[f] += s0 * y0[f] + s1 * y1[f] + s2 * y2[f] + s3 * y3[f]
        at += 4
    while at < high:
        y0 = y[indices[at]]
        s0 = zero
        for f in range(d):
            s0 += y0[f] * vector[f]
        s0 = offset + weights[at] * (constant + slope * s0)
        for f in range(d):
            out[f] += s0 * y0[f]
        at += 1


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _observed(
    indptr: Any, indices: Any, weights: Any, x: Any, y: Any, offset: Any,
    parts: Any, start: int, stop: int,
) -> None:  # fmt: skip
    """Fill ``parts[start:stop]`` with what the observed pairs of each row add to the loss."""
    for row in range(start, stop):
        mine, total = x[row], 0.0
        for at in range(indptr[row], indptr[row + 1]):
            other = y[indices[at]]
            product = np.float32(0)
            for f in range(len(mine)):
                product += mine[f] * other[f]
            total += weights[at] * (product - 1.0) ** 2 + offset * (1.0 - 2.0 * product)
        parts[row] = total


@njit(cache=True, nogil=True)
def _transpose(
    indptr: Any, indices: Any, values: Any, place: Any, out_indices: Any, out_values: Any
) -> None:
    """Put each entry into the next free place of its column."""
    for row in range(len(indptr) - 1):
        for at in range(indptr[row], indptr[row + 1]):
            col = indices[at]
            out_indices[place[col]], out_values[place[col]] = row, values[at]
            place[col] += 1
