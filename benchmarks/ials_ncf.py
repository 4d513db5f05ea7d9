"""Does iALS reach HR@10 .730 and NDCG@10 .450 on ncf-ml-1m in 20 s, and are the metrics right?

The protocol of "Neural Collaborative Filtering" (2017): the last event of each user is ranked among
99 sampled items. Item popularity must give the published .4535 and .2543 within .0005: that proves
the metrics. ``--tune N`` searches N random points without the test part: the last event of each
user's train is held out instead, ranked among 99 items of a seeded draw, ``DRAWS`` times over. Each
trial is a line of ``results/ials_ncf_tune.jsonl``; what it finds belongs in ``CHOSEN``. Without it
popularity and iALS are fitted on all of train and measured on test, once a seed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from _common import data, options, record, say, summary
from martlet.core import Dataset, Interactions, Queries, Scorer, Vocabulary, rng
from martlet.metrics import sampled, sampled_quality
from martlet.models.ials import IALS
from martlet.models.popularity import Popularity

PUBLISHED, WITHIN = {"hit_rate@10": 0.4535, "ndcg@10": 0.2543}, 0.0005
GOAL, GOAL_S = {"hit_rate@10": 0.730, "ndcg@10": 0.450}, 20.0
NEGATIVES, DRAWS = 99, 10
# Where published settings lie; ``--tune`` has not been run to its end, so no claim rests on these.
CHOSEN: dict[str, Any] = {
    "dim": 256,
    "reg": 0.007,
    "unobserved_weight": 0.3,
    "iterations": 10,
}


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=5, add=("tune",))
    load = tiny if chosen.tiny else ncf
    dataset, positives, negatives = load(chosen.data, chosen.seed)
    begin = time.perf_counter()
    small, *sought = tiny(None, chosen.seed)
    measure(IALS(dim=8, iterations=1).fit(small, seed=0), small, *sought)
    compile_s = time.perf_counter() - begin
    if chosen.tune:
        tune(dataset, int(chosen.tune), chosen)
        return
    popular = measure(Popularity().fit(dataset), dataset, positives, negatives)
    record("ials_ncf", {"model": "popularity", **popular, "published": PUBLISHED}, chosen)
    runs = []
    spec = IALS(**(CHOSEN | {"dim": 8} if chosen.tiny else CHOSEN))
    for seed in range(chosen.seed, chosen.seed + (1 if chosen.tiny else chosen.rounds)):
        begin, cpu = time.perf_counter(), time.process_time()
        scorer = spec.fit(dataset, seed=seed)
        line = {
            "model": "ials",
            "params": CHOSEN,
            "fit_seed": seed,
            "fit_s": time.perf_counter() - begin,
            "fit_cpu_s": time.process_time() - cpu,
            "compile_s": compile_s,
            "gflop": spec.flops(dataset) / 1e9,
            **measure(scorer, dataset, positives, negatives),
        }
        runs.append(line)
        record("ials_ncf", line, chosen)
    middle = {key: summary([run[key] for run in runs])["median"] for key in (*GOAL, "fit_s")}
    say("popularity", {key: round(value, 4) for key, value in popular.items()})
    say("ials, median of seeds", {key: round(value, 4) for key, value in middle.items()})
    if chosen.tiny:
        return
    for key, value in PUBLISHED.items():
        assert abs(popular[key] - value) < WITHIN, f"popularity's {key} is {popular[key]:.4f}"
    for key, value in GOAL.items():
        assert middle[key] >= value, f"{key} is {middle[key]:.4f}: expected {value} at least"
    assert middle["fit_s"] < GOAL_S, f"a fit took {middle['fit_s']:.1f} s: expected {GOAL_S} s"


def measure(
    scorer: Scorer, dataset: Dataset, positives: np.ndarray, negatives: np.ndarray
) -> dict[str, float]:
    """Return HR@10 and NDCG@10 of users 0, 1, ... whose history is all of train."""
    queries = Queries.of(dataset.train.histories, user_row=np.arange(dataset.num_users))
    return sampled(scorer, queries, positives, negatives)


def ncf(folder: Path | None, seed: int) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Return train, and the test item and its negatives of each user."""
    import polars as pl

    train = pl.read_parquet(data(folder, "ncf-ml-1m", "train.parquet")).sort("user", "order")
    lines = data(folder, "ncf-ml-1m", "ml-1m.test.negative").read_text().splitlines()
    negatives = np.array([line.split("\t")[1:] for line in lines], np.int32)
    rated = data(folder, "ncf-ml-1m", "ml-1m.test.rating").read_text().splitlines()
    test = np.array([line.split("\t")[:2] for line in rated], np.int32)
    assert (test[:, 0] == np.arange(len(test))).all(), "test must have every user once, in order"
    user, item = train["user"].to_numpy(), train["item"].to_numpy()
    num_items = 1 + max(item.max(), test[:, 1].max(), negatives.max())
    return dataset_of(user, item, len(test), int(num_items)), test[:, 1], negatives


