"""RecBole's ``Trainer.evaluate`` over stored vectors, with files, config and loaders of its own."""

import sys
from pathlib import Path

import numpy as np
import torch
from _answer import answer
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.trainer import Trainer
from recbole.utils import InputType

NAMES = {
    "ndcg@10": "ndcg@10",
    "recall@10": "recall@10",
    "hit@10": "hit_rate@10",
    "mrr@10": "mrr@10",
    "precision@10": "precision@10",
}


class Vectors(GeneralRecommender):
    """Scores by the product of two stored tables."""

    input_type = InputType.PAIRWISE

    def __init__(self, config, dataset, users, items):
        super().__init__(config, dataset)
        self.users = torch.nn.Parameter(self._placed(dataset, "user_id", users))
        self.items = torch.nn.Parameter(self._placed(dataset, "item_id", items))

    @staticmethod
    def _placed(dataset, field, vectors):
        """Return the vectors in RecBole's own order; its row 0 is padding."""
        at = dataset.field2id_token[field][1:].astype(int)
        return torch.from_numpy(
            np.vstack([np.zeros((1, vectors.shape[1]), np.float32), vectors[at]])
        )

    def full_sort_predict(self, interaction):
        """Return the scores of all items for each user of the batch."""
        return self.users[interaction[self.USER_ID]] @ self.items.T


def prepare(folder):
    own = Path(folder) / "recbole"
    own.mkdir(exist_ok=True)
    for name in ("train", "valid", "test"):
        pairs = np.load(f"{folder}/{name}.npy")[:, :2]
        head = "user_id:token\titem_id:token"
        np.savetxt(own / f"recbole.{name}.inter", pairs, "%d", "\t", header=head, comments="")
    config = Config(
        model="BPR",
        dataset="recbole",
        config_dict={
            "data_path": folder,
            "benchmark_filename": ["train", "valid", "test"],
            "load_col": {"inter": ["user_id", "item_id"]},
            "metric_decimal_place": 12,
            "use_gpu": False,
            "checkpoint_dir": str(own / "saved"),
            "show_progress": False,
        },
    )
    dataset = create_dataset(config)
    _, _, test = data_preparation(config, dataset)
    users, items = (np.load(f"{folder}/{name}.npy") for name in ("users", "items"))
    trainer = Trainer(config, Vectors(config, dataset, users, items))

    def run():
        found = trainer.evaluate(test, load_best_model=False, show_progress=False)
        return {"figures": {NAMES[name]: float(value) for name, value in found.items()}}

    return run


if __name__ == "__main__":
    torch.set_num_threads(2)
    sys.exit(answer(prepare))
