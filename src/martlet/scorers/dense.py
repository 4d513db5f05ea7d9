"""Every value as a number of its own: fp32, fp16 and bf16."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Array, SpecError, best
from martlet.scorers.table import blocks

if TYPE_CHECKING:
    from martlet.scorers.storages import At, Expected
    from martlet.scorers.table import Table

F32 = NDArray[np.float32]

_BLOCK_VALUES = 1 << 20  # 4 MB once widened
_MANY = 1 << 13  # halves that are worth the kernel; a single column is not worth loading it
_LARGEST_BF16 = np.float32(255 * 2.0**120)


@dataclass(frozen=True)
class Dense:
    """Values one by one, "values" (n, d).

    Attributes:
        family: "fp32", "fp16" or "bf16", which is stored as the uint16 of its bits.
    """

    family: str

    @staticmethod
    def of(family: str, option: str) -> Dense:
        """Return the storage of that name.

        Raises:
            SpecError: it has no option.
        """
        return Dense(without_option(family, option))

    @property
    def dtype(self) -> Any:
        """What a value is stored as."""
        return {"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16}[self.family]

    @property
    def bits(self) -> float:
        """Bits of a value."""
        return float(8 * np.dtype(self.dtype).itemsize)

    def expected(self, table: Table) -> Expected:
        """Return the one array."""
        return {"values": (self.dtype, table.shape)}

    def check(self, name: str, table: Table) -> None:
        """Check nothing: every number is a value."""

    def rows(self, table: Table, at: At) -> F32:
        """Return the (len(at), d) float32 rows; a slice of fp32 shares the table's memory."""
        values = table.values[at]
        if self.family == "bf16":
            from martlet.kernels.half import from_bf16

            return from_bf16(values)
        if self.family == "fp16" and values.shape[1] > 1 and values.size >= _MANY:
            from martlet.kernels.half import widen

            return widen(values, 0, values.shape[1])
        return values.astype(np.float32, copy=False)  # type: ignore[no-any-return]

    def encode(self, table: Table, moment: Any = None) -> dict[str, Array]:
        """Return the values, rounded to nearest. O(n d).

        Raises:
            SpecError: a value that a half cannot hold.
        """
        values = np.empty(table.shape, self.dtype)
        for start, stop in blocks(*table.shape):
            narrow(table.rows(slice(start, stop)), values[start:stop])
        return {"values": values}

    def prepared(self, table: Table) -> Any:
        """Return the (d, n) values transposed."""
        return table.transposed

    def topk(
        self,
        table: Table,
        vectors: F32,
        k: int,
        hidden: CSR | None,
        allow: NDArray[np.bool_] | None,
        threads: int,
    ) -> tuple[NDArray[np.int32], F32]:
        """Return the (B, k) best rows and scores. O(B n d)."""
        if self.family == "fp32":
            from martlet.kernels.topk import topk_dot

            return topk_dot(vectors, table.prepared, k, hidden, allow, threads)

        from martlet.kernels.half import widen, widen_bf16

        widened = widen if self.family == "fp16" else widen_bf16

        def wide(start: int, stop: int) -> F32:
            return widened(table.prepared, start, stop)

        return topk_blocks(wide, table.shape, vectors, k, hidden, allow, threads)


def topk_blocks(
    wide: Callable[[int, int], F32],
    shape: tuple[int, int],
    vectors: F32,
    k: int,
    hidden: CSR | None,
    allow: NDArray[np.bool_] | None,
    threads: int,
) -> tuple[NDArray[np.int32], F32]:
    """Return the (B, k) best rows and scores of a table that is widened block by block. O(B n d).

    Thus a table kept small on disk stays small in memory. ``wide(start, stop)`` gives the
    (d, stop - start) float32 vectors of those rows, transposed; ``shape`` is the table's (n, d).
    """
    from martlet.kernels.topk import topk_dot

    found = []
    for start, stop in blocks(*shape, _BLOCK_VALUES):
        inside = None if hidden is None else _columns(hidden, start, stop)
        part = None if allow is None else allow[start:stop]
        block = wide(start, stop)
        found.append(topk_dot(vectors, block, k, inside, part, threads, first_row=start))
    if len(found) == 1:
        return found[0]
    rows, scores = (np.concatenate(side, axis=1) for side in zip(*found, strict=True))
    ranking = best(scores, rows, k)
    return ranking.item_row, ranking.score


def without_option(family: str, option: str) -> str:
    """Return the family's name if nothing follows it.

    Raises:
        SpecError: something does.
    """
    if option:
        raise SpecError(f"storage {family}:{option} is unknown: {family} takes no option")
    return family


def narrow(values: F32, out: Any) -> None:
    """Write ``values`` into ``out``, float32, float16 or bits of bfloat16, rounded to nearest.

    Raises:
        SpecError: a value beyond its range.
    """
    plain = out.dtype != np.uint16
    limit = np.finfo(out.dtype).max if plain else _LARGEST_BF16
    if values.size and not np.abs(values).max() <= limit:
        raise SpecError(
            f"the table holds a value of {np.abs(values).max():g}, beyond {limit:g}, the largest "
            f"of {out.dtype if plain else 'bfloat16'}: store it as int8 or fp32"
        )
    if plain:
        out[...] = values
    else:
        from martlet.kernels.half import to_bf16

        out[...] = to_bf16(values)


def _columns(csr: CSR, start: int, stop: int) -> CSR:
    """Return the entries of columns ``start`` to ``stop``, counted from ``start``."""
    keep = (csr.indices >= start) & (csr.indices < stop)
    indptr = np.concatenate([[0], np.cumsum(keep)])[csr.indptr]
    return CSR(indptr, csr.indices[keep] - np.int32(start), None, stop - start)
