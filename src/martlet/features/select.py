"""Which columns are worth their cost: by what they tell of the label, or by what a model loses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, DataError, SpecError, Text, check_counts, rng
from martlet.features.bucket import even_edges
from martlet.features.fitted import Spec
from martlet.features.source import Given, Source

_Z = 1.959963984540054  # of a 95% interval
Metric = Callable[[NDArray[np.float32], NDArray[Any]], float]
Predict = Callable[[Mapping[str, Given]], NDArray[Any]]


class Importance(NamedTuple):
    """A mean over repeats with its 95% interval."""

    mean: float
    low: float
    high: float


def mutual_information(
    columns: Mapping[str, Given],
    label: NDArray[Any],
    *,
    bins: int = 64,
    shuffles: int = 8,
    seed: int = 0,
) -> dict[str, float]:
    """Return what each column alone tells of the label, in nats, the most telling first.

    The plug-in estimate over bins, less the mean of what it gives for shuffled labels: this is its
    bias, large where bins are many, so a column of noise is near 0 (and may fall below). Numbers of
    more distinct values are cut at quantiles, categories keep the most frequent; missing is a bin
    of its own. Call it on the training part only. O(columns (n log n + shuffles n)).

    **Source**: Cover and Thomas, "Elements of Information Theory" (2006), equation 2.28.
    **Differs**: the bias is measured by shuffling, not by the first-order term of Miller.

    Args:
        columns: text or numbers, a value a row.
        label: (n,) numbers; more than ``bins`` distinct ones are cut at quantiles.
        bins: of a column, and of the label, beside the missing one.
        shuffles: whose mean is taken off.
        seed: of the shuffles.

    Raises:
        SpecError: a count that is no whole number above 0.
        DataError: a column of another length, or that has several values a row.
    """
    check_counts(SimpleNamespace(bins=bins, shuffles=shuffles), "bins", "shuffles")
    target = _bins_of_numbers(np.asarray(label, np.float64), bins)
    random = rng(seed, "mutual information")
    dealt = [random.permutation(target) for _ in range(shuffles)]
    told = {}
    for name, given in columns.items():
        source = Source({name: given})
        if source.num_rows != len(target):
            raise DataError(
                f"column {name!r} has {source.num_rows} values for {len(target)} labels"
            )
        column = _binned(name, source, bins)
        by_chance = np.mean([_information(column, labels) for labels in dealt])
        told[name] = float(_information(column, target) - by_chance)
    return dict(sorted(told.items(), key=lambda one: -one[1]))


def permutation(
    predict: Predict,
    columns: Mapping[str, Given],
    label: NDArray[Any],
    metric: Metric,
    *,
    better: Literal["larger", "smaller"] = "larger",
    names: Iterable[str] | None = None,
    repeats: int = 5,
    seed: int = 0,
) -> dict[str, Importance]:
    """Return how much worse a model's metric is with one column shuffled, the worst first.

    Call it on the validation part. Two columns that tell the same share what they are worth: each
    looks dispensable, both together may not be. O(names repeats) predictions.

    **Source**: Breiman, "Random Forests", Machine Learning 45 (2001), section 10; intervals by
    Student's t over the repeats.

    Args:
        predict: columns to (n,) or any other predictions that ``metric`` takes.
        columns: as ``predict`` takes them.
        label: (n,) what ``metric`` compares with.
        metric: (label, prediction) to a number.
        better: which metric is the better one.
        names: the columns to look at; None looks at all.
        repeats: shuffles of each, 2 or more.
        seed: of the shuffles.

    Raises:
        SpecError: an unknown name or direction, or fewer than 2 repeats.
    """
    if better not in ("larger", "smaller"):
        raise SpecError(f"better is {better!r}: expected 'larger' or 'smaller'")
    check_counts(SimpleNamespace(repeats=repeats), "repeats")
    if repeats < 2:
        raise SpecError("repeats is 1: an interval needs 2 or more")
    chosen = list(columns if names is None else names)
    unknown = [name for name in chosen if name not in columns]
    if unknown:
        raise SpecError(f"there is no column {unknown[0]!r}: expected some of {', '.join(columns)}")
    sign = 1.0 if better == "larger" else -1.0
    whole = metric(label, predict(columns))
    found = {}
    for name in chosen:
        losses = []
        for repeat in range(repeats):
            order = rng(seed, "permutation", name, repeat).permutation(len(label))
            shuffled = {**columns, name: _take(name, columns[name], order)}
            losses.append(sign * (whole - metric(label, predict(shuffled))))
        found[name] = _importance(np.array(losses, np.float64))
    return dict(sorted(found.items(), key=lambda one: -one[1].mean))


def select(
    plan: Iterable[Spec],
    worth: Mapping[str, float | Importance],
    *,
    best: int | None = None,
    above: float | None = None,
) -> tuple[Spec, ...]:
    """Return the specs of a plan whose columns are all worth keeping, in the plan's order.

    Args:
        plan: column specs.
        worth: of each column, from ``mutual_information`` or ``permutation``.
        best: how many columns to keep; None keeps as many as pass.
        above: the least worth to keep; of an interval it is the lower end that must lie above.

    Raises:
        SpecError: neither ``best`` nor ``above``, a column without a worth, or nothing left.

    >>> from martlet.features import Category, Cross
    >>> plan = [Category("tail"), Category("ring"), Cross(("tail", "ring"))]
    >>> [spec.field for spec in select(plan, {"tail": 0.4, "ring": 0.001}, above=0.01)]
    ['tail']
    """
    plan = tuple(plan)
    if best is None and above is None:
        raise SpecError("nothing to select by: give best, above or both")
    if best is not None:
        check_counts(SimpleNamespace(best=best), "best")
    for spec in plan:
        for name in spec.uses:
            if name not in worth:
                raise SpecError(f"column {name!r} has no worth: measure it first")
    kept = list(worth)
    if above is not None:
        kept = [name for name in kept if _lower(worth[name]) > above]
    kept.sort(key=lambda name: -_mean(worth[name]))
    kept = kept[:best]
    chosen = tuple(spec for spec in plan if set(spec.uses) <= set(kept))
    if not chosen:
        raise SpecError("no column passes: lower the bound or keep more")
    return chosen


def _mean(worth: float | Importance) -> float:
    return worth.mean if isinstance(worth, Importance) else float(worth)


def _lower(worth: float | Importance) -> float:
    return worth.low if isinstance(worth, Importance) else float(worth)


def _importance(losses: NDArray[np.float64]) -> Importance:
    mean, free = float(losses.mean()), len(losses) - 1
    # Student's t from the normal quantile (Abramowitz and Stegun, 26.7.5); within 1% from 3 on.
    z = _Z
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    half = t * float(losses.std(ddof=1)) / np.sqrt(len(losses))
    return Importance(mean, mean - half, mean + half)


def _binned(name: str, source: Source, bins: int) -> NDArray[np.int64]:
    column = source.column(name)
    text = isinstance(column, Text)
    keys = source.keys(name, text)
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    if len(counts) <= bins:
        return inverse
    if not text:
        return _bins_of_numbers(source.numbers(name), bins)
    order = np.argsort(-counts, kind="stable")
    place = np.empty(len(counts), np.int64)
    place[order] = np.minimum(np.arange(len(counts)), bins - 1)  # the last bin holds the rest
    return place[inverse]


def _bins_of_numbers(values: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Return a bin a value, between quantiles; 0 where missing."""
    edges = even_edges(values[~np.isnan(values)], bins)
    return np.where(np.isnan(values), 0, np.searchsorted(edges, values, side="right") + 1)


def _information(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Return the plug-in mutual information of two columns of bins, in nats."""
    if not len(first):
        return 0.0
    width = int(second.max()) + 1
    table = np.bincount(first * width + second, minlength=(int(first.max()) + 1) * width)
    share = table.reshape(-1, width) / len(first)
    alone = share.sum(1, keepdims=True) * share.sum(0)
    some = share > 0
    return float((share[some] * np.log(share[some] / alone[some])).sum())


def _take(name: str, given: Given, order: NDArray[np.int64]) -> Given:
    if isinstance(given, (Text, CSR)):
        return given.take(order)
    if isinstance(given, np.ndarray):
        return given[order]
    return [given[row] for row in order.tolist()]
