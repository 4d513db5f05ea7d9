"""The distinct values of a column by falling frequency, and the row of each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import Array
from martlet.features.keys import Keys


class Values:
    """Rows 1 .. n by key, and 0 for a key that is not among them.

    Args:
        keys: (n,) distinct keys in the order of their rows, none of them 0.
    """

    def __init__(self, keys: Keys):
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._rows = (order + 1).astype(np.int32)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def distinct(self) -> bool:
        """Whether the keys are distinct and none is 0."""
        keys = self._keys
        return bool((keys[1:] != keys[:-1]).all()) and (not len(keys) or keys[0] != 0)

    def places_in(self, other: Values) -> NDArray[np.int32]:
        """Return the (n,) row of ``other`` that has the key of rows 1, 2, ...; 0 for none."""
        found = np.empty(len(self), np.int32)
        found[self._rows - 1] = other.rows(self._keys)
        return found

    def rows(self, keys: Keys) -> NDArray[np.int32]:
        """Return the (m,) row of each key. O(m log n)."""
        if not len(self):
            return np.zeros(len(keys), np.int32)
        at = self._keys.searchsorted(keys)
        at[at == len(self._keys)] = 0
        return np.where(self._keys[at] == keys, self._rows[at], np.int32(0))


def frequent(keys: Keys, min_count: int) -> tuple[Keys, NDArray[np.int64]]:
    """Return the keys that occur at least ``min_count`` times, and a place where each does.

    They fall by frequency, ties by key; 0, the missing value, is left out.
    """
    found: Any = np.unique(keys, return_index=True, return_counts=True)
    distinct, first, count = found
    order = np.lexsort((distinct, -count))
    order = order[(count[order] >= min_count) & (distinct[order] != 0)]
    return distinct[order], first[order]


def as_whole(numbers: Array) -> Array:
    """Return numbers as int64 where all are whole, else as float64."""
    values: Any = numbers
    if values.dtype.kind != "f":
        return values.astype(np.int64)  # type: ignore[no-any-return]
    whole = (np.floor(values) == values) & (np.abs(values) < 2.0**63)
    return values.astype(np.int64 if whole.all() else np.float64)  # type: ignore[no-any-return]
