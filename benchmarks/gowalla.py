"""How good are the cheap models on gowalla, what do they cost to train, and is the graph filter in?

The published split (29,858 users x 40,981 items), the whole catalogue, per-user Recall@20 and
NDCG@20 as LightGCN defines them. Without ``--tune`` each model is fitted on all of train and
measured once on test, in a process of its own, compiled code warm.

``--tune NAME`` (or ``all``) searches the hyper-parameters of a model, never asking for test, and
writes a line a trial to ``results/gowalla_tune.jsonl``; what it found stands in ``CHOSEN``. Two
things of the final measurement must be alike in the validation. The item graph must be about as
dense: a tenth taken from everybody thins it by a tenth and shifts what smoothing is best. And a
user must have about as many items to find for each item known: 1 to 4, for test is a fifth. So a
fifth of the items is held out of a fifth of the users, and the other users stay whole (96% of the
events do). The users make ``FOLDS`` such folds: the search climbs on the first, and the best
``FINALISTS`` are measured on all, so that every user is asked once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from _common import ROOT, data, options, record, say, scratch
from martlet.core import Dataset, Interactions, Vocabulary, rng

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle

K = 20
FOLDS, HELD_OUT, FINALISTS = 5, 0.2, 3
FLOOR = {"recall@20": 0.1860, "ndcg@20": 0.1530}  # of the graph filter

# Best of --tune, by NDCG@20 over all folds.
CHOSEN: dict[str, dict[str, Any]] = {
    "popularity": {},
    "item-knn": {"neighbours": 1000, "weighting": "tf-idf", "exponent": 0.75, "shrink": 3.0},
    "ease": {"neighbours": 100, "reg": 10.0, "user_exponent": 0.2},
    "gfcf": {"rank": 512, "ideal": 0.2, "keep": 1000},
    "ials": {
        "dim": 256,
        "iterations": 16,
        "reg": 0.001,
        "reg_exponent": 0.75,
        "unobserved_weight": 0.05,
    },
}
# The search starts at the middle value of each and moves to the next one while it is better.
GRIDS: dict[str, dict[str, list[Any]]] = {
    "item-knn": {
        "shrink": [0.0, 3.0, 10.0, 20.0, 40.0],
        "exponent": [0.5, 0.75, 0.9, 1.0, 1.1],
        "weighting": ["bm25", "none", "tf-idf"],
        "neighbours": [200, 400, 1000],
    },
    "ease": {
        "reg": [5.0, 10.0, 20.0, 30.0, 50.0],
        "user_exponent": [0.0, 0.1, 0.2, 0.3, 0.4],
        "neighbours": [100, 200, 300],
    },
    "gfcf": {
        "ideal": [0.1, 0.2, 0.3, 0.4, 0.5],
        "rank": [128, 256, 512],
        "keep": [1000],
    },
    "ials": {
        "unobserved_weight": [0.002, 0.005, 0.01, 0.02, 0.05],
        "reg": [0.0005, 0.001, 0.002, 0.004, 0.008],
        "iterations": [8, 12, 16],
        "reg_exponent": [0.5, 0.75, 1.0],
        "dim": [64, 128, 256],
    },
}


def main() -> None:
    chosen = options(__doc__.splitlines()[0], add=("tune", "one"))
    if chosen.one:
        print(json.dumps(one(**json.loads(chosen.one))))
        return
    with scratch() as folder:
        dataset = tiny(chosen.seed) if chosen.tiny else gowalla(chosen.data)
        if chosen.tune:
            for name in GRIDS if chosen.tune == "all" else [chosen.tune]:
                tune(name, dataset, chosen)
            return
        dataset.save(folder / "dataset")
        found = {}
        for name, params in CHOSEN.items():
            params = (
                {k: min(v, 8) if isinstance(v, int) else v for k, v in params.items()}
                if (chosen.tiny)
                else params
            )
            found[name] = apart(folder / "dataset", name, params, chosen.seed)
            record("gowalla", found[name], chosen)
            say(
                f"{name:11} recall@20 {found[name]['recall@20']:.4f}  ndcg@20 "
                f"{found[name]['ndcg@20']:.4f}  fit {found[name]['fit_s']:6.1f} s  peak "
                f"{found[name]['peak_mb']:6.0f} MB  tables {found[name]['scoring_mb']:.0f} MB"
            )
    for metric, floor in FLOOR.items() if not chosen.tiny else ():
        value = found["gfcf"][metric]
        assert value >= floor, f"gfcf reaches {metric} {value:.4f}: expected {floor} at least"


def gowalla(folder: Path | None) -> Dataset:
    import martlet as mt

    train, test = (data(folder, "gowalla", f"{part}.parquet") for part in ("train", "test"))
    prepared = mt.prepare(mt.read(train), clean=(), split=mt.GivenSplit(test))
    return prepared.with_valid_in_train()


def tiny(seed: int) -> Dataset:
    """Users and items of three tastes, the more popular items first."""
    random = rng(seed, "gowalla", "tiny")
    taste = np.arange(300)[:, None] % 3 == np.arange(120) % 3
    met = random.random(taste.shape) < np.where(taste, 0.3, 0.03) * np.linspace(1.5, 0.5, 120)
    user, item = np.nonzero(met)
    whole = Interactions.sort(user, item, num_users=300, num_items=120)
    test = random.random(len(whole)) < HELD_OUT
    parts = whole.select(~test), whole.select(np.zeros(len(whole), bool)), whole.select(test)
    return Dataset(Vocabulary.of(range(300)), Vocabulary.of(range(120)), *parts)


def fold(dataset: Dataset, at: int, seed: int) -> Dataset:
    """Return train without a fifth of the events of fold ``at`` of the users, which are valid."""
    log, random = dataset.train, rng(seed, "gowalla", "folds")
    mine = random.permutation(log.num_users) % FOLDS == at
    shuffled = np.lexsort((random.random(len(log)), log.user_row))
    place = np.empty(len(log), np.int64)
    place[shuffled] = np.arange(len(log)) - log.histories.indptr[log.user_row]
    out = mine[log.user_row] & (place < np.round(HELD_OUT * log.histories.lengths)[log.user_row])
    return replace(dataset, train=log.select(~out), valid=log.select(out))


def one(folder: str, name: str, params: dict[str, Any], seed: int) -> dict[str, Any]:
    """Fit and measure one model in this process, after a small fit that compiles what it needs."""
    from martlet.measure.fresh import peak_bytes
    from martlet.measure.quality import evaluate
    from martlet.models.fit import fit
    from martlet.models.registry import spec

    small = tiny(seed)
    begin = time.perf_counter()
    evaluate(fit(spec(name, **(params | shrunk(params))), small, seed=seed), small, ks=(K,))
    compile_s = time.perf_counter() - begin
    dataset, before = Dataset.load(folder), peak_bytes()
    begin, cpu = time.perf_counter(), time.process_time()
    bundle = fit(spec(name, **params), dataset, seed=seed)
    fit_s, fit_cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    peak = peak_bytes()
    begin = time.perf_counter()
    quality = evaluate(bundle, dataset, ks=(K,))
    return {
        "model": name,
        "params": bundle.lineage[0]["params"],
        "fit_s": fit_s,
        "fit_cpu_s": fit_cpu_s,
        "compile_s": compile_s,
        "evaluate_s": time.perf_counter() - begin,
        "peak_mb": peak / 1e6,
        "before_mb": before / 1e6,
        "scoring_mb": bundle.scoring_bytes / 1e6,
        "num_users": quality.num_users,
        **quality.figures,
    }


def shrunk(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that are counts, small enough for the tiny dataset."""
    return {name: min(value, 16) for name, value in params.items() if type(value) is int}


