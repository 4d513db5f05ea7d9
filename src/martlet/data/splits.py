"""Which events train, which choose, which measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import DataError, Interactions, SpecError, num_threads, rng
from martlet.kernels.events import order_by, shared_pairs

TRAIN, VALID, TEST = 0, 1, 2


@dataclass(frozen=True)
class TimeSplit:
    """Cut the whole log at two moments: nobody's future is known to the model.

    Attributes:
        valid: share of the events between the moments.
        test: share of the events after the second.
    """

    valid: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)

    def assign(self, events: Interactions, seed: int) -> NDArray[np.int8]:
        """Return (n,) int8 parts. Events of one second stay together.

        Raises:
            DataError: the log has no times.
        """
        if events.time_s is None:
            raise DataError(
                "the log has no time column, so it cannot be split by time: name one with "
                "--time-col, or use --split last-out or --split random:0.1,0.1"
            )
        return self.of_times(events.time_s)

    def of_times(self, time_s: NDArray[np.int64]) -> NDArray[np.int8]:
        """Return (n,) int8 parts by the (n,) times alone."""
        part = np.zeros(len(time_s), np.int8)
        cuts = np.quantile(time_s, [1 - self.valid - self.test, 1 - self.test], method="higher")
        part[time_s >= cuts[0]] = VALID
        part[time_s >= cuts[1]] = TEST if self.test else VALID
        return part


@dataclass(frozen=True)
class LastOut:
    """Hold out the last events of each user who has enough: for sequence benchmarks.

    Attributes:
        valid: events a user before the test ones.
        test: last events a user.
    """

    valid: int = 1
    test: int = 1

    def __post_init__(self) -> None:
        if self.valid < 0 or self.test < 0 or self.valid + self.test < 1:
            raise SpecError(
                f"last-out {self.valid},{self.test}: expected whole numbers, one above 0"
            )

    def assign(self, events: Interactions, seed: int) -> NDArray[np.int8]:
        """Return (n,) int8 parts; a user of too few events trains with all of them."""
        lengths = events.histories.lengths
        enough = lengths > self.valid + self.test
        return _runs(lengths, enough * self.test, enough * self.valid)


@dataclass(frozen=True)
class RandomSplit:
    """Hold out a random share of each user's events, seeded.

    Attributes:
        valid: share of each user's events.
        test: share of each user's events.
    """

    valid: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        _check_shares(self.valid, self.test)

    def assign(self, events: Interactions, seed: int) -> NDArray[np.int8]:
        """Return (n,) int8 parts; every user keeps at least one event to train with."""
        lengths = events.histories.lengths
        test = np.minimum(np.round(lengths * self.test), lengths - 1)
        valid = np.minimum(np.round(lengths * self.valid), lengths - 1 - test)
        # Numbers from 0 to 1 are ordered as their bits are; the smallest of a user come last.
        draw = rng(seed, "split").random(len(events)).view(np.int64)
        np.negative(draw, out=draw)
        order, _ = order_by(events.user_row, events.num_users, draw, num_threads())
        part = np.empty(len(events), np.int8)
        part[order] = _runs(lengths, test, valid)
        return part


@dataclass(frozen=True)
class GivenSplit:
    """Keep a split that was published: the log trains, ``test`` measures.

    Attributes:
        test: another log, anything that ``read`` takes.
        valid: a share of each user's training events, or another log.
    """

    test: Any
    valid: Any = 0.1


Split = TimeSplit | LastOut | RandomSplit | GivenSplit


def parse_split(text: str) -> TimeSplit | LastOut | RandomSplit:
    """Read ``time:0.1,0.1``, ``last-out``, ``last-out:1,1`` or ``random:0.1,0.1``.

    Raises:
        SpecError: anything else.

    >>> parse_split("time:0.1,0.2")
    TimeSplit(valid=0.1, test=0.2)
    """
    kind, _, numbers = text.partition(":")
    classes: dict[str, Any] = {"time": TimeSplit, "last-out": LastOut, "random": RandomSplit}
    try:
        number = int if kind == "last-out" else float
        values = [number(part) for part in numbers.split(",")] if numbers else []
        if kind not in classes or len(values) > 2:
            raise ValueError
        return classes[kind](*values)  # type: ignore[no-any-return]
    except ValueError:
        raise SpecError(
            f"the split {text!r} is unknown: expected time:VALID,TEST, random:VALID,TEST "
            "(shares) or last-out:VALID,TEST (events a user)"
        ) from None


def leakage(train: Interactions, valid: Interactions, test: Interactions) -> dict[str, Any]:
    """Return what of a later part is already in an earlier one: pairs met again, times crossed."""
    found: dict[str, Any] = {}
    parts = {"train": train, "valid": valid, "test": test}
    for earlier, later in (("train", "valid"), ("train", "test"), ("valid", "test")):
        histories = parts[earlier].histories, parts[later].histories
        found[f"pairs in {earlier} and {later}"] = shared_pairs(*histories, num_threads())
        first, second = parts[earlier].time_s, parts[later].time_s
        if first is not None and second is not None and len(first) and len(second):
            found[f"{earlier} ends before {later}"] = bool(first.max() <= second.min())
    return found


def _runs(lengths: Any, test: Any, valid: Any) -> NDArray[np.int8]:
    """Return parts, user by user: the events that train, then as many as choose and measure."""
    test, valid = np.maximum(test, 0), np.maximum(valid, 0)
    counts = np.stack([lengths - valid - test, valid, test], axis=1).astype(np.int64)
    parts = np.tile(np.array([TRAIN, VALID, TEST], np.int8), len(lengths))
    return np.repeat(parts, counts.ravel())


def _check_shares(valid: float, test: float) -> None:
    if not (valid >= 0 and test >= 0 and 0 < valid + test < 1):
        raise SpecError(
            f"shares {valid:g} and {test:g}: expected two numbers of at least 0 whose sum lies "
            "between 0 and 1"
        )
