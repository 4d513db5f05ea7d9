"""LightGBM fits boosted trees on given codes and numbers; codes are categories to it."""

import json
import sys
from pathlib import Path

import lightgbm
import numpy as np
from _answer import answer

GIVEN = {
    "objective": "binary", "metric": "auc", "num_threads": 2, "verbosity": -1,
    "learning_rate": 0.05, "num_leaves": 63, "min_data_in_leaf": 50, "max_cat_threshold": 64,
    "bagging_fraction": 0.9, "bagging_freq": 1, "feature_fraction": 0.8,
}  # fmt: skip
ROUNDS, PATIENCE = 1000, 50


def prepare(folder, params):
    folder, params = Path(folder), json.loads(params)

    def columns(part):
        rows, given = (np.load(folder / f"{part}.{kind}.npy") for kind in ("rows", "numbers"))
        return np.column_stack([rows, given]).astype(np.float32)

    def data(part, reference=None):
        label = np.load(folder / f"{part}.label.npy")
        fields = list(range(np.load(folder / f"{part}.rows.npy").shape[1]))
        return lightgbm.Dataset(
            columns(part), label, categorical_feature=fields, reference=reference
        )

    def run(seed, path):
        train = data("train")
        found = lightgbm.train(
            GIVEN | params | {"seed": seed},
            train,
            ROUNDS,
            valid_sets=[data("valid", train)],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        np.save(path, found.predict(columns("test"), num_iteration=found.best_iteration))
        best = found.best_score["valid_0"]["auc"]
        return {"trees": found.best_iteration, "valid_auc": best}

    return run


if __name__ == "__main__":
    sys.exit(answer(prepare))
