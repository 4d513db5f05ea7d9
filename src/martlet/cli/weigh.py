"""What bundles are worth and cost: ``measure``, ``frontier``, ``report``, ``demo``."""

from __future__ import annotations

import sys
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer

from martlet.cli.config import save_config
from martlet.cli.options import (
    Budget,
    Config,
    Dataset,
    Json,
    K,
    Out,
    Seed,
    Seen,
    load_data,
    repeated,
)
from martlet.cli.output import print_json, progress
from martlet.core import new_file


def _above_zero(memory_mb: float) -> float:
    """Refuse what bounds nothing, whether or not there is an evaluation to bound."""
    if not 0 < memory_mb < inf:
        raise typer.BadParameter(f"{memory_mb} bounds nothing: expected a number of MB above 0")
    return memory_mb


def measure(
    bundle: Annotated[
        Path,
        typer.Argument(
            help="A bundle, or a Parquet, CSV, TSV or JSON lines table of user_id, item_id, and "
            "rank or score."
        ),
    ],
    dataset: Annotated[Path | None, typer.Argument(help="Without one only the cost.")] = None,
    *,
    part: Annotated[str, typer.Option(help="valid or test.")] = "test",
    k: Annotated[
        list[int],
        repeated(
            "--k",
            "-k",
            metavar="N",
            help="Length of the lists, 10 if left out; the cost is that of the longest",
        ),
    ],
    metric: Annotated[list[str], repeated(metavar="NAME", help="A metric, see below")],
    value: Annotated[str | None, typer.Option(help="Catalogue column for value_recall.")] = None,
    seen: Seen = "hide",
    negatives: Annotated[
        int, typer.Option(min=0, help="Rank each held-out item among so many sampled ones too.")
    ] = 0,
    cost: Annotated[bool, typer.Option(help="Measure latency, bytes, memory.")] = True,
    memory_mb: Annotated[
        float, typer.Option(callback=_above_zero, help="Bound on what the evaluation holds.")
    ] = 256,
    per_user: Annotated[Path | None, typer.Option(help="Parquet file of each user's.")] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Of labelled rows: another bundle, to tell by how much this one differs."
        ),
    ] = None,
    ledger: Annotated[Path | None, typer.Option(help="Append the receipt there.")] = None,
    seed: Seed = 0,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Measure quality and cost, and print the receipt."""
    from martlet.cli.tabular import measure_rows
    from martlet.core import Tabular
    from martlet.measure.ledger import append
    from martlet.measure.measure import METRICS
    from martlet.measure.measure import measure as make
    from martlet.measure.quality import evaluate
    from martlet.measure.sampled import evaluate_sampled
    from martlet.measure.tables import measure_table
    from martlet.metrics.tables import is_table
    from martlet.scorers.bundle import Bundle as Stored

    ks, table = k or [10], is_table(bundle)
    if dataset is None and (table or negatives or per_user):
        asked = f"{bundle} is a table" if table else "--negatives and --per-user measure quality"
        raise typer.BadParameter(f"{asked}: give the dataset that has the items to find")
    if table and negatives:
        raise typer.BadParameter(
            f"{bundle} is a table: it has no scores of the items that --negatives draws; measure "
            "the bundle that made it"
        )
    data = None if dataset is None else load_data(dataset)
    stored = None if table else Stored.load(bundle)
    if isinstance(data, Tabular) or (stored is not None and stored.predicts):
        if stored is None or value or negatives or per_user:
            raise typer.BadParameter(
                "of labelled rows a bundle is measured, and there are no lists: leave out --value, "
                "--negatives and --per-user"
            )
        measure_rows(
            stored, data, part=part, metrics=metric, cost=cost, against=against,
            ledger=ledger or bundle / "receipts.jsonl", json_=json_,
        )  # fmt: skip
        return
    if against is not None:
        raise typer.BadParameter("--against compares what bundles predict of labelled rows")
    assert not isinstance(data, Tabular)
    metrics = [*metric] or [*METRICS, *(["value_recall"] if value else [])]
    how: dict[str, Any] = {"part": part, "ks": ks, "value": value, "seen": seen}
    if table and data is not None:
        receipt, quality = measure_table(bundle, data, metrics=metrics, **how)
    else:
        quality = None
        assert stored is not None
        with progress(quiet=json_) as note:
            if data is not None:
                quality = evaluate(
                    stored,
                    data,
                    metrics=metrics,
                    memory_mb=memory_mb,
                    progress=note,
                    per_user=per_user is not None,
                    **how,
                )
            if quality is not None and data is not None and negatives:
                more = evaluate_sampled(
                    stored,
                    data,
                    part=part,
                    ks=ks,
                    negatives=negatives,
                    seen=seen,
                    seed=seed,
                    memory_mb=memory_mb,
                    per_user=per_user is not None,
                    progress=note,
                )
                quality = replace(
                    quality,
                    figures={**quality.figures, **more.figures},
                    users={**quality.users, **more.users},
                )
            receipt = make(stored, data, part=part, k=max(ks), quality=quality, cost=cost)
        ledger = ledger or bundle / "receipts.jsonl"
    if ledger is not None:
        append(ledger, receipt)
    if per_user is not None and quality is not None and data is not None:
        _write_users(per_user, data.users.names(quality.user_row), quality.users)
    if json_:
        print_json(receipt.to_json())
    else:
        print(receipt)


def _write_users(path: Path, names: list[str], values: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with new_file(path) as target:
        pq.write_table(pa.table({"user_id": names, **values}), target)


def frontier(
    context: typer.Context,
    dataset: Dataset,
    out: Out,
    *,
    budget: Budget = "",
    model: Annotated[list[str], repeated(metavar="NAME", help="A model, see below")],
    with_: Annotated[
        list[str],
        repeated(
            "--with",
            metavar="TRANSFORMS",
            help="Of each model too, such as quantize:int8+index:ivf",
        ),
    ],
    k: K = 10,
    seed: Seed = 0,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Try models and compressions; choose within a budget.

    Writes the receipts, the report and the chosen bundle; exits with 1 where none fits.
    """
    from martlet.cli.exploring import explore_and_report
    from martlet.core import Dataset as Data
    from martlet.frontier.explore import MODELS, VARIANTS

    variants = [(), *(tuple(steps.split("+")) for steps in with_)] if with_ else VARIANTS
    fits = explore_and_report(
        Data.load(dataset),
        out,
        title=str(dataset),
        budget=budget,
        models=model or MODELS,
        variants=variants,
        k=k,
        seed=seed,
        as_json=json_,
    )
    save_config(out / "config.toml", context)
    if not fits:
        print(f"martlet: nothing keeps {budget}; what came nearest is saved", file=sys.stderr)
        raise typer.Exit(1)


def report(
    folder: Annotated[Path, typer.Argument(help="With receipts.jsonl.")],
    picture: Annotated[
        Path | None, typer.Option(help="Save the frontier there too, as .svg or .png.")
    ] = None,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Write report.html and report.csv from a folder's receipts."""
    from martlet.frontier.report import read_report, save_picture, write_report

    receipts, story = read_report(folder)
    page = write_report(folder, receipts, story)
    if picture is not None:
        save_picture(picture, receipts, story)
    if json_:
        print_json({"report": str(page), "picture": None if picture is None else str(picture)})
    else:
        print(page)


def demo(
    context: typer.Context,
    out: Out = Path("demo"),
    seed: Seed = 0,
    config: Config = None,
    json_: Json = False,
) -> None:
    """From real data to a report and a bundle to serve."""
    from martlet.cli.demo import run

    run(out, seed=seed, as_json=json_)
    save_config(out / "config.toml", context)
