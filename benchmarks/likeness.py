"""How alike are a synthetic log and its source, beside the same source with chance between rows?

Two calibrations: the one that comes with the package (MovieLens 100K), and one fitted here on a log
it has never met (MovieLens 1M). Each draws a log of the source's size under a seed that the fit did
not use. "By chance" deals the source's items, weights and times anew over its rows, so that every
count stays and nothing is left between them.
"""

from __future__ import annotations

import time
from argparse import Namespace

import numpy as np
import polars as pl

from _common import data, options, record, say
from martlet.core import Interactions, rng
from martlet.data import calibrate as calibrating
from martlet.data import sources
from martlet.data.calibration import Calibration
from martlet.data.likeness import Likeness
from martlet.data.synthetic import synthesize

FIT_SEED, DRAW_SEED = 0, 1
LATENT = ("width", "circle_ratio", "lean", "drift")


def main() -> None:
    chosen = options(__doc__.splitlines()[0])
    if chosen.tiny:
        calibrating.WIDE = calibrating.NARROW = calibrating.TURNS = calibrating.HALVINGS = 1
        source = synthesize(num_users=200, num_items=100, num_events=4000, seed=FIT_SEED)
        compare("synthetic", source, Calibration.default(), chosen)
        compare("synthetic, fitted here", source, fitted(source), chosen)
        return
    try:
        small = pl.read_csv(sources.get("ml-100k") / "ml-100k.inter", separator="\t")
    except sources.SourceUnavailable as error:
        say(f"ml-100k is left out: {error}")
    else:
        small.columns = ["user_id", "item_id", "rating", "timestamp"]
        compare("ml-100k", log(small), Calibration.default(), chosen)
    large = log(pl.read_parquet(data(chosen.data, "ml-1m", "ratings.parquet")))
    compare("ml-1m", large, fitted(large), chosen)


def log(frame: pl.DataFrame) -> Interactions:
    """Return the events of a table as they are, without cleaning."""
    rows = [np.unique(frame[name], return_inverse=True)[1] for name in ("user_id", "item_id")]
    columns = [frame[name].to_numpy() for name in ("rating", "timestamp")]
    users, items = (int(row.max()) + 1 for row in rows)
    return Interactions.sort(*rows, *columns, num_users=users, num_items=items)


def fitted(source: Interactions) -> Calibration:
    begin = time.perf_counter()
    found = Calibration.fit(source, seed=FIT_SEED)
    say(f"fitted in {time.perf_counter() - begin:.0f} s")
    return found


def compare(name: str, source: Interactions, calibration: Calibration, chosen: Namespace) -> None:
    """Record every distance of a drawn log, and of one by chance, from the source."""
    sizes = {"num_users": source.num_users, "num_items": source.num_items}
    begin = time.perf_counter()
    drawn = synthesize(calibration, **sizes, num_events=len(source), seed=DRAW_SEED)
    seconds = time.perf_counter() - begin
    stream = rng(chosen.seed, "likeness")
    columns = [stream.permutation(one) for one in (source.item_row, source.weight, source.time_s)]
    dealt = Interactions.sort(source.user_row, *columns, **sizes)
    here = Likeness(source)
    ours, chance = here.distance(Likeness(drawn)), here.distance(Likeness(dealt))
    say(f"{name}: {len(source):,} events drawn in {seconds:.1f} s; distance drawn / by chance")
    for statistic, value in ours.items():
        say(f"  {statistic:16} {value:.3f}  {chance[statistic]:.3f}")
    about = {
        "source": name, "events": len(source), **sizes, "draw_s": seconds,
        "latent": {name: getattr(calibration, name) for name in LATENT},
        "distance": ours, "by_chance": chance,
    }  # fmt: skip
    record("likeness", about, chosen)


if __name__ == "__main__":
    main()
