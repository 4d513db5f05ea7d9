"""Columns of numbers that stay numbers: scaled, with a mark where one is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from martlet.core import check_counts
from martlet.features.fitted import (
    F32,
    Numbers,
    Spec,
    check_choice,
    check_missing,
    check_names,
)
from martlet.features.source import Missing, Source

Scale = Literal["standard", "min-max", "quantile", "log", "none"]
_LIMIT = float(np.finfo(np.float32).max)
_TINY = float(np.finfo(np.float64).tiny)
SCALES = ("standard", "min-max", "quantile", "log", "none")


@dataclass(frozen=True)
class Numeric(Spec):
    """A number, scaled by what training holds.

    A number outside the range of training counts as the nearest end of it (but for "none"): no
    network knows what lies beyond. A missing one becomes 0; where training misses any, a further
    column holds 1 for those.

    Attributes:
        name: a column of numbers, or of text that says numbers.
        scale: "standard" to mean 0 and deviation 1; "min-max" to 0 .. 1; "quantile" to its rank
            among the training values, -1 .. 1; "log" the standard of sign(x) log(1 + |x|); "none".
        quantiles: cuts that "quantile" keeps; between two it is linear.
        missing: values that count as missing beside "", "NaN" and NaN; so do infinite ones.
    """

    name: str
    scale: Scale = "standard"
    quantiles: int = 256
    missing: Missing = ()

    def __post_init__(self) -> None:
        check_names(self, "name")
        check_choice(self, "scale", SCALES)
        check_counts(self, "quantiles")
        check_missing(self.missing)

    def fit(self, source: Source) -> FittedNumeric:
        """Learn range, mean and deviation, or the quantiles. O(n log n)."""
        values = source.numbers(self.name, self.missing)
        known = values[~np.isnan(values)]
        state: dict[str, Any] = {"marked": len(known) < len(values)}
        state |= {"low": 0.0, "high": 0.0, "mean": 0.0, "deviation": 1.0}
        stored = {}
        if len(known):
            state |= {"low": float(known.min()), "high": float(known.max())}
            bent = _bend(known) if self.scale == "log" else known
            # Of values near the end of float64's range the squares have no float64.
            largest = max(float(np.abs(bent).max()), 1e-300)
            deviation = float((bent / largest).std()) * largest
            state |= {"mean": float((bent / largest).mean()) * largest}
            state |= {"deviation": deviation if deviation > max(largest * 1e-12, _TINY) else 1.0}
        if self.scale == "quantile":
            shares = np.linspace(0, 1, self.quantiles + 1)
            cuts = np.quantile(known, shares) if len(known) else np.zeros(len(shares))
            stored["cuts"] = np.maximum.accumulate(cuts)
        return FittedNumeric(self, state, stored)


class FittedNumeric(Numbers):
    """Array: "cuts" (quantiles + 1,) float64, rising, with "quantile"."""

    spec: Numeric

    def check(self) -> None:
        """Refuse numbers that are not finite, a deviation of 0, cuts that fall."""
        self.number("marked", bool)
        for name in ("low", "high", "mean"):
            self.number(name, float)
        self.number("deviation", float, least=_TINY)
        if self.state["low"] > self.state["high"]:
            raise self.refuse("low lies above high")
        if self.spec.scale == "quantile":
            cuts = self.array("cuts", np.float64, self.spec.quantiles + 1)
            if not np.isfinite(cuts).all() or (cuts[1:] < cuts[:-1]).any():
                raise self.refuse("cuts that do not rise")

    @property
    def names(self) -> tuple[str, ...]:
        """Its name, and one for the mark where training misses any."""
        name = self.spec.field
        return (name, f"{name} missing") if self.state["marked"] else (name,)

    def apply(self, source: Source) -> F32:
        """Return (N, 1 or 2) float32."""
        values = source.numbers(self.spec.name, self.spec.missing)
        missing = np.isnan(values)
        out = np.empty((len(values), len(self.names)), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.nan_to_num(self._scaled(np.where(missing, 0.0, values)), nan=0.0)
        out[:, 0] = np.where(missing, 0.0, np.clip(scaled, -_LIMIT, _LIMIT))
        if self.state["marked"]:
            out[:, 1] = missing
        return out

    def _scaled(self, values: NDArray[np.float64]) -> Any:
        state, scale = self.state, self.spec.scale
        if scale == "none":
            return values
        low, high = state["low"], state["high"]
        values = np.clip(values, low, high)
        if scale == "quantile":
            cuts: Any = self.stored["cuts"]
            shares = np.linspace(-1, 1, len(cuts))
            # The middle of equal cuts, so that a frequent value gets the rank of its middle.
            return (np.interp(values, cuts, shares) + _last(values, cuts, shares)) / 2
        if scale == "min-max":
            # Halves, for the whole range may have no float64.
            return (values / 2 - low / 2) / max(high / 2 - low / 2, 1e-300)
        bent = _bend(values) if scale == "log" else values
        return (bent - state["mean"]) / state["deviation"]


def _bend(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(values) * np.log1p(np.abs(values))


def _last(
    values: NDArray[np.float64], cuts: NDArray[np.float64], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what interpolation gives from the right, where several cuts are equal."""
    return -np.interp(-values, -cuts[::-1], -shares[::-1])
