"""A bundle under many transforms: what each costs and saves, and which ones nothing beats."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from martlet.compress.compress import compress
from martlet.compress.grid import GRID, Stages, pairs
from martlet.compress.registry import parse
from martlet.core import Dataset, MartletError, OutputError, Progress, SpecError, Tabular, new_file
from martlet.frontier.frontier import Choice, Frontier, corrected
from martlet.frontier.story import Story
from martlet.measure import ledger
from martlet.measure.gate import Measured, judge, measured
from martlet.measure.receipt import Receipt
from martlet.measure.verdict import RISING, Gate, check_limits

if TYPE_CHECKING:
    from martlet.scorers.bundle import Bundle

AXES = ("p50_ms", "scoring_mb")
_PART = "valid"
Steps = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep found.

    Attributes:
        base: steps that the bundle had gone through before.
        receipts: the bundle as it was, then every candidate, on the validation part.
        gates: bundle id to what the gate says of it, corrected for as many comparisons as there
            are candidates, since each may be chosen.
        max_loss: metric to the share that may be lost.
        skipped: what was not measured, each with the reason.
    """

    base: int
    receipts: Sequence[Receipt]
    gates: Mapping[str, Gate]
    max_loss: Mapping[str, float]
    skipped: Sequence[str]

    @property
    def quality(self) -> str:
        """The metric that is drawn and compared: the first that has a limit."""
        return next(iter(self.max_loss))

    def steps(self, receipt: Receipt) -> Steps:
        """Return the labels of what was done to the bundle."""
        return tuple(line["transform"] for line in receipt.transforms[self.base :])

    def best(self) -> NDArray[np.bool_]:
        """Return (receipts,) True where no other has better quality, bytes or p50, and no worse."""
        return Frontier(self.receipts, self.quality, AXES).best()

    @property
    def chosen(self) -> Receipt:
        """The one of smallest tables that keeps every limit by the bound, or the bundle itself."""
        passing = [r for r in self.receipts if self._outcome(r) == "passes"]
        return min(passing, key=lambda r: (r.cost["scoring_mb"], r.cost["p50_ms"]))

    @property
    def choice(self) -> Choice:
        """The chosen one, and why."""
        chosen, first = self.chosen, self.receipts[0]
        limits = " and ".join(f"{100 * v:.3g}% of {name}" for name, v in self.max_loss.items())
        told = (
            f"lose under {limits} by the bound of a 95% paired interval, "
            f"{corrected(len(self.receipts) - 1)}"
        )
        if chosen is first:
            return Choice(chosen, True, f"none of smaller tables is known to {told}")
        smaller = (first.cost["scoring_mb"] or 0.0) / (chosen.cost["scoring_mb"] or 1e-12)
        passing = sum(self._outcome(receipt) == "passes" for receipt in self.receipts) - 1
        why = (
            f"{' + '.join(self.steps(chosen))} has the smallest tables "
            f"({chosen.cost['scoring_mb']:.3g} MB, {smaller:.1f} times less) of the {passing} of "
            f"{len(self.receipts) - 1} candidates that {told}"
        )
        return Choice(chosen, True, why)

    def row(self, receipt: Receipt) -> dict[str, Any]:
        """Return what there is to say of a candidate, as plain JSON."""
        gate = self.gates.get(receipt.bundle_id)
        verdict = None if gate is None else gate.verdicts[0]
        return {
            "steps": list(self.steps(receipt)),
            "quality": receipt.quality[self.quality],
            "lost_at_most": None if verdict is None else f"{100 * verdict.loss.high:.2f}%",
            "loss": None if verdict is None else verdict.loss._asdict(),
            "outcome": self._outcome(receipt) if verdict else "",
            "cost": dict(receipt.cost),
        }

    def story(self, title: str, commands: Sequence[str] = ()) -> Story:
        """Return what the report tells beside the receipts."""
        best = self.receipts[0].quality[self.quality] or 0.0
        losses = {one: gate.verdicts[0].loss for one, gate in self.gates.items()}
        return Story(
            title=title,
            choice=self.choice,
            quality=self.quality,
            intervals={r.bundle_id: _bounds(r, self.quality) for r in self.receipts},
            losses={one: (loss.low * best, loss.high * best) for one, loss in losses.items()},
            best=best,
            allowed=self.max_loss[self.quality],
            skipped=self.skipped,
            commands=commands,
            sweep=True,
        )

    def _outcome(self, receipt: Receipt) -> str:
        gate = self.gates.get(receipt.bundle_id)
        return "passes" if gate is None else gate.outcome


