"""What does an approximate search of ten items cost, and what does it lose, beside other libraries?

Factors of iALS on ml-1m and gowalla, and 1,000,000 vectors that are those of ml-1m with noise.
``faiss``, ``scann``, ``hnswlib`` and ``usearch`` stand beside our indexes, each over settings of
its own, each in a process of its own; one query at a time, on one thread.

Two questions are asked. ``top``: the ten items of largest product; told is recall@10 against an
exact search. ``unseen`` (not of the noisy vectors, which nobody has met): ten items that the user
has not met; told is NDCG@10 of validation users. Our indexes pass over what was met; the others are
asked for as many more as the user has met, to a power of two. Time is that of the call alone.
"""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from _common import THREADS, Peer, options, peer_python, record, say, scratch, summary

K, DIM, QUERIES = 10, 64, 500
CLUSTERS = (1, 2, 4, 8, 16, 32, 64, 128)
ROWS = (10, 16, 32, 64, 128, 256, 512)
LIBRARIES: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {
    "faiss": (
        ("flat", CLUSTERS),
        ("sq8", CLUSTERS),
        ("pq-8", CLUSTERS),
        ("pq-32", CLUSTERS),
        ("hnsw", ROWS),
    ),
    "scann": (("tree-100", CLUSTERS), ("tree-300", CLUSTERS)),
    "hnswlib": (("graph", ROWS),),
    "usearch": (("f32", ROWS), ("f16", ROWS)),
}
OURS = (("exact-int8", (0,)), ("ivf", CLUSTERS), ("ivf-pq", CLUSTERS), ("hnsw", ROWS))
LINKS = (16, 32)
LEVELS = (0.9, 0.95, 0.99, 0.999)


class Task(NamedTuple):
    """Vectors to search, and who asks.

    Attributes:
        name: of the vectors.
        items: (n, d) float32.
        queries: (B, d) float32.
        hidden: (B x n) CSR of what each user has met, or None.
        truth: (B x n) CSR of what each is to find, or None.
    """

    name: str
    items: np.ndarray
    queries: np.ndarray
    hidden: Any = None
    truth: Any = None

    def depths(self, question: str) -> list[int]:
        """Return how many rows a library must be asked for, for each query."""
        if question == "top":
            return [K] * len(self.queries)
        more = np.exp2(np.ceil(np.log2(self.hidden.lengths + 1)))
        return np.minimum(K + more, len(self.items)).astype(int).tolist()


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=3, add=("only", "libraries", "kinds"))
    wanted = chosen.only.split(",") if chosen.only else ["ml-1m", "gowalla", "perturbed"]
    beside = chosen.libraries.split(",") if chosen.libraries else list(LIBRARIES)
    for task in [tiny(chosen.seed)] if chosen.tiny else tasks(chosen, wanted):
        python = None if chosen.tiny else peer_python("ann")
        if python is None:
            say("skipped: other libraries: .venv-peers/ann is not there, or the run is tiny")
        lines = []
        for line in chain(ours(task, chosen), peers(task, python, beside, chosen)):
            record("index_frontier", line, chosen)
            lines.append(line)
        say(table(task.name, lines))


def ours(task: Task, chosen: Namespace) -> Iterator[dict[str, Any]]:
    """Yield a line for each index and depth."""
    from martlet.scorers.index import KINDS
    from martlet.scorers.table import Table

    items = Table.of(task.items)
    for kind, depths in OURS:
        if not wanted_kind(chosen, kind):
            continue
        os.environ["MARTLET_THREADS"] = THREADS  # to build
        begin = time.perf_counter()
        index = KINDS[kind].build(items)
        build_s = time.perf_counter() - begin
        os.environ["MARTLET_THREADS"] = "1"
        for depth in depths:
            if depth > getattr(index, "deepest", 0):
                continue
            at = index.at(depth) if depth else index
            yield measured(
                task, chosen, lambda question, at=at: asked(at, task, question),
                library="martlet", kind=kind, depth=depth, build_s=build_s, bytes=index.nbytes,
            )  # fmt: skip


