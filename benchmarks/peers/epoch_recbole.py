"""RecBole trains a sequence model on given histories, an epoch a request, by its own trainer."""

import sys

from _answer import answer
from _recbole import load, step


def prepare(folder, model, batch, seed):
    settings = {
        "MAX_ITEM_LIST_LENGTH": 50,
        "train_batch_size": int(batch),
        "eval_batch_size": 4096,
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "metric_decimal_place": 8,
        "reg_weight": 0.0,
    }
    one = load(folder, model, seed, settings)

    def run(task, epoch=0, path=None):
        if task in ("valid", "test"):
            held = one.valid if task == "valid" else one.test
            return {"figures": dict(one.trainer.evaluate(held, load_best_model=False))}
        return step(one, task, epoch, path)

    return run


if __name__ == "__main__":
    sys.exit(answer(prepare))
