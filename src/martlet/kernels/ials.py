"""Half a sweep of implicit alternating least squares.

With the factors turned so that the Gram matrix is diagonal, the dense part of every row's system
costs d multiplications in place of d^2, and its inverse is a preconditioner at no cost: two or
three conjugate-gradient steps, started from the last sweep's answer, are enough.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from martlet.core import CSR
from martlet.kernels.parallel import spread

F32 = NDArray[np.float32]
_GRAIN = 256  # rows that are worth a thread


def half_sweep(
    matrix: CSR,
    x: F32,
    y: F32,
    dense: F32,
    reg: F32,
    *,
    offset: float = 0.0,
    steps: int = 3,
    num_threads: int = 1,
) -> None:
    """Move each row of ``x`` towards the solution of its least squares, in place.

    Row u solves (diag(dense) + sum_j w_uj y_j y_j^T + reg_u I) x_u = sum_j (w_uj + offset) y_j.

    Args:
        matrix: (n x m) CSR of weights w.
        x: (n, d) float32, the start and the answer.
        y: (m, d) float32, turned so that Y^T Y is diagonal.
        dense: (d,) float32, that diagonal times the weight of the unobserved.
        reg: (n,) float32 L2 strength of each row.
        offset: added to the weights on the right; 0 is the objective of Rendle et al. (2021), 1
            with ``dense`` = diag(Y^T Y) that of Hu, Koren and Volinsky (2008).
        steps: conjugate-gradient steps.
        num_threads: threads over rows.

    Rows without entries become zero. O(steps (4 nnz d + 6 n d)) operations, and as many gathered
    bytes as 2 (steps + 1) nnz d float32 where a row's vectors do not stay in the cache.

    **Source**: Takács, Pilászy and Tikk (2011) for conjugate gradients in ALS.
    **Differs**: diagonal Gram matrix, and so its exact inverse as the preconditioner.
    """
    weights = matrix.weights()
    spread(
        lambda start, stop: _half_sweep(
            matrix.indptr, matrix.indices, weights, x, y, dense, reg,
            np.float32(offset), steps, start, stop,
        ),
        len(x),
        num_threads,
        _GRAIN,
    )  # fmt: skip


def half_sweep_reference(
    matrix: CSR, y: F32, dense: F32, reg: F32, *, offset: float = 0.0
) -> NDArray[np.float64]:
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


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _half_sweep(
    indptr: Any, indices: Any, weights: F32, x: F32, y: F32, dense: F32, reg: F32,
    offset: Any, steps: int, start: int, stop: int,
) -> None:  # fmt: skip
    """Solve rows ``start:stop``."""
    d = x.shape[1]
    residual, direction = np.empty(d, np.float32), np.empty(d, np.float32)
    image, inverse = np.empty(d, np.float32), np.empty(d, np.float32)
    zero, one = np.float32(0), np.float32(1)
    for row in range(start, stop):
        low, high = indptr[row], indptr[row + 1]
        mine = x[row]
        if low == high:
            mine[:] = zero
            continue
        for f in range(d):
            diagonal = dense[f] + reg[row]
            inverse[f] = one / diagonal
            residual[f] = -diagonal * mine[f]
        _accumulate(indices, weights, y, low, high, mine, residual, offset, one, -one)
        energy = zero
        for f in range(d):
            direction[f] = inverse[f] * residual[f]
            energy += residual[f] * direction[f]
        # Below this the rest is rounding, and steps along it lead nowhere.
        floor = np.float32(1e-11) * energy
        for _ in range(steps):
            if energy <= floor:
                break
            for f in range(d):
                image[f] = (dense[f] + reg[row]) * direction[f]
            _accumulate(indices, weights, y, low, high, direction, image, zero, zero, one)
            curve = zero
            for f in range(d):
                curve += direction[f] * image[f]
            length, before = energy / curve, energy
            energy = zero
            for f in range(d):
                mine[f] += length * direction[f]
                residual[f] -= length * image[f]
                energy += residual[f] * residual[f] * inverse[f]
            turn = energy / before
            for f in range(d):
                direction[f] = inverse[f] * residual[f] + turn * direction[f]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
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
