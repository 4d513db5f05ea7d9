"""The storages of a table by name: what differs between them stands behind one protocol."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Array, SpecError

if TYPE_CHECKING:
    from martlet.scorers.table import Table

F32 = NDArray[np.float32]
At = NDArray[np.integer] | slice
Expected = dict[str, tuple[Any, tuple[int, ...]]]

# A storage's full name is its family and, after a colon, what else its own class reads.
_HOMES = {
    "fp32": "martlet.scorers.dense:Dense",
    "fp16": "martlet.scorers.dense:Dense",
    "bf16": "martlet.scorers.dense:Dense",
    "int8": "martlet.scorers.scaled:Scaled",
    "int8-affine": "martlet.scorers.scaled:Scaled",
    "int8-column": "martlet.scorers.scaled:Scaled",
    "int8-column-affine": "martlet.scorers.scaled:Scaled",
    "int8-table": "martlet.scorers.scaled:Scaled",
    "int8-table-affine": "martlet.scorers.scaled:Scaled",
    "int4": "martlet.scorers.packed:PackedCodes",
    "int4-affine": "martlet.scorers.packed:PackedCodes",
    "int2": "martlet.scorers.packed:PackedCodes",
    "int2-affine": "martlet.scorers.packed:PackedCodes",
    "pq": "martlet.scorers.pq:ProductQuantized",
    "csr": "martlet.scorers.sparse:Sparse",
    "csr-fp16": "martlet.scorers.sparse:Sparse",
    "csr-int8": "martlet.scorers.sparse:Sparse",
    "shared": "martlet.scorers.shared_rows:SharedRows",
}


class Storage(Protocol):
    """How the values of a table are kept, read and searched; holds no values itself."""

    @property
    def bits(self) -> float:
        """Bits that one value takes, scales left out."""

    def expected(self, table: Table) -> Expected:
        """Return the dtype and shape of each array that the table must have."""

    def check(self, name: str, table: Table) -> None:
        """Check what the arrays hold, where the shapes do not say enough.

        Raises:
            BundleError: a number that would be read as a place is out of range.
        """

    def rows(self, table: Table, at: At) -> F32:
        """Return the (len(at), d) float32 rows."""

    def encode(self, table: Table, moment: NDArray[np.float64] | None = None) -> dict[str, Array]:
        """Return the arrays that hold a table's rows, whatever storage that has.

        Args:
            table: what to store.
            moment: (d, d) mean of q q^T over the vectors q that the rows will be multiplied by:
                ranges are chosen for the least error of those products. None: of all values.

        Raises:
            SpecError: the values do not fit.
        """

    def prepared(self, table: Table) -> Any:
        """Return what ``topk`` needs beside the arrays; made once a table and kept."""

    def topk(
        self,
        table: Table,
        vectors: F32,
        k: int,
        hidden: CSR | None,
        allow: NDArray[np.bool_] | None,
        threads: int,
    ) -> tuple[NDArray[np.int32], F32]:
        """Return the (B, k) best rows and scores of an exact search, in the total order."""


@lru_cache(maxsize=256)
def storage_of(name: str) -> Storage:
    """Return the storage called ``name``; its module is imported when it is asked for.

    Raises:
        SpecError: no such storage, or an option that it does not have.
    """
    family, _, option = name.partition(":")
    if family not in _HOMES:
        raise SpecError(f"storage {name!r} is unknown: expected {', '.join(_HOMES)}")
    module, attribute = _HOMES[family].split(":")
    found: Storage = getattr(import_module(module), attribute).of(family, option)
    return found


def families() -> tuple[str, ...]:
    """Return the names of every storage, options left out."""
    return tuple(_HOMES)
