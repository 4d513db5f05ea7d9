"""What a report tells beside the receipts; kept as JSON, so that the page can be drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from martlet.core import DataError, Dataset
from martlet.frontier.budget import Budget
from martlet.frontier.frontier import Choice
from martlet.measure.receipt import Receipt

if TYPE_CHECKING:
    from martlet.frontier.explore import Exploration

Bounds = tuple[float, float]
_POINTS = 100  # of a curve: more cannot be seen


@dataclass(frozen=True)
class Story:
    """What the report tells beside the receipts.

    Attributes:
        title: the name of the data.
        choice: what was chosen, and why.
        budget: the limits it had to keep.
        quality: the metric that was maximized.
        final: the receipt of the chosen bundle on the test part, if it was measured.
        intervals: bundle id to the 95% bootstrap interval of its quality.
        losses: bundle id to the interval of the best's quality minus its own, user by user: 95%
            for all of them together.
        best: the best quality within the budget, which the losses are of.
        allowed: share of the best that a cheaper candidate may lose.
        facts: of the data, in words and numbers.
        curves: name to (place, events) points: activity from the most active on.
        notes: what a reader must know first, such as that the log is synthetic.
        skipped: candidates that could not be had, each with the reason.
        commands: what to type to do it again, or to go on.
        sweep: whether all of them are one bundle under several transforms.
    """

    title: str
    choice: Choice
    budget: Budget = field(default_factory=Budget)
    quality: str = "ndcg@10"
    final: Receipt | None = None
    intervals: Mapping[str, Bounds] = field(default_factory=dict)
    losses: Mapping[str, Bounds] = field(default_factory=dict)
    best: float | None = None
    allowed: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    skipped: Sequence[str] = ()
    commands: Sequence[str] = ()
    sweep: bool = False

    def to_json(self, receipts: Sequence[Receipt]) -> dict[str, Any]:
        """Return plain JSON that ``from_json`` reads; the receipts stand in it by bundle id."""
        choice = {"bundle_id": self.choice.receipt.bundle_id, "why": self.choice.why}
        final = None if self.final is None else self.final.to_json()
        return self.__dict__ | {
            "receipts": [receipt.bundle_id for receipt in receipts],
            "choice": choice | {"fits": self.choice.fits},
            "budget": str(self.budget) if self.budget.limits else "",
            "final": final,
        }

    @staticmethod
    def from_json(document: Any, ledger: Sequence[Receipt]) -> tuple[list[Receipt], Story]:
        """Return the receipts that the story is of, the newest of each bundle, and the story.

        Raises:
            DataError: it is no story, or a receipt is not in the ledger.
        """
        newest = {r.bundle_id: r for r in ledger if r.part == "valid"}
        try:
            values = dict(document)
            receipts = [newest[one] for one in values.pop("receipts")]
            told, final = values["choice"], values["final"]
            choice = Choice(newest[told["bundle_id"]], told["fits"], told["why"])
            story = Story(**values)
            return receipts, replace(
                story,
                choice=choice,
                budget=Budget.parse(values["budget"]),
                final=None if final is None else Receipt.from_json(final),
            )
        except (TypeError, KeyError, ValueError) as error:
            raise DataError(
                f"the story does not fit the ledger beside it ({error!r}): run 'martlet frontier' "
                "again"
            ) from error

    @staticmethod
    def of(found: Exploration, dataset: Dataset, *, title: str, **more: Any) -> Story:
        """Return the story of an exploration; ``more`` are the budget, notes and commands."""
        from martlet.frontier.explore import MAX_LOSS

        train = dataset.train
        lengths = np.bincount(train.user_row, minlength=train.num_users)
        return Story(
            title=title,
            choice=found.choice,
            quality=found.quality,
            final=found.final,
            intervals={one: (i.low, i.high) for one, i in found.intervals.items()},
            losses={one: (i.low, i.high) for one, i in found.losses.items()},
            best=found.best.quality[found.quality],
            allowed=MAX_LOSS,
            facts=_facts(dataset),
            curves={"items": _curve(train.item_count), "users": _curve(lengths)},
            skipped=found.skipped,
            **more,
        )


def _facts(dataset: Dataset) -> dict[str, Any]:
    parts = {"training": dataset.train, "validation": dataset.valid, "test": dataset.test}
    facts: dict[str, Any] = {"users": dataset.num_users, "items": dataset.num_items}
    facts |= {f"{name} events": len(part) for name, part in parts.items()}
    times = [part.time_s for part in parts.values() if part.time_s is not None and len(part)]
    if times:
        ends = min(time.min() for time in times), max(time.max() for time in times)
        days = [datetime.fromtimestamp(int(end), UTC).date().isoformat() for end in ends]
        facts["from"], facts["to"] = days
    if "split" in dataset.about:
        facts["split"] = dataset.about["split"]
    for rule in dataset.about.get("cleaning", ()):
        if rule["rows_in"] != rule["rows_out"]:
            facts[rule["rule"]] = f"{rule['rows_in']:,} events in, {rule['rows_out']:,} out"
    return facts


def _curve(counts: Any) -> list[tuple[int, int]]:
    """Return (place, count) pairs, most first, at places that lie evenly on a log axis."""
    falling = np.sort(counts[counts > 0])[::-1]
    if not len(falling):
        return [(1, 1)]
    places = np.unique(np.geomspace(1, len(falling), _POINTS).round().astype(int))
    return [(int(place), int(falling[place - 1])) for place in places]
