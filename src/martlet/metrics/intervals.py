"""How sure a difference is: intervals by bootstrap, tests by sign flips, corrections for many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from martlet.core import SpecError, rng

F64 = NDArray[np.float64]
_CELLS = 1 << 22  # user draws held at once: 32 MB
_BEYOND = 10  # draws on the far side of a bound, where several are compared


class Interval(NamedTuple):
    """A mean with the interval that holds it at the stated level."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap(values: F64, *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """Return the percentile bootstrap interval of the mean of (users,) values. O(draws users).

    **Source**: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.

    Raises:
        SpecError: no values, or one that is not finite.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise SpecError(f"an interval needs finite values, one a user: got {values.shape} of them")
    random, n = rng(seed, "bootstrap"), len(values)
    means = np.empty(draws)
    step = max(1, _CELLS // n)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        means[start : start + size] = values[random.integers(0, n, (size, n))].mean(1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))


def paired_bootstrap(
    first: F64,
    second: F64,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    comparisons: int = 1,
) -> Interval:
    """Return the interval of the mean of ``second - first``, the same users in the same order.

    Where several differences are looked at, ``comparisons`` of them, each is wider, so that all
    intervals hold their mean at ``level`` together: each misses with (1 - level) / comparisons.
    That is Bonferroni's correction. It holds however alike the candidates are, and gives intervals;
    Holm's is sharper, but adjusts p-values alone.

    >>> paired_bootstrap(np.zeros(9), np.ones(9))
    Interval(mean=1.0, low=1.0, high=1.0)

    Raises:
        SpecError: the two do not have the same users, or fewer than one comparison.
    """
    if len(first) != len(second):
        raise SpecError(f"{len(first)} and {len(second)} users: a pair needs the same users twice")
    if comparisons < 1:
        raise SpecError(f"comparisons is {comparisons}: expected a whole number of 1 or more")
    miss = (1 - level) / comparisons
    # A bound is a quantile: some draws must lie beyond it.
    draws = max(draws, round(_BEYOND * 2 / miss)) if comparisons > 1 else draws
    level = 1 - miss if comparisons > 1 else level
    return bootstrap(np.subtract(second, first), level=level, draws=draws, seed=seed)


def sign_flip(first: F64, second: F64, *, draws: int = 10_000, seed: int = 0) -> float:
    """Return the two-sided p-value of no difference, by flipping the signs of paired differences.

    **Source**: Smucker, Allan and Carterette (2007). The observed one counts among the draws, so
    the smallest value is 1 / (draws + 1).

    Raises:
        SpecError: the two do not have the same users.
    """
    if len(first) != len(second):
        raise SpecError(f"{len(first)} and {len(second)} users: a pair needs the same users twice")
    difference = np.subtract(second, first)
    random, n, extreme = rng(seed, "sign flip"), len(difference), 0
    seen = abs(difference.sum())
    step = max(1, _CELLS // max(1, n))
    for start in range(0, draws, step):
        size = min(step, draws - start)
        signs = random.integers(0, 2, (size, n), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ difference) >= seen - 1e-12).sum())
    return (extreme + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that any false claim among them stays rare (Holm, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return _back(order, adjusted)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted so that few claims are false (Benjamini and Hochberg, 1995).

    >>> benjamini_hochberg([0.01, 0.02, 0.5])
    [0.03, 0.03, 0.5]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    steps = p[order] * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.minimum.accumulate(steps[::-1])[::-1]
    return _back(order, adjusted)


def _back(order: NDArray[np.integer], adjusted: F64) -> list[float]:
    result = np.empty(len(order))
    result[order] = np.minimum(adjusted, 1.0)
    return [float(value) for value in result]
