"""Implicit alternating least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Dataset, Executor, SpecError, num_threads, rng
from martlet.scorers.factors import Factors
from martlet.scorers.projections import IALSFold
from martlet.scorers.table import Table

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class IALS:
    """Factors of users and items whose product is 1 where they met and 0 where they did not.

    Minimizes, over users u and items i with vectors x_u and y_i,

        sum_{(u,i) met} w_ui (x_u . y_i - 1)^2 + unobserved_weight sum_{all u,i} (x_u . y_i)^2
        + reg sum_u (n_u + unobserved_weight num_items)^reg_exponent |x_u|^2, and the same for items

    **Source**: Hu, Koren and Volinsky (2008); Rendle et al., "Revisiting the Performance of iALS
    on Item Recommendation Benchmarks" (2021), equations 2 to 5.
    **Differs**: users and items that met nobody have zero vectors; each half sweep is a few
    conjugate-gradient steps with the Gram matrix turned to its diagonal form (``kernels.ials``).

    Attributes:
        dim: length of the vectors.
        reg: L2 strength.
        unobserved_weight: weight of a pair that did not meet.
        reg_exponent: 1 regularizes in proportion to frequency, 0 is the classic objective.
        iterations: sweeps over users and items.
        steps: conjugate-gradient steps a row and sweep.
        weighted: whether the weights of the events count, or only that they are there.
    """

    dim: int = 64
    reg: float = 0.005
    unobserved_weight: float = 0.2
    reg_exponent: float = 1.0
    iterations: int = 10
    steps: int = 3
    weighted: bool = False

    def __post_init__(self) -> None:
        for name in ("dim", "iterations", "steps"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} is {getattr(self, name)}: expected a whole number above 0")
        for name in ("reg", "unobserved_weight"):
            if not getattr(self, name) > 0:
                raise SpecError(f"{name} is {getattr(self, name)}: expected a number above 0")

    def fit(
        self,
        dataset: Dataset,
        *,
        seed: int = 0,
        init: Any = None,
        teacher: Any = None,
        executor: Executor | None = None,
    ) -> Factors:
        """Return the item vectors, with the projection that gives any history its user vector.

        O(iterations (steps + 1) (8 nnz d) + iterations (users + items) d^2).

        Raises:
            SpecError: ``init`` or ``teacher`` is given: there is nothing to start from.
        """
        if init is not None or teacher is not None:
            raise SpecError("ials starts from random vectors: it takes no init and no teacher")
        matrix = dataset.train.matrix
        if not self.weighted:
            matrix = CSR(matrix.indptr, matrix.indices, None, matrix.num_cols)
        items = self.factorize(matrix, seed)[1]
        gram = items.T.astype(np.float64) @ items
        projection = IALSFold(
            Table.of(gram), self.unobserved_weight, self.reg, self.reg_exponent, self.weighted
        )
        return Factors(Table.of(items), projection)

    def factorize(self, matrix: CSR, seed: int = 0) -> tuple[F32, F32]:
        """Return (users, d) and (items, d) float32 vectors of a user x item CSR."""
        from martlet.kernels.ials import half_sweep

        across = matrix.transpose()
        users = np.zeros((matrix.num_rows, self.dim), np.float32)
        scale = 0.1 / np.sqrt(self.dim)
        items = rng(seed, "ials").normal(0, scale, (matrix.num_cols, self.dim)).astype(np.float32)
        items[across.lengths == 0] = 0
        threads = num_threads()
        for _ in range(self.iterations):
            for rows, left, right in ((matrix, users, items), (across, items, users)):
                diagonal = _turn(left, right)
                half_sweep(
                    rows,
                    left,
                    right,
                    np.float32(self.unobserved_weight) * diagonal,
                    self._reg(rows),
                    steps=self.steps,
                    num_threads=threads,
                )
        return users, items

    def _reg(self, rows: CSR) -> F32:
        """(n,) float32 L2 strength of each row, by its frequency."""
        size = rows.lengths + self.unobserved_weight * rows.num_cols
        return (self.reg * size**self.reg_exponent).astype(np.float32)

    def flops(self, dataset: Dataset) -> int:
        """Operations of a fit: 4 nnz d an application, (steps + 1) of them each half sweep."""
        train = dataset.train.matrix
        sparse = 2 * 4 * train.nnz * self.dim * (self.steps + 1)
        dense = 3 * 2 * (train.num_rows + train.num_cols) * self.dim**2
        return self.iterations * (sparse + 2 * dense)

    def bytes(self, num_items: int) -> int:
        """Bytes of the fitted tables: a vector an item, and the Gram matrix."""
        return 4 * (num_items * self.dim + self.dim**2)


def _turn(left: F32, right: F32) -> F32:
    """Turn both sides, in place, so that right^T right is diagonal; return that diagonal.

    An orthogonal turn leaves every product of a left and a right vector as it is.
    """
    values, vectors = np.linalg.eigh(right.T @ right)
    vectors = vectors.astype(np.float32)
    left[:] = left @ vectors
    right[:] = right @ vectors
    return np.asarray(np.maximum(values, 0), np.float32)
