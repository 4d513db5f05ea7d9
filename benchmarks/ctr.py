"""How well and how fast are models of fields trained, beside DeepCTR-Torch, FuxiCTR and trees?

Census (the income of a person) and Frappe (which app is used in a context: for each use two apps
are drawn that the user never used; cut 70/10/20) with the same split, features, codes, batch,
vector length, layers and dense optimizer; every library in a process of its own, with two threads.

**Speed**: epochs of each in turn, by its own loop. **Quality**: each trains until the AUC of the
validation part has not risen for two epochs; the test part is scored at the best. Ours with three
seeds, peers with one. Their tables take Adam's dense steps, ours row-wise ones at a rate of their
own; like everything, it was chosen on the validation part.

**Large**: 10,000,000 rows of tables, ten fields of Zipf ids. Neither library has a path for sparse
gradients: "dense" is how they come, on fewer batches; "sparse" is what they would do with PyTorch's
own switched on from outside (SparseAdam, without FuxiCTR's clipping).

``--only census-deepfm,frappe-lightgbm,large-dcnv2`` runs a part; each part is a line.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from _common import Peer, data, interleave, options, peer_python, record, say, scratch, summary
from martlet.core import Column, Examples, Tabular, Text, rng
from martlet.features import Category, Features, Hashed, automatic
from martlet.features.plain import spec_to_plain
from martlet.metrics.labels import label_quality

GOAL, GOAL_LARGE = 3.0, 8.0
MODELS = ("wide-deep", "deepfm", "dcnv2", "dlrm")
PEERS = {"deepctr": ("wide-deep", "deepfm", "dcnv2"), "fuxictr": MODELS}
SHARED = {"hidden": 128, "layers": 2, "batch": 1024, "rate": 1e-3}
DIMS = {"census": 8, "frappe": 16, "large": 16}
OURS = {"epochs": 20, "patience": 2}
TABLES: Mapping[str, Mapping[str, Any]] = {
    "census": {"table_optimizer": "adagrad", "table_rate": 0.02},
    "frappe": {"table_optimizer": "adagrad", "table_rate": 0.1},
    "large": {"table_optimizer": "adagrad", "table_rate": 0.05},
}
SEEDS = 3
EPOCHS, PATIENCE = 20, 2
LARGE_FIELDS, LARGE_ROWS, SKEW = 10, 10_000_000, 1.05
LARGE_MODELS = ("deepfm", "dcnv2")
BATCHES, FEW_BATCHES = 64, 4  # of "large": for steps over rows, and for dense ones
PARTS = ("train", "valid", "test")


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=3, add=("only",))
    wanted = [f"{name}-{m}" for name in ("census", "frappe") for m in (*MODELS, "lightgbm")]
    wanted += [f"large-{model}" for model in LARGE_MODELS]
    if chosen.tiny:
        wanted = ["census-deepfm"]
    for what in chosen.only.split(",") if chosen.only else wanted:
        name, model = what.split("-", 1)
        with scratch() as folder:
            line = {"data": name, "model": model}
            if name == "large":
                line |= large(folder, model, chosen)
            else:
                examples = tiny() if chosen.tiny else DATA[name](chosen.data)
                write(folder, examples, plan_of(name, examples))
                fitted = trees if model == "lightgbm" else both
                line |= fitted(folder, name, model, examples, chosen)
            record("ctr", line, chosen)


@cache
def census(given: Path | None) -> Tabular:
    import polars as pl

    parts = [pl.read_parquet(data(given, "kdd-census", f"{p}.parquet")) for p in ("train", "test")]
    names = [n for n in parts[0].columns if n not in ("income_50k", "__index_level_0__")]
    train, test = (
        Examples(
            {name: column(part[name]) for name in names},
            part["income_50k"].str.contains("+", literal=True).to_numpy().astype(np.float32),
        )
        for part in parts
    )
    order = rng(0, "ctr", "census").permutation(len(train))
    tenth = len(order) // 10
    return Tabular(train.take(order[tenth:]), train.take(order[:tenth]), test)


@cache
def frappe(given: Path | None) -> Tabular:
    import polars as pl

    table = pl.read_parquet(data(given, "frappe", "frappe.parquet")).drop("cnt")
    stream, num_items = rng(0, "ctr", "frappe"), int(table["item"].max()) + 1  # type: ignore
    user, used = table["user"].to_numpy(), table["item"].to_numpy()
    known = np.unique(user * num_items + used)
    at = np.repeat(np.arange(len(table)), 3)
    item, left = used[at], np.flatnonzero(np.arange(len(at)) % 3)
    label = np.ones(len(at), np.float32)
    label[left] = 0
    while len(left):
        item[left] = stream.integers(num_items, size=len(left))
        left = left[np.isin(user[at[left]] * num_items + item[left], known)]
    names = [name for name in table.columns if name != "item"]
    columns = {name: column(table[name].gather(at)) for name in names} | {"item": item}
    examples, order = Examples(columns, label), stream.permutation(len(at))
    cuts = [len(order) * 7 // 10, len(order) * 8 // 10]
    return Tabular(*(examples.take(rows) for rows in np.split(order, cuts)))


DATA = {"census": census, "frappe": frappe}


def column(series: Any) -> Column:
    if series.dtype == "String" or str(series.dtype) == "String":
        return Text.of(series.fill_null("").to_list())
    return series.to_numpy()  # type: ignore[no-any-return]


def tiny() -> Tabular:
    stream = rng(0, "ctr", "tiny")
    code, number = stream.integers(20, size=(900, 4)), stream.normal(size=(900, 2))
    label = (code[:, 0] % 2 == code[:, 1] % 2).astype(np.float32)
    columns = {f"c{i}": code[:, i] for i in range(4)} | {f"n{i}": number[:, i] for i in range(2)}
    examples = Examples(columns, label)
    return Tabular(*(examples.take(rows) for rows in np.split(np.arange(900), [600, 700])))


def plan_of(name: str, examples: Tabular) -> tuple[Any, ...]:
    """Return what each column is: guessed for census; the codes of Frappe look like numbers."""
    columns = examples.train.columns
    return automatic(columns) if name == "census" else tuple(Category(one) for one in columns)


def write(folder: Path, examples: Tabular, plan: tuple[Any, ...]) -> None:
    """Write the examples for ours, and their codes and numbers for the peers."""
    examples.save(folder / "examples")
    (folder / "plan.json").write_text(json.dumps([spec_to_plain(one) for one in plan]))
    features = Features.fit(plan, examples.train.columns)
    (folder / "sizes.json").write_text(json.dumps(np.diff(features.offsets).tolist()))
    for part in PARTS:
        own = getattr(examples, part)
        found = features.apply(own.columns)
        np.save(folder / f"{part}.rows.npy", found.rows - features.offsets[:-1].astype(np.int32))
        np.save(folder / f"{part}.numbers.npy", found.numbers)
        np.save(folder / f"{part}.label.npy", own.label)


def shared(name: str) -> dict[str, Any]:
    """Return the hyper-parameters of every library."""
    return SHARED | {"dim": DIMS[name]}


def ours(folder: Path, name: str, model: str) -> tuple[dict[str, Any], Peer]:
    """Return our hyper-parameters and process."""
    plan = json.loads((folder / "plan.json").read_text())
    params = shared(name) | OURS | TABLES[name] | ({"crosses": 2} if model == "dcnv2" else {})
    given = json.dumps(params | {"columns": plan})
    return params, Peer(sys.executable, "ctr_martlet.py", folder, model, given)


def start(
    library: str, folder: Path, name: str, model: str, path: str, chosen: Namespace
) -> Peer | None:
    """Return a peer at work; None where it is not installed or has no such model."""
    python = peer_python(library)
    if chosen.tiny or python is None or model not in PEERS[library]:
        return None
    given = json.dumps(shared(name) | {"crosses": 2})
    return Peer(python, f"ctr_{library}.py", folder, model, given, path, str(chosen.seed))


def both(
    folder: Path, name: str, model: str, examples: Tabular, chosen: Namespace
) -> dict[str, Any]:
    """Return speed and quality of ours and of the peers."""
    answers: dict[str, list[dict[str, Any]]] = {}
    curves: dict[str, Curve] = {}
    with ExitStack() as stack:
        params, mine = ours(folder, name, model)
        asked = {"martlet": stack.enter_context(mine)}
        for library in PEERS:
            peer = start(library, folder, name, model, "dense", chosen)
            if peer is not None:
                asked[library] = stack.enter_context(peer)
                curves[library] = Curve(peer, folder / f"{library}.npy", examples)

        def epoch(who: str) -> float:
            found = asked[who].ask(task="epoch")
            answers.setdefault(who, []).append(found)
            if who in curves:
                curves[who].look()
                say(f"  {who}: validation {[round(auc, 4) for auc in curves[who].valid]}")
            seconds = float(found.get("train_s", found["seconds"]))
            say(f"  {who}: {found['rows'] / seconds:,.0f} rows a second")
            return seconds

        seconds = interleave(
            {who: lambda who=who: epoch(who) for who in asked}, 1 if chosen.tiny else chosen.rounds
        )
        for who, curve in curves.items():
            while not curve.ended:
                epoch(who)
        quality: dict[str, Any] = {who: [curve.best] for who, curve in curves.items()}
        path = folder / "martlet.npy"
        fits = []
        for seed in range(1 if chosen.tiny else SEEDS):
            fits.append(mine.ask(task="fit", seed=seed, path=str(path)))
            figures = figures_of(examples.test, path)
            quality.setdefault("martlet", []).append(
                figures | {"valid_auc": max(fits[-1]["figures"]), "train_s": fits[-1]["train_s"]}
            )
    rows = len(examples.train)
    line = {
        "params": params,
        "rows": rows,
        "fields": len(json.loads((folder / "sizes.json").read_text())),
        "seconds": seconds,
        "rows_per_s": {who: rows / summary(s)["median"] for who, s in seconds.items()},
        "peak_mb": {who: found[-1]["peak_mb"] for who, found in answers.items()},
        "epochs": {who: len(found) for who, found in answers.items() if who in curves}
        | {"martlet": [len(fit["figures"]) for fit in fits]},
        "quality": quality,
        "goal": GOAL,
    }
    line["peak_mb"]["martlet"] = fits[-1]["peak_mb"]
    for who in curves:
        line[f"speedup_over_{who}"] = (
            summary(seconds[who])["median"] / summary(seconds["martlet"])["median"]
        )
    tell(name, model, line)
    return line


class Curve:
    """The validation of a peer after each epoch, and its test figures at the best."""

    def __init__(self, peer: Peer, path: Path, examples: Tabular) -> None:
        self.peer, self.path, self.examples = peer, path, examples
        self.valid: list[float] = []
        self.best: dict[str, float] = {}

    def look(self) -> None:
        """Score the validation part; where that is the best so far, the test part too."""
        self.peer.ask(task="predict", part="valid", path=str(self.path))
        auc = figures_of(self.examples.valid, self.path)["auc"]
        if not self.valid or auc > max(self.valid):
            self.peer.ask(task="predict", part="test", path=str(self.path))
            self.best = figures_of(self.examples.test, self.path) | {"valid_auc": auc}
        self.valid.append(auc)

    @property
    def ended(self) -> bool:
        """Whether it has not risen for so many epochs."""
        since = len(self.valid) - 1 - self.valid.index(max(self.valid))
        return since >= PATIENCE or len(self.valid) >= EPOCHS


def figures_of(examples: Examples, path: Path) -> dict[str, float]:
    """Return AUC and log-loss of saved chances."""
    score = np.clip(np.load(path), 0, 1)
    found = label_quality(examples.label, score, ["auc", "log_loss"])
    return {name: one.mean for name, one in found.items()}


def trees(
    folder: Path, name: str, model: str, examples: Tabular, chosen: Namespace
) -> dict[str, Any]:
    """Return the quality of boosted trees over the same codes."""
    python = peer_python("lightgbm")
    if python is None:
        return {"skipped": "lightgbm is not installed in .venv-peers"}
    path, quality = folder / "trees.npy", []
    with Peer(python, "ctr_lightgbm.py", folder, "{}") as peer:
        for seed in range(SEEDS):
            found = peer.ask(seed=seed, path=str(path))
            quality.append(figures_of(examples.test, path) | found)
    say(f"{name} {model}: {quality}")
    return {"quality": {model: quality}}


def large(folder: Path, model: str, chosen: Namespace) -> dict[str, Any]:
    """Return the rows a second with 10,000,000 rows of tables."""
    many, few = folder / "many", folder / "few"
    buckets = LARGE_ROWS // LARGE_FIELDS
    stream, mass = rng(chosen.seed, "ctr", "large"), np.cumsum(np.arange(1, buckets + 1) ** -SKEW)
    size = BATCHES * SHARED["batch"]
    ids = np.searchsorted(mass, stream.random((size, LARGE_FIELDS)) * mass[-1])
    columns = {f"c{i}": ids[:, i] for i in range(LARGE_FIELDS)}
    label = (stream.random(size) < 0.2 + 0.6 * (ids[:, 0] % 2)).astype(np.float32)
    examples, nothing = Examples(columns, label), np.zeros(0, np.int64)
    plan = tuple(Hashed(name, buckets=buckets) for name in columns)
    for place, count in ((many, BATCHES), (few, FEW_BATCHES)):
        place.mkdir()
        rows = np.arange(count * SHARED["batch"])
        none = examples.take(nothing)
        write(place, Tabular(examples.take(rows), none, none), plan)
    answers: dict[str, list[dict[str, Any]]] = {}
    params, mine = ours(many, "large", model)
    asked = {"martlet": mine}
    for library in PEERS:
        for path, place in (("sparse", many), ("dense", few)):
            peer = start(library, place, "large", model, path, chosen)
            if peer is not None:
                asked[f"{library}_{path}"] = peer
    with ExitStack() as stack:
        for peer in asked.values():
            stack.enter_context(peer)

        def epoch(who: str) -> float:
            found = asked[who].ask(task="epoch")
            answers.setdefault(who, []).append(found)
            return float(found.get("train_s", found["seconds"])) / found["rows"]

        seconds = interleave({who: lambda who=who: epoch(who) for who in asked}, chosen.rounds)
    speed = {who: 1 / summary(s)["median"] for who, s in seconds.items()}
    line = {
        "params": params,
        "table_rows": LARGE_ROWS,
        "skew": SKEW,
        "seconds_a_row": seconds,
        "rows_per_s": speed,
        "peak_mb": {who: found[-1]["peak_mb"] for who, found in answers.items()},
        "goal": GOAL_LARGE,
    }
    for who in speed.keys() - {"martlet"}:
        line[f"speedup_over_{who}"] = speed["martlet"] / speed[who]
    tell("large", model, line)
    return line


def tell(name: str, model: str, line: Mapping[str, Any]) -> None:
    say(f"{name} {model}: rows/s { ({k: round(v) for k, v in line['rows_per_s'].items()}) }")
    say(f"  peak MB { ({k: round(v) for k, v in line['peak_mb'].items()}) }")
    for who, found in line.get("quality", {}).items():
        said = [f"{one['auc']:.4f}/{one['log_loss']:.4f}" for one in found]
        say(f"  {who}: AUC/log-loss {', '.join(said)}")
    for key, value in line.items():
        if key.startswith("speedup"):
            say(f"  {key}: {value:.1f} (goal {line['goal']:g})")


if __name__ == "__main__":
    main()
