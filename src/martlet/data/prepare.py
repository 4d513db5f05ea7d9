"""From a log to a dataset: parse, clean, split, number by frequency, join the side tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from martlet.core import (
    Column,
    DataError,
    Dataset,
    Interactions,
    Progress,
    Text,
    Vocabulary,
    new_file,
    num_threads,
)
from martlet.data import clean as cleaning
from martlet.data.clean import RuleReport
from martlet.data.formats import stated
from martlet.data.reading import Log, as_float, as_seconds, read, read_table
from martlet.data.splits import GivenSplit, RandomSplit, Split, TimeSplit, leakage

# What can be wrong with a row, first match wins; 0 is a good row.
_REASONS = ("", "missing id", "unparsable rating", "unparsable time", "bad weight", "unknown event")
_STEPS = 5


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
    """Return the dataset of a log; peak memory is about 50 bytes an event.

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
    """
    log = log if isinstance(log, Log) else read(log)
    split = TimeSplit() if split is None else split
    step = _stepper(progress)
    step("read")
    frame, reports, bad = _parse(log, strict)
    given = [] if not isinstance(split, GivenSplit) else _given(split)
    others = [_parse(other, strict)[0] for other in given]
    step("number")
    frames = [frame, *others]
    user_ids, user_rows = _number([f["user_id"] for f in frames])
    item_ids, item_rows = _number([f["item_id"] for f in frames])
    sizes = {"num_users": len(user_ids), "num_items": len(item_ids)}
    parts = []
    for f, u, i in zip(frames, user_rows, item_rows, strict=True):
        columns = {n: f[n].to_numpy() for n in f.columns if n not in _OWN}
        time_s = f["time_s"].to_numpy() if "time_s" in f.columns else None
        parts.append(
            Interactions.sort(u, i, f["weight"].to_numpy(), time_s, extra=columns, **sizes)
        )
    del frame, frames, others
    step("clean")

    def name_of(user: int, item: int) -> str:
        return f"user {user_ids[int(user)]}, item {item_ids[int(item)]}"

    events, more, aside = cleaning.apply(parts[0], clean, name_of)
    reports += more
    if rejects is not None:
        _write_rejects(rejects, bad, aside, user_ids, item_ids)
    if not len(events):
        raise DataError(
            "no event is left after cleaning: "
            + "; ".join(f"{r.rule} left {r.rows_out:,} of {r.rows_in:,}" for r in reports)
        )
    step("split")
    train, valid, test = _split(events, parts[1:], split, seed)
    if not len(train):
        raise DataError(
            f"the split {split} leaves nothing to train on of {len(events):,} events: "
            "give smaller shares, or another split"
        )
    step("join")
    about: dict[str, Any] = {
        "source": list(log.files),
        "format": log.format,
        "columns": dict(log.columns),
        "seed": seed,
        "split": str(split) if not isinstance(split, GivenSplit) else "given",
        "cleaning": [report._asdict() for report in reports],
        "leakage": leakage(train, valid, test),
    }
    return _assemble([train, valid, test], user_ids, item_ids, items, users, about)


_OWN = ("user_id", "item_id", "weight", "time_s")


def _stepper(progress: Progress | None) -> Any:
    done = [0]

    def step(name: str) -> None:
        if progress is not None:
            progress("prepare", done[0], _STEPS)
        done[0] += 1

    return step


def _parse(log: Log, strict: bool) -> tuple[pl.DataFrame, list[RuleReport], pl.DataFrame]:
    """Return typed good rows, a report, and the bad rows with their reason."""
    with stated(log.files):
        schema = log.frame.collect_schema()
    checks: list[tuple[int, pl.Expr]] = []
    columns: list[pl.Expr] = []
    for name in ("user_id", "item_id"):
        text = schema[name] == pl.String
        ids = pl.col(name).str.strip_chars() if text else pl.col(name)
        if not text and not schema[name].is_integer():
            ids = ids.cast(pl.String, strict=False)
        missing = ids.is_null() | (ids == "") if text else ids.is_null()
        checks.append((1, missing))
        columns.append(ids.alias(name))
    weight: pl.Expr = pl.lit(1.0)
    if "rating" in schema:
        rating = as_float("rating", schema["rating"])
        checks.append((2, rating.is_null() | ~rating.is_finite()))
        columns.append(rating.cast(pl.Float32).alias("rating"))
        weight = rating
    if "weight" in schema:
        weight = as_float("weight", schema["weight"])
    if "event" in schema:
        known = {str(name).lower(): float(value) for name, value in log.event_weights.items()}
        kind = pl.col("event").cast(pl.String).str.strip_chars().str.to_lowercase()
        weight = kind.replace_strict(known, default=None, return_dtype=pl.Float64)
        checks.append((5, weight.is_null()))
    elif "rating" not in schema or "weight" in schema:
        checks.append((4, weight.is_null() | ~weight.is_finite() | (weight <= 0)))
    if "rating" in schema and "weight" not in schema and "event" not in schema:
        # A rating of zero or below is a rating; as a weight it would say that nothing happened.
        weight = pl.when(weight > 0).then(weight).otherwise(1e-6)
    columns.append(weight.cast(pl.Float32).alias("weight"))
    if "time" in schema:
        time_s = as_seconds("time", schema["time"], log.time_unit)
        checks.append((3, time_s.is_null()))
        columns.append(time_s.alias("time_s"))
    if "basket" in schema:
        columns.append(_as_code("basket", schema["basket"]))
    columns += [_as_code(name, schema[name]) for name in log.context]
    reason: Any = pl.lit(0, pl.UInt8)
    for code, wrong in reversed(checks):
        reason = pl.when(wrong).then(pl.lit(code, pl.UInt8)).otherwise(reason)
    with stated(log.files):
        frame = log.frame.select(*columns, reason.alias("reason")).collect(engine="streaming")
        rows_in = len(frame)
        bad_row = frame["reason"] > 0
        num_bad = int(bad_row.sum())
        if not rows_in:
            raise DataError(f"{log.files[0]} holds no event: expected rows below the header")
        if not num_bad:
            return frame.drop("reason"), [RuleReport("parsed", rows_in, rows_in, [])], frame[:0]
        codes = frame.filter(bad_row)["reason"].to_numpy()
        raw = log.frame.with_row_index("row").filter(bad_row).collect()
    bad = raw.with_columns(pl.Series("reason", [_REASONS[code] for code in codes]))
    reports = _bad_reports(bad, rows_in)
    if strict:
        first = bad.row(0, named=True)
        row = first.pop("row")
        raise DataError(
            f"{log.files[0]}, row {row + 1}: {first.pop('reason')} in {first}; mend it, or leave "
            "out --strict to count such rows and go on"
        )
    if num_bad == rows_in:
        counted = ", ".join(f"{r.rule} {r.rows_in - r.rows_out:,}" for r in reports)
        raise DataError(
            f"{log.files[0]} has no good row among {rows_in:,} ({counted}; first: "
            f"{reports[0].examples[0]}): check the columns and the separator"
        )
    return frame.filter(~bad_row).drop("reason"), reports, bad


def _as_code(name: str, dtype: Any) -> pl.Expr:
    """Numbers stay; text becomes the code of its category."""
    if dtype.is_numeric():
        return pl.col(name)
    return pl.col(name).cast(pl.String).cast(pl.Categorical).to_physical().alias(name)


def _bad_reports(bad: pl.DataFrame, rows_in: int) -> list[RuleReport]:
    reports, left = [], rows_in
    for (reason,), rows in bad.group_by("reason", maintain_order=True):
        examples = [
            f"row {row.pop('row') + 1}: {', '.join(f'{k}={v!r}' for k, v in row.items())}"
            for row in rows.drop("reason").head(3).to_dicts()
        ]
        reports.append(RuleReport(str(reason), left, left - len(rows), examples))
        left -= len(rows)
    return reports


def _given(split: GivenSplit) -> list[Log]:
    logs = [split.test] if isinstance(split.valid, float | int) else [split.test, split.valid]
    return [log if isinstance(log, Log) else read(log) for log in logs]


def _number(columns: list[pl.Series]) -> tuple[pl.Series, list[NDArray[np.int32]]]:
    """Return the distinct ids of all columns, sorted, and each column as rows of them."""
    if len({column.dtype for column in columns}) > 1:
        columns = [column.cast(pl.String) for column in columns]
    ids = pl.concat([column.unique() for column in columns]).unique().sort()
    if ids.dtype.is_integer():
        values = ids.to_numpy()
        rows = [np.searchsorted(values, c.to_numpy()).astype(np.int32) for c in columns]
        return ids.cast(pl.String), rows
    numbers = pl.DataFrame({"id": ids}).with_row_index("row")
    rows = [
        pl.DataFrame({"id": column})
        .join(numbers, on="id", how="left", maintain_order="left")["row"]
        .cast(pl.Int32)
        .to_numpy()
        for column in columns
    ]
    return ids, rows


def _split(
    events: Interactions, given: list[Interactions], split: Split, seed: int
) -> list[Interactions]:
    if not isinstance(split, GivenSplit):
        part = split.assign(events, seed)
        return [events.select(part == number) for number in range(3)]
    if len(given) == 2:
        return [events, given[1], given[0]]
    if not split.valid:
        return [events, events.select(np.zeros(len(events), bool)), given[0]]
    part = RandomSplit(float(split.valid), 0.0).assign(events, seed)
    return [events.select(part == 0), events.select(part == 1), given[0]]


def _assemble(
    parts: list[Interactions],
    user_ids: pl.Series,
    item_ids: pl.Series,
    items: Any,
    users: Any,
    about: dict[str, Any],
) -> Dataset:
    """Number users and items by training frequency, then join the side tables."""
    kept: dict[str, Any] = {}
    for role, ids, column in (("users", user_ids, "user_row"), ("items", item_ids, "item_row")):
        counts = np.bincount(getattr(parts[0], column), minlength=len(ids))
        met = sum(np.bincount(getattr(part, column), minlength=len(ids)) for part in parts)
        # The ids are sorted already, so a stable sort by frequency breaks ties by id.
        order = np.argsort(-counts, kind="stable")
        kept[role] = order[np.asarray(met)[order] > 0]
    tables: dict[str, dict[str, Column]] = {}
    for role, ids, given in (("users", user_ids, users), ("items", item_ids, items)):
        names = ids.gather(kept[role])
        tables[role] = {}
        if given is not None:
            tables[role], about[f"{role} joined"] = _join(names, given, role.removesuffix("s"))
        kept[f"{role} names"] = names.to_list()
    rows: dict[str, NDArray[np.int32]] = {}
    for role, ids in (("users", user_ids), ("items", item_ids)):
        rows[role] = np.full(len(ids), -1, np.int32)
        rows[role][kept[role]] = np.arange(len(kept[role]), dtype=np.int32)
    sizes = {"num_users": len(kept["users"]), "num_items": len(kept["items"])}
    renumbered = [
        Interactions.sort(
            rows["users"][part.user_row],
            rows["items"][part.item_row],
            part.weight,
            part.time_s,
            extra=part.extra,
            **sizes,
        )
        for part in parts
    ]
    about["counts"] = sizes | {
        name: len(part) for name, part in zip(("train", "valid", "test"), renumbered, strict=True)
    }
    about["threads"] = num_threads()
    train, valid, test = renumbered
    return Dataset(
        Vocabulary.of(kept["users names"]),
        Vocabulary.of(kept["items names"]),
        train,
        valid,
        test,
        tables["items"],
        tables["users"],
        about,
    )


def _join(names: pl.Series, given: Any, kind: str) -> tuple[dict[str, Column], dict[str, int]]:
    """Return the side table's columns in row order, and how many ids matched."""
    table = read_table(given, kind=kind)
    twice = len(table) - table["id"].n_unique()
    table = table.unique("id", keep="first", maintain_order=True)
    joined = pl.DataFrame({"id": names}).join(
        table.with_columns(pl.lit(True).alias("_met")), on="id", how="left", maintain_order="left"
    )
    matched = int(joined["_met"].fill_null(False).sum())
    columns: dict[str, Column] = {}
    titles = ("title", "name", "movietitle", "column2")
    for name in joined.columns:
        if name in ("id", "_met"):
            continue
        column = joined[name]
        plain = "".join(letter for letter in name.lower() if letter.isalnum())
        label = "title" if plain in titles and "title" not in table.columns else name
        if column.dtype.is_numeric():
            columns[label] = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        else:
            columns[label] = Text.of(column.cast(pl.String).fill_null("").to_list())
    counts = {
        "matched": matched,
        f"{kind}s of the log without a row": len(names) - matched,
        "rows without an event": len(table) - matched,
        "ids twice": twice,
    }
    return columns, counts


def _write_rejects(
    path: str | Path,
    bad: pl.DataFrame,
    aside: list[tuple[str, Interactions]],
    user_ids: pl.Series,
    item_ids: pl.Series,
) -> None:
    """Write every row put aside with its reason; nothing vanishes."""
    frames = []
    if len(bad):
        frames.append(bad.select(pl.all().cast(pl.String)))
    for reason, events in aside:
        columns: dict[str, Any] = {
            "user_id": user_ids.gather(events.user_row),
            "item_id": item_ids.gather(events.item_row),
            "weight": pl.Series(events.weight).cast(pl.String),
            "reason": [reason] * len(events),
        }
        if events.time_s is not None:
            columns["time"] = pl.Series(events.time_s).cast(pl.String)
        frames.append(pl.DataFrame(columns))
    table = pl.concat(frames, how="diagonal") if frames else pl.DataFrame({"reason": []})
    with new_file(path) as target:
        table.write_parquet(target)
