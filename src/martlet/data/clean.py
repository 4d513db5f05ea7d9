"""Cleaning, a rule a class. A rule drops or merges events, and reports what it did."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from martlet.core import Interactions, SpecError

DAY_S = 86_400
# Events after this are impossible; a day of grace for clocks that run ahead.
_GRACE_S = DAY_S


class RuleReport(NamedTuple):
    """What a rule did: events in and out, and a few of the events that it put aside."""

    rule: str
    rows_in: int
    rows_out: int
    examples: list[str]


class Rule(Protocol):
    """A cleaning rule over encoded events."""

    def keep(self, events: Interactions) -> tuple[Interactions, NDArray[np.integer]]:
        """Return the events that remain, and the positions of those that do not."""


@dataclass(frozen=True)
class ValidTime:
    """Drop events before 1970 or after ``latest_s`` (default: a day from now)."""

    latest_s: int | None = None
    name: ClassVar[str] = "impossible time"

    def keep(self, events: Interactions) -> tuple[Interactions, NDArray[np.integer]]:
        """Return the possible ones."""
        if events.time_s is None:
            return events, np.empty(0, np.int64)
        latest = int(time.time()) + _GRACE_S if self.latest_s is None else self.latest_s
        return _mask(events, (events.time_s >= 0) & (events.time_s <= latest))


@dataclass(frozen=True)
class MinRating:
    """Turn ratings into signals: drop those below ``threshold``; the rest weigh 1."""

    threshold: float
    name: ClassVar[str] = "low rating"

    def keep(self, events: Interactions) -> tuple[Interactions, NDArray[np.integer]]:
        """Return the events of at least the threshold, by the rating, else by the weight."""
        rating = np.asarray(events.extra.get("rating", events.weight), np.float64)
        kept, dropped = _mask(events, rating >= self.threshold)
        return replace(kept, weight=np.ones(len(kept), np.float32)), dropped


@dataclass(frozen=True)
class Duplicates:
    """Merge the events of one user with one item: "last" keeps the latest, "sum" adds weights."""

    keep_which: Literal["last", "sum", "all"] = "last"
    name: ClassVar[str] = "duplicate"

    def __post_init__(self) -> None:
        if self.keep_which not in ("last", "sum", "all"):
            raise SpecError(f"duplicates is {self.keep_which!r}: expected 'last', 'sum' or 'all'")

    def keep(self, events: Interactions) -> tuple[Interactions, NDArray[np.integer]]:
        """Return one event a pair of user and item, at the place of the last."""
        if self.keep_which == "all" or not len(events):
            return events, np.empty(0, np.int64)
        key = events.user_row.astype(np.int64) * events.num_items + events.item_row
        order = np.argsort(key, kind="stable")
        last = np.append(key[order][1:] != key[order][:-1], True)
        mask = np.zeros(len(events), bool)
        mask[order[last]] = True
        if self.keep_which == "sum":
            start = np.flatnonzero(np.append(True, last[:-1]))
            weight = events.weight.copy()
            weight[order[last]] = np.add.reduceat(events.weight[order], start)
            events = replace(events, weight=weight)
        return _mask(events, mask)


@dataclass(frozen=True)
class MaxUserEvents:
    """Drop users with more events than a person makes: bots, shared accounts."""

    count: int
    name: ClassVar[str] = "too active user"

    def keep(self, events: Interactions) -> tuple[Interactions, NDArray[np.integer]]:
        """Return the events of the others."""
        counts = np.bincount(events.user_row, minlength=events.num_users)
        return _mask(events, counts[events.user_row] <= self.count)


@dataclass(frozen=True)
class KCore:
    """Drop users and items with fewer events, again and again until none is left to drop."""

    users: int = 1
    items: int = 1
    name: ClassVar[str] = "below k-core"

    def keep(self, events: Interactions) -> tuple[Interactions, NDArray[np.integer]]:
        """Return the k-core."""
        mask = np.ones(len(events), bool)
        while True:
            user = np.bincount(events.user_row[mask], minlength=events.num_users)
            item = np.bincount(events.item_row[mask], minlength=events.num_items)
            enough = (user[events.user_row] >= self.users) & (item[events.item_row] >= self.items)
            if not (mask & ~enough).any():
                return _mask(events, mask)
            mask &= enough


@dataclass(frozen=True)
class RecencyDecay:
    """Halve the weight of an event for every ``half_life_days`` before the last one."""

    half_life_days: float
    name: ClassVar[str] = "recency decay"

    def __post_init__(self) -> None:
        if not self.half_life_days > 0:
            raise SpecError(f"half_life_days is {self.half_life_days}: expected a number above 0")

    def keep(self, events: Interactions) -> tuple[Interactions, NDArray[np.integer]]:
        """Return all events with decayed weights; without times as they are."""
        if events.time_s is None or not len(events):
            return events, np.empty(0, np.int64)
        age_days = (events.time_s.max() - events.time_s) / DAY_S
        weight = events.weight * 0.5 ** (age_days / self.half_life_days)
        weight = np.maximum(weight, np.finfo(np.float32).tiny).astype(np.float32)
        return replace(events, weight=weight), np.empty(0, np.int64)


DEFAULT: tuple[Any, ...] = (ValidTime(), Duplicates("last"))


def describe_rule(rule: Any) -> str:
    """Return the rule with its settings, such as ``KCore(users=5, items=5)``."""
    settings = ", ".join(f"{name}={value}" for name, value in asdict(rule).items())
    return f"{type(rule).__name__}({settings})"


def apply(events: Interactions, rules: Sequence[Rule], name_of: Any) -> tuple[
    Interactions, list[RuleReport], list[tuple[str, Interactions]]
]:  # fmt: skip
    """Apply the rules in order; return what is left, their reports, and what each put aside.

    Args:
        events: encoded events.
        rules: in the order of their application.
        name_of: (user_row, item_row) to words, for the examples.
    """
    reports, aside = [], []
    for rule in rules:
        kept, dropped = rule.keep(events)
        few = [name_of(events.user_row[at], events.item_row[at]) for at in dropped[:3].tolist()]
        reports.append(RuleReport(describe_rule(rule), len(events), len(kept), few))
        if len(dropped):
            aside.append((rule.name, events.select(dropped)))  # type: ignore[attr-defined]
        events = kept
    return events, reports, aside


def _mask(
    events: Interactions, mask: NDArray[np.bool_]
) -> tuple[Interactions, NDArray[np.integer]]:
    return (events, np.empty(0, np.int64)) if mask.all() else (
        events.select(mask), np.flatnonzero(~mask)
    )  # fmt: skip
