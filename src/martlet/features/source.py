"""The columns of a batch as keys and as numbers, whatever form each was given in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, Array, Column, DataError, Text
from martlet.features.keys import Keys, number_keys, span_keys, text_keys

_NUMBERS = (int, float, np.number, np.bool_)

Missing = tuple[str | float, ...]
"""Values that count as missing beside "", "NaN" and NaN."""

Given = Column | CSR | Sequence[Any]
"""What a column may come as: text, an array, a CSR of rows (for a bag), or a list of values."""


_FEW = 64  # rows up to which the calls, not the bytes, take the time


class Source:
    """A batch of N rows; what was computed of a column is kept for the next that asks.

    Raises:
        DataError: columns of different lengths, or one that is neither text nor numbers.
    """

    def __init__(self, columns: Mapping[str, Given]):
        self.columns = columns
        lengths = {name: _length(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns of different lengths: {lengths}")
        self.num_rows = next(iter(lengths.values()), 0)
        self._kept: dict[Any, Any] = {}

    def column(self, name: str) -> Column | None:
        """Return a single-valued column as text or numbers; None where it is absent."""
        if name not in self.columns:
            return None
        return self._keep(("column", name), lambda: as_column(name, self.columns[name]))  # type: ignore[no-any-return]

    def part(self, begin: int, end: int) -> Source:
        """Return the rows from ``begin`` up to, but not, ``end``."""
        if begin == 0 and end >= self.num_rows:
            return self
        end = min(end, self.num_rows)
        return Source({name: _part(one, begin, end) for name, one in self.columns.items()})

    def is_text(self, name: str) -> bool:
        """Whether the column is text."""
        return isinstance(self.column(name), Text)

    def keys(self, name: str, text: bool, missing: Missing = ()) -> Keys:
        """Return the (N,) keys of a column, read as text or as numbers; 0 where missing."""
        return self._keep(("keys", name, text, missing), lambda: self._keys(name, text, missing))  # type: ignore[no-any-return]

    def numbers(self, name: str, missing: Missing = ()) -> NDArray[np.float64]:
        """Return the (N,) numbers of a column; NaN where missing or without end.

        What is no number in a column of text is missing.
        """
        return self._keep(("numbers", name, missing), lambda: self._numbers(name, missing))  # type: ignore[no-any-return]

    def _keep(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    def _keys(self, name: str, text: bool, missing: Missing) -> Keys:
        column = self.column(name)
        if column is None:
            return np.zeros(self.num_rows, np.uint64)
        if text:
            keys = self._hashes(name) if isinstance(column, Text) else _keys_as_text(column)
            void = _void_of_text(missing)
        else:
            keys = _keys_as_numbers(column) if isinstance(column, Text) else number_keys(column)
            void = _void_of_numbers(missing)
        for value in void:
            keys = np.where(keys == value, np.uint64(0), keys)
        return keys

    def _hashes(self, name: str) -> Keys:
        """Return the keys of a column of text; all such columns of a few rows go at once."""
        if self.num_rows > _FEW:
            return text_keys(self.column(name))  # type: ignore[arg-type]
        kept = self._keep("hashes", self._all_hashes)
        return kept[name] if name in kept else text_keys(self.column(name))  # type: ignore

    def _all_hashes(self) -> dict[str, Keys]:
        texts: dict[str, Any] = {
            n: self.column(n) for n, one in self.columns.items() if _is_text(one)
        }
        if not texts:
            return {}
        blob = np.concatenate([text.blob for text in texts.values()])
        base = np.cumsum([0, *(len(text.blob) for text in texts.values())])
        start = [t.offsets[:-1] + b for t, b in zip(texts.values(), base, strict=False)]
        length = [t.offsets[1:] - t.offsets[:-1] for t in texts.values()]
        keys = span_keys(blob, np.concatenate(start), np.concatenate(length))
        return dict(zip(texts, keys.reshape(len(texts), -1), strict=True))

    def _numbers(self, name: str, missing: Missing) -> NDArray[np.float64]:
        column = self.column(name)
        if column is None:
            return np.full(self.num_rows, np.nan)
        if isinstance(column, Text):
            first, inverse = _distinct(text_keys(column))
            values = np.array([_number(column[row]) for row in first.tolist()], np.float64)[inverse]
        else:
            values = column.astype(np.float64)
        values[~np.isfinite(values)] = np.nan
        for value in missing:
            values[values == _number(_as_string(value))] = np.nan
        return values


def as_column(name: str, given: Given) -> Column:
    """Return text or an array of real numbers; None among the values becomes missing.

    Raises:
        DataError: values that are neither.
    """
    if isinstance(given, Text):
        return given
    if isinstance(given, list) and all(isinstance(value, str) for value in given):
        return Text.of(given)
    if isinstance(given, CSR):
        raise DataError(f"column {name!r} has many values a row: only a Bag or a Sequence takes it")
    if isinstance(given, np.ndarray) and given.dtype.kind == "U" and given.ndim == 1:
        return _text_of_unicode(given)
    array = np.asarray(given) if isinstance(given, np.ndarray) else _array_of(list(given))
    if array.ndim == 1 and array.dtype.kind in "biuf":
        return array
    if array.ndim == 1 and array.dtype.kind in "UO":
        values = array.tolist()
        if all(value is None or isinstance(value, (str, *_NUMBERS)) for value in values):
            return Text.of(_as_string(value) for value in values)
    raise DataError(
        f"column {name!r} is {array.dtype}{array.shape}: expected text or one number a row"
    )


def as_text(column: Column) -> Text:
    """Return a column as text; numbers as their digits, 94.0 as 94 and NaN as "". O(n)."""
    if isinstance(column, Text):
        return column
    return Text.of(_digits(value) for value in column.tolist())


def _array_of(values: list[Any]) -> Array:
    if all(value is None or isinstance(value, _NUMBERS) for value in values):
        return np.array([np.nan if value is None else value for value in values])
    return np.array([*values, None], object)[:-1]


def _text_of_unicode(array: NDArray[Any]) -> Text:
    """Return the text of a (n,) unicode array, without a loop where it is ASCII."""
    width = array.dtype.itemsize // 4
    letters = np.ascontiguousarray(array).view(np.uint32).reshape(len(array), width)
    if not array.size or not width or letters.max() >= 128 or not array.dtype.isnative:
        return Text.of(array.tolist())
    used = letters != 0
    length = width - np.argmax(used[:, ::-1], axis=1)
    length[~used.any(axis=1)] = 0
    offsets = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    return Text(letters[np.arange(width) < length[:, None]].astype(np.uint8), offsets)


def _is_text(given: Given) -> bool:
    """Whether a column is plainly one of text, a value a row."""
    if isinstance(given, list):
        return all(isinstance(value, str) for value in given)
    return isinstance(given, Text) or (isinstance(given, np.ndarray) and given.dtype.kind == "U")


def _part(given: Given, begin: int, end: int) -> Given:
    if isinstance(given, Text):
        first, last = given.offsets[begin], given.offsets[end]
        return Text(given.blob[first:last], given.offsets[begin : end + 1] - first)
    if isinstance(given, CSR):
        return given.take(np.arange(begin, end))
    return given[begin:end]


@lru_cache(1000)
def _void_of_text(missing: Missing) -> list[np.uint64]:
    return list(text_keys(Text.of(["NaN", *(_as_string(value) for value in missing)])))


@lru_cache(1000)
def _void_of_numbers(missing: Missing) -> list[np.uint64]:
    return [np.uint64(key_of_number(_as_string(value))) for value in missing]


def _as_string(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _digits(value)


def _length(given: Given) -> int:
    return given.num_rows if isinstance(given, CSR) else len(given)


def _distinct(keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a row that has each key, and the place of each row's key among them."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first, inverse


def _keys_as_text(numbers: Array) -> Keys:
    first, inverse = _distinct(number_keys(numbers))
    return text_keys(Text.of(_digits(value) for value in numbers[first].tolist()))[inverse]


def _digits(value: float) -> str:
    """Return a number as text, 94.0 as 94 and NaN as nothing."""
    if value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _keys_as_numbers(text: Text) -> Keys:
    first, inverse = _distinct(text_keys(text))
    return np.array([key_of_number(text[row]) for row in first.tolist()], np.uint64)[inverse]


def key_of_number(text: str) -> int:
    """Return the key of the number that a text says, 0 if it says none."""
    try:
        value: Any = np.array([int(text)], np.int64) if "_" not in text else None
    except (ValueError, OverflowError):
        value = None
    if value is None:
        value = np.array([_number(text)])
    return int(number_keys(value)[0])


def _number(text: str) -> float:
    try:
        return float(text) if "_" not in text else np.nan
    except ValueError:
        return np.nan
