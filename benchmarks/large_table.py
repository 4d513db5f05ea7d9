"""How fast is a table of 1,000,000,000 numbers trained here, in how much memory, and how well?

A synthetic click log: ten fields whose values fall as 1 / rank, and odds that are known, the sum of
an effect a value. Vectors of 32 go through a layer of 64 into the logit. Each storage of the table
is trained in a process of its own, by the loop that trains every model, and its peak memory is what
the system counted, log and libraries included; "mapped" keeps an fp32 table in files. Quality is
told where fp32 can be trained beside: 100,000 x 16, three seeds, AUC and log-loss on rows that were
not trained on, and what the true odds would have.
"""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from _common import options, record, say, scratch, summary
from martlet.core import rng
from martlet.metrics.labels import label_difference, label_quality
from martlet.train import losses
from martlet.train.embeddings import Embedding, size_of
from martlet.train.loop import train
from martlet.train.plan import Plan
from martlet.train.run import Run

STORAGES = ("fp32", "fp16", "bf16", "int8")
COMMON = {"rate": 0.05, "held_out": 200_000}
LARGE = COMMON | {"values": 3_125_000, "dim": 32, "rows": 2_000_000, "batch": 8192}
SMALL = COMMON | {"values": 10_000, "dim": 16, "rows": 1_000_000, "batch": 2048}
TINY = {"values": 500, "rows": 20_000, "held_out": 5_000}
FIELDS, EFFECT = 10, 0.5
METRICS = ("auc", "log_loss")
LIMIT_MB = {"int8": 3000, "fp16": 6000}


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=3, add=("child",))
    if chosen.child:
        print(json.dumps(trained(**json.loads(chosen.child))))
        return
    quality(chosen)
    large(chosen)


def large(chosen: Namespace) -> None:
    """Record rows a second and memory of each storage, in turn."""
    sizes = LARGE | (TINY if chosen.tiny else {})
    names = ("int8", "mapped") if chosen.tiny else (*STORAGES, "mapped")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(1 if chosen.tiny else chosen.rounds):
        for name, runs in found.items():
            with scratch() as folder:
                mapped = {"storage": "fp32", "file": str(folder)}
                given = sizes | (mapped if name == "mapped" else {"storage": name})
                runs.append(child(given | {"seed": chosen.seed + turn}))
            last = runs[-1]
            say(f"{name}: {last['rows_per_s']:,.0f} rows/s, {last['peak_mb']:,.0f} MB, "
                f"log-loss {last['log_loss']:.4f}")  # fmt: skip
    peaks = {name: max(run["peak_mb"] for run in runs) for name, runs in found.items()}
    figures = {
        "question": "large",
        **sizes,
        "fields": FIELDS,
        "parameters": found["int8"][0]["parameters"],
        "rows_per_s": {
            n: summary([run["rows_per_s"] for run in runs]) for n, runs in found.items()
        },
        "peak_mb": peaks,
        "within": {name: peaks[name] < limit for name, limit in LIMIT_MB.items() if name in peaks},
        "limit_mb": LIMIT_MB,
        "runs": found,
    }
    record("large_table", figures, chosen)


