"""A graph of near neighbours that a query walks through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from martlet.core import CSR, BundleError, SpecError, num_threads, rng
from martlet.scorers.index.protocol import (
    F32,
    FILE,
    I32,
    Bools,
    check_number,
    dense,
    read_arrays,
    rescored,
)
from martlet.scorers.storage import write_tensors
from martlet.scorers.table import Table

if TYPE_CHECKING:
    from martlet.kernels.hnsw import Graph

_AGAIN = 2  # times as many as are asked for are scored again
_BUILT_WITH = 80  # rows that the building walk keeps
_PART = 0.75  # of the items: where fewer are allowed, the walk misses too many of them
_MOST_EF = 4096


@dataclass(frozen=True, eq=False)
class HNSW:
    """Walks a graph of near neighbours, from few and far ones to many and close ones.

    The graph stands over codes of 8 bits a value; twice as many as are asked for are scored again
    from the item table. faiss builds the graph, by inner product, on one thread, for several would
    give another each time. Items that may not be shown are walked through and not kept, which
    lengthens the walk. Links lead to items of large products, and to the others hardly: where fewer
    than three quarters are allowed, the search is exact.

    **Source**: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
    Hierarchical Navigable Small World graphs" (2016).

    Attributes:
        items: (n, d) item vectors.
        graph: the graph over their codes, as the kernel takes it.
        ef: rows that the walk keeps, at least.
    """

    items: Table
    graph: Graph
    ef: int
    kind: ClassVar[str] = "hnsw"

    @staticmethod
    def build(items: Table, links: int = 16, ef: int = 16, seed: int = 0) -> HNSW:
        """Build the graph. O(n log n links d), on one thread.

        Args:
            items: (n, d) item vectors, in any storage.
            links: neighbours a row, twice as many at the bottom.
            ef: rows that the walk keeps, at least.
            seed: of the levels; the same seed gives the same index.

        Raises:
            SpecError: ``links`` below 2 or ``ef`` below 1, or a table that cannot be indexed.
        """
        from martlet.kernels.hnsw import Graph

        if links < 2 or ef < 1:
            raise SpecError(f"links is {links} and ef {ef}: expected at least 2 and 1")
        built = _built(dense(items, "index:hnsw"), links, seed)
        codes = items.to("int8") if items.storage != "int8" else items
        if codes.arrays.keys() != {"values", "scale"}:
            codes = Table.of(items.dense()).to("int8")
        return HNSW(items, Graph(codes.values, codes.arrays["scale"], *built), ef)  # type: ignore[arg-type]

    @property
    def depth(self) -> int:
        """Rows that the walk keeps."""
        return self.ef

    @property
    def deepest(self) -> int:
        """The most rows worth keeping."""
        return max(1, min(_MOST_EF, self.items.shape[0]))

    def at(self, depth: int) -> HNSW:
        """Return the same index whose walk keeps another number of rows."""
        return replace(self, ef=depth)

    def settings(self) -> dict[str, int]:
        """Return the neighbours a row, and the rows kept."""
        return {"links": self.graph.links, "ef": self.ef}

    @property
    def nbytes(self) -> int:
        """Bytes of the graph, and of the codes where they are not the item table's own."""
        graph = self.graph
        own = 0 if graph.codes is self.items.values else graph.codes.nbytes + graph.scale.nbytes
        return own + graph.offsets.nbytes + graph.neighbours.nbytes

    def pays(self, share: float) -> bool:
        """Return whether at least three quarters of the items are allowed."""
        return share >= _PART

    def search(
        self, vectors: F32, k: int, hidden: CSR | None = None, allow: Bools | None = None
    ) -> tuple[I32, F32]:
        """Return the best of the rows met, (B, k) rows and scores; O(B links ef d).

        The same whatever the batch and the threads.
        """
        from martlet.kernels.hnsw import walk

        again = min(_AGAIN * k, self.items.shape[0])
        found = walk(vectors, self.graph, max(self.ef, again), hidden, allow, num_threads())
        return rescored(vectors, self.items, found[:, :again], k)

    def config(self) -> dict[str, Any]:
        """Return what the walk begins with."""
        graph = self.graph
        return {"ef": self.ef, "links": graph.links, "entry": graph.entry, "top": graph.top}

    def save(self, folder: Path) -> None:
        """Write the graph, and the codes where they are not the item table's own."""
        graph = self.graph
        arrays: dict[str, Any] = {"offsets": graph.offsets, "neighbours": graph.neighbours}
        if graph.codes is not self.items.values:
            arrays |= {"codes": graph.codes, "scale": graph.scale}
        write_tensors(folder / FILE, arrays)

    @staticmethod
    def load(folder: Path, config: Mapping[str, Any], items: Table) -> HNSW:
        """Return the index that ``save`` wrote; its arrays are memory-mapped.

        Raises:
            BundleError: the file does not hold a graph over the item table.
        """
        from martlet.kernels.hnsw import Graph

        n, d = items.shape
        expected: dict[str, Any] = {
            "offsets": (np.int64, (n + 1,)),
            "neighbours": (np.int32, (None,)),
        }
        if not _scanned(items):
            expected |= {"codes": (np.int8, (n, d)), "scale": (np.float32, (n,))}
        arrays = read_arrays(folder, items, expected)
        held: Mapping[str, Any] = items.arrays if _scanned(items) else arrays
        codes, scale = held["values" if _scanned(items) else "codes"], held["scale"]
        links = check_number(folder, config, "links", 2, 1 << 16)
        entry = check_number(folder, config, "entry", 0, n - 1)
        top = check_number(folder, config, "top", 0, 1 << 8)
        graph = Graph(codes, scale, arrays["offsets"], arrays["neighbours"], links, entry, top)
        _check_graph(folder, graph)
        return HNSW(items, graph, check_number(folder, config, "ef", 1, max(_MOST_EF, n)))


