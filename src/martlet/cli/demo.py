"""The whole path in one command, on real data where it can be had."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from martlet.cli.exploring import explore_and_report

if TYPE_CHECKING:
    from martlet.core import Dataset

SYNTHETIC = (
    "This log is SYNTHETIC: MovieLens 100K was neither cached nor to be fetched, so a generator "
    "made one of its shape. The figures say how Martlet behaves, not how well it recommends."
)
_USERS, _ITEMS, _EVENTS = 943, 1682, 100_000  # MovieLens 100K


def run(out: Path, *, seed: int, as_json: bool) -> None:
    """Get MovieLens 100K, explore, report, and answer a few users."""
    dataset, notes = load()
    if notes and not as_json:
        print(notes[0])
    title = "A synthetic log, split by time" if notes else "MovieLens 100K, split by time"
    explore_and_report(dataset, out, title=title, notes=notes, seed=seed, as_json=as_json, show=3)


def load() -> tuple[Dataset, list[str]]:
    """Return the dataset, and a note when it is synthetic."""
    from martlet.data import prepare
    from martlet.data.sources import SourceUnavailable, get

    try:
        folder = get("ml-100k")
    except SourceUnavailable as reason:
        return _synthetic(), [f"{SYNTHETIC} ({reason})"]
    log, items, users = (str(folder / f"ml-100k.{ending}") for ending in ("inter", "item", "user"))
    return prepare(log, items=items, users=users), []


def _synthetic() -> Dataset:
    """Return a log of the size and shape of MovieLens 100K, every title saying what it is."""
    import polars as pl

    from martlet.data import prepare
    from martlet.data.synthetic import synthesize

    events = synthesize(num_users=_USERS, num_items=_ITEMS, num_events=_EVENTS)
    frame = pl.DataFrame(
        {
            "user_id": events.user_row,
            "item_id": events.item_row,
            "rating": events.weight,
            "timestamp": events.time_s,
        }
    )
    titles = [f"Synthetic item {row}" for row in range(_ITEMS)]
    return prepare(frame, items=pl.DataFrame({"item_id": range(_ITEMS), "title": titles}))
