"""What a dataset looks like, and what in it would hurt."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import Dataset, Interactions
from martlet.data.prepare import prepare
from martlet.data.reading import Log, read
from martlet.data.splits import LastOut, leakage
from martlet.metrics.quality import gini

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
_BARS = "▁▂▃▄▅▆▇█"
_BOT_TIMES_MEDIAN, _BOT_EVENTS = 50, 1000
_CURVE_POINTS = 40


@dataclass(frozen=True)
class Description:
    """Counts, curves and warnings of a dataset; plain JSON.

    Attributes:
        counts: users, items, and the events of each part.
        density: distinct pairs over users times items, of the training part.
        history_length: quantile to events a user of the training part.
        popularity: quantile to events an item of the training part.
        history_curve: events of users, most active first, at even steps.
        popularity_curve: events of items, most popular first, at even steps.
        gini: inequality of popularity.
        time_range: first and last moment, ISO 8601, or None.
        warnings: what would hurt, with its number and the advice.
    """

    counts: dict[str, int]
    density: float
    history_length: dict[str, float]
    popularity: dict[str, float]
    history_curve: list[int]
    popularity_curve: list[int]
    gini: float
    time_range: list[str] | None
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        def line(values: dict[str, float]) -> str:
            return ", ".join(f"{name} {value:,.0f}" for name, value in values.items())

        rows = [
            ", ".join(f"{name} {value:,}" for name, value in self.counts.items()),
            f"density {self.density:.4%}, sparsity {1 - self.density:.4%}, "
            f"popularity gini {self.gini:.3f}",
            f"events a user: {line(self.history_length)}  {_spark(self.history_curve)}",
            f"events an item: {line(self.popularity)}  {_spark(self.popularity_curve)}",
        ]
        if self.time_range:
            rows.append(f"from {self.time_range[0]} to {self.time_range[1]}")
        rows += [f"warning: {warning}" for warning in self.warnings] or ["nothing to warn of"]
        return "\n".join(rows)


def describe_log(log: Log | Any, *, now_s: float | None = None) -> Description:
    """Return the description of a log as it is: neither cleaned nor split; its train part is all.

    Raises:
        DataError: it cannot be read, or has no good row.
    """
    log = log if isinstance(log, Log) else read(log)
    # Nobody has so many events, so all of them are left in train.
    dataset = prepare(log, clean=(), split=LastOut(valid=0, test=2**31))
    found = describe(dataset, now_s=now_s)
    bad = [rule for rule in dataset.about["cleaning"] if rule["rows_out"] < rule["rows_in"]]
    told = [f"{rule['rows_in'] - rule['rows_out']:,} of {rule['rows_in']:,} rows have: "
            f"{rule['rule']}; such as {rule['examples'][0]}" for rule in bad]  # fmt: skip
    kept = [warning for warning in found.warnings if not warning.startswith("part ")]
    return replace(found, warnings=told + kept)


def describe(dataset: Dataset, *, now_s: float | None = None) -> Description:
    """Return the description of a dataset; O(events log events)."""
    train = dataset.train
    lengths, popularity = train.histories.lengths, train.item_count
    parts = {"train": train, "valid": dataset.valid, "test": dataset.test}
    times = [part.time_s for part in parts.values() if part.time_s is not None and len(part)]
    time_range = None
    if times:
        ends = min(t.min() for t in times), max(t.max() for t in times)
        # Not Python's datetime, which ends at the year 9999: a wrong unit is to be seen.
        time_range = [f"{np.datetime64(int(end), 's')}+00:00" for end in ends]
    cells = max(int((lengths > 0).sum()) * int((popularity > 0).sum()), 1)
    counts = {"users": dataset.num_users, "items": dataset.num_items}
    return Description(
        counts | {name: len(part) for name, part in parts.items()},
        train.matrix.nnz / cells,
        _quantiles(lengths),
        _quantiles(popularity),
        _curve(lengths),
        _curve(popularity),
        gini(popularity),
        time_range,
        _warnings(dataset, parts, time.time() if now_s is None else now_s),
    )


def _warnings(dataset: Dataset, parts: dict[str, Interactions], now_s: float) -> list[str]:
    train = parts["train"]
    lengths = train.histories.lengths
    active = lengths[lengths > 0]
    found = []

    def warn(number: int, of: int, words: str) -> None:
        if number:
            found.append(f"{number:,} of {of:,} {words}")

    repeats = len(train) - train.matrix.nnz
    warn(repeats, len(train), "training events repeat a pair: merge them with --duplicates last")
    warn(
        int((train.matrix.lengths == 1).sum()), len(active),
        "users met one item in training: little to learn from; --min-user 2 drops those of one "
        "event",
    )  # fmt: skip
    if len(active):
        limit = max(_BOT_EVENTS, _BOT_TIMES_MEDIAN * float(np.median(active)))
        heavy = int((active > limit).sum())
        warn(
            heavy, len(active), f"users have over {limit:,.0f} events: bots? --max-user drops them"
        )
    for name in ("valid", "test"):
        part = parts[name]
        if not len(part):
            found.append(f"part {name} is empty: nothing can be measured on it")
            continue
        cold_users = int((lengths[part.user_row] == 0).sum())
        cold_items = int((train.item_count[part.item_row] == 0).sum())
        warn(cold_users, len(part), f"{name} events are of users that train does not know")
        warn(cold_items, len(part), f"{name} events are of items that train does not know")
    for words, number in leakage(train, parts["valid"], parts["test"]).items():
        if words.startswith("pairs") and number:
            found.append(f"{number:,} {words}: the split leaks, or people repeat (seen='keep')")
        elif number is False:
            found.append(f"not so: {words}; a model may learn from the future (--split time)")
    for name, part in parts.items():
        if part.time_s is not None and len(part):
            future = int((part.time_s > now_s).sum())
            warn(future, len(part), f"{name} events lie in the future: check --time-unit")
    return found


def _quantiles(counts: NDArray[np.integer]) -> dict[str, float]:
    some = counts[counts > 0]
    if not len(some):
        return {}
    values = np.quantile(some, QUANTILES)
    return {f"q{q:g}": float(value) for q, value in zip(QUANTILES, values, strict=True)}


def _curve(counts: NDArray[np.integer]) -> list[int]:
    falling = np.sort(counts[counts > 0])[::-1]
    if not len(falling):
        return []
    at = np.linspace(0, len(falling) - 1, min(_CURVE_POINTS, len(falling))).astype(int)
    return [int(value) for value in falling[at]]


def _spark(values: Sequence[int]) -> str:
    if not values:
        return ""
    height = np.log1p(values) / max(float(np.log1p(max(values))), 1e-9) * (len(_BARS) - 1)
    return "".join(_BARS[int(h)] for h in height)
