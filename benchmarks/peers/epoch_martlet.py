"""Martlet trains a sequence model on given histories, an epoch a request."""

import json
import sys
import tempfile
from pathlib import Path

from _answer import answer

from martlet.core import Dataset
from martlet.models.registry import spec
from martlet.train.run import Run


def prepare(folder, model, params, seed):
    dataset = Dataset.load(folder)
    params = json.loads(params) | {"epochs": 1}

    def run():
        with tempfile.TemporaryDirectory() as kept:
            spec(model, **params).fit(dataset, seed=int(seed), run=Run(Path(kept)))
            line = json.loads((Path(kept) / "log.jsonl").read_text().splitlines()[-1])
        return {"train_s": line["seconds"], "loss": line["loss"], "ndcg@10": line["figure"]}

    return run


if __name__ == "__main__":
    sys.exit(answer(prepare))
