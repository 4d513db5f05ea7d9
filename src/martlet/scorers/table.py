"""Values with their storage: what a scorer's parameters are, in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Array, BundleError, SpecError

Precision = Literal["fp32", "fp16", "int8"]
F32 = NDArray[np.float32]

STORAGES = ("fp32", "fp16", "int8", "csr", "csr-fp16", "csr-int8")
_VALUE_DTYPE: dict[str, Any] = {"fp32": np.float32, "fp16": np.float16, "int8": np.int8}


@dataclass(frozen=True, eq=False)
class Table:
    """An (n, d) matrix of float32 meaning, in the storage that it was given.

    Attributes:
        storage: "fp32", "fp16", "int8" (symmetric, a scale a row), or a sparse "csr", "csr-fp16",
            "csr-int8".
        shape: (n, d).
        arrays: dense: "values" (n, d); sparse: "indptr" (n + 1,) int64, "indices" (nnz,) int32,
            "values" (nnz,). With int8 also "scale" (n,) float32: a value is code times scale.
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
    def sparse(self) -> bool:
        """Whether only some entries are stored."""
        return self.storage.startswith("csr")

    @property
    def precision(self) -> Precision:
        """How one value is stored."""
        name = self.storage.removeprefix("csr-")
        return "fp32" if name == "csr" else name  # type: ignore[return-value]

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
        """(n,) float32 with int8, else None."""
        return self.arrays.get("scale")  # type: ignore[return-value]

    def rows(self, at: NDArray[np.integer] | slice) -> F32:
        """Return the (len(at), d) float32 rows; O(len(at) d). Rows must lie in 0 .. n - 1."""
        if self.sparse:
            where = np.arange(self.shape[0])[at] if isinstance(at, slice) else at
            return _to_dense(self.csr().take(where))
        values = self.values[at].astype(np.float32, copy=False)
        return values if self.scale is None else values * self.scale[at][:, None]  # type: ignore[no-any-return]

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
    def codes(self) -> Any:
        """The int8 table as the kernel of ``kernels/int8.py`` takes it. Kept."""
        from martlet.kernels.codes import Codes

        return Codes(self.values, self.scale)  # type: ignore[arg-type]

    def to(self, precision: Precision) -> Table:
        """Return the same matrix, dense or sparse as it was, with values of another precision.

        Raises:
            SpecError: an unknown precision, or a value that float16 cannot hold.
        """
        if precision not in _VALUE_DTYPE:
            raise SpecError(f"precision {precision!r} is unknown: expected fp32, fp16 or int8")
        if precision == self.precision:
            return self
        shape = (self.csr().nnz, 1) if self.sparse else self.shape
        values = np.empty(shape, _VALUE_DTYPE[precision])
        scale = self._scale() if precision == "int8" else None
        if self.sparse:
            stored = self.csr().weights()
            per_entry = None if scale is None else np.repeat(scale, self.csr().lengths)
            _encode(stored[:, None], per_entry, values)
            values = values[:, 0]
        else:
            for start, stop in blocks(*self.shape):
                part = None if scale is None else scale[start:stop]
                _encode(self.rows(slice(start, stop)), part, values[start:stop])
        arrays: dict[str, Array] = {k: a for k, a in self.arrays.items() if k.startswith("ind")}
        arrays["values"] = values
        if scale is not None:
            arrays["scale"] = scale
        storage = {"fp32": "csr"}.get(precision, f"csr-{precision}") if self.sparse else precision
        return Table(storage, self.shape, arrays)

    def _scale(self) -> F32:
        """(n,) float32: the largest magnitude of each row over 127."""
        top = np.zeros(self.shape[0], np.float32)
        if self.sparse:
            csr = self.csr()
            filled = np.flatnonzero(csr.lengths)
            if len(filled):
                top[filled] = np.maximum.reduceat(np.abs(csr.weights()), csr.indptr[filled])
        else:
            for start, stop in blocks(*self.shape):
                top[start:stop] = np.abs(self.rows(slice(start, stop))).max(1, initial=0.0)
        return top / np.float32(127)

    def check(self, name: str, *, entries: bool = True) -> None:
        """Check that the arrays agree with the storage and the shape; ``entries``: each index too.

        Raises:
            BundleError: they do not; ``name`` says whose table it is.
        """
        if self.storage not in STORAGES:
            raise BundleError(
                f"table {name} has storage {self.storage!r}: expected {', '.join(STORAGES)}"
            )
        n, d = self.shape
        expected: dict[str, tuple[Any, tuple[int, ...]]] = {}
        if self.sparse:
            nnz = (self.arrays["indices"].size if "indices" in self.arrays else 0,)
            expected["indptr"], expected["indices"] = (np.int64, (n + 1,)), (np.int32, nnz)
        expected["values"] = (_VALUE_DTYPE[self.precision], nnz if self.sparse else (n, d))
        if self.precision == "int8":
            expected["scale"] = (np.float32, (n,))
        found = {key: (array.dtype.type, array.shape) for key, array in self.arrays.items()}
        if found != expected:
            raise BundleError(
                f"table {name} stored as {self.storage} {n} x {d} has arrays {said(found)}: "
                f"expected {said(expected)}"
            )
        if self.sparse and entries:
            check_csr(f"table {name}", self.arrays["indptr"], self.arrays["indices"], d)


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


def _encode(values: F32, scale: F32 | None, out: Array) -> None:
    """Write (m, d) ``values`` into ``out``, rounded to nearest."""
    if scale is not None:
        step = np.where(scale > 0, scale, np.float32(1))
        np.rint(np.clip(values / step[:, None], -127, 127), out=out, casting="unsafe")
        return
    limit = np.finfo(out.dtype).max  # type: ignore[type-var]
    if values.size and not np.abs(values).max() <= limit:
        raise SpecError(
            f"the table holds a value of {np.abs(values).max():g}, beyond {limit:g}, the largest "
            f"of {out.dtype}: store it as int8 or fp32"
        )
    out[...] = values


def _to_dense(csr: CSR) -> F32:
    dense = np.zeros((csr.num_rows, csr.num_cols), np.float32)
    np.add.at(dense, (csr.row_numbers(), csr.indices), csr.weights())
    return dense


def said(arrays: Mapping[str, tuple[Any, tuple[int, ...]]]) -> str:
    """Say in words which arrays there are, each by its dtype and shape."""
    return ", ".join(f"{key} {np.dtype(t).name}{shape}" for key, (t, shape) in arrays.items())
