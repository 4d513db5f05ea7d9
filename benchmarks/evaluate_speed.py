"""How much faster than RecBole, RecTools and LensKit is an evaluation of the same scores?

Every user of ml-1m is ranked over the whole catalogue at k = 10, what was seen hidden, and measured
by NDCG, recall, hit rate, MRR and precision. Everyone gets the same two tables of vectors, in a
process of its own, evaluates in the way of its own documentation, keeps its prepared data between
rounds, and must find the same figures. Ours must find the same digits for any batch and threads.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from _common import Peer, data, interleave, options, peer_python, record, say, scratch, summary
from martlet.core import rng

K, DIM = 10, 64
PEERS = ("recbole", "rectools", "lenskit")
# Sums are taken in another order elsewhere, so two items of nearly equal score may change places.
TOLERANCE = 2e-5
LIMIT_MB = 500


def main() -> None:
    chosen = options(__doc__.splitlines()[0])
    with scratch() as folder, ExitStack() as stack:
        log = tiny_log(chosen.seed) if chosen.tiny else movielens(chosen.data)
        write(folder, *log)
        running = {"martlet": stack.enter_context(Peer(sys.executable, script("martlet"), folder))}
        for name in () if chosen.tiny else PEERS:
            python = peer_python(name)
            if python is None:
                say(f"{name} is left out: .venv-peers/{name} is not installed")
                continue
            say(f"starting {name}")
            running[name] = stack.enter_context(Peer(python, script(name), folder))
        answers = {name: peer.ask() for name, peer in running.items()}  # compiles and warms up
        first = {name: answer["seconds"] for name, answer in answers.items()}
        agree(answers, plain(folder))
        same = [running["martlet"].ask(batch=b, threads=t) for b in (1, 7, 512) for t in (1, 2)]
        for answer in same:
            assert answer["figures"] == answers["martlet"]["figures"], "digits depend on the batch"
        cpu: dict[str, list[float]] = {name: [] for name in running}

        def timed(name: str) -> float:
            answer = running[name].ask()
            cpu[name].append(answer["cpu_s"])
            answers[name] = answer
            return float(answer["seconds"])

        say("timing")
        variants = {name: lambda name=name: timed(name) for name in running}
        seconds = interleave(variants, 2 if chosen.tiny else chosen.rounds)
    peak = answers["martlet"]["peak_mb"]
    assert peak < LIMIT_MB, f"peak memory is {peak:.0f} MB: expected below {LIMIT_MB}"
    ours = summary(seconds["martlet"])["median"]
    times = {name: summary(values)["median"] / ours for name, values in seconds.items()}
    for name, ratio in times.items():
        spread = summary(seconds[name])
        say(
            f"{name:9} {spread['median']:7.3f} s [{spread['min']:.3f}, {spread['max']:.3f}]"
            f"  {ratio:6.1f} x  peak {answers[name]['peak_mb']:.0f} MB"
        )
    record(
        "evaluate_speed",
        {
            "k": K,
            "dim": DIM,
            "seconds": seconds,
            "cpu_s": cpu,
            "first_s": first,
            "prepare_s": {name: peer.ready["prepare_s"] for name, peer in running.items()},
            "peak_mb": {name: answer["peak_mb"] for name, answer in answers.items()},
            "figures": {name: answer["figures"] for name, answer in answers.items()},
            "times_slower": times,
            "same_digits": "batch 1, 7, 512 with threads 1, 2",
        },
        chosen,
    )


def script(name: str) -> str:
    return f"evaluate_{name}.py"


def movielens(given: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, 3) user, item, place in the user's history of ml-1m, and (n,) parts 0, 1, 2.

    The last fifth of a history is to be found, the event before it validates.
    """
    import polars as pl

    table = pl.read_parquet(data(given, "ml-1m", "ratings.parquet"))
    columns = [table["user_id"].rank("dense"), table["item_id"].rank("dense"), table["order"] + 1]
    events = np.stack([column.to_numpy().astype(np.int64) for column in columns], 1) - 1
    return events, cut(events)


