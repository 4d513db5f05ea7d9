"""A log with its columns found: who, what, and where given how much, when and in what context."""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from martlet.core import DataError, SpecError
from martlet.data.formats import Raw, scan
from martlet.data.text import Part, spoilt, stated

TimeUnit = Literal["auto", "s", "ms", "us", "ns", "iso"]
EVENT_WEIGHTS: Mapping[str, float] = {"view": 1, "cart": 3, "buy": 5}

# Usual headings, most telling first; compared without case, blanks, dashes and underscores.
_NAMES: Mapping[str, Sequence[str]] = {
    "user": ("userid", "user", "uid", "visitorid", "customerid", "reviewerid", "sessionid"),
    "item": (
        "itemid", "item", "iid", "productid", "movieid", "artistid", "asin", "newsid", "trackid",
        "songid", "articleid", "appid",
    ),
    "rating": ("rating", "score", "stars", "overall"),
    "weight": ("weight", "count", "cnt", "plays", "playcount", "quantity"),
    "time": ("timestamp", "time", "times", "datetime", "date", "ts", "unixreviewtime"),
    "event": ("event", "eventtype", "behavior", "action"),
    "basket": ("basket", "basketid", "orderid", "transactionid"),
}  # fmt: skip
_REFUSALS = (
    pl.exceptions.PolarsError,
    sqlite3.Error,
    ImportError,
    OSError,
    RuntimeError,
    ValueError,
)
_BY_PLACE = ("user", "item", "rating", "time")
_LEAST_TIME = 1e7  # no rating is that large; the least date, 19700101, is
_TABLE_BATCH = 1 << 16


@dataclass(frozen=True, eq=False)
class Log:
    """A lazy table with standard columns, and what was found on the way.

    Attributes:
        frame: columns user_id, item_id, and those given of rating, weight, time, event, basket;
            context columns keep their names.
        columns: standard name to the name in the source.
        context: names of the context columns.
        files: what is read.
        format: the format that was found.
        time_unit: how times are to be read.
        event_weights: weight by event type.
        parts: the same rows in turn, as ``batches`` reads them; none where ``frame`` is all.
    """

    frame: pl.LazyFrame
    columns: Mapping[str, str]
    context: tuple[str, ...]
    files: tuple[str, ...]
    format: str
    time_unit: TimeUnit = "auto"
    event_weights: Mapping[str, float] = field(default_factory=lambda: EVENT_WEIGHTS)
    parts: tuple[Part, ...] = ()

    def batches(self, size: int) -> Iterator[pl.DataFrame]:
        """Yield the rows in batches of about ``size``; a text line that is none is a row too."""
        for part in self.parts or (Part(self.frame),):
            yield from part.batches(size)


