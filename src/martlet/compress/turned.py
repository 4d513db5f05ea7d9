"""A scorer whose vectors are told in fewer directions; a network takes and gives them in full."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.compress.basis import F64, Basis, Choose, gram_of
from martlet.compress.graph import product_before, product_behind
from martlet.core import Queries, SpecError
from martlet.scorers.cascade import Cascade
from martlet.scorers.factors import Factors
from martlet.scorers.fields import Fields
from martlet.scorers.network import Network
from martlet.scorers.projections import Projection
from martlet.scorers.ranker import Ranker
from martlet.scorers.table import Table, blocks

F32 = NDArray[np.float32]
FLOATS = ("fp32", "fp16", "bf16")  # whose numbers may be changed one by one


@dataclass(frozen=True, eq=False)
class Cut:
    """What turns a scorer.

    Attributes:
        label: of the transform, for its refusals.
        choose: which directions stay.
        queries: what the scorer is asked.
        popularity: (n,) how often an item is met, which its row counts for as an input; None
            counts each once.
    """

    label: str
    choose: Choose
    queries: Queries
    popularity: NDArray[np.float32] | None = None

    def of(self, scorer: Any) -> tuple[Any, dict[str, Any]]:
        """Return the scorer in fewer directions, and what is told of each table.

        Raises:
            SpecError: it has no vectors, they are codes already, or nothing would be cut.
        """
        if scorer.kind not in _KINDS:
            raise SpecError(f"{self.label} over a {scorer.kind} scorer: it has no vectors to cut")
        found, told = _KINDS[scorer.kind](self, scorer)
        if not told:
            widths = {name: table.shape[1] for name, table in scorer.tables().items()}
            said = ", ".join(f"{name} has {d}" for name, d in widths.items() if d > 1)
            raise SpecError(
                f"{self.label} leaves every direction of this {scorer.kind} scorer ({said}): "
                "give a lower rank, a larger error, or leave it out"
            )
        return found, told

    def basis(self, table: Table, name: str, moment: F64 | None, weight: Any = None) -> Basis:
        """Return the directions of a table that stay.

        Raises:
            SpecError: its values are codes.
        """
        if table.sparse or table.precision not in FLOATS:
            raise SpecError(
                f"{self.label} over {name} stored as {table.storage}: the directions would have "
                f"to be coded anew; put {self.label} first"
            )
        return self.choose(gram_of(table, weight), moment)


def turn(table: Table, basis: F64) -> Table:
    """Return the (n, r) rows times (d, r) ``basis``, in the same storage. O(n d r)."""
    factor, made = basis.astype(np.float32), np.empty((table.shape[0], basis.shape[1]), np.float32)
    for start, stop in blocks(*table.shape):
        made[start:stop] = table.rows(slice(start, stop)) @ factor
    return Table.of(made).to(table.storage)


def _factors(cut: Cut, scorer: Factors) -> tuple[Factors, dict[str, Any]]:
    vectors = scorer.encode(cut.queries).astype(np.float64)
    basis = cut.basis(scorer.items, "items", vectors.T @ vectors)
    if basis.rank == scorer.items.shape[1]:
        return scorer, {}
    projection = _projection(scorer.projection, basis)
    items = turn(scorer.items, basis.vectors)
    return replace(scorer, items=items, projection=projection), _told("items", basis)


def _projection(projection: Projection, basis: Basis) -> Projection:
    """Return the same fold over turned vectors: all are closed under a turn."""
    tables = {name: turn(table, basis.vectors) for name, table in projection.tables().items()}
    if "gram" in tables:  # stands between two vectors, so it is turned on both sides
        tables["gram"] = Table.of(basis.vectors.astype(np.float32).T @ tables["gram"].dense())
    return projection.with_tables(tables)


def _network(cut: Cut, scorer: Network) -> tuple[Network, dict[str, Any]]:
    vectors = scorer.encode(cut.queries).astype(np.float64)
    basis = cut.basis(scorer.items, "items", vectors.T @ vectors)
    told: dict[str, Any] = {}
    if basis.rank < scorer.items.shape[1]:
        told = _told("items", basis)
        encoder = product_behind(scorer.encoder, basis.vectors.astype(np.float32))
        if scorer.inputs is None:
            encoder = product_before(encoder, "x", _up(basis))
        scorer = replace(
            scorer,
            items=turn(scorer.items, basis.vectors),
            encoder=encoder,
            parameters=_kept(scorer.parameters, "items", basis),
        )
    if scorer.inputs is None:
        return scorer, told
    basis = cut.basis(scorer.inputs, "inputs", None, cut.popularity)
    if basis.rank == scorer.inputs.shape[1]:
        return scorer, told
    made = replace(
        scorer,
        inputs=turn(scorer.inputs, basis.vectors),
        encoder=product_before(scorer.encoder, "x", _up(basis)),
        parameters=_kept(scorer.parameters, "inputs", basis),
    )
    return made, told | _told("inputs", basis)


def _ranker(cut: Cut, scorer: Ranker) -> tuple[Ranker, dict[str, Any]]:
    basis = cut.basis(scorer.items, "items", None)
    of_user = basis
    if scorer.history is not None:
        users = scorer.projection.tables().get("users", scorer.history)
        of_user = cut.basis(users, "users", None)
    told: dict[str, Any] = {}
    if basis.rank < scorer.items.shape[1]:
        told |= _told("items", basis)
        scorer = replace(
            scorer,
            items=turn(scorer.items, basis.vectors),
            network=product_before(scorer.network, "item", _up(basis)),
            parameters=_kept(scorer.parameters, "items", basis),
        )
    if of_user.rank == len(of_user.vectors):
        return scorer, told
    up = _beside(_up(of_user), len(scorer.context))
    made = replace(
        scorer,
        history=None if scorer.history is None else turn(scorer.history, of_user.vectors),
        projection=_projection(scorer.projection, of_user),
        network=product_before(scorer.network, "user", up),
        parameters=_kept(scorer.parameters, "users", of_user),
    )
    return made, told | _told("users", of_user)


def _fields(cut: Cut, scorer: Fields) -> tuple[Fields, dict[str, Any]]:
    if not isinstance(scorer.vectors, Table):
        raise SpecError(f"{cut.label} over vectors that share numbers: they have no rows to turn")
    basis = cut.basis(scorer.vectors, "vectors", None)
    if basis.rank == scorer.vectors.shape[1]:
        return scorer, {}
    made = replace(
        scorer,
        vectors=turn(scorer.vectors, basis.vectors),
        network=product_before(scorer.network, "vectors", _up(basis)),
        parameters=_kept(scorer.parameters, "vectors", basis),
    )
    return made, _told("vectors", basis)


def _cascade(cut: Cut, scorer: Cascade) -> tuple[Cascade, dict[str, Any]]:
    retrieve, told = cut.of(scorer.retrieve)
    return replace(scorer, retrieve=retrieve), told


_KINDS: Mapping[str, Callable[[Cut, Any], tuple[Any, dict[str, Any]]]] = {
    "factors": _factors,
    "network": _network,
    "ranker": _ranker,
    "fields": _fields,
    "cascade": _cascade,
}


def _told(name: str, basis: Basis) -> dict[str, Any]:
    return {name: {"rank": basis.rank, "of": len(basis.vectors), "error": round(basis.error, 6)}}


def _up(basis: Basis) -> F32:
    """Return (r, d): from the directions that stay to the full width."""
    return np.ascontiguousarray(basis.vectors.T, np.float32)


def _beside(up: F32, more: int) -> F32:
    """Return (r + more, d + more): numbers behind the vector go through as they are."""
    rank, width = up.shape
    whole = np.zeros((rank + more, width + more), np.float32)
    whole[:rank, :width], whole[rank:, width:] = up, np.eye(more)
    return whole


def _kept(parameters: Mapping[str, Table], side: str, basis: Basis) -> dict[str, Table]:
    """Return the parameters with the way back to full width, behind one from before."""
    name, up = f"turned.{side}", _up(basis)
    if name in parameters:
        up = up @ parameters[name].dense()
    return {**parameters, name: Table.of(up)}
