"""How good is every family on ml-1m cut by time, and what does its training cost?

One protocol: the last tenth of all ratings is the test, the tenth before it the validation; the
whole catalogue is ranked, what was met before hidden. Of a user of whom nothing is known popularity
answers, but for models that read the users' columns, which answer themselves. Hyper-parameters were
chosen on the validation part alone and stand below; early stopping looks at it too. Every model is
fitted on the train part, three seeds, each in a process of its own, on a small log first:
compilation and imports are not in the seconds.

A row and seed that has a line in ``results/families.jsonl`` is not run again (``--again`` does);
``--rows NAME,NAME`` runs some; ``--table`` only prints the table of the newest lines. The spread is
that of the seeds; the difference to iALS is paired by user, its interval at 95% for all rows
together.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from _common import ROOT, data, options, record, say, scratch
from martlet.core import Dataset, SpecError, rng

SEEDS = (0, 1, 2)
METRICS = ("ndcg@10", "recall@10")
BASE = "ials"  # what every other row is compared to

FALLING = {"schedule": "cosine", "warmup": 0.1, "patience": 0}
SEQUENCES = FALLING | {
    "tokens": 4096,
    "max_length": 50,
    "loss": "sampled",
    "rate": 0.003,
    "epochs": 6,
    "dropout": 0.2,
}
FIELDS = {"epochs": 1, "patience": 0, "batch": 4096}
PAIRS = {"epochs": 8, "patience": 2, "table_rate": 0.003}
# By row of the table: the registered name, and what was chosen on the validation part.
ROWS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "popularity": ("popularity", {}),
    "item-knn": ("item-knn", {"neighbours": 1000, "weighting": "tf-idf", "exponent": 0.75}),
    "ease": ("ease", {"reg": 10_000.0}),
    "gfcf": ("gfcf", {"rank": 32, "ideal": 0.05}),
    "ials": ("ials", {"dim": 128, "unobserved_weight": 0.1, "reg": 0.05}),
    "matrix-factorization": ("matrix-factorization", {"dim": 16, "epochs": 50, "reg": 10.0}),
    "bpr": ("bpr", {"epochs": 20, "reg": 0.02}),
    "gmf": ("ncf", PAIRS | {"kind": "gmf"}),
    "mlp": ("ncf", PAIRS | {"kind": "mlp"}),
    "neumf": ("ncf", PAIRS | {"kind": "neumf"}),
    "wide-deep": ("wide-deep", FIELDS | {"table_rate": 0.003}),
    "deepfm": ("deepfm", FIELDS | {"table_rate": 0.003}),
    "dcnv2": ("dcnv2", FIELDS),
    "dlrm": ("dlrm", FIELDS),
    "two-tower": ("two-tower", FALLING | {"epochs": 6, "batch": 2048, "rate": 0.003}),
    "watch-time": ("watch-time", FIELDS),  # stars stand for seconds
    "content": ("content", {"dim": 32}),
    "cascade": (
        "cascade",
        {
            "retrieve": "ials:dim=128,unobserved_weight=0.1,reg=0.05",
            "rank": "bpr:epochs=20,reg=0.02",
        },
    ),
    "gru4rec": ("gru4rec", SEQUENCES),
    "nextitnet": ("nextitnet", SEQUENCES),
    "sasrec": ("sasrec", SEQUENCES),
    "bert4rec": ("sasrec", SEQUENCES | {"masked": 0.2}),
    "hstu": ("hstu", SEQUENCES | {"epochs": 3}),
}
# Other whole numbers are cut to 8 for a tiny run, and for what compiles before the clock starts.
SMALL = {"epochs": 2, "iterations": 2, "tokens": 256, "batch": 256}


def main() -> None:
    chosen = options(__doc__.splitlines()[0], flags=("again", "table"), add=("rows", "one"))
    if chosen.one:
        print(json.dumps(one(**json.loads(chosen.one))))
        return
    if chosen.table:
        print(table(newest(chosen.results)))
        return
    wanted = chosen.rows.split(",") if chosen.rows else list(ROWS)
    unknown = sorted(set(wanted) - set(ROWS))
    if unknown:
        raise SystemExit(f"there is no row {unknown[0]!r}: expected some of {', '.join(ROWS)}")
    with scratch() as folder:
        dataset = tiny(chosen.seed) if chosen.tiny else movielens(chosen.data)
        dataset.save(folder / "dataset")
        lines = []
        for row, params in possible(wanted, chosen.tiny):
            for seed in SEEDS[:1] if chosen.tiny else SEEDS:
                told = Namespace(**(vars(chosen) | {"seed": seed}))
                lines += measure(row, params, folder / "dataset", told)
    print(table(lines if chosen.tiny else newest(chosen.results)))


def movielens(folder: Path | None) -> Dataset:
    """Return ml-1m by time, with what is known of films and of people."""
    from martlet.data import TimeSplit, prepare

    ratings, films, people = (
        data(folder, "ml-1m", name) for name in ("ratings.parquet", "movies.dat", "users.dat")
    )
    return prepare(ratings, items=films, users=people, split=TimeSplit(0.1, 0.1))


def tiny(seed: int) -> Dataset:
    """Return a synthetic log in time order, whose items and users have texts."""
    from martlet.data import TimeSplit, prepare
    from martlet.data.synthetic import synthesize

    log = synthesize(num_users=120, num_items=60, num_events=3000, seed=seed)
    random = rng(seed, "families", "tiny")
    words = np.array(["drama", "comedy", "war", "crime"])
    items = {"item_id": np.arange(60), "title": words[random.integers(0, 4, 60)]}
    users = {"user_id": np.arange(120), "trade": words[random.integers(0, 4, 120)]}
    events = {"user": log.user_row, "item": log.item_row, "time": log.time_s}
    return prepare(events, items=items, users=users, split=TimeSplit(0.1, 0.1))


def possible(wanted: list[str], is_tiny: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows that this version can fit, with their settings; say what it cannot."""
    from martlet.models.registry import names, spec

    for missing in sorted(set(names()) - {name for name, _ in ROWS.values()}):
        say(f"skipped: {missing}: it has no settings here")
    for row in wanted:
        name, params = ROWS[row]
        if name not in names():
            say(f"skipped: {row}: no model is called {name}")
            continue
        params = small(params) if is_tiny else dict(params)
        try:
            spec(name, **params)
        except SpecError as error:
            say(f"skipped: {row}: {error}")
            continue
        yield row, params


