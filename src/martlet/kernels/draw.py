"""Histories drawn from a latent map of the items: the arithmetic of the synthetic generator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.kernels.jit import njit

MAX_TRIES = 200  # then the next item on the map that the user has not met is taken
TO_UNIT = 2.0**-53
_64_BITS = (1 << 64) - 1
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
U64 = NDArray[np.uint64]


@njit(cache=True, nogil=True)
def _next(state: Any) -> Any:
    """Advance a (1,) uint64 state and return a number in [0, 1): SplitMix64 (Steele, 2014)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return float((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * TO_UNIT


@njit(cache=True, nogil=True)
def _at(curve: Any, share: Any) -> Any:
    """Read an evenly spaced rising curve at ``share`` in [0, 1]."""
    place = share * (len(curve) - 1)
    left = min(int(place), len(curve) - 2)
    return curve[left] + (place - left) * (curve[left + 1] - curve[left])


@njit(cache=True, nogil=True)
def draw_histories(
    seed: np.uint64,
    first_user: int,
    lengths: NDArray[np.int64],
    start: F64,
    span: F64,
    lean: F64,
    position: F64,
    tau: F64,
    circle_share: F64,
    width: float,
    repeat_share: float,
    order: I32,
    mass: F64,
    guide: I32,
    slope: F64,
    level: F64,
) -> tuple[I32, F64]:
    """Return the items and times of consecutive users, each user's events in time order.

    The items lie on several circles, on each in an order of its own, each taking an arc as long as
    its popularity. A user's interest is a point on one circle; an event falls near it, at a
    distance spread evenly over the logarithm from ``width`` to the whole circle. As interests are
    uniform on the circle, the popularity of the items is left as it was given. What was drawn is
    kept or turned away by how the item fares at that time, and by the user's lean to the popular.

    Each user has a random stream of its own, so neither chunks nor their order change a digit.

    Args:
        seed: uint64.
        first_user: number of the first user, so that streams differ from chunk to chunk.
        lengths: (n,) int64 events of each user.
        start: (n,) float64 when each user begins, in [0, 1].
        span: (n,) float64 how long each user stays.
        lean: (n,) float64 how far each user prefers the popular items; negative the rare ones.
        position: (p,) float64 rising curve from 0 to 1: where in the span events lie.
        tau: (q,) float64 rising curve from 0 to 1: share of all events before a time.
        circle_share: (circles,) float64 rising to 1: share of users on a circle or one before.
        width: smallest distance from an interest, in (0, 1].
        repeat_share: share of events that repeat an earlier item of the user.
        order: (circles, num_items) int32 items along each circle.
        mass: (circles, num_items) float64 end of each item's arc, the last 1.
        guide: (circles, g) int32 first place whose arc ends after j / g.
        slope: (num_items,) float64 how an item's log-popularity rises over all events; 0 is steady.
        level: (num_items,) float64 popularity, in [-0.5, 0.5].

    Returns:
        ``(sum(lengths),)`` int32 items, and float64 times in [0, 1]. O(events) on average.
    """
    num_items = order.shape[1]
    total = lengths.sum()
    items = np.empty(total, np.int32)
    times = np.empty(total, np.float64)
    met_by = np.full(num_items, -1, np.int64)
    state = np.zeros(1, np.uint64)
    grid = guide.shape[1]
    log_width = np.log(width)
    begin = 0
    for user in range(len(lengths)):
        # Two rounds part the streams of neighbouring users.
        state[0] = np.uint64(seed) ^ (np.uint64(first_user + user) * np.uint64(0xD1342543DE82EF95))
        _next(state)
        end = begin + lengths[user]

        # Sorted uniform times without a sort: partial sums of exponentials over their total.
        passed = 0.0
        for event in range(begin, end):
            passed -= np.log(1.0 - _next(state))
            times[event] = passed
        passed -= np.log(1.0 - _next(state))
        for event in range(begin, end):
            times[event] = start[user] + span[user] * _at(position, times[event] / passed)

        pick, circle = _next(state), 0
        while pick >= circle_share[circle]:
            circle += 1
        centre, fond = _next(state), lean[user]
        for event in range(begin, end):
            if event > begin and _next(state) < repeat_share:
                items[event] = items[begin + int(_next(state) * (event - begin))]
                continue
            age = _at(tau, times[event]) - 0.5
            item = np.int32(-1)
            place = 0
            for _ in range(MAX_TRIES):
                reach = np.exp(log_width * _next(state))
                y = centre + reach * (_next(state) - 0.5)
                y -= np.floor(y)
                place = guide[circle, min(int(y * grid), grid - 1)]
                while place < num_items - 1 and mass[circle, place] <= y:
                    place += 1
                item = order[circle, place]
                if met_by[item] != user:
                    # At most 0: age and level stay within a half of 0.
                    wish = slope[item] * age - 0.5 * abs(slope[item])
                    wish += fond * level[item] - 0.5 * abs(fond)
                    if wish >= 0.0 or _next(state) < np.exp(wish):
                        break
                item = np.int32(-1)
            if item < 0:
                for step in range(num_items):
                    item = order[circle, (place + step) % num_items]
                    if met_by[item] != user:
                        break
            met_by[item] = user
            items[event] = item
        begin = end
    return items, times


def numbers_reference(state: int) -> Iterator[float]:
    """Yield what ``_next`` returns from a state on, in Python's whole numbers."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _64_BITS
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _64_BITS
        yield ((z ^ (z >> 31)) >> 11) * TO_UNIT


def draw_histories_reference(
    seed: np.uint64,
    first_user: int,
    lengths: NDArray[np.int64],
    start: F64,
    span: F64,
    lean: F64,
    position: F64,
    tau: F64,
    circle_share: F64,
    width: float,
    repeat_share: float,
    order: I32,
    mass: F64,
    slope: F64,
    level: F64,
) -> tuple[I32, F64]:
    """Return the same, a number at a time; places on a circle are searched for, so no guide."""
    items: list[int] = []
    times: list[F64] = []
    for user, length in enumerate(lengths.tolist()):
        stream = numbers_reference(
            int(seed) ^ ((first_user + user) * 0xD1342543DE82EF95 & _64_BITS)
        )
        next(stream)
        passed = np.cumsum([-np.log(1 - next(stream)) for _ in range(length + 1)])
        share = np.interp(passed[:-1] / passed[-1], np.linspace(0, 1, len(position)), position)
        times.append(start[user] + span[user] * share)
        circle = int(np.searchsorted(circle_share, next(stream), side="right"))
        centre = next(stream)
        own: list[int] = []
        for age in np.interp(times[-1], np.linspace(0, 1, len(tau)), tau) - 0.5:
            if own and next(stream) < repeat_share:
                own.append(own[int(next(stream) * len(own))])
                continue
            # How an item fares now and with this user, at most 0.
            wish = slope * age - 0.5 * abs(slope) + lean[user] * level - 0.5 * abs(lean[user])
            for _ in range(MAX_TRIES):
                reach = np.exp(np.log(width) * next(stream))
                y = (centre + reach * (next(stream) - 0.5)) % 1
                place = min(int(np.searchsorted(mass[circle], y, side="right")), len(slope) - 1)
                item = int(order[circle, place])
                if item not in own and (wish[item] >= 0 or next(stream) < np.exp(wish[item])):
                    break
            else:
                ahead = np.roll(order[circle], -place).tolist()
                item = next((one for one in ahead if one not in own), ahead[-1])
            own.append(item)
        items += own
    return np.array(items, np.int32), np.concatenate([*times, np.empty(0)])


def arcs(
    popularity: NDArray[np.floating], circles: int, generator: np.random.Generator
) -> tuple[I32, F64, I32]:
    """Return the ``order``, ``mass`` and ``guide`` of items on random circles. O(circles items)."""
    n = len(popularity)
    order = np.stack([generator.permutation(n).astype(np.int32) for _ in range(circles)])
    mass = np.cumsum(popularity[order].astype(np.float64), axis=1)
    mass /= mass[:, -1:]
    mass[:, -1] = 1.0
    edges = np.arange(n) / n
    guide = np.stack([np.searchsorted(row, edges, side="right") for row in mass])
    return order, mass, np.minimum(guide, n - 1).astype(np.int32)
