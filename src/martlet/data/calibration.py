"""What is remembered of a real log, so that logs like it can be drawn at any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from martlet.core import DataError, Interactions

F64 = NDArray[np.float64]
# Where falling curves are kept: shares of the users or items, the most active first.
PLACES = np.concatenate([np.geomspace(2e-4, 0.1, 28), np.linspace(0.125, 1.0, 36)])
EVEN = np.linspace(0.0, 1.0, 65)  # where rising curves are kept


@dataclass(frozen=True)
class Calibration:
    """A few hundred numbers about a log, none of them about one user.

    Attributes:
        source: name of the log.
        popularity: events of an item over their mean, at ``PLACES``.
        length: events of a user over their mean, at ``PLACES``.
        weight: quantiles of the weights at ``EVEN``.
        weight_of_item: share of the variance of the weights that the item explains.
        weight_of_user: share that the user explains.
        repeat_share: share of events that repeat an earlier pair.
        clock_s: first and last time in Unix seconds; None where the log has no times.
        start: quantiles at ``EVEN`` of when users begin, as a share of the clock.
        span: quantiles at ``EVEN`` of how much of the clock that is left users stay.
        position: quantiles at ``EVEN`` of where in a user's span the events lie.
        elapsed: share of all events before each of ``EVEN`` shares of the clock.
        width: smallest distance of an event from the user's interest; fitted.
        circle_ratio: users on each circle of items over those on the circle before; fitted.
        lean: standard deviation of how far users prefer popular items, or rare ones; fitted.
        drift: standard deviation of how far an item's log-popularity moves; fitted.
    """

    source: str
    popularity: tuple[float, ...]
    length: tuple[float, ...]
    weight: tuple[float, ...]
    weight_of_item: float
    weight_of_user: float
    repeat_share: float
    clock_s: tuple[int, int] | None
    start: tuple[float, ...]
    span: tuple[float, ...]
    position: tuple[float, ...]
    elapsed: tuple[float, ...]
    width: float = 0.05
    circle_ratio: float = 0.5
    lean: float = 0.0
    drift: float = 0.0

    @staticmethod
    def fit(log: Interactions, *, source: str = "a log", seed: int = 0) -> Calibration:
        """Read the curves off a log, and fit the latent numbers; see ``calibrate``.

        Raises:
            DataError: too small a log.
        """
        from martlet.data.calibrate import calibrate

        return calibrate(log, source=source, seed=seed)

    @staticmethod
    def default() -> Calibration:
        """Return the calibration of MovieLens 100K, which comes with the package."""
        from martlet.data.calibrated import ML_100K

        return Calibration.from_json(ML_100K)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Calibration:
        """Return the calibration that ``to_json`` gave.

        Raises:
            DataError: a number is missing, unknown, or a curve has another number of points.
        """
        try:
            given: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
            }
            found = Calibration(**given)
            sizes = [len(found.popularity), len(found.length), len(found.weight), len(found.start)]
            sizes += [len(found.span), len(found.position), len(found.elapsed)]
        except TypeError as error:
            raise DataError(
                f"these are not the numbers of a calibration ({error}): fit it again"
            ) from error
        if sizes != [len(PLACES)] * 2 + [len(EVEN)] * 5:
            raise DataError(
                f"the curves of this calibration have {sizes} points: expected {len(PLACES)} for "
                f"popularity and length, {len(EVEN)} for the others; fit it again"
            )
        return found


def falling(values: NDArray[np.integer]) -> tuple[float, ...]:
    """Return the curve of positive counts, over their mean, at ``PLACES``."""
    ordered = np.sort(values)[::-1] / values.mean()
    at = (np.arange(len(values)) + 0.5) / len(values)
    return tuple(np.interp(PLACES, at, ordered).round(5).tolist())


def spread(curve: tuple[float, ...], n: int) -> F64:
    """Return n values, falling, of mean 1, that follow a ``falling`` curve; never 0."""
    at = (np.arange(n) + 0.5) / n
    values = np.exp(np.interp(np.log(at), np.log(PLACES), np.log(np.maximum(curve, 1e-6))))
    return np.asarray(values / values.mean(), np.float64)
