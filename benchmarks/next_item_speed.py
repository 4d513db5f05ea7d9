"""How much sooner than RecBole and RecTools is a sequence model trained on Beauty, epoch by epoch?

The same histories, hyper-parameters, loss (softmax over the whole catalogue) and targets a step.
RecBole makes a row of every prefix of a history and runs the network over each, padded to 50;
Martlet runs it once over a history and takes every place as a row of the loss. So both see the same
131,413 targets an epoch. RecTools, too, runs once over a history, padded to 50, but reads no more
than the last 51 events of each, so its epoch holds fewer targets (``rows``). Validation is not in
the seconds, nor is the reading of the log.

``--record N`` trains a peer (``--library``) until its validation has not risen for ten epochs, N at
most, and appends a line an epoch to ``results/next_item_curve.jsonl``; it goes on where it was
stopped.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
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
PATIENCE = 10
# RecBole's own defaults; its NextItNet makes ten blocks of "five". The name is that of the peers.
MODELS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "sasrec": ("SASRec", {"dim": 64, "blocks": 2, "heads": 2, "inner": 4, "dropout": 0.5}),
    "gru4rec": ("GRU4Rec", {"dim": 64, "hidden": 128, "layers": 1, "dropout": 0.3}),
    "nextitnet": ("NextItNet", {"dim": 64, "blocks": 10, "kernel": 3, "cycle": 2, "dropout": 0.0}),
}
PEERS: Mapping[str, Sequence[str]] = {"recbole": tuple(MODELS), "rectools": ("sasrec",)}


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=1, add=("model", "record", "library"))
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
    """Time single epochs of each, in turn."""
    params = settings(model)
    mine = (folder / "dataset", model, json.dumps(params), str(chosen.seed))
    found: dict[str, list[dict[str, Any]]] = {}

    def keep(who: str, answer: dict[str, Any]) -> float:
        found.setdefault(who, []).append(answer)
        seconds = float(answer.get("train_s", answer["seconds"]))
        say(f"  {who}: {seconds:.1f} s, loss {answer['loss']:.4f}")
        return seconds

    with ExitStack() as stack:
        ours = stack.enter_context(Peer(sys.executable, "epoch_martlet.py", *mine))
        peers = {
            library: stack.enter_context(started)
            for library in PEERS
            if not chosen.tiny and (started := start(library, model, folder, chosen))
        }
        asked = {
            who: lambda who=who, peer=peer: keep(who, peer.ask(task="train"))  # type: ignore[misc]
            for who, peer in peers.items()
        }
        ours.ask()  # a first epoch loads libraries and fills caches
        variants = {"martlet": lambda: keep("martlet", ours.ask()), **asked}
        seconds = interleave(variants, chosen.rounds)
        for who, peer in peers.items():
            found[who][-1]["figures"] = peer.ask(task="valid")["figures"]
    targets = int(np.maximum(dataset.train.histories.lengths - 1, 0).sum())
    if "recbole" in found:
        assert found["recbole"][0]["rows"] == targets, "an epoch of RecBole holds other targets"
    for who in peers:
        ratio = summary(seconds[who])["median"] / summary(seconds["martlet"])["median"]
        rows = found[who][0]["rows"]
        say(f"{model}: {targets:,} targets, {ratio:.1f} times as fast as {who} with {rows:,}")
    about = {
        "model": model,
        "params": params,
        "targets": targets,
        "seconds": seconds,
        "epochs": found,
    }
    record("next_item_speed", about, chosen)


def settings(model: str) -> dict[str, Any]:
    """Return Martlet's hyper-parameters, the same as the peers'."""
    return MODELS[model][1] | {"tokens": BATCH, "max_length": 50}


def start(library: str, model: str, folder: Path, chosen: Namespace) -> Peer | None:
    """Return a peer at work on the log in ``folder``; None where it cannot be had."""
    python = peer_python(library)
    if python is None or model not in PEERS[library]:
        return None
    script, name = f"epoch_{library}.py", MODELS[model][0]
    return Peer(python, script, folder, name, str(BATCH), str(chosen.seed))


def keep_curve(model: str, folder: Path, wanted: int, chosen: Namespace) -> None:
    """Train a peer epoch by epoch, going on after the last one that was recorded."""
    library = chosen.library or "recbole"
    kept = ROOT / ".venv-peers" / "curves" / f"{model}-{chosen.seed}.pth"
    if library != "recbole":
        kept = kept.with_stem(f"{library}-{kept.stem}")
    kept.parent.mkdir(exist_ok=True)
    done = curve(chosen.results, model, library, chosen.seed)
    peer = start(library, model, folder, chosen)
    if peer is None:
        raise SystemExit(
            f"{library} has no {model}, or is not installed: make .venv-peers/{library} of "
            f"benchmarks/peers/{library}.txt"
        )
    with peer:
        if done:
            peer.ask(task="resume", path=str(kept))
        for epoch in range(len(done), wanted):
            if ended([line["valid"]["ndcg@10"] for line in done]):
                say(f"{library}'s {model} has not risen for {PATIENCE} epochs")
                break
            spent = peer.ask(task="train", epoch=epoch)
            figures = peer.ask(task="valid")["figures"]
            peer.ask(task="save", epoch=epoch, path=str(kept))
            line = {"model": model, "library": library, "epoch": epoch + 1, **spent}
            record("next_item_curve", line | {"valid": figures}, chosen)
            done.append(line | {"valid": figures})


def curve(results: Path, model: str, library: str, seed: int) -> list[dict[str, Any]]:
    """Return the recorded epochs of a peer, in order."""
    ledger = results / "next_item_curve.jsonl"
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    wanted = {"model": model, "library": library, "seed": seed}
    return [one for one in map(json.loads, lines) if wanted.items() <= one.items()]


def ended(figures: Sequence[float]) -> bool:
    """Whether the best of a curve is as many epochs back as patience allows."""
    return len(figures) > PATIENCE and max(figures[-PATIENCE:]) <= max(figures[:-PATIENCE])


if __name__ == "__main__":
    main()
