"""What a user did before each of its events: a window an example, sums shared between windows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from martlet.core import CSR, rng

I64 = NDArray[np.int64]
CHUNK = 16  # targets of one user that stand together: few enough that a batch has many users


class Examples(NamedTuple):
    """A batch of T examples over E events that are read.

    Attributes:
        events: (E,) int64 item rows.
        start, stop: (T,) int64: the history of example t is ``events[start[t]:stop[t]]``.
        target: (T,) int64 item rows.
        user: (T,) int64 user rows.
        place: (T,) int64 where the targets stand among all events.
    """

    events: I64
    start: I64
    stop: I64
    target: I64
    user: I64
    place: I64


@dataclass(frozen=True, eq=False)
class Windows:
    """Every event as an example: its item, and the last events strictly before it.

    Attributes:
        histories: (users x n) CSR in time order.
        max_length: events that are read, the last ones.
        size: examples of a batch.
        seed: of the order.
        first: whether a user's first event, which nothing stands before, is an example too.
    """

    histories: CSR
    max_length: int
    size: int
    seed: int
    first: bool = False

    def batches(self, epoch: int) -> list[I64]:
        """Return the chunks of each batch; their number is the same in every epoch. O(chunks)."""
        order = rng(self.seed, "batches", epoch).permutation(len(self._chunks[0]))
        _, begin, end = self._chunks
        reached = np.cumsum((end - begin)[order])
        cut = np.flatnonzero(np.diff((reached - 1) // self.size)) + 1
        return np.split(order, cut) if len(order) else []

    def take(self, chunks: I64) -> Examples:
        """Return the examples of some chunks. O(events that are read + examples)."""
        user, begin, end = (part[chunks] for part in self._chunks)
        own = self.histories.indptr[user]
        low = np.maximum(own, begin - self.max_length)
        read, shift = _ranges(low, end - 1)
        place, of = _ranges(begin, end)
        of = np.repeat(np.arange(len(chunks)), end - begin)
        stop = place - low[of] + shift[of]
        length = np.minimum(place - own[of], self.max_length)
        indices = self.histories.indices
        return Examples(
            indices[read].astype(np.int64),
            stop - length,
            stop,
            indices[place].astype(np.int64),
            user[of],
            place,
        )

    @cached_property
    def num_targets(self) -> int:
        """Examples of an epoch."""
        _, begin, end = self._chunks
        return int((end - begin).sum())

    def users(self, chunks: I64) -> I64:
        """Return whose examples they are."""
        return self._chunks[0][chunks]

    @cached_property
    def _chunks(self) -> tuple[I64, I64, I64]:
        """Return the user, the first target and the end of each run of targets."""
        start = self.histories.indptr[:-1] + (0 if self.first else 1)
        targets = np.maximum(self.histories.indptr[1:] - start, 0)
        width = min(CHUNK, self.size)
        pieces = -(-targets // width)
        user = np.repeat(np.arange(len(targets)), pieces)
        turn = np.arange(len(user)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        begin = start[user] + turn * width
        return user, begin, np.minimum(begin + width, start[user] + targets[user])


def _ranges(start: I64, stop: I64) -> tuple[I64, I64]:
    """Return the numbers of all ranges one after another, and where each range begins in them."""
    length = np.maximum(stop - start, 0)
    shift = np.cumsum(length) - length
    return np.arange(length.sum()) + np.repeat(start - shift, length), shift


def window_means(vectors: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Return (T, d) means of ``vectors[start[t]:stop[t]]``; zeros where there is none.

    Differences of running sums, in float64: a window costs as much as one event, however long it
    is, and late windows of a batch are as exact as early ones. O((E + T) d).

    Args:
        vectors: (E, d) float32.
        start: (T,) int64.
        stop: (T,) int64.
    """
    sums = torch.cumsum(vectors, 0, dtype=torch.float64)
    sums = torch.cat([sums.new_zeros(1, vectors.shape[1]), sums])
    total = sums.index_select(0, stop) - sums.index_select(0, start)
    return (total / (stop - start).clamp(min=1)[:, None]).to(vectors.dtype)
