"""RecTools trains its SASRec on given histories, an epoch a request, by its own Lightning trainer.

It reads the last 50 events before the newest of a user, so an epoch holds fewer targets than the
log has; ``rows`` tells how many. A batch is a number of users, each padded to 50; ``batch`` targets
are that many users on average. Its network within a block is as wide as the vectors: that, and the
coefficients of Adam, cannot be set.
"""

import logging
import os
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
import torch
from _answer import answer
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import NDCG, Recall, calc_metrics
from rectools.models import SASRecModel

LENGTH = 50
METRICS = {"ndcg@10": NDCG(k=10, divide_by_achievable=True), "recall@10": Recall(k=10)}


class Epoch(Callback):
    """Times an epoch from its first batch to its last: reading the log again is not training."""

    def on_train_epoch_start(self, trainer, module):  # noqa: D102
        self.begin = time.perf_counter()

    def on_train_epoch_end(self, trainer, module):  # noqa: D102
        self.seconds = time.perf_counter() - self.begin
        self.loss = float(trainer.callback_metrics["train_loss"])


def prepare(folder, model, batch, seed):
    if model != "SASRec":
        raise SystemExit(f"RecTools has no {model}: expected SASRec")
    seed_everything(int(seed))
    train, valid = parts(Path(folder) / "log" / "log.inter")
    dataset = Dataset.construct(train)
    targets = train[Columns.User].value_counts().clip(upper=LENGTH + 1) - 1
    sasrec = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=64,
        dropout_rate=0.5,
        session_max_len=LENGTH,
        loss="softmax",
        lr=1e-3,
        batch_size=max(1, round(int(batch) / targets.mean())),
        recommend_torch_device="cpu",
        get_trainer_func=trainer,
    )
    who = valid[Columns.User].unique()

    def run(task, epoch=0, path=None):
        if task == "train":
            sasrec.fit_partial(dataset, min_epochs=1, max_epochs=1)
            last = next(one for one in sasrec.fit_trainer.callbacks if isinstance(one, Epoch))
            return {"loss": last.loss, "rows": int(targets.sum()), "train_s": last.seconds}
        if task == "valid":
            found = sasrec.recommend(who, dataset, k=10, filter_viewed=True)
            figures = calc_metrics(METRICS, found, valid)
            return {"figures": {name: float(value) for name, value in figures.items()}}
        if task == "save":
            save(sasrec, path)
        else:
            resume(sasrec, dataset, path)
        return {}

    return run


def trainer():
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        callbacks=[Epoch()],
    )


def parts(path):
    """Return the log without the last two events of a user, and the last but one."""
    log = pd.read_csv(path, sep="\t", dtype="int64").set_axis(
        [Columns.User, Columns.Item, Columns.Datetime], axis=1
    )
    log[Columns.Datetime] = pd.to_datetime(log[Columns.Datetime], unit="s")
    log[Columns.Weight] = 1.0
    by_user = log.groupby(Columns.User)[Columns.Item]
    left = by_user.cumcount(ascending=False).where(by_user.transform("size") > 2, 2)
    return log[left >= 2].reset_index(drop=True), log[left == 1].reset_index(drop=True)


def save(model, path):
    """Write parameters, moments and the state of the random draws, whole or not at all."""
    module = model.lightning_model
    kept = {
        "parameters": module.state_dict(),
        "optimizer": module.optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
    torch.save(kept, f"{path}.new")
    os.replace(f"{path}.new", path)


def resume(model, dataset, path):
    """Set a model up as if it had been trained in this process."""
    kept = torch.load(path)
    model._build_model_from_dataset(dataset)
    model.fit_trainer = trainer()
    module = model.lightning_model
    module.load_state_dict(kept["parameters"])
    module.configure_optimizers().load_state_dict(kept["optimizer"])
    model.is_fitted = module.is_fitted = True
    torch.set_rng_state(kept["random"])


if __name__ == "__main__":
    torch.set_num_threads(2)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    sys.exit(answer(prepare))
