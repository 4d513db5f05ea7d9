"""What do NeuMF, matrix factorization and BPR reach on ncf-ml-1m, how soon, and RecBole how soon?

The protocol of "Neural Collaborative Filtering" (2017): the last event of each user is ranked among
99 given items. Popularity must give the published .4535 and .2543, which proves the metrics. Every
model is fitted on all of train from three seeds and measured on test, with the settings of
``CHOSEN``. They were chosen without test, on the last event of each user's train:

``--tune MODEL``    tries ``GRID`` there, both metrics as their expectation over every draw of 99
                    items, a line a trial in ``results/ncf_tune.jsonl``.
``--speed MODEL``   times epochs of RecBole's NeuMF or BPR and of Martlet's in turn: the same
                    events, sizes, batches and drawn items an epoch. Then it looks for the shortest
                    of some fits of Martlet that reaches the best of RecBole's recorded curve, on
                    the last event of train among 99 items, drawn once, the same for both.
``--record N``      trains RecBole (``--model``) for N epochs, a line an epoch in
                    ``results/ncf_curve.jsonl``; it goes on where it was stopped. Recorded beside
                    other work, its seconds mean nothing: the time to its best is the number of
                    epochs times the seconds of one that ``--speed`` times.

RecBole's BPR moves by Adam, Martlet's by SGD, so that only size, events and items are the same.
"""

from __future__ import annotations

import json
import math
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import ials_ncf
from _common import ROOT, Peer, interleave, options, peer_python, record, say, scratch, summary
from ials_ncf import NEGATIVES, PUBLISHED, WITHIN, dataset_of, measure
from martlet.core import Dataset, Queries, Scorer
from martlet.kernels.unmet import draw_unmet
from martlet.metrics import sampled
from martlet.metrics.sampled import sampled_quality
from martlet.models.bpr import BPR
from martlet.models.ials import IALS
from martlet.models.matrix_factorization import MatrixFactorization
from martlet.models.ncf import NCF
from martlet.models.popularity import Popularity

GOALS = {"neumf": (0.730, 0.447), "mf": (0.729, 0.452), "mf-published": (0.729, 0.452)}
MODELS: Mapping[str, Callable[..., Any]] = {
    "ials": IALS,
    "mf": lambda **params: MatrixFactorization(
        cells="sampled", loss="logistic", optimizer="sgd", biases=True, **params
    ),
    "mf-published": lambda **params: MODELS["mf"](**params),
    "bpr": BPR,
    "neumf": lambda **params: NCF(kind="neumf", patience=0, schedule="cosine", **params),
}
# Best of ``--tune``; that of iALS from ``ials_ncf.py``; "mf-published" has what Rendle et al. state
# in "Neural Collaborative Filtering vs. Matrix Factorization Revisited" (2020).
CHOSEN: Mapping[str, dict[str, Any]] = {
    "ials": ials_ncf.CHOSEN,
    "mf": {"dim": 192, "negatives": 8, "epochs": 96, "rate": 0.012, "reg": 0.007},
    "mf-published": {"dim": 192, "negatives": 8, "epochs": 256, "rate": 0.002, "reg": 0.005},
    "bpr": {"dim": 192, "epochs": 60, "rate": 0.05, "reg": 0.01},
    "neumf": {
        "dim": 128, "inner": 16, "layers": 3, "negatives": 8, "batch": 4096, "epochs": 14,
        "table_rate": 0.01, "reg": 0.006,
    },
}  # fmt: skip
# What is tried in place of the chosen values.
GRID: Mapping[str, list[dict[str, Any]]] = {
    "mf": [
        {"reg": reg, "rate": rate, "epochs": epochs}
        for reg in (0.005, 0.006, 0.007, 0.008, 0.01)
        for rate, epochs in ((0.008, 64), (0.012, 128), (0.016, 96), (0.024, 128))
    ]
    + [{"negatives": 12}, {"dim": 256}, {"dim": 128}],
    "bpr": [
        {"reg": reg, "rate": rate, "epochs": epochs}
        for reg in (0.005, 0.01, 0.02)
        for rate, epochs in ((0.05, 60), (0.02, 120), (0.1, 60))
    ],
    "neumf": [{"dim": dim, "reg": reg} for dim in (64, 128, 192) for reg in (0.005, 0.006, 0.008)]
    + [{"epochs": 10}, {"epochs": 20}, {"inner": 32}, {"dropout": 0.3}, {"negatives": 12}],
}
FINALISTS, SEEDS = 3, 3
# The same sizes, batches and drawn items on both sides; the rates are RecBole's own.
SAME = {"neumf": (64, 64, 4, 2048), "bpr": (64, 0, 1, 2048)}  # dim, inner, drawn, events a batch
FITS = {"neumf": (2, 4, 6, 8, 12), "bpr": (5, 10, 20, 40, 80)}  # epochs


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=3, add=("model", "tune", "speed", "record"))
    load = ials_ncf.tiny if chosen.tiny else ials_ncf.ncf
    dataset, positives, negatives = load(chosen.data, chosen.seed)
    if chosen.record:
        keep_curve(chosen.model or "neumf", dataset, positives, chosen)
    elif chosen.tune:
        tune(chosen.tune, dataset, chosen)
    elif chosen.speed:
        speed(chosen.speed, dataset, positives, chosen)
    else:
        quality(dataset, positives, negatives, chosen)
        if chosen.tiny:
            tune("bpr", dataset, chosen)
            speed("neumf", dataset, positives, chosen)
            speed("bpr", dataset, positives, chosen)


