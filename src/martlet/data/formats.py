"""From a file, a folder, a glob or an address to a lazy table: one function a format."""

from __future__ import annotations

import glob
import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import polars as pl

from martlet.core import DataError

SEPARATORS = ",\t;|"
_ONE_COLUMN = "\x01"  # a byte that no log holds: the whole line becomes one column
_HEAD_BYTES = 1 << 16
_MAX_LINE_BYTES = 8 << 20
_ENDINGS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".inter": "atomic",
    ".user": "atomic",
    ".item": "atomic",
    ".dat": "csv",
}
_UNREADABLE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    OSError,
    EOFError,
    ValueError,
    zlib.error,
)
FORMATS = ("csv", "jsonl", "parquet", "atomic", "movielens", "sequences")


def scan(
    source: str | Path | Sequence[str | Path], format: str | None = None, sep: str | None = None
) -> tuple[pl.LazyFrame, str, list[str]]:
    """Return the lazy raw table, the format found, and the files it reads.

    Text formats come as strings (ids keep their leading zeros); Parquet and JSON keep their types.
    Plain, gzip and zstd files are read alike. Columns of a file without a header are called
    ``column_1``, ``column_2`` ...

    Raises:
        DataError: nothing there, an empty or binary file, a format that cannot be told.
    """
    files = expand(source)
    format = format or _format_of(files[0])
    if format not in FORMATS:
        raise DataError(f"format {format!r} is unknown: expected one of {', '.join(FORMATS)}")
    with stated(files):
        if format == "parquet":
            return pl.scan_parquet(files), format, files
        local = [name for name in files if "://" not in name]
        head = _head(local[0]) if local else ""
        for name in local:
            if name != local[0]:
                _head(name)
        if format == "jsonl":
            return pl.scan_ndjson(files, infer_schema_length=1000), format, files
        if format == "csv":
            format, sep = _text_format(head, sep, files[0])
        reader: Callable[[list[str], str, str | None], pl.LazyFrame] = _READERS[format]
        return reader(files, head, sep), format, files


def expand(source: str | Path | Sequence[str | Path]) -> list[str]:
    """Return the files of a file, a folder, a glob, an address, or a list of these.

    Raises:
        DataError: there is none.
    """
    if not isinstance(source, str | Path):
        return [name for one in source for name in expand(one)]
    text = str(source)
    if "://" in text:
        return [text]
    path = Path(text)
    if path.is_dir():
        found = sorted(
            str(file)
            for file in path.iterdir()
            if file.is_file() and not file.name.startswith(".") and _known(file.name)
        )
        if not found:
            raise DataError(f"the folder {text} holds no file that can be read: expected .csv, "
                            ".tsv, .jsonl, .parquet, .inter or .dat files")  # fmt: skip
        return found
    if path.exists():
        return [text]
    found = sorted(glob.glob(text))
    if not found:
        raise DataError(f"{text} does not exist: expected a file, a folder, a glob or an address")
    return found


@contextmanager
def stated(files: Sequence[str]) -> Iterator[None]:
    """Turn what Polars raises into a ``DataError`` that names the file."""
    try:
        yield
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()
        raise DataError(
            f"{_few(files)} cannot be read: {reason[0] if reason else type(error).__name__}; "
            "expected a whole CSV, TSV, JSON lines, Parquet, .inter or '::' file in UTF-8"
        ) from error


def _known(name: str) -> bool:
    return _ending(name) in _ENDINGS


def _ending(name: str) -> str:
    return Path(re.sub(r"\.(gz|zst|zstd)$", "", name.lower())).suffix


def _format_of(name: str) -> str:
    return _ENDINGS.get(_ending(name.split("?")[0]), "csv")


def _few(files: Sequence[str]) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0]}{more}"


def _head(name: str) -> str:
    """Return the first whole lines of a text file; refuse what is no text."""
    with _open(name) as file:
        data = file.read(_HEAD_BYTES)
        if not data.strip():
            raise DataError(f"{name} is empty: expected a log with one event a line")
        while b"\n" not in data and len(data) < _MAX_LINE_BYTES:
            more = file.read(_HEAD_BYTES)
            if not more:
                break
            data += more
    if b"\0" in data:
        raise DataError(f"{name} is a binary file: expected text, or a name that ends in .parquet")
    if b"\n" not in data and len(data) >= _MAX_LINE_BYTES:
        raise DataError(
            f"{name} has a first line of over {_MAX_LINE_BYTES:,} bytes: expected one event a line"
        )
    whole = data[: data.rfind(b"\n") + 1] or data
    return whole.decode("utf-8", errors="replace").removeprefix("\ufeff")


