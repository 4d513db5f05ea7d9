"""A bundle measured: its quality on a part, what answering costs, and the receipt of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from martlet.core import DataError, Dataset, Progress, Tabular
from martlet.core.queries import Seen
from martlet.measure import cost as costs
from martlet.measure.machine import machine, threads, versions
from martlet.measure.receipt import Receipt

if TYPE_CHECKING:
    from martlet.measure.quality import Quality
    from martlet.scorers.bundle import Bundle

METRICS = ("ndcg", "recall", "hit_rate", "mrr", "coverage", "novelty")


def measure(
    bundle: Bundle,
    dataset: Dataset | Tabular | None = None,
    *,
    part: str = "test",
    k: int = 10,
    metrics: Sequence[str] | None = None,
    value: str | None = None,
    seen: Seen = "hide",
    cost: bool = True,
    cold_runs: int = 3,
    train_s: float | None = None,
    quality: Quality | None = None,
    memory_mb: float = 256,
    progress: Progress | None = None,
) -> Receipt:
    """Return the receipt of a bundle.

    Args:
        bundle: what to measure.
        dataset: its part gives the quality; without one, only the cost is measured. A bundle that
            was fitted on labelled rows takes such, and ``k``, ``value``, ``seen`` and ``memory_mb``
            do not count.
        part: "valid" or "test".
        k: length of the lists that the cost is of; where ``quality`` has several, the longest.
        metrics: names from ``martlet.metrics.METRICS``, of labelled rows from ``LABEL_METRICS``;
            None takes the usual ones.
        value: numeric column of the catalogue, for ``value_recall``.
        seen: whether the history may be shown again.
        cost: measure latency, throughput, bytes.
        cold_runs: fresh processes for memory and cold start, about a second each; 0 for none.
        quality: what ``evaluate`` gave for the same part, where the caller measured it already.
        train_s: seconds of the fit, where the caller timed it.
        memory_mb: bound on what the evaluation holds.
        progress: told how far it is.

    Raises:
        DataError: the part cannot be measured on; see ``evaluate`` and ``evaluate_labels``. Or the
            bundle ranks items and the rows are labelled, or the other way round.
    """
    if isinstance(dataset, Dataset if bundle.predicts else Tabular):
        raise DataError(
            "the bundle was fitted on labelled rows, and the data are events"
            if bundle.predicts
            else "the bundle ranks items for users, and the data are labelled rows"
            ": measure it on a folder that was prepared as its own was"
        )
    if bundle.predicts:
        from martlet.measure.labels import measure_labels

        assert not isinstance(dataset, Dataset)
        return measure_labels(
            bundle, dataset, part=part, metrics=metrics, cost=cost, cold_runs=cold_runs,
            train_s=train_s, progress=progress,
        )  # fmt: skip
    assert not isinstance(dataset, Tabular)
    figures: Mapping[str, float] = {}
    num_users, data_hash = 0, None
    if dataset is not None and quality is None:
        from martlet.measure.quality import evaluate

        quality = evaluate(
            bundle,
            dataset,
            part=part,
            ks=(k,),
            metrics=metrics or METRICS,
            value=value,
            seen=seen,
            memory_mb=memory_mb,
            progress=progress,
        )
    if dataset is not None and quality is not None:
        figures, num_users = quality.figures, quality.num_users
        data_hash = dataset.part(part).hash
    found: dict[str, Any] = costs.cost(bundle, k=k, cold_runs=cold_runs) if cost else {}
    if train_s is not None:
        found["train_s"] = train_s
    first, *rest = bundle.lineage or ({"spec": type(bundle.scorer).__name__},)
    return Receipt(
        spec={name: first[name] for name in ("spec", "params") if name in first},
        transforms=tuple(rest),
        quality=figures,
        cost=found,
        num_users=num_users,
        part=part if dataset is not None else None,
        k=k,
        bundle_id=bundle.id,
        data_hash=data_hash,
        seed=first.get("seed"),
        machine=machine(),
        threads=threads(),
        versions=versions(),
    )
