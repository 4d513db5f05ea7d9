"""Columns that can be memory-mapped: text as one block of UTF-8 with offsets, numbers as arrays."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core.errors import DataError

Array = NDArray[np.generic]
_BLOCK = 1 << 18  # rows of text that are taken at a time


@dataclass(frozen=True, eq=False)
class Text:
    """A column of strings.

    Attributes:
        blob: (bytes,) uint8, the strings' UTF-8 one after another.
        offsets: (n + 1,) int64; string i lies at ``offsets[i]:offsets[i + 1]``.
    """

    blob: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @staticmethod
    def of(strings: Iterable[str]) -> Text:
        """Build from Python strings.

        Raises:
            DataError: a string that UTF-8 has no bytes for.

        >>> Text.of(["wren", "", "雨燕"])[2]
        '雨燕'
        """
        try:
            encoded = [string.encode() for string in strings]
        except UnicodeEncodeError as error:
            raise DataError(f"{error.object!r} is no UTF-8 text: mend or drop it") from error
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(e) for e in encoded], out=offsets[1:])
        return Text(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> str:
        return self.blob[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        blob, offsets = self.blob.tobytes(), self.offsets.tolist()
        for start, end in itertools.pairwise(offsets):
            yield blob[start:end].decode()

    def is_sound(self) -> bool:
        """Whether the offsets rise over the whole block and every string is UTF-8. O(bytes)."""
        offsets, blob = self.offsets, self.blob
        if blob.dtype != np.uint8 or not len(offsets):
            return False
        if offsets[0] != 0 or offsets[-1] != len(blob) or (offsets[1:] < offsets[:-1]).any():
            return False
        inside = offsets[offsets < len(blob)]
        if ((blob[inside] & 0xC0) == 0x80).any():
            return False  # it starts within a letter
        try:
            blob.tobytes().decode()
        except UnicodeDecodeError:
            return False
        return True

    @property
    def nbytes(self) -> int:
        """Bytes of the two arrays."""
        return self.blob.nbytes + self.offsets.nbytes

    def take(self, rows: NDArray[np.integer]) -> Text:
        """Return the given rows as a new column. O(bytes of these rows)."""
        rows = np.asarray(rows, np.int64)
        rows = np.where(rows < 0, rows + len(self), rows)
        starts = self.offsets[:-1][rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(self.offsets[1:][rows] - starts, out=offsets[1:])
        blob = np.empty(int(offsets[-1]), np.uint8)
        for begin in range(0, len(rows), _BLOCK):
            # Where each byte comes from, a run a row; in blocks, for this takes 8 bytes a byte.
            ends = offsets[begin : begin + _BLOCK + 1]
            first, last = int(ends[0]), int(ends[-1])
            shift = starts[begin : begin + _BLOCK] - ends[:-1]
            source = np.repeat(shift, np.diff(ends)) + np.arange(first, last)
            blob[first:last] = self.blob[source]
        return Text(blob, offsets)

    def slice(self, start: int, stop: int) -> Text:
        """Return rows ``start`` to ``stop``; the bytes are not copied."""
        offsets = np.asarray(self.offsets[start : stop + 1])
        return Text(self.blob[offsets[0] : offsets[-1]], offsets - offsets[0])

    @staticmethod
    def join(parts: Sequence[Text]) -> Text:
        """Return the rows of all parts, one part after another.

        >>> list(Text.join([Text.of(["wren"]), Text.of([]), Text.of(["swift", ""])]))
        ['wren', 'swift', '']
        """
        lengths = [np.diff(part.offsets) for part in parts]
        offsets = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
        return Text(np.concatenate([np.empty(0, np.uint8), *(p.blob for p in parts)]), offsets)


Column = Text | Array
"""A column of a table: text, or an array of numbers with one value a row."""


def flatten(columns: Mapping[str, Column]) -> dict[str, Array]:
    """Return plain arrays to store: text becomes ``name.blob`` and ``name.offsets``.

    Raises:
        DataError: a column is neither text nor a number a row.
    """
    arrays: dict[str, Array] = {}
    for name, column in columns.items():
        if isinstance(column, Text):
            arrays[f"{name}.blob"], arrays[f"{name}.offsets"] = column.blob, column.offsets
        else:
            arrays[name] = check_numbers(f"column {name!r}", column)
    return arrays


def check_numbers(name: str, column: Any) -> Array:
    """Return ``column`` if it is an array of one real number a row.

    Raises:
        DataError: it is not; ``name`` says whose it is.
    """
    array = np.asarray(column)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise DataError(
            f"{name} is {array.dtype}{array.shape}: expected one real number a row, or text"
        )
    return array


def unflatten(arrays: Mapping[str, Array]) -> dict[str, Column]:
    """Return the columns that ``flatten`` made the arrays from."""
    columns: dict[str, Column] = {}
    for name, array in arrays.items():
        if name.endswith(".blob"):
            stem = name.removesuffix(".blob")
            columns[stem] = Text(array, arrays[f"{stem}.offsets"])  # type: ignore[arg-type]
        elif not name.endswith(".offsets"):
            columns[name] = array
    return columns
