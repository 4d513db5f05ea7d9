"""From a log to a dataset: parse, clean, split, number by frequency, join the side tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from martlet.core import (
    Array,
    Column,
    DataError,
    Dataset,
    Interactions,
    Progress,
    Text,
    Vocabulary,
    num_threads,
)
from martlet.data import clean as cleaning
from martlet.data.events import Events, gather
from martlet.data.formats import stated
from martlet.data.numbering import Texts, is_number, numbering_of
from martlet.data.parse import LEAST_WEIGHT, parse
from martlet.data.reading import Log, read
from martlet.data.rejects import Rejects, rejects_to
from martlet.data.side import join_table
from martlet.data.splits import TEST, VALID, GivenSplit, RandomSplit, Split, TimeSplit, leakage
from martlet.kernels.events import count_rows

_STEPS = 5
GIVEN = ("test", "valid")  # the logs that a given split brings, in its order
Ids = tuple[pl.Series, pl.Series]


def prepare(
    log: Log | Any,
    *,
    items: Any = None,
    users: Any = None,
    clean: Sequence[Any] = cleaning.DEFAULT,
    split: Split | None = None,
    seed: int = 0,
    rejects: str | Path | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Return the dataset of a log; see ``docs/decisions/reading.md`` for its time and memory.

    Args:
        log: what ``read`` gave, or anything it takes.
        items: a side table joined by item id; becomes the catalogue.
        users: a side table joined by user id.
        clean: rules, in order.
        split: default ``TimeSplit()``.
        seed: drives a random split.
        rejects: a Parquet file for the rows put aside, with their reason.
        strict: raise at the first bad row in place of counting it.
        progress: told of each step.

    Raises:
        DataError: nothing can be read, nothing is left, a bad row under ``strict``, or a split
            that the log cannot have.
        OutputError: the file of rejects could not be written.
    """
    log = log if isinstance(log, Log) else read(log)
    split = TimeSplit() if split is None else split
    step = _stepper(progress)
    step("read")
    with rejects_to(rejects, log.frame.collect_schema().names()) as aside:
        (events, *others), ids, labels, reports = encode(log, split, aside, strict=strict)
        step("clean")
        reports += cleaning.apply(events, clean, ids, aside, labels)
        for kind, other in zip(GIVEN, others, strict=False):
            alone = [rule for rule in clean if getattr(rule, "by_event", False)]
            found = cleaning.apply(other, alone, ids, aside, labels)
            reports += [report._replace(rule=f"{kind} log: {report.rule}") for report in found]
    if not len(events):
        raise DataError(
            "no event is left after cleaning: "
            + "; ".join(f"{r.rule} left {r.rows_out:,} of {r.rows_in:,}" for r in reports)
        )
    step("split")
    part = assign(events.view(), split, seed)
    if not (part == 0).any():
        raise DataError(
            f"the split {split} leaves nothing to train on of {len(events):,} events: "
            "give smaller shares, or another split"
        )
    step("number")
    names, (train, valid, test) = _number(events, part, others, ids)
    step("join")
    about: dict[str, Any] = {
        "source": list(log.files),
        "format": log.format,
        "columns": dict(log.columns) | {name: name for name in log.context},
        "seed": seed,
        "split": str(split) if not isinstance(split, GivenSplit) else "given",
        "cleaning": [report._asdict() for report in reports],
        "leakage": leakage(train, valid, test),
    }
    tables: list[dict[str, Column]] = [{}, {}]
    for role, table in ((0, users), (1, items)):
        if table is not None:
            kind = ("user", "item")[role]
            tables[role], about[f"{kind}s joined"] = join_table(names[role], table, kind)
    about["counts"] = {
        "num_users": len(names[0]), "num_items": len(names[1]),
        "train": len(train), "valid": len(valid), "test": len(test),
    }  # fmt: skip
    about["threads"] = num_threads()
    user_ids, item_ids = (Vocabulary.of(column.to_list()) for column in names)
    texts = {name: Text.of(known.to_list()) for name, known in labels.items()}
    return Dataset(user_ids, item_ids, train, valid, test, tables[1], tables[0], about, texts)


def _stepper(progress: Progress | None) -> Callable[[str], None]:
    done = [0]

    def step(name: str) -> None:
        if progress is not None:
            progress("prepare", done[0], _STEPS)
        done[0] += 1

    return step