def tiny(folder: Path | None, seed: int) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Return users and items of three tastes."""
    random = rng(seed, "ials-ncf", "tiny")
    alike = np.arange(200)[:, None] % 3 == np.arange(150) % 3
    met = random.random(alike.shape) < np.where(alike, 0.4, 0.02)
    held_out = np.array([random.choice(np.flatnonzero(row)) for row in met], np.int32)
    negatives = [random.choice(np.flatnonzero(~row), NEGATIVES) for row in met]
    met[np.arange(200), held_out] = False
    return dataset_of(*np.nonzero(met), 200, 150), held_out, np.array(negatives, np.int32)


def dataset_of(user: np.ndarray, item: np.ndarray, num_users: int, num_items: int) -> Dataset:
    """Return a dataset whose rows are its ids, and that is all train."""
    train = Interactions.sort(user, item, num_users=num_users, num_items=num_items)
    nothing = train.select(np.zeros(len(train), bool))
    users, items = (Vocabulary.of(range(size)) for size in (num_users, num_items))
    return Dataset(users, items, train, nothing, nothing)


def tune(dataset: Dataset, trials: int, chosen: Any) -> None:
    """Measure random points on the last event of each user's train; test is not looked at."""
    random = rng(chosen.seed, "ials-ncf", "tune")
    log = dataset.train
    last = np.diff(log.user_row, append=-1) != 0
    shape = log.num_users, log.num_items
    shorter = dataset_of(log.user_row[~last], log.item_row[~last], *shape)
    seen = np.zeros(shape, bool)
    seen[log.user_row, log.item_row] = True
    unseen = [np.flatnonzero(~row) for row in seen]
    draws = [
        np.column_stack([log.item_row[last], [random.choice(free, NEGATIVES) for free in unseen]])
        for _ in range(2 if chosen.tiny else DRAWS)
    ]
    best: tuple[float, dict[str, Any]] = (0.0, {})
    for _ in range(trials):
        params = {
            "dim": int(random.choice([8] if chosen.tiny else [128, 192, 256, 384, 512])),
            "reg": round(float(np.exp(random.uniform(np.log(0.004), np.log(0.010)))), 5),
            "unobserved_weight": round(float(np.exp(random.uniform(np.log(0.15), np.log(0.5)))), 3),
            "iterations": int(random.choice([6, 8, 10, 12, 16])),
        }
        begin, cpu = time.perf_counter(), time.process_time()
        users, items = IALS(**params).factorize(shorter.train.matrix, chosen.seed)
        seconds = {"fit_s": time.perf_counter() - begin, "fit_cpu_s": time.process_time() - cpu}
        found = [sampled_quality(score(users, items, draw)) for draw in draws]
        means = {key: float(np.mean([one[key] for one in found])) for key in GOAL}
        best = max(best, (sum(means.values()) / 2, params), key=lambda one: one[0])
        line = {"model": "ials", "part": "valid", "params": params, **seconds, **means}
        record("ials_ncf_tune", line, chosen)
    say(f"best {best[0]:.4f}: {best[1]}")


def score(users: np.ndarray, items: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return (B, C) products: trained user vectors, for an exact fold-in a trial is slow."""
    return np.concatenate(
        [np.einsum("bd,bcd->bc", users[at], items[candidates[at]]) for at in batches(len(users))]
    )


def batches(size: int) -> list[slice]:
    return [slice(start, start + 512) for start in range(0, size, 512)]


if __name__ == "__main__":
    main()
