"""From a log to a dataset: ``data get``, ``data describe``, ``prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from martlet.cli.config import beside, save_config
from martlet.cli.options import (
    Config,
    Force,
    Json,
    Out,
    Seed,
    assignments,
    check_free,
    repeated,
)
from martlet.cli.output import print_json, print_table, progress
from martlet.core import SpecError

Column = Annotated[str | None, typer.Option(help="Name of the column in the log.")]


def get(
    name: Annotated[str, typer.Argument(help="The public log; see below.")],
    config: Config = None,
    json_: Json = False,
) -> None:
    """Fetch a public log into the cache and print where it is."""
    from martlet.data.sources import get as fetch

    folder = fetch(name)
    if json_:
        print_json({"name": name, "folder": str(folder)})
    else:
        print(folder)


def describe(
    dataset: Annotated[str, typer.Argument(help="A prepared folder, or a log as 'prepare' takes.")],
    config: Config = None,
    json_: Json = False,
) -> None:
    """Count a dataset or a raw log, and warn of what would hurt."""
    from martlet.core import Dataset as Data
    from martlet.core import Tabular
    from martlet.core.stored import is_tabular
    from martlet.data.describe import describe as look
    from martlet.data.describe import describe_log

    if is_tabular(dataset):
        from martlet.cli.tabular import describe_rows

        describe_rows(Tabular.load(dataset), json_=json_)
        return
    prepared = (Path(dataset) / "dataset.json").exists()
    description = look(Data.load(dataset)) if prepared else describe_log(dataset)
    if json_:
        print_json(description.to_json())
    else:
        print(description)


def synthesize(
    context: typer.Context,
    out: Out,
    *,
    like: Annotated[
        Path | None, typer.Option(help="A prepared dataset to be like; without it MovieLens 100K.")
    ] = None,
    users: Annotated[int, typer.Option(min=1, help="Users of the log.")] = 1000,
    items: Annotated[int, typer.Option(min=1, help="Items of the log.")] = 2000,
    events: Annotated[int, typer.Option(min=1, help="Events of the log.")] = 100_000,
    seed: Seed = 0,
    force: Force = False,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Write a synthetic log of any size, like a real one.

    It is a Parquet file: user_id, item_id, rating, timestamp.
    """
    from martlet.core import Dataset as Data
    from martlet.data.calibrate import calibrate
    from martlet.data.synthetic import synthesize_parquet

    check_free(out, force)
    with progress(quiet=json_) as note:
        calibration = None
        if like is not None:
            source = Data.load(like).train
            calibration = calibrate(source, source=str(like), seed=seed, progress=note)
        synthesize_parquet(
            out, calibration, num_users=users, num_items=items, num_events=events, seed=seed,
            progress=note,
        )  # fmt: skip
    save_config(beside(out), context)
    if json_:
        print_json({"log": str(out), "num_users": users, "num_items": items, "events": events})
    else:
        print(f"wrote {events:,} synthetic events of {users:,} users and {items:,} items to {out}")


