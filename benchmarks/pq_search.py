"""Is any faiss search without clusters faster than int8 or product codes at equal NDCG?

1,000,000 x 64: factors of ml-1m by alternating least squares, repeated with noise so that they
compete (clustered stand-ins when tiny); the ten best for one query and for a batch of 64. Each
variant is built once and searched in a process of its own, which tells its peak memory; all get the
same threads, and take turns. NDCG@10 is that of the answers, where the ten items of the largest
exact product are relevant; "score" is the share of the exact lists' discounted scores that the
answers reach. Product codes are learnt for the moment of other users' vectors than those that ask.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from _common import HERE, THREADS, Peer, data, interleave, options, record, say, scratch, summary
from int8_search import least_squares
from martlet.core import rng
from martlet.kernels.topk import topk_dot

K, DIM = 10, 64
BATCHES = (1, 64)
OURS = ("exact-int8", "int8", "pq:16x8", "pq:24x4", "pq:32x4", "pq:32x4+16x8", "pq:32x4+32x8")
BESIDE = ("numpy", "faiss:flat", "faiss:sq8", "faiss:fast-scan", "faiss:fast-scan+sq8")
TINY = ("int8", "pq:16x4", "pq:16x4+16x4", "numpy")
REST_S = 0.1


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=21, add=("only",))
    variants = chosen.only.split(",") if chosen.only else [*OURS, *BESIDE]
    if chosen.tiny:
        variants = list(TINY)
    with scratch() as folder, ExitStack() as stack:
        items, queries = write(folder, chosen)
        exact = topk_dot(queries, np.ascontiguousarray(items.T), K, threads=int(THREADS))[0]
        built = {name: build(name, folder) for name in variants}
        peers = {}
        for name in variants:
            arguments = "search", name, folder, THREADS
            peers[name] = stack.enter_context(Peer(sys.executable, "pq_answer.py", *arguments))
        for batch in BATCHES:
            rounds = 2 if chosen.tiny else max(5, chosen.rounds // (1 if batch == 1 else 3))
            line = compare(peers, built, folder, items, queries, exact, batch, rounds)
            about = {"vectors": "factors", "n": len(items), "dim": DIM, "k": K, "batch": batch}
            record("pq_search", about | line, chosen)
            say(table(batch, line))


def write(folder: Path, chosen: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Write items, who asks, and the moment of the others; return the first two."""
    random = rng(chosen.seed, "pq_search", "factors")
    if chosen.tiny:
        decay = 0.9 ** np.arange(DIM)
        users, few = (random.standard_normal((m, DIM)) * decay for m in (500, 300))
    else:
        users, few = least_squares(data(chosen.data, "ml-1m", "ratings.parquet"), random)
    n = 20_000 if chosen.tiny else 1_000_000
    noise = 0.3 * few.std(0) * random.standard_normal((n, DIM), dtype=np.float32)
    items = (few[random.integers(len(few), size=n)] + noise).astype(np.float32)
    order = random.permutation(len(users))
    asking, others = users[order[: max(BATCHES)]], users[order[max(BATCHES) :]]
    moment, queries = others.T @ others / len(others), asking.astype(np.float32)
    for name, array in (("items", items), ("queries", queries), ("moment", moment)):
        np.save(folder / f"{name}.npy", array)
    return items, queries


def build(name: str, folder: Path) -> dict[str, Any]:
    """Build one variant in a process of its own; return its seconds and bytes."""
    command = [sys.executable, str(HERE / "peers" / "pq_answer.py"), "build", name, str(folder)]
    say(f"builds {name}")
    done = subprocess.run([*command, THREADS], stdout=subprocess.PIPE, text=True, check=True)
    seconds, nbytes = done.stdout.split()[-2:]
    return {"build_s": float(seconds), "bytes": int(nbytes)}


def compare(
    peers: dict[str, Peer],
    built: dict[str, dict[str, Any]],
    folder: Path,
    items: np.ndarray,
    queries: np.ndarray,
    exact: np.ndarray,
    batch: int,
    rounds: int,
) -> dict[str, Any]:
    """Return what each variant finds and takes."""
    found, told = {}, {}
    for name, peer in peers.items():  # compiles and warms up; every query is asked for the quality
        told[name] = peer.ask(first=0, size=len(queries), out=str(folder / "found.npy"))
        found[name] = np.load(folder / "found.npy")

    def asked(name: str) -> Any:
        def ask() -> float:
            turn = turns[name] = turns.get(name, -1) + 1
            first = turn % len(queries) if batch == 1 else 0
            told[name] = peers[name].ask(first=first, size=batch)
            return float(told[name]["seconds"])

        return ask

    turns: dict[str, int] = {}
    seconds = interleave({name: asked(name) for name in peers}, rounds, rest_s=REST_S)
    each = {
        name: {
            **built[name],
            **quality(items, queries, found[name], exact),
            "seconds": seconds[name],
            "median_ms": 1e3 * summary(seconds[name])["median"],
            "peak_mb": told[name]["peak_mb"],
        }
        for name in peers
    }
    return {"rounds": rounds, "variants": each, "times_faster": ratios(each)}


def ratios(each: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return, for each that is not ours, ours of no less NDCG and how many times faster it is."""
    found = {}
    for name, other in each.items():
        as_good = [
            (line["median_ms"], mine)
            for mine, line in each.items()
            if not mine.startswith(("faiss", "numpy"))
            and line["ndcg@10"] >= other["ndcg@10"] - 1e-3
        ]
        if name.startswith(("faiss", "numpy")) and as_good:
            mine = min(as_good)[1]
            pairs = zip(other["seconds"], each[mine]["seconds"], strict=True)
            found[name] = {"ours": mine, "times": summary([a / b for a, b in pairs])["median"]}
    return found


def quality(
    items: np.ndarray, queries: np.ndarray, found: np.ndarray, exact: np.ndarray
) -> dict[str, float]:
    """Return NDCG@10 of the answers, and the share of the exact lists' scores."""
    discount = 1 / np.log2(np.arange(2, K + 2))
    hit = (found[:, :, None] == exact[:, None, :]).any(2)
    scores = [np.einsum("bd,bkd->bk", queries, items[rows]) @ discount for rows in (found, exact)]
    return {
        "ndcg@10": float((hit @ discount / discount.sum()).mean()),
        "recall@10": float(hit.mean()),
        "score": float((scores[0] / scores[1]).mean()),
    }


def table(batch: int, line: dict[str, Any]) -> str:
    """Return the variants in words."""
    rows = [f"batch {batch}: ms, NDCG@10, share of scores, MB of the index, peak MB"]
    for name, each in sorted(line["variants"].items(), key=lambda pair: pair[1]["median_ms"]):
        rows.append(
            f"  {name:20}{each['median_ms']:9.2f}{each['ndcg@10']:8.3f}{each['score']:8.3f}"
            f"{each['bytes'] / 1e6:9.1f}{each['peak_mb']:9.0f}"
        )
    for name, found in line["times_faster"].items():
        rows.append(f"  beside {name}: {found['ours']} is {found['times']:.2f} times faster")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
