"""Histories in pieces of like length: batches that hold little padding and whole token budgets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, rng

I64 = NDArray[np.int64]

_LAST_ALONE = 0.1  # of the pieces, as in BERT4Rec's own data: one in eleven there


class Tokens(NamedTuple):
    """A batch of pieces, padded behind.

    Attributes:
        rows: (B, L) int64 item rows; 0 where ``mask`` is False.
        mask: (B, L) bool: where an event stands.
        target: (T,) int64 the next item of each event, in the order of ``mask``.
        event: (T,) int64 where each event stands among those of all histories.
    """

    rows: I64
    mask: NDArray[np.bool_]
    target: I64
    event: I64


class Cloze(NamedTuple):
    """A batch of pieces with events hidden in it, padded behind.

    Attributes:
        rows: (B, L) int64 item rows; 0 where ``mask`` is False.
        mask: (B, L) bool: where an event stands.
        hidden: (B, L) bool: which of them are to be told from the rest; one in a piece at least.
        target: (T,) int64 their items, in the order of ``hidden``.
        event: (T,) int64 where each stands among those of all histories.
    """

    rows: I64
    mask: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    target: I64
    event: I64


@dataclass(frozen=True, eq=False)
class Pieces:
    """The training histories, cut so that every event but a user's first is a target once.

    A long history is cut from its end into pieces of ``max_length`` inputs each; a piece sees
    nothing of the one before it.

    Attributes:
        histories: (users x n) CSR in time order.
        max_length: inputs of a piece, at most.
        tokens: of a batch, padding included; a batch holds at least one piece.
        seed: of the order of the batches, and of equals within the order of lengths.
    """

    histories: CSR
    max_length: int
    tokens: int
    seed: int

    def batches(self, epoch: int) -> list[I64]:
        """Return the pieces of each batch; their number is the same in every epoch. O(pieces)."""
        stream = rng(self.seed, "batches", epoch)
        mixed = stream.permutation(len(self._start))
        order = mixed[np.argsort(self._inputs[mixed], kind="stable")]
        cuts = self._cuts
        return [order[cuts[at] : cuts[at + 1]] for at in stream.permutation(len(cuts) - 1)]

    def take(self, pieces: I64) -> Tokens:
        """Return the events of some pieces, each with the one after it."""
        rows, mask, event = self._padded(pieces, 0)
        target = self.histories.indices[event + 1]
        return Tokens(rows, mask, target.astype(np.int64), event)

    def hide(self, pieces: I64, share: float, step: int) -> Cloze:
        """Return some pieces whole, the last target among the events, with a share of them hidden.

        In one piece of ten the last event alone is, as it is at serving. What is hidden is a
        function of the seed and the step. A piece is an event longer than ``tokens`` counts.
        """
        rows, mask, event = self._padded(pieces, 1)
        stream = rng(self.seed, "hidden", step)
        last = np.arange(mask.shape[1]) == mask.sum(1, keepdims=True) - 1
        hidden = mask & (stream.random(mask.shape) < share)
        hidden &= stream.random((len(mask), 1)) >= _LAST_ALONE
        hidden |= last & ~hidden.any(1, keepdims=True)
        return Cloze(rows, mask, hidden, rows[hidden], event[hidden[mask]])

    def _padded(self, pieces: I64, more: int) -> tuple[I64, NDArray[np.bool_], I64]:
        """Return the rows and the mask of pieces with ``more`` events behind, and all events."""
        count = self._inputs[pieces] + more
        step = np.arange(count.max())
        mask = step < count[:, None]
        at = self._start[pieces][:, None] + step
        rows = np.where(mask, self.histories.indices[np.where(mask, at, 0)], 0)
        return rows.astype(np.int64), mask, at[mask]

    @cached_property
    def num_targets(self) -> int:
        """Events that are predicted in an epoch."""
        return int(self._inputs.sum())

    def users(self, pieces: I64) -> I64:
        """Return whose histories they are."""
        return self._cut[2][pieces]

    @property
    def _start(self) -> I64:
        return self._cut[0]

    @property
    def _inputs(self) -> I64:
        return self._cut[1]

    @cached_property
    def _cut(self) -> tuple[I64, I64, I64]:
        """Return the first event, the number of inputs, and the user of each piece."""
        targets = np.maximum(self.histories.lengths - 1, 0)
        pieces = -(-targets // self.max_length)
        user = np.repeat(np.arange(len(targets)), pieces)
        turn = np.arange(len(user)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        stop = targets[user] - turn * self.max_length
        inputs = np.minimum(stop, self.max_length)
        return self.histories.indptr[user] + stop - inputs, inputs, user

    @cached_property
    def _cuts(self) -> list[int]:
        """Where batches begin and end among pieces in the order of their length."""
        inputs = np.sort(self._inputs)
        cuts = [0]
        while (at := cuts[-1]) < len(inputs):
            reach = inputs[at : at + max(1, self.tokens // inputs[at])]
            padded = reach * np.arange(1, len(reach) + 1)
            cuts.append(at + max(1, int(np.searchsorted(padded, self.tokens, side="right"))))
        return cuts
