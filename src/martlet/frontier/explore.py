"""Fit, compress and measure a set of candidates; choose within a budget; measure once more."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.compress.compress import compress
from martlet.core import Dataset, Progress, SpecError
from martlet.frontier.budget import Budget
from martlet.frontier.frontier import Choice, Frontier
from martlet.measure import ledger
from martlet.measure.measure import METRICS, measure
from martlet.measure.quality import evaluate
from martlet.measure.receipt import Receipt
from martlet.metrics import Interval, bootstrap, paired_bootstrap
from martlet.models.fit import fit
from martlet.models.registry import spec

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle

MODELS = ("popularity", "item-knn", "ease", "gfcf", "ials")
VARIANTS: tuple[tuple[str, ...], ...] = ((), ("quantize:fp16",), ("quantize:int8",), ("index:ivf",))
MAX_LOSS = 0.01


@dataclass(frozen=True, eq=False)
class Exploration:
    """What an exploration found.

    Attributes:
        receipts: of every candidate, on the validation part.
        choice: within the budget.
        bundle: the chosen one, fitted again with the validation part.
        final: its receipt on the test part.
        intervals: receipt name to the 95% bootstrap interval of its quality.
        skipped: candidates that do not apply, each with the reason.
    """

    receipts: Sequence[Receipt]
    choice: Choice
    bundle: Bundle
    final: Receipt
    intervals: dict[str, Interval] = field(default_factory=dict)
    skipped: Sequence[str] = ()


def explore(
    dataset: Dataset,
    models: Sequence[Any] = MODELS,
    variants: Sequence[Sequence[str]] = VARIANTS,
    *,
    budget: Budget | None = None,
    quality: str = "ndcg",
    k: int = 10,
    seed: int = 0,
    cold_runs: int = 1,
    ledger_path: str | Path | None = None,
    progress: Progress | None = None,
) -> Exploration:
    """Return the frontier of models and compressions, and the choice a budget leads to.

    Everything is measured on the validation part; the chosen one is then fitted on train and
    validation and measured once on test. Among those whose loss against the best is under 1% by
    the bound of a 95% paired interval, the one that scans the fewest bytes is chosen.

    Args:
        dataset: with a validation and a test part.
        models: names of the registry, or specs.
        variants: transforms of each candidate; one that does not apply is left out, and told.
        budget: limits on what is measured.
        quality: metric to maximize.
        k: length of the lists.
        seed: drives everything that is random.
        cold_runs: fresh processes a candidate, for its memory and cold start.
        ledger_path: receipts are appended there.
        progress: told how far it is.

    Raises:
        DataError: nothing can be measured on a part.
        SpecError: the budget limits what is not measured.
    """
    receipts: list[Receipt] = []
    users: dict[str, NDArray[np.float64]] = {}
    recipes: dict[str, tuple[Any, Sequence[str]]] = {}
    skipped: list[str] = []
    listed = tuple(dict.fromkeys((quality, *METRICS)))
    total, done = len(models) * len(variants) + 1, 0
    for model in models:
        chosen = spec(model) if isinstance(model, str) else model
        start = time.perf_counter()
        fitted = fit(chosen, dataset, seed=seed)
        train_s = time.perf_counter() - start
        for variant in variants:
            if progress is not None:
                progress(f"try {model} {' '.join(variant)}".strip(), done, total)
            done += 1
            try:
                bundle = compress(fitted, variant, dataset, seed=seed)
            except SpecError as reason:
                skipped.append(f"{model} + {' + '.join(variant)}: {reason}")
                continue
            one = evaluate(bundle, dataset, part="valid", ks=(k,), metrics=listed, per_user=True)
            receipt = measure(
                bundle,
                dataset,
                part="valid",
                k=k,
                cold_runs=cold_runs,
                train_s=train_s,
                quality=one,
            )
            receipts.append(receipt)
            users[receipt.name] = one.users[f"{quality}@{k}"]
            recipes[receipt.name] = (chosen, variant)
            if ledger_path is not None:
                ledger.append(ledger_path, receipt)
    choice = _cheapest_of_the_best(receipts, users, budget or Budget(), f"{quality}@{k}")
    if progress is not None:
        progress("fit the choice again", done, total)
    chosen, variant = recipes[choice.receipt.name]
    whole = dataset.with_valid_in_train()
    start = time.perf_counter()
    bundle = fit(chosen, whole, seed=seed)
    train_s = time.perf_counter() - start
    bundle = compress(bundle, variant, whole, seed=seed)
    final = measure(bundle, whole, part="test", k=k, cold_runs=cold_runs, train_s=train_s)
    if ledger_path is not None:
        ledger.append(ledger_path, final)
    if progress is not None:
        progress("explored", total, total)
    intervals = {name: bootstrap(values, seed=seed) for name, values in users.items()}
    return Exploration(receipts, choice, bundle, final, intervals, skipped)


def _cheapest_of_the_best(
    receipts: Sequence[Receipt],
    users: dict[str, NDArray[np.float64]],
    budget: Budget,
    quality: str,
) -> Choice:
    """Return the choice: as good as the best within the budget, for the fewest bytes scanned."""
    best = Frontier(receipts, quality).choose(budget)
    if not best.fits:
        return best
    top = users[best.receipt.name]
    allowed = MAX_LOSS * float(top.mean())
    alike = []
    for receipt in receipts:
        loss = paired_bootstrap(users[receipt.name], top)
        if not budget.broken(receipt) and loss.high <= allowed:
            alike.append((receipt.cost["scoring_mb"], receipt.cost["p50_ms"], receipt, loss))
    if not alike:
        return best
    _, _, cheapest, loss = min(alike, key=lambda one: (one[0], one[1], one[2].name))
    if cheapest is best.receipt:
        return best
    why = (
        f"{cheapest.name} scans {cheapest.cost['scoring_mb']:.3g} MB an answer, against "
        f"{best.receipt.cost['scoring_mb']:.3g} MB of the best, {best.receipt.name}, and loses at "
        f"most {max(loss.high, 0) / top.mean():.2%} of its {quality} ({top.mean():.4f}) by the 95% "
        "paired interval"
    )
    return Choice(cheapest, True, why)
