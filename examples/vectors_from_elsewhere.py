"""A model trained elsewhere: its vectors become a bundle that is shrunk, measured, asked as ours.

Run: python examples/vectors_from_elsewhere.py
"""

import numpy as np
import polars as pl

import martlet as mt
from martlet.data.synthetic import synthesize


def elsewhere(data: mt.Dataset, dim: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors of users and of items; a plain SVD stands for the other library."""
    met = np.zeros((data.num_users, data.num_items), np.float32)
    met[data.train.user_row, data.train.item_row] = 1
    left, size, right = np.linalg.svd(met, full_matrices=False)
    return left[:, :dim] * size[:dim], right[:dim].T


def main() -> None:
    """Compare full and small vectors on the test part, then answer a user and a stranger."""
    events = synthesize(num_users=300, num_items=150, num_events=12_000, seed=2)
    log = {"user": events.user_row, "item": events.item_row, "timestamp": events.time_s}
    data = mt.prepare(pl.DataFrame(log), split=mt.RandomSplit(valid=0.1, test=0.1))
    users, items = elsewhere(data)
    # In the order of the dataset's ids, so that both speak of the same rows.
    met = data.train.histories
    bundle = mt.from_vectors(
        items,
        data.items.ids,
        users,
        data.users.ids,
        [data.items.names(met.row(row)) for row in range(data.num_users)],
    )
    small = mt.compress(bundle, [mt.Quantize("int8")])
    for one in (bundle, small):
        ndcg = mt.evaluate(one, data, metrics=("ndcg",)).figures["ndcg@10"]
        print(f"ndcg@10 {ndcg:.4f}, {one.scoring_bytes / 1e3:.1f} kB to scan")
    print("a user:", small.recommend([data.users.ids[0]], 3)[0])
    first = data.items.ids[0]
    print("somebody with one event:", small.recommend(histories=[[first]], k=3)[0].item_ids)
    print("a stranger:", small.recommend(["nobody"], 3)[0])


if __name__ == "__main__":
    main()
