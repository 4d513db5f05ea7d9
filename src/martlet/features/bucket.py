"""Columns of numbers that become one row of a table: by which edges they lie between."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import SpecError, check_counts
from martlet.features.fitted import I32, Field, Spec, check_missing, check_names
from martlet.features.source import Missing, Source


@dataclass(frozen=True)
class Bucket(Spec):
    """A number by the bucket it falls in; a missing one has row 0, a bucket of its own.

    Attributes:
        name: a column of numbers, or of text that says numbers.
        edges: rising; bucket i holds numbers from edge i - 1 up to, but not, edge i. None cuts at
            quantiles of the training values.
        buckets: how many at most to cut the training values into, as evenly as equal values let.
        missing: values that count as missing beside "", "NaN" and NaN.
    """

    name: str
    edges: tuple[float, ...] | None = None
    buckets: int = 16
    missing: Missing = ()

    def __post_init__(self) -> None:
        check_names(self, "name")
        check_counts(self, "buckets")
        check_missing(self.missing)
        if self.edges is not None and not _rising(self.edges):
            raise SpecError(f"edges is {self.edges!r}: expected a tuple of rising numbers")

    @property
    def field(self) -> str:
        """Its name and "bucket", as the column may be a field of another kind too."""
        return f"{self.name} bucket"

    def fit(self, source: Source) -> FittedBucket:
        """Learn the quantiles, if no edges are given. O(n log n)."""
        if self.edges is not None:
            return FittedBucket(self, {}, {"edges": np.array(self.edges, np.float64)})
        values = source.numbers(self.name, self.missing)
        edges = even_edges(values[~np.isnan(values)], self.buckets)
        return FittedBucket(self, {}, {"edges": edges})


class FittedBucket(Field):
    """Array: "edges" (size - 2,) float64, rising."""

    spec: Bucket

    def check(self) -> None:
        """Refuse edges that do not rise."""
        edges = self.array("edges", np.float64)
        if not np.isfinite(edges).all() or (edges[1:] <= edges[:-1]).any():
            raise self.refuse("edges that do not rise")

    @property
    def size(self) -> int:
        """Two more than its edges: those below the first, and the missing ones."""
        return len(self.stored["edges"]) + 2

    def apply(self, source: Source) -> I32:
        """Return (N,) int32. O(N log size)."""
        values = source.numbers(self.spec.name, self.spec.missing)
        edges: Any = self.stored["edges"]
        rows = np.searchsorted(edges, values, side="right").astype(np.int32) + np.int32(1)
        return np.where(np.isnan(values), np.int32(0), rows)


def even_edges(values: NDArray[np.float64], buckets: int) -> NDArray[np.float64]:
    """Return rising edges between at most so many buckets of about as many values each.

    Where one value fills a bucket, the rest is dealt among the buckets that are left. Edges are
    values of the column. O(n log n + buckets log n).
    """
    values = np.sort(values)
    edges: list[float] = []
    at = 0
    for left in range(buckets, 1, -1):
        if at >= len(values):
            break
        last = values[at - (at - len(values)) // left - 1]
        at = int(np.searchsorted(values, last, side="right"))
        if at < len(values):
            edges.append(float(values[at]))
    return np.array(edges, np.float64)


def _rising(edges: Any) -> bool:
    if not isinstance(edges, tuple) or not edges:
        return False
    if not all(type(edge) in (int, float) and np.isfinite(edge) for edge in edges):
        return False
    return all(low < high for low, high in pairwise(edges))
