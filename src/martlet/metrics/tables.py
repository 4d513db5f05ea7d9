"""The same metrics over any table of (user, item, rank): another library's output, for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from martlet.core import CSR, DataError
from martlet.metrics.quality import F64, Tally, check_value


def quality_of_table(
    ranked: Any,
    truth: Any,
    *,
    ks: Sequence[int] = (10,),
    metrics: Sequence[str] = ("recall", "ndcg"),
    columns: tuple[str, str, str] = ("user", "item", "rank"),
    first_rank: int = 1,
    value: Mapping[Any, float] | None = None,
    num_items: int | None = None,
) -> tuple[dict[str, float], dict[str, F64]]:
    """Return the means, and the values of each user of the truth in the truth's order.

    A user of the truth without a list counts 0; a list of a user without truth is left out.

    Args:
        ranked: a Parquet path, a Polars, pandas or Arrow table, or a mapping of columns: user,
            item and rank, ids of any type, rows in any order.
        truth: the same with user and item: what is relevant.
        ks: lengths.
        metrics: names from ``METRICS``; novelty is not among them, for it needs the training part.
        columns: the names of the three columns.
        first_rank: the rank of the best item, 1 or 0.
        value: worth by item id, for ``value_recall``.
        num_items: size of the catalogue, for coverage and gini; default: the items met here.

    Raises:
        DataError: a column or a value is missing, a rank is no whole number from ``first_rank``
            on, or a user has one rank or one item twice, or a value is below 0.
        SpecError: an unknown metric.
    """
    user, item, rank = columns
    lists = _columns(ranked, (user, item, rank), "the ranked table")
    relevant = _columns(truth, (user, item), "the truth")
    frame, frame_truth = _encode(lists, relevant, user, item)
    users, items = frame_truth["users"], frame["items"]
    if not lists[rank].dtype.is_integer():
        raise DataError(f"{rank} holds {lists[rank].dtype}: expected whole numbers")
    place = np.asarray(lists[rank].to_numpy()).astype(np.int64) - first_rank
    if len(place) and place.min() < 0:
        raise DataError(f"{rank} {place.min() + first_rank} is below {first_rank}, the first rank")
    keep = (frame["user"] >= 0) & (place < max(ks))
    rows = np.full((users, max(ks)), -1, np.int32)
    at = frame["user"][keep], place[keep]
    _refuse_twice(at[0] * max(ks) + at[1], "rank")
    rows[at] = frame["item"][keep]
    pairs = np.unique(frame_truth["user"].astype(np.int64) * items + frame_truth["item"])
    matrix = CSR.from_pairs(pairs // items, pairs % items, None, (users, items))
    _refuse_twice(at[0].astype(np.int64) * items + frame["item"][keep], "item")
    worth = None
    if value is not None:
        worth = np.array([value.get(name, 0.0) for name in frame["names"]], np.float64)
        check_value(worth, frame["names"].__getitem__)
    tally = Tally(num_items or items, ks, metrics, worth)
    tally.add(rows, matrix)
    return tally.figures(), tally.users()


def _columns(table: Any, names: Sequence[str], what: str) -> Any:
    """Return the named columns as a Polars frame."""
    import polars as pl

    if isinstance(table, str | Path):
        table = pl.read_parquet(table)
    elif isinstance(table, Mapping):
        table = pl.DataFrame(dict(table))
    elif not isinstance(table, pl.DataFrame):
        table = pl.DataFrame(table)
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise DataError(f"{what} has no column {missing[0]!r}: it has {', '.join(table.columns)}")
    table = table.select(names)
    for column in table:
        if column.null_count() or (column.dtype.is_float() and not column.is_finite().all()):
            raise DataError(f"{what} has empty values in {column.name!r}: drop those rows first")
        if column.dtype.is_float() and (column == column.round()).all():
            # Whole numbers that a library kept as floats are the same ids.
            table = table.with_columns(column.cast(pl.Int64))
    return table


def _encode(lists: Any, relevant: Any, user: str, item: str) -> tuple[dict[str, Any], Any]:
    """Number the users of the truth as they come, and the items of both tables."""
    import polars as pl

    if lists[user].dtype != relevant[user].dtype or lists[item].dtype != relevant[item].dtype:
        lists = lists.with_columns(pl.col(user, item).cast(pl.String))
        relevant = relevant.with_columns(pl.col(user, item).cast(pl.String))
    users = relevant.select(pl.col(user).unique(maintain_order=True)).with_row_index("at_user")
    items = pl.concat([relevant[item], lists[item]]).unique(maintain_order=True)
    names = pl.DataFrame({item: items}).with_row_index("at_item")

    def rows(frame: Any) -> dict[str, Any]:
        joined = frame.join(users, on=user, how="left", maintain_order="left")
        joined = joined.join(names, on=item, how="left", maintain_order="left")
        return {
            "user": joined["at_user"].cast(pl.Int64).fill_null(-1).to_numpy(),
            "item": joined["at_item"].cast(pl.Int32).to_numpy(),
            "users": len(users),
            "items": len(names),
            "names": items.to_list(),
        }

    return rows(lists), rows(relevant)


def _refuse_twice(keys: Any, what: str) -> None:
    if len(np.unique(keys)) != len(keys):
        raise DataError(f"the ranked table gives a user one {what} twice: expected each once")
