"""A bundle that predicts labels measured: its figures with intervals, and what a row costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import DataError, Examples, Progress, SpecError, Tabular
from martlet.measure import fresh
from martlet.measure.machine import machine, threads, versions
from martlet.measure.quality import refuse_seen_in_training
from martlet.measure.receipt import Receipt
from martlet.metrics import (
    LABEL_METRICS,
    NUMBER_METRICS,
    Interval,
    label_difference,
    label_quality,
)
from martlet.scorers.registry import tells_numbers

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle

NUM_QUERIES = 1000
BATCH = 1 << 14  # rows of columns, not of vectors: a scorer cuts them as it needs
_WARM_UP = 20


@dataclass(frozen=True, eq=False)
class LabelQuality:
    """What was measured.

    Attributes:
        figures: name to value and 95% interval.
        num_rows: rows measured.
        num_positive: those of them with label 1; None where labels are numbers.
    """

    figures: Mapping[str, Interval]
    num_rows: int
    num_positive: int | None

    def plain(self) -> dict[str, float]:
        """Return the figures with ``_low`` and ``_high`` of each, and the counts, for a receipt."""
        found: dict[str, float] = {}
        for name, one in self.figures.items():
            found |= {name: one.mean, f"{name}_low": one.low, f"{name}_high": one.high}
        found["num_rows"] = self.num_rows
        return found if self.num_positive is None else found | {"num_positive": self.num_positive}


def label_metrics(bundle: Bundle, asked: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the figures to take of what a bundle predicts: those asked for, or all.

    Raises:
        SpecError: a figure of probabilities is asked of a bundle that tells numbers.
    """
    if not tells_numbers(bundle.scorer):
        return tuple(asked or LABEL_METRICS)
    wrong = [name for name in asked or () if name in LABEL_METRICS]
    if wrong:
        raise SpecError(
            f"{wrong[0]} is a figure of probabilities, and this model predicts numbers: expected "
            f"{', '.join(NUMBER_METRICS)}"
        )
    return tuple(asked or NUMBER_METRICS)


def predictions(
    bundle: Bundle, rows: Examples, *, batch: int = BATCH, progress: Progress | None = None
) -> NDArray[np.float32]:
    """Return (N,) float32 chances of label 1 of each row, ``batch`` rows at a time.

    Raises:
        DataError: the rows lack a column that the model was fitted on.
        QueryError: the bundle ranks items.
    """
    missing = [name for name in bundle.columns if name not in rows.columns]
    if missing:
        raise DataError(
            f"the rows have no column {missing[0]!r}, which the model was fitted on: expected "
            f"{', '.join(bundle.columns)}"
        )
    found = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), batch):
        part = rows.slice(start, min(start + batch, len(rows)))
        found[start : start + batch] = bundle.predict(part.columns)
        if progress is not None:
            progress("predict", start + len(part), len(rows))
    return found


