"""From columns to rows of merged tables: which field lies where, for one side or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Array, Text
from martlet.features import Encoded, Features, Ragged
from martlet.scorers.pairs import Pairs

F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Side:
    """Where the fields of one kind of columns lie in the merged tables.

    Attributes:
        features: of its columns; None where it has none.
        own: rows of a field that no column holds: the items by their rows, after a first row for
            none. 0 without such a field.
        first: first row of the side; its own field comes first.
        first_cross: first row of its crossed fields, which lie behind all that has a vector.
    """

    features: Features | None
    own: int
    first: int
    first_cross: int

    @property
    def num_vector_rows(self) -> int:
        """Rows with a vector."""
        return self.own + (0 if self.features is None else self.features.num_vector_rows)

    @property
    def sizes(self) -> list[int]:
        """Rows of each field with a vector, in the order of the table."""
        if self.features is None:
            return [self.own] if self.own else []
        found: list[int] = np.diff(self.features.offsets).tolist()
        return [self.own] * bool(self.own) + found[: len(found) - self.num_crossed]

    @property
    def num_crossed(self) -> int:
        """Crossed fields, the last of the single-valued ones."""
        return 0 if self.features is None else len(self.features.wide_only)

    @property
    def num_numbers(self) -> int:
        """Columns of numbers."""
        return 0 if self.features is None else len(self.features.numbers)

    @property
    def num_bags(self) -> int:
        """Multi-valued columns; a history comes on top."""
        return 0 if self.features is None else len(self.features.bags)

    @property
    def num_vectors(self) -> int:
        """Fields with a vector, an own one among them."""
        single = 0 if self.features is None else len(self.features.fields) - self.num_crossed
        return int(self.own > 0) + single + self.num_bags

    def encode(self, columns: Mapping[str, Any], size: int) -> Encoded:
        """Return N = ``size`` rows of columns as rows of the merged tables; absent ones miss."""
        if self.features is None:
            return Encoded(np.empty((size, 0), np.int32), np.empty((size, 0), np.float32), ())
        given = {name: as_column(column) for name, column in columns.items()}
        found = self.features.apply(given or {"": np.zeros(size)})  # which says how many rows
        rows = found.rows
        split = rows.shape[1] - self.num_crossed
        shift = np.int32(self.first + self.own)
        rows[:, :split] += shift
        rows[:, split:] += np.int32(self.first_cross - self.features.num_vector_rows)
        bags = tuple(Ragged(bag.indptr, bag.rows + shift) for bag in found.bags)
        return replace(found, rows=rows, bags=bags)

    def with_item(self, encoded: Encoded, item_row: NDArray[np.integer]) -> Encoded:
        """Return the rows with the field of the item before them; -1 is none."""
        own = (item_row + (self.first + 1)).astype(np.int32)
        return replace(encoded, rows=np.column_stack([own, encoded.rows]))

    def with_history(self, encoded: Encoded, history: CSR) -> Encoded:
        """Return the rows with the bag of the events before the others."""
        bag = Ragged(history.indptr, history.indices + np.int32(self.first + 1))
        return replace(encoded, bags=(bag, *encoded.bags))


@dataclass(frozen=True, eq=False)
class Layout:
    """The sides of an example, in their order, and the size of the merged tables.

    Attributes:
        sides: "row" alone, or "item" and "user".
        num_items: rows of the item vocabulary; 0 with "row".
        pairs: crosses of both sides together, whose rows come last; None without any.
    """

    sides: Mapping[str, Side]
    num_items: int
    pairs: Pairs | None = None

    @staticmethod
    def of(
        features: Mapping[str, Features | None], num_items: int = 0, pairs: Pairs | None = None
    ) -> Layout:
        """Lay the fields of each side one behind another, and the crossed ones behind all."""
        own = num_items + 1 if num_items else 0
        sides, first = {}, 0
        for name, one in features.items():
            sides[name] = Side(one, own, first, 0)
            first += sides[name].num_vector_rows
        for name, one in features.items():
            sides[name] = replace(sides[name], first_cross=first)
            first += 0 if one is None else one.num_rows - one.num_vector_rows
        return Layout(sides, num_items, pairs)

    @property
    def num_vector_rows(self) -> int:
        """Rows of the table of vectors."""
        return sum(side.num_vector_rows for side in self.sides.values())

    @cached_property
    def places(self) -> NDArray[np.int32]:
        """(num_vector_rows,) where each row stands in a shared table; see ``in_turn``."""
        return in_turn([size for side in self.sides.values() for size in side.sizes])

    @property
    def num_rows(self) -> int:
        """Rows of the table of wide weights: crossed fields have no vectors."""
        return self.first_pair + (0 if self.pairs is None else self.pairs.num_rows)

    @property
    def first_pair(self) -> int:
        """First row of the crosses of both sides together."""
        crossed = 0
        for side in self.sides.values():
            if side.features is not None:
                crossed += side.features.num_rows - side.features.num_vector_rows
        return self.num_vector_rows + crossed

    @property
    def num_vectors(self) -> int:
        """Fields with a vector, K."""
        return sum(side.num_vectors for side in self.sides.values())

    @property
    def num_numbers(self) -> int:
        """Columns of numbers, M."""
        return sum(side.num_numbers for side in self.sides.values())

    @property
    def num_crossed(self) -> int:
        """Crossed fields."""
        pairs = 0 if self.pairs is None else len(self.pairs.features.columns)
        return sum(side.num_crossed for side in self.sides.values()) + pairs


def in_turn(sizes: Sequence[int]) -> NDArray[np.int32]:
    """Return (N,) the place of each row where all fields' first rows come first, then the second.

    Rows of a field fall by frequency, those of merged fields do not: taken in turn they nearly do,
    and a field of few values stands in front with all of them. In a turn the larger fields come
    first. O(N).

    Args:
        sizes: rows of each field, 1 or more; the fields lie one behind another.

    >>> in_turn([2, 3]).tolist()
    [1, 3, 0, 2, 4]
    """
    ended = np.cumsum(np.bincount(sizes))[:-1]  # fields that have no row left, turn by turn
    begin = np.concatenate([[0], np.cumsum(len(sizes) - ended)])
    turn = np.argsort(np.argsort(-np.asarray(sizes), kind="stable"))
    places = [begin[:size] + at for size, at in zip(sizes, turn, strict=True)]
    return np.concatenate(places).astype(np.int32)


def as_column(column: Any) -> Any:
    """Return a column as features take it: an array of texts becomes ``Text``."""
    if isinstance(column, np.ndarray) and column.dtype.kind == "U":
        return Text.of(column.tolist())
    return column


def mean_of_bags(found: F32, indptr: NDArray[np.int64]) -> F32:
    """Return the (N, d) mean of each run of (nnz, d) rows; zeros for an empty one. O(nnz d)."""
    lengths = np.diff(indptr)
    pooled = np.zeros((len(lengths), found.shape[1]), np.float32)
    filled = np.flatnonzero(lengths)
    if len(filled):
        sums = np.add.reduceat(found, indptr[filled], axis=0)
        pooled[filled] = sums / lengths[filled, None].astype(np.float32)
    return pooled


def join(parts: Sequence[Array]) -> Any:
    """Return (N, a), (N, b) ... side by side; without a copy where there is one alone."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
