"""The verbs. Each is a line or two over a function of the library, imported when it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from martlet.cli.options import Config, Force, Json, K, Seed, Set, assignments, expanded
from martlet.cli.output import number, print_json, print_table, progress
from martlet.core import MartletError, OutputError, SpecError, new_file

app = typer.Typer(
    help="Recommenders that are cheap to train and to serve: from a log to a measured answer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Get public logs, and look at a dataset.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Dataset = Annotated[Path, typer.Argument(help="A folder that 'martlet prepare' wrote.")]
Bundle = Annotated[Path, typer.Argument(help="A folder that 'martlet fit' or 'compress' wrote.")]
Out = Annotated[Path, typer.Option("--out", help="Where the result goes.")]
Column = Annotated[str | None, typer.Option(help="Name of the column in the log.")]


def _free(out: Path, force: bool) -> None:
    if out.exists() and not force:
        raise OutputError(f"{out} exists: choose another --out, or give --force to replace it")


def _save_config(out: Path, context: typer.Context) -> None:
    """Save every option that ruled beside the result."""
    with new_file(out.with_name(out.name + ".config.json")) as target:
        target.write_text(json.dumps(expanded(context), indent=1, ensure_ascii=False))


@app.command()
def demo(
    out: Out = Path("demo"),
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Real data, end to end: fit, compress, measure, report, and a bundle to serve."""
    from martlet.cli.demo import run

    run(out, seed=seed, as_json=json_)


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="The public log: ml-100k.")], json_: Json = False
) -> None:
    """Fetch a public log into the cache and print where it is."""
    from martlet.data.sources import get

    folder = get(name)
    if json_:
        print_json({"name": name, "folder": str(folder)})
    else:
        print(folder)


@data_app.command("describe")
def data_describe(dataset: Dataset, json_: Json = False) -> None:
    """Count a dataset: users, items, events, density, activity, popularity, times, leaks."""
    from martlet.core import Dataset as Data
    from martlet.data.describe import describe

    description = describe(Data.load(dataset))
    if json_:
        print_json(description.to_json())
    else:
        print(description)