def tiny_log(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the same of a small random log."""
    random = rng(seed, "evaluate_speed")
    user, item = np.nonzero(random.random((120, 300)) < 0.1)
    place = np.arange(len(user)) - np.searchsorted(user, user)
    events = np.stack([user, item, random.permuted(place)], 1)
    return events, cut(events)


def cut(events: np.ndarray) -> np.ndarray:
    user, order = events[:, 0], events[:, 2]
    place = np.empty(len(user), np.int64)
    sort = np.lexsort((order, user))
    place[sort] = np.arange(len(user)) - np.searchsorted(user[sort], user[sort])
    length = np.bincount(user)
    last = (length - np.maximum(1, length // 5))[user]
    return (place >= last).astype(np.int64) + (place >= last - 1)


def write(folder: Path, events: np.ndarray, part: np.ndarray) -> None:
    """Write train, valid, test, users, items; items that train never met are left out.

    Rows fall by training frequency, as a prepared log has them. The vectors are a truncated SVD.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    count = np.bincount(events[part == 0, 1], minlength=int(events[:, 1].max()) + 1)
    row = np.empty(len(count), np.int64)
    row[np.argsort(-count, kind="stable")] = np.arange(len(count))
    keep = count[events[:, 1]] > 0
    events, part = events[keep], part[keep]
    events[:, 1] = row[events[:, 1]]
    for number, name in enumerate(("train", "valid", "test")):
        np.save(folder / f"{name}.npy", events[part == number])
    user, item = events[part == 0, 0], events[part == 0, 1]
    shape = int(events[:, 0].max()) + 1, int((count > 0).sum())
    matrix = csr_matrix((np.ones(len(user), np.float32), (user, item)), shape)
    left, scale, right = svds(matrix, DIM, v0=np.ones(min(shape), np.float32))
    np.save(folder / "users.npy", (left * scale).astype(np.float32))
    np.save(folder / "items.npy", np.ascontiguousarray(right.T, np.float32))


def plain(folder: Path) -> dict[str, float]:
    """Return the figures by a loop over the users in NumPy, in double precision."""
    train, valid, test = (np.load(folder / f"{name}.npy") for name in ("train", "valid", "test"))
    users, items = (np.load(folder / f"{n}.npy").astype(float) for n in ("users", "items"))
    seen, wanted = (
        np.split(events[order, 1], np.searchsorted(events[order, 0], np.arange(1, len(users))))
        for events in (np.concatenate([train, valid]), test)
        for order in [np.argsort(events[:, 0], kind="stable")]
    )
    gain = 1 / np.log2(np.arange(2, K + 2))
    sums = dict.fromkeys(("ndcg", "recall", "hit_rate", "mrr", "precision"), 0.0)
    for user, (met, find) in enumerate(zip(seen, wanted, strict=True)):
        scores = items @ users[user]
        scores[met] = -np.inf
        hit = np.isin(np.argsort(-scores)[:K], find)
        sums["ndcg"] += (hit @ gain) / gain[: len(find)].sum()
        sums["recall"] += hit.sum() / len(find)
        sums["hit_rate"] += hit.any()
        sums["mrr"] += 1 / (hit.argmax() + 1) if hit.any() else 0
        sums["precision"] += hit.mean()
    return {f"{name}@{K}": total / len(users) for name, total in sums.items()}


def agree(answers: Mapping[str, Mapping[str, Any]], expected: Mapping[str, float]) -> None:
    """Stop unless everyone found the figures; LensKit's recall divides by another number."""
    for name, answer in answers.items():
        found = answer["figures"]
        for metric in expected.keys() & found.keys():
            assert abs(found[metric] - expected[metric]) <= TOLERANCE, (
                f"{name} finds {metric} = {found[metric]}, expected {expected[metric]}"
            )
        assert len(expected.keys() & found.keys()) >= 4, f"{name} told {sorted(found)}"


if __name__ == "__main__":
    main()