def quality(
    dataset: Dataset, positives: np.ndarray, negatives: np.ndarray, chosen: Namespace
) -> None:
    """Fit every model from some seeds on all of train, and measure it on test."""
    popular = measure(Popularity().fit(dataset), dataset, positives, negatives)
    record("ncf", {"model": "popularity", **popular, "published": PUBLISHED}, chosen)
    for key, value in PUBLISHED.items():
        off = abs(popular[key] - value)
        assert chosen.tiny or off < WITHIN, f"popularity's {key} is {popular[key]:.4f}"
    found: dict[str, list[dict[str, Any]]] = {}
    for name in [chosen.model] if chosen.model else MODELS:
        one = spec(name, {}, chosen)
        warm(name)
        for seed in range(chosen.seed, chosen.seed + (1 if chosen.tiny else chosen.rounds)):
            begin, cpu = time.perf_counter(), time.process_time()
            scorer = one.fit(dataset, seed=seed)
            line = {
                "model": name,
                "params": CHOSEN[name],
                "fit_seed": seed,
                "fit_s": time.perf_counter() - begin,
                "fit_cpu_s": time.process_time() - cpu,
                "gflop": one.flops(dataset) / 1e9,
                **measure(scorer, dataset, positives, negatives),
            }
            found.setdefault(name, []).append(line)
            record("ncf", line, chosen)
    say("popularity", {key: round(value, 4) for key, value in popular.items()})
    for name, lines in found.items():
        means = [np.mean([line[key] for line in lines]) for key in ("hit_rate@10", "ndcg@10")]
        goal = GOALS.get(name)
        verdict = "" if goal is None else f", goal {goal}: {bool((means >= np.array(goal)).all())}"
        seconds = summary([line["fit_s"] for line in lines])["median"]
        say(f"{name}: {means[0]:.4f} / {means[1]:.4f} in {seconds:.1f} s{verdict}")


def spec(name: str, params: Mapping[str, Any], chosen: Namespace) -> Any:
    """Return a model with its chosen settings, but for ``params``."""
    small = {"dim": 8} | ({} if name == "ials" else {"epochs": 2})
    return MODELS[name](**(CHOSEN[name] | params | (small if chosen.tiny else {})))


def warm(name: str) -> None:
    """Compile what a fit needs, which is not in its seconds."""
    small, *_ = ials_ncf.tiny(None, 0)
    rest = {"iterations": 1} if name == "ials" else {"epochs": 1}
    MODELS[name](**(CHOSEN[name] | {"dim": 8} | rest)).fit(small, seed=0)


def shorter(dataset: Dataset) -> tuple[Dataset, np.ndarray]:
    """Return train without the last event of each user, and the items of those events."""
    log = dataset.train
    last = np.diff(log.user_row, append=-1) != 0
    rest = dataset_of(log.user_row[~last], log.item_row[~last], log.num_users, log.num_items)
    return rest, log.item_row[last]


def tune(name: str, dataset: Dataset, chosen: Namespace) -> None:
    """Try other settings on the last event of each user's train; the best from more starts."""
    rest, wanted = shorter(dataset)
    found: dict[str, list[float]] = {}

    def trial(params: dict[str, Any], seed: int) -> None:
        begin = time.perf_counter()
        scorer = spec(name, params, chosen).fit(rest, seed=seed)
        line = {"model": name, "part": "valid", "params": CHOSEN[name] | params, "fit_seed": seed}
        line |= {"fit_s": time.perf_counter() - begin, **expected(scorer, dataset, wanted)}
        record("ncf_tune", line, chosen)
        found.setdefault(json.dumps(params), []).append(line["hit_rate@10"] + line["ndcg@10"])
        say(params or "chosen", {k: round(v, 4) for k, v in line.items() if "@" in k})

    def ahead() -> list[str]:
        return sorted(found, key=lambda text: -float(np.mean(found[text])))

    trials: list[dict[str, Any]] = [{}, *GRID[name]]
    for params in trials[:2] if chosen.tiny else trials:
        trial(params, chosen.seed)
    for text in ahead()[:FINALISTS]:
        for seed in range(chosen.seed + 1, chosen.seed + (1 if chosen.tiny else SEEDS)):
            trial(json.loads(text), seed)
    final = [text for text in ahead() if chosen.tiny or len(found[text]) == SEEDS]
    say(f"best {np.mean(found[final[0]]) / 2:.4f}: {CHOSEN[name] | json.loads(final[0])}")


