"""The classic tutorial's matrix factorization in plain torch: Adam on the dense squared error."""

import os
import sys

import numpy as np
import torch
from _answer import answer

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def prepare(path):
    given = np.load(path)
    wanted = torch.from_numpy(given["matrix"])

    def run(epochs, rate):
        users, items = (
            torch.from_numpy(given[name].copy()).requires_grad_() for name in ("users", "items")
        )
        optimizer = torch.optim.Adam([users, items], lr=rate)
        losses = []
        for _ in range(epochs):
            optimizer.zero_grad()
            loss = ((wanted - users @ items.T) ** 2).sum()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return {"losses": [float(loss) for loss in losses]}

    return run


if __name__ == "__main__":
    sys.exit(answer(prepare))
