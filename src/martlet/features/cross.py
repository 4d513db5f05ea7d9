"""Columns that mean more together than apart: each combination of values is one row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from martlet.core import SpecError, check_counts
from martlet.features.bucket import Bucket, FittedBucket
from martlet.features.fitted import I32, Field, Spec, check_missing
from martlet.features.keys import Keys, bucket_rows, cross_keys, number_keys
from martlet.features.source import Missing, Source
from martlet.features.values import Values, frequent


@dataclass(frozen=True)
class Cross(Spec):
    """A combination of two or more single-valued columns; missing where one of them is.

    A cross has a weight of its own (the wide side of a model), and no vector.

    Attributes:
        columns: names of columns, or Buckets of numbers.
        buckets: combinations are hashed into as many; None keeps those that training holds.
        min_count: a combination that occurs less often counts as unknown, without buckets.
        missing: values that count as missing beside "", "NaN" and NaN.
    """

    columns: tuple[str | Bucket, ...]
    buckets: int | None = None
    min_count: int = 2
    missing: Missing = ()

    def __post_init__(self) -> None:
        if not isinstance(self.columns, tuple) or len(self.columns) < 2:
            raise SpecError(f"columns is {self.columns!r}: expected a tuple of two or more")
        for part in self.columns:
            if not isinstance(part, Bucket) and (not isinstance(part, str) or not part):
                raise SpecError(f"columns holds {part!r}: expected names of columns, or Buckets")
        check_counts(self, "min_count", *(["buckets"] if self.buckets is not None else []))
        check_missing(self.missing)

    @property
    def uses(self) -> tuple[str, ...]:
        """The columns it reads."""
        return tuple(part if isinstance(part, str) else part.name for part in self.columns)

    @property
    def field(self) -> str:
        """The names of its parts."""
        return " x ".join(part if isinstance(part, str) else part.field for part in self.columns)

    def fit(self, source: Source) -> FittedCross:
        """Learn the edges of its buckets and which combinations there are. O(n log n)."""
        state = {"text": [source.is_text(name) for name in self.uses]}
        stored = {
            f"edges.{i}": part.fit(source).stored["edges"]
            for i, part in enumerate(self.columns)
            if isinstance(part, Bucket)
        }
        keys = np.empty(0, np.uint64)
        if self.buckets is None:
            bare = FittedCross(self, state, {**stored, "keys": keys})
            keys = frequent(bare.keys(source), self.min_count)[0]
        return FittedCross(self, state, {**stored, "keys": keys})


class FittedCross(Field):
    """Arrays: "keys" (size - 1,) uint64 by row, and "edges.i" of a part that is a Bucket."""

    spec: Cross

    def check(self) -> None:
        """Refuse a key that stands twice, or parts of no known type."""
        text = self.state.get("text")
        if (
            not isinstance(text, list)
            or len(text) != len(self.spec.columns)
            or not all(isinstance(one, bool) for one in text)
        ):
            raise self.refuse(f"text is {text!r}, expected whether each part is text")
        self.array("keys", np.uint64)
        if not self._values.distinct:
            raise self.refuse("a combination stands twice")
        for i, part in enumerate(self.spec.columns):
            if isinstance(part, Bucket):
                self._bucket(i, part)

    @property
    def size(self) -> int:
        """One more than its combinations, or than its buckets."""
        return (len(self._values) if self.spec.buckets is None else self.spec.buckets) + 1

    @cached_property
    def _values(self) -> Values:
        return Values(self.stored["keys"])  # type: ignore[arg-type]

    @property
    def vocabulary(self) -> Values | None:
        """Its combinations, unless they are hashed."""
        return self._values if self.spec.buckets is None else None

    def _bucket(self, i: int, part: Bucket) -> FittedBucket:
        return FittedBucket(part, {}, {"edges": self.array(f"edges.{i}", np.float64)})

    def keys(self, source: Source) -> Keys:
        """Return the (N,) key of each row's combination; 0 where a part is missing."""
        return cross_keys(self.part_keys(source))

    def part_keys(self, source: Source) -> list[Keys]:
        """Return the (N,) keys of each part by itself; 0 where it is missing."""
        parts = []
        for i, part in enumerate(self.spec.columns):
            if isinstance(part, Bucket):
                rows = self._bucket(i, part).apply(source)
                parts.append(np.where(rows > 0, number_keys(rows), np.uint64(0)))
            else:
                parts.append(source.keys(part, self.state["text"][i], self.spec.missing))
        return parts

    def apply(self, source: Source) -> I32:
        """Return (N,) int32. O(N log size)."""
        return self.rows_of(self.keys(source))

    def rows_of(self, keys: Keys) -> I32:
        """Return the (N,) row of each key."""
        buckets = self.spec.buckets
        return self._values.rows(keys) if buckets is None else bucket_rows(keys, buckets)
