"""What int8 costs: the same model in two storages, compared user by user.

Run: python examples/compress_and_compare.py [LOG]; without a log a synthetic one is made.
"""

import sys

import polars as pl

import martlet as mt
from martlet.data.synthetic import synthesize
from martlet.metrics import paired_bootstrap


def synthetic() -> pl.DataFrame:
    """Return a log of 400 users and 200 items."""
    events = synthesize(num_users=400, num_items=200, num_events=20_000, seed=1)
    return pl.DataFrame(
        {"user": events.user_row, "item": events.item_row, "timestamp": events.time_s}
    )


def main() -> None:
    """Fit, quantize, and print both figures with the interval of their difference."""
    log = sys.argv[1] if len(sys.argv) > 1 else synthetic()
    data = mt.prepare(log, split=mt.RandomSplit(valid=0.1, test=0.1))
    exact = mt.fit(mt.IALS(dim=32), data)
    small = mt.compress(exact, [mt.Quantize("int8")])
    ndcg = []
    for name, bundle in (("fp32", exact), ("int8", small)):
        quality = mt.evaluate(bundle, data, metrics=("ndcg",), per_user=True)
        ndcg.append(quality.users["ndcg@10"])
        figure, size = quality.figures["ndcg@10"], bundle.scoring_bytes / 1e3
        print(f"{name}: ndcg@10 {figure:.4f}, {size:.1f} kB to scan")
    print(f"difference: {paired_bootstrap(*ndcg)}")


if __name__ == "__main__":
    main()
