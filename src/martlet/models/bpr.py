"""Bayesian personalized ranking of factors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from martlet.core import Dataset, SpecError, check_counts, num_threads, rng, settle
from martlet.scorers.factors import Factors
from martlet.scorers.projections import Lookup
from martlet.scorers.table import Table


@dataclass(frozen=True)
class BPR:
    """Factors that put what a user met above what it did not, pair by pair.

    Minimizes sum log(1 + e^-x) + reg (|u|^2 + |i|^2 + |j|^2) / 2 with x = u . (i - j), over the
    events (u, i) and items j that u has not met, drawn evenly anew in each epoch.

    **Source**: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback" (2009).
    **Differs**: an epoch takes every event once, where the paper draws them, and user by user
    within a random quarter of the items, from which j is drawn too: see ``kernels.sgd``.

    Attributes:
        dim: length of the vectors.
        rate: length of a step in the first epoch; it falls linearly to a tenth.
        reg: L2 strength.
        epochs: passes over the events.
    """

    dim: int = 64
    rate: float = 0.05
    reg: float = 0.005
    epochs: int = 60

    def __post_init__(self) -> None:
        settle(self)
        check_counts(self, "dim", "epochs")
        if not 0 < self.rate < math.inf:
            raise SpecError(f"rate is {self.rate}: expected a finite number above 0")
        if not 0 <= self.reg < math.inf:
            raise SpecError(f"reg is {self.reg}: expected a finite number, 0 or more")

    def fit(self, dataset: Dataset, *, seed: int = 0) -> Factors:
        """Return the factors; an unknown user is the mean of the vectors of the history.

        O(epochs nnz d). The number of threads touches no digit.

        Raises:
            SpecError: the vectors grew beyond float32.
        """
        from martlet.kernels.sgd import bpr_epoch

        matrix, stream = dataset.train.matrix, rng(seed, "bpr")
        users, items = (
            stream.normal(0, 0.1, (count, self.dim)).astype(np.float32)
            for count in (matrix.num_rows, matrix.num_cols)
        )
        for epoch in range(self.epochs):
            rate = self.rate * (1 - 0.9 * epoch / self.epochs)
            bpr_epoch(
                matrix, users, items, rate=rate, reg=self.reg, seed=int(stream.integers(2**63)),
                num_threads=num_threads(),
            )  # fmt: skip
        if not (np.isfinite(users).all() and np.isfinite(items).all()):
            raise SpecError(f"the vectors grew beyond float32: lower the rate (now {self.rate:g})")
        users[matrix.lengths == 0] = 0  # nothing is known of them
        return Factors(Table.of(items), Lookup(Table.of(users)))

    def flops(self, dataset: Dataset) -> int:
        """Operations of a fit: 18 d an event and epoch."""
        return 18 * self.epochs * dataset.train.matrix.nnz * self.dim

    def bytes(self, num_items: int) -> int:
        """Bytes of the fitted vectors of the items; those of the users come beside them."""
        return 4 * num_items * self.dim
