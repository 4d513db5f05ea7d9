"""How much sooner than RecBole is a sequence model trained on Beauty, and what does an epoch hold?

The same histories, hyper-parameters, loss (softmax over the whole catalogue) and targets a step.
RecBole makes a row of every prefix of a history and runs the network over each, padded to 50;
Martlet runs it once over a history and takes every place as a row of the loss. So both see the same
131,413 targets an epoch. Validation is not in the seconds.

``--record N`` trains RecBole for N epochs and appends a line an epoch to
``results/next_item_curve.jsonl``; it goes on where it was stopped.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from _common import (
    ROOT,
    Peer,
    data,
    interleave,
    options,
    peer_python,
    record,
    say,
    scratch,
    summary,
)
from martlet.core import Dataset
from martlet.data import LastOut, prepare
from martlet.data.synthetic import synthesize

BATCH = 2048
# RecBole's own defaults; its NextItNet makes ten blocks of "five".
MODELS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "sasrec": ("SASRec", {"dim": 64, "blocks": 2, "heads": 2, "inner": 4, "dropout": 0.5}),
    "gru4rec": ("GRU4Rec", {"dim": 64, "hidden": 128, "layers": 1, "dropout": 0.3}),
    "nextitnet": ("NextItNet", {"dim": 64, "blocks": 10, "kernel": 3, "cycle": 2, "dropout": 0.0}),
}


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=1, add=("model", "record"))
    models = [chosen.model] if chosen.model else list(MODELS)
    with scratch() as folder:
        dataset = tiny(chosen.seed) if chosen.tiny else beauty(chosen.data)
        dataset.save(folder / "dataset")
        write_atomic(dataset, folder / "log")
        for model in models:
            if chosen.record:
                keep_curve(model, folder, int(chosen.record), chosen)
            else:
                epochs(model, folder, dataset, chosen)


def beauty(given: Path | None) -> Dataset:
    return prepare(data(given, "beauty", "sequences.txt"), clean=(), split=LastOut())


def tiny(seed: int) -> Dataset:
    log = synthesize(num_users=150, num_items=60, num_events=3000, seed=seed)
    columns = {"user": log.user_row, "item": log.item_row, "time": log.time_s}
    return prepare(columns, split=LastOut())


def write_atomic(dataset: Dataset, folder: Path) -> None:
    """Write the whole log for RecBole, the order of a user's events as the time."""
    folder.mkdir()
    whole = dataset.before("test").union(dataset.test)
    order = np.arange(len(whole))
    rows = np.stack([whole.user_row, whole.item_row, order], 1)
    head = "user_id:token\titem_id:token\ttimestamp:float"
    np.savetxt(folder / "log.inter", rows, "%d", "\t", header=head, comments="")


def epochs(model: str, folder: Path, dataset: Dataset, chosen: Namespace) -> None:
    """Time single epochs of both, in turn."""
    name, params = MODELS[model]
    params = params | {"tokens": BATCH, "max_length": 50}
    mine = (folder / "dataset", model, json.dumps(params), str(chosen.seed))
    theirs = (folder, name, str(BATCH), str(chosen.seed))
    found: dict[str, list[dict[str, Any]]] = {}
    with Peer(sys.executable, "epoch_martlet.py", *mine) as ours:
        variants = {"martlet": lambda: keep("martlet", ours.ask(), "train_s")}
        python = None if chosen.tiny else peer_python("recbole")
        if python is not None:
            recbole = Peer(python, "epoch_recbole.py", *theirs)
            variants["recbole"] = lambda: keep("recbole", recbole.ask(task="train"), "seconds")

        def keep(who: str, answer: dict[str, Any], seconds: str) -> float:
            found.setdefault(who, []).append(answer)
            say(f"  {who}: {answer[seconds]:.1f} s, loss {answer['loss']:.4f}")
            return float(answer[seconds])

        ours.ask()  # a first epoch loads libraries and fills caches
        seconds = interleave(variants, chosen.rounds)
        if python is not None:
            found["recbole"][0]["figures"] = recbole.ask(task="valid")["figures"]
            recbole.__exit__(None, None, None)
    targets = int(np.maximum(dataset.train.histories.lengths - 1, 0).sum())
    if "recbole" in found:
        assert found["recbole"][0]["rows"] == targets, "an epoch of RecBole holds other targets"
        ratio = summary(seconds["recbole"])["median"] / summary(seconds["martlet"])["median"]
        say(f"{model}: an epoch of {targets:,} targets {ratio:.1f} times sooner")
    about = {
        "model": model,
        "params": params,
        "targets": targets,
        "seconds": seconds,
        "epochs": found,
    }
    record("next_item_speed", about, chosen)


def keep_curve(model: str, folder: Path, wanted: int, chosen: Namespace) -> None:
    """Train RecBole epoch by epoch, going on after the last one that was recorded."""
    python = peer_python("recbole")
    if python is None:
        raise SystemExit("RecBole is not installed: make .venv-peers/recbole of benchmarks/peers")
    kept = ROOT / ".venv-peers" / "curves" / f"{model}-{chosen.seed}.pth"
    kept.parent.mkdir(exist_ok=True)
    ledger = chosen.results / "next_item_curve.jsonl"
    lines = (
        [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    )
    done = [one for one in lines if one["model"] == model and one["seed"] == chosen.seed]
    with Peer(python, "epoch_recbole.py", folder, MODELS[model][0], BATCH, chosen.seed) as recbole:
        if done:
            recbole.ask(task="resume", path=str(kept))
        for epoch in range(len(done), wanted):
            spent = recbole.ask(task="train", epoch=epoch)
            figures = recbole.ask(task="valid")["figures"]
            recbole.ask(task="save", epoch=epoch, path=str(kept))
            line = {"model": model, "library": "recbole", "epoch": epoch + 1, **spent}
            record("next_item_curve", line | {"valid": figures}, chosen)


if __name__ == "__main__":
    main()
