"""Labelled rows of fields: what a ranking model learns from where there need be no catalogue."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core.columns import Column, Text, flatten
from martlet.core.errors import DataError


@dataclass(frozen=True, eq=False)
class Examples:
    """N rows with a label each.

    Attributes:
        columns: a value a row; text, or real numbers (NaN where missing).
        label: (N,) float32, 0 or 1 for a click, any number for a regression.
        weight: (N,) float32, 0 or more, of each row in the loss; None weighs all alike.
        time_s: (N,) int64 Unix seconds, or None.
    """

    columns: Mapping[str, Column]
    label: NDArray[np.float32]
    weight: NDArray[np.float32] | None = None
    time_s: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        parts: dict[str, Any] = {"weight": self.weight, "time_s": self.time_s}
        parts |= {f"column {name!r}": column for name, column in self.columns.items()}
        for name, column in parts.items():
            if column is not None and len(column) != len(self):
                raise DataError(f"{name} has {len(column)} values for {len(self)} labels")

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over labels, weights, times and columns."""
        digest = hashlib.sha256(str(len(self)).encode())
        for part in (self.label, self.weight, self.time_s):
            if part is not None:
                digest.update(np.ascontiguousarray(part).tobytes())
        for name, array in sorted(flatten(self.columns).items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def take(self, rows: NDArray[np.integer]) -> Examples:
        """Return the given rows."""
        return Examples(
            {
                name: column.take(rows) if isinstance(column, Text) else column[rows]
                for name, column in self.columns.items()
            },
            self.label[rows],
            None if self.weight is None else self.weight[rows],
            None if self.time_s is None else self.time_s[rows],
        )


@dataclass(frozen=True, eq=False)
class Tabular:
    """Examples split for training, choosing and a final measurement; what ``Dataset`` is to events.

    Attributes:
        train: what ``fit`` sees.
        valid: what ends a training early and what a search sees; may be empty.
        test: what a final measurement sees; may be empty.
        about: where the rows came from and how they were split; plain JSON.
    """

    train: Examples
    valid: Examples
    test: Examples
    about: Mapping[str, Any] = field(default_factory=dict)
