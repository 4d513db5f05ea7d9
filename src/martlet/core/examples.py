"""Labelled rows of fields: what a ranking model learns from where there need be no catalogue."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core.columns import Column, Text, flatten
from martlet.core.dataset import PARTS
from martlet.core.errors import DataError
from martlet.core.files import new_folder
from martlet.core.stored_examples import PROOF, ExamplesFolder, kinds_of, write_parts


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
        return self._each(lambda column: _take(column, rows))

    def slice(self, start: int, stop: int) -> Examples:
        """Return rows ``start`` to ``stop``; numbers and text are not copied."""
        return self._each(lambda column: _slice(column, start, stop))

    def union(self, other: Examples) -> Examples:
        """Return these rows, and those of ``other`` behind them.

        Raises:
            DataError: they do not have the same columns, or weights and times.
        """
        mine, theirs = (set(one.columns) | one._rows() for one in (self, other))
        if mine != theirs:
            raise DataError(
                f"{', '.join(sorted(mine ^ theirs))} stands in one of two tables: expected the "
                "same columns, weights and times in both"
            )
        return Examples(
            {name: _join(column, other.columns[name]) for name, column in self.columns.items()},
            np.concatenate([self.label, other.label]),
            None if self.weight is None else _join(self.weight, other.weight),
            None if self.time_s is None else _join(self.time_s, other.time_s),
        )

    def _rows(self) -> set[str]:
        return {f"the {name}" for name in ("weight", "time_s") if getattr(self, name) is not None}

    def _each(self, change: Callable[[Any], Any]) -> Examples:
        return Examples(
            {name: change(column) for name, column in self.columns.items()},
            change(self.label),
            None if self.weight is None else change(self.weight),
            None if self.time_s is None else change(self.time_s),
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

    def part(self, name: str) -> Examples:
        """Return the part called ``name``.

        Raises:
            DataError: no such part.
        """
        if name not in PARTS:
            raise DataError(f"no part is called {name!r}: expected one of {', '.join(PARTS)}")
        return getattr(self, name)  # type: ignore[no-any-return]

    @property
    def kinds(self) -> dict[str, str]:
        """The columns' names, in order, and "text" or "number" of each."""
        return kinds_of(self.train)

    def with_valid_in_train(self) -> Tabular:
        """Return the table for a last fit, once hyper-parameters are chosen.

        ``about["merged"]`` keeps the hashes of both parts: neither may be measured on any more.
        """
        about = {**self.about, "merged": [self.train.hash, self.valid.hash]}
        nothing = self.valid.slice(0, 0)
        return replace(self, train=self.train.union(self.valid), valid=nothing, about=about)

    def save(self, folder: str | Path) -> None:
        """Write a folder of ``.npy`` files and ``examples.json``, whole or not at all.

        Another labelled table that is there is replaced.

        Raises:
            OutputError: the folder could not be written, or something else is there.
            DataError: parts that do not have the same columns.
        """
        with new_folder(folder, proof=PROOF) as target:
            write_parts(target, {name: self.part(name) for name in PARTS}, self.about)

    @staticmethod
    def load(folder: str | Path) -> Tabular:
        """Read a folder that ``save`` wrote; the arrays are memory-mapped. O(bytes) of checks.

        Raises:
            DataError: the folder is no labelled table, or is damaged; names the file.
        """
        try:
            place = Path(folder)
        except TypeError as error:
            raise DataError(f"{folder!r} is no path: expected a folder") from error
        stored = ExamplesFolder(place)
        train, valid, test = (Examples(**part) for part in stored.parts(*PARTS))
        return Tabular(train, valid, test, stored.head["about"])


def _take(column: Any, rows: NDArray[np.integer]) -> Any:
    return column.take(rows) if isinstance(column, Text) else column[rows]


def _slice(column: Any, start: int, stop: int) -> Any:
    return column.slice(start, stop) if isinstance(column, Text) else column[start:stop]


def _join(first: Any, second: Any) -> Any:
    if isinstance(first, Text) != isinstance(second, Text):
        raise DataError("a column is text in one of two tables and numbers in the other")
    if isinstance(first, Text):
        return Text.join([first, second])
    return np.concatenate([first, second])
