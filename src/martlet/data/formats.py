"""From a file, a folder, a glob or an address to a lazy table: which files, and in which format."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import polars as pl

from martlet.core import DataError
from martlet.data.delimited import Table, read_atomic, read_csv, read_movielens, read_sequences
from martlet.data.jsonlines import read_json
from martlet.data.text import BROKEN, SURPLUS, Part, TextFile, is_local, opened, stated

__all__ = ["FORMATS", "Raw", "expand", "scan", "stated"]

SEPARATORS = ",\t;|"
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
FORMATS = ("csv", "jsonl", "parquet", "atomic", "movielens", "sequences")
_READERS: dict[str, Callable[[list[TextFile], str, bool | None], Table]] = {
    "csv": read_csv,
    "atomic": read_atomic,
    "movielens": read_movielens,
    "sequences": read_sequences,
}


@dataclass(frozen=True, eq=False)
class Raw:
    """A log as it stands in its files.

    Attributes:
        parts: with the same columns each; in text files those of ``SURPLUS`` and ``BROKEN`` too.
        format: the format found.
        files: what is read.
        sample: the first row's values, where no heading names the columns of a text file.
        numbers: of JSON, the columns that hold nothing but numbers in the first lines.
    """

    parts: Sequence[Part]
    format: str
    files: list[str]
    sample: tuple[str, ...] = ()
    numbers: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        """The columns of the log itself."""
        every = self.parts[0].frame.collect_schema().names()
        return [name for name in every if name not in self.spoilt]

    @property
    def spoilt(self) -> list[str]:
        """The columns that say which rows of a text file are bad."""
        every = self.parts[0].frame.collect_schema().names()
        is_text = self.format not in ("parquet", "table")
        return [name for name in (SURPLUS, BROKEN) if is_text and name in every]


def scan(
    source: str | Path | Sequence[str | Path],
    format: str | None = None,
    sep: str | None = None,
    *,
    header: bool | None = None,
    named: Sequence[str] = (),
    in_utf8: bool = False,
) -> Raw:
    """Return the lazy raw table of a source.

    Text formats and JSON come as strings (ids keep their leading zeros and all digits); Parquet
    keeps its types. Plain, gzip and zstd files are read alike. Columns of a file without a header
    are called ``column_1``, ``column_2`` ...

    Args:
        source: a file, a folder, a glob, an address, or a list of these.
        format: in place of what the name and the first lines tell.
        sep: separator of a text file.
        header: whether the first line names the columns; None looks for a number or a date in it.
        named: columns that are wanted; in JSON, they may begin below the first lines.
        in_utf8: read text files whole, and take as Latin-1 what is no UTF-8; else the bytes that
            are none become U+FFFD.

    Raises:
        DataError: nothing there, an empty or binary file, a format that cannot be told, files of
            several formats or with different columns.
    """
    files = expand(source)
    format = format or _format_of(files)
    if format not in FORMATS:
        raise DataError(f"format {format!r} is unknown: expected one of {', '.join(FORMATS)}")
    with stated(files):
        if format == "parquet":
            return Raw([Part(pl.scan_parquet(files))], format, files)
        texts = opened(files, in_utf8=in_utf8)
        if format == "jsonl":
            part, numbers = read_json(texts, named)
            return Raw([part], format, files, numbers=numbers)
        if format == "csv":
            format, sep = _text_format(texts[0].head, sep, files[0])
        table = _READERS[format](texts, sep or "\t", header)
        return Raw(table.parts, format, files, table.sample)


def expand(source: str | Path | Sequence[str | Path]) -> list[str]:
    """Return the files of a file, a folder, a glob, an address, or a list of these.

    A folder stands for the files below it that have a known ending and are not hidden; where there
    are ``.inter`` files (the log of a folder of RecBole's), for these alone.

    Raises:
        DataError: there is none.
    """
    if not isinstance(source, str | Path):
        return [name for one in source for name in expand(one)]
    text = str(source)
    if text.startswith("file://"):
        return expand(url2pathname(urlsplit(text).path))
    if not is_local(text):
        return [text]
    path = Path(text)
    if path.is_dir():
        found = sorted(str(file) for file in path.rglob("*") if _is_log(file, path))
        if not found:
            raise DataError(f"the folder {text} holds no file that can be read: expected .csv, "
                            ".tsv, .jsonl, .parquet, .inter or .dat files")  # fmt: skip
        return [name for name in found if _ending(name) == ".inter"] or found
    if path.exists():
        return [text]
    found = sorted(glob.glob(text))
    if not found:
        raise DataError(f"{text} does not exist: expected a file, a folder, a glob or an address")
    return expand(found)


def _is_log(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and _ending(file.name) in _ENDINGS and file.is_file()


def _ending(name: str) -> str:
    return Path(re.sub(r"\.(gz|zst|zstd)$", "", name.lower())).suffix


def _format_of(files: Sequence[str]) -> str:
    """Return the format that the endings tell, the same for all files."""
    endings = {name: _ending(name if is_local(name) else name.split("?")[0]) for name in files}
    formats = {name: _ENDINGS.get(ending, "csv") for name, ending in endings.items()}
    first = formats[files[0]]
    for name, format in formats.items():
        if format != first:
            raise DataError(
                f"{files[0]} is {first} and {name} is {format}: expected files of one format; give "
                "a glob, such as 'folder/*.csv'"
            )
    return first


def _text_format(head: str, sep: str | None, name: str) -> tuple[str, str]:
    """Return the text format and the separator of a file by its first lines."""
    lines = [line for line in head.split("\n") if line.strip()][:50]
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
