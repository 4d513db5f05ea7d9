"""How fast, and in how much memory, is a log of 50 million events prepared, beside pandas?

A synthetic log in time order, with repeats and bad rows, as Parquet: once with numbers as ids, once
with text. Each run is a process of its own that reads it, drops bad rows, keeps the last of each
pair, takes the 5-core, splits by time, numbers users and items by training frequency, sorts, and
writes the arrays. All arrays must be the same, event by event.
"""

from __future__ import annotations

import shutil
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from _common import Peer, interleave, options, peer_python, record, say, scratch, summary
from martlet.data.synthetic import synthesize_parquet

EVENTS, TINY = 50_000_000, 50_000
LEAST = 5
LIMIT_MB = 4000
PARTS = ("train", "valid", "test")
COLUMNS = ("user_row", "item_row", "weight", "time_s")


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=3, add=("events",))
    events = TINY if chosen.tiny else int(chosen.events or EVENTS)
    with scratch() as folder:
        python = {"martlet": sys.executable}
        if not chosen.tiny:
            pandas = peer_python("pandas")
            if pandas is None:
                say("pandas is left out: .venv-peers/pandas is not installed")
            else:
                python["pandas"] = str(pandas)
        warm = run("martlet", sys.executable, log(folder / "warm.parquet", TINY, "number", chosen))
        found = {
            kind: compare(
                log(folder / f"{kind}.parquet", events, kind, chosen), python,
                chosen.rounds if kind == "number" else 1,
            )
            for kind in ("number", "text")
        }  # fmt: skip
    for kind, each in found.items():
        for name, one in each.items():
            spread = summary(one["seconds"])
            say(
                f"ids as {kind:6} {name:8} {spread['median']:7.2f} s [{spread['min']:.2f}, "
                f"{spread['max']:.2f}]  {events / spread['median'] / 1e6:6.2f} million events/s  "
                f"CPU {summary(one['cpu_s'])['median']:.1f} s  peak {max(one['peak_mb']):,.0f} MB"
            )
        peak = max(each["martlet"]["peak_mb"])
        assert peak < LIMIT_MB, f"peak memory is {peak:.0f} MB: expected below {LIMIT_MB}"
    about = {"events": events, "least": LEAST, "warm_up_s": warm["seconds"], "ids": found}
    record("prepare_speed", about, chosen)


def log(path: Path, events: int, kind: str, chosen: Namespace) -> Path:
    """Write a log in time order; of 100 events one comes again, of 1000 one has no rating."""
    say(f"writing {events:,} events with {kind} ids")
    users, items = max(50, events // 50), max(20, events // 250)
    made = path.with_suffix(".made.parquet")
    synthesize_parquet(made, num_users=users, num_items=items, num_events=events, seed=chosen.seed)
    table = pl.scan_parquet(made)
    again = table.gather_every(100).with_columns(pl.col("timestamp") + 86_400)
    row = pl.int_range(pl.len())
    broken = pl.when(row % 1000 == 7).then(float("nan")).otherwise("rating").cast(pl.Float32)
    whole = pl.concat([table, again]).sort("timestamp", maintain_order=True)
    whole = whole.with_columns(broken.alias("rating"))
    if kind == "text":
        whole = whole.with_columns(
            pl.format("user-{}", "user_id").alias("user_id"),
            pl.format("item-{}", "item_id").alias("item_id"),
        )
    whole.collect().write_parquet(path, row_group_size=1_000_000)
    made.unlink()
    return path


def run(name: str, python: str, path: Path) -> dict[str, Any]:
    """Return what one fresh process measured; its result lies beside the log."""
    out = path.with_suffix(f".{name}")
    shutil.rmtree(out, ignore_errors=True)
    with Peer(python, f"prepare_{name}.py", path, out, LEAST) as peer:
        return peer.ask()


def compare(path: Path, python: dict[str, str], rounds: int) -> dict[str, dict[str, Any]]:
    """Return seconds, CPU seconds and peak memory of each variant; all must write the same."""
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in python}

    def once(name: str) -> float:
        answers[name].append(run(name, python[name], path))
        say(f"  {name}: {answers[name][-1]}")
        return float(answers[name][-1]["seconds"])

    seconds = interleave({name: lambda name=name: once(name) for name in python}, rounds)
    counts = [answer["counts"] for each in answers.values() for answer in each]
    assert all(one == counts[0] for one in counts), f"counts differ: {counts}"
    if "pandas" in python:
        same_arrays(path.with_suffix(".martlet"), path.with_suffix(".pandas"))
    found = {
        name: {
            "seconds": seconds[name],
            "cpu_s": [one["cpu_s"] for one in each],
            "peak_mb": [one["peak_mb"] for one in each],
            "counts": each[0]["counts"],
        }
        for name, each in answers.items()
    }
    for name in python:
        shutil.rmtree(path.with_suffix(f".{name}"))
    path.unlink()
    return found


def same_arrays(ours: Path, theirs: Path) -> None:
    for part in PARTS:
        for column in COLUMNS:
            pair = [np.load(folder / f"{part}.{column}.npy", "r") for folder in (ours, theirs)]
            assert np.array_equal(*pair), f"{part}.{column} differs"


if __name__ == "__main__":
    main()
