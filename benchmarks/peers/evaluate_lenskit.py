"""LensKit's batch ``recommend`` and ``RunAnalysis`` over stored vectors, in its top-n pipeline."""

import sys

import numpy as np
import pandas as pd
from _answer import answer
from lenskit.batch import recommend
from lenskit.data import DatasetBuilder, ItemList, ItemListCollection, RecQuery
from lenskit.metrics import NDCG, Hit, Precision, Recall, RecipRank, RunAnalysis
from lenskit.metrics.ranking import LogRankWeight
from lenskit.pipeline import Component, topn_pipeline
from lenskit.training import Trainable

METRICS = {
    "ndcg@10": NDCG(10, weight=LogRankWeight(offset=1)),  # the usual log2(place + 1)
    "recall_of_shown@10": Recall(10),  # divides by min(10, relevant)
    "hit_rate@10": Hit(10),
    "mrr@10": RecipRank(10),
    "precision@10": Precision(10),
}


class Vectors(Component[ItemList], Trainable):
    """Scores by the product of two stored tables in the order of LensKit's own rows."""

    config: None

    def __init__(self, users, items):
        super().__init__()
        self.user_vectors, self.item_vectors = users, items

    def train(self, data, options):
        """Put the vectors into the order of the data."""
        self.users, self.items = data.users, data.items
        self.user_vectors = self.user_vectors[data.users.ids()]
        self.item_vectors = self.item_vectors[data.items.ids()]

    def __call__(self, query: RecQuery, items: ItemList) -> ItemList:
        """Return the items with their scores."""
        vector = self.user_vectors[self.users.number(query.user_id)]
        at = items.numbers(vocabulary=self.items)
        return ItemList(items, scores=self.item_vectors[at] @ vector)


def prepare(folder):
    def frame(*names):
        pairs = np.concatenate([np.load(f"{folder}/{name}.npy") for name in names])
        return pd.DataFrame({"user_id": pairs[:, 0], "item_id": pairs[:, 1]})

    builder = DatasetBuilder()
    builder.add_interactions(
        "rating", frame("train", "valid"), entities=["user", "item"], missing="insert", default=True
    )
    dataset = builder.build()
    users, items = (np.load(f"{folder}/{name}.npy") for name in ("users", "items"))
    pipeline = topn_pipeline(Vectors(users, items), n=10)
    pipeline.train(dataset)
    test = ItemListCollection.from_df(frame("test"), ["user_id"])
    analysis = RunAnalysis()
    for label, metric in METRICS.items():
        analysis.add_metric(metric, label)

    def run(jobs=1):
        lists = recommend(pipeline, test, n=10, n_jobs=jobs)
        means = analysis.measure(lists, test).list_summary()["mean"]
        return {"figures": {label: float(means[label]) for label in METRICS}}

    return run


if __name__ == "__main__":
    sys.exit(answer(prepare))