def read(
    source: Any,
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    rating_col: str | None = None,
    weight_col: str | None = None,
    time_col: str | None = None,
    event_col: str | None = None,
    basket_col: str | None = None,
    context_cols: Sequence[str] = (),
    format: str | None = None,
    sep: str | None = None,
    header: bool | None = None,
    time_unit: TimeUnit | None = None,
    event_weights: Mapping[str, float] | None = None,
) -> Log:
    """Return the log in a file, a folder, a glob, an address, a list of these, or a table.

    Nothing is read but the first lines; a log larger than memory is streamed by ``prepare``.
    Columns are found by their usual names; without a header the first four are user, item, rating
    and time, or the first three user, item and time where the third looks like one. ``*_col``
    names one that has another name; of JSON lines, it may begin below the first lines.

    Args:
        source: CSV, TSV, JSON lines, Parquet, RecBole atomic, MovieLens ``::`` or one-sequence-a-
            line files, plain, gzip or zstd; or a Polars, pandas or Arrow table.
        user_col: name of the column of users.
        item_col: name of the column of items.
        rating_col: name of the column of ratings.
        weight_col: name of the column of weights. Given alone, it counts and a column of event
            types that is found does not; given with ``event_col``, the two weights are multiplied,
            such as a quantity and what its type is worth; else event types count where there are.
        time_col: name of the column of times.
        event_col: name of the column of event types.
        basket_col: name of the column of baskets.
        context_cols: columns to carry along, aligned with the events.
        format: in place of what the name and the first lines tell.
        sep: separator of a text file.
        header: whether the first line of a CSV file names the columns; None tells by itself: a
            line with a number or a date in it does not.
        time_unit: "s", "ms", "us", "ns" or "iso"; None or "auto" tells each time by itself, a
            number by its size.
        event_weights: weight by event type. They take the place of view 1, cart 3, buy 5, which
            count no more: an event of a type that is not among those given is a bad row.

    Raises:
        DataError: nothing to read, or a column that cannot be found.
        SpecError: an unknown unit of time, or a weight that is no finite number above 0.
    """
    unit = "auto" if time_unit is None else time_unit
    if unit not in get_args(TimeUnit):
        units = ", ".join(get_args(TimeUnit))
        raise SpecError(f"the time unit {unit!r} is unknown: expected one of {units}")
    weights = EVENT_WEIGHTS if event_weights is None else event_weights
    for kind, weight in weights.items():
        if not 0 < float(weight) < math.inf:
            raise SpecError(
                f"the weight of the event {kind!r} is {weight}: expected a finite number above 0"
            )
    given = {
        "user": user_col,
        "item": item_col,
        "rating": rating_col,
        "weight": weight_col,
        "time": time_col,
        "event": event_col,
        "basket": basket_col,
    }
    wanted = [name for name in (*given.values(), *context_cols) if name is not None]
    raw = raw_of(source, format=format, sep=sep, header=header, named=wanted)
    file = raw.files[0]
    with stated(raw.files):
        names = raw.names
    columns = _weighed(_find(names, given, file, raw.sample), given)
    missing = [name for name in context_cols if name not in names]
    if missing:
        raise DataError(f"{file} has no column {missing[0]!r}: it has {', '.join(names)}")
    standard = {"user": "user_id", "item": "item_id"}
    context = tuple(name for name in context_cols if name not in columns.values())
    picked = [pl.col(name).alias(standard.get(role, role)) for role, name in columns.items()]
    for name in context:
        number = pl.col(name).cast(pl.Float64, strict=False)
        picked.append(number if name in raw.numbers else pl.col(name))
    parts = tuple(part.select(*picked, *raw.spoilt) for part in raw.parts)
    return Log(
        pl.concat([part.frame for part in parts]) if len(parts) > 1 else parts[0].frame,
        columns,
        context,
        tuple(raw.files),
        raw.format,
        unit,
        weights,
        parts,
    )


def read_sql(query: str, connection: Any, **columns: Any) -> Log:
    """Return the log that a SQL query gives.

    Args:
        query: such as ``"select user_id, item_id, time from events"``.
        connection: a SQLite file; an address, for which Polars needs connectorx; or an open
            connection.
        columns: as in ``read``.

    Raises:
        DataError: the database refused, connectorx is missing, or a column cannot be found.
    """
    return read(queried(query, connection), **columns)


def queried(query: str, connection: Any) -> pl.DataFrame:
    """Return the table that a SQL query gives; arguments as in ``read_sql``.

    Raises:
        DataError: the database refused, or connectorx is missing.
    """
    try:
        if not isinstance(connection, str | Path):
            return pl.read_database(query, connection)
        if Path(connection).is_file():
            address = f"{Path(connection).resolve().as_uri()}?mode=ro"
            with closing(sqlite3.connect(address, uri=True)) as opened:
                return pl.read_database(query, opened)
        return pl.read_database_uri(query, str(connection))
    except _REFUSALS as error:
        # An address is not told: it may hold a password.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"the query {query[:60]!r} gave nothing: {reason[0]}; expected a SQLite file, an "
            "address such as postgresql://... with connectorx installed, or an open connection"
        ) from error


