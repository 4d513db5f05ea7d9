"""Which weight of the unobserved suits a log that nobody tuned iALS for?

All other settings are the defaults; quality is that of the validation part, over the whole
catalogue. The rule is what ``IALS(unobserved_weight=None)`` takes.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

import martlet as mt
from _common import data, options, record, say
from martlet.core import Dataset
from martlet.data import prepare
from martlet.data.splits import LastOut, RandomSplit
from martlet.data.synthetic import synthesize

WEIGHTS = (0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


def main() -> None:
    chosen = options(__doc__.splitlines()[0])
    if chosen.tiny:
        log = synthesize(num_users=100, num_items=50, num_events=2000, seed=chosen.seed)
        table = {"user": log.user_row, "item": log.item_row}
        measure("synthetic", prepare(table, split=RandomSplit()), (0.1,), chosen)
        return
    for name, dataset in logs(data(chosen.data)):
        measure(name, dataset, WEIGHTS, chosen)


def logs(folder: Path) -> Iterator[tuple[str, Dataset]]:
    """Yield each log with a validation part: the last event, or a tenth where there is no time."""
    yield (
        "ml-1m",
        prepare(mt.read(folder / "ml-1m/ratings.parquet", time_col="order"), split=LastOut()),
    )
    yield "beauty", prepare(folder / "beauty/sequences.txt", split=LastOut())
    for name, file, columns in (
        ("lastfm", "user_artists.dat", {}),
        ("frappe", "frappe.parquet", {"user_col": "user", "item_col": "item"}),
        ("tafeng", "history.parquet", {}),
        ("gowalla", "train.parquet", {}),
    ):
        log = mt.read(folder / name / file, **columns)
        yield name, prepare(log, split=RandomSplit(valid=0.1, test=0.1))


def measure(name: str, dataset: Dataset, weights: Sequence[float], chosen: Namespace) -> None:
    """Record NDCG@10 at each weight, and at the rule's."""
    matrix = dataset.train.matrix
    rule = mt.IALS().objective(matrix).unobserved_weight
    found = {}
    for weight in (*weights, None):
        bundle = mt.fit(mt.IALS(unobserved_weight=weight), dataset, seed=chosen.seed)
        receipt = mt.measure(bundle, dataset, part="valid", k=10, cost=False)
        ndcg = found["rule" if weight is None else str(weight)] = receipt.quality["ndcg@10"]
        say(f"{name} weight {rule if weight is None else weight:.3g}: {ndcg:.4f}")
    shape = {"num_users": matrix.num_rows, "num_items": matrix.num_cols, "pairs": matrix.nnz}
    record("ials_default", {"log": name, **shape, "rule": rule, "ndcg@10": found}, chosen)


if __name__ == "__main__":
    main()
