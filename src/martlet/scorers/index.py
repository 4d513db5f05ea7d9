"""Indexes: what is searched in place of the item table, exactly or nearly so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from martlet.core import BundleError, SpecError, num_threads
from martlet.kernels.codes import Codes, half_bytes
from martlet.scorers.storage import read_tensors, write_tensors
from martlet.scorers.table import Table, blocks, said

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

_CODES = "index.safetensors"
_FAISS = "index.faiss"
_POINTS = 39  # vectors a list, below which its centre is a matter of chance
_SAMPLE = 64  # vectors a list that its centre is learnt from, at most
_GRAIN = 8  # queries that are worth a thread


class Index(Protocol):
    """Finds the items of largest inner product; scores are the item table's own."""

    @property
    def kind(self) -> str:
        """Name in ``KINDS``."""

    @property
    def nbytes(self) -> int:
        """Bytes that the index adds to the item table."""

    def search(self, vectors: F32, k: int) -> tuple[I32, F32]:
        """Return (B, k) rows and scores, in the total order; short lists end in -1 and -inf."""

    def config(self) -> dict[str, Any]:
        """Return what ``load`` needs beside the files, as plain JSON."""

    def save(self, folder: Path) -> None:
        """Write the index into ``folder``."""

    @staticmethod
    def load(folder: Path, config: Mapping[str, Any], items: Table) -> Index:
        """Return the index over ``items`` that ``save`` wrote."""


