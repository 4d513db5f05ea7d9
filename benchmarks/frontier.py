"""Which models and storages are worth their cost on ml-1m, the last two events of a user held out?

Every candidate is measured once on the validation part, over the whole catalogue, by the same code
as ``martlet frontier``; the chosen one is fitted again and measured once on the test part. The
picture is drawn from the raw line: ``--redraw PATH`` draws the newest one again, measuring nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from _common import ROOT, data, options, record, say, skip
from martlet.core import Dataset
from martlet.data import LastOut, prepare
from martlet.data.synthetic import synthesize
from martlet.frontier import plots
from martlet.frontier.explore import MODELS, VARIANTS, explore
from martlet.frontier.frontier import Frontier
from martlet.measure.receipt import Receipt

PICTURE = ROOT / "docs" / "frontier.svg"
COSTS = ("p50_ms", "scoring_mb")
TINY = ("popularity", "ials")


def main() -> None:
    chosen = options(__doc__.splitlines()[0], add=("redraw",))
    ledger = chosen.results / "frontier.jsonl"
    if chosen.redraw:
        if not ledger.exists():
            skip(f"there is no {ledger.name} in the results yet")
        draw(json.loads(ledger.read_text().splitlines()[-1]), Path(chosen.redraw))
        return
    dataset = tiny(chosen.seed) if chosen.tiny else movielens(chosen.data)
    found = explore(
        dataset,
        TINY if chosen.tiny else MODELS,
        ((), ("quantize:int8",)) if chosen.tiny else VARIANTS,
        seed=chosen.seed,
        cold_runs=0 if chosen.tiny else 1,
        progress=lambda step, done, total: say(f"{done:3}/{total} {step}"),
    )
    losses = {one: [loss.mean, loss.low, loss.high] for one, loss in found.losses.items()}
    line = {
        "receipts": [receipt.to_json() for receipt in found.receipts],
        "losses": losses,
        "chosen": found.choice.receipt.bundle_id,
        "why": found.choice.why,
        "final": found.final.to_json(),
        "skipped": list(found.skipped),
    }
    record("frontier", line, chosen)
    say(found.choice.why)
    if not chosen.tiny:
        draw(line, PICTURE)


def draw(line: dict[str, Any], path: Path) -> None:
    """Draw the receipts of a raw line."""
    receipts = [Receipt.from_json(one) for one in line["receipts"]]
    choice = next(receipt for receipt in receipts if receipt.bundle_id == line["chosen"])
    plots.save(plots.frontier_figure(Frontier(receipts), COSTS, choice), path)
    say(f"drew {path.name}")


def movielens(folder: Path | None) -> Dataset:
    """Return ml-1m, the last event of a user for the test and the one before for the choice."""
    return prepare(str(data(folder, "ml-1m", "ratings.parquet")), split=LastOut())


def tiny(seed: int) -> Dataset:
    """Return a synthetic log of seconds."""
    events = synthesize(num_users=200, num_items=100, num_events=6000, seed=seed)
    columns = {"user": events.user_row, "item": events.item_row, "timestamp": events.time_s}
    return prepare(columns, split=LastOut())


if __name__ == "__main__":
    main()
