"""How much faster than NumPy's float32 product is an exact top-10 by int8 codes?

1,000,000 x 64 vectors: Gaussian, and factors of ml-1m by alternating least squares, repeated with
noise (clustered stand-ins when tiny). Batches of 1, 8 and 64 queries; all get the same threads.
NumPy multiplies and uses argpartition; faiss Flat and SQ8 stand beside for orientation (SQ8 is not
exact). Every exact variant must find the same ten items, and ours the scores of a float32 search,
digit for digit. "martlet_whole" scans whole codes, as an int8 table of a bundle is scanned. "read"
sums the high halves as 64-bit words, and so tells the bandwidth that there is. Before each call the
machine rests until the threads of the last have gone to sleep: a query comes to an idle server.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from _common import THREADS, data, interleave, options, record, say, summary
from martlet.core import rng
from martlet.kernels.codes import Codes
from martlet.kernels.int8 import topk_int8
from martlet.kernels.parallel import spread
from martlet.kernels.topk import topk_dot

K, DIM = 10, 64
BATCHES = (1, 8, 64)
GOAL = 4.0
REST_S = 0.1


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=21)
    n = 20_000 if chosen.tiny else 1_000_000
    threads = int(THREADS)
    for name, make in (("gaussian", gaussian), ("factors", factors)):
        vectors, queries = make(chosen, n)
        codes = Codes.of(vectors)
        halved = codes.halved()
        for batch in BATCHES:
            # A batch of 64 takes NumPy about a second, so it is asked less often.
            rounds = 2 if chosen.tiny else max(3, chosen.rounds // batch)
            line = compare(vectors, codes, halved, queries[:batch], rounds, threads)
            say(f"{name} x{batch}: {line['speedup']:.1f} times, {line['rescored_mean']:.0f} again")
            record("int8_search", {"vectors": name, "n": n, "dim": DIM, "k": K, **line}, chosen)


def compare(
    vectors: np.ndarray,
    codes: Codes,
    halved: Codes,
    queries: np.ndarray,
    rounds: int,
    threads: int,
) -> dict[str, Any]:
    """Return the seconds of every variant over the same queries, after checking their answers."""
    import faiss

    faiss.omp_set_num_threads(threads)
    n = len(vectors)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(vectors)
    sq8 = faiss.IndexScalarQuantizer(DIM, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    sq8.train(vectors[:: max(1, n // 100_000)])
    sq8.add(vectors)
    transposed = np.ascontiguousarray(vectors.T)
    words = halved.values.reshape(-1).view(np.int64)
    variants: dict[str, Callable[[], Any]] = {
        "martlet": lambda: topk_int8(queries, halved, K, threads=threads),
        "martlet_whole": lambda: topk_int8(queries, codes, K, threads=threads),
        "martlet_fp32": lambda: topk_dot(queries, transposed, K, threads=threads),
        "numpy": lambda: by_numpy(vectors, queries),
        "faiss_flat": lambda: flat.search(queries, K)[1],
        "faiss_sq8": lambda: sq8.search(queries, K)[1],
        "read": lambda: read(words, threads),
    }
    found = {name: variant() for name, variant in variants.items()}  # compiles and warms up
    rows, scores, again = found["martlet"]
    for name in ("martlet_whole", "martlet_fp32"):
        assert np.array_equal(rows, found[name][0]), f"not the rows of {name}"
        assert np.array_equal(scores, found[name][1]), f"not the scores of {name}, digit for digit"
    for name in ("numpy", "faiss_flat"):
        assert same_items(vectors, queries, rows, found[name]), f"{name} finds other items"
    overlap = (rows[:, :, None] == found["faiss_sq8"][:, None, :]).any(2).mean()
    seconds = interleave(variants, rounds, rest_s=REST_S)
    ours = summary(seconds["martlet"])
    # One query reads the high halves; a batch both, once, a block at a time for every query.
    scanned = halved.nbytes - (halved.low.nbytes if len(queries) == 1 else 0)
    moved = scanned + 4 * DIM * int(again.sum())
    bandwidth = words.nbytes / summary(seconds["read"])["min"]
    ratios = [a / b for a, b in zip(seconds["numpy"], seconds["martlet"], strict=True)]
    return {
        "batch": len(queries),
        "rounds": rounds,
        "seconds": seconds,
        "summary": {name: summary(values) for name, values in seconds.items()},
        "speedup": summary(ratios)["median"],
        "goal": GOAL if len(queries) == 1 else None,
        "rescored": again.tolist(),
        "rescored_mean": float(again.mean()),
        "bytes_moved": moved,
        "gb_s": moved / ours["median"] / 1e9,
        "read_gb_s": bandwidth / 1e9,
        "share_of_bandwidth": moved / ours["min"] / bandwidth,
        "residual": codes.residual,
        "sq8_overlap": float(overlap),
    }


def by_numpy(vectors: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the (B, K) best rows by product and argpartition."""
    if len(queries) == 1:
        scores = vectors @ queries[0]
        top = np.argpartition(scores, len(scores) - K)[-K:]
        return top[np.argsort(-scores[top])][None]
    scores = queries @ vectors.T
    top = np.argpartition(scores, scores.shape[1] - K, axis=1)[:, -K:]
    order = np.argsort(-np.take_along_axis(scores, top, 1), axis=1)
    return np.take_along_axis(top, order, 1)


