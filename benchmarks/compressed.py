"""What does each compression of each model cost, and which one is the smallest that loses under 1%?

iALS, GFCF, two-tower, SASRec and NeuMF on ml-1m cut by time and on Beauty (the last event of a user
is the test, the one before it the validation), with the settings of ``families.py`` and
``next_item_quality.py``. Each bundle is swept on the validation part: the transforms of
``martlet.compress.grid``, their pairs, and the longer compositions below. The chosen one, of the
smallest tables whose loss of NDCG@10 is under 1% by the bound (corrected for all candidates), is
then measured on the test part, once; so is the smallest that loses under 1% in the mean. Bundles
and what was measured are kept in ``.venv-peers/compression``, so that a run that was stopped goes
on; ``--only ml-1m/ials`` takes one, ``--only million`` the large catalogue, ``--table`` prints the
newest lines.

The large catalogue is 1,000,000 items: the products of Beauty by iALS and editions of them, vectors
with noise of a quarter of their own length. So each product has some 80 rivals close to it. Neither
what a user has met is shown nor an edition of it; a list is 200 long, and each product counts once,
by its best edition; NDCG@10 of 8,000 users against their product of the validation part. ``kept``
is the share of the exact ten best rows that are found.
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import martlet as mt
from _common import ROOT, options, record, say, scratch
from families import ROWS, movielens, possible
from families import tiny as tiny_events
from martlet.core import CSR, Dataset, Queries, SpecError, Vocabulary, rng
from martlet.frontier.sweep import Sweep, sweep
from martlet.measure.cost import cost
from martlet.measure.receipt import Receipt
from martlet.metrics import paired_bootstrap
from martlet.metrics.quality import per_user
from martlet.models.registry import spec
from martlet.scorers.bundle import Bundle
from martlet.scorers.table import Table
from next_item_quality import MODELS as NEXT_ITEM
from next_item_speed import beauty

KEPT = ROOT / ".venv-peers" / "compression"
LIMIT = {"ndcg@10": 0.01}
ROWS_OF = ("ials", "gfcf", "two-tower", "sasrec", "neumf")
# Tried after single transforms and pairs: fewer dimensions or numbers, fewer bits, and a network.
LONGER = (
    ("low-rank:error=0.05", "quantize:int8", "index:ivf"),
    ("low-rank:error=0.1", "quantize:int8", "quantize:int8,of=network"),
    ("low-rank:error=0.1", "quantize:int4", "quantize:int8,of=network"),
    ("prune:dims,share=0.25", "quantize:int4", "quantize:int8,of=network"),
    ("prune:units,share=0.5", "quantize:int8", "quantize:int8,of=network"),
    ("prune:units,share=0.5", "quantize:int4", "quantize:int8,of=network"),
    ("prune:units,share=0.5", "quantize:pq:16x8", "quantize:int8,of=network"),
)
TINY_GRID = (("quantize:fp16", "quantize:int8"), ("index:ivf",))
MILLION = ("quantize:fp16", "quantize:int8", "quantize:int4", "quantize:pq:8x8", "quantize:pq:16x8")
MILLION += ("quantize:pq:32x8", "quantize:pq:8x8+16x8")
NOISE = 0.25  # of an edition, as a share of the length of the product's vector
DEPTH = 200  # rows of a list, before editions of one product are put together
USERS = 8000


def main() -> None:
    chosen = options(__doc__.splitlines()[0], add=("only",), flags=("table",))
    if chosen.table:
        print(table(newest(chosen.results)))
        return
    if chosen.tiny:
        with scratch() as kept:
            lines = [line for one in todo(chosen) for line in one(kept)]
    else:
        lines = [line for one in todo(chosen) for line in one(KEPT)]
    print(table([line for line in lines if "model" in line]))


def todo(chosen: Namespace) -> Iterator[Any]:
    """Yield what is asked for: functions of the folder that keeps, which return their lines."""
    wanted = chosen.only.split(",") if chosen.only else None
    for name in ("beauty", "ml-1m"):
        for row in ROWS_OF[:2] if chosen.tiny else ROWS_OF:
            if not wanted or f"{name}/{row}" in wanted or name in wanted:
                yield lambda kept, name=name, row=row: model(name, row, kept, chosen)
    if not wanted or "million" in wanted:
        yield lambda kept: million(kept, chosen)


def model(name: str, row: str, kept: Path, chosen: Namespace) -> list[dict[str, Any]]:
    """Record the sweep of one model on one log."""
    folder = kept / name / row
    dataset = logs(name, kept, chosen)
    bundle = fitted(name, row, dataset, folder, chosen)
    if bundle is None:
        return []
    say(f"{name}/{row}")
    more = {"grid": TINY_GRID, "cold_runs": 0} if chosen.tiny else {"also": LONGER}
    found = sweep(bundle, dataset, folder / "sweep", LIMIT, seed=chosen.seed, progress=tell, **more)
    best, likely = found.steps(found.chosen), smallest_likely(found)
    line = {
        "data": name,
        "model": row,
        "params": bundle.lineage[0]["params"],
        "rows": [found.row(receipt) for receipt in found.receipts],
        "nothing_beats": [bool(one) for one in found.best()],
        "num_users": found.receipts[0].num_users,
        "chosen": list(best),
        "times_smaller": ratio(found, found.chosen, "scoring_mb"),
        "bundle_times_smaller": ratio(found, found.chosen, "bundle_mb"),
        "likely": list(found.steps(likely)),
        "likely_times_smaller": ratio(found, likely, "scoring_mb"),
        "skipped": list(found.skipped),
        "test": on_test(bundle, best, dataset, chosen),
        "likely_test": on_test(bundle, found.steps(likely), dataset, chosen),
    }
    record("compressed", line, chosen)
    return [line]


def logs(name: str, kept: Path, chosen: Namespace) -> Dataset:
    """Return the dataset, prepared once."""
    folder = kept / name / "dataset"
    if not folder.exists():
        made = {"ml-1m": movielens, "beauty": beauty}[name]
        dataset = tiny_events(chosen.seed) if chosen.tiny else made(chosen.data)
        dataset.save(folder)
    return Dataset.load(folder)


def fitted(name: str, row: str, dataset: Dataset, folder: Path, chosen: Namespace) -> Bundle | None:
    """Return the bundle, fitted once; None where this version has no such model."""
    if (folder / "bundle").exists():
        return mt.load(str(folder / "bundle"))
    for _, params in possible([row], chosen.tiny):
        if name == "beauty" and row in NEXT_ITEM and not chosen.tiny:
            params = dict(NEXT_ITEM[row])
        begin = time.perf_counter()
        bundle = mt.fit(spec(ROWS[row][0], **params), dataset, seed=chosen.seed)
        say(f"{name}/{row}: fitted in {time.perf_counter() - begin:.0f} s")
        bundle.save(folder / "bundle")
        return bundle
    return None


def on_test(
    bundle: Bundle, steps: Sequence[str], dataset: Dataset, chosen: Namespace
) -> dict[str, Any] | None:
    """Return what the chosen steps lose on the test part."""
    if not steps:
        return None
    after = mt.compress(bundle, steps, dataset, seed=chosen.seed)
    found = mt.gate(bundle, after, dataset, LIMIT, part="test", cost=False)
    return found.verdicts[0].to_json()


def smallest_likely(found: Sweep) -> Receipt:
    """Return the smallest tables that lose under 1% in the mean, where too few users can tell."""
    alike = [
        receipt
        for receipt in found.receipts
        for loss in [found.row(receipt)["loss"]]
        if loss is None or loss["mean"] <= LIMIT["ndcg@10"]
    ]
    return min(alike, key=lambda receipt: receipt.cost["scoring_mb"])


def ratio(found: Sweep, one: Receipt, size: str) -> float:
    """Return how many times smaller a candidate is than the bundle was."""
    return float(found.receipts[0].cost[size]) / float(one.cost[size])


def tell(step: str, done: int, total: int) -> None:
    """Say which candidate is under way."""
    say(f"  {step} ({done} of {total})")


def million(kept: Path, chosen: Namespace) -> list[dict[str, Any]]:
    """Record what storages of 1,000,000 item vectors take, answer and cost."""
    size = 2000 if chosen.tiny else 1_000_000
    dataset = logs("beauty", kept, chosen)
    small = mt.fit(spec("ials", dim=16 if chosen.tiny else 64), dataset, seed=chosen.seed)
    whole, product = editions(small, size, chosen.seed)
    queries, truth = asked(whole, product, dataset, chosen.seed)
    exact = whole.scorer.topk(queries, DEPTH).item_row
    base = products_ndcg(exact, product, truth)
    rows = [measured(whole, (), base, base, chosen) | {"kept": 1.0}]
    for text in MILLION:
        begin = time.perf_counter()
        try:
            after = mt.compress(whole, [text], seed=chosen.seed)
        except SpecError as reason:
            say(f"left out: {text}: {reason}")
            continue
        told = {"compress_s": time.perf_counter() - begin}
        found = after.scorer.topk(queries, DEPTH).item_row
        told["kept"] = float((exact[:, :10, None] == found[:, None, :10]).any(2).mean())
        ndcg = products_ndcg(found, product, truth)
        rows.append(measured(after, (text,), base, ndcg, chosen) | told)
        say(f"{text}: {rows[-1]}")
    line = {"items": size, "noise": NOISE, "num_users": len(base), "catalogue": rows}
    record("compressed", line, chosen)
    return [line]


def editions(small: Bundle, size: int, seed: int) -> tuple[Bundle, np.ndarray]:
    """Return the bundle with editions after its products, and (size,) the product of each item."""
    vectors = small.scorer.tables()["items"].dense()
    n, dim = vectors.shape
    random = rng(seed, "compression", "editions")
    product = np.concatenate([np.arange(n), random.integers(0, n, size - n)])
    items = vectors[product]
    lengths = np.linalg.norm(items[n:], axis=1, keepdims=True) / np.sqrt(dim)
    items[n:] += (NOISE * lengths * random.normal(size=(size - n, dim))).astype(np.float32)
    popularity = np.zeros(size, np.float32)
    popularity[:n] = small.popularity
    whole = Bundle(
        replace(small.scorer, items=Table.of(items)),
        small.users,
        Vocabulary.of(map(str, range(size))),
        replace(small.histories, num_cols=size),
        popularity,
        lineage=small.lineage,
    )
    return whole, product


def asked(whole: Bundle, product: np.ndarray, dataset: Dataset, seed: int) -> tuple[Queries, CSR]:
    """Return the queries of validation users with something to find, and what that is."""
    before, truth = dataset.before("valid").matrix, dataset.part("valid").matrix
    n = truth.num_cols
    key, met = (m.row_numbers().astype(np.int64) * n + m.indices for m in (truth, before))
    new = ~np.isin(key, met)
    shape = (truth.num_rows, n)
    wanted = CSR.from_pairs(truth.row_numbers()[new], truth.indices[new], None, shape)
    users = np.flatnonzero((wanted.lengths > 0) & (before.lengths > 0))
    users = np.sort(rng(seed, "compression", "users").permutation(users)[:USERS])
    of_product = np.split(np.argsort(product, kind="stable"), np.cumsum(np.bincount(product))[:-1])
    hidden = [
        np.concatenate([of_product[at] for at in before.take(users[row : row + 1]).indices])
        for row in range(len(users))
    ]
    queries = whole.queries(dataset.users.names(users))
    return replace(queries, exclude=CSR.from_rows(hidden, len(product))), wanted.take(users)


def products_ndcg(rows: np.ndarray, product: np.ndarray, truth: CSR) -> np.ndarray:
    """Return (users,) NDCG@10 of lists of items, each product counted once."""
    lists = np.full((len(rows), 10), -1, np.int32)
    for place, row in enumerate(rows):
        named, first = np.unique(product[row[row >= 0]], return_index=True)
        best = named[np.argsort(first)][:10]
        lists[place, : len(best)] = best
    return per_user(lists, truth, ks=(10,), metrics=("ndcg",))["ndcg@10"]


def measured(
    bundle: Bundle,
    steps: Sequence[str],
    base: np.ndarray,
    ndcg: np.ndarray,
    chosen: Namespace,
) -> dict[str, Any]:
    """Return a row: quality and its loss with the paired interval, and every cost."""
    loss = paired_bootstrap(ndcg / base.mean(), base / base.mean(), seed=chosen.seed)
    found = cost(
        bundle, num_queries=100 if chosen.tiny else 1000, cold_runs=0 if chosen.tiny else 1
    )
    return {"steps": steps, "ndcg@10": float(ndcg.mean()), "loss": loss._asdict(), "cost": found}


def newest(results: Path) -> list[dict[str, Any]]:
    """Return the newest line of each log and model."""
    path = results / "compressed.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return list({(line["data"], line["model"]): line for line in lines if "model" in line}.values())


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the chosen compositions, and each transform, in Markdown."""
    heads = ("log, model", "transforms", "NDCG@10", "loss, 95%", "tables", "bundle", "p50 ms")
    text = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for line in lines:
        first = line["rows"][0]
        for row, kept in zip(line["rows"], line["nothing_beats"], strict=True):
            told = " + ".join(row["steps"]) or "as it was"
            told = f"**{told}**" if row["steps"] == line["chosen"] else told
            loss = row["loss"]
            lost = "-" if loss is None else "{mean:.2%} [{low:.2%}, {high:.2%}]".format(**loss)
            sizes = [first["cost"][n] / row["cost"][n] for n in ("scoring_mb", "bundle_mb")]
            text.append(
                f"| {line['data']}, {line['model']} | {told}{' *' if kept else ''} "
                f"| {row['quality']:.4f} | {lost} | {sizes[0]:.1f}x | {sizes[1]:.1f}x "
                f"| {row['cost']['p50_ms']:.3f} |"
            )
    return "\n".join(text)


if __name__ == "__main__":
    main()
