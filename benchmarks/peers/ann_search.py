"""Builds an index of another library and asks it; runs under ``.venv-peers/ann``."""

import os

os.environ["OMP_WAIT_POLICY"] = "passive"  # read when a library is loaded

import time
from pathlib import Path

import numpy as np
from _answer import answer


def faiss_of(items, kind, nlist, links):
    import faiss

    d, ip = items.shape[1], faiss.METRIC_INNER_PRODUCT
    name = {
        "flat": f"IVF{nlist},Flat",
        "sq8": f"IVF{nlist},SQ8",
        "pq": f"IVF{nlist},PQ{d // 2}x4fsr,RFlat",
        "hnsw": f"HNSW{links},Flat",
    }[kind.partition("-")[0]]
    index = faiss.index_factory(d, name, ip)
    inner = faiss.downcast_index(index.base_index) if kind.startswith("pq") else index
    if kind == "hnsw":
        index.hnsw.efConstruction = 200
    else:
        inner.cp.min_points_per_centroid = 1
        index.train(items)
    index.add(items)

    def search(depth):
        faiss.omp_set_num_threads(1)
        if kind == "hnsw":
            index.hnsw.efSearch = depth
        else:
            inner.nprobe = depth
        if kind.startswith("pq"):
            index.k_factor = int(kind.partition("-")[2])
        return lambda query, k: index.search(query, k)[1][0]

    return search


def scann_of(items, kind, nlist, links):
    import scann

    n = len(items)
    index = (
        scann.scann_ops_pybind.builder(items, 10, "dot_product")
        .tree(num_leaves=nlist, num_leaves_to_search=1, training_sample_size=min(n, 64 * nlist))
        .score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(100)
        .build()
    )

    def search(depth):
        def ask(query, k):
            again = max(int(kind.partition("-")[2]), 2 * k)
            return index.search(
                query[0], k, leaves_to_search=depth, pre_reorder_num_neighbors=again
            )[0]

        return ask

    return search


def hnswlib_of(items, kind, nlist, links):
    import hnswlib

    index = hnswlib.Index("ip", items.shape[1])
    index.init_index(len(items), M=links, ef_construction=200, random_seed=1)
    index.set_num_threads(2)
    index.add_items(items)

    def search(depth):
        index.set_num_threads(1)

        def ask(query, k):
            if k > depth:  # as it demands
                index.set_ef(k)
            found = index.knn_query(query, k)[0][0]
            if k > depth:
                index.set_ef(depth)
            return found

        index.set_ef(depth)
        return ask

    return search


def usearch_of(items, kind, nlist, links):
    from usearch.index import Index

    # Not in int8: it scales each vector by its own length, which inner products do not survive.
    index = Index(
        ndim=items.shape[1], metric="ip", dtype=kind, connectivity=links, expansion_add=200
    )
    index.add(np.arange(len(items)), items, threads=2)

    def search(depth):
        def ask(query, k):
            index.expansion_search = max(depth, k)
            return index.search(query[0], k, threads=1).keys

        return ask

    return search


def prepare(folder, library):
    folder = Path(folder)
    items, queries = (np.load(folder / f"{name}.npy") for name in ("items", "queries"))
    make = {"faiss": faiss_of, "scann": scann_of, "hnswlib": hnswlib_of, "usearch": usearch_of}
    built = {}

    def run(kind, nlist, links, depth, ks, out):
        """Write the rows found, -1 after the last, and return microseconds a query."""
        key, build_s = (kind, nlist, links), None
        if key not in built:
            built.clear()
            begin = time.perf_counter()
            built[key] = make[library](items, *key)
            build_s = time.perf_counter() - begin
        ask = built[key](depth)
        found, took = np.full((len(ks), max(ks)), -1, np.int64), np.empty(len(ks))
        for at in (*range(min(20, len(ks))), *range(len(ks))):  # some first, to warm up
            query, k = queries[at : at + 1], ks[at]
            begin = time.perf_counter()
            rows = ask(query, k)
            took[at] = time.perf_counter() - begin
            found[at, : len(rows)] = rows
        np.save(out, found)
        return {
            "us": float(1e6 * np.median(took)),
            "mean_us": 1e6 * took.mean(),
            "build_s": build_s,
        }

    return run


answer(prepare)
