"""JSON lines, or an array of objects, to columns of text: ids keep all digits, whatever the types.

Polars reads until a line is no object. From there on every line is read by itself, and those that
are none stand in ``BROKEN``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import polars as pl

from martlet.core import DataError
from martlet.data.text import BROKEN, Part, TextFile, content, decoded, is_local, lines


class Objects(NamedTuple):
    """Columns, and the names of those that hold nothing but numbers in the first lines."""

    part: Part
    numbers: frozenset[str]


def read_json(files: Sequence[TextFile], named: Iterable[str]) -> Objects:
    """Return a column for each name in the first lines, and for each of ``named`` further down.

    Raises:
        DataError: no object in the first lines.
        ValueError: an array that is not whole.
    """
    is_array = files[0].head.lstrip().startswith("[")
    if is_array:
        first = [row for file in files for row in _array(file)]
        every = pl.LazyFrame({"line": list(map(json.dumps, first))}, {"line": pl.String})
    else:
        first = [_value(line) for file in files for line in file.head.split("\n")]
        every = lines([file.source for file in files]).filter(
            pl.col("line").str.strip_chars().fill_null("") != ""
        )
    objects = [row for row in first if isinstance(row, dict)]
    names = list(dict.fromkeys(name for row in objects for name in row))
    if not names:
        raise DataError(
            f"{files[0].name} has no JSON object in its first lines: expected one event a line, "
            'such as {"user_id": 1, "item_id": 2}, or an array of such objects'
        )
    names += [name for name in named if name not in names and _holds(every, name)]
    schema = dict.fromkeys(names, pl.String())
    numbers = frozenset(name for name in names if _all_numbers(objects, name))
    if is_array:
        return Objects(Part(_line_by_line(every, schema, 0)), numbers)
    whole = pl.scan_ndjson([file.source for file in files], schema=schema)  # type: ignore[arg-type]
    frame = whole.with_columns(pl.lit(None, pl.String).alias(BROKEN))
    return Objects(Part(frame, partial(_line_by_line, every, schema)), numbers)


def _array(file: TextFile) -> list[Any]:
    if is_local(file.name):
        text = decoded(content(file.name))
    else:
        text = "\n".join(lines([file.name]).collect()["line"].fill_null(""))
    return list(json.loads(text))


def _value(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _holds(every: pl.LazyFrame, name: str) -> bool:
    quoted = json.dumps(name, ensure_ascii=False)
    return bool(
        every.select(pl.col("line").str.contains(quoted, literal=True).any()).collect().item()
    )


def _all_numbers(objects: Sequence[dict[str, Any]], name: str) -> bool:
    """Tell whether each value that is given is a number; in Python, a bool is an int."""
    kinds = {type(row[name]) for row in objects if row.get(name) is not None}
    return bool(kinds) and kinds <= {int, float}


def _line_by_line(every: pl.LazyFrame, schema: dict[str, pl.String], done: int) -> pl.LazyFrame:
    """Return the rows after the first ``done``."""
    fields = pl.col("line").map_batches(
        partial(_fields, schema),
        return_dtype=pl.Struct({**schema, BROKEN: pl.String()}),
        is_elementwise=True,
    )
    return every.slice(done).select(fields).unnest("line")


def _fields(schema: dict[str, pl.String], line: pl.Series) -> pl.Series:
    broken = pl.lit(None, pl.String)
    try:
        table = _parsed(schema, line)
    except pl.exceptions.PolarsError:
        is_object = line.str.json_path_match("$").str.starts_with("{").fill_null(False)
        empty = pl.Series(["{}"]).new_from_index(0, len(line))
        table = _parsed(schema, line.zip_with(is_object, empty))
        broken = pl.when(~pl.lit(is_object)).then(pl.lit(line))
    return table.with_columns(broken.alias(BROKEN)).to_struct(line.name)


def _parsed(schema: dict[str, pl.String], line: pl.Series) -> pl.DataFrame:
    if not len(line):
        return pl.DataFrame(schema=schema)
    return pl.read_ndjson(line.str.join("\n").item().encode(), schema=schema)
