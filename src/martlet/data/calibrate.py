"""Calibration on a real log: curves are read off, latent numbers are fitted by simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from martlet.core import DataError, Interactions, Progress, rng
from martlet.data.calibration import EVEN, F64, Calibration, falling
from martlet.data.likeness import Likeness
from martlet.data.synthetic import synthesize

FIT_EVENTS = 200_000  # a larger log is fitted on some of its users
WIDE, NARROW, TURNS = 32, 12, 3  # guesses over the whole range, then in each of shrinking ranges
HALVINGS = 8  # of the range of a number that one statistic settles
SMALLEST_WIDTH = 0.002
MOST = 8.0  # of lean and of drift
# What a distance of one is worth to the fit: about its size at a random guess.
SCALE = {"cosine": 0.03, "log_lift": 0.2, "spectrum": 0.2}


def calibrate(
    log: Interactions,
    *,
    source: str = "a log",
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Return the calibration of a log.

    The latent numbers are those whose simulated log is most like the source (method of simulated
    moments): lean and drift make the spread of tastes and the drift come out, width and circle
    ratio the pairs. About 120 simulations of ``FIT_EVENTS`` at most.

    Raises:
        DataError: fewer than 2 users, 2 items or 10 events.
    """
    num_users, num_items = (len(np.unique(rows)) for rows in (log.user_row, log.item_row))
    if min(num_users, num_items) < 2 or len(log) < 10:
        raise DataError(
            f"a log of {len(log)} events, {num_users} users and {num_items} items cannot "
            "calibrate a generator: expected 10 events of 2 users and 2 items, or more"
        )
    step = -(-len(log) // FIT_EVENTS)
    sample = _compact(log.select(log.user_row % step == 0) if step > 1 else log)
    target, trials = Likeness(sample), 0
    best = read_off(log, source)
    settling = 3 * HALVINGS * (1 if best.clock_s is None else 2)
    expected = settling + WIDE + TURNS * (NARROW + 1)

    def simulate(guess: Calibration) -> Likeness:
        nonlocal trials
        trials += 1
        if progress is not None:
            progress("calibrate", trials, expected)
        return Likeness(
            synthesize(
                guess,
                num_users=sample.num_users,
                num_items=sample.num_items,
                num_events=len(sample),
                seed=seed,
            )
        )

    def loss(guess: Calibration) -> float:
        apart = target.distance(simulate(guess), tuple(SCALE))
        return sum(apart[name] / scale for name, scale in SCALE.items())

    best = _settled(best, target, simulate)
    best = min(_guesses(best, 1.0, WIDE, seed), key=loss)
    best = _settled(best, target, simulate)
    for turn in range(1, TURNS + 1):
        best = min([best, *_guesses(best, 0.4**turn, NARROW, seed + turn)], key=loss)
    return _settled(best, target, simulate)


def read_off(log: Interactions, source: str) -> Calibration:
    """Return the calibration whose latent numbers are not fitted yet. O(events log events)."""
    lengths = np.bincount(log.user_row)
    clock, curves = None, [EVEN] * 4
    if log.time_s is not None and log.time_s.max() > log.time_s.min():
        clock = (int(log.time_s.min()), int(log.time_s.max()))
        curves = _clock_curves(log, (log.time_s - clock[0]) / (clock[1] - clock[0]))
    start, span, position, elapsed = (tuple(curve.round(5).tolist()) for curve in curves)
    of = Likeness(log)
    return Calibration(
        source,
        falling(log.item_count[log.item_count > 0]),
        falling(lengths[lengths > 0]),
        tuple(np.quantile(log.weight, EVEN, method="nearest").astype(float).tolist()),
        round(of.weight_by_item, 4),
        round(of.weight_by_user, 4),
        round(of.repeat_share, 4),
        clock,
        start,
        span,
        position,
        elapsed,
    )


def _clock_curves(log: Interactions, share: F64) -> list[F64]:
    begin = np.flatnonzero(np.diff(log.user_row, prepend=-1))
    size = np.diff(begin, append=len(log))
    first, last = share[begin], share[begin + size - 1]
    span = (last - first) / np.maximum(1 - first, 1e-12)
    inner = (share - np.repeat(first, size)) / np.repeat(np.maximum(last - first, 1e-12), size)
    inner = inner[np.repeat(last > first, size)]
    return [
        np.quantile(first, EVEN),
        np.quantile(span, EVEN),
        np.quantile(inner, EVEN) if len(inner) else EVEN,
        np.searchsorted(np.sort(share), EVEN, side="right") / len(log),
    ]


def _guesses(around: Calibration, reach: float, count: int, seed: int) -> list[Calibration]:
    """Return ``count`` guesses within ``reach`` (1: the whole range) of the width and the ratio."""
    u = rng(seed, "calibrate").random((count, 2))
    at = np.array([np.log(around.width) / np.log(SMALLEST_WIDTH), around.circle_ratio])
    at = np.clip(u if reach == 1 else at + reach * (u - 0.5), 0, 1)
    return [
        replace(around, width=round(SMALLEST_WIDTH**a, 5), circle_ratio=round(b, 4))
        for a, b in at.tolist()
    ]


def _settled(
    of: Calibration, target: Likeness, simulate: Callable[[Calibration], Likeness]
) -> Calibration:
    """Return the calibration whose spread of tastes, and whose drift, come out as the source's."""

    def lean(value: float) -> Calibration:
        return replace(of, lean=value)

    def drift(value: float) -> Calibration:
        return replace(of, drift=value)

    of = _halved(lean, lambda found: found.taste[7] - found.taste[2], target, simulate)
    if of.clock_s is None:
        return of
    return _halved(drift, lambda found: -found.drift, target, simulate)


def _halved(
    guess: Callable[[float], Calibration],
    rising: Callable[[Likeness], float],
    target: Likeness,
    simulate: Callable[[Calibration], Likeness],
) -> Calibration:
    """Return the guess whose statistic, which rises with the guess, is the target's."""
    low, high = 0.0, MOST
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        short = rising(simulate(guess(middle))) < rising(target)
        low, high = (middle, high) if short else (low, middle)
    return guess(round((low + high) / 2, 4))


def _compact(log: Interactions) -> Interactions:
    """Return the log over only the users and items that it has events of."""
    users, user_row = np.unique(log.user_row, return_inverse=True)
    items, item_row = np.unique(log.item_row, return_inverse=True)
    return Interactions.sort(
        user_row, item_row, log.weight, log.time_s, num_users=len(users), num_items=len(items)
    )
