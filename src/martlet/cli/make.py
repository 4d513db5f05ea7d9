"""From a dataset to a bundle: ``fit``, ``compress``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from martlet.cli.config import beside, save_config
from martlet.cli.options import (
    Bundle,
    Config,
    Dataset,
    Force,
    Json,
    Out,
    Seed,
    With,
    assignments,
    check_free,
    load_data,
    repeated,
)
from martlet.cli.output import number, print_json, progress


def fit(
    context: typer.Context,
    dataset: Dataset,
    out: Out,
    *,
    model: Annotated[str, typer.Option(help="Its name; see below.")] = "ials",
    set_: Annotated[list[str], repeated("--set", metavar="KEY=VALUE", help="A hyper-parameter")],
    with_valid: Annotated[
        bool, typer.Option("--with-valid", help="Train on the validation part too.")
    ] = False,
    init: Annotated[Path | None, typer.Option(help="A bundle to start from.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="A bundle to learn from.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of a training's checkpoint, log and report.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --run.")
    ] = False,
    every_steps: Annotated[
        int, typer.Option(help="A checkpoint after so many steps; 0 counts none.", min=0)
    ] = 0,
    every_minutes: Annotated[
        float, typer.Option(help="A checkpoint after so many minutes; 0 counts none.", min=0)
    ] = 5.0,
    watch: Annotated[
        list[str], repeated("--watch", metavar="NAME", help="tensorboard or mlflow, beside --run")
    ],
    seed: Seed = 0,
    force: Force = False,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Fit a model and save its bundle."""
    from martlet.models.fit import accepts
    from martlet.models.fit import fit as fit_spec
    from martlet.models.registry import spec
    from martlet.scorers.bundle import Bundle as Stored
    from martlet.scorers.saved import PROOF
    from martlet.train.run import Run

    check_free(out, force, PROOF)
    one = spec(model, **assignments(set_))
    data = load_data(dataset)
    data = data.with_valid_in_train() if with_valid else data
    first = None if init is None else Stored.load(init)
    master = None if teacher is None else Stored.load(teacher)
    if resume and run is None:
        raise typer.BadParameter("--resume needs --run, the folder to go on from")
    if watch and run is None:
        raise typer.BadParameter("--watch needs --run, the folder that is written to")
    start = time.perf_counter()
    with progress(quiet=json_) as note:
        stepwise = run is not None or "run" in accepts(one)
        kept = None
        if stepwise:
            often_s = 60 * every_minutes
            kept = Run(run, resume, every_steps, often_s, progress=note, watch=tuple(watch))
        bundle = fit_spec(one, data, seed=seed, init=first, teacher=master, run=kept)
    train_s = time.perf_counter() - start
    bundle.save(out)
    save_config(beside(out), context)
    told = {
        "bundle": str(out),
        "id": bundle.id,
        "model": model,
        "train_s": train_s,
        "scoring_mb": bundle.scoring_bytes / 1e6,
        "bundle_mb": bundle.bundle_bytes / 1e6,
    }
    if json_:
        print_json(told)
    else:
        print(f"fitted {model} in {train_s:.2f} s; saved {out} ({number(told['bundle_mb'])} MB)")


def compress(
    context: typer.Context,
    bundle: Bundle,
    out: Out,
    *,
    with_: With,
    data: Annotated[
        Path | None, typer.Option(help="The dataset to tune on, and to measure the loss on.")
    ] = None,
    max_loss: Annotated[
        list[str],
        repeated(
            "--max-loss",
            metavar="METRIC=SHARE",
            help="Save only if no more is lost for certain, such as ndcg@10=1%",
        ),
    ],
    part: Annotated[str, typer.Option(help="valid or test, whose users judge.")] = "valid",
    accept_unresolved: Annotated[
        bool,
        typer.Option("--accept-unresolved", help="Save too where too few users can tell."),
    ] = False,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Try a grid of transforms and pairs; --out is its folder."),
    ] = False,
    ledger: Annotated[
        Path | None, typer.Option(help="Append the receipts there, not beside the bundles.")
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    config: Config = None,
    json_: Json = False,
) -> None:
    """Make a bundle smaller or faster; tell what that loses.

    With --max-loss, exits with 1 and saves nothing where the bound is broken or unresolved.
    """
    from martlet.cli.compressing import save_if_it_passes, sweep_and_report
    from martlet.compress.compress import compress as make
    from martlet.measure.verdict import read_limit
    from martlet.scorers.bundle import Bundle as Stored
    from martlet.scorers.saved import PROOF

    limits = dict(map(read_limit, max_loss))
    if (limits or sweep) and data is None:
        raise typer.BadParameter("--max-loss and --sweep measure: give the dataset, --data")
    if sweep:
        if ledger is not None or accept_unresolved:
            raise typer.BadParameter("--sweep keeps a ledger in --out and saves no bundle")
        assert data is not None
        sweep_and_report(bundle, data, out, limits, grid=with_, part=part, seed=seed, json_=json_)
        save_config(out / "config.toml", context)
        return
    if not with_:
        raise typer.BadParameter("give at least one --with, such as --with quantize:int8")
    check_free(out, force, PROOF)
    before = Stored.load(bundle)
    dataset: Any = None if data is None else load_data(data)
    start = time.perf_counter()
    with progress(quiet=json_) as note:
        after = make(before, with_, dataset, seed=seed, progress=note)
    took_s = time.perf_counter() - start
    if limits and dataset is not None:
        passes = save_if_it_passes(
            before, after, dataset, limits, bundle=bundle, out=out, ledger=ledger, part=part,
            accept_unresolved=accept_unresolved, took_s=took_s, seed=seed, json_=json_,
        )  # fmt: skip
        if not passes:
            raise typer.Exit(1)
        save_config(beside(out), context)
        return
    after.save(out)
    save_config(beside(out), context)
    sizes = {
        "scoring_mb": [one.scoring_bytes / 1e6 for one in (before, after)],
        "bundle_mb": [one.bundle_bytes / 1e6 for one in (before, after)],
    }
    if json_:
        print_json({"bundle": str(out), "id": after.id, **sizes})
        return
    for name, (old, new) in sizes.items():
        print(f"{name} {number(old)} -> {number(new)}")
    print(f"saved {out}")
