"""How good probabilities of a label of 0 or 1 are, or numbers told, each with its interval.

A figure is a function of the rows' distribution. How much one row moves it (its influence) gives
the interval, and that of the difference of two models on the same rows, whatever the figure: the
standard error is that of the mean influence. So each takes one sort and no redrawing of rows.

**Source**: Hampel, "The influence curve and its role in robust estimation" (1974). For AUC it is
the interval of DeLong, DeLong and Clarke-Pearson (1988), by ranks as in Sun and Xu (2014).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from martlet.core import DataError, SpecError
from martlet.metrics.intervals import Interval

F64 = NDArray[np.float64]
EDGE = 1e-7  # a probability is taken as no nearer to 0 and 1: float32 cannot tell it from 1


class _Estimate(NamedTuple):
    """A figure, and (n,) how much each row moves it; these sum to zero."""

    value: float
    influence: F64


class _Levels(NamedTuple):
    """The distinct scores, rising.

    Attributes:
        of_row: (n,) the level of each row.
        negative: (levels,) rows of label 0.
        positive: (levels,) rows of label 1.
    """

    of_row: NDArray[np.intp]
    negative: F64
    positive: F64


@dataclass(frozen=True, eq=False)
class _Rows:
    """Labels, 0 or 1, and the probabilities that were told of them, as float64."""

    label: F64
    score: F64

    @cached_property
    def levels(self) -> _Levels:
        distinct, of_row = np.unique(self.score, return_inverse=True)
        positive, negative = (
            np.bincount(of_row, label, len(distinct)).astype(np.float64)
            for label in (self.label, 1 - self.label)
        )
        return _Levels(of_row, negative, positive)

    @property
    def share(self) -> float:
        """The share of label 1."""
        return float(self.label.mean())

    @cached_property
    def log_loss(self) -> F64:
        """(n,) losses in nats."""
        inside = np.clip(self.score, EDGE, 1 - EDGE)
        # One logarithm a row: that of the probability of what happened.
        return np.asarray(-np.log(np.where(self.label > 0, inside, 1 - inside)), np.float64)


def _auc(rows: _Rows) -> _Estimate:
    """Return the share of pairs of labels 1 and 0 that are in the right order; a tie counts half.

    O(n log n).
    """
    of_row, negative, positive = rows.levels
    num_negative, num_positive = negative.sum(), positive.sum()
    below = (np.cumsum(negative) - negative / 2) / num_negative
    above = (num_positive - np.cumsum(positive) + positive / 2) / num_positive
    value = float(positive @ below / num_positive)
    # DeLong divides by one row less of each label, as an unbiased variance does.
    n = len(of_row)
    scale_0, scale_1 = (n / np.sqrt(m * max(m - 1, 1)) for m in (num_negative, num_positive))
    happened = rows.label > 0
    influence = np.where(
        happened, scale_1 * (below[of_row] - value), scale_0 * (above[of_row] - value)
    )
    return _Estimate(value, influence)


def _pr_auc(rows: _Rows) -> _Estimate:
    """Return the average precision: the mean, over rows of label 1, of the precision there.

    Rows of one score come together. No line is drawn between the points of the curve, for precision
    does not change linearly (Davis and Goadrich, 2006). O(n log n).
    """
    of_row, negative, positive = rows.levels
    n, share = len(of_row), rows.share
    found = np.cumsum(positive[::-1])[::-1] / n  # of label 1, with this score or more
    picked = np.cumsum((positive + negative)[::-1])[::-1] / n
    precision = found / picked
    value = float(positive @ precision / positive.sum())
    # A row of this score or more stands in every count of the levels up to it.
    as_found = np.cumsum(positive / picked) / n
    as_picked = np.cumsum(positive * precision / picked) / n
    own = rows.label * (precision + as_found - value)[of_row] - as_picked[of_row]
    return _Estimate(value, own / share)


def _log_loss(rows: _Rows) -> _Estimate:
    """Return the mean loss in nats; probabilities are kept ``EDGE`` away from 0 and 1."""
    value = float(rows.log_loss.mean())
    return _Estimate(value, rows.log_loss - value)


def _normalized_entropy(rows: _Rows) -> _Estimate:
    """Return the log-loss over that of always telling the share of label 1; below 1 is better.

    **Source**: He et al., "Practical lessons from predicting clicks on ads" (2014), section 3.
    """
    share = rows.share
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    value = float(rows.log_loss.mean() / entropy)
    slope = np.log((1 - share) / share)  # of the entropy in the share
    moved = rows.log_loss - value * entropy - value * slope * (rows.label - share)
    return _Estimate(value, moved / entropy)


def _calibration(rows: _Rows) -> _Estimate:
    """Return the mean probability over the share of label 1; 1 is right, above it too much."""
    share = rows.share
    value = float(rows.score.mean() / share)
    return _Estimate(value, (rows.score - value * rows.label) / share)


def _rmse(rows: _Rows) -> _Estimate:
    """Return the root of the mean squared error."""
    square = (rows.score - rows.label) ** 2
    mean = square.mean()
    value = float(np.sqrt(mean))
    return _Estimate(value, (square - mean) / (2 * value) if value else square)


def _mae(rows: _Rows) -> _Estimate:
    """Return the mean absolute error."""
    far = np.abs(rows.score - rows.label)
    value = float(far.mean())
    return _Estimate(value, far - value)


LABEL_METRICS: dict[str, Callable[[_Rows], _Estimate]] = {
    "auc": _auc,
    "log_loss": _log_loss,
    "pr_auc": _pr_auc,
    "normalized_entropy": _normalized_entropy,
    "calibration": _calibration,
}
"""Figures by name. Of "log_loss" and "normalized_entropy" less is better; "calibration" is best
at 1."""
NUMBER_METRICS: dict[str, Callable[[_Rows], _Estimate]] = {"rmse": _rmse, "mae": _mae}
"""Figures of labels that are any numbers, in their unit; less is better."""
_RANKS = ("auc", "pr_auc")  # they see the order of the scores alone, and lie between 0 and 1


def label_quality(
    label: Any, score: Any, metrics: Sequence[str] = tuple(LABEL_METRICS), *, level: float = 0.95
) -> dict[str, Interval]:
    """Return each figure of (n,) scores of (n,) labels with its interval. O(n log n).

    The intervals hold the rows to be drawn independently, and are normal: of fewer than some ten
    rows of a label, or where every pair is in order, they are too narrow.

    Args:
        label: 0 or 1 each; any finite numbers of ``NUMBER_METRICS``.
        score: probabilities of label 1; of "auc", "pr_auc" and ``NUMBER_METRICS`` any finite
            numbers.
        metrics: names from ``LABEL_METRICS`` or ``NUMBER_METRICS``.
        level: how often such an interval holds the figure of all rows that there could be.

    Raises:
        DataError: no rows, lengths that differ, labels other than 0 and 1 or all alike, or scores
            that are not finite or no probabilities.
        SpecError: an unknown metric, or a level that is not between 0 and 1.

    >>> label_quality([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], ["auc"])["auc"].mean
    0.75
    """
    found = _estimates(label, score, metrics)
    return {name: _interval(name, *one, level) for name, one in found.items()}


def label_difference(
    label: Any,
    first: Any,
    second: Any,
    metrics: Sequence[str] = tuple(LABEL_METRICS),
    *,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return each figure of ``second`` less that of ``first``, on the same rows, with its interval.

    Arguments and errors as in ``label_quality``. What moves both figures alike cancels, so the
    interval is much narrower than those of the two suggest.
    """
    before, after = (_estimates(label, score, metrics) for score in (first, second))
    return {
        name: _interval(None, one.value - before[name].value,
                        one.influence - before[name].influence, level)
        for name, one in after.items()
    }  # fmt: skip


