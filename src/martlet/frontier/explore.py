"""Fit, compress and measure a set of candidates; choose within a budget; measure once more."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.compress.compress import compress
from martlet.compress.registry import parse
from martlet.core import DataError, Dataset, MartletError, Progress, SpecError
from martlet.frontier.budget import Budget
from martlet.frontier.frontier import Choice, Frontier, corrected
from martlet.measure import ledger
from martlet.measure.measure import METRICS, measure
from martlet.measure.quality import evaluate
from martlet.measure.receipt import Receipt
from martlet.metrics import Interval, bootstrap, paired_bootstrap
from martlet.models.fit import fit
from martlet.models.registry import name_of, spec

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle

MODELS = ("popularity", "item-knn", "ease", "gfcf", "ials")
VARIANTS: tuple[tuple[str, ...], ...] = ((), ("quantize:fp16",), ("quantize:int8",), ("index:ivf",))
MAX_LOSS = 0.01
"""Share of the best quality that a cheaper candidate may lose, by the bound of the interval."""


@dataclass(frozen=True, eq=False)
class Exploration:
    """What an exploration found.

    Attributes:
        receipts: of every candidate, on the validation part.
        choice: within the budget.
        bundle: the chosen one, fitted again with the validation part.
        final: its receipt on the test part.
        quality: the metric that was maximized, such as ``ndcg@10``.
        intervals: bundle id to the 95% bootstrap interval of its quality, the final one's too.
        losses: bundle id to the interval of the best's quality minus its own, user by user: 95%
            for all of them together (Bonferroni), since each may be chosen.
        best: the best receipt within the budget.
        skipped: candidates that could not be had, each with the reason.
    """

    receipts: Sequence[Receipt]
    choice: Choice
    bundle: Bundle
    final: Receipt
    quality: str
    intervals: Mapping[str, Interval]
    losses: Mapping[str, Interval]
    best: Receipt
    skipped: Sequence[str]


@dataclass(frozen=True, eq=False)
class _Tried:
    """A candidate that was measured: how to make it, its receipt, its quality user by user."""

    spec: Any
    transforms: Sequence[Any]
    receipt: Receipt
    users: NDArray[np.float64]


def explore(
    dataset: Dataset,
    models: Sequence[Any] = MODELS,
    variants: Sequence[Sequence[Any]] = VARIANTS,
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

    Everything is measured on the validation part, once; the chosen one is then fitted on train and
    validation and measured once on test. Among those whose loss against the best is under 1% by
    the bound of a 95% paired interval, corrected for as many comparisons as there are candidates
    beside the best, the one with the smallest tables is chosen. A candidate that fails is left
    out, and told; the others go on.

    Args:
        dataset: with a validation and a test part.
        models: names of the registry, or specs.
        variants: transforms of each candidate, as ``compress`` takes them.
        budget: limits on what is measured.
        quality: metric to maximize.
        k: length of the lists.
        seed: drives everything that is random.
        cold_runs: fresh processes a candidate, for its memory and cold start.
        ledger_path: receipts are appended there.
        progress: told how far it is.

    Raises:
        DataError: a part is empty.
        SpecError: an unknown model or transform, no candidate that works, or a budget that limits
            what is not measured.
    """
    for part in ("valid", "test"):
        if not len(dataset.part(part)):
            raise DataError(
                f"part {part!r} is empty: one part chooses and another measures the choice; "
                "prepare the log with a split that has both, such as time:0.1,0.1"
            )
    limits = budget or Budget()
    # A word that is misspelled is told here, before the first fit.
    specs = [spec(model) if isinstance(model, str) else model for model in models]
    steps = [[parse(t) if isinstance(t, str) else t for t in variant] for variant in variants]
    total = len(specs) * (1 + len(steps)) + 1
    done = 0

    def note(words: str) -> None:
        nonlocal done
        if progress is not None:
            progress(f"explore: {words}", done, total)
        done += 1

    tried: list[_Tried] = []
    skipped: list[str] = []
    for one in specs:
        name = name_of(one)
        note(f"fit {name}")
        try:
            fitted, train_s = _fit(one, dataset, seed)
        except (MartletError, MemoryError) as reason:
            skipped.append(f"{name}: {str(reason) or 'out of memory'}")
            done += len(steps)
            continue
        for transforms in steps:
            label = " + ".join([name, *(step.label for step in transforms)])
            note(f"measure {label}")
            try:
                bundle = compress(fitted, transforms, dataset, seed=seed)
                receipt, users = _measure(bundle, dataset, "valid", quality, k, cold_runs, train_s)
            except (MartletError, MemoryError) as reason:
                skipped.append(f"{label}: {str(reason) or 'out of memory'}")
                continue
            limits.broken(receipt)  # a limit on what nobody measures: told at the first receipt
            tried.append(_Tried(one, transforms, receipt, users))
            if ledger_path is not None:
                ledger.append(ledger_path, receipt)
    if not tried:
        raise SpecError(f"no candidate could be fitted and measured: {'; '.join(skipped)}")
    choice, best, losses = _cheapest_of_the_best(tried, limits, f"{quality}@{k}", seed)
    note(f"fit {choice.receipt.name} with the validation part")
    chosen = next(one for one in tried if one.receipt is choice.receipt)
    whole = dataset.with_valid_in_train()
    fitted, train_s = _fit(chosen.spec, whole, seed)
    bundle = compress(fitted, chosen.transforms, whole, seed=seed)
    final, users = _measure(bundle, whole, "test", quality, k, cold_runs, train_s)
    if ledger_path is not None:
        ledger.append(ledger_path, final)
    if progress is not None:
        progress("explore: done", total, total)
    measured = [(one.receipt, one.users) for one in tried]
    intervals = {
        receipt.bundle_id: bootstrap(values, seed=seed)
        for receipt, values in (*measured, (final, users))
    }
    receipts = [receipt for receipt, _ in measured]
    named = f"{quality}@{k}"
    return Exploration(receipts, choice, bundle, final, named, intervals, losses, best, skipped)


