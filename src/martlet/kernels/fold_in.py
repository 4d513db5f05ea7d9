"""The vector of a history among fixed item vectors: one small linear system a user."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_GRAIN = 8  # users that are worth a thread, and its system


def fold_in(
    vectors: F32,
    weights: F32,
    indptr: NDArray[np.int64],
    gram: F64,
    ridge: F64,
    right: F32 | None = None,
    num_threads: int = 1,
) -> F64:
    """Return x_b with (gram + ridge_b I + sum_e w_e v_e v_e^T) x_b = right_b for each user b.

    The same digits whatever the batch and the number of threads. O(nnz d^2 / 2 + B d^3 / 6)
    multiply-adds, O(threads d^2) memory.

    Args:
        vectors: (nnz, d) float32, the item vector of each event.
        weights: (nnz,) float32.
        indptr: (B + 1,) int64; events ``indptr[b]:indptr[b + 1]`` are those of user b.
        gram: (d, d) float64, symmetric and without negative eigenvalues.
        ridge: (B,) float64, above 0.
        right: (B, d) float32; None takes sum_e w_e v_e.
        num_threads: threads over users.

    Returns:
        (B, d) float64.

    **Source**: Hu, Koren and Volinsky (2008), equation 4; Cholesky's factorization.
    """
    size, d = len(indptr) - 1, gram.shape[0]
    solved = np.zeros((size, d))
    own = right is None
    if right is not None:
        solved[:] = right

    def users(start: int, stop: int) -> None:
        _fold_in(vectors, weights, indptr, gram, ridge, own, solved, start, stop)

    spread(users, size, num_threads, _GRAIN)
    return solved


def fold_in_reference(
    vectors: F32,
    weights: F32,
    indptr: NDArray[np.int64],
    gram: F64,
    ridge: F64,
    right: F32 | None = None,
) -> F64:
    """Return what ``fold_in`` returns, by ``numpy.linalg.solve``."""
    solved = np.zeros((len(indptr) - 1, gram.shape[0]))
    for b in range(len(solved)):
        own = slice(indptr[b], indptr[b + 1])
        weighted = weights[own, None].astype(np.float64) * vectors[own]
        system = gram + ridge[b] * np.eye(len(gram)) + weighted.T @ vectors[own]
        solved[b] = np.linalg.solve(system, weighted.sum(0) if right is None else right[b])
    return solved


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _fold_in(
    vectors: Any, weights: Any, indptr: Any, gram: Any, ridge: Any, own: Any, solved: Any,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Solve users ``start:stop``; ``solved`` holds the right sides unless they are ``own``."""
    d = len(gram)
    system = np.empty((d, d), np.float64)
    few = np.zeros((4, d), np.float64)
    for b in range(start, stop):
        x = solved[b]
        for row in range(d):
            for col in range(row + 1):
                system[row, col] = gram[row, col]
            system[row, row] += ridge[b]
        # Four events a pass: each place of the system is loaded and stored a quarter as often.
        for event in range(indptr[b], indptr[b + 1], 4):
            for i in range(4):
                there = event + i < indptr[b + 1]
                for col in range(d):
                    few[i, col] = vectors[event + i, col] if there else 0.0
            w0 = np.float64(weights[event])
            w1 = np.float64(weights[event + 1]) if event + 1 < indptr[b + 1] else 0.0
            w2 = np.float64(weights[event + 2]) if event + 2 < indptr[b + 1] else 0.0
            w3 = np.float64(weights[event + 3]) if event + 3 < indptr[b + 1] else 0.0
            for row in range(d):
                p0, p1 = w0 * few[0, row], w1 * few[1, row]
                p2, p3 = w2 * few[2, row], w3 * few[3, row]
                if own:
                    x[row] += p0 + p1 + p2 + p3
                line = system[row]
                for col in range(row + 1):
                    line[col] += (
                        p0 * few[0, col] + p1 * few[1, col] + p2 * few[2, col] + p3 * few[3, col]
                    )
        _solve(system, x)


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc"}, error_model="numpy")
def _solve(system: Any, x: Any) -> None:
    """Put L^-T L^-1 x in x, with L L^T the lower half of ``system``, which L overwrites."""
    d = len(x)
    for row in range(d):
        line = system[row]
        for col in range(row):
            other = system[col]
            dot = 0.0
            for i in range(col):
                dot += line[i] * other[i]
            line[col] = (line[col] - dot) / other[col]
        dot, hit = 0.0, 0.0
        for i in range(row):
            dot += line[i] * line[i]
            hit += line[i] * x[i]
        line[row] = np.sqrt(line[row] - dot)
        x[row] = (x[row] - hit) / line[row]
    for row in range(d - 1, -1, -1):
        x[row] /= system[row, row]
        for i in range(row):
            x[i] -= system[row, i] * x[row]
