"""What a gate decides: a loss against its limit, by the bound of its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

from martlet.core import SpecError
from martlet.measure.receipt import Receipt
from martlet.metrics import LABEL_METRICS, METRICS, Interval

Outcome = Literal["passes", "fails", "unresolved"]
RISING = {
    "auc": True,
    "pr_auc": True,
    "log_loss": False,
    "normalized_entropy": False,
    "rmse": False,
    "mae": False,
}
"""Figures of labelled rows that have a better end, and whether it is the upper one."""


@dataclass(frozen=True)
class Verdict:
    """What a metric lost, and whether that is within its limit.

    Attributes:
        metric: such as ``ndcg@10``.
        limit: the share of the figure before that may be lost: 0.01 is one per cent.
        before: the figure of the bundle as it was.
        after: that of the compressed one.
        loss: share of ``before`` that was lost, with its 95% paired interval; a gain is negative.
        num: users, or labelled rows, that it is a mean of.
        unit: "users" or "rows".
    """

    metric: str
    limit: float
    before: float
    after: float
    loss: Interval
    num: int
    unit: str = "users"

    @property
    def outcome(self) -> Outcome:
        """Passes where the whole interval is within the limit, fails where none of it is."""
        if self.loss.high <= self.limit:
            return "passes"
        return "fails" if self.loss.low > self.limit else "unresolved"

    @property
    def more(self) -> int | None:
        """How many more users would resolve it; 0 where it is resolved, None where none would.

        An interval narrows with 1 / sqrt(users): it would end at the limit with as many times the
        users as its reach is too far, squared, if the loss of the new ones is that of these.
        """
        if self.outcome != "unresolved":
            return 0
        apart = abs(self.limit - self.loss.mean)
        if not apart:
            return None
        below = self.loss.mean < self.limit
        reach = self.loss.high - self.loss.mean if below else self.loss.mean - self.loss.low
        return max(1, round(self.num * ((reach / apart) ** 2 - 1)))

    def among(self, comparisons: int) -> Verdict:
        """Return the verdict where so many candidates are judged, and any may be chosen.

        The interval reaches as much further as a normal one does whose 5% are shared by all of them
        (Bonferroni): a bootstrap at that level would take 400 draws a comparison.
        """
        tail = 0.025 / max(comparisons, 1)
        further = NormalDist().inv_cdf(1 - tail) / NormalDist().inv_cdf(0.975)
        mean, low, high = self.loss
        wide = Interval(mean, mean - (mean - low) * further, mean + (high - mean) * further)
        return replace(self, loss=wide)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        told = {"outcome": self.outcome, "more": self.more}
        return asdict(self) | {"loss": self.loss._asdict()} | told

    def __str__(self) -> str:
        mean, low, high = (f"{100 * share:.3g}" for share in self.loss)
        of = f"{self.metric} loses {mean}% [{low}, {high}] of {self.before:.4g}"
        bound = f"at most {100 * self.limit:.3g}% may be lost"
        match self.outcome:
            case "passes":
                return f"{of}: passes, {bound}"
            case "fails":
                over = 100 * (self.loss.low - self.limit)
                return f"{of}: fails, {bound}, and this is {over:.2g} points beyond it or more"
            case _ if self.more is None:
                return f"{of}: unresolved, {bound}; it stands at the limit itself"
            case _:
                return (
                    f"{of}: unresolved, {bound}; needs about {_rounded(self.more or 0)} more "
                    f"{self.unit}"
                )


@dataclass(frozen=True, eq=False)
class Gate:
    """What a gate found.

    Attributes:
        verdicts: one a limit.
        before: receipt of the bundle as it was.
        after: that of the compressed one; its quality holds each loss with its interval too.
    """

    verdicts: tuple[Verdict, ...]
    before: Receipt
    after: Receipt

    @property
    def outcome(self) -> Outcome:
        """The worst of the verdicts: every limit has to be kept, so none is corrected for others.

        That all of several tests pass by chance is no likelier than that the worst one does.
        """
        found = {verdict.outcome for verdict in self.verdicts}
        return "fails" if "fails" in found else "unresolved" if "unresolved" in found else "passes"

    def among(self, comparisons: int) -> Gate:
        """Return the gate where so many candidates are judged; see ``Verdict.among``."""
        return replace(self, verdicts=tuple(v.among(comparisons) for v in self.verdicts))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "outcome": self.outcome,
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "before": self.before.to_json(),
            "after": self.after.to_json(),
        }

    def __str__(self) -> str:
        return "\n".join(map(str, self.verdicts))


def read_limit(text: str) -> tuple[str, float]:
    """Return the metric and the share of a text such as ``ndcg@10=1%`` or ``ndcg@10=0.01``.

    >>> read_limit("ndcg@10=1%")
    ('ndcg@10', 0.01)

    Raises:
        SpecError: it is none.
    """
    name, _, share = text.partition("=")
    try:
        percent = share.strip().endswith("%")
        value = float(share.strip().removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        raise SpecError(
            f"{text!r} is no limit of a loss: expected such as ndcg@10=1% or log_loss=0.001"
        ) from None
    return name.strip(), value


def check_limits(max_loss: Mapping[str, float], *, labelled: bool) -> None:
    """Refuse limits that cannot be judged, before anything is measured.

    Raises:
        SpecError: says which and why.
    """
    if not max_loss:
        raise SpecError("there is no limit to judge by: expected such as ndcg@10=1%")
    for name, limit in max_loss.items():
        if not 0 <= limit < 1:
            raise SpecError(
                f"at most {limit:g} of {name} may be lost: expected a share from 0 up to 1, such "
                "as 0.01 or 1%"
            )
        if labelled:
            if name not in RISING:
                known = f", and {name} has no end that is better" if name in LABEL_METRICS else ""
                raise SpecError(
                    f"a loss of {name!r} cannot be judged: of labelled rows expected one of "
                    f"{', '.join(RISING)}{known}"
                )
            continue
        base, _, k = name.partition("@")
        metric = METRICS.get(base)
        fits = metric is not None and metric.of_users and bool(metric.higher_is_better)
        if not fits or (metric and metric.needs == "value") or (base == "auc") == k.isdecimal():
            able = [
                name if name == "auc" else f"{name}@10"
                for name, one in METRICS.items()
                if one.of_users and one.higher_is_better and one.needs != "value"
            ]
            raise SpecError(
                f"a loss of {name!r} cannot be judged user by user: expected one of "
                f"{', '.join(able)}, of any length"
            )


def _rounded(count: int) -> str:
    """Return a count with two digits that count: it is an estimate."""
    scale = 10 ** max(0, len(str(count)) - 2)
    return f"{round(count / scale) * scale:,}"
