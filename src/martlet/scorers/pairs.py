"""Crossed columns of an item and a user together: a row for each pair of their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import BundleError
from martlet.features import Features
from martlet.features.cross import FittedCross
from martlet.features.keys import Keys, cross_keys
from martlet.features.source import Source


@dataclass(frozen=True, eq=False)
class Pairs:
    """The crosses whose columns stand partly in the catalogue and partly in the users' table.

    The keys of an item's and of a user's values are computed once; a pair's row follows from both.

    Attributes:
        features: the crosses, fitted on the pairs of the train part.
        of_item: names of their columns that are the items'; the others are the users'.
        item_keys: (num_items, T) uint64 the key of each part of each cross, 0 of users' parts.
    """

    features: Features
    of_item: tuple[str, ...]
    item_keys: Keys

    @staticmethod
    def of(features: Features, catalogue: Mapping[str, Any], num_items: int) -> Pairs:
        """Compute the items' keys from their columns."""
        names = tuple(name for name in features.uses if name in catalogue)
        bare = Pairs(features, names, np.zeros((0, 0), np.uint64))
        columns = {name: catalogue[name] for name in names}
        return Pairs(features, names, bare._keys(columns, num_items))

    @property
    def of_user(self) -> tuple[str, ...]:
        """Names of the columns that are the users'."""
        return tuple(name for name in self.features.uses if name not in self.of_item)

    @property
    def num_rows(self) -> int:
        """Rows of the table of weights."""
        return self.features.num_rows

    @cached_property
    def _crosses(self) -> list[FittedCross]:
        return [one for one in self.features.columns if isinstance(one, FittedCross)]

    def user_keys(self, columns: Mapping[str, Any], size: int) -> Keys:
        """Return the (N, T) keys of N = ``size`` users; of a column that is absent, 0."""
        return self._keys({n: columns[n] for n in self.of_user if n in columns}, size)

    def _keys(self, columns: Mapping[str, Any], size: int) -> Keys:
        source = Source(columns or {"": np.zeros(size)})
        parts = [part for cross in self._crosses for part in cross.part_keys(source)]
        return np.stack(parts, 1)

    def rows(self, items: NDArray[np.integer], user_keys: Keys) -> NDArray[np.int32]:
        """Return the (N, C) rows, from 0 on, of N items and the (N, T) keys of their users."""
        keys = self.item_keys[items] | user_keys
        found, at, first = [], 0, self.features.offsets.astype(np.int32)
        for number, cross in enumerate(self._crosses):
            end = at + len(cross.spec.columns)
            found.append(cross.rows_of(cross_keys(list(keys[:, at:end].T))) + first[number])
            at = end
        return np.stack(found, 1)

    def check(self, num_items: int) -> Pairs:
        """Return it, if its keys are those of so many items.

        Raises:
            BundleError: they are not, or it has other columns than crosses.
        """
        parts = sum(len(cross.spec.columns) for cross in self._crosses)
        whole = len(self._crosses) == len(self.features.columns)
        if (
            not whole
            or self.item_keys.shape != (num_items, parts)
            or (self.item_keys.dtype != np.uint64)
        ):
            raise BundleError(
                f"the keys of the items are {self.item_keys.dtype}{self.item_keys.shape}, expected "
                f"uint64{(num_items, parts)} of crosses alone"
            )
        return self