def expected(scorer: Scorer, dataset: Dataset, wanted: np.ndarray) -> dict[str, float]:
    """Return HR@10 and NDCG@10 among 99 unmet items, over all draws of them."""
    met, everything = dataset.train.matrix, np.arange(dataset.num_items, dtype=np.int32)
    above, step = np.empty(len(wanted)), 256
    for start in range(0, len(wanted), step):
        rows = np.arange(start, min(start + step, len(wanted)))
        some = met.take(rows)
        asked = Queries.of(some, user_row=rows)
        scores = scorer.score(asked, np.broadcast_to(everything, (len(rows), len(everything))))
        own = scores[np.arange(len(rows)), wanted[rows]]
        scores[some.row_numbers(), some.indices] = -np.inf
        above[rows] = (scores > own[:, None]).sum(1)
    share, place = (above / (met.num_cols - met.lengths))[:, None], np.arange(10)
    ways = np.array([math.comb(NEGATIVES, int(better)) for better in place], float)
    chance = ways * share**place * (1 - share) ** (NEGATIVES - place)
    gained = chance @ (1 / np.log2(place + 2))
    return {"hit_rate@10": float(chance.sum(1).mean()), "ndcg@10": float(gained.mean())}


def asked_of(dataset: Dataset, wanted: np.ndarray) -> np.ndarray:
    """Return (users, 100) items: that of the last event, and 99 that the user has never met."""
    users = np.arange(dataset.num_users)
    drawn = draw_unmet(dataset.train.matrix, users, NEGATIVES, 0)
    return np.column_stack([wanted, drawn]).astype(np.int32)


def write_atomic(dataset: Dataset, positives: np.ndarray, folder: Path) -> None:
    """Write all events for RecBole, which holds out the last two of each user: ours too."""
    folder.mkdir()
    log = dataset.train
    users = np.concatenate([log.user_row, np.arange(len(positives))])
    items = np.concatenate([log.item_row, positives])
    place = np.argsort(users, kind="stable")
    rows = np.stack([users[place], items[place], np.arange(len(users))], 1)
    head = "user_id:token\titem_id:token\ttimestamp:float"
    np.savetxt(folder / "log.inter", rows, "%d", "\t", header=head, comments="")


