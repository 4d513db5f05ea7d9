"""The answer to a batch of queries: items in order, with their scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best items of each query, best first.

    Attributes:
        item_row: (B, k) int32; a short list is padded with -1.
        score: (B, k) float32; -inf where the list is padded.
    """

    item_row: NDArray[np.int32]
    score: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.item_row)

    @property
    def k(self) -> int:
        """Places of each list."""
        return int(self.item_row.shape[1])


def tie_key(item_row: NDArray[np.integer]) -> NDArray[np.uint32]:
    """Return the (n,) uint32 keys that order items of equal score: the smaller key comes first.

    A bijective scramble of the row, so the order is total, the same on every machine, and favours
    neither head nor tail (rows fall by popularity, so the plain row would).
    """
    x = np.asarray(item_row).astype(np.uint32)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return np.asarray(x ^ (x >> np.uint32(16)), np.uint32)


def best(score: NDArray[np.float32], item_row: NDArray[np.int32], k: int) -> Ranking:
    """Return the ranking of the k best of (B, n) scored candidates; reference for the kernels.

    Candidates of row -1, and those whose score is -inf or NaN, are dropped. O(B n log n).
    """
    item_row = np.broadcast_to(item_row, score.shape)
    dropped = (item_row < 0) | ~(score > -np.inf)
    masked = np.where(dropped, np.float32(-np.inf), score)
    order = np.lexsort((tie_key(item_row), -masked, dropped), axis=1)[:, :k]
    rows = np.take_along_axis(np.where(dropped, -1, item_row), order, axis=1)
    scores = np.take_along_axis(masked, order, axis=1)
    short = max(0, k - rows.shape[1])
    return Ranking(
        np.pad(rows, ((0, 0), (0, short)), constant_values=-1).astype(np.int32),
        np.pad(scores, ((0, 0), (0, short)), constant_values=-np.inf).astype(np.float32),
    )
