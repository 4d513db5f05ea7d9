"""Does a training that is killed at any step and resumed end with the tables of one that was not?

SIGKILL comes from outside at a random moment after a random step, so it may fall into a batch, an
update of a table, or the writing of a checkpoint. Another process then resumes, and all tables are
compared bit for bit with those of an uninterrupted run: SASRec on 1,000 users of Beauty, and a
click log over a table of int8 in memory and of fp16 in memory-mapped files, 20 kills each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from _common import data, options, record, say, scratch
from large_table import Clicks
from martlet.core import rng
from martlet.data import LastOut, prepare
from martlet.models.sasrec import SASRec
from martlet.train.loop import train
from martlet.train.plan import Plan
from martlet.train.run import Run
from next_item_speed import tiny

USERS, KILLS = 1000, 20
EVERY_STEPS = 5
SASREC = {"dim": 32, "max_length": 30, "tokens": 512, "epochs": 3, "dropout": 0.3}
TABLE = {"values": 20_000, "dim": 16, "rows": 200_000, "batch": 4096, "rate": 0.05, "held_out": 10}
PLAN = Plan(epochs=3, clip=1.0, schedule="cosine", warmup=0.1)

Tables = Mapping[str, NDArray[Any]]


def sasrec(place: Path, run: Run, small: bool, seed: int) -> Tables:
    """Return the tables of a Transformer over histories."""
    lines = place / "sequences.txt"
    dataset = tiny(seed) if small else prepare(lines, clean=(), split=LastOut())
    scorer = SASRec(**SASREC).fit(dataset, seed=seed, run=run)
    return {name: np.asarray(table.dense()) for name, table in scorer.tables().items()}


def table(place: Path, run: Run, small: bool, seed: int, **storage: Any) -> Tables:
    """Return parameters, values, scales and moments of a network over a table."""
    sizes = TABLE | ({"rows": 20_000, "batch": 1024} if small else {})
    task = Clicks(**sizes, **storage, seed=seed)
    train(task, PLAN, seed=seed, key="kill_resume", run=run)
    tensors = dict(task.network.named_parameters()) | dict(task.network.named_buffers())
    return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}


def int8(place: Path, run: Run, small: bool, seed: int) -> Tables:
    """Return those of a table in memory."""
    return table(place, run, small, seed, storage="int8")


def mapped(place: Path, run: Run, small: bool, seed: int) -> Tables:
    """Return those of a table in files, which have moved on when a process dies."""
    assert run.folder is not None
    return table(place, run, small, seed, storage="fp16", file=str(run.folder / "table"))


KINDS: dict[str, Callable[[Path, Run, bool, int], Tables]] = {
    "sasrec": sasrec, "int8": int8, "mapped": mapped,
}  # fmt: skip


def main() -> None:
    chosen = options(__doc__.splitlines()[0], add=("child", "kind"))
    if chosen.child:
        work(chosen)
        return
    with scratch() as place:
        if not chosen.tiny:
            cut = data(chosen.data, "beauty", "sequences.txt").read_text().splitlines()[:USERS]
            (place / "sequences.txt").write_text("\n".join(cut) + "\n")
        kinds = ("sasrec", "mapped") if chosen.tiny else KINDS
        kills = {k: killed(k, place, chosen) for k in ([chosen.kind] if chosen.kind else kinds)}
    figures = {
        "kills": kills,
        "same": {kind: sum(one["same"] for one in all_) for kind, all_ in kills.items()},
        "of": {kind: len(all_) for kind, all_ in kills.items()},
        "every_steps": EVERY_STEPS,
        "sasrec": SASREC,
        "table": TABLE,
    }
    record("kill_resume", figures, chosen)


def killed(kind: str, place: Path, chosen: Namespace) -> list[dict[str, Any]]:
    """Kill and resume; return step, moment and verdict of each."""
    steps: list[int] = []
    run = Run(place / kind / "whole", progress=lambda words, done, total: steps.append(done))
    whole = KINDS[kind](place, run, chosen.tiny, chosen.seed)
    stream, found = rng(chosen.seed, "kills", kind), []
    for number in range(1 if chosen.tiny else KILLS):
        folder = place / kind / str(number)
        step, wait = int(stream.integers(1, steps[-1] - 2)), float(stream.uniform(0, 0.02))
        code, reached = kill(kind, place, folder, step, wait, chosen)
        checkpoint = (folder / "checkpoint.safetensors").exists()
        resumed = KINDS[kind](place, Run(folder, resume=True), chosen.tiny, chosen.seed)
        found.append({
            "step": step, "reached": reached, "of": steps[-1], "killed": code == -9,
            "from_checkpoint": checkpoint, "same": differing(whole, resumed) == [],
        })  # fmt: skip
        say(f"{kind}: killed after step {step} of {steps[-1]}: same {found[-1]['same']}")
    return found


def kill(
    kind: str, place: Path, folder: Path, step: int, wait: float, chosen: Namespace
) -> tuple[int, int]:
    """Start a training and kill it; return its exit code, and the last step that it told."""
    child = {"kind": kind, "place": str(place), "folder": str(folder)}
    call = [sys.executable, __file__, "--child", json.dumps(child), "--seed", str(chosen.seed)]
    call += ["--tiny"] * chosen.tiny
    reached = 0
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            reached = int(line)
            if reached >= step:
                time.sleep(wait)
                process.kill()
                break
    return process.returncode, reached


def work(chosen: Namespace) -> None:
    """Train in this process, and tell each step."""
    child = json.loads(chosen.child)
    run = Run(
        Path(child["folder"]),
        every_steps=EVERY_STEPS,
        progress=lambda words, done, total: print(done, flush=True),
    )
    KINDS[child["kind"]](Path(child["place"]), run, chosen.tiny, chosen.seed)


def differing(one: Tables, other: Tables) -> list[str]:
    """Return the names of the tables that are not the same, bit for bit."""
    names = sorted(one.keys() | other.keys())
    return [n for n in names if n not in one or n not in other or not same(one[n], other[n])]


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Return whether two arrays hold the same bits."""
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


if __name__ == "__main__":
    main()
