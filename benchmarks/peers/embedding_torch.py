"""torch's ``nn.Embedding(sparse=True)``; runs under ``.venv-peers/fbgemm``.

``rowwise`` takes row-wise Adagrad in torch's own operations over the coalesced gradient;
``optim`` is ``torch.optim.Adagrad``, which keeps a sum of squares for every value.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from _answer import answer


def prepare(folder, variant, threads, rate, eps):
    torch.set_num_threads(int(threads))
    folder, rate, eps = Path(folder), float(rate), float(eps)
    values = torch.from_numpy(np.load(folder / "values.npy"))
    module = torch.nn.Embedding.from_pretrained(values, freeze=False, sparse=True)
    squares = torch.zeros(len(values))
    optim = torch.optim.Adagrad(module.parameters(), lr=rate, eps=eps)

    @torch.no_grad()
    def rowwise():
        gradient = module.weight.grad.coalesce()
        at, sums = gradient.indices()[0], gradient.values()
        squares.index_add_(0, at, sums.square().mean(1))
        scale = -rate / (squares[at].sqrt_() + eps)
        module.weight.index_add_(0, at, sums.mul_(scale[:, None]))

    update = {"rowwise": rowwise, "optim": optim.step}[variant]
    rows, gradients = (
        torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("rows", "gradients")
    )

    def run(first, count, save=None):
        step_s = []
        for step in range(first, first + count):
            gradient = gradients[step % len(gradients)]
            begin = time.perf_counter()
            module.weight.grad = None
            module(rows[step].view(-1)).backward(gradient)
            update()
            step_s.append(time.perf_counter() - begin)
        if save:
            touched = np.load(folder / "touched.npy")
            np.save(save, module.weight.detach().numpy()[touched])
        return {"step_s": step_s}

    return run


if __name__ == "__main__":
    sys.exit(answer(prepare))