def sweep(
    bundle: Bundle,
    data: Dataset | Tabular,
    folder: str | Path,
    max_loss: Mapping[str, float] | None = None,
    *,
    grid: Stages = GRID,
    also: Sequence[Sequence[str]] = (),
    cold_runs: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Sweep:
    """Measure a bundle under each transform of a grid, then under pairs of them.

    One at a time, so that each has the machine for itself. Pairs are of transforms that apply, one
    of an earlier with one of a later stage. One that alone fails the gate, or that another of its
    stage beats in quality, bytes and p50, is in no pair.
    What ``folder`` holds of the same sweep is not measured again: ``receipts.jsonl``, and what each
    user was given in ``users``.

    Args:
        bundle: what is compressed.
        data: its validation part judges; transforms are tuned on its training part.
        folder: of the ledger.
        max_loss: as ``gate`` takes it; its first metric is one of which more is better. Default:
            1% of ndcg@10, of auc where the rows are labelled.
        grid: stages of alternatives, as text.
        also: longer compositions, as text, tried after the pairs.
        cold_runs: fresh processes a candidate, for its memory.
        seed: drives everything that is random.
        progress: told how far it is.

    Raises:
        SpecError: a limit that cannot be judged, or nothing in the grid can be parsed.
        OutputError: the folder holds a sweep of something else, or cannot be written.
        DataError: there is no validation part to measure on.
    """
    limits = dict(max_loss or {"auc" if bundle.predicts else "ndcg@10": 0.01})
    check_limits(limits, labelled=bundle.predicts)
    if not RISING.get(next(iter(limits)), True):
        raise SpecError(
            f"a sweep compares by a metric of which more is better, and {next(iter(limits))} is "
            "none: give another before it, such as auc; of a model that predicts numbers try one "
            "composition at a time"
        )
    tried = _Tried(_Walk(bundle, data, Path(folder), limits, cold_runs, seed), progress)
    stages = [tried.parsed(stage) for stage in grid]
    longer = [labels for steps in also if len(labels := tried.parsed(steps)) == len(steps)]
    tried.all([(label,) for stage in stages for label in stage])
    worth = [tried.worth_pairing(stage) for stage in stages]
    tried.all([*pairs(worth), *map(tuple, longer)])
    gates = list(tried.gates.values())
    return Sweep(
        max(len(bundle.lineage) - 1, 0),
        [tried.first.receipt, *(gate.after for gate in gates)],
        {gate.after.bundle_id: gate.among(len(gates)) for gate in gates},
        limits,
        tried.skipped,
    )


class _Tried:
    """What was measured, what the gate says of each alone, and what was left out."""

    def __init__(self, walk: _Walk, progress: Progress | None) -> None:
        self.first = walk.candidate(())
        self.gates: dict[Steps, Gate] = {}
        self.skipped: list[str] = []
        self._walk, self._progress = walk, progress
        self._out: set[str] = set()  # single steps that apply to nothing here, or lose too much

    def all(self, wanted: Sequence[Steps]) -> None:
        """Try each in turn; one with a step that alone did not do is passed over."""
        for done, steps in enumerate(wanted):
            if self._progress is not None:
                self._progress(f"sweep: {' + '.join(steps)}", done, len(wanted))
            if steps not in self.gates and self._out.isdisjoint(steps):
                self._one(steps)
        if self._progress is not None:
            self._progress("sweep", len(wanted), len(wanted))

    def _one(self, steps: Steps) -> None:
        walk = self._walk
        try:
            found = judge(self.first, walk.candidate(steps), walk.limits, seed=walk.seed)
        except (MartletError, MemoryError) as reason:
            self.skipped.append(f"{' + '.join(steps)}: {str(reason) or 'out of memory'}")
            self._out |= set(steps) if len(steps) == 1 else set()
            return
        self.gates[steps] = found
        if len(steps) == 1 and found.outcome == "fails":
            self._out |= set(steps)
            lost = next(verdict for verdict in found.verdicts if verdict.outcome == "fails")
            self.skipped.append(
                f"pairs with {steps[0]}: alone, {lost.metric} loses {100 * lost.loss.low:.3g}% "
                "at least"
            )

    def worth_pairing(self, stage: Sequence[str]) -> list[str]:
        """Return the steps of a stage that none of it beats in quality, bytes and p50."""
        able = [label for label in stage if (label,) in self.gates and label not in self._out]
        if not able:
            return []
        receipts = [self.gates[label,].after for label in able]
        best = Frontier(receipts, next(iter(self._walk.limits)), AXES).best()
        self.skipped += [
            f"pairs with {label}: alone, another of its kind is as good, as small and as fast"
            for label, one in zip(able, best, strict=True)
            if not one
        ]
        return [label for label, one in zip(able, best, strict=True) if one]

    def parsed(self, texts: Sequence[str]) -> list[str]:
        """Return the labels of the texts that name a transform; of others the reason is kept."""
        labels = []
        for text in texts:
            try:
                labels.append(parse(text).label)
            except SpecError as reason:
                self.skipped.append(f"{text}: {reason}")
        return labels


@dataclass(eq=False)
class _Walk:
    """Candidates of one bundle, measured or read from the folder that has them already."""

    bundle: Bundle
    data: Any  # a Dataset or a Tabular: a transform takes what its bundle was fitted on
    folder: Path
    limits: Mapping[str, float]
    cold_runs: int
    seed: int

    def __post_init__(self) -> None:
        self._made: tuple[Steps, Bundle, float] = ((), self.bundle, 0.0)
        self._measured: dict[Steps, Receipt] = {}
        own = {
            "bundle": self.bundle.id,
            "data": self.data.part(_PART).hash,
            "metrics": sorted(self.limits),
            "seed": self.seed,
        }
        path = self.folder / "sweep.json"
        try:
            kept = json.loads(path.read_text())
        except FileNotFoundError:
            with new_file(path) as target:
                target.write_text(json.dumps(own))
            return
        except (OSError, ValueError) as error:
            raise OutputError(f"{path} cannot be read ({error}): choose another folder") from error
        other = [name for name in own if kept.get(name) != own[name]]
        if other:
            raise OutputError(
                f"{self.folder} holds a sweep of other {' and '.join(other)}: choose another folder"
            )
        base = len(self.bundle.lineage[1:])
        if (self.folder / "receipts.jsonl").exists():
            for receipt in ledger.read(self.folder / "receipts.jsonl"):
                steps = tuple(line["transform"] for line in receipt.transforms[base:])
                self._measured[steps] = receipt

    def candidate(self, steps: Steps) -> Measured:
        """Return the bundle after the steps, measured.

        Raises:
            SpecError: a step does not apply.
        """
        label = self.data.part(_PART).label if isinstance(self.data, Tabular) else None
        known = self._measured.get(steps)
        path = self.folder / "users"
        if known is not None:
            with np.load(path / f"{known.bundle_id}.npz") as values:
                return Measured(known, dict(values), label)
        bundle, took_s = self._make(steps)
        found = measured(
            bundle, self.data, tuple(self.limits), part=_PART, cold_runs=self.cold_runs
        )
        cost = dict(found.receipt.cost) | {"compress_s": took_s}
        found = replace(found, receipt=replace(found.receipt, cost=cost))
        # The values first: a receipt in the ledger says that they are there.
        with new_file(path / f"{bundle.id}.npz") as target, open(target, "wb") as file:
            np.savez(file, allow_pickle=False, **found.users)
        ledger.append(self.folder / "receipts.jsonl", found.receipt)
        return found

    def _make(self, steps: Steps) -> tuple[Bundle, float]:
        """Return the bundle after the steps, and the seconds; the first of a pair is kept."""
        if not steps:
            return self.bundle, 0.0
        kept, bundle, before_s = self._made
        if len(steps) == 1 or kept != steps[:-1]:
            bundle, before_s = self._make(steps[:-1])
            self._made = steps[:-1], bundle, before_s
        start = time.perf_counter()
        bundle = compress(bundle, steps[-1:], self.data, seed=self.seed)
        return bundle, before_s + time.perf_counter() - start


def _bounds(receipt: Receipt, metric: str) -> tuple[float, float]:
    low, high = (receipt.quality[f"{metric}_{end}"] or 0.0 for end in ("low", "high"))
    return low, high
