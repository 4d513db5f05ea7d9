"""What answering costs: latency, throughput, bytes, memory, cold start."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from martlet.core import rng
from martlet.measure import fresh

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle

NUM_QUERIES = 1000
BATCH = 256
_WARM_UP = 20


def cost(
    bundle: Bundle,
    *,
    k: int = 10,
    num_queries: int = NUM_QUERIES,
    cold_runs: int = 3,
    seed: int = 0,
) -> dict[str, float]:
    """Return every cost of answering from ``bundle`` by name, the unit at the end of the name.

    Latency and throughput as in ``latency`` and ``throughput``; ``bundle_mb`` is the folder,
    ``scoring_mb`` the tables, index and network that answer (1 MB = 10^6 bytes); with
    ``cold_runs``, ``cold_start_s``, ``peak_mb`` and ``rss_mb`` of fresh processes, as in
    ``fresh.start``: their median. This process has answered before them, so kernels are compiled
    and files are cached.
    """
    found = latency(bundle, k=k, num_queries=num_queries, seed=seed)
    found["throughput_qps"] = throughput(bundle, k=k, seed=seed)
    found["bundle_mb"] = bundle.bundle_bytes / 1e6
    found["scoring_mb"] = bundle.scoring_bytes / 1e6
    if cold_runs:
        with tempfile.TemporaryDirectory(prefix="martlet-") as parent:
            folder = Path(parent) / "bundle"
            bundle.save(folder)
            runs = [fresh.start(folder, k) for _ in range(cold_runs)]
        for name in ("cold_start_s", "peak_mb", "rss_mb"):
            found[name] = float(np.median([run[name] for run in runs]))
    return found


def latency(
    bundle: Bundle, *, k: int = 10, num_queries: int = NUM_QUERIES, seed: int = 0
) -> dict[str, float]:
    """Return p50, p95 and p99 in ms of ``num_queries`` single queries, warm, one after another.

    The users are drawn at random among those with a history. ``num_queries`` stands in the answer.
    """
    users = sample_users(bundle, num_queries + _WARM_UP, seed)
    taken = np.empty(len(users))
    for i, user in enumerate(users):
        begin = time.perf_counter()
        bundle.recommend([user], k=k)
        taken[i] = time.perf_counter() - begin
    p50, p95, p99 = np.percentile(taken[_WARM_UP:] * 1e3, [50, 95, 99]).tolist()
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "num_queries": float(num_queries)}


def throughput(bundle: Bundle, *, k: int = 10, batch: int = BATCH, seed: int = 0) -> float:
    """Return users answered a second in batches of ``batch``: the median batch of half a second."""
    users = sample_users(bundle, 8 * batch, seed)
    taken: list[float] = []
    begin = time.perf_counter()
    while len(taken) < 4 or time.perf_counter() - begin < 0.5:
        at = len(taken) % 8 * batch
        start = time.perf_counter()
        bundle.recommend(users[at : at + batch], k=k)
        taken.append(time.perf_counter() - start)
    return batch / float(np.median(taken[1:]))


def sample_users(bundle: Bundle, size: int, seed: int) -> list[str]:
    """Return ``size`` ids drawn at random, with repetition, of users with a history.

    Where no user has one, an unknown user stands in: the fallback is what would be served.
    """
    known = np.flatnonzero(bundle.histories.lengths)
    if not len(known):
        return [""] * size
    return bundle.users.names(rng(seed, "measure", "users").choice(known, size))
