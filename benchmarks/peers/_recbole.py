"""What the peers that are RecBole share: its set-up on given events, and its trainer's requests."""

import random
from collections import namedtuple
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

_load = torch.load


def _load_all(*arguments, **options):
    """RecBole's files hold more than weights; they were written by its peer's own script."""
    return _load(*arguments, **(options | {"weights_only": False}))


torch.load = _load_all
torch.set_num_threads(2)
np.seterr(all="ignore")

Model = namedtuple("Model", "dataset train valid test network trainer")


def load(folder, model, seed, settings):
    """Return a model over the events of ``folder``, the last two of each user held out."""
    config = Config(
        model=model,
        dataset="log",
        config_dict={
            "data_path": folder,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user",
                          "mode": "full"},
            "metrics": ["NDCG", "Recall"],
            "topk": [10],
            "valid_metric": "NDCG@10",
            "use_gpu": False,
            "seed": int(seed),
            "reproducibility": False,
            "checkpoint_dir": str(Path(folder) / "saved"),
            "show_progress": False,
            **settings,
        },
    )  # fmt: skip
    init_seed(config["seed"], False)
    random.seed(config["seed"])
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    network = get_model(model)(config, train._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], model)(config, network)
    return Model(dataset, train, valid, test, network, trainer)


def step(model, task, epoch, path):
    """Answer a request for an epoch, a checkpoint or its return."""
    if task == "train":
        loss = model.trainer._train_epoch(model.train, epoch)
        return {"loss": loss / len(model.train), "rows": len(model.train._dataset)}
    if task == "save":
        model.trainer.saved_model_file = path
        model.trainer._save_checkpoint(epoch, verbose=False)
        return {}
    if task == "resume":
        model.trainer.resume_checkpoint(path)
        return {}
    raise ValueError(task)
