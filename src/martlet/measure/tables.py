"""Lists that another library made, measured as a bundle's are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from martlet.core import DataError, Dataset, sha256
from martlet.core.queries import Seen
from martlet.measure.machine import machine, threads, versions
from martlet.measure.quality import Quality, item_columns, questions
from martlet.measure.receipt import Receipt
from martlet.metrics import quality_of_table

COLUMNS = ("user_id", "item_id", "rank")


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
    """Return the receipt of a Parquet table of user_id, item_id and rank, and each user's values.

    The users and the items to find are those of ``evaluate``; a user without a list counts 0.
    Novelty and AUC need more than lists, and are left out. The table answers nobody, so the
    receipt holds no cost; its bundle id is the file's hash.

    Raises:
        DataError: the table or the part cannot be measured.
        SpecError: an unknown metric.
    """
    import polars as pl

    try:
        lists = pl.read_parquet(table)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{table} is no readable Parquet table ({error}): expected columns "
            f"{', '.join(COLUMNS)}, such as 'martlet recommend --all' writes"
        ) from error
    _, truth, repeats = questions(dataset, part, seen)
    users = truth.row_numbers()
    if not len(users):
        raise DataError(f"part {part!r} has no item to find: split differently, or seen='keep'")
    wanted = {
        "user_id": dataset.users.names(users),
        "item_id": dataset.items.names(truth.indices),
    }
    worth, _ = item_columns(dataset, ("value_recall",), value)
    values = None
    if worth is not None:
        values = dict(zip(dataset.items.ids, worth.tolist(), strict=True))
    figures, per_user = quality_of_table(
        lists,
        wanted,
        ks=ks,
        metrics=[name for name in metrics if name not in ("novelty", "auc")],
        columns=COLUMNS,
        value=values,
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
        k=ks[0],
        bundle_id=sha256(table),
        data_hash=dataset.part(part).hash,
        seed=None,
        machine=machine(),
        threads=threads(),
        versions=versions(),
    )
    return receipt, Quality(figures, len(asked), 0, repeats, per_user, asked)
