"""How long do TensorFlow, plain torch and Martlet take for the classic tutorial's factorization?

A random matrix of 1000 x 1000, half of it zero, is met by the product of two matrices of k = 50:
100 epochs of Adam at .001 on the squared error over all cells. All begin at the same numbers, and
after every epoch their losses must be the same. A run is the whole program but for imports and the
making of the matrix; TensorFlow runs it as the tutorial has it and through ``tf.function``, whose
tracing counts. The rounds are interleaved.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from _common import Peer, interleave, options, peer_python, record, say, scratch, summary
from martlet.core import rng

SCALE, RATE = 0.1, 0.001
WITHIN = 1e-4  # share by which losses may differ: sums over a million cells in float32


def main() -> None:
    chosen = options(__doc__.splitlines()[0], rounds=7)
    size, dim, epochs = (60, 5, 10) if chosen.tiny else (1000, 50, 100)
    with scratch() as folder, ExitStack() as stack:
        path = folder / "start.npz"
        np.savez(path, **start(size, dim, chosen.seed))
        mine = (path, str(dim), str(SCALE), str(chosen.seed))
        asked = {"epochs": epochs, "rate": RATE}
        variants: dict[str, tuple[Any, dict[str, Any]]] = {
            "martlet": (Peer(sys.executable, "tutorial_martlet.py", *mine), asked)
        }
        if not chosen.tiny:
            variants["torch"] = (Peer(sys.executable, "tutorial_torch.py", path), asked)
            if python := peer_python("tensorflow"):
                peer = Peer(python, "tutorial_tensorflow.py", path)
                variants["tensorflow"] = (peer, asked | {"compiled": False})
                variants["tensorflow-function"] = (peer, asked | {"compiled": True})
            else:
                say("TensorFlow is not installed: make .venv-peers/tensorflow")
        for peer in {id(peer): peer for peer, _ in variants.values()}.values():
            stack.enter_context(peer)
        losses: dict[str, list[float]] = {}

        def timed(name: str) -> Callable[[], float]:
            def run() -> float:
                peer, request = variants[name]
                answer = peer.ask(**request)
                losses[name] = answer["losses"]
                return float(answer["seconds"])

            return run

        runs = {name: timed(name) for name in variants}
        for run in runs.values():
            run()  # a first one loads libraries
        seconds = interleave(runs, 1 if chosen.tiny else chosen.rounds, rest_s=0.2)
    apart = {
        name: float(np.max(np.abs(np.divide(found, losses["martlet"]) - 1)))
        for name, found in losses.items()
    }
    line = {"size": size, "dim": dim, "epochs": epochs, "rate": RATE, "seconds": seconds}
    line |= {"last_loss": {name: found[-1] for name, found in losses.items()}, "apart": apart}
    record("matrix_tutorial", line, chosen)
    middle = {name: summary(values)["median"] for name, values in seconds.items()}
    for name, value in middle.items():
        ratio = value / middle["martlet"]
        say(f"  {name}: {1000 * value:.0f} ms, {ratio:.1f} times; losses {apart[name]:.1e} apart")
    assert max(apart.values()) < WITHIN, f"the losses differ: {json.dumps(apart)}"
    found = losses["martlet"]
    assert found[-1] < found[0], "nothing was learnt"


def start(size: int, dim: int, seed: int) -> dict[str, np.ndarray]:
    """Return the matrix, and the numbers that all begin at: those of ``MatrixFactorization``."""
    random = rng(seed, "matrix tutorial")
    matrix = random.random((size, size)).astype(np.float32)
    matrix[random.random((size, size)) < 0.5] = 0
    both = rng(seed, "matrix factorization").normal(0, SCALE, (2 * size, dim)).astype(np.float32)
    return {"matrix": matrix, "users": both[:size], "items": both[size:]}


if __name__ == "__main__":
    main()
