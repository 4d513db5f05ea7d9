"""The receipts that nothing dominates, and the choice among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from martlet.core import SpecError
from martlet.frontier.budget import Budget, figures_of
from martlet.measure.receipt import Receipt

# The median latency: the 99th percentile of a thousand queries hangs on ten of them, and one busy
# moment of the machine would decide what dominates. A budget may still limit it.
COSTS = ("p50_ms", "scoring_mb", "train_s")


def corrected(comparisons: int) -> str:
    """Return in words what ``metrics.paired_bootstrap`` corrected its intervals for."""
    return f"corrected for {comparisons} comparison{'s' if comparisons != 1 else ''}"


@dataclass(frozen=True)
class Choice:
    """What a budget leads to.

    Attributes:
        receipt: the chosen one; the nearest one when nothing fits.
        fits: whether it keeps every limit.
        why: one sentence a person can act on.
    """

    receipt: Receipt
    fits: bool
    why: str


@dataclass(frozen=True)
class Frontier:
    """Receipts compared on one quality and several costs.

    Attributes:
        receipts: measured on the same data.
        quality: the name to maximize.
        costs: the names to minimize.
    """

    receipts: Sequence[Receipt]
    quality: str = "ndcg@10"
    costs: tuple[str, ...] = COSTS

    def __post_init__(self) -> None:
        if not self.receipts:
            raise SpecError("a frontier needs at least one receipt: measure a bundle first")
        for receipt in self.receipts:
            missing = {self.quality, *self.costs} - set(figures_of(receipt))
            if missing:
                raise SpecError(
                    f"the receipt of {receipt.name} lacks {', '.join(sorted(missing))}: "
                    f"it has {', '.join(sorted(figures_of(receipt)))}"
                )

    @staticmethod
    def of(receipts: Sequence[Receipt], quality: str) -> Frontier:
        """Return the frontier over ``COSTS``; the training only where every receipt tells it.

        Raises:
            SpecError: as the constructor.
        """
        timed = all("train_s" in figures_of(receipt) for receipt in receipts)
        return Frontier(receipts, quality, COSTS if timed else COSTS[:-1])

    def label(self, receipt: Receipt) -> str:
        """Return the receipt's name among the others; see ``labels``."""
        return labels(self.receipts)[next(i for i, r in enumerate(self.receipts) if r is receipt)]

    def points(self) -> NDArray[np.float64]:
        """Return (n, 1 + costs) figures, quality negated: smaller is better in every column."""
        rows = []
        for receipt in self.receipts:
            figures = figures_of(receipt)
            rows.append([-figures[self.quality], *(figures[cost] for cost in self.costs)])
        return np.asarray(rows)

    def best(self) -> NDArray[np.bool_]:
        """Return (n,) True where no other receipt is as good on all axes and better on one."""
        points = self.points()
        no_worse = (points[:, None] <= points[None]).all(2)
        better = (points[:, None] < points[None]).any(2)
        return np.asarray(~(no_worse & better).any(0))

    def choose(self, budget: Budget | None = None) -> Choice:
        """Return the best quality within the budget; among equals, the one of smallest tables.

        When nothing fits, return the nearest receipt and say what would have to give.
        """
        budget = budget or Budget()
        fitting = [receipt for receipt in self.receipts if not budget.broken(receipt)]
        if not fitting:
            near = budget.nearest(self.receipts)
            gives = "; ".join(f"{limit} (it has {have:.4g})" for limit, have in budget.broken(near))
            why = (
                f"nothing keeps {budget}: {self.label(near)} comes nearest and would need {gives} "
                "to give"
            )
            return Choice(near, False, why)
        chosen = max(
            fitting, key=lambda r: (r.quality[self.quality], -figures_of(r)[self.costs[1]])
        )
        quality = chosen.quality[self.quality]
        why = (
            f"{self.label(chosen)} has the best {self.quality} ({quality:.4f}) of the "
            f"{len(fitting)} of {len(self.receipts)} candidates that keep {budget}"
        )
        return Choice(chosen, True, why)


def labels(receipts: Sequence[Receipt]) -> list[str]:
    """Return a name for each receipt; of two alike, with the hyper-parameters that differ."""
    alike = Counter(receipt.name for receipt in receipts)
    named = []
    for receipt in receipts:
        others = [dict(r.spec.get("params", {})) for r in receipts if r.name == receipt.name]
        params = receipt.spec.get("params", {})
        differ = [key for key in params if any(other.get(key) != params[key] for other in others)]
        more = ", ".join(f"{key} {params[key]}" for key in differ)
        named.append(
            f"{receipt.name} ({more})" if alike[receipt.name] > 1 and more else receipt.name
        )
    return named
