"""Cleaning, a rule a class. A rule drops or merges events, and reports what it did."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from martlet.core import Interactions, SpecError, check_counts, num_threads
from martlet.data.events import Events
from martlet.data.rejects import Rejects
from martlet.kernels.events import k_core, merge_pairs

DAY_S = 86_400
# Events after this are impossible; a day of grace for clocks that run ahead.
_GRACE_S = DAY_S
_EXAMPLES = 3
_CHUNK = 1 << 20  # rows put aside that are written at a time


class RuleReport(NamedTuple):
    """What a rule did: events in and out, and a few of the events that it put aside."""

    rule: str
    rows_in: int
    rows_out: int
    examples: list[str]


class Kept(NamedTuple):
    """What a rule decides.

    Attributes:
        mask: (n,) bool, which events remain; None keeps all.
        weight: (n,) float32 new weights, read where the mask holds; None keeps those there are.
    """

    mask: NDArray[np.bool_] | None = None
    weight: NDArray[np.float32] | None = None


class Rule(Protocol):
    """A cleaning rule over encoded events.

    One that decides about each event by itself says so with ``by_event = True``: it is applied to
    a test or validation log that was given too. The others judge users, items or pairs, and only
    the log that is trained on.
    """

    name: ClassVar[str]

    def keep(self, events: Interactions) -> Kept:
        """Return which events remain, and their weights."""


@dataclass(frozen=True)
class ValidTime:
    """Drop events before 1970 or after ``latest_s`` (default: a day from now)."""

    latest_s: int | None = None
    name: ClassVar[str] = "impossible time"
    by_event: ClassVar[bool] = True

    def keep(self, events: Interactions) -> Kept:
        """Return the possible ones."""
        if events.time_s is None:
            return Kept()
        latest = int(time.time()) + _GRACE_S if self.latest_s is None else self.latest_s
        return Kept((events.time_s >= 0) & (events.time_s <= latest))


@dataclass(frozen=True)
class MinRating:
    """Turn ratings into signals: drop those below ``threshold``; the rest weigh 1."""

    threshold: float
    name: ClassVar[str] = "low rating"
    by_event: ClassVar[bool] = True

    def keep(self, events: Interactions) -> Kept:
        """Return the events of at least the threshold, by the rating, else by the weight."""
        rating = np.asarray(events.extra.get("rating", events.weight), np.float32)
        # Both in float32: a rating of 3.3 reaches a threshold of 3.3.
        return Kept(rating >= np.float32(self.threshold), np.ones(len(events), np.float32))


@dataclass(frozen=True)
class Duplicates:
    """Merge the events of one user with one item: "last" keeps the latest, "sum" adds weights."""

    keep_which: Literal["last", "sum", "all"] = "last"
    name: ClassVar[str] = "duplicate"

    def __post_init__(self) -> None:
        if self.keep_which not in ("last", "sum", "all"):
            raise SpecError(f"duplicates is {self.keep_which!r}: expected 'last', 'sum' or 'all'")

    def keep(self, events: Interactions) -> Kept:
        """Return one event a pair of user and item, at the place of the last."""
        if self.keep_which == "all":
            return Kept()
        weight = events.weight.copy() if self.keep_which == "sum" else None
        return Kept(merge_pairs(events.histories, weight, num_threads()), weight)


@dataclass(frozen=True)
class MaxUserEvents:
    """Drop users with more events than a person makes: bots, shared accounts."""

    count: int
    name: ClassVar[str] = "too active user"

    def __post_init__(self) -> None:
        check_counts(self, "count")

    def keep(self, events: Interactions) -> Kept:
        """Return the events of the others."""
        lengths = events.histories.lengths
        return Kept(np.repeat(lengths <= self.count, lengths))


@dataclass(frozen=True)
class KCore:
    """Drop users and items with fewer events, again and again until none is left to drop."""

    users: int = 1
    items: int = 1
    name: ClassVar[str] = "below k-core"

    def __post_init__(self) -> None:
        check_counts(self, "users", "items")

    def keep(self, events: Interactions) -> Kept:
        """Return the k-core."""
        shape = events.num_users, events.num_items
        return Kept(k_core(events.user_row, events.item_row, shape, (self.users, self.items)))


@dataclass(frozen=True)
class RecencyDecay:
    """Halve the weight of an event for every ``half_life_days`` before the last one."""

    half_life_days: float
    name: ClassVar[str] = "recency decay"

    def __post_init__(self) -> None:
        if not 0 < self.half_life_days < np.inf:
            raise SpecError(
                f"half_life_days is {self.half_life_days}: expected a finite number above 0"
            )

    def keep(self, events: Interactions) -> Kept:
        """Return all events with decayed weights; without times as they are."""
        if events.time_s is None or not len(events):
            return Kept()
        weight: NDArray[Any] = (events.time_s - events.time_s.max()).astype(np.float64)
        weight /= DAY_S * self.half_life_days
        np.exp2(weight, out=weight)
        weight *= events.weight
        np.maximum(weight, np.finfo(np.float32).tiny, out=weight)
        return Kept(weight=weight.astype(np.float32))


DEFAULT: tuple[Any, ...] = (ValidTime(), Duplicates("last"))


def describe_rule(rule: Any) -> str:
    """Return the rule with its settings, such as ``KCore(users=5, items=5)``."""
    settings = ", ".join(f"{name}={value}" for name, value in asdict(rule).items())
    return f"{type(rule).__name__}({settings})"


def apply(
    events: Events,
    rules: Sequence[Rule],
    ids: tuple[pl.Series, pl.Series],
    rejects: Rejects | None = None,
    labels: Mapping[str, pl.Series] | None = None,
) -> list[RuleReport]:
    """Apply the rules in order to the events themselves, and return their reports.

    Args:
        events: encoded and sorted; changed.
        rules: in the order of their application.
        ids: of user rows and of item rows, for the examples.
        rejects: takes what each rule puts aside.
        labels: the texts that the codes of a column of texts stand for.
    """
    reports = []
    for rule in rules:
        mask, weight = rule.keep(events.view())
        rows_in, examples = len(events), []
        if mask is not None and not mask.all():
            aside = rejects or Rejects()
            examples = _put_aside(events, mask, ids, labels or {}, rule.name, aside)
        if weight is not None:
            events.columns["weight"] = weight
        if examples:
            events.keep(mask)  # type: ignore[arg-type]
        reports.append(RuleReport(describe_rule(rule), rows_in, len(events), examples))
    return reports


def _put_aside(
    events: Events,
    mask: NDArray[np.bool_],
    ids: tuple[pl.Series, pl.Series],
    labels: Mapping[str, pl.Series],
    reason: str,
    rejects: Rejects,
) -> list[str]:
    """Hand on the rows outside the mask, and return a few of them in words."""
    examples: list[str] = []
    for start in range(0, len(mask), _CHUNK):
        at = start + np.flatnonzero(~mask[start : start + _CHUNK])
        if not rejects.wanted:
            at = at[:_EXAMPLES]
        columns = {name: column[at] for name, column in events.columns.items()}
        users, items = ids[0].gather(columns["user_row"]), ids[1].gather(columns["item_row"])
        for user, item in zip(users[: _EXAMPLES - len(examples)], items, strict=False):
            examples.append(f"user {user}, item {item}")
        if rejects.wanted:
            rows: dict[str, Any] = {"user_id": users, "item_id": items}
            for name, column in columns.items():
                if name in labels:
                    code = pl.Series(column)
                    rows[name] = labels[name].gather(code.set(code < 0, None))
                elif not name.endswith("_row"):
                    rows["time" if name == "time_s" else name] = column
            rejects.add(pl.DataFrame(rows).with_columns(pl.lit(reason).alias("reason")))
        elif len(examples) == _EXAMPLES:
            break
    return examples