def prepare(
    context: typer.Context,
    log: Annotated[str, typer.Argument(help="A file, a folder, a glob or an address.")],
    out: Out,
    *,
    sql: Annotated[
        str | None, typer.Option(help="A query; LOG is then a SQLite file or an address.")
    ] = None,
    items: Annotated[str | None, typer.Option(help="A table joined by item id.")] = None,
    users: Annotated[str | None, typer.Option(help="A table joined by user id.")] = None,
    label: Annotated[
        str | None,
        typer.Option(help="The column to be predicted: LOG is then a table of labelled rows."),
    ] = None,
    positive: Annotated[
        str | None, typer.Option(help="With --label: the text that makes a label 1.")
    ] = None,
    regression: Annotated[
        bool, typer.Option("--regression", help="With --label: the label is any number.")
    ] = False,
    column: Annotated[list[str], repeated(metavar="NAME", help="With --label: only such features")],
    drop: Annotated[
        list[str], repeated(metavar="NAME", help="With --label: a column that is no feature")
    ],
    split: Annotated[
        str | None,
        typer.Option(
            help="time:V,T, random:V,T (shares) or last-out:V,T (events a user); time:0.1,0.1 if "
            "left out, of labelled rows without a time random:0.1,0.1."
        ),
    ] = None,
    test: Annotated[str | None, typer.Option(help="A ready test log; the other trains.")] = None,
    valid: Annotated[str, typer.Option(help="With --test: a share of train, or a log.")] = "0.1",
    user_col: Column = None,
    item_col: Column = None,
    rating_col: Column = None,
    weight_col: Column = None,
    time_col: Column = None,
    event_col: Column = None,
    basket_col: Column = None,
    context_col: Annotated[list[str], repeated(metavar="NAME", help="A column to carry along")],
    event_weight: Annotated[
        list[str], repeated(metavar="TYPE=WEIGHT", help="Such as buy=5; all others are then bad")
    ],
    time_unit: Annotated[
        Literal["auto", "s", "ms", "us", "ns", "iso"], typer.Option(help="How times are written.")
    ] = "auto",
    format: Annotated[str | None, typer.Option(help="The log's format.")] = None,
    sep: Annotated[str | None, typer.Option(help="Separator of a text log.")] = None,
    no_header: Annotated[
        bool, typer.Option("--no-header", help="The first line is an event, not a heading.")
    ] = False,
    duplicates: Annotated[
        Literal["last", "sum", "all"], typer.Option(help="What stays of a pair met again.")
    ] = "last",
    min_rating: Annotated[float | None, typer.Option(help="Drop lower ratings.")] = None,
    min_user: Annotated[int, typer.Option(min=1, help="Events a user needs.")] = 1,
    min_item: Annotated[int, typer.Option(min=1, help="Events an item needs.")] = 1,
    max_user: Annotated[int | None, typer.Option(min=1, help="Events a person may have.")] = None,
    half_life_days: Annotated[float | None, typer.Option(help="Decay weights by age.")] = None,
    rejects: Annotated[Path | None, typer.Option(help="Parquet file of what is put aside.")] = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first bad row.")] = False,
    effect: Annotated[
        bool, typer.Option("--effect", help="Fit with and without each rule; say what it did.")
    ] = False,
    seed: Seed = 0,
    force: Force = False,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Read, clean, split and number a log.

    Prints what each rule of cleaning did. With --label the log is a table of labelled rows, for
    models of fields; what is of users and items or of events has then nothing to say.
    """
    if label is not None:
        from martlet.cli.tabular import prepare_rows

        prepare_rows(
            context, log, out, sql=sql, label=label, positive=positive, regression=regression,
            columns=column, drop=drop, split=split, test=test, valid=valid, weight_col=weight_col,
            time_col=time_col, time_unit=time_unit, format=format, sep=sep, no_header=no_header,
            rejects=rejects, strict=strict, seed=seed, force=force, json_=json_,
        )  # fmt: skip
        return
    of_rows = {"positive": positive, "regression": regression, "column": column, "drop": drop}
    for name, given in of_rows.items():
        if given:
            raise typer.BadParameter(f"--{name} is of labelled rows: give --label COLUMN too")
    from martlet.core.dataset import PROOF
    from martlet.data import GivenSplit, parse_split, read, read_sql
    from martlet.data import prepare as make
    from martlet.data.clean import (
        Duplicates,
        KCore,
        MaxUserEvents,
        MinRating,
        RecencyDecay,
        ValidTime,
    )

    check_free(out, force, PROOF)
    rules: list[Any] = [ValidTime()]
    rules += [MinRating(min_rating)] if min_rating is not None else []
    # Before events are merged: a sum takes the date of the last.
    rules += [RecencyDecay(half_life_days)] if half_life_days is not None else []
    rules += [Duplicates(duplicates)]
    rules += [MaxUserEvents(max_user)] if max_user is not None else []
    rules += [KCore(min_user, min_item)] if max(min_user, min_item) > 1 else []
    columns: dict[str, Any] = {
        "user_col": user_col,
        "item_col": item_col,
        "rating_col": rating_col,
        "weight_col": weight_col,
        "time_col": time_col,
        "event_col": event_col,
        "basket_col": basket_col,
        "context_cols": tuple(context_col),
        "event_weights": _weights(event_weight) or None,
        "time_unit": time_unit,
        "format": format,
        "sep": sep,
        "header": False if no_header else None,
    }
    context.params["split"] = split = split or "time:0.1,0.1"  # the configuration tells it
    cut: Any = parse_split(split)
    if test is not None:
        share = valid.replace(".", "", 1).isdigit()
        cut = GivenSplit(read(test, **columns), float(valid) if share else read(valid, **columns))
    table = read(log, **columns) if sql is None else read_sql(sql, log, **columns)
    how: dict[str, Any] = {
        "items": items,
        "users": users,
        "clean": rules,
        "split": cut,
        "seed": seed,
    }
    effects: Any = None
    with progress(quiet=json_) as note:
        dataset = make(table, **how, rejects=rejects, strict=strict, progress=note)
        dataset.save(out)
        save_config(beside(out), context)
        if effect:
            from martlet.frontier.effect import effect as try_rules

            effects = try_rules(table, **how, progress=note)
    about = dict(dataset.about)
    if json_:
        print_json(about if effects is None else about | {"effect": effects.to_json()})
        return
    print_cleaning(log, about["cleaning"])
    for name in ("counts", "items joined", "users joined"):
        if name in about:
            print(f"{name}: {', '.join(f'{what} {n:,}' for what, n in about[name].items())}")
    for what, found in about["leakage"].items():
        if what.startswith("pairs") and found:
            print(f"warning: {found:,} {what}: the split leaks, or people repeat (seen='keep')")
    if effects is not None:
        print(effects)
    print(f"saved {out}")


def print_cleaning(log: str, rules: list[dict[str, Any]]) -> None:
    """Write what each rule did."""
    rows = [
        [rule["rule"], rule["rows_in"], rule["rows_out"], "; ".join(rule["examples"][:1])]
        for rule in rules
    ]
    print_table(f"Cleaning of {log}", ["rule", "rows in", "rows out", "an example"], rows)


def _weights(pairs: list[str]) -> dict[str, float]:
    weights = {}
    for kind, text in assignments(pairs, "--event-weight").items():
        try:
            weights[kind] = float(text)
        except ValueError:
            raise SpecError(
                f"--event-weight {kind}={text}: expected a number, such as buy=5"
            ) from None
    return weights
