"""What does each storage of a table cost in ranking, and how fast is it searched as it is stored?

Quality: iALS on ml-1m cut by time (a toy log when tiny), NDCG@10 of the validation users with the
item table in each storage, and the mean square error of their scores beside the variance of scores;
calibrated ranges beside plain ones. Speed: an exact top-10 of the 1,000,000 x 64 factors of
``int8_search.py`` in each storage, for one query and 64, beside NumPy's float32 product with
argpartition; each must find what a float32 search of its decoded rows finds, digit for digit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

import martlet as mt
from _common import THREADS, interleave, options, record, say, summary
from families import movielens
from families import tiny as tiny_events
from int8_search import by_numpy, factors
from martlet.core import Dataset, SpecError
from martlet.kernels.topk import topk_dot
from martlet.measure.quality import evaluate
from martlet.scorers.table import Table

K = 10
TRANSFORMS = (
    "quantize:fp16",
    "quantize:bf16",
    "quantize:int8",
    "quantize:int8,affine=yes",
    "quantize:int8,per=column",
    "quantize:int8,per=table",
    "quantize:int4",
    "quantize:int4,affine=yes",
    "quantize:int4,group=16",
    "quantize:int2",
    "quantize:int2,affine=yes",
    "quantize:int2,group=16",
)
STORAGES = ("fp32", "fp16", "bf16", "int8", "int8-affine", "int8-column", "int8-table")
STORAGES += ("int4", "int4-affine", "int2", "int2-affine")


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=15, flags=("quality", "speed"))
    both = not (chosen.quality or chosen.speed)
    if chosen.quality or both:
        quality(chosen)
    if chosen.speed or both:
        speed(chosen)


def quality(chosen: argparse.Namespace) -> None:
    """Record what is left of NDCG@10 on the validation part in each storage."""
    dataset = tiny_events(chosen.seed) if chosen.tiny else movielens(chosen.data)
    bundle = mt.fit(mt.IALS(dim=16 if chosen.tiny else 64), dataset, seed=chosen.seed)
    before, exact = measured(bundle, dataset)
    say(f"fp32: NDCG@10 {before:.4f}")
    for text in TRANSFORMS:
        for steps in (text, f"{text},calibrate=yes"):
            try:
                small = mt.compress(bundle, [steps], dataset)
            except SpecError:  # halves have no ranges
                continue
            after, scores = measured(small, dataset)
            error = float(np.square(scores - exact).mean() / exact.var())
            line = {"transform": steps, "ndcg@10": after, "before": before, "error": error}
            line["times_smaller"] = bundle.scorer.items.nbytes / small.scorer.items.nbytes
            say(f"{steps}: {after / before:.4f} of it, error {error:.5f}")
            record("storages", {"part": "quality", "data": "ml-1m", **line}, chosen)


def measured(bundle: Any, dataset: Dataset) -> tuple[float, np.ndarray]:
    """Return NDCG@10 of the validation part, and the scores of some users."""
    found = evaluate(bundle, dataset, part="valid", ks=(K,))
    users = np.flatnonzero(bundle.histories.lengths)[:200]
    queries = bundle.queries(bundle.users.names(users))
    items = np.arange(len(bundle.items), dtype=np.int32)
    everything = np.broadcast_to(items, (len(users), len(items)))
    return found.figures["ndcg@10"], bundle.scorer.score(queries, everything)


def speed(chosen: argparse.Namespace) -> None:
    """Record the seconds of a search in each storage."""
    vectors, queries = factors(chosen, 20_000 if chosen.tiny else 1_000_000)
    tables = {name: Table.of(vectors).to(name) for name in STORAGES}
    for batch in (1, 64):
        rounds = 2 if chosen.tiny else max(3, chosen.rounds // batch)
        for name, values in searched(vectors, tables, queries[:batch], rounds).items():
            nbytes = tables[name].nbytes if name in tables else vectors.nbytes
            line = {"storage": name, "batch": batch, "nbytes": nbytes, "seconds": values}
            line["summary"] = summary(values)
            say(f"{name} x{batch}: {1e6 * summary(values)['median']:,.0f} us")
            record("storages", {"part": "speed", "n": len(vectors), "k": K, **line}, chosen)


def searched(
    vectors: np.ndarray, tables: dict[str, Table], asked: np.ndarray, rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of each storage and of NumPy, after a look at their answers."""
    variants: dict[str, Callable[[], Any]] = {
        name: lambda table=table: table.kind.topk(table, asked, K, None, None, int(THREADS))
        for name, table in tables.items()
    }
    for name, variant in variants.items():
        rows, scores = variant()
        expected = topk_dot(asked, np.ascontiguousarray(tables[name].dense().T), K)
        assert np.array_equal(rows, expected[0]), f"{name} finds other rows"
        assert np.array_equal(scores, expected[1]), f"{name} finds other scores"
    variants["numpy"] = lambda: by_numpy(vectors, asked)
    return interleave(variants, rounds, rest_s=0.1)


if __name__ == "__main__":
    main()