@app.command()
def prepare(
    context: typer.Context,
    log: Annotated[str, typer.Argument(help="A file, a folder, a glob or an address.")],
    out: Out,
    items: Annotated[str | None, typer.Option(help="A table joined by item id.")] = None,
    users: Annotated[str | None, typer.Option(help="A table joined by user id.")] = None,
    split: Annotated[
        str, typer.Option(help="time:V,T, random:V,T (shares) or last-out:V,T (events a user).")
    ] = "time:0.1,0.1",
    test: Annotated[str | None, typer.Option(help="A ready test log; the other trains.")] = None,
    valid: Annotated[str, typer.Option(help="With --test: a share of train, or a log.")] = "0.1",
    user_col: Column = None,
    item_col: Column = None,
    rating_col: Column = None,
    weight_col: Column = None,
    time_col: Column = None,
    event_col: Column = None,
    basket_col: Column = None,
    context_col: Annotated[list[str], typer.Option(help="A column to carry along.")] = [],  # noqa: B006
    format: Annotated[str | None, typer.Option(help="The log's format.")] = None,
    sep: Annotated[str | None, typer.Option(help="Separator of a text log.")] = None,
    duplicates: Annotated[str, typer.Option(help="last, sum or all.")] = "last",
    min_rating: Annotated[float | None, typer.Option(help="Drop lower ratings.")] = None,
    min_user: Annotated[int, typer.Option(min=1, help="Events a user needs.")] = 1,
    min_item: Annotated[int, typer.Option(min=1, help="Events an item needs.")] = 1,
    max_user: Annotated[int | None, typer.Option(help="Events a person may have.")] = None,
    half_life_days: Annotated[float | None, typer.Option(help="Decay weights by age.")] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Parquet file for what is put aside.")
    ] = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first bad row.")] = False,
    seed: Seed = 0,
    force: Force = False,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Read, clean, split and number a log; print what each rule did."""
    from martlet.data import GivenSplit, parse_split, read
    from martlet.data import prepare as make
    from martlet.data.clean import (
        Duplicates,
        KCore,
        MaxUserEvents,
        MinRating,
        RecencyDecay,
        ValidTime,
    )

    _free(out, force)
    rules: list[Any] = [ValidTime()]
    rules += [MinRating(min_rating)] if min_rating is not None else []
    rules += [Duplicates(duplicates)]  # type: ignore[arg-type]
    rules += [MaxUserEvents(max_user)] if max_user is not None else []
    rules += [KCore(min_user, min_item)] if max(min_user, min_item) > 1 else []
    rules += [RecencyDecay(half_life_days)] if half_life_days is not None else []
    columns = {
        "user_col": user_col, "item_col": item_col, "rating_col": rating_col,
        "weight_col": weight_col, "time_col": time_col, "event_col": event_col,
        "basket_col": basket_col, "context_cols": tuple(context_col),
        "format": format, "sep": sep,
    }  # fmt: skip
    cut: Any = parse_split(split)
    if test is not None:
        share = valid.replace(".", "", 1).isdigit()
        other: Any = float(valid) if share else read(valid, **columns)  # type: ignore[arg-type]
        cut = GivenSplit(read(test, **columns), other)  # type: ignore[arg-type]
    with progress(quiet=json_) as note:
        dataset = make(
            read(log, **columns),  # type: ignore[arg-type]
            items=items, users=users, clean=rules, split=cut, seed=seed,
            rejects=rejects, strict=strict, progress=note,
        )  # fmt: skip
        dataset.save(out)
    _save_config(out, context)
    if json_:
        print_json(dataset.about)
        return
    rows = [[r["rule"], r["rows_in"], r["rows_out"], "; ".join(r["examples"][:1])]
            for r in dataset.about["cleaning"]]  # fmt: skip
    print_table(f"Cleaning of {log}", ["rule", "rows in", "rows out", "an example"], rows)
    print(", ".join(f"{name} {value:,}" for name, value in dataset.about["counts"].items()))
    print(f"saved {out}")


@app.command()
def fit(
    context: typer.Context,
    dataset: Dataset,
    out: Out,
    model: Annotated[str, typer.Option(help="popularity, item-knn, ease, gfcf or ials.")] = "ials",
    set_: Set = [],  # noqa: B006
    with_valid: Annotated[bool, typer.Option(help="Train on the validation part too.")] = False,
    init: Annotated[Path | None, typer.Option(help="A bundle to start from.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="A bundle to learn from.")] = None,
    seed: Seed = 0,
    force: Force = False,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Fit a model and save its bundle."""
    import time

    from martlet.core import Dataset as Data
    from martlet.models.fit import fit as fit_spec
    from martlet.models.registry import spec
    from martlet.scorers.bundle import Bundle as Stored

    _free(out, force)
    data = Data.load(dataset)
    data = data.with_valid_in_train() if with_valid else data
    start = time.perf_counter()
    bundle = fit_spec(
        spec(model, **assignments(set_)),
        data,
        seed=seed,
        init=None if init is None else Stored.load(init),
        teacher=None if teacher is None else Stored.load(teacher),
    )
    train_s = time.perf_counter() - start
    bundle.save(out)
    _save_config(out, context)
    told = {"bundle": str(out), "id": bundle.id, "model": model, "train_s": train_s,
            "scoring_mb": bundle.scoring_bytes / 1e6,
            "bundle_mb": bundle.bundle_bytes / 1e6}  # fmt: skip
    if json_:
        print_json(told)
    else:
        print(f"fitted {model} in {train_s:.2f} s; saved {out} ({number(told['bundle_mb'])} MB)")


