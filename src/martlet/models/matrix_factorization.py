"""Matrix factorization by gradient descent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Dataset, SpecError, check_counts, num_threads, rng, settle
from martlet.kernels.parallel import spread
from martlet.scorers.factors import Factors
from martlet.scorers.projections import Lookup
from martlet.scorers.table import Table

F32 = NDArray[np.float32]
_BLOCK_VALUES = 1 << 20  # cells of the full matrix that are held at a time
_DENSE_VALUES, _DENSE_SHARE = 1 << 25, 1 / 16  # so few cells, so full: held as a dense matrix
_GRAIN = 128  # rows of a dense matrix that are worth a thread
_BETA, _BETA2, _EPS = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class MatrixFactorization:
    """R is approximated by U V^T: gradient steps on a loss over cells.

    With s_ij = u_i . v_j, over the observed cells, or over all (where nothing was observed r is 0),
    or over the observed ones and others that are drawn anew in each epoch:

        squared    sum (s_ij - r_ij)^2
        logistic   sum log(1 + e^s_ij) - r_ij s_ij            cross-entropy, r in [0, 1]

    and reg (|U|^2 + |V|^2) beside it. "descent" is U <- U - rate dL/dU, V <- V - rate dL/dV on the
    whole loss at once; "adam" takes the same gradient; "sgd" moves after every observed cell, with
    those that were drawn for it.

    The gradient of the square over all cells needs no cell that was not observed:
    dL/dU = 2 (U V^T V - R V). So an epoch costs O(nnz d + (users + items) d^2) in place of
    O(users items d), and the loss comes with it.

    **Source**: Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems"
    (2009); Kingma and Ba, "Adam" (2015); for drawn cells Rendle et al., "Neural Collaborative
    Filtering vs. Matrix Factorization Revisited" (2020).
    **Differs**: what is drawn is always something that the user has not met, and a step takes an
    event with all that was drawn for it; the order is that of ``kernels.sgd``.

    Attributes:
        dim: length of the vectors.
        loss: "squared" or "logistic".
        cells: "observed", "all" or "sampled".
        optimizer: "descent", "adam" or "sgd".
        rate: length of a step; that of "sampled" falls linearly, in the last epoch to a tenth.
        epochs: passes.
        reg: L2 strength.
        scale: standard deviation of the start.
        weighted: whether r is the event's weight, or 1.
        negatives: items drawn for each event, for "sampled".
        biases: whether s_ij has b_i + b_j beside the product, for "sampled".
    """

    dim: int = 32
    loss: Literal["squared", "logistic"] = "squared"
    cells: Literal["observed", "all", "sampled"] = "all"
    optimizer: Literal["descent", "adam", "sgd"] = "adam"
    rate: float = 0.01
    epochs: int = 100
    reg: float = 0.0
    scale: float = 0.1
    weighted: bool = False
    negatives: int = 8
    biases: bool = False

    def __post_init__(self) -> None:
        settle(self)
        check_counts(self, "dim", "epochs", "negatives")
        for name in ("rate", "scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise SpecError(
                    f"{name} is {getattr(self, name)}: expected a finite number above 0"
                )
        if not 0 <= self.reg < math.inf:
            raise SpecError(f"reg is {self.reg}: expected a finite number, 0 or more")
        if self.optimizer == "sgd" and self.cells == "all":
            raise SpecError(
                "sgd moves after every observed cell: expected cells='observed', or another "
                "optimizer"
            )
        if self.optimizer != "sgd" and self.cells == "sampled":
            raise SpecError(
                f"optimizer is {self.optimizer!r} and cells 'sampled': drawn cells are met one "
                "after another, expected optimizer='sgd'"
            )
        if self.biases and self.cells != "sampled":
            raise SpecError(f"biases go with cells='sampled': cells is {self.cells!r}")

    def fit(self, dataset: Dataset, *, seed: int = 0) -> Factors:
        """Return the factors; an unknown user is the mean of the vectors of the history.

        With biases the vectors are one longer.

        Raises:
            SpecError: the loss grew without bound, or a weight that the loss cannot take.
        """
        matrix = dataset.train.matrix
        if not self.weighted:
            matrix = CSR(matrix.indptr, matrix.indices, None, matrix.num_cols)
        for users, items, _ in self.steps(matrix, seed):  # noqa: B007
            pass
        users[matrix.lengths == 0] = 0  # of whom nothing was observed nothing is known
        if self.cells == "observed":  # else what was not observed is known too
            items[np.bincount(matrix.indices, minlength=len(items)) == 0] = 0
        return Factors(Table.of(items), Lookup(Table.of(users)))

    def steps(self, matrix: CSR, seed: int = 0) -> Iterator[tuple[F32, F32, float]]:
        """Yield (users, items, loss before the step) of each epoch; the same arrays, moved on.

        For "sampled" the loss is that of every cell before its own step, without reg. With biases
        the arrays are copies with a further column, which leaves out what ranks no item over
        another.

        Raises:
            SpecError: the loss grew without bound, or a weight that the loss cannot take.
        """
        values = matrix.weights()
        if self.loss == "logistic" and matrix.nnz and not 0 <= values.min() <= values.max() <= 1:
            raise SpecError(
                f"the weights reach {values.max():g}: the logistic loss expects 0 to 1; leave "
                "weighted off, or take the squared loss"
            )
        shape = (matrix.num_rows + matrix.num_cols, self.dim)
        both = rng(seed, "matrix factorization").normal(0, self.scale, shape).astype(np.float32)
        users, items = both[: matrix.num_rows], both[matrix.num_rows :]
        if self.cells == "sampled":
            yield from self._drawn(matrix, users, items, seed)
            return
        gradient = {"squared": _squared, "logistic": _logistic}[self.loss]
        if self.cells == "observed":
            gradient = _observed
        prepared = _Prepared(matrix, self.loss == "logistic", self.cells)
        moments = np.zeros_like(both), np.zeros_like(both)
        for epoch in range(self.epochs):
            # Its own threads wait for each other in small products; only blocks are large ones.
            own = None if gradient is _logistic else 1
            with prepared.blas.limit(limits=own, user_api="blas"):
                loss, slope = gradient(prepared, users, items)
            loss += self.reg * float((both.astype(np.float64) ** 2).sum())
            self._check(loss, epoch)
            if self.optimizer == "sgd":
                self._sgd(prepared, users, items, rng(seed, "order", epoch))
            else:
                slope += np.float32(2 * self.reg) * both
                both -= self._step(slope, moments, epoch + 1)
            yield users, items, loss

    def _drawn(
        self, matrix: CSR, users: F32, items: F32, seed: int
    ) -> Iterator[tuple[F32, F32, float]]:
        from martlet.kernels.sgd import drawn_epoch

        stream = rng(seed, "order")
        biases = np.zeros(len(users), np.float32), np.zeros(len(items), np.float32)
        for epoch in range(self.epochs):
            loss = drawn_epoch(
                matrix, users, items, biases if self.biases else None, negatives=self.negatives,
                rate=self.rate * (1 - 0.9 * epoch / max(1, self.epochs - 1)), reg=self.reg,
                logistic=self.loss == "logistic", seed=int(stream.integers(2**63)),
                num_threads=num_threads(),
            )  # fmt: skip
            self._check(loss, epoch)
            if self.biases:
                # A number added to all of them ranks nothing. With a mean of 1 over the events, a
                # history's mean has what a user's vector has in this column.
                mean = biases[1][matrix.indices].mean() if matrix.nnz else 0
                yield (
                    np.column_stack([users, np.ones(len(users), np.float32)]),
                    np.column_stack([items, biases[1] - np.float32(mean - 1)]),
                    loss,
                )
            else:
                yield users, items, loss

    def _check(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise SpecError(
                f"the loss grew without bound by epoch {epoch + 1}: lower the rate (now "
                f"{self.rate:g})"
            )

    def _step(self, slope: F32, moments: tuple[F32, F32], step: int) -> F32:
        if self.optimizer == "descent":
            return np.float32(self.rate) * slope
        first, second = moments
        first += np.float32(1 - _BETA) * (slope - first)
        second += np.float32(1 - _BETA2) * (slope * slope - second)
        root = math.sqrt(1 - _BETA2**step)
        move: Any = first / (np.sqrt(second) + np.float32(_EPS * root))
        move *= np.float32(self.rate * root / (1 - _BETA**step))
        return move  # type: ignore[no-any-return]

    def _sgd(self, of: _Prepared, users: F32, items: F32, stream: np.random.Generator) -> None:
        from martlet.kernels.sgd import sgd_epoch

        order = stream.permutation(len(of.values))
        sgd_epoch(
            of.rows, of.cols, of.values, order, users, items, self.rate, self.reg, of.logistic
        )

    def flops(self, dataset: Dataset) -> int:
        """Operations of a fit: two sparse products an epoch, and what the other cells need."""
        m = dataset.train.matrix
        dense = 0
        if self.cells == "sampled":
            dense = 10 * m.nnz * self.negatives * self.dim + 4 * m.nnz * self.dim
        if self.cells == "all":
            both = m.num_rows + m.num_cols
            cells = 6 * m.num_rows * m.num_cols * self.dim
            dense = 4 * both * self.dim**2 if self.loss == "squared" else cells
        return self.epochs * (6 * m.nnz * self.dim + dense)

    def bytes(self, num_items: int) -> int:
        """Bytes of the fitted vectors of the items; those of the users come beside them."""
        return 4 * num_items * (self.dim + self.biases)


class _Prepared:
    """The matrix in the forms that the gradients read."""

    def __init__(self, matrix: CSR, logistic: bool, cells: str) -> None:
        import scipy.sparse as sp
        from threadpoolctl import ThreadpoolController

        self.blas: Any = ThreadpoolController()
        self.logistic, self.values = logistic, matrix.weights()
        self.rows, self.cols = matrix.row_numbers(), matrix.indices
        shape = (matrix.num_rows, matrix.num_cols)
        self.sparse = sp.csr_matrix((self.values, matrix.indices, matrix.indptr), shape)
        size = shape[0] * shape[1]
        if cells == "all" and size * _DENSE_SHARE < matrix.nnz and size <= _DENSE_VALUES:
            self.factor: Any = _Dense(self.sparse.toarray())
            self.across: Any = _Dense(self.factor.values.T)
        else:
            self.factor, self.across = self.sparse, self.sparse.T.tocsr()
        self.mass = float(np.vdot(self.values, self.values.astype(np.float64)))


class _Dense:
    """A full matrix whose products take threads of this process, where BLAS is held to one.

    Those of BLAS wait for each other in every product, by far too long where something else runs.
    """

    def __init__(self, values: F32) -> None:
        self.values = values

    def __matmul__(self, vectors: F32) -> F32:
        found = np.empty((len(self.values), vectors.shape[1]), np.float32)

        def some(start: int, stop: int) -> None:
            np.matmul(self.values[start:stop], vectors, out=found[start:stop])

        spread(some, len(found), num_threads(), _GRAIN)
        return found


def _squared(of: _Prepared, users: F32, items: F32) -> tuple[float, F32]:
    """Return the square over all cells, and its slope by U and V, one above the other."""
    met, met_across = of.factor @ items, of.across @ users
    of_users, of_items = users.T @ users, items.T @ items
    slope = np.concatenate([users @ of_items - met, items @ of_users - met_across])
    product = float((of_users.astype(np.float64) * of_items).sum())
    loss = of.mass - 2 * float((users.astype(np.float64) * met).sum()) + product
    return loss, np.float32(2) * slope


def _logistic(of: _Prepared, users: F32, items: F32) -> tuple[float, F32]:
    """Return the cross-entropy over all cells, some users at a time, and its slope."""
    slope, loss = np.zeros((len(users) + len(items), users.shape[1]), np.float32), 0.0
    of_users, of_items = slope[: len(users)], slope[len(users) :]
    size = max(1, _BLOCK_VALUES // max(1, len(items)))
    for start in range(0, len(users), size):
        some = users[start : start + size]
        score = some @ items.T
        actual = of.sparse[start : start + size].toarray()
        loss += float((np.logaddexp(0, score) - actual * score).sum(dtype=np.float64))
        error = _sigmoid(score) - actual
        of_users[start : start + size] = error @ items
        of_items += error.T @ some
    return loss, slope


def _observed(of: _Prepared, users: F32, items: F32) -> tuple[float, F32]:
    """Return either loss over the observed cells, and its slope."""
    score = np.einsum("ij,ij->i", users[of.rows], items[of.cols])
    if of.logistic:
        loss = float((np.logaddexp(0, score) - of.values * score).sum(dtype=np.float64))
        error = _sigmoid(score) - of.values
    else:
        error = 2 * (score - of.values)
        loss = float((error.astype(np.float64) ** 2).sum()) / 4
    errors: Any = of.sparse.copy()
    errors.data = error.astype(np.float32)
    return loss, np.concatenate([errors @ items, errors.T @ users])


def _sigmoid(score: F32) -> F32:
    share: F32 = np.tanh(np.float32(0.5) * score)  # never overflows
    return np.float32(0.5) * (1 + share)
