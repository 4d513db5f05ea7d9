"""The gate: whether a compressed bundle may stand in for the one it was made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import DataError, Dataset, Progress, Tabular
from martlet.measure.labels import label_metrics, predictions
from martlet.measure.measure import METRICS, measure
from martlet.measure.quality import evaluate
from martlet.measure.receipt import Receipt
from martlet.measure.verdict import RISING, Gate, Verdict, check_limits
from martlet.metrics import Interval, bootstrap, label_difference, paired_bootstrap

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """A bundle's receipt, and what it is compared to others by.

    Attributes:
        receipt: of quality and cost.
        users: metric to (users,) values, the users of the part in its order; of labelled rows
            ``predicted`` to (rows,) chances of label 1.
        label: (rows,) labels; None where items are ranked.
    """

    receipt: Receipt
    users: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    label: NDArray[Any] | None = None


def gate(
    before: Bundle,
    after: Bundle,
    data: Dataset | Tabular,
    max_loss: Mapping[str, float],
    *,
    part: str = "valid",
    cost: bool = True,
    cold_runs: int = 1,
    compress_s: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Gate:
    """Measure a bundle before and after on the same users, and judge what was lost.

    The loss of a metric is a share of its figure before. Its 95% interval is that of the paired
    difference, user by user; it decides: passes where its upper bound keeps the limit, fails where
    its lower bound breaks it, unresolved between.

    Args:
        before: the bundle as it was.
        after: what it was compressed to.
        data: whose ``part`` both are asked for.
        max_loss: metric to the share that may be lost: ``{"ndcg@10": 0.01}``; for labelled rows
            such as ``{"log_loss": 0.001}``.
        part: "valid"; what was chosen on it is then measured on "test", once.
        cost: measure latency, throughput, memory and bytes of both, one after the other.
        cold_runs: fresh processes for the memory, about a second each; it hardly varies.
        compress_s: seconds that compressing took, for the receipt.
        seed: of the bootstrap.
        progress: told how far it is.

    Raises:
        SpecError: no limit, an unknown metric or one without a better end, a limit that is none.
        DataError: the part cannot be measured on, or a figure was 0 before.
    """
    check_limits(max_loss, labelled=before.predicts)
    first, second = (
        measured(
            bundle, data, tuple(max_loss), part=part, cost=cost, cold_runs=cold_runs,
            progress=progress,
        )
        for bundle in (before, after)
    )  # fmt: skip
    return judge(first, second, max_loss, compress_s=compress_s, seed=seed)


def measured(
    bundle: Bundle,
    data: Dataset | Tabular,
    metrics: Sequence[str],
    *,
    part: str = "valid",
    cost: bool = True,
    cold_runs: int = 1,
    train_s: float | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Return the receipt of a bundle and its values for ``judge``.

    Raises:
        DataError: the part cannot be measured on.
    """
    told: dict[str, Any] = {"part": part, "cost": cost, "cold_runs": cold_runs, "train_s": train_s}
    if isinstance(data, Tabular) or bundle.predicts:
        asked = (*label_metrics(bundle, metrics), *label_metrics(bundle))
        told["metrics"] = tuple(dict.fromkeys(asked))
        receipt = measure(bundle, data, progress=progress, **told)  # refuses one without the other
        assert isinstance(data, Tabular)
        rows = data.part(part)
        return Measured(receipt, {"predicted": predictions(bundle, rows)}, rows.label)
    named = [name.partition("@") for name in metrics]
    ks = sorted({int(k) for _, _, k in named if k}) or [10]
    listed = tuple(dict.fromkeys([*(name for name, _, _ in named), *METRICS]))
    quality = evaluate(
        bundle, data, part=part, ks=ks, metrics=listed, per_user=True, progress=progress
    )
    receipt = measure(bundle, data, k=max(ks), quality=quality, **told)
    users = {name: quality.users[name] for name in metrics}
    return Measured(_with_intervals(receipt, users), users)


def judge(
    before: Measured,
    after: Measured,
    max_loss: Mapping[str, float],
    *,
    compress_s: float | None = None,
    seed: int = 0,
) -> Gate:
    """Return the verdicts of two measurements of the same part.

    Args:
        before: of the bundle as it was.
        after: of the compressed one.
        max_loss: as ``gate`` takes it.
        compress_s: seconds, for the receipt.
        seed: of the bootstrap.

    Raises:
        DataError: a figure was 0 before.
    """
    verdicts = []
    for name, limit in max_loss.items():
        loss = loss_of(name, before, after, seed)
        old, new = (float(one.receipt.quality[name] or 0.0) for one in (before, after))
        num = len(next(iter(after.users.values())))
        unit = "users" if after.label is None else "rows"
        verdicts.append(Verdict(name, limit, old, new, loss, num, unit))
    quality = dict(after.receipt.quality)
    for verdict in verdicts:
        lost = f"{verdict.metric}_loss"
        quality |= {lost: verdict.loss.mean}
        quality |= {f"{lost}_low": verdict.loss.low, f"{lost}_high": verdict.loss.high}
    cost = dict(after.receipt.cost)
    if compress_s is not None:
        cost["compress_s"] = compress_s
    receipt = replace(after.receipt, quality=quality, cost=cost)
    return Gate(tuple(verdicts), before.receipt, receipt)


def loss_of(metric: str, before: Measured, after: Measured, seed: int = 0) -> Interval:
    """Return the share of a figure that was lost, with its 95% paired interval.

    Of users it is a ratio of two means, of the difference and of the figure before, which is
    bootstrapped to first order: each user's value is how much it moves the ratio. At the limit that
    is exact: the ratio exceeds it where the mean of (1 - limit) before - after exceeds 0. Of rows
    the figure before counts as known: its own error, a share of the loss, is of second order.

    Raises:
        DataError: the figure was 0 before.
    """
    if before.label is not None:
        old = before.receipt.quality[metric] or 0.0
        _refuse_nothing(metric, old)
        scores = before.users["predicted"], after.users["predicted"]
        found = label_difference(before.label, *scores, [metric])[metric]
        mean, low, high = (float(end) / old for end in found)
        return Interval(-mean, -high, -low) if RISING[metric] else Interval(mean, low, high)
    first, second = before.users[metric], after.users[metric]
    old = float(first.mean())
    _refuse_nothing(metric, old)
    ratio = 1 - float(second.mean()) / old
    return paired_bootstrap(second / old, (1 - ratio) * first / old + ratio, seed=seed)


def _with_intervals(receipt: Receipt, users: Mapping[str, F64]) -> Receipt:
    quality = dict(receipt.quality)
    for name, values in users.items():
        found = bootstrap(values)
        quality |= {f"{name}_low": found.low, f"{name}_high": found.high}
    return replace(receipt, quality=quality)


def _refuse_nothing(metric: str, value: float) -> None:
    if not value:
        raise DataError(f"{metric} was 0 before: nothing can be lost of it; measure another metric")
