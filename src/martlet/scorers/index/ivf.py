"""Items by cluster, of which the nearest to a query are scanned in int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from martlet.core import CSR, BundleError, SpecError, num_threads
from martlet.scorers.index.protocol import (
    F32,
    FILE,
    I32,
    Bools,
    check_number,
    deeper,
    dense,
    read_arrays,
    rescored,
)
from martlet.scorers.storage import write_tensors
from martlet.scorers.table import Table

if TYPE_CHECKING:
    from martlet.kernels.ivf import Lists

_AGAIN = 2  # times as many as are asked for are scored again
_PART = 0.5  # of the clusters: a search that would scan more of them scans everything


@dataclass(frozen=True, eq=False)
class IVF:
    """Clusters the items and searches the clusters nearest to the query.

    Each cluster's vectors lie together in 8 bits a value. Twice as many as are asked for are taken
    from them, scored again from the item table, and ordered as an exact search orders them. Where
    only some items are allowed, as many more clusters are searched as it takes to meet as many
    allowed items; where that would be half of all, the search is exact.

    **Source**: Sivic and Zisserman, "Video Google" (2003); the codes are those of ``exact-int8``.

    Attributes:
        items: (n, d) item vectors.
        lists: the clusters, as the kernel takes them.
        nprobe: clusters that are searched for a query.
    """

    items: Table
    lists: Lists
    nprobe: int
    kind: ClassVar[str] = "ivf"

    @staticmethod
    def build(items: Table, nlist: int | None = None, nprobe: int = 1, seed: int = 0) -> IVF:
        """Cluster the items by k-means. O(nlist^2 d) an iteration, of which there are ten.

        Args:
            items: (n, d) item vectors, in any storage.
            nlist: clusters; None takes sqrt(n), less where one would be too small to learn.
            nprobe: clusters to search.
            seed: of the clustering; the same seed gives the same index.

        Raises:
            SpecError: more clusters than items, fewer than one, ``nprobe`` beyond ``nlist``, or a
                table that cannot be indexed.
        """
        from martlet.kernels.ivf import Lists
        from martlet.scorers.index.clusters import clustered, num_clusters

        vectors = dense(items, "index:ivf")
        nlist = num_clusters(len(vectors), nlist)
        check_nprobe(nprobe, nlist)
        centres, cluster = clustered(vectors, nlist, seed)
        offsets, rows = by_cluster(cluster, nlist)
        near: Mapping[str, Any] = Table.of(centres).to("int8").arrays
        codes: Mapping[str, Any] = Table.of(vectors[rows]).to("int8").arrays
        lists = Lists(near["values"], near["scale"], offsets, rows, codes["values"], codes["scale"])
        return IVF(items, lists, nprobe)

    @property
    def nlist(self) -> int:
        """Clusters of the index."""
        return len(self.lists.centres)

    @property
    def depth(self) -> int:
        """Clusters that are searched for a query."""
        return self.nprobe

    @property
    def deepest(self) -> int:
        """Clusters that there are."""
        return self.nlist

    def at(self, depth: int) -> IVF:
        """Return the same index that searches another number of clusters."""
        return replace(self, nprobe=depth)

    def settings(self) -> dict[str, int]:
        """Return the number of clusters, and of those searched."""
        return {"nlist": self.nlist, "nprobe": self.nprobe}

    @property
    def nbytes(self) -> int:
        """Bytes of the codes, the row numbers and the clusters' centres."""
        return sum(array.nbytes for array in self.lists)

    def pays(self, share: float) -> bool:
        """Return whether fewer than half of the clusters would be searched."""
        return self.nprobe == self.nlist or self.nprobe < share * _PART * self.nlist

    def search(
        self, vectors: F32, k: int, hidden: CSR | None = None, allow: Bools | None = None
    ) -> tuple[I32, F32]:
        """Return the best of the clusters searched, (B, k) rows and scores.

        O(B d (nlist + n nprobe / nlist)); the same whatever the batch and the threads.
        """
        from martlet.kernels.ivf import scan_lists, search_lists

        items, threads = self.items, num_threads()
        nprobe, again = deeper(self.nprobe, self.nlist, allow), min(_AGAIN * k, items.shape[0])
        if items.storage == "fp32":
            return search_lists(
                vectors, self.lists, nprobe, k, again, items.values, hidden, allow, threads
            )
        found = scan_lists(vectors, self.lists, nprobe, again, hidden, allow, threads)
        return rescored(vectors, items, found, k)

    def config(self) -> dict[str, Any]:
        """Return how many clusters are searched."""
        return {"nprobe": self.nprobe}

    def save(self, folder: Path) -> None:
        """Write the clusters."""
        write_tensors(folder / FILE, self.lists._asdict())

    @staticmethod
    def load(folder: Path, config: Mapping[str, Any], items: Table) -> IVF:
        """Return the index that ``save`` wrote; its arrays are memory-mapped.

        Raises:
            BundleError: the file does not hold clusters of the item table.
        """
        from martlet.kernels.ivf import Lists

        n, d = items.shape
        expected = {
            "centres": (np.int8, (None, d)),
            "centre_scale": (np.float32, (None,)),
            "offsets": (np.int64, (None,)),
            "rows": (np.int32, (n,)),
            "codes": (np.int8, (n, d)),
            "scale": (np.float32, (n,)),
        }
        lists = Lists(**read_arrays(folder, items, expected))
        check_clusters(folder, len(lists.centres), lists.offsets, lists.rows)
        if len(lists.centre_scale) != len(lists.centres):
            raise BundleError(
                f"{folder / FILE} has {len(lists.centre_scale)} scales of {len(lists.centres)} "
                "clusters"
            )
        return IVF(items, lists, check_number(folder, config, "nprobe", 1, len(lists.centres)))


def check_nprobe(nprobe: int, nlist: int) -> None:
    """Check how many clusters are to be searched.

    Raises:
        SpecError: fewer than one, or more than there are.
    """
    if not 1 <= nprobe <= nlist:
        raise SpecError(f"nprobe is {nprobe}: expected 1 to {nlist}, the number of lists")


def by_cluster(cluster: I32, nlist: int) -> tuple[Any, I32]:
    """Return the (nlist + 1,) int64 offsets and (n,) int32 rows, by cluster and then by number."""
    counts = np.bincount(cluster, minlength=nlist)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return offsets, np.argsort(cluster, kind="stable").astype(np.int32)


def check_clusters(folder: Path, nlist: int, offsets: Any, rows: I32) -> None:
    """Check that every row of the items stands in one cluster.

    Raises:
        BundleError: it does not.
    """
    n = len(rows)
    rising = len(offsets) == nlist + 1 and offsets[0] == 0 and offsets[-1] == n
    if nlist < 1 or not rising or (np.diff(offsets) < 0).any():
        raise BundleError(f"{folder / FILE} has offsets that do not rise from 0 to {n}")
    there = np.zeros(n, bool)
    there[rows[(rows >= 0) & (rows < n)]] = True
    if not there.all():
        raise BundleError(f"{folder / FILE} does not hold each of the {n} items once")
