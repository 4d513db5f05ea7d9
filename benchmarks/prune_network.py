"""Does half of a network answer 1.6 times as fast, and lose less than 1% of its quality?

A SASRec of d = 256 on Beauty (the last event of a user is the test, the whole catalogue ranked),
and a DLRM on the census of incomes. Halves of units, heads and layers are left out in turn, and the
rest is trained on; beside them stands the whole network trained on for as many epochs, since some
of what they gain is that.

An answer of the SASRec is the ten best items of one user from the history; the encoder alone is
timed beside, and the answer where both are searched by int8. An answer of the DLRM is one row, or
4,096 of them; the network alone is timed on a tile. All are timed in turn. Quality is NDCG@10 and
AUC with 95% paired intervals: the share that is lost, which is judged by its upper bound.

What is fitted is kept in ``.venv-peers/prune``, so a run that was stopped goes on. ``--only`` takes
"sasrec" or "dlrm", ``--variant`` one of the ways.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import martlet as mt
from _common import ROOT, interleave, options, record, say, scratch, summary
from ctr import census
from ctr import tiny as tiny_rows
from martlet.compress.compress import compress
from martlet.core import Dataset, Queries, Tabular
from martlet.measure.labels import compare_labels, evaluate_labels
from martlet.metrics import paired_bootstrap
from martlet.models.fields import DLRM
from martlet.models.restore import spec_of
from martlet.models.sasrec import SASRec
from martlet.scorers.bundle import Bundle
from martlet.scorers.runtime import Runtime
from next_item_speed import beauty
from next_item_speed import tiny as tiny_log

GOAL, LIMIT = 1.6, 0.01
# A patience that no run exhausts keeps the best epoch by validation.
SPECS: Mapping[str, Any] = {
    "sasrec": SASRec(
        dim=256, blocks=2, heads=4, max_length=50, tokens=2048, dropout=0.3, rate=0.001,
        schedule="cosine", epochs=14, patience=14,
    ),
    "dlrm": DLRM(
        dim=8, hidden=512, layers=2, batch=1024, rate=1e-3, table_rate=0.02, epochs=20, patience=2
    ),
}  # fmt: skip
TINY: Mapping[str, Mapping[str, Any]] = {
    "sasrec": {"dim": 16, "tokens": 256, "max_length": 10, "epochs": 2, "patience": 2},
    "dlrm": {"hidden": 32, "batch": 128, "epochs": 2},
}
EPOCHS = 6  # after the last step
VARIANTS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "sasrec": {
        "units and heads": ("prune:units", "prune:heads"),
        "units and heads by gradient": ("prune:units,by=gradient", "prune:heads,by=gradient"),
        "layers": ("prune:layers,steps=1",),
        "layers, units and heads": ("prune:layers,steps=1", "prune:units", "prune:heads"),
    },
    "dlrm": {"units": ("prune:units",), "units by gradient": ("prune:units,by=gradient",)},
}
WHOLE = "whole, trained on"
ASKED = 200  # users whose answers are timed
ROWS = 4096

Timed = Mapping[str, Callable[[], Any]]


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=7, add=("only", "variant"))
    with scratch() as folder:
        kept = folder if chosen.tiny else ROOT / ".venv-peers" / "prune"
        for name in [chosen.only] if chosen.only else SPECS:
            run(name, kept, chosen)


def run(name: str, kept: Path, chosen: Namespace) -> None:
    """Fit, prune, and compare each way with the whole network."""
    dataset = data_of(name, chosen)
    spec = replace(SPECS[name], **(TINY[name] if chosen.tiny else {}))
    work = mt.Run(kept / f"{name}.run", resume=True, every_s=60, progress=tell)
    before, _ = held(kept / name, lambda: mt.fit(spec, dataset, seed=chosen.seed, run=work))
    epochs = 1 if chosen.tiny else EPOCHS
    ways: dict[str, Callable[[], Bundle]] = {
        way: lambda steps=steps: compress(
            before, [f"{step},epochs={epochs}" for step in steps], dataset,
            seed=chosen.seed, progress=tell,
        )
        for way, steps in VARIANTS[name].items()
    }  # fmt: skip
    ways[WHOLE] = lambda: mt.fit(
        replace(spec_of(before), epochs=epochs), dataset, seed=chosen.seed, init=before
    )
    after: dict[str, Bundle] = {}
    spent: dict[str, float] = {}
    for way in [chosen.variant] if chosen.variant else ways:
        place = kept / f"{name}-{way.replace(',', '').replace(' ', '-')}"
        after[way], spent[way] = held(place, ways[way])
    times = timed(name, {"before": before, **after}, dataset, chosen)
    for way, bundle in after.items():
        tell_apart(name, way, before, bundle, dataset, times, spent[way], chosen)


def data_of(name: str, chosen: Namespace) -> Any:
    if name == "sasrec":
        return tiny_log(chosen.seed) if chosen.tiny else beauty(chosen.data)
    return tiny_rows() if chosen.tiny else census(chosen.data)


def held(place: Path, make: Callable[[], Bundle]) -> tuple[Bundle, float]:
    """Return a bundle that is kept already, or make it; and the seconds that took now."""
    if (place / "manifest.json").exists():
        return mt.load(place), 0.0
    say(place.name)
    begin = time.perf_counter()
    bundle = make()
    seconds = time.perf_counter() - begin
    bundle.save(place)
    return bundle, seconds


def timed(
    name: str, bundles: Mapping[str, Bundle], dataset: Any, chosen: Namespace
) -> dict[str, dict[str, list[float]]]:
    """Return seconds of each kind of work, by bundle: all bundles in turn."""
    works = {way: (of_users if name == "sasrec" else of_rows)(bundle, dataset)
             for way, bundle in bundles.items()}  # fmt: skip
    found = {}
    for kind in next(iter(works.values())):
        variants = {way: work[kind] for way, work in works.items()}
        interleave(variants, 1)
        found[kind] = interleave(variants, chosen.rounds)
    return found


def of_users(bundle: Bundle, dataset: Dataset) -> Timed:
    """Return what is timed of a SASRec, an answer's share of a call being one over ``ASKED``."""
    histories = dataset.before("test").histories
    users = np.linspace(0, histories.num_rows - 1, ASKED).astype(np.int64)
    queries = [Queries.of(histories.take(users[at : at + 1])) for at in range(len(users))]
    scorer: Any = bundle.scorer
    fast: Any = compress(bundle, ["index:exact-int8"]).scorer
    return {
        "encoder": lambda: each(queries, scorer.encode),
        "end to end": lambda: each(queries, lambda one: scorer.topk(one, 10)),
        "end to end, int8 search": lambda: each(queries, lambda one: fast.topk(one, 10)),
    }


