"""An exploration told: a ledger, a report and a bundle in a folder, the outcome on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from martlet.cli.output import print_json, print_table, progress
from martlet.core import OutputError

if TYPE_CHECKING:
    from martlet.core import Dataset
    from martlet.frontier.explore import Exploration
    from martlet.scorers.bundle import Bundle

_FEW = 3  # reasons are told on the screen; more are left to the report


def explore_and_report(
    dataset: Dataset,
    out: Path,
    *,
    title: str,
    budget: str = "",
    notes: Sequence[str] = (),
    seed: int = 0,
    as_json: bool = False,
    show: int = 0,
    **what: Any,
) -> bool:
    """Explore, write receipts, report and bundle into ``out``, and tell the outcome.

    Returns whether the choice keeps the budget; what came nearest is written where none does.

    Args:
        dataset: to explore on.
        out: a folder; a ledger that is there grows.
        title: the name of the data.
        budget: limits as text.
        notes: what a reader must know first; only a synthetic log has any.
        seed: drives everything that is random.
        as_json: one JSON document in place of tables.
        show: users to answer by title.
        what: models, variants and k, as ``explore`` takes them.

    Raises:
        OutputError: the folder cannot be made.
    """
    from martlet.frontier.budget import Budget
    from martlet.frontier.explore import explore
    from martlet.frontier.report import write_report
    from martlet.frontier.story import Story

    limits = Budget.parse(budget)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"could not make the folder {out}: {error.strerror}") from error
    with progress(quiet=as_json) as note:
        found = explore(
            dataset,
            budget=limits,
            seed=seed,
            ledger_path=out / "receipts.jsonl",
            progress=note,
            **what,
        )
        found.bundle.save(out / "bundle")
    commands = [
        f"martlet serve {out}/bundle --port 8000",
        f"martlet recommend {out}/bundle --user {dataset.users.ids[0]}",
        f"martlet prepare YOUR_LOG.csv --out data && martlet frontier data --out {out}",
    ]
    story = Story.of(found, dataset, title=title, budget=limits, notes=notes, commands=commands)
    page = write_report(out, found.receipts, story)
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
    else:
        _print_candidates(found, title)
        _print_answers(found.bundle, show)
        print(f"\nReport: {page}\nGo on:")
        for command in commands:
            print(f"  {command}")
    return found.choice.fits


def _print_candidates(found: Exploration, title: str) -> None:
    from martlet.frontier.frontier import labels

    costs = {"train_s": "train s", "p50_ms": "p50 ms", "p99_ms": "p99 ms"}
    costs["scoring_mb"] = "tables MB"
    rows = [
        [label, receipt.quality[found.quality], *(receipt.cost[name] for name in costs)]
        for label, receipt in zip(labels(found.receipts), found.receipts, strict=True)
    ]
    rows.sort(key=lambda row: -float(row[1] or 0))
    header = ["recommender", found.quality, *costs.values()]
    print_table(f"{title}: validation part", header, rows)
    if len(found.skipped) > _FEW:
        print(f"Left out: {len(found.skipped)} candidates; the report says why.")
    else:
        print("".join(f"Left out: {reason}\n" for reason in found.skipped), end="")
    print(f"Chosen: {found.choice.why}.")
    final = ", ".join(f"{name} {value:.4f}" for name, value in found.final.quality.items())
    print(f"On the test part, once: {final} ({found.final.num_users:,} users).")


def _print_answers(bundle: Bundle, show: int) -> None:
    """Print the titles a few users would be shown, and why the first of them."""
    for place in range(min(show, len(bundle.users))):
        user = bundle.users.ids[place]
        answer = bundle.recommend([user], 5)[0]
        titles = [bundle.title(bundle.items.row(item)) for item in answer.item_ids]
        print(f"\nUser {user}: {'; '.join(titles)}")
        if place == 0 and answer.item_ids:
            reasons = bundle.explain(user, answer.item_ids[0])[:3]
            print(f"  {titles[0]}: {', '.join(reason.words for reason in reasons)}")