def _open(name: str) -> IO[bytes]:
    with open(name, "rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(name)  # type: ignore[return-value]
    if magic == b"\x28\xb5\x2f\xfd":
        import pyarrow as pa

        return pa.CompressedInputStream(pa.OSFile(name), "zstd")  # type: ignore[no-any-return]
    return open(name, "rb")


def _text_format(head: str, sep: str | None, name: str) -> tuple[str, str]:
    """Return the text format and the separator of a file by its first lines."""
    lines = [line for line in head.splitlines()[:50] if line.strip()]
    if sep == "::" or (sep is None and all("::" in line for line in lines)):
        return "movielens", "::"
    if sep is not None:
        return "csv", sep
    if "\t" in lines[0] and re.fullmatch(r"(\w+:\w+)(\t\w+:\w+)*", lines[0].strip()):
        return "atomic", "\t"
    counts = {one: [line.count(one) for line in lines] for one in SEPARATORS}
    # The separator is the one that stands in (almost) every line, as often as in the first.
    steady = {
        one: sum(count == found[0] for count in found) / len(found)
        for one, found in counts.items()
        if found[0]
    }
    if steady:
        return "csv", max(steady, key=lambda one: (steady[one], counts[one][0]))
    widths = [len(line.split()) for line in lines]
    if min(widths) >= 2 and len(set(widths)) > 1:
        return "sequences", " "
    if max(widths) >= 2:
        return "csv", " "
    raise DataError(
        f"{name} has no separator that its lines share (first line {lines[0][:80]!r}): expected "
        "comma, tab, semicolon, bar or '::'; or give --sep"
    )


def _csv(files: list[str], head: str, sep: str | None) -> pl.LazyFrame:
    first = next(line for line in head.splitlines() if line.strip())
    names = [name.strip().strip('"') for name in first.split(sep)]
    has_header = not any(re.fullmatch(r"-?\d+(\.\d+)?", name) for name in names)
    if has_header and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(
            f"{files[0]} has two columns called {twice!r}: expected each name once; rename one"
        )
    return pl.scan_csv(
        files,
        separator=sep or ",",
        has_header=has_header,
        infer_schema=False,
        truncate_ragged_lines=True,
        encoding="utf8-lossy",
        quote_char='"' if '"' in head or sep == "," else None,
    )


def _atomic(files: list[str], head: str, sep: str | None) -> pl.LazyFrame:
    """RecBole's atomic files: tab-separated, each heading ``name:type``."""
    frame = pl.scan_csv(
        files, separator="\t", infer_schema=False, quote_char=None, truncate_ragged_lines=True,
        encoding="utf8-lossy",
    )  # fmt: skip
    names = frame.collect_schema().names()
    typed = {name: name.rsplit(":", 1) for name in names}
    untyped = [name for name, parts in typed.items() if len(parts) != 2]
    if untyped:
        raise DataError(
            f"{files[0]} has the heading {untyped[0]!r}: an atomic file has name:type, such as "
            "user_id:token"
        )
    columns = []
    for name, (plain, kind) in typed.items():
        column = pl.col(name).cast(pl.Float64, strict=False) if kind == "float" else pl.col(name)
        columns.append(column.alias(plain))
    return frame.select(columns)


def _movielens(files: list[str], head: str, sep: str | None) -> pl.LazyFrame:
    width = head.splitlines()[0].count("::") + 1
    fields = _lines(files).select(
        pl.col("column_1").str.splitn("::", width).struct.rename_fields(_numbered(width))
    )
    return fields.unnest("column_1")


def _sequences(files: list[str], head: str, sep: str | None) -> pl.LazyFrame:
    """Read a user a line: the user, then the items in time order, parted by blanks."""
    parts = _lines(files).select(
        pl.col("column_1").str.strip_chars().str.replace_all(r"\s+", " ").str.splitn(" ", 2)
    )
    fields = parts.select(
        pl.col("column_1").struct.field("field_0").alias("user_id"),
        pl.col("column_1").struct.field("field_1").str.split(" ").alias("item_id"),
    )
    return fields.explode("item_id", empty_as_null=True)


def _lines(files: list[str]) -> pl.LazyFrame:
    return pl.scan_csv(
        files,
        separator=_ONE_COLUMN,
        quote_char=None,
        has_header=False,
        infer_schema=False,
        encoding="utf8-lossy",
        new_columns=["column_1"],
    )


def _numbered(width: int) -> list[str]:
    return [f"column_{number}" for number in range(1, width + 1)]


_READERS: dict[str, Any] = {
    "csv": _csv,
    "atomic": _atomic,
    "movielens": _movielens,
    "sequences": _sequences,
}
