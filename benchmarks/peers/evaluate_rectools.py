"""RecTools' ``recommend`` and ``calc_metrics`` over stored vectors, as one of its own models."""

import sys

import numpy as np
import pandas as pd
from _answer import answer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import MRR, NDCG, HitRate, Precision, Recall, calc_metrics
from rectools.models.rank import Distance
from rectools.models.vector import Factors, VectorModel

METRICS = {
    "ndcg@10": NDCG(k=10, divide_by_achievable=True),
    "recall@10": Recall(k=10),
    "hit_rate@10": HitRate(k=10),
    "mrr@10": MRR(k=10),
    "precision@10": Precision(k=10),
}


class Vectors(VectorModel):
    """Two stored tables in the order of RecTools' own rows."""

    u2i_dist = Distance.DOT
    i2i_dist = Distance.COSINE

    def __init__(self, users, items):
        super().__init__()
        self.users, self.items = users, items
        self.recommend_n_threads = 2
        self.recommend_use_gpu_ranking = False

    def _fit(self, dataset):
        self.users = self.users[dataset.user_id_map.external_ids]
        self.items = self.items[dataset.item_id_map.external_ids]

    def _get_users_factors(self, dataset):
        return Factors(self.users)

    def _get_items_factors(self, dataset):
        return Factors(self.items)


def prepare(folder):
    def frame(*names):
        pairs = np.concatenate([np.load(f"{folder}/{name}.npy") for name in names])
        columns = {Columns.User: pairs[:, 0], Columns.Item: pairs[:, 1], Columns.Weight: 1}
        return pd.DataFrame(columns | {Columns.Datetime: pd.Timestamp(2000, 1, 1)})

    known, test = frame("train", "valid"), frame("test")
    dataset = Dataset.construct(known)
    users, items = (np.load(f"{folder}/{name}.npy") for name in ("users", "items"))
    model = Vectors(users, items).fit(dataset)
    who = test[Columns.User].unique()

    def run():
        reco = model.recommend(who, dataset, k=10, filter_viewed=True)
        return {"figures": {k: float(v) for k, v in calc_metrics(METRICS, reco, test).items()}}

    return run


if __name__ == "__main__":
    sys.exit(answer(prepare))
