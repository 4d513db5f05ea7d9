"""FuxiCTR trains a model of fields on given codes and numbers, an epoch a request.

The package holds the layers; its models stand in its repository, and are put together here from
the same layers in the same way (``model_zoo``: WideDeep, DeepFM, DCNv2 "parallel", DLRM "dot").
"""

import json
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from _answer import answer
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders.npz_dataloader import NpzDataLoader
from fuxictr.pytorch.layers import (
    CrossNetV2,
    FactorizationMachine,
    FeatureEmbedding,
    InnerProductInteraction,
    LogisticRegression,
    MLP_Block,
)
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything


class Network(BaseModel):
    """One of the four, with the library's own training step."""

    def __init__(self, features, model, params, workspace):
        super().__init__(features, model, verbose=0, model_root=workspace, metrics=["AUC"])
        self.kind, dim = model, params["dim"]
        hidden = [params["hidden"]] * params["layers"]
        numeric = [n for n, spec in features.features.items() if spec["type"] == "numeric"]
        width = dim * features.num_fields
        if model == "dlrm":
            self.numeric, count = numeric, features.num_fields - len(numeric) + bool(numeric)
            self.embedding_layer = FeatureEmbedding(
                features, dim, not_required_feature_columns=numeric
            )
            if numeric:
                self.bottom = MLP_Block(len(numeric), hidden[:1], output_dim=dim,
                                        output_activation="ReLU")  # fmt: skip
            self.pairs = InnerProductInteraction(count, output="inner_product")
            width = count * (count - 1) // 2 + dim * bool(numeric)
        else:
            self.embedding_layer = FeatureEmbedding(features, dim)
        self.deep = MLP_Block(width, hidden, output_dim=None if model == "dcnv2" else 1)
        if model == "wide-deep":
            self.wide = LogisticRegression(features, use_bias=False)
        elif model == "deepfm":
            self.wide = FactorizationMachine(features)
        elif model == "dcnv2":
            self.crosses = CrossNetV2(width, params["crosses"])
            self.out = torch.nn.Linear(width + hidden[-1], 1)
        self.compile("adam", "binary_crossentropy", params["rate"])
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs):
        """Return the chances of a batch as the library expects them."""
        given = self.get_inputs(inputs)
        vectors = self.embedding_layer(given)
        if self.kind == "dlrm":
            logit = self.of_pairs(given, vectors)
        elif self.kind == "dcnv2":
            flat = vectors.flatten(start_dim=1)
            logit = self.out(torch.cat([self.crosses(flat), self.deep(flat)], dim=-1))
        else:
            wide = self.wide(given) if self.kind == "wide-deep" else self.wide(given, vectors)
            logit = wide + self.deep(vectors.flatten(start_dim=1))
        return {"y_pred": self.output_activation(logit)}

    def of_pairs(self, given, vectors):
        """Return the logits of DLRM."""
        own = []
        if self.numeric:
            columns = [given[name].view(-1, 1) for name in self.numeric]
            own = [self.bottom(torch.cat(columns, dim=-1).float())]
            vectors = torch.cat([vectors, own[0].unsqueeze(1)], dim=1)
        return self.deep(torch.cat([self.pairs(vectors), *own], dim=-1))


class SparseNetwork(Network):
    """The same over sparse gradients, which the library's own step cannot clip."""

    def compile(self, optimizer, loss, lr):
        """Part the parameters between two optimizers."""
        super().compile(optimizer, loss, lr)
        tables = []
        for part in self.modules():
            if isinstance(part, torch.nn.Embedding):
                part.sparse = True
                tables.append(part.weight)
        known = {id(table) for table in tables}
        others = [p for p in self.parameters() if id(p) not in known]
        self.optimizers = [torch.optim.SparseAdam(tables, lr), torch.optim.Adam(others, lr)]

    def train_step(self, batch_data):
        """Take the library's step, but for the clipping."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss = self.compute_loss(self.forward(batch_data), self.get_labels(batch_data))
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss


def prepare(folder, model, params, path, seed):
    """``path``: "dense", the library's own; "sparse" sets PyTorch's flag on its tables."""
    seed_everything(int(seed))
    params, folder = json.loads(params), Path(folder)
    sizes = json.loads((folder / "sizes.json").read_text())
    numbers = np.load(folder / "train.numbers.npy").shape[1]
    features = FeatureMap("ctr", str(folder))
    features.features = OrderedDict(
        {f"c{i}": {"source": "", "type": "categorical", "vocab_size": size}
         for i, size in enumerate(sizes)}
        | {f"n{i}": {"source": "", "type": "numeric"} for i in range(numbers)}
    )  # fmt: skip
    features.labels = ["label"]
    features.num_fields = features.get_num_fields()
    features.set_column_index()
    for part in ("train", "valid", "test"):
        if not (folder / f"{part}.rows.npy").exists() or (folder / f"{part}.npz").exists():
            continue
        rows, given, label = (
            np.load(folder / f"{part}.{kind}.npy") for kind in ("rows", "numbers", "label")
        )
        columns = {f"c{i}": rows[:, i] for i in range(rows.shape[1])}
        columns |= {f"n{i}": given[:, i] for i in range(given.shape[1])}
        np.savez(folder / f"{part}.npz", label=label, **columns)
    kind = SparseNetwork if path == "sparse" else Network
    network = kind(features, model, params, str(folder / "saved"))
    network._max_gradient_norm, network._total_steps = 10.0, 0  # what its fit sets
    network._eval_steps, network._stop_training = sys.maxsize, False

    def loader(part, shuffle):
        batch = params["batch"] if shuffle else 8192
        return NpzDataLoader(
            features, str(folder / part), batch_size=batch, shuffle=shuffle,
            num_workers=params.get("workers", 1),
        )  # fmt: skip

    train = loader("train", True)

    def run(task, part=None, path=None):
        if task == "epoch":
            network.train_epoch(train)
            return {"rows": train.num_samples}
        np.save(path, network.predict(loader(part, False)))
        return {}

    return run


if __name__ == "__main__":
    torch.set_num_threads(2)
    sys.exit(answer(prepare))
