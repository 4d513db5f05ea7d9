"""Labelled rows: what ``prepare``, ``describe`` and ``measure`` do with them, and ``predict``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from martlet.cli.config import beside, save_config
from martlet.cli.options import Bundle, Config, Force, Json, check_free, repeated
from martlet.cli.output import number, print_json, print_table, progress

if TYPE_CHECKING:
    from martlet.core import Tabular
    from martlet.scorers.bundle import Bundle as Stored

# What is of users and items, or of events, has nothing to say of rows.
_OF_EVENTS = (
    "items", "users", "user_col", "item_col", "rating_col", "event_col", "basket_col",
    "context_col", "event_weight", "duplicates", "min_rating", "min_user", "min_item", "max_user",
    "half_life_days", "effect",
)  # fmt: skip


def prepare_rows(
    context: typer.Context,
    log: str,
    out: Path,
    *,
    sql: str | None,
    label: str,
    positive: str | None,
    regression: bool,
    columns: Sequence[str],
    drop: Sequence[str],
    split: str | None,
    test: str | None,
    valid: str,
    weight_col: str | None,
    time_col: str | None,
    time_unit: Any,
    format: str | None,
    sep: str | None,
    no_header: bool,
    rejects: Path | None,
    strict: bool,
    seed: int,
    force: bool,
    json_: bool,
) -> None:
    """Read, split and save labelled rows; the options are those of ``prepare``."""
    from martlet.core.stored_examples import PROOF
    from martlet.data import GivenSplit, parse_split, prepare_examples
    from martlet.data.reading import queried

    for name in _OF_EVENTS:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(
                f"--{name.replace('_', '-')} is of events of users and items, and --label reads "
                "labelled rows: leave one of them out"
            )
    check_free(out, force, PROOF)
    split = split or ("random:0.1,0.1" if time_col is None else "time:0.1,0.1")
    context.params["split"] = split  # the configuration tells it
    cut: Any = parse_split(split)
    if test is not None:
        cut = GivenSplit(test, float(valid) if valid.replace(".", "", 1).isdigit() else valid)
    with progress(quiet=json_) as note:
        data = prepare_examples(
            log if sql is None else queried(sql, log),
            label=label, positive=positive, regression=regression, weight=weight_col,
            time=time_col, time_unit=time_unit, columns=columns, drop=drop, split=cut, seed=seed,
            format=format, sep=sep, header=False if no_header else None, rejects=rejects,
            strict=strict, progress=note,
        )  # fmt: skip
        data.save(out)
        save_config(beside(out), context)
    if json_:
        print_json({**data.about, "columns": data.kinds})
        return
    from martlet.cli.data import print_cleaning

    print_cleaning(log, data.about["cleaning"])
    _print_parts(data)
    print(f"saved {out}")


def _print_parts(data: Tabular) -> None:
    for kind, words in (("number", "numbers"), ("text", "text")):
        names = [name for name, found in data.kinds.items() if found == kind]
        print(f"{words}: {', '.join(names) or 'none'}")
    shares, means = (data.about.get(n, {}) for n in ("share of label 1", "mean label"))
    for name in ("train", "valid", "test"):
        share, mean = shares.get(name), means.get(name)
        told = "" if share is None else f", {share:.2%} of label 1"
        told = told if mean is None else f", label {number(mean)} in the mean"
        print(f"{name}: {len(data.part(name)):,} rows{told}")


def describe_rows(data: Tabular, *, json_: bool) -> None:
    """Say what each column of the train part holds."""
    import numpy as np

    from martlet.core import Text
    from martlet.features.keys import text_keys

    found = []
    for name, column in data.train.columns.items():
        if isinstance(column, Text):
            known: Any = text_keys(column)[np.diff(column.offsets) > 0]
        else:
            numbers = np.asarray(column, np.float64)
            known = numbers[~np.isnan(numbers)]
        missing, distinct = len(column) - len(known), len(np.unique(known))
        found.append(
            {"column": name, "kind": data.kinds[name], "missing": missing, "distinct": distinct}
        )
    if json_:
        print_json({**data.about, "columns": found})
        return
    print_table("Columns of the train part", list(found[0]), [list(one.values()) for one in found])
    _print_parts(data)
    for one in found:
        if one["kind"] == "text" and one["distinct"] == len(data.train):
            print(f"warning: {one['column']} differs in every row: an id? --drop leaves it out")


def measure_rows(
    bundle: Stored,
    data: Any,
    *,
    part: str,
    metrics: Sequence[str],
    cost: bool,
    against: Path | None,
    ledger: Path,
    json_: bool,
) -> None:
    """Measure a bundle that predicts labels, and perhaps another beside it; print the receipt."""
    from martlet.measure.labels import compare_labels
    from martlet.measure.ledger import append
    from martlet.measure.measure import measure
    from martlet.scorers.bundle import Bundle as Stored

    if against is not None and data is None:
        raise typer.BadParameter("--against needs the folder of labelled rows to compare on")
    difference: Mapping[str, Any] = {}
    with progress(quiet=json_) as note:
        receipt = measure(
            bundle, data, part=part, metrics=metrics or None, cost=cost, progress=note
        )
        if against is not None:
            difference = compare_labels(
                Stored.load(against), bundle, data, part=part, metrics=metrics or None,
                progress=note,
            )  # fmt: skip
    append(ledger, receipt)
    if json_:
        told = {name: one._asdict() for name, one in difference.items()}
        print_json(receipt.to_json() | ({"difference": told} if difference else {}))
        return
    print(receipt)
    for name, one in difference.items():
        print(f"{name}: {one.mean:+.4g} [{one.low:+.4g}, {one.high:+.4g}] beside {against}")


def predict(
    context: typer.Context,
    bundle: Bundle,
    rows: Annotated[
        str, typer.Argument(help="A CSV, TSV, JSON lines or Parquet file, a folder or a glob.")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="File to write: .parquet, .csv, .tsv or .jsonl.")
    ],
    *,
    keep: Annotated[
        list[str], repeated(metavar="NAME", help="A column of ROWS to write too, all if left out")
    ],
    name: Annotated[
        str | None,
        typer.Option(help='Of the column of predictions; "probability", or "number", if left out.'),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="A column that ROWS lacks is missing in each.")
    ] = False,
    format: Annotated[str | None, typer.Option(help="The format of ROWS.")] = None,
    sep: Annotated[str | None, typer.Option(help="Separator of a text file.")] = None,
    force: Force = False,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Write what the model tells of each row beside it.

    The probability of label 1, or a number. A line that cannot be read has none, and is counted.
    """
    from martlet.cli.predicting import predict_file
    from martlet.scorers.bundle import Bundle as Stored

    check_free(out, force)
    with progress(quiet=json_) as note:
        done = predict_file(
            Stored.load(bundle), rows, out, keep=keep, name=name, allow_missing=allow_missing,
            format=format, sep=sep, progress=note,
        )  # fmt: skip
    save_config(beside(out), context)
    if json_:
        print_json({"out": str(out), **done._asdict()})
        return
    print(f"wrote {done.num_rows:,} predictions to {out}, {number(done.mean)} in the mean")
    if done.num_bad:
        print(f"warning: {done.num_bad:,} rows could not be read and have none")
    if done.missing:
        print(f"warning: missing in every row: {', '.join(done.missing)}")
