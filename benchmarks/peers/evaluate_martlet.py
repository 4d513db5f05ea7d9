"""Martlet's ``evaluate`` over stored vectors, as its user would call it."""

import os
import sys

import numpy as np
from _answer import answer

from martlet.core import Dataset, Interactions, Vocabulary
from martlet.measure.quality import evaluate
from martlet.scorers.bundle import Bundle
from martlet.scorers.factors import Factors
from martlet.scorers.projections import Lookup
from martlet.scorers.table import Table

METRICS = ("ndcg", "recall", "hit_rate", "mrr", "precision")


def prepare(folder):
    users, items = (np.load(f"{folder}/{name}.npy") for name in ("users", "items"))
    shape = {"num_users": len(users), "num_items": len(items)}

    def part(name):
        pairs = np.load(f"{folder}/{name}.npy")
        return Interactions.sort(pairs[:, 0], pairs[:, 1], None, pairs[:, 2], **shape)

    parts = [part(name) for name in ("train", "valid", "test")]
    names = Vocabulary.of(range(len(users))), Vocabulary.of(range(len(items)))
    dataset = Dataset(*names, *parts)
    scorer = Factors(Table.of(items), Lookup(Table.of(users)))
    popularity = parts[0].item_count.astype(np.float32)
    bundle = Bundle(scorer, *names, parts[0].histories, popularity)

    def run(batch=None, threads=None):
        if threads is not None:
            os.environ["MARTLET_THREADS"] = str(threads)
        quality = evaluate(bundle, dataset, ks=(10,), metrics=METRICS, batch=batch)
        return {"figures": dict(quality.figures), "num_users": quality.num_users}

    return run


if __name__ == "__main__":
    sys.exit(answer(prepare))