def _scanned(items: Table) -> bool:
    """Return whether the item table holds just the codes that the walk scores by."""
    return items.storage == "int8" and items.arrays.keys() == {"values", "scale"}


def _built(vectors: F32, links: int, seed: int) -> tuple[Any, I32, int, int, int]:
    """Return what a ``Graph`` holds beside the codes."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        built: Any = faiss.IndexHNSWFlat(vectors.shape[1], links, faiss.METRIC_INNER_PRODUCT)
        built.hnsw.efConstruction = _BUILT_WITH
        draw = int(rng(seed, "index", "levels").integers(1 << 31))
        built.hnsw.rng = faiss.RandomGenerator(draw)  # type: ignore[attr-defined]
        built.add(np.ascontiguousarray(vectors))
    finally:
        faiss.omp_set_num_threads(threads)
    offsets = faiss.vector_to_array(built.hnsw.offsets).astype(np.int64)
    neighbours = faiss.vector_to_array(built.hnsw.neighbors)
    return offsets, neighbours, links, int(built.hnsw.entry_point), int(built.hnsw.max_level)


def _check_graph(folder: Path, graph: Graph) -> None:
    """Check that a walk stays within the arrays: every neighbour stands on the level it is of.

    Raises:
        BundleError: it would not.
    """
    offsets, links, n = graph.offsets, graph.links, len(graph.codes)
    own = np.diff(offsets) - 2 * links
    ends = offsets[0] == 0 and offsets[-1] == len(graph.neighbours)
    if not ends or (own < 0).any() or (own % links).any():
        raise BundleError(f"{folder / FILE} has offsets that are none of {links} links a row")
    level = own // links
    if level[graph.entry] < graph.top:
        raise BundleError(f"{folder / FILE} has no level {graph.top} at row {graph.entry}")
    place = np.arange(len(graph.neighbours)) - np.repeat(offsets[:-1], np.diff(offsets))
    of = np.maximum(0, place // links - 1)
    to = graph.neighbours
    there = to >= 0
    if (to < -1).any() or (to >= n).any() or (level[to[there]] < of[there]).any():
        raise BundleError(f"{folder / FILE} has neighbours beyond its {n} rows or their levels")