def apart(folder: Path, name: str, params: dict[str, Any], seed: int) -> dict[str, Any]:
    """Return what ``one`` measures in a fresh process, whose peak memory is the model's own."""
    asked = {"folder": str(folder), "name": name, "params": params, "seed": seed}
    command = [sys.executable, __file__, "--one", json.dumps(asked)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def tune(name: str, dataset: Dataset, chosen: Any) -> None:
    """Climb on the first fold, then measure the best few on all; a line each trial."""
    from martlet.measure.quality import evaluate
    from martlet.models.fit import fit
    from martlet.models.registry import spec

    folds = [fold(dataset, at, chosen.seed) for at in range(FOLDS)]
    found: dict[tuple[int, str], float] = {}

    @lru_cache(maxsize=1)
    def widest(at: int) -> Bundle:
        most = {key: max(values) for key, values in GRIDS[name].items()}
        return fit(spec(name, **most), folds[at], seed=chosen.seed)

    def score(params: dict[str, Any], at: int = 0) -> float:
        key = at, json.dumps(params)
        if key not in found:
            small = shrunk(params) if chosen.tiny else {}
            begin, cpu = time.perf_counter(), time.process_time()
            if name == "gfcf" and not chosen.tiny:
                bundle = narrowed(widest(at), params["rank"], params["ideal"])
            else:
                bundle = fit(spec(name, **(params | small)), folds[at], seed=chosen.seed)
            fit_s, fit_cpu_s = time.perf_counter() - begin, time.process_time() - cpu
            quality = evaluate(bundle, folds[at], part="valid", ks=(K,))
            line = {"model": name, "params": params, "fold": at, "num_users": quality.num_users}
            line |= {"fit_s": fit_s, "fit_cpu_s": fit_cpu_s, **quality.figures}
            record("gowalla_tune", line, chosen)
            say(f"{name} {key} {dict(quality.figures)} {fit_s:.1f} s")
            found[key] = quality.figures["ndcg@20"]
        return found[key]

    grid = GRIDS[name]
    best, before = {key: values[len(values) // 2] for key, values in grid.items()}, None
    while best != before:
        before = best
        for key, values in grid.items():
            for step in (-1, 1):
                at = values.index(best[key]) + step
                while 0 <= at < len(values) and score(best | {key: values[at]}) > score(best):
                    best = best | {key: values[at]}
                    at += step
    ahead = sorted(found, key=lambda key: -found[key])[:FINALISTS]
    for at in range(1, FOLDS):
        for _, text in ahead:
            score(json.loads(text), at)
    means = {text: np.mean([found[at, text] for at in range(FOLDS)]) for _, text in ahead}
    say(f"best of {name}: {max(means, key=lambda text: means[text])}")


def narrowed(bundle: Bundle, rank: int, ideal: float) -> Bundle:
    """Return the graph filter of a lower rank and another weight: one decomposition serves all."""
    from martlet.scorers.table import Table

    tables = bundle.scorer.tables()
    u, largest = tables["factors"].dense(), bundle.lineage[0]["params"]
    weighed = tables["right"].dense() * np.float32(ideal / largest["ideal"])
    tables = {
        **tables,
        "factors": Table.of(np.ascontiguousarray(u[:, :rank])),
        "right": Table.of(weighed),
    }
    return replace(bundle, scorer=bundle.scorer.with_tables(tables))


if __name__ == "__main__":
    main()
