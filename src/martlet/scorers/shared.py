"""Tables whose rows share numbers: an (N, d) matrix made of smaller tables when it is looked up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from martlet.core import BundleError
from martlet.scorers.table import F32, Table

At = NDArray[np.integer] | slice


@dataclass(frozen=True, eq=False)
class Quotient:
    """Row r is ``quotient[r // m] * remainder[r % m]``, feature by feature, of m remainders.

    Attributes:
        quotient: (q, d).
        remainder: (m, d).
    """

    quotient: Table
    remainder: Table

    @property
    def shape(self) -> tuple[int, int]:
        """(q m, d); the last rows may belong to nothing."""
        return self.quotient.shape[0] * self.remainder.shape[0], self.remainder.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.quotient.nbytes + self.remainder.nbytes

    def rows(self, at: At) -> F32:
        """Return the (len(at), d) float32 rows. O(len(at) d)."""
        at, count = _listed(at, self.shape[0]), self.remainder.shape[0]
        return self.quotient.rows(at // count) * self.remainder.rows(at % count)

    def dense(self) -> F32:
        """Return all rows. O(N d)."""
        return self.rows(slice(None))

    def tables(self) -> dict[str, Table]:
        """Return the parts by name, of which ``shared_of`` makes the same again."""
        return {"quotient": self.quotient, "remainder": self.remainder}


@dataclass(frozen=True, eq=False)
class Mixed:
    """Rows in blocks, the later the narrower; what is narrow is projected up to d.

    Attributes:
        blocks: (n_b, d_b) each; rows count on from one block to the next.
        up: (d_b, d) of each block but the first, which has all d.
    """

    blocks: tuple[Table, ...]
    up: tuple[Table, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(N, d)."""
        return sum(block.shape[0] for block in self.blocks), self.blocks[0].shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of blocks and projections."""
        return sum(table.nbytes for table in (*self.blocks, *self.up))

    def rows(self, at: At) -> F32:
        """Return the (len(at), d) float32 rows. O(len(at) d) and the projections."""
        at = _listed(at, self.shape[0])
        found = np.empty((len(at), self.shape[1]), np.float32)
        start = 0
        for number, block in enumerate(self.blocks):
            own = (at >= start) & (at < start + block.shape[0])
            narrow = block.rows(at[own] - start)
            found[own] = _projected(narrow, self.up[number - 1].dense()) if number else narrow
            start += block.shape[0]
        return found

    def dense(self) -> F32:
        """Return all rows. O(N d) and the projections."""
        return self.rows(slice(None))

    def tables(self) -> dict[str, Table]:
        """Return the parts by name, of which ``shared_of`` makes the same again."""
        blocks = {f"block{number}": block for number, block in enumerate(self.blocks)}
        return blocks | {f"up{number}": up for number, up in enumerate(self.up, 1)}


@dataclass(frozen=True, eq=False)
class Placed:
    """A shared table whose rows stand in another order than they are asked for.

    Attributes:
        table: the rows in their order, by frequency.
        place: (N,) int32 where each row stands.
    """

    table: Quotient | Mixed
    place: NDArray[np.int32]

    def __post_init__(self) -> None:
        beyond = self.table.shape[0] - len(self.place)
        spare = self.table.remainder.shape[0] if isinstance(self.table, Quotient) else 1
        if not 0 <= beyond < spare:
            raise BundleError(
                f"a shared table has {self.table.shape[0]} rows, its features {len(self.place)}: "
                "copy the bundle again from where it was made"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(N, d)."""
        return len(self.place), self.table.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the table; the places are made of the sizes of fields."""
        return self.table.nbytes

    def rows(self, at: At) -> F32:
        """Return the (len(at), d) float32 rows. O(len(at) d)."""
        return self.table.rows(self.place[at])

    def dense(self) -> F32:
        """Return all rows. O(N d)."""
        return self.rows(slice(None))

    def tables(self) -> dict[str, Table]:
        """Return the parts by name, of which ``shared_of`` makes the table again."""
        return self.table.tables()


def shared_of(tables: Mapping[str, Table]) -> Quotient | Mixed:
    """Return the matrix that is made of ``tables``, named as ``.tables()`` names them.

    Raises:
        BundleError: they do not belong together.
    """
    if tables.keys() == {"quotient", "remainder"}:
        made = Quotient(tables["quotient"], tables["remainder"])
        if made.quotient.shape[1] == made.remainder.shape[1]:
            return made
    count = sum(name.startswith("block") for name in tables)
    blocks = [f"block{number}" for number in range(count)]
    ups = [f"up{number}" for number in range(1, count)]
    if count and tables.keys() == {*blocks, *ups}:
        mixed = Mixed(tuple(tables[n] for n in blocks), tuple(tables[n] for n in ups))
        widths = [(block.shape[1], mixed.shape[1]) for block in mixed.blocks[1:]]
        if [up.shape for up in mixed.up] == widths:
            return mixed
    said = ", ".join(f"{name} {table.shape}" for name, table in sorted(tables.items()))
    raise BundleError(
        f"tables {said} make no shared table: expected quotient and remainder of one width, or "
        "block0, block1, ... and up1, ... from the width of a block to that of the first"
    )


def _projected(narrow: F32, up: F32) -> F32:
    """Return the (n, d) product; a row has the same digits whatever stands beside it."""
    found: F32 = narrow[:, :1] * up[0]
    for number in range(1, len(up)):
        found += narrow[:, number : number + 1] * up[number]
    return found


def _listed(at: At, size: int) -> NDArray[np.int64]:
    return np.arange(size)[at] if isinstance(at, slice) else np.asarray(at, np.int64)
