"""From a labelled table to examples: parse labels, find numbers and text, split."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from martlet.core import (
    DataError,
    Examples,
    Progress,
    SpecError,
    Tabular,
    Text,
    num_threads,
    rng,
)  # fmt: skip
from martlet.core.dataset import PARTS
from martlet.data.formats import Raw
from martlet.data.labelled import GOOD, Roles, Source, is_text
from martlet.data.reading import TimeUnit, raw_of
from martlet.data.rejects import rejects_to
from martlet.data.side import holds_numbers
from martlet.data.splits import TEST, VALID, GivenSplit, RandomSplit, Split, TimeSplit
from martlet.kernels.parallel import in_order

_STEPS = 4
_OF_PANDAS = re.compile(r"__index_level_\d+__")  # a row's number: pandas leaves it in Parquet files


def prepare_examples(
    rows: Any,
    *,
    label: str,
    positive: str | None = None,
    regression: bool = False,
    weight: str | None = None,
    time: str | None = None,
    time_unit: TimeUnit = "auto",
    columns: Sequence[str] = (),
    drop: Sequence[str] = (),
    split: Split | None = None,
    seed: int = 0,
    format: str | None = None,
    sep: str | None = None,
    header: bool | None = None,
    rejects: str | Path | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Tabular:
    """Return the labelled rows of a table, split; they are read in batches, twice where it is text.

    A column becomes numbers where each value is one, or a word for none such as "N/A" (then NaN);
    one in which a number has a leading zero, and every other, stays text, as it is written. A bad
    row (no label, a broken line ...) is counted and put aside.

    Args:
        rows: CSV, TSV, JSON lines or Parquet files, or a Polars, pandas or Arrow table; as ``read``
            takes them.
        label: name of the column to be predicted.
        positive: the text that makes a label 1; any other makes it 0. Without it labels are 0 and
            1, yes and no, or true and false.
        regression: labels are any numbers, which a model with the squared loss tells; such a table
            is measured by how far they are off.
        weight: name of a column of weights in the training loss.
        time: name of a column of times; no feature, it is there to split by.
        time_unit: as in ``read``.
        columns: names of the features; none takes all columns without another part to play, but
            for the index that pandas leaves in a file.
        drop: names of columns to leave out, such as ids of rows.
        split: default ``TimeSplit()`` where there is a time, else ``RandomSplit()``, which draws
            the same share of each label of 0 and 1. ``GivenSplit(test, valid)`` takes another
            table.
        seed: drives a random split.
        format: as in ``read``.
        sep: as in ``read``.
        header: as in ``read``.
        rejects: a Parquet file for the rows put aside, with their reason.
        strict: raise at the first bad row in place of counting it.
        progress: told of each step.

    Raises:
        DataError: nothing can be read, a column is missing, labels are of unknown words or all
            alike, a bad row under ``strict``, or a split that the rows cannot have.
        SpecError: an unknown unit of time, a split by users, or ``positive`` in a regression.
        OutputError: the file of rejects could not be written.

    >>> table = {"age": [31, 44, 59, 27], "city": ["Bern", "Oslo", "", ""], "buys": list("ynyn")}
    >>> data = prepare_examples(table, label="buys", split=RandomSplit(0, 0.5))
    >>> data.kinds, len(data.train), sorted(data.test.label.tolist())
    ({'age': 'number', 'city': 'text'}, 2, [0.0, 1.0])
    """
    if time_unit not in get_args(TimeUnit):
        units = ", ".join(get_args(TimeUnit))
        raise SpecError(f"the time unit {time_unit!r} is unknown: expected one of {units}")
    if regression and positive is not None:
        raise SpecError(
            f"positive is {positive!r}, and the labels of a regression are numbers: leave one out"
        )
    roles = Roles(label, positive, weight, time, time_unit, regression)
    split = _split(split, roles)
    step = _stepper(progress)
    step()
    how: dict[str, Any] = {"format": format, "sep": sep, "header": header, "named": roles.columns}
    tables = [rows]
    if isinstance(split, GivenSplit):
        tables += [split.test] if _is_share(split.valid) else [split.test, split.valid]
    raws = [raw_of(table, **how) for table in tables]
    features = _features(raws[0], roles, columns, drop)
    sources = [
        Source(raw, roles, features, kind)
        for raw, kind in zip(raws, ("", "test table: ", "valid table: "), strict=False)
    ]
    step()
    texts = _texts(sources, features)
    step()
    with rejects_to(rejects, raws[0].names) as aside:
        found = [source.read(texts, aside, strict=strict) for source in sources]
    step()
    train, *others = (examples for examples, _ in found)
    parts = _cut(train, others, split, seed, roles)
    for name, part in zip(PARTS, parts, strict=True):
        _check_labels(name, part, sources[0], needed=name == "train")
    means = {
        name: float(part.label.mean()) if len(part) else None
        for name, part in zip(PARTS, parts, strict=True)
    }
    about = {
        "source": raws[0].files,
        "format": raws[0].format,
        "label": {"column": label, "positive": positive, **_only("regression", regression)},
        "weight": weight,
        "time": time,
        "split": "given" if isinstance(split, GivenSplit) else str(split),
        "seed": seed,
        "cleaning": [report._asdict() for _, reports in found for report in reports],
        "counts": {name: len(part) for name, part in zip(PARTS, parts, strict=True)},
        "mean label" if regression else "share of label 1": means,
        "threads": num_threads(),
    }  # fmt: skip
    return Tabular(parts[0], parts[1], parts[2], about)


def _texts(sources: Sequence[Source], features: Sequence[str]) -> set[str]:
    """Return the features that are text: those with a value in a good row that is no number."""
    texts = {
        name
        for name in features
        if any(is_text(s.schema[name]) and s.schema[name] != pl.String for s in sources)
    }
    numeric: set[str] = set()
    for source in sources:
        strings = {name for name in features if source.schema[name] == pl.String}
        numeric |= set(features) - strings - texts
        for batch, reason, _ in source.batches() if strings - texts else ():
            kept = batch.filter(pl.Series(reason == GOOD))
            asked = sorted(strings - texts)
            told = in_order(lambda name: holds_numbers(kept[name]), asked, num_threads())  # noqa: B023
            for name, holds in zip(asked, list(told), strict=True):
                if holds is False:
                    texts.add(name)
                elif holds:
                    numeric.add(name)
            if not strings - texts:
                break
    return texts | (set(features) - numeric)


def _features(raw: Raw, roles: Roles, columns: Sequence[str], drop: Sequence[str]) -> list[str]:
    """Return the names of the features in the order of the table.

    Raises:
        DataError: a name that is no column, or has another part to play; no feature is left.
    """
    for name in (*roles.columns, *columns, *drop):
        if name not in raw.names:
            raise DataError(f"{raw.files[0]} has no column {name!r}: it has {', '.join(raw.names)}")
    twice = [name for name in columns if name in roles.columns or name in drop]
    if twice or len(set(roles.columns)) < len(roles.columns):
        name = twice[0] if twice else roles.columns[0]
        raise DataError(
            f"column {name!r} has two parts to play: label, weight and time are columns of their "
            "own, and no features"
        )
    found = [
        name
        for name in raw.names
        if name not in roles.columns
        and name not in drop
        and (name in columns if columns else not _OF_PANDAS.fullmatch(name))
    ]
    if not found:
        raise DataError(f"{raw.files[0]} has no column beside the label to learn from")
    return found


def _split(split: Split | None, roles: Roles) -> Any:
    if split is None:
        split = RandomSplit() if roles.time is None else TimeSplit()
    if isinstance(split, TimeSplit) and roles.time is None:
        raise DataError(
            "a split by time needs a column of times: name it with --time-col, or use "
            "--split random:0.1,0.1"
        )
    if not isinstance(split, TimeSplit | RandomSplit | GivenSplit):
        raise SpecError(
            f"the split {split} is by users, and labelled rows have none: expected time:V,T or "
            "random:V,T"
        )
    return split


def _cut(
    train: Examples, others: list[Examples], split: Any, seed: int, roles: Roles
) -> list[Examples]:
    """Return the train, validation and test rows, each in the order of its table."""
    alike = np.zeros_like(train.label) if roles.regression else train.label
    if isinstance(split, TimeSplit):
        part = split.of_times(train.time_s)  # type: ignore[arg-type]
    elif isinstance(split, RandomSplit):
        part = _drawn(alike, split.valid, split.test, seed)
    else:
        share = float(split.valid) if _is_share(split.valid) else 0.0
        part = _drawn(alike, share, 0.0, seed)
    rows = [np.flatnonzero(part == number) for number in range(3)]
    columns: Any = train.columns
    cut: list[dict[str, Any]] = [{}, {}, {}]
    for name in list(columns):
        column = columns.pop(name)  # nobody else has the whole table: it goes as its parts come
        for number in range(3):
            taken = column.take(rows[number]) if isinstance(column, Text) else column[rows[number]]
            cut[number][name] = taken
    parts = [
        Examples(
            cut[number],
            train.label[at],
            None if train.weight is None else train.weight[at],
            None if train.time_s is None else train.time_s[at],
        )
        for number, at in enumerate(rows)
    ]
    for number, other in zip((TEST, VALID), others, strict=False):
        parts[number] = other
    return parts


def _drawn(label: NDArray[np.float32], valid: float, test: float, seed: int) -> NDArray[np.int8]:
    """Return (n,) int8 parts, with the same shares of each label."""
    part = np.zeros(len(label), np.int8)
    random = rng(seed, "split examples")
    for value in (0, 1):
        rows = random.permutation(np.flatnonzero(label == value))
        num_test, num_valid = (round(len(rows) * share) for share in (test, valid))
        part[rows[:num_test]] = TEST
        part[rows[num_test : num_test + num_valid]] = VALID
    return part


def _check_labels(name: str, part: Examples, source: Source, *, needed: bool) -> None:
    """Refuse a part without a row where one is needed, and one whose labels tell nothing."""
    if not len(part):
        if needed:
            raise DataError(
                f"the split leaves nothing to train on of {source.file}: give smaller shares"
            )
        return
    if needed and part.label.min() == part.label.max():
        raise DataError(
            f"all {len(part):,} labels of part {name!r} of {source.file} are {part.label[0]:g}: "
            "expected both 0 and 1, or numbers that differ; look at --label and --positive"
        )


def _only(name: str, said: bool) -> dict[str, bool]:
    return {name: said} if said else {}


def _is_share(valid: Any) -> bool:
    return isinstance(valid, float | int)


def _stepper(progress: Progress | None) -> Callable[[], None]:
    done = [0]

    def step() -> None:
        if progress is not None:
            progress("prepare", done[0], _STEPS)
        done[0] += 1

    return step
