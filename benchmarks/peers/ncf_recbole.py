"""RecBole trains NeuMF or BPR on given events, an epoch a request, by its own trainer.

The last two events of each user are held out; the pairs to score are asked for by token.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
from _answer import answer
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.interaction import Interaction
from recbole.utils import get_model, get_trainer, init_seed

_PAIRS = 1 << 17
_load = torch.load


def _load_all(*arguments, **options):
    """RecBole's files hold more than weights; they were written by this script."""
    return _load(*arguments, **(options | {"weights_only": False}))


torch.load = _load_all


def prepare(folder, model, params, seed):
    config = Config(
        model=model,
        dataset="log",
        config_dict={
            "data_path": folder,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user",
                          "mode": "full"},
            "metrics": ["NDCG"],
            "topk": [10],
            "valid_metric": "NDCG@10",
            "use_gpu": False,
            "seed": int(seed),
            "reproducibility": False,
            "checkpoint_dir": str(Path(folder) / "saved"),
            "show_progress": False,
            **json.loads(params),
        },
    )  # fmt: skip
    init_seed(config["seed"], False)
    random.seed(config["seed"])
    dataset = create_dataset(config)
    train, _, _ = data_preparation(config, dataset)
    network = get_model(model)(config, train._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], model)(config, network)
    ids = {}
    for column in ("user_id", "item_id"):
        known = dataset.field2token_id[column]
        ids[column] = np.array([known.get(str(row), 0) for row in range(len(known) + 2)])

    def score(path):
        given = np.load(path)
        users = np.repeat(ids["user_id"][given["users"]], given["items"].shape[1])
        items = ids["item_id"][given["items"]].ravel()
        network.eval()
        found = []
        with torch.no_grad():
            for start in range(0, len(users), _PAIRS):
                at = slice(start, start + _PAIRS)
                pairs = {"user_id": torch.from_numpy(users[at]),
                         "item_id": torch.from_numpy(items[at])}  # fmt: skip
                found.append(network.predict(Interaction(pairs)).numpy())
        np.save(Path(path).with_suffix(".scores.npy"), np.concatenate(found))
        return {}

    def run(task, epoch=0, path=None):
        if task == "train":
            loss = trainer._train_epoch(train, epoch)
            return {"loss": loss / len(train), "rows": len(train._dataset)}
        if task == "score":
            return score(path)
        if task == "save":
            trainer.saved_model_file = path
            trainer._save_checkpoint(epoch, verbose=False)
        else:
            trainer.resume_checkpoint(path)
        return {}

    return run


if __name__ == "__main__":
    torch.set_num_threads(2)
    np.seterr(all="ignore")
    sys.exit(answer(prepare))
