"""Who met what, when, how strongly: the frozen columns that every model learns from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from martlet.core.columns import Array
from martlet.core.csr import CSR
from martlet.core.errors import DataError


@dataclass(frozen=True, eq=False)
class Interactions:
    """Events sorted by user, then by time.

    Attributes:
        user_row: (n,) int32, rising.
        item_row: (n,) int32.
        weight: (n,) float32, above 0 and finite.
        time_s: (n,) int64 Unix seconds, or None where the given order within a user rules.
        num_users: rows of the user vocabulary.
        num_items: rows of the item vocabulary.
        extra: aligned columns by name: event type, basket, context, propensity ...
    """

    user_row: NDArray[np.int32]
    item_row: NDArray[np.int32]
    weight: NDArray[np.float32]
    time_s: NDArray[np.int64] | None
    num_users: int
    num_items: int
    extra: Mapping[str, Array] = field(default_factory=dict)

    @staticmethod
    def sort(
        user_row: NDArray[np.integer],
        item_row: NDArray[np.integer],
        weight: NDArray[np.floating] | None = None,
        time_s: NDArray[np.integer] | None = None,
        *,
        num_users: int,
        num_items: int,
        extra: Mapping[str, Array] | None = None,
    ) -> Interactions:
        """Build from columns in any order; events of equal user and time keep their given order.

        Raises:
            DataError: columns of different lengths, or rows outside the vocabularies.
        """
        n = len(user_row)
        columns = {"item_row": item_row, "weight": weight, "time_s": time_s, **(extra or {})}
        for name, column in columns.items():
            if column is not None and len(column) != n:
                raise DataError(
                    f"{name} has {len(column)} values, user_row has {n}: expected as many"
                )
        for name, rows, size in (
            ("user_row", user_row, num_users),
            ("item_row", item_row, num_items),
        ):
            if n and (rows.min() < 0 or rows.max() >= size):
                raise DataError(
                    f"{name} spans {rows.min()} to {rows.max()}: expected 0 to {size - 1}"
                )
        order = (
            np.argsort(user_row, kind="stable")
            if time_s is None
            else np.lexsort((time_s, user_row))
        )
        return Interactions(
            np.asarray(user_row, np.int32)[order],
            np.asarray(item_row, np.int32)[order],
            np.ones(n, np.float32) if weight is None else np.asarray(weight, np.float32)[order],
            None if time_s is None else np.asarray(time_s, np.int64)[order],
            num_users,
            num_items,
            {name: column[order] for name, column in (extra or {}).items()},
        )

    def __len__(self) -> int:
        return len(self.user_row)

    @cached_property
    def histories(self) -> CSR:
        """(num_users x num_items) CSR of the events in time order; shares this object's arrays."""
        indptr = np.searchsorted(self.user_row, np.arange(self.num_users + 1)).astype(np.int64)
        return CSR(indptr, self.item_row, self.weight, self.num_items)

    @cached_property
    def matrix(self) -> CSR:
        """(num_users x num_items) CSR, each pair once, weights summed, items rising in a row."""
        key = self.user_row.astype(np.int64) * self.num_items + self.item_row
        order = np.argsort(key, kind="stable")
        key = key[order]
        first = np.flatnonzero(np.diff(key, prepend=-1))
        weight = np.add.reduceat(self.weight[order], first) if len(first) else self.weight[:0]
        key = key[first]
        users, items = key // self.num_items, key % self.num_items
        indptr = np.searchsorted(users, np.arange(self.num_users + 1)).astype(np.int64)
        return CSR(indptr, items.astype(np.int32), weight.astype(np.float32), self.num_items)

    @cached_property
    def item_count(self) -> NDArray[np.int64]:
        """(num_items,) int64 events of each item."""
        return np.bincount(self.item_row, minlength=self.num_items)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the columns; lineage records it, and a measurement compares it."""
        digest = hashlib.sha256(f"{self.num_users} {self.num_items}".encode())
        for column in (self.user_row, self.item_row, self.weight, self.time_s):
            if column is not None:
                digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    def select(self, keep: NDArray[np.bool_] | NDArray[np.integer]) -> Interactions:
        """Return the events that a mask, or rising positions, keep."""
        return Interactions(
            self.user_row[keep],
            self.item_row[keep],
            self.weight[keep],
            None if self.time_s is None else self.time_s[keep],
            self.num_users,
            self.num_items,
            {name: column[keep] for name, column in self.extra.items()},
        )

    def union(self, other: Interactions) -> Interactions:
        """Return the events of both, sorted; ``self`` comes first where times are equal or absent.

        Raises:
            DataError: the two have different vocabularies or columns.
        """
        mine = (self.num_users, self.num_items, self.time_s is None, sorted(self.extra))
        theirs = (other.num_users, other.num_items, other.time_s is None, sorted(other.extra))
        if mine != theirs:
            raise DataError(f"cannot join interactions of shape and columns {mine} and {theirs}")
        both = None
        if self.time_s is not None and other.time_s is not None:
            both = np.concatenate([self.time_s, other.time_s])
        return Interactions.sort(
            np.concatenate([self.user_row, other.user_row]),
            np.concatenate([self.item_row, other.item_row]),
            np.concatenate([self.weight, other.weight]),
            both,
            num_users=self.num_users,
            num_items=self.num_items,
            extra={k: np.concatenate([self.extra[k], other.extra[k]]) for k in self.extra},
        )
