"""RecBole trains a sequence model on given histories, an epoch a request, by its own trainer."""

import random
import sys
from pathlib import Path

import numpy as np
import torch
from _answer import answer
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

_load = torch.load


def _load_all(*arguments, **options):
    """RecBole's files hold more than weights; they were written by this script."""
    return _load(*arguments, **(options | {"weights_only": False}))


torch.load = _load_all


def prepare(folder, model, batch, seed):
    config = Config(
        model=model,
        dataset="log",
        config_dict={
            "data_path": folder,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user",
                          "mode": "full"},
            "MAX_ITEM_LIST_LENGTH": 50,
            "train_batch_size": int(batch),
            "eval_batch_size": 4096,
            "train_neg_sample_args": None,
            "loss_type": "CE",
            "metrics": ["NDCG", "Recall"],
            "topk": [10],
            "valid_metric": "NDCG@10",
            "metric_decimal_place": 8,
            "use_gpu": False,
            "seed": int(seed),
            "reproducibility": False,
            "reg_weight": 0.0,
            "checkpoint_dir": str(Path(folder) / "saved"),
            "show_progress": False,
        },
    )  # fmt: skip
    init_seed(config["seed"], False)
    random.seed(config["seed"])
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    network = get_model(model)(config, train._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], model)(config, network)

    def run(task, epoch=0, path=None):
        if task == "train":
            loss = trainer._train_epoch(train, epoch)
            return {"loss": loss / len(train), "rows": len(train._dataset)}
        if task == "valid":
            return {"figures": dict(trainer.evaluate(valid, load_best_model=False))}
        if task == "test":
            return {"figures": dict(trainer.evaluate(test, load_best_model=False))}
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
