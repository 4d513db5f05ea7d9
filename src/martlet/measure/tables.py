"""Lists that another library made, measured as a bundle's are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from martlet.core import DataError, Dataset, SpecError, sha256
from martlet.core.queries import Seen
from martlet.measure.machine import machine, threads, versions
from martlet.measure.quality import Quality, item_columns, questions
from martlet.measure.receipt import Receipt
from martlet.metrics import quality_of_table
from martlet.metrics.tables import lists_of


def measure_table(
    table: str | Path,
    dataset: Dataset,
    *,
    part: str = "test",
    ks: Sequence[int] = (10,),
    metrics: Sequence[str] = ("recall", "ndcg"),
    value: str | None = None,
    seen: Seen = "hide",
) -> tuple[Receipt, Quality]:
    """Return the receipt of a table of lists in a file, and each user's values.

    The table is as ``metrics.quality_of_table`` takes it: user_id, item_id and rank or score, in
    Parquet, CSV, TSV or JSON lines. The users and the items to find are those of ``evaluate``; a
    user without a list counts 0. The table answers nobody, so the receipt holds no cost; its
    bundle id is the file's hash.

    Raises:
        DataError: the table or the part cannot be measured, or they know no item in common.
        SpecError: an unknown metric, or one that lists do not tell.
    """
    if "auc" in metrics:
        raise SpecError(
            f"auc needs the score of every item, and {table} holds lists: leave it out, or measure "
            "the bundle that made them"
        )
    lists = lists_of(table)
    _, truth, repeats = questions(dataset, part, seen)
    users = truth.row_numbers()
    if not len(users):
        raise DataError(f"part {part!r} has no item to find: split differently, or seen='keep'")
    wanted = {
        "user_id": dataset.users.names(users),
        "item_id": dataset.items.names(truth.indices),
    }
    known = set(dataset.items.ids)
    if known.isdisjoint(map(str, lists["item"].unique())):
        raise DataError(
            f"no item of {table} is in the dataset: it has {lists['item'][0]!r}, the dataset "
            f"{dataset.items.ids[0]!r}; expected the ids of the log"
        )
    worth, popularity = (
        None if column is None else dict(zip(dataset.items.ids, column.tolist(), strict=True))
        for column in item_columns(dataset, metrics, value)
    )
    figures, per_user = quality_of_table(
        lists,
        wanted,
        ks=ks,
        metrics=metrics,
        value=worth,
        popularity=popularity,
        num_items=dataset.num_items,
    )
    asked = np.unique(users).astype(np.int32)
    receipt = Receipt(
        spec={"spec": "table", "params": {"file": Path(table).name}},
        transforms=(),
        quality=figures,
        cost={},
        num_users=len(asked),
        part=part,
        k=max(ks),
        bundle_id=sha256(table),
        data_hash=dataset.part(part).hash,
        seed=None,
        machine=machine(),
        threads=threads(),
        versions=versions(),
    )
    return receipt, Quality(figures, len(asked), 0, repeats, per_user, asked)
