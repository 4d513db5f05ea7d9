"""RecBole trains NeuMF or BPR on given events, an epoch a request, by its own trainer.

The pairs to score are asked for by token.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from _answer import answer
from _recbole import load, step
from recbole.data.interaction import Interaction

_PAIRS = 1 << 17


def prepare(folder, model, params, seed):
    one = load(folder, model, seed, json.loads(params))
    ids = {}
    for column in ("user_id", "item_id"):
        known = one.dataset.field2token_id[column]
        ids[column] = np.array([known.get(str(row), 0) for row in range(len(known) + 2)])

    def score(path):
        given = np.load(path)
        users = np.repeat(ids["user_id"][given["users"]], given["items"].shape[1])
        items = ids["item_id"][given["items"]].ravel()
        one.network.eval()
        found = []
        with torch.no_grad():
            for start in range(0, len(users), _PAIRS):
                at = slice(start, start + _PAIRS)
                pairs = {"user_id": torch.from_numpy(users[at]),
                         "item_id": torch.from_numpy(items[at])}  # fmt: skip
                found.append(one.network.predict(Interaction(pairs)).numpy())
        np.save(Path(path).with_suffix(".scores.npy"), np.concatenate(found))
        return {}

    def run(task, epoch=0, path=None):
        return score(path) if task == "score" else step(one, task, epoch, path)

    return run


if __name__ == "__main__":
    sys.exit(answer(prepare))
