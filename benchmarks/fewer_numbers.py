"""What do low rank and pruning of tables lose of a ranking, and at how many bytes?

Fits iALS, BPR, EASE and GF-CF on ml-1m by time, and changes each by one transform at several
strengths, and by a few compositions. A line a result: NDCG@10 of the test users before and after,
the 95% interval of the difference over the same users, bytes that answering holds, and seconds.
"""

from __future__ import annotations

import os
import time
from typing import Any

from _common import PINNED, options, record, say

os.environ.update(PINNED)

import numpy as np

from families import movielens, tiny
from martlet.compress.compress import compress
from martlet.core import Dataset, SpecError
from martlet.measure.quality import evaluate
from martlet.metrics import paired_bootstrap
from martlet.models.fit import fit
from martlet.models.registry import spec

MODELS: dict[str, dict[str, Any]] = {
    "ials": {"dim": 64},
    "bpr": {"dim": 64},
    "ease": {},
    "gfcf": {},
}
VECTORS = (
    *(f"low-rank:{rank}" for rank in (8, 16, 32, 48)),
    "low-rank:error=.2",
    *(f"prune:dims,share={share}" for share in (0.25, 0.5, 0.75)),
    *(f"prune:rows,share={share}" for share in (0.2, 0.5, 0.8)),
    *(f"prune:values,share={share}" for share in (0.6, 0.8, 0.9)),
    "low-rank:16 quantize:int8",
    "prune:rows,share=0.5 low-rank:16 quantize:int8",
)
ENTRIES = (
    *(f"low-rank:{rank}" for rank in (16, 32, 64)),
    *(f"prune:entries,share={share}" for share in (0.5, 0.8, 0.9, 0.95)),
    *(f"prune:entries,share={share},by=frequency" for share in (0.8, 0.95)),
    "low-rank:32 quantize:int8",
    "prune:entries,share=0.9 quantize:int8",
)
STEPS = {"ials": VECTORS, "bpr": VECTORS, "ease": ENTRIES, "gfcf": ENTRIES}


def main() -> None:
    """Fit, change, measure, record."""
    chosen = options(__doc__.splitlines()[0], rounds=1, add=["models"])
    dataset = tiny(chosen.seed) if chosen.tiny else movielens(chosen.data)
    for name in chosen.models.split(",") if chosen.models else MODELS:
        params = {"dim": 8} if chosen.tiny and "dim" in MODELS[name] else MODELS[name]
        bundle = fit(spec(name, **params), dataset, seed=chosen.seed)
        before = told(bundle, dataset)
        for text in STEPS[name]:
            line = {"model": name, "params": params, "transforms": text.split()}
            start = time.perf_counter()
            try:
                small = compress(bundle, text.split(), dataset, seed=chosen.seed)
            except SpecError as error:
                say(f"{name}: {error}")
                continue
            seconds = time.perf_counter() - start
            after = told(small, dataset)
            change = paired_bootstrap(before.users["ndcg@10"], after.users["ndcg@10"])
            values = {
                "ndcg@10": after.figures["ndcg@10"],
                "ndcg@10_before": before.figures["ndcg@10"],
                "change": [change.mean, change.low, change.high],
                "num_users": after.num_users,
                "scoring_bytes": small.scoring_bytes,
                "scoring_bytes_before": bundle.scoring_bytes,
                "tables": small.lineage[-len(text.split())].get("tables"),
                "seconds": seconds,
            }
            record("fewer_numbers", line | values, chosen)


def told(bundle: Any, dataset: Dataset) -> Any:
    """Return the quality on the users of the test part of whom something is known.

    The others are answered by popularity, before and after.
    """
    history = dataset.before("test").matrix.lengths
    users = np.intersect1d(np.unique(dataset.test.user_row), np.flatnonzero(history))
    return evaluate(bundle, dataset, users=users, per_user=True)


if __name__ == "__main__":
    main()
