"""Values, entries and rows of tables that add least, left out so that bytes are saved."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.compress.turned import FLOATS
from martlet.core import SpecError
from martlet.scorers.bundle import Bundle
from martlet.scorers.table import Table, blocks

F64 = NDArray[np.float64]
_VECTORS = ("items", "inputs", "history", "users", "vectors")


def without_values(label: str, bundle: Bundle, share: float, by: str) -> tuple[Any, dict[str, Any]]:
    """Return the scorer with the smallest values of its vectors left out, and what is told.

    Raises:
        SpecError: no vectors, codes, or entries with their places that take more bytes than all.
    """
    scorer: Any = bundle.scorer
    tables, told = dict(scorer.tables()), {}
    for name in vectors_of(label, bundle):
        table = tables[name]
        if table.precision == "bf16" or table.storage.startswith("shared:"):
            raise SpecError(f"{label} over {name} stored as {table.storage}: put {label} first")
        dense = table.dense()
        gone = round(share * dense.size)
        size = np.abs(dense).ravel()
        kept = np.ones(dense.size, bool)
        kept[np.argsort(size, kind="stable")[:gone]] = False
        values = np.where(kept.reshape(dense.shape), dense, np.float32(0))
        smaller = Table.of_csr(Table.of(values).csr()).to(table.precision)
        if smaller.nbytes < table.nbytes:
            tables[name], told[name] = smaller, {"left": int(kept.sum()), "of": dense.size}
    if not told:
        raise SpecError(
            f"{label} of this {scorer.kind} scorer would take more bytes with the places of what "
            "is left than all values do: give a larger share, or prune:dims"
        )
    return scorer.with_tables(tables), told


def without_entries(
    label: str, bundle: Bundle, share: float, by: str
) -> tuple[Any, dict[str, Any]]:
    """Return the scorer with the smallest weights of items by items left out, and what is told.

    By frequency an entry counts for its magnitude times the root of how often the item of the
    history is met: its part in the mean square of a score.

    Raises:
        SpecError: there is no matrix of items by items, or it has no entries.
    """
    scorer: Any = bundle.scorer
    tables, told = dict(scorer.tables()), {}
    for name, table in tables.items():
        if not table.sparse or table.shape != (len(bundle.items),) * 2:
            continue
        size = np.abs(table.csr().weights()).astype(np.float64)
        if by == "frequency":
            met = np.sqrt(np.maximum(bundle.popularity, 0))
            size *= np.repeat(met, table.csr().lengths)
        gone = round(share * len(size))
        kept = np.ones(len(size), bool)
        kept[np.argsort(size, kind="stable")[:gone]] = False
        if gone:
            told[name] = {"left": int(kept.sum()), "of": len(size)}
            tables[name] = _entries(table, kept)
    if not told:
        raise SpecError(
            f"{label} over a {scorer.kind} scorer: it has no entries of items by items to leave out"
        )
    return scorer.with_tables(tables), told


def _entries(table: Table, kept: NDArray[np.bool_]) -> Table:
    """Return a sparse table with some of its entries, in the codes that they have."""
    indptr: Any = np.concatenate([[0], np.cumsum(kept)])[table.arrays["indptr"]]
    some = {"indices": table.arrays["indices"][kept], "values": table.arrays["values"][kept]}
    arrays = {**table.arrays, "indptr": indptr.astype(np.int64), **some}
    return Table(table.storage, table.shape, arrays)


def without_rows(label: str, bundle: Bundle, share: float, by: str) -> tuple[Any, dict[str, Any]]:
    """Return the scorer with its rarest rows as one, and what is told of each table.

    Their mean, weighted by how often each is met, is stored once; a user whose vector goes is
    answered by the history.

    Raises:
        SpecError: no vectors, codes, how often rows are met is not known, or no bytes are saved.
    """
    scorer: Any = bundle.scorer
    tables, told = dict(scorer.tables()), {}
    for name in vectors_of(label, bundle):
        table, users = tables[name], name.endswith("users")
        met = _met(label, bundle, name, table, by)
        if met is None:
            continue
        rare = np.argsort(met, kind="stable")[: round(share * len(met))]
        values = table.dense().copy()
        values[rare] = 0 if users else _mean(values[rare], met[rare])
        smaller = Table.of(values).to(f"shared:{table.precision}")
        if smaller.nbytes < table.nbytes:
            tables[name] = smaller
            told[name] = {"left": int(smaller.values.shape[0]), "of": table.shape[0]}
    if not told:
        raise SpecError(
            f"{label} of this {scorer.kind} scorer would take more bytes with a place for each row "
            "than all rows do: give a larger share or leave it out"
        )
    return scorer.with_tables(tables), told


def _met(label: str, bundle: Bundle, name: str, table: Table, by: str) -> F64 | None:
    """Return (n,) how much each row counts; None for users that no history could stand in for."""
    if name.endswith("users") and not bundle.histories.nnz:
        return None
    if by == "magnitude":
        parts = [table.rows(slice(*block)) for block in blocks(*table.shape)]
        return np.concatenate([np.sqrt(np.einsum("ij,ij->i", p, p)) for p in parts]).astype(float)
    if table.shape[0] not in (len(bundle.items), len(bundle.users)):
        raise SpecError(
            f"{label}: how often a row of {name} is met is not known; give by=magnitude"
        )
    met = bundle.histories.lengths if name.endswith("users") else bundle.popularity
    if not (met > 0).any():
        raise SpecError(f"{label}: no history tells how often an item is met; give by=magnitude")
    return met.astype(np.float64)


def _mean(rows: NDArray[np.float32], met: F64) -> NDArray[np.float64]:
    """Return the (d,) mean of rows, each for as often as it is met."""
    weight = met if met.any() else np.ones(len(met))
    return weight @ rows / max(weight.sum(), 1e-30)  # type: ignore[no-any-return]


def vectors_of(label: str, bundle: Bundle) -> list[str]:
    """Return the names of the tables with a vector for each item, user or value of a field.

    Raises:
        SpecError: there are none, or their values are codes.
    """
    tables, kind = bundle.scorer.tables(), bundle.scorer.kind
    parts = {name: name.split(".") for name in tables}
    found = [n for n in tables if parts[n][-1] in _VECTORS and "network" not in parts[n]]
    if not found:
        raise SpecError(f"{label} over a {kind} scorer: it has no vectors of items or users")
    for name in found:
        if tables[name].sparse or tables[name].precision not in FLOATS:
            raise SpecError(
                f"{label} over {name} stored as {tables[name].storage}: put {label} first"
            )
    return found