def measure(
    row: str, params: dict[str, Any], folder: Path, chosen: Namespace
) -> list[dict[str, Any]]:
    """Record a row and seed, unless it is recorded already; return its lines."""
    if not chosen.again and not chosen.tiny:
        known = {"row": row, "params": params, "seed": chosen.seed}
        for line in newest(chosen.results):
            if known.items() <= line.items():
                say(f"{row}, seed {chosen.seed}: recorded on {line['when']}")
                return [line]
    asked = {"row": row, "params": params, "folder": str(folder), "seed": chosen.seed}
    # In a tiny run one process does for all but the first: what is tried is the path, not memory.
    apart = not chosen.tiny or row == next(iter(ROWS))
    found = in_a_process(asked) if apart else one(**asked)
    record("families", found, chosen)
    say(f"{row}, seed {chosen.seed}: {found['test']} in {found['fit_s']:.1f} s")
    return [found | {"seed": chosen.seed}]


def in_a_process(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what ``one`` measures in a fresh process, whose peak memory is the model's own."""
    command = [sys.executable, __file__, "--one", json.dumps(asked)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def one(row: str, params: dict[str, Any], folder: str, seed: int) -> dict[str, Any]:
    """Fit and measure one model in this process, after a small fit that compiles what it needs."""
    from martlet.measure.fresh import peak_bytes
    from martlet.measure.quality import evaluate

    name = ROWS[row][0]
    begin, other = time.perf_counter(), tiny(seed)
    evaluate(fitted(name, small(params), other, seed)[0], other)
    compile_s = time.perf_counter() - begin
    dataset, before = Dataset.load(folder), peak_bytes()
    begin, cpu = time.perf_counter(), time.process_time()
    bundle, epochs = fitted(name, params, dataset, seed)
    fit_s, fit_cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    peak, quality = peak_bytes(), {}
    for part in ("valid", "test"):
        quality[part] = evaluate(bundle, dataset, part=part, per_user=True)
    return {
        "row": row,
        "model": name,
        "params": params,
        "fit_s": fit_s,
        "fit_cpu_s": fit_cpu_s,
        "compile_s": compile_s,
        "peak_mb": peak / 1e6,
        "before_mb": before / 1e6,
        "parameters": sum(int(np.size(t.values)) for t in bundle.scorer.tables().values()),
        "valid": dict(quality["valid"].figures),
        "test": dict(quality["test"].figures),
        "num_users": quality["test"].num_users,
        "num_fallback": quality["test"].num_fallback,
        "epochs": epochs,
        "ndcg of each": [round(float(v), 3) for v in quality["test"].users["ndcg@10"]],
    }


def fitted(name: str, params: Mapping[str, Any], dataset: Dataset, seed: int) -> tuple[Any, Any]:
    """Return the bundle, and its epochs where it has any."""
    import martlet as mt
    from martlet.models.fit import accepts
    from martlet.models.registry import spec

    made = spec(name, **params)
    with tempfile.TemporaryDirectory() as kept:
        given = {"run": mt.Run(Path(kept), every_s=0)} if "run" in accepts(made) else {}
        bundle = mt.fit(made, dataset, seed=seed, **given)
        log = Path(kept) / "log.jsonl"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return bundle, [line for line in lines if "epoch" in line]


def small(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with every count small."""
    return {
        name: min(value, SMALL.get(name, 8)) if type(value) is int else value
        for name, value in params.items()
    }


def newest(results: Path) -> list[dict[str, Any]]:
    """Return the newest line of each row and seed."""
    path = results / "families.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return list({(line["row"], line["seed"]): line for line in lines}.values())


def table(lines: list[dict[str, Any]]) -> str:
    """Return the table in Markdown, rows in the order of ``ROWS``."""
    by_row = {row: [line for line in lines if line["row"] == row] for row in ROWS}
    by_row = {row: some for row, some in by_row.items() if some}
    text = [
        "| family | NDCG@10 (least - most of the seeds) | against iALS, 95% | Recall@10 "
        "| training s | CPU s | peak MB | parameters |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, some in by_row.items():
        ndcg, recall = ([line["test"][metric] for line in some] for metric in METRICS)
        seconds, cpu, peak = (
            np.mean([line[key] for line in some]) for key in ("fit_s", "fit_cpu_s", "peak_mb")
        )
        text.append(
            f"| {row} | {spread(ndcg)} | {against(row, by_row)} | {spread(recall)} "
            f"| {seconds:.1f} | {cpu:.1f} | {peak:.0f} | {some[0]['parameters']:,} |"
        )
    return "\n".join(text)


def spread(values: list[float]) -> str:
    return f"{np.mean(values):.4f} ({min(values):.4f} - {max(values):.4f})"


def against(row: str, by_row: Mapping[str, list[dict[str, Any]]]) -> str:
    """Return how much better than iALS the row is, a user's mean over the seeds being one value."""
    from martlet.metrics import paired_bootstrap

    if row == BASE or BASE not in by_row:
        return "-"
    base, other = (
        np.mean([line["ndcg of each"] for line in by_row[name]], 0) for name in (BASE, row)
    )
    found = paired_bootstrap(base, other, comparisons=len(by_row) - 1)
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


if __name__ == "__main__":
    main()