def read_table(
    source: Any, id_col: str | None = None, kind: str = "item"
) -> tuple[pl.DataFrame, int]:
    """Return a side table with its id column called ``id``, as text, and how many bad rows it had.

    A row with too many fields, or one that cannot be read, is left out. A text file that is no
    UTF-8 is taken as Latin-1.

    Raises:
        DataError: it cannot be read, or its id column cannot be found.
    """
    if isinstance(source, str | Path):
        raw = scan(source, in_utf8=True)
        if raw.format == "sequences":
            raw = scan(source, "csv", " ", in_utf8=True)
    else:
        raw = _in_memory(source)
    with stated(raw.files):
        batches = [batch for part in raw.parts for batch in part.batches(_TABLE_BATCH)]
        table = pl.concat([raw.parts[0].frame.collect_schema().to_frame(), *batches])
        whole_rows = pl.repeat(True, len(table), eager=True)
        for _, bad in spoilt(table) if raw.spoilt else ():
            whole_rows &= ~bad
        num_bad = int((~whole_rows).sum())
        table = table.filter(whole_rows).select(raw.names)
    if id_col is None:
        usual = {"id", *_NAMES[kind]}
        hits = [name for name in table.columns if _plain(name) in usual]
        unnamed = all(name.startswith("column_") for name in table.columns)
        id_col = table.columns[0] if unnamed else next(iter(hits), None)
    if id_col not in table.columns:
        raise DataError(
            f"{raw.files[0]} has no {kind} id column that can be told: it has "
            f"{', '.join(table.columns)}; rename one to {kind}_id"
        )
    table = table.rename({id_col: "id"}) if id_col != "id" else table
    ids = whole(table["id"]) if table["id"].dtype.is_float() else table["id"].cast(pl.String)
    return table.with_columns(ids.str.strip_chars()), num_bad


def raw_of(
    source: Any,
    *,
    format: str | None = None,
    sep: str | None = None,
    header: bool | None = None,
    named: Sequence[str] = (),
) -> Raw:
    """Return the columns of files or of a table, as they stand there; arguments as in ``read``.

    Raises:
        DataError: nothing to read.
    """
    if isinstance(source, str | Path) or _is_list_of_paths(source):
        return scan(source, format, sep, header=header, named=named)
    return _in_memory(source)


def _is_list_of_paths(source: Any) -> bool:
    return isinstance(source, list | tuple) and all(isinstance(s, str | Path) for s in source)


def _in_memory(source: Any) -> Raw:
    try:
        frame = source if isinstance(source, pl.LazyFrame | pl.DataFrame) else pl.DataFrame(source)
        return Raw([Part(frame.lazy())], "table", ["a table in memory"])
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{type(source).__name__} cannot be read as a log ({error}): expected a path or a "
            "table of columns"
        ) from error


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _find(
    names: list[str], given: Mapping[str, str | None], file: str, sample: Sequence[str]
) -> dict[str, str]:
    """Return standard role to column name; ``sample`` is a row of values without names."""
    found: dict[str, str] = {}
    for role, name in given.items():
        if name is not None:
            if name not in names:
                raise DataError(f"{file} has no column {name!r}: it has {', '.join(names)}")
            found[role] = name
    unnamed = all(name.startswith("column_") for name in names)
    timed = len(sample) == 3 and _looks_like_a_time(sample[2])
    for place, role in enumerate(("user", "item", "time") if timed else _BY_PLACE):
        if unnamed and role not in found and place < len(names):
            found[role] = names[place]
    by_plain = {_plain(name): name for name in reversed(names)}
    for role, usual in _NAMES.items():
        hit = next((by_plain[name] for name in usual if name in by_plain), None)
        if role not in found and hit is not None and hit not in found.values():
            found[role] = hit
    for role in ("user", "item"):
        if role not in found:
            raise DataError(
                f"{file} has no {role} column that can be told: it has {', '.join(names)}; "
                f"name one with --{role}-col, or say --no-header where the first line is an event; "
                "a table of labelled rows has none: name its label with --label"
            )
    return found


def _weighed(columns: dict[str, str], given: Mapping[str, str | None]) -> dict[str, str]:
    """Leave out the event types or the weights where the others count; see ``read``."""
    if given["event"] is not None and given["weight"] is not None:
        return columns
    loser = "event" if given["weight"] is not None else "weight"
    both = "event" in columns and "weight" in columns
    return {role: name for role, name in columns.items() if not both or role != loser}


def _looks_like_a_time(text: str) -> bool:
    try:
        return float(text) >= _LEAST_TIME
    except ValueError:
        return re.match(r"\d{4}-\d\d-\d\d", text) is not None


def whole(column: pl.Series) -> pl.Series:
    """Return floats as text, 7.0 as "7": where ids are missing, tables make floats of integers."""
    value = pl.col("id").fill_nan(None)
    whole = value.cast(pl.Int64, strict=False)
    text = pl.when(value == whole).then(whole.cast(pl.String)).otherwise(value.cast(pl.String))
    return pl.DataFrame({"id": column}).select(text)["id"]
