"""A batch of examples of fields, as one flat list of rows for each table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from martlet.features import Encoded
from martlet.scorers.field_rows import Side


@dataclass(frozen=True, eq=False)
class Part:
    """What one side has in a batch.

    Attributes:
        size: examples of the side.
        repeat: examples of the batch that each of them stands for.
        single: single-valued fields with a vector.
        crossed: single-valued fields with a weight alone, behind them.
        bags: of each bag, (nnz,) int64 the example of each row, and (size, 1) one over its rows.
        numbers: (size, M) float32.
    """

    size: int
    repeat: int
    single: int
    crossed: int
    bags: list[tuple[Tensor, Tensor]]
    numbers: Tensor

    @staticmethod
    def of(side: Side, encoded: Encoded, repeat: int) -> tuple[Part, list[Any], list[Any]]:
        """Return the part, and the rows it looks up: of vectors, of weights."""
        bags = []
        for bag in encoded.bags:
            lengths = np.diff(bag.indptr)
            example = np.repeat(np.arange(len(lengths)), lengths)
            share = (1 / np.maximum(lengths, 1)).astype(np.float32)[:, None]
            bags.append((torch.from_numpy(example), torch.from_numpy(share)))
        rows, single = encoded.rows, encoded.rows.shape[1] - side.num_crossed
        numbers = torch.from_numpy(encoded.numbers)
        part = Part(len(rows), repeat, single, side.num_crossed, bags, numbers)
        own = [bag.rows for bag in encoded.bags]
        return part, [rows[:, :single].reshape(-1), *own], [rows.reshape(-1), *own]

    def means(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """Return the (size, 1, d) mean of each bag of (nnz, d) looked up rows; zeros if empty."""
        found = []
        for (example, share), rows in zip(self.bags, pieces, strict=True):
            sums = rows.new_zeros(self.size, rows.shape[1]).index_add(0, example, rows)
            found.append((sums * share)[:, None])
        return found

    def repeated(self, values: Tensor) -> Tensor:
        """Return (size repeat, ...) of (size, ...)."""
        return values if self.repeat == 1 else values.repeat_interleave(self.repeat, 0)


@dataclass(frozen=True, eq=False)
class Batch:
    """N examples, ready to be looked up at once.

    Attributes:
        parts: of each side.
        rows: (V,) int32 rows of the table of vectors, part by part, bags after the others.
        wide_rows: (W,) int32 the same of the table of weights.
        label: (N,) float32.
        weight: (N,) float32, or None.
        pairs: (N C,) int32 rows of weights of crosses of both sides, the last of ``wide_rows``.
        done: share of all steps that are taken before it.
    """

    parts: list[Part]
    rows: NDArray[np.int32]
    wide_rows: NDArray[np.int32]
    label: Tensor
    weight: Tensor | None
    pairs: NDArray[np.int32]
    done: float = 0.0

    @staticmethod
    def of(
        sides: Sequence[tuple[Side, Encoded, int]],
        label: NDArray[np.float32],
        weight: NDArray[np.float32] | None,
        pairs: NDArray[np.int32] | None = None,
    ) -> Batch:
        """Build from each side's examples and how often each is repeated, and rows of pairs."""
        made = [Part.of(*side) for side in sides]
        rows = _one_after_another([one for _, own, _ in made for one in own])
        last = np.empty(0, np.int32) if pairs is None else pairs.reshape(-1)
        same = not len(last) and not any(side.num_crossed for side, *_ in sides)
        each = [one for _, _, own in made for one in own]
        wide = rows if same else _one_after_another([*each, last])
        weights = None if weight is None else torch.from_numpy(weight)
        parts = [part for part, *_ in made]
        return Batch(parts, rows, wide, torch.from_numpy(label), weights, last)

    def split(self, found: Tensor) -> list[list[Tensor]]:
        """Return what was looked up for ``rows``, by part: single fields, then each bag."""
        return self._split(found, [part.single for part in self.parts])

    def split_wide(self, found: Tensor) -> list[list[Tensor]]:
        """Return the same of ``wide_rows``, but for the pairs behind them."""
        found = found[: len(found) - len(self.pairs)]
        return self._split(found, [part.single + part.crossed for part in self.parts])

    def _split(self, found: Tensor, single: list[int]) -> list[list[Tensor]]:
        sizes = [
            [part.size * count, *(len(example) for example, _ in part.bags)]
            for part, count in zip(self.parts, single, strict=True)
        ]
        pieces = iter(torch.split(found, [size for own in sizes for size in own]))
        return [[next(pieces) for _ in own] for own in sizes]


def _one_after_another(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
