"""How good do sequence models become on Beauty, trained until validation no longer rises?

The last event of a user is the test, the one before it the validation; the whole catalogue is
ranked, what was met before left out. Popularity, item-kNN and iALS stand beside them. A line a
model and seed; ``--model`` and ``--seed`` take one.
"""

from __future__ import annotations

import json
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping
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
TINY = {"tokens": 256, "epochs": 2, "dim": 8, "max_length": 10}


def main() -> None:
    chosen = options(__doc__.splitlines()[0], add=("model",))
    dataset = tiny(chosen.seed) if chosen.tiny else beauty(chosen.data)
    for model in [chosen.model] if chosen.model else MODELS:
        params = dict(MODELS[model])
        if chosen.tiny and "tokens" in params:
            params |= TINY
        measure(model, params, dataset, chosen)


def measure(model: str, params: dict[str, Any], dataset: Dataset, chosen: Namespace) -> None:
    """Fit, and record quality, curve and cost."""
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
        for part in ("valid", "test")
    }
    say(f"{model}, {len(curve)} epochs, {spent['fit_s']:.0f} s: {figures['test']}")
    about = {"model": model, "params": params, **spent, **figures, "curve": curve}
    record("next_item_quality", about, chosen)


def tell(step: str, done: int, total: int) -> None:
    if done % 500 == 0:
        say(f"  {step} ({done} of {total} steps)")


if __name__ == "__main__":
    main()
