"""Tables of fewer numbers than rows times features: rows that share, each in a way of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from martlet.core import SpecError, check_counts, rng
from martlet.scorers.shared import Mixed, Quotient
from martlet.scorers.table import Table
from martlet.train.embeddings import Embedding, Rows

Sharing = Literal["none", "quotient", "mixed"]

_FALL = 4  # times as many rows, and a width that many times less, from a block to the next


class QuotientRemainder(nn.Module):
    """Row r is the product of row r // m of one table and row r % m of another, feature by feature.

    With m rows in the second, the first m rows differ by the second alone: where rows fall by
    frequency, what is frequent keeps vectors of its own.

    **Source**: Shi et al., "Compositional Embeddings Using Complementary Partitions for Memory-
    Efficient Recommendation Systems" (2020).

    Attributes:
        num_rows: N.
        dim: d.
        quotient: ``collisions`` rows at most.
        remainder: N / ``collisions`` rows.
    """

    def __init__(self, num_rows: int, dim: int, *, collisions: int = 4, **options: Any) -> None:
        """Make both tables; ``options`` are those of ``Embedding``, and hold for the product."""
        super().__init__()
        self.num_rows, self.dim, self.collisions = num_rows, dim, collisions
        check_counts(self, "num_rows", "dim", "collisions")
        std = options.pop("init_scale", 0.01) ** 0.5
        shapes = self.shapes(num_rows, dim, collisions)
        for name, shape in zip(("quotient", "remainder"), shapes, strict=True):
            own = _part_options(name, options) | {"init_scale": std}
            self.add_module(name, Embedding(*shape, **own))

    @staticmethod
    def shapes(num_rows: int, dim: int, collisions: int = 4) -> list[tuple[int, int]]:
        """Return the shapes of both tables."""
        count = -(-num_rows // collisions)
        return [(-(-num_rows // count), dim), (count, dim)]

    def forward(self, rows: Rows) -> Tensor:
        """Return (..., d) float32 on the CPU, of (...) rows."""
        at = _array(rows)
        count = self.remainder.num_rows
        return self.quotient(at // count) * self.remainder(at % count)  # type: ignore[no-any-return]

    def export(self) -> Quotient:
        """Return what looks up the same without torch."""
        return Quotient(self.quotient.export(), self.remainder.export())

    quotient: Embedding
    remainder: Embedding


class MixedDimension(nn.Module):
    """Rows that fall by frequency, in blocks of ever more rows and ever narrower vectors.

    Each block has four times the rows up to its end and a quarter of the width; a projection, part
    of the dense network, brings what is narrow up to d.

    **Source**: Ginart et al., "Mixed Dimension Embeddings with Application to Memory-Efficient
    Recommendation Systems" (2019), with temperature 1 for frequencies that fall as 1 / rank.

    Attributes:
        num_rows: N.
        dim: d.
        starts: first row of each block, and N.
        blocks: the tables.
        up: (d_b, d) projections of all but the first.
    """

    def __init__(self, num_rows: int, dim: int, *, blocks: int = 3, **options: Any) -> None:
        """Make the tables; ``options`` are those of ``Embedding``."""
        super().__init__()
        self.num_rows, self.dim = num_rows, dim
        check_counts(self, "num_rows", "dim")
        shapes = self.shapes(num_rows, dim, blocks)
        self.starts = np.cumsum([0, *(size for size, _ in shapes)])
        self.blocks = nn.ModuleList(
            Embedding(size, width, **_part_options(f"block{number}", options))
            for number, (size, width) in enumerate(shapes)
        )
        seed = options.get("seed", 0)
        drawn = [rng(seed, "up", width).standard_normal((width, dim)) for _, width in shapes[1:]]
        self.up = nn.ParameterList(
            nn.Parameter(torch.from_numpy(one / len(one) ** 0.5).float()) for one in drawn
        )

    @staticmethod
    def shapes(num_rows: int, dim: int, blocks: int = 3) -> list[tuple[int, int]]:
        """Return the shapes of the tables; a projection more is (width, d) of all but the first."""
        if not blocks > 1 or num_rows < _FALL ** (blocks - 1):
            raise SpecError(
                f"blocks is {blocks} for {num_rows} rows: expected 2 or more, and "
                f"{_FALL}^(blocks - 1) rows; so small a table shares nothing"
            )
        ends = [num_rows // _FALL ** (blocks - 1 - number) for number in range(blocks)]
        widths = [max(1, dim // _FALL**number) for number in range(blocks)]
        return [
            (stop - start, width)
            for start, stop, width in zip([0, *ends[:-1]], ends, widths, strict=True)
        ]

    def forward(self, rows: Rows) -> Tensor:
        """Return (..., d) float32 where the projections are, of (...) rows."""
        array = _array(rows)
        at = array.reshape(-1)
        block = np.searchsorted(self.starts, at, side="right") - 1
        # Rows outside are left to the outer blocks, which refuse them by name.
        block = np.clip(block, 0, len(self.blocks) - 1)
        order = np.argsort(block, kind="stable")
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        found = []
        for number, table in enumerate(self.blocks):
            narrow = table(at[block == number] - self.starts[number]).to(self.up[0].device)
            found.append(narrow @ self.up[number - 1] if number else narrow)
        there = torch.from_numpy(back).to(self.up[0].device)
        return torch.cat(found)[there].reshape(*array.shape, self.dim)

    def export(self) -> Mixed:
        """Return what looks up the same without torch."""
        up = tuple(Table.of(one.detach().cpu().numpy()) for one in self.up)
        return Mixed(tuple(block.export() for block in self.blocks), up)  # type: ignore[operator]


def embedding_of(
    sharing: Sharing, num_rows: int, dim: int, **options: Any
) -> Embedding | QuotientRemainder | MixedDimension:
    """Return a table of N rows and d features.

    Args:
        sharing: "none"; "quotient", two tables a quarter of the size together; "mixed", a sixth.
        num_rows: N.
        dim: d.
        options: those of ``Embedding``, ``QuotientRemainder`` or ``MixedDimension``.

    Raises:
        SpecError: another sharing, or an option that makes no sense.
    """
    kinds = {"none": Embedding, "quotient": QuotientRemainder, "mixed": MixedDimension}
    if sharing not in kinds:
        raise SpecError(f"sharing is {sharing!r}: expected one of {', '.join(kinds)}")
    return kinds[sharing](num_rows, dim, **options)  # type: ignore[no-any-return]


def take_tables(table: nn.Module, tables: Mapping[str, Table]) -> None:
    """Set the values of what ``embedding_of`` made to those of an exported one.

    Args:
        table: of any sharing.
        tables: by the names that its export gives them; one that shares nothing is called "".

    Raises:
        SpecError: it was of another size or sharing.
    """
    for name, part in table.named_modules():
        if isinstance(part, Embedding):
            found = tables.get(name.replace("blocks.", "block"))
            if found is None or found.shape != (part.num_rows, part.dim):
                there = ", ".join(f"{own} {one.shape}" for own, one in tables.items())
                raise SpecError(f"tables are {there}: expected {part.num_rows} rows of {part.dim}")
            part.take(found.dense())
    for number, one in enumerate(getattr(table, "up", ()), 1):
        one.data.copy_(torch.from_numpy(tables[f"up{number}"].dense()))


def num_values(sharing: Sharing, num_rows: int, dim: int) -> int:
    """Return the numbers that ``embedding_of`` learns for N rows and d features."""
    if sharing == "none":
        return num_rows * dim
    kind = QuotientRemainder if sharing == "quotient" else MixedDimension
    shapes = kind.shapes(num_rows, dim)
    if kind is MixedDimension:
        shapes += [(width, dim) for _, width in shapes[1:]]
    return sum(size * width for size, width in shapes)


def _part_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of one of several tables: a seed and a folder of its own."""
    seed = int(rng(options.get("seed", 0), "part", name).integers(1 << 62))
    file = options.get("file")
    return options | {"seed": seed, "file": None if file is None else Path(file) / name}


def _array(rows: Rows) -> NDArray[np.int64]:
    array = rows.detach().cpu().numpy() if isinstance(rows, Tensor) else rows
    return np.asarray(array, np.int64)