def child(given: Mapping[str, Any]) -> dict[str, Any]:
    """Train in a process of its own."""
    call = [sys.executable, __file__, "--child", json.dumps(given)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{given} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def trained(**given: Any) -> dict[str, Any]:
    """Train for an epoch; return speed, memory and quality."""
    task = Clicks(**given)
    before = peak_mb()  # the estimate that precedes a training starts the count anew
    report = train(task, Plan(epochs=1, patience=0), seed=given["seed"], key="large", run=Run())
    peak = max(before, peak_mb())
    label, score = task.held_out()
    figures = {name: one.mean for name, one in label_quality(label, score, METRICS).items()}
    return {
        "parameters": size_of(task.network),
        "rows_per_s": report.epochs[0].rows_per_s,
        "seconds": report.epochs[0].seconds,
        "peak_mb": peak,
        "table_mb": task.network.table.nbytes / 1e6,
        "log_mb": task.rows.nbytes / 1e6,
        "seed": given["seed"],
        **figures,
    }


def quality(chosen: Namespace) -> None:
    """Record quality of each storage beside fp32, on the same rows."""
    sizes = SMALL | (TINY if chosen.tiny else {})
    seeds = [chosen.seed + turn for turn in range(1 if chosen.tiny else 3)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (*STORAGES, "true odds")}
    apart: dict[str, list[dict[str, Any]]] = {name: [] for name in STORAGES[1:]}
    for seed in seeds:
        scores: dict[str, Any] = {}
        for name in STORAGES:
            task = Clicks(**sizes, storage=name, seed=seed)
            train(task, Plan(epochs=2, patience=0), seed=seed, key="small", run=Run())
            label, scores[name] = task.held_out()
        scores["true odds"] = task.true_odds()
        for name, score in scores.items():
            figures = label_quality(label, score, METRICS)
            found[name].append({metric: one.mean for metric, one in figures.items()})
            say(f"seed {seed}, {name}: {found[name][-1]}")
        for name, differences in apart.items():
            figures = label_difference(label, scores["fp32"], scores[name], METRICS)
            differences.append({m: [i.low, i.mean, i.high] for m, i in figures.items()})
    record(
        "large_table",
        {"question": "quality", **sizes, "fields": FIELDS, "epochs": 2, "seeds": seeds,
         "figures": found, "less_fp32": apart},
        chosen,
    )  # fmt: skip


class Clicks:
    """Learning the odds of a log, as the loop sees it."""

    figure = "none"

    def __init__(
        self, *, values: int, dim: int, rows: int, batch: int, rate: float, held_out: int,
        storage: str, seed: int, file: str | None = None,
    ) -> None:  # fmt: skip
        self._batch, self._seed, self._values, self._held_out = batch, seed, values, held_out
        self.rows = self._drawn(rows, "rows")
        self._label = self._clicked(self.rows, "labels")
        torch.manual_seed(seed)
        table = Embedding(FIELDS * values, dim, rate=rate, storage=storage, seed=seed, file=file)
        self.network = Ranker(table)

    def batches(self, epoch: int) -> Sequence[NDArray[np.int64]]:
        """Return the rows of the log in each batch."""
        order = rng(self._seed, "order", epoch).permutation(len(self.rows))
        return np.array_split(order, max(1, len(order) // self._batch))

    def take(self, batch: NDArray[np.int64], step: int) -> tuple[NDArray[np.int32], Tensor]:
        """Return values and labels."""
        return self.rows[batch], torch.from_numpy(self._label[batch])

    def loss(self, tensors: tuple[NDArray[np.int32], Tensor]) -> tuple[Tensor, int]:
        """Return the log-loss."""
        rows, label = tensors
        return losses.logistic(self.network(rows), label), len(label)

    def validate(self) -> None:
        """Return nothing: training does not depend on it."""

    def describe(self, batch: NDArray[np.int64]) -> str:
        """Return which rows they are."""
        return f"rows {batch[:3].tolist()} ..."

    def held_out(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return labels and probabilities of rows that were not trained on."""
        rows = self._drawn(self._held_out, "held out")
        with torch.inference_mode():
            logit = torch.cat([self.network(some) for some in np.array_split(rows, 20)])
        return self._clicked(rows, "held out labels"), torch.sigmoid(logit).numpy()

    def true_odds(self) -> NDArray[np.float64]:
        """Return what ``held_out`` would be by the odds that labels were drawn from."""
        return self._odds(self._drawn(self._held_out, "held out"))

    def _drawn(self, count: int, purpose: str) -> NDArray[np.int32]:
        """Return (count, FIELDS) rows of the merged table; a value's chance falls as 1 / rank."""
        stream = rng(self._seed, purpose)
        found = np.empty((count, FIELDS), np.int32)
        for field in range(FIELDS):
            rank = self._values ** stream.random(count, np.float32)
            found[:, field] = np.minimum(rank.astype(np.int32) - 1, self._values - 1)
            found[:, field] += field * self._values
        return found

    def _clicked(self, rows: NDArray[np.int32], purpose: str) -> NDArray[np.float32]:
        chance = rng(self._seed, purpose).random(len(rows))
        return (chance < self._odds(rows)).astype(np.float32)

    def _odds(self, rows: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the chance of a click: an effect of each value, by a hash of it."""
        logit = np.full(len(rows), -1.0)
        for field in range(FIELDS):
            code = (rows[:, field].astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
            code ^= code >> np.uint64(29)
            code *= np.uint64(0xBF58476D1CE4E5B9)
            logit += EFFECT * 12**0.5 * ((code >> np.uint64(40)) / 2.0**24 - 0.5)
        return 1 / (1 + np.exp(-logit))  # type: ignore[no-any-return]


class Ranker(nn.Module):
    """A logit from the vectors of ten fields."""

    def __init__(self, table: Embedding) -> None:
        super().__init__()
        self.table = table
        width = FIELDS * table.dim
        self.dense = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, rows: NDArray[np.int32]) -> Tensor:
        """Return (B,) of (B, FIELDS) rows."""
        return self.dense(self.table(rows).flatten(1))[:, 0]  # type: ignore[no-any-return]


def peak_mb() -> float:
    """Return the most memory that this process held so far, in 10^6 bytes."""
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()
