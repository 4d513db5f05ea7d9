"""Columns that are vectors already: of an image, a sound, a text, made by another network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from martlet.core import DataError
from martlet.features.fitted import F32, Numbers, Spec, check_names
from martlet.features.source import Source

MAX_WIDTH = 1 << 20  # numbers of a vector; what a damaged file says must not fill the memory


@dataclass(frozen=True)
class Vector(Spec):
    """A vector a row, passed on as it is; missing numbers become 0.

    Attributes:
        name: a column that is an (N, d) array of real numbers.
    """

    name: str

    def __post_init__(self) -> None:
        check_names(self, "name")

    def fit(self, source: Source) -> FittedVector:
        """Note how long a vector is.

        Raises:
            DataError: no array of two dimensions, or more than 1,048,576 numbers a vector.
        """
        width = int(_vectors(self.name, source.columns[self.name]).shape[1])
        if width > MAX_WIDTH:
            raise DataError(f"column {self.name!r} has vectors of {width:,} numbers: too many")
        return FittedVector(self, {"width": width}, {})


class FittedVector(Numbers):
    """No arrays."""

    spec: Vector

    def check(self) -> None:
        """Refuse a length below 1 or too large."""
        if self.number("width", int, least=1) > MAX_WIDTH:
            raise self.refuse(f"width is {self.state['width']}, more than {MAX_WIDTH}")

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and the place in the vector."""
        return tuple(f"{self.spec.name} {i}" for i in range(self.state["width"]))

    def apply(self, source: Source) -> F32:
        """Return (N, d) float32; zeros where the column is absent.

        Raises:
            DataError: vectors of another length.
        """
        width = self.state["width"]
        if self.spec.name not in source.columns:
            return np.zeros((source.num_rows, width), np.float32)
        vectors = _vectors(self.spec.name, source.columns[self.spec.name])
        if vectors.shape[1] != width:
            raise DataError(
                f"column {self.spec.name!r} has vectors of {vectors.shape[1]} numbers: "
                f"it was fitted on {width}"
            )
        limit = float(np.finfo(np.float32).max)
        finite: Any = np.nan_to_num(vectors, nan=0.0)
        return np.clip(finite, -limit, limit).astype(np.float32)  # type: ignore[no-any-return]


def _vectors(name: str, given: Any) -> Any:
    array: Any = np.empty(0) if hasattr(given, "num_rows") else np.asarray(given)
    if array.ndim != 2 or array.dtype.kind not in "biuf" or not array.shape[1]:
        raise DataError(
            f"column {name!r} is {array.dtype}{array.shape}: expected a vector a row, (N, d)"
        )
    return array