def _fit(one: Any, dataset: Dataset, seed: int) -> tuple[Bundle, float]:
    """Return the bundle and the seconds of the fit."""
    start = time.perf_counter()
    bundle = fit(one, dataset, seed=seed)
    return bundle, time.perf_counter() - start


def _measure(
    bundle: Bundle,
    dataset: Dataset,
    part: str,
    quality: str,
    k: int,
    cold_runs: int,
    train_s: float,
) -> tuple[Receipt, NDArray[np.float64]]:
    """Return the receipt, and the quality of each user."""
    listed = tuple(dict.fromkeys((quality, *METRICS)))
    found = evaluate(bundle, dataset, part=part, ks=(k,), metrics=listed, per_user=True)
    receipt = measure(
        bundle, dataset, part=part, k=k, cold_runs=cold_runs, train_s=train_s, quality=found
    )
    return receipt, found.users[f"{quality}@{k}"]


def _cheapest_of_the_best(
    tried: Sequence[_Tried], budget: Budget, quality: str, seed: int
) -> tuple[Choice, Receipt, dict[str, Interval]]:
    """Return the choice, the best within the budget, and the loss of each against the best.

    The choice is as good as the best, by the bound of the interval, from the smallest tables.
    """
    frontier = Frontier([one.receipt for one in tried], quality)
    first = frontier.choose(budget)
    best, top = next((t.receipt, t.users) for t in tried if t.receipt is first.receipt)
    comparisons = max(len(tried) - 1, 1)
    losses = {
        t.receipt.bundle_id: paired_bootstrap(t.users, top, seed=seed, comparisons=comparisons)
        for t in tried
    }
    if not first.fits:
        return first, best, losses
    allowed = MAX_LOSS * float(top.mean())
    fitting = [t.receipt for t in tried if not budget.broken(t.receipt)]
    alike = [receipt for receipt in fitting if losses[receipt.bundle_id].high <= allowed]
    chosen = min(alike, key=lambda r: (r.cost["scoring_mb"], r.cost["p50_ms"], r.name))
    if chosen is best:
        return first, best, losses
    within = f" that keep {budget}" if budget.limits else ""
    lost = max(losses[chosen.bundle_id].high, 0) / max(top.mean(), 1e-12)
    why = (
        f"{frontier.label(chosen)} has the smallest tables "
        f"({chosen.cost['scoring_mb']:.3g} MB) of the {len(alike)} of {len(fitting)} "
        f"candidates{within} that lose under {MAX_LOSS:.0%} of the best {quality} "
        f"({top.mean():.4f}, of {frontier.label(best)}) by the bound of a 95% paired interval, "
        f"{corrected(comparisons)}: it loses at most {lost:.2%}"
    )
    return Choice(chosen, True, why), best, losses
