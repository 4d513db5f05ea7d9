"""DeepCTR-Torch trains a model of fields on given codes and numbers, an epoch a request."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from _answer import answer
from deepctr_torch.inputs import DenseFeat, SparseFeat
from deepctr_torch.models import DCN, WDL, DeepFM

PLAIN = {"l2_reg_linear": 0, "l2_reg_embedding": 0}  # ours has no penalty either
MODELS = {
    "wide-deep": (WDL, PLAIN),
    "deepfm": (DeepFM, PLAIN),
    "dcnv2": (DCN, PLAIN | {"cross_parameterization": "matrix", "l2_reg_cross": 0}),
}


class Both:
    """Adam over parameters, and its lazy form over tables of sparse gradients."""

    def __init__(self, network, rate):
        tables = [m.weight for m in network.modules() if isinstance(m, torch.nn.Embedding)]
        known = {id(table) for table in tables}
        others = [p for p in network.parameters() if id(p) not in known]
        self.parts = [torch.optim.SparseAdam(tables, rate), torch.optim.Adam(others, rate)]

    def zero_grad(self):
        """Forget the gradients of both."""
        for part in self.parts:
            part.zero_grad()

    def step(self):
        """Move both."""
        for part in self.parts:
            part.step()


def prepare(folder, model, params, path, seed):
    """``path``: "dense", the library's own; "sparse" sets PyTorch's flag on its tables."""
    params, folder = json.loads(params), Path(folder)
    sizes = json.loads((folder / "sizes.json").read_text())
    names = [f"c{i}" for i in range(len(sizes))]
    numbers = [f"n{i}" for i in range(np.load(folder / "train.numbers.npy").shape[1])]
    fields = [
        SparseFeat(name, size, params["dim"]) for name, size in zip(names, sizes, strict=True)
    ]
    fields += [DenseFeat(name, 1) for name in numbers]
    kind, given = MODELS[model]
    if model == "dcnv2":
        given = given | {"cross_num": params["crosses"]}
    hidden = (params["hidden"],) * params["layers"]
    network = kind(fields, fields, dnn_hidden_units=hidden, seed=int(seed), **given)
    if path == "sparse":
        network.regularization_weight = []  # DCN hands no l2_reg_linear on; its gradient is dense
        for part in network.modules():
            if isinstance(part, torch.nn.Embedding):
                part.sparse = True
        optimizer = Both(network, params["rate"])
    else:
        optimizer = torch.optim.Adam(network.parameters(), params["rate"])
    network.compile(optimizer, "binary_crossentropy")

    def columns(part):
        rows, given = (np.load(folder / f"{part}.{kind}.npy") for kind in ("rows", "numbers"))
        found = {name: rows[:, i] for i, name in enumerate(names)}
        return found | {name: given[:, i] for i, name in enumerate(numbers)}

    train, label = columns("train"), np.load(folder / "train.label.npy")

    def run(task, part=None, path=None):
        if task == "epoch":
            network.fit(dict(train), label, params["batch"], epochs=1, verbose=0)
            return {"rows": len(label)}
        np.save(path, network.predict(columns(part), 8192).reshape(-1))
        return {}

    return run


if __name__ == "__main__":
    torch.set_num_threads(2)
    sys.exit(answer(prepare))
