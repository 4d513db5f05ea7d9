"""What stands for a user who was not there in training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR

F32 = NDArray[np.float32]
_RIDGE = 0.01  # of the mean square that a direction has


def stand_in(users: F32, met: CSR) -> F32:
    """Return (n, d) vectors of items whose mean over a history stands for a user's own.

    The vector of an item is the mean of those who met it, by the affine map through which the means
    over the histories of the known users come closest to their own vectors. O(nnz d + users d^2).
    """
    import scipy.sparse as sp

    known, dim = met.lengths > 0, users.shape[1]
    ones = np.ones(met.nnz, np.float32)
    matrix = sp.csr_matrix((ones, met.indices, met.indptr), (met.num_rows, met.num_cols))
    count = np.maximum(np.bincount(met.indices, minlength=met.num_cols), 1)
    items = (matrix.T @ users) / count[:, None]
    folded = ((matrix @ items)[known] / met.lengths[known, None]).astype(np.float64)
    centre, own = folded.mean(0), users[known].mean(0, dtype=np.float64)
    folded -= centre
    square = folded.T @ folded
    square += (_RIDGE * np.trace(square) / dim + 1e-9) * np.eye(dim)
    change = np.linalg.solve(square, folded.T @ (users[known] - own))
    return np.asarray((items - centre) @ change + own, np.float32)
