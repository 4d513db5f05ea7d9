"""The whole path in one command, on real data where it can be had."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from martlet.cli.output import print_json, print_table, progress
from martlet.core import Dataset, OutputError

SYNTHETIC = (
    "This log is SYNTHETIC: MovieLens 100K was neither cached nor to be fetched, so a generator "
    "made one of its shape. The figures say how Martlet behaves, not how well it recommends."
)


def run(out: Path, *, seed: int, as_json: bool) -> None:
    """Get MovieLens 100K, explore, report, and answer a few users."""
    dataset, notes = load()
    if notes and not as_json:
        print(notes[0])
    title = "A synthetic log" if notes else "MovieLens 100K, split by time"
    explore_and_report(dataset, out, title=title, notes=notes, seed=seed, as_json=as_json, show=3)


def load() -> tuple[Dataset, list[str]]:
    """Return the dataset, and a note when it is synthetic."""
    from martlet.data import prepare
    from martlet.data.sources import SourceUnavailable, get

    try:
        folder = get("ml-100k")
    except SourceUnavailable:
        return _synthetic(), [SYNTHETIC]
    log, items, users = (str(folder / f"ml-100k.{ending}") for ending in ("inter", "item", "user"))
    return prepare(log, items=items, users=users), []


def _synthetic() -> Dataset:
    """Return a log of the size and shape of MovieLens 100K, every title saying what it is."""
    import polars as pl

    from martlet.data import prepare
    from martlet.data.synthetic import synthesize

    events = synthesize(num_users=943, num_items=1682, num_events=100_000)
    frame = pl.DataFrame(
        {
            "user_id": events.user_row,
            "item_id": events.item_row,
            "rating": events.weight,
            "timestamp": events.time_s,
        }
    )
    titles = pl.DataFrame(
        {"item_id": range(1682), "title": [f"Synthetic item {row}" for row in range(1682)]}
    )
    return prepare(frame, items=titles)


def explore_and_report(
    dataset: Dataset,
    out: Path,
    *,
    title: str,
    budget: str = "",
    models: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    k: int = 10,
    seed: int = 0,
    as_json: bool = False,
    show: int = 0,
) -> None:
    """Explore, write receipts, report and bundle into ``out``, and tell the outcome."""
    from martlet.frontier.budget import Budget
    from martlet.frontier.explore import MODELS, explore
    from martlet.frontier.report import Story, write_report

    limits = Budget.parse(budget)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"could not make the folder {out}: {error.strerror}") from error
    with progress(quiet=as_json) as note:
        found = explore(
            dataset,
            models or MODELS,
            budget=limits,
            k=k,
            seed=seed,
            ledger_path=out / "receipts.jsonl",
            progress=lambda step, done, total: note("explore", done, total),
        )
        found.bundle.save(out / "bundle")
    commands = [
        f"martlet serve {out}/bundle --port 8000",
        f"martlet recommend {out}/bundle --user {dataset.users.ids[0]}",
        f"martlet prepare YOUR_LOG.csv --out data && martlet frontier data --out {out}",
    ]
    counts = ", ".join(f"{n} {v:,}" for n, v in dataset.about.get("counts", {}).items())
    page = write_report(
        out,
        found.receipts,
        Story(
            title=title,
            choice=found.choice,
            budget=limits,
            quality=f"ndcg@{k}",
            final=found.final,
            intervals={name: (i.low, i.high) for name, i in found.intervals.items()},
            events=dataset.train,
            description=counts,
            notes=notes,
            commands=commands,
        ),
    )
    if as_json:
        print_json(
            {
                "synthetic": bool(notes),
                "chosen": found.choice.receipt.name,
                "why": found.choice.why,
                "fits": found.choice.fits,
                "final": found.final.to_json(),
                "skipped": list(found.skipped),
                "report": str(page),
                "bundle": str(out / "bundle"),
            }
        )
        return
    rows = [
        [r.name, r.quality[f"ndcg@{k}"], r.cost["train_s"], r.cost["p99_ms"], r.cost["scoring_mb"]]
        for r in sorted(found.receipts, key=lambda r: -(r.quality[f"ndcg@{k}"] or 0))
    ]
    header = ["bundle", f"ndcg@{k}", "train s", "p99 ms", "scans MB"]
    print_table(f"{title}: validation part", header, rows)
    print(f"Chosen: {found.choice.why}.")
    final = ", ".join(f"{name} {value:.4f}" for name, value in found.final.quality.items())
    print(f"On the test part, once: {final} ({found.final.num_users:,} users).")
    _answer(found, show)
    print(f"\nReport: {page}\nGo on:")
    for command in commands:
        print(f"  {command}")


def _answer(found: object, show: int) -> None:
    """Print the titles a few users would be shown, and why the first of them."""
    from martlet.frontier.explore import Exploration

    assert isinstance(found, Exploration)
    bundle = found.bundle
    for place in range(min(show, len(bundle.users))):
        user = bundle.users.ids[place]
        answer = bundle.recommend([user], 5)[0]
        titles = [bundle.title(bundle.items.row(item)) for item in answer.item_ids]
        print(f"\nUser {user}: {'; '.join(titles)}")
        if place == 0 and answer.item_ids:
            reasons = bundle.explain(user, answer.item_ids[0])[:3]
            print(f"  {titles[0]}: {', '.join(reason.words for reason in reasons)}")
