"""What a network is told of a user, or of an item, beside the history: columns as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import BundleError, Queries
from martlet.core.queries import is_missing
from martlet.features import Encoded, Features
from martlet.scorers.storage import read_tensors, write_tensors
from martlet.scorers.table import Table

SIDE = "side.safetensors"


@dataclass(frozen=True, eq=False)
class Side:
    """Columns of a query as (B, width) numbers: a vector a field, then the scaled numbers.

    A multi-valued field has the mean of its vectors. A column that a query lacks is missing, which
    every field has a vector for.

    Attributes:
        features: how columns become rows and numbers.
        vectors: (features.num_vector_rows, d) vectors of the rows.
    """

    features: Features
    vectors: Table

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the context that are read."""
        return self.features.uses

    @property
    def width(self) -> int:
        """Numbers of a query."""
        return side_width(self.features, self.vectors.shape[1])

    def encode(self, queries: Queries) -> NDArray[np.float32]:
        """Return (B, width) float32, the same whatever the batch.

        Raises:
            DataError: a column of neither text nor numbers.
        """
        nothing = np.full(len(queries), np.nan)
        given = {name: queries.context.get(name, nothing) for name in self.columns}
        return self.of(self.features.apply(given))

    def of(self, encoded: Encoded) -> NDArray[np.float32]:
        """Return (N, width) float32 of N encoded rows of columns."""
        (n, fields), d = encoded.rows.shape, self.vectors.shape[1]
        parts = [self.vectors.rows(encoded.rows.ravel()).reshape(n, fields * d)]
        for bag in encoded.bags:
            mean = np.zeros((n, d), np.float32)
            lengths = np.diff(bag.indptr)
            filled = np.flatnonzero(lengths)
            if len(filled):
                sums = np.add.reduceat(self.vectors.rows(bag.rows), bag.indptr[filled], axis=0)
                mean[filled] = sums / lengths[filled, None]
            parts.append(mean)
        return np.concatenate([*parts, encoded.numbers], axis=1).astype(np.float32, copy=False)

    def knows(self, queries: Queries) -> NDArray[np.bool_]:
        """Return (B,) bool: the queries with a column that says something."""
        known = np.zeros(len(queries), bool)
        for name in self.columns:
            if name in queries.context:
                known |= ~is_missing(queries.context[name])
        return known

    def save(self, folder: Path) -> None:
        """Write the arrays of the features into ``folder``."""
        write_tensors(folder / SIDE, self.features.arrays())

    @staticmethod
    def from_parts(config: Mapping[str, Any], vectors: Table, folder: Path) -> Side:
        """Return what ``features.to_json`` and ``save`` described.

        Raises:
            BundleError: the features are damaged, or have another number of rows.
        """
        features = Features.from_parts(config, read_tensors(folder / SIDE))
        check_plain(features)
        if vectors.shape[0] != features.num_vector_rows:
            raise BundleError(
                f"table side has {vectors.shape[0]} rows: expected {features.num_vector_rows}, as "
                "the features ask for"
            )
        return Side(features, vectors)


def check_plain(features: Features) -> None:
    """Refuse crossed fields, which have no vectors.

    Raises:
        BundleError: there is one.
    """
    if features.wide_only:
        raise BundleError(f"the crossed field {features.wide_only[0]!r} has no vector")


def side_width(features: Features, dim: int) -> int:
    """Return the numbers of a row of columns whose fields have vectors of length ``dim``."""
    fields = len(features.fields) + len(features.bags)
    return fields * dim + len(features.numbers)