def _estimates(label: Any, score: Any, metrics: Sequence[str]) -> dict[str, _Estimate]:
    known = LABEL_METRICS | NUMBER_METRICS
    unknown = [name for name in metrics if name not in known]
    if unknown:
        raise SpecError(
            f"no figure of labels is called {unknown[0]!r}: expected one of {', '.join(known)}"
        )
    rows = _Rows(np.asarray(label, np.float64), np.asarray(score, np.float64))
    if rows.label.ndim != 1 or rows.label.shape != rows.score.shape or not len(rows.label):
        raise DataError(
            f"labels are {rows.label.shape} and scores {rows.score.shape}: expected one of each a "
            "row, and a row at least"
        )
    _check(rows, metrics)
    return {name: known[name](rows) for name in metrics}


def _check(rows: _Rows, metrics: Sequence[str]) -> None:
    """Refuse labels and scores that some of the figures cannot be taken of."""
    of_two = [name for name in metrics if name in LABEL_METRICS]
    wrong = (rows.label != 0) & (rows.label != 1) if of_two else ~np.isfinite(rows.label)
    if wrong.any():
        expected = f"0 or 1 for {of_two[0]}" if of_two else "a finite number"
        raise DataError(f"a label is {rows.label[wrong][0]:g}: expected {expected}")
    if rows.label.min() == rows.label.max() and set(of_two) - {"log_loss"}:
        raise DataError(
            f"all {len(rows.label):,} labels are {rows.label[0]:g}: expected both 0 and 1, for "
            f"{', '.join(name for name in of_two if name != 'log_loss')} tells one from the other"
        )
    wrong, expected = ~np.isfinite(rows.score), "a finite number"
    if not set(of_two) <= set(_RANKS):
        wrong, expected = wrong | (rows.score < 0) | (rows.score > 1), "a probability"
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(f"row {at + 1} has the score {rows.score[at]:g}: expected {expected}")


def _interval(name: str | None, value: float, influence: F64, level: float) -> Interval:
    """Return the figure with its interval; of a difference (``name`` None) it has no bounds."""
    if not 0 < level < 1:
        raise SpecError(f"level is {level}: expected a number between 0 and 1")
    far = NormalDist().inv_cdf((1 + level) / 2)
    reach = far * float(np.sqrt(influence @ influence)) / len(influence)
    low, high = value - reach, value + reach
    if name is not None:
        low, high = max(low, 0.0), min(high, 1.0) if name in _RANKS else high
    return Interval(value, low, high)
