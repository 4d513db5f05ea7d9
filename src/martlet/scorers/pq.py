"""Values as product codes: each run of a row's columns is the number of a codebook's entry."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Array, BundleError, SpecError, num_threads, rng
from martlet.scorers.table import Table, blocks

if TYPE_CHECKING:
    from martlet.kernels.product_codes import ProductCodes
    from martlet.scorers.storages import At, Expected

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_NAME = re.compile(r"(\d+)x(\d+)")
_ROWS = 64  # of a block of codes
_POINTS = 128  # rows an entry that codebooks are learnt from, at most
_LEAST_POINTS = 16_384  # in all, where there are as many
_PLAIN = 1.0  # how much every direction counts beside those that queries have
_DEEP = 12  # rows scored again by the finer codes, a row asked for
_NARROW = 1e-9  # of the widest spread: a narrower direction counts as this wide


@dataclass(frozen=True)
class Quantizer:
    """M codes a row, of so many bits.

    Attributes:
        parts: M, codes a row.
        bits: 4 or 8.
    """

    parts: int
    bits: int

    @property
    def entries(self) -> int:
        """Entries of a codebook."""
        return 1 << self.bits

    @property
    def width(self) -> int:
        """Bytes of a row's codes."""
        return -(-self.parts * self.bits // 8)

    def books(self, d: int) -> tuple[int, int, int]:
        """Return the shape of the codebooks of d columns."""
        return self.parts, self.entries, -(-d // self.parts)


@dataclass(frozen=True)
class ProductQuantized:
    """Codes of a product quantizer, and perhaps of a finer one for what it leaves over.

    A row is ``unit y B``: ``y`` are the entries that its codes name side by side, and those of the
    finer codes added to them. The basis ``B`` gives each run of columns as much to tell as any
    other; and where it is known what vectors the rows will be multiplied by, equal errors of ``y``
    are equal errors of those products.

    Arrays: "values" (blocks of 64 rows, bytes of a row, 64) uint8, "codebooks" (M, entries, widest
    run) float16, "basis" (d, d) float16, "unit" (1,) float32; and "fine" (n, bytes of a row) uint8
    with "fine_codebooks". Two codes of 4 bits share a byte.

    **Source**: Jégou et al., "Product quantization for nearest neighbor search" (2011); the basis
    is that of Ge et al., "Optimized product quantization" (2013), section 3.3; codebooks over the
    items of a recommender as in Petrov and Macdonald, "RecJPQ" (2024).
    **Differs**: rows are turned for the least error of their products with queries, not of values.

    Attributes:
        coarse: the quantizer that is scanned.
        fine: the finer one, by which the best of the scan are scored again; or None.
    """

    coarse: Quantizer
    fine: Quantizer | None = None

    @staticmethod
    def of(family: str, option: str) -> ProductQuantized:
        """Return the storage of that name, such as pq:16x8 or pq:16x4+16x8.

        Raises:
            SpecError: not M x B, or other than 4 or 8 bits.
        """
        found = [_NAME.fullmatch(part) for part in option.split("+")]
        sizes = [(int(part[1]), int(part[2])) if part else (0, 0) for part in found]
        if len(sizes) > 2 or any(parts < 1 or bits not in (4, 8) for parts, bits in sizes):
            raise SpecError(
                f"storage {family}:{option} is unknown: expected such as pq:16x8 (16 codes a row "
                "of 8 bits; or of 4) or pq:32x4+32x8 (and finer codes for the best)"
            )
        return ProductQuantized(*(Quantizer(*size) for size in sizes))

    @property
    def bits(self) -> float:
        """Bits of a value: as few as any other storage takes, or fewer; it depends on the width."""
        return 1.0

    @property
    def _quantizers(self) -> list[Quantizer]:
        return [self.coarse] if self.fine is None else [self.coarse, self.fine]

    def pays(self, table: Table) -> bool:
        """Return whether codebooks can be learnt from a table, and it takes fewer bytes so."""
        return self._fault(table) is None and self._nbytes(table.shape) < table.nbytes

    def expected(self, table: Table) -> Expected:
        """Return the arrays of codes and codebooks."""
        return self._expected(table.shape)

    def _expected(self, shape: tuple[int, int]) -> Expected:
        n, d = shape
        arrays: Expected = {
            "values": (np.uint8, (-(-n // _ROWS), self.coarse.width, _ROWS)),
            "codebooks": (np.float16, self.coarse.books(d)),
            "basis": (np.float16, (d, d)),
            "unit": (np.float32, (1,)),
        }
        if self.fine is not None:
            arrays["fine"] = (np.uint8, (n, self.fine.width))
            arrays["fine_codebooks"] = (np.float16, self.fine.books(d))
        return arrays

    def _nbytes(self, shape: tuple[int, int]) -> int:
        sizes = self._expected(shape).values()
        return sum(np.dtype(kind).itemsize * int(np.prod(size)) for kind, size in sizes)

    def check(self, name: str, table: Table) -> None:
        """Check that codebooks are finite; every code names an entry.

        Raises:
            BundleError: a number that is not.
        """
        for array in ("codebooks", "basis", "unit", "fine_codebooks"):
            if array in table.arrays and not np.isfinite(table.arrays[array]).all():
                raise BundleError(f"table {name} has {array} with a number that is not finite")

    def rows(self, table: Table, at: At) -> F32:
        """Return the (len(at), d) float32 rows. O(len(at) d^2)."""
        where = np.arange(table.shape[0])[at] if isinstance(at, slice) else np.asarray(at)
        return table.prepared.rows(where % max(1, table.shape[0]))  # type: ignore[no-any-return]

    def encode(self, table: Table, moment: F64 | None = None) -> dict[str, Array]:
        """Return codes, and codebooks that are learnt from some of the rows.

        O(n d (d + entries)), and O(d entries) for each of the rows that are learnt from, a round.

        Raises:
            SpecError: fewer rows than entries, fewer columns than codes, or a number that is not
                finite.
        """
        from martlet.kernels.codebooks import entries_of
        from martlet.kernels.product_codes import pack, paired

        fault = self._fault(table)
        if fault is not None:
            raise SpecError(fault)
        n, d = table.shape
        points = table.rows(self._sample(n)).astype(np.float64)
        for start, stop in blocks(n, d):
            if not np.isfinite(table.rows(slice(start, stop))).all():
                raise SpecError("the table holds a number that is not finite: nothing is near it")
        basis = _basis(points, self.coarse.parts, moment).astype(np.float16)
        turn = np.linalg.inv(basis.astype(np.float64))
        unit = np.float32(np.sqrt(np.square(points @ turn).mean()) or 1)
        arrays: dict[str, Array] = {"basis": basis, "unit": np.array([unit], np.float32)}
        left = (points @ turn / unit).astype(np.float32)
        books = []
        for quantizer in self._quantizers:
            books.append(_learn(quantizer, left))
            left = left - entries_of(_nearest(left, books[-1]), books[-1], d)
        codes = [np.empty((n, quantizer.parts), np.uint8) for quantizer in self._quantizers]
        for start, stop in blocks(n, d):
            wide = table.rows(slice(start, stop)).astype(np.float64)
            left = (wide @ turn / unit).astype(np.float32)
            for some, book in zip(codes, books, strict=True):
                some[start:stop] = _nearest(left, book)
                left = left - entries_of(some[start:stop], book, d)
        arrays["values"] = pack(codes[0], self.coarse.bits)
        arrays["codebooks"] = books[0].astype(np.float16)
        if self.fine is not None:
            arrays["fine"] = paired(codes[1], self.fine.bits)
            arrays["fine_codebooks"] = books[1].astype(np.float16)
        return arrays

    def prepared(self, table: Table) -> ProductCodes:
        """Return the codes as the kernel of ``kernels/pq.py`` takes them."""
        from martlet.kernels.product_codes import ProductCodes

        arrays: Any = table.arrays
        wide = {
            name: np.asarray(arrays[name]).astype(np.float32)
            for name in ("codebooks", "fine_codebooks", "basis")
            if name in arrays
        }
        return ProductCodes(
            np.asarray(arrays["values"]), table.shape[0], wide["codebooks"],
            wide["basis"] * arrays["unit"], arrays.get("fine"), wide.get("fine_codebooks"),
        )  # fmt: skip

    def topk(
        self,
        table: Table,
        vectors: F32,
        k: int,
        hidden: CSR | None,
        allow: NDArray[np.bool_] | None,
        threads: int,
    ) -> tuple[NDArray[np.int32], F32]:
        """Return the (B, k) best rows and scores. O(B n M) look-ups, the codes read once.

        Exact over the decoded rows; with finer codes, over the ``_DEEP`` k that are best by the
        others.
        """
        from martlet.kernels.pq import topk_pq

        return topk_pq(
            vectors, table.prepared, k, hidden, allow, threads, deep=_DEEP * k
        )[:2]  # fmt: skip

    def _sample(self, n: int) -> NDArray[np.int64]:
        entries = max(quantizer.entries for quantizer in self._quantizers)
        size = min(n, max(_LEAST_POINTS, _POINTS * entries))
        return np.sort(rng(0, "pq", "points").choice(n, size, replace=False))

    def _fault(self, table: Table) -> str | None:
        """Return why codebooks cannot be learnt from a table; None where they can."""
        n, d = table.shape
        for quantizer in self._quantizers:
            if n < quantizer.entries:
                return (
                    f"{n} rows are too few to learn codebooks of {quantizer.entries} entries: "
                    "take codes of fewer bits, or int8"
                )
            if d < quantizer.parts:
                return f"{d} columns cannot be cut into {quantizer.parts} runs: take fewer codes"
        return None


def _learn(quantizer: Quantizer, points: F32) -> F32:
    """Return codebooks as they will be read again: rounded to float16."""
    from martlet.kernels.codebooks import learn_codebooks

    books = learn_codebooks(points, quantizer.parts, quantizer.entries, 0, num_threads())
    return books.astype(np.float16).astype(np.float32)


def _nearest(points: F32, books: F32) -> NDArray[np.uint8]:
    from martlet.kernels.codebooks import assign

    return assign(points, books, num_threads())


def _basis(points: F64, parts: int, moment: F64 | None) -> F64:
    """Return the (d, d) basis that rows are decoded by.

    ``moment`` (d, d) is the mean of q q^T over the vectors that rows are multiplied by: an error e
    of a row is an error of q . e, of e^T moment e in the mean square. A plain part is added: a row
    that is good for queries seen is to be good for others.
    """
    from martlet.kernels.codebooks import runs

    d = points.shape[1]
    weight = np.eye(d) * _PLAIN
    if moment is not None and np.trace(moment) > 0:
        weight = weight + moment / np.trace(moment) * d
    size, directions = np.linalg.eigh(weight)
    root = (directions * np.sqrt(size)) @ directions.T
    spread, axes = np.linalg.eigh(np.cov(points @ root, rowvar=False).reshape(d, d))
    order = np.argsort(-spread, kind="stable")
    spread = np.maximum(spread[order], spread.max() * _NARROW + np.finfo(np.float64).tiny)
    # The widest direction that is left goes to the run whose product of spreads is the least.
    cuts = runs(d, parts)
    mine: list[list[int]] = [[] for _ in range(parts)]
    told = np.zeros(parts)
    for direction, gain in zip(order, np.log(spread / spread[-1]), strict=True):
        room = [part for part in range(parts) if len(mine[part]) < cuts[part + 1] - cuts[part]]
        part = min(room, key=lambda part: (told[part], part))
        mine[part].append(int(direction))
        told[part] += gain
    turn = root @ axes[:, [direction for part in mine for direction in part]]
    return np.linalg.inv(turn)
