"""Calibration on a real log: curves are read off, latent numbers are fitted by simulation."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from martlet.core import DataError, Interactions, Progress, rng
from martlet.data.calibration import EVEN, F64, Calibration, falling
from martlet.data.likeness import Likeness
from martlet.data.synthetic import synthesize

FIT_EVENTS = 200_000  # a larger log is fitted on some of its users
WIDE, NARROW = 48, 12  # guesses over the whole range, then in each of three shrinking ranges


def calibrate(
    log: Interactions,
    *,
    source: str = "a log",
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Return the calibration of a log.

    The latent numbers are those whose simulated log has the pairs and the drift most like the
    source's (method of simulated moments), over about 100 simulations of ``FIT_EVENTS`` at most.

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
    target, trials = Likeness.of(sample), 0
    sizes = {
        "num_users": sample.num_users,
        "num_items": sample.num_items,
        "num_events": len(sample),
    }

    def loss(guess: Calibration) -> float:
        nonlocal trials
        trials += 1
        if progress is not None:
            progress("calibrate", trials, WIDE + 3 * NARROW + 16)
        apart = target.distance(Likeness.of(synthesize(guess, **sizes, seed=seed)))
        return apart["cosine"] / 0.03 + apart["log_lift"] / 0.2 + apart["spectrum"] / 0.5

    best = _with_drift(read_off(log, source), target, sizes, seed)
    best = min(_guesses(best, 1.0, WIDE, seed), key=loss)
    for turn in (1, 2, 3):
        best = min([best, *_guesses(best, 0.4**turn, NARROW, seed + turn)], key=loss)
    return _with_drift(best, target, sizes, seed)


def read_off(log: Interactions, source: str) -> Calibration:
    """Return the calibration whose latent numbers are not fitted yet. O(events log events)."""
    lengths = np.bincount(log.user_row)
    by_item, by_user = (_explained(rows, log.weight) for rows in (log.item_row, log.user_row))
    clock, curves = None, [EVEN] * 4
    if log.time_s is not None and log.time_s.max() > log.time_s.min():
        clock = (int(log.time_s.min()), int(log.time_s.max()))
        curves = _clock_curves(log, (log.time_s - clock[0]) / (clock[1] - clock[0]))
    start, span, position, elapsed = (tuple(curve.round(5).tolist()) for curve in curves)
    return Calibration(
        source,
        falling(log.item_count[log.item_count > 0]),
        falling(lengths[lengths > 0]),
        tuple(np.quantile(log.weight, EVEN, method="nearest").astype(float).tolist()),
        round(by_item, 4),
        round(by_user, 4),
        round(1 - log.matrix.nnz / len(log), 4),
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


def _explained(rows: NDArray[np.int32], weight: NDArray[np.float32]) -> float:
    """Return the share of the variance of ranks that the group explains, chance taken off."""
    values, at = np.unique(weight, return_inverse=True)
    if len(values) == 1:
        return 0.0
    before = np.concatenate([[0], np.cumsum(np.bincount(at))])
    middle = (before[1:] + before[:-1]) / (2 * len(weight))
    score = np.array([NormalDist().inv_cdf(m) for m in middle])[at]
    count = np.bincount(rows)
    mean = np.bincount(rows, score) / np.maximum(1, count)
    within = ((score - mean[rows]) ** 2).sum() / max(1, len(rows) - np.count_nonzero(count))
    return float(np.clip(1 - within / max(score.var(), 1e-12), 0.0, 0.49))


def _guesses(around: Calibration, reach: float, count: int, seed: int) -> list[Calibration]:
    """Return ``count`` guesses within ``reach`` (1: the whole range) of the latent numbers."""
    u = rng(seed, "calibrate").random((count, 4))
    at = np.array(
        [
            around.mainstream / 0.9,
            np.log(around.width) / np.log(0.002),
            np.log(around.num_interests) / np.log(16),
            around.circle_ratio,
        ]
    )
    at = np.clip(u if reach == 1 else at + reach * (u - 0.5), 0, 1)
    return [
        replace(
            around,
            mainstream=round(0.9 * a, 4),
            width=round(0.002**b, 5),
            num_interests=round(16**c),
            circle_ratio=round(d, 4),
        )
        for a, b, c, d in at.tolist()
    ]


def _with_drift(of: Calibration, target: Likeness, sizes: dict[str, int], seed: int) -> Calibration:
    """Return the calibration whose drift comes out as the source's."""
    if of.clock_s is None:
        return of
    low, high = 0.0, 8.0
    for _ in range(8):
        drift = (low + high) / 2
        found = Likeness.of(synthesize(replace(of, drift=drift), **sizes, seed=seed)).drift
        low, high = (drift, high) if found > target.drift else (low, drift)
    return replace(of, drift=round((low + high) / 2, 4))


def _compact(log: Interactions) -> Interactions:
    """Return the log over only the users and items that it has events of."""
    users, user_row = np.unique(log.user_row, return_inverse=True)
    items, item_row = np.unique(log.item_row, return_inverse=True)
    return Interactions.sort(
        user_row, item_row, log.weight, log.time_s, num_users=len(users), num_items=len(items)
    )