def evaluate_labels(
    bundle: Bundle,
    data: Tabular,
    *,
    part: str = "test",
    metrics: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> LabelQuality:
    """Measure what a bundle predicts for the rows of a part. Weights of rows do not count.

    Args:
        bundle: fitted on labelled rows.
        data: the parts.
        part: "valid" or "test".
        metrics: names from ``LABEL_METRICS`` or ``NUMBER_METRICS``; None takes all of the one
            kind: of probabilities, or of numbers where the bundle was fitted to tell such.
        progress: told how far it is.

    Raises:
        DataError: the part is empty, was trained on, lacks a column, or its labels are not 0 and 1
            where probabilities are told.
        QueryError: the bundle ranks items.
        SpecError: an unknown metric, or one of probabilities where numbers are told.
    """
    rows, names = _measurable(bundle, data, part), label_metrics(bundle, metrics)
    told = predictions(bundle, rows, progress=progress)
    figures = label_quality(rows.label, told, names)
    of_two = any(name in LABEL_METRICS for name in names)
    return LabelQuality(figures, len(rows), int((rows.label > 0).sum()) if of_two else None)


def compare_labels(
    first: Bundle,
    second: Bundle,
    data: Tabular,
    *,
    part: str = "test",
    metrics: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Interval]:
    """Return each figure of ``second`` less that of ``first`` on the same rows, with its interval.

    Arguments and errors as in ``evaluate_labels``.
    """
    names = {label_metrics(bundle, metrics) for bundle in (first, second)}
    if len(names) > 1:
        raise SpecError("one model predicts probabilities and the other numbers: compare like ones")
    before, after = (
        predictions(bundle, _measurable(bundle, data, part), progress=progress)
        for bundle in (first, second)
    )
    return label_difference(data.part(part).label, before, after, names.pop())


def measure_labels(
    bundle: Bundle,
    data: Tabular | None = None,
    *,
    part: str = "test",
    metrics: Sequence[str] | None = None,
    cost: bool = True,
    cold_runs: int = 3,
    train_s: float | None = None,
    quality: LabelQuality | None = None,
    progress: Progress | None = None,
) -> Receipt:
    """Return the receipt of a bundle that predicts labels; arguments as in ``measure``.

    Raises:
        DataError: the part cannot be measured on; see ``evaluate_labels``.
        QueryError: the bundle ranks items.
    """
    if data is not None and quality is None:
        quality = evaluate_labels(bundle, data, part=part, metrics=metrics, progress=progress)
    found = label_cost(bundle, None if data is None else data.part(part), cold_runs) if cost else {}
    if train_s is not None:
        found["train_s"] = train_s
    first, *rest = bundle.lineage or ({"spec": type(bundle.scorer).__name__},)
    return Receipt(
        spec={name: first[name] for name in ("spec", "params") if name in first},
        transforms=tuple(rest),
        quality={} if quality is None else quality.plain(),
        cost=found,
        num_users=0,
        part=part if data is not None else None,
        k=0,
        bundle_id=bundle.id,
        data_hash=None if data is None else data.part(part).hash,
        seed=first.get("seed"),
        machine=machine(),
        threads=threads(),
        versions=versions(),
    )


def label_cost(
    bundle: Bundle, rows: Examples | None = None, cold_runs: int = 3
) -> dict[str, float]:
    """Return every cost of predicting by name, the unit at the end of the name, as ``cost`` does.

    A query is a row: latency is that of rows one by one, throughput that of a batch of 16,384.
    Without rows, those of which nothing is known stand in.
    """
    size = min(BATCH, 0 if rows is None else len(rows))
    many = {name: [None] * BATCH for name in bundle.columns} if not size else None
    block = many if rows is None or many is not None else rows.slice(0, size).columns
    assert block is not None
    taken = []
    for i in range(NUM_QUERIES + _WARM_UP):
        at = i % (size or BATCH)
        one = {name: _one(column, at) for name, column in block.items()}
        begin = time.perf_counter()
        bundle.predict(one)
        taken.append(time.perf_counter() - begin)
    p50, p95, p99 = np.percentile(np.array(taken[_WARM_UP:]) * 1e3, [50, 95, 99]).tolist()
    found = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "num_queries": float(NUM_QUERIES)}
    found["throughput_qps"] = _throughput(bundle, block, size or BATCH)
    found["bundle_mb"] = bundle.bundle_bytes / 1e6
    found["scoring_mb"] = bundle.scoring_bytes / 1e6
    if cold_runs:
        with tempfile.TemporaryDirectory(prefix="martlet-") as parent:
            folder = Path(parent) / "bundle"
            bundle.save(folder)
            runs = [fresh.start(folder) for _ in range(cold_runs)]
        for name in ("cold_start_s", "peak_mb", "rss_mb"):
            found[name] = float(np.median([run[name] for run in runs]))
    return found


def _throughput(bundle: Bundle, block: Mapping[str, Any], size: int) -> float:
    """Return rows a second: the median batch of half a second, three at least."""
    taken: list[float] = []
    begin = time.perf_counter()
    while len(taken) < 4 or time.perf_counter() - begin < 0.5:
        start = time.perf_counter()
        bundle.predict(block)
        taken.append(time.perf_counter() - start)
    return size / float(np.median(taken[1:]))


def _one(column: Any, row: int) -> list[Any]:
    value = column[row]
    return [value.item() if isinstance(value, np.generic) else value]


def _measurable(bundle: Bundle, data: Tabular, part: str) -> Examples:
    """Return the rows of a part.

    Raises:
        DataError: there are none, or the bundle was trained on them.
    """
    rows = data.part(part)
    if not len(rows):
        raise DataError(f"part {part!r} holds no row: split differently, or measure another part")
    refuse_seen_in_training(bundle, rows, part)
    return rows
