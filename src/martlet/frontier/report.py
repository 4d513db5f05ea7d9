"""A report on disk: a self-contained page, the same figures as a table, and what draws it again."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from martlet.core import DataError, SpecError, new_file
from martlet.frontier import plots
from martlet.frontier.budget import figures_of
from martlet.frontier.frontier import Frontier, labels
from martlet.frontier.page import page
from martlet.frontier.story import Story
from martlet.measure import ledger
from martlet.measure.receipt import Receipt


def write_report(folder: str | Path, receipts: Sequence[Receipt], story: Story) -> Path:
    """Write ``report.html``, ``report.csv`` and ``story.json`` into ``folder``; return the page.

    Raises:
        OutputError: the folder could not be written.
    """
    folder = Path(folder)
    with new_file(folder / "story.json") as target:
        told = json.dumps(story.to_json(receipts), ensure_ascii=False, allow_nan=False)
        target.write_text(told, encoding="utf-8")
    with new_file(folder / "report.csv") as target, open(target, "w", newline="") as file:
        names = list(dict.fromkeys(name for receipt in receipts for name in figures_of(receipt)))
        writer = csv.writer(file)
        writer.writerow(["name", *names])
        for label, receipt in zip(labels(receipts), receipts, strict=True):
            figures = figures_of(receipt)
            writer.writerow([label, *(figures.get(name, "") for name in names)])
    with new_file(folder / "report.html") as target:
        target.write_text(page(receipts, story), encoding="utf-8")
    return folder / "report.html"


def read_report(folder: str | Path) -> tuple[list[Receipt], Story]:
    """Return the receipts and the story of a folder.

    A ledger without a story holds receipts of ``martlet measure --part valid``: the newest of each
    bundle, and the best of them chosen.

    Raises:
        DataError: there is no ledger, nothing in it is of a validation part, or the story is
            damaged.
    """
    folder = Path(folder)
    receipts = ledger.read(folder / "receipts.jsonl")
    try:
        text = (folder / "story.json").read_text(encoding="utf-8")
        return Story.from_json(json.loads(text), receipts)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'story.json'} cannot be read ({error}): remove it") from error
    newest = list({r.bundle_id: r for r in receipts if r.part == "valid"}.values())
    if not newest:
        raise DataError(
            f"{folder} has no receipt of a validation part: run 'martlet frontier' first, or "
            "'martlet measure --part valid --ledger' a few times"
        )
    quality = next(iter(newest[0].quality), "ndcg@10")
    choice = Frontier.of(newest, quality).choose()
    return newest, Story(folder.resolve().name, choice, quality=quality)


def save_picture(path: str | Path, receipts: Sequence[Receipt], story: Story) -> None:
    """Save quality against latency and against memory as one SVG or PNG picture.

    Raises:
        SpecError: another ending.
        OutputError: the file could not be written.
    """
    if Path(path).suffix not in (".svg", ".png"):
        raise SpecError(f"{path} is no picture that can be drawn: expected .svg or .png")
    frontier = Frontier.of(receipts, story.quality)
    plots.save(
        plots.frontier_figure(frontier, ("p50_ms", "scoring_mb"), story.choice.receipt), path
    )