@app.command()
def compress(
    context: typer.Context,
    bundle: Bundle,
    out: Out,
    with_: Annotated[list[str], typer.Option("--with", help="quantize:int8, index:ivf ...")],
    data: Annotated[Path | None, typer.Option(help="The dataset an index is tuned on.")] = None,
    seed: Seed = 0,
    force: Force = False,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Make a bundle smaller or faster."""
    from martlet.compress.compress import compress as make
    from martlet.core import Dataset as Data
    from martlet.scorers.bundle import Bundle as Stored

    _free(out, force)
    before = Stored.load(bundle)
    dataset = None if data is None else Data.load(data)
    with progress(quiet=json_) as note:
        after = make(before, with_, dataset, seed=seed, progress=note)
    after.save(out)
    _save_config(out, context)
    sizes = {"scoring_mb": [b.scoring_bytes / 1e6 for b in (before, after)],
             "bundle_mb": [b.bundle_bytes / 1e6 for b in (before, after)]}  # fmt: skip
    if json_:
        print_json({"bundle": str(out), "id": after.id, **sizes})
    else:
        for name, (old, new) in sizes.items():
            print(f"{name} {old:.3f} -> {new:.3f}")
        print(f"saved {out}")


@app.command()
def measure(
    bundle: Bundle,
    dataset: Annotated[Path | None, typer.Argument(help="Without one only the cost.")] = None,
    part: Annotated[str, typer.Option(help="valid or test.")] = "test",
    k: K = 10,
    metric: Annotated[list[str], typer.Option(help="A metric; may be repeated.")] = [],  # noqa: B006
    value: Annotated[str | None, typer.Option(help="Catalogue column for value_recall.")] = None,
    seen: Annotated[str, typer.Option(help="hide or keep what the history holds.")] = "hide",
    cost: Annotated[bool, typer.Option(help="Measure latency, bytes, memory.")] = True,
    memory_mb: Annotated[float, typer.Option(help="Bound on what the evaluation holds.")] = 256,
    ledger: Annotated[Path | None, typer.Option(help="Append the receipt there.")] = None,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Measure quality and cost, and print the receipt."""
    from martlet.core import Dataset as Data
    from martlet.measure.ledger import append
    from martlet.measure.measure import METRICS
    from martlet.measure.measure import measure as make
    from martlet.scorers.bundle import Bundle as Stored

    with progress(quiet=json_) as note:
        receipt = make(
            Stored.load(bundle), None if dataset is None else Data.load(dataset),
            part=part, k=k, metrics=metric or METRICS, value=value, seen=seen,  # type: ignore[arg-type]
            cost=cost, memory_mb=memory_mb, progress=note,
        )  # fmt: skip
    append(ledger or bundle / "receipts.jsonl", receipt)
    if json_:
        print_json(receipt.to_json())
    else:
        print(receipt)


@app.command()
def frontier(
    dataset: Dataset,
    out: Out,
    budget: Annotated[str, typer.Option(help='Such as "p99_ms<=5, bundle_mb<=20".')] = "",
    model: Annotated[list[str], typer.Option(help="A model; may be repeated.")] = [],  # noqa: B006
    k: K = 10,
    seed: Seed = 0,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Try models and compressions, choose within a budget, write the report and the bundle."""
    from martlet.cli.demo import explore_and_report
    from martlet.core import Dataset as Data

    data = Data.load(dataset)
    explore_and_report(
        data, out, title=str(dataset), budget=budget, models=model or None, k=k, seed=seed,
        as_json=json_,
    )  # fmt: skip


@app.command()
def recommend(
    bundle: Bundle,
    user: Annotated[str | None, typer.Option(help="An outside user id.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every user, into --out.")] = False,
    out: Annotated[Path | None, typer.Option(help="Parquet file for --all.")] = None,
    k: K = 10,
    exclude: Annotated[list[str], typer.Option(help="An item id never to show.")] = [],  # noqa: B006
    seen: Annotated[str, typer.Option(help="hide or keep what the history holds.")] = "hide",
    json_: Json = False,
) -> None:
    """Answer one user, or write the answers of all."""
    from martlet.scorers.bundle import Bundle as Stored

    if (user is None) == (not all_) or (all_ and out is None):
        raise typer.BadParameter("give --user ID, or --all with --out FILE.parquet")
    stored = Stored.load(bundle)
    if all_ and out is not None:
        _recommend_all(stored, out, k, seen, json_)
        return
    answer = stored.recommend([str(user)], k, exclude=exclude or None, seen=seen)[0]  # type: ignore[arg-type]
    listed = list(zip(answer.item_ids, answer.scores, strict=True))
    if json_:
        items = [{"item_id": item, "score": score} for item, score in listed]
        print_json({"user_id": user, "items": items, "fallback": answer.fallback})
        return
    rows = [[item, stored.title(stored.items.row(item)), score] for item, score in listed]
    what = (
        "popular with everyone (nothing is known of this user)" if answer.fallback else "for them"
    )
    print_table(f"User {user}: {what}", ["item", "title", "score"], rows)


def _recommend_all(stored: Any, out: Path, k: int, seen: str, as_json: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [("user_id", pa.string()), ("item_id", pa.string()), ("rank", pa.int32()),
         ("score", pa.float32()), ("fallback", pa.bool_())]
    )  # fmt: skip
    total, done = len(stored.users), 0
    with (
        progress(quiet=as_json) as note,
        new_file(out) as target,
        pq.ParquetWriter(target, schema) as writer,
    ):
        for answers in stored.recommend_all(k, seen=seen):
            rows = [
                (answer.user_id, item, place, score, answer.fallback)
                for answer in answers
                for place, (item, score) in enumerate(
                    zip(answer.item_ids, answer.scores, strict=True), 1
                )
            ]
            columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * 5
            writer.write_table(pa.table(columns, schema=schema))
            done += len(answers)
            note("recommend", done, total)
    if as_json:
        print_json({"out": str(out), "num_users": total, "k": k})
    else:
        print(f"wrote the top {k} of {total:,} users to {out}")


@app.command()
def similar(
    bundle: Bundle,
    item: Annotated[str, typer.Option(help="An outside item id.")],
    k: K = 10,
    json_: Json = False,
) -> None:
    """List the items nearest to one."""
    from martlet.scorers.bundle import Bundle as Stored

    stored = Stored.load(bundle)
    found = stored.similar(item, k)
    if json_:
        print_json({"item_id": item, "items": [{"item_id": i, "score": s} for i, s in found]})
        return
    rows = [[i, stored.title(stored.items.row(i)), s] for i, s in found]
    print_table(f"Near {stored.title(stored.items.row(item))}", ["item", "title", "score"], rows)


@app.command()
def explain(
    bundle: Bundle,
    user: Annotated[str, typer.Option(help="An outside user id.")],
    item: Annotated[str, typer.Option(help="An outside item id.")],
    json_: Json = False,
) -> None:
    """Say why a user would be shown an item, the largest part of its score first."""
    from martlet.scorers.bundle import Bundle as Stored

    stored = Stored.load(bundle)
    reasons = stored.explain(user, item)
    if json_:
        told = [
            {"item_id": None if r.item_row < 0 else stored.items.ids[r.item_row],
             "share": r.share, "words": r.words}
            for r in reasons
        ]  # fmt: skip
        print_json({"user_id": user, "item_id": item, "reasons": told})
        return
    print(f"{stored.title(stored.items.row(item))} for user {user}:")
    for reason in reasons[:10]:
        print(f"  {reason.words}")


@app.command()
def serve(
    bundle: Bundle,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Processes; they share the bundle.")] = 1,
) -> None:
    """Answer over HTTP until stopped."""
    from martlet.serve.server import serve as run

    run(bundle, host=host, port=port, workers=workers)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="With receipts.jsonl.")]) -> None:
    """Write report.html and report.csv from a folder's receipts."""
    from martlet.frontier.frontier import Frontier
    from martlet.frontier.report import Story, write_report
    from martlet.measure.ledger import read

    receipts = [receipt for receipt in read(folder / "receipts.jsonl") if receipt.part == "valid"]
    if not receipts:
        raise SpecError(
            f"{folder} has no receipt of a validation part: run 'martlet frontier' first"
        )
    newest = {receipt.name: receipt for receipt in receipts}
    chosen = Frontier(list(newest.values())).choose()
    print(write_report(folder, list(newest.values()), Story(str(folder), chosen)))


@app.command()
def doctor(json_: Json = False) -> None:
    """Look at versions, threads, memory, caches and extras; say what to do."""
    from martlet.cli.doctor import examine

    checks = examine()
    if json_:
        print_json([check._asdict() for check in checks])
    else:
        rows = [[c.state, c.name, c.found, c.advice] for c in checks]
        print_table("Martlet on this machine", ["state", "what", "found", "advice"], rows)
    if any(check.state == "bad" for check in checks):
        raise MartletError("something is missing: see the advice above")
