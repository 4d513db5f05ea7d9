"""Each item regressed on a few others: many small least squares over sparse columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR
from martlet.kernels.item_item import parts
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread

_GRAIN = 64  # items that are worth a thread, and its buffers


def ridge(matrix: CSR, features: CSR, reg: float, num_threads: int = 1) -> CSR:
    """Return W with row i the minimizer of |x_i - sum_j W[i, j] x_j|^2 + reg |W[i]|^2.

    x_i is column i of X, and j runs over row i of ``features``.

    Args:
        matrix: X, (num_users x n) CSR with each pair once.
        features: (n x n) CSR, the items that each item is explained by; not itself.
        reg: weight of the squares, above 0.
        num_threads: threads over items.

    Returns:
        (n x n) CSR float32 with the places of ``features``. With m features of frequency f and c
        of them in a user's history: O(n (m f c + m^3 / 6)) multiply-adds,
        O(threads (m^2 + m f + users)) memory.
    """
    values = np.zeros(features.nnz, np.float32)
    users_of, items = parts(matrix.transpose()), parts(features)

    def some(start: int, stop: int) -> None:
        _ridge(users_of, items, matrix.num_rows, np.float32(reg), values, start, stop)

    spread(some, matrix.num_cols, num_threads, _GRAIN)
    return CSR(features.indptr, features.indices, values, features.num_cols)


def ridge_reference(dense: NDArray[np.floating], features: CSR, reg: float) -> NDArray[np.float64]:
    """Return the same as a dense (n, n) matrix, each row by ``numpy.linalg.solve``."""
    gram = dense.astype(np.float64).T @ dense
    weights = np.zeros_like(gram)
    for item in range(features.num_rows):
        some = features.row(item)
        system = gram[np.ix_(some, some)] + reg * np.eye(len(some))
        weights[item, some] = np.linalg.solve(system, gram[some, item])
    return weights


@njit(cache=True, nogil=True, error_model="numpy")
def _ridge(
    users_of: Any, features: Any, num_users: int, reg: Any, values: Any, start: int, stop: int
) -> None:
    """Fill the zeros of rows ``start:stop``: the features' Gram matrix by user, then Cholesky."""
    indptr, users, weights = users_of
    own = np.zeros(num_users, np.float32)
    begin = np.zeros(num_users, np.int32)
    count = np.zeros(num_users, np.int32)
    for item in range(start, stop):
        some = features[1][features[0][item] : features[0][item + 1]]
        m = len(some)
        if m == 0:
            continue
        # The features of each user, one user after another.
        total = 0
        for j in some:
            for at in range(indptr[j], indptr[j + 1]):
                count[users[at]] += 1
            total += indptr[j + 1] - indptr[j]
        place, weight = np.empty(total, np.int32), np.empty(total, np.float32)
        met, end = np.empty(total, np.int32), 0
        num_met = 0
        for p in range(m):
            for at in range(indptr[some[p]], indptr[some[p] + 1]):
                user = users[at]
                if count[user] > 0:  # first met: reserve its room, count again from -1 downwards
                    met[num_met] = user
                    num_met += 1
                    begin[user] = end
                    end += count[user]
                    count[user] = 0
                spot = begin[user] - count[user]
                place[spot], weight[spot] = p, weights[at]
                count[user] -= 1
        gram = np.zeros((m, m), np.float32)
        target = values[features[0][item] : features[0][item + 1]]
        for at in range(indptr[item], indptr[item + 1]):
            own[users[at]] = weights[at]
        for one in range(num_met):
            user = met[one]
            low, high = begin[user], begin[user] - count[user]
            for a in range(low, high):
                target[place[a]] += own[user] * weight[a]
                line = gram[place[a]]
                for b in range(low, a + 1):
                    line[place[b]] += weight[a] * weight[b]
            count[user] = 0
        for at in range(indptr[item], indptr[item + 1]):
            own[users[at]] = 0
        for p in range(m):
            gram[p, p] += reg
        solve(gram, target)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")
def solve(a: Any, b: Any) -> None:
    """Solve a x = b in place by Cholesky; the lower half of ``a`` is positive definite, (m, m)."""
    m = len(b)
    for i in range(m):
        row = a[i]
        for j in range(i):
            other = a[j]
            total = row[j]
            for d in range(j):
                total -= row[d] * other[d]
            row[j] = total / other[j]
        total, sum_b = row[i], b[i]
        for d in range(i):
            total -= row[d] * row[d]
            sum_b -= row[d] * b[d]
        row[i] = np.sqrt(total)
        b[i] = sum_b / row[i]
    for i in range(m - 1, -1, -1):
        b[i] /= a[i, i]
        for d in range(i):
            b[d] -= a[i, d] * b[i]
