"""Equal rows stored once: a place for each row, and the distinct rows in any other storage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Array, BundleError, SpecError
from martlet.scorers.dense import topk_blocks
from martlet.scorers.storages import storage_of
from martlet.scorers.table import Table, blocks

if TYPE_CHECKING:
    from martlet.scorers.storages import At, Expected

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class SharedRows:
    """Row i is row ``place[i]`` of m distinct ones: "place" (n,) int32 beside their own arrays.

    Attributes:
        inner: storage of the distinct rows, (m, d), a line of "values" each.
    """

    inner: str

    @staticmethod
    def of(family: str, option: str) -> SharedRows:
        """Return the storage of that name, such as "shared:int8".

        Raises:
            SpecError: what follows is no storage of dense rows.
        """
        if not option or option.startswith(("csr", family)):
            raise SpecError(
                f"storage {family}:{option} is unknown: expected such as {family}:fp32, with a "
                "storage of dense rows"
            )
        storage_of(option)
        return SharedRows(option)

    @property
    def bits(self) -> float:
        """Bits of a value of a distinct row."""
        return storage_of(self.inner).bits

    def expected(self, table: Table) -> Expected:
        """Return the places, and what the distinct rows need."""
        place: Expected = {"place": (np.int32, table.shape[:1])}
        if "values" not in table.arrays:
            return place
        rows = self.distinct(table)
        return place | rows.kind.expected(rows)

    def check(self, name: str, table: Table) -> None:
        """Check the places, and what the distinct rows hold.

        Raises:
            BundleError: a place beyond the distinct rows.
        """
        rows, place = self.distinct(table), np.asarray(table.arrays["place"])
        if len(place) and not 0 <= place.min() <= place.max() < rows.shape[0]:
            raise BundleError(
                f"table {name} has places {place.min()} to {place.max()}: expected 0 to "
                f"{rows.shape[0] - 1}"
            )
        rows.kind.check(name, rows)

    def distinct(self, table: Table) -> Table:
        """Return the (m, d) distinct rows; shares the table's memory."""
        arrays = {name: array for name, array in table.arrays.items() if name != "place"}
        return Table(self.inner, (table.values.shape[0], table.shape[1]), arrays)

    def rows(self, table: Table, at: At) -> F32:
        """Return the (len(at), d) float32 rows."""
        place: Any = table.arrays["place"]
        return self.distinct(table).rows(place[at])

    def encode(self, table: Table, moment: NDArray[np.float64] | None = None) -> dict[str, Array]:
        """Return places and distinct rows, in the order in which they first occur. O(n d log n)."""
        place, first = _places(table)
        rows = Table.of(table.rows(first)).to(self.inner, moment)
        return {"place": place, **rows.arrays}

    def prepared(self, table: Table) -> Any:
        """Return nothing: rows are gathered block by block."""

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

        def wide(start: int, stop: int) -> F32:
            return np.ascontiguousarray(self.rows(table, slice(start, stop)).T)

        return topk_blocks(wide, table.shape, vectors, k, hidden, allow, threads)


def _places(table: Table) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return (n,) which distinct row each row is, and (m,) where each first stands."""
    if "place" in table.arrays:
        place: Any = table.arrays["place"]
        return place, np.unique(place, return_index=True)[1]
    n, d = table.shape
    lines = np.empty(n, np.dtype((np.void, 4 * d)))
    for start, stop in blocks(n, d):
        part = np.ascontiguousarray(table.rows(slice(start, stop)) + np.float32(0))  # -0 is 0
        lines[start:stop] = part.view(lines.dtype)[:, 0]
    _, first, place = np.unique(lines, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(first), np.int32)
    rank[order] = np.arange(len(first), dtype=np.int32)
    return rank[place], first[order]