def encode(
    log: Log, split: Split, rejects: Rejects | None = None, *, strict: bool = False
) -> tuple[list[Events], Ids, dict[str, pl.Series], list[cleaning.RuleReport]]:
    """Return sorted events over common rows: of the log, and of the logs that ``split`` gives.

    Args:
        log: what ``read`` gave.
        split: a given one brings a test log, and perhaps a validation log.
        rejects: takes the bad rows.
        strict: whether a bad row is an error.

    Returns:
        The events of each log; the ids of the user rows and of the item rows, both rising; the
        texts that the codes of a column of texts stand for, rising; and what was found wrong.

    Raises:
        DataError: a log that cannot be read, or without a good row.
    """
    logs = [log]
    if isinstance(split, GivenSplit):
        given = [split.test] if isinstance(split.valid, float | int) else [split.test, split.valid]
        logs += [one if isinstance(one, Log) else read(one) for one in given]
    schemas = []
    for one in logs:
        with stated(one.files):
            schemas.append(one.frame.collect_schema())
    roles = ("user_id", "item_id")
    numberings = {name: numbering_of([schema[name] for schema in schemas]) for name in roles}
    codes = {
        name: Texts()
        for name in ("basket", *log.context)
        if not all(is_number(schema[name]) for schema in schemas if name in schema)
    }
    tables, reports = [], []
    for one, kind in zip(logs, ("", *(f"{name} log: " for name in GIVEN)), strict=False):
        columns, found = parse(one, numberings, codes, rejects or Rejects(), strict=strict)
        tables.append(columns)
        reports += [report._replace(rule=kind + report.rule) for report in found]
    ids = []
    for name, numbering in numberings.items():
        known, rows = numbering.rows([columns.pop(name) for columns in tables])
        ids.append(known)
        for columns, row in zip(tables, rows, strict=True):
            columns[name.replace("id", "row")] = row
        del rows, row
    labels = {}
    for name, texts in codes.items():
        having = [columns for columns in tables if name in columns]
        labels[name], rows = texts.rows([columns[name] for columns in having])
        for columns, row in zip(having, rows, strict=True):
            columns[name] = np.where(columns[name] < 0, np.int32(-1), row)  # type: ignore[operator]
    events = [Events(columns, len(ids[0]), len(ids[1])) for columns in tables]
    for each in events:
        if "weight" not in each.columns:
            each.columns["weight"] = _weight(each.columns.get("rating"), len(each))
        each.sort()
    return events, (ids[0], ids[1]), labels, reports


def _weight(rating: Any, num_events: int) -> Array:
    """Return the rating itself where it can be, or ones."""
    if rating is None:
        return np.ones(num_events, np.float32)
    positive = rating > 0
    return rating if positive.all() else np.where(positive, rating, LEAST_WEIGHT)


def assign(events: Interactions, split: Split, seed: int) -> NDArray[np.int8]:
    """Return the (n,) part of each event; a given split cuts validation from train alone.

    Raises:
        DataError: a split that the events cannot have.
    """
    if not isinstance(split, GivenSplit):
        return split.assign(events, seed)
    if isinstance(split.valid, float | int) and split.valid:
        return RandomSplit(float(split.valid), 0.0).assign(events, seed)
    return np.zeros(len(events), np.int8)


def _number(
    events: Events, part: NDArray[np.int8], others: list[Events], ids: Ids
) -> tuple[list[pl.Series], list[Interactions]]:
    """Number users and items by training frequency, ties by id; return their ids, and the parts."""
    names, rows = [], []
    for name, known in zip(("user_row", "item_row"), ids, strict=True):
        trained, met = (np.zeros(len(known), np.int64) for _ in range(2))
        count_rows(events.columns[name], part, trained, met)
        for other in others:
            count_rows(other.columns[name], np.ones(len(other), np.int8), trained, met)
        # The ids are sorted already, so a stable sort by frequency breaks ties by id.
        order = np.argsort(-trained, kind="stable")
        kept = order[met[order] > 0]
        row = np.full(len(known), -1, np.int32)
        row[kept] = np.arange(len(kept), dtype=np.int32)
        names.append(known.gather(kept))
        rows.append(row)
    parts = _cut(events, part, rows)
    for number, other in zip((TEST, VALID), others, strict=False):
        parts[number] = _cut(other, np.zeros(len(other), np.int8), rows)[0]
    return names, parts


def _cut(
    events: Events, part: NDArray[np.int8], rows: Sequence[NDArray[np.int32]]
) -> list[Interactions]:
    """Return the three parts under new row numbers; each is a range of the same arrays."""
    for name, row in zip(("user_row", "item_row"), rows, strict=True):
        events.columns[name] = gather(row, events.columns[name])
    events.num_users, events.num_items = (int(row.max()) + 1 for row in rows)
    events.sort(part, 3)
    ends = np.cumsum([0, *(np.count_nonzero(part == number) for number in range(3))])
    return [events.range(start, end) for start, end in itertools.pairwise(ends.tolist())]
