"""How much sooner is a model good that starts from one of an earlier period, pretraining told?

ml-1m in order of time: SASRec is trained on the first 60% of all ratings, once. The rest is a log
of its own, with its own users' histories, of which the last event is the test and the one before
it the validation. It is trained on from nothing, and from the earlier model three ways: its vectors
by id and the others from titles and genres; by id alone; from titles and genres alone, as if no
film were known (every id is renamed). Seconds are those of training, without validation, until the
best validation NDCG@10 of the start from nothing is reached; the pretraining's stand beside.

A start and seed that has a line in ``results/transfer.jsonl`` is not run again.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import martlet as mt
from _common import ROOT, options, record, say, scratch
from families import movielens
from families import tiny as tiny_log
from martlet.core import Dataset, Vocabulary
from martlet.data import LastOut, prepare
from martlet.models.sasrec import SASRec
from martlet.scorers.bundle import Bundle

EARLIER = 0.6  # of all events
PARAMS = {"tokens": 4096, "max_length": 50, "dropout": 0.2, "rate": 0.001}
PRETRAIN = PARAMS | {"epochs": 10, "patience": 2}
TRAIN = PARAMS | {"epochs": 20, "patience": 4}
TINY = {"tokens": 256, "dim": 8, "epochs": 2, "max_length": 10}
STARTS = ("nothing", "id and columns", "id", "columns")
SEEDS = (0, 1, 2)


def main() -> None:
    chosen = options(__doc__.splitlines()[0], add=("start",))
    with scratch() as folder:
        whole = tiny_log(chosen.seed) if chosen.tiny else movielens(chosen.data)
        earlier, later = periods(whole)
        say(f"earlier: {len(earlier.train):,} events, later: {len(later.train):,}")
        kept = folder if chosen.tiny else ROOT / ".venv-peers" / "transfer"
        bundle = pretrained(earlier, kept, chosen)
        done = lines(chosen.results)
        for seed in SEEDS[:1] if chosen.tiny else SEEDS:
            for start in [chosen.start] if chosen.start else STARTS:
                if (start, seed) not in done:
                    train(start, seed, bundle, later, folder, chosen)
    if not chosen.tiny:
        tell_times(lines(chosen.results))


def periods(whole: Dataset) -> tuple[Dataset, Dataset]:
    """Return the log before and after the moment by which ``EARLIER`` of it had happened."""
    log = whole.before("test").union(whole.test)
    assert log.time_s is not None
    cut = np.quantile(log.time_s, EARLIER)
    found = []
    for part in (log.time_s <= cut, log.time_s > cut):
        rows = np.flatnonzero(part)
        users, items = (
            np.array(vocabulary.names(np.arange(len(vocabulary))))
            for vocabulary in (whole.users, whole.items)
        )
        columns = {
            "user": users[log.user_row[rows]],
            "item": items[log.item_row[rows]],
            "time": log.time_s[rows],
        }
        made = prepare(columns, clean=(), split=LastOut())
        back = whole.items.rows(made.items.names(np.arange(made.num_items)))
        found.append(replace(made, catalogue={n: c.take(back) if hasattr(c, "take") else c[back]
                                              for n, c in whole.catalogue.items()}))  # fmt: skip
    return found[0], found[1]


def pretrained(earlier: Dataset, kept: Path, chosen: Namespace) -> Bundle:
    """Return the model of the earlier period, kept from a run before or fitted now."""
    place = kept / "earlier"
    if (place / "manifest.json").exists():
        return mt.load(place)
    spec = SASRec(**PRETRAIN | (TINY if chosen.tiny else {}))
    bundle, curve = fitted(spec, earlier, 0, None, kept)
    record(
        "transfer", {"start": "pretraining", "of_seed": 0, **told(bundle, earlier, curve)}, chosen
    )
    bundle.save(place)
    return bundle


def train(
    start: str, seed: int, bundle: Bundle, later: Dataset, folder: Path, chosen: Namespace
) -> None:
    """Train on the later period from one start, and record the curve."""
    init: Bundle | None = bundle
    if start == "nothing":
        init = None
    elif start == "id":
        later = replace(later, catalogue={})
    elif start == "columns":
        strange = [f"new {name}" for name in later.items.names(np.arange(later.num_items))]
        later = replace(later, items=Vocabulary.of(strange))
    spec = SASRec(**TRAIN | (TINY if chosen.tiny else {}))
    fit, curve = fitted(spec, later, seed, init, folder / f"{start}-{seed}")
    figures = told(fit, later, curve)
    say(f"from {start}, seed {seed}: {len(curve)} epochs, {figures['test']}")
    record("transfer", {"start": start, "of_seed": seed, **figures}, chosen)


def fitted(
    spec: SASRec, dataset: Dataset, seed: int, init: Bundle | None, folder: Path
) -> tuple[Bundle, list[dict[str, Any]]]:
    """Return the bundle, and what the log says of each epoch."""
    bundle = mt.fit(spec, dataset, seed=seed, init=init, run=mt.Run(folder, every_s=0))
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return bundle, [line for line in log if "epoch" in line]


def told(bundle: Bundle, dataset: Dataset, curve: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    quality = {part: mt.evaluate(bundle, dataset, part=part).figures for part in ("valid", "test")}
    params = bundle.lineage[0]["params"]
    return {"params": params, "events": len(dataset.train), **quality, "curve": list(curve)}


def lines(results: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the newest line of each start and seed."""
    path = results / "transfer.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {(line["start"], line["of_seed"]): line for line in found}


def tell_times(done: Mapping[tuple[str, int], Mapping[str, Any]]) -> None:
    """Say how long each start takes to the best validation figure of the start from nothing."""
    before = done.get(("pretraining", 0))
    spent = sum(epoch["seconds"] for epoch in before["curve"]) if before else float("nan")
    for (start, seed), line in done.items():
        cold = done.get(("nothing", seed))
        if cold is None or start == "pretraining":
            continue
        goal = max(epoch["figure"] for epoch in cold["curve"])
        seconds = seconds_to(line["curve"], goal)
        words = "never" if seconds is None else f"{seconds:.0f} s"
        more = "" if start == "nothing" else f" after {spent:.0f} s of pretraining"
        say(f"from {start}, seed {seed}: {words}{more}; test {line['test']['ndcg@10']:.4f}")


def seconds_to(curve: Sequence[Mapping[str, Any]], goal: float) -> float | None:
    spent = 0.0
    for epoch in curve:
        spent += epoch["seconds"]
        if epoch["figure"] >= goal:
            return spent
    return None


if __name__ == "__main__":
    main()
