"""How much faster than FBGEMM and torch is one training step over an embedding table?

2,000,000 x 32 in ten fields of 200,000 ids, drawn by Zipf's law, so that a batch holds many ids
twice; a step looks the rows up, takes a given gradient back and moves the table by row-wise
Adagrad. Rows fall by frequency, as a vocabulary numbers them, or are shuffled. All variants take
the same steps from the same start with two threads, in turn; afterwards the tables must be the
formula's within 1e-6 a step. FBGEMM runs with a table a field, with one thread too, as two do not
always help it, and with one merged table; torch with row-wise Adagrad in its sparse operations and
with its own Adagrad, which keeps a square for every value and is held to that formula. The fastest
of each library counts.

A step's seconds are the median of its round. "parts" tells ours apart ("merge" sums gradients
alone, a part of "update"), "storages" the same steps of tables in fewer bits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from _common import THREADS, Peer, interleave, options, peer_python, record, say, scratch, summary
from martlet.core import rng
from martlet.kernels import embedding, row_steps

GOAL = 5.0
DIM, FIELDS, RATE, EPS = 32, 10, 0.05, 1e-8
BATCHES = (256, 1024, 8192)
SKEW = 1.05
GRADIENTS = 4  # distinct gradients, used in turn
TOLERANCE = 1e-6  # a step
# Where the gradients of a value nearly cancel, a square of its own magnifies their rounding.
TOLERANCE_BY_VALUE = 1e-4
REST_S = 0.05
OURS = "martlet"
PEERS = {
    f"{library}_{variant}{'' if threads == THREADS else '_one_thread'}": (
        f"embedding_{library}.py",
        variant,
        threads,
    )
    for library, variant, threads in (
        ("fbgemm", "fields", THREADS),
        ("fbgemm", "fields", "1"),
        ("fbgemm", "merged", THREADS),
        ("torch", "rowwise", THREADS),
        ("torch", "optim", THREADS),
    )
}


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=15, add=("only",))  # such as 1024-shuffled
    size = 20_000 if chosen.tiny else 2_000_000
    python = None if chosen.tiny else peer_python("fbgemm")
    if not chosen.tiny and python is None:
        say("fbgemm is not installed in .venv-peers (see benchmarks/peers): ours alone")
    values = rng(chosen.seed, "embedding_step").normal(size=(size, DIM)).astype(np.float32)
    values *= np.float32(0.1)
    for batch in (32, 64) if chosen.tiny else BATCHES:
        for order in ("frequency", "shuffled"):
            if chosen.only and f"{batch}-{order}" not in chosen.only.split(","):
                continue
            work = draw(values, batch, order, chosen)
            line = compare(work, python, 2 if chosen.tiny else chosen.rounds)
            record("embedding_step", line, chosen)
            tell(line)


@dataclass(frozen=True, eq=False)
class Work:
    """The steps that every variant takes.

    Attributes:
        values: (N, DIM) float32, the table at the start.
        rows: (steps, batch, FIELDS) int64.
        gradients: (GRADIENTS, batch FIELDS, DIM) float32.
        order: how rows are numbered.
        count: steps of a round.
    """

    values: np.ndarray
    rows: np.ndarray
    gradients: np.ndarray
    order: str
    count: int

    def formula(self, touched: np.ndarray, *, by_value: bool) -> np.ndarray:
        """Return the touched rows after all steps, in float64."""
        w = self.values[touched].astype(np.float64)
        s = np.zeros((len(w), DIM if by_value else 1))
        for step, rows in enumerate(self.rows):
            place = np.searchsorted(touched, rows.reshape(-1))
            positions = np.argsort(place, kind="stable")
            at, first = np.unique(place[positions], return_index=True)
            gradient = self.gradients[step % GRADIENTS][positions]
            g = np.add.reduceat(gradient, first, axis=0, dtype=np.float64)
            s[at] += g**2 if by_value else (g**2).mean(1, keepdims=True)
            w[at] -= RATE * g / (np.sqrt(s[at]) + EPS)
        return w


def draw(values: np.ndarray, batch: int, order: str, chosen: argparse.Namespace) -> Work:
    count = 2 if chosen.tiny else 40 if batch < 4096 else 10
    steps = count * (2 if chosen.tiny else chosen.rounds)
    random = rng(chosen.seed, "embedding_step", order, batch)
    per_field = len(values) // FIELDS
    mass = np.cumsum(np.arange(1, per_field + 1) ** -SKEW)
    rows = np.searchsorted(mass, random.random((steps, batch, FIELDS)) * mass[-1])
    if order == "shuffled":
        rows = random.permutation(per_field)[rows]
    rows += per_field * np.arange(FIELDS)
    gradients = 0.1 * random.normal(size=(GRADIENTS, batch * FIELDS, DIM))
    return Work(values, rows.astype(np.int64), gradients.astype(np.float32), order, count)


class Ours:
    """Our table at the start of the work."""

    def __init__(self, work: Work, storage: embedding.Storage = "fp32") -> None:
        self.work = work
        self.table = embedding.EmbeddingTable.of(work.values, storage)
        self.squares = np.zeros(len(work.values), np.float32)
        self.out = np.empty(work.gradients.shape[1:], np.float32)
        self.batch = self.sort(0)

    def run(self, first: int, count: int) -> dict[str, Any]:
        """Return the seconds of each step, as a peer does."""
        step_s = []
        for step in range(first, first + count):
            begin = time.perf_counter()
            self.whole(step)
            step_s.append(time.perf_counter() - begin)
        return {"step_s": step_s}

    def whole(self, step: int) -> None:
        """Take a step: look up, sort, update."""
        rows = self.work.rows[step].reshape(-1)
        _, self.batch = embedding.begin(self.table, rows, out=self.out, num_threads=int(THREADS))
        self.update(step)

    def look_up(self, step: int) -> None:
        """Look up the rows of a step."""
        rows = self.work.rows[step].reshape(-1)
        embedding.lookup(self.table, rows, out=self.out, num_threads=int(THREADS))

    def sort(self, step: int) -> embedding.Batch:
        """Sort the rows of a step."""
        return embedding.Batch.of(self.work.rows[step].reshape(-1), len(self.work.values))

    def merge(self, step: int) -> None:
        """Sum the gradients of a batch."""
        embedding.merge(self.batch, self.work.gradients[step % GRADIENTS])

    def update(self, step: int) -> None:
        """Take the gradients of the batch back."""
        row_steps.adagrad(
            self.table, self.squares, self.batch, self.work.gradients[step % GRADIENTS],
            step=step + 1, rate=RATE, eps=EPS, num_threads=int(THREADS),
        )  # fmt: skip


def compare(work: Work, python: Path | None, rounds: int) -> dict[str, Any]:
    """Return the seconds of every variant, after checking their tables."""
    touched = np.unique(work.rows)
    with scratch() as folder, ExitStack() as stack:
        for name, array in (
            ("values", work.values),
            ("rows", work.rows),
            ("gradients", work.gradients),
            ("touched", touched),
        ):
            np.save(folder / f"{name}.npy", array)
        peers = {
            name: stack.enter_context(Peer(python, script, folder, variant, threads, RATE, EPS))
            for name, (script, variant, threads) in PEERS.items()
            if python
        }
        ours = Ours(work)
        asks: dict[str, Callable[..., dict[str, Any]]] = {OURS: ours.run}
        asks |= {name: peer.ask for name, peer in peers.items()}
        turns = dict.fromkeys(asks, 0)

        def one_round(name: str) -> float:
            first, turns[name] = work.count * turns[name], turns[name] + 1
            return float(np.median(asks[name](first=first, count=work.count)["step_s"]))

        variants = {name: lambda name=name: one_round(name) for name in asks}
        first_s = {name: variant() for name, variant in variants.items()}  # compiles, warms up
        seconds = interleave(variants, rounds - 1, rest_s=REST_S)
        apart = check(work, touched, ours, peers, folder)
    line: dict[str, Any] = {
        "size": len(work.values),
        "dim": DIM,
        "fields": FIELDS,
        "batch": work.rows.shape[1],
        "order": work.order,
        "skew": SKEW,
        "steps_a_round": work.count,
        "distinct_rows": float(np.mean([len(np.unique(rows)) for rows in work.rows])),
        "first_s": first_s,
        "seconds": seconds,
        "summary": {name: summary(values) for name, values in seconds.items()},
        "parts": parts(ours, rounds),
        "storages": storages(work, rounds),
        "apart_a_step": apart,
        "goal": GOAL,
    }
    for library in ("fbgemm", "torch") if peers else ():
        theirs = {name: seconds[name] for name in peers if name.startswith(library)}
        fastest = min(theirs, key=lambda name: summary(theirs[name])["median"])
        ratios = [a / b for a, b in zip(theirs[fastest], seconds[OURS], strict=True)]
        # Others at work on the machine hold up threads that wait for each other: the least tells
        # what a quiet one would.
        least = min(theirs[fastest]) / min(seconds[OURS])
        line[f"speedup_over_{library}"] = summary(ratios) | {"fastest": fastest, "of_least": least}
    return line


def check(
    work: Work, touched: np.ndarray, ours: Ours, peers: dict[str, Peer], folder: Path
) -> dict[str, float]:
    """Return how far each table is from its formula, over the number of steps."""
    exact = {by: work.formula(touched, by_value=by) for by in (False, True)}
    tables = {OURS: ours.table.values[touched]}
    for name, peer in peers.items():
        peer.ask(first=0, count=0, save=str(folder / f"{name}.npy"))
        tables[name] = np.load(folder / f"{name}.npy")
    apart = {
        name: float(np.abs(table - exact[name == "torch_optim"]).max()) / len(work.rows)
        for name, table in tables.items()
    }
    for name, value in apart.items():
        allowed = TOLERANCE_BY_VALUE if name == "torch_optim" else TOLERANCE
        assert value <= allowed, f"the table of {name} is {value} a step from the formula"
    return apart


def parts(ours: Ours, rounds: int) -> dict[str, Any]:
    """Return the seconds of each part within our steps."""
    seconds: dict[str, list[float]] = {name: [] for name in ("lookup", "sort", "update", "merge")}
    for turn in range(max(2, rounds // 3)):
        step_s: dict[str, list[float]] = {name: [] for name in seconds}
        for at in range(ours.work.count):
            step = (turn * ours.work.count + at) % len(ours.work.rows)
            begin = time.perf_counter()
            ours.look_up(step)
            looked_up = time.perf_counter()
            ours.batch = ours.sort(step)
            sorted_ = time.perf_counter()
            ours.update(step)
            updated = time.perf_counter()
            ours.merge(step)
            marks = [begin, looked_up, sorted_, updated, time.perf_counter()]
            for name, part in zip(step_s, np.diff(marks).tolist(), strict=True):
                step_s[name].append(part)
        for name, part in step_s.items():
            seconds[name].append(float(np.median(part)))
    return {name: summary(values) for name, values in seconds.items()}


def storages(work: Work, rounds: int) -> dict[str, Any]:
    """Return the seconds of a step, and the bytes, of tables in every storage, in turn."""
    tables = {name: Ours(work, name) for name in ("fp32", "fp16", "bf16", "int8")}

    def one_round(ours: Ours) -> float:
        return float(np.median(ours.run(0, work.count)["step_s"]))

    variants = {name: lambda ours=ours: one_round(ours) for name, ours in tables.items()}
    for variant in variants.values():
        variant()
    seconds = interleave(variants, max(2, rounds // 3))
    return {
        name: {"seconds": summary(values), "bytes": tables[name].table.nbytes}
        for name, values in seconds.items()
    }


def tell(line: dict[str, Any]) -> None:
    ms = {name: round(1e3 * values["median"], 3) for name, values in line["summary"].items()}
    inner = {name: round(1e3 * values["median"], 3) for name, values in line["parts"].items()}
    low = {k: round(1e3 * v["seconds"]["median"], 3) for k, v in line["storages"].items()}
    say(f"{line['batch']} {line['order']}: ms {ms}, parts {inner}, storages {low}")
    for library in ("fbgemm", "torch"):
        if f"speedup_over_{library}" in line:
            found = line[f"speedup_over_{library}"]
            say(f"  {found['median']:.1f} times {library}, {found['of_least']:.1f} of the least")


if __name__ == "__main__":
    main()
