"""Implicit alternating least squares."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from martlet.core import (
    CSR,
    Dataset,
    SpecError,
    check_counts,
    check_memory,
    num_threads,
    rng,
    settle,
)
from martlet.scorers.factors import Factors
from martlet.scorers.projections import IALSFold
from martlet.scorers.table import Table

if TYPE_CHECKING:
    from martlet.kernels.ials import Objective

F32 = NDArray[np.float32]
_SMALLEST = 1e-20  # products below it are what sweeps towards zero leave, not preferences


@dataclass(frozen=True)
class IALS:
    """Factors of users and items whose product is 1 where they met and 0 where they did not.

    Minimizes, over users u and items i with vectors x_u and y_i,

        sum_{(u,i) met} w_ui (x_u . y_i - 1)^2 + unobserved_weight sum_{all u,i} (x_u . y_i)^2
        + reg sum_u (n_u + unobserved_weight num_items)^reg_exponent |x_u|^2, and the same for items

    **Source**: Hu, Koren and Volinsky (2008); Rendle et al., "Revisiting the Performance of iALS
    on Item Recommendation Benchmarks" (2021), equations 2 to 5.
    **Differs**: users and items that met nobody have zero vectors; each half sweep is a few
    over-relaxed conjugate-gradient steps, with the Gram matrix turned to its diagonal form
    (``kernels.ials``).

    Attributes:
        dim: length of the vectors.
        reg: L2 strength.
        unobserved_weight: weight of a pair that did not meet; None takes 1.5 times the root of the
            share of pairs that met, and 0.4 at most (see ``docs/decisions/ials-solver.md``).
        reg_exponent: 1 regularizes in proportion to frequency, 0 is the classic objective.
        iterations: sweeps over users and items.
        steps: conjugate-gradient steps a row and sweep.
        relax: length of a step over its best one; above 1 saves sweeps, 2 and more diverges.
        weighted: whether the weights of the events count, or only that they are there.
    """

    dim: int = 64
    reg: float = 0.005
    unobserved_weight: float | None = None
    reg_exponent: float = 1.0
    iterations: int = 10
    steps: int = 2
    relax: float = 1.5
    weighted: bool = False

    def __post_init__(self) -> None:
        settle(self)
        check_counts(self, "dim", "iterations", "steps")
        for name in ("reg", "unobserved_weight"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise SpecError(f"{name} is {getattr(self, name)}: expected a number above 0")
        if not 0 <= self.reg_exponent <= 2:
            raise SpecError(f"reg_exponent is {self.reg_exponent}: expected a number from 0 to 2")
        if not 0 < self.relax < 2:
            raise SpecError(f"relax is {self.relax}: expected a number above 0 and below 2")

    def fit(self, dataset: Dataset, *, seed: int = 0) -> Factors:
        """Return the item vectors, with the projection that gives any history its user vector.

        O(iterations ((steps + 1) nnz d + (users + items) d^2)).

        Raises:
            SpecError: the vectors do not fit into memory, or float32 does not hold them.
        """
        matrix = dataset.train.matrix
        if not self.weighted:
            matrix = CSR(matrix.indptr, matrix.indices, None, matrix.num_cols)
        users, items = self.factorize(matrix, seed)
        largest = np.abs(users).max() * np.abs(items).max()
        if not _SMALLEST <= largest < np.inf:
            raise SpecError(
                f"reg is {self.reg}, unobserved_weight {self.unobserved_weight}: the vectors came "
                f"out as good as zero, or beyond float32 (a product of {largest:g}); expected "
                "smaller ones"
            )
        gram = items.T.astype(np.float64) @ items
        objective = self.objective(matrix)
        projection = IALSFold(
            Table.of(gram), objective.unobserved_weight, self.reg, self.reg_exponent, self.weighted
        )
        return Factors(Table.of(items), projection)

    def factorize(self, matrix: CSR, seed: int = 0) -> tuple[F32, F32]:
        """Return (users, d) and (items, d) float32 vectors of a user x item CSR.

        They are turned to the principal axes of the items: the items' Gram matrix is diagonal and
        falling.

        Raises:
            SpecError: the vectors do not fit into memory.
        """
        from martlet.kernels.ials import turn

        # The vectors of both sides; the Gram matrix, its eigenvectors and what LAPACK works in.
        needed = 4 * (matrix.num_rows + matrix.num_cols) * self.dim + 5 * 8 * self.dim**2
        check_memory(f"ials of dim {self.dim:,}", needed, "give a smaller dim")
        start = rng(seed, "ials").random((matrix.num_cols, self.dim), np.float32) * np.float32(0.01)
        aim, many = self.objective(matrix), self.iterations
        for moved in sweeps(matrix, start, aim, many, steps=self.steps, relax=self.relax):
            users, items = moved
        turn(users, items, num_threads())
        return users, items

    def objective(self, matrix: CSR) -> Objective:
        """Return what is minimized over a user x item CSR."""
        from martlet.kernels.ials import Objective

        weight = self.unobserved_weight
        if weight is None:
            density = matrix.nnz / max(1, matrix.num_rows * matrix.num_cols)
            weight = min(0.4, 1.5 * math.sqrt(density))
        return Objective(weight, self.reg, self.reg_exponent)

    def flops(self, dataset: Dataset) -> int:
        """Operations of a fit: 4 nnz d a reading of the entries, 10 d^2 a user or item a sweep.

        The latter are two Gram matrices and two turns of both sides.
        """
        train = dataset.train.matrix
        sparse = 2 * 4 * train.nnz * self.dim * (self.steps + 1)
        dense = 10 * (train.num_rows + train.num_cols) * self.dim**2
        return self.iterations * (sparse + dense)

    def bytes(self, num_items: int) -> int:
        """Bytes of the fitted tables: a vector an item, and the Gram matrix."""
        return 4 * (num_items * self.dim + self.dim**2)


def sweeps(
    matrix: CSR,
    items: F32,
    objective: Objective,
    iterations: int,
    *,
    steps: int = 2,
    relax: float = 1.5,
    threads: int | None = None,
) -> Iterator[tuple[F32, F32]]:
    """Yield (users, items) after each sweep over both; the same arrays, moved on.

    The first two sweeps are not over-relaxed: they find the subspace, and overshoot from afar.

    Args:
        matrix: (users x items) CSR with each pair once.
        items: (items, d) float32, the start; moved in place.
        objective: what is minimized.
        iterations: sweeps.
        steps: conjugate-gradient steps a row and half sweep.
        relax: length of a step over its best one, from the third sweep on.
        threads: threads to use; None takes ``num_threads()``.
    """
    from threadpoolctl import threadpool_limits

    from martlet.kernels.ials import half_sweep, transpose, turn

    threads = num_threads() if threads is None else threads
    across = transpose(matrix)
    users = np.zeros((matrix.num_rows, items.shape[1]), np.float32)
    items[across.lengths == 0] = 0
    reg = objective.strengths(matrix.lengths, len(items))
    reg_across = objective.strengths(across.lengths, len(users))
    sides = ((matrix, users, items, reg), (across, items, users, reg_across))
    for sweep in range(iterations):
        # Rows are spread over threads; BLAS with threads of its own would fight for the cores.
        with threadpool_limits(1, "blas"):
            for rows, left, right, strength in sides:
                diagonal = turn(left, right, threads)
                half_sweep(
                    rows,
                    left,
                    right,
                    np.float32(objective.unobserved_weight) * diagonal,
                    strength,
                    offset=objective.offset,
                    steps=steps,
                    relax=relax if sweep >= 2 else 1.0,
                    num_threads=threads,
                )
        yield users, items