def wanted_kind(chosen: Namespace, kind: str) -> bool:
    """Return whether ``--kinds`` names a kind, or is not there: a run may be taken in pieces."""
    return not chosen.kinds or kind in chosen.kinds.split(",")


def asked(index: Any, task: Task, question: str) -> tuple[np.ndarray, float]:
    """Return the rows that an index finds, asked one query at a time, and the median us."""
    hidden = [None] * len(task.queries)
    if question == "unseen":
        hidden = [task.hidden.take(np.array([row])) for row in range(len(task.queries))]
    found = np.empty((len(task.queries), K), np.int64)
    took = np.empty(len(found))
    for row in (*range(min(20, len(found))), *range(len(found))):
        query = task.queries[row : row + 1]
        begin = time.perf_counter()
        rows, _ = index.search(query, K, hidden[row])
        took[row] = time.perf_counter() - begin
        found[row] = rows[0]
    return found, float(1e6 * np.median(took))


def peers(
    task: Task, python: Path | None, libraries: list[str], chosen: Namespace
) -> Iterator[dict[str, Any]]:
    """Yield a line for each library, setting and depth."""
    if python is None:
        return
    n = len(task.items)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        np.save(folder / "items.npy", task.items)
        np.save(folder / "queries.npy", task.queries)
        for library in libraries:
            peer = stack.enter_context(Peer(python, "ann_search.py", folder, library))
            for kind, depths in LIBRARIES[library]:
                if not wanted_kind(chosen, kind):
                    continue
                for setting in settings(kind, depths is CLUSTERS, n):
                    within = [depth for depth in depths if depth <= setting["most"]]
                    out = folder / "found.npy"
                    yield from sweep(task, peer, setting, within, out, chosen, library)


