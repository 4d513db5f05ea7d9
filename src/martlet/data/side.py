"""Side tables: the columns of items or users, joined to the log by id."""

from __future__ import annotations

from typing import Any

import polars as pl

from martlet.core import Column, Text
from martlet.data.reading import read_table

_TITLES = ("title", "name", "movietitle", "column2")
_MISSING = ("", "-", "na", "n/a", "null", "none", "nan")  # what stands for no number, in any case


def join_table(names: pl.Series, given: Any, kind: str) -> tuple[dict[str, Column], dict[str, int]]:
    """Return the side table's columns in row order, and how many ids matched.

    A text column becomes numbers where each value is one, or a word for none, such as "N/A"; an
    item's first column of names is called ``title``.
    """
    table, num_bad = read_table(given, kind=kind)
    twice = len(table) - table["id"].n_unique()
    table = table.unique("id", keep="first", maintain_order=True)
    joined = pl.DataFrame({"id": names}).join(
        table.with_columns(pl.lit(True).alias("_met")), on="id", how="left", maintain_order="left"
    )
    matched = int(joined["_met"].fill_null(False).sum())
    columns: dict[str, Column] = {}
    for name in joined.columns:
        if name in ("id", "_met"):
            continue
        column = joined[name]
        titled = "title" in (*columns, *table.columns)
        is_title = kind == "item" and _is_title(name) and not titled
        label = "title" if is_title else name
        if label != "title":
            column = _as_numbers(column)
        if column.dtype.is_numeric():
            columns[label] = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        else:
            columns[label] = Text.of(column.cast(pl.String).fill_null("").to_list())
    counts = {
        "matched": matched,
        f"{kind}s of the log without a row": len(names) - matched,
        "rows without an event": len(table) - matched,
        "ids twice": twice,
        "bad rows": num_bad,
    }
    return columns, counts


def _is_title(name: str) -> bool:
    return "".join(letter for letter in name.lower() if letter.isalnum()) in _TITLES


def _as_numbers(column: pl.Series) -> pl.Series:
    """Return a text column (all that a text file has) as numbers where each filled value is one."""
    if column.dtype != pl.String or not holds_numbers(column):
        return column
    return column.str.strip_chars().cast(pl.Float64, strict=False)


def holds_numbers(text: pl.Series) -> bool | None:
    """Tell whether each filled value of a text column is a number; None where none is filled.

    A leading zero is no number's: it makes a postcode or a code.
    """
    numbers = text.cast(pl.Float64, strict=False)
    # What is no number as it stands may be one between blanks, or a word for none.
    others = text.filter(numbers.is_null() & text.is_not_null()).str.strip_chars()
    others = others.filter(~others.str.to_lowercase().is_in(_MISSING))
    if others.cast(pl.Float64, strict=False).null_count():
        return False
    filled = len(others) + len(numbers) - numbers.null_count()
    if not filled:
        return None
    return not text.str.contains(r"^\s*-?0\d").any()
