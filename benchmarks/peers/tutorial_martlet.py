"""The same program as a spec of Martlet."""

import sys

import numpy as np
from _answer import answer

from martlet.core import CSR
from martlet.models.matrix_factorization import MatrixFactorization


def prepare(path, dim, scale, seed):
    dense = np.load(path)["matrix"]
    rows, cols = np.nonzero(dense)
    indptr = np.searchsorted(rows, np.arange(len(dense) + 1))
    matrix = CSR(indptr, cols.astype(np.int32), dense[rows, cols], dense.shape[1])

    def run(epochs, rate):
        spec = MatrixFactorization(
            dim=int(dim), cells="all", loss="squared", optimizer="adam", rate=rate, epochs=epochs,
            scale=float(scale), weighted=True,
        )  # fmt: skip
        return {"losses": [loss for _, _, loss in spec.steps(matrix, int(seed))]}

    return run


if __name__ == "__main__":
    sys.exit(answer(prepare))
