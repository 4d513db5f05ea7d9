"""Separated text to columns: CSV and its kin, RecBole atomic, ``::``, and a sequence a line.

Columns come as text. What a line holds beyond the columns stands in ``SURPLUS``. A quote means
something only at the start of a field; a line whose quotes do not close ends Polars' reading, which
then goes on line by line, and stands in ``BROKEN``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import groupby, islice
from typing import Any, NamedTuple

import polars as pl

from martlet.core import DataError
from martlet.data.text import BROKEN, SURPLUS, Part, Source, TextFile, has_glob, lines

# A field that is a number or a date is no heading.
_VALUE = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?|\d{4}-\d\d-\d\d([T ].*)?")
_LOOKED_AT = 50
_ALWAYS_QUOTED = ",;"  # elsewhere quotes count only where fields in the head stand in them


class Table(NamedTuple):
    """Columns by file, and the first row's values where no heading names the columns."""

    parts: list[Part]
    sample: tuple[str, ...] = ()


def read_csv(files: list[TextFile], sep: str, header: bool | None) -> Table:
    """Return the columns of CSV files, headed or not, in any order of columns."""
    quoted = sep in _ALWAYS_QUOTED or any(_stands_in_quotes(file.head, sep) for file in files)
    split = partial(_fields, sep=sep, quoted=quoted)
    return _table(files, split, header, partial(_csv_part, sep=sep, quoted=quoted))


def read_movielens(files: list[TextFile], sep: str, header: bool | None) -> Table:
    """Return the columns of files with fields parted by ``::``."""
    return _table(files, lambda line: line.split("::"), header, _movielens_part)


def read_atomic(files: list[TextFile], sep: str, header: bool | None) -> Table:
    """Return the columns of RecBole's atomic files: parted by tabs, each heading ``name:type``."""
    found = _table(
        files, lambda line: line.split("\t"), True, partial(_csv_part, sep="\t", quoted=False)
    )
    columns = [pl.col(SURPLUS)]
    for name in found.parts[0].frame.collect_schema().names()[:-1]:
        plain, colon, kind = name.rpartition(":")
        if not colon:
            raise DataError(
                f"{files[0].name} has the heading {name!r}: an atomic file has name:type, such as "
                "user_id:token"
            )
        column = pl.col(name).cast(pl.Float64, strict=False) if kind == "float" else pl.col(name)
        columns.append(column.alias(plain))
    return Table([part.select(columns) for part in found.parts])


def read_sequences(files: list[TextFile], sep: str, header: bool | None) -> Table:
    """Read a user a line: the user, then the items in time order, parted by blanks."""
    line = lines([file.source for file in files]).select(
        pl.col("line").str.strip_chars().str.replace_all(r"\s+", " ").str.splitn(" ", 2)
    )
    fields = line.select(
        pl.col("line").struct.field("field_0").alias("user_id"),
        pl.col("line").struct.field("field_1").str.split(" ").alias("item_id"),
    )
    return Table([Part(fields.explode("item_id", empty_as_null=True))])


def _table(
    files: list[TextFile],
    split: Callable[[str], list[str]],
    header: bool | None,
    read: Callable[[list[Source], list[str], int], Part],
) -> Table:
    """Group files by heading; each group is read at once, and gives the same columns.

    Raises:
        DataError: a heading with a name twice, or files with different columns.
    """
    rows = [line for _, line in _filled_lines(files[0].head)]
    first = [name.strip() for name in split(rows[0])]
    headed = not any(map(_VALUE.fullmatch, first)) if header is None else header
    width = _width(list(map(split, rows)))

    def layout(file: TextFile) -> tuple[list[str], int]:
        if not headed:
            return _numbered(width), 0
        number, line = _filled_lines(file.head)[0]
        return [name.strip() for name in split(line)], number

    names = _numbered(width) if not headed else first
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"{files[0].name} has two columns called {twice!r}: expected each name once; rename one"
        )
    parts: list[Part] = []
    for (own, skip), group in groupby(files, layout):
        alike = list(group)
        if sorted(own) != sorted(names):
            raise DataError(
                f"{alike[0].name} has the columns {', '.join(own)} where {files[0].name} has "
                f"{', '.join(names)}: expected the same columns in every file of a log"
            )
        part = read([file.source for file in alike], own, skip)
        parts.append(part.select(parts[0].frame.collect_schema().names()) if parts else part)
    return Table(parts, () if headed else tuple(first))