def each(queries: Sequence[Any], answer: Callable[[Any], Any]) -> float:
    begin = time.perf_counter()
    for one in queries:
        answer(one)
    return (time.perf_counter() - begin) / len(queries)


def of_rows(bundle: Bundle, dataset: Tabular) -> Timed:
    """Return what is timed of a DLRM."""
    scorer: Any = bundle.scorer
    columns = dataset.test.take(np.arange(min(ROWS, len(dataset.test)))).columns
    single = [dataset.test.take(np.array([at])).columns for at in range(20)]
    layout, random = scorer.layout, np.random.default_rng(0)
    tile = {"vectors": random.normal(size=(256, layout.num_vectors, scorer.vectors.shape[1]))}
    if layout.num_numbers:
        tile["numbers"] = random.normal(size=(256, layout.num_numbers))
    tile = {name: array.astype(np.float32) for name, array in tile.items()}
    network = Runtime(scorer.network, {name: array.ndim for name, array in tile.items()})
    return {
        "network, a tile": lambda: each([tile] * 20, lambda one: network.run(**one)),
        "end to end, a row": lambda: each(single, scorer.predict),
        f"end to end, {ROWS} rows": lambda: each([columns], scorer.predict),
    }


def tell_apart(
    name: str,
    way: str,
    before: Bundle,
    after: Bundle,
    dataset: Any,
    times: Mapping[str, Mapping[str, Sequence[float]]],
    seconds: float,
    chosen: Namespace,
) -> None:
    """Record quality and latency of one way beside the whole network."""
    valid, test = (loss(name, before, after, dataset, part) for part in ("valid", "test"))
    median = {kind: {who: summary(one[who])["median"] for who in ("before", way)}
              for kind, one in times.items()}  # fmt: skip
    faster = {kind: one["before"] / one[way] for kind, one in median.items()}
    bound = test["lost"][2]
    told = ", ".join(f"{kind} {by:.2f}x" for kind, by in faster.items())
    share = [f"{one:.2%}" for one in test["lost"]]
    say(f"{name}, {way}: lost {share[0]} [{share[1]}, {share[2]}] of {test['figure']}, {told}")
    sizes = {who: {"network_bytes": one.scorer.extra_bytes, "scoring_bytes": one.scoring_bytes}
             for who, one in (("before", before), ("after", after))}  # fmt: skip
    line = {
        "model": name,
        "way": way,
        "spec": before.lineage[0]["params"],
        "transforms": [one["transform"] for one in after.lineage[1:]],
        "epochs": 1 if chosen.tiny else EPOCHS,
        "seconds": seconds,
        "valid": valid,
        "test": test,
        "microseconds": {
            kind: {who: [1e6 * s for s in one[who]] for who in ("before", way)}
            for kind, one in times.items()
        },
        "times_faster": faster,
        "within_limit": bound < LIMIT,
        "goal": GOAL,
        **sizes,
    }
    record("prune_network", line, chosen)


def loss(name: str, before: Bundle, after: Bundle, dataset: Any, part: str) -> dict[str, Any]:
    """Return both figures and the share that is lost, with its paired interval."""
    if name == "sasrec":
        figure = "ndcg@10"
        users = [mt.evaluate(one, dataset, part=part, per_user=True).users[figure]
                 for one in (before, after)]  # fmt: skip
        old, new = (float(one.mean()) for one in users)
        apart = paired_bootstrap(*users)
    else:
        figure = "auc"
        old, new = (evaluate_labels(one, dataset, part=part, metrics=[figure]).figures[figure].mean
                    for one in (before, after))  # fmt: skip
        apart = compare_labels(before, after, dataset, part=part, metrics=[figure])[figure]
    lost = [-apart.mean / old, -apart.high / old, -apart.low / old]
    return {"figure": figure, "before": old, "after": new, "lost": lost}


def tell(step: str, done: int, total: int) -> None:
    if done % 200 == 0:
        say(f"  {step} ({done} of {total})")


if __name__ == "__main__":
    main()
