"""The same metrics over any table of lists, ranked or scored: another library's output, for one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, DataError
from martlet.metrics.quality import F64, Tally, check_value

ENDINGS = (".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_USER, _ITEM = ("user_id", "user"), ("item_id", "item")


def quality_of_table(
    ranked: Any,
    truth: Any,
    *,
    ks: Sequence[int] = (10,),
    metrics: Sequence[str] = ("recall", "ndcg"),
    columns: tuple[str, str, str] | None = None,
    first_rank: int | None = None,
    value: Mapping[Any, float] | None = None,
    popularity: Mapping[Any, float] | None = None,
    num_items: int | None = None,
) -> tuple[dict[str, float], dict[str, F64]]:
    """Return the means, and the values of each user of the truth in the truth's order.

    A user of the truth without a list counts 0; a list of a user without truth is left out. Where
    a table has no rank, items are ranked by falling score, equal ones in the order of the table.

    Args:
        ranked: a path as ``read_table`` takes, a Polars, pandas or Arrow table, or a mapping of
            columns: user or user_id, item or item_id, and rank or score; ids of any type, rows in
            any order.
        truth: the same with user and item: what is relevant.
        ks: lengths.
        metrics: names from ``METRICS`` that need no scores.
        columns: the names of user, item and rank, where they are others.
        first_rank: the rank of the best item, 1 or 0; told by the smallest of the table if None.
        value: worth by item id, for ``value_recall``.
        popularity: share of the training users who met an item by its id, for ``novelty``.
        num_items: size of the catalogue, for coverage and gini; default: the items met here.

    Raises:
        DataError: a table cannot be read or is empty, a column or a value is missing, a rank is no
            whole number from ``first_rank`` on, a score no number, a value is below 0, no user of
            the truth has a list, or a user has one rank or one item twice.
        SpecError: an unknown metric, or one that a table cannot have.
    """
    lists = lists_of(ranked, columns)
    relevant = _columns(truth, columns[:2] if columns else (_USER, _ITEM), "the truth")
    relevant.columns = ["user", "item"]
    frame, frame_truth = _encode(lists, relevant)
    users, items = frame_truth["users"], frame["items"]
    if (frame["user"] < 0).all():
        raise DataError(
            f"no user of the truth has a list: the ranked table knows {lists['user'][0]!r}, the "
            f"truth {relevant['user'][0]!r}; expected the same ids in both"
        )
    if "rank" in lists.columns:
        place = _places(lists["rank"], first_rank)
    else:
        place = _places_by_score(frame["user"], lists["score"])
    keep = (frame["user"] >= 0) & (place < max(ks))
    rows = np.full((users, max(ks)), -1, np.int32)
    at = frame["user"][keep], place[keep]
    _refuse_twice(at[0] * max(ks) + at[1], "rank")
    rows[at] = frame["item"][keep]
    pairs = np.unique(frame_truth["user"].astype(np.int64) * items + frame_truth["item"])
    matrix = CSR.from_pairs(pairs // items, pairs % items, None, (users, items))
    _refuse_twice(at[0].astype(np.int64) * items + frame["item"][keep], "item")
    names, worth, met = frame["names"], None, None
    if value is not None:
        worth = np.array([value.get(name, 0.0) for name in names], np.float64)
        check_value(worth, names.__getitem__)
    if popularity is not None:
        met = np.array([popularity.get(name, 0.0) for name in names], np.float64)
    tally = Tally(num_items or items, ks, metrics, worth, met)
    tally.add(rows, matrix)
    return tally.figures(), tally.users()


def lists_of(ranked: Any, columns: tuple[str, str, str] | None = None) -> Any:
    """Return the ranked table as a Polars frame of user, item, and rank or else score.

    Raises:
        DataError: it cannot be read or is empty, or a column or a value is missing.
    """
    found = _columns(ranked, columns or (_USER, _ITEM, ("rank", "score")), "the ranked table")
    third = "score" if columns is None and found.columns[2] == "score" else "rank"
    found.columns = ["user", "item", third]
    return found


def read_table(path: str | Path) -> Any:
    """Return the Polars frame of a Parquet, CSV, TSV or JSON lines file, told by its ending.

    The text formats may be gzipped; what CSV and TSV hold stays text.

    Raises:
        DataError: another ending, or a file that cannot be read.
    """
    import polars as pl

    ending = _ending(path)
    if ending not in ENDINGS:
        raise DataError(f"{path} is no table that can be read: expected {', '.join(ENDINGS)}")
    try:
        if ending in (".parquet", ".pq"):
            return pl.read_parquet(path)
        if ending in (".csv", ".tsv"):
            separator = "," if ending == ".csv" else "\t"
            return pl.read_csv(path, separator=separator, infer_schema=False)
        return pl.read_ndjson(path, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{path} is no readable {ending} table ({reason}): expected columns user_id, item_id, "
            "and rank or score, such as 'martlet recommend --all' writes"
        ) from error


def is_table(path: Path) -> bool:
    """Return whether a path leads to a file, or would by its ending; a bundle is a folder."""
    return not path.is_dir() and (path.is_file() or _ending(path) in ENDINGS)


def _ending(path: str | Path) -> str:
    return Path(re.sub(r"\.gz$", "", str(path).lower())).suffix


def _frame(table: Any) -> Any:
    import polars as pl

    if isinstance(table, str | Path):
        return read_table(table)
    if isinstance(table, Mapping):
        return pl.DataFrame(dict(table))
    return table if isinstance(table, pl.DataFrame) else pl.DataFrame(table)


def _columns(table: Any, names: Sequence[str | Sequence[str]], what: str) -> Any:
    """Return the named columns as a Polars frame; several names for one are tried in turn."""
    import polars as pl

    table, found = _frame(table), []
    for wanted in names:
        either = [wanted] if isinstance(wanted, str) else wanted
        there = [name for name in either if name in table.columns]
        if not there:
            words = " or ".join(map(repr, either))
            raise DataError(f"{what} has no column {words}: it has {', '.join(table.columns)}")
        found.append(there[0])
    table = table.select(found)
    if not len(table):
        raise DataError(f"{what} is empty: expected a row for each user and item")
    for column in table:
        if column.null_count() or (column.dtype.is_float() and not column.is_finite().all()):
            raise DataError(f"{what} has empty values in {column.name!r}: drop those rows first")
        if column.dtype.is_float() and (column == column.round()).all():
            # Whole numbers that a library kept as floats are the same ids.
            table = table.with_columns(column.cast(pl.Int64))
    return table


def _encode(lists: Any, relevant: Any) -> tuple[dict[str, Any], Any]:
    """Number the users of the truth as they come, and the items of both tables."""
    import polars as pl

    if any(lists[name].dtype != relevant[name].dtype for name in ("user", "item")):
        lists, relevant = (
            table.with_columns(pl.col("user", "item").cast(pl.String))
            for table in (lists, relevant)
        )
    users = relevant.select(pl.col("user").unique(maintain_order=True)).with_row_index("at_user")
    items = pl.concat([relevant["item"], lists["item"]]).unique(maintain_order=True)
    names = pl.DataFrame({"item": items}).with_row_index("at_item")

    def rows(frame: Any) -> dict[str, Any]:
        joined = frame.join(users, on="user", how="left", maintain_order="left")
        joined = joined.join(names, on="item", how="left", maintain_order="left")
        return {
            "user": joined["at_user"].cast(pl.Int64).fill_null(-1).to_numpy(),
            "item": joined["at_item"].cast(pl.Int32).to_numpy(),
            "users": len(users),
            "items": len(names),
            "names": items.to_list(),
        }

    return rows(lists), rows(relevant)


def _places(ranks: Any, first_rank: int | None) -> NDArray[np.int64]:
    """Return (rows,) places from 0 on."""
    rank = _numbers(ranks, "whole numbers")
    if (rank != np.round(rank)).any():
        raise DataError(f"rank holds {ranks.dtype}: expected whole numbers")
    least = int(rank.min())
    if first_rank is None:
        first_rank = min(max(least, 0), 1)
    if least < first_rank:
        raise DataError(f"rank {least} is below {first_rank}, the first rank")
    return rank.astype(np.int64) - first_rank


def _places_by_score(user: NDArray[np.int64], scores: Any) -> NDArray[np.int64]:
    """Return (rows,) places from 0 on of each user's rows by falling score, ties as they stand."""
    order = np.lexsort((-_numbers(scores, "numbers"), user))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - np.searchsorted(user[order], user[order])
    return place


def _numbers(column: Any, expected: str) -> F64:
    import polars as pl

    numbers = column.cast(pl.Float64, strict=False)
    if not numbers.is_finite().fill_null(False).all():
        odd = column.filter(~numbers.is_finite().fill_null(False))[0]
        raise DataError(f"{column.name} holds {odd!r}: expected {expected}")
    return np.asarray(numbers.to_numpy())


def _refuse_twice(keys: Any, what: str) -> None:
    if len(np.unique(keys)) != len(keys):
        raise DataError(f"the ranked table gives a user one {what} twice: expected each once")
