"""How good are the cheap models on gowalla, what do they cost to train, and is the graph filter in?

The published split (29,858 users x 40,981 items), the whole catalogue, per-user Recall@20 and
NDCG@20 as LightGCN defines them. ``--tune`` searches each model's hyper-parameters on a validation
part (a seeded tenth of each user's training events), one parameter after the other, and writes to
``results/gowalla_tune.jsonl``; what it found stands in ``CHOSEN``. Without it each model is fitted
on all of train and measured once on test, in a process of its own, compiled code warm.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from _common import ROOT, data, options, record, say, scratch
from martlet.core import Dataset, Interactions, Vocabulary, rng

K = 20
TUNED_ON = 10_000  # users
FLOOR = {"recall@20": 0.1860, "ndcg@20": 0.1530}  # of the graph filter

# Best of --tune, by NDCG@20 on the validation part.
CHOSEN: dict[str, dict[str, Any]] = {
    "popularity": {},
    "item-knn": {"neighbours": 1000},
    "ease": {"neighbours": 200, "reg": 10.0, "user_exponent": 0.25},
    "gfcf": {"rank": 256, "ideal": 0.2, "keep": 1000},
    "ials": {"dim": 128, "unobserved_weight": 0.02, "reg": 0.002},
}
# Each parameter in turn, the others at the best so far; the first value starts.
GRIDS: dict[str, dict[str, list[Any]]] = {
    "item-knn": {
        "neighbours": [400, 200, 1000],
        "weighting": ["none", "tf-idf", "bm25"],
        "exponent": [1.0, 0.75, 0.5],
        "shrink": [10.0, 0.0, 3.0, 30.0],
    },
    "ease": {
        "neighbours": [200],
        "user_exponent": [0.25, 0.4, 0.5],
        "reg": [10.0, 5.0, 15.0],
    },
    "gfcf": {
        "keep": [1000],
        "rank": [256],
        "ideal": [0.3, 0.2, 0.4],
    },
    "ials": {
        "dim": [128],
        "unobserved_weight": [0.02, 0.05, 0.01, 0.005],
        "reg": [0.002, 0.005, 0.001],
    },
}


def main() -> None:
    chosen = options(__doc__.splitlines()[0], add=("tune", "one"))
    if chosen.one:
        print(json.dumps(one(**json.loads(chosen.one))))
        return
    with scratch() as folder:
        dataset = tiny(chosen.seed) if chosen.tiny else gowalla(chosen.data, chosen.seed)
        if chosen.tune:
            for name in GRIDS if chosen.tune == "all" else [chosen.tune]:
                tune(name, dataset, chosen)
            return
        dataset.with_valid_in_train().save(folder / "dataset")
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


def gowalla(folder: Path | None, seed: int) -> Dataset:
    import martlet as mt

    train, test = (data(folder, "gowalla", f"{part}.parquet") for part in ("train", "test"))
    return mt.prepare(mt.read(train), clean=(), split=mt.GivenSplit(test, valid=0.1), seed=seed)


def tiny(seed: int) -> Dataset:
    """Users and items of three tastes, the more popular items first."""
    random = rng(seed, "gowalla", "tiny")
    taste = np.arange(300)[:, None] % 3 == np.arange(120) % 3
    met = random.random(taste.shape) < np.where(taste, 0.3, 0.03) * np.linspace(1.5, 0.5, 120)
    user, item = np.nonzero(met)
    whole = Interactions.sort(user, item, num_users=300, num_items=120)
    draw = random.random(len(whole))
    parts = [whole.select((draw >= low) & (draw < low + size)) for low, size in PARTS]
    return Dataset(Vocabulary.of(range(300)), Vocabulary.of(range(120)), *parts)


PARTS = (0.3, 0.7), (0.2, 0.1), (0.0, 0.2)


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
    """Search one parameter after the other on the validation part; a line each trial."""
    from martlet.measure.quality import evaluate
    from martlet.models.fit import fit
    from martlet.models.registry import spec

    best = {key: values[0] for key, values in GRIDS[name].items()}
    some = rng(chosen.seed, "gowalla", "tune").permutation(dataset.num_users)[:TUNED_ON]
    scores: dict[str, float] = {}
    for key, values in GRIDS[name].items():
        for value in values:
            params = best | {key: value}
            if chosen.tiny:
                params |= shrunk(params)
            text = json.dumps(params)
            if text in scores:
                continue
            begin = time.perf_counter()
            bundle = fit(spec(name, **params), dataset, seed=chosen.seed)
            fit_s = time.perf_counter() - begin
            figures = evaluate(bundle, dataset, part="valid", ks=(K,), users=some).figures
            scores[text] = figures["ndcg@20"]
            say(f"{name} {text} {dict(figures)} {fit_s:.1f} s")
            line = {"model": name, "params": params, "fit_s": fit_s, "part": "valid", **figures}
            record("gowalla_tune", line, chosen)
        best = json.loads(max(scores, key=lambda text: scores[text]))
    say(f"best of {name}: {best}")


if __name__ == "__main__":
    main()