def recbole(name: str, folder: Path, chosen: Namespace) -> Peer | None:
    """Return RecBole's trainer in a process of its own, where it is installed."""
    python = None if chosen.tiny else peer_python("recbole")
    if python is None:
        return None
    dim, inner, drawn, batch = SAME[name]
    params: dict[str, Any] = {
        "train_neg_sample_args": {
            "distribution": "uniform", "sample_num": drawn, "alpha": 1.0, "dynamic": False,
            "candidate_num": 0,
        }
    }  # fmt: skip
    if name == "neumf":  # whose batch counts the drawn rows too
        params |= {
            "train_batch_size": batch * (1 + drawn), "mf_embedding_size": dim,
            "mlp_embedding_size": inner, "mlp_hidden_size": [inner, inner // 2],
            "dropout_prob": 0.1,
        }  # fmt: skip
    else:
        params |= {"train_batch_size": batch, "embedding_size": dim}
    known = {"neumf": "NeuMF", "bpr": "BPR"}[name]
    return Peer(python, "ncf_recbole.py", folder, known, json.dumps(params), str(chosen.seed))


def figures_of(peer: Peer, asked: np.ndarray, folder: Path) -> dict[str, float]:
    """Return HR@10 and NDCG@10 of what RecBole scores."""
    path = folder / "asked.npz"
    np.savez(path, users=np.arange(len(asked)), items=asked)
    peer.ask(task="score", path=str(path))
    return sampled_quality(np.load(path.with_suffix(".scores.npy")).reshape(asked.shape))


def keep_curve(name: str, dataset: Dataset, positives: np.ndarray, chosen: Namespace) -> None:
    """Train RecBole epoch by epoch, going on after the last one that was recorded."""
    kept = ROOT / ".venv-peers" / "curves" / f"ncf-{name}-{chosen.seed}.pth"
    kept.parent.mkdir(exist_ok=True)
    done = [line for line in curve(chosen) if line["model"] == name]
    _, wanted = shorter(dataset)
    asked = asked_of(dataset, wanted)
    with scratch() as folder:
        write_atomic(dataset, positives, folder / "log")
        peer = recbole(name, folder, chosen)
        if peer is None:
            raise SystemExit("RecBole is not installed: make .venv-peers/recbole of its pins")
        with peer:
            if done:
                peer.ask(task="resume", path=str(kept))
            for epoch in range(len(done), int(chosen.record)):
                spent = peer.ask(task="train", epoch=epoch)
                figures = figures_of(peer, asked, folder)
                peer.ask(task="save", epoch=epoch, path=str(kept))
                line = {"model": name, "library": "recbole", "epoch": epoch + 1, **spent}
                record("ncf_curve", line | {"valid": figures}, chosen)


def curve(chosen: Namespace) -> list[dict[str, Any]]:
    """Return the recorded epochs of RecBole."""
    ledger = chosen.results / "ncf_curve.jsonl"
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return [one for one in map(json.loads, lines) if one["seed"] == chosen.seed]


def speed(name: str, dataset: Dataset, positives: np.ndarray, chosen: Namespace) -> None:
    """Time epochs of both in turn, then look for Martlet's shortest way to RecBole's best."""
    rest, wanted = shorter(dataset)
    asked = asked_of(dataset, wanted)
    lines = [] if chosen.tiny else [line for line in curve(chosen) if line["model"] == name]
    values = [line["valid"]["ndcg@10"] for line in lines]
    best = max(values, default=math.inf)
    with scratch() as folder:
        rest.save(folder / "dataset")
        write_atomic(dataset, positives, folder / "log")
        seconds, losses = epochs(name, rest, folder, chosen)
    best_s = 0.0
    if values and "recbole" in seconds:
        best_s = (values.index(best) + 1) * summary(seconds["recbole"])["median"]
    fits = []
    warm(name)
    for count in FITS[name][: 1 if chosen.tiny else None]:
        one = spec(name, {"epochs": count}, chosen)
        begin = time.perf_counter()
        scorer = one.fit(rest, seed=chosen.seed)
        took = time.perf_counter() - begin
        history = Queries.of(rest.train.histories, user_row=np.arange(rest.num_users))
        figures = sampled(scorer, history, asked[:, 0], asked[:, 1:])
        fits.append({"epochs": count, "fit_s": took, "valid": figures})
        say(f"  martlet, {count} epochs: {took:.1f} s, NDCG@10 {figures['ndcg@10']:.4f}")
        if figures["ndcg@10"] >= best:
            say(f"{name}: RecBole's best {best:.4f} {best_s / took:.1f} times sooner")
            break
    if "recbole" in seconds:
        ratio = summary(seconds["recbole"])["median"] / summary(seconds["martlet"])["median"]
        say(f"{name}: an epoch {ratio:.1f} times sooner")
    line = {
        "model": name, "same": SAME[name], "epoch_s": seconds, "losses": losses, "fits": fits,
        "params": CHOSEN[name], "recbole_best": best if lines else None,
        "recbole_best_s": best_s,
    }  # fmt: skip
    record("ncf_speed", line, chosen)


def epochs(
    name: str, rest: Dataset, folder: Path, chosen: Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the seconds and the losses of epochs of both, of the same sizes, in turn."""
    dim, inner, drawn, batch = SAME[name]
    losses: dict[str, list[float]] = {"martlet": [], "recbole": []}
    peers = []
    if name == "neumf":
        params = {
            "dim": dim, "inner": inner, "layers": 2, "negatives": drawn, "batch": batch,
            "dropout": 0.1,
        }  # fmt: skip
        mine = (folder / "dataset", "ncf", json.dumps(params), str(chosen.seed))
        ours = Peer(sys.executable, "epoch_martlet.py", *mine)
        peers.append(ours)

        def own() -> float:
            answer = ours.ask()
            losses["martlet"].append(answer["loss"])
            return float(answer["train_s"])
    else:

        def own() -> float:
            begin = time.perf_counter()
            BPR(dim=dim, epochs=1).fit(rest, seed=chosen.seed)
            return time.perf_counter() - begin

    variants = {"martlet": own}
    theirs = recbole(name, folder, chosen)
    if theirs is not None:
        peers.append(theirs)

        def other() -> float:
            answer = theirs.ask(task="train")
            assert answer["rows"] == len(rest.train), "an epoch of RecBole holds other events"
            losses["recbole"].append(answer["loss"])
            return float(answer["seconds"])

        variants["recbole"] = other
    try:
        own()  # a first epoch loads libraries and fills caches
        seconds = interleave(variants, 1 if chosen.tiny else chosen.rounds)
    finally:
        for peer in peers:
            peer.__exit__(None, None, None)
    return seconds, losses


if __name__ == "__main__":
    main()
