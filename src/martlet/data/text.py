"""Text files: what is in the first lines, in which encoding, and all lines as one column."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import polars as pl

from martlet.core import DataError

# What a line holds beyond its columns, and a line that is none at all; null in good rows.
SURPLUS, BROKEN = "(surplus)", "(broken)"

_ONE_COLUMN = "\x01"  # a byte that no log holds: the whole line becomes one column
_HEAD_BYTES = 1 << 16
_HEAD_LINES = 1000  # at an address, where bytes cannot be asked for
_MAX_LINE_BYTES = 8 << 20
_UNREADABLE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    OSError,
    EOFError,
    ValueError,
    zlib.error,
)
Source = str | bytes
"""A path or an address, or the content itself where it had to be put into UTF-8."""


class TextFile(NamedTuple):
    """A text file and its first whole lines."""

    name: str
    head: str
    source: Source


@dataclass(frozen=True, eq=False)
class Part:
    """Files of a log that are read alike.

    Attributes:
        frame: their columns; streamed, and ended by a line that breaks the format.
        after: given how many rows ``frame`` gave before such a line, the rows from there on, each
            line by itself: those that break the format stand in ``BROKEN``.
    """

    frame: pl.LazyFrame
    after: Callable[[int], pl.LazyFrame] | None = None

    def select(self, *columns: Any) -> Part:
        """Return the same rows with these columns."""
        rest = self.after
        after = None if rest is None else lambda done: rest(done).select(*columns)
        return Part(self.frame.select(*columns), after)

    def batches(self, size: int) -> Iterator[pl.DataFrame]:
        """Yield the rows in batches; after a line that breaks the format go on line by line."""
        done = 0
        try:
            for batch in self.frame.collect_batches(chunk_size=size, engine="streaming"):
                yield batch
                done += len(batch)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            if self.after is None:
                raise
            yield from self.after(done).collect_batches(chunk_size=size, engine="streaming")


def spoilt(batch: pl.DataFrame) -> list[tuple[str, pl.Series]]:
    """Return why rows of a text file are bad as they stand there, and which; if any are.

    What is blank behind the last column is no field: some programs end each line by a separator.
    """
    found = []
    if BROKEN in batch.columns and batch[BROKEN].null_count() < len(batch):
        found.append(("broken line", batch[BROKEN].is_not_null()))
    if SURPLUS in batch.columns and batch[SURPLUS].null_count() < len(batch):
        filled = (batch[SURPLUS].str.strip_chars() != "").fill_null(False)
        found.append(("too many fields", filled))
    return found


@contextmanager
def stated(files: Sequence[str]) -> Iterator[None]:
    """Turn what Polars raises into a ``DataError`` that names the file."""
    try:
        yield
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        raise DataError(
            f"{files[0]}{more} cannot be read: {reason[0] if reason else type(error).__name__}; "
            "expected a whole CSV, TSV, JSON lines, Parquet, .inter or '::' file in UTF-8"
        ) from error


def opened(files: Sequence[str], *, in_utf8: bool) -> list[TextFile]:
    """Return the files with their first lines.

    Args:
        files: paths and addresses.
        in_utf8: whether local files are read whole, and taken as Latin-1 where they are no UTF-8.

    Raises:
        DataError: an empty or binary file, or one whose first line has no end.
    """
    heads = [head(name) for name in files]
    sources: list[Source] = list(files)
    if in_utf8 and all(map(is_local, files)):
        contents = [content(name) for name in files]
        if not all(map(_is_utf8, contents)):
            sources = [decoded(data).encode() for data in contents]
    return [TextFile(*one) for one in zip(files, heads, sources, strict=True)]


def lines(sources: Sequence[Source], skip: int = 0) -> pl.LazyFrame:
    """Return the lines of all files as the column ``line``, null where one is blank.

    Bytes that are no UTF-8 become U+FFFD. ``skip`` lines are left out at the start of each file.
    """
    every: Any = list(sources)
    return pl.scan_csv(
        every,
        separator=_ONE_COLUMN,
        quote_char=None,
        has_header=False,
        skip_lines=skip,
        schema={"line": pl.String},
        extra_columns="ignore",
        encoding="utf8-lossy",
        raise_if_empty=False,
        glob=has_glob(sources),
    )


def head(name: str) -> str:
    """Return the first whole lines of a text file; refuse what is no text."""
    data = _first_bytes(name) if is_local(name) else _first_lines(name)
    if b"\0" in data:
        raise DataError(f"{name} is a binary file: expected text, or a name that ends in .parquet")
    # An array in JSON may well be one line; it is read whole.
    is_array = data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    if b"\n" not in data and len(data) >= _MAX_LINE_BYTES and not is_array:
        raise DataError(
            f"{name} has a first line of over {_MAX_LINE_BYTES:,} bytes: expected one event a line"
        )
    text = decoded(data[: data.rfind(b"\n") + 1])
    text = text if text.strip() else decoded(data)
    if not text.strip():
        raise DataError(f"{name} is empty: expected a log with one event a line")
    return text


def content(name: str) -> bytes:
    """Return all bytes of a local file, unpacked."""
    with _open(name) as file:
        return file.read()


def decoded(data: bytes) -> str:
    """Return text that is in UTF-8, else in Latin-1."""
    encoding = "utf-8-sig" if _is_utf8(data) else "latin-1"
    return data.decode(encoding)


def is_local(name: str) -> bool:
    """Tell whether this is a path and no address."""
    return "://" not in name


def has_glob(sources: Sequence[Source]) -> bool:
    """Tell whether Polars may find a pattern in a name: at an address; paths are found already."""
    return any(isinstance(source, str) and not is_local(source) for source in sources)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _first_bytes(name: str) -> bytes:
    with _open(name) as file:
        data = file.read(_HEAD_BYTES)
        while data.strip() and b"\n" not in data and len(data) < _MAX_LINE_BYTES:
            more = file.read(_HEAD_BYTES)
            if not more:
                break
            data += more
    return data


def _first_lines(address: str) -> bytes:
    first = lines([address]).head(_HEAD_LINES).collect()["line"]
    return "".join(f"{line}\n" for line in first.fill_null("")).encode()


def _open(name: str) -> IO[bytes]:
    with open(name, "rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(name)  # type: ignore[return-value]
    if magic == b"\x28\xb5\x2f\xfd":
        import pyarrow as pa

        return pa.CompressedInputStream(pa.OSFile(name), "zstd")  # type: ignore[no-any-return]
    return open(name, "rb")
