"""Values with their storage: what a scorer's parameters are, in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Array, BundleError, SpecError
from martlet.scorers.storages import At, Storage, storage_of

F32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Table:
    """An (n, d) matrix of float32 meaning, in the storage that it was given.

    Attributes:
        storage: its name, such as "fp32", "int8" or, sparse, "csr-fp16"; see ``storages``.
        shape: (n, d).
        arrays: what the storage keeps, "values" among them.
    """

    storage: str
    shape: tuple[int, int]
    arrays: Mapping[str, Array]

    @staticmethod
    def of(values: NDArray[np.floating]) -> Table:
        """Store an (n, d) matrix as float32; a (n,) vector becomes (n, 1)."""
        dense = np.ascontiguousarray(values, np.float32)
        dense = dense[:, None] if dense.ndim == 1 else dense
        return Table("fp32", (dense.shape[0], dense.shape[1]), {"values": dense})

    @staticmethod
    def of_csr(csr: CSR) -> Table:
        """Store a sparse matrix; shares its arrays."""
        arrays: dict[str, Array] = {"indptr": csr.indptr, "indices": csr.indices}
        arrays["values"] = csr.weights()
        return Table("csr", (csr.num_rows, csr.num_cols), arrays)

    @property
    def kind(self) -> Storage:
        """What knows how the values are kept."""
        return storage_of(self.storage)

    @property
    def sparse(self) -> bool:
        """Whether only some entries are stored."""
        return self.storage.startswith("csr")

    @property
    def precision(self) -> str:
        """How one value is stored, whether all are or only some: "fp32", "fp16", "int8" ..."""
        name = self.storage.removeprefix("csr-").removeprefix("shared:")
        return "fp32" if name == "csr" else name

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def values(self) -> Any:
        """The stored codes, in their own dtype."""
        return self.arrays["values"]

    @property
    def scale(self) -> F32 | None:
        """What codes are multiplied by, where there are codes; else None."""
        return self.arrays.get("scale")  # type: ignore[return-value]

    def rows(self, at: At) -> F32:
        """Return the (len(at), d) float32 rows; O(len(at) d). Rows must lie in 0 .. n - 1."""
        return self.kind.rows(self, at)

    def dense(self) -> F32:
        """Return all as (n, d) float32: the stored array itself for fp32, else a copy. O(n d)."""
        return self.rows(slice(None))

    def csr(self) -> CSR:
        """Return the sparse matrix with float32 values; zeros of a dense one are left out."""
        if not self.sparse:
            dense = self.dense()
            rows, cols = np.nonzero(dense)
            return CSR.from_pairs(rows, cols, dense[rows, cols], self.shape)
        return self._csr

    @cached_property
    def _csr(self) -> CSR:
        indptr: Any = self.arrays["indptr"]
        indices: Any = self.arrays["indices"]
        values = self.values.astype(np.float32, copy=False)
        if self.scale is not None:
            values = values * np.repeat(self.scale, np.diff(indptr))
        return CSR(indptr, indices, values, self.shape[1])

    @cached_property
    def transposed(self) -> Any:
        """(d, n) codes in their own dtype, C-contiguous: what an exact search scans. Kept."""
        return np.ascontiguousarray(self.values.T)

    @cached_property
    def prepared(self) -> Any:
        """What an exact search needs beside the arrays; kept."""
        return self.kind.prepared(self)

    def to(self, precision: str, moment: NDArray[np.float64] | None = None) -> Table:
        """Return the same matrix, dense, sparse or with shared rows, in another precision.

        Args:
            precision: a storage's name, without the "csr-" of sparse ones. "shared:" before it
                stores equal rows once.
            moment: (d, d), for what vectors the rows are stored: see ``Storage.encode``.

        Raises:
            SpecError: an unknown precision, or a value that it cannot hold.
        """
        if precision == self.precision:
            return self
        name = precision
        if self.sparse:
            name = "csr" if precision == "fp32" else f"csr-{precision}"
        elif self.storage.startswith("shared:"):
            name = f"shared:{precision.removeprefix('shared:')}"
        return Table(name, self.shape, storage_of(name).encode(self, moment))

    def check(self, name: str, *, entries: bool = True) -> None:
        """Check that the arrays agree with the storage and the shape; ``entries``: each index too.

        Raises:
            BundleError: they do not; ``name`` says whose table it is.
        """
        try:
            kind = self.kind
        except SpecError as error:
            raise BundleError(f"table {name} has {error}") from error
        expected = kind.expected(self)
        found = {key: (array.dtype.type, array.shape) for key, array in self.arrays.items()}
        if found != expected:
            n, d = self.shape
            raise BundleError(
                f"table {name} stored as {self.storage} {n} x {d} has arrays {said(found)}: "
                f"expected {said(expected)}"
            )
        if entries:
            kind.check(name, self)


def blocks(n: int, d: int, values: int = 1 << 22) -> list[tuple[int, int]]:
    """Return the (start, stop) row ranges of an (n, d) table, about so many ``values`` each."""
    step = max(1, values // max(1, d))
    return [(start, min(n, start + step)) for start in range(0, n, step)]


def tables_under(tables: Mapping[str, Table], prefix: str) -> dict[str, Table]:
    """Return the tables whose names start with ``prefix.``, by the rest of their names."""
    start = f"{prefix}."
    return {name.removeprefix(start): tables[name] for name in tables if name.startswith(start)}


def check_csr(name: str, indptr: Any, indices: Any, num_cols: int) -> None:
    """Check that offsets rise from 0 to the number of entries and that columns are in range.

    Raises:
        BundleError: they do not.
    """
    if indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
        raise BundleError(f"{name} has offsets that do not rise from 0 to {len(indices)}")
    if len(indices) and not 0 <= indices.min() <= indices.max() < num_cols:
        raise BundleError(
            f"{name} has columns {indices.min()} to {indices.max()}: expected 0 to {num_cols - 1}"
        )


def said(arrays: Mapping[str, tuple[Any, tuple[int, ...]]]) -> str:
    """Say in words which arrays there are, each by its dtype and shape."""
    return ", ".join(f"{key} {np.dtype(t).name}{shape}" for key, (t, shape) in arrays.items())
