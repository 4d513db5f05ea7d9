"""Items by cluster, in a few bits a value: the smallest index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from martlet.core import CSR, BundleError, SpecError, num_threads
from martlet.scorers.index.protocol import (
    F32,
    I32,
    Bools,
    check_number,
    deeper,
    dense,
    rescored,
)
from martlet.scorers.table import Table

_FAISS = "index.faiss"
_BLOCK = 32  # rows whose codes lie together
_BITS = 4  # a code: sixteen words a codebook, whose scores fit a register
_GRAIN = 8  # queries that are worth a thread
_PART = 0.5  # of the clusters: a search that would scan more of them scans everything


@dataclass(frozen=True, eq=False)
class IVFPQ:
    """Clusters the items and keeps of each a code of four bits for every two values.

    A quarter of the bytes of ``ivf``. The codes err more, so ``refine`` times as many as are asked
    for are scored again from the item table. Filters as in ``ivf``.

    **Source**: Jégou et al., "Product quantization for nearest neighbor search" (2011); André et
    al., "Quicker ADC" (2019), as in faiss.

    Attributes:
        items: (n, d) item vectors.
        lists: the faiss index.
        nprobe: clusters that are searched for a query.
        refine: how many times more than asked for are scored again.
    """

    items: Table
    lists: Any
    nprobe: int
    refine: int
    kind: ClassVar[str] = "ivf-pq"

    @staticmethod
    def build(
        items: Table, nlist: int | None = None, nprobe: int = 1, refine: int = 8, seed: int = 0
    ) -> IVFPQ:
        """Cluster the items, and learn the codebooks.

        Args:
            items: (n, d) item vectors, in any storage.
            nlist: clusters; None takes sqrt(n), less where one would be too small to learn.
            nprobe: clusters to search.
            refine: how many times more than asked for are scored again.
            seed: of the clustering; the same seed gives the same index.

        Raises:
            SpecError: as ``IVF.build``, ``refine`` below 1, or fewer than 16 items.
        """
        import faiss

        from martlet.scorers.index.clusters import clustered, num_clusters
        from martlet.scorers.index.ivf import check_nprobe

        vectors = dense(items, "index:ivf-pq")
        n, d = vectors.shape
        if n < 1 << _BITS:
            raise SpecError(f"index:ivf-pq over {n} items: expected {1 << _BITS}, a word each")
        if refine < 1:
            raise SpecError(f"refine is {refine}: expected at least 1")
        nlist = num_clusters(n, nlist)
        check_nprobe(nprobe, nlist)
        centres, _ = clustered(vectors, nlist, seed)
        faiss.omp_set_num_threads(num_threads())
        # faiss puts vectors into the nearest cluster by distance; which are searched we choose.
        quantizer = faiss.IndexFlatL2(d)
        quantizer.add(centres)
        lists = faiss.IndexIVFPQFastScan(
            quantizer, d, nlist, _num_codes(d), _BITS, faiss.METRIC_INNER_PRODUCT
        )
        lists.pq.cp.seed = seed % (1 << 31)
        lists.pq.cp.min_points_per_centroid = 1
        lists.train(vectors)
        lists.add(vectors)
        return IVFPQ(items, lists, nprobe, refine)

    @property
    def nlist(self) -> int:
        """Clusters of the index."""
        return int(self.lists.nlist)

    @property
    def depth(self) -> int:
        """Clusters that are searched for a query."""
        return self.nprobe

    @property
    def deepest(self) -> int:
        """Clusters that there are."""
        return self.nlist

    def at(self, depth: int) -> IVFPQ:
        """Return the same index that searches another number of clusters."""
        return replace(self, nprobe=depth)

    def settings(self) -> dict[str, int]:
        """Return the number of clusters, of those searched, and how many are scored again."""
        return {"nlist": self.nlist, "nprobe": self.nprobe, "refine": self.refine}

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the lists (codes in blocks, and row numbers), the centres and the codebooks."""
        d = self.items.shape[1]
        sizes = np.array([self.lists.invlists.list_size(at) for at in range(self.nlist)])
        blocks = -(-sizes // _BLOCK) * _BLOCK
        codes = int(blocks.sum()) * int(self.lists.M2) * _BITS // 8
        return codes + 8 * int(sizes.sum()) + 4 * d * (self.nlist + (1 << _BITS))

    def pays(self, share: float) -> bool:
        """Return whether fewer than half of the clusters would be searched."""
        return self.nprobe == self.nlist or self.nprobe < share * _PART * self.nlist

    @cached_property
    def _centres(self) -> F32:
        """(d, nlist) float32, the clusters' centres transposed."""
        return np.ascontiguousarray(self.lists.quantizer.reconstruct_n(0, self.nlist).T)

    def search(
        self, vectors: F32, k: int, hidden: CSR | None = None, allow: Bools | None = None
    ) -> tuple[I32, F32]:
        """Return the best of the clusters searched, (B, k) rows and scores.

        O(B d (nlist + n nprobe / nlist / 8)); the same whatever the batch and the threads.
        """
        vectors = np.ascontiguousarray(vectors, np.float32)
        rows, scores = (
            np.empty((len(vectors), k), np.int32),
            np.empty((len(vectors), k), np.float32),
        )
        # As deep as a query's own hidden items ask for, to a power of two: a batch that went as
        # deep as its longest list of them would not answer as its queries do alone.
        lengths = np.zeros(len(vectors)) if hidden is None else hidden.lengths
        spare = np.exp2(np.ceil(np.log2(lengths + 1))).astype(np.int64)
        for more in np.unique(spare):
            at = np.flatnonzero(spare == more)
            most = min(self.items.shape[0], k * self.refine + int(more))
            found = self._found(vectors[at], most, allow)
            shown = found if hidden is None else _drop(found, hidden.take(at))
            rows[at], scores[at] = rescored(vectors[at], self.items, shown, k)
        return rows, scores

    def _found(self, vectors: F32, k: int, allow: Bools | None) -> I32:
        """Return the (B, k) rows of largest product of codes, -1 for none."""
        import faiss

        from martlet.kernels.parallel import spread
        from martlet.kernels.topk import topk_dot

        nprobe = deeper(self.nprobe, self.nlist, allow)
        cluster, product = topk_dot(vectors, self._centres, nprobe)
        clusters, found = cluster.astype(np.int64), np.empty((len(vectors), k), np.int64)
        distance = np.empty((len(vectors), k), np.float32)
        picked = {} if allow is None else {"sel": _selector(allow)}
        params = faiss.SearchParametersIVF(nprobe=nprobe, **picked)  # type: ignore[call-arg]

        def scan(start: int, stop: int) -> None:
            faiss.omp_set_num_threads(1)  # of this thread
            parts = (each[start:stop] for each in (vectors, clusters, product, distance, found))
            asked, near, far, *answer = map(faiss.swig_ptr, parts)
            # Python's own wrapper takes no parameters.
            self.lists.search_preassigned_c(
                stop - start, asked, k, near, far, *answer, False, params
            )

        spread(scan, len(vectors), num_threads(), _GRAIN)
        return found.astype(np.int32)

    def config(self) -> dict[str, Any]:
        """Return how many clusters are searched, and how many rows are scored again."""
        return {"nprobe": self.nprobe, "refine": self.refine}

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
    def load(folder: Path, config: Mapping[str, Any], items: Table) -> IVFPQ:
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
        found = (lists.ntotal, lists.d)
        if not isinstance(lists, faiss.IndexIVFPQFastScan) or found != items.shape:
            raise BundleError(
                f"{path} holds {type(lists).__name__} over {found[0]} x {found[1]}: expected "
                f"lists of 4-bit codes over the {items.shape[0]} x {items.shape[1]} item table"
            )
        _check_lists(path, lists)
        nprobe = check_number(folder, config, "nprobe", 1, int(lists.nlist))
        return IVFPQ(items, lists, nprobe, check_number(folder, config, "refine", 1, 1 << 16))


def _num_codes(d: int) -> int:
    """Return how many codes a row of d values is kept in: a divisor of d, d / 2 where it is one."""
    return d // 2 if d % 2 == 0 else d


def _selector(allow: Bools) -> Any:
    """Return faiss's choice of the rows allowed."""
    import faiss

    choice: Any = faiss.IDSelectorBitmap
    return choice(np.packbits(allow, bitorder="little"))


def _check_lists(path: Path, lists: Any) -> None:
    """Check that every row of the items stands in one list, and that there are centres.

    Raises:
        BundleError: it does not.
    """
    import faiss

    n, there = lists.ntotal, np.zeros(lists.ntotal, bool)
    for at in range(lists.nlist):
        size = lists.invlists.list_size(at)
        if size:
            rows = faiss.rev_swig_ptr(lists.invlists.get_ids(at), size)
            there[rows[(rows >= 0) & (rows < n)]] = True
    centres = faiss.downcast_index(lists.quantizer)
    flat = isinstance(centres, faiss.IndexFlat)
    if not there.all() or not flat or (centres.ntotal, centres.d) != (lists.nlist, lists.d):
        raise BundleError(f"{path} does not hold each of the {n} items once, under a centre")


def _drop(rows: I32, hidden: CSR) -> I32:
    """Return (B, m) rows with -1 in the place of what the query's hidden row holds."""
    if not hidden.nnz:
        return rows
    line = np.arange(len(rows), dtype=np.int64)[:, None] * hidden.num_cols
    key = hidden.row_numbers().astype(np.int64) * hidden.num_cols + hidden.indices
    at = np.minimum(np.searchsorted(key, line + rows), len(key) - 1)
    return np.where((rows < 0) | (key[at] == line + rows), np.int32(-1), rows)
