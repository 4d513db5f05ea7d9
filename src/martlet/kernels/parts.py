"""Users and items in parts that meet in rounds, and items drawn from the part of an event's own.

Where items are drawn, users and items are cut into ``BLOCKS`` parts each, anew by every seed. A
pass is as many rounds; in a round every part of the users meets another part of the items, so
threads move different rows, and their number touches no digit (Gemulla et al., "Large-Scale Matrix
Factorization with Distributed Stochastic Gradient Descent", 2011). An item is drawn evenly from the
part of the event's own item, which is a random one: over the seeds it is even over all.

A part of the items stays in a core's second cache, and the events of one user in one part are taken
one after another, so that its vector stays in the first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import CSR, rng
from martlet.kernels.jit import njit
from martlet.kernels.parallel import spread

I32 = NDArray[np.int32]

BLOCKS = 4
TRIES = 32  # draws of an item that the user has not met; then there is one less
GOLDEN = 0x9E3779B97F4A7C15
_LEAST = 256  # items of a part; a smaller catalogue is not cut: there is enough to draw from
_64_BITS = (1 << 64) - 1


class Parts:
    """Users and items in parts, and the rounds in which they meet."""

    def __init__(self, matrix: CSR, seed: int) -> None:
        stream = rng(seed, "parts")
        count = max(1, min(BLOCKS, matrix.num_cols // _LEAST))
        users = stream.permutation(matrix.num_rows).astype(np.int32)
        items = stream.permutation(matrix.num_cols).astype(np.int32)
        self.users, self.items = np.array_split(users, count), np.array_split(items, count)
        self.place = np.empty(matrix.num_cols, np.int32)
        self.place[items] = np.arange(matrix.num_cols, dtype=np.int32)
        self.keys = stream.integers(2**63, size=(count, count), dtype=np.uint64)

    def rounds(self) -> Iterator[list[tuple[I32, I32, int, Any]]]:
        """Yield the (users, items, place of the first item, key) that may be visited at once."""
        count = len(self.users)
        first = np.cumsum([0, *map(len, self.items)])
        for turn in range(count):
            with_whom = [(part, (part + turn) % count) for part in range(count)]
            yield [
                (self.users[a], self.items[b], int(first[b]), self.keys[a, b]) for a, b in with_whom
            ]

    def visit(self, call: Any, num_threads: int) -> float:
        """Return the sum of ``call`` over all visits, whose order no number of threads touches."""
        total = 0.0
        for meetings in self.rounds():
            found = [0.0] * len(meetings)

            def some(start: int, stop: int, meetings: Any = meetings, found: Any = found) -> None:
                for at in range(start, stop):
                    users, items, first, key = meetings[at]
                    found[at] = call(users, items, self.place, first, key)

            spread(some, len(meetings), num_threads)
            total += math.fsum(found)
        return total


def events_reference(matrix: CSR, count: int, seed: int) -> Iterator[tuple[int, int, list[int]]]:
    """Yield (user, place of the event, drawn items) in the order of the kernels."""
    parts = Parts(matrix, seed)
    for meetings in parts.rounds():
        for users, items, first, key in meetings:
            state = int(key)
            for user in users.tolist():
                span = range(matrix.indptr[user], matrix.indptr[user + 1])
                place = {at: int(parts.place[matrix.indices[at]]) - first for at in span}
                events = [at for at in span if 0 <= place[at] < len(items)]
                met = {place[at] for at in events}
                for turn in range(len(events)):
                    state += GOLDEN
                    other = turn + _below_reference(state, len(events) - turn)
                    events[turn], events[other] = events[other], events[turn]
                    drawn = []
                    for _ in range(count):
                        for _ in range(TRIES):
                            state += GOLDEN
                            at = _below_reference(state, len(items))
                            if at not in met:
                                drawn.append(int(items[at]))
                                break
                    yield user, events[turn], drawn


def _below_reference(state: int, size: int) -> int:
    z = state & _64_BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return ((z ^ (z >> 31)) >> 32) * size >> 32


@njit(cache=True, nogil=True)
def below(state: Any, size: Any) -> Any:
    """Return a number from 0 to ``size`` - 1 of a state: SplitMix64 (Steele, 2014)."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = (z ^ (z >> np.uint64(31))) >> np.uint64(32)
    return np.int64(z * np.uint64(size) >> np.uint64(32))


@njit(cache=True, nogil=True)
def longest(indptr: Any, some: Any) -> Any:
    """Return the most events that one of some rows has."""
    most = 0
    for row in some:
        most = max(most, indptr[row + 1] - indptr[row])
    return most


@njit(cache=True, nogil=True)
def meet(indptr: Any, indices: Any, row: Any, place: Any, first: Any, met: Any, mine: Any) -> Any:
    """Note a user's events among some items: how many, which, and at what places they are met."""
    count = 0
    for at in range(indptr[row], indptr[row + 1]):
        where = place[indices[at]] - first
        if 0 <= where < len(met):
            mine[count] = at
            met[where] = 1
            count += 1
    return count


@njit(cache=True, nogil=True)
def leave(indices: Any, mine: Any, count: Any, place: Any, first: Any, met: Any) -> None:
    """Forget what ``meet`` noted."""
    for turn in range(count):
        met[place[indices[mine[turn]]] - first] = 0