def settings(kind: str, clusters: bool, n: int) -> list[dict[str, Any]]:
    """Return what a library's index is built with: two numbers of clusters, or of links."""
    if not clusters:
        return [{"kind": kind, "nlist": 0, "links": links, "most": n} for links in LINKS]
    counts = {max(1, min(round(times * n**0.5), n // 39)) for times in (1, 4)}
    return [{"kind": kind, "nlist": nlist, "links": 0, "most": nlist} for nlist in sorted(counts)]


def sweep(
    task: Task,
    peer: Peer,
    setting: dict[str, Any],
    depths: list[int],
    out: Path,
    chosen: Namespace,
    library: str,
) -> Iterator[dict[str, Any]]:
    """Yield a line for each depth of one setting."""
    build_s = None
    built = {name: setting[name] for name in ("kind", "nlist", "links")}
    for depth in depths:

        def ask(question: str, depth: int = depth) -> tuple[np.ndarray, float]:
            nonlocal build_s
            ks = task.depths(question)
            told = peer.ask(**built, depth=depth, ks=ks, out=str(out))
            build_s = told["build_s"] or build_s
            return np.load(out), told["us"]

        line = measured(task, chosen, ask, library=library, depth=depth, **built)
        yield line | {"build_s": build_s}


def measured(
    task: Task,
    chosen: Namespace,
    ask: Callable[[str], tuple[np.ndarray, float]],
    **about: Any,
) -> dict[str, Any]:
    """Return what an index found and took, over some rounds of each question."""
    rounds = 1 if chosen.tiny else chosen.rounds
    line: dict[str, Any] = {"vectors": task.name, "n": len(task.items), "dim": task.items.shape[1]}
    line |= about
    answers = [ask("top") for _ in range(rounds)]
    line |= {"recall@10": recall(task, answers[0][0]), "top_us": [us for _, us in answers]}
    if task.truth is not None:
        answers = [ask("unseen") for _ in range(rounds)]
        line |= {"ndcg@10": ndcg(task, answers[0][0]), "unseen_us": [us for _, us in answers]}
    return line


def recall(task: Task, found: np.ndarray) -> float:
    """Return the share of the exact ten best that stand in the lists."""
    from martlet.kernels.topk import topk_dot

    key = task.name
    if key not in _EXACT:
        _EXACT[key] = topk_dot(task.queries, np.ascontiguousarray(task.items.T), K, threads=2)[0]
    return float((_EXACT[key][:, :, None] == found[:, None, :K]).any(2).mean())


_EXACT: dict[str, np.ndarray] = {}


def ndcg(task: Task, found: np.ndarray) -> float:
    """Return NDCG@10 of the lists without what was met."""
    from martlet.metrics import per_user

    lists = np.full((len(found), K), -1, np.int32)
    for row, line in enumerate(found):
        shown = line[(line >= 0) & ~np.isin(line, task.hidden.row(row))][:K]
        lists[row, : len(shown)] = shown
    return float(per_user(lists, task.truth, ks=(K,), metrics=("ndcg",))["ndcg@10"].mean())


def table(name: str, lines: list[dict[str, Any]]) -> str:
    """Return the least time of each library at each recall."""
    rows = [f"{name}: us of one query at recall@10 of {', '.join(map(str, LEVELS))}"]
    for library in dict.fromkeys((line["library"], line["kind"]) for line in lines):
        cells = []
        for level in LEVELS:
            mine = [
                summary(line["top_us"])["median"]
                for line in lines
                if (line["library"], line["kind"]) == library and line["recall@10"] >= level
            ]
            cells.append(f"{min(mine):8.1f}" if mine else "       -")
        rows.append(f"  {' '.join(library):22}{''.join(cells)}")
    return "\n".join(rows)


def tasks(chosen: Namespace, wanted: list[str]) -> Iterator[Task]:
    """Yield the vectors that are asked for."""
    import families
    import gowalla

    if {"ml-1m", "perturbed"} & set(wanted):
        task = factors("ml-1m", families.movielens(chosen.data), chosen.seed)
        if "ml-1m" in wanted:
            yield task
        if "perturbed" in wanted:
            yield perturbed(task, 1_000_000, chosen.seed)
    if "gowalla" in wanted:
        dataset = gowalla.fold(gowalla.gowalla(chosen.data), 0, chosen.seed)
        yield factors("gowalla", dataset, chosen.seed)


def factors(name: str, dataset: Any, seed: int) -> Task:
    """Return the item factors of a dataset and up to 500 of its validation users."""
    import martlet as mt
    from martlet.core import Queries, rng
    from martlet.measure.quality import questions

    bundle = mt.fit(mt.IALS(dim=DIM), dataset, seed=seed)
    history, truth, _ = questions(dataset, "valid", "hide")
    known = np.flatnonzero((truth.lengths > 0) & (history.csr.lengths > 0))
    rows = np.sort(rng(seed, "index_frontier", "users").permutation(known)[:QUERIES])
    queries = Queries.of(history.csr.take(rows), rows.astype(np.int32))
    scorer = bundle.scorer
    return Task(
        name, scorer.items.dense(), scorer.encode(queries), queries.hidden(), truth.take(rows)
    )


def perturbed(task: Task, n: int, seed: int) -> Task:
    """Return ``n`` vectors, each one of the task's with noise, so that they compete."""
    from martlet.core import rng

    random = rng(seed, "index_frontier", "noise")
    noise = random.standard_normal((n, task.items.shape[1]), dtype=np.float32)
    near = task.items[random.integers(0, len(task.items), n)]
    items = near + np.float32(0.3) * task.items.std(0) * noise
    return Task("perturbed", items.astype(np.float32), task.queries)


def tiny(seed: int) -> Task:
    """Return clustered vectors, with users who have met some and will meet others."""
    from martlet.core import CSR, rng

    random = rng(seed, "index_frontier", "tiny")
    centres = random.normal(size=(40, 16))
    items = (centres[np.arange(2000) % 40] + 0.3 * random.normal(size=(2000, 16))).astype(
        np.float32
    )
    met = [random.choice(2000, 30, replace=False) for _ in range(50)]
    hidden = CSR.from_rows([np.sort(rows[:20]) for rows in met], 2000)
    truth = CSR.from_rows([np.sort(rows[20:]) for rows in met], 2000)
    queries = np.array([items[rows].mean(0) for rows in met])
    return Task("tiny", items, queries, hidden, truth)


if __name__ == "__main__":
    main()
