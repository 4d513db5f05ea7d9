"""What each cleaning rule does to quality and to time, by a quick model with and without it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from martlet.core import (
    Column,
    DataError,
    Dataset,
    Interactions,
    MartletError,
    Progress,
    SpecError,
    Text,
    Vocabulary,
    rng,
)
from martlet.data import clean as cleaning
from martlet.data.events import Events
from martlet.data.prepare import assign, encode
from martlet.data.reading import Log, read
from martlet.data.side import join_table
from martlet.data.splits import TRAIN, VALID, Split, TimeSplit
from martlet.frontier.frontier import corrected
from martlet.measure.quality import evaluate
from martlet.metrics import Interval, bootstrap, paired_bootstrap
from martlet.models.fit import fit
from martlet.models.item_knn import ItemKNN
from martlet.models.registry import name_of

ALL, NONE = "all rules", "no rule"
QUALITY = "ndcg@10"
_ASKED = 20_000  # users whose lists are compared: more narrow the intervals by little
_WARM_UP = 1000  # events: no more is needed to compile
_CHUNK = 1 << 22
_PART = " part"  # beside columns of any name of the log


@dataclass(frozen=True)
class Trial:
    """The log under some of the rules.

    Attributes:
        without: the rule that was left out, or "all rules", or "no rule".
        rows: events left, of all parts.
        quality: NDCG@10 with its 95% interval.
        gain: NDCG@10 under all rules minus this one's, user by user, 95% for the intervals of all
            trials together; None for "all rules".
        fit_s: seconds of the fit; what is compiled once was compiled before.
        prepare_s: seconds to read the log, which is done once for all, and to apply the rules.
    """

    without: str
    rows: int
    quality: Interval
    gain: Interval | None
    fit_s: float
    prepare_s: float

    @property
    def verdict(self) -> str:
        """Whether the rules that were left out help, by the bound of the interval."""
        if self.gain is None:
            return ""
        if self.gain.low == self.gain.high == 0:
            return "changes nothing"
        if self.gain.low > 0:
            return "helps"
        return "hurts" if self.gain.high < 0 else "unresolved"


@dataclass(frozen=True)
class Effect:
    """What the rules did.

    Attributes:
        model: the quick model.
        num_users: users whose lists were measured, the same for every trial.
        num_targets: items that they were to be shown, the same for every trial.
        trials: all rules, each left out in turn, and no rule.
    """

    model: str
    num_users: int
    num_targets: int
    trials: tuple[Trial, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        trials = [
            {
                "without": trial.without,
                "rows": trial.rows,
                QUALITY: trial.quality._asdict(),
                "gain": None if trial.gain is None else trial.gain._asdict(),
                "verdict": trial.verdict,
                "fit_s": trial.fit_s,
                "prepare_s": trial.prepare_s,
            }
            for trial in self.trials
        ]
        about = {"model": self.model, "num_users": self.num_users, "num_targets": self.num_targets}
        return about | {"trials": trials}

    def __str__(self) -> str:
        head = ("left out", "rows", QUALITY, "the rule gains", "", "fit s", "prepare s")
        rows = [
            (
                "nothing" if trial.without == ALL else trial.without,
                f"{trial.rows:,}",
                f"{trial.quality.mean:.4f}",
                "" if trial.gain is None else _signed(trial.gain),
                trial.verdict,
                f"{trial.fit_s:.2f}",
                f"{trial.prepare_s:.2f}",
            )
            for trial in self.trials
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if at in (0, 3, 4) else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (head, *rows)
        ]
        about = (
            f"Effect of the rules on {self.model}: {self.num_users:,} users, the same "
            f"{self.num_targets:,} items to find for every row; 95% intervals, "
            f"{corrected(len(self.trials) - 1)}"
        )
        return "\n".join([about, *lines])


def effect(
    log: Log | Any,
    *,
    items: Any = None,
    users: Any = None,
    clean: Sequence[Any] = cleaning.DEFAULT,
    split: Split | None = None,
    spec: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Effect:
    """Return what a quick model makes of the log under all rules, without each, and under none.

    The figures compare, for every trial answers the same users about the same items. The log is
    split once, before any rule, and each event keeps its part. A (user, item) pair is to be found
    if it stands in the validation part and not in the training part of *every* trial. A trial
    trains on what its rules leave of the training part; that is the history of its users, too. So
    what differs is what a recommender of that trial would learn and know. The test part is never
    looked at, but for the rules, which count its events as ``prepare`` does.

    Args:
        log: what ``read`` gave, or anything it takes.
        items: a side table joined by item id, for a model that reads the catalogue.
        users: a side table joined by user id.
        clean: rules, in order.
        split: default ``TimeSplit()``.
        spec: the quick model; default item-knn with weights, so that it heeds what weighs.
        seed: drives the split, the model, the draw of users and the intervals.
        progress: told of each trial.

    Raises:
        SpecError: there is no rule.
        DataError: the log cannot be read or split, or no pair is to be found under all rules.
    """
    if not clean:
        raise SpecError("there is no cleaning rule to try: expected at least one")
    start = time.perf_counter()
    model = ItemKNN(weighted=True) if spec is None else spec
    split = TimeSplit() if split is None else split
    (raw, *given), ids, _, _ = encode(log if isinstance(log, Log) else read(log), split)
    raw.columns[_PART] = assign(raw.view(), split, seed)
    held = given[1].view() if len(given) == 2 else None
    read_s = time.perf_counter() - start
    trials = _trials(clean)
    targets = _targets(raw, held, list(trials.values()), ids)
    if not len(targets):
        raise DataError(
            "no pair of user and item is to be found under every rule: the validation part, cleaned"
            ", is empty or repeats what was trained on; give a larger share, or gentler rules"
        )
    valid = _drawn(targets, raw, seed)
    tables = [
        {} if table is None else join_table(names, table, kind)[0]
        for names, table, kind in zip(ids, (users, items), ("user", "item"), strict=True)
    ]
    names = [Vocabulary.of(column.to_list()) for column in ids]
    if progress is not None:
        progress("effect: warm up", 0, len(trials))
    _warm_up(model, _part(_cleaned(raw, clean, ids), TRAIN), tables, seed)
    measured: dict[str, tuple[float, NDArray[np.float64]]] = {}
    found: list[Trial] = []
    best: NDArray[np.float64] | None = None
    for done, (name, rules) in enumerate(trials.items()):
        if progress is not None:
            progress(f"effect: {name}", done, len(trials))
        start = time.perf_counter()
        events = _cleaned(raw, rules, ids)
        prepare_s = read_s + time.perf_counter() - start
        train = _part(events, TRAIN)
        if train.hash not in measured:  # a rule that changed nothing needs no fit
            dataset = _dataset(names, train, valid, tables)
            measured[train.hash] = _measure(model, dataset, seed)
        fit_s, values = measured[train.hash]
        gain = None
        if best is not None:
            gain = paired_bootstrap(values, best, seed=seed, comparisons=len(trials) - 1)
        best = values if best is None else best
        quality = bootstrap(values, seed=seed)
        found.append(Trial(name, len(events), quality, gain, fit_s, prepare_s))
    if progress is not None:
        progress("effect", len(trials), len(trials))
    return Effect(name_of(model), len(best), len(valid), tuple(found))  # type: ignore[arg-type]


def _trials(clean: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """Return name to rules: all, each left out, none."""
    trials: dict[str, Sequence[Any]] = {ALL: clean}
    if len(clean) > 1:
        trials |= {
            cleaning.describe_rule(rule): [*clean[:at], *clean[at + 1 :]]
            for at, rule in enumerate(clean)
        }
    return trials | {NONE: ()}


def _cleaned(raw: Events, rules: Sequence[Any], ids: tuple[pl.Series, pl.Series]) -> Events:
    """Return the events that the rules leave; those of ``raw`` stay as they are."""
    events = Events(dict(raw.columns), raw.num_users, raw.num_items)
    cleaning.apply(events, rules, ids)
    return events


def _part(events: Events, number: int) -> Interactions:
    """Return the events of one part, without the columns that only rules read."""
    own = ("user_row", "item_row", "weight", "time_s")
    columns = {name: column for name, column in events.columns.items() if name in own}
    part = Events(columns, events.num_users, events.num_items)
    part.keep(events.columns[_PART] == number)
    return part.view()


def _targets(
    raw: Events,
    held: Interactions | None,
    trials: Sequence[Sequence[Any]],
    ids: tuple[pl.Series, pl.Series],
) -> NDArray[np.int64]:
    """Return the pairs to find, rising: in every trial's validation, in no trial's training."""
    pairs: NDArray[np.int64] | None = None
    for rules in trials:
        events = _cleaned(raw, rules, ids)
        valid = _part(events, VALID) if held is None else held
        pairs = np.unique(_key(valid)) if pairs is None else pairs[_among(pairs, valid)]
        pairs = pairs[~_among(pairs, _part(events, TRAIN))]
    return pairs  # type: ignore[return-value]


def _among(pairs: NDArray[np.int64], events: Interactions) -> NDArray[np.bool_]:
    """Return which of the rising pairs are among the events, a piece of these at a time."""
    met = np.zeros(len(pairs), bool)
    for start in range(0, len(events) if len(pairs) else 0, _CHUNK):
        key = _key(events.select(np.arange(start, min(start + _CHUNK, len(events)))))
        at = np.minimum(np.searchsorted(pairs, key), len(pairs) - 1)
        met[at[pairs[at] == key]] = True
    return met


def _key(events: Interactions) -> NDArray[np.int64]:
    return events.user_row.astype(np.int64) * events.num_items + events.item_row


def _drawn(targets: NDArray[np.int64], raw: Events, seed: int) -> Interactions:
    """Return the targets of some users, drawn where there are many."""
    user, item = targets // raw.num_items, targets % raw.num_items
    users = np.unique(user)
    if len(users) > _ASKED:
        asked = rng(seed, "effect").choice(users, _ASKED, replace=False)
        chosen = np.isin(user, asked)
        user, item = user[chosen], item[chosen]
    time_s = np.zeros(len(user), np.int64) if "time_s" in raw.columns else None
    return Interactions.sort(
        user, item, None, time_s, num_users=raw.num_users, num_items=raw.num_items
    )


def _dataset(
    names: Sequence[Vocabulary],
    train: Interactions,
    valid: Interactions,
    tables: Sequence[dict[str, Column]],
) -> Dataset:
    nothing = valid.select(np.zeros(len(valid), bool))
    return Dataset(names[0], names[1], train, valid, nothing, tables[1], tables[0])


def _signed(gain: Interval) -> str:
    return f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"


def _warm_up(
    model: Any, train: Interactions, tables: Sequence[dict[str, Column]], seed: int
) -> None:
    """Fit once on a few events and rows, so that no trial's time holds what the first compiles."""
    some = train.select(np.arange(min(len(train), _WARM_UP)))
    users, user = np.unique(some.user_row, return_inverse=True)
    items, item = np.unique(some.item_row, return_inverse=True)
    small = Interactions.sort(
        user, item, some.weight, some.time_s, num_users=len(users), num_items=len(items)
    )
    names = [Vocabulary.of(range(len(rows))) for rows in (users, items)]
    few = [
        {
            name: column.take(rows) if isinstance(column, Text) else column[rows]
            for name, column in table.items()
        }
        for table, rows in zip(tables, (users, items), strict=True)
    ]
    # A model that cannot be fitted on so little is timed with what it compiles.
    with suppress(MartletError):
        fit(model, _dataset(names, small, small.select(np.zeros(len(small), bool)), few), seed=seed)


def _measure(model: Any, dataset: Dataset, seed: int) -> tuple[float, NDArray[np.float64]]:
    """Return the seconds of the fit, and NDCG@10 of each user."""
    start = time.perf_counter()
    bundle = fit(model, dataset, seed=seed)
    fit_s = time.perf_counter() - start
    found = evaluate(bundle, dataset, part="valid", ks=(10,), metrics=("ndcg",), per_user=True)
    return fit_s, found.users[QUALITY]
