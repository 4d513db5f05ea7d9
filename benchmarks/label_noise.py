"""What do weights, clipped, truncated and reweighted losses save when training events are wrong?

The head of Beauty: the 4,000 items met most, users with five events of them at least. A share of
the train events is replaced by items drawn evenly; validation and test stay as they are, the last
two events of each user. SASRec is trained with each option, over 3 seeds, without and with the
wrong events. The weights that ``weighted`` reads are made up, as no real log tells which events are
wrong: a fifth for those that are said to be wrong, and of each event what is said is right in four
cases of five. Strengths were not chosen beforehand: compare them by the validation part, and report
the test of what is best there. The differences to no option are paired, over users of the mean over
seeds.

A line that is in ``results/label_noise.jsonl`` is not run again. ``--wrong .2`` takes one share.
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import martlet as mt
from _common import ROOT, options, record, say, scratch
from martlet.core import Dataset, rng
from martlet.data import LastOut, prepare
from martlet.metrics import paired_bootstrap
from martlet.models.sasrec import SASRec
from next_item_speed import beauty
from next_item_speed import tiny as tiny_log

PARAMS = {
    "dim": 48,
    "blocks": 1,
    "tokens": 1024,
    "max_length": 50,
    "dropout": 0.2,
    "rate": 0.003,
    "schedule": "cosine",
    "epochs": 20,
    "patience": 20,  # never early; the best epoch by validation is kept
}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "clipped at 9": {"clip_loss": 9.0},
    "clipped at 11": {"clip_loss": 11.0},
    "truncated by .1": {"drop_share": 0.1},
    "truncated by .2": {"drop_share": 0.2},
    "reweighted by .05": {"relax": 0.05},
    "reweighted by .1": {"relax": 0.1},
    "weighted": {"weighted": True},
}
WRONG = (0.0, 0.2)
SEEDS = (0, 1, 2)
HEAD, FEWEST = 4000, 5
PARTS = ("valid", "test")


def main() -> None:
    chosen = options(__doc__.splitlines()[0], add=("wrong", "option"))
    whole = tiny_log(chosen.seed) if chosen.tiny else head(beauty(chosen.data))
    say(f"{len(whole.train):,} train events, {whole.num_items:,} items")
    shares = (float(chosen.wrong),) if chosen.wrong else WRONG
    with scratch() as folder:
        kept = folder if chosen.tiny else ROOT / ".venv-peers" / "label_noise"
        kept.mkdir(parents=True, exist_ok=True)
        done = [] if chosen.tiny else lines(chosen.results)
        for seed in SEEDS[:1] if chosen.tiny else SEEDS:
            for wrong in shares:
                dataset = spoiled(whole, wrong, seed)
                for name in [chosen.option] if chosen.option else OPTIONS:
                    if (name, wrong, seed) not in done:
                        train(name, wrong, seed, dataset, whole, kept, chosen)
        for wrong in shares:
            compare(wrong, kept, SEEDS[:1] if chosen.tiny else SEEDS, chosen)


def head(whole: Dataset) -> Dataset:
    """Return the log of the items met most, and of users with enough events of them."""
    log = whole.before("test").union(whole.test)
    keep = log.item_row < HEAD
    count = np.bincount(log.user_row[keep], minlength=whole.num_users)
    keep &= count[log.user_row] >= FEWEST
    users, items = log.user_row[keep], log.item_row[keep]
    columns = {"user": users, "item": items, "time": np.arange(len(users))}
    return prepare(columns, clean=(), split=LastOut())


def spoiled(dataset: Dataset, share: float, seed: int) -> Dataset:
    """Return the dataset with a share of its train events replaced, and weights that say so."""
    train, stream = dataset.train, rng(seed, "label noise")
    wrong = stream.random(len(train)) < share
    drawn = stream.integers(0, dataset.num_items, len(train))
    items = np.where(wrong, drawn, train.item_row).astype(np.int32)
    said = wrong ^ (stream.random(len(train)) < 0.2)
    weight = np.where(said, 0.2, 1.0).astype(np.float32)
    return replace(dataset, train=replace(train, item_row=items, weight=weight))


def train(
    name: str,
    wrong: float,
    seed: int,
    dataset: Dataset,
    clean: Dataset,
    kept: Path,
    chosen: Namespace,
) -> None:
    """Fit with one option, keep each user's NDCG, and record the means."""
    params = PARAMS | OPTIONS[name]
    if chosen.tiny:
        params |= {"tokens": 256, "epochs": 2, "dim": 8, "max_length": 10}
    begin = time.perf_counter()
    bundle = mt.fit(SASRec(**params), dataset, seed=seed)
    about = {"option": name, "params": params, "wrong": wrong, "of_seed": seed,
             "fit_s": time.perf_counter() - begin}  # fmt: skip
    found = {part: mt.evaluate(bundle, clean, part=part, per_user=True) for part in PARTS}
    values = {part: one.users["ndcg@10"] for part, one in found.items()}
    np.savez(place(kept, name, wrong, seed), **values)
    figures = {part: one.figures for part, one in found.items()}
    say(f"{name}, {wrong:.0%} wrong, seed {seed}: {figures['valid']}")
    record("label_noise", about | figures, chosen)


def compare(wrong: float, kept: Path, seeds: tuple[int, ...], chosen: Namespace) -> None:
    """Record each option's mean over the seeds, and its paired difference to none."""
    means: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name in OPTIONS:
        files = [place(kept, name, wrong, seed) for seed in seeds]
        if all(file.exists() for file in files):
            held = [np.load(file) for file in files]
            means[name] = {part: np.mean([one[part] for one in held], 0) for part in PARTS}
    if "plain" not in means:
        return
    about: dict[str, Any] = {}
    several = len(OPTIONS) - 1
    for name, values in means.items():
        apart = {
            part: paired_bootstrap(means["plain"][part], values[part], comparisons=several)
            for part in PARTS
        }
        about[name] = {
            part: {"ndcg@10": float(values[part].mean()), "to plain": apart[part]} for part in PARTS
        }
        say(f"{wrong:.0%} wrong, {name}: test {values['test'].mean():.4f}, {apart['test']}")
    record("label_noise", {"compared": about, "wrong": wrong, "seeds": list(seeds)}, chosen)


def place(kept: Path, name: str, wrong: float, seed: int) -> Path:
    return kept / f"{name.replace(' ', '-')}-{wrong}-{seed}.npz"


def lines(results: Path) -> list[tuple[str, float, int]]:
    """Return option, share and seed of every line that is there."""
    path = results / "label_noise.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(one["option"], one["wrong"], one["of_seed"]) for one in found if "option" in one]


if __name__ == "__main__":
    main()
