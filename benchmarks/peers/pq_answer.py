"""One variant of pq_search.py: built into a folder, or loaded from there and searched."""

import json
import sys
import time
from pathlib import Path

import numpy as np

K = 10
_FIRST = 4  # times K that faiss takes from the codes to score again by the finer ones


def main():
    mode, name, folder, threads = sys.argv[1:]
    if mode == "search":
        from _answer import answer

        sys.argv[1:] = name, folder, threads
        answer(search)
        return
    begin = time.perf_counter()
    nbytes = build(name, Path(folder), int(threads))
    print(time.perf_counter() - begin, nbytes)


def build(name, folder, threads):
    """Write what ``search`` loads; return the bytes that it searches."""
    items = np.load(folder / "items.npy")
    path = folder / name.replace(":", "_")
    if name == "numpy":
        return items.nbytes
    if name.startswith("faiss"):
        import faiss

        faiss.omp_set_num_threads(threads)
        index = made(name, items)
        faiss.write_index(index, str(path))
        return path.stat().st_size
    from martlet.scorers.index import KINDS
    from martlet.scorers.table import Table

    table = Table.of(items)
    if name in KINDS:
        path.mkdir()
        index = KINDS[name].build(table)
        index.save(path)
        (path / "config.json").write_text(json.dumps(index.config()))
        return table.nbytes + index.nbytes
    moment = np.load(folder / "moment.npy").astype(np.float64)
    table = table.to(name, moment if name.startswith("pq") else None)
    np.savez(path, **table.arrays)
    return table.nbytes


def made(name, items):
    """Return a faiss index that holds the items."""
    import faiss

    d, product = items.shape[1], faiss.METRIC_INNER_PRODUCT
    sample = items[:: max(1, len(items) // 100_000)]
    sq8 = faiss.IndexScalarQuantizer(d, faiss.ScalarQuantizer.QT_8bit, product)
    scan = faiss.IndexPQFastScan(d, d // 2, 4, product)
    index = {
        "faiss:flat": lambda: faiss.IndexFlatIP(d),
        "faiss:sq8": lambda: sq8,
        "faiss:fast-scan": lambda: scan,
        "faiss:fast-scan+sq8": lambda: faiss.IndexRefine(scan, sq8),
    }[name]()
    if name == "faiss:fast-scan+sq8":
        index.k_factor = _FIRST
    index.train(sample)
    index.add(items)
    return index


def search(name, folder, threads):
    folder, threads = Path(folder), int(threads)
    queries = np.load(folder / "queries.npy")
    find = finder(name, folder, folder / name.replace(":", "_"), threads)

    def run(first, size, out=None):
        rows = find(queries[first : first + size])
        if out:
            np.save(out, rows)
        return {}

    return run


def finder(name, folder, path, threads):
    """Return a function from (B, d) queries to (B, K) rows."""
    if name == "numpy":
        from int8_search import by_numpy

        items = np.load(folder / "items.npy")
        return lambda queries: by_numpy(items, queries)
    if name.startswith("faiss"):
        import faiss

        faiss.omp_set_num_threads(threads)
        index = faiss.read_index(str(path))
        return lambda queries: index.search(queries, K)[1]
    from martlet.scorers.index import KINDS
    from martlet.scorers.table import Table

    if name in KINDS:
        items = Table.of(np.load(folder / "items.npy"))
        config = json.loads((path / "config.json").read_text())
        index = KINDS[name].load(path, config, items)
        return lambda queries: index.search(queries, K)[0]
    arrays = dict(np.load(f"{path}.npz"))
    n, d = np.load(folder / "items.npy", mmap_mode="r").shape
    table = Table(name, (n, d), arrays)
    return lambda queries: table.kind.topk(table, queries, K, None, None, threads)[0]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
