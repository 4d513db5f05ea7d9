"""FBGEMM's split table-batched embeddings on CPU; runs under ``.venv-peers/fbgemm``.

``fields`` gives it a table a field and one id a bag, as it is meant to be used; ``merged`` one
table without pooling. The update is part of its backward pass.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from _answer import answer
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import (
    BoundsCheckMode,
    EmbeddingLocation,
    PoolingMode,
)
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    SplitTableBatchedEmbeddingBagsCodegen,
)


def prepare(folder, variant, threads, rate, eps):
    torch.set_num_threads(int(threads))
    folder = Path(folder)
    values = np.load(folder / "values.npy")
    fields = np.load(folder / "rows.npy", mmap_mode="r").shape[-1]
    tables = fields if variant == "fields" else 1
    size = len(values) // tables
    place = EmbeddingLocation.HOST, ComputeDevice.CPU
    module = SplitTableBatchedEmbeddingBagsCodegen(
        [(size, values.shape[1], *place)] * tables,
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=float(rate),
        eps=float(eps),
        pooling_mode=PoolingMode.SUM if variant == "fields" else PoolingMode.NONE,
        bounds_check_mode=BoundsCheckMode.NONE,  # its fastest
    )
    weights = module.split_embedding_weights()
    for table, weight in enumerate(weights):
        weight.copy_(torch.from_numpy(values[table * size : (table + 1) * size]))
    del values

    rows = np.load(folder / "rows.npy")  # (steps, batch, fields)
    if variant == "fields":  # a field after the other, each with numbers of its own
        rows = rows.transpose(0, 2, 1) - size * np.arange(fields)[:, None]
    rows = torch.from_numpy(rows.reshape(len(rows), -1).copy())
    gradients = torch.from_numpy(np.load(folder / "gradients.npy"))
    offsets = torch.arange(rows.shape[1] + 1)  # one id a bag
    if variant == "fields":
        gradients = gradients.view(len(gradients), -1, fields * gradients.shape[-1])
    else:
        offsets = offsets[[0, -1]]  # one bag, not pooled

    def run(first, count, save=None):
        step_s = []
        for step in range(first, first + count):
            gradient = gradients[step % len(gradients)]
            begin = time.perf_counter()
            module(rows[step], offsets).backward(gradient)
            step_s.append(time.perf_counter() - begin)
        if save:
            touched = np.load(folder / "touched.npy")
            np.save(save, np.concatenate([weight.numpy() for weight in weights])[touched])
        return {"step_s": step_s}

    return run


if __name__ == "__main__":
    sys.exit(answer(prepare))
