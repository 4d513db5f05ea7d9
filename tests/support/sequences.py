"""A small log whose order can be learnt: after item i mostly comes item i + 1, in a ring."""

import numpy as np

from martlet.core import Dataset
from martlet.data import LastOut, prepare


def ring(users: int = 120, items: int = 20, length: int = 9, noise: float = 0.1) -> Dataset:
    """Return the log, the last two events of each user held out."""
    stream = np.random.default_rng(0)
    start = stream.integers(0, items, users)[:, None] + np.arange(length)
    odd = stream.random(start.shape) < noise
    item = np.where(odd, stream.integers(0, items, start.shape), start % items)
    log = {
        "user": np.repeat(np.arange(users), length),
        "item": item.ravel(),
        "time": np.tile(np.arange(length), users),
    }
    return prepare(log, clean=(), split=LastOut())
