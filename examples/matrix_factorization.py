"""R = [[1, 2, 0], [0, 1, 2], [2, 0, 1]] is approximated by two factors; a picture shows how well.

Run: python examples/matrix_factorization.py [PICTURE.png]; 0 stands for what was not observed.
"""

import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from martlet.core import CSR
from martlet.models.matrix_factorization import MatrixFactorization

ACTUAL = np.array([[1, 2, 0], [0, 1, 2], [2, 0, 1]], np.float32)


def main() -> None:
    """Descend, print the matrix that was found, and draw actual against predicted."""
    rows = [np.flatnonzero(row) for row in ACTUAL]
    matrix = CSR.from_rows(rows, 3, [row[at] for row, at in zip(ACTUAL, rows, strict=True)])
    spec = MatrixFactorization(dim=2, cells="observed", optimizer="descent", rate=0.05, epochs=1000)
    losses = []
    for users, items, loss in spec.steps(matrix):
        losses.append(loss)
        predicted = users @ items.T
    print("predicted:", *np.round(predicted, 2).tolist(), sep="\n")
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.2e} in {len(losses)} steps")

    known = ACTUAL > 0
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
    left.semilogy(losses)
    left.set(xlabel="step", ylabel="squared error of the observed cells")
    right.plot([0, 2.5], [0, 2.5], color="0.7")
    right.scatter(ACTUAL[known], predicted[known], label="observed")
    right.scatter(ACTUAL[~known], predicted[~known], label="not observed", marker="x")
    right.set(xlabel="actual", ylabel="predicted")
    right.legend()
    default = Path(tempfile.gettempdir()) / "matrix_factorization.png"
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    figure.savefig(path, bbox_inches="tight")
    print(f"drew {path}")


if __name__ == "__main__":
    main()
