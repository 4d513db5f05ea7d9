"""How good do sequence models become on Beauty, trained until validation no longer rises?

The last event of a user is the test, the one before it the validation; the whole catalogue is
ranked, what was met before left out. Popularity, item-kNN and iALS stand beside them. A line a
model and seed; ``--model`` and ``--seed`` take one.

``--tune`` trains SASRec with other settings of the training, the network the same, never asks for
the test, and writes a line each to ``results/next_item_tune.jsonl``; ``--only NAME`` takes one.
"""

from __future__ import annotations

import json
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import martlet as mt
from _common import options, record, say
from martlet.core import Dataset
from martlet.models.fit import accepts
from martlet.models.registry import spec
from next_item_speed import beauty, tiny

COMMON = {"tokens": 2048, "max_length": 50, "epochs": 300, "patience": 10}
MODELS: Mapping[str, Mapping[str, Any]] = {
    "popularity": {},
    "item-knn": {"neighbours": 1000, "weighting": "tf-idf", "exponent": 0.75},
    "ials": {"dim": 256},
    "sasrec": COMMON,
    "gru4rec": COMMON,
    "nextitnet": COMMON | {"blocks": 10, "dropout": 0.5},
    "hstu": COMMON | {"dropout": 0.5},
}
# Tried by --tune. The rate falls to 0 over all epochs, so none of them ends early.
FALLING = {"schedule": "cosine", "warmup": 0.02, "patience": 0}
SHORT = {"schedule": "cosine", "tokens": 1024, "rate": 0.003, "patience": 50}  # keeps the best
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "falling": FALLING | {"epochs": 60},
    "falling, decay": FALLING | {"epochs": 60, "optimizer": "adamw", "weight_decay": 0.1},
    "falling, twice the rate": FALLING | {"epochs": 40, "rate": 0.002},
    "falling, small batches": FALLING | {"epochs": 40, "tokens": 1024},
    "short": SHORT | {"epochs": 20, "dropout": 0.2},
    "short, dropout .3": SHORT | {"epochs": 24, "dropout": 0.3},
    "short, dropout .5": SHORT | {"epochs": 40, "dropout": 0.5},
}
TINY = {"tokens": 256, "epochs": 2, "dim": 8, "max_length": 10}


def main() -> None:
    chosen = options(__doc__.splitlines()[0], add=("model", "only"), flags=("tune",))
    dataset = tiny(chosen.seed) if chosen.tiny else beauty(chosen.data)
    small = TINY if chosen.tiny else {}
    if chosen.tune:
        for name in [chosen.only] if chosen.only else SETTINGS:
            params = {**MODELS["sasrec"], **SETTINGS[name], **small}
            found = measure("sasrec", params, dataset, ("valid",), chosen)
            record("next_item_tune", {"setting": name} | found, chosen)
        return
    for model in [chosen.model] if chosen.model else MODELS:
        params = {**MODELS[model], **(small if "tokens" in MODELS[model] else {})}
        found = measure(model, params, dataset, ("valid", "test"), chosen)
        record("next_item_quality", found, chosen)


def measure(
    model: str, params: dict[str, Any], dataset: Dataset, parts: Sequence[str], chosen: Namespace
) -> dict[str, Any]:
    """Fit, and return cost, quality on the parts, and curve."""
    one = spec(model, **params)
    curve: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        given = {"run": mt.Run(Path(folder), progress=tell)} if "run" in accepts(one) else {}
        begin, cpu = time.perf_counter(), time.process_time()
        bundle = mt.fit(one, dataset, seed=chosen.seed, **given)
        spent = {"fit_s": time.perf_counter() - begin, "fit_cpu_s": time.process_time() - cpu}
        log = Path(folder) / "log.jsonl"
        if log.exists():
            curve = [json.loads(line) for line in log.read_text().splitlines()[1:]]
    figures = {
        part: mt.evaluate(bundle, dataset, part=part, metrics=("recall", "ndcg")).figures
        for part in parts
    }
    say(f"{model}, {len(curve)} epochs, {spent['fit_s']:.0f} s: {figures[parts[-1]]}")
    return {"model": model, "params": params, **spent, **figures, "curve": curve}


def tell(step: str, done: int, total: int) -> None:
    if done % 500 == 0:
        say(f"  {step} ({done} of {total} steps)")


if __name__ == "__main__":
    main()
