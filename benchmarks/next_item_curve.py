"""How long until Martlet is as good on Beauty as RecBole and RecTools ever become, and they?

The measure is the best NDCG@10 of a peer's validation curve, which ``next_item_speed.py --record``
keeps. Martlet is trained on the same histories with the same hyper-parameters, three seeds, until
its own validation has not risen for ten epochs; a seed that has a line, here or in that of
``next_item_quality.py``, is not trained again.

A curve is recorded beside other work, so its seconds mean nothing: the time of both is a number of
epochs times the seconds of a quiet epoch, from the interleaved rounds of ``next_item_speed.py``.
Validation is in neither. ``ended`` says whether the peer's curve had stopped rising, or was cut; a
curve that was cut has not shown its best yet.
"""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import martlet as mt
from _common import options, record, say, summary
from martlet.core import Dataset
from martlet.models.registry import spec
from next_item_speed import PATIENCE, PEERS, beauty, curve, ended, settings, tiny

SEEDS = (0, 1, 2)
LONGEST = {"epochs": 300, "patience": PATIENCE}
TINY = {"tokens": 256, "epochs": 3, "dim": 8, "max_length": 10}


def main() -> None:
    chosen = options(__doc__.splitlines()[0], add=("model",))
    model = chosen.model or "sasrec"
    params = settings(model) | LONGEST | (TINY if chosen.tiny else {})
    dataset = tiny(chosen.seed) if chosen.tiny else beauty(chosen.data)
    ours = [one(model, params, dataset, seed, chosen) for seed in SEEDS]
    if chosen.tiny:  # no peer's curve is recorded: a first epoch stands in for one
        peers = {"peer": ([ours[0][0]["figure"]], {"peer": 2.0, "martlet": 1.0})}
    else:
        peers = recorded(model, chosen)
    found = {library: compare(ours, *peer, library) for library, peer in peers.items()}
    record("next_item_curve", {"model": model, "params": params, "compared": found}, chosen)


def one(
    model: str, params: dict[str, Any], dataset: Dataset, seed: int, chosen: Namespace
) -> list[dict[str, Any]]:
    """Return Martlet's epochs with a seed: those that are recorded, or of a training now."""
    lines = ledger(chosen.results / "next_item_quality.jsonl")
    lines += ledger(chosen.results / "next_item_curve.jsonl")
    wanted, same = ("martlet", model, seed), spec(model, **params)
    for line in reversed(lines):
        known = line.get("library", "martlet"), line.get("model"), line["seed"]
        if known == wanted and line.get("curve") and spec(model, **line["params"]) == same:
            return line["curve"]  # type: ignore[no-any-return]
    with tempfile.TemporaryDirectory() as folder:
        say(f"{model}, seed {seed}")
        mt.fit(spec(model, **params), dataset, seed=seed, run=mt.Run(Path(folder)))
        log = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    epochs = [line for line in log if "epoch" in line]
    about = {"model": model, "library": "martlet", "params": params, "curve": epochs}
    record("next_item_curve", about, Namespace(**(vars(chosen) | {"seed": seed})))
    return epochs


def recorded(model: str, chosen: Namespace) -> dict[str, tuple[list[float], dict[str, float]]]:
    """Return each peer's curve, and the quiet seconds of its epoch and ours, in the same rounds."""
    found = {}
    for library in PEERS:
        points = curve(chosen.results, model, library, chosen.seed)
        rounds = [
            line["seconds"]
            for line in ledger(chosen.results / "next_item_speed.jsonl")
            if line["model"] == model and library in line["seconds"]
        ]
        if not points or not rounds:
            say(f"{library}: no {'curve' if not points else 'quiet epoch'} of {model} is recorded")
            continue
        quiet = {who: summary(rounds[-1][who])["median"] for who in (library, "martlet")}
        found[library] = [point["valid"]["ndcg@10"] for point in points], quiet
    return found


def compare(
    ours: Sequence[Sequence[dict[str, Any]]],
    theirs: Sequence[float],
    quiet: dict[str, float],
    library: str,
) -> dict[str, Any]:
    """Return epochs and quiet seconds to the peer's best figure, of it and of each of our seeds.

    Args:
        ours: the epochs of each seed.
        theirs: the peer's figure, an epoch each.
        quiet: seconds of an epoch, "martlet" and the peer.
        library: the peer.
    """
    best = max(theirs)
    epochs = theirs.index(best) + 1
    seconds = epochs * quiet[library]
    reached = [first([epoch["figure"] for epoch in seed], best) for seed in ours]
    ratios = [seconds / (at * quiet["martlet"]) for at in reached if at is not None]
    over = ended(theirs)
    say(
        f"{library}: {best:.4f} after {epochs} epochs, {seconds:.0f} s "
        f"({'ended' if over else 'cut'} after {len(theirs)})"
    )
    for seed, at in enumerate(reached):
        say(
            f"  martlet, seed {seed}: never"
            if at is None
            else f"  martlet, seed {seed}: {at} epochs, {at * quiet['martlet']:.0f} s, "
            f"{seconds / (at * quiet['martlet']):.1f} times sooner"
        )
    return {
        "best": best,
        "epochs": epochs,
        "recorded": len(theirs),
        "ended": over,
        "quiet_s": quiet,
        "seconds": seconds,
        "our_epochs": reached,
        "our_seconds": [None if at is None else at * quiet["martlet"] for at in reached],
        # As the run itself told them: right where it had the machine to itself.
        "our_own_seconds": [
            None if at is None else sum(epoch["seconds"] for epoch in seed[:at])
            for seed, at in zip(ours, reached, strict=True)
        ],
        "ratio": summary(ratios) if ratios else None,
    }


def first(figures: Sequence[float], target: float) -> int | None:
    """Return after how many epochs the figure is at the target, None where it never is."""
    return next((epoch for epoch, value in enumerate(figures, 1) if value >= target), None)


def ledger(path: Path) -> list[dict[str, Any]]:
    """Return the raw lines of a file, none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    main()