def _width(rows: list[list[str]]) -> int:
    """Return how many fields most rows have; a separator that ends each of them opens none."""
    width = Counter(map(len, rows)).most_common(1)[0][0]
    ended = not any(row[-1].strip() for row in rows if len(row) == width)
    return width - 1 if ended and width > 1 else width


def _filled_lines(head: str) -> list[tuple[int, str]]:
    """Return the first lines that are not blank, with their numbers from 1."""
    every = enumerate(head.split("\n"), 1)
    filled = ((number, line.rstrip("\r")) for number, line in every if line.strip())
    return list(islice(filled, _LOOKED_AT))


def _csv_part(sources: list[Source], names: list[str], skip: int, sep: str, quoted: bool) -> Part:
    every: Any = sources
    frame = pl.scan_csv(
        every,
        separator=sep,
        quote_char='"' if quoted else None,
        has_header=False,
        skip_lines=skip,
        schema=dict.fromkeys([*names, SURPLUS], pl.String),
        missing_columns="insert",
        extra_columns="ignore",
        encoding="utf8-lossy",
        raise_if_empty=False,
        glob=has_glob(sources),
    )
    if not quoted:
        return Part(frame)
    whole = frame.with_columns(pl.lit(None, pl.String).alias(BROKEN))
    return Part(whole, partial(_line_by_line, lines(sources, skip), names, sep))


def _line_by_line(plain: pl.LazyFrame, names: list[str], sep: str, done: int) -> pl.LazyFrame:
    """Return the rows after the first ``done``, each field found by a pattern."""
    whole = pl.concat_str(pl.lit(sep), pl.col("line").fill_null(""))
    field = pl.element().str.slice(len(sep))
    inner = field.str.slice(1, field.str.len_chars() - 2).str.replace_all('""', '"', literal=True)
    bare = pl.when(field.str.starts_with('"')).then(inner).otherwise(field)
    found = plain.slice(_lines_of(plain, done)).select(
        pl.col("line"),
        whole.str.extract_all(_field_pattern(sep)).alias("fields"),
    )
    closed = pl.col("fields").list.join("") == whole
    fields = found.select(
        pl.when(closed).then(pl.col("fields").list.eval(bare)).alias("fields"),
        pl.when(~closed).then("line").alias(BROKEN),
    )
    columns = [
        pl.col("fields").list.get(place, null_on_oob=True).replace("", None).alias(name)
        for place, name in enumerate([*names, SURPLUS])
    ]
    return fields.select(*columns, BROKEN)


def _lines_of(plain: pl.LazyFrame, rows: int) -> int:
    """Return how many lines the first rows take: a row ends where its quotes are even."""
    if not rows:
        return 0
    quotes = pl.col("line").str.count_matches('"', literal=True).fill_null(0)
    ends = plain.select((quotes.cum_sum() % 2 == 0).alias("ends")).with_row_index("at")
    return int(ends.filter("ends").slice(rows - 1, 1).collect()["at"].item()) + 1


def _field_pattern(sep: str) -> str:
    """Return the pattern of a separator and the field behind it, quoted or bare."""
    part = re.escape(sep)
    return rf'{part}(?:"(?:[^"]|"")*"|[^"{part}][^{part}]*)?'


def _fields(line: str, sep: str, quoted: bool) -> list[str]:
    found = re.findall(_field_pattern(sep), sep + line) if quoted else []
    if "".join(found) != sep + line:
        return line.split(sep)
    fields = [field[len(sep) :] for field in found]
    return [one[1:-1].replace('""', '"') if one.startswith('"') else one for one in fields]


def _stands_in_quotes(head: str, sep: str) -> bool:
    """Tell whether a field of the first lines begins and ends with a quote."""
    part = re.escape(sep)
    pattern = rf'(?:^|{part})"(?:[^"\n]|"")*"(?:{part}|\r?$)'
    return re.search(pattern, head, re.MULTILINE) is not None


def _movielens_part(sources: list[Source], names: list[str], skip: int) -> Part:
    fields = pl.col("line").str.splitn("::", len(names) + 1)
    frame = lines(sources, skip).select(fields.struct.rename_fields([*names, SURPLUS]))
    return Part(frame.unnest("line"))


def _numbered(width: int) -> list[str]:
    return [f"column_{number}" for number in range(1, width + 1)]
