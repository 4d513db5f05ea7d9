"""How a history becomes a vector: the same arithmetic for a training row and for a new user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, BundleError, Queries, num_threads
from martlet.scorers.table import Table

F32 = NDArray[np.float32]

_BLOCK_VALUES = 1 << 22


class Projection(Protocol):
    """Frozen arithmetic from what is known of a user to a vector in the space of the items."""

    @property
    def kind(self) -> str:
        """Name in a stored bundle."""

    def project(self, queries: Queries, items: Table) -> F32:
        """Return (B, d) float32 vectors, the same whatever the batch."""

    def knows(self, queries: Queries) -> NDArray[np.bool_]:
        """Return (B,) bool: the queries that have more to go by than zeros."""

    def parts(self, queries: Queries, items: Table, at: NDArray[np.int32]) -> F32 | None:
        """Return what each event adds to the score of item ``at[b]``: (history.nnz,) float32.

        None where the history alone does not decide the vector.
        """

    def tables(self) -> Mapping[str, Table]:
        """Return every parameter by name, the item vectors left out."""

    def with_tables(self, tables: Mapping[str, Table]) -> Projection:
        """Return the same projection over other storages."""

    def config(self) -> dict[str, Any]:
        """Return every number that is no table, as plain JSON."""


@dataclass(frozen=True, eq=False)
class LinearFold:
    """The weighted sum of the history's item vectors, over (sum of weights) ** ``power``.

    **Source**: power 1 is the mean of FastText-like models, 0.5 that of FISM (Kabbur et al., 2013).

    Attributes:
        power: 0 sums, 1 averages.
        inputs: (n, d) vectors to sum where they are not the item vectors themselves.
        distinct: whether an item of the history counts once, whatever its weights.
    """

    power: float = 1.0
    inputs: Table | None = None
    distinct: bool = False
    kind: ClassVar[str] = "linear"

    def project(self, queries: Queries, items: Table) -> F32:
        """Return (B, d) float32 vectors; an empty history gives zeros. O(nnz d)."""
        history, table = queries.history, items if self.inputs is None else self.inputs
        sums = np.zeros((len(queries), items.shape[1]), np.float32)
        filled = np.flatnonzero(history.lengths)
        if len(filled):
            scaled = table.rows(history.indices) * self._weights(queries)[:, None]
            sums[filled] = np.add.reduceat(scaled, history.indptr[filled], axis=0)
        return sums

    def knows(self, queries: Queries) -> NDArray[np.bool_]:
        """Return (B,) bool: the queries with a history."""
        return queries.history.lengths > 0

    def parts(self, queries: Queries, items: Table, at: NDArray[np.int32]) -> F32 | None:
        """Return the exact part of each event: its scaled weight times the product of the two."""
        history, table = queries.history, items if self.inputs is None else self.inputs
        target = items.rows(at)[history.row_numbers()]
        product = np.einsum("ij,ij->i", table.rows(history.indices), target)
        return product * self._weights(queries)  # type: ignore[no-any-return]

    def _weights(self, queries: Queries) -> F32:
        history = queries.history
        weight = _first_of_each(history) if self.distinct else history.weights()
        total = np.bincount(history.row_numbers(), weight, len(queries))
        total[total <= 0] = np.inf if self.power else 1
        scale = (total**-self.power).astype(np.float32)
        return weight * scale[history.row_numbers()]

    def tables(self) -> Mapping[str, Table]:
        """Return every parameter by name."""
        return {} if self.inputs is None else {"inputs": self.inputs}

    def with_tables(self, tables: Mapping[str, Table]) -> LinearFold:
        """Return the same projection over other storages."""
        return replace(self, inputs=tables.get("inputs"))

    def config(self) -> dict[str, Any]:
        """Return every number that is no table."""
        return {"power": self.power} | ({"distinct": True} if self.distinct else {})


@dataclass(frozen=True, eq=False)
class Lookup:
    """A stored vector for each known user; the mean of the history's item vectors for others.

    A stored vector of zeros says nothing, as if there were none.

    Attributes:
        users: (num_users, d) table.
    """

    users: Table
    kind: ClassVar[str] = "lookup"

    def project(self, queries: Queries, items: Table) -> F32:
        """Return (B, d) float32 vectors. O(B d), and O(nnz d) for the unknown."""
        row = queries.user_row
        known = (row >= 0) & (row < self.users.shape[0])
        vectors = np.zeros((len(queries), items.shape[1]), np.float32)
        vectors[known] = self.users.rows(row[known])
        known[known] = vectors[known].any(1)
        if not known.all():
            vectors[~known] = LinearFold().project(queries, items)[~known]
        return vectors

    def knows(self, queries: Queries) -> NDArray[np.bool_]:
        """Return (B,) bool: the queries with a stored vector that is not 0, or with a history."""
        row = queries.user_row
        stored = (row >= 0) & (row < self.users.shape[0])
        stored[stored] = self.users.rows(row[stored]).any(1)
        return stored | (queries.history.lengths > 0)

    def parts(self, queries: Queries, items: Table, at: NDArray[np.int32]) -> F32 | None:
        """Return None: a stored vector does not say which event it came from."""
        return None

    def tables(self) -> Mapping[str, Table]:
        """Return every parameter by name."""
        return {"users": self.users}

    def with_tables(self, tables: Mapping[str, Table]) -> Lookup:
        """Return the same projection over other storages."""
        return Lookup(tables["users"])

    def config(self) -> dict[str, Any]:
        """Return nothing: there is no number beside the table."""
        return {}


@dataclass(frozen=True, eq=False)
class IALSFold:
    """The exact least-squares vector of a history among fixed item vectors Y.

    The vector solves A x = sum_j w_j y_j over the history, where
    A = sum_j w_j y_j y_j^T + unobserved_weight G + reg (count + unobserved_weight n)^reg_exponent I
    with G = Y^T Y.

    **Source**: Rendle et al., "Revisiting the Performance of iALS" (2021), equations 2 and 5.

    Attributes:
        gram: (d, d) table, the item vectors' G.
        unobserved_weight: weight of every pair that was not observed.
        reg: L2 strength.
        reg_exponent: 0 is the classic objective, 1 scales with the events of the user.
        weighted: whether the weights of the events count, or only that they are there.
    """

    gram: Table
    unobserved_weight: float
    reg: float
    reg_exponent: float
    weighted: bool = True
    kind: ClassVar[str] = "ials"

    def project(self, queries: Queries, items: Table) -> F32:
        """Return (B, d) float32 vectors; an empty history gives zeros. O(nnz d^2 + B d^3)."""
        solved = [self._solve(part, items)[0] for part in self._blocks(queries)]
        return np.concatenate([*solved, np.empty((0, items.shape[1]))]).astype(np.float32)

    def knows(self, queries: Queries) -> NDArray[np.bool_]:
        """Return (B,) bool: the queries with a history."""
        return queries.history.lengths > 0

    def parts(self, queries: Queries, items: Table, at: NDArray[np.int32]) -> F32 | None:
        """Return the exact part of each event: w_j y_j^T A^-1 y_i. O(nnz d^2 + B d^3)."""
        target, parts, done = items.rows(at), [np.empty(0)], 0
        for part in self._blocks(queries):
            right = target[done : done + len(part)]
            solved, vectors, weights = self._solve(part, items, right)
            user = part.history.row_numbers()
            parts.append(weights * np.einsum("ij,ij->i", vectors, solved[user]))
            done += len(part)
        return np.concatenate(parts).astype(np.float32)

    def _blocks(self, queries: Queries) -> Iterator[Queries]:
        """Yield the queries in parts whose item vectors fit into bounded memory."""
        indptr, most = queries.history.indptr, max(1, _BLOCK_VALUES // self.gram.shape[0])
        start = 0
        while start < len(queries):
            end = int(np.searchsorted(indptr, indptr[start] + most, side="right")) - 1
            end = min(max(end, start + 1), len(queries))
            yield queries if end - start == len(queries) else queries.slice(start, end)
            start = end

    def _solve(
        self, queries: Queries, items: Table, right: F32 | None = None
    ) -> tuple[NDArray[np.float64], F32, F32]:
        """Return A^-1 right (B, d), and the vectors (nnz, d) and weights (nnz,) of the events."""
        from martlet.kernels.fold_in import fold_in

        history = queries.history
        vectors = items.rows(history.indices)
        weights: F32 = history.weights() if self.weighted else np.ones(history.nnz, np.float32)
        count = history.lengths + self.unobserved_weight * items.shape[0]
        ridge = np.asarray(self.reg * count**self.reg_exponent, np.float64)
        solved = fold_in(vectors, weights, history.indptr, self._gram, ridge, right, num_threads())
        return solved, vectors, weights

    @cached_property
    def _gram(self) -> NDArray[np.float64]:
        return self.gram.dense().astype(np.float64) * self.unobserved_weight

    def tables(self) -> Mapping[str, Table]:
        """Return every parameter by name."""
        return {"gram": self.gram}

    def with_tables(self, tables: Mapping[str, Table]) -> IALSFold:
        """Return the same projection over other storages."""
        return replace(self, gram=tables["gram"])

    def config(self) -> dict[str, Any]:
        """Return every number that is no table."""
        names = ("unobserved_weight", "reg", "reg_exponent", "weighted")
        return {name: getattr(self, name) for name in names}


def _first_of_each(history: CSR) -> F32:
    """Return (nnz,) float32: 1 for the first event of an item in its row, else 0."""
    key = history.row_numbers().astype(np.int64) * history.num_cols + history.indices
    weight = np.zeros(history.nnz, np.float32)
    weight[np.unique(key, return_index=True)[1]] = 1
    return weight


def projection_from(
    config: Mapping[str, Any], tables: Mapping[str, Table], shape: tuple[int, int]
) -> Projection:
    """Return the projection that a bundle stored, over item vectors of ``shape`` (n, d).

    Raises:
        BundleError: of a kind that this version does not know, or with a table of another shape.
    """
    n, d = shape
    expected = {"inputs": (n, d), "gram": (d, d), "users": (0, d)}
    for name, table in tables.items():
        rows, width = expected[name]
        if table.shape != (rows or table.shape[0], width):
            raise BundleError(
                f"table projection.{name} is {table.shape[0]} x {table.shape[1]}: "
                f"expected {rows or 'any'} x {width}, as the item vectors ask for"
            )
    numbers = {name: float(config[name]) for name in config if name != "kind"}
    match config["kind"]:
        case "linear":
            distinct = bool(numbers.get("distinct", 0))
            return LinearFold(numbers["power"], tables.get("inputs"), distinct)
        case "lookup":
            return Lookup(tables["users"])
        case "ials":
            weighted = bool(numbers.pop("weighted"))
            return IALSFold(tables["gram"], **numbers, weighted=weighted)
        case other:
            raise BundleError(
                f"the projection is of kind {other!r}: expected ials, linear or lookup; "
                "load the bundle with the version that wrote it"
            )
