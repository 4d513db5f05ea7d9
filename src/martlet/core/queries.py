"""The questions a scorer answers: everything it may know of a user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from martlet.core.columns import Array, Column, Text
from martlet.core.csr import CSR
from martlet.core.errors import QueryError

Seen = Literal["hide", "keep"]


@dataclass(frozen=True, eq=False)
class Queries:
    """A frozen batch of B queries.

    Attributes:
        history: (B x num_items) CSR, each user's events in time order with their weights.
        time_s: (history.nnz,) int64 aligned with the history, or None.
        user_row: (B,) int32; -1 for an unknown user.
        context: columns with a value a query, numbers or text; NaN or "" where it is missing.
        candidates: (B x num_items) CSR: rank these only; None ranks the whole catalogue.
        allow: (num_items,) bool: the items that may be shown to anyone; None allows all.
        exclude: (B x num_items) CSR of items never to show.
        seen: "hide" drops the items of the history, "keep" lets them be shown again.
    """

    history: CSR
    user_row: NDArray[np.int32]
    time_s: NDArray[np.int64] | None = None
    context: Mapping[str, Array] = field(default_factory=dict)
    candidates: CSR | None = None
    allow: NDArray[np.bool_] | None = None
    exclude: CSR | None = None
    seen: Seen = "hide"

    @staticmethod
    def of(
        history: CSR,
        user_row: NDArray[np.integer] | None = None,
        *,
        time_s: NDArray[np.int64] | None = None,
        context: Mapping[str, Array] | None = None,
        candidates: CSR | None = None,
        allow: NDArray[np.bool_] | None = None,
        exclude: CSR | None = None,
        seen: Seen = "hide",
    ) -> Queries:
        """Build a batch and check that its parts agree.

        Raises:
            QueryError: a part of another size, an item row outside the catalogue, or an unknown
                ``seen`` policy.
        """
        if seen not in ("hide", "keep"):
            raise QueryError(f"seen is {seen!r}: expected 'hide' or 'keep'")
        size = history.num_rows
        rows = np.full(size, -1, np.int32) if user_row is None else np.asarray(user_row, np.int32)
        if len(rows) != size:
            raise QueryError(f"{len(rows)} user rows for {size} histories: expected as many")
        if time_s is not None and len(time_s) != history.nnz:
            raise QueryError(f"{len(time_s)} times for {history.nnz} events: expected as many")
        for name, part in (("history", history), ("candidates", candidates), ("exclude", exclude)):
            if part is None:
                continue
            if part.num_rows != size or part.num_cols != history.num_cols:
                raise QueryError(
                    f"{name} is {part.num_rows} x {part.num_cols}: "
                    f"expected {size} x {history.num_cols}"
                )
            if part.nnz and not 0 <= part.indices.min() <= part.indices.max() < part.num_cols:
                raise QueryError(
                    f"{name} has item rows {part.indices.min()} to {part.indices.max()}: "
                    f"expected 0 to {part.num_cols - 1}"
                )
        if allow is not None:
            allow = np.asarray(allow)
            if allow.dtype != np.bool_ or allow.shape != (history.num_cols,):
                raise QueryError(
                    f"allow is {allow.dtype}{allow.shape}: expected bool({history.num_cols},)"
                )
        columns = {name: np.asarray(column) for name, column in (context or {}).items()}
        for name, column in columns.items():
            if column.shape != (size,) or column.dtype.kind not in "biufU":
                raise QueryError(
                    f"context {name!r} is {column.dtype}{column.shape}: expected a number or a "
                    f"text for each of {size} queries"
                )
        return Queries(history, rows, time_s, columns, candidates, allow, exclude, seen)

    def __len__(self) -> int:
        return self.history.num_rows

    @property
    def num_items(self) -> int:
        """Rows of the item vocabulary that all item rows refer to."""
        return self.history.num_cols

    def hidden(self) -> CSR:
        """Return the (B x num_items) CSR of what may not be shown, items rising and once a row.

        What was seen (if the policy hides it) and what is excluded; ``allow`` stands apart.
        """
        parts = [self.history] if self.seen == "hide" else []
        parts += [self.exclude] if self.exclude is not None else []
        if not parts:
            return CSR.empty(len(self), self.num_items)
        key: NDArray[Any] = np.concatenate([part.indices for part in parts])
        if len(self) == 1:
            key = _once(key)
            return CSR(np.array([0, len(key)], np.int64), key, None, self.num_items)
        # A key is a place in the matrix; in 32 bits, where they hold it, keys sort twice as fast.
        kind = np.uint32 if len(self) * self.num_items < 2**32 else np.uint64
        starts = (np.arange(len(self) + 1) * self.num_items).astype(kind)
        key = key.astype(kind)
        key += np.concatenate([np.repeat(starts[:-1], part.lengths) for part in parts])
        key = _once(key)
        indptr = np.searchsorted(key, starts).astype(np.int64)
        indices = (key - np.repeat(starts[:-1], np.diff(indptr))).astype(np.int32)
        return CSR(indptr, indices, None, self.num_items)

    def slice(self, start: int, stop: int) -> Queries:
        """Return queries ``start`` to ``stop``."""
        at = np.arange(start, min(stop, len(self)))
        lo, hi = self.history.indptr[at[0]], self.history.indptr[at[-1] + 1]
        return replace(
            self,
            history=self.history.take(at),
            user_row=self.user_row[at],
            time_s=None if self.time_s is None else self.time_s[lo:hi],
            context={name: column[at] for name, column in self.context.items()},
            candidates=None if self.candidates is None else self.candidates.take(at),
            exclude=None if self.exclude is None else self.exclude.take(at),
        )


def context_at(
    table: Mapping[str, Column], names: Iterable[str], rows: NDArray[np.integer]
) -> dict[str, Array]:
    """Return the named columns at some rows, as ``Queries.context`` takes them.

    Where a row is -1 the value is missing; a name that the table lacks is left out.
    """
    found: dict[str, Array] = {}
    missing = rows < 0
    for name in names:
        column = table.get(name)
        if isinstance(column, Text):
            found[name] = np.array([column[row] if row >= 0 else "" for row in rows.tolist()], str)
        elif column is not None and not missing.any():
            found[name] = column[rows]
        elif column is not None:
            found[name] = np.full(len(rows), np.nan)
            found[name][~missing] = column[rows[~missing]]
    return found


def is_missing(column: Array) -> NDArray[np.bool_]:
    """Return (B,) bool: where a column of the context says nothing."""
    return np.asarray(column == "" if column.dtype.kind == "U" else column != column)


def _once(keys: NDArray[Any]) -> NDArray[Any]:
    """Sort the keys in place and return each once; ``np.unique`` would hash them first."""
    keys.sort()
    first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return keys[first]
