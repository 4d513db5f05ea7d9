"""Columns of one value a row that become one row of a table: by vocabulary or by hash."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from martlet.core import Array, Text, check_counts
from martlet.features.fitted import I32, Field, Spec, check_missing, check_names
from martlet.features.keys import Keys, bucket_rows, number_keys, text_keys
from martlet.features.source import Missing, Source
from martlet.features.values import Values, as_whole, frequent


@dataclass(frozen=True)
class Category(Spec):
    """A vocabulary of the values that training holds; rows fall by frequency.

    Attributes:
        name: a column of text or numbers.
        min_count: a value that occurs less often counts as unknown.
        missing: values that count as missing beside "", "NaN" and NaN.
    """

    name: str
    min_count: int = 1
    missing: Missing = ()

    def __post_init__(self) -> None:
        check_names(self, "name")
        check_counts(self, "min_count")
        check_missing(self.missing)

    def fit(self, source: Source) -> FittedCategory:
        """Learn the vocabulary. O(n log n)."""
        text = source.is_text(self.name)
        _, first = frequent(source.keys(self.name, text, self.missing), self.min_count)
        column = source.column(self.name)
        stored: dict[str, Array]
        if isinstance(column, Text):
            values = column.take(first)
            stored = {"values.blob": values.blob, "values.offsets": values.offsets}
        else:
            stored = {"values": as_whole(column[first])}  # type: ignore[index]
        return FittedCategory(self, {"text": text}, stored)


class FittedCategory(Field):
    """Arrays: the values by row, "values" of numbers or "values.blob", "values.offsets" of text."""

    spec: Category

    def check(self) -> None:
        """Refuse a vocabulary that is no text or holds a value twice."""
        self.number("text", bool)
        if self.state["text"]:
            blob, offsets = (
                self.array("values.blob", np.uint8),
                self.array("values.offsets", np.int64),
            )
            if not Text(blob, offsets).is_sound():
                raise self.refuse("offsets or bytes that are not those of a text")
        else:
            values = self.stored.get("values")
            kind = np.float64 if getattr(values, "dtype", None) == np.float64 else np.int64
            self.array("values", kind)
        if not self._values.distinct:
            raise self.refuse("a value stands twice in its vocabulary")

    @property
    def values(self) -> Text | Array:
        """(size - 1,) the values of rows 1, 2, ..."""
        if self.state["text"]:
            return Text(self.stored["values.blob"], self.stored["values.offsets"])  # type: ignore[arg-type]
        return self.stored["values"]

    @cached_property
    def _values(self) -> Values:
        values = self.values
        return Values(text_keys(values) if isinstance(values, Text) else number_keys(values))

    @property
    def size(self) -> int:
        """One more than its values."""
        return len(self._values) + 1

    @property
    def vocabulary(self) -> Values:
        """Its values."""
        return self._values

    def apply(self, source: Source) -> I32:
        """Return (N,) int32. O(N log size)."""
        return self._values.rows(source.keys(self.spec.name, self.state["text"], self.spec.missing))


@dataclass(frozen=True)
class Hashed(Spec):
    """Any number of values in a fixed number of buckets; holds no vocabulary.

    Two values may share a bucket; a value that training never held has one too. Buckets stand in
    no order of frequency.

    Attributes:
        name: a column of text or numbers.
        buckets: rows beside the one for a missing value.
        missing: values that count as missing beside "", "NaN" and NaN.
    """

    name: str
    buckets: int = 100_000
    missing: Missing = ()

    def __post_init__(self) -> None:
        check_names(self, "name")
        check_counts(self, "buckets")
        check_missing(self.missing)

    def fit(self, source: Source) -> FittedHashed:
        """Note whether the column is text."""
        return FittedHashed(self, {"text": source.is_text(self.name)}, {})


class FittedHashed(Field):
    """No arrays."""

    spec: Hashed

    def check(self) -> None:
        """Refuse a state without the type of the column."""
        self.number("text", bool)

    @property
    def size(self) -> int:
        """One more than its buckets."""
        return self.spec.buckets + 1

    def apply(self, source: Source) -> I32:
        """Return (N,) int32. O(N)."""
        keys: Keys = source.keys(self.spec.name, self.state["text"], self.spec.missing)
        return bucket_rows(keys, self.spec.buckets)
