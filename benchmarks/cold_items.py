"""Who ranks items that nobody has met yet, when all there is of them is their columns?

A tenth of the items (of those met five times or more) is left out: their events leave the train
part and are what is to be found. Each user with such an event ranks the left-out items alone, from
the rest of the own history. AUC is the share of pairs in the right order, a tie counting half, so
a model that knows nothing of them has .5; NDCG@10 and recall@10 are among the left-out items too.
Films have title, genres and a paragraph, artists a name and the tags that people gave them.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import martlet as mt
from _common import data, options, record, say
from martlet.core import CSR, Dataset, Queries, rng
from martlet.measure.quality import scores_of
from martlet.metrics import Tally
from martlet.models.fit import accepts
from martlet.models.registry import spec

K, SHARE, LEAST, BATCH = 10, 0.1, 5, 256
MODELS: Mapping[str, Mapping[str, Any]] = {
    "popularity": {},
    "ials": {"dim": 64},
    "content": {},
    "two-tower": {"item_columns": True, "epochs": 8, "patience": 0},
}
TINY = {"epochs": 2, "batch": 128, "dim": 8}


def main() -> None:
    chosen = options(__doc__.splitlines()[0], add=("model", "on"))
    logs = {"tiny": tiny} if chosen.tiny else {"ml-1m": films, "lastfm": artists}
    for name in [chosen.on] if chosen.on else logs:
        dataset, cold = left_out(logs[name](chosen.data), chosen.seed)
        say(f"{name}: {len(cold):,} items left out, with {len(dataset.test):,} events")
        for model in [chosen.model] if chosen.model else MODELS:
            params = dict(MODELS[model])
            if chosen.tiny:
                params |= {key: value for key, value in TINY.items() if key in known(model)}
            measure(name, model, params, dataset, cold, chosen)


def known(model: str) -> set[str]:
    """Return the hyper-parameters of a model."""
    return set(vars(spec(model)))


def left_out(dataset: Dataset, seed: int) -> tuple[Dataset, np.ndarray]:
    """Return the dataset with a tenth of the items in the test part alone, and their rows."""
    whole = dataset.before("test").union(dataset.test)
    often = np.flatnonzero(whole.item_count >= LEAST)
    cold = np.sort(rng(seed, "cold items").permutation(often)[: int(len(often) * SHARE)])
    away = np.isin(whole.item_row, cold)
    nothing = whole.select(np.zeros(len(whole), bool))
    train, test = whole.select(~away), whole.select(away)
    return replace(dataset, train=train, valid=nothing, test=test), cold


def measure(
    name: str,
    model: str,
    params: Mapping[str, Any],
    dataset: Dataset,
    cold: np.ndarray,
    chosen: Namespace,
) -> None:
    """Fit, and record how the left-out items are ranked."""
    one = spec(model, **params)
    begin = time.perf_counter()
    given = {"run": mt.Run(progress=tell)} if "run" in accepts(one) else {}
    bundle = mt.fit(one, dataset, seed=chosen.seed, **given)
    fit_s = time.perf_counter() - begin
    figures = rank(bundle, dataset, cold)
    say(f"{name}, {model}: {figures} ({fit_s:.0f} s)")
    about = {"data": name, "model": model, "params": dict(params), "items": len(cold)}
    record("cold_items", about | {"fit_s": fit_s, **figures}, chosen)


def rank(bundle: Any, dataset: Dataset, cold: np.ndarray) -> dict[str, float]:
    """Return AUC, NDCG and recall among the left-out items, means over users."""
    truth, histories = dataset.test.matrix, dataset.train.histories
    users = np.flatnonzero((truth.lengths > 0) & (histories.lengths > 0))
    place = np.full(dataset.num_items, -1, np.int32)
    place[cold] = np.arange(len(cold))
    tally, auc = Tally(len(cold), (K,), ("ndcg", "recall")), []
    for start in range(0, len(users), BATCH):
        some = users[start : start + BATCH]
        rows = np.broadcast_to(cold.astype(np.int32), (len(some), len(cold)))
        scores, _ = scores_of(bundle, Queries.of(histories.take(some), some.astype(np.int32)), rows)
        wanted = truth.take(some)
        hit = np.zeros(scores.shape, bool)
        hit[wanted.row_numbers(), place[wanted.indices]] = True
        auc += [in_order(score, found) for score, found in zip(scores, hit, strict=True)]
        # Ties in an order of their own for each user, not in that of the rows.
        mixed = rng(start, "ties").random(scores.shape)
        best = np.lexsort((mixed, -scores), axis=1)[:, :K].astype(np.int32)
        local = CSR(wanted.indptr, place[wanted.indices], None, len(cold))
        tally.add(best, local)
    return {"auc": float(np.mean(auc)), **tally.figures(), "users": float(len(users))}


def in_order(score: np.ndarray, hit: np.ndarray) -> float:
    """Return the share of (found, other) pairs in the right order; a tie counts half."""
    others = np.sort(score[~hit])
    if not len(others):
        return 0.5
    below = np.searchsorted(others, score[hit], "left") + np.searchsorted(
        others, score[hit], "right"
    )
    return float(below.mean() / 2 / len(others))


def tell(step: str, done: int, total: int) -> None:
    if done % 500 == 0:
        say(f"  {step} ({done} of {total} steps)")


def films(folder: Path | None) -> Dataset:
    """Return ml-1m with title, genres and a paragraph of each film."""
    paths = [data(folder, "ml-1m", name) for name in ("ratings.parquet", "movies.dat")]
    made = mt.prepare(str(paths[0]), items=str(paths[1]), split=mt.RandomSplit())
    texts = pl.read_parquet(data(folder, "ml-1m", "descriptions.parquet"))
    by_id = dict(zip(texts["item_id"].cast(str), texts["description"], strict=True))
    return replace(made, catalogue={**made.catalogue, "text": text_of(made, by_id)})


def artists(folder: Path | None) -> Dataset:
    """Return the listeners' log with the name of each artist and the tags it was given."""
    log = pl.read_csv(data(folder, "lastfm", "user_artists.dat"), separator="\t")
    log = log.rename({"userID": "user_id", "artistID": "item_id"}).drop("weight")
    names = pl.read_csv(data(folder, "lastfm", "artists.dat"), separator="\t", quote_char=None)
    words = pl.read_csv(
        data(folder, "lastfm", "tags.dat"), separator="\t", quote_char=None, encoding="utf8-lossy"
    )
    given = pl.read_parquet(data(folder, "lastfm", "user_taggedartists.parquet"))
    tags = given.join(words, on="tagID").group_by("artistID").agg(pl.col("tagValue").str.join(" "))
    made = mt.prepare(log, split=mt.RandomSplit())
    by_id = [
        dict(zip(table[key].cast(str), table[value], strict=True))
        for table, key, value in ((names, "id", "name"), (tags, "artistID", "tagValue"))
    ]
    return replace(
        made, catalogue={"title": text_of(made, by_id[0]), "tags": text_of(made, by_id[1])}
    )


def tiny(_: Path | None) -> Dataset:
    """Return a log of people who each love one of four subjects."""
    random = np.random.default_rng(0)
    user, item = np.nonzero(
        (np.arange(80)[:, None] % 4 == np.arange(120) % 4) & (random.random((80, 120)) < 0.6)
    )
    made = mt.prepare({"user": user, "item": item, "time": np.arange(len(user))}, clean=())
    by_id = {str(i): f"number {i} of subject{i % 4}" for i in range(120)}
    return replace(made, catalogue={"title": text_of(made, by_id)})


def text_of(dataset: Dataset, by_id: Mapping[str, str]) -> mt.core.Text:
    """Return a column of texts in row order; "" where there is none."""
    ids = dataset.items.names(np.arange(dataset.num_items))
    return mt.core.Text.of(by_id.get(one) or "" for one in ids)


if __name__ == "__main__":
    main()
