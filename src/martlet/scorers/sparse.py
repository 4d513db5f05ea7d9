"""Only the entries that are not zero, in fp32, fp16 or int8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Array
from martlet.scorers.dense import narrow, topk_blocks, without_option
from martlet.scorers.scaled import to_codes
from martlet.scorers.table import check_csr

if TYPE_CHECKING:
    from martlet.scorers.storages import At, Expected
    from martlet.scorers.table import Table

F32 = NDArray[np.float32]
_DTYPE: dict[str, Any] = {"csr": np.float32, "csr-fp16": np.float16, "csr-int8": np.int8}


@dataclass(frozen=True)
class Sparse:
    """Rows of entries: "indptr" (n + 1,) int64, "indices" (nnz,) int32, "values" (nnz,).

    With int8 also "scale" (n,) float32: a value is its code times the scale of its row.

    Attributes:
        family: "csr", "csr-fp16" or "csr-int8".
    """

    family: str

    @staticmethod
    def of(family: str, option: str) -> Sparse:
        """Return the storage of that name.

        Raises:
            SpecError: it has no option.
        """
        return Sparse(without_option(family, option))

    @property
    def bits(self) -> float:
        """Bits of a value, its place left out."""
        return float(8 * np.dtype(_DTYPE[self.family]).itemsize)

    def expected(self, table: Table) -> Expected:
        """Return the arrays; as many values as there are indices."""
        indices, n = table.arrays.get("indices"), table.shape[0]
        nnz = (0 if indices is None else indices.size,)
        expected: Expected = {"indptr": (np.int64, (n + 1,)), "indices": (np.int32, nnz)}
        expected["values"] = (_DTYPE[self.family], nnz)
        return expected | ({"scale": (np.float32, (n,))} if self.family == "csr-int8" else {})

    def check(self, name: str, table: Table) -> None:
        """Check offsets and columns.

        Raises:
            BundleError: offsets that do not rise, or a column out of range.
        """
        arrays = table.arrays
        check_csr(f"table {name}", arrays["indptr"], arrays["indices"], table.shape[1])

    def rows(self, table: Table, at: At) -> F32:
        """Return the (len(at), d) float32 rows."""
        where = np.arange(table.shape[0])[at] if isinstance(at, slice) else at
        some = table.csr().take(where)
        dense = np.zeros((some.num_rows, some.num_cols), np.float32)
        np.add.at(dense, (some.row_numbers(), some.indices), some.weights())
        return dense

    def encode(self, table: Table, moment: Any = None) -> dict[str, Array]:
        """Return the entries; those of int8 in steps of their row's largest magnitude over 127.

        Raises:
            SpecError: a value that float16 cannot hold.
        """
        csr = table.csr()
        weights, values = csr.weights(), np.empty(csr.nnz, _DTYPE[self.family])
        arrays: dict[str, Array] = {"indptr": csr.indptr, "indices": csr.indices, "values": values}
        if self.family != "csr-int8":
            narrow(weights, values)
            return arrays
        scale, filled = np.zeros(csr.num_rows, np.float32), np.flatnonzero(csr.lengths)
        if len(filled):
            scale[filled] = np.maximum.reduceat(np.abs(weights), csr.indptr[filled])
            scale /= np.float32(127)
        to_codes(weights, np.repeat(scale, csr.lengths), values)
        return arrays | {"scale": scale}

    def prepared(self, table: Table) -> Any:
        """Return nothing: the rows are made dense block by block."""

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
            return np.ascontiguousarray(table.rows(slice(start, stop)).T)

        return topk_blocks(wide, table.shape, vectors, k, hidden, allow, threads)