def same_items(vectors: Any, queries: Any, rows: Any, others: Any) -> bool:
    """Return whether two lists agree, but for items whose scores float32 cannot tell apart."""
    for query, mine, theirs in zip(queries.astype(np.float64), rows, others, strict=True):
        one, other = np.sort(vectors[mine] @ query), np.sort(vectors[theirs] @ query)
        if set(mine) != set(theirs) and not np.allclose(one, other, rtol=1e-6, atol=1e-6):
            return False
    return True


def gaussian(chosen: argparse.Namespace, n: int) -> tuple[np.ndarray, np.ndarray]:
    random = rng(chosen.seed, "int8_search", "gaussian")
    draw = random.standard_normal
    return draw((n, DIM), dtype=np.float32), draw((max(BATCHES), DIM), dtype=np.float32)


def factors(chosen: argparse.Namespace, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return item factors of ml-1m with noise, repeated to n, and factors of its users."""
    random = rng(chosen.seed, "int8_search", "factors")
    if chosen.tiny:
        items = random.standard_normal((300, DIM)) * 0.9 ** np.arange(DIM)
        users = random.standard_normal((200, DIM)) * 0.9 ** np.arange(DIM)
    else:
        users, items = least_squares(data(chosen.data, "ml-1m", "ratings.parquet"), random)
    near = items[random.integers(len(items), size=n)]
    noise = 0.3 * items.std(0) * random.standard_normal((n, DIM), dtype=np.float32)
    picked = users[random.choice(len(users), max(BATCHES), replace=False)]
    return (near + noise).astype(np.float32), picked.astype(np.float32)


def least_squares(path: Any, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return users and items of implicit ml-1m by a few sweeps of weighted least squares."""
    import polars as pl

    log = pl.read_parquet(path, columns=["user_id", "item_id"])
    _, user = np.unique(log["user_id"].to_numpy(), return_inverse=True)
    _, item = np.unique(log["item_id"].to_numpy(), return_inverse=True)
    seen = np.zeros((user.max() + 1, item.max() + 1), np.float32)
    seen[user, item] = 1
    items = 0.1 * random.standard_normal((seen.shape[1], DIM))
    for _ in range(3):
        users = half_step(seen, items)
        items = half_step(seen.T, users)
    return users, items


def half_step(seen: np.ndarray, fixed: np.ndarray, weight: float = 0.3) -> np.ndarray:
    gram = weight * fixed.T @ fixed + 5 * np.eye(DIM)
    out = np.zeros((len(seen), DIM))
    for row, line in enumerate(seen):
        mine = fixed[np.flatnonzero(line)]
        out[row] = np.linalg.solve(gram + mine.T @ mine, mine.sum(0))
    return out


def read(words: np.ndarray, threads: int) -> None:
    spread(lambda start, stop: _sum(words[start:stop]), len(words), threads)


@njit(nogil=True)
def _sum(words: np.ndarray) -> int:
    total = 0
    for word in words:
        total += word
    return total


if __name__ == "__main__":
    main()