@dataclass(frozen=True, eq=False)
class ExactInt8:
    """Scans int8 codes and scores again, from the item table, whatever may be in the answer.

    The answer is that of a search of the table itself, digit for digit.

    Attributes:
        items: (n, d) fp32 or fp16 item vectors.
        codes: the same in int8, in halves, with the errors that bound the search.
    """

    items: Table
    codes: Codes
    kind: ClassVar[str] = "exact-int8"

    @staticmethod
    def build(items: Table) -> ExactInt8:
        """Quantize the items. O(n d).

        Raises:
            SpecError: the table is int8 itself or holds a number that is not finite.
        """
        if items.storage not in ("fp32", "fp16"):
            raise SpecError(
                f"index:exact-int8 over an item table stored as {items.storage}: expected fp32 or "
                "fp16; an int8 table is scanned as it is and needs no such index"
            )
        if not all(np.isfinite(items.values[a:b]).all() for a, b in blocks(*items.shape)):
            raise SpecError(
                "the item table holds a number that is not finite: no error can be bounded; "
                "fit the model again with a stronger regularization or a smaller learning rate"
            )
        table = items.to("int8")
        codes = Codes.beside(table.values, table.arrays["scale"], items.values)  # type: ignore[arg-type]
        return ExactInt8(items, codes.halved())

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return self.codes.nbytes

    def search(self, vectors: F32, k: int) -> tuple[I32, F32]:
        """Return the (B, k) rows and scores of an exact search. O(B n d), n (d / 2 + 4) bytes read.

        A batch of queries reads n (d + 4).
        """
        from martlet.kernels.int8 import topk_int8

        return topk_int8(vectors, self.codes, k, threads=num_threads())[:2]

    def config(self) -> dict[str, Any]:
        """Return what bounds the error of a row."""
        return {"residual": self.codes.residual, "low_norm": self.codes.low_norm}

    def save(self, folder: Path) -> None:
        """Write codes and scales."""
        codes = {"high": self.codes.values, "low": self.codes.low, "scale": self.codes.scale}
        write_tensors(folder / _CODES, codes)  # type: ignore[arg-type]

    @staticmethod
    def load(folder: Path, config: Mapping[str, Any], items: Table) -> ExactInt8:
        """Return the index that ``save`` wrote; its codes are memory-mapped.

        Raises:
            BundleError: the file does not hold codes of the item table, or an error is no number.
        """
        arrays: dict[str, Any] = dict(read_tensors(folder / _CODES))
        n, d = items.shape
        halves = (np.uint8, (n, half_bytes(d)))
        expected: dict[str, Any] = {"high": halves, "low": halves, "scale": (np.float32, (n,))}
        found = {name: (array.dtype.type, array.shape) for name, array in arrays.items()}
        if found != expected:
            raise BundleError(
                f"{folder / _CODES} over {n} x {d} items has arrays {said(found)}: "
                f"expected {said(expected)}"
            )
        for name in ("residual", "low_norm"):
            if not (isinstance(config[name], float) and 0 <= config[name] < np.inf):
                raise BundleError(
                    f"{folder}: the index's {name} is {config[name]!r}, expected a number"
                )
        return ExactInt8(
            items,
            Codes(
                arrays["high"], arrays["scale"], items.values, config["residual"],
                arrays["low"], config["low_norm"],
            ),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class FaissIVF:
    """Clusters the items and searches the clusters nearest to the query.

    The lists hold the vectors in 8 bits a value. Twice as many as are asked for are taken from
    them, scored again from the item table, and ordered as an exact search orders them.

    **Source**: Johnson et al., "Billion-scale similarity search with GPUs" (2017), as in faiss.

    Attributes:
        items: (n, d) item vectors.
        lists: the faiss index.
        nprobe: clusters that are searched for a query.
    """

    items: Table
    lists: Any
    nprobe: int
    kind: ClassVar[str] = "ivf"

    @staticmethod
    def build(items: Table, nlist: int | None = None, nprobe: int = 1, seed: int = 0) -> FaissIVF:
        """Cluster the items by k-means. O(n nlist d) an iteration, of which there are ten.

        Args:
            items: (n, d) item vectors.
            nlist: clusters; None takes sqrt(n), less where a cluster would be too small to learn.
            nprobe: clusters to search.
            seed: of the clustering; the same seed gives the same index.

        Raises:
            SpecError: more clusters than items, fewer than one, or ``nprobe`` beyond ``nlist``.
        """
        import faiss

        n, d = items.shape
        if nlist is None:
            nlist = max(1, min(round(n**0.5), n // _POINTS))
        if not 1 <= nlist <= n:
            raise SpecError(f"nlist is {nlist}: expected 1 to {n}, the number of items")
        if not 1 <= nprobe <= nlist:
            raise SpecError(f"nprobe is {nprobe}: expected 1 to {nlist}, the number of lists")
        faiss.omp_set_num_threads(num_threads())
        lists = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(d), d, nlist, faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
        )  # fmt: skip
        lists.cp.seed, lists.cp.min_points_per_centroid = seed % (1 << 31), 1
        lists.cp.max_points_per_centroid = _SAMPLE
        vectors = items.dense()
        lists.train(vectors)
        lists.add(vectors)
        return FaissIVF(items, lists, nprobe)

    def with_nprobe(self, nprobe: int) -> FaissIVF:
        """Return the same index that searches another number of clusters."""
        return replace(self, nprobe=nprobe)

    @property
    def nlist(self) -> int:
        """Clusters of the index."""
        return int(self.lists.nlist)

    @property
    def nbytes(self) -> int:
        """Bytes of the lists (codes and row numbers) and of the clusters' centres."""
        n, d = self.items.shape
        return n * (int(self.lists.code_size) + 8) + self.nlist * d * 4

    @cached_property
    def _centres(self) -> F32:
        """(d, nlist) float32, the clusters' centres transposed."""
        return np.ascontiguousarray(self.lists.quantizer.reconstruct_n(0, self.nlist).T)

    def search(self, vectors: F32, k: int) -> tuple[I32, F32]:
        """Return the best of the clusters searched, (B, k) rows and scores.

        O(B d (nlist + n nprobe / nlist)); the same whatever the batch and the threads.
        """
        from martlet.kernels.int8 import best_rows
        from martlet.kernels.parallel import spread
        from martlet.kernels.topk import topk_dot

        vectors = np.ascontiguousarray(vectors, np.float32)
        # faiss itself would choose the clusters by another arithmetic for a large batch.
        cluster, product = topk_dot(vectors, self._centres, self.nprobe)
        clusters = cluster.astype(np.int64)
        self.lists.nprobe = self.nprobe  # always the same, but for ``with_nprobe``
        found = np.full((len(vectors), min(2 * k, self.items.shape[0])), -1, np.int64)

        def scan(start: int, stop: int) -> None:
            part = slice(start, stop)
            found[part] = self.lists.search_preassigned(
                vectors[part], found.shape[1], clusters[part], product[part]
            )[1]

        spread(scan, len(vectors), num_threads(), _GRAIN)
        query, place = np.nonzero(found >= 0)
        row = found[query, place].astype(np.int32)
        return best_rows(vectors, self.items.rows, query.astype(np.int32), row, k)

    def config(self) -> dict[str, Any]:
        """Return how many clusters are searched."""
        return {"nprobe": self.nprobe}

    def save(self, folder: Path) -> None:
        """Write the faiss index.

        Raises:
            OSError: the disk refused the write.
        """
        import faiss

        # Through a file of Python's: faiss does not look whether the end of its own was written.
        with open(folder / _FAISS, "wb") as file:
            faiss.write_index(self.lists, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]

    @staticmethod
    def load(folder: Path, config: Mapping[str, Any], items: Table) -> FaissIVF:
        """Return the index that ``save`` wrote; its lists are memory-mapped.

        The file's size must have been checked: faiss may read beyond the end of one cut short.

        Raises:
            BundleError: the file is no faiss index over the item table.
        """
        import faiss

        path = folder / _FAISS
        try:
            lists = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except (RuntimeError, MemoryError) as error:
            reason = str(error).strip().splitlines()[-1:] or ["too little memory"]
            raise BundleError(
                f"{path} is damaged ({reason[0]}): copy the bundle again from where it was made"
            ) from error
        nprobe, found = config["nprobe"], (lists.ntotal, lists.d)
        if not isinstance(lists, faiss.IndexIVFScalarQuantizer) or found != items.shape:
            raise BundleError(
                f"{path} holds {type(lists).__name__} over {found[0]} x {found[1]}: expected "
                f"lists of 8-bit codes over the {items.shape[0]} x {items.shape[1]} item table"
            )
        if type(nprobe) is not int or not 1 <= nprobe <= lists.nlist:
            raise BundleError(f"{folder}: nprobe is {nprobe!r}, expected 1 to {lists.nlist}")
        return FaissIVF(items, lists, nprobe)


KINDS: dict[str, type[Any]] = {"exact-int8": ExactInt8, "ivf": FaissIVF}


def load_index(folder: Path, config: Mapping[str, Any], items: Table) -> Index:
    """Return the index over ``items`` that a bundle stored.

    Raises:
        BundleError: a kind that this version does not know, or a file that does not fit.
    """
    kind = config["kind"]
    if kind not in KINDS:
        raise BundleError(
            f"the index is of kind {kind!r}: expected {' or '.join(KINDS)}; "
            "load the bundle with the version that wrote it"
        )
    index: Index = KINDS[kind].load(folder, config, items)
    return index
