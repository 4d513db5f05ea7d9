"""What every index can do, and the last step that the approximate ones share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, BundleError, SpecError
from martlet.scorers.storage import read_tensors
from martlet.scorers.table import Table, blocks, said

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
Bools = NDArray[np.bool_]

FILE = "index.safetensors"


class Index(Protocol):
    """Finds the items of largest inner product; scores are the item table's own."""

    @property
    def kind(self) -> str:
        """Name in ``KINDS``."""

    @property
    def nbytes(self) -> int:
        """Bytes that the index adds to the item table."""

    def pays(self, share: float) -> bool:
        """Return whether a search where only that share of the items is allowed should use it."""

    def search(
        self, vectors: F32, k: int, hidden: CSR | None = None, allow: Bools | None = None
    ) -> tuple[I32, F32]:
        """Return (B, k) rows and scores, in the total order; short lists end in -1 and -inf.

        Args:
            vectors: (B, d) float32.
            k: length of the lists.
            hidden: (B x n) CSR of rows to leave out, rising in each row.
            allow: (n,) bool of the rows that may appear; None allows all.
        """

    def config(self) -> dict[str, Any]:
        """Return what ``load`` needs beside the files, as plain JSON."""

    def save(self, folder: Path) -> None:
        """Write the index into ``folder``."""

    @staticmethod
    def load(folder: Path, config: Mapping[str, Any], items: Table) -> Index:
        """Return the index over ``items`` that ``save`` wrote."""


class Approximate(Index, Protocol):
    """An index that looks at some of the items, the more the deeper it searches."""

    @property
    def depth(self) -> int:
        """How deep it searches."""

    @property
    def deepest(self) -> int:
        """The largest depth of use."""

    def at(self, depth: int) -> Approximate:
        """Return the same index that searches another depth."""

    def settings(self) -> dict[str, int]:
        """Return what a lineage tells of it."""


def dense(items: Table, label: str) -> F32:
    """Return the (n, d) float32 vectors that an index is built on.

    Raises:
        SpecError: the table is empty, or holds a number that is not finite.
    """
    if not items.shape[0]:
        raise SpecError(f"{label} over no items: there is nothing to search")
    vectors = items.dense()
    check_finite(items.shape, lambda start, stop: vectors[start:stop])
    return vectors


def check_finite(shape: tuple[int, int], part: Any) -> None:
    """Check the rows that ``part(start, stop)`` gives.

    Raises:
        SpecError: one holds a number that is not finite.
    """
    if not all(np.isfinite(part(a, b)).all() for a, b in blocks(*shape)):
        raise SpecError(
            "the item table holds a number that is not finite: no error can be bounded; "
            "fit the model again with a stronger regularization or a smaller learning rate"
        )


def rescored(vectors: F32, items: Table, found: I32, k: int) -> tuple[I32, F32]:
    """Return the k best of (B, m) rows found, by the item table's scores, in the total order."""
    if items.storage == "fp32":
        from martlet.kernels.ivf import rescore

        return rescore(vectors, items.values, found, k)
    from martlet.kernels.int8 import best_rows

    query, place = np.nonzero(found >= 0)
    row = found[query, place]
    return best_rows(vectors, items.rows, query.astype(np.int32), row, k)


def deeper(depth: int, most: int, allow: Bools | None) -> int:
    """Return the depth that meets as many allowed items as ``depth`` does where all are allowed."""
    if allow is None:
        return depth
    return int(min(most, np.ceil(depth / max(share_of(allow), 1 / most))))


def share_of(allow: Bools) -> float:
    """Return which share of the items is allowed."""
    return float(np.count_nonzero(allow)) / max(1, len(allow))


def read_arrays(folder: Path, items: Table, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays of an index's file, memory-mapped.

    Args:
        folder: of the bundle.
        items: the item table.
        expected: name to (dtype, shape); a size of None may be any.

    Raises:
        BundleError: the file does not hold exactly those.
    """
    path = folder / FILE
    arrays: dict[str, Any] = dict(read_tensors(path))
    fits = arrays.keys() == expected.keys() and all(
        array.dtype.type is expected[name][0] and _fits(array.shape, expected[name][1])
        for name, array in arrays.items()
    )
    if not fits:
        found = {name: (array.dtype.type, array.shape) for name, array in arrays.items()}
        raise BundleError(
            f"{path} over {items.shape[0]} x {items.shape[1]} items has arrays {said(found)}: "
            f"expected {said(expected)}"
        )
    return arrays


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        want is None or size == want for size, want in zip(shape, expected, strict=True)
    )


def check_number(folder: Path, config: Mapping[str, Any], name: str, least: int, most: int) -> int:
    """Return a whole number of an index's configuration.

    Raises:
        BundleError: it is none, or out of range.
    """
    value = config[name]
    if type(value) is not int or not least <= value <= most:
        raise BundleError(f"{folder}: {name} is {value!r}, expected {least} to {most}")
    return value
